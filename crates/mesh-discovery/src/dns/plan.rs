//! What to look up when, and what follows from the answers. Knows no clock and no network.

use super::{Answer, LookupError};
use mesh_core::model::{
    Address, ClusterEntry, ClusterKey, DiscoveryKind, Dns, DnsFamily, Endpoint, EndpointSet,
    LiveCluster, LocalityEndpoints, Snapshot,
};
use mesh_core::stats::ClusterStat;
use mesh_core::{Name, Shard};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Lookups under way at a time. More wait for their turn.
const MOST_AT_ONCE: usize = 64;

/// The shortest wait between two looks at a name, whatever is asked for: a time to live of a
/// second is common, less is a mistake.
const SHORTEST: Duration = Duration::from_millis(100);

/// A name to look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) id: Id,
    pub(super) name: Name,
    pub(super) family: DnsFamily,
}

/// A name of a cluster. The number tells a name that came back from the one that left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Id {
    cluster: ClusterKey,
    number: u64,
}

/// Every cluster with names.
#[derive(Debug, Default)]
pub(super) struct Plan {
    clusters: HashMap<ClusterKey, Watched>,
    due: BTreeSet<(Instant, Id)>,
    asking: HashSet<Id>,
    /// The number of the next name.
    next: u64,
}

#[derive(Debug)]
struct Watched {
    live: Arc<LiveCluster>,
    kind: DiscoveryKind,
    dns: Dns,
    given: Arc<EndpointSet>,
    names: HashMap<u64, Target>,
}

#[derive(Debug)]
struct Target {
    name: Name,
    /// Failures since the last answer.
    failures: u32,
    answer: Option<Vec<IpAddr>>,
}

// === impl Plan ===

impl Plan {
    /// Takes over the clusters of a snapshot. Names that are still there keep their answers.
    pub(super) fn adopt(&mut self, snapshot: &Snapshot, now: Instant) {
        let mut there = HashSet::new();
        for entry in snapshot.clusters() {
            let kind = entry.config().discovery;
            if !matches!(kind, DiscoveryKind::StrictDns | DiscoveryKind::LogicalDns) {
                continue;
            }
            there.insert(entry.key());
            self.watch(entry, now);
        }
        let gone: Vec<ClusterKey> = self
            .clusters
            .keys()
            .filter(|key| !there.contains(key))
            .copied()
            .collect();
        for key in gone {
            if let Some(watched) = self.clusters.remove(&key) {
                watched.live.end_resolving();
                for number in watched.names.into_keys() {
                    self.forget(Id {
                        cluster: key,
                        number,
                    });
                }
            }
        }
    }

    fn watch(&mut self, entry: &Arc<ClusterEntry>, now: Instant) {
        let (config, live, key) = (entry.config(), entry.live(), entry.key());
        let given = live.given().load();
        let wanted: BTreeSet<Name> = given.iter().filter_map(|one| name_of(one)).collect();
        let watched = self.clusters.entry(key).or_insert_with(|| {
            live.begin_resolving();
            Watched {
                live: live.clone(),
                kind: config.discovery,
                dns: config.dns,
                given: Arc::default(),
                names: HashMap::new(),
            }
        });
        let same =
            watched.given == given && (watched.kind, watched.dns) == (config.discovery, config.dns);
        if same {
            return;
        }
        let other_family = watched.dns.family != config.dns.family;
        (watched.kind, watched.dns) = (config.discovery, config.dns);
        watched.given = given;
        let left: Vec<u64> = watched
            .names
            .iter()
            .filter(|(_, target)| other_family || !wanted.contains(&target.name))
            .map(|(number, _)| *number)
            .collect();
        for number in &left {
            watched.names.remove(number);
        }
        let known: HashSet<Name> = watched.names.values().map(|t| t.name.clone()).collect();
        let mut fresh = Vec::new();
        for name in wanted.into_iter().filter(|name| !known.contains(name)) {
            let target = Target {
                name,
                failures: 0,
                answer: None,
            };
            watched.names.insert(self.next, target);
            fresh.push(self.next);
            self.next += 1;
        }
        watched.publish();
        for number in left {
            self.forget(Id {
                cluster: key,
                number,
            });
        }
        for number in fresh {
            self.due.insert((
                now,
                Id {
                    cluster: key,
                    number,
                },
            ));
        }
    }

    fn forget(&mut self, id: Id) {
        self.due.retain(|(_, due)| *due != id);
        self.asking.remove(&id);
    }

    /// When something is to be asked next, unless it has to wait for answers.
    pub(super) fn next(&self) -> Option<Instant> {
        let room = self.asking.len() < MOST_AT_ONCE;
        self.due.first().filter(|_| room).map(|(at, _)| *at)
    }

