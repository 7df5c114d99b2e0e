//! The places where people put layers, each with an upstream behind it and a caller before it.

use crate::outcome::{Outcome, answer, outcome};
use crate::pipe::{self, Connector};
use axum::Router;
use axum::body::Body;
use axum::error_handling::HandleErrorLayer;
use axum::routing::Route;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header, request};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use mesh_core::{BoxError, reply};
use mesh_test::Probe;
use std::convert::Infallible;
use tonic::client::GrpcService;
use tonic::service::Routes;
use tonic::transport::Channel;
use tower::layer::util::Identity;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

/// What is sent: a gRPC message, five bytes of head and `hello`.
pub(crate) const MESSAGE: &str = "\0\0\0\0\x05hello";

/// What is answered: a gRPC message too, and long enough to be compressed.
pub(crate) const ANSWER: &str =
    "\0\0\0\0\x40the answer is the same for everyone and sixty-four letters long.";

/// What a layer makes of a service, for requests with bodies of type `B`.
pub(crate) trait Layered<B>:
    Service<
        Request<B>,
        Response = Response<<Self as Layered<B>>::Answer>,
        Error: Into<BoxError> + Send,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
    type Answer: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static;
}

impl<S, B, R> Layered<B> for S
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send + 'static,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
{
    type Answer = R;
}

/// A type that takes bodies of any other in a box, as those of axum and tonic do.
pub(crate) trait Boxes:
    http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Sized
{
    fn boxes<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;
}

impl Boxes for Body {
    fn boxes<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self::new(body)
    }
}

impl Boxes for tonic::body::Body {
    fn boxes<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self::new(body)
    }
}

// === the places ===

pub(crate) async fn on_an_axum_router<L>(layer: L, request: request::Builder) -> Outcome
where
    L: Layer<Route, Service: Layered<Body, Error: Into<Infallible>>>,
    L: Clone + Send + Sync + 'static,
{
    let probe = Probe::new();
    let app: Router = upstream(&probe).layer(layer);
    outcome(app, plain(request), probe).await
}

/// As above, for layers that fail: axum only takes those that do not.
pub(crate) async fn on_an_axum_router_answered<L>(layer: L, request: request::Builder) -> Outcome
where
    L: Layer<Route, Service: Layered<Body>> + Clone + Send + Sync + 'static,
{
    let layers = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(answer))
        .layer(layer);
    on_an_axum_router(layers, request).await
}

pub(crate) async fn on_a_tonic_server<L>(layer: L, request: request::Builder) -> Outcome
where
    L: Layer<Routes, Service: Layered<tonic::body::Body>> + Clone + Send + Sync + 'static,
{
    let probe = Probe::new();
    let channel = pipe::channel(layer, upstream(&probe));
    outcome(channel, grpc(request), probe).await
}

/// As above, for layers that fail: tonic takes them, but then resets the stream, and nobody can
/// see why.
pub(crate) async fn on_a_tonic_server_answered<L>(layer: L, request: request::Builder) -> Outcome
where
    L: Layer<Routes, Service: Layered<tonic::body::Body>> + Clone + Send + Sync + 'static,
{
    let layers = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(answer))
        .layer(layer);
    on_a_tonic_server(layers, request).await
}

pub(crate) async fn before_a_tonic_channel<L>(layer: L, request: request::Builder) -> Outcome
where
    L: Layer<Channel, Service: Layered<tonic::body::Body>>,
{
    let probe = Probe::new();
    let channel = pipe::channel(Identity::new(), upstream(&probe));
    let channel = for_generated_clients(layer.layer(channel));
    outcome(channel, grpc(request), probe).await
}

pub(crate) async fn before_hyper_utils_client<L>(layer: L, request: request::Builder) -> Outcome
where
    L: Layer<Client<Connector, Body>, Service: Layered<Body>>,
{
    let probe = Probe::new();
    let client = Client::builder(TokioExecutor::new()).build(Connector(upstream(&probe)));
    outcome(layer.layer(client), plain(request), probe).await
}

/// Checks what the clients that tonic generates ask of their channel.
fn for_generated_clients<T>(channel: T) -> T
where
    T: GrpcService<tonic::body::Body>,
    T::Error: Into<BoxError>,
    T::ResponseBody: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
{
    channel
}

// === both ends ===

fn plain(request: request::Builder) -> Request<Body> {
    request.body(Body::from(MESSAGE)).unwrap()
}

fn grpc(request: request::Builder) -> Request<tonic::body::Body> {
    let request = request
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers");
    let body = tonic::body::Body::new(Full::from(MESSAGE));
    request.body(body).unwrap()
}

/// Notes what it receives and gives everyone the same answer, with trailers for gRPC.
fn upstream(probe: &Probe) -> Router {
    let probe = probe.clone();
    Router::new().fallback(move |request: Request<Body>| {
        let probe = probe.clone();
        async move {
            let grpc = reply::is_grpc(request.headers());
            probe.oneshot(request).await.expect("it answers everything");
            let (kind, trailers) = match grpc {
                true => {
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static("0"));
                    ("application/grpc", Some(trailers))
                }
                false => ("text/plain", None),
            };
            let body = mesh_test::chunks([ANSWER], trailers);
            ([(header::CONTENT_TYPE, kind)], Body::new(body))
        }
    })
}
