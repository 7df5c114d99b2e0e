//! A cluster's statistics, as one worker counts in them.

use http::StatusCode;
use mesh_core::Shard;
use mesh_core::exchange::TlsInfo;
use mesh_core::model::ClusterStats;
use mesh_core::stats::{Block, ClusterStat, Raised};

/// A cluster's statistics with the worker that counts, as something that a gauge can hold on to.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    stats: ClusterStats,
    shard: Shard,
}

// === impl Counted ===

impl Counted {
    pub(crate) fn new(stats: ClusterStats, shard: Shard) -> Self {
        Self { stats, shard }
    }

    pub(crate) fn count(&self, stat: ClusterStat) {
        self.add(stat, 1);
    }

    pub(crate) fn add(&self, stat: ClusterStat, amount: u64) {
        self.stats.block().add(self.shard, stat, amount);
    }

    /// An answer.
    pub(crate) fn answered(&self, status: StatusCode) {
        self.stats.answered(self.shard, status);
    }

    /// Counts a gauge up until the returned value is dropped.
    pub(crate) fn raise(&self, stat: ClusterStat) -> Raised<Self, ClusterStat> {
        Raised::new(self.clone(), self.shard, stat)
    }

    /// What a handshake agreed on.
    pub(crate) fn agreed(&self, tls: &TlsInfo) {
        self.stats.count_tls(self.shard, tls);
    }

    /// How long it took to make a connection.
    pub(crate) fn connect_time(&self, took: std::time::Duration) {
        let millis = took.as_secs_f64() * 1000.0;
        self.stats.connect_time().record(self.shard, millis);
    }
}

impl AsRef<Block<ClusterStat>> for Counted {
    fn as_ref(&self) -> &Block<ClusterStat> {
        self.stats.block()
    }
}
