//! Hosts sorted into priorities, health and localities.

use super::list::{HostList, Slots};
use super::members::Members;
use crate::Host;
use crate::hash::{self, Table, Weighed};
use crate::tier::{Counts, Load};
use mesh_core::model::{Balancing, Cluster, Health, Locality, LocalityBalancing};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// Hosts that are balanced by themselves: a whole cluster, or a subset of one.
#[derive(Debug)]
pub(crate) struct Group {
    tiers: Vec<Tier>,
    load: Load,
}

/// The hosts of one priority.
#[derive(Debug)]
pub(crate) struct Tier {
    pub(crate) priority: u32,
    pub(crate) healthy: HostList,
    pub(crate) degraded: HostList,
    /// Everyone.
    pub(crate) all: HostList,
    /// By locality, where they are told apart: the node's own first, the others in their order
    /// (Envoy's `HostsPerLocality`).
    pub(crate) areas: Vec<Area>,
    /// The first area is the node's own.
    pub(crate) has_own_area: bool,
    /// Which areas get healthy and degraded traffic, and how much, where they are weighed.
    pub(crate) schedules: [Schedule; 2],
    /// Where a worker keeps how much stays in its own zone.
    pub(crate) zone_slot: usize,
    /// How many of all are left out when it is judged whether there are enough healthy ones.
    pub(crate) excluded: usize,
    /// The weights of all localities together.
    weights: u64,
    /// Carried over from the set before, or built: with the set for the whole cluster, when it is
    /// first needed for a subset.
    table: OnceLock<Option<Arc<Table>>>,
}

/// The hosts of one locality at one priority.
#[derive(Debug)]
pub(crate) struct Area {
    pub(crate) locality: Arc<Locality>,
    weight: u32,
    pub(crate) healthy: HostList,
    pub(crate) degraded: HostList,
    all: Vec<Arc<Host>>,
    excluded: usize,
}

/// Areas by weight.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// Places in the tier's areas with their effective weights, all above zero.
    pub(crate) areas: Vec<(usize, f64)>,
    pub(crate) slot: usize,
}

/// What a group is built by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) config: &'a Cluster,
    pub(crate) members: &'a Members,
    /// Where the node is.
    pub(crate) own: Option<&'a Locality>,
    /// Localities have weights. In clusters with subsets only where that is said (Envoy's
    /// `locality_weight_aware`).
    pub(crate) weighted: bool,
    /// Only some of the cluster's hosts are meant.
    pub(crate) within: Option<Within<'a>>,
}

/// What groups of some of a cluster's hosts have to know of all of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Within<'a> {
    /// Weights of localities are those of the hosts that are meant: their share of so many (Envoy
    /// `scale_locality_weight`).
    pub(crate) sizes: Option<&'a Sizes>,
}

/// How many hosts there are at each priority and in each locality.
pub(crate) type Sizes = BTreeMap<(u32, Arc<Locality>), usize>;

/// Hosts by their health.
#[derive(Default)]
struct Sorted {
    healthy: Vec<Arc<Host>>,
    degraded: Vec<Arc<Host>>,
    all: Vec<Arc<Host>>,
    excluded: usize,
}

// === impl Sorted ===

impl Sorted {
    fn push(&mut self, host: &Arc<Host>) {
        match host.health() {
            Health::Healthy => self.healthy.push(host.clone()),
            Health::Degraded => self.degraded.push(host.clone()),
            _ => {}
        }
        // Who drains is not missed, as in Envoy (`excludeBasedOnHealthFlag`), and used in panic.
        let drains = host.health() == Health::Draining;
        self.excluded += usize::from(drains || host.checked().excluded);
        self.all.push(host.clone());
    }
}

// === impl Group ===

