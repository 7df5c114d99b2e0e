//! The HTTP connection manager.

use super::{RouteSource, access_log, protocol, route, source};
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use crate::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use crate::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier,
    ServerHeaderTransformation, SetCurrentClientCertDetails, StripPortMode, UpgradeConfig,
};
use crate::wire::{
    At, boolean, each, enumeration, pass_over, maybe_duration, number, refuse, required, unsupported,
};
use http::HeaderValue;
use mesh_core::model::{
    ClientCertificate, EscapedSlashes, ForwardedCertificate, HttpManager, PathNormalization, StripPort,
};
use mesh_core::{Invalid, Name};
use std::sync::Arc;
use std::time::Duration;

mod filters;

/// A manager, and where its routes are. `listener` names the routes where nothing else does.
#[expect(deprecated, reason = "Envoy still reads the older spellings")]
pub(super) fn manager(
    value: &pb::HttpConnectionManager,
    listener: &str,
) -> Result<(HttpManager, RouteSource), Invalid> {
    let pb::HttpConnectionManager {
        codec_type,
        stat_prefix,
        http_filters,
        add_user_agent,
        tracing,
        common_http_protocol_options,
        http1_safe_max_connection_duration,
        http_protocol_options,
        http2_protocol_options,
        http3_protocol_options,
        server_name,
        server_header_transformation,
        scheme_header_transformation,
        max_request_headers_kb,
        stream_idle_timeout,
        stream_flush_timeout,
        request_timeout,
        request_headers_timeout,
        drain_timeout,
        drain_timeout_jitter,
        delayed_close_timeout,
        access_log,
        access_log_flush_interval,
        flush_access_log_on_new_request,
        access_log_options,
        use_remote_address,
        xff_num_trusted_hops,
        original_ip_detection_extensions,
        early_header_mutation_extensions,
        internal_address_config,
        skip_xff_append,
        via,
        generate_request_id,
        preserve_external_request_id,
        always_set_request_id_in_response,
        forward_client_cert_details,
        set_current_client_cert_details,
        forward_client_cert_matcher,
        proxy_100_continue,
        represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        upgrade_configs,
        normalize_path,
        merge_slashes,
        path_with_escaped_slashes_action,
        request_id_extension,
        local_reply_config,
        strip_matching_host_port,
        stream_error_on_invalid_http_message,
        path_normalization_options,
        strip_trailing_host_dot,
        proxy_status_config,
        typed_header_validation_config,
        append_x_forwarded_port,
        append_local_overload,
        add_proxy_protocol_connection_state,
        forward_proto_config,
        route_specifier,
        strip_port_mode,
    } = value;
    refuse!(
        http1_safe_max_connection_duration,
        http3_protocol_options,
        scheme_header_transformation,
        stream_flush_timeout,
        drain_timeout,
        drain_timeout_jitter,
        delayed_close_timeout,
        access_log_flush_interval,
        flush_access_log_on_new_request,
        access_log_options,
        original_ip_detection_extensions,
        early_header_mutation_extensions,
        internal_address_config,
        forward_client_cert_matcher,
        represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        local_reply_config,
        path_normalization_options,
        strip_trailing_host_dot,
        proxy_status_config,
        typed_header_validation_config,
        append_x_forwarded_port,
        append_local_overload,
        forward_proto_config,
    );
    pass_over!("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager":
        add_proxy_protocol_connection_state,
        proxy_100_continue,
        tracing,
    );
    // These do nothing at their default, whether it is written or not.
    if boolean(add_user_agent.as_ref(), false) {
        refuse!(add_user_agent);
    }
    if boolean(stream_error_on_invalid_http_message.as_ref(), false) {
        refuse!(stream_error_on_invalid_http_message);
    }
    if tracing
        .as_ref()
        .is_some_and(|tracing| tracing.provider.is_some())
    {
        return Err(Invalid::new("tracing.provider", "not supported yet"));
    }
    if enumeration::<CodecType>("codec_type", *codec_type)? != CodecType::Auto {
        let message = "only AUTO is supported: HTTP/1.1 and HTTP/2 are told apart by themselves";
        return Err(Invalid::new("codec_type", message));
    }
    if stat_prefix.is_empty() {
        return Err(Invalid::new("stat_prefix", "required, but missing"));
    }
    if let Some(extension) = request_id_extension {
        let pb::RequestIdExtension { typed_config } = extension;
        let check = || {
            super::extension::passed_over(required("typed_config", typed_config)?)
                .at("typed_config")
        };
        check().at("request_id_extension")?;
    }

    let routes = routes(route_specifier.as_ref(), listener)?;
    let name = match &routes {
        RouteSource::Inline(table) => table.name.clone(),
        RouteSource::Named(reference) => reference.name.clone(),
    };
    let mut manager = HttpManager::new(stat_prefix.as_str(), name);
    let server = enumeration(
        "server_header_transformation",
        *server_header_transformation,
    )?;
    manager.server_name = match server {
        ServerHeaderTransformation::PassThrough => Name::default(),
        _ if server_name.is_empty() => "envoy".into(),
        _ => server_name.into(),
    };
    manager.server_if_absent = server == ServerHeaderTransformation::AppendIfAbsent;
    manager.client_certificate = client_certificate(
        enumeration("forward_client_cert_details", *forward_client_cert_details)?,
        set_current_client_cert_details.as_ref(),
    )?;
    manager.via = header_text("via", via)?;
    manager.access_log = each("access_log", access_log, access_log::access_log)?;
    manager.path = PathNormalization {
        normalize: boolean(normalize_path.as_ref(), false),
        merge_slashes: *merge_slashes,
        escaped_slashes: escaped_slashes(*path_with_escaped_slashes_action)?,
    };
    manager.use_remote_address = boolean(use_remote_address.as_ref(), false);
    manager.trusted_hops = *xff_num_trusted_hops;
    manager.keep_forwarded_for = *skip_xff_append;
    manager.strip_port = match (strip_matching_host_port, strip_port_mode) {
        (false, Some(StripPortMode::StripAnyHostPort(true))) => StripPort::Any,
        (true, Some(StripPortMode::StripAnyHostPort(true))) => {
            let message = "not possible together with strip_matching_host_port";
            return Err(Invalid::new("strip_any_host_port", message));
        }
        (true, _) => StripPort::Matching,
        (false, _) => StripPort::Keep,
    };
    manager.request_id = boolean(generate_request_id.as_ref(), true);
    manager.keep_external_request_id = *preserve_external_request_id;
    manager.request_id_in_response = *always_set_request_id_in_response;
    if let Some(limit) = number(max_request_headers_kb.as_ref()) {
        if !(1..=8192).contains(&limit) {
            let message = format!("{limit} is not between 1 and 8192");
            return Err(Invalid::new("max_request_headers_kb", message));
        }
        manager.max_head_kib = limit;
    }
    if let Some(common) = common_http_protocol_options {
        apply_common(common, &mut manager).at("common_http_protocol_options")?;
    }
    if let Some(http1) = http_protocol_options {
        protocol::check_http1(http1).at("http_protocol_options")?;
    }
    if let Some(http2) = http2_protocol_options {
        apply_http2(http2, &mut manager).at("http2_protocol_options")?;
    }
    // Envoy's default; Istio sends 0, which is off.
    let idle = maybe_duration("stream_idle_timeout", stream_idle_timeout.as_ref())?;
    manager.stream_idle_timeout = limit(idle.unwrap_or(Duration::from_secs(300)));
    let whole = maybe_duration("request_timeout", request_timeout.as_ref())?;
    manager.request_timeout = whole.and_then(limit);
    let head = maybe_duration("request_headers_timeout", request_headers_timeout.as_ref())?;
    manager.request_head_timeout = head.and_then(limit);
    manager.upgrades = each("upgrade_configs", upgrade_configs, upgrade)?
        .into_iter()
        .flatten()
        .collect();
    let filters = filters::read(http_filters)?;
    manager.rate_limit = filters.limit.map(Arc::new);
    manager.on_demand = filters.on_demand;
    manager.filter_state = filters.filter_state.map(Arc::new);
    manager.authn = filters.authn;
    manager.authn_at = filters.authn_at;
    manager.authz = filters.authz;
    manager.session = filters.session;
    manager.missing_filters = filters.missing;
    Ok((manager, routes))
}

