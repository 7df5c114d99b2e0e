//! How many faults are under way.

use mesh_core::Shard;
use mesh_core::stats::{Block, HttpStat, Raised};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A fault that is under way, for as long as this is not dropped.
#[derive(Debug)]
pub(super) enum Active {
    /// Counted in its listener's statistics, over all workers.
    #[expect(dead_code, reason = "held")]
    Listener(Raised<Arc<Block<HttpStat>>, HttpStat>),
    /// Without a listener: of this layer.
    Own(Arc<AtomicU64>),
    /// Held by somebody else.
    Lasting,
}

impl Active {
    /// One more, unless there are `most` already. As in Envoy, several workers may go beyond it.
    pub(super) fn take(
        stats: Option<Arc<Block<HttpStat>>>,
        shard: Shard,
        own: &Arc<AtomicU64>,
        most: u64,
    ) -> Option<Self> {
        let Some(stats) = stats else {
            if own.load(Ordering::Relaxed) >= most {
                return None;
            }
            own.fetch_add(1, Ordering::Relaxed);
            return Some(Self::Own(own.clone()));
        };
        if most != u64::MAX && stats.get(HttpStat::FaultActive) >= most {
            return None;
        }
        Some(Self::Listener(Raised::new(
            stats,
            shard,
            HttpStat::FaultActive,
        )))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if let Self::Own(own) = self {
            own.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
