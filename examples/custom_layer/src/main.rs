//! The reference proxy with a layer of one's own in it: callers that bring an API key are sent to
//! another cluster, and nobody behind the gateway ever sees the key.
//!
//! `cargo run -p custom_layer` checks itself and ends.

use http::{HeaderName, HeaderValue, Request};
use mesh_client::{Body, Boxed, BoxedFuture, Slot};
use mesh_core::model::{
    Address, Cluster, Condition, EndpointSet, Forward, HeaderKey, HeaderMatch, HttpManager,
    Listener, RouteTable, Rule, SnapshotBuilder, StringMatch, VirtualHost,
};
use mesh_core::{Error, Publisher};
use mesh_proxy::Proxy;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower_layer::Layer;
use tower_service::Service;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const PLAN: HeaderName = HeaderName::from_static("x-plan");

/// Looks the API key up and writes the customer's plan instead.
#[derive(Clone, Debug)]
struct PlanLayer;

#[derive(Clone, Debug)]
struct Plan {
    inner: Boxed,
}

impl Layer<Boxed> for PlanLayer {
    type Service = Plan;
    fn layer(&self, inner: Boxed) -> Plan {
        Plan { inner }
    }
}

impl Service<Request<Body>> for Plan {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = BoxedFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> BoxedFuture {
        let plan = match request.headers_mut().remove(API_KEY) {
            Some(key) if key == "gold-4711" => "gold",
            _ => "free",
        };
        request
            .headers_mut()
            .insert(PLAN, HeaderValue::from_static(plan));
        self.inner.call(request)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (gold, free) = (backend("gold").await?, backend("free").await?);
    let address = free_address().await?;

    let mut condition = Condition::default();
    let gold_plan = StringMatch::Exact("gold".to_owned());
    condition
        .headers
        .push(HeaderMatch::text(HeaderKey::Header(PLAN), gold_plan));
    let to_gold = mesh_core::model::Action::Forward(Forward::to("gold"));
    let host = VirtualHost::new("all", ["*"])
        .rule(Rule::new(condition, to_gold))
        .rule(Rule::prefix_to("/", "free"));

    let mut builder = SnapshotBuilder::new();
    builder.listener(Listener::http(
        "edge",
        address,
        HttpManager::new("edge", "edge"),
    ));
    builder.routes(RouteTable::new("edge").host(host));
    for (name, backend) in [("gold", gold), ("free", free)] {
        builder.cluster(Cluster::new(name));
        builder.endpoints(name, EndpointSet::of([Address::from(backend)]));
    }
    let (snapshot, _) = builder.build()?;
    let publisher = Publisher::from_arc(snapshot);

    let proxy = Proxy::builder(publisher.feed())
        .concurrency(1)
        .before_route(Slot::new(PlanLayer))
        .start()
        .await?;
    proxy.ready().await;
    for (key, expected) in [("gold-4711", "gold"), ("stolen", "free")] {
        let answer = get(address, key).await?;
        println!(
            "key {key:9} -> {}",
            answer.lines().last().unwrap_or_default()
        );
        anyhow::ensure!(answer.contains(expected), "{key} is served by {expected}");
    }
    proxy.drain().await;
    Ok(())
}

async fn backend(name: &str) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let address = listener.local_addr()?;
    tokio::spawn(httpbin::serve(
        listener,
        httpbin::named(name),
        std::future::pending(),
    ));
    Ok(address)
}

async fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    Ok(listener.local_addr()?)
}

async fn get(address: SocketAddr, key: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET /hostname HTTP/1.1\r\nhost: edge\r\nx-api-key: {key}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
