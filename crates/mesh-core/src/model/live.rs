//! What of a cluster outlives a change of configuration.

use super::{Cluster, EndpointSet, LiveSecret, Priority, SecretRef};
use crate::exchange::TlsInfo;
use crate::stats::{Block, ClusterStat, Codes, Histogram, Shard, TlsStat};
use crate::{Feed, Name, Publisher, Slot, Usage};
use http::StatusCode;
use std::sync::atomic::{AtomicBool, Ordering};
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
    high: Arc<Usage>,
    stats: ClusterStats,
    given: Publisher<EndpointSet>,
    endpoints: Publisher<EndpointSet>,
    /// Somebody resolves the names among what is given.
    resolved: AtomicBool,
    slot: Slot,
}

/// A cluster's statistics. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ClusterStats {
    block: Arc<Block<ClusterStat>>,
    more: Arc<More>,
}

/// What is looked at less often.
#[derive(Debug, Default)]
struct More {
    codes: Codes,
    /// Of answers that were tried again for.
    retried: OnceLock<Box<Codes>>,
    /// Of canaries' answers.
    canary: OnceLock<Box<Codes>>,
    request_time: Histogram,
    connect_time: Histogram,
    /// Only where a handshake was counted.
    tls: OnceLock<Box<Block<TlsStat>>>,
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
            high: Arc::default(),
            stats: ClusterStats::default(),
            given: Publisher::new(EndpointSet::default()),
            endpoints: Publisher::new(EndpointSet::default()),
            resolved: AtomicBool::new(false),
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

    /// What is in use of the DEFAULT priority's limits, over all workers.
    pub fn usage(&self) -> &Arc<Usage> {
        &self.usage
    }

    /// What is in use of the limits of a priority, over all workers.
    #[inline]
    pub fn usage_of(&self, priority: Priority) -> &Arc<Usage> {
        match priority {
            Priority::Default => &self.usage,
            Priority::High => &self.high,
        }
    }

    /// The cluster's statistics.
    pub fn stats(&self) -> &ClusterStats {
        &self.stats
    }

    /// The endpoints that requests go to, which change on their own.
    pub fn endpoints(&self) -> Feed<EndpointSet> {
        self.endpoints.feed()
    }

    /// The endpoints as configuration or discovery gave them. They differ from those that requests
    /// go to where names among them are resolved.
    pub fn given(&self) -> Feed<EndpointSet> {
        self.given.feed()
    }

    /// Replaces the endpoints for everyone. Nothing happens when they are the same. Where somebody
    /// resolves their names, requests go to the new ones only when that is done.
    pub fn publish_endpoints(&self, endpoints: Arc<EndpointSet>) {
        if *self.given.load() != *endpoints {
            self.given.publish(endpoints.clone());
        }
        if !self.resolved.load(Ordering::SeqCst) {
            publish(&self.endpoints, endpoints);
        }
    }

    /// From now on requests go to what [`LiveCluster::publish_resolved`] is given. Until then they
    /// go where they went.
    pub fn begin_resolving(&self) {
        self.resolved.store(true, Ordering::SeqCst);
    }

    /// Replaces the endpoints that requests go to, where somebody resolves their names.
    pub fn publish_resolved(&self, endpoints: Arc<EndpointSet>) {
        if self.resolved.load(Ordering::SeqCst) {
            publish(&self.endpoints, endpoints);
        }
    }

    /// Requests go to the endpoints as they are given again.
    pub fn end_resolving(&self) {
        // What is given after this is published by whoever gives it.
        self.resolved.store(false, Ordering::SeqCst);
        publish(&self.endpoints, self.given.load());
    }

    /// What mesh-lb keeps about this cluster: hosts with their counts and ejections.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }
}

fn publish(publisher: &Publisher<EndpointSet>, endpoints: Arc<EndpointSet>) {
    if *publisher.load() != *endpoints {
        publisher.publish(endpoints);
    }
}

