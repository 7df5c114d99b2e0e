//! Counts what secret discovery brings (Envoy's `ssl_context_update_by_sds`): for each listener
//! address and cluster, the secrets that came for it and their changes.
//!
//! Envoy counts where it makes a context anew, which here happens in the next handshake, if there
//! is one. So the versions of secrets are looked at now and then instead. A secret that was there
//! already when something began to use it does not count, as in Envoy.

use crate::listener::Statistics;
use crate::reconcile::Listening;
use mesh_core::model::{LiveSecret, SecretRef, SecretSource, Snapshot};
use mesh_core::stats::{ClusterStat, ListenerStat};
use mesh_core::{Name, Shard};
use std::collections::{HashMap, HashSet};

/// Who uses secrets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum User {
    Listener(Name),
    Cluster(Name),
}

/// The versions of secrets that were counted.
#[derive(Debug, Default)]
pub(crate) struct Updates {
    counted: HashMap<(User, SecretRef), u64>,
    /// Those that were there when they were looked at the last time.
    there: HashSet<SecretRef>,
    /// What the snapshot and the secrets were then: see [`Updates::is_old`].
    seen: (u64, u64),
}

// === impl Updates ===

impl Updates {
    /// Counts what came since the last time: for listeners at the addresses that they have.
    pub(crate) fn note(
        &mut self,
        snapshot: &Snapshot,
        listening: &Listening,
        statistics: &Statistics,
    ) {
        let shard = Shard::of_worker(0);
        for (user, more) in self.news(snapshot) {
            match user {
                User::Listener(name) => {
                    // One that is not open has no statistics.
                    if let Some(address) = listening.open.get(&name) {
                        let block = statistics.listener(address);
                        block.add(shard, ListenerStat::ContextUpdateBySds, more);
                    }
                }
                User::Cluster(name) => {
                    if let Some(entry) = snapshot.cluster(&name) {
                        let block = entry.live().stats().block();
                        block.add(shard, ClusterStat::ContextUpdateBySds, more);
                    }
                }
            }
        }
    }

    fn news(&mut self, snapshot: &Snapshot) -> Vec<(User, u64)> {
        if self.is_old(snapshot) {
            return Vec::new();
        }
        let mut news = Vec::new();
        let mut counted = HashMap::new();
        for (user, named) in uses(snapshot) {
            let Some(live) = snapshot.secret(named) else {
                continue;
            };
            let key = (user, named.clone());
            let version = live.version();
            let is_there = is_there(live);
            let more = match self.counted.get(&key) {
                Some(before) if version >= *before => version - before,
                // However often it changed before: to its user it came once, if it did not find
                // it there. One that nobody named for a while starts over.
                _ => u64::from(!self.there.contains(named)),
            };
            if is_there && more > 0 {
                news.push((key.0.clone(), more));
            }
            counted.insert(key, version);
        }
        self.counted = counted;
        let secrets = snapshot.secrets().iter();
        let there = secrets.filter(|(named, live)| is_discovered(named) && is_there(live));
        self.there = there.map(|(named, _)| named.clone()).collect();
        news
    }

    /// Whether nothing happened since the last time: all uses are looked at only if something did.
    /// Within one snapshot secrets stay, and their versions only grow.
    fn is_old(&mut self, snapshot: &Snapshot) -> bool {
        let secrets = snapshot.secrets().values();
        let versions = secrets.fold(0_u64, |sum, live| sum.wrapping_add(live.version()));
        let now = (snapshot.version(), versions);
        std::mem::replace(&mut self.seen, now) == now
    }
}

fn is_there(live: &LiveSecret) -> bool {
    live.value().load().is_some()
}

fn is_discovered(named: &SecretRef) -> bool {
    named.source != SecretSource::Local
}

