use super::*;
use http::HeaderName;
use mesh_core::model::{
    Action, AddMode, Cluster, Condition, Forward, HeaderAdd, HeaderTemplate, HttpManager, Piece,
    RouteTable, SnapshotBuilder, VirtualHost,
};
use mesh_core::stats::Block;
use mesh_core::{Publisher, reply};
use mesh_test::{Answers, BoxedBody, Probe, contract, fixture, text};
use tower::ServiceExt;

fn request(uri: &str) -> Request<BoxedBody> {
    Request::get(uri).body(text("")).unwrap()
}

fn layer(rules: Vec<Rule>, clusters: &[&str]) -> RouteLayer {
    let clusters = clusters.iter().map(|name| Cluster::new(*name)).collect();
    let publisher = Publisher::from_arc(fixture::snapshot(rules, clusters));
    RouteLayer::new(publisher.feed()).table("t")
}

/// The clusters that the probe's requests were sent to.
fn clusters(probe: &Probe) -> Vec<String> {
    let name = |request: &Request<bytes::Bytes>| {
        let matched = Exchange::of(request).and_then(Exchange::matched).unwrap();
        matched.cluster_name().unwrap().to_string()
    };
    probe.requests().iter().map(name).collect()
}

#[tokio::test]
async fn keeps_the_contract_of_layers() {
    contract::check(layer(vec![Rule::prefix_to("/", "a")], &["a"])).await;
}

#[tokio::test]
async fn a_request_meets_its_rule_and_its_cluster() {
    let rules = vec![Rule::prefix_to("/v2", "b"), Rule::prefix_to("/", "a")];
    let probe = Probe::new();
    let service = layer(rules, &["a", "b"]).layer(probe.clone());
    for path in ["/v2/x", "/x"] {
        service.clone().oneshot(request(path)).await.unwrap();
    }
    assert_eq!(clusters(&probe), ["b", "a"]);
    let exchange = Exchange::of(&probe.requests()[0]).cloned().unwrap();
    assert_eq!(exchange.cluster().unwrap().config().name, "b");
}

#[tokio::test]
async fn a_request_without_a_rule_host_or_table_has_no_route() {
    let layer = layer(vec![Rule::prefix_to("/a", "a")], &["a"]);
    for layer in [layer.clone(), layer.table("other")] {
        let error = layer.layer(Probe::new()).oneshot(request("/b")).await;
        assert_eq!(error.unwrap_err().failure(), Failure::NoRoute);
    }
}

#[tokio::test]
async fn the_table_of_the_listener_comes_before_that_of_the_layer_and_no_route_is_counted() {
    let layer = layer(vec![Rule::prefix_to("/", "a")], &["a"]).table("missing");
    let stats = Arc::new(Block::default());
    let exchange = |table: &str| {
        let mut caller = Caller::default();
        caller.stats = Some(stats.clone());
        caller.manager = Some(Arc::new(HttpManager::new("in", table)));
        Exchange::new(tokio::time::Instant::now().into_std(), caller)
    };
    let service = layer.layer(Probe::new());
    let good = fixture::with(request("/"), &exchange("t"));
    assert!(service.clone().oneshot(good).await.is_ok());
    assert_eq!(stats.get(HttpStat::NoRoute), 0);
    let bad = fixture::with(request("/"), &exchange("u"));
    assert!(service.oneshot(bad).await.is_err());
    assert_eq!(stats.get(HttpStat::NoRoute), 1);
}

#[tokio::test]
async fn an_unknown_cluster_is_left_to_the_layers_below() {
    let probe = Probe::new();
    let service = layer(vec![Rule::prefix_to("/", "gone")], &[]).layer(probe.clone());
    service.oneshot(request("/")).await.unwrap();
    assert_eq!(clusters(&probe), ["gone"]);
}

#[tokio::test]
async fn a_split_is_drawn_by_weight_and_apart_from_shares() {
    let mut rule = Rule::new(
        Condition::default(),
        // Drawn from the same word, a request of the share's half would be in the half of "a" too.
        Action::Forward(Forward::split([("a", 500_000), ("b", 500_000)])),
    );
    rule.condition.share = Some(mesh_core::model::Fraction::millionths(500_000));
    let rules = vec![rule, Rule::prefix_to("/", "rest")];
    let probe = Probe::new();
    let layer = layer(rules, &["a", "b", "rest"]).rng(Arc::new(Rng::with_seed(1)));
    let service = layer.layer(probe.clone());
    for _ in 0..2_000 {
        service.clone().oneshot(request("/")).await.unwrap();
    }
    let drawn = clusters(&probe);
    let count = |name: &str| drawn.iter().filter(|drawn| *drawn == name).count();
    assert!((450..550).contains(&count("a")), "{}", count("a"));
    assert!((450..550).contains(&count("b")), "{}", count("b"));
    assert!((950..1_050).contains(&count("rest")), "{}", count("rest"));
}

#[tokio::test]
async fn a_cluster_may_be_named_by_the_first_value_of_a_header() {
    let mut forward = Forward::default();
    forward.to = Target::Header(HeaderName::from_static("x-cluster"));
    let rule = Rule::new(Condition::default(), Action::Forward(forward));
    let probe = Probe::new();
    let service = layer(vec![rule], &["a", "b"]).layer(probe.clone());
    let mut named = request("/");
    for name in ["b", "a"] {
        let value = HeaderValue::from_static(name);
        named.headers_mut().append("x-cluster", value);
    }
    service.clone().oneshot(named).await.unwrap();
    service.oneshot(request("/")).await.unwrap();
    let requests = probe.requests();
    let cluster = |at: usize| Exchange::of(&requests[at]).unwrap().cluster().cloned();
    assert_eq!(cluster(0).unwrap().config().name, "b");
    assert!(cluster(1).is_none());
}

