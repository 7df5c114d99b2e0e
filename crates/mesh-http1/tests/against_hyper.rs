//! The same bytes for a server of this crate and one on hyper: whatever we take, hyper takes in the
//! same way; and what hyper takes and we do not, we refuse for one of a few reasons.

use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use mesh_http1::{Buffers, Error, HeadError, Server};
use proptest::prelude::*;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

/// What a service was told, request by request.
type Heard = Arc<Mutex<Vec<String>>>;

async fn hear<B>(
    heard: Heard,
    request: Request<B>,
) -> Result<http::Response<Empty<bytes::Bytes>>, Infallible>
where
    B: http_body::Body,
{
    let (head, body) = request.into_parts();
    if let Ok(body) = body.collect().await {
        let mut fields: Vec<String> = head
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {:?}", value.as_bytes()))
            .collect();
        fields.sort();
        let (method, target, version) = (head.method, head.uri, head.version);
        let body = body.to_bytes();
        let message = format!("{method} {target} {version:?} {fields:?} {body:?}");
        heard.lock().unwrap().push(message);
    }
    Ok(http::Response::new(Empty::new()))
}

/// Feeds `bytes` in two pieces, and lets the server work after each.
async fn feed<T>(
    bytes: &[u8],
    cut: usize,
    mut io: tokio::io::DuplexStream,
    task: JoinHandle<T>,
) -> Option<T> {
    let (front, back) = bytes.split_at(cut % (bytes.len() + 1));
    for piece in [front, back] {
        // A server that has enough does not read any more.
        drop(io.write_all(piece).await);
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    // Nothing comes any more. A request that waits for more is not looked at.
    drop(io);
    task.await.ok()
}

fn run(bytes: &[u8], cut: usize) -> (Vec<String>, Result<(), Error>, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let ours = Heard::default();
        let heard = ours.clone();
        let service = tower::service_fn(move |request| hear(heard.clone(), request));
        let (io, theirs) = tokio::io::duplex(1 << 20);
        let server = Server::with_buffers(Buffers::default());
        let task = tokio::spawn(server.serve(theirs, b"", service));
        let ended = feed(bytes, cut, io, task).await.unwrap();

        let hypers = Heard::default();
        let heard = hypers.clone();
        let service = hyper::service::service_fn(move |request| hear(heard.clone(), request));
        let (io, theirs) = tokio::io::duplex(1 << 20);
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.header_read_timeout(None);
        let connection = builder.serve_connection(TokioIo::new(theirs), service);
        feed(bytes, cut, io, tokio::spawn(connection)).await;
        let (ours, hypers) = (ours.lock().unwrap().clone(), hypers.lock().unwrap().clone());
        (ours, ended, hypers)
    })
}

/// Checks one connection's bytes.
fn check(bytes: &[u8], cut: usize) -> Result<(), TestCaseError> {
    let (ours, ended, hypers) = run(bytes, cut);
    let common = ours.len().min(hypers.len());
    prop_assert_eq!(&ours[..common], &hypers[..common]);
    if ours.len() < hypers.len() {
        let stricter = matches!(
            ended,
            Err(Error::Head(
                HeadError::TwoLengths
                    | HeadError::ContentLength
                    | HeadError::TransferEncoding
                    | HeadError::Target
            ) | Error::Body(_))
        );
        prop_assert!(stricter, "{:?}, but hyper heard {:?}", ended, hypers);
    }
    // Chunks in HTTP/1.0 hyper refuses; we take them and close, as Envoy does.
    let more = &ours[common..];
    let old = |message: &String| message.contains("HTTP/1.0") && message.contains("transfer-enc");
    prop_assert!(more.iter().all(old), "hyper did not hear {:?}", more);
    Ok(())
}

#[test]
fn ordinary_requests_are_heard_alike() {
    let bytes = b"GET /a?b=c HTTP/1.1\r\nhost: a\r\nx: y\r\n\r\n\
        POST /p HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc\
        POST /c HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2;a=b\r\nab\r\n1\r\nc\r\n0\r\n\r\n\
        \r\nOPTIONS * HTTP/1.1\nhost: a\n\n\
        CONNECT a:1 HTTP/1.1\r\n\r\n";
    for cut in 0..bytes.len() {
        let (ours, _, hypers) = run(bytes, cut);
        assert_eq!(ours, hypers, "cut at {cut}");
        assert!(ours.len() >= 4, "{ours:?}");
    }
}

fn requests() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        6 => Just("GET / HTTP/1.1\r\n"),
        4 => Just("POST /a/b?c HTTP/1.1\r\n"),
        2 => Just("POST http://a:1/b HTTP/1.1\r\n"),
        2 => Just("POST / HTTP/1.0\r\n"),
        1 => Just("GET /a#b HTTP/1.1\r\n"),
        1 => Just("GET /\" HTTP/1.1\n"),
        1 => Just("\r\nHEAD * HTTP/1.1\r\n"),
        1 => Just("FOO bar HTTP/1.1\r\n"),
        1 => Just("GET  / HTTP/1.1\r\n"),
        1 => Just("\rGET / HTTP/1.1\r\n"),
    ];
    let field = prop_oneof![
        4 => Just("host: a\r\n"),
        2 => Just("x: y \r\n"),
        2 => Just("X-Long:\t y\n"),
        1 => Just("content-length: 0\r\n"),
        4 => Just("content-length: 3\r\n"),
        1 => Just("content-length: 03\r\n"),
        1 => Just("content-length: 3, 3\r\n"),
        4 => Just("transfer-encoding: chunked\r\n"),
        1 => Just("Transfer-Encoding: CHUNKED\r\n"),
        1 => Just("transfer-encoding: gzip, chunked\r\n"),
        1 => Just("transfer-encoding: gzip\r\n"),
        1 => Just("connection: close\r\n"),
        1 => Just("connection: keep-alive\r\n"),
        1 => Just("expect: 100-continue\r\n"),
        1 => Just(" folded\r\n"),
        1 => Just("a : b\r\n"),
        1 => Just("a: \x7f\r\n"),
    ];
    let body = prop_oneof![
        4 => Just(""),
        4 => Just("abc"),
        4 => Just("3\r\nabc\r\n0\r\n\r\n"),
        2 => Just("1 ;x\r\na\r\n0\r\na: b\r\n\r\n"),
        1 => Just("3\nabc\r\n0\r\n\r\n"),
        1 => Just("3\r\nabcd\r\n0\r\n\r\n"),
        1 => Just("03\r\nab"),
        1 => Just("\r"),
        1 => Just("\r\r"),
    ];
    let fields = proptest::collection::vec(field, 0..4);
    let message = (line, fields, body)
        .prop_map(|(line, fields, body)| format!("{line}{}\r\n{body}", fields.concat()));
    proptest::collection::vec(message, 1..4).prop_map(|all| all.concat().into_bytes())
}

proptest! {
    #[test]
    fn what_we_take_hyper_takes_in_the_same_way(bytes in requests(), cut in any::<usize>()) {
        check(&bytes, cut)?;
    }
}
