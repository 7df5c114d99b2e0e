//! One worker's shortcut from what is known of a request to its series.
//!
//! Making 25 labels and looking them up costs microseconds; a request that looks like an earlier
//! one finds its series by a few addresses and numbers instead. The things whose addresses are
//! compared are held, so an address means the same thing for as long as it is in here.

use super::labels::{Facts, Labels, Outcome, Reporter};
use super::peer;
use super::registry::{Registry, Series};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use http::HeaderValue;
use mesh_core::Name;
use mesh_core::model::{Cluster, WorkloadRef};
use std::sync::Arc;

/// How many series one worker remembers. Beyond that it starts anew: entries that belong to an
/// old configuration then go away by themselves.
const MOST_SERIES: usize = 1000;

/// How many peers one worker remembers.
const MOST_PEERS: usize = 256;

#[derive(Default)]
pub(crate) struct Cache {
    series: HashMap<Key, Found, RandomState>,
    /// What a metadata header says; none where it is malformed.
    peers: HashMap<Box<[u8]>, Option<Arc<WorkloadRef>>, RandomState>,
    /// Peers with what their certificate proved, by the address of what they say of themselves.
    proved: HashMap<(usize, Name), Proved, RandomState>,
}

/// What is known of a request, by address where it is large.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) reporter: Reporter,
    pub(crate) node: &'a Arc<WorkloadRef>,
    pub(crate) cluster: Option<&'a Arc<Cluster>>,
    /// What the other side says of itself.
    pub(crate) peer: Option<&'a Arc<WorkloadRef>>,
    /// What discovery says of the upstream's endpoint.
    pub(crate) endpoint: Option<&'a Arc<WorkloadRef>>,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    reporter: Reporter,
    node: usize,
    cluster: usize,
    peer: usize,
    endpoint: usize,
    outcome: Outcome,
}

struct Proved {
    _said: Option<Arc<WorkloadRef>>,
    peer: Arc<WorkloadRef>,
}

struct Found {
    series: Arc<Series>,
    _cluster: Option<Arc<Cluster>>,
    /// Ourselves, the peer and the endpoint.
    _workloads: [Option<Arc<WorkloadRef>>; 3],
}

// === impl Cache ===

impl Cache {
    /// The series of a request.
    pub(crate) fn series(&mut self, seen: Seen<'_>, registry: &Registry<Series>) -> &Series {
        // A workload about which nothing is known is nobody. Endpoints made up for one request
        // would otherwise each be somebody else.
        let peer = seen.peer.filter(|peer| !is_nobody(peer));
        // Nobody knows a workload better than itself, but its principal is not for it to say.
        let adds = |endpoint: &&Arc<WorkloadRef>| match peer {
            Some(_) => !endpoint.principal.is_empty(),
            None => !is_nobody(endpoint),
        };
        let endpoint = seen.endpoint.filter(adds);
        let key = Key {
            reporter: seen.reporter,
            node: Arc::as_ptr(seen.node).addr(),
            cluster: seen
                .cluster
                .map_or(0, |cluster| Arc::as_ptr(cluster).addr()),
            peer: peer.map_or(0, |peer| Arc::as_ptr(peer).addr()),
            endpoint: endpoint.map_or(0, |endpoint| Arc::as_ptr(endpoint).addr()),
            outcome: seen.outcome,
        };
        if self.series.len() >= MOST_SERIES && !self.series.contains_key(&key) {
            self.series.clear();
        }
        let found = self.series.entry(key).or_insert_with(|| Found {
            series: registry.series(&seen.labels(peer, endpoint), seen.reporter),
            _cluster: seen.cluster.cloned(),
            _workloads: [Some(seen.node), peer, endpoint].map(|one| one.cloned()),
        });
        &found.series
    }

    /// The workload that a metadata header names.
    pub(crate) fn peer(&mut self, header: &HeaderValue) -> Option<Arc<WorkloadRef>> {
        if header.len() > peer::MOST_READ {
            return None;
        }
        if let Some(known) = self.peers.get(header.as_bytes()) {
            return known.clone();
        }
        if self.peers.len() >= MOST_PEERS {
            self.peers.clear();
        }
        let read = peer::decode(header.as_bytes()).map(Arc::new);
        // A copy: the value itself would hold the whole request head that it came in.
        self.peers.insert(header.as_bytes().into(), read.clone());
        read
    }

