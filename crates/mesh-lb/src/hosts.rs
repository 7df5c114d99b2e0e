//! The hosts of one cluster at one moment: immutable, built once, shared by all workers.
//!
//! A [`HostSet`] is what a [`Picker`](crate::Picker) chooses from. It is rebuilt when endpoints,
//! the cluster's policy or ejections change; what it is built from ([`Host`]s with their state) is
//! carried over, so a rebuild loses no count and gives no host a second identity. Tables of hashes
//! are part of it, and are carried over too where the hosts that they are made of stay the same.
//! Others are built with the set, but for those of subsets, which may be many: such a table is built
//! by the first request that needs it.

mod group;
mod list;
mod members;
mod subsets;

pub(crate) use group::{Group, Plan, Schedule, Tier};
pub(crate) use list::HostList;
pub(crate) use members::Members;
pub(crate) use subsets::{Held, Subsets, Way};

use crate::hash::Extent;
use crate::tier::Load;
use crate::{Host, slow};
use list::Slots;
use mesh_core::HostId;
use mesh_core::model::{Balancing, Cluster, Drop, Locality, LocalityBalancing, SubsetLocalities};
use std::sync::Arc;
use std::time::Instant;

/// The hosts of one cluster, sorted into priorities and lists to choose from.
#[derive(Debug)]
pub struct HostSet {
    /// Different for each set of one cluster, so that workers see that theirs is old.
    generation: u64,
    /// The cluster's configuration that was in force.
    config: Arc<Cluster>,
    members: Arc<Members>,
    own: Option<Locality>,
    whole: Group,
    subsets: Option<Subsets>,
    /// How many lists and schedules there are.
    slots: usize,
    /// Some host was new when the set was built.
    has_new: bool,
}

/// What a set is built for besides its hosts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Setting<'a> {
    /// Where the node is.
    pub(crate) own: Option<&'a Locality>,
    /// The time, where hosts are slow at first.
    pub(crate) now: Option<Instant>,
    /// What the set replaces.
    pub(crate) previous: Option<&'a HostSet>,
}

// === impl HostSet ===

impl HostSet {
    pub(crate) fn build(
        generation: u64,
        config: Arc<Cluster>,
        members: Arc<Members>,
        setting: Setting<'_>,
    ) -> Self {
        let plan = plan(&config, &members, setting.own);
        let mut slots = Slots::default();
        let whole = Group::build(plan, members.hosts().iter(), &mut slots);
        let subsets = config
            .subsets
            .as_ref()
            .map(|subsets| Subsets::build(plan, subsets, &mut slots));
        let previous = setting.previous;
        whole.build_tables(plan, previous.map(|previous| &previous.whole));
        let old = previous.and_then(|previous| previous.subsets.as_ref());
        if let (Some(subsets), Some(old)) = (&subsets, old) {
            subsets.adopt_tables(plan, old);
        }
        let has_new = match (&config.slow_start, setting.now) {
            (Some(policy), Some(now)) => slow::note(policy, members.hosts(), now),
            _ => false,
        };
        Self {
            generation,
            own: setting.own.cloned(),
            whole,
            subsets,
            slots: slots.count(),
            has_new,
            config,
            members,
        }
    }

    /// Different for each set of one cluster.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// All hosts, in the order in which discovery names them.
    pub fn hosts(&self) -> &[Arc<Host>] {
        self.members.hosts()
    }

    /// The host with this id, if it is in the set.
    pub fn get(&self, id: HostId) -> Option<&Arc<Host>> {
        self.members.get(id)
    }

    /// The host at this address, as Envoy writes it, e.g. `10.0.0.1:80`, `[::1]:80`, `/run/a.sock`,
    /// whatever its health and priority. Other spellings are of nobody.
    pub fn at(&self, address: &str) -> Option<&Arc<Host>> {
        self.members.at(address)
    }

    /// How hosts are chosen.
    pub fn balancing(&self) -> Balancing {
        self.config.balancing
    }

    /// The shares of the priorities, in the order of their numbers.
    pub fn load(&self) -> &Load {
        self.whole.load()
    }

    /// The shares of requests that discovery wants refused, in order, each of what the one before
    /// left.
    pub fn drops(&self) -> &[Drop] {
        &self.members.drops
    }

    /// How many hosts are healthy and not ejected.
    pub fn healthy(&self) -> usize {
        self.tiers().iter().map(|tier| tier.healthy.len()).sum()
    }

    /// How many hosts are degraded and not ejected.
    pub fn degraded(&self) -> usize {
        self.tiers().iter().map(|tier| tier.degraded.len()).sum()
    }

