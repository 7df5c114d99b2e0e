use super::*;
use crate::BreakerLayer;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use mesh_core::model::{
    Cluster, Fraction, RetryBudget, RetryOn, RouteTable, Rule, SnapshotBuilder, VirtualHost,
};
use mesh_core::stats::ClusterStat;
use mesh_core::usage::Resource;
use mesh_core::{Failure, Flags, HostId};
use mesh_test::{Answers, BoxedBody, Probe, chunks, contract, empty, fixture, read, text};
use std::time::Duration;
use tower::limit::ConcurrencyLimitLayer;
use tower::{ServiceBuilder, ServiceExt, service_fn};

mod route;

type Layer0 = RetryLayer<ReplayBody<BoxedBody>>;

const SECOND: Duration = Duration::from_secs(1);
const UNAVAILABLE: Answers = Answers::With(StatusCode::SERVICE_UNAVAILABLE, "no");

fn policy(attempts: u32, on: RetryOn) -> model::Retry {
    let mut policy = model::Retry::default();
    policy.attempts = attempts;
    policy.on = on;
    policy
}

fn ruled(policy: model::Retry) -> Rule {
    let mut rule = Rule::prefix_to("/", "a");
    rule.retry = Some(Arc::new(policy));
    rule
}

/// Limits of a cluster that are out of the way.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new("a");
    cluster.limits = Limits::unlimited();
    cluster
}

fn exchange(policy: model::Retry) -> Exchange {
    let exchange = fixture::exchange(ruled(policy), Some(cluster()));
    exchange.request_end().set();
    exchange
}

fn counted(exchange: &Exchange, stat: ClusterStat) -> u64 {
    exchange.cluster().unwrap().live().stats().block().get(stat)
}

fn status<R, E>(result: &Result<Response<R>, E>) -> Option<u16> {
    result
        .as_ref()
        .ok()
        .map(|response| response.status().as_u16())
}

#[tokio::test]
async fn keeps_the_contract_of_a_layer() {
    contract::check(Layer0::per_route()).await;
    // With a policy too, which is met by none of what the check does.
    contract::check(Layer0::fixed(policy(2, RetryOn::CONNECT_FAILURE))).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_is_made_again_with_head_body_and_trailers() {
    let answers = [UNAVAILABLE, Answers::Fails(Failure::ConnectFailed)];
    let probe = Probe::answering(answers);
    let service = Layer0::fixed(policy(2, RetryOn::SERVER_ERROR)).layer(probe.clone());
    let mut request = Request::post("/a?b=c")
        .header("x-kept", "yes")
        .body(text("hello"))
        .unwrap();
    request.extensions_mut().insert(7_u8);
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(read(response.into_body()).await, "ok");
    assert_eq!(probe.calls(), 3);
    // The second failed before it read the request.
    for request in probe.requests() {
        assert_eq!(request.method(), Method::POST);
        assert_eq!(request.uri(), "/a?b=c");
        assert_eq!(request.headers()["x-kept"], "yes");
        assert_eq!(request.body(), "hello");
    }
}

#[tokio::test(start_paused = true)]
async fn extensions_of_others_reach_every_attempt() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let theirs = seen.clone();
    let inner = service_fn(move |request: Request<ReplayBody<BoxedBody>>| {
        theirs.lock().unwrap().push((
            request.extensions().get::<u8>().copied(),
            Exchange::of(&request).map(|exchange| exchange.attempts()),
        ));
        async { Err::<Response<BoxedBody>, BoxError>(Error::new(Failure::ConnectFailed).into()) }
    });
    let service = Layer0::per_route().layer(inner);
    for extension in [Some(7_u8), None] {
        let exchange = exchange(policy(1, RetryOn::CONNECT_FAILURE));
        let mut request = fixture::with(Request::new(empty()), &exchange);
        if let Some(extension) = extension {
            request.extensions_mut().insert(extension);
        }
        assert!(service.clone().oneshot(request).await.is_err());
        let seen = mem::take(&mut *seen.lock().unwrap());
        assert_eq!(seen, [(extension, Some(1)), (extension, Some(2))]);
    }
}

