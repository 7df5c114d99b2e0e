//! One cluster as a service over what other people send requests with: hyper-util's client, axum
//! routers and tonic channels. Backends with a network are on loopback.

use axum::Router;
use axum::body::Body;
use axum::error_handling::HandleError;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use mesh_core::model::{
    Balancing, Cluster, ClusterEntry, EndpointSet, Outlier, Snapshot, SnapshotBuilder,
};
use mesh_core::stats::ClusterStat;
use mesh_core::{BoxError, Error, Failure};
use mesh_lb::{Balance, Host, MakeEndpoint};
use mesh_test::fixture::address;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use tonic::transport::Channel;
use tower::{Service, ServiceExt};

// === the world ===

/// A cluster with these endpoints, each of which gets every n-th request. One failure ejects.
fn cluster(endpoints: EndpointSet) -> Arc<Snapshot> {
    let mut cluster = Cluster::new("c");
    cluster.balancing = Balancing::RoundRobin;
    let mut outlier = Outlier::default();
    outlier.consecutive_5xx = 1;
    outlier.max_ejection_percent = 100;
    cluster.outlier = Some(outlier);
    let mut builder = SnapshotBuilder::new();
    builder.cluster(cluster).endpoints("c", endpoints);
    builder.build().unwrap().0
}

async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Says who it is and what it was sent.
fn router(name: &str) -> Router {
    let name = name.to_owned();
    Router::new().fallback(move |request: Request| async move {
        let host = request.headers().get(header::HOST).cloned();
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut response = Response::new(Body::from(body));
        let mut tell = |header: &'static str, value: &str| {
            let value = HeaderValue::from_str(value).unwrap();
            response.headers_mut().insert(header, value);
        };
        tell("x-name", &name);
        tell("x-path", &path);
        tell(
            "x-host",
            host.as_ref().map_or("", |host| host.to_str().unwrap()),
        );
        response
    })
}

fn post(uri: &str) -> Request<Full<Bytes>> {
    Request::post(uri).body(Full::from("hello")).unwrap()
}

/// How many answers came from whom, of so many requests.
async fn names<S, B>(service: &S, count: usize) -> BTreeMap<String, usize>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error: std::fmt::Debug> + Clone,
    B: http_body::Body<Error: std::fmt::Debug>,
{
    let mut names = BTreeMap::new();
    for _ in 0..count {
        let response = service
            .clone()
            .oneshot(post("http://cluster.test/path"))
            .await;
        let response = response.unwrap();
        assert_eq!(response.status(), 200);
        let name = response.headers()["x-name"].to_str().unwrap().to_owned();
        *names.entry(name).or_default() += 1;
        assert_eq!(mesh_test::read(response.into_body()).await, "hello");
    }
    names
}

fn evenly<'a>(names: impl IntoIterator<Item = &'a str>, each: usize) -> BTreeMap<String, usize> {
    let row = |name: &str| (name.to_owned(), each);
    names.into_iter().map(row).collect()
}

// === hyper-util's client ===

/// hyper-util's client goes where the URI says, so the URI is made to say the chosen host. The
/// `host` header keeps what the caller asked for.
fn by_client() -> impl MakeEndpoint<
    Service = impl Service<
        Request<Full<Bytes>>,
        Response = http::Response<impl http_body::Body<Data = Bytes, Error: std::fmt::Debug>>,
        Error: Into<BoxError>,
        Future: Send,
    > + Clone,
> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    move |host: &Arc<Host>, _: &Arc<ClusterEntry>| {
        let to = host.address().to_string();
        client
            .clone()
            .map_request(move |mut request: Request<Full<Bytes>>| {
                let uri = request.uri();
                if let Some(asked) = uri.authority()
                    && let Ok(asked) = HeaderValue::from_str(asked.as_str())
                {
                    request.headers_mut().insert(header::HOST, asked);
                }
                let path = request
                    .uri()
                    .path_and_query()
                    .map_or("/", |path| path.as_str());
                let uri = Uri::builder()
                    .scheme("http")
                    .authority(&*to)
                    .path_and_query(path);
                *request.uri_mut() = uri.build().expect("an address is an authority");
                request
            })
    }
}

#[tokio::test]
async fn hyper_utils_client_is_balanced_and_follows_the_endpoints() {
    let (a, b, c) = (
        serve(router("a")).await,
        serve(router("b")).await,
        serve(router("c")).await,
    );
    let snapshot = cluster(EndpointSet::of([a, b, c]));
    let entry = &snapshot.clusters()[0];
    let balance = Balance::new(entry.clone(), by_client());
    assert_eq!(names(&balance, 9).await, evenly(["a", "b", "c"], 3));
    let response = balance
        .clone()
        .oneshot(post("http://cluster.test/path?q"))
        .await;
    let headers = response.unwrap().headers().clone();
    assert_eq!(headers["x-host"], "cluster.test");
    assert_eq!(headers["x-path"], "/path");

    entry
        .live()
        .publish_endpoints(Arc::new(EndpointSet::of([c, b])));
    assert_eq!(names(&balance, 8).await, evenly(["b", "c"], 4));
    assert_eq!(entry.live().stats().block().get(ClusterStat::RqTotal), 18);
    assert_eq!(entry.live().stats().block().get(ClusterStat::RqActive), 0);
}

