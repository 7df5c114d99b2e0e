//! The hosts of one cluster at one moment: immutable, built once, shared by all workers.
//!
//! A [`HostSet`] is what a [`Picker`](crate::Picker) chooses from. It is rebuilt when endpoints,
//! the cluster's policy or ejections change; what it is built from ([`Host`]s with their state) is
//! carried over, so a rebuild loses no count and gives no host a second identity.

use crate::Host;
use crate::tier::{Counts, Load};
use crate::words::WordMap;
use mesh_core::HostId;
use mesh_core::model::{Address, Balancing, Cluster, EndpointSet, Health};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// The hosts of one cluster, sorted into priorities and lists to choose from.
#[derive(Debug)]
pub struct HostSet {
    /// Different for each set of one cluster, so that workers see that theirs is old.
    generation: u64,
    /// The cluster's configuration that was in force.
    config: Arc<Cluster>,
    members: Arc<Members>,
    tiers: Vec<Tier>,
    load: Load,
}

/// Which hosts there are, whatever their health. Shared by the sets between two changes of
/// endpoints.
#[derive(Debug, Default)]
pub(crate) struct Members {
    /// Different for each change of endpoints.
    pub(crate) stamp: u64,
    hosts: Vec<Arc<Host>>,
    by_id: WordMap<HostId, usize>,
}

/// The hosts of one priority.
#[derive(Debug)]
pub(crate) struct Tier {
    pub(crate) priority: u32,
    pub(crate) healthy: HostList,
    pub(crate) degraded: HostList,
    /// Everyone but those that drain.
    pub(crate) all: HostList,
}

/// Hosts to choose from by weight.
#[derive(Debug, Default)]
pub(crate) struct HostList {
    hosts: Vec<Arc<Host>>,
    /// Sums of weights up to and including each host; empty when all weights are the same.
    sums: Vec<u64>,
}

// === impl HostSet ===

impl HostSet {
    pub(crate) fn build(generation: u64, config: Arc<Cluster>, members: Arc<Members>) -> Self {
        let mut priorities: BTreeMap<u32, [Vec<Arc<Host>>; 3]> = BTreeMap::new();
        for host in &members.hosts {
            let [healthy, degraded, all] = priorities.entry(host.priority()).or_default();
            match host.health() {
                Health::Healthy => healthy.push(host.clone()),
                Health::Degraded => degraded.push(host.clone()),
                // Gets no new requests, not even in panic, and is not missed either.
                Health::Draining => continue,
                _ => {}
            }
            all.push(host.clone());
        }
        let tiers: Vec<_> = priorities
            .into_iter()
            .map(|(priority, [healthy, degraded, all])| Tier {
                priority,
                healthy: HostList::new(healthy),
                degraded: HostList::new(degraded),
                all: HostList::new(all),
            })
            .collect();
        let counts: Vec<_> = tiers.iter().map(Tier::counts).collect();
        Self {
            generation,
            load: Load::compute(&counts, config.panic_threshold),
            config,
            members,
            tiers,
        }
    }

    /// Different for each set of one cluster.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// All hosts, in the order in which discovery names them.
    pub fn hosts(&self) -> &[Arc<Host>] {
        &self.members.hosts
    }

    /// The host with this id, if it is in the set.
    pub fn get(&self, id: HostId) -> Option<&Arc<Host>> {
        self.members.hosts.get(*self.members.by_id.get(&id)?)
    }

    /// How hosts are chosen.
    pub fn balancing(&self) -> Balancing {
        self.config.balancing
    }

    /// The shares of the priorities, in the order of their numbers.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// How many hosts are healthy and not ejected.
    pub fn healthy(&self) -> usize {
        self.tiers.iter().map(|tier| tier.healthy.len()).sum()
    }

    /// How many hosts are degraded and not ejected.
    pub fn degraded(&self) -> usize {
        self.tiers.iter().map(|tier| tier.degraded.len()).sum()
    }

    pub(crate) fn config(&self) -> &Arc<Cluster> {
        &self.config
    }

    pub(crate) fn members(&self) -> &Arc<Members> {
        &self.members
    }

