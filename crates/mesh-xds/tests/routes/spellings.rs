//! Spellings that are read and never written, and what is meant by what is left out.

use super::build::{filter, flag, host, number, packed, plain, route, seconds, share, to_cluster};
use http::{HeaderName, HeaderValue, StatusCode};
use mesh_core::model::{
    Action, AddMode, AuthorityRewrite, Fraction, HeaderAdd, HeaderTemplate, PathMatch, Pattern,
    Redirect, RedirectPath, Retry, RetryOn, Rule, StringMatch, Target, ValueMatch, VirtualHost,
};
use mesh_xds::pb::envoy::config::core::v3 as core;
use mesh_xds::pb::envoy::config::route::v3 as pb;
use mesh_xds::pb::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use mesh_xds::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use mesh_xds::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use mesh_xds::pb::envoy::r#type::matcher::v3::RegexMatcher;
use mesh_xds::pb::envoy::r#type::v3::TokenBucket;
use mesh_xds::pb::google::protobuf::{Any, BoolValue};
use mesh_xds::read::route::{table, virtual_host};
use pb::header_matcher::HeaderMatchSpecifier;
use pb::redirect_action::{PathRewriteSpecifier, SchemeRewriteSpecifier};
use pb::route_action::{ClusterSpecifier, HostRewriteSpecifier};
use pb::route_match::PathSpecifier;
use std::sync::Arc;
use std::time::Duration;

fn rule(route: pb::Route) -> Arc<Rule> {
    virtual_host(&host(vec![route])).unwrap().rules.remove(0)
}

fn forwarding(change: impl FnOnce(&mut pb::RouteAction)) -> Arc<Rule> {
    let mut action = to_cluster();
    change(&mut action);
    rule(route(pb::route::Action::Route(action)))
}

#[test]
fn a_route_without_a_timeout_has_fifteen_seconds_and_one_with_zero_has_none() {
    let timeout = |timeout| forwarding(|action| action.timeout = timeout).timeout;
    assert_eq!(timeout(None), Some(Duration::from_secs(15)));
    assert_eq!(timeout(seconds(0)), None);
    assert_eq!(timeout(seconds(3)), Some(Duration::from_secs(3)));
}

#[test]
#[expect(deprecated, reason = "the old spelling is read")]
fn the_old_grpc_limit_counts_only_without_the_new_message() {
    let two = forwarding(|action| action.max_grpc_timeout = seconds(2));
    assert_eq!(two.max_grpc_timeout, Some(Duration::from_secs(2)));
    let none = forwarding(|action| {
        action.max_grpc_timeout = seconds(2);
        action.grpc_timeout_offset = seconds(1);
        action.max_stream_duration = Some(pb::route_action::MaxStreamDuration::default());
    });
    assert_eq!(none.max_grpc_timeout, None);
    assert_eq!(none.grpc_timeout_offset, Duration::ZERO);
    let early = forwarding(|action| action.grpc_timeout_offset = seconds(1));
    assert_eq!(early.grpc_timeout_offset, Duration::from_secs(1));
    let new = forwarding(|action| {
        action.max_stream_duration = Some(pb::route_action::MaxStreamDuration {
            grpc_timeout_header_max: seconds(0),
            grpc_timeout_header_offset: seconds(1),
            ..Default::default()
        });
    });
    assert_eq!(new.max_grpc_timeout, Some(Duration::ZERO));
    assert_eq!(new.max_stream_duration, Some(Duration::ZERO));
    assert_eq!(new.grpc_timeout_offset, Duration::from_secs(1));
}

#[test]
#[expect(deprecated, reason = "the old spellings are read")]
fn the_old_header_matches_mean_what_the_new_ones_say() {
    let regex = RegexMatcher {
        regex: "a+".into(),
        ..Default::default()
    };
    let text = |text: StringMatch| ValueMatch::Text(text);
    for (old, value) in [
        (None, ValueMatch::Present(true)),
        (
            Some(HeaderMatchSpecifier::ExactMatch("a".into())),
            text(StringMatch::Exact("a".into())),
        ),
        (
            Some(HeaderMatchSpecifier::PrefixMatch("a".into())),
            text(StringMatch::Prefix("a".into())),
        ),
        (
            Some(HeaderMatchSpecifier::SuffixMatch("a".into())),
            text(StringMatch::Suffix("a".into())),
        ),
        (
            Some(HeaderMatchSpecifier::ContainsMatch("a".into())),
            text(StringMatch::Contains("a".into())),
        ),
        (
            Some(HeaderMatchSpecifier::SafeRegexMatch(regex)),
            text(StringMatch::Regex(Pattern::new("a+").unwrap())),
        ),
    ] {
        let mut route = plain();
        route.r#match.as_mut().unwrap().headers = vec![pb::HeaderMatcher {
            name: "X-User".into(),
            header_match_specifier: old,
            ..Default::default()
        }];
        assert_eq!(rule(route).condition.headers[0].value, value);
    }
}

