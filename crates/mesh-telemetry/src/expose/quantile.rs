//! Quantiles of a histogram, estimated from its buckets.

use mesh_core::stats::{BOUNDS, Summary};

/// The quantiles that Envoy shows, in percent.
pub(super) const QUANTILES: [f64; 10] =
    [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

/// The value that this share of the values, in percent, lies at or below, taking values to be
/// spread evenly over each bucket. Nothing is known beyond the last bound. None where there are
/// no values.
pub(super) fn quantile(summary: &Summary, percent: f64) -> Option<f64> {
    if summary.count == 0 {
        return None;
    }
    let wanted = summary.count as f64 * percent / 100.0;
    let (mut below, mut lower) = (0, 0.0);
    for (cumulative, upper) in summary.cumulative.into_iter().zip(BOUNDS) {
        if cumulative > below && cumulative as f64 >= wanted {
            let share = (wanted - below as f64) / (cumulative - below) as f64;
            let value = lower + (upper - lower) * share.clamp(0.0, 1.0);
            return Some((value * 1000.0).round() / 1000.0);
        }
        below = cumulative;
        lower = upper;
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::Shard;
    use mesh_core::stats::Histogram;
    use proptest::prelude::*;

    fn of(values: &[f64]) -> Summary {
        let histogram = Histogram::default();
        for value in values {
            histogram.record(Shard::default(), *value);
        }
        histogram.summary()
    }

    #[test]
    fn values_are_spread_evenly_over_their_bucket() {
        // All between 10 and 25.
        let summary = of(&[11.0, 12.0, 13.0, 14.0]);
        assert_eq!(quantile(&summary, 0.0), Some(10.0));
        assert_eq!(quantile(&summary, 50.0), Some(17.5));
        assert_eq!(quantile(&summary, 100.0), Some(25.0));
        assert_eq!(quantile(&of(&[]), 50.0), None);
        assert_eq!(quantile(&of(&[1e12]), 50.0), Some(3_600_000.0));
    }

    proptest! {
        #[test]
        fn a_quantile_lies_in_the_bucket_of_the_value_with_that_rank(
            mut values in prop::collection::vec(0.0..3_600_000.0_f64, 1..50), percent in 1.0..100.0_f64,
        ) {
            let estimate = quantile(&of(&values), percent).unwrap();
            values.sort_by(f64::total_cmp);
            let rank = (values.len() as f64 * percent / 100.0).ceil() as usize;
            let exact = values[rank.clamp(1, values.len()) - 1];
            let bucket = BOUNDS.partition_point(|bound| *bound < exact);
            let lower = if bucket == 0 { 0.0 } else { BOUNDS[bucket - 1] };
            prop_assert!((lower - 0.001..=BOUNDS[bucket] + 0.001).contains(&estimate));
        }
    }
}
