//! The client among other people's parts: below axum and hyper-util, under tower-http's layers,
//! around layers that make callers wait. Backends are on loopback; callers are in memory.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::routing::any;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use mesh_client::{Body, MeshClient, Slot};
use mesh_core::model::{
    Cluster, EndpointSet, Retry, RetryOn, RouteTable, Rule, Snapshot, SnapshotBuilder,
    UpstreamProtocol, VirtualHost,
};
use mesh_core::stats::ClusterStat;
use mesh_core::{BoxError, Publisher};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::task::JoinSet;
use tower::limit::ConcurrencyLimitLayer;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_http::set_header::{SetRequestHeaderLayer, SetResponseHeaderLayer};
use tower_http::trace::TraceLayer;
use tower_layer::layer_fn;

// === the world ===

async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// One rule, which sends everything to one backend, with these changes.
fn mesh(
    backend: SocketAddr,
    change: impl FnOnce(&mut Rule, &mut Cluster),
) -> (Publisher<Snapshot>, mesh_client::Builder) {
    let mut rule = Rule::prefix_to("/", "backend");
    let mut cluster = Cluster::new("backend");
    change(&mut rule, &mut cluster);
    let mut host = VirtualHost::new("all", ["*"]).rule(rule);
    host.count_attempts = true;
    let mut builder = SnapshotBuilder::new();
    builder.routes(RouteTable::new("t").host(host));
    builder
        .cluster(cluster)
        .endpoints("backend", EndpointSet::of([backend]));
    let publisher = Publisher::from_arc(builder.build().unwrap().0);
    let client = MeshClient::builder(publisher.feed(), "t").seed(1);
    (publisher, client)
}

fn plain(backend: SocketAddr) -> MeshClient {
    mesh(backend, |_, _| {}).1.build()
}

async fn text<B>(response: Response<B>) -> (u16, String)
where
    B: http_body::Body<Error: std::fmt::Debug>,
{
    (
        response.status().as_u16(),
        mesh_test::read(response.into_body()).await,
    )
}

fn request(uri: &str) -> Request<Empty<Bytes>> {
    Request::get(uri).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn a_client_that_is_swept_has_no_configuration_from_before() {
    let backend = serve(Router::new().fallback(|| async { "theirs" })).await;
    let (publisher, client) = mesh(backend, |_, _| {});
    let client = client.build();
    let answer = client.clone().oneshot(request("http://backend/")).await;
    assert_eq!(text(answer.unwrap()).await, (200, "theirs".into()));
    let old = Arc::downgrade(&publisher.load());
    publisher.publish(mesh(backend, |_, _| {}).0.load());
    assert!(old.upgrade().is_some());
    client.sweep(std::time::Instant::now());
    assert!(old.upgrade().is_none());
}

// === frameworks around the client ===

#[tokio::test]
async fn an_axum_router_falls_back_to_the_mesh() {
    let backend = serve(Router::new().route("/theirs", any(|body: String| async { body }))).await;
    let app = Router::new()
        .route("/ours", any(|| async { "ours" }))
        .fallback_service(plain(backend));
    for (path, status, expected) in [
        ("/ours", 200, "ours"),
        ("/theirs", 200, "sent"),
        ("/nowhere", 404, ""),
    ] {
        let request = Request::post(path)
            .header("host", "backend")
            .body(axum::body::Body::from("sent"));
        let response = app.clone().oneshot(request.unwrap()).await.unwrap();
        assert_eq!(text(response).await, (status, expected.into()), "{path}");
    }
}

#[tokio::test]
async fn an_axum_router_answers_what_the_mesh_answers_when_nobody_listens() {
    // Bound and given up again, so that connections are refused.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let app: Router = Router::new().fallback_service(plain(address));
    let request = request("http://backend/").map(axum::body::Body::new);
    let (status, body) = text(app.oneshot(request).await.unwrap()).await;
    assert_eq!(status, 503);
    assert!(body.starts_with("upstream connect error"), "{body}");
}

#[tokio::test]
async fn tower_https_layers_go_around_the_client() {
    let seen = |headers: HeaderMap| async move {
        let value = headers.get("x-asked").and_then(|value| value.to_str().ok());
        value.unwrap_or("nothing").to_owned()
    };
    let backend = serve(Router::new().fallback(seen)).await;
    let (asked, told) = (
        HeaderValue::from_static("yes"),
        HeaderValue::from_static("too"),
    );
    let service = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(SetRequestHeaderLayer::overriding(
            "x-asked".parse().unwrap(),
            asked,
        ))
        .layer(SetResponseHeaderLayer::overriding(
            "x-told".parse().unwrap(),
            told,
        ))
        .service(plain(backend));
    let response = service.oneshot(request("http://a/")).await.unwrap();
    assert_eq!(response.headers()["x-told"], "too");
    assert_eq!(text(response).await, (200, "yes".into()));
}

/// Serves `service` as hyper-util does: on each connection a clone of it for each request.
async fn connect<S, B>(service: S) -> http2::SendRequest<Full<Bytes>>
where
    S: Service<Request<hyper::body::Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        let service = TowerToHyperService::new(service);
        let server = auto::Builder::new(TokioExecutor::new()).http2_only();
        // Ends with the caller.
        let _ = server.serve_connection(TokioIo::new(theirs), service).await;
    });
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(ours))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