    /// What is to be asked now.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Question> {
        let mut questions = Vec::new();
        while self.next().is_some_and(|at| at <= now) {
            let Some((_, id)) = self.due.pop_first() else {
                break;
            };
            let Some(watched) = self.clusters.get(&id.cluster) else {
                continue;
            };
            let Some(target) = watched.names.get(&id.number) else {
                continue;
            };
            watched.count(ClusterStat::UpdateAttempt);
            self.asking.insert(id);
            questions.push(Question {
                id,
                name: target.name.clone(),
                family: watched.dns.family,
            });
        }
        questions
    }

    /// What became of a question. `word` is random.
    pub(super) fn answer(
        &mut self,
        id: Id,
        answer: Result<Answer, LookupError>,
        now: Instant,
        word: u64,
    ) {
        // The name may have left while it was asked for.
        if !self.asking.remove(&id) {
            return;
        }
        let Some(watched) = self.clusters.get_mut(&id.cluster) else {
            return;
        };
        let dns = watched.dns;
        let Some(target) = watched.names.get_mut(&id.number) else {
            return;
        };
        let wait = match answer {
            Ok(Answer { addresses, ttl }) => {
                target.failures = 0;
                let by_ttl = dns.respect_ttl && !addresses.is_empty() && !ttl.is_zero();
                let same = target.answer.as_ref() == Some(&addresses);
                target.answer = Some(addresses);
                watched.count(ClusterStat::UpdateSuccess);
                if same {
                    watched.count(ClusterStat::UpdateNoRebuild);
                } else {
                    watched.publish();
                }
                if by_ttl { ttl } else { dns.refresh }
            }
            Err(error) => {
                let failures = target.failures;
                target.failures = failures.saturating_add(1);
                tracing::debug!(cluster = %watched.live.name(), %error, "no answer");
                watched.count(ClusterStat::UpdateFailure);
                after_failure(&dns, failures, word)
            }
        };
        let jitter = u64::try_from(dns.jitter.as_millis()).unwrap_or(u64::MAX);
        let later = match jitter {
            0 => Duration::ZERO,
            most => Duration::from_millis(mesh_core::rng::mix(word) % most),
        };
        self.due.insert((now + wait.max(SHORTEST) + later, id));
    }
}

impl Drop for Plan {
    /// Requests go to the names themselves again.
    fn drop(&mut self) {
        for watched in self.clusters.values() {
            watched.live.end_resolving();
        }
    }
}

/// A random part of a window that doubles from failure to failure, or the usual wait where there
/// is no window.
fn after_failure(dns: &Dns, failures: u32, word: u64) -> Duration {
    let Some((base, most)) = dns.failure_refresh else {
        return dns.refresh;
    };
    let window = base
        .saturating_mul(2u32.saturating_pow(failures))
        .min(most.max(base));
    let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1);
    Duration::from_millis(word % window)
}

fn name_of(endpoint: &Endpoint) -> Option<Name> {
    match &endpoint.address {
        Address::Host(name, _) => Some(name.clone()),
        _ => None,
    }
}

// === impl Watched ===

impl Watched {
    fn count(&self, stat: ClusterStat) {
        let stats = self.live.stats();
        stats.block().inc(Shard::default(), stat);
    }

    /// Publishes what is known, once every name has had an answer or a failure has left it
    /// without; a name without an answer stays a name.
    fn publish(&self) {
        let answers: HashMap<&Name, &Vec<IpAddr>> = self
            .names
            .values()
            .filter_map(|target| Some((&target.name, target.answer.as_ref()?)))
            .collect();
        let first_only = self.kind == DiscoveryKind::LogicalDns;
        let mut seen = HashSet::new();
        let mut set = EndpointSet::default();
        for group in &self.given.localities {
            let mut out = LocalityEndpoints::default();
            out.locality = group.locality.clone();
            (out.priority, out.weight) = (group.priority, group.weight);
            for endpoint in &group.endpoints {
                let found = match &endpoint.address {
                    Address::Host(name, port) => answers.get(name).map(|found| (found, name, port)),
                    _ => None,
                };
                let Some((found, name, port)) = found else {
                    if seen.insert(endpoint.address.clone()) {
                        out.endpoints.push(endpoint.clone());
                    }
                    continue;
                };
                let most = if first_only { 1 } else { usize::MAX };
                for ip in found.iter().take(most) {
                    let address = Address::Socket(SocketAddr::new(*ip, *port));
                    if seen.insert(address.clone()) {
                        let mut one = Endpoint::clone(endpoint);
                        one.address = address;
                        if one.hostname.is_empty() {
                            one.hostname = name.clone();
                        }
                        out.endpoints.push(Arc::new(one));
                    }
                }
            }
            set.localities.push(out);
        }
        self.live.publish_resolved(Arc::new(set));
    }
}

#[cfg(test)]
mod tests;
