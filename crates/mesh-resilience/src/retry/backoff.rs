//! How long to wait before a retry. Pure.
//!
//! Envoy's jittered exponential back-off (`source/common/common/backoff_strategy.cc`): a window
//! that begins at the base and doubles up to a maximum, and a wait anywhere within it. Whole
//! milliseconds, as there; a base below one counts as one.

use std::time::Duration;

/// The window of the retry with this number (the first is 0), in milliseconds.
pub(super) fn window(base: Duration, max: Duration, retry: u32) -> u64 {
    let base = millis(base).max(1);
    let max = millis(max).max(base);
    base.checked_shl(retry)
        // A shift that lost bits is no longer a doubling.
        .filter(|window| window >> retry == base)
        .map_or(max, |window| window.min(max))
}

/// The wait within a window that a random word stands for.
pub(super) fn pause(window: u64, word: u64) -> Duration {
    Duration::from_millis(word % window.max(1))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_window_doubles_until_it_meets_its_maximum() {
        let windows: Vec<_> = (0..6).map(|n| window(ms(25), ms(250), n)).collect();
        assert_eq!(windows, [25, 50, 100, 200, 250, 250]);
        assert_eq!(window(Duration::from_micros(300), ms(10), 1), 2);
        assert_eq!(
            window(ms(25), ms(5), 3),
            25,
            "the maximum is at least the base"
        );
        assert_eq!(window(ms(25), ms(250), u32::MAX), 250);
    }

    #[test]
    fn a_wait_lies_within_its_window() {
        assert_eq!(pause(25, 0), ms(0));
        assert_eq!(pause(25, 24), ms(24));
        assert_eq!(pause(25, 25), ms(0));
    }

    proptest! {
        #[test]
        fn windows_never_shrink_and_never_leave_their_bounds(
            base in 0..10_000_u64,
            max in 0..100_000_u64,
            retry in 0..200_u32,
            word: u64,
        ) {
            let now = window(ms(base), ms(max), retry);
            let next = window(ms(base), ms(max), retry + 1);
            prop_assert!(now <= next);
            prop_assert!((base.max(1)..=max.max(base).max(1)).contains(&now));
            prop_assert!(pause(now, word) < ms(now));
        }
    }
}
