//! Outlier detection. Everything is written out: Envoy's defaults are not the model's.

use crate::pb::envoy::config::cluster::v3::OutlierDetection;
use crate::wire::{to_boolean, to_duration, to_number};
use mesh_core::model::{FailurePercentage, Outlier, SuccessRate};

pub(super) fn detection(outlier: &Outlier) -> OutlierDetection {
    // Zero is off in the model. Envoy would take it for a threshold of nothing.
    let on = |threshold: u32| to_number(if threshold > 0 { 100 } else { 0 });
    let unenforced = outlier.unenforced;
    let either = |ejects: u32, counts: u32| to_number(if ejects > 0 { ejects } else { counts });
    let rate = outlier.success_rate;
    let share = outlier.failure_percentage;
    let enforced = |on: bool| to_number(if on { 100 } else { 0 });
    let SuccessRate {
        min_hosts,
        request_volume,
        stdev_factor,
    } = rate.unwrap_or_default();
    let FailurePercentage {
        threshold,
        min_hosts: share_hosts,
        request_volume: share_volume,
    } = share.unwrap_or_default();
    let rates = |value: u32| rate.and_then(|_| to_number(value));
    let shares = |value: u32| share.and_then(|_| to_number(value));
    OutlierDetection {
        consecutive_5xx: either(outlier.consecutive_5xx, unenforced.consecutive_5xx),
        enforcing_consecutive_5xx: on(outlier.consecutive_5xx),
        consecutive_gateway_failure: either(
            outlier.consecutive_gateway_failure,
            unenforced.consecutive_gateway_failure,
        ),
        enforcing_consecutive_gateway_failure: on(outlier.consecutive_gateway_failure),
        split_external_local_origin_errors: outlier.split_local_origin,
        consecutive_local_origin_failure: either(
            outlier.consecutive_local_failure,
            unenforced.consecutive_local_failure,
        ),
        enforcing_consecutive_local_origin_failure: on(outlier.consecutive_local_failure),
        interval: Some(to_duration(outlier.interval)),
        base_ejection_time: Some(to_duration(outlier.base_ejection_time)),
        max_ejection_time: Some(to_duration(
            outlier.max_ejection_time.max(outlier.base_ejection_time),
        )),
        max_ejection_percent: to_number(outlier.max_ejection_percent.min(100)),
        always_eject_one_host: outlier.always_eject_one.then(|| to_boolean(true)).flatten(),
        successful_active_health_check_uneject_host: match outlier.uneject_on_check {
            true => None,
            false => to_boolean(false),
        },
        enforcing_success_rate: enforced(rate.is_some()),
        enforcing_local_origin_success_rate: enforced(rate.is_some()),
        success_rate_minimum_hosts: rates(min_hosts),
        success_rate_request_volume: rates(request_volume),
        success_rate_stdev_factor: rates(stdev_factor),
        enforcing_failure_percentage: enforced(share.is_some()),
        enforcing_failure_percentage_local_origin: enforced(share.is_some()),
        failure_percentage_threshold: shares(threshold.min(100)),
        failure_percentage_minimum_hosts: shares(share_hosts),
        failure_percentage_request_volume: shares(share_volume),
        ..OutlierDetection::default()
    }
}