/// A text that goes into a header.
fn header_text(field: &str, text: &str) -> Result<Name, Invalid> {
    match HeaderValue::from_str(text) {
        Ok(_) => Ok(text.into()),
        Err(_) => Err(Invalid::new(field, "cannot stand in a header")),
    }
}

/// Zero is no limit.
fn limit(value: Duration) -> Option<Duration> {
    (!value.is_zero()).then_some(value)
}

fn routes(value: Option<&RouteSpecifier>, listener: &str) -> Result<RouteSource, Invalid> {
    match value {
        None => Err(Invalid::new(
            "route_specifier",
            "required, but missing: set rds or route_config",
        )),
        Some(RouteSpecifier::Rds(rds)) => {
            let pb::Rds {
                config_source,
                route_config_name,
            } = rds;
            let reference = || {
                if route_config_name.is_empty() {
                    return Err(Invalid::new("route_config_name", "required, but missing"));
                }
                let from = required("config_source", config_source)?;
                source::reference(route_config_name, from).at("config_source")
            };
            Ok(RouteSource::Named(reference().at("rds")?))
        }
        Some(RouteSpecifier::RouteConfig(config)) => {
            let mut table = route::table(config).at("route_config")?;
            if table.name.is_empty() {
                table.name = listener.into();
            }
            // Unlike one that comes by RDS, a table in a listener is checked unless it says not.
            table.validate_clusters = boolean(config.validate_clusters.as_ref(), true);
            Ok(RouteSource::Inline(Box::new(table)))
        }
        Some(RouteSpecifier::ScopedRoutes(_)) => Err(unsupported("scoped_routes")),
    }
}