#[test]
fn a_query_parameter_without_a_condition_has_to_be_there() {
    let mut route = plain();
    route.r#match.as_mut().unwrap().query_parameters = vec![pb::QueryParameterMatcher {
        name: "q".into(),
        ..Default::default()
    }];
    assert_eq!(
        rule(route).condition.query[0].value,
        ValueMatch::Present(true)
    );
}

#[test]
fn case_is_a_matter_of_prefixes_and_paths_only() {
    let path = |specifier| {
        let mut route = plain();
        let condition = route.r#match.as_mut().unwrap();
        condition.case_sensitive = flag(false);
        condition.path_specifier = Some(specifier);
        rule(route).condition.path.clone()
    };
    let regex = RegexMatcher {
        regex: "/a".into(),
        ..Default::default()
    };
    assert_eq!(
        path(PathSpecifier::Path("/a".into())),
        PathMatch::ExactIgnoreCase("/a".into())
    );
    assert_eq!(
        path(PathSpecifier::SafeRegex(regex)),
        PathMatch::Regex(Pattern::new("/a").unwrap())
    );
}

#[test]
fn domains_are_lower_case_and_keep_their_order() {
    let mut proto = host(Vec::new());
    proto.domains = vec!["B.Example".into(), "a.example".into()];
    assert_eq!(
        virtual_host(&proto).unwrap().domains,
        ["b.example", "a.example"]
    );
}

#[test]
fn retries_may_be_said_in_istiods_words() {
    let retry = |policy| {
        let rule = forwarding(|action| action.retry_policy = Some(policy));
        Retry::clone(rule.retry.as_ref().unwrap())
    };
    assert_eq!(retry(pb::RetryPolicy::default()), Retry::default());
    let holes = retry(pb::RetryPolicy {
        retry_on: ",retriable-status-codes, 5xx".into(),
        num_retries: number(0),
        per_try_timeout: seconds(0),
        ..Default::default()
    });
    assert_eq!(
        holes.on,
        RetryOn::RETRIABLE_STATUS_CODES.with(RetryOn::SERVER_ERROR)
    );
    assert_eq!((holes.attempts, holes.per_try_timeout), (0, None));
    let base = retry(pb::RetryPolicy {
        retry_back_off: Some(pb::retry_policy::RetryBackOff {
            base_interval: seconds(1),
            max_interval: None,
        }),
        retry_host_predicate: vec![pb::retry_policy::RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".into(),
            config_type: None,
        }],
        ..Default::default()
    });
    assert_eq!(base.backoff_max, Duration::from_secs(10));
    assert!(base.avoid_previous_hosts && !base.avoid_canaries);
    let predicate = |name: &str| pb::retry_policy::RetryHostPredicate {
        name: format!("envoy.retry_host_predicates.{name}"),
        config_type: None,
    };
    let by_name = retry(pb::RetryPolicy {
        retry_host_predicate: vec![
            predicate("omit_canary_hosts"),
            predicate("omit_host_metadata"),
        ],
        rate_limited_retry_back_off: Some(pb::retry_policy::RateLimitedRetryBackOff {
            reset_headers: vec![pb::retry_policy::ResetHeader {
                name: "Retry-After".into(),
                format: 0,
            }],
            max_interval: None,
        }),
        ..Default::default()
    });
    assert!(by_name.avoid_canaries && !by_name.avoid_previous_hosts);
    assert_eq!(by_name.avoid_metadata.len(), 1, "and it avoids nobody");
    assert_eq!(by_name.resets[0].name, "retry-after");
    assert_eq!(by_name.reset_max, Duration::from_secs(300));
}

#[test]
fn rewrites_that_are_empty_or_false_change_nothing() {
    let authority = |specifier| {
        let rule = forwarding(|action| action.host_rewrite_specifier = Some(specifier));
        rule.forward().unwrap().authority.clone()
    };
    assert_eq!(
        authority(HostRewriteSpecifier::HostRewriteLiteral(String::new())),
        None
    );
    assert_eq!(
        authority(HostRewriteSpecifier::HostRewriteHeader(String::new())),
        None
    );
    assert_eq!(
        authority(HostRewriteSpecifier::AutoHostRewrite(BoolValue {
            value: false
        })),
        None
    );
    assert_eq!(
        authority(HostRewriteSpecifier::AutoHostRewrite(BoolValue {
            value: true
        })),
        Some(AuthorityRewrite::FromEndpoint.into())
    );
}

