//! What of a cluster outlives a change of configuration.

use super::{Cluster, EndpointSet, LiveSecret, SecretRef};
use crate::stats::{Block, ClusterStat, Histogram};
use crate::{Feed, Name, Publisher, Slot, Usage};
use std::sync::{Arc, OnceLock};

/// Names a cluster for as long as it exists: stable from snapshot to snapshot, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterKey(pub(super) u64);

/// A cluster in a snapshot: its configuration and what lives on.
#[derive(Debug)]
pub struct ClusterEntry {
    pub(super) config: Arc<Cluster>,
    pub(super) live: Arc<LiveCluster>,
    /// The version of the snapshot that brought this configuration. Of two entries for one
    /// cluster the higher is the newer.
    pub(super) revision: u64,
    /// Set when the snapshot is linked, before anybody else sees the entry.
    pub(super) secrets: OnceLock<Vec<(SecretRef, Arc<LiveSecret>)>>,
    pub(super) tls: Slot,
}

/// What of a cluster is carried from snapshot to snapshot: endpoints, counts, statistics.
#[derive(Debug)]
pub struct LiveCluster {
    key: ClusterKey,
    name: Name,
    usage: Arc<Usage>,
    stats: ClusterStats,
    endpoints: Publisher<EndpointSet>,
    slot: Slot,
}

/// A cluster's statistics. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ClusterStats {
    block: Arc<Block<ClusterStat>>,
    times: Arc<(Histogram, Histogram)>,
}

// === impl ClusterEntry ===

impl ClusterEntry {
    /// The cluster's configuration.
    pub fn config(&self) -> &Arc<Cluster> {
        &self.config
    }

    /// What lives on when the configuration changes.
    pub fn live(&self) -> &Arc<LiveCluster> {
        &self.live
    }

    /// The cluster's key.
    pub fn key(&self) -> ClusterKey {
        self.live.key
    }

    /// Of two entries for one cluster, the one with the higher revision is the newer.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A secret that the cluster's [`Cluster::tls`] names: the same that the snapshot has.
    pub fn secret(&self, named: &SecretRef) -> Option<&Arc<LiveSecret>> {
        let secrets = self.secrets.get()?;
        let found = secrets.iter().find(|(name, _)| name == named);
        found.map(|(_, secret)| secret)
    }

    /// What whoever connects keeps about how connections are secured. Carried over for as long as
    /// [`Cluster::tls`] stays the same.
    pub fn tls_slot(&self) -> &Slot {
        &self.tls
    }
}

// === impl LiveCluster ===

impl LiveCluster {
    pub(super) fn new(key: u64, name: Name) -> Self {
        Self {
            key: ClusterKey(key),
            name,
            usage: Arc::default(),
            stats: ClusterStats::default(),
            endpoints: Publisher::new(EndpointSet::default()),
            slot: Slot::default(),
        }
    }

    /// The cluster's key.
    pub fn key(&self) -> ClusterKey {
        self.key
    }

    /// The cluster's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What is in use, over all workers.
    pub fn usage(&self) -> &Arc<Usage> {
        &self.usage
    }

    /// The cluster's statistics.
    pub fn stats(&self) -> &ClusterStats {
        &self.stats
    }

    /// The endpoints, which change on their own.
    pub fn endpoints(&self) -> Feed<EndpointSet> {
        self.endpoints.feed()
    }

    /// Replaces the endpoints for everyone. Nothing happens when they are the same.
    pub fn publish_endpoints(&self, endpoints: Arc<EndpointSet>) {
        if *self.endpoints.load() != *endpoints {
            self.endpoints.publish(endpoints);
        }
    }

    /// What mesh-lb keeps about this cluster: hosts with their counts and ejections.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }
}

// === impl ClusterStats ===

impl ClusterStats {
    /// Counters and gauges.
    pub fn block(&self) -> &Block<ClusterStat> {
        &self.block
    }

    /// The time until response heads, in milliseconds (`upstream_rq_time`).
    pub fn request_time(&self) -> &Histogram {
        &self.times.0
    }

    /// The time to establish connections, in milliseconds (`upstream_cx_connect_ms`).
    pub fn connect_time(&self) -> &Histogram {
        &self.times.1
    }
}

impl AsRef<Block<ClusterStat>> for ClusterStats {
    fn as_ref(&self) -> &Block<ClusterStat> {
        &self.block
    }
}
