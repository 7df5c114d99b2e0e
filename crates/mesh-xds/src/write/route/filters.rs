//! Policies that filters have per route: `CorsPolicy`, `HTTPFault`, `LocalRateLimit` and the
//! `PerRouteConfig` of `on_demand`.

use super::condition::header;
use crate::pb::envoy::extensions::filters::common::fault::v3 as common;
use crate::pb::envoy::extensions::filters::common::fault::v3::fault_delay::{
    FaultDelaySecifier, HeaderDelay,
};
use crate::pb::envoy::extensions::filters::common::fault::v3::fault_rate_limit::{
    FixedLimit, HeaderLimit, LimitType,
};
use crate::pb::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use crate::pb::envoy::extensions::filters::http::fault::v3 as wire;
use crate::pb::envoy::extensions::filters::http::fault::v3::fault_abort::HeaderAbort;
use crate::pb::envoy::extensions::filters::http::on_demand::v3::PerRouteConfig;
use crate::pb::google::protobuf::BoolValue;
use crate::wire::share::{to_fraction, to_fraction_of, to_runtime_fraction};
use crate::wire::text::to_string_match;
use crate::wire::{on_demand, to_duration, to_number};
use mesh_core::model::{
    AbortWith, ClustersOnDemand, Cors, DelayBy, Fault, FaultAbort, FaultDelay, FaultSlow, Fraction,
    SlowBy, StringMatch,
};

pub(super) fn cors(cors: &Cors) -> CorsPolicy {
    let origins = cors.allow_origins.iter().map(|origin| match origin {
        StringMatch::Prefix(every) if every.is_empty() => {
            to_string_match(&StringMatch::Exact("*".to_owned()))
        }
        some => to_string_match(some),
    });
    CorsPolicy {
        allow_origin_string_match: origins.collect(),
        allow_methods: cors.allow_methods.clone(),
        allow_headers: cors.allow_headers.clone(),
        expose_headers: cors.expose_headers.clone(),
        max_age: cors.max_age.clone(),
        allow_credentials: cors.allow_credentials.map(|value| BoolValue { value }),
        filter_enabled: Some(to_runtime_fraction(Fraction::ALL)),
        forward_not_matching_preflights: cors
            .forward_unmatched_preflights
            .map(|value| BoolValue { value }),
        ..Default::default()
    }
}

pub(super) fn on_demand(clusters: ClustersOnDemand) -> PerRouteConfig {
    PerRouteConfig {
        odcds: on_demand::to_clusters(clusters),
    }
}

pub(super) fn fault(fault: &Fault) -> wire::HttpFault {
    wire::HttpFault {
        delay: fault.delay.as_ref().map(delay),
        abort: fault.abort.as_ref().map(abort),
        upstream_cluster: fault.upstream.to_string(),
        headers: fault.headers.iter().map(header).collect(),
        downstream_nodes: fault.nodes.iter().map(ToString::to_string).collect(),
        response_rate_limit: fault.slow.as_ref().map(slow),
        max_active_faults: fault.max_active.and_then(to_number),
        ..Default::default()
    }
}

fn delay(delay: &FaultDelay) -> common::FaultDelay {
    let (percentage, specifier) = match delay.by {
        DelayBy::Fixed(length) => (
            to_fraction(delay.share),
            Some(FaultDelaySecifier::FixedDelay(to_duration(length))),
        ),
        DelayBy::Header(unit) => (
            to_fraction_of(delay.share, unit),
            Some(FaultDelaySecifier::HeaderDelay(HeaderDelay {})),
        ),
        // What is not known here; a delay without it is refused by whoever reads it.
        _ => (to_fraction(delay.share), None),
    };
    common::FaultDelay {
        percentage: Some(percentage),
        fault_delay_secifier: specifier,
    }
}

fn slow(slow: &FaultSlow) -> common::FaultRateLimit {
    let (percentage, limit) = match slow.by {
        SlowBy::Fixed(rate) => {
            let limit_kbps = rate.get();
            let fixed = LimitType::FixedLimit(FixedLimit { limit_kbps });
            (to_fraction(slow.share), Some(fixed))
        }
        SlowBy::Header(unit) => {
            let asked = LimitType::HeaderLimit(HeaderLimit {});
            (to_fraction_of(slow.share, unit), Some(asked))
        }
        // As with delays.
        _ => (to_fraction(slow.share), None),
    };
    common::FaultRateLimit {
        percentage: Some(percentage),
        limit_type: limit,
    }
}

fn abort(abort: &FaultAbort) -> wire::FaultAbort {
    let percentage = match abort.with {
        AbortWith::Header(unit) => to_fraction_of(abort.share, unit),
        _ => to_fraction(abort.share),
    };
    wire::FaultAbort {
        percentage: Some(percentage),
        response_body: String::new(),
        error_type: Some(match abort.with {
            AbortWith::Http(status) => {
                wire::fault_abort::ErrorType::HttpStatus(status.as_u16().into())
            }
            AbortWith::Grpc(status) => wire::fault_abort::ErrorType::GrpcStatus(status),
            AbortWith::Header(_) => wire::fault_abort::ErrorType::HeaderAbort(HeaderAbort {}),
        }),
    }
}
