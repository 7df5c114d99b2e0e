//! Circuit breakers.

use crate::pb::envoy::config::cluster::v3::CircuitBreakers;
use crate::pb::envoy::config::cluster::v3::circuit_breakers::{Thresholds, thresholds};
use crate::pb::envoy::config::core::v3::RoutingPriority;
use crate::wire::{At, each, enumeration, maybe_duration, number, refuse, share};
use mesh_core::Invalid;
use mesh_core::model::{Cluster, Limits, Priority, RetryBudget};

/// The limits of both priorities; of several for one the first counts, as in Envoy
/// (`ClusterInfoImpl::ResourceManagers::load`).
pub(super) fn read(value: &CircuitBreakers, cluster: &mut Cluster) -> Result<(), Invalid> {
    let CircuitBreakers {
        thresholds,
        per_host_thresholds,
    } = value;
    // The first is laid last.
    for (priority, limits) in each("thresholds", thresholds, limits)?.into_iter().rev() {
        match priority {
            Priority::Default => cluster.limits = limits,
            Priority::High => cluster.high = limits,
        }
    }
    let per_host = each("per_host_thresholds", per_host_thresholds, of_one_host)?;
    for (priority, most) in per_host.into_iter().rev() {
        match priority {
            Priority::Default => cluster.limits.max_connections_per_host = most,
            Priority::High => cluster.high.max_connections_per_host = most,
        }
    }
    Ok(())
}

/// Of one endpoint connections alone are limited; the rest Envoy refuses, too.
fn of_one_host(value: &Thresholds) -> Result<(Priority, u32), Invalid> {
    let Thresholds {
        priority: of,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining,
        max_connection_pools,
    } = value;
    refuse!(
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining,
        max_connection_pools,
    );
    let most = number(max_connections.as_ref()).unwrap_or(u32::MAX);
    Ok((priority(*of)?, most))
}

fn priority(value: i32) -> Result<Priority, Invalid> {
    Ok(match enumeration("priority", value)? {
        RoutingPriority::Default => Priority::Default,
        RoutingPriority::High => Priority::High,
    })
}

fn limits(value: &Thresholds) -> Result<(Priority, Limits), Invalid> {
    let Thresholds {
        priority: of,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining,
        max_connection_pools,
    } = value;
    let mut limits = Limits::envoy();
    limits.track_remaining = *track_remaining;
    limits.max_connections = number(max_connections.as_ref()).unwrap_or(limits.max_connections);
    limits.max_pending = number(max_pending_requests.as_ref()).unwrap_or(limits.max_pending);
    limits.max_requests = number(max_requests.as_ref()).unwrap_or(limits.max_requests);
    limits.max_pools = number(max_connection_pools.as_ref()).unwrap_or(limits.max_pools);
    limits.max_retries = number(max_retries.as_ref()).unwrap_or(limits.max_retries);
    limits.budget = retry_budget
        .as_ref()
        .map(|value| budget(value).at("retry_budget"))
        .transpose()?;
    Ok((priority(*of)?, limits))
}

fn budget(value: &thresholds::RetryBudget) -> Result<RetryBudget, Invalid> {
    let thresholds::RetryBudget {
        budget_percent,
        budget_interval,
        min_retry_concurrency,
    } = value;
    let mut budget = RetryBudget::default();
    if let Some(percent) = budget_percent {
        budget.share = share::percent(percent).at("budget_percent")?;
    }
    if let Some(interval) = maybe_duration("budget_interval", budget_interval.as_ref())? {
        budget.interval = interval;
    }
    budget.min_concurrency =
        number(min_retry_concurrency.as_ref()).unwrap_or(budget.min_concurrency);
    Ok(budget)
}
