//! Which hosts a cluster has, whatever their health.

use super::group::Sizes;
use crate::tier::OVERPROVISIONING;
use crate::words::WordMap;
use crate::{Host, report};
use mesh_core::HostId;
use mesh_core::model::{Address, Drop, EndpointSet, Locality, ReportedWeights};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Which hosts there are, whatever their health. Shared by the sets between two changes of
/// endpoints.
#[derive(Debug, Default)]
pub(crate) struct Members {
    /// Different for each change of endpoints.
    pub(crate) stamp: u64,
    hosts: Vec<Arc<Host>>,
    by_id: WordMap<HostId, usize>,
    /// Made when somebody first asks for one.
    by_address: OnceLock<HashMap<Address, usize>>,
    overprovisioning: Option<u32>,
    /// Shares of requests that are refused.
    pub(crate) drops: Vec<Drop>,
    /// The weights of localities, by priority; what is not here has none.
    weights: HashMap<(u32, Arc<Locality>), u32>,
}

// === impl Members ===

impl Members {
    /// The hosts for these endpoints: those of `previous` where the address is the same. Of
    /// several endpoints with one address the first counts. Those of `previous` that are not among
    /// the endpoints any more are kept if they are to stay.
    pub(crate) fn update(
        stamp: u64,
        endpoints: &EndpointSet,
        previous: &Self,
        stays: impl Fn(&Host) -> bool,
    ) -> Self {
        let known: HashMap<&Address, &Arc<Host>> = previous
            .hosts
            .iter()
            .map(|host| (host.address(), host))
            .collect();
        let mut taken: HashSet<&Address> = HashSet::with_capacity(endpoints.len());
        let mut hosts = Vec::with_capacity(endpoints.len());
        let mut weights = HashMap::new();
        for group in &endpoints.localities {
            let locality = Arc::new(group.locality.clone());
            weights.insert((group.priority, locality.clone()), group.weight);
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
        let left = previous.hosts.iter();
        let left = left.filter(|host| !taken.contains(host.address()) && stays(host));
        hosts.extend(left.map(Host::left));
        Self {
            stamp,
            by_id: by_id(&hosts),
            by_address: OnceLock::new(),
            hosts,
            overprovisioning: endpoints.overprovisioning,
            drops: endpoints.drops.clone(),
            weights,
        }
    }

    /// As [`Members::update`]; nobody stays.
    #[cfg(test)]
    pub(crate) fn build(stamp: u64, endpoints: &EndpointSet, previous: &Self) -> Self {
        Self::update(stamp, endpoints, previous, |_| false)
    }

    /// The same, but for one of the hosts.
    pub(crate) fn without(&self, id: HostId) -> Self {
        let hosts = self.hosts.iter().filter(|host| host.id() != id);
        let hosts: Vec<_> = hosts.cloned().collect();
        Self {
            stamp: self.stamp,
            by_id: by_id(&hosts),
            by_address: OnceLock::new(),
            hosts,
            overprovisioning: self.overprovisioning,
            drops: self.drops.clone(),
            weights: self.weights.clone(),
        }
    }

    /// The same with the weights that follow from what the hosts reported, which those of each
    /// priority have among themselves; none where nothing changes.
    pub(crate) fn weighed(&self, policy: &ReportedWeights, now: Instant) -> Option<Self> {
        let mut weights = WordMap::default();
        let priorities: BTreeSet<_> = self.hosts.iter().map(|host| host.priority()).collect();
        for priority in priorities {
            let of_priority = || self.hosts.iter().filter(|host| host.priority() == priority);
            let reported = of_priority().map(|host| host.reported());
            let weighed = report::weigh(reported, policy, now);
            weights.extend(of_priority().map(|host| host.id()).zip(weighed));
        }
        self.with_weights(|host| weights.get(&host.id()).copied().unwrap_or(1))
    }

    /// The same with the weights that discovery tells; none where nothing changes.
    pub(crate) fn as_discovered(&self) -> Option<Self> {
        self.with_weights(|host| host.endpoint().weight.max(1))
    }

    fn with_weights(&self, weight: impl Fn(&Host) -> u32) -> Option<Self> {
        if self.hosts.iter().all(|host| weight(host) == host.weight()) {
            return None;
        }
        let hosts = self.hosts.iter().map(|host| host.weighing(weight(host)));
        Some(Self {
            stamp: self.stamp,
            by_id: self.by_id.clone(),
            by_address: OnceLock::new(),
            hosts: hosts.collect(),
            overprovisioning: self.overprovisioning,
            drops: self.drops.clone(),
            weights: self.weights.clone(),
        })
    }

    pub(crate) fn hosts(&self) -> &[Arc<Host>] {
        &self.hosts
    }

    pub(crate) fn get(&self, id: HostId) -> Option<&Arc<Host>> {
        self.hosts.get(*self.by_id.get(&id)?)
    }

    /// The host at an address as Envoy writes it; other spellings are of nobody.
    pub(crate) fn at(&self, address: &str) -> Option<&Arc<Host>> {
        let wanted = match address.parse() {
            Ok(socket) => Some(Address::Socket(socket)),
            Err(_) if address.starts_with(['/', '@']) => format!("unix://{address}").parse().ok(),
            Err(_) => None,
        };
        let wanted = wanted.filter(|it: &Address| it.as_envoy().to_string() == address)?;
        let by_address = self.by_address.get_or_init(|| {
            let hosts = self.hosts.iter().enumerate();
            hosts
                .map(|(at, host)| (host.address().clone(), at))
                .collect()
        });
        self.hosts.get(*by_address.get(&wanted)?)
    }

    pub(crate) fn contains(&self, id: HostId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Envoy's `overprovisioning_factor`, in percent.
    pub(crate) fn overprovisioning(&self) -> u32 {
        self.overprovisioning.unwrap_or(OVERPROVISIONING)
    }

    /// The weight of a locality among those of its priority.
    pub(crate) fn weight(&self, priority: u32, locality: &Arc<Locality>) -> u32 {
        let weight = self.weights.get(&(priority, locality.clone()));
        weight.copied().unwrap_or(0)
    }

    /// The weights of all localities of a priority that have hosts, together.
    pub(crate) fn weights_at(&self, priority: u32) -> u64 {
        let all = self.sizes().into_keys();
        let of_priority = all.filter(|(at, _)| *at == priority);
        of_priority
            .map(|(_, locality)| u64::from(self.weight(priority, &locality)))
            .sum()
    }

    /// How many hosts there are at each priority and in each locality.
    pub(crate) fn sizes(&self) -> Sizes {
        let mut sizes = Sizes::new();
        for host in &self.hosts {
            let key = (host.priority(), host.shared_locality().clone());
            *sizes.entry(key).or_default() += 1;
        }
        sizes
    }

    /// Whether these are not the same hosts as `other`'s.
    pub(crate) fn differs_from(&self, other: &Self) -> bool {
        self.hosts.len() != other.hosts.len()
            || !self.hosts.iter().all(|host| other.contains(host.id()))
    }
}

fn by_id(hosts: &[Arc<Host>]) -> WordMap<HostId, usize> {
    let ids = hosts.iter().enumerate();
    ids.map(|(at, host)| (host.id(), at)).collect()
}