#[tokio::test(start_paused = true)]
async fn there_are_as_many_retries_as_allowed_and_the_last_result_is_given() {
    for retries in 0..4 {
        let exchange = exchange(policy(retries, RetryOn::SERVER_ERROR));
        let probe = Probe::answering(vec![UNAVAILABLE; 9]);
        let service = Layer0::per_route().layer(probe.clone());
        let request = fixture::with(Request::new(empty()), &exchange);
        let result = service.oneshot(request).await;
        assert_eq!(status(&result), Some(503));
        assert_eq!(probe.calls(), 1 + retries as usize);
        assert_eq!(exchange.attempts(), 1 + retries);
        assert_eq!(counted(&exchange, ClusterStat::RqRetry), retries.into());
        // However few were allowed, as in Envoy.
        let exceeded = counted(&exchange, ClusterStat::RqRetryLimitExceeded);
        assert_eq!(exceeded, 1);
        assert!(exchange.flags().has(Flags::URX));
        assert_eq!(counted(&exchange, ClusterStat::RqRetrySuccess), 0);
    }
}

/// As in Envoy, whose attempts count the limit of the request that ends them.
#[tokio::test(start_paused = true)]
async fn a_limit_that_ends_a_pause_counts_for_no_upstream() {
    let told = |answers: [Answers; 2]| async move {
        let mut policy = policy(1, RetryOn::SERVER_ERROR);
        policy.backoff_base = 20 * SECOND;
        policy.backoff_max = 20 * SECOND;
        let mut rule = ruled(policy);
        rule.timeout = Some(SECOND);
        let exchange = fixture::exchange(rule, Some(cluster()));
        exchange.request_end().set();
        let service = ServiceBuilder::new()
            .layer(crate::DeadlineLayer::per_route())
            // The pause is any part of twenty seconds.
            .layer(Layer0::per_route().rng(Arc::new(Rng::with_seed(7))))
            .service(Probe::answering(answers));
        let request = fixture::with(Request::new(empty()), &exchange);
        let error = service.oneshot(request).await.err().unwrap();
        assert_eq!(error.failure(), Failure::RequestTimeout);
        let timeouts = counted(&exchange, ClusterStat::RqTimeout);
        (exchange.is_between_attempts(), timeouts)
    };
    assert_eq!(told([UNAVAILABLE, UNAVAILABLE]).await, (true, 0));
    assert_eq!(told([Answers::Never, UNAVAILABLE]).await, (false, 1));
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_goes_well_is_counted_and_leaves_no_flag() {
    let exchange = exchange(policy(3, RetryOn::GATEWAY_ERROR));
    exchange.flag(Flags::DI);
    let inner = {
        let exchange = exchange.clone();
        service_fn(move |request: Request<ReplayBody<BoxedBody>>| {
            let attempt = Exchange::of(&request).unwrap().clone();
            let number = exchange.attempts();
            attempt.note_tried(HostId(number.into()));
            async move {
                if number == 1 {
                    let error = Error::new(Failure::ConnectFailed);
                    attempt.note_error(&error);
                    return Err(BoxError::from(error));
                }
                attempt.set_details("second");
                Ok(Response::new(text("ok")))
            }
        })
    };
    let request = fixture::with(Request::new(empty()), &exchange);
    let response = Layer0::per_route().layer(inner).oneshot(request).await;
    assert_eq!(status(&response), Some(200));
    assert_eq!(
        exchange.flags(),
        Flags::DI,
        "what is the request's own stays"
    );
    let details = exchange.with_notes(|notes| notes.details.clone());
    assert_eq!(details.as_deref(), Some("second"));
    assert_eq!(exchange.tried(), [HostId(1), HostId(2)]);
    assert_eq!(counted(&exchange, ClusterStat::RqRetrySuccess), 1);
    assert_eq!(counted(&exchange, ClusterStat::RqRetryBackoff), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_retried_attempt_learns_while_its_body_is_read_is_the_requests() {
    let exchange = exchange(policy(1, RetryOn::GATEWAY_ERROR));
    let attempts = Arc::new(std::sync::Mutex::new(Vec::new()));
    let theirs = attempts.clone();
    let inner = service_fn(move |request: Request<ReplayBody<BoxedBody>>| {
        let mut attempts = theirs.lock().unwrap();
        attempts.push(Exchange::of(&request).unwrap().clone());
        let status = [503, 200][attempts.len() - 1];
        async move {
            let mut response = Response::new(chunks(["a"], None));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            Ok::<_, BoxError>(response)
        }
    });
    let request = fixture::with(Request::new(empty()), &exchange);
    let response = Layer0::per_route()
        .layer(inner)
        .oneshot(request)
        .await
        .unwrap();
    let attempt = attempts.lock().unwrap()[1].clone();
    attempt.note_error(&Error::new(Failure::RemoteReset));
    attempt.with_notes_mut(|notes| notes.grpc_status = Some(14));
    let timed_out = exchange.for_shadow(exchange.matched().unwrap().clone());
    timed_out.set_timed_out();
    drop(LateNotes::new(timed_out.clone(), attempt));
    assert!(timed_out.flags().is_empty(), "a timeout has noted itself");

    assert!(exchange.flags().is_empty());
    drop(response);
    assert_eq!(exchange.flags(), Flags::UR);
    exchange.with_notes(|notes| {
        assert_eq!(notes.failure, Some(Failure::RemoteReset));
        assert_eq!(notes.grpc_status, Some(14));
    });
}

#[tokio::test(start_paused = true)]
async fn the_wait_lies_within_a_window_that_doubles() {
    let mut policy = policy(4, RetryOn::SERVER_ERROR);
    policy.backoff_base = 10 * SECOND;
    policy.backoff_max = 25 * SECOND;
    let words = Rng::with_seed(3);
    let rng = Arc::new(Rng::with_seed(3));
    let start = Instant::now();
    let service = Layer0::fixed(policy)
        .rng(rng)
        .layer(Probe::answering(vec![UNAVAILABLE; 5]));
    service.oneshot(Request::new(empty())).await.unwrap();
    let expected: u64 = [10_000, 20_000, 25_000, 25_000]
        .map(|window| words.word() % window)
        .iter()
        .sum();
    assert_eq!(start.elapsed(), Duration::from_millis(expected));
}

#[tokio::test(start_paused = true)]
async fn no_attempt_starves_the_next_of_the_services_readiness() {
    // One at a time: an attempt that still held its place would wait for itself.
    let probe = Probe::answering([Answers::Fails(Failure::RemoteReset), UNAVAILABLE]);
    let mut service = ServiceBuilder::new()
        .layer(Layer0::fixed(policy(3, RetryOn::SERVER_ERROR)))
        .layer(ConcurrencyLimitLayer::new(1))
        .service(probe.clone());
    for _ in 0..2 {
        let request = Request::new(empty());
        let ready = ServiceExt::<Request<BoxedBody>>::ready(&mut service)
            .await
            .unwrap();
        let response = ready.call(request).await.unwrap();
        assert_eq!(response.status(), 200);
    }
    assert_eq!(probe.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_wait_holds_nothing_of_the_service() {
    let mut policy = policy(1, RetryOn::SERVER_ERROR);
    policy.backoff_base = 10 * SECOND;
    policy.backoff_max = 10 * SECOND;
    let layer = BreakerLayer::new(Limits::unlimited());
    let usage = layer.usage().unwrap().clone();
    let service = ServiceBuilder::new()
        .layer(Layer0::fixed(policy).rng(Arc::new(Rng::with_seed(1))))
        .layer(layer)
        .service(Probe::answering([UNAVAILABLE]));
    let waiting = service.oneshot(Request::new(empty()));
    assert!(
        tokio::time::timeout(Duration::from_millis(1), waiting)
            .await
            .is_err()
    );
    assert_eq!(usage.get(Resource::Requests), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_large_is_sent_once_and_its_result_given() {
    for (limit, calls) in [(10, 2), (9, 1)] {
        let probe = Probe::answering([UNAVAILABLE]);
        let service = Layer0::fixed(policy(2, RetryOn::SERVER_ERROR))
            .buffer_limit(limit)
            .layer(probe.clone());
        let request = Request::new(chunks(["12345", "67890"], None));
        let result = service.oneshot(request).await;
        assert_eq!(status(&result), Some(if calls == 2 { 200 } else { 503 }));
        assert_eq!(probe.calls(), calls);
        assert_eq!(probe.requests()[0].body(), "1234567890");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_bounds_its_retries_and_says_so() {
    let mut limited = cluster();
    limited.limits.max_retries = 0;
    let rule = ruled(policy(2, RetryOn::SERVER_ERROR));
    let exchange = fixture::exchange(rule, Some(limited));
    let probe = Probe::answering([UNAVAILABLE]);
    let service = Layer0::per_route().layer(probe.clone());
    let request = fixture::with(Request::new(empty()), &exchange);
    let result = service.oneshot(request).await;
    assert_eq!(status(&result), Some(503));
    assert_eq!(probe.calls(), 1);
    assert_eq!(exchange.flags(), Flags::UO);
    assert_eq!(counted(&exchange, ClusterStat::RqRetryOverflow), 1);
    assert_eq!(counted(&exchange, ClusterStat::RqRetry), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_gives_its_retry_back_before_it_asks_for_another() {
    let mut limited = cluster();
    limited.limits.max_retries = 1;
    let rule = ruled(policy(3, RetryOn::SERVER_ERROR));
    let exchange = fixture::exchange(rule, Some(limited));
    let probe = Probe::answering(vec![UNAVAILABLE; 3]);
    let service = Layer0::per_route().layer(probe.clone());
    let request = fixture::with(Request::new(empty()), &exchange);
    assert_eq!(status(&service.oneshot(request).await), Some(200));
    assert_eq!(probe.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_budget_with_an_interval_counts_what_the_layer_saw() {
    let mut limited = cluster();
    limited.limits.budget = Some(RetryBudget {
        share: Fraction::percent(50.0).unwrap(),
        min_concurrency: 0,
        interval: 10 * SECOND,
    });
    let rule = ruled(policy(1, RetryOn::SERVER_ERROR));
    let exchange = fixture::exchange(rule, Some(limited));
    let layer = Layer0::per_route().budgets(Budgets::default());
    let mut calls = Vec::new();
    for wait in [0, 1, 1, 20] {
        tokio::time::advance(wait * SECOND).await;
        let probe = Probe::answering([UNAVAILABLE]);
        let request = fixture::with(Request::new(empty()), &exchange);
        layer.layer(probe.clone()).oneshot(request).await.unwrap();
        calls.push(probe.calls());
    }
    assert_eq!(calls, [1, 2, 2, 1], "half of one request is none");
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_fails_for_good_did_not_go_well() {
    let exchange = exchange(policy(2, RetryOn::GATEWAY_ERROR));
    let answers = [UNAVAILABLE, Answers::Fails(Failure::NoHealthyHost)];
    let service = Layer0::per_route().layer(Probe::answering(answers));
    let request = fixture::with(Request::new(empty()), &exchange);
    let error = service.oneshot(request).await.unwrap_err();
    assert_eq!(error.failure(), Failure::NoHealthyHost);
    assert_eq!(counted(&exchange, ClusterStat::RqRetry), 1);
    assert_eq!(counted(&exchange, ClusterStat::RqRetrySuccess), 0);
    assert_eq!(counted(&exchange, ClusterStat::RqRetryLimitExceeded), 0);
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_held_until_its_response_head() {
    let exchange = exchange(policy(1, RetryOn::SERVER_ERROR));
    let usage = exchange.cluster().unwrap().live().usage().clone();
    let theirs = usage.clone();
    let retries = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = retries.clone();
    let inner = service_fn(move |_: Request<ReplayBody<BoxedBody>>| {
        let mut seen = seen.lock().unwrap();
        seen.push(theirs.get(Resource::Retries));
        let status = if seen.len() == 1 { 500 } else { 200 };
        let mut response = Response::new(text("x"));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        async move { Ok::<_, BoxError>(response) }
    });
    let request = fixture::with(Request::new(empty()), &exchange);
    let _response = Layer0::per_route()
        .layer(inner)
        .oneshot(request)
        .await
        .unwrap();
    assert_eq!(*retries.lock().unwrap(), [0, 1]);
    assert_eq!(usage.get(Resource::Retries), 0);
}

#[tokio::test(start_paused = true)]
async fn a_budget_counts_the_requests_that_a_breaker_counts() {
    let mut limits = Limits::unlimited();
    limits.budget = Some(RetryBudget {
        share: Fraction::percent(50.0).unwrap(),
        min_concurrency: 0,
        ..RetryBudget::default()
    });
    let breaker = BreakerLayer::new(Limits::unlimited());
    let usage = breaker.usage().unwrap().clone();
    let retry = Layer0::fixed(policy(1, RetryOn::SERVER_ERROR)).limits(limits, usage.clone());
    for (busy, calls) in [(0, 1), (2, 2)] {
        let _busy: Vec<_> = (0..busy)
            .map(|_| usage.take_anyway(Resource::Requests))
            .collect();
        let probe = Probe::answering([UNAVAILABLE]);
        let service = ServiceBuilder::new()
            .layer(retry.clone())
            .layer(breaker.clone())
            .service(probe.clone());
        service.oneshot(Request::new(empty())).await.unwrap();
        assert_eq!(probe.calls(), calls, "{busy} requests under way");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_made_again_is_not() {
    let matched = exchange(policy(2, RetryOn::SERVER_ERROR));
    let shadow = matched.for_shadow(matched.matched().unwrap().clone());
    // As Envoy does until it is answered: nothing of the other protocol was sent.
    let upgrade = Request::get("/")
        .header("connection", "upgrade")
        .header("upgrade", "websocket");
    for (request, exchange, seen) in [
        (Request::get("/"), &shadow, (503, 1)),
        (Request::connect("a:80"), &matched, (503, 1)),
        (upgrade, &matched, (200, 2)),
    ] {
        let probe = Probe::answering([UNAVAILABLE]);
        let request = fixture::with(request.body(text("x")).unwrap(), exchange);
        let result = Layer0::per_route()
            .layer(probe.clone())
            .oneshot(request)
            .await;
        assert_eq!(status(&result), Some(seen.0));
        assert_eq!(probe.calls(), seen.1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_began_is_not_retried_when_its_body_fails() {
    let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let theirs = calls.clone();
    let inner = service_fn(move |_: Request<ReplayBody<BoxedBody>>| {
        theirs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        async { Ok::<_, BoxError>(Response::new(Broken)) }
    });
    let service = Layer0::fixed(policy(3, RetryOn::RESET)).layer(inner);
    let response = service.oneshot(Request::new(empty())).await.unwrap();
    assert!(response.into_body().collect().await.is_err());
    assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 1);
}

/// A body that fails at once.
struct Broken;

impl Body for Broken {
    type Data = Bytes;
    type Error = BoxError;
    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        Poll::Ready(Some(Err("reset".into())))
    }
}

#[test]
fn the_future_is_of_a_known_size() {
    // As large without a policy as with one: what is kept of the request (its head of 248 bytes,
    // conditions of 56) lies in the future rather than on the heap. 32 bytes are the probe and its
    // boxed future.
    let size = size_of::<ResponseFuture<Probe, BoxedBody, ReplayBody<BoxedBody>>>();
    assert!(size <= 432 + 32, "{size}");
}