#[tokio::test]
async fn clones_made_per_request_follow_a_change_at_once_and_share_the_pin() {
    let table = |to: &str| {
        RouteTable::new("t").host(VirtualHost::new("all", ["*"]).rule(Rule::prefix_to("/", to)))
    };
    let mut builder = SnapshotBuilder::new();
    builder.routes(table("old"));
    let (first, _) = builder.build().unwrap();
    let publisher = Publisher::from_arc(first.clone());
    let probe = Probe::new();
    let service = RouteLayer::new(publisher.feed())
        .table("t")
        .layer(probe.clone());
    let early = service.clone();
    service.clone().oneshot(request("/")).await.unwrap();
    service.clone().oneshot(request("/")).await.unwrap();
    let mut builder = SnapshotBuilder::from(&first);
    builder.routes(table("new"));
    publisher.publish(builder.build().unwrap().0);
    early.oneshot(request("/")).await.unwrap();
    service.oneshot(request("/")).await.unwrap();
    assert_eq!(clusters(&probe), ["old", "old", "new", "new"]);
    let requests = probe.requests();
    let pinned = |at: usize| {
        let exchange = Exchange::of(&requests[at]).unwrap();
        std::ptr::from_ref(exchange.matched().unwrap().snapshot().snapshot())
    };
    assert_eq!(pinned(0), pinned(1), "one pin for one snapshot");
    assert_eq!(
        pinned(2),
        pinned(3),
        "refreshed once, by the first clone that saw the change"
    );
    assert_ne!(pinned(0), pinned(2));
}

#[tokio::test]
async fn a_host_that_requires_tls_redirects_plain_callers_only() {
    let mut host = VirtualHost::new("secure", ["*"]).rule(Rule::prefix_to("/", "a"));
    host.require_tls = true;
    let mut builder = SnapshotBuilder::new();
    builder.routes(RouteTable::new("t").host(host));
    let publisher = Publisher::from_arc(builder.build().unwrap().0);
    let service = RouteLayer::new(publisher.feed())
        .table("t")
        .layer(Probe::new());
    let plain = service.clone().oneshot(request("http://a.example:80/x?y"));
    let error = plain.await.unwrap_err();
    assert_eq!(error.failure(), Failure::Redirect);
    let answer = reply::answer(error, reply::Asked::default());
    assert_eq!(answer.status, 301);
    assert_eq!(answer.headers[LOCATION], "https://a.example:80/x?y");

    let mut caller = Caller::default();
    let mut info = mesh_core::exchange::TlsInfo::default();
    info.version = Some(mesh_core::model::TlsVersion::V1_3);
    caller.tls = Some(Arc::new(info));
    let exchange = Exchange::new(tokio::time::Instant::now().into_std(), caller);
    let secure = fixture::with(request("http://a.example/x"), &exchange);
    assert!(service.oneshot(secure).await.is_ok());
}

#[tokio::test]
async fn of_two_routers_the_outer_decides() {
    let probe = Probe::new();
    let inner = layer(vec![Rule::prefix_to("/", "inner")], &[]).layer(probe.clone());
    let outer = layer(vec![Rule::prefix_to("/", "outer")], &[]).layer(inner);
    outer.oneshot(request("/")).await.unwrap();
    assert_eq!(clusters(&probe), ["outer"]);
}

fn edited() -> Rule {
    let mut rule = Rule::prefix_to("/", "a");
    rule.response_edits.add.push(HeaderAdd {
        name: HeaderName::from_static("x-seen"),
        value: HeaderTemplate::Pieces(vec![
            Piece::RequestHeader(HeaderName::from_static("x-id")),
            Piece::Text("/".into()),
            Piece::ResponseFlags,
        ]),
        mode: AddMode::Append,
        keep_empty: false,
    });
    rule
}

#[tokio::test]
async fn edits_reach_a_local_reply_whoever_made_the_exchange() {
    for with_exchange in [false, true] {
        let probe = Probe::answering([Answers::Fails(Failure::NoHealthyHost)]);
        let service = crate::ReplyLayer::new().layer(layer(vec![edited()], &["a"]).layer(probe));
        let mut request = request("/");
        request
            .headers_mut()
            .insert("x-id", HeaderValue::from_static("42: 1"));
        if with_exchange {
            let now = tokio::time::Instant::now().into_std();
            Exchange::new(now, Caller::default()).attach(&mut request);
        }
        let response = service.oneshot(request).await.unwrap();
        let seen: Vec<_> = response.headers().get_all("x-seen").iter().collect();
        assert_eq!(seen, ["42: 1/UH"], "with an exchange: {with_exchange}");
        let names = response.headers().keys().map(HeaderName::as_str);
        assert!(!names.into_iter().any(|name| name.contains("kept")));
        assert_eq!(response.status(), 503);
    }
}

#[tokio::test]
async fn an_error_without_anything_to_add_keeps_its_cause() {
    let probe = Probe::answering([Answers::FailsForeign("the cause")]);
    let service = layer(vec![Rule::prefix_to("/", "a")], &["a"]).layer(probe);
    let error = service.oneshot(request("/")).await.unwrap_err();
    assert_eq!(error.cause().as_deref(), Some("the cause"));
}