/// Every use of a secret that somebody else provides.
fn uses(snapshot: &Snapshot) -> impl Iterator<Item = (User, &SecretRef)> {
    let listeners = snapshot.listeners().iter().flat_map(|listener| {
        let chains = listener.all_chains().filter_map(|chain| chain.tls.as_ref());
        let secrets = chains.flat_map(|tls| tls.secrets());
        secrets.map(|named| (User::Listener(listener.name.clone()), named))
    });
    let clusters = snapshot.clusters().iter().flat_map(|entry| {
        let config = entry.config();
        let secrets = config.all_tls().flat_map(|tls| tls.secrets());
        secrets.map(|named| (User::Cluster(config.name.clone()), named))
    });
    listeners
        .chain(clusters)
        .filter(|(_, named)| is_discovered(named))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::{
        ClientTls, Cluster, FilterChain, Listener, Secret, ServerTls, SnapshotBuilder, TcpProxy,
    };
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;

    fn discovered(name: &str) -> SecretRef {
        SecretRef {
            name: name.into(),
            source: SecretSource::ControlPlane {
                initial_fetch_timeout: Duration::ZERO,
            },
        }
    }

    fn listener(port: u16, secrets: &[&str]) -> Listener {
        let mut tls = ServerTls::default();
        tls.certificates = secrets.iter().map(|name| discovered(name)).collect();
        tls.certificates.push(SecretRef::local("file-cert:/c~/k"));
        let mut chain = FilterChain::tcp(TcpProxy::to("s", "c"));
        chain.tls = Some(Arc::new(tls));
        Listener::new(format!("{port}"), ([127, 0, 0, 1], port).into()).chain(chain)
    }

    fn cluster() -> Cluster {
        let mut tls = ClientTls::default();
        tls.certificates = vec![discovered("a")];
        let mut cluster = Cluster::new("c");
        cluster.tls = Some(Arc::new(tls));
        cluster
    }

    fn counted(updates: &mut Updates, snapshot: &Snapshot) -> Vec<(String, u64)> {
        let mut news: Vec<_> = updates
            .news(snapshot)
            .into_iter()
            .map(|(user, more)| match user {
                User::Listener(name) | User::Cluster(name) => (name.to_string(), more),
            })
            .collect();
        news.sort();
        news
    }

    #[test]
    fn what_comes_counts_for_each_that_waited_for_it() {
        let mut builder = SnapshotBuilder::new();
        builder.cluster(cluster());
        builder.listener(listener(1, &["a", "b"]));
        builder.secret(discovered("a"), Arc::new(Secret::certificate("c", "k")));
        builder.secret(discovered("b"), None);
        let first = builder.build().unwrap().0;
        let mut updates = Updates::default();
        let one = |name: &str| (name.to_owned(), 1);
        assert_eq!(counted(&mut updates, &first), [one("1"), one("c")]);
        assert_eq!(counted(&mut updates, &first), []);

        let live = first.secret(&discovered("b")).unwrap();
        live.publish(Some(Arc::new(Secret::certificate("c", "k"))));
        assert_eq!(counted(&mut updates, &first), [one("1")]);
        live.publish(None);
        assert_eq!(counted(&mut updates, &first), [], "that it goes does not");
        live.publish(Some(Arc::new(Secret::certificate("d", "k"))));
        live.publish(Some(Arc::new(Secret::certificate("e", "k"))));
        assert_eq!(counted(&mut updates, &first), [("1".to_owned(), 2)]);

        // Who comes later finds it there.
        let mut builder = SnapshotBuilder::from(&first);
        builder.keep_clusters().keep_listeners();
        builder.listener(listener(2, &["a"]));
        let second = builder.build().unwrap().0;
        assert_eq!(counted(&mut updates, &second), []);
        let live = second.secret(&discovered("a")).unwrap();
        live.publish(Some(Arc::new(Secret::certificate("f", "k"))));
        assert_eq!(
            counted(&mut updates, &second),
            [one("1"), one("2"), one("c")]
        );
    }

    #[test]
    fn a_secret_that_nobody_named_for_a_while_comes_as_a_new_one() {
        let mut builder = SnapshotBuilder::new();
        builder.listener(listener(1, &["a"]));
        let first = builder.build().unwrap().0;
        let live = first.secret(&discovered("a")).unwrap();
        for key in ["k", "l", "m"] {
            live.publish(Some(Arc::new(Secret::certificate("c", key))));
        }
        let mut updates = Updates::default();
        assert_eq!(counted(&mut updates, &first), [("1".to_owned(), 1)]);
        let without = SnapshotBuilder::from(&first).build().unwrap().0;
        let mut builder = SnapshotBuilder::from(&without);
        builder.listener(listener(1, &["a"]));
        builder.secret(discovered("a"), Arc::new(Secret::certificate("c", "n")));
        let again = builder.build().unwrap().0;
        assert_eq!(counted(&mut updates, &again), [], "it was there already");
        let live = again.secret(&discovered("a")).unwrap();
        live.publish(Some(Arc::new(Secret::certificate("c", "o"))));
        assert_eq!(counted(&mut updates, &again), [("1".to_owned(), 1)]);
    }

    #[test]
    fn what_is_counted_stands_at_the_listener_and_at_the_cluster() {
        let mut builder = SnapshotBuilder::new();
        builder.cluster(cluster());
        builder.listener(listener(0, &["a"]));
        builder.secret(discovered("a"), Arc::new(Secret::certificate("c", "k")));
        let snapshot = builder.build().unwrap().0;
        let statistics = Statistics::default();
        // It took a free port.
        let address = SocketAddr::from(([127, 0, 0, 1], 4321)).into();
        let mut listening = Listening::default();
        listening.open.insert("0".into(), address);
        Updates::default().note(&snapshot, &listening, &statistics);
        let all = statistics.listeners();
        let [(at, block)] = &all[..] else {
            panic!("one listener: {all:?}");
        };
        assert_eq!(&**at, "127.0.0.1_4321");
        assert_eq!(block.get(ListenerStat::ContextUpdateBySds), 1);
        let entry = snapshot.cluster("c").unwrap();
        let block = entry.live().stats().block();
        assert_eq!(block.get(ClusterStat::ContextUpdateBySds), 1);
    }

    #[test]
    fn uses_are_looked_at_again_only_after_something_happened() {
        let mut builder = SnapshotBuilder::new();
        builder.cluster(cluster());
        builder.secret(discovered("a"), None);
        let snapshot = builder.build().unwrap().0;
        let mut updates = Updates::default();
        assert!(!updates.is_old(&snapshot));
        assert!(updates.is_old(&snapshot));
        let live = snapshot.secret(&discovered("a")).unwrap();
        live.publish(Some(Arc::new(Secret::certificate("c", "k"))));
        assert!(!updates.is_old(&snapshot));
        assert!(updates.is_old(&snapshot));
        let mut builder = SnapshotBuilder::from(&snapshot);
        builder.keep_clusters();
        assert!(!updates.is_old(&builder.build().unwrap().0));
    }
}
