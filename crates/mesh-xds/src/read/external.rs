//! Services that are asked whether something may go on, from Envoy's filters `ext_authz`.

use super::opening;
use crate::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use crate::pb::envoy::config::core::v3::http_uri::HttpUpstreamType;
use crate::pb::envoy::config::core::v3::{ApiVersion, GrpcService, HttpUri};
use crate::pb::envoy::extensions::filters::http::ext_authz::v3 as http;
use crate::pb::envoy::extensions::filters::http::ext_authz::v3::ext_authz::Services;
use crate::pb::envoy::extensions::filters::network::ext_authz::v3 as network;
use crate::pb::envoy::r#type::matcher::v3::metadata_matcher::path_segment::Segment;
use crate::pb::envoy::r#type::matcher::v3::value_matcher::MatchPattern;
use crate::pb::envoy::r#type::matcher::v3::{ListStringMatcher, MetadataMatcher};
use crate::pb::envoy::r#type::v3::HttpStatus;
use crate::wire::text::string_match;
use crate::wire::{At, each, enumeration, maybe_duration, names, refuse, required};
use mesh_core::model::{Ask, AskGrpc, AskHttp, AskedBody, Authz, External, StringMatch};
use mesh_core::{Invalid, Name};
use std::sync::Arc;
use std::time::Duration;

/// A service, and under which key it looks for the policy that wants it asked.
pub(super) struct Read {
    pub(super) external: External,
    key: Option<String>,
}

/// The HTTP filter.
pub(super) fn of_requests(value: &http::ExtAuthz) -> Result<Read, Invalid> {
    let http::ExtAuthz {
        transport_api_version,
        failure_mode_allow,
        failure_mode_allow_header_add,
        with_request_body,
        clear_route_cache,
        status_on_error,
        validate_mutations,
        metadata_context_namespaces,
        typed_metadata_context_namespaces,
        route_metadata_context_namespaces,
        route_typed_metadata_context_namespaces,
        filter_enabled,
        filter_enabled_metadata,
        deny_at_disable,
        include_peer_certificate,
        stat_prefix,
        bootstrap_metadata_labels_key,
        allowed_headers,
        disallowed_headers,
        include_tls_session,
        charge_cluster_response_stats,
        encode_raw_headers,
        decoder_header_mutation_rules,
        enable_dynamic_metadata_ingestion,
        filter_metadata,
        emit_filter_state_stats,
        max_denied_response_body_bytes,
        enforce_response_header_limits,
        shadow_mode,
        emit_client_span,
        services,
    } = value;
    refuse!(
        failure_mode_allow_header_add,
        validate_mutations,
        metadata_context_namespaces,
        typed_metadata_context_namespaces,
        route_metadata_context_namespaces,
        route_typed_metadata_context_namespaces,
        filter_enabled,
        deny_at_disable,
        include_peer_certificate,
        bootstrap_metadata_labels_key,
        disallowed_headers,
        include_tls_session,
        charge_cluster_response_stats,
        encode_raw_headers,
        decoder_header_mutation_rules,
        enable_dynamic_metadata_ingestion,
        filter_metadata,
        emit_filter_state_stats,
        max_denied_response_body_bytes,
        enforce_response_header_limits,
        shadow_mode,
        emit_client_span,
    );
    version(*transport_api_version)?;
    let headers = list("allowed_headers", allowed_headers.as_ref())?;
    let mut external = match required("services", services)? {
        Services::GrpcService(service) => {
            let mut external = grpc(service).at("grpc_service")?;
            if let Ask::Grpc(ask) = &mut external.ask {
                ask.headers = headers;
            }
            external
        }
        Services::HttpService(service) => {
            let mut external = over_http(service).at("http_service")?;
            if let Ask::Http(ask) = &mut external.ask
                && allowed_headers.is_some()
            {
                if !ask.headers.is_empty() {
                    let message = "not possible together with that of authorization_request";
                    return Err(Invalid::new("allowed_headers", message));
                }
                ask.headers = headers;
            }
            external
        }
    };
    external.fail_open = *failure_mode_allow;
    external.clear_route = *clear_route_cache;
    external.stat_prefix = stat_prefix.into();
    external.body = with_request_body.as_ref().map(body).transpose()?;
    if let Some(HttpStatus { code }) = status_on_error {
        let status = u16::try_from(*code).ok();
        let status = status.filter(|status| (200..600).contains(status));
        external.status_on_error = status.ok_or_else(|| {
            let message = format!("{code} is not the status of an answer");
            Invalid::new("status_on_error.code", message)
        })?;
    }
    enabled(external, filter_enabled_metadata.as_ref(), names::AUTHZ)
}