#[test]
fn a_redirect_may_be_said_in_several_ways() {
    let redirect = |change: fn(&mut pb::RedirectAction)| {
        let mut action = pb::RedirectAction::default();
        change(&mut action);
        match &rule(route(pb::route::Action::Redirect(action))).action {
            Action::Redirect(redirect) => Redirect::clone(redirect),
            other => panic!("{other:?} is no redirect"),
        }
    };
    assert_eq!(redirect(|_| {}).code, 301);
    let to_https = redirect(|it| {
        it.scheme_rewrite_specifier = Some(SchemeRewriteSpecifier::HttpsRedirect(true));
    });
    assert_eq!(to_https.scheme, Some("https".into()));
    let kept = redirect(|it| {
        it.scheme_rewrite_specifier = Some(SchemeRewriteSpecifier::HttpsRedirect(false));
        it.path_rewrite_specifier = Some(PathRewriteSpecifier::PathRedirect(String::new()));
    });
    assert_eq!((kept.scheme, kept.path), (None, RedirectPath::Keep));
    for (host, name, port) in [
        ("new.example:9000", "new.example", Some(9000)),
        ("new.example", "new.example", None),
        ("[::1]:80", "[::1]", Some(80)),
        ("::1", "::1", None),
        ("[::1]", "[::1]", None),
        ("odd:port", "odd:port", None),
    ] {
        let action = pb::RedirectAction {
            host_redirect: host.into(),
            ..Default::default()
        };
        let rule = rule(route(pb::route::Action::Redirect(action)));
        let Action::Redirect(read) = &rule.action else {
            panic!("a redirect was expected");
        };
        assert_eq!(
            (read.host.as_deref(), read.port),
            (Some(name), port),
            "{host}"
        );
    }
    let both = redirect(|it| {
        it.host_redirect = "a:1".into();
        it.port_redirect = 2;
    });
    assert_eq!(both.port, Some(2), "what stands on its own goes first");
}

#[test]
fn a_destinations_own_host_becomes_an_edit() {
    use pb::weighted_cluster::ClusterWeight;
    use pb::weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral;
    let part = ClusterWeight {
        name: "a".into(),
        weight: number(1),
        host_rewrite_specifier: Some(HostRewriteLiteral("v1.example".into())),
        ..Default::default()
    };
    let rule = forwarding(|action| {
        action.cluster_specifier = Some(ClusterSpecifier::WeightedClusters(pb::WeightedCluster {
            clusters: vec![part],
            ..Default::default()
        }));
    });
    let Target::Weighted(parts) = &rule.forward().unwrap().to else {
        panic!("weighted targets were expected");
    };
    let expected = HeaderAdd {
        name: http::header::HOST,
        value: HeaderTemplate::Fixed(HeaderValue::from_static("v1.example")),
        mode: AddMode::Overwrite,
        keep_empty: false,
    };
    assert_eq!(parts[0].request_edits.add, [expected]);
}

#[test]
#[expect(deprecated, reason = "the old spelling is read")]
fn the_old_append_is_heeded_and_a_raw_value_may_be_any_bytes() {
    let edit = |append: Option<bool>, value: &str, raw: &[u8]| {
        let mut route = plain();
        route.request_headers_to_add = vec![core::HeaderValueOption {
            header: Some(core::HeaderValue {
                key: "X-A".into(),
                value: value.into(),
                raw_value: raw.to_vec(),
            }),
            append: append.map(|value| BoolValue { value }),
            ..Default::default()
        }];
        rule(route).request_edits.add[0].clone()
    };
    assert_eq!(edit(None, "v", b"").mode, AddMode::Append);
    assert_eq!(edit(Some(true), "v", b"").mode, AddMode::Append);
    assert_eq!(edit(Some(false), "v", b"").mode, AddMode::Overwrite);
    let raw = edit(None, "", b"\xff%%");
    assert_eq!(raw.name, HeaderName::from_static("x-a"));
    assert_eq!(
        raw.value,
        HeaderTemplate::Fixed(HeaderValue::from_bytes(b"\xff%").unwrap())
    );
}

#[test]
fn every_request_is_copied_where_no_share_is_given() {
    let copy = pb::route_action::RequestMirrorPolicy {
        cluster: "copy".into(),
        trace_sampled: flag(false),
        ..Default::default()
    };
    let rule = forwarding(|action| action.request_mirror_policies = vec![copy.clone()]);
    assert_eq!(rule.mirrors[0].share, Fraction::ALL);
    assert!(rule.mirrors[0].shadow_host);

    let mut host = host(vec![plain()]);
    host.request_mirror_policies = vec![copy];
    let inherited = virtual_host(&host).unwrap();
    assert_eq!(inherited.rules[0].mirrors, rule.mirrors);
}

