//! Slow start: a new host gets its share little by little.
//!
//! A host is new from when it is first known and healthy, for as long as the window lasts, and
//! again when active health checks bring it back. What else happens to it later (ejections, a change
//! of the health that discovery tells of) makes it no newer, as in Envoy. Its weight is looked at whenever it is put back into a schedule, that is,
//! each time that it was chosen.

use crate::Host;
use mesh_core::model::{Health, SlowStart};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The share of its weight that a host gets which has been healthy for so long: max(minimum,
/// (time / window)^(1 / aggression)), in whole milliseconds, of which there is at least one.
pub(crate) fn factor(policy: &SlowStart, healthy_for: Duration) -> f64 {
    let (time, window) = (healthy_for.as_millis(), policy.window.as_millis());
    if time >= window {
        return 1.0;
    }
    let part = time.max(1) as f64 / window as f64;
    let aggression = policy.aggression.get();
    let part = match aggression {
        1.0 => part,
        _ if aggression > 0.0 => part.powf(1.0 / aggression),
        // Envoy's answer to a value that makes no sense.
        _ => part,
    };
    part.max(f64::from(policy.minimum) / 100.0)
}

/// The factor of a host now.
pub(crate) fn factor_of(policy: &SlowStart, host: &Host, now: Instant) -> f64 {
    match host.healthy_since() {
        Some(since) if host.health() == Health::Healthy => {
            factor(policy, now.saturating_duration_since(since))
        }
        _ => 1.0,
    }
}

/// Notes who is healthy now; true when some host is still new.
pub(crate) fn note(policy: &SlowStart, hosts: &[Arc<Host>], now: Instant) -> bool {
    if policy.window.is_zero() {
        return false;
    }
    let healthy = hosts.iter().filter(|host| host.health() == Health::Healthy);
    let ages = healthy.map(|host| now.saturating_duration_since(host.note_healthy(now)));
    ages.min().is_some_and(|youngest| youngest <= policy.window)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::Real;

    #[test]
    fn the_share_grows_from_the_minimum_to_the_whole() {
        let policy = SlowStart::new(Duration::from_secs(100));
        let at = |seconds| factor(&policy, Duration::from_secs(seconds));
        assert_eq!(at(0), 0.1);
        assert_eq!(at(5), 0.1, "5 % of the window is below the minimum of 10 %");
        assert_eq!(at(50), 0.5);
        assert_eq!(at(100), 1.0);
        assert_eq!(at(1_000_000), 1.0);
    }

    #[test]
    fn aggression_bends_the_growth() {
        let mut policy = SlowStart::new(Duration::from_secs(100));
        policy.minimum = 0;
        policy.aggression = Real::new(2.0).unwrap();
        assert_eq!(
            factor(&policy, Duration::from_secs(25)),
            0.5,
            "a square root"
        );
        policy.aggression = Real::new(0.5).unwrap();
        assert_eq!(factor(&policy, Duration::from_secs(50)), 0.25, "a square");
        assert_eq!(
            factor(&policy, Duration::ZERO),
            (0.001_f64 / 100.0).powi(2),
            "a millisecond at least"
        );
    }

    #[test]
    fn without_a_window_nobody_is_slow() {
        assert_eq!(factor(&SlowStart::new(Duration::ZERO), Duration::ZERO), 1.0);
    }
}