    /// How many hosts are left out when it is judged whether there are enough healthy ones.
    pub(crate) fn excluded(&self) -> usize {
        self.tiers().iter().map(|tier| tier.excluded).sum()
    }

    pub(crate) fn config(&self) -> &Arc<Cluster> {
        &self.config
    }

    pub(crate) fn members(&self) -> &Arc<Members> {
        &self.members
    }

    pub(crate) fn whole(&self) -> &Group {
        &self.whole
    }

    pub(crate) fn tiers(&self) -> &[Tier] {
        self.whole.tiers()
    }

    pub(crate) fn subsets(&self) -> Option<&Subsets> {
        self.subsets.as_ref()
    }

    /// Where the node is.
    pub(crate) fn own(&self) -> Option<&Locality> {
        self.own.as_ref()
    }

    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    pub(crate) fn has_new(&self) -> bool {
        self.has_new
    }

    /// How its groups are built.
    pub(crate) fn plan(&self) -> Plan<'_> {
        plan(&self.config, &self.members, self.own.as_ref())
    }

    /// How large the table of hashes is: that of the last priority that has one, as in Envoy.
    pub(crate) fn extent(&self) -> Option<Extent> {
        let tables = self.tiers().iter().rev().filter_map(Tier::built_table);
        tables.map(|table| table.extent()).next()
    }
}

fn plan<'a>(config: &'a Cluster, members: &'a Members, own: Option<&'a Locality>) -> Plan<'a> {
    Plan {
        config,
        members,
        own,
        weighted: config.localities == LocalityBalancing::Weighted
            && config
                .subsets
                .as_ref()
                .is_none_or(|subsets| subsets.localities != SubsetLocalities::Ignored),
        within: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::{Endpoint, EndpointSet, Health};
    use mesh_test::fixture::address;

    fn endpoint(port: u16, weight: u32, health: Health) -> Arc<Endpoint> {
        let mut endpoint = Endpoint::new(address(&format!("10.0.0.1:{port}")));
        endpoint.weight = weight;
        endpoint.health = health;
        Arc::new(endpoint)
    }

    fn members(endpoints: Vec<Arc<Endpoint>>, previous: &Members) -> Arc<Members> {
        Arc::new(Members::build(
            previous.stamp + 1,
            &EndpointSet::from_endpoints(endpoints),
            previous,
        ))
    }

    fn set(members: &Arc<Members>) -> HostSet {
        HostSet::build(
            1,
            Arc::new(Cluster::new("c")),
            members.clone(),
            Setting::default(),
        )
    }

    #[test]
    fn hosts_are_carried_over_by_address_whatever_else_changes() {
        let first = members(
            vec![
                endpoint(1, 1, Health::Healthy),
                endpoint(2, 1, Health::Healthy),
            ],
            &Members::default(),
        );
        let second = members(
            vec![
                endpoint(2, 9, Health::Degraded),
                endpoint(3, 1, Health::Healthy),
            ],
            &first,
        );
        assert_eq!(second.hosts()[0].id(), first.hosts()[1].id());
        assert_eq!(second.hosts()[0].weight(), 9);
        assert!(!second.contains(first.hosts()[0].id()));
        assert!(second.differs_from(&first));
        let reweighed = members(
            vec![
                endpoint(2, 1, Health::Healthy),
                endpoint(3, 5, Health::Healthy),
            ],
            &second,
        );
        assert!(!reweighed.differs_from(&second), "the same hosts");
    }

    #[test]
    fn an_address_given_twice_is_one_host() {
        let twice = members(
            vec![
                endpoint(1, 3, Health::Healthy),
                endpoint(1, 7, Health::Healthy),
            ],
            &Members::default(),
        );
        assert_eq!(twice.hosts().len(), 1);
        assert_eq!(twice.hosts()[0].weight(), 3, "the first counts");
    }

    #[test]
    fn health_decides_the_list_and_who_drains_is_in_that_of_all_only() {
        let members = members(
            vec![
                endpoint(1, 1, Health::Healthy),
                endpoint(2, 1, Health::Degraded),
                endpoint(3, 1, Health::Unhealthy),
                endpoint(4, 1, Health::Draining),
                endpoint(5, 1, Health::Healthy),
            ],
            &Members::default(),
        );
        members.hosts()[4].set_ejected(true);
        let set = set(&members);
        assert_eq!((set.healthy(), set.degraded()), (1, 1));
        assert_eq!(set.tiers()[0].all.len(), 5);
        assert_eq!(set.hosts().len(), 5);
        assert!(set.get(members.hosts()[3].id()).is_some());
    }
}