/// The network filter.
pub(super) fn of_connections(value: &network::ExtAuthz) -> Result<Read, Invalid> {
    let network::ExtAuthz {
        stat_prefix,
        grpc_service,
        failure_mode_allow,
        include_peer_certificate,
        transport_api_version,
        filter_enabled_metadata,
        bootstrap_metadata_labels_key,
        include_tls_session,
        send_tls_alert_on_denial,
        metadata_context_namespaces,
        typed_metadata_context_namespaces,
        shadow_mode,
    } = value;
    refuse!(
        include_peer_certificate,
        bootstrap_metadata_labels_key,
        include_tls_session,
        send_tls_alert_on_denial,
        metadata_context_namespaces,
        typed_metadata_context_namespaces,
        shadow_mode,
    );
    version(*transport_api_version)?;
    if stat_prefix.is_empty() {
        return Err(Invalid::new("stat_prefix", "required, but missing"));
    }
    let service = required("grpc_service", grpc_service)?;
    let mut external = grpc(service).at("grpc_service")?;
    external.fail_open = *failure_mode_allow;
    external.stat_prefix = stat_prefix.into();
    let rules = names::AUTHZ_OF_CONNECTIONS;
    enabled(external, filter_enabled_metadata.as_ref(), rules)
}

impl Read {
    /// Puts the service behind the rules that say when it is asked: those directly before it, if
    /// `behind` them is where it stands.
    pub(super) fn attach(self, authz: &mut Vec<Arc<Authz>>, behind: bool) -> Result<(), Invalid> {
        let Self { external, key } = self;
        let Some(key) = key else {
            authz.push(Arc::new(Authz::asking(external)));
            return Ok(());
        };
        let rules = authz.last_mut().filter(|rules| {
            let noted = format!("{}{NOTED}", rules.trial_prefix);
            behind && rules.trial.is_some() && rules.external.is_none() && noted == key
        });
        let Some(rules) = rules else {
            let message = format!(
                "{key:?} is not supported: the filter directly before this one has to have shadow \
                 rules that note it"
            );
            return Err(Invalid::new("filter_enabled_metadata.path", message));
        };
        Arc::make_mut(rules).external = Some(external);
        Ok(())
    }
}

/// What rules on trial note, behind their prefix.
pub(crate) const NOTED: &str = "shadow_effective_policy_id";

fn version(value: i32) -> Result<(), Invalid> {
    let field = "transport_api_version";
    match enumeration::<ApiVersion>(field, value)? {
        ApiVersion::V3 => Ok(()),
        _ => Err(Invalid::new(field, "only V3 is supported")),
    }
}

fn enabled(
    mut external: External,
    value: Option<&MetadataMatcher>,
    rules: &str,
) -> Result<Read, Invalid> {
    let Some(value) = value else {
        return Ok(Read {
            external,
            key: None,
        });
    };
    let read = || {
        let MetadataMatcher {
            filter,
            path,
            value,
            invert,
        } = value;
        refuse!(invert);
        if filter != rules {
            let message = format!("{filter:?} is not supported: only {rules} is");
            return Err(Invalid::new("filter", message));
        }
        let [segment] = &path[..] else {
            return Err(Invalid::new("path", "has to be one key"));
        };
        let Segment::Key(key) = required("segment", &segment.segment).at("path[0]")?;
        let value = required("value", value)?;
        let Some(MatchPattern::StringMatch(text)) = &value.match_pattern else {
            let message = "not supported: only string_match is";
            return Err(Invalid::new("value", message));
        };
        Ok((string_match(text).at("value.string_match")?, key.clone()))
    };
    let (only, key) = read().at("filter_enabled_metadata")?;
    external.only = Some(only);
    Ok(Read {
        external,
        key: Some(key),
    })
}

/// What of a body is sent along.
pub(super) fn body(value: &http::BufferSettings) -> Result<AskedBody, Invalid> {
    let http::BufferSettings {
        max_request_bytes,
        allow_partial_message,
        pack_as_bytes,
    } = value;
    if *max_request_bytes == 0 {
        let field = "with_request_body.max_request_bytes";
        return Err(Invalid::new(field, "must be 1 or more"));
    }
    Ok(AskedBody {
        limit: *max_request_bytes,
        partial: *allow_partial_message,
        raw: *pack_as_bytes,
    })
}

