use super::*;
use bytes::Bytes;
use http::StatusCode;
use http_body::Frame;
use http_body_util::BodyExt;
use mesh_core::model::{HttpManager, Rule};
use mesh_core::{Caller, Failure, Flags};
use mesh_test::{Answers, BoxedBody, Probe, contract, empty, fixture};
use std::sync::Arc;
use tokio::time::{Instant, Sleep};
use tower::{ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn keeps_the_contract_of_a_layer() {
    contract::check(IdleLayer::fixed(SECOND)).await;
    contract::check(IdleLayer::per_route()).await;
}

/// Waits these times before its frames, then for ever.
pub(super) struct Pauses(Vec<Duration>, Option<Pin<Box<Sleep>>>);

impl Pauses {
    pub(super) fn of(pauses: &[Duration]) -> Self {
        Self(pauses.iter().rev().copied().collect(), None)
    }
}

impl Body for Pauses {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(pause) = self.0.last().copied() else {
            return Poll::Pending;
        };
        let sleep = self
            .1
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        ready!(sleep.as_mut().poll(cx));
        self.1 = None;
        self.0.pop();
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_has_not_sent_its_request_is_to_blame() {
    for (whole, status) in [(true, 504), (false, 408)] {
        let exchange = fixture::exchange(idle_rule(SECOND), None);
        if whole {
            exchange.set_request_is_whole();
        }
        let service = IdleLayer::per_route().layer(Probe::answering([Answers::Never]));
        let request = fixture::with(Request::new(empty()), &exchange);
        let error = service.oneshot(request).await.unwrap_err();
        assert_eq!(error.failure(), Failure::StreamIdle);
        assert_eq!(error.status(), status);
    }
}

#[tokio::test(start_paused = true)]
async fn each_frame_begins_the_limit_anew() {
    let exchange = fixture::exchange(idle_rule(2 * SECOND), None);
    let service = IdleLayer::per_route().layer(service_fn(|_: Request<BoxedBody>| async {
        let pauses = [SECOND, SECOND, SECOND * 3 / 2, SECOND];
        Ok::<_, BoxError>(Response::new(Pauses::of(&pauses)))
    }));
    let request = fixture::with(Request::new(empty()), &exchange);
    let mut body = service.oneshot(request).await.unwrap().into_body();
    let start = Instant::now();
    for _ in 0..4 {
        assert!(body.frame().await.unwrap().is_ok());
    }
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(error.failure(), Failure::StreamIdle);
    assert_eq!(start.elapsed(), SECOND * 13 / 2);
    assert!(body.frame().await.is_none());
    assert_eq!(exchange.flags(), Flags::SI);
}

fn idle_rule(limit: Duration) -> Rule {
    let mut rule = Rule::prefix_to("/", "a");
    rule.idle_timeout = Some(limit);
    rule
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_while_nothing_moves_is_an_error() {
    let exchange = fixture::exchange(idle_rule(SECOND), None);
    let service = IdleLayer::per_route().layer(Probe::answering([Answers::Never]));
    let request = fixture::with(Request::new(empty()), &exchange);
    let error = service.oneshot(request).await.unwrap_err();
    assert_eq!(error.failure(), Failure::StreamIdle);
    assert!(exchange.timed_out());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_still_arrives_is_progress() {
    let exchange = fixture::exchange(idle_rule(2 * SECOND), None);
    let service = IdleLayer::per_route().layer(Probe::answering([Answers::Never]));
    let request = fixture::with(Request::new(empty()), &exchange);
    let start = Instant::now();
    let upload = async {
        for _ in 0..9 {
            tokio::time::sleep(SECOND).await;
            exchange.count_received(1);
        }
    };
    let (result, ()) = tokio::join!(service.oneshot(request), upload);
    assert_eq!(result.unwrap_err().failure(), Failure::StreamIdle);
    let idle = start.elapsed() - 9 * SECOND;
    assert!(idle >= 2 * SECOND && idle <= 4 * SECOND, "{idle:?}");
}

#[tokio::test(start_paused = true)]
async fn the_rules_limit_goes_before_the_listeners_and_zero_switches_it_off() {
    for (rule, expected) in [
        (None, Some(5 * SECOND)),
        (Some(SECOND), Some(SECOND)),
        (Some(Duration::ZERO), None),
    ] {
        let mut manager = HttpManager::new("l", "t");
        manager.stream_idle_timeout = Some(5 * SECOND);
        let mut caller = Caller::default();
        caller.manager = Some(Arc::new(manager));
        let exchange = Exchange::new(Instant::now().into_std(), caller);
        let mut ruled = Rule::prefix_to("/", "a");
        ruled.idle_timeout = rule;
        let matched = fixture::exchange(ruled, None).matched().unwrap().clone();
        exchange.set_matched(matched);

        let start = Instant::now();
        let answer = Answers::After(60 * SECOND, StatusCode::OK);
        let service = IdleLayer::per_route().layer(Probe::answering([answer]));
        let request = fixture::with(Request::new(empty()), &exchange);
        let result = service.oneshot(request).await;
        assert_eq!(result.is_err(), expected.is_some());
        assert_eq!(start.elapsed(), expected.unwrap_or(60 * SECOND));
    }
}

#[test]
fn the_future_is_small() {
    // On top of the inner future and the body, with a limit or without.
    assert!(size_of::<ResponseFuture<()>>() <= 216);
    assert_eq!(size_of::<IdleBody<u64>>(), 88 + 8);
}