    pub(crate) fn tiers(&self) -> &[Tier] {
        &self.tiers
    }
}

// === impl Members ===

impl Members {
    /// The hosts for these endpoints: those of `previous` where the address is the same. Of
    /// several endpoints with one address the first counts.
    pub(crate) fn build(stamp: u64, endpoints: &EndpointSet, previous: &Self) -> Self {
        let known: HashMap<&Address, &Arc<Host>> = previous
            .hosts
            .iter()
            .map(|host| (host.address(), host))
            .collect();
        let mut taken: HashSet<&Address> = HashSet::with_capacity(endpoints.len());
        let mut hosts = Vec::with_capacity(endpoints.len());
        for group in &endpoints.localities {
            let locality = Arc::new(group.locality.clone());
            for endpoint in &group.endpoints {
                if !taken.insert(&endpoint.address) {
                    continue;
                }
                hosts.push(match known.get(&endpoint.address) {
                    Some(host) => host.described(endpoint, group.priority, &locality),
                    None => Arc::new(Host::new(
                        endpoint.clone(),
                        group.priority,
                        locality.clone(),
                    )),
                });
            }
        }
        let by_id = hosts
            .iter()
            .enumerate()
            .map(|(at, host)| (host.id(), at))
            .collect();
        Self {
            stamp,
            hosts,
            by_id,
        }
    }

    pub(crate) fn hosts(&self) -> &[Arc<Host>] {
        &self.hosts
    }

    pub(crate) fn contains(&self, id: HostId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Whether these are not the same hosts as `other`'s.
    pub(crate) fn differs_from(&self, other: &Self) -> bool {
        self.hosts.len() != other.hosts.len()
            || !self.hosts.iter().all(|host| other.contains(host.id()))
    }
}

// === impl Tier ===

impl Tier {
    fn counts(&self) -> Counts {
        let count = |list: &HostList| u32::try_from(list.len()).unwrap_or(u32::MAX);
        Counts {
            total: count(&self.all),
            healthy: count(&self.healthy),
            degraded: count(&self.degraded),
        }
    }
}

// === impl HostList ===

impl HostList {
    pub(crate) fn new(hosts: Vec<Arc<Host>>) -> Self {
        let equal = hosts
            .windows(2)
            .all(|pair| pair[0].weight() == pair[1].weight());
        let mut sum = 0;
        let sums = hosts
            .iter()
            .filter(|_| !equal)
            .map(|host| {
                sum += u64::from(host.weight());
                sum
            })
            .collect();
        Self { hosts, sums }
    }

    pub(crate) fn len(&self) -> usize {
        self.hosts.len()
    }

    pub(crate) fn hosts(&self) -> &[Arc<Host>] {
        &self.hosts
    }

    pub(crate) fn has_equal_weights(&self) -> bool {
        self.sums.is_empty()
    }

    /// The host at this point of the line of all weights, laid end to end.
    pub(crate) fn at_weight(&self, word: u64) -> usize {
        match self.sums.last() {
            None => (word % self.hosts.len() as u64) as usize,
            Some(whole) => {
                let point = word % whole;
                self.sums.partition_point(|end| *end <= point)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::Endpoint;
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
        HostSet::build(1, Arc::new(Cluster::new("c")), members.clone())
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
    fn health_decides_the_list_and_who_drains_is_in_none() {
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
        assert_eq!(set.tiers()[0].all.len(), 4);
        assert_eq!(set.hosts().len(), 5);
        assert!(set.get(members.hosts()[3].id()).is_some());
    }

    #[test]
    fn a_point_on_the_line_of_weights_finds_its_host() {
        let members = members(
            vec![
                endpoint(1, 2, Health::Healthy),
                endpoint(2, 1, Health::Healthy),
                endpoint(3, 3, Health::Healthy),
            ],
            &Members::default(),
        );
        let list = HostList::new(members.hosts().to_vec());
        let found: Vec<_> = (0..7).map(|point| list.at_weight(point)).collect();
        assert_eq!(found, [0, 0, 1, 2, 2, 2, 0]);
    }
}