/// Sends so many requests at once over one connection; each has to get its own answer.
async fn send_at_once(sender: &http2::SendRequest<Full<Bytes>>, count: usize) {
    let mut all = JoinSet::new();
    for number in 0..count {
        let mut sender = sender.clone();
        all.spawn(async move {
            sender.ready().await.unwrap();
            let request = Request::post("http://backend/")
                .body(Full::from(number.to_string()))
                .unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(text(response).await, (200, number.to_string()));
        });
    }
    let waiting = async {
        while let Some(done) = all.join_next().await {
            done.unwrap();
        }
    };
    let limit = Duration::from_secs(30);
    tokio::time::timeout(limit, waiting)
        .await
        .expect("no request is stuck");
}

/// Answers what it is sent, and notes the most requests that there were at once.
async fn busy_backend() -> (SocketAddr, Arc<AtomicUsize>) {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let noted = most.clone();
    let handler = move |body: String| async move {
        most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
        // Others get their turn.
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        now.fetch_sub(1, SeqCst);
        body
    };
    (serve(Router::new().fallback(handler)).await, noted)
}

#[tokio::test]
async fn hyper_utils_adapter_serves_sixty_four_streams_from_clones() {
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::AsDownstream] {
        let (backend, most) = busy_backend().await;
        let (_, client) = mesh(backend, |_, cluster| cluster.protocol = protocol);
        let sender = connect(client.build()).await;
        send_at_once(&sender, 64).await;
        assert!(most.load(SeqCst) > 1, "streams do not wait for each other");
    }
}

// === other people's layers in the slots ===

/// A service that belongs to whoever made it ready, as tonic's channel does: a clone is not
/// ready, readiness takes a while, and a call without it panics.
struct Particular<S> {
    inner: S,
    asked: bool,
    ready: bool,
}

impl<S: Clone> Clone for Particular<S> {
    fn clone(&self) -> Self {
        Self::around(self.inner.clone())
    }
}

impl<S> Particular<S> {
    fn around(inner: S) -> Self {
        Self {
            inner,
            asked: false,
            ready: false,
        }
    }
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Particular<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if !std::mem::replace(&mut self.asked, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.ready = true;
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        assert!(self.ready, "this clone was never ready");
        (self.asked, self.ready) = (false, false);
        self.inner.call(request)
    }
}

#[tokio::test]
async fn a_limit_of_one_in_every_slot_lets_sixty_four_streams_through_one_by_one() {
    let slot = || Slot::new(ConcurrencyLimitLayer::new(1));
    let (backend, most) = busy_backend().await;
    let (_, client) = mesh(backend, |_, cluster| {
        cluster.protocol = UpstreamProtocol::Http2
    });
    let client = client
        .before_route(slot())
        .after_route(slot())
        .per_attempt(slot());
    let sender = connect(client.build()).await;
    send_at_once(&sender, 64).await;
    assert_eq!(most.load(SeqCst), 1);
}

#[tokio::test]
async fn a_service_that_is_ready_only_for_its_owner_works_in_every_slot() {
    let slot = || Slot::new(layer_fn(Particular::around));
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let (backend, _) = busy_backend().await;
        let (_, client) = mesh(backend, |_, cluster| cluster.protocol = protocol);
        let client = client
            .before_route(slot())
            .after_route(slot())
            .per_attempt(slot());
        let sender = connect(client.build()).await;
        send_at_once(&sender, 64).await;
    }
}

