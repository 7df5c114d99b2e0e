use super::*;
use crate::{ClusterHosts, Host};
use bytes::Bytes;
use http::StatusCode;
use mesh_core::model::{
    Action, AuthorityRewrite, Balancing, Cluster, ClusterEntry, Condition, DiscoveryKind,
    EndpointSet, Forward, Outlier, Retry, Rule, Snapshot,
};
use mesh_core::stats::ClusterStat;
use mesh_test::{Answers, BoxedBody, Probe, chunks, contract, empty, fixture, read};
use std::convert::Infallible;
use std::time::Duration;
use tower::ServiceExt;

/// Puts an exchange for one cluster on every request.
#[derive(Clone)]
struct Routed<S> {
    inner: S,
    snapshot: Arc<Snapshot>,
}

impl<S: Service<Request<BoxedBody>>> Service<Request<BoxedBody>> for Routed<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<BoxedBody>) -> S::Future {
        self.inner
            .call(fixture::with(request, &fixture::matched(&self.snapshot)))
    }
}

/// One probe for all hosts.
fn to(probe: &Probe) -> impl MakeEndpoint<Service = Probe> + use<> {
    let probe = probe.clone();
    move |_: &Arc<Host>, _: &Arc<ClusterEntry>| probe.clone()
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::new("c");
    cluster.balancing = Balancing::RoundRobin;
    cluster
}

fn ejecting() -> Cluster {
    let mut cluster = cluster();
    let mut outlier = Outlier::default();
    outlier.consecutive_5xx = 1;
    outlier.max_ejection_percent = 100;
    cluster.outlier = Some(outlier);
    cluster
}

fn snapshot(cluster: Cluster) -> Arc<Snapshot> {
    fixture::snapshot(vec![Rule::prefix_to("/", "c")], vec![cluster])
}

fn request(snapshot: &Arc<Snapshot>) -> Request<BoxedBody> {
    fixture::with(Request::new(empty()), &fixture::matched(snapshot))
}

fn stat(snapshot: &Snapshot, stat: ClusterStat) -> u64 {
    snapshot.clusters()[0].live().stats().block().get(stat)
}

fn is_ejected(snapshot: &Snapshot) -> bool {
    ClusterHosts::of(&snapshot.clusters()[0]).view()[0].ejected
}

#[tokio::test]
async fn keeps_the_contract_for_a_request_with_a_cluster() {
    contract::check(tower_layer::layer_fn(|probe: Probe| Routed {
        inner: Dispatch::new(to(&probe)),
        snapshot: snapshot(cluster()),
    }))
    .await;
}

#[tokio::test]
async fn a_request_without_a_cluster_is_refused() {
    let probe = Probe::new();
    let dispatch = Dispatch::new(to(&probe));
    let error = dispatch
        .clone()
        .oneshot(Request::new(empty()))
        .await
        .unwrap_err();
    assert_eq!(error.failure(), Failure::NoCluster);
    let unknown = fixture::snapshot(vec![Rule::prefix_to("/", "gone")], vec![]);
    let error = dispatch.oneshot(request(&unknown)).await.unwrap_err();
    assert_eq!(error.failure(), Failure::NoCluster);
    assert_eq!(probe.calls(), 0);
}

