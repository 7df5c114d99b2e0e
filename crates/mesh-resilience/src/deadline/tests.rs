use super::*;
use http::HeaderMap;
use http_body_util::BodyExt;
use mesh_core::Flags;
use mesh_core::model::{Cluster, Retry, Rule};
use mesh_core::stats::ClusterStat;
use mesh_test::{Answers, BoxedBody, Probe, contract, empty, fixture, read};
use std::sync::{Arc, Mutex};
use tokio::time::Sleep;
use tower::{ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn keeps_the_contract_of_a_layer() {
    contract::check(DeadlineLayer::fixed(SECOND)).await;
    contract::check(DeadlineLayer::per_route()).await;
}

fn rule(timeout: Option<Duration>) -> Rule {
    let mut rule = Rule::prefix_to("/", "a");
    rule.timeout = timeout;
    rule
}

/// An exchange whose request has arrived whole.
fn arrived(rule: Rule) -> Exchange {
    let exchange = fixture::exchange(rule, Some(Cluster::new("a")));
    exchange.set_request_is_whole();
    exchange.request_end().set();
    exchange
}

fn counted(exchange: &Exchange, stat: ClusterStat) -> u64 {
    exchange.cluster().unwrap().live().stats().block().get(stat)
}

/// Gives a frame every second, for ever.
struct Drip(Pin<Box<Sleep>>);

impl Drip {
    fn new() -> Self {
        Self(Box::pin(tokio::time::sleep(SECOND)))
    }
}

impl Body for Drip {
    type Data = bytes::Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, BoxError>>> {
        ready!(self.0.as_mut().poll(cx));
        self.0.as_mut().reset(Instant::now() + SECOND);
        Poll::Ready(Some(Ok(http_body::Frame::data("x".into()))))
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_begin_in_time_is_an_error() {
    let exchange = arrived(rule(Some(SECOND)));
    let start = Instant::now();
    let service = DeadlineLayer::per_route().layer(Probe::answering([Answers::Never]));
    let request = fixture::with(Request::new(empty()), &exchange);
    let error = service.oneshot(request).await.unwrap_err();
    assert_eq!(error.failure(), Failure::RequestTimeout);
    assert_eq!(start.elapsed(), SECOND);
    assert!(exchange.timed_out());
    assert_eq!(counted(&exchange, ClusterStat::RqTimeout), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_end_in_time_fails_once_and_is_flagged() {
    let exchange = arrived(rule(Some(SECOND * 5 / 2)));
    let service = DeadlineLayer::per_route().layer(service_fn(|_: Request<BoxedBody>| async {
        Ok::<_, BoxError>(Response::new(Drip::new()))
    }));
    let request = fixture::with(Request::new(empty()), &exchange);
    let mut body = service.oneshot(request).await.unwrap().into_body();
    let start = Instant::now();
    for _ in 0..2 {
        assert!(body.frame().await.unwrap().is_ok());
    }
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(error.failure(), Failure::RequestTimeout);
    assert_eq!(start.elapsed(), SECOND * 5 / 2);
    assert!(body.frame().await.is_none());
    assert!(exchange.timed_out());
    assert_eq!(exchange.flags(), Flags::UT);
    let details = exchange.with_notes(|notes| notes.details.clone());
    assert_eq!(details.as_deref(), Some("response_timeout"));
    assert_eq!(counted(&exchange, ClusterStat::RqTimeout), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_always_has_more_does_not_outrun_its_limit() {
    struct Flood;
    impl Body for Flood {
        type Data = bytes::Bytes;
        type Error = BoxError;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, BoxError>>> {
            Poll::Ready(Some(Ok(http_body::Frame::data("x".into()))))
        }
    }
    let service = DeadlineLayer::fixed(SECOND).layer(service_fn(|_: Request<()>| async {
        Ok::<_, BoxError>(Response::new(Flood))
    }));
    let mut body = service.oneshot(Request::new(())).await.unwrap().into_body();
    assert!(body.frame().await.unwrap().is_ok());
    tokio::time::advance(SECOND).await;
    assert!(body.frame().await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_whole_is_given_even_when_it_is_looked_at_late() {
    let service = DeadlineLayer::fixed(SECOND).layer(service_fn(|_: Request<()>| async {
        Ok::<_, BoxError>(Response::new(mesh_test::text("whole")))
    }));
    let body = service.oneshot(Request::new(())).await.unwrap().into_body();
    tokio::time::advance(2 * SECOND).await;
    assert_eq!(read(body).await, "whole");
}

#[tokio::test(start_paused = true)]
async fn the_time_of_an_upload_does_not_count() {
    let exchange = fixture::exchange(rule(Some(SECOND)), None);
    let start = Instant::now();
    let service = DeadlineLayer::per_route().layer(Probe::answering([Answers::Never]));
    let request = fixture::with(Request::new(empty()), &exchange);
    let upload = async {
        tokio::time::sleep(7 * SECOND).await;
        exchange.request_end().set();
    };
    let (result, ()) = tokio::join!(service.oneshot(request), upload);
    assert_eq!(result.unwrap_err().failure(), Failure::RequestTimeout);
    assert_eq!(start.elapsed(), 8 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_stream_may_not_last_longer_than_its_rule_allows() {
    let mut limited = rule(Some(5 * SECOND));
    limited.max_stream_duration = Some(SECOND);
    // Not set: the request has not even ended.
    let exchange = fixture::exchange(limited, Some(Cluster::new("a")));
    let service = DeadlineLayer::per_route().layer(Probe::answering([Answers::Never]));
    let request = fixture::with(Request::new(empty()), &exchange);
    let error = service.oneshot(request).await.unwrap_err();
    assert_eq!(error.failure(), Failure::MaxStreamDuration);
    assert_eq!(error.status(), 408, "the request has not even ended");
    assert_eq!(counted(&exchange, ClusterStat::RqMaxDurationReached), 0);
    assert_eq!(counted(&exchange, ClusterStat::RqTimeout), 0);
}

#[tokio::test(start_paused = true)]
async fn zero_is_no_limit() {
    let mut unlimited = rule(Some(Duration::ZERO));
    unlimited.max_stream_duration = Some(Duration::ZERO);
    let exchange = arrived(unlimited);
    let answer = Answers::After(SECOND * 3600, StatusCode::OK);
    let probe = Probe::answering([answer]);
    let service = DeadlineLayer::per_route().layer(probe.clone());
    let request = fixture::with(Request::new(empty()), &exchange);
    assert!(service.oneshot(request).await.is_ok());
    let headers = probe.requests()[0].headers().clone();
    assert!(!headers.contains_key("x-envoy-expected-rq-timeout-ms"));
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_connection_is_no_longer_bounded() {
    for (method, status, bounded) in [
        (Method::GET, 101, false),
        (Method::CONNECT, 200, false),
        (Method::CONNECT, 403, true),
        (Method::GET, 200, true),
    ] {
        let exchange = arrived(rule(Some(SECOND)));
        let service =
            DeadlineLayer::per_route().layer(service_fn(move |_: Request<BoxedBody>| async move {
                let mut response = Response::new(Drip::new());
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                Ok::<_, BoxError>(response)
            }));
        let mut request = fixture::with(Request::new(empty()), &exchange);
        *request.method_mut() = method;
        let mut body = service.oneshot(request).await.unwrap().into_body();
        tokio::time::advance(SECOND).await;
        assert_eq!(body.frame().await.unwrap().is_err(), bounded, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_callers_headers_replace_the_rules_limits_and_are_not_forwarded() {
    let mut retry = Retry::default();
    retry.per_try_timeout = Some(SECOND);
    let mut rule = rule(Some(3 * SECOND));
    rule.retry = Some(Arc::new(retry));
    let exchange = arrived(rule);
    let probe = Probe::new();
    let service = DeadlineLayer::per_route().layer(
        // The limit of the attempt has to reach the layer below the retries.
        crate::TimeoutLayer::per_try().layer(probe.clone()),
    );
    for (asked, expected) in [
        (&[][..], "1000"),
        (&[("x-envoy-upstream-rq-timeout-ms", "500")][..], "500"),
        (
            &[("x-envoy-upstream-rq-per-try-timeout-ms", "20")][..],
            "20",
        ),
    ] {
        let mut request = fixture::with(Request::new(empty()), &exchange);
        let headers: HeaderMap = asked
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        *request.headers_mut() = headers;
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(read(response.into_body()).await, "ok");
        let requests = probe.requests();
        let forwarded = requests.last().unwrap().headers();
        assert_eq!(forwarded.len(), 1);
        assert_eq!(forwarded["x-envoy-expected-rq-timeout-ms"], expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_callers_limit_for_an_attempt_reaches_the_layer_that_keeps_it() {
    let exchange = arrived(rule(Some(3 * SECOND)));
    let start = Instant::now();
    let service = DeadlineLayer::per_route()
        .layer(crate::TimeoutLayer::per_try().layer(Probe::answering([Answers::Never])));
    let mut request = fixture::with(Request::new(empty()), &exchange);
    request.headers_mut().insert(
        "x-envoy-upstream-rq-per-try-timeout-ms",
        http::HeaderValue::from_static("40"),
    );
    let error = service.oneshot(request).await.unwrap_err();
    assert_eq!(error.failure(), Failure::TryTimeout);
    assert_eq!(start.elapsed(), Duration::from_millis(40));
}

#[test]
fn the_future_and_the_body_are_small() {
    // On top of the inner future and the body, with limits or without.
    assert!(size_of::<ResponseFuture<()>>() <= 208);
    assert_eq!(size_of::<DeadlineBody<u64>>(), 80 + 8);
}

#[tokio::test(start_paused = true)]
async fn where_a_stream_has_a_limit_the_timeout_plays_no_part() {
    let mut limited = rule(Some(SECOND));
    limited.max_stream_duration = Some(3 * SECOND);
    let exchange = arrived(limited);
    let start = Instant::now();
    let (error, headers) = unanswered(Request::new(empty()), &exchange).await;
    assert_eq!(error.failure(), Failure::MaxStreamDuration);
    assert_eq!(error.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(start.elapsed(), 3 * SECOND);
    assert!(!headers.contains_key("x-envoy-expected-rq-timeout-ms"));
}

/// What a request that nobody answers ends in, and the headers that it went on with.
async fn unanswered(request: Request<BoxedBody>, exchange: &Exchange) -> (Error, HeaderMap) {
    let seen = Arc::new(Mutex::new(HeaderMap::new()));
    let theirs = seen.clone();
    let inner = service_fn(move |request: Request<BoxedBody>| {
        theirs.lock().unwrap().clone_from(request.headers());
        std::future::pending::<Result<Response<BoxedBody>, BoxError>>()
    });
    let request = fixture::with(request, exchange);
    let error = DeadlineLayer::per_route().layer(inner).oneshot(request);
    let error = error.await.map(drop).unwrap_err();
    let headers = seen.lock().unwrap().clone();
    (error, headers)
}

#[tokio::test(start_paused = true)]
async fn a_caller_may_shorten_the_stream_and_the_upstream_is_told() {
    for (asked, most, expected, told) in [
        ("2S", 5, 2, Some("2000m")),
        ("9S", 5, 5, Some("5000m")),
        ("9S", 0, 9, Some("9000m")),
        ("nonsense", 5, 7, Some("7000m")),
    ] {
        let mut limited = rule(None);
        limited.max_stream_duration = Some(7 * SECOND);
        limited.max_grpc_timeout = Some(most * SECOND);
        let exchange = arrived(limited);
        let start = Instant::now();
        let request = Request::get("/")
            .header("content-type", "application/grpc")
            .header("grpc-timeout", asked);
        let (error, headers) = unanswered(request.body(empty()).unwrap(), &exchange).await;
        assert_eq!(error.failure(), Failure::MaxStreamDuration);
        assert_eq!(start.elapsed(), expected * SECOND, "{asked} of {most}");
        let sent = headers.get("grpc-timeout").map(|it| it.to_str().unwrap());
        assert_eq!(sent, told, "{asked} of {most}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_is_told_by_204_where_the_request_asks_for_it() {
    for (asked, status) in [(true, 204), (false, 504)] {
        let exchange = arrived(rule(Some(SECOND)));
        let mut request = Request::get("/");
        if asked {
            request = request.header("x-envoy-upstream-rq-timeout-alt-response", "any");
        }
        let (error, sent) = unanswered(request.body(empty()).unwrap(), &exchange).await;
        assert_eq!(error.failure(), Failure::RequestTimeout);
        assert_eq!(error.status(), status);
        assert!(!sent.contains_key("x-envoy-upstream-rq-timeout-alt-response"));
    }
}
