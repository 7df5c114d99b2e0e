//! Exchanges that end before they are over, and those who come between.

use super::*;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::Duration;
use tokio::io::ReadBuf;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(60);

/// Notes that it was shut down.
struct Noting(DuplexStream, Arc<AtomicBool>);

impl AsyncRead for Noting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Noting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    /// Never done, as in TLS with a server that does not read.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.1.store(true, Ordering::Relaxed);
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_shut_down_before_it_is_closed_and_nobody_waits_for_that() {
    for is_busy in [false, true] {
        let (ours, mut server) = tokio::io::duplex(1 << 10);
        let noted = Arc::new(AtomicBool::new(false));
        let io = Noting(ours, noted.clone());
        let client = Client::with_buffers(Buffers::default());
        let (mut sender, connection) = client.handshake::<_, Sent>(io);
        let task = tokio::spawn(connection);
        if is_busy {
            let mut response = sender.send_request(get());
            let mut cx = Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut response).poll(&mut cx).is_pending());
            drop(response);
        }
        drop(sender);
        timeout(LONG, task).await.unwrap().unwrap().unwrap();
        assert!(noted.load(Ordering::Relaxed));
        let mut seen = String::new();
        server.read_to_string(&mut seen).await.unwrap();
        assert_eq!(seen.is_empty(), !is_busy);
    }
}

#[tokio::test]
async fn what_is_left_of_a_request_is_dropped_with_its_connection() {
    let mut connected = connect();
    let (give, request) = streamed();
    let response = connected.ask(request).await;
    connected.sees("POST /s HTTP/1.1\r\n").await;
    connected.answers(OK).await;
    let response = response.await.unwrap();
    connected.task.abort();
    settle().await;
    assert!(give.is_closed());
    drop(response);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_waited_for_fails_when_its_connection_is_dropped() {
    let mut connected = connect();
    let response = connected.ask(get()).await;
    connected.task.abort();
    let response = timeout(LONG, response).await.expect("it was woken");
    let failed = response.unwrap_err();
    assert!(matches!(failed.error, Error::Closed) && failed.request.is_none());
}

#[tokio::test]
async fn a_body_until_the_end_is_not_whole_when_we_end_it() {
    let mut connected = connect();
    let response = connected.ask(get()).await;
    connected.answers("HTTP/1.1 200 OK\r\n\r\nthe fir").await;
    let mut body = response.await.unwrap().into_body();
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "the fir");
    connected.task.abort();
    let error = body.frame().await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Body(BodyError::Incomplete)));
}

#[tokio::test]
async fn an_early_answer_is_read_though_nobody_takes_the_request() {
    let mut connected = connect();
    let (give, request) = streamed();
    let response = connected.ask(request).await;
    connected.sees("POST /s HTTP/1.1\r\n").await;
    connected.answers(OK).await;
    let response = response.await.unwrap();
    connected.answers("no").await;
    drop(connected.server);
    // The connection's task cannot send it.
    give.send("abc").unwrap();
    settle().await;
    let read = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(read, "no");
    assert!(connected.sender.is_closed());
    connected.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_comes_too_early_harms_nobody() {
    let mut connected = connect();
    let response = connected.ask(get()).await;
    connected.answers(&format!("{OK}o")).await;
    let response = response.await.unwrap();
    // A part of the body was read, and is nobody's yet.
    let failed = connected.sender.send_request(get()).await.unwrap_err();
    assert!(failed.request.is_some());
    connected.answers("k").await;
    let read = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(read, "ok");
    assert!(connected.sender.is_ready());
}

#[tokio::test]
async fn no_protocol_begins_in_the_middle_of_a_request() {
    let mut connected = connect();
    let (_give, mut request) = streamed();
    for (name, value) in [("upgrade", "echo"), ("connection", "upgrade")] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let response = connected.ask(request).await;
    connected
        .answers("HTTP/1.1 101 Switching Protocols\r\n\r\n")
        .await;
    let failed = response.await.unwrap_err();
    assert!(matches!(failed.error, Error::Head(HeadError::Unasked)));
    assert!(connected.sender.is_closed());
}
