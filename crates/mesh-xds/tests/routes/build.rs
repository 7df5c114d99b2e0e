//! Small pieces that the tests of routes are put together from.

use mesh_xds::pb::envoy::config::core::v3 as core;
use mesh_xds::pb::envoy::config::route::v3 as pb;
use mesh_xds::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use mesh_xds::pb::envoy::extensions::path::rewrite::uri_template::v3::UriTemplateRewriteConfig;
use mesh_xds::pb::envoy::r#type::matcher::v3::RegexMatcher;
use mesh_xds::pb::envoy::r#type::v3::FractionalPercent;
use mesh_xds::pb::google::protobuf::{Any, BoolValue, Duration as WireDuration, UInt32Value};
use mesh_xds::read::route::table;
use pb::route_action::ClusterSpecifier;
use pb::route_match::PathSpecifier;
use prost::{Message, Name};
use std::collections::HashMap;

pub(crate) fn seconds(seconds: i64) -> Option<WireDuration> {
    Some(WireDuration { seconds, nanos: 0 })
}

pub(crate) fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

pub(crate) fn flag(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

pub(crate) fn packed<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: M::type_url(),
        value: message.encode_to_vec(),
    }
}

pub(crate) fn filter<M: Message + Name>(name: &str, config: &M) -> HashMap<String, Any> {
    HashMap::from([(format!("envoy.filters.http.{name}"), packed(config))])
}

pub(crate) fn to_cluster() -> pb::RouteAction {
    pb::RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster("a".into())),
        ..Default::default()
    }
}

pub(crate) fn route(action: pb::route::Action) -> pb::Route {
    pb::Route {
        r#match: Some(pb::RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".into())),
            ..Default::default()
        }),
        action: Some(action),
        ..Default::default()
    }
}

pub(crate) fn plain() -> pb::Route {
    route(pb::route::Action::Route(to_cluster()))
}

pub(crate) fn host(routes: Vec<pb::Route>) -> pb::VirtualHost {
    pb::VirtualHost {
        name: "all".into(),
        domains: vec!["*".into()],
        routes,
        ..Default::default()
    }
}

pub(crate) fn share(percent: u32) -> Option<core::RuntimeFractionalPercent> {
    Some(core::RuntimeFractionalPercent {
        default_value: Some(FractionalPercent {
            numerator: percent,
            denominator: 0,
        }),
        runtime_key: "a.key".into(),
    })
}

/// The path that a table with this virtual host is refused with.
pub(crate) fn refused_host(change: impl FnOnce(&mut pb::VirtualHost)) -> String {
    let mut host = host(vec![plain(), plain()]);
    host.name = "reviews".into();
    change(&mut host);
    let error = table(&pb::RouteConfiguration {
        virtual_hosts: vec![host],
        ..Default::default()
    })
    .unwrap_err();
    let within = error.path().strip_prefix("virtual_hosts[reviews].");
    within.unwrap_or_else(|| panic!("{error}")).to_owned()
}

pub(crate) fn refused_route(change: impl FnOnce(&mut pb::Route)) -> String {
    let path = refused_host(|host| change(&mut host.routes[1]));
    let within = path.strip_prefix("routes[1].");
    within.unwrap_or_else(|| panic!("{path}")).to_owned()
}

pub(crate) fn refused_match(change: impl FnOnce(&mut pb::RouteMatch)) -> String {
    let path = refused_route(|route| change(route.r#match.as_mut().unwrap()));
    let within = path.strip_prefix("match.");
    within.unwrap_or_else(|| panic!("{path}")).to_owned()
}

pub(crate) fn refused_action(change: impl FnOnce(&mut pb::RouteAction)) -> String {
    let path = refused_route(|proto| {
        let mut action = to_cluster();
        change(&mut action);
        *proto = route(pb::route::Action::Route(action));
    });
    let within = path.strip_prefix("route.");
    within.unwrap_or_else(|| panic!("{path}")).to_owned()
}

pub(crate) fn refused_retry(change: impl FnOnce(&mut pb::RetryPolicy)) -> String {
    let path = refused_action(|action| {
        let mut policy = pb::RetryPolicy::default();
        change(&mut policy);
        action.retry_policy = Some(policy);
    });
    path.strip_prefix("retry_policy.").unwrap().to_owned()
}

pub(crate) fn refused_weights(change: impl FnOnce(&mut pb::WeightedCluster)) -> String {
    let path = refused_action(|action| {
        let mut clusters = pb::WeightedCluster {
            clusters: vec![pb::weighted_cluster::ClusterWeight {
                name: "a".into(),
                weight: number(1),
                ..Default::default()
            }],
            ..Default::default()
        };
        change(&mut clusters);
        action.cluster_specifier = Some(ClusterSpecifier::WeightedClusters(clusters));
    });
    path.strip_prefix("weighted_clusters.").unwrap().to_owned()
}

pub(crate) fn regex(regex: &str) -> RegexMatcher {
    RegexMatcher {
        regex: regex.into(),
        ..Default::default()
    }
}

pub(crate) fn extension() -> core::TypedExtensionConfig {
    core::TypedExtensionConfig {
        name: "some.extension".into(),
        typed_config: None,
    }
}

/// The path matcher of a template.
pub(crate) fn template(text: &str) -> core::TypedExtensionConfig {
    typed(&UriTemplateMatchConfig {
        path_template: text.into(),
    })
}

/// What makes paths anew by the names of a template.
pub(crate) fn template_rewrite(text: &str) -> core::TypedExtensionConfig {
    typed(&UriTemplateRewriteConfig {
        path_template_rewrite: text.into(),
    })
}

fn typed<M: Message + Name>(message: &M) -> core::TypedExtensionConfig {
    core::TypedExtensionConfig {
        name: "any".into(),
        typed_config: Some(packed(message)),
    }
}

pub(crate) fn edit(change: impl FnOnce(&mut core::HeaderValueOption)) -> core::HeaderValueOption {
    let mut option = core::HeaderValueOption {
        header: Some(core::HeaderValue {
            key: "x-a".into(),
            value: "v".into(),
            raw_value: Vec::new(),
        }),
        ..Default::default()
    };
    change(&mut option);
    option
}
