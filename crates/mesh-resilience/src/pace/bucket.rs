//! How much of a body may be passed on by now. Pure.

use std::num::NonZeroU64;
use std::time::Duration;
use tokio::time::Instant;

/// After this long there is more.
pub(super) const SLICE: Duration = Duration::from_millis(50);

const SECOND: u128 = 1_000_000;

/// A second's worth of bytes at most, and a slice's at first (Envoy `StreamRateLimiter`).
#[derive(Debug)]
pub(super) struct Bucket {
    /// Bytes a second.
    rate: u128,
    /// Millionths of bytes.
    tokens: u128,
    filled: Instant,
}

// === impl Bucket ===

impl Bucket {
    pub(super) fn begin(rate: NonZeroU64, now: Instant) -> Self {
        let rate = u128::from(rate.get()) * 1024;
        // Whole bytes of it, as in Envoy.
        let first = rate * SLICE.as_millis() / 1000;
        Self {
            rate,
            tokens: first * SECOND,
            filled: now,
        }
    }

    /// Takes as many bytes as there are, but no more than `wanted`.
    pub(super) fn take(&mut self, wanted: usize, now: Instant) -> usize {
        let passed = now.saturating_duration_since(self.filled).as_micros();
        self.filled = now;
        let more = self.rate.saturating_mul(passed);
        self.tokens = self
            .tokens
            .saturating_add(more)
            .min(self.rate.saturating_mul(SECOND));
        let there = usize::try_from(self.tokens / SECOND).unwrap_or(usize::MAX);
        let taken = wanted.min(there);
        self.tokens -= taken as u128 * SECOND;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kib(rate: u64) -> NonZeroU64 {
        NonZeroU64::new(rate).unwrap()
    }

    #[test]
    fn it_begins_with_a_slice_and_never_holds_more_than_a_second() {
        let now = Instant::now();
        let mut bucket = Bucket::begin(kib(1), now);
        assert_eq!(bucket.take(1000, now), 51);
        assert_eq!(bucket.take(1000, now), 0);
        assert_eq!(bucket.take(1000, now + SLICE), 51);
        // What was less than a byte is not lost.
        assert_eq!(bucket.take(1000, now + 5 * SLICE), 205);
        assert_eq!(bucket.take(9000, now + 5000 * SLICE), 1024);
    }

    #[test]
    fn the_largest_rate_is_as_good_as_none() {
        let now = Instant::now();
        let mut bucket = Bucket::begin(kib(u64::MAX), now);
        assert_eq!(bucket.take(usize::MAX, now + SLICE), usize::MAX);
    }

    proptest! {
        #[test]
        fn no_more_passes_than_the_rate_allows(
            rate in 1..2000_u64,
            steps in prop::collection::vec((0..200_000_u64, 0..100_000_usize), 1..40),
        ) {
            let mut now = Instant::now();
            let began = now;
            let mut bucket = Bucket::begin(kib(rate), now);
            let mut passed = 0_u128;
            for (micros, wanted) in steps {
                now += Duration::from_micros(micros);
                passed += bucket.take(wanted, now) as u128;
                let most = u128::from(rate) * 1024 * ((now - began + SLICE).as_micros()) / SECOND;
                prop_assert!(passed <= most, "{passed} > {most}");
            }
        }
    }
}
