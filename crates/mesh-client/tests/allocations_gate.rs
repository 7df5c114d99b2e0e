//! What the mesh adds to a request: allocations, and the size of its future.
//!
//! The same request goes to the same backend twice: over a bare hyper connection, and through the
//! whole outbound stack with every policy that is usual switched on by the rule it meets. What the
//! second allocates more is what the mesh costs. The backend has a thread of its own; everything
//! else happens on one, whose allocations are counted. Each number is the sum over many requests
//! after some that are not counted, so tables, buffers and connections are there already and
//! nothing that happens now and then is hidden by an average rounded down.
//!
//! `MESH_ALLOCATIONS=1 cargo test -p mesh-client --test allocations_gate -- --nocapture` prints
//! where each allocation of one request comes from.

// A global allocator cannot be written without it. It only counts, and passes everything on.
#![allow(unsafe_code)]

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mesh_client::{Body, MeshClient, Outbound, Parts, Upstreams};
use mesh_core::model::{
    AccessLog, Cluster, EndpointSet, HttpManager, Outlier, Retry, RetryOn, RouteTable, Rule,
    Snapshot, SnapshotBuilder, VirtualHost, WorkloadRef,
};
use mesh_core::stats::{Block, ClusterStat, HttpStat};
use mesh_core::{Caller, Exchange, Publisher, Rng, Shard};
use mesh_route::reply::{Reply, ReplyLayer};
use mesh_telemetry::{Finish, FinishLayer, IntroduceLayer, Telemetry, expose::Scrape};
use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime;
use tower::Service;
use tower_layer::Layer;

/// What the mesh may add before a request goes upstream (issue 2; 5 is aimed at).
const BEFORE_SEND: usize = 8;
/// What it may add from the request to the end of the response's body: the head of the response
/// gets a header, and a body that is to bring its connection back has to say so.
const WHOLE: usize = 8;
const REQUESTS: usize = 256;
const WARM: usize = 128;

type Stack = Finish<Reply<Outbound>, Body>;
type StackFuture = <Stack as Service<Request<Body>>>::Future;

/// Allocations of one request.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    /// Until the request was handed to the connection.
    before_send: usize,
    /// Until the end of the response's body.
    whole: usize,
}

// === the allocator ===

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    static TRACE: Cell<bool> = const { Cell::new(false) };
}

fn count(layout: Layout) {
    // A thread that is ending has nothing left to count in.
    let Ok(so_far) = COUNT.try_with(|count| count.replace(count.get() + 1)) else {
        return;
    };
    if TRACE.try_with(|trace| trace.replace(false)) == Ok(true) {
        let place = Backtrace::force_capture();
        println!("--- {} bytes\n{place}", layout.size());
        TRACE.set(true);
        // What it took to print is not counted.
        COUNT.set(so_far + 1);
    }
}

// SAFETY: everything is the system allocator's; counting does not touch the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout);
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }
}

// === what is measured ===

/// Calls, and counts until the end of the response's body.
async fn spent<F, B, E>(trace: bool, call: impl FnOnce() -> F) -> Spent
where
    F: Future<Output = Result<Response<B>, E>>,
    B: http_body::Body<Data = Bytes>,
    E: std::fmt::Debug,
    B::Error: std::fmt::Debug,
{
    TRACE.set(trace);
    let begin = COUNT.get();
    let mut sent = None;
    {
        let mut future = pin!(call());
        let response = poll_fn(|cx| {
            let answered = future.as_mut().poll(cx);
            // One poll takes a request through all layers to the connection's task.
            sent.get_or_insert_with(|| COUNT.get());
            answered
        })
        .await
        .expect("the backend answers");
        assert_eq!(response.status(), 200);
        let mut body = pin!(response.into_body());
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.expect("the body is whole");
            length += frame.into_data().map_or(0, |data| data.len());
        }
        assert_eq!(length, 2);
    }
    let end = COUNT.get();
    TRACE.set(false);
    Spent {
        before_send: sent.expect("it was polled") - begin,
        whole: end - begin,
    }
}

