use super::*;
use http::StatusCode;
use mesh_core::Failure;
use mesh_core::model::{
    AddMode, Cluster, HeaderAdd, HeaderTemplate, Mirror as Policy, Piece, Rule,
};
use mesh_test::{Answers, BoxedBody, Probe, chunks, contract, fixture, read, text};
use std::sync::Mutex;
use tower::ServiceExt;

type Tee = TeeBody<BoxedBody>;

#[derive(Clone)]
struct Tokio;

impl Executor for Tokio {
    fn spawn(&self, copy: Task) {
        tokio::spawn(copy);
    }
}

/// Runs nothing: mirrors that are as slow as can be.
#[derive(Clone)]
struct Never(Arc<Mutex<Vec<Task>>>);

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Executor for Never {
    fn spawn(&self, copy: Task) {
        self.0.lock().unwrap().push(copy);
    }
}

fn fixed(shadow: Probe) -> MirrorLayer<Fixed<Probe>, Tokio, Tee> {
    MirrorLayer::fixed(shadow, Fraction::ALL).executor(Tokio)
}

fn per_route() -> MirrorLayer<PerRoute, Tokio, Tee> {
    MirrorLayer::per_route().executor(Tokio)
}

fn request() -> Request<BoxedBody> {
    let request = Request::post("http://reviews:9080/x").header("x-kept", "yes");
    request.body(chunks(["hel", "lo"], None)).unwrap()
}

/// Lets spawned copies run to where they wait.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn mirror(cluster: &str, share: Fraction, shadow_host: bool) -> Policy {
    Policy {
        share,
        shadow_host,
        ..Policy::to(cluster)
    }
}

fn exchange(mirrors: Vec<Policy>) -> Exchange {
    let mut rule = Rule::prefix_to("/", "a");
    rule.mirrors = mirrors;
    let clusters = ["a", "b", "c"].map(Cluster::new).to_vec();
    fixture::matched(&fixture::snapshot(vec![rule], clusters))
}

#[tokio::test]
async fn keeps_the_contract_of_layers() {
    contract::check(per_route()).await;
}

#[tokio::test]
async fn keeps_the_contract_of_layers_while_it_copies() {
    contract::check(fixed(Probe::new())).await;
}

#[tokio::test]
async fn a_fixed_shadow_gets_a_copy_and_the_caller_the_first_answer() {
    let (primary, shadow) = (
        Probe::new(),
        Probe::answering([Answers::With(StatusCode::IM_A_TEAPOT, "")]),
    );
    let service = fixed(shadow.clone()).layer(primary.clone());
    let response = service.oneshot(request()).await.unwrap();
    assert_eq!(response.status(), 200);
    settle().await;
    for probe in [&primary, &shadow] {
        let seen = probe.requests();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].uri(), "http://reviews:9080/x");
        assert_eq!(seen[0].headers()["x-kept"], "yes");
        assert_eq!(seen[0].body(), "hello");
    }
}

