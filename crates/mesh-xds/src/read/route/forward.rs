//! Where a request is sent, from `RouteAction`.

use super::filters::{Defaults, Setting};
use super::{cors, edits, follow, hash, hedge, retry};
use crate::pb::envoy::config::core::v3::{RoutingPriority, TypedExtensionConfig};
use crate::pb::envoy::config::route::v3 as pb;
use crate::pb::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier, MaxStreamDuration,
};
use crate::pb::envoy::config::route::v3::weighted_cluster::{RandomValueSpecifier, cluster_weight};
use crate::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use crate::pb::google::protobuf::BoolValue;
use crate::read::metadata;
use crate::wire::share::runtime_fraction;
use crate::wire::text::{header_name, substitution};
use crate::wire::{
    At, boolean, duration, each, enumeration, maybe_duration, number, pass_over, refuse, required,
    template, unsupported,
};
use http::header::HOST;
use http::{HeaderValue, StatusCode};
use mesh_core::model::{
    Action, AddMode, AuthorityRewrite, Draw, Forward, Fraction, HeaderAdd, HeaderTemplate, Mirror,
    PathMatch, PathRewrite, Priority, Rule, Target, Weighted,
};
use mesh_core::{Invalid, Name, Origin};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// The limit for a route that does not say (`RouteAction.timeout`).
const TIMEOUT: Duration = Duration::from_secs(15);

/// Reads where a rule sends requests, and the limits and policies that go with it.
#[expect(
    deprecated,
    reason = "some old spellings are read too, the others refused"
)]
pub(super) fn read(
    proto: &pb::RouteAction,
    rule: &mut Rule,
    host: &Defaults,
) -> Result<(), Invalid> {
    let pb::RouteAction {
        cluster_not_found_response_code,
        metadata_match,
        prefix_rewrite,
        regex_rewrite,
        path_rewrite_policy,
        path_rewrite,
        append_x_forwarded_host,
        timeout,
        idle_timeout,
        flush_timeout,
        early_data_policy,
        retry_policy,
        retry_policy_typed_config,
        request_mirror_policies,
        priority,
        rate_limits,
        include_vh_rate_limits,
        hash_policy,
        cors,
        max_grpc_timeout,
        grpc_timeout_offset,
        upgrade_configs,
        internal_redirect_policy,
        internal_redirect_action,
        max_internal_redirects,
        hedge_policy,
        max_stream_duration,
        cluster_specifier,
        host_rewrite_specifier,
    } = proto;
    pass_over!("envoy.config.route.v3.RouteAction": include_vh_rate_limits);
    refuse!(
        path_rewrite,
        flush_timeout,
        early_data_policy,
        retry_policy_typed_config,
        rate_limits,
    );
    let mut forward = Forward::default();
    forward.to = target(required("cluster_specifier", cluster_specifier)?)?;
    if let Some(ClusterSpecifier::WeightedClusters(clusters)) = cluster_specifier {
        forward.draw = draw(clusters).at("weighted_clusters")?;
    }
    forward.path = path_rewrite_of(
        prefix_rewrite,
        regex_rewrite.as_ref(),
        path_rewrite_policy.as_ref(),
    )?;
    fits(&forward.path, &rule.condition.path)?;
    forward.authority = authority(host_rewrite_specifier.as_ref())?.map(Box::new);
    if *append_x_forwarded_host
        && forward.authority.as_deref() == Some(&AuthorityRewrite::FromEndpoint)
    {
        let message = "not supported together with auto_host_rewrite";
        return Err(Invalid::new("append_x_forwarded_host", message));
    }
    forward.append_forwarded_host = *append_x_forwarded_host;
    let field = "cluster_not_found_response_code";
    forward.not_found = match enumeration(field, *cluster_not_found_response_code)? {
        ClusterNotFoundResponseCode::ServiceUnavailable => None,
        ClusterNotFoundResponseCode::NotFound => Some(StatusCode::NOT_FOUND),
        ClusterNotFoundResponseCode::InternalServerError => Some(StatusCode::INTERNAL_SERVER_ERROR),
    };
    forward.priority = match enumeration("priority", *priority)? {
        RoutingPriority::Default => Priority::Default,
        RoutingPriority::High => Priority::High,
    };
    forward.hash = hash::read(hash_policy)?;
    forward.upgrades = upgrades(upgrade_configs)?;
    forward.subset = metadata::asked(metadata_match.as_ref());
    rule.action = Action::Forward(forward);

    let timeout = maybe_duration("timeout", timeout.as_ref())?.unwrap_or(TIMEOUT);
    rule.timeout = Some(timeout).filter(|limit| !limit.is_zero());
    rule.idle_timeout = maybe_duration("idle_timeout", idle_timeout.as_ref())?;
    match max_stream_duration {
        None => {
            rule.max_grpc_timeout = maybe_duration("max_grpc_timeout", max_grpc_timeout.as_ref())?;
            let offset = maybe_duration("grpc_timeout_offset", grpc_timeout_offset.as_ref())?;
            rule.grpc_timeout_offset = offset.unwrap_or_default();
        }
        // Envoy does not look at `max_grpc_timeout` then, whatever is set in here.
        Some(limits) => stream_limits(limits, rule).at("max_stream_duration")?,
    }
    let retry = retry_policy.as_ref().map(retry::read).transpose();
    rule.retry = retry.at("retry_policy")?.map(Arc::new);
    rule.hedge = hedge_policy.as_ref().map(hedge::read);
    rule.follow = follow::read(
        internal_redirect_policy.as_ref(),
        *internal_redirect_action,
        max_internal_redirects.as_ref(),
    )?;
    rule.mirrors = each("request_mirror_policies", request_mirror_policies, mirror)?;
    if rule.mirrors.is_empty() {
        rule.mirrors.clone_from(&host.mirrors);
    }
    match cors::deprecated(cors.as_ref()).at("cors")? {
        Setting::Unset => {}
        Setting::On(cors) => rule.cors = Some(cors),
        Setting::Off if host.cors => {
            let message = "cannot be switched off for a route whose virtual host has it";
            return Err(Invalid::new("cors", message));
        }
        Setting::Off => {}
    }
    Ok(())
}

