//! Where a request is sent, as `RouteAction`.

use super::{edits, follow, hash, hedge, retry};
use crate::pb::envoy::config::core::v3::RoutingPriority;
use crate::pb::envoy::config::route::v3 as pb;
use crate::pb::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier, MaxStreamDuration,
};
use crate::pb::envoy::config::route::v3::weighted_cluster::{RandomValueSpecifier, cluster_weight};
use crate::pb::google::protobuf::BoolValue;
use crate::wire::share::to_runtime_fraction;
use crate::wire::text::to_substitution;
use crate::wire::{template, to_boolean, to_duration, to_number};
use crate::write::metadata;
use http::header::HOST;
use mesh_core::Name;
use mesh_core::model::{
    AddMode, AuthorityRewrite, Draw, Forward, HeaderTemplate, Mirror, PathRewrite, Priority, Rule,
    Target, Weighted,
};

#[expect(
    deprecated,
    reason = "istiod sends max_grpc_timeout, and Envoy heeds it"
)]
pub(super) fn write(rule: &Rule, forward: &Forward) -> pb::RouteAction {
    let (mut prefix_rewrite, mut regex_rewrite, mut path_rewrite_policy) = Default::default();
    match &forward.path {
        PathRewrite::Prefix(with) => prefix_rewrite = String::clone(with),
        PathRewrite::Regex(pattern, with) => regex_rewrite = Some(to_substitution(pattern, with)),
        PathRewrite::Template(with) => path_rewrite_policy = Some(template::write_rewrite(with)),
        _ => {}
    }
    let offset = Some(rule.grpc_timeout_offset).filter(|offset| !offset.is_zero());
    let offset = offset.map(to_duration);
    // With `max_stream_duration` there, Envoy does not look at `max_grpc_timeout`.
    let max_stream_duration = rule.max_stream_duration.map(|limit| MaxStreamDuration {
        max_stream_duration: Some(to_duration(limit)),
        grpc_timeout_header_max: rule.max_grpc_timeout.map(to_duration),
        grpc_timeout_header_offset: offset,
    });
    let (max_grpc_timeout, grpc_timeout_offset) = match max_stream_duration {
        Some(_) => (None, None),
        None => (rule.max_grpc_timeout.map(to_duration), offset),
    };
    pb::RouteAction {
        cluster_not_found_response_code: not_found(forward).into(),
        prefix_rewrite,
        regex_rewrite,
        path_rewrite_policy,
        // Without one, 15 s would hold.
        timeout: Some(to_duration(rule.timeout.unwrap_or_default())),
        idle_timeout: rule.idle_timeout.map(to_duration),
        retry_policy: rule.retry.as_deref().map(retry::write),
        hedge_policy: rule.hedge.map(hedge::write),
        internal_redirect_policy: rule.follow.as_deref().map(follow::write),
        request_mirror_policies: rule.mirrors.iter().map(mirror).collect(),
        max_grpc_timeout,
        grpc_timeout_offset,
        max_stream_duration,
        cluster_specifier: target(forward),
        host_rewrite_specifier: forward.authority.as_deref().and_then(authority),
        append_x_forwarded_host: forward.append_forwarded_host,
        hash_policy: forward.hash.iter().filter_map(hash::write).collect(),
        metadata_match: metadata::asked(&forward.subset),
        priority: match forward.priority {
            Priority::Default => RoutingPriority::Default,
            Priority::High => RoutingPriority::High,
        }
        .into(),
        upgrade_configs: forward.upgrades.iter().map(upgrade).collect(),
        ..Default::default()
    }
}

fn upgrade((name, passes): &(Name, bool)) -> pb::route_action::UpgradeConfig {
    pb::route_action::UpgradeConfig {
        upgrade_type: name.to_string(),
        enabled: Some(BoolValue { value: *passes }),
        connect_config: None,
    }
}

fn not_found(forward: &Forward) -> ClusterNotFoundResponseCode {
    match forward.not_found.map(|status| status.as_u16()) {
        Some(404) => ClusterNotFoundResponseCode::NotFound,
        Some(500) => ClusterNotFoundResponseCode::InternalServerError,
        _ => ClusterNotFoundResponseCode::ServiceUnavailable,
    }
}

fn target(forward: &Forward) -> Option<ClusterSpecifier> {
    match &forward.to {
        Target::Cluster(name, _) => Some(ClusterSpecifier::Cluster(name.to_string())),
        Target::Header(name) => Some(ClusterSpecifier::ClusterHeader(name.to_string())),
        Target::Weighted(parts) => Some(ClusterSpecifier::WeightedClusters(pb::WeightedCluster {
            clusters: parts.iter().map(part).collect(),
            random_value_specifier: match &forward.draw {
                Draw::Random => None,
                Draw::Header(name) => Some(RandomValueSpecifier::HeaderName(name.to_string())),
                Draw::Hash => Some(RandomValueSpecifier::UseHashPolicy(BoolValue {
                    value: true,
                })),
            },
            ..Default::default()
        })),
        // A target that is not known here; an action without one is refused by whoever reads it.
        _ => None,
    }
}

fn part(part: &Weighted) -> pb::weighted_cluster::ClusterWeight {
    let mut request = part.request_edits.clone();
    // Edits of the host are refused, so the one that counts becomes a rewrite.
    let mut host = None;
    request.add.retain(|edit| {
        let HeaderTemplate::Fixed(value) = &edit.value else {
            return true;
        };
        match value.to_str() {
            Ok(text) if edit.name == HOST && edit.mode == AddMode::Overwrite => {
                host = Some(text.to_owned());
                false
            }
            _ => true,
        }
    });
    let (request_headers_to_add, request_headers_to_remove) = edits::write(&request);
    let (response_headers_to_add, response_headers_to_remove) = edits::write(&part.response_edits);
    pb::weighted_cluster::ClusterWeight {
        name: part.cluster.to_string(),
        cluster_header: part
            .cluster_header
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
        weight: to_number(part.weight),
        metadata_match: metadata::asked(&part.subset),
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        host_rewrite_specifier: host.map(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
        ..Default::default()
    }
}

fn authority(authority: &AuthorityRewrite) -> Option<HostRewriteSpecifier> {
    Some(match authority {
        AuthorityRewrite::Literal(text) => {
            HostRewriteSpecifier::HostRewriteLiteral(text.to_string())
        }
        AuthorityRewrite::FromHeader(name) => {
            HostRewriteSpecifier::HostRewriteHeader(name.to_string())
        }
        AuthorityRewrite::FromPath(pattern, with) => {
            HostRewriteSpecifier::HostRewritePathRegex(to_substitution(pattern, with))
        }
        AuthorityRewrite::FromEndpoint => {
            HostRewriteSpecifier::AutoHostRewrite(BoolValue { value: true })
        }
        // A rewrite that is not known here; the authority stays.
        _ => return None,
    })
}

fn mirror(mirror: &Mirror) -> pb::route_action::RequestMirrorPolicy {
    pb::route_action::RequestMirrorPolicy {
        cluster: mirror.cluster.to_string(),
        runtime_fraction: Some(to_runtime_fraction(mirror.share)),
        disable_shadow_host_suffix_append: !mirror.shadow_host,
        trace_sampled: to_boolean(false),
        cluster_header: mirror
            .cluster_header
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
        request_headers_mutations: edits::one_by_one(&mirror.edits),
        host_rewrite_literal: mirror.authority.as_deref().unwrap_or_default().to_owned(),
    }
}
