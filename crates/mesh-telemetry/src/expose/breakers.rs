//! Whether a cluster's circuit breakers are open, from what is in use and the limits. Pure.

use mesh_core::Usage;
use mesh_core::model::{ClusterEntry, Limits, Priority};
use mesh_core::stats::ClusterStat;
use mesh_core::usage::Resource;

/// Whether the breaker of a cluster behind a statistic is open: no more fits. None for other
/// statistics.
pub(super) fn is_open(stat: ClusterStat, cluster: &ClusterEntry) -> Option<bool> {
    let (priority, resource) = breaker(stat)?;
    let usage = cluster.live().usage_of(priority);
    Some(usage.get(resource) >= limit(resource, usage, cluster.config().limits_of(priority)))
}

/// How much is left of each limit, where a cluster's limits are to tell: names and values, of the
/// priorities that do (Envoy `track_remaining`). What has no limit has as much as there are numbers
/// left, as in Envoy, and with a budget no number of retries is left.
pub(super) fn remaining(cluster: &ClusterEntry) -> impl Iterator<Item = (&'static str, u64)> {
    let left = |(name, priority, resource): (&'static str, Priority, Resource)| {
        let limits = cluster.config().limits_of(priority);
        if !limits.track_remaining {
            return None;
        }
        let limit = match resource {
            Resource::Retries if limits.budget.is_some() => 0,
            Resource::Pools if limits.max_pools == u32::MAX => u64::MAX,
            _ => u64::from(limit(resource, cluster.live().usage_of(priority), limits)),
        };
        let used = cluster.live().usage_of(priority).get(resource);
        Some((name, limit.saturating_sub(used.into())))
    };
    REMAINING.into_iter().filter_map(left)
}

const REMAINING: [(&str, Priority, Resource); 10] = {
    const DEFAULT: Priority = Priority::Default;
    const HIGH: Priority = Priority::High;
    [
        (
            "circuit_breakers.default.remaining_cx",
            DEFAULT,
            Resource::Connections,
        ),
        (
            "circuit_breakers.default.remaining_pending",
            DEFAULT,
            Resource::Pending,
        ),
        (
            "circuit_breakers.default.remaining_rq",
            DEFAULT,
            Resource::Requests,
        ),
        (
            "circuit_breakers.default.remaining_retries",
            DEFAULT,
            Resource::Retries,
        ),
        (
            "circuit_breakers.default.remaining_cx_pools",
            DEFAULT,
            Resource::Pools,
        ),
        (
            "circuit_breakers.high.remaining_cx",
            HIGH,
            Resource::Connections,
        ),
        (
            "circuit_breakers.high.remaining_pending",
            HIGH,
            Resource::Pending,
        ),
        (
            "circuit_breakers.high.remaining_rq",
            HIGH,
            Resource::Requests,
        ),
        (
            "circuit_breakers.high.remaining_retries",
            HIGH,
            Resource::Retries,
        ),
        (
            "circuit_breakers.high.remaining_cx_pools",
            HIGH,
            Resource::Pools,
        ),
    ]
};

fn breaker(stat: ClusterStat) -> Option<(Priority, Resource)> {
    let (default, high) = (Priority::Default, Priority::High);
    Some(match stat {
        ClusterStat::BreakerCxOpen => (default, Resource::Connections),
        ClusterStat::BreakerPendingOpen => (default, Resource::Pending),
        ClusterStat::BreakerRqOpen => (default, Resource::Requests),
        ClusterStat::BreakerRetryOpen => (default, Resource::Retries),
        ClusterStat::BreakerPoolOpen => (default, Resource::Pools),
        ClusterStat::HighCxOpen => (high, Resource::Connections),
        ClusterStat::HighPendingOpen => (high, Resource::Pending),
        ClusterStat::HighRqOpen => (high, Resource::Requests),
        ClusterStat::HighRetryOpen => (high, Resource::Retries),
        ClusterStat::HighPoolOpen => (high, Resource::Pools),
        _ => return None,
    })
}

