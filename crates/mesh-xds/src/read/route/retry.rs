//! Retries, from `RetryPolicy`.

use crate::pb::envoy::config::route::v3 as pb;
use crate::pb::envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};
use crate::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use crate::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use crate::pb::google::protobuf::Any;
use crate::wire::names::{PREVIOUS_HOSTS, PREVIOUS_PRIORITIES};
use crate::wire::{
    At, duration, each, maybe_duration, number, pass_over, refuse, required, unpack,
};
use mesh_core::Invalid;
use mesh_core::model::{Retry, RetryOn};
use prost::{Message, Name};
use std::time::Duration;

/// Reads a retry policy.
pub(super) fn read(proto: &pb::RetryPolicy) -> Result<Retry, Invalid> {
    let pb::RetryPolicy {
        retry_on,
        num_retries,
        per_try_timeout,
        per_try_idle_timeout,
        retry_priority,
        retry_host_predicate,
        retry_options_predicates,
        host_selection_retry_max_attempts,
        retriable_status_codes,
        retry_back_off,
        rate_limited_retry_back_off,
        retriable_headers,
        retriable_request_headers,
        refresh_cluster_on_retry,
    } = proto;
    refuse!(
        retry_options_predicates,
        rate_limited_retry_back_off,
        retriable_headers,
        retriable_request_headers,
        refresh_cluster_on_retry,
    );
    let mut retry = Retry::default();
    retry.on = conditions(retry_on)?;
    retry.attempts = number(num_retries.as_ref()).unwrap_or(1);
    let some = |limit: &Duration| !limit.is_zero();
    retry.per_try_timeout =
        maybe_duration("per_try_timeout", per_try_timeout.as_ref())?.filter(some);
    retry.per_try_idle_timeout =
        maybe_duration("per_try_idle_timeout", per_try_idle_timeout.as_ref())?.filter(some);
    if let Some(priority) = retry_priority {
        previous_priorities(priority).at("retry_priority")?;
        retry.other_priorities = true;
    }
    let predicates = each("retry_host_predicate", retry_host_predicate, previous_hosts)?;
    retry.avoid_previous_hosts = !predicates.is_empty();
    retry.host_attempts = match host_selection_retry_max_attempts {
        0 => 1,
        times => u32::try_from(*times).map_err(|_| {
            let message = format!("{times} is not a number from 0 to {}", u32::MAX);
            Invalid::new("host_selection_retry_max_attempts", message)
        })?,
    };
    retry.status_codes = each("retriable_status_codes", retriable_status_codes, |code| {
        u16::try_from(*code).map_err(|_| Invalid::new("", format!("{code} is not a status")))
    })?;
    if let Some(back_off) = retry_back_off {
        (retry.backoff_base, retry.backoff_max) = windows(back_off).at("retry_back_off")?;
    }
    Ok(retry)
}

/// The conditions in a list like `5xx,reset`. istiod leaves places in it empty.
fn conditions(list: &str) -> Result<RetryOn, Invalid> {
    let names = list.split(',').map(str::trim).filter(|it| !it.is_empty());
    names
        .map(|name| {
            RetryOn::named(name).ok_or_else(|| {
                Invalid::new(
                    "retry_on",
                    format!("{name:?} is not a condition known here"),
                )
            })
        })
        .try_fold(RetryOn::default(), |all, one| Ok(all.with(one?)))
}

/// The first and the largest window; the largest is ten times the first unless set.
fn windows(proto: &RetryBackOff) -> Result<(Duration, Duration), Invalid> {
    let RetryBackOff {
        base_interval,
        max_interval,
    } = proto;
    let base = duration("base_interval", required("base_interval", base_interval)?)?;
    if base.is_zero() {
        return Err(Invalid::new("base_interval", "must be longer than 0 s"));
    }
    let max = maybe_duration("max_interval", max_interval.as_ref())?;
    let max = max.unwrap_or_else(|| base.saturating_mul(10));
    if max < base {
        return Err(Invalid::new(
            "max_interval",
            "is shorter than base_interval",
        ));
    }
    Ok((base, max))
}

fn previous_hosts(proto: &RetryHostPredicate) -> Result<(), Invalid> {
    let RetryHostPredicate { name, config_type } = proto;
    let config = config_type
        .as_ref()
        .map(|retry_host_predicate::ConfigType::TypedConfig(config)| config);
    let PreviousHostsPredicate {} = extension(name, config, PREVIOUS_HOSTS)?;
    Ok(())
}

fn previous_priorities(proto: &RetryPriority) -> Result<(), Invalid> {
    let RetryPriority { name, config_type } = proto;
    let config = config_type
        .as_ref()
        .map(|retry_priority::ConfigType::TypedConfig(config)| config);
    let PreviousPrioritiesConfig { update_frequency } =
        extension(name, config, PREVIOUS_PRIORITIES)?;
    pass_over!(
        "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig":
            update_frequency
    );
    Ok(())
}

/// The configuration of the one extension that is known in this place. What counts is its type;
/// without a configuration, its name.
fn extension<M: Message + Name + Default>(
    name: &str,
    config: Option<&Any>,
    known: &str,
) -> Result<M, Invalid> {
    match config {
        Some(config) => unpack(config).at("typed_config"),
        None if name == known => Ok(M::default()),
        None => {
            let message = format!("extension {name:?} is not supported; {known:?} is");
            Err(Invalid::new("name", message))
        }
    }
}