fn upgrades(configs: &[pb::route_action::UpgradeConfig]) -> Result<Vec<(Name, bool)>, Invalid> {
    let mut known = HashSet::new();
    each("upgrade_configs", configs, |config| {
        let pb::route_action::UpgradeConfig {
            upgrade_type,
            enabled,
            connect_config,
        } = config;
        refuse!(connect_config);
        let name = upgrade_type.to_ascii_lowercase();
        // Tunnels are not built here, so that there are none is not worth a word.
        if name.is_empty() || name.starts_with("connect") {
            let message = format!("{upgrade_type:?} is not supported");
            return Err(Invalid::new("upgrade_type", message));
        }
        if !known.insert(name.clone()) {
            let message = format!("{upgrade_type:?} is there already");
            return Err(Invalid::new("upgrade_type", message));
        }
        Ok((Name::from(name), boolean(enabled.as_ref(), true)))
    })
}

fn path_rewrite_of(
    prefix: &str,
    regex: Option<&RegexMatchAndSubstitute>,
    policy: Option<&TypedExtensionConfig>,
) -> Result<PathRewrite, Invalid> {
    let not_with = |field, other: &str| {
        let message = format!("not possible together with {other}");
        Err(Invalid::new(field, message))
    };
    match (prefix, regex, policy) {
        ("", None, None) => Ok(PathRewrite::Keep),
        (prefix, None, None) => Ok(PathRewrite::Prefix(prefix.to_owned())),
        ("", Some(regex), None) => {
            let (pattern, with) = substitution(regex).at("regex_rewrite")?;
            Ok(PathRewrite::Regex(pattern, with))
        }
        ("", None, Some(policy)) => {
            let with = template::read_rewrite(policy).at("path_rewrite_policy")?;
            Ok(PathRewrite::Template(with))
        }
        ("", Some(_), Some(_)) => not_with("path_rewrite_policy", "regex_rewrite"),
        (_, None, Some(_)) => not_with("path_rewrite_policy", "prefix_rewrite"),
        (_, Some(_), _) => not_with("regex_rewrite", "prefix_rewrite"),
    }
}

