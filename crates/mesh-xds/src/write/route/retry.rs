//! Retries, as `RetryPolicy`. What is Envoy's default is left out, but for the number of retries.

use super::condition::header;
use crate::pb::envoy::config::route::v3 as pb;
use crate::pb::envoy::config::route::v3::retry_policy::{
    RateLimitedRetryBackOff, ResetHeader, ResetHeaderFormat, RetryBackOff, RetryHostPredicate,
    RetryPriority, retry_host_predicate, retry_priority,
};
use crate::pb::envoy::extensions::retry::host::omit_canary_hosts::v3::OmitCanaryHostsPredicate;
use crate::pb::envoy::extensions::retry::host::omit_host_metadata::v3::OmitHostMetadataConfig;
use crate::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use crate::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use crate::wire::names::{
    OMIT_CANARY_HOSTS, OMIT_HOST_METADATA, PREVIOUS_HOSTS, PREVIOUS_PRIORITIES,
};
use crate::wire::{pack, to_duration, to_number};
use crate::write::metadata;
use mesh_core::model::{ResetFormat, Retry};

pub(super) fn write(retry: &Retry) -> pb::RetryPolicy {
    let names: Vec<_> = retry.on.names().collect();
    let defaults = Retry::default();
    let back_off = (retry.backoff_base, retry.backoff_max);
    let usual = back_off == (defaults.backoff_base, defaults.backoff_max);
    pb::RetryPolicy {
        retry_on: names.join(","),
        num_retries: to_number(retry.attempts),
        per_try_timeout: retry.per_try_timeout.map(to_duration),
        per_try_idle_timeout: retry.per_try_idle_timeout.map(to_duration),
        retry_priority: retry.other_priorities.then(|| RetryPriority {
            name: PREVIOUS_PRIORITIES.to_owned(),
            config_type: Some(retry_priority::ConfigType::TypedConfig(pack(
                &PreviousPrioritiesConfig {
                    update_frequency: i32::try_from(retry.priority_attempts.max(1))
                        .unwrap_or(i32::MAX),
                },
            ))),
        }),
        retry_host_predicate: hosts(retry),
        host_selection_retry_max_attempts: match retry.host_attempts {
            1 => 0,
            times => times.into(),
        },
        retriable_status_codes: retry.status_codes.iter().copied().map(u32::from).collect(),
        retry_back_off: (!usual).then(|| RetryBackOff {
            base_interval: Some(to_duration(retry.backoff_base)),
            max_interval: (retry.backoff_max != retry.backoff_base.saturating_mul(10))
                .then(|| to_duration(retry.backoff_max)),
        }),
        rate_limited_retry_back_off: resets(retry),
        retriable_headers: retry.headers.iter().map(header).collect(),
        retriable_request_headers: retry.request_headers.iter().map(header).collect(),
        ..Default::default()
    }
}

/// Which hosts are avoided.
fn hosts(retry: &Retry) -> Vec<RetryHostPredicate> {
    let predicate = |name: &str, config| RetryHostPredicate {
        name: name.to_owned(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(config)),
    };
    let previous = retry
        .avoid_previous_hosts
        .then(|| predicate(PREVIOUS_HOSTS, pack(&PreviousHostsPredicate {})));
    let canaries = retry
        .avoid_canaries
        .then(|| predicate(OMIT_CANARY_HOSTS, pack(&OmitCanaryHostsPredicate {})));
    let by_metadata = retry.avoid_metadata.iter().map(|all| {
        let metadata_match = metadata::asked(all);
        predicate(
            OMIT_HOST_METADATA,
            pack(&OmitHostMetadataConfig { metadata_match }),
        )
    });
    let kinds = previous.into_iter().chain(canaries);
    kinds.chain(by_metadata).collect()
}

/// Where answers say how long to wait.
fn resets(retry: &Retry) -> Option<RateLimitedRetryBackOff> {
    let headers = retry.resets.iter().map(|reset| ResetHeader {
        name: reset.name.to_string(),
        format: match reset.format {
            ResetFormat::Seconds => ResetHeaderFormat::Seconds,
            ResetFormat::UnixTimestamp => ResetHeaderFormat::UnixTimestamp,
        }
        .into(),
    });
    let usual = Retry::default().reset_max;
    (!retry.resets.is_empty()).then(|| RateLimitedRetryBackOff {
        reset_headers: headers.collect(),
        max_interval: (retry.reset_max != usual).then(|| to_duration(retry.reset_max)),
    })
}