fn escaped_slashes(value: i32) -> Result<EscapedSlashes, Invalid> {
    use PathWithEscapedSlashesAction as Action;
    Ok(
        match enumeration("path_with_escaped_slashes_action", value)? {
            Action::ImplementationSpecificDefault | Action::KeepUnchanged => EscapedSlashes::Keep,
            Action::RejectRequest => EscapedSlashes::Reject,
            Action::UnescapeAndRedirect => EscapedSlashes::Redirect,
            Action::UnescapeAndForward => EscapedSlashes::Decode,
        },
    )
}

fn apply_common(
    value: &core::HttpProtocolOptions,
    manager: &mut HttpManager,
) -> Result<(), Invalid> {
    let core::HttpProtocolOptions {
        idle_timeout,
        max_connection_duration,
        max_connection_duration_jitter,
        max_headers_count,
        max_response_headers_kb,
        max_stream_duration,
        headers_with_underscores_action,
        max_requests_per_connection,
    } = value;
    refuse!(
        max_connection_duration,
        max_connection_duration_jitter,
        max_response_headers_kb,
        max_stream_duration,
        max_requests_per_connection,
    );
    let field = "headers_with_underscores_action";
    let action: HeadersWithUnderscoresAction =
        enumeration(field, *headers_with_underscores_action)?;
    if action != HeadersWithUnderscoresAction::Allow {
        let message = format!("{} is not supported", action.as_str_name());
        return Err(Invalid::new(field, message));
    }
    if let Some(idle) = maybe_duration("idle_timeout", idle_timeout.as_ref())? {
        manager.idle_timeout = limit(idle);
    }
    match number(max_headers_count.as_ref()) {
        None => {}
        Some(0) => return Err(Invalid::new("max_headers_count", "must be 1 or more")),
        Some(count) => manager.max_headers = count,
    }
    Ok(())
}

fn apply_http2(
    value: &core::Http2ProtocolOptions,
    manager: &mut HttpManager,
) -> Result<(), Invalid> {
    let options = protocol::http2(value)?;
    if options.keepalive.is_some() {
        return Err(unsupported("connection_keepalive"));
    }
    if let Some(streams) = options.max_concurrent_streams {
        manager.max_concurrent_streams = streams;
    }
    Ok(())
}

/// The upgrade, unless it is switched off.
fn upgrade(value: &UpgradeConfig) -> Result<Option<Name>, Invalid> {
    let UpgradeConfig {
        upgrade_type,
        filters,
        enabled,
    } = value;
    refuse!(filters);
    let name = upgrade_type.to_ascii_lowercase();
    if name.is_empty() || name.starts_with("connect") {
        let message = format!("{upgrade_type:?} is not supported");
        return Err(Invalid::new("upgrade_type", message));
    }
    Ok(boolean(enabled.as_ref(), true).then(|| name.into()))
}

/// What upstreams are told of callers' certificates.
fn client_certificate(
    mode: ForwardClientCertDetails,
    details: Option<&SetCurrentClientCertDetails>,
) -> Result<ClientCertificate, Invalid> {
    let default = SetCurrentClientCertDetails::default();
    let SetCurrentClientCertDetails {
        subject,
        cert,
        chain,
        dns,
        uri,
        issuer,
        format,
    } = details.unwrap_or(&default);
    let check = || {
        refuse!(issuer, format);
        Ok(())
    };
    check().at("set_current_client_cert_details")?;
    let mut told = ClientCertificate::default();
    told.mode = match mode {
        ForwardClientCertDetails::Sanitize => ForwardedCertificate::Sanitize,
        ForwardClientCertDetails::ForwardOnly => ForwardedCertificate::ForwardOnly,
        ForwardClientCertDetails::AppendForward => ForwardedCertificate::AppendForward,
        ForwardClientCertDetails::SanitizeSet => ForwardedCertificate::SanitizeSet,
        ForwardClientCertDetails::AlwaysForwardOnly => ForwardedCertificate::AlwaysForwardOnly,
    };
    told.subject = boolean(subject.as_ref(), false);
    (told.cert, told.chain, told.dns, told.uri) = (*cert, *chain, *dns, *uri);
    Ok(told)
}
