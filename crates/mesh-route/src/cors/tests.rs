//! The expectations were read off a running Envoy 1.40.

use super::*;
use http::{HeaderMap, Method};
use mesh_core::model::{Action, Cluster, DirectResponse, Rule, StringMatch};
use mesh_core::stats::Block;
use mesh_core::{Caller, Matched, Pinned};
use mesh_test::{Answers, BoxedBody, Probe, contract, fixture, text};
use tower::ServiceExt;

fn policy() -> Policy {
    let mut policy = Policy::default();
    policy.allow_origins = vec![StringMatch::Exact("http://ok".into())];
    policy.allow_methods = "GET,POST".into();
    policy.allow_headers = "*".into();
    policy.expose_headers = "x-e".into();
    policy.max_age = "60".into();
    policy.allow_credentials = Some(true);
    policy.forward_unmatched_preflights = Some(true);
    policy
}

fn request(method: Method, headers: &[(&'static str, &'static str)]) -> Request<BoxedBody> {
    let mut request = Request::new(text(""));
    *request.method_mut() = method;
    for (name, value) in headers {
        let value = HeaderValue::from_static(value);
        request.headers_mut().append(*name, value);
    }
    request
}

fn preflight(origin: &'static str) -> Request<BoxedBody> {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "x-1"),
    ];
    request(Method::OPTIONS, &headers)
}

fn shown(headers: &HeaderMap) -> Vec<String> {
    let line = |(name, value): (&HeaderName, &HeaderValue)| {
        let name = name.as_str().strip_prefix("access-control-")?;
        Some(format!("{name}={}", value.to_str().unwrap()))
    };
    let mut lines: Vec<String> = headers.iter().filter_map(line).collect();
    lines.sort();
    lines
}

/// The CORS headers of the response, and whether the request went on.
async fn through(policy: Policy, request: Request<BoxedBody>) -> (Vec<String>, bool) {
    let mut edited = HeaderMap::new();
    let name = http::header::ACCESS_CONTROL_ALLOW_ORIGIN;
    edited.insert(name, HeaderValue::from_static("upstream"));
    let probe = Probe::answering([Answers::WithHeaders(http::StatusCode::OK, edited, "")]);
    let service = crate::ReplyLayer::new().layer(CorsLayer::fixed(policy).layer(probe.clone()));
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    (shown(response.headers()), probe.calls() == 1)
}

#[tokio::test]
async fn keeps_the_contract_of_layers() {
    contract::check(CorsLayer::per_route()).await;
    contract::check(CorsLayer::fixed(policy())).await;
}

#[tokio::test]
async fn a_request_from_a_known_origin_gets_its_headers_in_place_of_the_upstreams() {
    let (headers, went_on) =
        through(policy(), request(Method::GET, &[("origin", "http://ok")])).await;
    assert_eq!(
        headers,
        [
            "allow-credentials=true",
            "allow-origin=http://ok",
            "expose-headers=x-e"
        ]
    );
    assert!(went_on);
}

#[tokio::test]
async fn a_request_without_origin_or_from_an_unknown_one_is_left_alone() {
    for origin in ["http://bad", ""] {
        let (headers, went_on) =
            through(policy(), request(Method::GET, &[("origin", origin)])).await;
        assert_eq!(
            (headers, went_on),
            (vec!["allow-origin=upstream".to_owned()], true)
        );
    }
    let repeated = [("origin", "http://ok"), ("origin", "http://ok")];
    let (headers, _) = through(policy(), request(Method::GET, &repeated)).await;
    assert_eq!(
        headers,
        ["allow-origin=upstream"],
        "two origins are none that is known"
    );
}

#[tokio::test]
async fn a_preflight_from_a_known_origin_is_answered() {
    let (headers, went_on) = through(policy(), preflight("http://ok")).await;
    assert_eq!(
        headers,
        [
            "allow-credentials=true",
            "allow-headers=x-1",
            "allow-methods=GET,POST",
            "allow-origin=http://ok",
            "expose-headers=x-e",
            "max-age=60"
        ]
    );
    assert!(!went_on);
}

#[tokio::test]
async fn a_preflight_from_an_unknown_origin_goes_on_or_is_answered_without_the_origin() {
    let (headers, went_on) = through(policy(), preflight("http://bad")).await;
    assert_eq!(
        (headers, went_on),
        (vec!["allow-origin=upstream".to_owned()], true)
    );
    let mut answering = policy();
    answering.forward_unmatched_preflights = Some(false);
    let (headers, went_on) = through(answering, preflight("http://bad")).await;
    assert_eq!(
        headers,
        [
            "allow-credentials=true",
            "allow-headers=x-1",
            "allow-methods=GET,POST",
            "max-age=60"
        ]
    );
    assert!(!went_on);
}

#[tokio::test]
async fn an_options_request_without_a_requested_method_is_no_preflight() {
    for method in [None, Some("")] {
        let mut headers = vec![("origin", "http://ok")];
        headers.extend(method.map(|method| ("access-control-request-method", method)));
        let (headers, went_on) = through(policy(), request(Method::OPTIONS, &headers)).await;
        assert!(went_on);
        assert!(headers.contains(&"allow-origin=http://ok".to_owned()));
    }
}

