//! Counters, gauges and histograms whose names are settled when configuration is compiled.
//!
//! Statistics come in blocks: all numbers of one cluster, or of one listener's HTTP side. A block
//! has one row of atomics per worker ([`Shard`]), allocated when that worker first counts
//! something, so an unused cluster costs a few words and no two cores write the same line. The
//! request path never looks a name up: it says `block.inc(shard, ClusterStat::RqTotal)`.

mod codes;
mod histogram;
mod names;
mod tls;

pub use codes::Codes;
pub use histogram::{BOUNDS, Histogram, Summary};
pub use names::{
    AuthzStat, ClusterStat, ConnectionLimitStat, ExternalStat, Http2Stat, HttpStat, ListenerStat,
    RouteStat, SessionStat, TcpStat,
};
pub use tls::TlsStat;

use std::fmt;
use std::marker::PhantomData;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many rows a block can have. Workers beyond this share.
pub(crate) const SHARDS: usize = 16;

/// The worker that counts. Workers number themselves; everything else is shard 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shard(u8);

/// A closed list of statistics; see [`stats!`](crate::stats!).
pub trait Stat: Copy + fmt::Debug + Send + Sync + 'static {
    /// Every statistic with its Envoy name, in the order of [`Stat::index`].
    const ALL: &'static [(Self, &'static str, Kind)];
    /// Its place in a row.
    fn index(self) -> usize;
}

/// What a statistic does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// The statistics of one thing.
pub struct Block<S> {
    rows: [OnceLock<Box<[AtomicU64]>>; SHARDS],
    stat: PhantomData<S>,
}

/// Counts a gauge up, and down again when dropped.
#[derive(Debug)]
pub struct Raised<B: AsRef<Block<S>>, S: Stat> {
    block: B,
    shard: Shard,
    stat: S,
}

// === impl Shard ===

impl Shard {
    /// The shard of the worker with this number.
    pub fn of_worker(number: usize) -> Self {
        // SHARDS fits in a byte.
        Self((number % SHARDS) as u8)
    }

    #[inline]
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

// === impl Block ===

impl<S: Stat> Block<S> {
    #[inline]
    fn row(&self, shard: Shard) -> &[AtomicU64] {
        self.rows[shard.index()].get_or_init(|| S::ALL.iter().map(|_| AtomicU64::new(0)).collect())
    }

    /// Adds one.
    #[inline]
    pub fn inc(&self, shard: Shard, stat: S) {
        self.add(shard, stat, 1);
    }

    /// Adds `amount`.
    #[inline]
    pub fn add(&self, shard: Shard, stat: S, amount: u64) {
        self.row(shard)[stat.index()].fetch_add(amount, Ordering::Relaxed);
    }

    /// Takes one off a gauge.
    #[inline]
    pub fn dec(&self, shard: Shard, stat: S) {
        self.row(shard)[stat.index()].fetch_sub(1, Ordering::Relaxed);
    }

    /// Sets a gauge that only one thread writes.
    pub fn set(&self, stat: S, value: u64) {
        self.row(Shard::default())[stat.index()].store(value, Ordering::Relaxed);
    }

    /// The sum over all workers.
    pub fn get(&self, stat: S) -> u64 {
        self.rows
            .iter()
            .filter_map(OnceLock::get)
            .map(|row| row[stat.index()].load(Ordering::Relaxed))
            .fold(0, u64::wrapping_add)
    }

    /// Whether nothing was ever counted.
    pub fn is_untouched(&self) -> bool {
        self.rows.iter().all(|row| row.get().is_none())
    }

    /// Every statistic with its present value.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Kind, u64)> + '_ {
        S::ALL
            .iter()
            .map(|(stat, name, kind)| (*name, *kind, self.get(*stat)))
    }
}

impl<S> Default for Block<S> {
    fn default() -> Self {
        Self {
            rows: Default::default(),
            stat: PhantomData,
        }
    }
}

impl<S: Stat> fmt::Debug for Block<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.iter()
                    .filter(|(_, _, value)| *value != 0)
                    .map(|(n, _, v)| (n, v)),
            )
            .finish()
    }
}

// === impl Raised ===

impl<B: AsRef<Block<S>>, S: Stat> Raised<B, S> {
    /// Counts `stat` up until the value is dropped.
    pub fn new(block: B, shard: Shard, stat: S) -> Self {
        block.as_ref().inc(shard, stat);
        Self { block, shard, stat }
    }
}

impl<B: AsRef<Block<S>>, S: Stat> Drop for Raised<B, S> {
    fn drop(&mut self) {
        self.block.as_ref().dec(self.shard, self.stat);
    }
}

/// Declares an enum of statistics with their names.
#[macro_export]
macro_rules! stats {
    ($(#[$outer:meta])* $vis:vis enum $name:ident {
        $($(#[$doc:meta])* $stat:ident = $kind:ident $text:literal,)*
    }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        $vis enum $name { $($(#[$doc])* $stat,)* }

        impl $crate::stats::Stat for $name {
            const ALL: &'static [(Self, &'static str, $crate::stats::Kind)] =
                &[$((Self::$stat, $text, $crate::stats::Kind::$kind),)*];
            #[inline]
            fn index(self) -> usize { self as usize }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_block_sums_what_its_workers_counted() {
        let block = Block::<ClusterStat>::default();
        assert!(block.is_untouched());
        block.inc(Shard::of_worker(0), ClusterStat::RqTotal);
        block.add(Shard::of_worker(3), ClusterStat::RqTotal, 4);
        assert_eq!(block.get(ClusterStat::RqTotal), 5);
        // Up on one worker, down on another: the sum is right all the same.
        block.inc(Shard::of_worker(1), ClusterStat::RqActive);
        block.dec(Shard::of_worker(2), ClusterStat::RqActive);
        assert_eq!(block.get(ClusterStat::RqActive), 0);
    }

    #[test]
    fn a_raised_gauge_falls_when_dropped() {
        struct Shared(Arc<Block<HttpStat>>);
        impl AsRef<Block<HttpStat>> for Shared {
            fn as_ref(&self) -> &Block<HttpStat> {
                &self.0
            }
        }
        let block = Arc::new(Block::default());
        let raised = Raised::new(Shared(block.clone()), Shard::default(), HttpStat::RqActive);
        assert_eq!(block.get(HttpStat::RqActive), 1);
        drop(raised);
        assert_eq!(block.get(HttpStat::RqActive), 0);
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = ClusterStat::ALL.iter().map(|(_, name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ClusterStat::ALL.len());
        for (index, (stat, _, _)) in HttpStat::ALL.iter().enumerate() {
            assert_eq!(stat.index(), index);
        }
    }
}
