//! HTTP/1.1: heads, bodies, and a server on a connection in memory.

use crate::{Input, Target};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use mesh_http1::{Body, Buffers, Decoded, Decoder, Length, Limits, Server, request, response};
use std::convert::Infallible;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// `http1_message`: a head, and a body behind it.
pub(crate) const MESSAGE: Target = Target {
    name: "http1_message",
    run: message,
    input: Input::Bytes,
};

/// `http1_server`: a byte that says where the rest is cut, and what a connection says.
pub(crate) const SERVER: Target = Target {
    name: "http1_server",
    run: server,
    input: Input::Bytes,
};

/// Limits that an input of a fuzzer can meet.
fn limits() -> Limits {
    Limits::of(512, 8)
}

fn message(data: &[u8]) {
    let read = |input: &[u8]| {
        let head = request(input, &limits(), HeaderMap::new());
        head.map(|head| head.map(|head| (head.len, head.length)))
    };
    heads(data, read);
    for method in [Method::GET, Method::HEAD, Method::CONNECT] {
        heads(data, |input: &[u8]| {
            let head = response(input, &limits(), HeaderMap::new(), &method);
            head.map(|head| head.map(|head| (head.len, head.length)))
        });
    }
    for length in [Length::Chunked, Length::UntilClose, Length::Exact(5)] {
        bodies(data, length);
    }
}

/// A head is found at its last byte, neither sooner nor later, and a mistake stays one.
fn heads<E>(data: &[u8], read: impl Fn(&[u8]) -> Result<Option<(usize, Length)>, E>) {
    let whole = read(data);
    if let Ok(Some((len, length))) = whole {
        assert!(len <= data.len().min(512), "{len} bytes");
        for cut in 0..len {
            let part = read(&data[..cut]);
            assert!(
                matches!(part, Ok(None)),
                "{cut} of {len} bytes are a head or none"
            );
        }
        assert!(matches!(read(&data[..len]), Ok(Some(same)) if same == (len, length)));
        bodies(&data[len..], length);
        return;
    }
    let cuts = (0..data.len()).step_by(data.len() / 32 + 1);
    for part in cuts.map(|cut| read(&data[..cut])) {
        match part {
            Ok(None) => {}
            Ok(Some(_)) => panic!("the front is a head, all of it is none"),
            Err(_) => assert!(whole.is_err(), "the front is wrong, all of it is not"),
        }
    }
}

/// A body is the same, or as wrong, however it comes.
fn bodies(data: &[u8], length: Length) {
    let whole = decode(data, length, usize::MAX);
    for size in [1, 2, 7] {
        assert_eq!(decode(data, length, size), whole, "{size} bytes at a time");
    }
}

type Read = (Vec<u8>, Option<HeaderMap>, usize);

fn decode(data: &[u8], length: Length, size: usize) -> Result<Read, String> {
    let mut decoder = Decoder::new(length, &limits());
    let (mut from, mut to, mut body) = (0, 0, Vec::new());
    loop {
        let decoded = decoder.decode(&data[from..to]);
        match decoded.map_err(|error| error.to_string())? {
            Decoded::Data { skip, len } => {
                body.extend_from_slice(&data[from + skip..from + skip + len]);
                from += skip + len;
            }
            Decoded::End { skip, trailers } => return Ok((body, trailers, from + skip)),
            Decoded::More { skip } => {
                from += skip;
                assert_eq!(from, to, "not all of it was looked at");
                if to == data.len() {
                    decoder.close().map_err(|error| error.to_string())?;
                } else {
                    to = data.len().min(to.saturating_add(size));
                }
            }
        }
    }
}

fn server(data: &[u8]) {
    let Some((cut, data)) = data.split_first() else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O");
    let cut = usize::from(*cut).min(data.len());
    let whole = runtime.block_on(serve(&[data]));
    let pieces = runtime.block_on(serve(&[&data[..cut], &data[cut..]]));
    // Who sends a body late is told to go on; and a head that is wrong is looked at again only once
    // it is whole, or too long, so it may be refused later, and for another reason.
    let told = |answers: Vec<u8>| {
        let answers = String::from_utf8_lossy(&answers).into_owned();
        let answers = answers.replace("HTTP/1.1 100 Continue\r\n\r\n", "");
        let refusals = ["HTTP/1.1 4", "HTTP/1.1 501"];
        let refused = refusals.iter().filter_map(|refusal| answers.find(refusal));
        match refused.min() {
            Some(at) => (answers[..at].to_owned(), true),
            None => (answers, false),
        }
    };
    let ((whole, whole_refused), (pieces, pieces_refused)) = (told(whole), told(pieces));
    assert_eq!(pieces, whole, "cut at {cut}");
    assert!(whole_refused || !pieces_refused, "cut at {cut}: {whole}");
}

/// What a server answers to these pieces, one after the other.
async fn serve(pieces: &[&[u8]]) -> Vec<u8> {
    let (mut io, theirs) = tokio::io::duplex(1 << 20);
    let service = tower::service_fn(|request: Request<Body>| async {
        let target = request.uri().to_string();
        // As a proxy, it answers to what it received whole.
        let answer = match request.into_body().collect().await {
            Ok(body) => [target.as_bytes(), &body.to_bytes()].concat(),
            Err(_) => std::future::pending().await,
        };
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer))))
    });
    let server = Server::with_buffers(Buffers::default())
        .limits(limits())
        .date(false);
    let task = tokio::spawn(server.serve(theirs, b"", service));
    for piece in pieces {
        // A server that has heard enough does not read on.
        drop(io.write_all(piece).await);
        for _ in 0..64 {
            tokio::task::yield_now().await;
        }
    }
    drop(io.shutdown().await);
    let mut answers = Vec::new();
    drop(io.read_to_end(&mut answers).await);
    drop(task.await);
    answers
}
