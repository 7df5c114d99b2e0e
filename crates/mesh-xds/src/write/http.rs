//! The HTTP connection manager.

use super::{access_log, ads, authn, authz, dns_cache, external, filter_state, route, session};
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::extensions::filters::http::cors::v3::Cors;
use crate::pb::envoy::extensions::filters::http::dynamic_forward_proxy::v3::{
    FilterConfig, filter_config::ImplementationSpecifier,
};
use crate::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use crate::pb::envoy::extensions::filters::http::on_demand::v3::OnDemand;
use crate::pb::envoy::extensions::filters::http::router::v3::Router;
use crate::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use crate::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier,
    ServerHeaderTransformation, SetCurrentClientCertDetails, StripPortMode, UpgradeConfig,
};
use crate::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
use crate::wire::{limit, names, on_demand, pack, to_boolean, to_duration, to_number};
use mesh_core::model::{
    Authz, ClientCertificate, EscapedSlashes, ForwardedCertificate, HttpManager, RouteTable, StripPort};
use prost::Name;
use std::sync::Arc;
use std::time::Duration;

/// HTTP/2 streams at once where nothing is said (Envoy).
const STREAMS: u32 = 1024;
/// An unused connection is closed after this long where nothing is said (Envoy).
const IDLE: Duration = Duration::from_secs(3600);

pub(super) fn manager(
    manager: &HttpManager,
    routes: Option<&RouteTable>,
    forward_proxy: bool,
) -> pb::HttpConnectionManager {
    let mut out = pb::HttpConnectionManager {
        stat_prefix: manager.stat_prefix.to_string(),
        route_specifier: Some(match routes {
            Some(table) => RouteSpecifier::RouteConfig(route::table(table)),
            None => rds(manager),
        }),
        http_filters: filters(manager, forward_proxy),
        access_log: manager
            .access_log
            .iter()
            .map(access_log::access_log)
            .collect(),
        use_remote_address: to_boolean(manager.use_remote_address),
        // As Istio has it: whether a body is wanted is for the upstream to say.
        proxy_100_continue: true,
        xff_num_trusted_hops: manager.trusted_hops,
        skip_xff_append: manager.keep_forwarded_for,
        strip_matching_host_port: manager.strip_port == StripPort::Matching,
        strip_port_mode: (manager.strip_port == StripPort::Any)
            .then_some(StripPortMode::StripAnyHostPort(true)),
        via: manager.via.to_string(),
        always_set_request_id_in_response: manager.request_id_in_response,
        generate_request_id: (!manager.request_id).then(|| to_boolean(false)).flatten(),
        preserve_external_request_id: manager.keep_external_request_id,
        normalize_path: to_boolean(manager.path.normalize),
        merge_slashes: manager.path.merge_slashes,
        path_with_escaped_slashes_action: match manager.path.escaped_slashes {
            EscapedSlashes::Keep => PathWithEscapedSlashesAction::KeepUnchanged,
            EscapedSlashes::Reject => PathWithEscapedSlashesAction::RejectRequest,
            EscapedSlashes::Redirect => PathWithEscapedSlashesAction::UnescapeAndRedirect,
            EscapedSlashes::Decode => PathWithEscapedSlashesAction::UnescapeAndForward,
        }
        .into(),
        max_request_headers_kb: (manager.max_head_kib != 60)
            .then(|| to_number(manager.max_head_kib.clamp(1, 8192)))
            .flatten(),
        common_http_protocol_options: common(manager),
        http2_protocol_options: http2(manager),
        // Written out always: nothing said is five minutes, and 0 is no limit.
        stream_idle_timeout: Some(to_duration(manager.stream_idle_timeout.unwrap_or_default())),
        request_timeout: manager.request_timeout.map(to_duration),
        request_headers_timeout: manager.request_head_timeout.map(to_duration),
        upgrade_configs: manager
            .upgrades
            .iter()
            .map(|name| UpgradeConfig {
                upgrade_type: name.to_string(),
                ..UpgradeConfig::default()
            })
            .collect(),
        ..pb::HttpConnectionManager::default()
    };
    client_certificate(&mut out, manager.client_certificate);
    if manager.server_name.is_empty() {
        out.server_header_transformation = ServerHeaderTransformation::PassThrough.into();
    } else {
        out.server_name = manager.server_name.to_string();
        if manager.server_if_absent {
            let transformation = ServerHeaderTransformation::AppendIfAbsent;
            out.server_header_transformation = transformation.into();
        }
    }
    out
}