impl Group {
    pub(crate) fn build<'a>(
        plan: Plan<'_>,
        hosts: impl Iterator<Item = &'a Arc<Host>>,
        slots: &mut Slots,
    ) -> Self {
        let mut priorities: BTreeMap<u32, Vec<&Arc<Host>>> = BTreeMap::new();
        for host in hosts {
            priorities.entry(host.priority()).or_default().push(host);
        }
        let tiers: Vec<_> = priorities
            .into_iter()
            .map(|(priority, hosts)| Tier::build(plan, priority, &hosts, slots))
            .collect();
        let counts: Vec<_> = tiers.iter().map(Tier::counts).collect();
        let overprovisioning = plan.members.overprovisioning();
        Self {
            load: Load::with(&counts, plan.config.panic_threshold, overprovisioning),
            tiers,
        }
    }

    pub(crate) fn tiers(&self) -> &[Tier] {
        &self.tiers
    }

    pub(crate) fn load(&self) -> &Load {
        &self.load
    }

    /// The table of hashes of a priority. None where no hash leads to a host.
    pub(crate) fn table(&self, tier: usize, plan: Plan<'_>) -> Option<&Arc<Table>> {
        let table = self.tiers[tier].table.get_or_init(|| {
            let hosts = self.weighed(tier, plan);
            Table::build(plan.config.balancing, hosts).map(Arc::new)
        });
        table.as_ref()
    }

    /// Builds all tables now; one of `previous` that is the same is shared.
    pub(crate) fn build_tables(&self, plan: Plan<'_>, previous: Option<&Self>) {
        if !plan.has_tables() {
            return;
        }
        if let Some(previous) = previous {
            self.adopt_tables(plan, previous);
        }
        for at in 0..self.tiers.len() {
            self.table(at, plan);
        }
    }

    /// Shares the tables of `previous` that are the same; the others are built when they are first
    /// needed.
    pub(crate) fn adopt_tables(&self, plan: Plan<'_>, previous: &Self) {
        if !plan.has_tables() {
            return;
        }
        for (at, tier) in self.tiers.iter().enumerate() {
            let mut tiers = previous.tiers.iter();
            let old = tiers.find(|old| old.priority == tier.priority);
            let Some(old) = old.and_then(Tier::built_table) else {
                continue;
            };
            if old.is_for(plan.config.balancing, &self.weighed(at, plan)) {
                // Nobody but us has seen the tier yet.
                let _ = tier.table.set(Some(old.clone()));
            }
        }
    }

    /// The hosts that hashes of a priority lead to: the healthy ones, or in panic all, by weight
    /// and where localities are weighed by the weights of those, as they are configured (Envoy's
    /// `normalizeWeights`).
    pub(crate) fn weighed(&self, tier: usize, plan: Plan<'_>) -> Vec<Weighed> {
        let panic = self.load.is_in_panic(tier);
        let tier = &self.tiers[tier];
        let mut hosts = Vec::new();
        if !plan.weighted {
            let list = if panic { &tier.all } else { &tier.healthy };
            hash::shares(list.hosts(), 1.0, &mut hosts);
            return hosts;
        }
        for area in tier.areas.iter().filter(|area| area.weight > 0) {
            let part = f64::from(area.weight) / tier.weights as f64;
            let list = if panic {
                &area.all
            } else {
                area.healthy.hosts()
            };
            hash::shares(list, part, &mut hosts);
        }
        hosts
    }
}

// === impl Plan ===

impl Plan<'_> {
    /// Whether hosts are chosen by hashes.
    fn has_tables(self) -> bool {
        let balancing = self.config.balancing;
        matches!(balancing, Balancing::RingHash(_) | Balancing::Maglev(_))
    }
}

impl Plan<'_> {
    /// What a locality weighs with so many of its hosts.
    fn weight(self, priority: u32, locality: &Arc<Locality>, hosts: usize) -> u32 {
        if !self.weighted {
            return 0;
        }
        let weight = self.members.weight(priority, locality);
        let Some(sizes) = self.within.and_then(|within| within.sizes) else {
            return weight;
        };
        match sizes.get(&(priority, locality.clone())) {
            // In single precision and rounded, as Envoy does it.
            Some(all) if *all > 0 => {
                let part = u64::from(weight) * hosts as u64;
                (part as f32 / *all as f32).round() as u32
            }
            _ => 0,
        }
    }
}

