mod handed;
mod unfinished;
mod upgrades;

use super::connection::LINGER;
use super::*;
use crate::wire::Wire;
use crate::{BodyError, Error};
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, Either, Full, StreamBody};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tower::service_fn;

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

type Reply = Response<Either<Full<Bytes>, Body>>;

/// A server in memory, and the caller's end of a connection to it.
struct Served {
    task: JoinHandle<Result<(), Error>>,
    stream: DuplexStream,
    buffers: Buffers,
}

fn serve<F, R>(answer: F) -> Served
where
    F: Fn(Request<Body>) -> R + Send + 'static,
    R: Future<Output = Reply> + Send + 'static,
{
    serve_on(64 << 10, Some(Duration::from_secs(5)), answer)
}

fn serve_on<F, R>(pipe: usize, head_timeout: Option<Duration>, answer: F) -> Served
where
    F: Fn(Request<Body>) -> R + Send + 'static,
    R: Future<Output = Reply> + Send + 'static,
{
    let (stream, theirs) = tokio::io::duplex(pipe);
    let buffers = Buffers::default();
    let server = Server::with_buffers(buffers.clone()).date(false);
    let service = service_fn(move |request| {
        let response = answer(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let connection = server
        .head_timeout(head_timeout)
        .serve(theirs, b"", service);
    Served {
        task: tokio::spawn(connection),
        stream,
        buffers,
    }
}

fn text(text: &str) -> Reply {
    Response::new(Either::Left(Full::from(text.to_owned())))
}

/// Answers with the target and what was sent.
async fn told(request: Request<Body>) -> Reply {
    let path = request.uri().path().to_owned();
    match request.into_body().collect().await {
        Ok(body) => text(&format!("{path} {:?}", body.to_bytes())),
        Err(error) => text(&error.to_string()),
    }
}

impl Served {
    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// As much as `expected` has, which it must be.
    async fn expect(&mut self, expected: &str) {
        let mut seen = vec![0; expected.len()];
        self.stream.read_exact(&mut seen).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&seen), expected);
    }

    async fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.stream.read_to_string(&mut rest).await.unwrap();
        rest
    }
}