#[tokio::test]
async fn a_request_is_active_until_its_body_has_ended() {
    let snapshot = snapshot(cluster());
    let dispatch = Dispatch::new(|_: &Arc<Host>, _: &Arc<ClusterEntry>| {
        tower::service_fn(|_: Request<BoxedBody>| async {
            Ok::<_, Infallible>(Response::new(chunks(["a", "b"], None)))
        })
    });
    let exchange = fixture::matched(&snapshot);
    let request = fixture::with(Request::new(empty()), &exchange);
    let response = dispatch.oneshot(request).await.unwrap();
    let host = &ClusterHosts::of(&snapshot.clusters()[0]).view()[0];
    assert_eq!(
        (host.active, host.counts.rq_total, host.counts.rq_success),
        (1, 1, 1)
    );
    assert_eq!(stat(&snapshot, ClusterStat::RqActive), 1);
    assert!(exchange.was_tried(host.id));
    let tried = exchange.with_notes(|n| n.upstream.as_ref().map(|u| u.endpoint.address.clone()));
    assert_eq!(tried, Some(fixture::address("127.0.0.1:9080")));

    assert_eq!(read(response.into_body()).await, "ab");
    let host = &ClusterHosts::of(&snapshot.clusters()[0]).view()[0];
    assert_eq!(host.active, 0);
    assert_eq!(stat(&snapshot, ClusterStat::RqActive), 0);
    assert_eq!(stat(&snapshot, ClusterStat::RqTotal), 1);
    assert_eq!(stat(&snapshot, ClusterStat::RqCompleted), 1);
    assert_eq!(stat(&snapshot, ClusterStat::Rq2xx), 1);
}

#[tokio::test(start_paused = true)]
async fn the_time_to_the_response_head_is_recorded_in_milliseconds() {
    let snapshot = snapshot(cluster());
    let probe = Probe::answering([Answers::After(Duration::from_millis(40), StatusCode::OK)]);
    Dispatch::new(to(&probe))
        .oneshot(request(&snapshot))
        .await
        .unwrap();
    let times = snapshot.clusters()[0]
        .live()
        .stats()
        .request_time()
        .summary();
    assert_eq!((times.count, times.sum), (1, 40.0));
}

#[tokio::test]
async fn answers_and_failures_are_counted_by_the_status_they_end_with() {
    let snapshot = snapshot(cluster());
    let probe = Probe::answering([
        Answers::With(StatusCode::FOUND, ""),
        Answers::With(StatusCode::NOT_FOUND, ""),
        Answers::With(StatusCode::BAD_GATEWAY, ""),
        Answers::Fails(Failure::ConnectFailed),
        Answers::Fails(Failure::Overflow),
    ]);
    let dispatch = Dispatch::new(to(&probe));
    for _ in 0..5 {
        let _ = dispatch.clone().oneshot(request(&snapshot)).await;
    }
    let counted = [
        ClusterStat::Rq2xx,
        ClusterStat::Rq3xx,
        ClusterStat::Rq4xx,
        ClusterStat::Rq5xx,
        ClusterStat::RqCompleted,
        ClusterStat::RqTotal,
    ]
    .map(|which| stat(&snapshot, which));
    assert_eq!(counted, [0, 1, 1, 3, 5, 5]);
    let counts = ClusterHosts::of(&snapshot.clusters()[0]).view()[0].counts;
    assert_eq!(
        (counts.rq_success, counts.rq_error),
        (2, 2),
        "an overflow is not its fault"
    );
}

/// Sends a request that is never answered, and drops it once it is at the host.
fn give_up(snapshot: &Arc<Snapshot>, note: impl FnOnce(&Exchange)) {
    let probe = Probe::answering([Answers::Never]);
    let exchange = fixture::matched(snapshot);
    let request = fixture::with(Request::new(empty()), &exchange);
    let mut waiting = Box::pin(Dispatch::new(to(&probe)).oneshot(request));
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(Future::poll(waiting.as_mut(), &mut cx).is_pending());
    note(&exchange);
    drop(waiting);
    assert_eq!(probe.dropped(), 1);
}

#[tokio::test]
async fn a_request_that_nobody_wants_any_more_is_cancelled_and_nobodys_fault() {
    let snapshot = snapshot(ejecting());
    give_up(&snapshot, |_| {});
    assert_eq!(stat(&snapshot, ClusterStat::RqCancelled), 1);
    assert_eq!(stat(&snapshot, ClusterStat::RqCompleted), 0);
    assert_eq!(stat(&snapshot, ClusterStat::RqActive), 0);
    assert!(!is_ejected(&snapshot));
}

