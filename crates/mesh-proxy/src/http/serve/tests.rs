//! Connections over in-memory pipes and paused time, with a stack whose answers the test gives.

mod departures;
mod drains;
mod pressure;
mod tunnels;

use super::*;
use crate::Limits;
use crate::http::life::{FAREWELL, FIRST_REQUEST};
use crate::http::stack;
use crate::listener::{HttpChain, Statistics};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2;
use mesh_client::{Body, Boxed, Parts, Slot, Upstreams};
use mesh_core::model::{Overload, Snapshot, SnapshotBuilder, WorkloadRef};
use mesh_core::{Error, Feed, Rng, Shard};
use mesh_telemetry::Telemetry;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tower_service::Service;

const SECOND: Duration = Duration::from_secs(1);

/// A listener in memory.
struct Served {
    manager: HttpManager,
    statistics: Statistics,
    telemetry: Arc<Telemetry>,
    slot: Slot,
    tasks: TaskTracker,
    guard: Guard,
    drain: watch::Sender<bool>,
}

/// One connection to it.
struct Connection {
    task: JoinHandle<()>,
    stream: DuplexStream,
}

// === impl Served ===

impl Served {
    fn new<F, R>(answer: F) -> Self
    where
        F: Fn(Request<Body>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let layer = tower_layer::layer_fn(move |_: Boxed| {
            let answer = answer.clone();
            tower::service_fn(move |request| {
                let response = answer(request);
                async move { Ok::<_, Error>(response.await) }
            })
        });
        Self {
            manager: HttpManager::new("in", "t"),
            statistics: Statistics::default(),
            telemetry: Arc::new(Telemetry::new(WorkloadRef::default())),
            slot: Slot::new(layer),
            tasks: TaskTracker::new(),
            guard: Guard::new(Limits::default(), Overload::default(), Rng::with_seed(1)),
            drain: watch::Sender::new(false),
        }
    }

    fn connection(&self) -> super::Connection {
        let (snapshot, _) = SnapshotBuilder::new().build().unwrap();
        let feed: Feed<Snapshot> = mesh_core::Publisher::from_arc(snapshot).feed();
        let upstreams = Upstreams::new(Shard::default());
        let mut parts = Parts::new(feed, upstreams, Arc::new(Rng::with_seed(1)));
        parts.before_route = self.slot.clone();
        let telemetry = self.telemetry.clone();
        let address = "127.0.0.1:80".parse().unwrap();
        let chain = HttpChain::new(Arc::new(self.manager.clone()), &self.statistics);
        let mut caller = Caller::default();
        caller.peer = Some(address);
        caller.local = Some(address);
        super::Connection {
            caller,
            manager: chain.manager,
            stats: chain.stats,
            server: chain.server,
            stack: stack::build(parts, telemetry, (u32::MAX, self.guard.shedding()), None),
            buffers: Buffers::default(),
            tasks: self.tasks.clone(),
            guard: self.guard.clone(),
            drain: self.drain.subscribe(),
        }
    }

    fn connect(&self) -> Connection {
        let (stream, theirs) = tokio::io::duplex(64 << 10);
        let serving = serve(theirs, self.connection());
        Connection {
            task: tokio::spawn(serving),
            stream,
        }
    }

    async fn connect_http2(&self) -> (http2::SendRequest<Full<Bytes>>, JoinHandle<()>) {
        let Connection { task, stream } = self.connect();
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        (sender, task)
    }

    fn stat(&self, stat: HttpStat) -> u64 {
        self.statistics.http.block(&"in".into()).get(stat)
    }

    /// Everything that was counted up has come down again.
    fn assert_quiet(&self) {
        assert_eq!(self.stat(HttpStat::CxActive), 0);
        assert_eq!(self.stat(HttpStat::RqActive), 0);
        assert_eq!(self.stat(HttpStat::CxTotal), self.stat(HttpStat::CxDestroy));
    }
}

// === impl Connection ===

impl Connection {
    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Everything up to the end of the connection.
    async fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.stream.read_to_string(&mut rest).await.unwrap();
        rest
    }

    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn ok() -> Served {
    Served::new(|_| async { Response::new(Body::empty()) })
}

async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn the_futures_of_a_connection_and_a_request_are_small() {
    let served = ok();
    let adapter = Adapter::new(served.connection());
    let connection = serve_size(serve::<tokio::net::TcpStream>);
    let request = request_size(&adapter);
    // Answers that a fault slows down take 24 of them.
    assert!(connection <= 2136, "a connection is {connection} bytes");
    assert!(request <= 2048, "a request is {request} bytes");
}

/// The size of what [`serve`] returns, without a socket to call it with.
fn serve_size<A, B, F>(_: fn(A, B) -> F) -> usize {
    size_of::<F>()
}

fn request_size<S: Service<Request<mesh_http1::Body>>>(_: &S) -> usize {
    size_of::<S::Future>()
}

