//! Retries, from `RetryPolicy`.

use super::condition::header;
use crate::pb::envoy::config::route::v3 as pb;
use crate::pb::envoy::config::route::v3::retry_policy::{
    RateLimitedRetryBackOff, ResetHeaderFormat, RetryBackOff, RetryHostPredicate, RetryPriority,
    retry_host_predicate, retry_priority,
};
use crate::pb::envoy::extensions::retry::host::omit_canary_hosts::v3::OmitCanaryHostsPredicate;
use crate::pb::envoy::extensions::retry::host::omit_host_metadata::v3::OmitHostMetadataConfig;
use crate::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use crate::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use crate::pb::google::protobuf::Any;
use crate::read::metadata;
use crate::wire::names::{
    OMIT_CANARY_HOSTS, OMIT_HOST_METADATA, PREVIOUS_HOSTS, PREVIOUS_PRIORITIES,
};
use crate::wire::text::header_name;
use crate::wire::{
    At, duration, each, enumeration, maybe_duration, number, refuse, required, type_name, unpack,
};
use mesh_core::Invalid;
use mesh_core::model::{HeaderKey, HeaderMatch, ResetFormat, ResetHeader, Retry, RetryOn};
use prost::{Message, Name};
use std::collections::BTreeMap;
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
    refuse!(retry_options_predicates, refresh_cluster_on_retry);
    let mut retry = Retry::default();
    retry.on = conditions(retry_on)?;
    retry.attempts = number(num_retries.as_ref()).unwrap_or(1);
    let some = |limit: &Duration| !limit.is_zero();
    retry.per_try_timeout =
        maybe_duration("per_try_timeout", per_try_timeout.as_ref())?.filter(some);
    retry.per_try_idle_timeout =
        maybe_duration("per_try_idle_timeout", per_try_idle_timeout.as_ref())?.filter(some);
    if let Some(priority) = retry_priority {
        retry.priority_attempts = previous_priorities(priority).at("retry_priority")?;
        retry.other_priorities = true;
    }
    let avoided = each("retry_host_predicate", retry_host_predicate, hosts)?;
    for avoided in avoided {
        match avoided {
            Avoided::Previous => retry.avoid_previous_hosts = true,
            Avoided::Canaries => retry.avoid_canaries = true,
            Avoided::With(metadata) => retry.avoid_metadata.push(metadata),
        }
    }
    retry.headers = each("retriable_headers", retriable_headers, answer_header)?;
    retry.request_headers = each(
        "retriable_request_headers",
        retriable_request_headers,
        header,
    )?;
    if let Some(back_off) = rate_limited_retry_back_off {
        (retry.resets, retry.reset_max) = resets(back_off).at("rate_limited_retry_back_off")?;
    }
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

/// A header of an answer, which has none of what begins with a colon but its status.
fn answer_header(proto: &pb::HeaderMatcher) -> Result<HeaderMatch, Invalid> {
    let header = header(proto)?;
    match header.key {
        HeaderKey::Header(_) => Ok(header),
        _ => {
            let message = format!("{} is no header of an answer", proto.name);
            Err(Invalid::new("name", message))
        }
    }
}

/// Where answers say how long to wait, and the longest that counts.
fn resets(proto: &RateLimitedRetryBackOff) -> Result<(Vec<ResetHeader>, Duration), Invalid> {
    let RateLimitedRetryBackOff {
        reset_headers,
        max_interval,
    } = proto;
    let resets = each("reset_headers", reset_headers, |reset| {
        let pb::retry_policy::ResetHeader { name, format } = reset;
        Ok(ResetHeader {
            name: header_name("name", name)?,
            format: match enumeration("format", *format)? {
                ResetHeaderFormat::Seconds => ResetFormat::Seconds,
                ResetHeaderFormat::UnixTimestamp => ResetFormat::UnixTimestamp,
            },
        })
    })?;
    if resets.is_empty() {
        return Err(Invalid::new("reset_headers", "must name a header"));
    }
    let most = maybe_duration("max_interval", max_interval.as_ref())?;
    if most.is_some_and(|most| most.is_zero()) {
        return Err(Invalid::new("max_interval", "must be longer than 0 s"));
    }
    Ok((resets, most.unwrap_or_else(|| Retry::default().reset_max)))
}

/// Hosts that a further attempt would rather not go to.
enum Avoided {
    Previous,
    Canaries,
    With(BTreeMap<mesh_core::Name, mesh_core::Name>),
}

fn hosts(proto: &RetryHostPredicate) -> Result<Avoided, Invalid> {
    let RetryHostPredicate { name, config_type } = proto;
    let config = config_type
        .as_ref()
        .map(|retry_host_predicate::ConfigType::TypedConfig(config)| config);
    let by_name = config.is_none().then_some(name.as_str());
    let by_type = config.map(type_name).unwrap_or_default();
    if by_name == Some(OMIT_CANARY_HOSTS) || by_type == OmitCanaryHostsPredicate::full_name() {
        let OmitCanaryHostsPredicate {} = extension(name, config, OMIT_CANARY_HOSTS)?;
        return Ok(Avoided::Canaries);
    }
    if by_name == Some(OMIT_HOST_METADATA) || by_type == OmitHostMetadataConfig::full_name() {
        let OmitHostMetadataConfig { metadata_match } =
            extension(name, config, OMIT_HOST_METADATA)?;
        return Ok(Avoided::With(metadata::asked(metadata_match.as_ref())));
    }
    let PreviousHostsPredicate {} = extension(name, config, PREVIOUS_HOSTS)?;
    Ok(Avoided::Previous)
}

/// After how many attempts the priorities tried are looked at again.
fn previous_priorities(proto: &RetryPriority) -> Result<u32, Invalid> {
    let RetryPriority { name, config_type } = proto;
    let config = config_type
        .as_ref()
        .map(|retry_priority::ConfigType::TypedConfig(config)| config);
    let PreviousPrioritiesConfig { update_frequency } =
        extension(name, config, PREVIOUS_PRIORITIES)?;
    match u32::try_from(update_frequency) {
        Ok(attempts) if attempts > 0 => Ok(attempts),
        _ => {
            let message = format!("{update_frequency} is not a number from 1 to {}", i32::MAX);
            Err(Invalid::new("typed_config.update_frequency", message))
        }
    }
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
