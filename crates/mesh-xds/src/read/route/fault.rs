//! Delays, aborts and slow answers, from `HTTPFault`.

use super::answer::status;
use crate::pb::envoy::extensions::filters::common::fault::v3::FaultDelay as WireDelay;
use crate::pb::envoy::extensions::filters::common::fault::v3::FaultRateLimit;
use crate::pb::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use crate::pb::envoy::extensions::filters::common::fault::v3::fault_delay::HeaderDelay;
use crate::pb::envoy::extensions::filters::common::fault::v3::fault_rate_limit::{
    FixedLimit, HeaderLimit, LimitType,
};
use crate::pb::envoy::extensions::filters::http::fault::v3::fault_abort::{ErrorType, HeaderAbort};
use crate::pb::envoy::extensions::filters::http::fault::v3::{FaultAbort as WireAbort, HttpFault};
use crate::pb::envoy::r#type::v3::FractionalPercent;
use crate::wire::share::fraction;
use crate::wire::{At, duration, each, number, pass_over, refuse, required};
use mesh_core::model::{
    AbortWith, DelayBy, Fault, FaultAbort, FaultDelay, FaultSlow, Fraction, SlowBy,
};
use mesh_core::{Invalid, Name};
use std::num::NonZeroU64;

/// Reads delays, aborts and slow answers.
pub(super) fn read(proto: &HttpFault) -> Result<Fault, Invalid> {
    let HttpFault {
        delay: delayed,
        abort: aborted,
        upstream_cluster,
        headers,
        downstream_nodes,
        max_active_faults,
        response_rate_limit,
        delay_percent_runtime,
        abort_percent_runtime,
        delay_duration_runtime,
        abort_http_status_runtime,
        max_active_faults_runtime,
        response_rate_limit_percent_runtime,
        abort_grpc_status_runtime,
        disable_downstream_cluster_stats,
        filter_metadata,
    } = proto;
    pass_over!(
        "envoy.extensions.filters.http.fault.v3.HTTPFault":
            abort_grpc_status_runtime,
            abort_http_status_runtime,
            abort_percent_runtime,
            delay_duration_runtime,
            delay_percent_runtime,
            disable_downstream_cluster_stats,
            filter_metadata,
            max_active_faults_runtime,
            response_rate_limit_percent_runtime,
    );
    let mut fault = Fault::default();
    fault.delay = delayed.as_ref().map(delay).transpose().at("delay")?;
    fault.abort = aborted.as_ref().map(abort).transpose().at("abort")?;
    let slowed = response_rate_limit.as_ref().map(slow).transpose();
    fault.slow = slowed.at("response_rate_limit")?;
    fault.max_active = number(max_active_faults.as_ref());
    fault.upstream = upstream_cluster.into();
    fault.headers = each("headers", headers, super::header_match)?;
    fault.nodes = downstream_nodes.iter().map(Name::from).collect();
    Ok(fault)
}

fn delay(proto: &WireDelay) -> Result<FaultDelay, Invalid> {
    let WireDelay {
        percentage,
        fault_delay_secifier,
    } = proto;
    let by = match required("fault_delay_secifier", fault_delay_secifier)? {
        FaultDelaySecifier::FixedDelay(fixed) => DelayBy::Fixed(duration("fixed_delay", fixed)?),
        FaultDelaySecifier::HeaderDelay(HeaderDelay {}) => {
            DelayBy::Header(unit(percentage.as_ref())?)
        }
    };
    Ok(FaultDelay {
        by,
        share: share(percentage.as_ref())?,
    })
}

fn abort(proto: &WireAbort) -> Result<FaultAbort, Invalid> {
    let WireAbort {
        percentage,
        response_body,
        error_type,
    } = proto;
    refuse!(response_body);
    let with = match required("error_type", error_type)? {
        ErrorType::HttpStatus(code) => AbortWith::Http(status("http_status", *code)?),
        ErrorType::GrpcStatus(code) => AbortWith::Grpc(*code),
        ErrorType::HeaderAbort(HeaderAbort {}) => AbortWith::Header(unit(percentage.as_ref())?),
    };
    Ok(FaultAbort {
        with,
        share: share(percentage.as_ref())?,
    })
}

fn slow(proto: &FaultRateLimit) -> Result<FaultSlow, Invalid> {
    let FaultRateLimit {
        percentage,
        limit_type,
    } = proto;
    let by = match required("limit_type", limit_type)? {
        LimitType::FixedLimit(FixedLimit { limit_kbps }) => {
            let rate = NonZeroU64::new(*limit_kbps);
            let least = || Invalid::new("fixed_limit.limit_kbps", "must be at least 1");
            SlowBy::Fixed(rate.ok_or_else(least)?)
        }
        LimitType::HeaderLimit(HeaderLimit {}) => SlowBy::Header(unit(percentage.as_ref())?),
    };
    Ok(FaultSlow {
        by,
        share: share(percentage.as_ref())?,
    })
}

/// What the numbers in headers of percentages count.
fn unit(percentage: Option<&FractionalPercent>) -> Result<Fraction, Invalid> {
    fraction(&FractionalPercent {
        numerator: 1,
        denominator: percentage.map_or(0, |share| share.denominator),
    })
    .at("percentage")
}

/// A fault without a percentage happens to nobody.
fn share(percentage: Option<&FractionalPercent>) -> Result<Fraction, Invalid> {
    percentage.map_or(Ok(Fraction::NONE), |share| fraction(share).at("percentage"))
}