#[tokio::test]
async fn a_request_dropped_by_a_timeout_counts_against_the_host() {
    let of_the_request: fn(&Exchange) = Exchange::set_timed_out;
    let of_the_attempt: fn(&Exchange) =
        |exchange| exchange.with_notes_mut(|notes| notes.failure = Some(Failure::TryTimeout));
    for limit in [of_the_request, of_the_attempt] {
        let snapshot = snapshot(ejecting());
        give_up(&snapshot, limit);
        assert_eq!(stat(&snapshot, ClusterStat::RqCancelled), 0);
        assert_eq!(stat(&snapshot, ClusterStat::Rq5xx), 1);
        assert!(is_ejected(&snapshot));
        let counts = ClusterHosts::of(&snapshot.clusters()[0]).view()[0].counts;
        assert_eq!(counts.rq_timeout, 1);
    }
}

#[tokio::test]
async fn outlier_detection_hears_of_answers_and_of_failures_that_are_the_hosts() {
    let mut unavailable = http::HeaderMap::new();
    unavailable.insert("grpc-status", "14".parse().unwrap());
    let rows = [
        (Answers::With(StatusCode::OK, ""), false),
        (Answers::With(StatusCode::NOT_FOUND, ""), false),
        (Answers::With(StatusCode::SERVICE_UNAVAILABLE, ""), true),
        (Answers::WithHeaders(StatusCode::OK, unavailable, ""), true),
        (Answers::Fails(Failure::ConnectFailed), true),
        (Answers::Fails(Failure::RemoteReset), true),
        (Answers::Fails(Failure::Overflow), false),
    ];
    for (answer, ejected) in rows {
        let snapshot = snapshot(ejecting());
        let probe = Probe::answering([answer.clone()]);
        let mut request = request(&snapshot);
        request
            .headers_mut()
            .insert("content-type", "application/grpc".parse().unwrap());
        let _ = Dispatch::new(to(&probe)).oneshot(request).await;
        assert_eq!(is_ejected(&snapshot), ejected, "{answer:?}");
    }
}

/// A snapshot whose cluster has hosts at these ports.
fn with_ports(cluster: Cluster, rule: Rule, ports: &[u16]) -> Arc<Snapshot> {
    let snapshot = fixture::snapshot(vec![rule], vec![cluster]);
    let addresses = ports
        .iter()
        .map(|port| fixture::address(&format!("10.0.0.1:{port}")));
    let endpoints = Arc::new(EndpointSet::of(addresses));
    snapshot.clusters()[0].live().publish_endpoints(endpoints);
    snapshot
}

/// Answers with the address of the host.
fn named() -> impl MakeEndpoint<
    Service: Service<
        Request<BoxedBody>,
        Response = Response<http_body_util::Full<Bytes>>,
        Error = Infallible,
        Future: Send,
    >,
> {
    |host: &Arc<Host>, _: &Arc<ClusterEntry>| {
        let address = host.address().to_string();
        tower::service_fn(move |_: Request<BoxedBody>| {
            let body = http_body_util::Full::from(address.clone());
            std::future::ready(Ok(Response::new(body)))
        })
    }
}

#[tokio::test]
async fn a_retry_goes_to_another_host_when_its_policy_says_so() {
    for (avoid, expected) in [(true, 0), (false, 1)] {
        let mut retry = Retry::default();
        retry.avoid_previous_hosts = avoid;
        retry.host_attempts = 5;
        let mut rule = Rule::prefix_to("/", "c");
        rule.retry = Some(Arc::new(retry));
        let mut random = Cluster::new("c");
        random.balancing = Balancing::Random;
        let snapshot = with_ports(random, rule, &[1, 2]);
        let dispatch = Dispatch::new(named()).rng(Arc::new(Rng::with_seed(1)));
        let mut same = 0;
        for _ in 0..100 {
            let exchange = fixture::matched(&snapshot);
            let mut seen = Vec::new();
            for attempt in [exchange.clone(), exchange.for_attempt()] {
                let request = fixture::with(Request::new(empty()), &attempt);
                let response = dispatch.clone().oneshot(request).await.unwrap();
                seen.push(read(response.into_body()).await);
            }
            same += usize::from(seen[0] == seen[1]);
        }
        // Six draws of two all hit the same one time in 64.
        if expected == 0 {
            assert!(same < 10, "{same} of 100");
        } else {
            assert!((30..70).contains(&same), "{same} of 100");
        }
    }
}

