mod unfinished;

use super::*;
use crate::{BodyError, HeadError};
use bytes::Bytes;
use futures_util::stream;
use http::{Method, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Either, Empty, Full, StreamBody};
use std::convert::Infallible;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

type Streamed = StreamBody<stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;
type Asked = Pin<Box<dyn Future<Output = Result<http::Response<crate::Body>, NotAnswered<Sent>>>>>;
type Sent = Either<Full<Bytes>, Streamed>;

/// A client in memory, and the server's end of its connection.
struct Connected {
    sender: SendRequest<DuplexStream, Sent>,
    task: JoinHandle<Result<(), Error>>,
    server: DuplexStream,
    buffers: Buffers,
}

fn connect() -> Connected {
    connect_telling(Arc::new(|_| {}))
}

fn connect_telling(on_interim: OnInterim) -> Connected {
    let (ours, server) = tokio::io::duplex(1 << 10);
    let buffers = Buffers::default();
    let client = Client::with_buffers(buffers.clone());
    let (sender, connection) = client.handshake_telling(ours, on_interim);
    Connected {
        sender,
        task: tokio::spawn(connection),
        server,
        buffers,
    }
}

fn get() -> Request<Sent> {
    Request::new(Either::Left(Full::default()))
}

fn post(body: &'static str) -> Request<Sent> {
    let builder = Request::post("/p");
    builder.body(Either::Left(Full::from(body))).unwrap()
}

/// A request whose body comes when the test says so.
fn streamed() -> (mpsc::UnboundedSender<&'static str>, Request<Sent>) {
    let (give, take) = mpsc::unbounded_channel();
    let frames = stream::unfold(
        take,
        |mut take: mpsc::UnboundedReceiver<&'static str>| async {
            let data = take.recv().await?;
            Some((Ok(Frame::data(Bytes::from(data))), take))
        },
    );
    let body: Streamed = StreamBody::new(Box::pin(frames));
    (give, Request::post("/s").body(Either::Right(body)).unwrap())
}

impl Connected {
    /// Sends a request, as far as nothing has to be waited for.
    async fn ask(&mut self, request: Request<Sent>) -> Asked {
        let asked = tokio::spawn(self.sender.send_request(request));
        settle().await;
        Box::pin(async { asked.await.unwrap() })
    }

    /// What the server sees, which must be this.
    async fn sees(&mut self, expected: &str) {
        let mut seen = vec![0; expected.len()];
        self.server.read_exact(&mut seen).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&seen), expected);
    }

    async fn answers(&mut self, text: &str) {
        self.server.write_all(text.as_bytes()).await.unwrap();
    }

    async fn ends(self) {
        self.task.await.unwrap().unwrap();
    }
}

async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

const GET: &str = "GET / HTTP/1.1\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n";

#[tokio::test]
async fn requests_follow_each_other_and_an_idle_connection_holds_nothing() {
    let mut connected = connect();
    for _ in 0..3 {
        let response = connected.ask(post("abc")).await;
        connected.answers(&format!("{OK}ok")).await;
        let response = response.await.unwrap();
        connected
            .sees("POST /p HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc")
            .await;
        assert!(
            connected.sender.is_ready(),
            "a body that is there holds nothing up"
        );
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            "ok"
        );
        settle().await;
        assert_eq!(connected.buffers.kept(), (1, 1), "what it used is free");
    }
    drop(connected.sender);
    connected.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_body_that_comes_later_brings_the_connection_back_at_its_end() {
    for (head, pieces) in [
        ("content-length: 4", ["ab", "cd"]),
        (
            "transfer-encoding: chunked",
            ["2\r\nab\r\n", "2\r\ncd\r\n0\r\n\r\n"],
        ),
    ] {
        let mut connected = connect();
        let response = connected.ask(get()).await;
        connected
            .answers(&format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n"))
            .await;
        let mut body = response.await.unwrap().into_body();
        for (piece, data) in pieces.into_iter().zip(["ab", "cd"]) {
            assert!(!connected.sender.is_ready() && !connected.sender.is_closed());
            connected.answers(piece).await;
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), data);
        }
        assert!(body.is_end_stream());
        assert!(connected.sender.is_ready());
    }
}

