//! Active health checks.

use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::config::core::v3::health_check::{
    GrpcHealthCheck, HealthChecker, HttpHealthCheck, Payload, TcpHealthCheck, payload,
};
use crate::pb::envoy::r#type::v3::{CodecClientType, Int64Range};
use crate::pb::google::protobuf::Duration as Wire;
use crate::read::route::edits;
use crate::wire::text::string_match;
use crate::wire::{At, boolean, duration, each, enumeration, maybe_duration, number, refuse};
use crate::wire::{required, unsupported};
use bytes::Bytes;
use http::Method;
use mesh_core::Invalid;
use mesh_core::model::{
    GrpcProbe, HeaderEdits, HeaderTemplate, HealthCheck, HttpProbe, Pace, Probe, TcpProbe,
};
use std::ops::Range;
use std::time::Duration;

/// Envoy takes one at most, too.
pub(super) fn read(checks: &[core::HealthCheck]) -> Result<Vec<HealthCheck>, Invalid> {
    if checks.len() > 1 {
        let message = "more than one check of a cluster is not supported";
        return Err(Invalid::new("health_checks[1]", message));
    }
    each("health_checks", checks, check)
}

#[expect(deprecated, reason = "Envoy still reads the older spellings")]
fn check(value: &core::HealthCheck) -> Result<HealthCheck, Invalid> {
    let core::HealthCheck {
        timeout,
        interval,
        initial_jitter,
        interval_jitter,
        interval_jitter_percent,
        unhealthy_threshold,
        healthy_threshold,
        alt_port,
        reuse_connection,
        no_traffic_interval,
        no_traffic_healthy_interval,
        unhealthy_interval,
        unhealthy_edge_interval,
        healthy_edge_interval,
        event_log_path,
        event_logger,
        event_service,
        always_log_health_check_failures,
        always_log_health_check_success,
        tls_options,
        transport_socket_match_criteria,
        health_checker,
    } = value;
    refuse!(
        alt_port,
        event_log_path,
        event_logger,
        event_service,
        always_log_health_check_failures,
        always_log_health_check_success,
        tls_options,
        transport_socket_match_criteria,
    );
    let probe = match required("health_checker", health_checker)? {
        HealthChecker::HttpHealthCheck(value) => http(value).at("http_health_check")?,
        HealthChecker::TcpHealthCheck(value) => tcp(value).at("tcp_health_check")?,
        HealthChecker::GrpcHealthCheck(value) => grpc(value).at("grpc_health_check")?,
        HealthChecker::CustomHealthCheck(_) => return Err(unsupported("custom_health_check")),
    };
    let mut pace = Pace::new(some_time("interval", interval.as_ref())?);
    let or_none = |field, value: &Option<Wire>| {
        let time = maybe_duration(field, value.as_ref())?;
        Ok::<_, Invalid>(time.unwrap_or_default())
    };
    pace.initial_jitter = or_none("initial_jitter", initial_jitter)?;
    pace.jitter = or_none("interval_jitter", interval_jitter)?;
    pace.jitter_percent = *interval_jitter_percent;
    if let Some(time) = another("no_traffic_interval", no_traffic_interval)? {
        pace.no_traffic = time;
    }
    pace.no_traffic_healthy = another("no_traffic_healthy_interval", no_traffic_healthy_interval)?;
    pace.unhealthy = another("unhealthy_interval", unhealthy_interval)?;
    pace.unhealthy_edge = another("unhealthy_edge_interval", unhealthy_edge_interval)?;
    pace.healthy_edge = another("healthy_edge_interval", healthy_edge_interval)?;

    let timeout = some_time("timeout", timeout.as_ref())?;
    let mut check = HealthCheck::new(probe, timeout, pace.interval);
    check.pace = pace;
    let threshold = |field, value| {
        let missing = || Invalid::new(field, "required, but missing");
        number(value).ok_or_else(missing)
    };
    check.unhealthy_threshold = threshold("unhealthy_threshold", unhealthy_threshold.as_ref())?;
    check.healthy_threshold = threshold("healthy_threshold", healthy_threshold.as_ref())?;
    check.reuse_connection = boolean(reuse_connection.as_ref(), true);
    Ok(check)
}

