//! How HTTP is spoken to endpoints.

use crate::pb::envoy::config::common::matcher::v3::match_predicate::{MatchSet, Rule};
use crate::pb::envoy::config::common::matcher::v3::{HttpHeadersMatch, MatchPredicate};
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::config::route::v3::HeaderMatcher;
use crate::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use crate::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use crate::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    AutoHttpConfig, ExplicitHttpConfig, OutlierDetection, UpstreamProtocolOptions,
    UseDownstreamHttpConfig, explicit_http_config::ProtocolConfig,
};
use crate::pb::google::protobuf::Any;
use crate::wire::text::to_string_match;
use crate::wire::{pack, to_duration, to_number};
use mesh_core::model::{Cluster, StringMatch, UpstreamProtocol};
use prost::Name as _;
use std::collections::HashMap;
use std::time::Duration;

/// Envoy closes an unused connection after this long where nothing is said.
const IDLE: Duration = Duration::from_secs(3600);
/// As many streams as HTTP/2 can have: what the model means where nothing is said.
const STREAMS: u32 = i32::MAX.unsigned_abs();

/// Nothing for a cluster that speaks HTTP/1.1 and has Envoy's defaults.
pub(super) fn extensions(cluster: &Cluster) -> HashMap<String, Any> {
    let common = common(cluster);
    let codes = cluster
        .outlier
        .as_ref()
        .map(|outlier| outlier.error_codes.as_slice());
    let codes = codes.filter(|codes| !codes.is_empty());
    let names = names(cluster);
    let plain = common.is_none() && codes.is_none() && names.is_none();
    if cluster.protocol == UpstreamProtocol::Http1 && plain {
        return HashMap::new();
    }
    let options = HttpProtocolOptions {
        common_http_protocol_options: common,
        upstream_http_protocol_options: names,
        outlier_detection: codes.map(error_codes),
        upstream_protocol_options: Some(protocol(cluster)),
        ..HttpProtocolOptions::default()
    };
    HashMap::from([(HttpProtocolOptions::full_name(), pack(&options))])
}

fn common(cluster: &Cluster) -> Option<core::HttpProtocolOptions> {
    let requests = cluster.max_requests_per_connection;
    let idle = cluster.idle_timeout;
    let options = core::HttpProtocolOptions {
        // Zero is for ever.
        idle_timeout: (idle != Some(IDLE)).then(|| to_duration(idle.unwrap_or_default())),
        max_connection_duration: cluster.max_connection_duration.map(to_duration),
        max_requests_per_connection: (requests > 0).then(|| to_number(requests)).flatten(),
        ..core::HttpProtocolOptions::default()
    };
    (options != core::HttpProtocolOptions::default()).then_some(options)
}

/// The server name that TLS asks for.
fn names(cluster: &Cluster) -> Option<core::UpstreamHttpProtocolOptions> {
    let tls = cluster.all_tls().find(|tls| tls.auto_sni)?;
    Some(core::UpstreamHttpProtocolOptions {
        auto_sni: true,
        auto_san_validation: tls.auto_san,
        ..core::UpstreamHttpProtocolOptions::default()
    })
}

fn protocol(cluster: &Cluster) -> UpstreamProtocolOptions {
    let explicit = |protocol| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(protocol),
        })
    };
    match cluster.protocol {
        UpstreamProtocol::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2(cluster))),
        UpstreamProtocol::AsDownstream => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(core::Http1ProtocolOptions::default()),
                http2_protocol_options: Some(http2(cluster)),
                ..UseDownstreamHttpConfig::default()
            })
        }
        UpstreamProtocol::Alpn => UpstreamProtocolOptions::AutoConfig(AutoHttpConfig {
            http_protocol_options: Some(core::Http1ProtocolOptions::default()),
            http2_protocol_options: Some(http2(cluster)),
            ..AutoHttpConfig::default()
        }),
        _ => explicit(ProtocolConfig::HttpProtocolOptions(
            core::Http1ProtocolOptions::default(),
        )),
    }
}

fn http2(cluster: &Cluster) -> core::Http2ProtocolOptions {
    let streams = cluster.max_concurrent_streams.clamp(1, STREAMS);
    let keepalive = cluster.http2_keepalive;
    core::Http2ProtocolOptions {
        max_concurrent_streams: (streams != STREAMS).then(|| to_number(streams)).flatten(),
        connection_keepalive: keepalive.map(|(interval, timeout)| core::KeepaliveSettings {
            interval: Some(to_duration(interval)),
            timeout: Some(to_duration(timeout)),
            ..core::KeepaliveSettings::default()
        }),
        ..core::Http2ProtocolOptions::default()
    }
}

fn error_codes(codes: &[u16]) -> OutlierDetection {
    let one = |code: &u16| MatchPredicate {
        rule: Some(Rule::HttpResponseHeadersMatch(HttpHeadersMatch {
            headers: vec![HeaderMatcher {
                name: ":status".to_owned(),
                header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(to_string_match(
                    &StringMatch::Exact(code.to_string()),
                ))),
                ..HeaderMatcher::default()
            }],
        })),
    };
    let matcher = match codes {
        // Envoy wants at least two for "any of".
        [code] => one(code),
        codes => MatchPredicate {
            rule: Some(Rule::OrMatch(MatchSet {
                rules: codes.iter().map(one).collect(),
            })),
        },
    };
    OutlierDetection {
        error_matcher: Some(matcher),
    }
}
