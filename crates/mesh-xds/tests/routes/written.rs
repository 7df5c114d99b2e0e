//! What is written, field by field, where reading it back would not show a mistake.

use super::build::number;
use http::{HeaderName, HeaderValue};
use mesh_core::model::{
    Action, AddMode, Condition, Cors, DirectResponse, HeaderAdd, HeaderTemplate, Piece, QueryMatch,
    Redirect, Retry, RetryOn, RouteTable, Rule, StringMatch, ValueMatch, VirtualHost,
};
use mesh_xds::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use mesh_xds::pb::envoy::config::route::v3 as pb;
use mesh_xds::pb::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use mesh_xds::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use mesh_xds::pb::google::protobuf::Duration as WireDuration;
use mesh_xds::{read, write};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;

fn written(rule: Rule) -> pb::Route {
    let host = VirtualHost::new("all", ["*"]).rule(rule);
    write::route::virtual_host(&host).routes.remove(0)
}

fn forwarded(rule: Rule) -> pb::RouteAction {
    match written(rule).action {
        Some(pb::route::Action::Route(action)) => action,
        other => panic!("not a route: {other:?}"),
    }
}

#[test]
fn a_plain_rule_is_written_as_istiod_writes_it() {
    let mut rule = Rule::prefix_to("/", "reviews");
    rule.name = "default".into();
    rule.max_grpc_timeout = Some(Duration::ZERO);
    #[expect(deprecated, reason = "istiod sends max_grpc_timeout")]
    let expected = pb::RouteAction {
        cluster_specifier: Some(pb::route_action::ClusterSpecifier::Cluster(
            "reviews".into(),
        )),
        timeout: Some(WireDuration::default()),
        max_grpc_timeout: Some(WireDuration::default()),
        ..Default::default()
    };
    let expected = pb::Route {
        name: "default".into(),
        r#match: Some(pb::RouteMatch {
            path_specifier: Some(pb::route_match::PathSpecifier::Prefix("/".into())),
            ..Default::default()
        }),
        action: Some(pb::route::Action::Route(expected)),
        ..Default::default()
    };
    assert_eq!(written(rule), expected);
}

#[test]
#[expect(deprecated, reason = "istiod sends max_grpc_timeout")]
fn beside_a_stream_limit_the_grpc_limit_stands_where_envoy_looks_for_it() {
    let mut rule = Rule::prefix_to("/", "a");
    rule.max_grpc_timeout = Some(Duration::from_secs(2));
    rule.max_stream_duration = Some(Duration::ZERO);
    let action = forwarded(rule);
    let limits = action.max_stream_duration.unwrap();
    assert_eq!(action.max_grpc_timeout, None);
    assert_eq!(limits.max_stream_duration, Some(WireDuration::default()));
    assert_eq!(limits.grpc_timeout_header_max.unwrap().seconds, 2);
}

#[test]
fn the_usual_retries_are_written_without_what_is_envoys_default() {
    let mut retry = Retry::default();
    retry.attempts = 2;
    retry.on = RetryOn::CONNECT_FAILURE.with(RetryOn::GRPC_UNAVAILABLE);
    let mut rule = Rule::prefix_to("/", "a");
    rule.retry = Some(Arc::new(retry.clone()));
    let expected = pb::RetryPolicy {
        retry_on: "connect-failure,unavailable".into(),
        num_retries: number(2),
        ..Default::default()
    };
    assert_eq!(forwarded(rule.clone()).retry_policy, Some(expected));

    retry.backoff_base = Duration::from_millis(100);
    retry.backoff_max = Duration::from_secs(1);
    rule.retry = Some(Arc::new(retry));
    let back_off = forwarded(rule)
        .retry_policy
        .unwrap()
        .retry_back_off
        .unwrap();
    assert_eq!(back_off.base_interval.unwrap().nanos, 100_000_000);
    assert_eq!(
        back_off.max_interval, None,
        "ten times the base is the default"
    );
}

