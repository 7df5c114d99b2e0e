//! The outbound stack without a network, for those that measure it.
//!
//! The layers are those of `mesh_client::Parts::outbound`, in the same order, over an endpoint
//! that answers at once; the client's own are over its connections and cannot be had without.

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use mesh_client::{Body, Spawn};
use mesh_core::model::{
    AccessLog, Address, Cluster, ClusterEntry, EndpointSet, HttpManager, Outlier, Retry, RetryOn,
    RouteTable, Rule, Snapshot, SnapshotBuilder, VirtualHost, WorkloadRef,
};
use mesh_core::stats::{Block, HttpStat};
use mesh_core::{Caller, Error, Exchange, Feed};
use mesh_lb::{Dispatch, Host};
use mesh_resilience::{DeadlineLayer, FaultLayer, IdleLayer, RateLayer, RetryLayer, TimeoutLayer};
use mesh_route::{CorsLayer, EditLayer, MirrorLayer, ReplyLayer, RespondLayer, RouteLayer};
use mesh_telemetry::{AccountLayer, FinishLayer, Telemetry};
use std::future::{Ready, ready};
use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tower_layer::Layer;
use tower_service::Service;

/// Answers at once.
#[derive(Clone)]
pub(crate) struct Endpoint;

impl Service<Request<Body>> for Endpoint {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Ready<Result<Response<Body>, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        drop(black_box(request));
        ready(Ok(Response::new(Body::from(Bytes::from_static(b"ok")))))
    }
}

pub(crate) fn snapshot(policies: bool) -> Arc<Snapshot> {
    let mut rule = Rule::prefix_to("/reviews", "reviews");
    let mut cluster = Cluster::new("reviews");
    if policies {
        let mut retry = Retry::default();
        retry.attempts = 2;
        retry.on = RetryOn::SERVER_ERROR.with(RetryOn::CONNECT_FAILURE);
        retry.per_try_timeout = Some(Duration::from_secs(2));
        rule.retry = Some(Arc::new(retry));
        rule.timeout = Some(Duration::from_secs(10));
        rule.idle_timeout = Some(Duration::from_secs(60));
        cluster.outlier = Some(Outlier::default());
    }
    let mut builder = SnapshotBuilder::new();
    let host = VirtualHost::new("reviews", ["reviews", "reviews:9080"]).rule(rule);
    builder.routes(RouteTable::new("t").host(host));
    let endpoints = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"].map(|address| {
        let address: Address = address.parse().expect("an address");
        address
    });
    builder.endpoints("reviews", EndpointSet::of(endpoints));
    builder.cluster(cluster);
    builder.build().expect("consistent").0
}

pub(crate) fn outbound(
    feed: Feed<Snapshot>,
) -> impl Service<
    Request<Body>,
    Response = Response<impl HttpBody<Data = Bytes, Error = Error>>,
    Error = Error,
> + Clone {
    let stack = Dispatch::new(|_: &Arc<Host>, _: &Arc<ClusterEntry>| Endpoint);
    let stack = TimeoutLayer::per_try().layer(stack);
    let stack = RetryLayer::<Body>::per_route().layer(stack);
    let stack = DeadlineLayer::per_route().layer(stack);
    let stack = IdleLayer::per_route().layer(stack);
    let stack = AccountLayer::per_route().layer(stack);
    let stack = MirrorLayer::per_route().executor(Spawn).layer(stack);
    let stack = RespondLayer::per_route().layer(stack);
    let stack = EditLayer::per_route().layer(stack);
    let stack = CorsLayer::per_route().layer(stack);
    let stack = FaultLayer::per_route().layer(stack);
    let stack = RateLayer::per_route().layer(stack);
    RouteLayer::new(feed).table("t").layer(stack)
}

pub(crate) fn request() -> Request<Body> {
    Request::get("/reviews/1")
        .header("host", "reviews:9080")
        .header("user-agent", "curl/8.5.0")
        .header("accept", "*/*")
        .body(Body::empty())
        .expect("valid")
}

pub(crate) fn caller(log: bool) -> Caller {
    let mut manager = HttpManager::new("outbound", "t");
    if log {
        manager.access_log = vec![AccessLog {
            path: "/log".into(),
            format: "".into(),
        }];
    }
    let mut caller = Caller::default();
    caller.manager = Some(Arc::new(manager));
    caller.stats = Some(Arc::<Block<HttpStat>>::default());
    caller
}

/// Calls and reads the response to its end. Nothing ever waits, so one poll does it.
pub(crate) fn drive<S, R>(
    runtime: &tokio::runtime::Runtime,
    service: &mut S,
    request: Request<Body>,
) where
    S: Service<Request<Body>, Response = Response<R>>,
    S::Error: std::fmt::Debug,
    R: HttpBody<Data = Bytes>,
    R::Error: std::fmt::Debug,
{
    runtime.block_on(async {
        let response = service.call(request).await.expect("answered");
        assert!(response.status() == 200);
        let body = response.into_body().collect().await.expect("whole");
        black_box(body);
    });
}

/// The whole stack with metrics, what writes its logs to nowhere, and how a request of it begins.
pub(crate) fn accounted(
    feed: Feed<Snapshot>,
    log: bool,
) -> (
    Arc<Telemetry>,
    impl Service<
        Request<Body>,
        Response = Response<impl HttpBody<Data = Bytes, Error: std::fmt::Debug>>,
        Error: std::fmt::Debug,
    >,
    impl Fn() -> Request<Body>,
) {
    let telemetry = Telemetry::new(WorkloadRef::default()).output("/log", io::sink());
    let telemetry = Arc::new(telemetry);
    let stack = ReplyLayer::new().layer(outbound(feed));
    let stack = FinishLayer::<Body>::new(telemetry.clone()).layer(stack);
    let caller = Arc::new(caller(log));
    let next = move || {
        let mut request = request();
        let now = tokio::time::Instant::now().into_std();
        Exchange::new(now, caller.clone()).attach(&mut request);
        request
    };
    (telemetry, stack, next)
}
