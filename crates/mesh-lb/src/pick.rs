//! Chooses a host from a [`HostSet`].
//!
//! A [`Picker`] belongs to one worker: it holds the cursors of round robin and of the weighted
//! schedules, and starts them anew, at a random place, when it is shown another set. It takes no
//! lock and no clock, and every choice follows from the set, the cursors and what is [asked](Ask).
//!
//! First comes the subset, where requests ask for one; then the priority; then the locality, where
//! they are told apart; then the host. Balancers that go by hashes take priority and host from the
//! hash, and know localities by their weights only.
//!
//! ```
//! use mesh_core::model::{Address, Balancing, Cluster, EndpointSet, SnapshotBuilder};
//! use mesh_lb::{Avoid, ClusterHosts, Picker};
//!
//! let mut cluster = Cluster::new("reviews");
//! cluster.balancing = Balancing::RoundRobin;
//! let mut builder = SnapshotBuilder::new();
//! builder.cluster(cluster);
//! let addresses = ["10.0.0.1:80".parse::<Address>()?, "10.0.0.2:80".parse()?];
//! builder.endpoints("reviews", EndpointSet::of(addresses));
//! let (snapshot, _) = builder.build()?;
//!
//! let set = ClusterHosts::of(&snapshot.clusters()[0]).current();
//! let mut picker = Picker::default();
//! let first = picker.pick(&set, 0, Avoid::NONE).expect("both are healthy");
//! let second = picker.pick(&set, 0, Avoid::NONE).expect("both are healthy");
//! assert_ne!(first.host.id(), second.host.id());
//! # Ok::<(), mesh_core::Invalid>(())
//! ```

mod ask;
mod avoid;
mod edf;
mod least_request;
mod random;
mod round_robin;
mod weight;
mod zone;

pub use ask::{Ask, Near};
pub use avoid::Avoid;

use crate::hosts::{Group, Held, HostList, Schedule, Subsets, Tier, Way};
use crate::tier::Availability;
use crate::{Host, HostSet};
use mesh_core::HostId;
use mesh_core::model::{Balancing, LocalityBalancing, SubsetFallback};
use mesh_core::rng::mix;
use mesh_core::stats::ClusterStat;
use std::sync::Arc;
use weight::Weigher;

/// One worker's place in the rotation of one cluster.
#[derive(Debug, Default)]
pub struct Picker {
    /// The set that the turns belong to.
    generation: Option<u64>,
    /// For each list and schedule of the set, by its number.
    turns: Vec<Turn>,
}

/// The host that was chosen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Pick {
    /// The host.
    pub host: Arc<Host>,
    /// Its priority is in panic: it may be unhealthy.
    pub panic: bool,
}

/// Where a list's rotation stands.
#[derive(Debug, Default)]
enum Turn {
    #[default]
    Unset,
    Next(usize),
    Cycle(edf::Cycle),
    Edf(edf::Edf),
    /// How much stays in the own zone.
    Zone(zone::Routing),
}

// === impl Picker ===

impl Picker {
    /// Chooses a host. None when the set has none that may be used.
    pub fn pick(&mut self, set: &HostSet, word: u64, avoid: Avoid<'_>) -> Option<Pick> {
        self.choose(set, &Ask::new(word).avoid(avoid))
    }

    /// Chooses a host for what is asked. None when the set has none that may be used.
    pub fn choose(&mut self, set: &HostSet, ask: &Ask<'_>) -> Option<Pick> {
        if self.generation != Some(set.generation()) {
            self.generation = Some(set.generation());
            self.turns.clear();
            self.turns.resize_with(set.slots(), Default::default);
        }
        match set.subsets() {
            None => self.choose_from(set, set.whole(), ask),
            Some(subsets) => self.choose_subset(set, subsets, ask),
        }
    }

