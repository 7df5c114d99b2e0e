//! How many connections a chain may have (Envoy's network filter `connection_limit`).

use super::Counted;
use mesh_core::Shard;
use mesh_core::model::ConnectionLimit;
use mesh_core::stats::{Block, ConnectionLimitStat, Raised};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// A chain's limit, and how many connections it has. All workers share it.
#[derive(Debug)]
pub(crate) struct Limited {
    config: ConnectionLimit,
    stats: Arc<Block<ConnectionLimitStat>>,
    open: AtomicU64,
}

/// A connection that is counted, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counting {
    /// Whose place it has. None where it is too many.
    place: Option<Arc<Limited>>,
    /// As Envoy, which counts those that are too many, too, as long as they are open.
    _active: Raised<Counted<ConnectionLimitStat>, ConnectionLimitStat>,
}

// === impl Limited ===

impl Limited {
    /// None where nothing is enforced: then Envoy counts nothing either.
    pub(super) fn new(
        config: &ConnectionLimit,
        stats: impl FnOnce() -> Arc<Block<ConnectionLimitStat>>,
    ) -> Option<Arc<Self>> {
        config.enabled.then(|| {
            Arc::new(Self {
                config: config.clone(),
                stats: stats(),
                open: AtomicU64::new(0),
            })
        })
    }

    /// Counts a connection.
    pub(crate) fn count(self: &Arc<Self>, shard: Shard) -> Counting {
        let most = self.config.max_connections;
        let less = |open: u64| (open < most).then_some(open + 1);
        let order = Ordering::Relaxed;
        let took = self.open.fetch_update(order, order, less).is_ok();
        if !took {
            self.stats
                .inc(shard, ConnectionLimitStat::LimitedConnections);
        }
        let counted = Counted::new(self.stats.clone());
        Counting {
            place: took.then(|| self.clone()),
            _active: Raised::new(counted, shard, ConnectionLimitStat::ActiveConnections),
        }
    }

    /// Waits as long as a connection that is too many is left open: nothing is read of it. A drain
    /// does not wait for it.
    pub(crate) async fn delay(&self, mut drain: watch::Receiver<bool>) {
        if self.config.delay.is_zero() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(self.config.delay) => {}
            _ = drain.wait_for(|drain| *drain) => {}
        }
    }
}

// === impl Counting ===

impl Counting {
    /// Whether the connection is one more than there may be.
    pub(crate) fn is_too_many(&self) -> bool {
        self.place.is_none()
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if let Some(limited) = &self.place {
            limited.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_is_too_many_until_another_is_gone() {
        let stats = Arc::<Block<ConnectionLimitStat>>::default();
        let config = ConnectionLimit::new("c", 2);
        let limited = Limited::new(&config, || stats.clone()).unwrap();
        let shard = Shard::default();
        let first = limited.count(shard);
        let second = limited.count(Shard::of_worker(1));
        assert!(!first.is_too_many() && !second.is_too_many());
        let third = limited.count(shard);
        assert!(third.is_too_many());
        assert_eq!(stats.get(ConnectionLimitStat::ActiveConnections), 3);
        drop(third);
        assert!(limited.count(shard).is_too_many());
        drop(first);
        assert!(!limited.count(shard).is_too_many());
        assert_eq!(stats.get(ConnectionLimitStat::LimitedConnections), 2);
        assert_eq!(stats.get(ConnectionLimitStat::ActiveConnections), 1);
    }

    #[test]
    fn what_is_not_enforced_is_not_counted() {
        let mut config = ConnectionLimit::new("c", 1);
        config.enabled = false;
        assert!(Limited::new(&config, || panic!("nobody counts")).is_none());
    }
}