#[tokio::test(start_paused = true)]
async fn a_request_is_given_up_when_its_caller_goes_away() {
    let (alive, mut gone) = mpsc::channel::<()>(1);
    let served = Served::new(move |_| {
        let alive = alive.clone();
        async move {
            let _alive = alive;
            std::future::pending().await
        }
    });
    let mut connection = served.connect();
    connection.send(GET).await;
    settle().await;
    assert_eq!(served.stat(HttpStat::RqActive), 1);
    drop(connection.stream);
    connection.task.await.unwrap();
    served.assert_quiet();
    drop(served);
    assert!(
        gone.recv().await.is_none(),
        "the request's future is dropped"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_before_the_request_is_whole_says_that_the_connection_closes() {
    const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n";
    let early = ok();
    let late = Served::new(|request: Request<Body>| async {
        tokio::time::sleep(SECOND).await;
        drop(request);
        Response::new(Body::empty())
    });
    let reading = Served::new(|request: Request<Body>| async {
        request.into_body().collect().await.unwrap();
        Response::new(Body::empty())
    });
    for (served, request, closes) in [
        (&early, POST, true),
        (&late, POST, true),
        (&reading, POST, false),
        (&early, GET, false),
    ] {
        let mut connection = served.connect();
        connection.send(request).await;
        if request == POST {
            // Nobody waits for this much, but it may be there.
            connection.send("body").await;
        }
        let head = connection.head().await;
        assert_eq!(head.contains("connection: close\r\n"), closes, "{head}");
        if closes {
            assert_eq!(connection.rest().await, "");
        } else {
            connection.send(GET).await;
            assert!(connection.head().await.starts_with("HTTP/1.1 200"));
        }
        drop(connection.stream);
        connection.task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_on_time() {
    let mut served = ok();
    served.manager.idle_timeout = Some(10 * SECOND);
    let mut connection = served.connect();
    tokio::time::sleep(9 * SECOND).await;
    connection.send(GET).await;
    connection.head().await;
    let began = Instant::now();
    assert_eq!(connection.rest().await, "");
    assert_eq!(began.elapsed().as_secs(), 10);
    connection.task.await.unwrap();
    assert_eq!(served.stat(HttpStat::CxIdleTimeout), 1);
    assert_eq!(served.stat(HttpStat::CxHttp1Total), 1);
    served.assert_quiet();
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_never_says_anything_is_idle_too() {
    let mut served = ok();
    served.manager.idle_timeout = Some(10 * SECOND);
    let mut connection = served.connect();
    assert_eq!(connection.rest().await, "");
    assert_eq!(served.stat(HttpStat::CxIdleTimeout), 1);
    // One that stops in the middle of a head is dropped, with a little patience.
    let mut connection = served.connect();
    connection.send("GET / HT").await;
    connection.rest().await;
    connection.task.await.unwrap();
    served.assert_quiet();
}

#[tokio::test(start_paused = true)]
async fn a_long_response_is_not_idleness() {
    let mut served = Served::new(|_| async {
        let late = futures_util::stream::once(async {
            tokio::time::sleep(25 * SECOND).await;
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"late")))
        });
        Response::new(Body::new(StreamBody::new(Box::pin(late))))
    });
    served.manager.idle_timeout = Some(10 * SECOND);
    let (mut sender, task) = served.connect_http2().await;
    let request = Request::get("http://a/").body(Full::default()).unwrap();
    let response = sender.send_request(request.clone()).await.unwrap();
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "late"
    );
    assert_eq!(served.stat(HttpStat::CxIdleTimeout), 0);
    // It still takes requests.
    assert_eq!(
        sender.send_request(request).await.unwrap().status(),
        StatusCode::OK
    );
    drop(sender);
    task.await.unwrap();
    assert_eq!(served.stat(HttpStat::CxHttp2Total), 1);
    served.assert_quiet();
}

#[tokio::test(start_paused = true)]
async fn a_head_that_takes_too_long_is_answered_and_ends_the_connection() {
    let mut served = ok();
    served.manager.request_head_timeout = Some(3 * SECOND);
    let mut connection = served.connect();
    // Nothing of it: it may come as late as it likes.
    tokio::time::sleep(10 * SECOND).await;
    connection.send("GET / HTTP/1.1\r\nhost:").await;
    let began = Instant::now();
    let answer = connection.rest().await;
    assert_eq!(began.elapsed(), 3 * SECOND);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(
        answer.ends_with("\r\n\r\nrequest header timeout"),
        "{answer}"
    );
    drop(connection.stream);
    connection.task.await.unwrap();
    assert_eq!(served.stat(HttpStat::Rq4xx), 1);
    assert_eq!(served.stat(HttpStat::CxProtocolError), 0);
    served.assert_quiet();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_arrive_in_time_is_answered_and_ends_the_connection() {
    let mut served = Served::new(|request: Request<Body>| async {
        let _ = request.into_body().collect().await;
        Response::new(Body::empty())
    });
    served.manager.request_timeout = Some(3 * SECOND);
    let mut connection = served.connect();
    let began = Instant::now();
    connection
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc")
        .await;
    let answer = connection.rest().await;
    assert_eq!(began.elapsed(), 3 * SECOND);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nrequest timeout"), "{answer}");
    drop(connection.stream);
    connection.task.await.unwrap();
    assert_eq!(served.stat(HttpStat::RqTimeout), 1);
    served.assert_quiet();

    // One that arrives may be answered late.
    let mut served = Served::new(|_| async {
        tokio::time::sleep(9 * SECOND).await;
        Response::new(Body::empty())
    });
    served.manager.request_timeout = Some(3 * SECOND);
    let mut connection = served.connect();
    connection.send(GET).await;
    assert!(connection.head().await.starts_with("HTTP/1.1 200"));
    assert_eq!(served.stat(HttpStat::RqTimeout), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_request_is_answered_counted_and_in_the_log_as_in_envoy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut served = ok();
    served.manager.server_name = "mesh".into();
    served.manager.access_log = vec![mesh_core::model::AccessLog {
        path: path.to_str().unwrap().into(),
        format: "%REQ(:METHOD)% %REQ(:PATH)% %REQ(:AUTHORITY)% %PROTOCOL% %RESPONSE_CODE% \
                 %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_SENT%\n"
            .into(),
    }];
    let fields = "a: 1\r\n".repeat(101);
    let large = format!("a: {}\r\n", "b".repeat(70_000));
    let cases = [
        ("junk\r\n\r\n", "400 DPE http1.codec_error"),
        ("GET / HTTP/1.0\r\n\r\n", "426 DPE low_version"),
        (
            "GET / HTTP/1.1\r\na b: c\r\n\r\n",
            "400 DPE http1.codec_error",
        ),
        (
            "GET / HTTP/1.1\r\na: \x01\r\n\r\n",
            "400 DPE http1.invalid_characters",
        ),
        (
            "GET / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            "400 DPE http1.content_length_and_chunked_not_allowed",
        ),
        (
            "GET / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n",
            "501 DPE http1.invalid_transfer_encoding",
        ),
        (
            "CONNECT a:1 HTTP/1.1\r\ncontent-length: 1\r\n\r\n",
            "400 DPE http1.body_disallowed",
        ),
        (
            &format!("GET / HTTP/1.1\r\n{fields}\r\n"),
            "431 DPE http1.too_many_headers",
        ),
        (
            &format!("GET / HTTP/1.1\r\n{large}\r\n"),
            "431 DPE http1.headers_too_large",
        ),
    ];
    let mut expected = String::new();
    for (request, told) in &cases {
        let mut connection = served.connect();
        // The rest of what is too long may find nobody who reads it.
        let _ = connection.stream.write_all(request.as_bytes()).await;
        let answer = connection.rest().await;
        let status = &told[..3];
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert!(answer.contains("\r\nserver: mesh\r\n"), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.lines().next().unwrap().ends_with(body), "{answer}");
        drop(connection.stream);
        connection.task.await.unwrap();
        expected += &format!("- - - HTTP/1.1 {told} {}\n", body.len());
    }
    assert_eq!(served.stat(HttpStat::CxProtocolError), cases.len() as u64);
    assert_eq!(served.stat(HttpStat::CxHttp1Total), cases.len() as u64);
    assert_eq!(served.stat(HttpStat::RqTotal), cases.len() as u64);
    served.assert_quiet();
    served.telemetry.flush().unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_answer_the_farewell_is_dropped() {
    let served = ok();
    let mut connection = served.connect();
    // HTTP/2 without ever answering anything: preface, SETTINGS, GET http://a/.
    connection.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let headers = [0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84, 0x41, 1, b'a'];
    connection.stream.write_all(&settings).await.unwrap();
    connection.stream.write_all(&headers).await.unwrap();
    settle().await;
    assert_eq!(served.stat(HttpStat::RqTotal), 1);
    served.drain.send_replace(true);
    let began = Instant::now();
    connection.task.await.unwrap();
    assert_eq!(began.elapsed(), FAREWELL);
    served.assert_quiet();
}

#[tokio::test(start_paused = true)]
async fn a_listener_marks_responses_only_as_it_is_told() {
    let answer = |_| async {
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert("via", HeaderValue::from_static("1.0 app"));
        headers.insert("server", HeaderValue::from_static("app"));
        response
    };
    let head = async |change: fn(&mut HttpManager)| {
        let mut served = Served::new(answer);
        served.manager.server_name = "mesh".into();
        change(&mut served.manager);
        let mut connection = served.connect();
        connection
            .send("GET / HTTP/1.1\r\nhost: a\r\nx-request-id: mine\r\n\r\n")
            .await;
        let head = connection.head().await;
        let mut lines: Vec<String> = head.lines().skip(1).map(str::to_owned).collect();
        lines.retain(|line| {
            ["via", "server", "x-request-id"].contains(&line.split(':').next().unwrap())
        });
        lines.sort();
        lines
    };
    assert_eq!(head(|_| {}).await, ["server: mesh", "via: 1.0 app"]);
    let marked = head(|manager| {
        manager.server_if_absent = true;
        manager.via = "1.1 me".into();
        manager.request_id_in_response = true;
    });
    let expected = ["server: app", "via: 1.0 app, 1.1 me", "x-request-id: mine"];
    assert_eq!(marked.await, expected);
}