fn total(all: &[Spent]) -> Spent {
    all.iter().fold(Spent::default(), |sum, one| Spent {
        before_send: sum.before_send + one.before_send,
        whole: sum.whole + one.whole,
    })
}

/// Sends requests to a connection of hyper's server, one after the other, and has each forwarded
/// by `forward`: so they look as they do in a proxy, every name and value a piece of one buffer.
async fn measure<F>(forward: impl Fn(Request<Body>, bool) -> F) -> Spent
where
    F: Future<Output = Spent>,
{
    const HEAD: &[u8] = b"GET /reviews/1 HTTP/1.1\r\nhost: reviews:9080\r\n\
        user-agent: curl/8.5.0\r\naccept: */*\r\nx-forwarded-proto: http\r\n\
        x-request-id: 6b0b4b0e-0b0a-4b0e-8b0e-0b0a4b0e8b0e\r\n\r\n";
    let wanted = std::env::var_os("MESH_ALLOCATIONS").is_some();
    let all = RefCell::new(Vec::with_capacity(WARM + REQUESTS));
    let service = service_fn(|request: Request<Incoming>| {
        let last = all.borrow().len() + 1 == WARM + REQUESTS;
        let spending = forward(request.map(Body::new), wanted && last);
        let all = &all;
        async move {
            let spent = spending.await;
            all.borrow_mut().push(spent);
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let (mut caller, io) = tokio::io::duplex(4096);
    let serving = server::Builder::new().serve_connection(TokioIo::new(io), service);
    let calling = async move {
        let mut answer = [0; 4096];
        for _ in 0..WARM + REQUESTS {
            caller.write_all(HEAD).await.unwrap();
            let length = caller.read(&mut answer).await.unwrap();
            assert!(
                answer[..length].ends_with(b"\r\n\r\n"),
                "a head without a body"
            );
        }
    };
    let (served, ()) = tokio::join!(serving, calling);
    served.unwrap();
    total(&all.take()[WARM..])
}

/// A bare hyper connection.
async fn bare(backend: SocketAddr) -> Spent {
    let stream = tokio::net::TcpStream::connect(backend).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let sender = Rc::new(RefCell::new(sender));
    measure(|request, _| {
        let sender = sender.clone();
        async move {
            poll_fn(|cx| sender.borrow_mut().poll_ready(cx))
                .await
                .unwrap();
            spent(false, || sender.borrow_mut().send_request(request)).await
        }
    })
    .await
}

/// The outbound stack, called as a listener's connection calls it.
async fn mesh(stack: Stack, caller: &Arc<Caller>) -> Spent {
    let stack = Rc::new(RefCell::new(stack));
    measure(|mut request, trace| {
        let (stack, caller) = (stack.clone(), caller.clone());
        async move {
            // The upstream connection gets to know that the response before is over.
            tokio::task::yield_now().await;
            spent(trace, || {
                let now = tokio::time::Instant::now().into_std();
                Exchange::new(now, caller).attach(&mut request);
                stack.borrow_mut().call(request)
            })
            .await
        }
    })
    .await
}

// === the world ===

/// Answers `ok` to everything, on a thread of its own.
fn backend() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let answer = |_| async {
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok"))))
                };
                let serving = server::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer));
                tokio::spawn(serving);
            }
        });
    });
    address
}

/// One rule with every usual policy, one cluster with limits and outlier detection.
fn snapshot(backend: SocketAddr) -> Arc<Snapshot> {
    let mut retry = Retry::default();
    retry.attempts = 2;
    retry.on = RetryOn::SERVER_ERROR.with(RetryOn::CONNECT_FAILURE);
    retry.per_try_timeout = Some(Duration::from_secs(2));
    let mut rule = Rule::prefix_to("/reviews", "reviews");
    rule.timeout = Some(Duration::from_secs(10));
    rule.idle_timeout = Some(Duration::from_secs(60));
    rule.retry = Some(Arc::new(retry));
    let mut cluster = Cluster::new("reviews");
    cluster.outlier = Some(Outlier::default());
    let mut builder = SnapshotBuilder::new();
    let host = VirtualHost::new("reviews", ["reviews", "reviews:9080"]).rule(rule);
    builder.routes(RouteTable::new("t").host(host));
    builder
        .cluster(cluster)
        .endpoints("reviews", EndpointSet::of([backend]));
    builder.build().unwrap().0
}