#[tokio::test]
async fn a_dead_or_broken_or_slow_shadow_changes_nothing() {
    for answer in [
        Answers::Never,
        Answers::Fails(Failure::NoHealthyHost),
        Answers::FailsForeign("broken"),
    ] {
        let shadow = Probe::answering([answer]);
        let service = fixed(shadow.clone()).layer(Probe::new());
        let response = service.oneshot(request()).await.unwrap();
        assert_eq!(read(response.into_body()).await, "ok");
        settle().await;
        assert_eq!(shadow.calls(), 1);
    }
    let waiting = Never(Arc::default());
    let primary = Probe::new();
    let layer = MirrorLayer::<_, _, Tee>::fixed(Probe::new(), Fraction::ALL)
        .buffer(3)
        .executor(waiting.clone());
    let response = layer
        .layer(primary.clone())
        .oneshot(request())
        .await
        .unwrap();
    assert_eq!(read(response.into_body()).await, "ok");
    assert_eq!(
        primary.requests()[0].body(),
        "hello",
        "though the buffer was too small"
    );
    assert_eq!(waiting.0.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn per_route_each_mirror_of_the_rule_gets_a_copy_with_an_exchange_of_its_own() {
    let exchange = exchange(vec![
        mirror("b", Fraction::ALL, true),
        mirror("c", Fraction::ALL, false),
        mirror("gone", Fraction::ALL, false),
        mirror("b", Fraction::NONE, false),
    ]);
    let probe = Probe::new();
    let service = per_route().layer(probe.clone());
    service
        .oneshot(fixture::with(request(), &exchange))
        .await
        .unwrap();
    settle().await;
    let mut seen: Vec<(String, bool, String)> = probe
        .requests()
        .iter()
        .map(|request| {
            assert_eq!(request.body(), "hello");
            let exchange = Exchange::of(request).unwrap();
            let cluster = exchange.cluster().unwrap().config().name.to_string();
            (cluster, exchange.is_shadow(), request.uri().to_string())
        })
        .collect();
    seen.sort();
    assert_eq!(
        seen,
        [
            ("a".to_owned(), false, "http://reviews:9080/x".to_owned()),
            (
                "b".to_owned(),
                true,
                "http://reviews-shadow:9080/x".to_owned()
            ),
            ("c".to_owned(), true, "http://reviews:9080/x".to_owned()),
        ]
    );
}

#[tokio::test]
async fn copies_tunnels_and_upgrades_are_not_copied() {
    let exchange = exchange(vec![mirror("b", Fraction::ALL, false)]);
    let shadow = exchange.for_shadow(exchange.matched().unwrap().clone());
    let mut upgrade = fixture::with(request(), &exchange);
    let value = HeaderValue::from_static("websocket");
    upgrade.headers_mut().insert("upgrade", value);
    let option = HeaderValue::from_static("upgrade");
    upgrade.headers_mut().insert("connection", option);
    let connect = Request::connect("a:80").body(text("")).unwrap();
    let probe = Probe::new();
    let service = per_route().layer(probe.clone());
    for request in [
        fixture::with(request(), &shadow),
        upgrade,
        fixture::with(connect, &exchange),
        request(),
    ] {
        service.clone().oneshot(request).await.unwrap();
    }
    settle().await;
    assert_eq!(probe.calls(), 4);
}

#[tokio::test]
async fn shares_are_drawn_for_each_mirror_on_its_own() {
    let half = || Fraction::millionths(500_000);
    let exchange = exchange(vec![mirror("b", half(), false), mirror("c", half(), false)]);
    let probe = Probe::new();
    let layer = per_route().rng(Arc::new(Rng::with_seed(3)));
    let service = layer.layer(probe.clone());
    let mut copies = [0; 3];
    for _ in 0..400 {
        let before = probe.calls();
        let request = fixture::with(Request::new(text("")), &exchange);
        service.clone().oneshot(request).await.unwrap();
        settle().await;
        copies[probe.calls() - before - 1] += 1;
    }
    // Drawn together, there would be none or two each time.
    for (copies, expected) in copies.into_iter().zip([100_i32, 200, 100]) {
        assert!((copies - expected).abs() < 40, "{copies} of {expected}");
    }
}

#[test]
fn a_copy_of_a_request_to_an_address_is_named_as_envoy_names_it() {
    let mut request = Request::get("/").header(HOST, "[::1]").body(()).unwrap();
    name_as_shadow(&mut request);
    assert_eq!(request.headers()[HOST], "[::1]-shadow");
}

#[tokio::test]
async fn a_copy_says_that_it_is_our_own_and_who_passed_it_on() {
    // Seen of Envoy 1.40.
    let mut rule = Rule::prefix_to("/", "a");
    rule.mirrors = vec![mirror("b", Fraction::ALL, false)];
    let snapshot = fixture::snapshot(vec![rule], ["a", "b"].map(Cluster::new).to_vec());
    let seen = |caller: mesh_core::Caller, before: &'static [&'static str]| {
        let exchange = Exchange::new(tokio::time::Instant::now().into_std(), caller);
        let matched = mesh_core::Matched::new(mesh_core::Pinned::new(snapshot.clone()), 0, 0, 0);
        exchange.set_matched(matched.to(None, Some(0)));
        async move {
            let mut request = fixture::with(request(), &exchange);
            for line in before {
                let line = HeaderValue::from_static(line);
                request.headers_mut().append(FORWARDED_FOR, line);
            }
            let probe = Probe::new();
            per_route()
                .layer(probe.clone())
                .oneshot(request)
                .await
                .unwrap();
            settle().await;
            let of = |shadow: bool| {
                let all = probe.requests();
                let one = all
                    .iter()
                    .find(|it| Exchange::of(*it).unwrap().is_shadow() == shadow);
                let headers = one.unwrap().headers();
                let text = |name| {
                    let values = headers.get_all(name).iter();
                    let values: Vec<_> = values.map(|it| it.to_str().unwrap()).collect();
                    values.join(" | ")
                };
                [text(ENVOY_INTERNAL), text(FORWARDED_FOR)]
            };
            (of(false), of(true))
        }
    };
    let mut caller = mesh_core::Caller::default();
    caller.local = Some("[::ffff:10.0.0.2]:80".parse().unwrap());
    let (request, copy) = seen(caller.clone(), &["1.1.1.1", "2.2.2.2"]).await;
    assert_eq!(request, ["", "1.1.1.1 | 2.2.2.2"]);
    assert_eq!(copy, ["true", "1.1.1.1,2.2.2.2,10.0.0.2"]);
    let (_, copy) = seen(caller.clone(), &[]).await;
    assert_eq!(copy, ["true", "10.0.0.2"]);
    // Where the connection was on its way elsewhere, that address is not ours.
    caller.original = caller.local;
    let (_, copy) = seen(caller, &["1.1.1.1"]).await;
    assert_eq!(copy, ["true", "1.1.1.1"]);
}

#[tokio::test]
async fn a_request_that_has_no_host_to_go_to_is_not_copied() {
    let mut rule = Rule::prefix_to("/", "a");
    rule.mirrors = vec![mirror("b", Fraction::ALL, false)];
    let mut builder = model::SnapshotBuilder::new();
    let host = model::VirtualHost::new("all", ["*"]).rule(rule);
    builder.routes(model::RouteTable::new("t").host(host));
    builder
        .cluster(Cluster::new("a"))
        .cluster(Cluster::new("b"));
    let exchange = fixture::matched(&builder.build().unwrap().0);
    let probe = Probe::new();
    let service = per_route().layer(probe.clone());
    let request = fixture::with(request(), &exchange);
    service.oneshot(request).await.unwrap();
    settle().await;
    assert_eq!(probe.calls(), 1);
}

#[tokio::test]
async fn a_copy_goes_where_a_header_says_with_changes_one_after_the_other() {
    let edit = |name: &'static str, value: &str, mode| HeaderAdd {
        name: HeaderName::from_static(name),
        value: match value.strip_prefix("of ") {
            Some(name) => {
                let name = HeaderName::try_from(name).unwrap();
                HeaderTemplate::Pieces(vec![Piece::RequestHeader(name)])
            }
            None => HeaderTemplate::Fixed(HeaderValue::from_str(value).unwrap()),
        },
        mode,
        keep_empty: false,
    };
    let mut named = mirror("", Fraction::ALL, true);
    named.cluster_header = Some(HeaderName::from_static("x-copy"));
    named.edits.add = vec![
        edit("x-kept", "more", AddMode::Overwrite),
        edit("x-last", "of x-kept", AddMode::Append),
    ];
    named.edits.remove = vec![HeaderName::from_static("x-kept")];
    named.authority = Some("copy.test".into());
    let exchange = exchange(vec![named]);
    let sent = |to: Option<&'static str>| {
        let mut request = fixture::with(request(), &exchange);
        if let Some(to) = to {
            let value = HeaderValue::from_static(to);
            request.headers_mut().insert("x-copy", value);
        }
        request
    };
    for to in [None, Some(""), Some("missing")] {
        let probe = Probe::new();
        let service = per_route().layer(probe.clone());
        service.oneshot(sent(to)).await.unwrap();
        settle().await;
        assert_eq!(probe.calls(), 1, "{to:?}");
    }
    let probe = Probe::new();
    let service = per_route().layer(probe.clone());
    service.oneshot(sent(Some("b"))).await.unwrap();
    settle().await;
    let seen = probe.requests();
    let (request, copy) = (&seen[0], &seen[1]);
    assert_eq!(request.headers()["x-kept"], "yes");
    // Its own host stays, without `-shadow`.
    assert_eq!(copy.uri(), "http://copy.test/x");
    assert_eq!(copy.headers()["x-last"], "more");
    assert!(!copy.headers().contains_key("x-kept"));
    let exchange = Exchange::of(copy).unwrap();
    assert_eq!(exchange.cluster().unwrap().config().name, "b");
}
