//! Zone-aware balancing: requests stay in the caller's own zone as far as it can take them (Envoy's
//! `ZoneAwareLoadBalancerBase`).
//!
//! What share of the callers a zone has is told by the hosts of the callers' own cluster, what share
//! of the work it can take by the hosts that are called. A zone with at least as large a share of
//! the latter keeps all of its requests; any other sends on what is too much for it, to zones with
//! room.

use super::{Ask, Near, Turn};
use crate::HostSet;
use crate::hosts::Tier;
use mesh_core::model::{Health, Locality, ZoneAware};
use mesh_core::rng::mix;
use mesh_core::stats::ClusterStat;
use std::collections::BTreeMap;

/// What follows from the hosts of both clusters, until either changes.
#[derive(Debug)]
pub(super) struct Routing {
    /// The peers that this is for.
    generation: u64,
    /// Too many peers are unhealthy to tell anything by them.
    peers_in_panic: bool,
    way: Way,
}

#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// Zones are not told apart.
    Anywhere,
    /// All in the own zone, which is the first.
    Own,
    /// So many of 10,000 in the own zone; the rest where there is room: for each zone its own room
    /// and that of those before it.
    Residual { own: u64, room: Vec<u64> },
}

/// There shall be no host.
#[derive(Debug)]
pub(super) struct Refused;

/// Shares are in parts of this.
const WHOLE: u64 = 10_000;

// === impl Routing ===

impl Routing {
    /// What is kept in `turn`, made again when the peers have changed since.
    pub(super) fn kept_in<'a>(
        turn: &'a mut Turn,
        config: &ZoneAware,
        tier: &Tier,
        set: &HostSet,
        near: Near<'_>,
        ask: &Ask<'_>,
    ) -> &'a Self {
        let generation = near.peers.generation();
        let is_new = !matches!(turn, Turn::Zone(kept) if kept.generation == generation);
        if is_new {
            ask.count(ClusterStat::LbZoneRecalculated);
            let peers = Peers::of(near.peers);
            *turn = Turn::Zone(Self {
                generation,
                peers_in_panic: peers.are_in_panic(set.config().panic_threshold),
                way: Way::find(config, tier, &peers, ask),
            });
        }
        match turn {
            Turn::Zone(kept) => kept,
            _ => unreachable!("it was put there just now"),
        }
    }

    /// The area for a request: its place among those of the priority, or none in particular.
    pub(super) fn area(
        &self,
        config: &ZoneAware,
        tier: &Tier,
        word: u64,
        ask: &Ask<'_>,
    ) -> Result<Option<usize>, Refused> {
        if self.way == Way::Anywhere || word % 100 >= u64::from(config.enabled) {
            return Ok(None);
        }
        if self.peers_in_panic {
            ask.count(ClusterStat::LbLocalClusterNotOk);
            return match config.fail_in_panic {
                true => Err(Refused),
                false => Ok(None),
            };
        }
        let word = mix(word);
        let (own, room) = match &self.way {
            Way::Anywhere => return Ok(None),
            Way::Own => {
                ask.count(ClusterStat::LbZoneAllDirectly);
                return Ok(Some(0));
            }
            Way::Residual { own, room } => (*own, room),
        };
        if word % WHOLE < own {
            ask.count(ClusterStat::LbZoneSampled);
            return Ok(Some(0));
        }
        ask.count(ClusterStat::LbZoneCrossZone);
        let word = mix(word);
        let whole = room.last().copied().unwrap_or(0);
        if whole == 0 {
            ask.count(ClusterStat::LbZoneNoCapacityLeft);
            return Ok(Some((word % tier.areas.len().max(1) as u64) as usize));
        }
        let point = word % whole;
        Ok(Some(room.partition_point(|end| *end <= point)))
    }
}

// === impl Way ===

impl Way {
    fn find(config: &ZoneAware, tier: &Tier, peers: &Peers<'_>, ask: &Ask<'_>) -> Self {
        let areas = &tier.areas;
        if areas.len() < 2 || peers.by_locality.len() < 2 {
            return Self::Anywhere;
        }
        let own_peers = peers.own.and_then(|own| peers.by_locality.get(own));
        if own_peers.is_none_or(|own| own.all == 0) {
            ask.count(ClusterStat::LbLocalClusterNotOk);
            return Self::Anywhere;
        }
        if (tier.healthy.len() as u64) < config.minimum {
            ask.count(ClusterStat::LbZoneClusterTooSmall);
            return Self::Anywhere;
        }
        let callers: u64 = peers.by_locality.values().map(|zone| zone.healthy).sum();
        let called: u64 = areas.iter().map(|area| area.healthy.len() as u64).sum();
        let part = |count: u64, of: u64| (WHOLE * count).checked_div(of).unwrap_or(0);
        let shares: Vec<(u64, u64)> = areas
            .iter()
            .map(|area| match area.healthy.len() as u64 {
                // Nobody there takes anything, so it does not matter who is there.
                0 => (0, 0),
                here => {
                    let zone = peers.by_locality.get(&*area.locality);
                    let healthy = zone.map_or(0, |zone| zone.healthy);
                    (part(healthy, callers), part(here, called))
                }
            })
            .collect();
        let (own_callers, own_called) = shares[0];
        if tier.has_own_area && own_called > 0 && own_called >= own_callers {
            return Self::Own;
        }
        let own = match tier.has_own_area {
            true => (own_called * WHOLE).checked_div(own_callers).unwrap_or(0),
            false => 0,
        };
        let mut sum = 0;
        let room = shares
            .iter()
            .enumerate()
            .map(|(at, (callers, called))| {
                // The own zone has got what it can take already.
                if at > 0 || !tier.has_own_area {
                    sum += called.saturating_sub(*callers);
                }
                sum
            })
            .collect();
        Self::Residual { own, room }
    }
}

/// The callers' own cluster by locality.
struct Peers<'a> {
    own: Option<&'a Locality>,
    by_locality: BTreeMap<&'a Locality, Zone>,
    all: u64,
    usable: u64,
}

#[derive(Default)]
struct Zone {
    all: u64,
    healthy: u64,
}

// === impl Peers ===

impl<'a> Peers<'a> {
    fn of(set: &'a HostSet) -> Self {
        let mut peers = Self {
            own: set.own(),
            by_locality: BTreeMap::new(),
            all: 0,
            usable: 0,
        };
        // Envoy knows one priority of peers only.
        for host in set.hosts().iter().filter(|host| host.priority() == 0) {
            let zone = peers.by_locality.entry(host.locality()).or_default();
            zone.all += 1;
            peers.all += 1;
            match host.health() {
                Health::Healthy => {
                    zone.healthy += 1;
                    peers.usable += 1;
                }
                Health::Degraded => peers.usable += 1,
                _ => {}
            }
        }
        peers
    }

    /// By the threshold of the cluster that is called.
    fn are_in_panic(&self, threshold: u32) -> bool {
        let threshold = u64::from(threshold.min(100));
        match self.all {
            0 => threshold > 0,
            all => 100 * self.usable < threshold * all,
        }
    }
}