#[tokio::test]
async fn a_server_that_closes_an_idle_connection_is_noticed() {
    let mut connected = connect();
    let response = connected.ask(get()).await;
    connected.answers(&format!("{OK}ok")).await;
    response.await.unwrap();
    settle().await;
    drop(connected.server);
    connected.task.await.unwrap().unwrap();
    assert!(connected.sender.is_closed() && !connected.sender.is_ready());
    let failed = connected
        .sender
        .send_request(post("abc"))
        .await
        .unwrap_err();
    let request = failed.request.expect("nothing was sent");
    assert_eq!(request.method(), Method::POST);
}

#[tokio::test]
async fn a_close_that_nobody_noticed_yet_gives_the_request_back() {
    let mut connected = connect();
    settle().await;
    drop(connected.server);
    // The connection's task had no turn since.
    let failed = connected.sender.send_request(get()).await.unwrap_err();
    assert!(failed.request.is_some());
    assert!(matches!(failed.error, Error::Closed));
}

#[tokio::test]
async fn a_server_that_talks_without_being_asked_is_not_asked_any_more() {
    let mut connected = connect();
    settle().await;
    connected.answers(OK).await;
    settle().await;
    assert!(connected.sender.is_closed());
    assert!(matches!(connected.task.await.unwrap(), Err(Error::Unasked)));
    // Behind a response it is the same, even if that was to be the last.
    for answer in [
        OK,
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n",
    ] {
        let mut connected = connect();
        let response = connected.ask(get()).await;
        connected
            .answers(&format!("{answer}okHTTP/1.1 408 T\r\n\r\n"))
            .await;
        assert_eq!(response.await.unwrap().status(), StatusCode::OK);
        assert!(connected.sender.is_closed());
        assert!(matches!(connected.task.await.unwrap(), Err(Error::Unasked)));
    }
}

#[tokio::test]
async fn a_server_that_waited_long_enough_may_say_so() {
    let mut connected = connect();
    settle().await;
    connected
        .answers("HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\r\n")
        .await;
    settle().await;
    assert!(connected.sender.is_closed());
    connected.ends().await;
}

#[tokio::test]
async fn interim_responses_are_passed_over_and_bounded() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    let mut connected = connect_telling(Arc::new(move |status: StatusCode| {
        tell.lock().push(status.as_u16());
    }));
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n";
    let response = connected.ask(get()).await;
    connected
        .answers(&format!("HTTP/1.1 100 Continue\r\n\r\n{interim}{OK}ok"))
        .await;
    let response = response.await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(!response.headers().contains_key("link"));
    let response = connected.ask(get()).await;
    connected
        .answers(&"HTTP/1.1 102 P\r\n\r\n".repeat(33))
        .await;
    let failed = response.await.unwrap_err();
    assert!(matches!(failed.error, Error::Head(HeadError::Unasked)));
    assert_eq!(*told.lock(), [100, 102], "the first to each");
}

#[tokio::test]
async fn a_request_in_pieces_is_sent_as_it_comes() {
    let mut connected = connect();
    let (give, request) = streamed();
    let response = tokio::spawn(connected.sender.send_request(request));
    connected
        .sees("POST /s HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    give.send("abc").unwrap();
    connected.sees("3\r\nabc\r\n").await;
    drop(give);
    connected.sees("0\r\n\r\n").await;
    connected.answers(&format!("{OK}ok")).await;
    response.await.unwrap().unwrap();
    assert!(connected.sender.is_ready());
}

#[tokio::test]
async fn a_request_goes_on_while_its_response_comes() {
    let mut connected = connect();
    let (give, request) = streamed();
    let response = tokio::spawn(connected.sender.send_request(request));
    connected
        .sees("POST /s HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    connected.answers(OK).await;
    let response = response.await.unwrap().unwrap();
    // Nobody reads the response, and the request is sent all the same.
    give.send("abc").unwrap();
    connected.sees("3\r\nabc\r\n").await;
    drop(give);
    connected.sees("0\r\n\r\n").await;
    connected.answers("ok").await;
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "ok"
    );
    assert!(connected.sender.is_ready());
}

#[tokio::test]
async fn a_response_that_ends_before_its_request_ends_the_connection() {
    let mut connected = connect();
    let (give, request) = streamed();
    let response = tokio::spawn(connected.sender.send_request(request));
    connected.sees("POST /s HTTP/1.1\r\n").await;
    connected.answers(&format!("{OK}no")).await;
    let response = response.await.unwrap().unwrap();
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "no"
    );
    assert!(connected.sender.is_closed());
    drop(give);
    drop(connected.task.await);
}