    /// A peer whose certificate proved who it is, whatever else it says of itself.
    pub(crate) fn proved(
        &mut self,
        said: Option<Arc<WorkloadRef>>,
        principal: &Name,
    ) -> Arc<WorkloadRef> {
        let key = (
            said.as_ref().map_or(0, |said| Arc::as_ptr(said).addr()),
            principal.clone(),
        );
        if let Some(known) = self.proved.get(&key) {
            return known.peer.clone();
        }
        if self.proved.len() >= MOST_PEERS {
            self.proved.clear();
        }
        let mut peer = said.as_deref().cloned().unwrap_or_default();
        peer.principal = principal.clone();
        let peer = Arc::new(peer);
        let proved = Proved {
            _said: said,
            peer: peer.clone(),
        };
        self.proved.insert(key, proved);
        peer
    }
}

// === impl Seen ===

impl Seen<'_> {
    pub(crate) fn labels(
        &self,
        peer: Option<&Arc<WorkloadRef>>,
        endpoint: Option<&Arc<WorkloadRef>>,
    ) -> Labels {
        let both;
        let other = match (peer, endpoint) {
            (Some(peer), Some(endpoint)) => {
                let mut known = WorkloadRef::clone(peer);
                known.principal = endpoint.principal.clone();
                both = known;
                Some(&both)
            }
            (peer, endpoint) => peer.or(endpoint).map(|one| &**one),
        };
        let node = Some(&**self.node);
        let (source, destination) = match self.reporter {
            Reporter::Source => (node, other),
            Reporter::Destination => (other, node),
        };
        Labels::of(&Facts {
            reporter: self.reporter,
            source,
            destination,
            cluster: self
                .cluster
                .map(|cluster| (&cluster.name, &cluster.service)),
            outcome: self.outcome,
        })
    }
}

fn is_nobody(workload: &WorkloadRef) -> bool {
    [
        &workload.name,
        &workload.namespace,
        &workload.app,
        &workload.version,
        &workload.canonical_service,
        &workload.canonical_revision,
        &workload.principal,
        &workload.cluster,
    ]
    .into_iter()
    .all(|name| name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::labels::Spoken;
    use super::*;
    use mesh_core::{Flags, Shard};

    fn outcome(code: u16) -> Outcome {
        Outcome {
            code,
            flags: Flags::default(),
            spoken: Spoken::Http,
            grpc_status: None,
            tls: false,
        }
    }

    fn named(name: &str) -> Arc<WorkloadRef> {
        let mut workload = WorkloadRef::default();
        workload.name = name.into();
        Arc::new(workload)
    }

    fn count(cache: &mut Cache, registry: &Registry<Series>, seen: Seen<'_>) {
        cache
            .series(seen, registry)
            .record(Shard::default(), 1.0, 0, 0);
    }

    #[test]
    fn requests_that_look_the_same_share_a_series_whoever_remembers_it() {
        let registry = Registry::new(100);
        let (mut one, mut two) = (Cache::default(), Cache::default());
        let node = named("node");
        let seen = Seen {
            reporter: Reporter::Source,
            node: &node,
            cluster: None,
            peer: None,
            endpoint: None,
            outcome: outcome(200),
        };
        // The same content at another address, and a peer that says nothing.
        let (copy, nobody) = (named("node"), Arc::default());
        count(&mut one, &registry, seen);
        count(&mut one, &registry, seen);
        count(
            &mut two,
            &registry,
            Seen {
                node: &copy,
                peer: Some(&nobody),
                ..seen
            },
        );
        count(
            &mut two,
            &registry,
            Seen {
                outcome: outcome(404),
                ..seen
            },
        );
        let mut counts: Vec<u64> = registry
            .all()
            .iter()
            .map(|(_, series)| series.requests())
            .collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 3]);
    }

    #[test]
    fn a_worker_that_remembers_too_much_starts_anew_and_still_counts_right() {
        let registry = Registry::new(10_000);
        let mut cache = Cache::default();
        let node = named("node");
        for _ in 0..2 {
            for code in 0..1500 {
                let seen = Seen {
                    reporter: Reporter::Destination,
                    node: &node,
                    cluster: None,
                    peer: None,
                    endpoint: None,
                    outcome: outcome(code),
                };
                count(&mut cache, &registry, seen);
                assert!(cache.series.len() <= MOST_SERIES);
            }
        }
        let all = registry.all();
        assert_eq!(all.len(), 1500);
        assert!(all.iter().all(|(_, series)| series.requests() == 2));
    }

    #[test]
    fn a_peer_is_read_once_and_garbage_is_nobody() {
        let mut cache = Cache::default();
        let header = peer::encode(&named("caller"));
        let first = cache.peer(&header).unwrap();
        let second = cache.peer(&header.clone()).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(first.name, "caller");
        assert_eq!(cache.peer(&HeaderValue::from_static("garbage!")), None);
        for n in 0..1000 {
            cache.peer(&peer::encode(&named(&format!("n{n}"))));
            assert!(cache.peers.len() <= MOST_PEERS);
        }
    }
}
