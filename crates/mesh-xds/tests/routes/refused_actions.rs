//! What is refused in actions, and the path of the field that says why.

use super::build::{
    edit, extension, filter, flag, number, packed, refused_action, refused_retry, refused_route,
    refused_weights, route, seconds, template, template_rewrite, to_cluster,
};
use mesh_xds::pb::envoy::config::common::mutation_rules::v3::HeaderMutation;
use mesh_xds::pb::envoy::config::common::mutation_rules::v3::header_mutation::Action;
use mesh_xds::pb::envoy::config::core::v3 as core;
use mesh_xds::pb::envoy::config::route::v3 as pb;
use mesh_xds::pb::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use mesh_xds::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use pb::route_action::hash_policy::{Cookie, Header, PolicySpecifier};
use pb::route_action::{ClusterSpecifier, HashPolicy, HostRewriteSpecifier};
use pb::route_match::PathSpecifier;

/// A mirror with these changes.
fn mutated(actions: Vec<Action>) -> Vec<pb::route_action::RequestMirrorPolicy> {
    let mutation = |action| HeaderMutation {
        action: Some(action),
    };
    vec![pb::route_action::RequestMirrorPolicy {
        cluster: "a".into(),
        request_headers_mutations: actions.into_iter().map(mutation).collect(),
        ..Default::default()
    }]
}

fn upgrades(names: &[&str]) -> Vec<pb::route_action::UpgradeConfig> {
    let one = |name: &&str| pb::route_action::UpgradeConfig {
        upgrade_type: (*name).into(),
        ..Default::default()
    };
    names.iter().map(one).collect()
}

fn by(source: PolicySpecifier) -> Vec<HashPolicy> {
    vec![HashPolicy {
        terminal: false,
        policy_specifier: Some(source),
    }]
}

#[test]
fn rewrites_that_do_not_go_with_a_template() {
    let refused = |change: fn(&mut pb::RouteAction)| {
        let mut action = to_cluster();
        change(&mut action);
        refused_route(|it| {
            it.action = Some(pb::route::Action::Route(action));
            it.r#match.as_mut().unwrap().path_specifier =
                Some(PathSpecifier::PathMatchPolicy(template("/{a}")));
        })
    };
    let with_prefix = |it: &mut pb::RouteAction| it.prefix_rewrite = "/".into();
    assert_eq!(refused(with_prefix), "route.prefix_rewrite");
    let by_another_name =
        |it: &mut pb::RouteAction| it.path_rewrite_policy = Some(template_rewrite("/{b}"));
    assert_eq!(refused(by_another_name), "route.path_rewrite_policy");
}

