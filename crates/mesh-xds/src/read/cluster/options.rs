//! How HTTP is spoken to endpoints (`HttpProtocolOptions`, and its older spellings).

use crate::pb::envoy::config::cluster::v3::cluster::ClusterProtocolSelection;
use crate::pb::envoy::config::common::matcher::v3::match_predicate::{MatchSet, Rule};
use crate::pb::envoy::config::common::matcher::v3::{HttpHeadersMatch, MatchPredicate};
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use crate::pb::envoy::config::route::v3::HeaderMatcher;
use crate::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use crate::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use crate::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    AutoHttpConfig, ExplicitHttpConfig, OutlierDetection, UpstreamProtocolOptions,
    UseDownstreamHttpConfig, explicit_http_config::ProtocolConfig,
};
use crate::pb::google::protobuf::Any;
use crate::read::protocol;
use crate::wire::{
    At, each, enumeration, maybe_duration, number, refuse, required, unpack, unsupported,
};
use mesh_core::Invalid;
use mesh_core::model::{Cluster, UpstreamProtocol};
use prost::Name as _;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The fields of a cluster that the extension took the place of.
pub(super) struct Older<'a> {
    pub(super) requests: Option<u32>,
    pub(super) common: Option<&'a core::HttpProtocolOptions>,
    pub(super) http1: Option<&'a core::Http1ProtocolOptions>,
    pub(super) http2: Option<&'a core::Http2ProtocolOptions>,
    pub(super) upstream: Option<&'a core::UpstreamHttpProtocolOptions>,
    pub(super) selection: i32,
}

pub(super) fn read(
    extensions: &HashMap<String, Any>,
    older: &Older<'_>,
    cluster: &mut Cluster,
) -> Result<(), Invalid> {
    let known = HttpProtocolOptions::full_name();
    let mut names: Vec<&String> = extensions.keys().filter(|name| **name != known).collect();
    names.sort();
    if let Some(name) = names.first() {
        let field = format!("typed_extension_protocol_options[{name:?}]");
        return Err(unsupported(field));
    }
    match extensions.get(&known) {
        Some(any) => {
            // Envoy does not look at the older fields then.
            older.refuse_all()?;
            let options = unpack(any).and_then(|options| extension(&options, cluster));
            options.at(format_args!("typed_extension_protocol_options[{known:?}]"))
        }
        None => older.apply(cluster),
    }
}

fn extension(value: &HttpProtocolOptions, cluster: &mut Cluster) -> Result<(), Invalid> {
    let HttpProtocolOptions {
        common_http_protocol_options,
        upstream_http_protocol_options,
        http_filters,
        header_validation_config,
        outlier_detection,
        request_mirror_policies,
        hash_policy,
        retry_policy,
        upstream_protocol_options,
    } = value;
    refuse!(
        http_filters,
        header_validation_config,
        request_mirror_policies,
        hash_policy,
        retry_policy,
    );
    if let Some(names) = upstream_http_protocol_options {
        names_of(names, cluster).at("upstream_http_protocol_options")?;
    }
    if let Some(common) = common_http_protocol_options {
        apply_common(common, cluster).at("common_http_protocol_options")?;
    }
    if let Some(detection) = outlier_detection {
        error_codes(detection, cluster).at("outlier_detection")?;
    }
    match required("upstream_protocol_options", upstream_protocol_options)? {
        UpstreamProtocolOptions::ExplicitHttpConfig(config) => {
            explicit(config, cluster).at("explicit_http_config")
        }
        UpstreamProtocolOptions::UseDownstreamProtocolConfig(config) => {
            cluster.protocol = UpstreamProtocol::AsDownstream;
            as_downstream(config, cluster).at("use_downstream_protocol_config")
        }
        UpstreamProtocolOptions::AutoConfig(config) => {
            cluster.protocol = UpstreamProtocol::Alpn;
            by_alpn(config, cluster).at("auto_config")
        }
    }
}

/// The server name that is asked for and what it must be. Without TLS nothing is asked for.
fn names_of(
    value: &core::UpstreamHttpProtocolOptions,
    cluster: &mut Cluster,
) -> Result<(), Invalid> {
    let core::UpstreamHttpProtocolOptions {
        auto_sni,
        auto_san_validation,
        override_auto_sni_header,
    } = value;
    refuse!(override_auto_sni_header);
    let matched = cluster.tls_matches.iter_mut();
    let matched = matched.filter_map(|one| one.tls.as_mut());
    for tls in cluster.tls.iter_mut().chain(matched) {
        let tls = Arc::make_mut(tls);
        tls.auto_sni |= auto_sni;
        tls.auto_san |= auto_san_validation;
    }
    Ok(())
}

/// HTTP/2 where TLS agrees on it.
fn by_alpn(value: &AutoHttpConfig, cluster: &mut Cluster) -> Result<(), Invalid> {
    let AutoHttpConfig {
        http_protocol_options,
        http2_protocol_options,
        http3_protocol_options,
        alternate_protocols_cache_options,
    } = value;
    refuse!(http3_protocol_options, alternate_protocols_cache_options);
    if cluster.tls.is_none() {
        return Err(Invalid::new("", "needs a transport_socket with TLS"));
    }
    if let Some(http1) = http_protocol_options {
        protocol::check_http1(http1).at("http_protocol_options")?;
    }
    if let Some(http2) = http2_protocol_options {
        apply_http2(http2, cluster).at("http2_protocol_options")?;
    }
    Ok(())
}

