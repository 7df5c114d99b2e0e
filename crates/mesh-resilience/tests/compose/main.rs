//! Each layer, and all of them together, on the services that people have: an axum router, a tonic
//! channel and server, and hyper-util's client. Everything runs over in-memory pipes.

mod grpc;
mod network;
mod respond;

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use bytes::Bytes;
use grpc::{Echo, echo};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use mesh_core::model::{Fault, Limits, RateLimit, Retry, RetryOn};
use mesh_core::{BoxError, Failure};
use mesh_resilience::{
    BreakerLayer, DeadlineLayer, FaultLayer, IdleLayer, MapRequestBodyLayer, OverloadLayer,
    RateLayer, ReplayBody, RetryLayer, TimeoutLayer, TryIdleLayer,
};
use network::{Protocol, connector};
use respond::RespondLayer;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tower::{ServiceBuilder, ServiceExt};
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::trace::TraceLayer;

const SECOND: Duration = Duration::from_secs(1);

fn policy() -> Retry {
    let mut policy = Retry::default();
    policy.attempts = 2;
    policy.on = RetryOn::SERVER_ERROR.with(RetryOn::GRPC_UNAVAILABLE);
    policy
}

fn bucket() -> RateLimit {
    RateLimit::new(100, 100, SECOND)
}

/// Answers what it is sent, but 503 to every request in turn while `failures` last.
fn router(failures: u32) -> Router {
    let left = Arc::new(AtomicU32::new(failures));
    let handler = move |body: String| async move {
        let fails = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        match fails {
            Ok(_) => (StatusCode::SERVICE_UNAVAILABLE, String::new()),
            Err(_) => (StatusCode::OK, body),
        }
    };
    Router::new().route("/", post(handler))
}