/// What is told of callers' certificates.
fn client_certificate(out: &mut pb::HttpConnectionManager, told: ClientCertificate) {
    out.forward_client_cert_details = match told.mode {
        ForwardedCertificate::Sanitize => ForwardClientCertDetails::Sanitize,
        ForwardedCertificate::ForwardOnly => ForwardClientCertDetails::ForwardOnly,
        ForwardedCertificate::AppendForward => ForwardClientCertDetails::AppendForward,
        ForwardedCertificate::SanitizeSet => ForwardClientCertDetails::SanitizeSet,
        ForwardedCertificate::AlwaysForwardOnly => ForwardClientCertDetails::AlwaysForwardOnly,
    }
    .into();
    let details = SetCurrentClientCertDetails {
        subject: told.subject.then(|| to_boolean(true)).flatten(),
        cert: told.cert,
        chain: told.chain,
        dns: told.dns,
        uri: told.uri,
        ..SetCurrentClientCertDetails::default()
    };
    out.set_current_client_cert_details =
        (details != SetCurrentClientCertDetails::default()).then_some(details);
}

fn rds(manager: &HttpManager) -> RouteSpecifier {
    RouteSpecifier::Rds(pb::Rds {
        config_source: Some(ads()),
        route_config_name: manager.routes.to_string(),
    })
}

/// Every filter that a route may configure, in Istio's order, and the router. A listener without
/// some of them is written so.
fn filters(manager: &HttpManager, forward_proxy: bool) -> Vec<pb::HttpFilter> {
    // Routes may bring limits of their own.
    let limit = limit::write(manager.rate_limit.as_deref());
    let mut all = vec![
        filter(names::RATE_LIMIT, &limit),
        filter(names::FAULT, &HttpFault::default()),
        filter(names::CORS, &Cors::default()),
    ];
    let missing = &manager.missing_filters;
    all.retain(|filter| !missing.iter().any(|name| **name == *filter.name));
    if manager.rate_limit.is_some() && all.iter().all(|filter| filter.name != names::RATE_LIMIT) {
        // By another name it limits the listener, and routes have no say.
        all.insert(
            0,
            filter("envoy.filters.http.local_ratelimit.listener", &limit),
        );
    }
    // Before anything with an effect, as istiod has them.
    let judge = |one: &Arc<Authz>| {
        let rules = || filter(one.filter(), &authz::of_requests(one));
        let asked = one.external.as_ref();
        let asked = asked.map(|asked| filter(asked.filter(), &external::of_requests(asked, one)));
        let both = one.is_filter().then(rules).into_iter().chain(asked);
        both.collect::<Vec<_>>()
    };
    // Tokens before those who go by what they say.
    let authn = manager.authn.as_ref();
    let (before, after) = match authn {
        Some(_) => manager
            .authz
            .split_at(manager.authn_at.min(manager.authz.len())),
        None => manager.authz.split_at(0),
    };
    let tokens = authn.map(|authn| filter(names::JWT, &authn::write(authn)));
    let before = before.iter().flat_map(judge);
    let judges = before.chain(tokens).chain(after.iter().flat_map(judge));
    all.splice(0..0, judges);
    if let Some(set) = &manager.filter_state {
        all.insert(0, filter(names::FILTER_STATE, &filter_state::filter(set)));
    }
    if let Some(clusters) = manager.on_demand {
        // First, as in Envoy the request waits before any other filter sees it.
        let config = OnDemand {
            odcds: on_demand::to_clusters(clusters),
        };
        all.insert(0, filter(names::ON_DEMAND, &config));
    }
    if let Some(session) = &manager.session {
        // The last before the router, as istiod has it.
        all.push(filter(names::SESSION, &session::write(session)));
    }
    if forward_proxy {
        let config = FilterConfig {
            implementation_specifier: Some(ImplementationSpecifier::DnsCacheConfig(dns_cache())),
            ..FilterConfig::default()
        };
        all.push(filter("envoy.filters.http.dynamic_forward_proxy", &config));
    }
    all.push(filter("envoy.filters.http.router", &Router::default()));
    all
}

fn filter(name: &str, config: &impl Name) -> pb::HttpFilter {
    pb::HttpFilter {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(pack(config))),
        ..pb::HttpFilter::default()
    }
}

fn common(manager: &HttpManager) -> Option<core::HttpProtocolOptions> {
    let idle = manager.idle_timeout;
    let headers = manager.max_headers;
    let options = core::HttpProtocolOptions {
        // Zero is for ever.
        idle_timeout: (idle != Some(IDLE)).then(|| to_duration(idle.unwrap_or_default())),
        max_headers_count: (headers != 100)
            .then(|| to_number(headers.max(1)))
            .flatten(),
        ..core::HttpProtocolOptions::default()
    };
    (options != core::HttpProtocolOptions::default()).then_some(options)
}

fn http2(manager: &HttpManager) -> Option<core::Http2ProtocolOptions> {
    let streams = manager.max_concurrent_streams;
    (streams != STREAMS).then(|| core::Http2ProtocolOptions {
        max_concurrent_streams: to_number(streams.clamp(1, i32::MAX.unsigned_abs())),
        ..core::Http2ProtocolOptions::default()
    })
}
