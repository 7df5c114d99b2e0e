//! What is refused, and the path of the field that says why.

use super::build::{
    edit, extension, filter, flag, host, number, refused_host, refused_match, refused_route, regex,
    seconds, share, template,
};
use mesh_xds::pb::envoy::config::core::v3 as core;
use mesh_xds::pb::envoy::config::route::v3 as pb;
use mesh_xds::pb::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use mesh_xds::pb::envoy::extensions::filters::http::fault::v3 as fault;
use mesh_xds::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use mesh_xds::pb::envoy::r#type::matcher::v3::FilterStateMatcher;
use mesh_xds::pb::envoy::r#type::v3::TokenBucket;
use mesh_xds::pb::google::protobuf::UInt64Value;
use mesh_xds::read::route::table;
use pb::route_match::PathSpecifier;

#[test]
fn fields_of_a_table_that_the_model_cannot_express() {
    let refused = |change: fn(&mut pb::RouteConfiguration)| {
        let mut proto = pb::RouteConfiguration::default();
        change(&mut proto);
        table(&proto).unwrap_err().to_string()
    };
    for (change, path) in [
        (
            (|it| it.internal_only_headers = vec!["x".into()]) as fn(&mut pb::RouteConfiguration),
            "internal_only_headers",
        ),
        (
            |it| it.cluster_specifier_plugins = vec![Default::default()],
            "cluster_specifier_plugins",
        ),
        (
            |it| it.request_mirror_policies = vec![Default::default()],
            "request_mirror_policies",
        ),
        (|it| it.vhost_header = "x".into(), "vhost_header"),
        (
            |it| it.ignore_path_parameters_in_path_matching = true,
            "ignore_path_parameters_in_path_matching",
        ),
        (
            |it| it.typed_per_filter_config = filter("fault", &fault::HttpFault::default()),
            "typed_per_filter_config",
        ),
        (
            |it| it.route_specifiers = vec![extension()],
            "route_specifiers",
        ),
    ] {
        assert_eq!(refused(change), format!("{path}: not supported"));
    }
}

#[test]
#[expect(deprecated, reason = "deprecated fields are refused too")]
fn fields_of_a_virtual_host_that_the_model_cannot_express() {
    for (change, path) in [
        (
            (|it| it.matcher = Some(Default::default())) as fn(&mut pb::VirtualHost),
            "matcher",
        ),
        (|it| it.require_tls = 1, "require_tls"),
        (|it| it.require_tls = 7, "require_tls"),
        (
            |it| it.virtual_clusters = vec![Default::default()],
            "virtual_clusters",
        ),
        (
            |it| it.rate_limits = vec![Default::default()],
            "rate_limits",
        ),
        (
            |it| it.retry_policy_typed_config = Some(Default::default()),
            "retry_policy_typed_config",
        ),
        (
            |it| it.include_is_timeout_retry_header = true,
            "include_is_timeout_retry_header",
        ),
        (
            |it| it.per_request_buffer_limit_bytes = number(1),
            "per_request_buffer_limit_bytes",
        ),
        (
            |it| it.request_body_buffer_limit = Some(UInt64Value { value: 1 }),
            "request_body_buffer_limit",
        ),
        (
            |it| it.route_specifiers = vec![extension()],
            "route_specifiers",
        ),
        (
            |it| it.typed_per_filter_config = filter("lua", &CorsPolicy::default()),
            "typed_per_filter_config[envoy.filters.http.lua]",
        ),
        (
            |it| it.typed_per_filter_config = filter("cors", &fault::HttpFault::default()),
            "typed_per_filter_config[envoy.filters.http.cors]",
        ),
        (
            |it| it.typed_per_filter_config = filter("cors", &pb::FilterConfig::default()),
            "typed_per_filter_config[envoy.filters.http.cors].config",
        ),
    ] {
        assert_eq!(refused_host(change), path);
    }
}