#[tokio::test]
async fn every_second_retry_goes_to_another_priority_when_its_policy_says_so() {
    for (other, expected) in [(true, "11223"), (false, "11111")] {
        let mut retry = Retry::default();
        retry.other_priorities = other;
        let mut rule = Rule::prefix_to("/", "c");
        rule.retry = Some(Arc::new(retry));
        let snapshot = with_ports(cluster(), rule, &[]);
        // Three priorities, the port of each host one more than its own.
        let mut endpoints = EndpointSet::default();
        for port in 1..=3 {
            let address = fixture::address(&format!("10.0.0.1:{port}"));
            let mut group = EndpointSet::of([address]).localities.remove(0);
            group.priority = port - 1;
            endpoints.localities.push(group);
        }
        let live = snapshot.clusters()[0].live();
        live.publish_endpoints(Arc::new(endpoints));

        let dispatch = Dispatch::new(named());
        let exchange = fixture::matched(&snapshot);
        let mut ports = String::new();
        for number in 0..5 {
            let attempt = match number {
                0 => exchange.clone(),
                _ => exchange.for_attempt(),
            };
            let request = fixture::with(Request::new(empty()), &attempt);
            let response = dispatch.clone().oneshot(request).await.unwrap();
            let address = read(response.into_body()).await;
            ports.extend(address.chars().last());
        }
        assert_eq!(ports, expected, "{other}");
    }
}