// === impl ClusterStats ===

impl ClusterStats {
    /// Counters and gauges.
    pub fn block(&self) -> &Block<ClusterStat> {
        &self.block
    }

    /// Counts an answer by its code and its class, and as one more (Envoy
    /// `CodeStats::chargeBasicResponseStat`).
    pub fn answered(&self, shard: Shard, status: StatusCode) {
        let code = status.as_u16();
        self.block.inc(shard, ClusterStat::RqCompleted);
        let class = match code / 100 {
            1 => ClusterStat::Rq1xx,
            2 => ClusterStat::Rq2xx,
            3 => ClusterStat::Rq3xx,
            4 => ClusterStat::Rq4xx,
            // Whatever lies beyond 599 is no answer that HTTP knows.
            _ => ClusterStat::Rq5xx,
        };
        self.block.inc(shard, class);
        self.more.codes.inc(shard, code);
    }

    /// Answers by their status code (`upstream_rq_<code>`).
    pub fn codes(&self) -> &Codes {
        &self.more.codes
    }

    /// Counts an answer that was tried again for.
    pub fn retried(&self, shard: Shard, status: StatusCode) {
        let codes = self.more.retried.get_or_init(Box::default);
        codes.inc(shard, status.as_u16());
    }

    /// Answers that were tried again for, by their status code (`retry.upstream_rq_<code>`), if
    /// there were any.
    pub fn retried_codes(&self) -> Option<&Codes> {
        self.more.retried.get().map(|codes| &**codes)
    }

    /// Counts an answer once more, for it came from a canary.
    pub fn answered_by_canary(&self, shard: Shard, status: StatusCode) {
        let codes = self.more.canary.get_or_init(Box::default);
        codes.inc(shard, status.as_u16());
    }

    /// Answers of canaries by their status code (`canary.upstream_rq_<code>`), if there were any.
    pub fn canary_codes(&self) -> Option<&Codes> {
        self.more.canary.get().map(|codes| &**codes)
    }

    /// The time until response heads, in milliseconds (`upstream_rq_time`).
    pub fn request_time(&self) -> &Histogram {
        &self.more.request_time
    }

    /// The time to establish connections, in milliseconds (`upstream_cx_connect_ms`).
    pub fn connect_time(&self) -> &Histogram {
        &self.more.connect_time
    }

    /// Counts what a handshake agreed on.
    pub fn count_tls(&self, shard: Shard, agreed: &TlsInfo) {
        let block = self.more.tls.get_or_init(Box::default);
        TlsStat::count(block, shard, agreed);
    }

    /// What handshakes agreed on, if there was any.
    pub fn tls(&self) -> Option<&Block<TlsStat>> {
        self.more.tls.get().map(|block| &**block)
    }
}

impl AsRef<Block<ClusterStat>> for ClusterStats {
    fn as_ref(&self) -> &Block<ClusterStat> {
        &self.block
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Address;

    fn set(address: &str) -> Arc<EndpointSet> {
        Arc::new(EndpointSet::of([address.parse::<Address>().unwrap()]))
    }

    #[test]
    fn names_lead_nowhere_new_until_they_are_resolved() {
        let live = LiveCluster::new(1, "c".into());
        live.publish_endpoints(set("a.example:1"));
        assert_eq!(live.endpoints().load(), set("a.example:1"));
        live.begin_resolving();
        live.publish_resolved(set("10.0.0.1:1"));
        live.publish_endpoints(set("b.example:1"));
        assert_eq!(live.given().load(), set("b.example:1"));
        assert_eq!(live.endpoints().load(), set("10.0.0.1:1"));
        live.end_resolving();
        assert_eq!(live.endpoints().load(), set("b.example:1"));
        live.publish_resolved(set("10.0.0.2:1"));
        assert_eq!(live.endpoints().load(), set("b.example:1"));
    }
}
