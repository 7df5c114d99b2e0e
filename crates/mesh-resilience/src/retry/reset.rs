//! How long an answer itself says to wait. Pure.
//!
//! Envoy's `rate_limited_retry_back_off` (`source/common/router/reset_header_parser.cc`): the first
//! of the policy's headers that says a time of no more than the maximum. Whole seconds; a time of
//! day that is over says nothing, and no more does a wait of nothing.

use http::HeaderMap;
use mesh_core::WallClock;
use mesh_core::model::{ResetFormat, ResetHeader, Retry};
use std::time::{Duration, SystemTime};

/// How long an answer with these headers says to wait, if it does.
pub(super) fn wait(policy: &Retry, headers: &HeaderMap, clock: &WallClock) -> Option<Duration> {
    let all = policy.resets.iter();
    let mut told = all.filter_map(|reset| one(reset, headers, clock));
    let told = told.find(|wait| *wait <= policy.reset_max)?;
    (told > Duration::from_millis(1)).then_some(told)
}

/// A wait of at least so long, and less than half as much more (Envoy
/// `JitteredLowerBoundBackOffStrategy`).
pub(super) fn jittered(least: Duration, word: u64) -> Duration {
    let half = u64::try_from(least.as_millis() / 2).unwrap_or(u64::MAX);
    least.saturating_add(Duration::from_millis(word % half.max(1)))
}

fn one(reset: &ResetHeader, headers: &HeaderMap, clock: &WallClock) -> Option<Duration> {
    let value = headers.get(&reset.name)?.to_str().ok()?;
    let said = Duration::from_secs(value.trim().parse().ok()?);
    match reset.format {
        ResetFormat::Seconds => Some(said),
        ResetFormat::UnixTimestamp => {
            let now = clock.now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
            said.checked_sub(Duration::from_secs(now.as_secs()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    const NOW: u64 = 1_700_000_000;

    fn policy() -> Retry {
        let mut policy = Retry::default();
        policy.resets = vec![
            ResetHeader {
                name: HeaderName::from_static("retry-after"),
                format: ResetFormat::Seconds,
            },
            ResetHeader {
                name: HeaderName::from_static("x-ratelimit-reset"),
                format: ResetFormat::UnixTimestamp,
            },
        ];
        policy
    }

    fn told(pairs: &[(&'static str, &str)]) -> Option<u64> {
        let headers = pairs.iter().map(|(name, value)| {
            let value = HeaderValue::from_str(value).unwrap();
            (HeaderName::from_static(name), value)
        });
        // Half a second into the present one.
        let clock = WallClock::fixed(Duration::from_millis(NOW * 1000 + 500));
        wait(&policy(), &headers.collect(), &clock).map(|wait| wait.as_secs())
    }

    #[test]
    fn a_header_says_it_in_seconds_or_as_a_time_of_day() {
        assert_eq!(told(&[("retry-after", "7")]), Some(7));
        assert_eq!(told(&[("x-ratelimit-reset", "1700000009")]), Some(9));
        let both = [("x-ratelimit-reset", "1700000009"), ("retry-after", "7")];
        assert_eq!(told(&both), Some(7), "in the order of the policy");
    }

    #[test]
    fn what_says_nothing_is_passed_over() {
        for value in [
            "",
            "soon",
            "-1",
            "1.5",
            "Wed, 21 Oct 2015 07:28:00 GMT",
            "301",
        ] {
            let both = [("x-ratelimit-reset", "1700000009"), ("retry-after", value)];
            assert_eq!(told(&both), Some(9), "{value:?}");
        }
        assert_eq!(told(&[("retry-after", "300")]), Some(300));
        assert_eq!(told(&[("x-ratelimit-reset", "1699999999")]), None, "over");
        assert_eq!(told(&[("retry-after", "0")]), None);
        assert_eq!(told(&[("other", "7")]), None);
    }

    #[test]
    fn a_wait_of_nothing_is_the_usual_one_and_asks_no_further() {
        let both = [("retry-after", "0"), ("x-ratelimit-reset", "1700000009")];
        assert_eq!(told(&both), None);
    }

    proptest! {
        #[test]
        fn a_wait_is_told_or_up_to_half_as_much_more(seconds in 1..400_u64, word: u64) {
            let least = Duration::from_secs(seconds);
            let wait = jittered(least, word);
            prop_assert!(wait >= least && wait < least.mul_f64(1.5));
        }

        #[test]
        fn no_value_upsets_the_parser(bytes in prop::collection::vec(32..=255_u8, 0..30)) {
            prop_assume!(!bytes.contains(&127));
            let mut headers = HeaderMap::new();
            let value = HeaderValue::from_bytes(&bytes).unwrap();
            headers.insert("retry-after", value.clone());
            headers.insert("x-ratelimit-reset", value);
            let most = Duration::from_secs(300);
            let wait = wait(&policy(), &headers, &WallClock::system());
            prop_assert!(wait.is_none_or(|wait| wait <= most));
        }
    }
}