async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn requests_follow_each_other_and_an_idle_connection_holds_nothing() {
    let mut served = serve(told);
    for path in ["/a", "/b"] {
        served.send(&format!("GET {path} HTTP/1.1\r\n\r\n")).await;
        let body = format!("{path} b\"\"");
        let length = body.len();
        served
            .expect(&format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"
            ))
            .await;
        settle().await;
        assert_eq!(served.buffers.kept(), (1, 1), "what it used is free");
    }
    drop(served.stream);
    served.task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn requests_that_were_sent_ahead_are_answered_in_order() {
    let mut served = serve(told);
    let requests: String = (0..100)
        .map(|at| format!("GET /{at:02} HTTP/1.1\r\n\r\n"))
        .collect();
    served.send(&requests).await;
    for at in 0..100 {
        served
            .expect(&format!(
                "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n/{at:02} b\"\""
            ))
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_are_received_however_they_come() {
    let mut served = serve(told);
    let chunked =
        "POST /c HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
    let exact = "POST /e HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc";
    for (request, path) in [(exact, "/e"), (chunked, "/c")] {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{path} b\"abc\"");
        served.send(request).await;
        served.expect(&answer).await;
        for byte in request.chars() {
            served.send(&byte.to_string()).await;
            settle().await;
        }
        served.expect(&answer).await;
        served.send(&request.repeat(3)).await;
        served.expect(&answer.repeat(3)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_body_passes_through_both_ways() {
    let served = serve_on(1 << 10, None, |request| async {
        Response::new(Either::Right(request.into_body()))
    });
    let data: Vec<u8> = (0..300_000u32).map(|at| at as u8).collect();
    let expected = data.clone();
    let (mut from, mut to) = tokio::io::split(served.stream);
    let sending = tokio::spawn(async move {
        let head = format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n", data.len());
        to.write_all(head.as_bytes()).await.unwrap();
        to.write_all(&data).await.unwrap();
        to
    });
    let mut seen = Vec::new();
    from.read_to_end(&mut seen).await.unwrap();
    // It began before the request was over, so it is the last.
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 300000\r\nconnection: close\r\n\r\n";
    assert!(seen.starts_with(head.as_bytes()));
    assert!(seen[head.len()..] == expected);
    drop((sending.await.unwrap(), from));
    served.task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_body_of_unknown_length_is_sent_in_chunks_as_it_comes() {
    let (give, take) = tokio::sync::mpsc::unbounded_channel::<&'static str>();
    let take = Arc::new(Mutex::new(Some(take)));
    let (stream, theirs) = tokio::io::duplex(1 << 10);
    let service = service_fn(move |_: Request<Body>| {
        let take = take.lock().unwrap().take().unwrap();
        let frames = stream::unfold(take, |mut take| async {
            let data = take.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from(data))), take))
        });
        let body = StreamBody::new(Box::pin(frames));
        async { Ok::<_, Infallible>(Response::new(body)) }
    });
    let server = Server::with_buffers(Buffers::default()).date(false);
    let task = tokio::spawn(server.serve(theirs, GET.as_bytes(), service));
    let mut served = Served {
        task,
        stream,
        buffers: Buffers::default(),
    };
    served
        .expect("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    for (data, chunk) in [
        ("abc", "3\r\nabc\r\n"),
        ("0123456789abcdefg", "11\r\n0123456789abcdefg\r\n"),
    ] {
        give.send(data).unwrap();
        served.expect(chunk).await;
    }
    drop(give);
    served.expect("0\r\n\r\n").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_request_is_answered_and_the_connection_closed() {
    for (request, status) in [
        ("GET / HTTP/1.1\r\na b\r\n\r\n", "400 Bad Request"),
        (
            "GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
            "400 Bad Request",
        ),
        (
            "GET / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n",
            "501 Not Implemented",
        ),
        ("GET / HTTP/1.7\r\n\r\n", "426 Upgrade Required"),
    ] {
        let mut served = serve(told);
        served.send(request).await;
        let answer = served.rest().await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{request:?}: {answer}"
        );
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        drop(served.stream);
        let error = served.task.await.unwrap().unwrap_err();
        assert!(error.is_protocol(), "{request:?}: {error}");
    }
    let served = serve(told);
    let endless = format!("GET / HTTP/1.1\r\na: {}", "a".repeat(70 << 10));
    let (mut from, mut to) = tokio::io::split(served.stream);
    tokio::spawn(async move { to.write_all(endless.as_bytes()).await });
    let mut answer = String::new();
    from.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    drop(from);
    assert!(served.task.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_head_has_its_time_from_its_first_byte() {
    let mut served = serve(told);
    tokio::time::sleep(Duration::from_secs(60)).await;
    served.send("GET / HTTP/1.1\r\n").await;
    settle().await;
    let began = tokio::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(3)).await;
    served.send("a: b\r\n").await;
    served.expect("HTTP/1.1 408 Request Timeout\r\n").await;
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    drop(served.stream);
    assert!(matches!(
        served.task.await.unwrap(),
        Err(Error::HeadTimeout)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_caller_is_told_to_go_on_only_when_its_body_is_wanted() {
    let head = "POST / HTTP/1.1\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n";
    let mut served = serve(told);
    served.send(head).await;
    served.expect("HTTP/1.1 100 Continue\r\n\r\n").await;
    served.send("abc").await;
    served
        .expect("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n/ b\"abc\"")
        .await;
    // Who has sent it already waits for nothing.
    served.send(&format!("{head}abc")).await;
    served
        .expect("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n/ b\"abc\"")
        .await;
    let mut refused = serve(|_| async { text("no") });
    refused.send(head).await;
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno";
    assert_eq!(refused.rest().await, answer);
}

#[tokio::test(start_paused = true)]
async fn an_early_answer_ends_the_connection_unless_the_body_is_there() {
    let mut served = serve(|_| async { text("no") });
    let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
    served.send(&format!("{chunked}1\r\na\r\n0\r\n\r\n")).await;
    served
        .expect("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno")
        .await;
    served.send(&format!("{chunked}1\r\n")).await;
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno";
    assert_eq!(served.rest().await, answer);
    // It goes on sending for a while, and is not reset meanwhile.
    served.send("a\r\n").await;
    settle().await;
    assert!(!served.task.is_finished());
    let began = tokio::time::Instant::now();
    served.task.await.unwrap().unwrap();
    assert_eq!(began.elapsed(), LINGER);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_fails_in_the_hands_of_its_reader() {
    for (rest, error) in [
        ("", "the connection ended before the body did"),
        ("zz\r\n", "the size of a chunk is malformed"),
    ] {
        let (tell, told) = tokio::sync::oneshot::channel();
        let tell = Arc::new(Mutex::new(Some(tell)));
        let mut served = serve(move |request: Request<Body>| {
            let tell = tell.lock().unwrap().take().unwrap();
            async move {
                // In another task, as when it is sent to an upstream.
                let reading = tokio::spawn(request.into_body().collect());
                let error = reading.await.unwrap().unwrap_err();
                let cause = std::error::Error::source(&error).unwrap().to_string();
                tell.send(cause).unwrap();
                text("")
            }
        });
        served
            .send("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n")
            .await;
        settle().await;
        served.send(rest).await;
        if rest.is_empty() {
            drop(served.stream);
        }
        assert_eq!(told.await.unwrap(), error);
    }
}

/// Says when it is dropped.
struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_given_up_when_its_caller_leaves() {
    for request in [GET, "POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nabc"] {
        let dropped = Arc::new(AtomicBool::new(false));
        let flag = dropped.clone();
        let mut served = serve(move |request: Request<Body>| {
            let flag = Flag(flag.clone());
            async move {
                let (_flag, _request) = (flag, request);
                std::future::pending().await
            }
        });
        served.send(request).await;
        settle().await;
        assert!(!dropped.load(Ordering::SeqCst));
        drop(served.stream);
        assert!(
            matches!(served.task.await.unwrap(), Err(Error::Closed)),
            "{request:?}"
        );
        assert!(dropped.load(Ordering::SeqCst), "{request:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_after_its_body_was_read_elsewhere_is_noticed() {
    let mut served = serve(|request: Request<Body>| async {
        tokio::spawn(request.into_body().collect())
            .await
            .unwrap()
            .unwrap();
        std::future::pending().await
    });
    served
        .send("POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n")
        .await;
    settle().await;
    served.send("ab").await;
    settle().await;
    drop(served.stream);
    assert!(matches!(served.task.await.unwrap(), Err(Error::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_graceful_end_finishes_what_there_is() {
    let (mut stream, theirs) = tokio::io::duplex(1 << 10);
    let service = service_fn(|_: Request<Body>| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok::<_, Infallible>(text("late"))
    });
    let server = Server::with_buffers(Buffers::default()).date(false);
    let mut connection = server.serve(theirs, b"", service);
    stream.write_all(GET.as_bytes()).await.unwrap();
    assert!(connection.is_idle());
    tokio::select! {
        biased;
        _ = &mut connection => panic!("it is not over"),
        () = settle() => {}
    }
    assert!(!connection.is_idle());
    connection.graceful_shutdown();
    connection.await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let expected = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nlate";
    assert_eq!(answer, expected);

    let (_stream, theirs) = tokio::io::duplex(1 << 10);
    let mut idle = server.serve(theirs, b"", service);
    idle.graceful_shutdown();
    idle.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_is_seen_before_a_body_breaks_off() {
    let (mut stream, theirs) = tokio::io::duplex(1 << 10);
    let service = service_fn(|_: Request<Body>| async {
        let frames = [Ok(Frame::data(Bytes::from("abc"))), Err("broken")];
        Ok::<_, Infallible>(Response::new(StreamBody::new(stream::iter(frames))))
    });
    let server = Server::with_buffers(Buffers::default()).date(false);
    let task = tokio::spawn(server.serve(theirs, GET.as_bytes(), service));
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(
        answer,
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
    );
    assert!(matches!(task.await.unwrap(), Err(Error::Outgoing(_))));
}

#[test]
fn an_idle_connection_is_small() {
    type Plain = tower::util::BoxCloneService<Request<Body>, Response<Full<Bytes>>, Infallible>;
    let size = size_of::<Connection<DuplexStream, Plain, Full<Bytes>>>();
    let wire = size_of::<Wire<DuplexStream>>();
    assert!(size <= 256 && wire <= 320, "{size} and {wire} bytes");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_after_its_body_broke_is_noticed() {
    let mut served = serve(|request: Request<Body>| async {
        assert!(request.into_body().collect().await.is_err());
        std::future::pending().await
    });
    served
        .send("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc")
        .await;
    settle().await;
    assert!(!served.task.is_finished());
    drop(served.stream);
    assert!(matches!(served.task.await.unwrap(), Err(Error::Closed)));
}
