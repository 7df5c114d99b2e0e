//! Which localities come first for a proxy, as istiod has it: priorities and weights of groups of
//! endpoints.
//!
//! A proxy's own locality decides, and its labels where a rule names some. What is known of them is
//! put into a [`Spread`] once, so that proxies that get the same have equal ones.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::discovery::Resolution;
use mesh_core::model::{
    Endpoint, EndpointSet, Locality, LocalityBalancing, LocalityEndpoints, ZoneAware,
};

use super::Compiler;
use super::policy::Policy;
use crate::registry::{Distribution, Entry};
use crate::spec::traffic_policy::{
    LocalitySetting, Pattern, PriorityLabel, TrafficPolicy, ZoneAwareSetting,
};
use crate::world::World;

/// Which endpoints of a cluster come first for a proxy, and which localities get how much.
///
/// It is made by [`compile`](crate::compile) and laid over endpoints by
/// [`endpoints_of`](crate::endpoints_of). Without one, all endpoints have the same priority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// Each locality's share; the rest gets nothing.
    Shares(Vec<(Pattern, u32)>),
    Priorities {
        /// Labels with the values that are wanted, the most important first.
        labels: Vec<(String, String)>,
        /// What is near, where localities count.
        near: Option<Near>,
    },
}

/// What is near to a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Near {
    /// Where it is; of its zone and subzone nothing is said where only regions are told apart.
    own: Locality,
    /// Zones and subzones have priorities of their own.
    by_zone: bool,
    /// The region that follows the own.
    next: Option<String>,
}

const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const SUB_ZONE: &str = "topology.istio.io/subzone";
const NETWORK: &str = "topology.istio.io/network";
const CLUSTER: &str = "topology.istio.io/cluster";

/// What holds for one cluster.
enum Setting<'s> {
    /// Localities have priorities or weights.
    Localities {
        setting: Cow<'s, LocalitySetting>,
        /// Endpoints that fail are noticed.
        fails_over: bool,
        /// No zone is to be preferred where the mesh says so.
        no_zones: bool,
    },
    /// Regions have priorities, and the balancer prefers the own zone.
    Zones(&'s ZoneAwareSetting),
    /// Nothing is told apart, and no zone is to be preferred.
    NoZones,
    /// Nothing is told apart.
    Nothing,
}

/// The destination rule's own wish, else the service's, else the mesh's; zones before localities.
fn setting<'s>(compiler: &Compiler<'s>, entry: &Entry, policy: &'s Policy) -> Setting<'s> {
    let outlier = policy.blocks.outlier.is_some();
    let own = policy.blocks.balancer.as_ref();
    let zones = |zones: &'s ZoneAwareSetting| match zones.enabled {
        true => Setting::Zones(zones),
        false => Setting::NoZones,
    };
    if let Some(own) = own.and_then(|balancer| balancer.zone_aware.as_ref()) {
        return zones(own);
    }
    let mesh = compiler.mesh.zone_aware.as_ref();
    let own = own.and_then(|balancer| balancer.locality.as_ref());
    let (setting, fails_over, no_zones) = match (own, entry.distribution, mesh) {
        (Some(own), ..) => (Cow::Borrowed(own), outlier, false),
        (None, Some(distribution), _) => (Cow::Owned(preferring(distribution)), true, false),
        (None, None, Some(mesh)) if mesh.enabled => return zones(mesh),
        (None, None, mesh) => {
            let locality = &compiler.mesh.locality;
            (Cow::Borrowed(locality), outlier, mesh.is_some())
        }
    };
    match (setting.enabled, no_zones) {
        (true, _) => Setting::Localities {
            setting,
            fails_over,
            no_zones,
        },
        (false, true) => Setting::NoZones,
        (false, false) => Setting::Nothing,
    }
}

/// What a service says of itself stands for these labels.
fn preferring(distribution: Distribution) -> LocalitySetting {
    let keys: &[&str] = match distribution {
        Distribution::SameZone => &[NETWORK, REGION, ZONE],
    };
    let label = |key: &&str| PriorityLabel {
        key: (*key).to_owned(),
        value: None,
    };
    LocalitySetting {
        priorities: keys.iter().map(label).collect(),
        ..LocalitySetting::default()
    }
}

