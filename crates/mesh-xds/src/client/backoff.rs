//! How long to wait before the next attempt to connect.

use std::time::Duration;

/// Exponential back-off with full jitter: a wait is drawn evenly from nothing up to a window that
/// doubles with each failure, so that clients of a server which comes back do not come at once.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

// === impl Backoff ===

impl Backoff {
    /// Windows from `first` to `most`.
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            failures: 0,
        }
    }

    /// The next wait, drawn with a random word.
    pub(crate) fn next(&mut self, word: u64) -> Duration {
        let doubled = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let window = self.first.saturating_mul(doubled).min(self.most);
        self.failures = self.failures.saturating_add(1).min(31);
        // The upper 32 bits as a share of the window.
        let share = f64::from(u32::try_from(word >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
        window.mul_f64(share)
    }

    /// It worked.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(first: u64, most: u64) -> Backoff {
        Backoff::new(Duration::from_millis(first), Duration::from_millis(most))
    }

    #[test]
    fn windows_double_up_to_the_largest_and_start_over_after_success() {
        let mut backoff = of(500, 30_000);
        let mut windows = || backoff.next(u64::MAX).as_millis();
        let all: Vec<_> = (0..40).map(|_| windows()).collect();
        assert_eq!(all[..8], [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        assert_eq!(all[39], 30_000);
        backoff.reset();
        assert_eq!(backoff.next(u64::MAX).as_millis(), 500);
    }

    #[test]
    fn a_wait_is_anything_within_the_window() {
        let mut backoff = of(500, 500);
        assert_eq!(backoff.next(0), Duration::ZERO);
        assert_eq!(backoff.next(1 << 63).as_millis(), 250);
    }
}