async fn text<B>(response: Response<B>) -> (u16, String)
where
    B: http_body::Body<Error: std::fmt::Debug>,
{
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

fn hello() -> Request<Body> {
    Request::post("http://echo/").body("hello".into()).unwrap()
}

/// Runs the block once for each layer, fixed and by route.
macro_rules! with_each_layer {
    (|$layer:ident| $run:expr) => {
        with_each_layer!(@ $layer, $run,
            TimeoutLayer::fixed(SECOND), TimeoutLayer::per_try(),
            DeadlineLayer::fixed(SECOND), DeadlineLayer::per_route(),
            IdleLayer::fixed(SECOND), IdleLayer::per_route(), TryIdleLayer::per_route(),
            BreakerLayer::new(Limits::envoy()), BreakerLayer::per_route(),
            RateLayer::fixed(bucket()), RateLayer::per_route(),
            FaultLayer::fixed(Fault::default()), FaultLayer::per_route(),
            OverloadLayer::fixed(10)
        )
    };
    (@ $name:ident, $run:expr, $($layer:expr),*) => {$({
        let $name = $layer;
        $run
    })*};
}

#[tokio::test(start_paused = true)]
async fn each_layer_works_on_an_axum_router() {
    with_each_layer!(|layer| {
        let layers = ServiceBuilder::new().layer(RespondLayer).layer(layer);
        let response = router(0).layer(layers).oneshot(hello()).await.unwrap();
        assert_eq!(text(response).await, (200, "hello".to_owned()));
    });
}

#[tokio::test(start_paused = true)]
async fn retries_work_on_an_axum_router_and_see_its_answers() {
    let layers = ServiceBuilder::new()
        .layer(RespondLayer)
        .layer(RetryLayer::<ReplayBody<Body>>::fixed(policy()))
        .layer(MapRequestBodyLayer::new(Body::new::<ReplayBody<Body>>));
    let response = router(2).layer(layers).oneshot(hello()).await.unwrap();
    assert_eq!(text(response).await, (200, "hello".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_becomes_the_routers_answer() {
    let layers = ServiceBuilder::new()
        .layer(RespondLayer)
        .layer(RateLayer::fixed(RateLimit::new(0, 1, SECOND)));
    let response = router(0).layer(layers).oneshot(hello()).await.unwrap();
    assert_eq!(text(response).await, (429, "local_rate_limited".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn each_layer_works_in_front_of_a_tonic_channel() {
    let server = Echo::failing(0);
    with_each_layer!(|layer| {
        let channel = network::channel(server.clone());
        let client = ServiceBuilder::new().layer(layer).service(channel);
        assert_eq!(echo(client, "hello").await.unwrap(), "hello");
    });
}

#[tokio::test(start_paused = true)]
async fn retries_work_in_front_of_a_tonic_channel() {
    let channel = network::channel(Echo::failing(2));
    let client = ServiceBuilder::new()
        .layer(RetryLayer::<ReplayBody<tonic::body::Body>>::fixed(policy()))
        .layer(MapRequestBodyLayer::new(
            tonic::body::Body::new::<ReplayBody<_>>,
        ))
        .service(channel);
    assert_eq!(echo(client, "hello").await.unwrap(), "hello");
}

#[tokio::test(start_paused = true)]
async fn each_layer_works_on_a_tonic_server() {
    with_each_layer!(|layer| {
        let server = ServiceBuilder::new().layer(layer).service(Echo::failing(0));
        assert_eq!(
            echo(network::channel(server), "hello").await.unwrap(),
            "hello"
        );
    });
}

#[tokio::test(start_paused = true)]
async fn retries_work_on_a_tonic_server() {
    let server = ServiceBuilder::new()
        .layer(RetryLayer::<ReplayBody<_>>::fixed(policy()))
        .layer(MapRequestBodyLayer::new(
            tonic::body::Body::new::<ReplayBody<hyper::body::Incoming>>,
        ))
        .service(Echo::failing(2));
    assert_eq!(
        echo(network::channel(server), "hello").await.unwrap(),
        "hello"
    );
}

#[tokio::test(start_paused = true)]
async fn a_tonic_client_sees_what_failed() {
    let layer = OverloadLayer::fixed(0);
    let client = layer_of(layer, network::channel(Echo::failing(0)));
    let status = echo(client, "hello").await.unwrap_err();
    assert!(status.message().contains("overloaded"), "{status}");
}

fn layer_of<L: tower::Layer<S>, S>(layer: L, service: S) -> L::Service {
    ServiceBuilder::new().layer(layer).service(service)
}

type Pipe = network::Connector<Router>;

fn client<B>(failures: u32) -> Client<Pipe, B>
where
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Send,
{
    let connector = connector(router(failures), Protocol::Http1);
    Client::builder(TokioExecutor::new()).build(connector)
}

#[tokio::test(start_paused = true)]
async fn each_layer_works_in_front_of_hyper_utils_client() {
    with_each_layer!(|layer| {
        let service = layer_of(layer, client::<Full<Bytes>>(0));
        let request = hello().map(|_| Full::new(Bytes::from_static(b"hello")));
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(text(response).await, (200, "hello".to_owned()));
    });
}

#[tokio::test(start_paused = true)]
async fn retries_work_in_front_of_hyper_utils_client_without_another_layer() {
    let layer = RetryLayer::<ReplayBody<Full<Bytes>>>::fixed(policy());
    let service = layer_of(layer, client(2));
    let request = hello().map(|_| Full::new(Bytes::from_static(b"hello")));
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(text(response).await, (200, "hello".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_fails_is_retried_as_a_reset() {
    let (connector, tried) = network::failing_connector(2, router(0));
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let layer = RetryLayer::<ReplayBody<Full<Bytes>>>::fixed(policy());
    let request = hello().map(|_| Full::new(Bytes::from_static(b"hello")));
    let response = layer_of(layer, client).oneshot(request).await.unwrap();
    assert_eq!(text(response).await, (200, "hello".to_owned()));
    assert_eq!(tried.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn all_of_them_work_together_and_with_tower_https() {
    let layers = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(SetResponseHeaderLayer::overriding(
            header::SERVER,
            http::HeaderValue::from_static("mesh"),
        ))
        .layer(CompressionLayer::new())
        .layer(RespondLayer)
        .layer(OverloadLayer::fixed(10))
        .layer(FaultLayer::fixed(Fault::default()))
        .layer(FaultLayer::per_route())
        .layer(RateLayer::fixed(bucket()))
        .layer(RateLayer::per_route())
        .layer(IdleLayer::fixed(SECOND))
        .layer(IdleLayer::per_route())
        .layer(DeadlineLayer::fixed(SECOND))
        .layer(DeadlineLayer::per_route())
        .layer(RetryLayer::<ReplayBody<Body>>::per_route())
        .layer(RetryLayer::<ReplayBody<ReplayBody<Body>>>::fixed(policy()))
        .layer(BreakerLayer::new(Limits::envoy()))
        .layer(BreakerLayer::per_route())
        .layer(TimeoutLayer::fixed(SECOND))
        .layer(TimeoutLayer::per_try())
        .layer(TryIdleLayer::per_route())
        .layer(MapRequestBodyLayer::new(
            Body::new::<ReplayBody<ReplayBody<Body>>>,
        ));
    let service = router(2).layer(layers);
    let mut request = hello();
    *request.body_mut() = "hello ".repeat(100).into();
    let headers = request.headers_mut();
    headers.insert(
        header::ACCEPT_ENCODING,
        http::HeaderValue::from_static("gzip"),
    );
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()[header::SERVER], "mesh");
    assert_eq!(response.headers()[header::CONTENT_ENCODING], "gzip");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(bytes[..2], [0x1f, 0x8b], "gzip's magic number");
}

#[tokio::test(start_paused = true)]
async fn they_work_inside_and_outside_of_towers_own() {
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::fixed(SECOND))
        .timeout(SECOND)
        .concurrency_limit(1)
        .layer(BreakerLayer::new(Limits::envoy()))
        .service(router(0));
    let response = service.oneshot(hello()).await.unwrap();
    assert_eq!(text(response).await, (200, "hello".to_owned()));

    let never = tower::service_fn(|_: Request<Body>| {
        std::future::pending::<Result<Response<Body>, BoxError>>()
    });
    let foreign = ServiceBuilder::new()
        .layer(BreakerLayer::new(Limits::envoy()))
        .timeout(Duration::from_millis(1))
        .service(never);
    let error = foreign.oneshot(hello()).await.unwrap_err();
    assert_eq!(error.failure(), Failure::Internal);
}
