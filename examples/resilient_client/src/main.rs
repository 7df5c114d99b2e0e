//! Retries, a timeout and a circuit breaker around two clients that know nothing of the mesh:
//! hyper-util's HTTP client and a tonic channel.
//!
//! Run it with `cargo run -p resilient_client`. It starts its own servers on loopback.

use anyhow::Context;
use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use mesh_core::model::{Limits, Retry, RetryOn};
use mesh_resilience::{BreakerLayer, MapRequestBodyLayer, ReplayBody, RetryLayer, TimeoutLayer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::{ServiceBuilder, ServiceExt};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    over_http().await?;
    over_grpc().await
}

/// Three attempts, 50 ms apart at most; anything that looks like trouble is tried again.
fn policy() -> Retry {
    let mut retry = Retry::default();
    retry.attempts = 3;
    retry.on = RetryOn::SERVER_ERROR.with(RetryOn::GRPC_UNAVAILABLE);
    retry.backoff_max = Duration::from_millis(50);
    retry
}

async fn over_http() -> anyhow::Result<()> {
    let (address, calls) = flaky_server().await?;
    let client = Client::builder(TokioExecutor::new()).build_http::<ReplayBody<Full<Bytes>>>();
    let service = ServiceBuilder::new()
        // At most 100 requests at once; more are refused at once instead of queued.
        .layer(BreakerLayer::new({
            let mut limits = Limits::unlimited();
            limits.max_requests = 100;
            limits
        }))
        .layer(RetryLayer::fixed(policy()))
        // Each attempt gets a second.
        .layer(TimeoutLayer::fixed(Duration::from_secs(1)))
        .service(client);
    let request = Request::post(format!("http://{address}/")).body(Full::from("hello"))?;
    let response = service.oneshot(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    println!(
        "http: {status} after {} attempts: {}",
        calls.load(Ordering::Relaxed),
        String::from_utf8_lossy(&body)
    );
    anyhow::ensure!(
        status == StatusCode::OK,
        "the third attempt is answered well"
    );
    Ok(())
}

async fn over_grpc() -> anyhow::Result<()> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let address = listener.local_addr()?;
    let (_reporter, health) = tonic_health::server::health_reporter();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = tonic::transport::Server::builder().add_service(health);
    tokio::spawn(server.serve_with_incoming(incoming));

    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"))?
        .connect()
        .await
        .context("cannot connect to our own server")?;
    let service = ServiceBuilder::new()
        .layer(RetryLayer::fixed(policy()))
        .layer(TimeoutLayer::fixed(Duration::from_secs(1)))
        // tonic's channel takes one concrete body.
        .layer(MapRequestBodyLayer::new(
            tonic::body::Body::new::<ReplayBody<tonic::body::Body>>,
        ))
        .service(channel);
    let answer = HealthClient::new(service)
        .check(HealthCheckRequest {
            service: String::new(),
        })
        .await
        .context("the health check failed")?;
    println!("grpc: serving status {}", answer.into_inner().status);
    Ok(())
}

/// A server that answers 503 twice before it answers well.
async fn flaky_server() -> anyhow::Result<(SocketAddr, Arc<AtomicUsize>)> {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let answer = move |body: String| async move {
        match counted.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => (StatusCode::SERVICE_UNAVAILABLE, "not yet".to_owned()),
            _ => (StatusCode::OK, format!("{body} to you")),
        }
    };
    let router = Router::new().route("/", get(answer.clone()).post(answer));
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok((address, calls))
}
