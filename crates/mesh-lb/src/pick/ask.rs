//! What is asked of a picker.

use super::Avoid;
use crate::HostSet;
use crate::hash::Weighed;
use mesh_core::model::ClusterStats;
use mesh_core::stats::ClusterStat;
use mesh_core::{Name, Shard};
use std::collections::BTreeMap;
use std::time::Instant;

/// What a choice goes by.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Ask<'a> {
    /// A random word.
    pub word: u64,
    /// What a retry would rather not get again.
    pub avoid: Avoid<'a>,
    /// What consistent hashing goes by. Without it such a choice is any.
    pub hash: Option<u64>,
    /// The subset that is asked for: names and values as JSON.
    pub subset: Option<&'a BTreeMap<Name, Name>>,
    /// The time. Without it no host is new.
    pub now: Option<Instant>,
    /// The node's own neighbourhood. Without it no zone is preferred.
    pub near: Option<Near<'a>>,
    /// Where it is counted what came of it, and by whom. Bounded loads read the requests under
    /// way there; without it they are the sum of the hosts'.
    pub stats: Option<(&'a ClusterStats, Shard)>,
}

/// Where the node is, among others like it.
#[derive(Clone, Copy, Debug)]
pub struct Near<'a> {
    /// The hosts of the node's own cluster (Envoy's `local_cluster_name`).
    pub peers: &'a HostSet,
}

// === impl Ask ===

impl<'a> Ask<'a> {
    /// Anything will do.
    pub fn new(word: u64) -> Self {
        Self {
            word,
            avoid: Avoid::NONE,
            hash: None,
            subset: None,
            now: None,
            near: None,
            stats: None,
        }
    }

    /// Rather not these.
    #[must_use]
    pub fn avoid(mut self, avoid: Avoid<'a>) -> Self {
        self.avoid = avoid;
        self
    }

    /// Goes by this hash.
    #[must_use]
    pub fn hash(mut self, hash: Option<u64>) -> Self {
        self.hash = hash;
        self
    }

    pub(super) fn count(&self, stat: ClusterStat) {
        if let Some((stats, shard)) = self.stats {
            stats.block().inc(shard, stat);
        }
    }

    /// The requests under way in the cluster.
    pub(super) fn active(&self, hosts: &[Weighed]) -> u64 {
        match self.stats {
            Some((stats, _)) => stats.block().get(ClusterStat::RqActive),
            None => hosts.iter().map(|host| u64::from(host.host.active())).sum(),
        }
    }
}
