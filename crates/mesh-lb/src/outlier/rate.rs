//! Success rates that are out of line. Pure arithmetic over one interval's samples.

use super::{Cause, EjectionRates};
use mesh_core::model::Outlier;

/// What one host did in an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) success: u64,
    pub(crate) total: u64,
}

/// The hosts to look at, by their place, why, and what was judged. `hosts` is how many there are,
/// ejected ones included.
pub(super) fn outliers(
    samples: &[(usize, Sample)],
    hosts: usize,
    policy: &Outlier,
) -> Vec<(usize, Cause, EjectionRates)> {
    let mut found = Vec::new();
    if let Some(rule) = policy.success_rate {
        let rates = with_volume(samples, rule.request_volume);
        if enough(rates.len(), hosts, rule.min_hosts) {
            let (average, threshold) = threshold(&rates, f64::from(rule.stdev_factor) / 1000.0);
            let low = rates.iter().filter(|(_, rate)| *rate < threshold);
            found.extend(low.map(|(at, host)| {
                let judged = EjectionRates {
                    host: *host,
                    average,
                    threshold,
                };
                (*at, Cause::SuccessRate, judged)
            }));
        }
    }
    if let Some(rule) = policy.failure_percentage {
        let rates = with_volume(samples, rule.request_volume);
        if enough(rates.len(), hosts, rule.min_hosts) {
            let limit = f64::from(rule.threshold);
            let failing = rates.iter().filter(|(_, rate)| 100.0 - rate >= limit);
            found.extend(failing.map(|(at, host)| {
                let judged = EjectionRates {
                    host: *host,
                    average: 0.0,
                    threshold: 0.0,
                };
                (*at, Cause::FailurePercentage, judged)
            }));
        }
    }
    found
}

/// Success rates in percent of the hosts with enough requests.
fn with_volume(samples: &[(usize, Sample)], volume: u32) -> Vec<(usize, f64)> {
    samples
        .iter()
        .filter(|(_, sample)| sample.total > 0 && sample.total >= u64::from(volume))
        .map(|(at, sample)| (*at, sample.success as f64 * 100.0 / sample.total as f64))
        .collect()
}

fn enough(valid: usize, hosts: usize, min_hosts: u32) -> bool {
    let min = min_hosts as usize;
    valid > 0 && valid >= min && hosts >= min
}

/// The mean, and `mean - factor × standard deviation` (of the whole population).
fn threshold(rates: &[(usize, f64)], factor: f64) -> (f64, f64) {
    let count = rates.len() as f64;
    let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let variance = rates
        .iter()
        .map(|(_, rate)| (rate - mean) * (rate - mean))
        .sum::<f64>()
        / count;
    (mean, mean - factor * variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::{FailurePercentage, SuccessRate};

    fn samples(rates: &[(u64, u64)]) -> Vec<(usize, Sample)> {
        rates
            .iter()
            .map(|(success, total)| Sample {
                success: *success,
                total: *total,
            })
            .enumerate()
            .collect()
    }

    /// Who, and why.
    fn found(samples: &[(usize, Sample)], hosts: usize, policy: &Outlier) -> Vec<(usize, Cause)> {
        let found = outliers(samples, hosts, policy).into_iter();
        found.map(|(at, cause, _)| (at, cause)).collect()
    }

    fn by_rate() -> Outlier {
        let mut policy = Outlier::default();
        policy.success_rate = Some(SuccessRate::default());
        policy
    }

    #[test]
    fn the_threshold_is_envoys_example() {
        // outlier_detection_impl.cc: {50, 100, 100, 100, 100} at a factor of 1.9: mean 90,
        // deviation 20, threshold 52.
        let rates = [(0, 50.0), (1, 100.0), (2, 100.0), (3, 100.0), (4, 100.0)];
        let (mean, threshold) = threshold(&rates, 1.9);
        assert!((mean - 90.0).abs() < 1e-9 && (threshold - 52.0).abs() < 1e-9);
    }

    #[test]
    fn a_rate_below_the_threshold_is_an_outlier_and_one_at_it_is_not() {
        let low = found(
            &samples(&[(50, 100), (100, 100), (100, 100), (100, 100), (100, 100)]),
            5,
            &by_rate(),
        );
        assert_eq!(low, [(0, Cause::SuccessRate)]);
        // All the same: the threshold is the mean, and nobody lies below.
        assert!(found(&samples(&[(0, 100); 5]), 5, &by_rate()).is_empty());
    }

    #[test]
    fn hosts_without_enough_requests_take_no_part() {
        let four = [(50, 100), (100, 100), (100, 100), (100, 100), (99, 99)];
        assert!(
            found(&samples(&four), 5, &by_rate()).is_empty(),
            "four hosts with 100 requests are too few"
        );
    }

    #[test]
    fn a_share_of_failures_at_the_threshold_is_enough() {
        let mut policy = Outlier::default();
        policy.failure_percentage = Some(FailurePercentage::default());
        // 85 % of 100 and 84 %, three that are well.
        let failing = found(
            &samples(&[(15, 100), (16, 100), (50, 50), (50, 50), (50, 50)]),
            5,
            &policy,
        );
        assert_eq!(failing, [(0, Cause::FailurePercentage)]);
        let few = found(
            &samples(&[(0, 50), (50, 50), (50, 50), (50, 50)]),
            4,
            &policy,
        );
        assert!(few.is_empty(), "four hosts are too few");
    }
}
