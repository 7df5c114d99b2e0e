//! A proxy on loopback with backends that the test controls.
// Each test file uses its own part, and nobody outside the tests any.
#![allow(dead_code, unreachable_pub)]

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::Publisher;
use mesh_core::model::{
    Address, Cluster, EndpointSet, HttpManager, Listener, RouteTable, Rule, Snapshot,
    SnapshotBuilder, VirtualHost,
};
use mesh_proxy::{Proxy, Running};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};

pub mod ports;

pub use ports::free_address;

pub type Whole = Full<Bytes>;

/// A proxy with one listener and one table `t`.
pub struct Mesh {
    pub publisher: Publisher<Snapshot>,
    pub address: SocketAddr,
    pub proxy: Running,
}

impl Mesh {
    /// A proxy with these rules, and clusters with these backends.
    pub async fn start(
        workers: usize,
        rules: Vec<Rule>,
        clusters: Vec<(Cluster, Vec<SocketAddr>)>,
    ) -> Self {
        let address = free_address();
        let snapshot = build(None, address, rules, clusters);
        let publisher = Publisher::from_arc(snapshot);
        let proxy = Proxy::builder(publisher.feed())
            .concurrency(workers)
            .admin(Some(SocketAddr::from(([127, 0, 0, 1], 0))))
            .start()
            .await
            .unwrap();
        let listening = proxy.ready().await;
        assert!(listening.failed.is_empty(), "{listening:?}");
        Self {
            publisher,
            address,
            proxy,
        }
    }

    /// Replaces the configuration.
    pub fn publish(&self, rules: Vec<Rule>, clusters: Vec<(Cluster, Vec<SocketAddr>)>) {
        let previous = self.publisher.load();
        self.publisher
            .publish(build(Some(&previous), self.address, rules, clusters));
    }

    pub async fn admin(&self, path: &str) -> String {
        let address = self.proxy.admin().unwrap();
        let mut client = Http1::connect(address).await;
        let request = Request::get(path)
            .header("host", "admin")
            .body(Whole::default())
            .unwrap();
        let response = client.send(request).await;
        text(response).await
    }

    /// The value of a statistic, by its whole name.
    pub async fn stat(&self, name: &str) -> u64 {
        let stats = self.admin("/stats").await;
        let prefix = format!("{name}: ");
        let line = stats
            .lines()
            .find_map(|line| line.strip_prefix(prefix.as_str()));
        line.unwrap_or_else(|| panic!("no {name} in\n{stats}"))
            .parse()
            .unwrap()
    }
}

pub fn build(
    previous: Option<&Arc<Snapshot>>,
    address: SocketAddr,
    rules: Vec<Rule>,
    clusters: Vec<(Cluster, Vec<SocketAddr>)>,
) -> Arc<Snapshot> {
    let mut builder = previous.map_or_else(SnapshotBuilder::new, SnapshotBuilder::from);
    builder.listener(Listener::http("in", address, HttpManager::new("in", "t")));
    let host = rules
        .into_iter()
        .fold(VirtualHost::new("all", ["*"]), VirtualHost::rule);
    builder.routes(RouteTable::new("t").host(host));
    for (cluster, backends) in clusters {
        let endpoints = EndpointSet::of(backends.into_iter().map(Address::from));
        builder.endpoints(cluster.name.clone(), endpoints);
        builder.cluster(cluster);
    }
    builder.build().unwrap().0
}

/// An HTTP/1.1 connection.
pub struct Http1<B = Whole>(http1::SendRequest<B>);

impl<B> Http1<B>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        Self(sender)
    }

    pub async fn try_send(&mut self, request: Request<B>) -> hyper::Result<Response<Incoming>> {
        self.0.ready().await?;
        self.0.send_request(request).await
    }

    pub async fn send(&mut self, request: Request<B>) -> Response<Incoming> {
        self.try_send(request).await.unwrap()
    }
}

/// An HTTP/2 connection with prior knowledge.
pub async fn http2_to<B>(address: SocketAddr) -> http2::SendRequest<B>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

/// A backend that answers with its name and nothing else.
pub async fn named(name: &'static str) -> SocketAddr {
    backend(move |_| async move { Response::new(Whole::from(name)) }).await
}

/// A backend that speaks HTTP/1.1 and HTTP/2.
pub async fn backend<F, R, B>(answer: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let response = answer(request);
                async move { Ok::<_, Infallible>(response.await) }
            });
            tokio::spawn(async move {
                // A connection that the proxy closes is no failure of the test.
                let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

pub fn get(path: &str) -> Request<Whole> {
    Request::get(path)
        .header("host", "mesh")
        .body(Whole::default())
        .unwrap()
}

pub async fn text(response: Response<Incoming>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}