/// How the cluster tells localities of one priority apart: by weight
/// (`locality_weighted_lb_config`) or the own zone from others (`zone_aware_lb_config`).
pub(super) fn localities(
    compiler: &Compiler<'_>,
    entry: &Entry,
    policy: &Policy,
) -> LocalityBalancing {
    let zones = match setting(compiler, entry, policy) {
        Setting::Localities {
            setting,
            fails_over,
            ..
        } if !setting.distribute.is_empty() || fails_over && setting.fails_over() => {
            return LocalityBalancing::Weighted;
        }
        Setting::Localities {
            no_zones: false, ..
        }
        | Setting::Nothing => return LocalityBalancing::Ignored,
        Setting::Zones(setting) => {
            let mut zones = ZoneAware::default();
            zones.minimum = setting.minimum.map_or(zones.minimum, u64::from);
            zones
        }
        // A proxy that knows who is like it prefers its zone unless it is told not to.
        Setting::Localities { no_zones: true, .. } | Setting::NoZones => {
            let mut zones = ZoneAware::default();
            zones.enabled = 0;
            zones
        }
    };
    LocalityBalancing::ZoneAware(zones)
}

/// Whether anything that is compiled of a world may depend on where nodes are.
pub fn minds_localities(world: &World) -> bool {
    let mesh = world.mesh_config();
    !mesh.locality.distribute.is_empty()
        || mesh.zone_aware.is_some()
        || mesh.policy.as_ref().is_some_and(says)
        || world.destination_rules().any(|(_, rule)| {
            let subsets = rule.subsets.iter();
            let subsets = subsets.filter_map(|subset| subset.policy.as_ref());
            rule.policy.iter().chain(subsets).any(says)
        })
        || world
            .catalog()
            .iter()
            .any(|entry| entry.distribution.is_some())
}

/// Whether a policy may tell localities apart: by its own setting, or the mesh's where endpoints
/// that fail are noticed.
pub(super) fn says(policy: &TrafficPolicy) -> bool {
    let ports = policy.ports.iter().map(|port| &port.blocks);
    std::iter::once(&policy.blocks).chain(ports).any(|blocks| {
        let own = blocks.balancer.as_ref();
        let own = own.is_some_and(|one| one.locality.is_some() || one.zone_aware.is_some());
        blocks.outlier.is_some() || own
    })
}

/// What a cluster's endpoints depend on of this node; nothing where all are alike to it.
pub(super) fn spread(
    compiler: &Compiler<'_>,
    entry: &Entry,
    policy: &Policy,
) -> Option<Arc<Spread>> {
    let found = setting(compiler, entry, policy);
    let (by_zone, failover, priorities) = match &found {
        Setting::Localities {
            setting,
            fails_over,
            ..
        } => {
            if !setting.distribute.is_empty() {
                let own = parts(compiler.viewer.locality());
                let mut all = setting.distribute.iter();
                let mine = all.find(|one| one.from.takes(own))?;
                return Some(Arc::new(Spread(Kind::Shares(mine.to.clone()))));
            }
            if !fails_over {
                return None;
            }
            (true, &setting.failover, &setting.priorities)
        }
        Setting::Zones(setting) => (false, &setting.failover, &setting.priorities),
        Setting::NoZones | Setting::Nothing => return None,
    };
    // Regions count in any case where zones are told apart by the balancer.
    let localities = !by_zone || priorities.is_empty() || !failover.is_empty();
    let near = localities.then(|| {
        let mut own = compiler.viewer.locality().clone();
        let mut all = failover.iter();
        let next = all.find(|one| *one.from == *own.region);
        let next = next.map(|one| one.to.clone());
        if !by_zone {
            (own.zone, own.sub_zone) = Default::default();
        }
        Near { own, by_zone, next }
    });
    // istiod looks at no labels where addresses are looked up.
    let labels = match entry.service.resolution {
        Resolution::Dns | Resolution::DnsRoundRobin => Vec::new(),
        _ => wanted(compiler, priorities),
    };
    if labels.is_empty() && near.is_none() {
        return None;
    }
    Some(Arc::new(Spread(Kind::Priorities { labels, near })))
}

/// The labels that count, with the values that this node wants.
fn wanted(compiler: &Compiler<'_>, labels: &[PriorityLabel]) -> Vec<(String, String)> {
    let own = |key: &str| {
        let place = place_of(key);
        let found = place.map(|place| compiler.viewer.locality_part(place));
        match found {
            Some(part) if !part.is_empty() => part.to_owned(),
            _ if key == CLUSTER => KUBERNETES.to_owned(),
            _ => compiler
                .viewer
                .labels()
                .get(key)
                .cloned()
                .unwrap_or_default(),
        }
    };
    // The last value that is said for a label holds for it wherever it stands.
    let said = |key: &str| {
        let mut all = labels.iter().rev().filter(|one| one.key == key);
        all.find_map(|one| one.value.clone())
    };
    let each = labels.iter();
    each.map(|label| {
        let value = said(&label.key).unwrap_or_else(|| own(&label.key));
        (label.key.clone(), value)
    })
    .collect()
}

