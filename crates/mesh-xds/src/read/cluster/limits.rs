//! Circuit breakers.

use crate::pb::envoy::config::cluster::v3::CircuitBreakers;
use crate::pb::envoy::config::cluster::v3::circuit_breakers::{Thresholds, thresholds};
use crate::pb::envoy::config::core::v3::RoutingPriority;
use crate::wire::{At, each, enumeration, maybe_duration, number, pass_over, refuse, share};
use mesh_core::Invalid;
use mesh_core::model::{Cluster, Limits, Priority, RetryBudget};

/// The limits of both priorities; of several for one the first counts, as in Envoy
/// (`ClusterInfoImpl::ResourceManagers::load`).
pub(super) fn read(value: &CircuitBreakers, cluster: &mut Cluster) -> Result<(), Invalid> {
    let CircuitBreakers {
        thresholds,
        per_host_thresholds,
    } = value;
    refuse!(per_host_thresholds);
    // The first is laid last.
    for (priority, limits) in each("thresholds", thresholds, limits)?.into_iter().rev() {
        match priority {
            Priority::Default => cluster.limits = limits,
            Priority::High => cluster.high = limits,
        }
    }
    Ok(())
}

fn limits(value: &Thresholds) -> Result<(Priority, Limits), Invalid> {
    let Thresholds {
        priority,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining,
        max_connection_pools,
    } = value;
    pass_over!("envoy.config.cluster.v3.CircuitBreakers.Thresholds": track_remaining);
    let priority = match enumeration("priority", *priority)? {
        RoutingPriority::Default => Priority::Default,
        RoutingPriority::High => Priority::High,
    };
    let mut limits = Limits::envoy();
    limits.max_connections = number(max_connections.as_ref()).unwrap_or(limits.max_connections);
    limits.max_pending = number(max_pending_requests.as_ref()).unwrap_or(limits.max_pending);
    limits.max_requests = number(max_requests.as_ref()).unwrap_or(limits.max_requests);
    limits.max_pools = number(max_connection_pools.as_ref()).unwrap_or(limits.max_pools);
    limits.max_retries = number(max_retries.as_ref()).unwrap_or(limits.max_retries);
    limits.budget = retry_budget
        .as_ref()
        .map(|value| budget(value).at("retry_budget"))
        .transpose()?;
    Ok((priority, limits))
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
