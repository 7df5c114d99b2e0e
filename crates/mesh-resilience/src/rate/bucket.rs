//! The token bucket. Pure: the time is an argument.
//!
//! Envoy's `TokenBucket`: it begins full, and every `fill_interval` gets `tokens_per_fill` more,
//! up to `max_tokens`. Nothing fills it: how many tokens were ever supplied follows from the time,
//! so one number is kept, how many of them are gone, and one compare-and-swap takes a token.

use mesh_core::model::RateLimit;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// A bucket of tokens.
#[derive(Debug)]
pub(super) struct Bucket {
    start: Instant,
    /// Nanoseconds between fills, at least one.
    interval: u64,
    most: u64,
    per_fill: u64,
    /// Tokens taken, and those that spilled because the bucket was full. Never more than were
    /// supplied.
    gone: AtomicU64,
}

// === impl Bucket ===

impl Bucket {
    /// A full bucket.
    pub(super) fn new(limit: &RateLimit, now: Instant) -> Self {
        let interval = u64::try_from(limit.fill_interval.as_nanos()).unwrap_or(u64::MAX);
        Self {
            start: now,
            interval: interval.max(1),
            most: limit.max_tokens.into(),
            // More than the bucket holds would spill at once.
            per_fill: limit.tokens_per_fill.min(limit.max_tokens).into(),
            gone: AtomicU64::new(0),
        }
    }

    /// Takes a token, if there is one. `now` may be a little behind that of another thread.
    pub(super) fn take(&self, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.start).as_nanos();
        // 584 years fit.
        let fills = u64::try_from(age).unwrap_or(u64::MAX) / self.interval;
        let filled = fills.saturating_mul(self.per_fill);
        let supplied = filled.saturating_add(self.most);
        self.gone
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |gone| {
                // Of what was supplied, at most `most` can still be in the bucket.
                let gone = gone.max(filled);
                (gone < supplied).then_some(gone + 1)
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    fn bucket(most: u32, per_fill: u32, now: Instant) -> Bucket {
        Bucket::new(&RateLimit::new(most, per_fill, SECOND), now)
    }

    fn taken(bucket: &Bucket, now: Instant, wanted: u32) -> u32 {
        (0..wanted).map(|_| u32::from(bucket.take(now))).sum()
    }

    #[test]
    fn begins_full_fills_in_steps_and_never_holds_more_than_its_size() {
        let start = Instant::now();
        let bucket = bucket(5, 2, start);
        for (second, expected) in [
            (0.0, 5),
            (0.999, 0),
            (1.0, 2),
            (1.5, 0),
            (3.0, 4),
            (100.0, 5),
        ] {
            let now = start + SECOND.mul_f64(second);
            assert_eq!(taken(&bucket, now, 10), expected, "after {second} s");
        }
    }

    #[test]
    fn an_empty_bucket_admits_nothing_and_a_fill_beyond_its_size_spills() {
        let start = Instant::now();
        assert_eq!(taken(&bucket(0, 5, start), start + 9 * SECOND, 3), 0);
        let small = bucket(1, 5, start);
        assert_eq!(taken(&small, start, 3), 1);
        assert_eq!(taken(&small, start + SECOND, 3), 1);
    }

    #[test]
    fn a_thread_whose_clock_is_behind_neither_gains_nor_loses_tokens() {
        let start = Instant::now();
        let bucket = bucket(1, 1, start);
        assert!(bucket.take(start + SECOND));
        assert!(!bucket.take(start));
        assert!(!bucket.take(start + SECOND));
        assert!(bucket.take(start + 2 * SECOND));
    }

    #[test]
    fn threads_share_the_tokens() {
        let start = Instant::now();
        let bucket = bucket(1000, 1, start);
        let total: u32 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| taken(&bucket, start, 400)))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(total, 1000);
    }

    proptest! {
        /// Against a bucket that is filled step by step.
        #[test]
        fn admits_what_a_bucket_filled_by_a_timer_would(
            most in 0..20_u32,
            per_fill in 0..30_u32,
            steps in prop::collection::vec((0..2500_u64, 0..8_u32), 1..40),
        ) {
            let start = Instant::now();
            let bucket = bucket(most, per_fill, start);
            let (mut millis, mut fills, mut tokens) = (0, 0, most);
            for (wait, wanted) in steps {
                millis += wait;
                while fills < millis / 1000 {
                    fills += 1;
                    tokens = (tokens + per_fill).min(most);
                }
                let got = taken(&bucket, start + Duration::from_millis(millis), wanted);
                prop_assert_eq!(got, wanted.min(tokens));
                tokens -= got;
            }
        }
    }
}