/// Counts the lines of an access log.
#[derive(Clone, Default)]
struct Lines(Arc<AtomicUsize>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        self.0.fetch_add(lines, Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The stack that a listener's connection calls, and what it is called with.
fn build(feed: mesh_core::Feed<Snapshot>, telemetry: &Arc<Telemetry>) -> (Stack, Arc<Caller>) {
    let shard = Shard::of_worker(0);
    let mut parts = Parts::new(feed, Upstreams::new(shard), Arc::new(Rng::with_seed(1)));
    parts.table = Some("t".into());
    parts.introduce = IntroduceLayer::per_route(telemetry);
    let stack = ReplyLayer::new().layer(parts.outbound());
    let stack = FinishLayer::<Body>::new(telemetry.clone()).layer(stack);
    let mut manager = HttpManager::new("outbound_0.0.0.0_9080", "t");
    manager.access_log = vec![AccessLog {
        path: "/log".into(),
        // Istio's default format.
        format: "".into(),
    }];
    let mut caller = Caller::default();
    caller.shard = shard;
    caller.peer = Some(SocketAddr::from(([10, 0, 0, 9], 40000)));
    caller.local = Some(SocketAddr::from(([10, 0, 0, 1], 9080)));
    caller.manager = Some(Arc::new(manager));
    caller.stats = Some(Arc::<Block<HttpStat>>::default());
    (stack, Arc::new(caller))
}

// === the gates ===

#[test]
fn a_request_costs_few_allocations_more_than_hyper_alone() {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(async {
        let backend = backend();
        let publisher = Publisher::from_arc(snapshot(backend));
        let lines = Lines::default();
        let mut workload = WorkloadRef::default();
        workload.name = "productpage-v1".into();
        let telemetry = Telemetry::new(workload).output("/log", lines.clone());
        let telemetry = Arc::new(telemetry);
        let (stack, caller) = build(publisher.feed(), &telemetry);

        let bare = bare(backend).await;
        let mesh = mesh(stack, &caller).await;

        // Everything was on, for every request.
        let all = WARM + REQUESTS;
        telemetry.flush().unwrap();
        assert_eq!(
            lines.0.load(Ordering::Relaxed),
            all,
            "lines in the access log"
        );
        let snapshot = publisher.load();
        let stats = snapshot.cluster("reviews").unwrap().live().stats();
        assert_eq!(stats.block().get(ClusterStat::RqTotal), all as u64);
        let listener = caller.stats.as_deref().unwrap();
        assert_eq!(listener.get(HttpStat::Rq2xx), all as u64);
        let mut scrape = Scrape::new();
        let metrics = scrape.telemetry(&telemetry).prometheus(&Default::default());
        let series = metrics
            .lines()
            .find(|line| line.starts_with("istio_requests_total{"));
        assert!(series.unwrap().ends_with(&format!(" {all}")), "{series:?}");

        let per_request = |sum: usize| sum as f64 / REQUESTS as f64;
        let before_send = mesh.before_send - bare.before_send;
        let whole = mesh.whole - bare.whole;
        println!(
            "allocations added until the request is sent: {:.2} of {BEFORE_SEND} (5 is aimed at); \
             until the response has ended: {:.2} of {WHOLE}; hyper alone: {:.2} and {:.2}",
            per_request(before_send),
            per_request(whole),
            per_request(bare.before_send),
            per_request(bare.whole),
        );
        assert!(
            before_send <= BEFORE_SEND * REQUESTS,
            "see MESH_ALLOCATIONS above"
        );
        assert!(whole <= WHOLE * REQUESTS, "see MESH_ALLOCATIONS above");
    });
}

#[test]
fn the_future_of_a_request_is_at_most_two_kibibytes() {
    let stack = size_of::<StackFuture>();
    let client = size_of::<<MeshClient as Service<Request<Body>>>::Future>();
    println!("future of the stack: {stack} bytes of 2048; of the client: {client}");
    assert!(stack <= 2048 && client <= 2048);
}
