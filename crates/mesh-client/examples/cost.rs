//! What a request to an upstream of HTTP/1 costs, and an idle connection to one.
//!
//! ```text
//! cargo run --release -p mesh-client --example cost -- requests 127.0.0.1:8080 100000 64
//! cargo run --release -p mesh-client --example cost -- idle 127.0.0.1:8081 3000
//! ```
//!
//! `requests` sends so many, so many at once, and prints the processor time of each. `idle` needs an
//! upstream that takes its time to answer: it sends so many at once, so that as many connections
//! are open, and prints what the process holds for each when all are answered.

use bytes::Bytes;
use http::Request;
use http_body::Body as _;
use mesh_client::{Body, MeshClient};
use mesh_core::Publisher;
use mesh_core::model::{Cluster, EndpointSet, RouteTable, Rule, SnapshotBuilder, VirtualHost};
use std::cell::Cell;
use std::error::Error;
use std::fs;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::LocalSet;
use tower::ServiceExt;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [what, to, count, ref rest @ ..] = arguments[..] else {
        return Err("requests ADDRESS COUNT [AT-ONCE], or idle ADDRESS COUNT".into());
    };
    let count: usize = count.parse()?;
    let publisher = Publisher::from_arc(snapshot(to.parse()?)?);
    let client = MeshClient::builder(publisher.feed(), "t").build();
    if what == "idle" {
        send(&client, 1, 1).await;
        let before = resident()?;
        send(&client, count, count).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        println!("{} bytes for each", (resident()? - before) / count);
        return Ok(());
    }
    let at_once = rest.first().map_or(Ok(64), |count| count.parse())?;
    send(&client, at_once * 20, at_once).await;
    let (user, system) = ticks()?;
    send(&client, count, at_once).await;
    let (user_now, system_now) = ticks()?;
    // A tick is 10 ms.
    let each = |ticks: u64| ticks as f64 * 10_000.0 / count as f64;
    let (user, system) = (each(user_now - user), each(system_now - system));
    println!("user {user:.2} µs, system {system:.2} µs");
    Ok(())
}

/// Sends so many requests, `at_once` at a time, and reads what is answered.
async fn send(client: &MeshClient, count: usize, at_once: usize) {
    let left = Rc::new(Cell::new(count));
    let tasks = LocalSet::new();
    for _ in 0..at_once {
        let (client, left) = (client.clone(), left.clone());
        tasks.spawn_local(async move {
            while left.get() > 0 {
                left.set(left.get() - 1);
                let response = client.clone().oneshot(request()).await;
                let response = response.expect("an answer");
                assert_eq!(response.status(), 200);
                let mut body = pin!(response.into_body());
                while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
                    frame.expect("a whole body");
                }
            }
        });
    }
    tasks.await;
}

fn request() -> Request<Body> {
    Request::get("/reviews/1")
        .header("host", "reviews")
        .header("user-agent", "cost")
        .header("accept", "*/*")
        .header("accept-encoding", "gzip")
        .header("accept-language", "en")
        .header("x-request-id", "6b0b4b0e-0b0a-4b0e-8b0e-0b0a4b0e8b0e")
        .header("x-forwarded-proto", "http")
        .header("cookie", "session=0123456789")
        .body(Body::from(Bytes::new()))
        .expect("it is well formed")
}

fn snapshot(upstream: SocketAddr) -> Result<std::sync::Arc<mesh_core::model::Snapshot>, Failure> {
    let mut cluster = Cluster::new("reviews");
    cluster.limits.max_connections = u32::MAX;
    cluster.limits.max_pending = u32::MAX;
    cluster.limits.max_requests = u32::MAX;
    cluster.connect_timeout = Duration::from_secs(60);
    let host = VirtualHost::new("reviews", ["reviews"]).rule(Rule::prefix_to("/", "reviews"));
    let mut builder = SnapshotBuilder::new();
    builder.routes(RouteTable::new("t").host(host));
    builder
        .cluster(cluster)
        .endpoints("reviews", EndpointSet::of([upstream]));
    Ok(builder.build()?.0)
}

/// Clock ticks in user and in system mode (proc(5), fields 14 and 15).
fn ticks() -> Result<(u64, u64), Failure> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let behind = text.rsplit_once(')').ok_or("no stat")?.1;
    let fields: Vec<&str> = behind.split_whitespace().collect();
    Ok((fields[11].parse()?, fields[12].parse()?))
}

/// Resident bytes.
fn resident() -> Result<usize, Failure> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages = text.split_whitespace().nth(1).ok_or("no statm")?;
    Ok(pages.parse::<usize>()? * 4096)
}