#[test]
#[expect(deprecated, reason = "deprecated fields are refused too")]
fn actions_that_the_model_cannot_express() {
    for (change, path) in [
        (
            (|it| it.cluster_specifier = None) as fn(&mut pb::RouteAction),
            "cluster_specifier",
        ),
        (
            |it| it.cluster_specifier = Some(ClusterSpecifier::ClusterHeader(":path".into())),
            "cluster_header",
        ),
        (
            |it| {
                it.cluster_specifier = Some(ClusterSpecifier::ClusterSpecifierPlugin("p".into()));
            },
            "cluster_specifier_plugin",
        ),
        (
            |it| {
                it.append_x_forwarded_host = true;
                let by_endpoint = HostRewriteSpecifier::AutoHostRewrite(flag(true).unwrap());
                it.host_rewrite_specifier = Some(by_endpoint);
            },
            "append_x_forwarded_host",
        ),
        (
            |it| it.path_rewrite_policy = Some(extension()),
            "path_rewrite_policy.typed_config",
        ),
        (
            |it| it.path_rewrite_policy = Some(template_rewrite("/a*")),
            "path_rewrite_policy.typed_config.path_template_rewrite",
        ),
        // The match is a prefix.
        (
            |it| it.path_rewrite_policy = Some(template_rewrite("/a")),
            "path_rewrite_policy",
        ),
        (
            |it| {
                it.prefix_rewrite = "/".into();
                it.path_rewrite_policy = Some(template_rewrite("/a"));
            },
            "path_rewrite_policy",
        ),
        (|it| it.path_rewrite = "/".into(), "path_rewrite"),
        (|it| it.timeout = seconds(-1), "timeout"),
        (|it| it.flush_timeout = seconds(1), "flush_timeout"),
        (
            |it| it.early_data_policy = Some(extension()),
            "early_data_policy",
        ),
        (
            |it| it.retry_policy_typed_config = Some(Default::default()),
            "retry_policy_typed_config",
        ),
        (|it| it.priority = 2, "priority"),
        (
            |it| it.rate_limits = vec![Default::default()],
            "rate_limits",
        ),
        (
            |it| it.hash_policy = vec![Default::default()],
            "hash_policy[0].policy_specifier",
        ),
        (
            |it| it.hash_policy = by(PolicySpecifier::FilterState(Default::default())),
            "hash_policy[0].filter_state.key",
        ),
        (
            |it| {
                let header_name = ":path".to_owned();
                let regex_rewrite = None;
                let header = Header {
                    header_name,
                    regex_rewrite,
                };
                it.hash_policy = by(PolicySpecifier::Header(header));
            },
            "hash_policy[0].header.header_name",
        ),
        (
            |it| {
                let header_name = "x".to_owned();
                let regex_rewrite = Some(Default::default());
                let header = Header {
                    header_name,
                    regex_rewrite,
                };
                it.hash_policy = by(PolicySpecifier::Header(header));
            },
            "hash_policy[0].header.regex_rewrite.pattern",
        ),
        (
            |it| it.hash_policy = by(PolicySpecifier::Cookie(Default::default())),
            "hash_policy[0].cookie.name",
        ),
        (
            |it| {
                let name = "a".to_owned();
                let ttl = seconds(-1);
                let cookie = Cookie {
                    name,
                    ttl,
                    ..Default::default()
                };
                it.hash_policy = by(PolicySpecifier::Cookie(cookie));
            },
            "hash_policy[0].cookie.ttl",
        ),
        (
            |it| {
                let name = "a".to_owned();
                let attributes = vec![Default::default()];
                let cookie = Cookie {
                    name,
                    attributes,
                    ..Default::default()
                };
                it.hash_policy = by(PolicySpecifier::Cookie(cookie));
            },
            "hash_policy[0].cookie.attributes[0].name",
        ),
        (
            |it| it.hash_policy = by(PolicySpecifier::QueryParameter(Default::default())),
            "hash_policy[0].query_parameter.name",
        ),
        (
            |it| it.grpc_timeout_offset = seconds(-1),
            "grpc_timeout_offset",
        ),
        (
            |it| it.upgrade_configs = vec![Default::default()],
            "upgrade_configs[0].upgrade_type",
        ),
        (
            |it| it.upgrade_configs = upgrades(&["a", "B", "b"]),
            "upgrade_configs[2].upgrade_type",
        ),
        (
            |it| it.upgrade_configs = upgrades(&["CONNECT"]),
            "upgrade_configs[0].upgrade_type",
        ),
        (
            |it| {
                it.upgrade_configs = upgrades(&["a"]);
                it.upgrade_configs[0].connect_config = Some(Default::default());
            },
            "upgrade_configs[0].connect_config",
        ),
        (
            |it| {
                it.max_stream_duration = Some(pb::route_action::MaxStreamDuration {
                    grpc_timeout_header_offset: seconds(-1),
                    ..Default::default()
                });
            },
            "max_stream_duration.grpc_timeout_header_offset",
        ),
        (
            |it| it.cluster_not_found_response_code = 9,
            "cluster_not_found_response_code",
        ),
        (
            |it| {
                it.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewritePathRegex(
                    Default::default(),
                ));
            },
            "host_rewrite_path_regex.pattern",
        ),
        (
            |it| it.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewrite("x".into())),
            "host_rewrite",
        ),
        (
            |it| {
                it.prefix_rewrite = "/".into();
                it.regex_rewrite = Some(RegexMatchAndSubstitute::default());
            },
            "regex_rewrite",
        ),
        (
            |it| {
                it.request_mirror_policies = vec![pb::route_action::RequestMirrorPolicy {
                    cluster: "a".into(),
                    cluster_header: "x".into(),
                    ..Default::default()
                }];
            },
            "request_mirror_policies[0].cluster_header",
        ),
        (
            |it| it.request_mirror_policies = vec![Default::default()],
            "request_mirror_policies[0].cluster",
        ),
        (
            |it| it.request_mirror_policies = mutated(vec![Action::Remove("host".into())]),
            "request_mirror_policies[0].request_headers_mutations[0].remove",
        ),
        (
            |it| {
                let append = Action::Append(edit(|_| {}));
                it.request_mirror_policies = mutated(vec![append, Action::Remove("x-a".into())]);
            },
            "request_mirror_policies[0].request_headers_mutations[1]",
        ),
        (
            |it| {
                let copy = |it: &mut core::HeaderValueOption| {
                    it.header.as_mut().unwrap().value = "%REQ(x-b)%".into();
                };
                let remove = Action::Remove("x-b".into());
                it.request_mirror_policies = mutated(vec![remove, Action::Append(edit(copy))]);
            },
            "request_mirror_policies[0].request_headers_mutations[1].append",
        ),
        (
            |it| {
                let action = Action::RemoveOnMatch(Default::default());
                it.request_mirror_policies = mutated(vec![action]);
            },
            "request_mirror_policies[0].request_headers_mutations[0].remove_on_match",
        ),
    ] {
        assert_eq!(refused_action(change), path);
    }
}

#[test]
#[expect(deprecated, reason = "a total that is given has to be right")]
fn weights_that_do_not_work() {
    use pb::weighted_cluster::RandomValueSpecifier;
    for (change, path) in [
        (
            (|it| it.clusters.clear()) as fn(&mut pb::WeightedCluster),
            "clusters",
        ),
        (|it| it.clusters[0].weight = None, "clusters"),
        (
            |it| {
                it.clusters[0].weight = number(u32::MAX);
                it.clusters.push(it.clusters[0].clone());
            },
            "clusters",
        ),
        (|it| it.total_weight = number(100), "total_weight"),
        (
            |it| {
                it.random_value_specifier = Some(RandomValueSpecifier::HeaderName("a b".into()));
            },
            "header_name",
        ),
        (
            |it| it.clusters[0].cluster_header = "x".into(),
            "clusters[0].cluster_header",
        ),
        (|it| it.clusters[0].name.clear(), "clusters[0].name"),
        (
            |it| it.clusters[0].typed_per_filter_config = filter("cors", &CorsPolicy::default()),
            "clusters[0].typed_per_filter_config",
        ),
    ] {
        assert_eq!(refused_weights(change), path);
    }
}

