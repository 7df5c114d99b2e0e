use std::net::{Ipv4Addr, SocketAddr};

use axum::routing::get;
use http::HeaderValue;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};

use super::*;

const LIMIT: Duration = Duration::from_secs(5);

async fn loopback() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Reads one request head and answers `hello`.
async fn answer_one(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let response = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nserver: test\r\n\r\nhello";
    stream.write_all(response).await.unwrap();
    String::from_utf8(head).unwrap()
}

fn in_process(router: Router) -> (Client, Authority) {
    let mut services = Services::direct();
    let authority = services.ratings.clone();
    services.in_process.insert(authority.clone(), router);
    (Client::of(&services), authority)
}

#[tokio::test]
async fn through_a_proxy_requests_are_absolute_and_share_a_connection() {
    let (listener, proxy) = loopback().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        [answer_one(&mut stream).await, answer_one(&mut stream).await]
    });
    let client = Client::of(&Services::through(proxy));
    let authority = Authority::from_static("ratings:9080");
    let headers = HeaderMap::from_iter([("b3".parse().unwrap(), HeaderValue::from_static("t"))]);
    for _ in 0..2 {
        let call = client.get(&authority, "/ratings/0", &headers, LIMIT).await;
        assert_eq!(call.status(), Some(StatusCode::OK));
        assert_eq!(call.header("server"), Some("test"));
        assert_eq!(call.outcome.unwrap().body, "hello");
    }
    for head in server.await.unwrap() {
        let mut lines = head.lines();
        assert_eq!(
            lines.next(),
            Some("GET http://ratings:9080/ratings/0 HTTP/1.1")
        );
        let lines = lines.collect::<Vec<_>>();
        assert!(lines.contains(&"host: ratings:9080"), "{lines:?}");
        assert!(lines.contains(&"b3: t"), "{lines:?}");
    }
}

#[tokio::test]
async fn without_a_proxy_requests_go_to_the_authority_with_a_path_only() {
    let (listener, address) = loopback().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        answer_one(&mut stream).await
    });
    let client = Client::of(&Services::direct());
    let authority = address.to_string().parse().unwrap();
    let headers = HeaderMap::new();
    let call = client.get(&authority, "/ratings/0", &headers, LIMIT).await;
    assert_eq!(call.outcome.unwrap().body, "hello");
    let head = server.await.unwrap();
    assert!(head.starts_with("GET /ratings/0 HTTP/1.1\r\n"), "{head}");
}

#[tokio::test]
async fn a_refused_connection_is_told_from_a_broken_one() {
    let (listener, address) = loopback().await;
    let authority = address.to_string().parse().unwrap();
    let headers = HeaderMap::new();
    let client = Client::of(&Services::direct());

    let server = tokio::spawn(async move {
        drop(listener.accept().await);
    });
    let call = client.get(&authority, "/", &headers, LIMIT).await;
    assert!(matches!(call.outcome, Err(Failure::Broken(_))), "{call:?}");
    server.await.unwrap();

    let call = client.get(&authority, "/", &headers, LIMIT).await;
    assert!(
        matches!(call.outcome, Err(Failure::Unreachable(_))),
        "{call:?}"
    );
}

#[tokio::test]
async fn an_answer_above_a_mebibyte_is_refused() {
    for (length, fits) in [(RESPONSE_LIMIT, true), (RESPONSE_LIMIT + 1, false)] {
        let large = get(async move || vec![b'x'; length]);
        let (client, authority) = in_process(Router::new().route("/", large));
        let call = client.get(&authority, "/", &HeaderMap::new(), LIMIT).await;
        assert_eq!(call.outcome.is_ok(), fits);
    }
}

#[tokio::test(start_paused = true)]
async fn the_timeout_covers_a_body_that_never_ends() {
    let slow = get(async || {
        sleep(Duration::from_secs(1)).await;
        Body::new(Endless)
    });
    let (client, authority) = in_process(Router::new().route("/", slow));
    let call = client.get(&authority, "/", &HeaderMap::new(), LIMIT).await;
    let Err(failure @ Failure::Elapsed(_)) = call.outcome else {
        panic!("expected the timeout, got {:?}", call.outcome);
    };
    assert_eq!(failure.to_string(), "no answer within 5 s");
    assert_eq!(call.took.as_secs(), 5);
}

/// A body of which nothing ever comes.
struct Endless;

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Pending
    }
}