fn explicit(value: &ExplicitHttpConfig, cluster: &mut Cluster) -> Result<(), Invalid> {
    let ExplicitHttpConfig { protocol_config } = value;
    match required("protocol_config", protocol_config)? {
        ProtocolConfig::HttpProtocolOptions(http1) => {
            cluster.protocol = UpstreamProtocol::Http1;
            protocol::check_http1(http1).at("http_protocol_options")
        }
        ProtocolConfig::Http2ProtocolOptions(http2) => {
            cluster.protocol = UpstreamProtocol::Http2;
            apply_http2(http2, cluster).at("http2_protocol_options")
        }
        ProtocolConfig::Http3ProtocolOptions(_) => Err(unsupported("http3_protocol_options")),
    }
}

fn as_downstream(value: &UseDownstreamHttpConfig, cluster: &mut Cluster) -> Result<(), Invalid> {
    let UseDownstreamHttpConfig {
        http_protocol_options,
        http2_protocol_options,
        http3_protocol_options,
    } = value;
    refuse!(http3_protocol_options);
    if let Some(http1) = http_protocol_options {
        protocol::check_http1(http1).at("http_protocol_options")?;
    }
    if let Some(http2) = http2_protocol_options {
        apply_http2(http2, cluster).at("http2_protocol_options")?;
    }
    Ok(())
}

fn apply_http2(value: &core::Http2ProtocolOptions, cluster: &mut Cluster) -> Result<(), Invalid> {
    let options = protocol::http2(value)?;
    if let Some(streams) = options.max_concurrent_streams {
        cluster.max_concurrent_streams = streams;
    }
    cluster.http2_keepalive = options.keepalive;
    Ok(())
}

fn apply_common(value: &core::HttpProtocolOptions, cluster: &mut Cluster) -> Result<(), Invalid> {
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
        max_connection_duration_jitter,
        max_headers_count,
        max_response_headers_kb,
        max_stream_duration,
    );
    // Envoy looks at underscores in requests only.
    enumeration::<HeadersWithUnderscoresAction>(
        "headers_with_underscores_action",
        *headers_with_underscores_action,
    )?;
    if let Some(idle) = maybe_duration("idle_timeout", idle_timeout.as_ref())? {
        // Zero is for ever.
        cluster.idle_timeout = (!idle.is_zero()).then_some(idle);
    }
    cluster.max_connection_duration =
        maybe_duration("max_connection_duration", max_connection_duration.as_ref())?;
    if cluster.max_connection_duration == Some(Duration::ZERO) {
        let message = "must be more than zero";
        return Err(Invalid::new("max_connection_duration", message));
    }
    if let Some(requests) = number(max_requests_per_connection.as_ref()) {
        cluster.max_requests_per_connection = requests;
    }
    Ok(())
}

impl Older<'_> {
    fn refuse_all(&self) -> Result<(), Invalid> {
        for (field, set) in [
            ("max_requests_per_connection", self.requests.is_some()),
            ("common_http_protocol_options", self.common.is_some()),
            ("upstream_http_protocol_options", self.upstream.is_some()),
            ("http_protocol_options", self.http1.is_some()),
            ("http2_protocol_options", self.http2.is_some()),
            ("protocol_selection", self.selection != 0),
        ] {
            if set {
                let message = "has no effect beside typed_extension_protocol_options";
                return Err(Invalid::new(field, message));
            }
        }
        Ok(())
    }

    fn apply(&self, cluster: &mut Cluster) -> Result<(), Invalid> {
        if let Some(common) = self.common {
            apply_common(common, cluster).at("common_http_protocol_options")?;
        }
        if let Some(names) = self.upstream {
            names_of(names, cluster).at("upstream_http_protocol_options")?;
        }
        if let Some(requests) = self.requests {
            cluster.max_requests_per_connection = requests;
        }
        if let Some(http1) = self.http1 {
            protocol::check_http1(http1).at("http_protocol_options")?;
        }
        if let Some(http2) = self.http2 {
            cluster.protocol = UpstreamProtocol::Http2;
            apply_http2(http2, cluster).at("http2_protocol_options")?;
        }
        let selection =
            enumeration::<ClusterProtocolSelection>("protocol_selection", self.selection)?;
        if selection == ClusterProtocolSelection::UseDownstreamProtocol {
            cluster.protocol = UpstreamProtocol::AsDownstream;
        }
        Ok(())
    }
}

/// Istio's status codes that count as errors: one exact `:status`, or any of several.
fn error_codes(value: &OutlierDetection, cluster: &mut Cluster) -> Result<(), Invalid> {
    let OutlierDetection { error_matcher } = value;
    let Some(matcher) = error_matcher else {
        return Ok(());
    };
    let Some(outlier) = cluster.outlier.as_mut() else {
        let message = "has no effect without outlier_detection of the cluster";
        return Err(Invalid::new("error_matcher", message));
    };
    outlier.error_codes = match &matcher.rule {
        Some(Rule::OrMatch(MatchSet { rules })) => {
            each("rules", rules, one_code).at("error_matcher.or_match")?
        }
        _ => vec![one_code(matcher).at("error_matcher")?],
    };
    Ok(())
}

fn one_code(value: &MatchPredicate) -> Result<u16, Invalid> {
    let MatchPredicate { rule } = value;
    let refused = || Invalid::new("", "only an exact :status is supported here");
    let Some(Rule::HttpResponseHeadersMatch(HttpHeadersMatch { headers })) = rule else {
        return Err(refused());
    };
    let [
        HeaderMatcher {
            name,
            invert_match: false,
            treat_missing_header_as_empty: false,
            header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(text)),
        },
    ] = headers.as_slice()
    else {
        return Err(refused());
    };
    let mesh_core::model::StringMatch::Exact(code) = crate::wire::text::string_match(text)? else {
        return Err(refused());
    };
    match code.parse() {
        Ok(code @ 100..600) if name == ":status" => Ok(code),
        _ => Err(refused()),
    }
}