// === impl Tier ===

impl Tier {
    fn build(plan: Plan<'_>, priority: u32, hosts: &[&Arc<Host>], slots: &mut Slots) -> Self {
        let mut sorted = Sorted::default();
        hosts.iter().for_each(|host| sorted.push(host));
        let areas = match plan.config.localities {
            // Who says where the node is wants them told apart.
            LocalityBalancing::Ignored if plan.own.is_none() => Vec::new(),
            _ => areas(plan, priority, hosts, slots),
        };
        let of_areas = areas.iter().map(|area| u64::from(area.weight)).sum();
        let weights = match plan.within {
            // Localities that none of the hosts is in count, too, as in Envoy.
            Some(Within { sizes: None }) if plan.weighted => plan.members.weights_at(priority),
            _ => of_areas,
        };
        let has_own_area = areas
            .first()
            .is_some_and(|area| Some(&*area.locality) == plan.own);
        let schedules = [true, false].map(|healthy| Schedule {
            areas: match plan.weighted {
                true => effective(&areas, healthy, plan.members.overprovisioning()),
                false => Vec::new(),
            },
            slot: slots.next(),
        });
        Self {
            priority,
            healthy: HostList::new(sorted.healthy, slots),
            degraded: HostList::new(sorted.degraded, slots),
            all: HostList::new(sorted.all, slots),
            areas,
            has_own_area,
            schedules,
            zone_slot: slots.next(),
            excluded: sorted.excluded,
            weights,
            table: OnceLock::new(),
        }
    }

    /// The table of hashes, if it was built and there is one.
    pub(crate) fn built_table(&self) -> Option<&Arc<Table>> {
        self.table.get()?.as_ref()
    }

    fn counts(&self) -> Counts {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Counts {
            total: count(self.all.len() - self.excluded),
            healthy: count(self.healthy.len()),
            degraded: count(self.degraded.len()),
            excluded: count(self.excluded),
        }
    }
}

/// The hosts of one priority by locality: the node's own first, the others in their order.
fn areas(plan: Plan<'_>, priority: u32, hosts: &[&Arc<Host>], slots: &mut Slots) -> Vec<Area> {
    let mut by_locality: BTreeMap<(bool, &Arc<Locality>), Sorted> = BTreeMap::new();
    for host in hosts {
        let locality = host.shared_locality();
        let is_other = Some(&**locality) != plan.own;
        by_locality
            .entry((is_other, locality))
            .or_default()
            .push(host);
    }
    by_locality
        .into_iter()
        .map(|((_, locality), sorted)| Area {
            weight: plan.weight(priority, locality, sorted.all.len()),
            locality: locality.clone(),
            healthy: HostList::new(sorted.healthy, slots),
            degraded: HostList::new(sorted.degraded, slots),
            all: sorted.all,
            excluded: sorted.excluded,
        })
        .collect()
}

/// What of its weight each area gets with the hosts that it has left (Envoy's
/// `effectiveLocalityWeight`).
fn effective(areas: &[Area], healthy: bool, overprovisioning: u32) -> Vec<(usize, f64)> {
    let weights = areas.iter().enumerate().map(|(at, area)| {
        let usable = if healthy {
            &area.healthy
        } else {
            &area.degraded
        };
        let count = area.all.len() - area.excluded;
        if count == 0 {
            return (at, 0.0);
        }
        let ratio = usable.len() as f64 / count as f64;
        let available = (f64::from(overprovisioning) / 100.0 * ratio).min(1.0);
        (at, f64::from(area.weight) * available)
    });
    weights.filter(|(_, weight)| *weight > 0.0).collect()
}