#[test]
fn retries_that_the_model_cannot_express() {
    use pb::retry_policy::{
        RateLimitedRetryBackOff, ResetHeader, RetryBackOff, RetryHostPredicate, RetryPriority,
    };
    for (change, path) in [
        (
            (|it| it.retry_on = "5xx,http3-post-connect-failure".into())
                as fn(&mut pb::RetryPolicy),
            "retry_on",
        ),
        (
            |it| it.retry_options_predicates = vec![extension()],
            "retry_options_predicates",
        ),
        (
            |it| it.rate_limited_retry_back_off = Some(Default::default()),
            "rate_limited_retry_back_off.reset_headers",
        ),
        (
            |it| {
                it.rate_limited_retry_back_off = Some(RateLimitedRetryBackOff {
                    reset_headers: vec![ResetHeader {
                        name: "retry-after".into(),
                        format: 2,
                    }],
                    max_interval: None,
                });
            },
            "rate_limited_retry_back_off.reset_headers[0].format",
        ),
        (
            |it| {
                it.rate_limited_retry_back_off = Some(RateLimitedRetryBackOff {
                    reset_headers: vec![ResetHeader {
                        name: "retry-after".into(),
                        format: 0,
                    }],
                    max_interval: seconds(0),
                });
            },
            "rate_limited_retry_back_off.max_interval",
        ),
        (
            |it| {
                it.retriable_headers = vec![pb::HeaderMatcher {
                    name: ":path".into(),
                    ..Default::default()
                }];
            },
            "retriable_headers[0].name",
        ),
        (
            |it| {
                it.retriable_request_headers = vec![pb::HeaderMatcher {
                    name: ":status".into(),
                    ..Default::default()
                }];
            },
            "retriable_request_headers[0].name",
        ),
        (
            |it| it.refresh_cluster_on_retry = true,
            "refresh_cluster_on_retry",
        ),
        (
            |it| it.host_selection_retry_max_attempts = -1,
            "host_selection_retry_max_attempts",
        ),
        (
            |it| it.retriable_status_codes = vec![503, 70_000],
            "retriable_status_codes[1]",
        ),
        (
            |it| it.retry_back_off = Some(RetryBackOff::default()),
            "retry_back_off.base_interval",
        ),
        (
            |it| {
                it.retry_back_off = Some(RetryBackOff {
                    base_interval: seconds(0),
                    max_interval: None,
                });
            },
            "retry_back_off.base_interval",
        ),
        (
            |it| {
                it.retry_back_off = Some(RetryBackOff {
                    base_interval: seconds(2),
                    max_interval: seconds(1),
                });
            },
            "retry_back_off.max_interval",
        ),
        (
            |it| {
                it.retry_host_predicate = vec![RetryHostPredicate {
                    name: "envoy.retry_host_predicates.others".into(),
                    config_type: None,
                }];
            },
            "retry_host_predicate[0].name",
        ),
        (
            |it| {
                it.retry_priority = Some(RetryPriority {
                    name: "p".into(),
                    config_type: Some(pb::retry_policy::retry_priority::ConfigType::TypedConfig(
                        packed(&CorsPolicy::default()),
                    )),
                });
            },
            "retry_priority.typed_config",
        ),
    ] {
        assert_eq!(refused_retry(change), path);
    }
}

#[test]
fn answers_that_cannot_be_given() {
    use core::data_source::Specifier;
    let redirect =
        |action| refused_route(|proto| *proto = route(pb::route::Action::Redirect(action)));
    let answer =
        |action| refused_route(|proto| *proto = route(pb::route::Action::DirectResponse(action)));
    let body = |specifier| pb::DirectResponseAction {
        status: 200,
        body: Some(core::DataSource {
            watched_directory: None,
            specifier,
        }),
        body_format: None,
    };
    let port = pb::RedirectAction {
        port_redirect: 65_536,
        ..Default::default()
    };
    assert_eq!(redirect(port), "redirect.port_redirect");
    let code = pb::RedirectAction {
        response_code: 5,
        ..Default::default()
    };
    assert_eq!(redirect(code), "redirect.response_code");
    assert_eq!(
        answer(pb::DirectResponseAction::default()),
        "direct_response.status"
    );
    assert_eq!(answer(body(None)), "direct_response.body.specifier");
    let file = Specifier::Filename("/etc/passwd".into());
    assert_eq!(answer(body(Some(file))), "direct_response.body.filename");
    let long = Specifier::InlineBytes(vec![b'a'; 4097]);
    assert_eq!(answer(body(Some(long))), "direct_response.body");
}
