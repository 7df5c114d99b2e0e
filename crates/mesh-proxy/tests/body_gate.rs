//! A budget for memory: bodies pass through, they are not collected.

mod support;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use mesh_core::model::{Cluster, Rule};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use support::{Http1, Mesh, backend};

#[tokio::test]
async fn a_body_streams_through_while_it_is_still_being_made() {
    // 1 GiB each way in release, 64 MiB in debug.
    const CHUNK: usize = 64 * 1024;
    let chunks = if cfg!(debug_assertions) {
        1024
    } else {
        16 * 1024
    };
    let before = resident_kib();
    let received = Arc::new(AtomicU64::new(0));
    let counted = received.clone();
    let sink = backend(move |request: Request<hyper::body::Incoming>| {
        let counted = counted.clone();
        async move {
            let mut body = request.into_body();
            while let Some(frame) = body.frame().await {
                counted.fetch_add(
                    frame.unwrap().into_data().unwrap().len() as u64,
                    Ordering::Relaxed,
                );
            }
            let stream = futures_util::stream::repeat_with(|| {
                Ok::<_, Infallible>(Frame::data(Bytes::from(vec![7; CHUNK])))
            });
            Response::new(StreamBody::new(stream.take(chunks)))
        }
    })
    .await;
    let mesh = Mesh::start(
        1,
        vec![Rule::prefix_to("/", "a")],
        vec![(Cluster::new("a"), vec![sink])],
    )
    .await;
    let stream = futures_util::stream::repeat_with(|| {
        Ok::<_, Infallible>(Frame::data(Bytes::from(vec![9; CHUNK])))
    });
    let request = Request::post("/up")
        .header("host", "mesh")
        .body(StreamBody::new(Box::pin(stream.take(chunks))))
        .unwrap();
    let response = Http1::connect(mesh.address).await.send(request).await;
    let mut body = response.into_body();
    let mut sent = 0;
    while let Some(frame) = body.frame().await {
        sent += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(sent, CHUNK * chunks);
    assert_eq!(received.load(Ordering::Relaxed) as usize, CHUNK * chunks);
    // Client, proxy and backend together, in this one process, never held more than a part of it.
    if let (Some(before), Some(after)) = (before, resident_kib()) {
        let grown = after.saturating_sub(before);
        assert!(grown < 48 * 1024, "the process grew by {grown} KiB");
    }
}

/// The most memory that this process ever had resident, where the system tells.
fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