#[tokio::test]
async fn stars_echo_what_the_request_asks_for() {
    let mut star = Policy::default();
    star.allow_origins = vec![StringMatch::Exact("*".into())];
    star.allow_methods = "*".into();
    star.allow_headers = "*".into();
    let (headers, _) = through(star.clone(), preflight("http://any")).await;
    assert_eq!(
        headers,
        [
            "allow-headers=x-1",
            "allow-methods=PUT",
            "allow-origin=http://any"
        ]
    );
    let bare = [
        ("origin", "http://any"),
        ("access-control-request-method", "PUT"),
    ];
    let (headers, _) = through(star, request(Method::OPTIONS, &bare)).await;
    assert_eq!(
        headers,
        [
            "allow-headers=",
            "allow-methods=PUT",
            "allow-origin=http://any"
        ]
    );
}

fn exchange(rule: Rule) -> (Exchange, Arc<Block<HttpStat>>) {
    let stats = Arc::new(Block::default());
    let mut caller = Caller::default();
    caller.stats = Some(stats.clone());
    let exchange = Exchange::new(tokio::time::Instant::now().into_std(), caller);
    let snapshot = fixture::snapshot(vec![rule], vec![Cluster::new("a")]);
    let matched = Matched::new(Pinned::new(snapshot), 0, 0, 0).to(None, Some(0));
    exchange.set_matched(matched);
    (exchange, stats)
}

#[tokio::test]
async fn per_route_a_local_reply_carries_the_headers_and_origins_are_counted() {
    let mut rule = Rule::prefix_to("/", "a");
    rule.cors = Some(Arc::new(policy()));
    let (exchange, stats) = exchange(rule);
    let probe = Probe::answering([Answers::Fails(Failure::NoCluster)]);
    let service = crate::ReplyLayer::new().layer(CorsLayer::per_route().layer(probe));
    let request_from =
        |origin| fixture::with(request(Method::GET, &[("origin", origin)]), &exchange);
    let response = service
        .clone()
        .oneshot(request_from("http://ok"))
        .await
        .unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(
        shown(response.headers()),
        [
            "allow-credentials=true",
            "allow-origin=http://ok",
            "expose-headers=x-e"
        ]
    );
    service.oneshot(request_from("http://bad")).await.unwrap();
    assert_eq!(stats.get(HttpStat::CorsValid), 1);
    assert_eq!(stats.get(HttpStat::CorsInvalid), 1);
}

#[tokio::test]
async fn a_rule_that_answers_by_itself_has_no_cors() {
    let action = Action::Respond(DirectResponse::default());
    let mut rule = Rule::new(Default::default(), action);
    rule.cors = Some(Arc::new(policy()));
    let (exchange, stats) = exchange(rule);
    let request = fixture::with(preflight("http://ok"), &exchange);
    let probe = Probe::new();
    let service = CorsLayer::per_route().layer(probe.clone());
    service.oneshot(request).await.unwrap();
    assert_eq!(probe.calls(), 1);
    assert!(stats.is_untouched());
}

#[tokio::test]
async fn what_a_rule_leaves_empty_is_as_its_virtual_host_has_it() {
    let mut host = policy();
    host.forward_unmatched_preflights = Some(false);
    let through = |rule: Policy, request: Request<BoxedBody>| {
        let mut builder = mesh_core::model::SnapshotBuilder::new();
        let mut route = Rule::prefix_to("/", "a");
        route.cors = Some(Arc::new(rule));
        let mut all = mesh_core::model::VirtualHost::new("all", ["*"]).rule(route);
        all.cors = Some(Arc::new(host.clone()));
        builder.routes(mesh_core::model::RouteTable::new("t").host(all));
        builder.cluster(Cluster::new("a"));
        let exchange = fixture::matched(&builder.build().unwrap().0);
        async move {
            let service = CorsLayer::per_route().layer(Probe::new());
            let service = crate::ReplyLayer::new().layer(service);
            let request = fixture::with(request, &exchange);
            shown(service.oneshot(request).await.unwrap().headers())
        }
    };
    let mut rule = Policy::default();
    rule.max_age = "5".into();
    let headers = through(rule.clone(), preflight("http://ok")).await;
    let of_both = [
        "allow-credentials=true",
        "allow-headers=x-1",
        "allow-methods=GET,POST",
        "allow-origin=http://ok",
        "expose-headers=x-e",
        "max-age=5",
    ];
    assert_eq!(headers, of_both);

    rule.allow_origins = vec![StringMatch::Exact("http://other".into())];
    rule.allow_credentials = Some(false);
    let headers = through(rule.clone(), preflight("http://ok")).await;
    let answered = ["allow-headers=x-1", "allow-methods=GET,POST", "max-age=5"];
    assert_eq!(headers, answered);
    rule.forward_unmatched_preflights = Some(true);
    let headers = through(rule, preflight("http://ok")).await;
    assert!(headers.is_empty(), "it went on: {headers:?}");
}
