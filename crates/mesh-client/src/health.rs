//! Active health checks: asks the endpoints of clusters whether they are well, as long as somebody
//! lets it.
//!
//! [`HealthChecks::run`] follows the snapshots of a mesh, asks each endpoint of each cluster that has
//! [`health_checks`](mesh_core::model::Cluster::health_checks) at its pace, and reports to
//! [`ClusterHosts`], where all workers see what came of it. Run it once in a process. Without it the
//! endpoints of such clusters stay what they are at first, which is unhealthy.
//!
//! Checks use connections of their own, secured as the cluster's are. They do not count towards its
//! limits and statistics but for `health_check.*` and `ssl.*`, as in Envoy.
//!
//! ```
//! use mesh_client::health::HealthChecks;
//! use mesh_core::model::{Cluster, HealthCheck, HttpProbe, Probe, SnapshotBuilder};
//! use mesh_core::Publisher;
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), mesh_core::Invalid> {
//! let mut reviews = Cluster::new("reviews");
//! let probe = Probe::Http(Box::new(HttpProbe::new("/healthz")));
//! let check = HealthCheck::new(probe, Duration::from_secs(1), Duration::from_secs(5));
//! reviews.health_checks = [check].into();
//! let mut builder = SnapshotBuilder::new();
//! builder.cluster(reviews);
//! let publisher = Publisher::from_arc(builder.build()?.0);
//! let checking = tokio::spawn(HealthChecks::new(publisher.feed()).run());
//! # checking.abort();
//! # Ok(())
//! # }
//! ```

mod dial;
mod grpc;
mod line;
mod question;
mod request;
mod session;
mod tcp;

use crate::upstream::connect::Connector;
use mesh_core::model::{ClusterEntry, ClusterKey, Endpoint, Snapshot};
use mesh_core::{Feed, HostId, Rng};
use mesh_lb::{ClusterHosts, Host};
use session::Session;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use tokio::task::{AbortHandle, JoinSet};

/// Asks the endpoints of a mesh whether they are well.
///
/// The tasks that it takes, one for each endpoint, end when [`HealthChecks::run`] is dropped, and
/// when their endpoint or cluster goes.
pub struct HealthChecks {
    snapshots: Feed<Snapshot>,
    connector: Connector,
    rng: Rng,
}

/// What is asked of the endpoints of one cluster.
struct Cluster {
    entry: Arc<ClusterEntry>,
    connector: Connector,
    rng: Rng,
    asked: HashMap<HostId, Asked>,
    tasks: JoinSet<()>,
}

/// An endpoint that is asked, as it was described then.
struct Asked {
    endpoint: Arc<Endpoint>,
    tasks: Vec<AbortHandle>,
}

// === impl HealthChecks ===

impl HealthChecks {
    /// Follows these snapshots.
    pub fn new(snapshots: Feed<Snapshot>) -> Self {
        Self {
            snapshots,
            connector: Connector::System,
            rng: Rng::default(),
        }
    }

    /// Sets the source of randomness: of jitter.
    #[must_use]
    pub fn rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    #[cfg(test)]
    fn connector(mut self, connector: Connector) -> Self {
        self.connector = connector;
        self
    }

    /// Works until the snapshots end.
    pub async fn run(mut self) {
        let mut tasks = JoinSet::new();
        let mut checked: HashMap<ClusterKey, (u64, AbortHandle)> = HashMap::new();
        loop {
            let snapshot = self.snapshots.load();
            let entries = snapshot.clusters().iter();
            let mut before = std::mem::take(&mut checked);
            for entry in entries.filter(|one| !one.config().health_checks.is_empty()) {
                let task = match before.remove(&entry.key()) {
                    Some(known) if known.0 == entry.revision() => known,
                    other => {
                        // It starts again with what is known of the endpoints.
                        if let Some((_, old)) = other {
                            old.abort();
                        }
                        let cluster = Cluster {
                            entry: entry.clone(),
                            connector: self.connector.clone(),
                            rng: self.rng.fork(),
                            asked: HashMap::new(),
                            tasks: JoinSet::new(),
                        };
                        (entry.revision(), tasks.spawn(cluster.run()))
                    }
                };
                checked.insert(entry.key(), task);
            }
            for (_, gone) in before.into_values() {
                gone.abort();
            }
            drop(snapshot);
            loop {
                tokio::select! {
                    changed = self.snapshots.changed() => match changed {
                        Ok(_) => break,
                        Err(_) => return,
                    },
                    Some(_) = tasks.join_next() => {}
                }
            }
        }
    }
}

impl fmt::Debug for HealthChecks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthChecks").finish_non_exhaustive()
    }
}

// === impl Cluster ===

impl Cluster {
    async fn run(mut self) {
        let entry = self.entry.clone();
        let hosts = ClusterHosts::of(&entry);
        let (mut endpoints, mut sets) = (entry.live().endpoints(), hosts.sets());
        loop {
            hosts.refresh(&entry, tokio::time::Instant::now().into_std());
            self.follow(&hosts.to_check());
            tokio::select! {
                // The entry keeps both from ending.
                _ = endpoints.changed() => {}
                _ = sets.changed() => {}
                Some(_) = self.tasks.join_next() => {}
            }
        }
    }

    /// Asks exactly these hosts.
    fn follow(&mut self, hosts: &[Arc<Host>]) {
        let mut before = std::mem::take(&mut self.asked);
        for host in hosts {
            let endpoint = host.endpoint();
            let asked = match before.remove(&host.id()) {
                Some(asked) if asked.endpoint.check == endpoint.check => asked,
                other => {
                    other.iter().for_each(Asked::stop);
                    self.ask(host)
                }
            };
            self.asked.insert(host.id(), asked);
        }
        before.values().for_each(Asked::stop);
    }

    fn ask(&mut self, host: &Arc<Host>) -> Asked {
        let checks = 0..self.entry.config().health_checks.len();
        let tasks = checks.map(|check| {
            let connector = self.connector.clone();
            let session = Session::new(connector, self.entry.clone(), host.clone(), check);
            self.tasks.spawn(session.run(self.rng.fork()))
        });
        let tasks = tasks.collect();
        Asked {
            endpoint: host.endpoint().clone(),
            tasks,
        }
    }
}

// === impl Asked ===

impl Asked {
    fn stop(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

#[cfg(test)]
mod tests;