#[tokio::test]
async fn a_retry_goes_where_no_canary_and_no_such_metadata_is() {
    use mesh_core::model::{Endpoint, SnapshotBuilder};
    use std::collections::BTreeMap;
    let label = |name: &str, value: &str| BTreeMap::from([(name.into(), value.into())]);
    let labels = [
        (1, label("canary", "true")),
        (2, label("stage", r#"["old","test"]"#)),
        (3, label("canary", r#""true""#)),
    ];
    let endpoints = labels.map(|(port, labels)| {
        let mut endpoint = Endpoint::new(fixture::address(&format!("127.0.0.1:{port}")));
        endpoint.subset = Arc::new(labels);
        Arc::new(endpoint)
    });
    let mut retry = Retry::default();
    retry.avoid_canaries = true;
    retry.avoid_metadata = vec![BTreeMap::new(), label("stage", r#""test""#)];
    retry.host_attempts = 3;
    let mut rule = Rule::prefix_to("/", "c");
    rule.retry = Some(Arc::new(retry));
    let mut builder = SnapshotBuilder::new();
    let host = mesh_core::model::VirtualHost::new("all", ["*"]).rule(rule);
    builder.routes(mesh_core::model::RouteTable::new("t").host(host));
    builder.cluster(cluster());
    builder.endpoints("c", EndpointSet::from_endpoints(endpoints.to_vec()));
    let (snapshot, _) = builder.build().unwrap();
    let dispatch = Dispatch::new(named());
    let mut first = Vec::new();
    for _ in 0..3 {
        let response = dispatch.clone().oneshot(request(&snapshot)).await;
        first.push(read(response.unwrap().into_body()).await);
    }
    first.sort();
    first.dedup();
    assert_eq!(first.len(), 3, "a first attempt goes anywhere: {first:?}");
    for _ in 0..6 {
        let exchange = fixture::matched(&snapshot);
        let first = fixture::with(Request::new(empty()), &exchange);
        dispatch.clone().oneshot(first).await.unwrap();
        for _ in 0..2 {
            let retry = fixture::with(Request::new(empty()), &exchange.for_attempt());
            let response = dispatch.clone().oneshot(retry).await.unwrap();
            let went = read(response.into_body()).await;
            assert_eq!(went, "127.0.0.1:3", "which has a text, and no canary");
        }
    }
}

#[tokio::test]
async fn one_seed_gives_one_sequence_of_hosts() {
    let mut random = Cluster::new("c");
    random.balancing = Balancing::Random;
    let mut runs = Vec::new();
    for _ in 0..2 {
        let snapshot = with_ports(random.clone(), Rule::prefix_to("/", "c"), &[1, 2, 3, 4]);
        let dispatch = Dispatch::new(named()).rng(Arc::new(Rng::with_seed(7)));
        let mut run = String::new();
        for _ in 0..20 {
            let response = dispatch.clone().oneshot(request(&snapshot)).await.unwrap();
            run += &read(response.into_body()).await;
        }
        runs.push(run);
    }
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test]
async fn picks_in_panic_are_counted() {
    let snapshot = with_ports(cluster(), Rule::prefix_to("/", "c"), &[1]);
    let mut sick = mesh_core::model::Endpoint::new(fixture::address("10.0.0.1:1"));
    sick.health = mesh_core::model::Health::Unhealthy;
    let endpoints = EndpointSet::from_endpoints(vec![Arc::new(sick)]);
    snapshot.clusters()[0]
        .live()
        .publish_endpoints(Arc::new(endpoints));
    Dispatch::new(named())
        .oneshot(request(&snapshot))
        .await
        .unwrap();
    assert_eq!(stat(&snapshot, ClusterStat::LbHealthyPanic), 1);
}

#[tokio::test]
async fn a_cluster_by_authority_goes_where_the_request_says() {
    let mut passthrough = cluster();
    passthrough.discovery = DiscoveryKind::Authority;
    let snapshot = fixture::snapshot(vec![Rule::prefix_to("/", "c")], vec![passthrough]);
    let dispatch = Dispatch::new(named());
    for (uri, expected) in [
        ("http://example.com/x", "example.com:80"),
        ("https://Example.com/x", "example.com:443"),
        ("http://10.1.2.3:8080/", "10.1.2.3:8080"),
    ] {
        let mut request = request(&snapshot);
        *request.uri_mut() = uri.parse().unwrap();
        let response = dispatch.clone().oneshot(request).await.unwrap();
        assert_eq!(read(response.into_body()).await, expected);
    }
    let error = dispatch.oneshot(request(&snapshot)).await.unwrap_err();
    assert_eq!(error.failure(), Failure::MissingHost);
}

#[tokio::test]
async fn a_cluster_by_original_destination_goes_where_the_connection_was_going() {
    let mut passthrough = cluster();
    passthrough.discovery = DiscoveryKind::OriginalDestination;
    let snapshot = fixture::snapshot(vec![Rule::prefix_to("/", "c")], vec![passthrough]);
    let dispatch = Dispatch::new(named());
    let mut caller = mesh_core::Caller::default();
    caller.original = Some("10.1.2.3:8080".parse().unwrap());
    let exchange = Exchange::new(std::time::Instant::now(), caller);
    let matched = fixture::matched(&snapshot).matched().unwrap().clone();
    exchange.set_matched(matched);
    // Whatever the request says of itself.
    let mut intercepted = fixture::with(Request::new(empty()), &exchange);
    *intercepted.uri_mut() = "http://example.com/x".parse().unwrap();
    let response = dispatch.clone().oneshot(intercepted).await.unwrap();
    assert_eq!(read(response.into_body()).await, "10.1.2.3:8080");

    let error = dispatch.oneshot(request(&snapshot)).await.unwrap_err();
    assert_eq!(error.failure(), Failure::NoHealthyHost);
    assert_eq!(stat(&snapshot, ClusterStat::OriginalDestinationInvalid), 1);
}

#[tokio::test]
async fn the_authority_becomes_the_endpoints_name_where_the_rule_says_so() {
    let mut forward = Forward::to("c");
    forward.authority = Some(AuthorityRewrite::FromEndpoint.into());
    let rule = Rule::new(Condition::default(), Action::Forward(forward));
    for (endpoint, expected) in [("httpbin.org:80", "httpbin.org"), ("10.0.0.1:80", "old")] {
        let snapshot = fixture::snapshot(vec![rule.clone()], vec![cluster()]);
        let endpoints = EndpointSet::of([fixture::address(endpoint)]);
        snapshot.clusters()[0]
            .live()
            .publish_endpoints(Arc::new(endpoints));
        let probe = Probe::new();
        let mut request = request(&snapshot);
        request.headers_mut().insert("host", "old".parse().unwrap());
        Dispatch::new(to(&probe)).oneshot(request).await.unwrap();
        assert_eq!(probe.requests()[0].headers()["host"], expected);
    }
}

#[tokio::test]
async fn hosts_that_take_one_request_at_a_time_hold_up_nobody_for_ever() {
    let snapshot = with_ports(cluster(), Rule::prefix_to("/", "c"), &[1, 2, 3]);
    let probe = Probe::new();
    let make = {
        let probe = probe.clone();
        move |_: &Arc<Host>, _: &Arc<ClusterEntry>| {
            tower::limit::ConcurrencyLimit::new(probe.clone(), 1)
        }
    };
    let dispatch = Dispatch::new(make);
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let one = dispatch.clone().oneshot(request(&snapshot));
        requests.spawn(one);
    }
    // Some are given up while they wait for their host.
    for _ in 0..8 {
        let mut waiting = Box::pin(dispatch.clone().oneshot(request(&snapshot)));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let _ = Future::poll(waiting.as_mut(), &mut cx);
    }
    let mut answered = 0;
    while let Some(result) = requests.join_next().await {
        assert_eq!(result.unwrap().unwrap().status(), StatusCode::OK);
        answered += 1;
    }
    assert_eq!(answered, 64);
    assert_eq!(stat(&snapshot, ClusterStat::RqActive), 0);
}

#[tokio::test]
async fn a_host_whose_service_cannot_get_ready_fails_the_request_and_not_the_next() {
    #[derive(Clone)]
    struct Broken;
    impl Service<Request<BoxedBody>> for Broken {
        type Response = Response<BoxedBody>;
        type Error = Error;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Err(Failure::ConnectTimeout.into()))
        }
        fn call(&mut self, _: Request<BoxedBody>) -> Self::Future {
            unreachable!("never ready")
        }
    }
    let snapshot = snapshot(ejecting());
    let dispatch = Dispatch::new(|_: &Arc<Host>, _: &Arc<ClusterEntry>| Broken);
    let error = dispatch.oneshot(request(&snapshot)).await.unwrap_err();
    assert_eq!(error.failure(), Failure::ConnectTimeout);
    assert!(is_ejected(&snapshot));
    assert_eq!(stat(&snapshot, ClusterStat::RqActive), 0);
}

#[tokio::test]
async fn an_answer_may_say_that_its_host_fails_health_checks() {
    use mesh_core::model::{HealthCheck, Probe as Question, TcpProbe};
    for checks in [true, false] {
        let mut cluster = cluster();
        let second = Duration::from_secs(1);
        if checks {
            let tcp = Question::Tcp(TcpProbe::default());
            cluster.health_checks = [HealthCheck::new(tcp, second, second)].into();
        }
        let snapshot = snapshot(cluster);
        let mut says = http::HeaderMap::new();
        says.insert(
            "x-envoy-immediate-health-check-fail",
            "true".parse().unwrap(),
        );
        let probe = Probe::answering([Answers::WithHeaders(StatusCode::OK, says, "")]);
        let hosts = ClusterHosts::of(&snapshot.clusters()[0]);
        for host in hosts.to_check() {
            let now = std::time::Instant::now();
            hosts.checked(host.id(), 0, crate::health::Answer::Well, now, 0);
        }
        assert!(!hosts.view()[0].checked.failed);
        let response = Dispatch::new(to(&probe))
            .oneshot(request(&snapshot))
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(hosts.view()[0].checked.failed, checks);
    }
}
