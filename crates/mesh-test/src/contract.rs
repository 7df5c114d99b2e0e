//! What every layer of the toolkit keeps, whatever it does.

use crate::{Answers, BoxedBody, Probe, read, text};
use http::{Request, Response, StatusCode};
use http_body::Body;
use mesh_core::{BoxError, Error, Failure};
use std::future::Future;
use std::task::{Context, Waker};
use tower::ServiceExt;
use tower_layer::Layer;
use tower_service::Service;

/// Checks a layer that has no policy to apply, with a third-party inner service, a boxed body and
/// no exchange:
///
/// 1. a request and its response pass through unchanged, body and all;
/// 2. the inner service is only called after its own `poll_ready`, on clones too;
/// 3. dropping the response future drops the inner one, and the service works afterwards;
/// 4. an error of ours keeps its failure, a foreign one becomes [`Failure::Internal`].
///
/// # Panics
/// If the layer breaks one of these.
pub async fn check<L, S, R>(layer: L)
where
    L: Layer<Probe, Service = S>,
    S: Service<Request<BoxedBody>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: Body,
    R::Error: std::fmt::Debug,
{
    passes_through(&layer).await;
    is_ready_before_each_call(&layer).await;
    can_be_dropped(&layer).await;
    keeps_failures(&layer).await;
}

/// The first three checks alone, for layers whose error type cannot carry a failure.
///
/// # Panics
/// If the layer breaks one of these.
pub async fn check_infallible<L, S, R>(layer: L)
where
    L: Layer<Probe, Service = S>,
    S: Service<Request<BoxedBody>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: Body,
    R::Error: std::fmt::Debug,
{
    passes_through(&layer).await;
    is_ready_before_each_call(&layer).await;
    can_be_dropped(&layer).await;
}

fn request() -> Request<BoxedBody> {
    Request::post("http://reviews:9080/a?b=c")
        .header("x-kept", "yes")
        .body(text("hello"))
        .expect("valid")
}

async fn passes_through<L, S, R>(layer: &L)
where
    L: Layer<Probe, Service = S>,
    S: Service<Request<BoxedBody>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: Body,
    R::Error: std::fmt::Debug,
{
    let mut headers = http::HeaderMap::new();
    headers.insert("x-answer", http::HeaderValue::from_static("yes"));
    let probe = Probe::answering([Answers::WithHeaders(StatusCode::CREATED, headers, "world")]);
    let response = layer
        .layer(probe.clone())
        .oneshot(request())
        .await
        .map_err(Into::into);
    let response = response.expect("without policy a layer lets the response through");
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.headers()["x-answer"], "yes");
    assert_eq!(read(response.into_body()).await, "world");
    let requests = probe.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].uri(), "http://reviews:9080/a?b=c");
    assert_eq!(requests[0].headers()["x-kept"], "yes");
    assert_eq!(requests[0].body(), "hello");
}

async fn is_ready_before_each_call<L, S, R>(layer: &L)
where
    L: Layer<Probe, Service = S>,
    S: Service<Request<BoxedBody>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    let probe = Probe::new();
    let mut service = layer.layer(probe.clone());
    for _ in 0..3 {
        // The probe panics on a call that was not announced.
        let ready = service.ready().await.map_err(Into::into).expect("ready");
        ready
            .call(request())
            .await
            .map_err(Into::into)
            .expect("answered");
        let copy = service.clone();
        copy.oneshot(request())
            .await
            .map_err(Into::into)
            .expect("answered by a clone");
    }
    assert_eq!(probe.calls(), 6);
}

async fn can_be_dropped<L, S, R>(layer: &L)
where
    L: Layer<Probe, Service = S>,
    S: Service<Request<BoxedBody>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    let probe = Probe::answering([Answers::Never]);
    let mut service = layer.layer(probe.clone());
    let ready = service.ready().await.map_err(Into::into).expect("ready");
    let mut waiting = Box::pin(ready.call(request()));
    // Polled a few times, so that a layer that works in several steps has reached its inner.
    for _ in 0..3 {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
    }
    drop(waiting);
    assert_eq!(
        probe.dropped(),
        1,
        "the inner future is dropped with the outer"
    );
    let response = service
        .oneshot(request())
        .await
        .map_err(Into::into)
        .expect("works again");
    assert_eq!(response.status(), StatusCode::OK);
}

async fn keeps_failures<L, S, R>(layer: &L)
where
    L: Layer<Probe, Service = S>,
    S: Service<Request<BoxedBody>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    let probe = Probe::answering([
        Answers::Fails(Failure::NoHealthyHost),
        Answers::FailsForeign("broken"),
    ]);
    let service = layer.layer(probe);
    for expected in [Failure::NoHealthyHost, Failure::Internal] {
        let Err(error) = service.clone().oneshot(request()).await else {
            panic!("the inner error is passed on")
        };
        assert_eq!(Error::wrap(error).failure(), expected);
    }
}