/// The id of the only cluster that there is.
const KUBERNETES: &str = "Kubernetes";

/// Which part of a locality a label stands for.
fn place_of(key: &str) -> Option<usize> {
    [REGION, ZONE, SUB_ZONE].iter().position(|one| *one == key)
}

fn parts(locality: &Locality) -> [&str; 3] {
    [&locality.region, &locality.zone, &locality.sub_zone]
}

/// The label of an endpoint, as istiod completes it.
fn label<'e>(endpoint: &'e Endpoint, locality: &'e Locality, key: &str) -> &'e str {
    if let Some(place) = place_of(key) {
        let part = parts(locality)[place];
        if !part.is_empty() {
            return part;
        }
    }
    match key {
        CLUSTER => &endpoint.workload.cluster,
        key => endpoint.labels.get(key).map_or("", |value| value),
    }
}

// === impl Spread ===

impl Spread {
    /// Endpoints as the proxy sees them.
    pub(super) fn over(&self, mut set: EndpointSet) -> EndpointSet {
        match &self.0 {
            Kind::Shares(shares) => share(&mut set.localities, shares),
            Kind::Priorities { labels, near } => {
                if !labels.is_empty() {
                    set.localities = by_label(set.localities, labels);
                }
                if let Some(near) = near {
                    by_distance(&mut set.localities, near);
                }
            }
        }
        set
    }
}

/// Each group gets its part of what its locality gets; what nothing is said of gets none.
fn share(groups: &mut [LocalityEndpoints], shares: &[(Pattern, u32)]) {
    let mut rest: Vec<usize> = (0..groups.len()).collect();
    for (pattern, share) in shares {
        let (mine, others): (Vec<_>, Vec<_>) = rest
            .into_iter()
            .partition(|index| pattern.takes(parts(&groups[*index].locality)));
        rest = others;
        let sum: u64 = mine
            .iter()
            .map(|index| u64::from(groups[*index].weight))
            .sum();
        for index in mine {
            let part = u64::from(groups[index].weight) * u64::from(*share);
            if part > 0 {
                let weight = part.div_ceil(sum.max(1));
                groups[index].weight = u32::try_from(weight).unwrap_or(u32::MAX);
            }
        }
    }
    for index in rest {
        groups[index].endpoints.clear();
    }
}

/// The earlier the first label that differs, the later an endpoint's turn.
fn by_label(groups: Vec<LocalityEndpoints>, labels: &[(String, String)]) -> Vec<LocalityEndpoints> {
    let mut split = Vec::new();
    for group in groups {
        let mut by_rank: BTreeMap<usize, Vec<Arc<Endpoint>>> = BTreeMap::new();
        for endpoint in &group.endpoints {
            let differs = |(key, value): &(String, String)| {
                label(endpoint, &group.locality, key) != value.as_str()
            };
            let first = labels.iter().position(differs);
            let rank = first.map_or(0, |first| labels.len() - first);
            by_rank.entry(rank).or_default().push(Arc::clone(endpoint));
        }
        for (rank, endpoints) in by_rank {
            let mut part = LocalityEndpoints::default();
            part.locality = group.locality.clone();
            part.priority = u32::try_from(rank).unwrap_or(u32::MAX);
            part.weight = endpoints
                .iter()
                .fold(0, |sum, one| sum.saturating_add(one.weight));
            part.endpoints = endpoints;
            split.push(part);
        }
    }
    close_up(&mut split);
    split
}

/// The own subzone, zone and region first, then the next region, then the rest.
fn by_distance(groups: &mut [LocalityEndpoints], near: &Near) {
    let Near { own, by_zone, next } = near;
    for group in groups.iter_mut() {
        let there = &group.locality;
        let distance = match next {
            _ if there.region == own.region => match () {
                () if !by_zone => 0,
                () if there.zone != own.zone => 2,
                () if there.sub_zone != own.sub_zone => 1,
                () => 0,
            },
            Some(next) if *there.region != **next => 4,
            _ => 3,
        };
        // Labels, where there were any, count more.
        group.priority = group.priority * 5 + distance;
    }
    close_up(groups);
}

/// Priorities without gaps, from 0.
fn close_up(groups: &mut [LocalityEndpoints]) {
    let mut all: Vec<u32> = groups.iter().map(|group| group.priority).collect();
    all.sort_unstable();
    all.dedup();
    for group in groups {
        let place = all.binary_search(&group.priority).unwrap_or_default();
        group.priority = u32::try_from(place).unwrap_or(u32::MAX);
    }
}