/// Which rewrites go with which conditions, as Envoy has it.
fn fits(rewrite: &PathRewrite, matched: &PathMatch) -> Result<(), Invalid> {
    let policy = |message: String| Err(Invalid::new("path_rewrite_policy", message));
    match (rewrite, matched) {
        (PathRewrite::Prefix(_), PathMatch::Template(_)) => {
            let message = "not possible together with path_match_policy";
            Err(Invalid::new("prefix_rewrite", message))
        }
        (PathRewrite::Template(with), PathMatch::Template(template)) => {
            match with.unknown(template) {
                Some(name) => policy(format!("path_match_policy has no name {name:?}")),
                None => Ok(()),
            }
        }
        (PathRewrite::Template(_), _) => policy("needs a path_match_policy".to_owned()),
        _ => Ok(()),
    }
}

fn stream_limits(proto: &MaxStreamDuration, rule: &mut Rule) -> Result<(), Invalid> {
    let MaxStreamDuration {
        max_stream_duration,
        grpc_timeout_header_max,
        grpc_timeout_header_offset,
    } = proto;
    // That the message is there switches `timeout` off, whatever is in it.
    let limit = maybe_duration("max_stream_duration", max_stream_duration.as_ref())?;
    rule.max_stream_duration = Some(limit.unwrap_or_default());
    if let Some(limit) = grpc_timeout_header_max {
        rule.max_grpc_timeout = Some(duration("grpc_timeout_header_max", limit)?);
    }
    let field = "grpc_timeout_header_offset";
    let offset = maybe_duration(field, grpc_timeout_header_offset.as_ref())?;
    rule.grpc_timeout_offset = offset.unwrap_or_default();
    Ok(())
}

fn target(specifier: &ClusterSpecifier) -> Result<Target, Invalid> {
    Ok(match specifier {
        ClusterSpecifier::Cluster(name) => Target::Cluster(Name::from(name), Origin::NONE),
        ClusterSpecifier::ClusterHeader(name) => {
            Target::Header(header_name("cluster_header", name)?)
        }
        ClusterSpecifier::WeightedClusters(clusters) => {
            Target::Weighted(weighted(clusters).at("weighted_clusters")?)
        }
        ClusterSpecifier::ClusterSpecifierPlugin(_) => {
            return Err(unsupported("cluster_specifier_plugin"));
        }
        ClusterSpecifier::InlineClusterSpecifierPlugin(_) => {
            return Err(unsupported("inline_cluster_specifier_plugin"));
        }
    })
}

#[expect(deprecated, reason = "a total that is given has to be right")]
fn weighted(proto: &pb::WeightedCluster) -> Result<Vec<Weighted>, Invalid> {
    let pb::WeightedCluster {
        clusters,
        total_weight,
        runtime_key_prefix,
        // See `draw`.
        random_value_specifier: _,
    } = proto;
    pass_over!("envoy.config.route.v3.WeightedCluster": runtime_key_prefix);
    let parts = each("clusters", clusters, part)?;
    // Envoy refuses a sum of zero and one that does not fit 32 bits.
    let total = parts
        .iter()
        .try_fold(0_u32, |sum, part| sum.checked_add(part.weight))
        .filter(|total| *total > 0)
        .ok_or_else(|| Invalid::new("clusters", "the sum of weights is 0 or too large"))?;
    match number(total_weight.as_ref()) {
        Some(given) if given != total => {
            let message = format!("{given} is not the sum of the weights, {total}");
            Err(Invalid::new("total_weight", message))
        }
        _ => Ok(parts),
    }
}

fn draw(proto: &pb::WeightedCluster) -> Result<Draw, Invalid> {
    Ok(match &proto.random_value_specifier {
        None => Draw::Random,
        Some(RandomValueSpecifier::HeaderName(name)) => {
            Draw::Header(Box::new(header_name("header_name", name)?))
        }
        Some(RandomValueSpecifier::UseHashPolicy(BoolValue { value: true })) => Draw::Hash,
        Some(RandomValueSpecifier::UseHashPolicy(BoolValue { value: false })) => Draw::Random,
    })
}

