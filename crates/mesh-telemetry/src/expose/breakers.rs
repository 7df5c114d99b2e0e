//! Whether a cluster's circuit breakers are open, from what is in use and the limits. Pure.

use mesh_core::Usage;
use mesh_core::model::Limits;
use mesh_core::stats::ClusterStat;
use mesh_core::usage::Resource;

/// Whether the breaker behind a statistic is open: no more fits. None for other statistics.
pub(super) fn is_open(stat: ClusterStat, usage: &Usage, limits: &Limits) -> Option<bool> {
    let (resource, limit) = match stat {
        ClusterStat::BreakerCxOpen => (Resource::Connections, limits.max_connections),
        ClusterStat::BreakerPendingOpen => (Resource::Pending, limits.max_pending),
        ClusterStat::BreakerRqOpen => (Resource::Requests, limits.max_requests),
        ClusterStat::BreakerRetryOpen => (Resource::Retries, retries(usage, limits)),
        _ => return None,
    };
    Some(usage.get(resource) >= limit)
}

/// As many retries as [`Usage::take_retry`] would allow.
fn retries(usage: &Usage, limits: &Limits) -> u32 {
    let Some(budget) = limits.budget else {
        return limits.max_retries;
    };
    let busy = u64::from(usage.get(Resource::Requests)) + u64::from(usage.get(Resource::Pending));
    let share = busy * u64::from(budget.share.as_millionths()) / 1_000_000;
    u32::try_from(share)
        .unwrap_or(u32::MAX)
        .max(budget.min_concurrency)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::{Fraction, RetryBudget};
    use std::sync::Arc;

    const ALL: [(ClusterStat, Resource); 4] = [
        (ClusterStat::BreakerCxOpen, Resource::Connections),
        (ClusterStat::BreakerPendingOpen, Resource::Pending),
        (ClusterStat::BreakerRqOpen, Resource::Requests),
        (ClusterStat::BreakerRetryOpen, Resource::Retries),
    ];

    #[test]
    fn each_breaker_opens_with_its_own_limit_and_closes_when_something_is_given_back() {
        let mut limits = Limits::envoy();
        limits.max_connections = 1;
        limits.max_pending = 1;
        limits.max_requests = 1;
        limits.max_retries = 1;
        let usage = Arc::new(Usage::default());
        for (stat, resource) in ALL {
            let taken = usage.take_anyway(resource);
            for (other, _) in ALL {
                assert_eq!(is_open(other, &usage, &limits), Some(other == stat));
            }
            drop(taken);
            assert_eq!(is_open(stat, &usage, &limits), Some(false));
        }
        assert_eq!(is_open(ClusterStat::RqTotal, &usage, &limits), None);
    }

    #[test]
    fn the_retry_breaker_opens_just_when_no_retry_is_given_any_more() {
        let mut limits = Limits::envoy();
        limits.budget = Some(RetryBudget {
            share: Fraction::percent(20.0).unwrap(),
            min_concurrency: 3,
            ..RetryBudget::default()
        });
        let usage = Arc::new(Usage::default());
        let _busy: Vec<_> = (0..40)
            .map(|_| usage.take_anyway(Resource::Requests))
            .collect();
        let mut held = Vec::new();
        loop {
            let open = is_open(ClusterStat::BreakerRetryOpen, &usage, &limits);
            let taken = usage.take_retry(&limits);
            assert_eq!(open, Some(taken.is_none()));
            match taken {
                Some(taken) => held.push(taken),
                None => break,
            }
        }
        assert_eq!(held.len(), 8);
    }
}
