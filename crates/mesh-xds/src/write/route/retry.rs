//! Retries, as `RetryPolicy`. What is Envoy's default is left out, but for the number of retries.

use crate::pb::envoy::config::route::v3 as pb;
use crate::pb::envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};
use crate::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use crate::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use crate::wire::names::{PREVIOUS_HOSTS, PREVIOUS_PRIORITIES};
use crate::wire::{pack, to_duration, to_number};
use mesh_core::model::Retry;

/// What istiod sends: Envoy looks at the priorities anew at every second attempt.
const UPDATE_FREQUENCY: i32 = 2;

pub(super) fn write(retry: &Retry) -> pb::RetryPolicy {
    let names: Vec<_> = retry.on.names().collect();
    let defaults = Retry::default();
    let back_off = (retry.backoff_base, retry.backoff_max);
    let usual = back_off == (defaults.backoff_base, defaults.backoff_max);
    let hosts = retry.avoid_previous_hosts.then(|| RetryHostPredicate {
        name: PREVIOUS_HOSTS.to_owned(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(pack(
            &PreviousHostsPredicate {},
        ))),
    });
    pb::RetryPolicy {
        retry_on: names.join(","),
        num_retries: to_number(retry.attempts),
        per_try_timeout: retry.per_try_timeout.map(to_duration),
        per_try_idle_timeout: retry.per_try_idle_timeout.map(to_duration),
        retry_priority: retry.other_priorities.then(|| RetryPriority {
            name: PREVIOUS_PRIORITIES.to_owned(),
            config_type: Some(retry_priority::ConfigType::TypedConfig(pack(
                &PreviousPrioritiesConfig {
                    update_frequency: UPDATE_FREQUENCY,
                },
            ))),
        }),
        retry_host_predicate: hosts.into_iter().collect(),
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
        ..Default::default()
    }
}
