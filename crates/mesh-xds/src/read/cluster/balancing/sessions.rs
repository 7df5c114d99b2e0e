//! Which endpoints are taken past balancing: where sessions may be kept, and who names others.

use crate::pb::envoy::config::core::v3::{HealthStatus, HealthStatusSet};
use crate::pb::envoy::extensions::load_balancing_policies::override_host::v3::{
    OverrideHost, override_host::OverrideHostSource,
};
use crate::wire::text::header_name;
use crate::wire::{each, enumeration, refuse};
use http::HeaderName;
use mesh_core::Invalid;
use mesh_core::model::SessionHealth;
use std::collections::BTreeSet;

/// Where sessions may be kept. What discovery does not tell of an endpoint is as good as healthy
/// here, and what timed out as bad as unhealthy: they cannot be told apart.
pub(super) fn health(value: &HealthStatusSet) -> Result<SessionHealth, Invalid> {
    let HealthStatusSet { statuses } = value;
    let read = each("statuses", statuses, |status| {
        enumeration::<HealthStatus>("", *status)
    })?;
    let all: BTreeSet<_> = read.into_iter().map(i32::from).collect();
    let has = |status: HealthStatus| all.contains(&i32::from(status));
    let both = |one: HealthStatus, other: HealthStatus| match has(one) == has(other) {
        true => Ok(has(one)),
        false => {
            let (one, other) = (one.as_str_name(), other.as_str_name());
            let message = format!("{one} and {other} are only supported together");
            Err(Invalid::new("statuses", message))
        }
    };
    let mut health = SessionHealth::NONE;
    health.healthy = both(HealthStatus::Unknown, HealthStatus::Healthy)?;
    health.unhealthy = both(HealthStatus::Unhealthy, HealthStatus::Timeout)?;
    health.degraded = has(HealthStatus::Degraded);
    health.draining = has(HealthStatus::Draining);
    Ok(health)
}

/// The headers that name endpoints.
pub(super) fn headers(value: &OverrideHost) -> Result<Vec<HeaderName>, Invalid> {
    let OverrideHost {
        override_host_sources,
        selected_host_key,
        // Read by whoever asks.
        fallback_policy: _,
    } = value;
    // Requests have no metadata of their own here.
    refuse!(selected_host_key);
    if override_host_sources.is_empty() {
        let message = "required, but missing";
        return Err(Invalid::new("override_host_sources", message));
    }
    each("override_host_sources", override_host_sources, |source| {
        let OverrideHostSource { header, metadata } = source;
        refuse!(metadata);
        if header.is_empty() {
            return Err(Invalid::new("header", "required, but missing"));
        }
        header_name("header", header)
    })
}