    /// From the subset that is asked for, or what there is instead of it; where a request brings
    /// a list of further wishes, for each of those in turn instead (Envoy `FALLBACK_LIST`).
    fn choose_subset(&mut self, set: &HostSet, subsets: &Subsets, ask: &Ask<'_>) -> Option<Pick> {
        let Some(wishes) = subsets.wishes(ask.subset) else {
            return self.choose_one_subset(set, subsets, ask);
        };
        wishes.iter().find_map(|wish| {
            let ask = Ask {
                subset: Some(wish),
                ..*ask
            };
            self.choose_one_subset(set, subsets, &ask)
        })
    }

    fn choose_one_subset(
        &mut self,
        set: &HostSet,
        subsets: &Subsets,
        ask: &Ask<'_>,
    ) -> Option<Pick> {
        let fallback = match subsets.way(ask.subset) {
            Way::Part(part) => {
                ask.count(ClusterStat::LbSubsetsSelected);
                return match &part.held {
                    Held::Group(group) => self.choose_from(set, group, ask),
                    Held::Single(host) => Some(Pick {
                        host: host.clone(),
                        panic: false,
                    }),
                };
            }
            Way::Instead(fallback) => return self.choose_fallback(set, subsets, fallback, ask),
            Way::Usual(fallback) => fallback,
        };
        if fallback == SubsetFallback::None {
            return None;
        }
        if let Some(pick) = self.choose_fallback(set, subsets, fallback, ask) {
            ask.count(ClusterStat::LbSubsetsFallback);
            return Some(pick);
        }
        if !subsets.config().panic_mode_any {
            return None;
        }
        let pick = self.choose_from(set, set.whole(), ask)?;
        ask.count(ClusterStat::LbSubsetsFallbackPanic);
        Some(pick)
    }

    fn choose_fallback(
        &mut self,
        set: &HostSet,
        subsets: &Subsets,
        fallback: SubsetFallback,
        ask: &Ask<'_>,
    ) -> Option<Pick> {
        match fallback {
            SubsetFallback::Any => self.choose_from(set, set.whole(), ask),
            SubsetFallback::Default => self.choose_from(set, subsets.default_group()?, ask),
            _ => None,
        }
    }

    fn choose_from(&mut self, set: &HostSet, group: &Group, ask: &Ask<'_>) -> Option<Pick> {
        if matches!(
            set.balancing(),
            Balancing::RingHash(_) | Balancing::Maglev(_)
        ) {
            return by_hash(set, group, ask);
        }
        let mut draw = ask.word;
        let mut left = ask.avoid.redraws;
        loop {
            let pick = self.draw(set, group, draw, ask)?;
            if left == 0 || !ask.avoid.would_rather_not(&pick.host) {
                return Some(pick);
            }
            left -= 1;
            draw = mix(draw.wrapping_add(1));
        }
    }

    fn draw(&mut self, set: &HostSet, group: &Group, word: u64, ask: &Ask<'_>) -> Option<Pick> {
        if group.tiers().is_empty() {
            return nobody(set, ask);
        }
        let was_tried = |tried: &[HostId], tier: usize| {
            let priority = group.tiers()[tier].priority;
            let of_tier = |id: &HostId| set.get(*id).map(|h| h.priority()) == Some(priority);
            tried.iter().any(of_tier)
        };
        let is_all = |tried: &[HostId]| group.load().is_empty_without(|at| was_tried(tried, at));
        let (tier, availability) = match ask.avoid.excluded(is_all) {
            [] => group.load().choose(word)?,
            tried => group
                .load()
                .choose_without(|at| was_tried(tried, at), word)?,
        };
        let tier = &group.tiers()[tier];
        // The priority was chosen with the word itself; the rest needs independent ones.
        let word = mix(word);
        let panic = availability == Availability::Panic;
        let list = if panic {
            ask.count(ClusterStat::LbHealthyPanic);
            if let LocalityBalancing::ZoneAware(zone) = set.config().localities
                && zone.fail_in_panic
            {
                return None;
            }
            &tier.all
        } else {
            self.list(set, tier, availability, word, ask)?
        };
        if list.len() == 0 {
            return None;
        }
        let weigher = Weigher::of_set(set, ask.now);
        let turn = &mut self.turns[list.slot()];
        let at = match set.balancing() {
            Balancing::RoundRobin => round_robin::pick(turn, list, word, weigher),
            Balancing::LeastRequest { choices, .. } => {
                least_request::pick(turn, list, word, choices, weigher)
            }
            _ => random::pick(list, word),
        };
        Some(Pick {
            host: list.hosts()[at].clone(),
            panic,
        })
    }