#[tokio::test]
async fn a_slot_that_is_never_ready_holds_up_its_own_request_alone() {
    /// Is never ready for the first who asks.
    #[derive(Clone)]
    struct Stuck<S> {
        inner: S,
        first: Arc<AtomicBool>,
        stuck: bool,
    }
    impl<S: Service<Request<Body>>> Service<Request<Body>> for Stuck<S> {
        type Response = S::Response;
        type Error = S::Error;
        type Future = S::Future;
        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
            self.stuck |= self.first.swap(false, SeqCst);
            match self.stuck {
                true => Poll::Pending,
                false => self.inner.poll_ready(cx),
            }
        }
        fn call(&mut self, request: Request<Body>) -> S::Future {
            self.inner.call(request)
        }
    }
    type Place = fn(mesh_client::Builder, Slot) -> mesh_client::Builder;
    let places: [Place; 3] = [
        |builder, slot| builder.before_route(slot),
        |builder, slot| builder.after_route(slot),
        |builder, slot| builder.per_attempt(slot),
    ];
    for place in places {
        let (backend, _) = busy_backend().await;
        let first = Arc::new(AtomicBool::new(true));
        let theirs = first.clone();
        let slot = Slot::new(layer_fn(move |inner| Stuck {
            inner,
            first: theirs.clone(),
            stuck: false,
        }));
        let client = place(mesh(backend, |_, _| {}).1, slot).build();
        let sender = connect(client).await;
        let mut waiting = sender.clone();
        let request = Request::post("http://backend/").body(Full::from("stuck"));
        let stuck = tokio::spawn(waiting.send_request(request.unwrap()));
        while first.load(SeqCst) {
            tokio::task::yield_now().await;
        }
        // On the same connection, behind the one that waits.
        send_at_once(&sender, 8).await;
        assert!(!stuck.is_finished());
        stuck.abort();
    }
}

// === retries through everything ===

/// What the backend got: the attempt's number and its body.
type Got = Arc<Mutex<Vec<(String, Bytes)>>>;

/// Reads every request whole, and refuses the first two.
async fn refuses_twice(
    State(got): State<Got>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<String> {
    let attempt = headers["x-envoy-attempt-count"]
        .to_str()
        .unwrap()
        .to_owned();
    let mut got = got.lock().unwrap();
    got.push((attempt, body.clone()));
    let status = match got.len() {
        1 | 2 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    };
    let mut response = Response::new(body.len().to_string());
    *response.status_mut() = status;
    response
}

fn retry() -> Retry {
    let mut retry = Retry::default();
    retry.attempts = 3;
    retry.on = RetryOn::SERVER_ERROR;
    retry.backoff_base = Duration::from_millis(1);
    retry.backoff_max = Duration::from_millis(1);
    retry
}

/// A body of unknown length in so many pieces of 64 KiB, no two alike.
fn pieces(count: u8) -> impl http_body::Body<Data = Bytes, Error = Infallible> + Send {
    let piece = |number: u8| Bytes::from(vec![number; 64 * 1024]);
    let frames = (0..count).map(move |number| Ok(http_body::Frame::data(piece(number))));
    StreamBody::new(futures_util::stream::iter(frames))
}

#[tokio::test]
async fn a_body_is_sent_whole_with_every_attempt() {
    let whole: Bytes = (0..12_u8)
        .flat_map(|number| vec![number; 64 * 1024])
        .collect();
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let got = Got::default();
        let router = Router::new()
            .fallback(refuses_twice)
            .with_state(got.clone());
        let backend = serve(router).await;
        let (publisher, client) = mesh(backend, |rule, cluster| {
            cluster.protocol = protocol;
            rule.retry = Some(Arc::new(retry()));
            rule.timeout = Some(Duration::from_secs(30));
        });
        let request = Request::post("http://backend/").body(pieces(12)).unwrap();
        let response = client.build().oneshot(request).await.unwrap();
        assert_eq!(text(response).await, (200, whole.len().to_string()));
        let got = got.lock().unwrap();
        let attempts: Vec<_> = got.iter().map(|(attempt, _)| attempt.as_str()).collect();
        assert_eq!(attempts, ["1", "2", "3"]);
        assert!(
            got.iter().all(|(_, body)| *body == whole),
            "each attempt's body is whole"
        );
        let snapshot = publisher.load();
        let stats = snapshot.clusters()[0].live().stats().block();
        assert_eq!(stats.get(ClusterStat::RqTotal), 3);
        assert_eq!(stats.get(ClusterStat::RqRetry), 2);
        assert_eq!(stats.get(ClusterStat::RqRetrySuccess), 1);
    }
}

#[tokio::test]
async fn a_body_too_large_to_keep_gets_the_first_answer() {
    let got = Got::default();
    let router = Router::new()
        .fallback(refuses_twice)
        .with_state(got.clone());
    let backend = serve(router).await;
    let (_, client) = mesh(backend, |rule, _| rule.retry = Some(Arc::new(retry())));
    // More than 1 MiB.
    let request = Request::post("http://backend/").body(pieces(17)).unwrap();
    let response = client.build().oneshot(request).await.unwrap();
    assert_eq!(text(response).await, (503, (17 * 64 * 1024).to_string()));
    assert_eq!(got.lock().unwrap().len(), 1);
}