fn limit(resource: Resource, usage: &Usage, limits: &Limits) -> u32 {
    match resource {
        Resource::Connections => limits.max_connections,
        Resource::Pending => limits.max_pending,
        Resource::Requests => limits.max_requests,
        Resource::Retries => retries(usage, limits),
        Resource::Pools => limits.max_pools,
    }
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
    use mesh_core::model::Cluster;
    use mesh_core::model::{Fraction, RetryBudget};
    use mesh_test::fixture;
    use std::sync::Arc;

    const ALL: [(ClusterStat, Priority, Resource); 10] = [
        (
            ClusterStat::BreakerCxOpen,
            Priority::Default,
            Resource::Connections,
        ),
        (
            ClusterStat::BreakerPendingOpen,
            Priority::Default,
            Resource::Pending,
        ),
        (
            ClusterStat::BreakerRqOpen,
            Priority::Default,
            Resource::Requests,
        ),
        (
            ClusterStat::BreakerRetryOpen,
            Priority::Default,
            Resource::Retries,
        ),
        (
            ClusterStat::BreakerPoolOpen,
            Priority::Default,
            Resource::Pools,
        ),
        (
            ClusterStat::HighCxOpen,
            Priority::High,
            Resource::Connections,
        ),
        (
            ClusterStat::HighPendingOpen,
            Priority::High,
            Resource::Pending,
        ),
        (ClusterStat::HighRqOpen, Priority::High, Resource::Requests),
        (
            ClusterStat::HighRetryOpen,
            Priority::High,
            Resource::Retries,
        ),
        (ClusterStat::HighPoolOpen, Priority::High, Resource::Pools),
    ];

    fn entry(limits: Limits, high: Limits) -> Arc<ClusterEntry> {
        let mut cluster = Cluster::new("a");
        (cluster.limits, cluster.high) = (limits, high);
        let snapshot = fixture::snapshot(Vec::new(), vec![cluster]);
        snapshot.cluster("a").unwrap().clone()
    }

    #[test]
    fn each_breaker_opens_with_its_own_limit_and_closes_when_something_is_given_back() {
        let mut limits = Limits::envoy();
        limits.max_connections = 1;
        limits.max_pending = 1;
        limits.max_requests = 1;
        limits.max_retries = 1;
        limits.max_pools = 1;
        let entry = entry(limits, limits);
        for (stat, priority, resource) in ALL {
            let taken = entry.live().usage_of(priority).take_anyway(resource);
            for (other, ..) in ALL {
                assert_eq!(is_open(other, &entry), Some(other == stat));
            }
            drop(taken);
            assert_eq!(is_open(stat, &entry), Some(false));
        }
        assert_eq!(is_open(ClusterStat::RqTotal, &entry), None);
    }

    #[test]
    fn what_is_left_is_told_where_it_is_asked_for() {
        let mut limits = Limits::envoy();
        limits.max_connections = 2;
        let quiet = entry(limits, limits);
        assert_eq!(remaining(&quiet).count(), 0);
        limits.track_remaining = true;
        let entry = entry(limits, Limits::envoy());
        let usage = entry.live().usage();
        let _held: Vec<_> = (0..3)
            .map(|_| usage.take_anyway(Resource::Connections))
            .chain([usage.take_anyway(Resource::Pools)])
            .collect();
        let left: Vec<_> = remaining(&entry).collect();
        // As Envoy 1.40 tells it.
        assert_eq!(
            left,
            [
                ("circuit_breakers.default.remaining_cx", 0),
                ("circuit_breakers.default.remaining_pending", 1024),
                ("circuit_breakers.default.remaining_rq", 1024),
                ("circuit_breakers.default.remaining_retries", 3),
                ("circuit_breakers.default.remaining_cx_pools", u64::MAX - 1),
            ]
        );
    }

    #[test]
    fn the_retry_breaker_opens_just_when_no_retry_is_given_any_more() {
        let mut limits = Limits::envoy();
        limits.budget = Some(RetryBudget {
            share: Fraction::percent(20.0).unwrap(),
            min_concurrency: 3,
            ..RetryBudget::default()
        });
        let entry = entry(limits, Limits::envoy());
        let usage = entry.live().usage();
        let _busy: Vec<_> = (0..40)
            .map(|_| usage.take_anyway(Resource::Requests))
            .collect();
        let mut held = Vec::new();
        loop {
            let open = is_open(ClusterStat::BreakerRetryOpen, &entry);
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
