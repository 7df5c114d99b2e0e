//! Outlier detection.
//!
//! Envoy's defaults are not those of [`Outlier::default`], which are Istio's. Envoy has a share of
//! ejections to enforce beside each threshold; here an ejection is enforced or it is not.

use crate::pb::envoy::config::cluster::v3::OutlierDetection;
use crate::pb::google::protobuf::UInt32Value;
use crate::wire::{boolean, maybe_duration, number, refuse};
use mesh_core::Invalid;
use mesh_core::model::{FailurePercentage, Outlier, SuccessRate};
use std::time::Duration;

pub(super) fn read(value: &OutlierDetection) -> Result<Outlier, Invalid> {
    let OutlierDetection {
        consecutive_5xx,
        interval,
        base_ejection_time,
        max_ejection_percent,
        enforcing_consecutive_5xx,
        enforcing_success_rate,
        success_rate_minimum_hosts,
        success_rate_request_volume,
        success_rate_stdev_factor,
        consecutive_gateway_failure,
        enforcing_consecutive_gateway_failure,
        split_external_local_origin_errors,
        consecutive_local_origin_failure,
        enforcing_consecutive_local_origin_failure,
        enforcing_local_origin_success_rate,
        failure_percentage_threshold,
        enforcing_failure_percentage,
        enforcing_failure_percentage_local_origin,
        failure_percentage_minimum_hosts,
        failure_percentage_request_volume,
        max_ejection_time,
        max_ejection_time_jitter,
        successful_active_health_check_uneject_host,
        monitors,
        always_eject_one_host,
        detect_degraded_hosts,
    } = value;
    refuse!(monitors);
    if boolean(detect_degraded_hosts.as_ref(), false) {
        refuse!(detect_degraded_hosts);
    }
    let jitter = maybe_duration(
        "max_ejection_time_jitter",
        max_ejection_time_jitter.as_ref(),
    )?;
    if jitter.is_some_and(|jitter| !jitter.is_zero()) {
        refuse!(max_ejection_time_jitter);
    }
    let split = *split_external_local_origin_errors;
    let or = |value: &Option<UInt32Value>, default| number(value.as_ref()).unwrap_or(default);

    let mut outlier = Outlier::default();
    let enforced = |field, value: &Option<UInt32Value>, default| {
        enforced(field, number(value.as_ref()).unwrap_or(default))
    };
    // The threshold of the detector that ejects, or else of the one that counts.
    let either = |on: bool, threshold: u32| if on { (threshold, 0) } else { (0, threshold) };
    let unenforced = &mut outlier.unenforced;
    let on = enforced("enforcing_consecutive_5xx", enforcing_consecutive_5xx, 100)?;
    (outlier.consecutive_5xx, unenforced.consecutive_5xx) = either(on, or(consecutive_5xx, 5));
    let on = enforced(
        "enforcing_consecutive_gateway_failure",
        enforcing_consecutive_gateway_failure,
        0,
    )?;
    (
        outlier.consecutive_gateway_failure,
        unenforced.consecutive_gateway_failure,
    ) = either(on, or(consecutive_gateway_failure, 5));
    outlier.split_local_origin = split;
    let on = enforced(
        "enforcing_consecutive_local_origin_failure",
        enforcing_consecutive_local_origin_failure,
        100,
    )?;
    (
        outlier.consecutive_local_failure,
        unenforced.consecutive_local_failure,
    ) = either(on, or(consecutive_local_origin_failure, 5));

    outlier.interval = time("interval", interval, Duration::from_secs(10))?;
    outlier.base_ejection_time = time(
        "base_ejection_time",
        base_ejection_time,
        Duration::from_secs(30),
    )?;
    let longest = Duration::from_secs(300).max(outlier.base_ejection_time);
    outlier.max_ejection_time = time("max_ejection_time", max_ejection_time, longest)?;
    if outlier.max_ejection_time < outlier.base_ejection_time {
        let message = "must not be less than base_ejection_time";
        return Err(Invalid::new("max_ejection_time", message));
    }
    outlier.max_ejection_percent = percent("max_ejection_percent", or(max_ejection_percent, 10))?;
    outlier.always_eject_one = boolean(always_eject_one_host.as_ref(), false);
    let uneject = successful_active_health_check_uneject_host.as_ref();
    outlier.uneject_on_check = boolean(uneject, true);

    let on = enforced("enforcing_success_rate", enforcing_success_rate, 100)?;
    let field = "enforcing_local_origin_success_rate";
    let local = enforced(field, enforcing_local_origin_success_rate, 100)?;
    same(split, on, local, field, "enforcing_success_rate")?;
    outlier.success_rate = on.then(|| SuccessRate {
        min_hosts: or(success_rate_minimum_hosts, 5),
        request_volume: or(success_rate_request_volume, 100),
        stdev_factor: or(success_rate_stdev_factor, 1900),
    });
    let on = enforced(
        "enforcing_failure_percentage",
        enforcing_failure_percentage,
        0,
    )?;
    let field = "enforcing_failure_percentage_local_origin";
    let local = enforced(field, enforcing_failure_percentage_local_origin, 0)?;
    same(split, on, local, field, "enforcing_failure_percentage")?;
    let threshold = or(failure_percentage_threshold, 85);
    let threshold = percent("failure_percentage_threshold", threshold)?;
    outlier.failure_percentage = on.then(|| FailurePercentage {
        threshold,
        min_hosts: or(failure_percentage_minimum_hosts, 5),
        request_volume: or(failure_percentage_request_volume, 50),
    });
    Ok(outlier)
}

fn enforced(field: &str, percent: u32) -> Result<bool, Invalid> {
    match percent {
        0 => Ok(false),
        100 => Ok(true),
        other => {
            let message = format!("{other} % is not supported, only 0 (off) and 100 (on)");
            Err(Invalid::new(field, message))
        }
    }
}

/// Local failures have a rate of their own only when they are split off; then it follows the same
/// rule as the rate of answers.
fn same(split: bool, on: bool, local: bool, field: &str, other: &str) -> Result<(), Invalid> {
    if split && on != local {
        let message = format!("must be the same as {other} ({})", if on { 100 } else { 0 });
        return Err(Invalid::new(field, message));
    }
    Ok(())
}

fn percent(field: &str, value: u32) -> Result<u32, Invalid> {
    if value > 100 {
        return Err(Invalid::new(field, format!("{value} is more than 100 %")));
    }
    Ok(value)
}

fn time(
    field: &str,
    value: &Option<crate::pb::google::protobuf::Duration>,
    default: Duration,
) -> Result<Duration, Invalid> {
    match maybe_duration(field, value.as_ref())? {
        Some(Duration::ZERO) => Err(Invalid::new(field, "must be more than zero")),
        given => Ok(given.unwrap_or(default)),
    }
}