#[test]
fn fields_of_a_route_that_the_model_cannot_express() {
    for (change, path) in [
        ((|it| it.r#match = None) as fn(&mut pb::Route), "match"),
        (|it| it.action = None, "action"),
        (
            |it| it.action = Some(pb::route::Action::FilterAction(Default::default())),
            "filter_action",
        ),
        (
            |it| it.action = Some(pb::route::Action::NonForwardingAction(Default::default())),
            "non_forwarding_action",
        ),
        (|it| it.tracing = Some(Default::default()), "tracing"),
        (
            |it| it.request_body_buffer_limit = Some(UInt64Value { value: 1 }),
            "request_body_buffer_limit",
        ),
        (
            |it| it.route_specifiers = vec![extension()],
            "route_specifiers",
        ),
        (
            |it| it.request_headers_to_remove = vec!["x".into(), ":path".into()],
            "request_headers_to_remove[1]",
        ),
        (
            |it| it.response_headers_to_remove = vec!["Host".into()],
            "response_headers_to_remove[0]",
        ),
        (
            |it| it.request_headers_to_add = vec![edit(|it| it.header = None)],
            "request_headers_to_add[0].header",
        ),
        (
            |it| it.response_headers_to_add = vec![edit(|it| it.append_action = 7)],
            "response_headers_to_add[0].append_action",
        ),
        (
            |it| {
                it.request_headers_to_add = vec![edit(|it| {
                    it.header.as_mut().unwrap().value = "%REQ(:nothing)%".into()
                })];
            },
            "request_headers_to_add[0].header.value",
        ),
        (
            |it| {
                it.request_headers_to_add = vec![edit(|it| {
                    it.header.as_mut().unwrap().raw_value = b"v".to_vec()
                })];
            },
            "request_headers_to_add[0].header.raw_value",
        ),
        (
            |it| {
                it.request_headers_to_add =
                    vec![edit(|it| it.header.as_mut().unwrap().key = "host".into())];
            },
            "request_headers_to_add[0].header.key",
        ),
    ] {
        assert_eq!(refused_route(change), path);
    }
}

#[test]
fn conditions_that_the_model_cannot_express() {
    for (change, path) in [
        (
            (|it| it.path_specifier = None) as fn(&mut pb::RouteMatch),
            "path_specifier",
        ),
        (
            |it| it.path_specifier = Some(PathSpecifier::PathMatchPolicy(extension())),
            "path_match_policy.typed_config",
        ),
        (
            |it| it.path_specifier = Some(PathSpecifier::PathMatchPolicy(template("/a*"))),
            "path_match_policy.typed_config.path_template",
        ),
        (
            |it| it.path_specifier = Some(PathSpecifier::SafeRegex(regex("("))),
            "safe_regex.regex",
        ),
        (
            |it| it.path_specifier = Some(PathSpecifier::PathSeparatedPrefix("/a/".into())),
            "path_separated_prefix",
        ),
        (
            |it| it.cookies = vec![Default::default()],
            "cookies[0].name",
        ),
        (
            |it| {
                it.cookies = vec![pb::CookieMatcher {
                    name: "c".into(),
                    ..Default::default()
                }];
            },
            "cookies[0].string_match",
        ),
        (
            |it| it.dynamic_metadata = vec![Default::default()],
            "dynamic_metadata[0].filter",
        ),
        (
            |it| it.filter_state = vec![Default::default()],
            "filter_state[0].key",
        ),
        (
            |it| {
                it.filter_state = vec![FilterStateMatcher {
                    key: "k".into(),
                    matcher: None,
                }];
            },
            "filter_state[0].matcher",
        ),
        (
            |it| it.runtime_fraction = Some(Default::default()),
            "runtime_fraction.default_value",
        ),
        (
            |it| {
                it.headers = vec![pb::HeaderMatcher {
                    name: ":status".into(),
                    ..Default::default()
                }];
            },
            "headers[0].name",
        ),
        (
            |it| {
                let specifier =
                    pb::query_parameter_matcher::QueryParameterMatchSpecifier::StringMatch(
                        Default::default(),
                    );
                it.query_parameters = vec![pb::QueryParameterMatcher {
                    name: "q".into(),
                    query_parameter_match_specifier: Some(specifier),
                }];
            },
            "query_parameters[0].string_match.match_pattern",
        ),
    ] {
        assert_eq!(refused_match(change), path);
    }
}

#[test]
fn filters_that_the_model_cannot_express() {
    let limit = |change: fn(&mut LocalRateLimit)| {
        let mut limit = LocalRateLimit {
            token_bucket: Some(TokenBucket {
                max_tokens: 1,
                tokens_per_fill: None,
                fill_interval: seconds(1),
            }),
            ..Default::default()
        };
        change(&mut limit);
        let path =
            refused_route(|it| it.typed_per_filter_config = filter("local_ratelimit", &limit));
        let name = "typed_per_filter_config[envoy.filters.http.local_ratelimit].";
        path.strip_prefix(name).unwrap().to_owned()
    };
    assert_eq!(limit(|it| it.token_bucket = None), "token_bucket");
    assert_eq!(
        limit(|it| it.token_bucket.as_mut().unwrap().fill_interval = seconds(0)),
        "token_bucket.fill_interval"
    );
    assert_eq!(limit(|it| it.filter_enabled = share(50)), "filter_enabled");
    assert_eq!(
        limit(|it| it.filter_enforced = share(50)),
        "filter_enforced"
    );
    assert_eq!(
        limit(|it| it.descriptors = vec![Default::default()]),
        "descriptors"
    );
    assert_eq!(limit(|it| it.stage = 1), "stage");

    let delays = |change: fn(&mut fault::HttpFault)| {
        let mut policy = fault::HttpFault::default();
        change(&mut policy);
        let path = refused_route(|it| it.typed_per_filter_config = filter("fault", &policy));
        let name = "typed_per_filter_config[envoy.filters.http.fault].";
        path.strip_prefix(name).unwrap().to_owned()
    };
    assert_eq!(
        delays(|it| it.headers = vec![Default::default()]),
        "headers[0].name"
    );
    assert_eq!(
        delays(|it| it.response_rate_limit = Some(Default::default())),
        "response_rate_limit.limit_type"
    );
    assert_eq!(
        delays(|it| it.delay = Some(Default::default())),
        "delay.fault_delay_secifier"
    );
    assert_eq!(
        delays(|it| {
            it.abort = Some(fault::FaultAbort {
                error_type: Some(fault::fault_abort::ErrorType::HttpStatus(99)),
                ..Default::default()
            });
        }),
        "abort.http_status"
    );
    let cors = CorsPolicy {
        allow_private_network_access: flag(true),
        ..Default::default()
    };
    assert_eq!(
        refused_route(|it| it.typed_per_filter_config = filter("cors", &cors)),
        "typed_per_filter_config[envoy.filters.http.cors].allow_private_network_access"
    );
}

#[test]
fn a_domain_stands_in_one_virtual_host_only() {
    let mut proto = pb::RouteConfiguration {
        virtual_hosts: vec![host(Vec::new()), host(Vec::new())],
        ..Default::default()
    };
    proto.virtual_hosts[1].name = "other".into();
    proto.virtual_hosts[0].domains = vec!["a.example".into()];
    proto.virtual_hosts[1].domains = vec!["b.example".into(), "A.example".into()];
    let error = table(&proto).unwrap_err();
    assert_eq!(error.path(), "virtual_hosts[other].domains[1]");
}

#[test]
fn virtual_hosts_on_demand_come_from_the_aggregated_stream_to_a_table_with_a_name() {
    let of = |name: &str, source: Option<core::ConfigSource>| {
        table(&pb::RouteConfiguration {
            name: name.into(),
            vhds: Some(pb::Vhds {
                config_source: source,
            }),
            ..Default::default()
        })
    };
    let ads = core::ConfigSource {
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            Default::default(),
        )),
        ..Default::default()
    };
    let path = core::ConfigSource {
        config_source_specifier: Some(
            core::config_source::ConfigSourceSpecifier::PathConfigSource(core::PathConfigSource {
                path: "x".into(),
                ..Default::default()
            }),
        ),
        ..Default::default()
    };
    let read = of("t", Some(ads.clone())).unwrap().on_demand.unwrap();
    assert_eq!(read.table, "t");
    assert_eq!(read.wait, Some(std::time::Duration::from_secs(15)));
    for (name, source, expected) in [
        ("", Some(ads.clone()), "vhds: needs a table with a name"),
        (
            "xdstp://b/x.Y/t",
            Some(ads),
            "vhds: not supported in a table with a structured name",
        ),
        ("t", Some(path), "vhds.config_source: only ads and self"),
        ("t", None, "vhds.config_source: required"),
    ] {
        let error = of(name, source).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}
