//! Services that are asked whether something may go on, as Envoy's filters `ext_authz`.

use crate::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use crate::pb::envoy::config::core::v3::http_uri::HttpUpstreamType;
use crate::pb::envoy::config::core::v3::{ApiVersion, GrpcService, HeaderValue, HttpUri};
use crate::pb::envoy::extensions::filters::http::ext_authz::v3 as http;
use crate::pb::envoy::extensions::filters::http::ext_authz::v3::ext_authz::Services;
use crate::pb::envoy::extensions::filters::network::ext_authz::v3 as network;
use crate::pb::envoy::r#type::matcher::v3::metadata_matcher::{PathSegment, path_segment::Segment};
use crate::pb::envoy::r#type::matcher::v3::value_matcher::MatchPattern;
use crate::pb::envoy::r#type::matcher::v3::{ListStringMatcher, MetadataMatcher, ValueMatcher};
use crate::pb::envoy::r#type::v3::HttpStatus;
use crate::read::external::NOTED;
use crate::wire::text::to_string_match;
use crate::wire::{names, to_duration};
use mesh_core::model::{Ask, AskGrpc, AskHttp, AskedBody, Authz, External, StringMatch};

/// The HTTP filter. `authz` is what the service belongs to.
pub(super) fn of_requests(external: &External, authz: &Authz) -> http::ExtAuthz {
    let (services, allowed_headers) = match &external.ask {
        Ask::Grpc(ask) => (
            Services::GrpcService(grpc(external, ask)),
            list(&ask.headers),
        ),
        Ask::Http(ask) => (Services::HttpService(over_http(external, ask)), None),
    };
    http::ExtAuthz {
        transport_api_version: ApiVersion::V3.into(),
        failure_mode_allow: external.fail_open,
        with_request_body: external.body.map(body),
        clear_route_cache: external.clear_route,
        status_on_error: (external.status_on_error != 403).then(|| HttpStatus {
            code: external.status_on_error.into(),
        }),
        filter_enabled_metadata: enabled(external, authz, names::AUTHZ),
        stat_prefix: external.stat_prefix.to_string(),
        allowed_headers,
        services: Some(services),
        ..http::ExtAuthz::default()
    }
}

/// What of a body is sent along.
pub(super) fn body(body: AskedBody) -> http::BufferSettings {
    http::BufferSettings {
        max_request_bytes: body.limit,
        allow_partial_message: body.partial,
        pack_as_bytes: body.raw,
    }
}

/// The network filter; none for a service that cannot be asked about connections.
pub(super) fn of_connections(external: &External, authz: &Authz) -> Option<network::ExtAuthz> {
    let Ask::Grpc(ask) = &external.ask else {
        return None;
    };
    Some(network::ExtAuthz {
        stat_prefix: external.stat_prefix.to_string(),
        grpc_service: Some(grpc(external, ask)),
        failure_mode_allow: external.fail_open,
        transport_api_version: ApiVersion::V3.into(),
        filter_enabled_metadata: enabled(external, authz, names::AUTHZ_OF_CONNECTIONS),
        ..network::ExtAuthz::default()
    })
}

/// By what the rules on trial note.
fn enabled(external: &External, authz: &Authz, rules: &str) -> Option<MetadataMatcher> {
    let only = external.only.as_ref()?;
    let key = format!("{}{NOTED}", authz.trial_prefix);
    Some(MetadataMatcher {
        filter: rules.to_owned(),
        path: vec![PathSegment {
            segment: Some(Segment::Key(key)),
        }],
        value: Some(ValueMatcher {
            match_pattern: Some(MatchPattern::StringMatch(to_string_match(only))),
        }),
        invert: false,
    })
}

fn grpc(external: &External, ask: &AskGrpc) -> GrpcService {
    let target = EnvoyGrpc {
        cluster_name: external.cluster.to_string(),
        authority: ask.authority.to_string(),
        ..EnvoyGrpc::default()
    };
    GrpcService {
        timeout: external.timeout.map(to_duration),
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(target)),
        ..GrpcService::default()
    }
}

#[expect(deprecated, reason = "istiod writes `allowed_headers` here")]
fn over_http(external: &External, ask: &AskHttp) -> http::HttpService {
    let request = http::AuthorizationRequest {
        allowed_headers: list(&ask.headers),
        headers_to_add: ask
            .add
            .iter()
            .map(|(name, value)| HeaderValue {
                key: name.to_string(),
                // Anything else was never read.
                value: String::from_utf8_lossy(value.as_bytes()).replace('%', "%%"),
                ..HeaderValue::default()
            })
            .collect(),
    };
    let response = http::AuthorizationResponse {
        allowed_upstream_headers: list(&ask.upstream),
        allowed_upstream_headers_to_append: list(&ask.upstream_append),
        allowed_client_headers: list(&ask.deny),
        allowed_client_headers_on_success: list(&ask.allow),
        ..http::AuthorizationResponse::default()
    };
    http::HttpService {
        server_uri: Some(HttpUri {
            uri: ask.uri.to_string(),
            // Has to be there; zero is no limit.
            timeout: Some(to_duration(external.timeout.unwrap_or_default())),
            http_upstream_type: Some(HttpUpstreamType::Cluster(external.cluster.to_string())),
        }),
        path_prefix: ask.path_prefix.to_string(),
        authorization_request: (request != http::AuthorizationRequest::default())
            .then_some(request),
        authorization_response: (response != http::AuthorizationResponse::default())
            .then_some(response),
        ..http::HttpService::default()
    }
}

fn list(list: &[StringMatch]) -> Option<ListStringMatcher> {
    (!list.is_empty()).then(|| ListStringMatcher {
        patterns: list.iter().map(to_string_match).collect(),
    })
}