fn http(value: &HttpHealthCheck) -> Result<Probe, Invalid> {
    let HttpHealthCheck {
        host,
        path,
        send,
        receive,
        response_buffer_size,
        request_headers_to_add,
        request_headers_to_remove,
        expected_statuses,
        retriable_statuses,
        codec_client_type,
        service_name_matcher,
        method,
    } = value;
    refuse!(send);
    if path.parse::<http::uri::PathAndQuery>().is_err() || !path.starts_with('/') {
        let message = format!("{path:?} is not a path that begins with '/'");
        return Err(Invalid::new("path", message));
    }
    let mut probe = HttpProbe::new(path);
    probe.host = authority("host", host)?;
    probe.method = match enumeration("method", *method)? {
        core::RequestMethod::MethodUnspecified | core::RequestMethod::Get => Method::GET,
        core::RequestMethod::Head => Method::HEAD,
        core::RequestMethod::Post => Method::POST,
        core::RequestMethod::Put => Method::PUT,
        core::RequestMethod::Delete => Method::DELETE,
        core::RequestMethod::Options => Method::OPTIONS,
        core::RequestMethod::Trace => Method::TRACE,
        core::RequestMethod::Patch => Method::PATCH,
        core::RequestMethod::Connect => {
            return Err(Invalid::new("method", "CONNECT is not possible"));
        }
    };
    let edits = edits::request(request_headers_to_add, request_headers_to_remove)?;
    probe.edits = plain("request_headers_to_add", edits)?;
    probe.http2 = match enumeration("codec_client_type", *codec_client_type)? {
        CodecClientType::Http1 => false,
        CodecClientType::Http2 => true,
        CodecClientType::Http3 => {
            return Err(Invalid::new("codec_client_type", "HTTP3 is not supported"));
        }
    };
    if !expected_statuses.is_empty() {
        probe.expected = each("expected_statuses", expected_statuses, statuses)?;
    }
    probe.retriable = each("retriable_statuses", retriable_statuses, statuses)?;
    probe.receive = each("receive", receive, bytes)?;
    if let Some(size) = response_buffer_size {
        probe.body_limit = size.value;
    }
    let service = service_name_matcher.as_ref().map(string_match);
    probe.service = service.transpose().at("service_name_matcher")?;
    Ok(Probe::Http(Box::new(probe)))
}

fn tcp(value: &TcpHealthCheck) -> Result<Probe, Invalid> {
    let TcpHealthCheck {
        send,
        receive,
        proxy_protocol_config,
    } = value;
    refuse!(proxy_protocol_config);
    let send = send.as_ref().map(bytes).transpose().at("send")?;
    Ok(Probe::Tcp(TcpProbe {
        send: send.unwrap_or_default(),
        receive: each("receive", receive, bytes)?,
    }))
}

fn grpc(value: &GrpcHealthCheck) -> Result<Probe, Invalid> {
    let GrpcHealthCheck {
        service_name,
        authority: host,
        initial_metadata,
    } = value;
    Ok(Probe::Grpc(GrpcProbe {
        service: service_name.into(),
        authority: authority("authority", host)?,
        metadata: plain("initial_metadata", edits::metadata(initial_metadata)?)?,
    }))
}

/// The host of a request, unless it is empty.
pub(in crate::read) fn authority(field: &str, host: &str) -> Result<mesh_core::Name, Invalid> {
    if !host.is_empty() && host.parse::<http::uri::Authority>().is_err() {
        let message = format!("{host:?} is not the host of a request");
        return Err(Invalid::new(field, message));
    }
    Ok(host.into())
}

/// There is no caller and no route that operators could tell of.
fn plain(field: &str, edits: HeaderEdits) -> Result<HeaderEdits, Invalid> {
    let fixed = |template: &HeaderTemplate| matches!(template, HeaderTemplate::Fixed(_));
    match edits.add.iter().position(|add| !fixed(&add.value)) {
        None => Ok(edits),
        Some(at) => {
            let message = "format operators are not supported in health checks";
            Err(Invalid::new(format!("{field}[{at}].header.value"), message))
        }
    }
}

/// From the first, up to and without the last, as Envoy judges it (`HttpStatusChecker`).
fn statuses(value: &Int64Range) -> Result<Range<u16>, Invalid> {
    let Int64Range { start, end } = value;
    match (u16::try_from(*start), u16::try_from(*end)) {
        (Ok(start), Ok(end)) if 100 <= start && start < end && end <= 600 => Ok(start..end),
        _ => {
            let message = format!("{start} to {end} is not a range within 100 to 600");
            Err(Invalid::new("", message))
        }
    }
}

/// Bytes, or their digits in base 16.
fn bytes(value: &Payload) -> Result<Bytes, Invalid> {
    let Payload { payload } = value;
    match required("payload", payload)? {
        payload::Payload::Binary(bytes) => Ok(bytes.clone().into()),
        payload::Payload::Text(text) => {
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            let digits: Option<Vec<u32>> = text.as_bytes().iter().map(digit).collect();
            let digits = digits.filter(|digits| !digits.is_empty() && digits.len() % 2 == 0);
            let digits = digits
                .ok_or_else(|| Invalid::new("text", format!("{text:?} is not bytes in base 16")))?;
            // Two digits are less than 256.
            let bytes = digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8);
            Ok(bytes.collect())
        }
    }
}

fn some_time(field: &str, value: Option<&Wire>) -> Result<Duration, Invalid> {
    let value = value.ok_or_else(|| Invalid::new(field, "required, but missing"))?;
    match duration(field, value)? {
        Duration::ZERO => Err(Invalid::new(field, "must be more than zero")),
        time => Ok(time),
    }
}

fn another(field: &str, value: &Option<Wire>) -> Result<Option<Duration>, Invalid> {
    let value = value.as_ref();
    value.map(|value| some_time(field, Some(value))).transpose()
}