#[tokio::test]
async fn a_host_that_hyper_utils_client_cannot_connect_to_is_ejected() {
    // Bound and given up again, so that connections are refused.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refuses = gone.local_addr().unwrap();
    drop(gone);
    let snapshot = cluster(EndpointSet::of([refuses, serve(router("a")).await]));
    let balance = Balance::new(snapshot.clusters()[0].clone(), by_client());
    let mut failures = 0;
    for _ in 0..2 {
        failures += usize::from(balance.clone().oneshot(post("http://c/")).await.is_err());
    }
    assert_eq!(failures, 1, "each host got one request");
    let ejected = balance
        .hosts()
        .view()
        .iter()
        .filter(|host| host.ejected)
        .count();
    assert_eq!(ejected, 1);
    assert_eq!(names(&balance, 6).await, evenly(["a"], 6));
}

// === axum routers ===

/// Each host is a router in this process.
fn by_router(host: &Arc<Host>, _: &Arc<ClusterEntry>) -> Router {
    router(&host.address().to_string())
}

#[tokio::test]
async fn routers_are_hosts_and_a_cluster_is_a_fallback() {
    let hosts = ["10.0.0.1:1", "10.0.0.2:1"];
    let snapshot = cluster(EndpointSet::of(hosts.map(address)));
    let balance = Balance::new(snapshot.clusters()[0].clone(), by_router);
    // axum wants a service that always answers.
    let answers = |error: Error| async move { (error.failure().row().status, "nobody there") };
    let app: Router = Router::new()
        .route("/ours", axum::routing::any(|| async { "ours" }))
        .fallback_service(HandleError::new(balance, answers));
    assert_eq!(names(&app, 6).await, evenly(hosts, 3));
    let ours = app.clone().oneshot(post("/ours")).await.unwrap();
    assert_eq!(mesh_test::read(ours.into_body()).await, "ours");

    let live = snapshot.clusters()[0].live();
    live.publish_endpoints(Arc::new(EndpointSet::of(Vec::<SocketAddr>::new())));
    let nobody = app.oneshot(post("/")).await.unwrap();
    assert_eq!(nobody.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(mesh_test::read(nobody.into_body()).await, "nobody there");
}

// === tonic's channel ===

/// A method that sends its message back, or fails with UNAVAILABLE if it is told so.
fn grpc(name: &'static str) -> Router {
    Router::new().fallback(move |headers: HeaderMap, body: Bytes| async move {
        let fails = headers.get("x-fail").is_some_and(|fail| fail == name);
        let mut trailers = HeaderMap::new();
        trailers.insert(
            "grpc-status",
            HeaderValue::from_static(if fails { "14" } else { "0" }),
        );
        let frames = [Frame::data(body), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
        let mut response = Response::new(Body::new(StreamBody::new(stream::iter(frames))));
        let headers = response.headers_mut();
        let grpc = HeaderValue::from_static("application/grpc");
        headers.insert(header::CONTENT_TYPE, grpc);
        headers.insert("x-name", HeaderValue::from_static(name));
        response
    })
}

fn by_channel(host: &Arc<Host>, _: &Arc<ClusterEntry>) -> Channel {
    let uri = format!("http://{}", host.address());
    Channel::from_shared(uri).expect("a URI").connect_lazy()
}

fn call() -> Request<tonic::body::Body> {
    const MESSAGE: &[u8] = b"\0\0\0\0\x05hello";
    Request::post("http://cluster.test/test.Echo/Echo")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(Full::from(MESSAGE)))
        .unwrap()
}

#[tokio::test]
async fn tonic_channels_are_hosts_and_trailers_come_through() {
    let snapshot = cluster(EndpointSet::of([
        serve(grpc("a")).await,
        serve(grpc("b")).await,
    ]));
    let balance = Balance::new(snapshot.clusters()[0].clone(), by_channel);
    let mut seen = BTreeMap::new();
    for _ in 0..6 {
        let response = balance.clone().oneshot(call()).await.unwrap();
        let name = response.headers()["x-name"].to_str().unwrap().to_owned();
        *seen.entry(name).or_default() += 1;
        let (message, trailers) = mesh_test::read_all(response.into_body()).await;
        assert_eq!(message, "\0\0\0\0\u{5}hello");
        assert_eq!(trailers.unwrap()["grpc-status"], "0");
    }
    assert_eq!(seen, evenly(["a", "b"], 3));
}

#[tokio::test]
async fn sixty_four_calls_at_once_share_two_channels() {
    let snapshot = cluster(EndpointSet::of([
        serve(grpc("a")).await,
        serve(grpc("b")).await,
    ]));
    let entry = snapshot.clusters()[0].clone();
    let balance = Balance::new(entry.clone(), by_channel);
    let calls = (0..64).map(|_| balance.clone().oneshot(call()));
    for response in futures_util::future::join_all(calls).await {
        let (message, _) = mesh_test::read_all(response.unwrap().into_body()).await;
        assert_eq!(message, "\0\0\0\0\u{5}hello");
    }
    let totals: Vec<_> = balance
        .hosts()
        .view()
        .iter()
        .map(|host| host.counts.rq_total)
        .collect();
    assert_eq!(totals, [32, 32]);
    assert_eq!(entry.live().stats().block().get(ClusterStat::RqActive), 0);
}

#[tokio::test]
async fn a_tonic_channel_that_cannot_connect_fails_the_call_and_counts_against_its_host() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refuses = gone.local_addr().unwrap();
    drop(gone);
    let snapshot = cluster(EndpointSet::of([refuses]));
    let balance = Balance::new(snapshot.clusters()[0].clone(), by_channel);
    let error = balance.clone().oneshot(call()).await.unwrap_err();
    assert_eq!(
        error.failure(),
        Failure::Internal,
        "tonic's errors are not ours"
    );
    assert!(balance.hosts().view()[0].ejected);
}