#[test]
fn edits_say_what_happens_to_a_header_that_is_there() {
    let mut rule = Rule::prefix_to("/", "a");
    for (name, mode) in [
        ("x-append", AddMode::Append),
        ("x-overwrite", AddMode::Overwrite),
        ("x-absent", AddMode::IfAbsent),
    ] {
        rule.request_edits.add.push(HeaderAdd {
            name: HeaderName::from_static(name),
            value: HeaderTemplate::Pieces(vec![
                Piece::Text("50% ".into()),
                Piece::RequestHeader(HeaderName::from_static("x-user")),
            ]),
            mode,
            keep_empty: false,
        });
    }
    rule.response_edits
        .remove
        .push(HeaderName::from_static("server"));
    let route = written(rule);
    let actions: Vec<_> = route
        .request_headers_to_add
        .iter()
        .map(|it| it.append_action())
        .collect();
    assert_eq!(
        actions,
        [
            HeaderAppendAction::AppendIfExistsOrAdd,
            HeaderAppendAction::OverwriteIfExistsOrAdd,
            HeaderAppendAction::AddIfAbsent,
        ]
    );
    let header = route.request_headers_to_add[0].header.as_ref().unwrap();
    assert_eq!(
        (header.key.as_str(), header.value.as_str()),
        ("x-append", "50%% %REQ(x-user)%")
    );
    assert_eq!(route.response_headers_to_remove, ["server"]);
    assert!(route.request_headers_to_remove.is_empty());
}

#[test]
fn a_host_of_a_destination_is_written_as_its_rewrite() {
    let mut rule = Rule::prefix_to("/", "");
    let mut forward = mesh_core::model::Forward::split([("a", 1), ("b", 2)]);
    let mesh_core::model::Target::Weighted(parts) = &mut forward.to else {
        unreachable!("split makes weighted targets");
    };
    for host in ["first", "second"] {
        parts[0].request_edits.add.push(HeaderAdd {
            name: http::header::HOST,
            value: HeaderTemplate::Fixed(HeaderValue::from_static(host)),
            mode: AddMode::Overwrite,
            keep_empty: false,
        });
    }
    rule.action = Action::Forward(forward);
    let Some(pb::route_action::ClusterSpecifier::WeightedClusters(clusters)) =
        forwarded(rule).cluster_specifier
    else {
        panic!("weighted clusters were expected");
    };
    use pb::weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral;
    let part = &clusters.clusters[0];
    assert_eq!(
        part.host_rewrite_specifier,
        Some(HostRewriteLiteral("second".into()))
    );
    assert!(part.request_headers_to_add.is_empty());
    assert_eq!(clusters.clusters[1].host_rewrite_specifier, None);
}

#[test]
fn every_origin_is_written_as_the_star_that_envoy_knows() {
    let mut cors = Cors::default();
    cors.allow_origins = vec![StringMatch::Prefix(String::new())];
    let mut host = VirtualHost::new("all", ["*"]);
    host.cors = Some(Arc::new(cors));
    let config = write::route::virtual_host(&host).typed_per_filter_config;
    let policy = CorsPolicy::decode(config["envoy.filters.http.cors"].value.as_slice()).unwrap();
    let origin = policy.allow_origin_string_match[0].match_pattern.as_ref();
    assert_eq!(origin, Some(&MatchPattern::Exact("*".into())));
}

#[test]
fn a_table_allows_the_bodies_that_it_has() {
    let size = |length: usize| {
        let mut answer = DirectResponse::default();
        answer.body = vec![b'a'; length].into();
        let rule = Rule::new(Condition::default(), Action::Respond(answer));
        let table = RouteTable::new("t").host(VirtualHost::new("all", ["*"]).rule(rule));
        write::route::table(&table)
            .max_direct_response_body_size_bytes
            .unwrap()
            .value
    };
    assert_eq!(size(0), 1 << 20);
    assert_eq!(size((1 << 20) + 7), (1 << 20) + 7);
}

#[test]
fn what_protobuf_cannot_say_never_makes_a_rule_match_more() {
    let mut rule = Rule::prefix_to("/", "a");
    rule.condition.query.push(QueryMatch {
        name: "n".into(),
        value: ValueMatch::Range(1, 5),
    });
    let host = write::route::virtual_host(&VirtualHost::new("all", ["*"]).rule(rule));
    let read = read::route::virtual_host(&host).unwrap();
    let ValueMatch::Text(text) = &read.rules[0].condition.query[0].value else {
        panic!("text was expected");
    };
    assert!(!text.matches(b"") && !text.matches(b"3"));
}

#[test]
fn values_that_mean_the_same_are_written_the_same() {
    let redirect = |code| {
        let mut redirect = Redirect::default();
        redirect.code = code;
        written(Rule::new(Condition::default(), Action::Redirect(redirect)))
    };
    assert_eq!(redirect(0), redirect(301));
    assert_ne!(redirect(0), redirect(302));
    let timeout = |timeout| {
        let mut rule = Rule::prefix_to("/", "a");
        rule.timeout = timeout;
        written(rule)
    };
    assert_eq!(timeout(None), timeout(Some(Duration::ZERO)));
}
