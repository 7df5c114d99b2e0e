//! A histogram over Envoy's fixed buckets.

use super::{SHARDS, Shard};
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the buckets: milliseconds for durations, bytes for sizes. The same for every
/// histogram of Envoy and Istio; a last bucket takes the rest.
pub const BOUNDS: [f64; 19] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0, 30000.0,
    60000.0, 300000.0, 600000.0, 1800000.0, 3600000.0,
];

/// Cells of a row: one for each bucket, one for the rest, one for the sum in thousandths.
const CELLS: usize = BOUNDS.len() + 2;
const SUM: usize = CELLS - 1;

/// Counts values by size. A worker's row is allocated when it first records.
#[derive(Default)]
pub struct Histogram {
    rows: [OnceLock<Box<[AtomicU64; CELLS]>>; SHARDS],
}

/// What a [`Histogram`] holds, summed over all workers.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// How many values lie at or below each bound of [`BOUNDS`] (cumulative).
    pub cumulative: [u64; BOUNDS.len()],
    /// How many values there are.
    pub count: u64,
    /// Their sum, to three decimals.
    pub sum: f64,
}

// === impl Histogram ===

impl Histogram {
    /// Records a value; negative and non-finite values count as zero.
    pub fn record(&self, shard: Shard, value: f64) {
        let value = if value.is_finite() {
            value.max(0.0)
        } else {
            0.0
        };
        let row = self.rows[shard.index()]
            .get_or_init(|| Box::new(std::array::from_fn(|_| AtomicU64::new(0))));
        let bucket = BOUNDS.partition_point(|bound| *bound < value);
        row[bucket].fetch_add(1, Ordering::Relaxed);
        row[SUM].fetch_add((value * 1000.0) as u64, Ordering::Relaxed);
    }

    /// What was recorded so far.
    pub fn summary(&self) -> Summary {
        let mut cells = [0_u64; CELLS];
        for row in self.rows.iter().filter_map(OnceLock::get) {
            for (cell, value) in cells.iter_mut().zip(row.iter()) {
                *cell += value.load(Ordering::Relaxed);
            }
        }
        let mut count = 0;
        let cumulative = std::array::from_fn(|bucket| {
            count += cells[bucket];
            count
        });
        Summary {
            cumulative,
            count: count + cells[BOUNDS.len()],
            sum: cells[SUM] as f64 / 1000.0,
        }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { count, sum, .. } = self.summary();
        write!(f, "Histogram(count {count}, sum {sum})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_belongs_to_that_bucket() {
        let histogram = Histogram::default();
        histogram.record(Shard::default(), 1.0);
        histogram.record(Shard::of_worker(1), 1.5);
        histogram.record(Shard::of_worker(1), 9e9);
        let summary = histogram.summary();
        assert_eq!(summary.cumulative[..3], [0, 1, 2]);
        assert_eq!(summary.cumulative[18], 2);
        assert_eq!(summary.count, 3);
        assert_eq!(summary.sum, 9e9 + 2.5);
    }
}
