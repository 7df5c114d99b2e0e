use super::*;
use crate::idle::tests::Pauses;
use http::StatusCode;
use http_body_util::BodyExt;
use mesh_core::model::{Cluster, Retry, Rule};
use mesh_test::{Answers, BoxedBody, Probe, contract, empty, fixture};
use std::sync::Arc;
use tower::{ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn keeps_the_contract_of_a_layer() {
    contract::check(TryIdleLayer::per_route()).await;
}

fn exchange(limit: Option<Duration>) -> Exchange {
    let mut retry = Retry::default();
    retry.per_try_idle_timeout = limit;
    let mut rule = Rule::prefix_to("/", "a");
    rule.retry = Some(Arc::new(retry));
    fixture::exchange(rule, Some(Cluster::new("a")))
}

fn counted(exchange: &Exchange) -> u64 {
    let stats = exchange.cluster().unwrap().live().stats();
    stats.block().get(ClusterStat::RqPerTryIdleTimeout)
}

#[tokio::test(start_paused = true)]
async fn an_idle_attempt_is_a_failure_of_the_attempt_alone() {
    let exchange = exchange(Some(SECOND));
    exchange.request_end().set();
    let start = Instant::now();
    let service = TryIdleLayer::per_route().layer(Probe::answering([Answers::Never]));
    let request = fixture::with(Request::new(empty()), &exchange);
    let error = service.oneshot(request).await.unwrap_err();
    assert_eq!(error.failure(), Failure::TryIdleTimeout);
    assert_eq!(start.elapsed(), SECOND);
    assert_eq!(counted(&exchange), 1);
    assert!(!exchange.timed_out(), "there may be another attempt");
    let noted = exchange.with_notes(|notes| notes.failure);
    assert_eq!(
        noted,
        Some(Failure::TryIdleTimeout),
        "for who sees the drop"
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_nothing_is_kept() {
    for limit in [None, Some(Duration::ZERO)] {
        let exchange = exchange(limit);
        exchange.request_end().set();
        let answer = Answers::After(100 * SECOND, StatusCode::OK);
        let mut service = TryIdleLayer::per_route().layer(Probe::answering([answer]));
        let request = fixture::with(Request::new(empty()), &exchange);
        let service = ServiceExt::<Request<BoxedBody>>::ready(&mut service);
        let future = service.await.unwrap().call(request);
        assert!(!future.0.is_watched());
        assert!(future.await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_begins_when_the_request_has_arrived_whole() {
    let exchange = exchange(Some(SECOND));
    let start = Instant::now();
    let service = TryIdleLayer::per_route().layer(Probe::answering([Answers::Never]));
    let request = fixture::with(Request::new(empty()), &exchange);
    let upload = async {
        tokio::time::sleep(5 * SECOND).await;
        exchange.request_end().set();
    };
    let (result, ()) = tokio::join!(service.oneshot(request), upload);
    assert!(result.is_err());
    assert_eq!(start.elapsed(), 6 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_head_and_each_frame_begin_the_limit_anew() {
    let exchange = exchange(Some(2 * SECOND));
    exchange.request_end().set();
    let service = service_fn(|_: Request<BoxedBody>| async {
        tokio::time::sleep(SECOND * 3 / 2).await;
        let pauses = [SECOND, SECOND * 3 / 2, SECOND, 60 * SECOND];
        Ok::<_, BoxError>(Response::new(Pauses::of(&pauses)))
    });
    let service = TryIdleLayer::per_route().layer(service);
    let request = fixture::with(Request::new(empty()), &exchange);
    let start = Instant::now();
    let mut body = service.oneshot(request).await.unwrap().into_body();
    for _ in 0..3 {
        assert!(body.frame().await.unwrap().is_ok());
    }
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(error.failure(), Failure::TryIdleTimeout);
    assert_eq!(start.elapsed(), 7 * SECOND);
    assert!(body.frame().await.is_none());
    assert_eq!(counted(&exchange), 1);
}

#[test]
fn a_request_pays_a_pointer() {
    assert_eq!(size_of::<ResponseFuture<u64>>(), 16);
    assert_eq!(size_of::<TryIdleBody<u64>>(), 24);
}
