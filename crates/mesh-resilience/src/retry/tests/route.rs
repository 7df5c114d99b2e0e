//! Retries by the matched rule, together with the time limits of the rule.

use super::*;
use crate::{DeadlineLayer, TimeoutLayer};

#[tokio::test(start_paused = true)]
async fn the_virtual_hosts_policy_stands_in_for_the_rules_and_attempts_are_numbered() {
    let mut host = VirtualHost::new("all", ["*"]);
    host.retry = Some(Arc::new(policy(2, RetryOn::SERVER_ERROR)));
    host.count_attempts = true;
    let mut plain = Rule::prefix_to("/", "a");
    for own in [None, Some(policy(0, RetryOn::SERVER_ERROR))] {
        let calls = if own.is_some() { 1 } else { 3 };
        plain.retry = own.map(Arc::new);
        let mut builder = SnapshotBuilder::new();
        builder.cluster(cluster());
        let table = RouteTable::new("t").host(host.clone().rule(plain.clone()));
        builder.routes(table);
        let exchange = fixture::matched(&builder.build().unwrap().0);
        let probe = Probe::answering(vec![UNAVAILABLE; 5]);
        let request = Request::get("/")
            .header("x-envoy-attempt-count", "9")
            .body(empty())
            .unwrap();
        let request = fixture::with(request, &exchange);
        Layer0::per_route()
            .layer(probe.clone())
            .oneshot(request)
            .await
            .unwrap();
        let numbers: Vec<_> = probe
            .requests()
            .iter()
            .map(|request| request.headers()["x-envoy-attempt-count"].clone())
            .collect();
        let expected: Vec<_> = (1..=calls).map(|n| n.to_string()).collect();
        assert_eq!(numbers, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_requests_headers_count_with_a_rule_and_are_not_forwarded() {
    let headers: HeaderMap = [
        ("x-envoy-retry-on", "retriable-status-codes,5xx"),
        ("x-envoy-retriable-status-codes", "418"),
        ("x-envoy-max-retries", "2"),
    ]
    .into_iter()
    .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
    .collect();
    let teapot = Answers::With(StatusCode::IM_A_TEAPOT, "");
    for (with_exchange, calls) in [(true, 3), (false, 1)] {
        let probe = Probe::answering(vec![teapot.clone(); 5]);
        let mut request = Request::new(empty());
        *request.headers_mut() = headers.clone();
        if with_exchange {
            fixture::exchange(Rule::prefix_to("/", "a"), Some(cluster())).attach(&mut request);
        }
        let result = Layer0::per_route()
            .layer(probe.clone())
            .oneshot(request)
            .await;
        assert_eq!(status(&result), Some(418));
        assert_eq!(probe.calls(), calls);
        for request in probe.requests() {
            assert_eq!(request.headers().is_empty(), with_exchange);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_attempt_is_made_again_within_the_whole_requests_time() {
    let mut policy = policy(9, RetryOn::GATEWAY_ERROR);
    policy.per_try_timeout = Some(SECOND);
    policy.backoff_base = Duration::from_millis(1);
    policy.backoff_max = Duration::from_millis(1);
    let mut rule = ruled(policy);
    rule.timeout = Some(SECOND * 7 / 2);
    let exchange = fixture::exchange(rule, Some(cluster()));
    exchange.request_end().set();
    let probe = Probe::answering(vec![Answers::Never; 9]);
    let service = ServiceBuilder::new()
        .layer(DeadlineLayer::per_route())
        .layer(Layer0::per_route())
        .layer(TimeoutLayer::per_try())
        .service(probe.clone());
    let start = Instant::now();
    let request = fixture::with(Request::new(empty()), &exchange);
    let error = service.oneshot(request).await.unwrap_err();
    assert_eq!(error.failure(), Failure::RequestTimeout);
    assert_eq!(start.elapsed(), SECOND * 7 / 2);
    assert_eq!(probe.calls(), 4);
    assert_eq!(counted(&exchange, ClusterStat::RqPerTryTimeout), 3);
    assert_eq!(counted(&exchange, ClusterStat::RqTimeout), 1);
    assert_eq!(counted(&exchange, ClusterStat::RqRetryLimitExceeded), 0);
}

/// What two attempts, the first of which fails after 2 s, say in `x-envoy-expected-rq-timeout-ms`
/// under a timeout of 5 s. `reads` says whether the first reads the body before that.
async fn told(body: BoxedBody, reads: bool) -> Vec<String> {
    let mut policy = policy(1, RetryOn::CONNECT_FAILURE);
    policy.backoff_base = Duration::from_millis(1);
    policy.backoff_max = Duration::from_millis(1);
    let mut rule = ruled(policy);
    rule.timeout = Some(5 * SECOND);
    let exchange = fixture::exchange(rule, Some(cluster()));
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let theirs = told.clone();
    let inner = service_fn(move |request: Request<ReplayBody<BoxedBody>>| {
        let header = &request.headers()["x-envoy-expected-rq-timeout-ms"];
        let mut told = theirs.lock().unwrap();
        told.push(header.to_str().unwrap().to_owned());
        let last = told.len() == 2;
        async move {
            if last {
                return Ok(Response::new(empty()));
            }
            if reads {
                read(request.into_body()).await;
            }
            tokio::time::sleep(2 * SECOND).await;
            Err(BoxError::from(Error::new(Failure::ConnectFailed)))
        }
    });
    let service = ServiceBuilder::new()
        .layer(DeadlineLayer::per_route())
        .layer(Layer0::per_route())
        .service(inner);
    let request = fixture::with(Request::new(body), &exchange);
    service.oneshot(request).await.unwrap();
    told.lock().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn each_attempt_tells_the_upstream_the_time_that_is_left() {
    assert_eq!(told(empty(), true).await, ["5000", "3000"]);
    assert_eq!(told(text("body"), true).await, ["5000", "3000"]);
    // While the request still comes its time has not begun.
    assert_eq!(told(text("body"), false).await, ["5000", "5000"]);
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_tried_again_for_are_counted_by_their_code() {
    let mut rule = Rule::prefix_to("/", "a");
    rule.retry = Some(Arc::new(policy(3, RetryOn::SERVER_ERROR)));
    let exchange = fixture::exchange(rule, Some(cluster()));
    let bad = Answers::With(StatusCode::BAD_GATEWAY, "");
    let good = Answers::With(StatusCode::OK, "");
    let probe = Probe::answering([UNAVAILABLE, bad, UNAVAILABLE, good]);
    let request = fixture::with(Request::new(empty()), &exchange);
    let service = Layer0::per_route().layer(probe.clone());
    assert_eq!(service.oneshot(request).await.unwrap().status(), 200);
    let stats = exchange.cluster().unwrap().live().stats().clone();
    let codes = stats.retried_codes().unwrap().counts();
    assert_eq!(codes, [(502, 1), (503, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_ends_in_what_is_not_tried_again_for_is_a_success() {
    let mut rule = Rule::prefix_to("/", "a");
    let mut only = policy(3, RetryOn::RETRIABLE_STATUS_CODES);
    only.status_codes = vec![503];
    rule.retry = Some(Arc::new(only));
    for (last, successes) in [(Failure::RemoteReset, 1), (Failure::NoHealthyHost, 0)] {
        let exchange = fixture::exchange(rule.clone(), Some(cluster()));
        let probe = Probe::answering([UNAVAILABLE, Answers::Fails(last)]);
        let request = fixture::with(Request::new(empty()), &exchange);
        let service = Layer0::per_route().layer(probe);
        assert_eq!(service.oneshot(request).await.unwrap_err().failure(), last);
        assert_eq!(counted(&exchange, ClusterStat::RqRetrySuccess), successes);
    }
}