fn part(proto: &pb::weighted_cluster::ClusterWeight) -> Result<Weighted, Invalid> {
    let pb::weighted_cluster::ClusterWeight {
        name,
        cluster_header,
        weight,
        metadata_match,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        typed_per_filter_config,
        host_rewrite_specifier,
    } = proto;
    refuse!(typed_per_filter_config);
    let mut part = Weighted::default();
    match (name.as_str(), cluster_header.as_str()) {
        ("", "") => return Err(Invalid::new("name", "needed, or cluster_header")),
        (name, "") => part.cluster = name.into(),
        ("", header) => part.cluster_header = Some(header_name("cluster_header", header)?),
        _ => {
            return Err(Invalid::new(
                "cluster_header",
                "not possible together with name",
            ));
        }
    }
    part.weight = number(weight.as_ref()).unwrap_or_default();
    part.subset = metadata::asked(metadata_match.as_ref());
    part.request_edits = edits::request(request_headers_to_add, request_headers_to_remove)?;
    part.response_edits = edits::response(response_headers_to_add, response_headers_to_remove)?;
    match host_rewrite_specifier {
        None => {}
        Some(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            // A destination has no rewrite of its own in the model; an edit of the host is one.
            let value = HeaderValue::from_str(host).map_err(|_| {
                let message = format!("{host:?} is not the value of a header");
                Invalid::new("host_rewrite_literal", message)
            })?;
            if !value.is_empty() {
                part.request_edits.add.push(HeaderAdd {
                    name: HOST,
                    value: HeaderTemplate::Fixed(value),
                    mode: AddMode::Overwrite,
                    keep_empty: false,
                });
            }
        }
    }
    Ok(part)
}

/// A literal or a header name that is empty changes nothing, as in Envoy.
fn authority(
    specifier: Option<&HostRewriteSpecifier>,
) -> Result<Option<AuthorityRewrite>, Invalid> {
    Ok(match specifier {
        None => None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(text)) => {
            (!text.is_empty()).then(|| AuthorityRewrite::Literal(Name::from(text)))
        }
        Some(HostRewriteSpecifier::AutoHostRewrite(BoolValue { value })) => {
            value.then_some(AuthorityRewrite::FromEndpoint)
        }
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) if name.is_empty() => None,
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) => Some(AuthorityRewrite::FromHeader(
            header_name("host_rewrite_header", name)?,
        )),
        Some(HostRewriteSpecifier::HostRewritePathRegex(regex)) => {
            let (pattern, with) = substitution(regex).at("host_rewrite_path_regex")?;
            Some(AuthorityRewrite::FromPath(pattern, with))
        }
        Some(HostRewriteSpecifier::HostRewrite(_)) => return Err(unsupported("host_rewrite")),
    })
}

/// Reads a copy. Without a fraction, every request is copied.
pub(super) fn mirror(proto: &pb::route_action::RequestMirrorPolicy) -> Result<Mirror, Invalid> {
    let pb::route_action::RequestMirrorPolicy {
        cluster,
        cluster_header,
        runtime_fraction: share,
        trace_sampled,
        disable_shadow_host_suffix_append,
        request_headers_mutations,
        host_rewrite_literal,
    } = proto;
    pass_over!("envoy.config.route.v3.RouteAction.RequestMirrorPolicy": trace_sampled);
    let cluster_header = match (cluster.as_str(), cluster_header.as_str()) {
        ("", "") => return Err(Invalid::new("cluster", "needed, or cluster_header")),
        ("", header) => Some(header_name("cluster_header", header)?),
        (_, "") => None,
        _ => {
            return Err(Invalid::new(
                "cluster_header",
                "not possible together with cluster",
            ));
        }
    };
    let share = share.as_ref().map(runtime_fraction).transpose();
    let authority = Some(host_rewrite_literal).filter(|host| !host.is_empty());
    Ok(Mirror {
        cluster_header,
        share: share.at("runtime_fraction")?.unwrap_or(Fraction::ALL),
        shadow_host: !disable_shadow_host_suffix_append,
        edits: edits::one_by_one("request_headers_mutations", request_headers_mutations)?,
        authority: authority.map(Name::from),
        ..Mirror::to(cluster)
    })
}