#[test]
fn cross_origin_rules_may_stand_in_the_old_place() {
    #[expect(deprecated, reason = "the old spelling is read")]
    fn with(cors: Option<pb::CorsPolicy>) -> VirtualHost {
        let mut host = host(vec![plain()]);
        host.cors = cors;
        virtual_host(&host).unwrap()
    }
    assert_eq!(with(None).cors, None);
    let old = with(Some(pb::CorsPolicy {
        allow_methods: "GET".into(),
        ..Default::default()
    }));
    let cors = old.cors.unwrap();
    assert_eq!(cors.allow_methods, "GET");
    assert_eq!(cors.forward_unmatched_preflights, None, "Envoy's default");
    let off = with(Some(pb::CorsPolicy {
        enabled_specifier: Some(pb::cors_policy::EnabledSpecifier::FilterEnabled(
            share(0).unwrap(),
        )),
        ..Default::default()
    }));
    assert_eq!(off.cors, None);
}

#[test]
fn a_filter_may_be_wrapped_switched_off_or_optional() {
    let wrap = |config: Option<Any>, is_optional, disabled| pb::FilterConfig {
        config,
        is_optional,
        disabled,
    };
    let mut host = host(vec![plain(), plain(), plain()]);
    let fault = packed(&HttpFault::default());
    host.typed_per_filter_config = filter("fault", &wrap(Some(fault), false, false));
    host.routes[0].typed_per_filter_config = filter("fault", &wrap(None, false, true));
    host.routes[1].typed_per_filter_config = filter("jwt_authn", &wrap(None, false, true));
    let unknown = Any {
        type_url: "type.googleapis.com/somebody.Else".into(),
        value: Vec::new(),
    };
    host.routes[2].typed_per_filter_config = filter("else", &wrap(Some(unknown), true, false));
    let rules = virtual_host(&host).unwrap().rules;
    assert_eq!(rules[0].fault, None);
    assert!(rules[1].fault.is_some() && rules[2].fault.is_some());
}

#[test]
fn a_limit_of_a_virtual_host_is_one_bucket_for_its_rules() {
    let limit = |enabled, enforced| LocalRateLimit {
        stat_prefix: "x".into(),
        token_bucket: Some(TokenBucket {
            max_tokens: 10,
            tokens_per_fill: None,
            fill_interval: seconds(1),
        }),
        filter_enabled: enabled,
        filter_enforced: enforced,
        ..Default::default()
    };
    let read = |limit: &LocalRateLimit| {
        let mut host = host(vec![plain(), plain()]);
        host.typed_per_filter_config = filter("local_ratelimit", limit);
        virtual_host(&host).unwrap()
    };
    let host = read(&limit(share(100), share(100)));
    let [one, other] = [0, 1].map(|at| host.rules[at].rate_limit.as_ref().unwrap());
    assert!(Arc::ptr_eq(one, other));
    assert_eq!(one.tokens_per_fill, 1);
    assert_eq!(one.status, StatusCode::TOO_MANY_REQUESTS);
    for (enabled, enforced) in [
        (None, share(100)),
        (share(100), None),
        (share(0), share(100)),
    ] {
        let host = read(&limit(enabled, enforced));
        assert_eq!(host.rules[0].rate_limit, None);
    }
}

#[test]
fn cross_origin_rules_without_a_host_that_has_them_can_be_switched_off() {
    let off = CorsPolicy {
        filter_enabled: share(0),
        ..Default::default()
    };
    let mut route = plain();
    route.typed_per_filter_config = filter("cors", &off);
    assert_eq!(rule(route.clone()).cors, None);
    let mut host = host(vec![route]);
    host.typed_per_filter_config = filter("cors", &CorsPolicy::default());
    let error = virtual_host(&host).unwrap_err();
    assert_eq!(
        error.path(),
        "routes[0].typed_per_filter_config[envoy.filters.http.cors]"
    );
}

#[test]
fn metadata_and_the_like_are_read_over() {
    let mut host = host(vec![plain()]);
    host.metadata = Some(core::Metadata::default());
    host.routes[0].metadata = Some(core::Metadata::default());
    host.routes[0].decorator = Some(pb::Decorator {
        operation: "op".into(),
        propagate: flag(false),
    });
    let proto = pb::RouteConfiguration {
        metadata: Some(core::Metadata::default()),
        virtual_hosts: vec![host],
        ..Default::default()
    };
    let table = table(&proto).unwrap();
    assert_eq!(table.virtual_hosts[0].rules[0].operation, "op");
    assert!(!table.validate_clusters);
}