    /// The hosts of a priority to choose from: of a locality, where they are told apart. None
    /// where there shall be none.
    fn list<'a>(
        &mut self,
        set: &HostSet,
        tier: &'a Tier,
        availability: Availability,
        word: u64,
        ask: &Ask<'_>,
    ) -> Option<&'a HostList> {
        let healthy = availability == Availability::Healthy;
        let area = match set.config().localities {
            LocalityBalancing::Weighted => {
                self.weighed_area(&tier.schedules[usize::from(!healthy)], word)
            }
            _ => None,
        };
        // Envoy does it for the first priority only, and by weights where there are some.
        let near = ask.near.filter(|_| area.is_none() && tier.priority == 0);
        let area = match (near, set.config().zones()) {
            (Some(near), Some(config)) => {
                let turn = &mut self.turns[tier.zone_slot];
                let routing = zone::Routing::kept_in(turn, &config, tier, set, near, ask);
                routing.area(&config, tier, mix(!word), ask).ok()?
            }
            _ => area,
        };
        Some(match (area, healthy) {
            (Some(at), true) => &tier.areas[at].healthy,
            (Some(at), false) => &tier.areas[at].degraded,
            (None, true) => &tier.healthy,
            (None, false) => &tier.degraded,
        })
    }

    /// The place of the area whose turn it is. None where no area has a weight.
    fn weighed_area(&mut self, schedule: &Schedule, word: u64) -> Option<usize> {
        let areas = &schedule.areas;
        if areas.len() < 2 {
            return areas.first().map(|(at, _)| *at);
        }
        let turn = &mut self.turns[schedule.slot];
        let at = edf::Edf::turn(turn, areas.len(), mix(word), |at| areas[at].1);
        Some(areas[at].0)
    }
}

/// There is no host, which counts as panic unless that is switched off, as in Envoy.
fn nobody(set: &HostSet, ask: &Ask<'_>) -> Option<Pick> {
    if set.config().panic_threshold > 0 {
        ask.count(ClusterStat::LbHealthyPanic);
    }
    None
}

/// The hash chooses the priority and the host; without one it is any. Degraded hosts and the
/// priorities of earlier attempts do not come into it (Envoy's `ThreadAwareLoadBalancerBase`).
fn by_hash(set: &HostSet, group: &Group, ask: &Ask<'_>) -> Option<Pick> {
    if group.tiers().is_empty() {
        return nobody(set, ask);
    }
    let hash = ask.hash.unwrap_or(ask.word);
    let (tier, _) = group.load().choose(hash)?;
    let panic = group.load().is_in_panic(tier);
    if panic {
        ask.count(ClusterStat::LbHealthyPanic);
    }
    let table = group.table(tier, set.plan())?;
    let mut attempt = 0;
    loop {
        let host = table.choose(hash, attempt, |hosts| ask.active(hosts));
        if attempt >= ask.avoid.redraws || !ask.avoid.would_rather_not(host) {
            return Some(Pick {
                host: host.clone(),
                panic,
            });
        }
        attempt += 1;
    }
}

// === impl HostList ===

impl HostList {
    /// A place in the list for a word.
    fn anywhere(&self, word: u64) -> usize {
        (word % self.len() as u64) as usize
    }
}

#[cfg(test)]
mod local_tests;
#[cfg(test)]
mod tests;
