//! What the router found for a request, and the snapshot that it was found in.

use crate::Name;
use crate::model::{
    ClusterEntry, Forward, RouteTable, Rule, Snapshot, Target, VirtualHost, Weighted,
};
use std::sync::Arc;

/// What the router found for a request. Holds the snapshot that it was found in.
#[derive(Clone, Debug)]
pub struct Matched {
    snapshot: Pinned,
    table: usize,
    host: usize,
    rule: usize,
    /// Which destination of a weighted split.
    part: Option<usize>,
    /// The cluster's place in the snapshot, if it exists.
    cluster: Option<usize>,
}

/// One worker's own handle on a snapshot: requests count references here rather than on the
/// snapshot that all workers share.
#[derive(Clone, Debug)]
// Twice on purpose: the outer count is one worker's own.
#[allow(clippy::redundant_allocation)]
pub struct Pinned(Arc<Arc<Snapshot>>);

// === impl Pinned ===

impl Pinned {
    /// Makes a handle of one's own on `snapshot`.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Self(Arc::new(snapshot))
    }

    /// The snapshot.
    #[inline]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.0
    }
}

impl std::ops::Deref for Pinned {
    type Target = Snapshot;
    #[inline]
    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

// === impl Matched ===

impl Matched {
    /// A match of the rule at these places of `snapshot`.
    ///
    /// # Panics
    /// If there is no such rule.
    pub fn new(snapshot: Pinned, table: usize, host: usize, rule: usize) -> Self {
        assert!(
            snapshot.tables()[table].virtual_hosts[host].rules.len() > rule,
            "a match names a rule that exists"
        );
        Self {
            snapshot,
            table,
            host,
            rule,
            part: None,
            cluster: None,
        }
    }

    /// Adds the destination that was chosen.
    #[must_use]
    pub fn to(mut self, part: Option<usize>, cluster: Option<usize>) -> Self {
        self.part = part;
        self.cluster = cluster.filter(|cluster| *cluster < self.snapshot.clusters().len());
        self
    }

    /// The snapshot in force for this request.
    #[inline]
    pub fn snapshot(&self) -> &Pinned {
        &self.snapshot
    }

    /// The route table.
    #[inline]
    pub fn table(&self) -> &Arc<RouteTable> {
        &self.snapshot.tables()[self.table]
    }

    /// The virtual host.
    #[inline]
    pub fn host(&self) -> &Arc<VirtualHost> {
        &self.table().virtual_hosts[self.host]
    }

    /// The rule.
    #[inline]
    pub fn rule(&self) -> &Arc<Rule> {
        &self.host().rules[self.rule]
    }

    /// The rule's place in its virtual host.
    #[inline]
    pub fn rule_index(&self) -> usize {
        self.rule
    }

    /// The forwarding part of the rule.
    #[inline]
    pub fn forward(&self) -> Option<&Forward> {
        self.rule().forward()
    }

    /// The destination of a weighted split that was drawn.
    #[inline]
    pub fn weighted(&self) -> Option<&Weighted> {
        let Target::Weighted(parts) = &self.forward()?.to else {
            return None;
        };
        parts.get(self.part?)
    }

    /// The cluster that the request goes to, if it exists.
    #[inline]
    pub fn cluster(&self) -> Option<&Arc<ClusterEntry>> {
        self.snapshot.clusters().get(self.cluster?)
    }

    /// The name of the cluster that the rule sends to, whether it exists or not. None if it does not
    /// and a request header names it.
    pub fn cluster_name(&self) -> Option<&Name> {
        if let Some(entry) = self.cluster() {
            return Some(&entry.config().name);
        }
        match &self.forward()?.to {
            Target::Cluster(name, _) => Some(name),
            Target::Weighted(_) => {
                let part = self.weighted()?;
                part.cluster_header.is_none().then_some(&part.cluster)
            }
            Target::Header(_) => None,
        }
    }
}
