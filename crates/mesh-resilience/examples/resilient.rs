//! A client that copes with a service which is slow, fails, and is sometimes too much in demand.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use mesh_core::BoxError;
use mesh_core::model::{Limits, Retry, RetryOn};
use mesh_resilience::{BreakerLayer, DeadlineLayer, ReplayBody, RetryLayer, TimeoutLayer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tower::{ServiceBuilder, ServiceExt, service_fn};

type Body = Full<Bytes>;

/// Of every three calls the first is answered 503, the second hangs, the third is answered.
async fn flaky(call: u32) -> Result<Response<Body>, BoxError> {
    let mut response = Response::new(Body::from(format!("call {call} was answered")));
    match call % 3 {
        0 => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
        1 => std::future::pending().await,
        _ => {}
    }
    Ok(response)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let calls = Arc::new(AtomicU32::new(0));
    let upstream = service_fn(move |_: Request<ReplayBody<Body>>| {
        flaky(calls.fetch_add(1, Ordering::Relaxed))
    });

    let mut policy = Retry::default();
    policy.attempts = 2;
    policy.on = RetryOn::SERVER_ERROR;
    let mut limits = Limits::unlimited();
    limits.max_requests = 10;

    let client = ServiceBuilder::new()
        // For everything.
        .layer(DeadlineLayer::fixed(Duration::from_secs(1)))
        .layer(RetryLayer::<ReplayBody<Body>>::fixed(policy))
        // For each attempt.
        .layer(BreakerLayer::new(limits))
        .layer(TimeoutLayer::fixed(Duration::from_millis(50)))
        .service(upstream);

    for _ in 0..3 {
        let request = Request::post("http://reviews/").body(Body::from("stars?"))?;
        let response = client.clone().oneshot(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        println!("{status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(())
}