#[tokio::test]
async fn nobody_to_wait_for_a_response_is_the_end_of_the_connection() {
    let mut connected = connect();
    let mut response = connected.sender.send_request(get());
    tokio::select! {
        biased;
        _ = &mut response => panic!("there is none"),
        () = settle() => {}
    }
    drop(response);
    assert!(connected.sender.is_closed());
    connected.ends().await;
    // The same for its body, unless the rest is there.
    let mut connected = connect();
    let response = connected.ask(get()).await;
    connected
        .answers("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n")
        .await;
    drop(response.await.unwrap());
    assert!(connected.sender.is_ready());
    let response = connected.ask(get()).await;
    connected.answers(&format!("{OK}o")).await;
    drop(response.await.unwrap());
    assert!(connected.sender.is_closed());
    connected.ends().await;
}

#[tokio::test]
async fn a_response_that_says_so_is_the_last() {
    for (text, body) in [
        (
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
            "ok",
        ),
        ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", "ok"),
        ("HTTP/1.1 200 OK\r\n\r\nuntil it ends", "until it ends"),
    ] {
        let mut connected = connect();
        let response = connected.ask(get()).await;
        connected.answers(text).await;
        let response = response.await.unwrap();
        let mut server = connected.server;
        server.shutdown().await.unwrap();
        let read = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(read, body, "{text:?}");
        assert!(connected.sender.is_closed(), "{text:?}");
        connected.task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_is_an_error() {
    for (text, error) in [
        ("", Error::Closed.to_string()),
        (
            "HTTP/1.1 200 OK\r\n",
            Error::Head(HeadError::Incomplete).to_string(),
        ),
        (
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            Error::Head(HeadError::Line).to_string(),
        ),
        (
            "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n",
            Error::Head(HeadError::TransferEncoding).to_string(),
        ),
        (
            "HTTP/1.1 200 OK\r\na b\r\n\r\n",
            Error::Head(HeadError::Field).to_string(),
        ),
        (
            "HTTP/1.1 101 X\r\n\r\n",
            Error::Head(HeadError::Unasked).to_string(),
        ),
    ] {
        let mut connected = connect();
        let response = connected.ask(get()).await;
        connected.answers(text).await;
        connected.sees(GET).await;
        drop(connected.server);
        let failed = response.await.unwrap_err();
        assert_eq!(failed.error.to_string(), error, "{text:?}");
        assert!(failed.request.is_none());
        assert!(connected.sender.is_closed());
    }
    let mut connected = connect();
    let response = connected.ask(get()).await;
    connected.answers(&format!("{OK}o")).await;
    let response = response.await.unwrap();
    drop(connected.server);
    let error = response.into_body().collect().await.unwrap_err();
    assert!(matches!(error, Error::Body(BodyError::Incomplete)));
}

#[tokio::test]
async fn a_switch_of_protocols_gives_the_connection_away() {
    let mut connected = connect();
    let mut request = get();
    request
        .headers_mut()
        .insert("upgrade", "echo".parse().unwrap());
    request
        .headers_mut()
        .insert("connection", "upgrade".parse().unwrap());
    let response = connected.ask(request).await;
    connected
        .answers("HTTP/1.1 101 Switching Protocols\r\n\r\nleft")
        .await;
    let mut response = response.await.unwrap();
    let upgrade = crate::upgrade::on(response.extensions_mut()).unwrap();
    let mut io = upgrade.await.unwrap();
    assert!(connected.sender.is_closed());
    connected.answers("over").await;
    let mut seen = [0; 8];
    io.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"leftover");
    connected.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_head_without_a_body_is_whole() {
    let (ours, mut server) = tokio::io::duplex(1 << 10);
    let (mut sender, connection) =
        Client::with_buffers(Buffers::default()).handshake::<_, Empty<Bytes>>(ours);
    tokio::spawn(connection);
    let request = Request::head("/").body(Empty::new()).unwrap();
    let response = tokio::spawn(sender.send_request(request));
    settle().await;
    server
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
        .await
        .unwrap();
    let response = response.await.unwrap().unwrap();
    assert_eq!(response.headers()["content-length"], "9");
    assert!(response.body().is_end_stream());
    assert!(sender.is_ready());
}
