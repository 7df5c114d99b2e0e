//! Active health checks.

use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::config::core::v3::health_check::{
    GrpcHealthCheck, HealthChecker, HttpHealthCheck, Payload, TcpHealthCheck, payload,
};
use crate::pb::envoy::r#type::v3::{CodecClientType, Int64Range};
use crate::pb::google::protobuf::UInt64Value;
use crate::wire::text::to_string_match;
use crate::wire::{to_boolean, to_duration};
use crate::write::route::edits;
use bytes::Bytes;
use http::Method;
use mesh_core::model::{GrpcProbe, HealthCheck, HttpProbe, Pace, Probe, TcpProbe};
use std::ops::Range;
use std::time::Duration;

pub(super) fn check(check: &HealthCheck) -> core::HealthCheck {
    let pace = &check.pace;
    let default = Pace::new(pace.interval);
    let some = |time: Duration| (!time.is_zero()).then(|| to_duration(time));
    let own = |time: Option<Duration>| time.map(to_duration);
    let threshold = |value| Some(crate::pb::google::protobuf::UInt32Value { value });
    core::HealthCheck {
        timeout: Some(to_duration(check.timeout)),
        interval: Some(to_duration(pace.interval)),
        initial_jitter: some(pace.initial_jitter),
        interval_jitter: some(pace.jitter),
        interval_jitter_percent: pace.jitter_percent,
        unhealthy_threshold: threshold(check.unhealthy_threshold),
        healthy_threshold: threshold(check.healthy_threshold),
        reuse_connection: match check.reuse_connection {
            true => None,
            false => to_boolean(false),
        },
        no_traffic_interval: (pace.no_traffic != default.no_traffic)
            .then(|| to_duration(pace.no_traffic)),
        no_traffic_healthy_interval: own(pace.no_traffic_healthy),
        unhealthy_interval: own(pace.unhealthy),
        unhealthy_edge_interval: own(pace.unhealthy_edge),
        healthy_edge_interval: own(pace.healthy_edge),
        health_checker: checker(&check.probe),
        ..core::HealthCheck::default()
    }
}

fn checker(probe: &Probe) -> Option<HealthChecker> {
    match probe {
        Probe::Http(probe) => Some(HealthChecker::HttpHealthCheck(http(probe))),
        Probe::Tcp(probe) => Some(HealthChecker::TcpHealthCheck(tcp(probe))),
        Probe::Grpc(probe) => Some(HealthChecker::GrpcHealthCheck(grpc(probe))),
        // Envoy refuses a check that asks nothing.
        _ => None,
    }
}

fn http(probe: &HttpProbe) -> HttpHealthCheck {
    let (add, remove) = edits::write(&probe.edits);
    let usual = HttpProbe::new("/").expected;
    HttpHealthCheck {
        host: probe.host.to_string(),
        path: probe.path.to_string(),
        receive: probe.receive.iter().map(payload).collect(),
        response_buffer_size: (probe.body_limit != 1024).then_some(UInt64Value {
            value: probe.body_limit,
        }),
        request_headers_to_add: add,
        request_headers_to_remove: remove,
        expected_statuses: match probe.expected == usual {
            true => Vec::new(),
            false => probe.expected.iter().map(statuses).collect(),
        },
        retriable_statuses: probe.retriable.iter().map(statuses).collect(),
        codec_client_type: match probe.http2 {
            true => CodecClientType::Http2,
            false => CodecClientType::Http1,
        }
        .into(),
        service_name_matcher: probe.service.as_ref().map(to_string_match),
        method: method(&probe.method).into(),
        ..HttpHealthCheck::default()
    }
}

fn tcp(probe: &TcpProbe) -> TcpHealthCheck {
    TcpHealthCheck {
        send: (!probe.send.is_empty()).then(|| payload(&probe.send)),
        receive: probe.receive.iter().map(payload).collect(),
        ..TcpHealthCheck::default()
    }
}

fn grpc(probe: &GrpcProbe) -> GrpcHealthCheck {
    GrpcHealthCheck {
        service_name: probe.service.to_string(),
        authority: probe.authority.to_string(),
        initial_metadata: edits::write(&probe.metadata).0,
    }
}

fn payload(bytes: &Bytes) -> Payload {
    Payload {
        payload: Some(payload::Payload::Binary(bytes.to_vec())),
    }
}

fn statuses(range: &Range<u16>) -> Int64Range {
    Int64Range {
        start: range.start.into(),
        end: range.end.into(),
    }
}

/// GET where Envoy has no word for it.
fn method(method: &Method) -> core::RequestMethod {
    match *method {
        Method::HEAD => core::RequestMethod::Head,
        Method::POST => core::RequestMethod::Post,
        Method::PUT => core::RequestMethod::Put,
        Method::DELETE => core::RequestMethod::Delete,
        Method::OPTIONS => core::RequestMethod::Options,
        Method::TRACE => core::RequestMethod::Trace,
        Method::PATCH => core::RequestMethod::Patch,
        _ => core::RequestMethod::MethodUnspecified,
    }
}