fn grpc(value: &GrpcService) -> Result<External, Invalid> {
    let GrpcService {
        timeout,
        initial_metadata,
        retry_policy,
        target_specifier,
    } = value;
    refuse!(initial_metadata, retry_policy);
    let TargetSpecifier::EnvoyGrpc(target) = required("target_specifier", target_specifier)? else {
        let message = "not supported; use envoy_grpc with a cluster";
        return Err(Invalid::new("google_grpc", message));
    };
    let EnvoyGrpc {
        cluster_name,
        authority,
        retry_policy,
        max_receive_message_length,
        skip_envoy_headers,
    } = target;
    let read = || {
        refuse!(retry_policy, max_receive_message_length, skip_envoy_headers);
        let cluster = named("cluster_name", cluster_name)?;
        let mut ask = AskGrpc::default();
        ask.authority = opening::authority(authority)?;
        Ok(External::new(cluster, Ask::Grpc(ask)))
    };
    let mut external = read().at("envoy_grpc")?;
    let limit = maybe_duration("timeout", timeout.as_ref())?;
    external.timeout = limit.filter(|limit| !limit.is_zero());
    Ok(external)
}

#[expect(deprecated, reason = "istiod writes `allowed_headers` here")]
fn over_http(value: &http::HttpService) -> Result<External, Invalid> {
    let http::HttpService {
        server_uri,
        path_prefix,
        path_override,
        authorization_request,
        authorization_response,
        retry_policy,
    } = value;
    refuse!(path_override, retry_policy);
    let mut ask = AskHttp::default();
    if !path_prefix.is_empty() && !path_prefix.starts_with('/') {
        return Err(Invalid::new("path_prefix", "has to begin with a slash"));
    }
    ask.path_prefix = path_prefix.into();
    if let Some(http::AuthorizationRequest {
        allowed_headers,
        headers_to_add,
    }) = authorization_request
    {
        let read = || {
            let headers = list("allowed_headers", allowed_headers.as_ref())?;
            let add = each("headers_to_add", headers_to_add, opening::metadata)?;
            Ok((headers, add))
        };
        (ask.headers, ask.add) = read().at("authorization_request")?;
    }
    if let Some(http::AuthorizationResponse {
        allowed_upstream_headers,
        allowed_upstream_headers_to_append,
        allowed_client_headers,
        allowed_client_headers_on_success,
        dynamic_metadata_from_headers,
    }) = authorization_response
    {
        let mut read = || {
            refuse!(dynamic_metadata_from_headers);
            let field = "allowed_upstream_headers";
            ask.upstream = list(field, allowed_upstream_headers.as_ref())?;
            let field = "allowed_upstream_headers_to_append";
            ask.upstream_append = list(field, allowed_upstream_headers_to_append.as_ref())?;
            let field = "allowed_client_headers";
            ask.deny = list(field, allowed_client_headers.as_ref())?;
            let field = "allowed_client_headers_on_success";
            ask.allow = list(field, allowed_client_headers_on_success.as_ref())?;
            Ok(())
        };
        read().at("authorization_response")?;
    }
    let (cluster, uri, timeout) = server(required("server_uri", server_uri)?).at("server_uri")?;
    ask.uri = uri;
    let mut external = External::new(cluster, Ask::Http(ask));
    external.timeout = timeout;
    Ok(external)
}

fn server(value: &HttpUri) -> Result<(Name, Name, Option<Duration>), Invalid> {
    let HttpUri {
        uri,
        timeout,
        http_upstream_type,
    } = value;
    let HttpUpstreamType::Cluster(cluster) = required("http_upstream_type", http_upstream_type)?;
    let cluster = named("cluster", cluster)?;
    let uri = named("uri", uri)?;
    let limit = maybe_duration("timeout", timeout.as_ref())?;
    let limit = limit.ok_or_else(|| Invalid::new("timeout", "required, but missing"))?;
    Ok((cluster, uri, (!limit.is_zero()).then_some(limit)))
}

fn named(field: &str, value: &str) -> Result<Name, Invalid> {
    match value.is_empty() {
        true => Err(Invalid::new(field, "required, but missing")),
        false => Ok(value.into()),
    }
}

fn list(field: &str, value: Option<&ListStringMatcher>) -> Result<Vec<StringMatch>, Invalid> {
    let Some(ListStringMatcher { patterns }) = value else {
        return Ok(Vec::new());
    };
    if patterns.is_empty() {
        return Err(Invalid::new(field, "must not be empty"));
    }
    each("patterns", patterns, string_match).at(field)
}
