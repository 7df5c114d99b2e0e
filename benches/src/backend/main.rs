//! What the proxies of `cargo xtask bench peers` forward to: HTTP/1.1 and h2c on the same ports.
//!
//! | request | answer |
//! |---|---|
//! | `/64k`, `/1m`, also at the end of a longer path | so many bytes |
//! | `/headers` | the request's headers, a line each |
//! | `POST /bench.Echo/Unary` | gRPC: the message back |
//! | `POST /bench.Echo/Stream` | gRPC: as many messages of 128 bytes as the message says, in decimal |
//! | anything else | 1 KiB |
//!
//! A port is served by one thread. Bodies are shared, and nothing is allocated for a request but
//! what hyper does.
#![forbid(unsafe_code)]

use std::{convert::Infallible, net::SocketAddr, thread};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Parser;
use http::{HeaderValue, Request, Response, header};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime, task,
};

use crate::payload::{Messages, Payload};

mod payload;

/// The backend of `cargo xtask bench peers`
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen
    #[arg(required = true)]
    addresses: Vec<SocketAddr>,

    /// Threads, which share the addresses
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// Contents of the bodies, made once. A clone of `Bytes` is a pointer.
#[derive(Clone, Debug)]
struct Bodies {
    kib: Bytes,
    kib64: Bytes,
    mib: Bytes,
    message: Bytes,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let threads = arguments.threads.clamp(1, arguments.addresses.len());
    let running: Vec<_> = (0..threads)
        .map(|at| {
            let mine = arguments.addresses.iter().copied();
            let mine: Vec<_> = mine.skip(at).step_by(threads).collect();
            thread::spawn(move || serve(&mine))
        })
        .collect();
    for thread in running {
        thread
            .join()
            .expect("a thread of the backend does not panic")?;
    }
    Ok(())
}

/// Serves some of the addresses, for ever.
fn serve(addresses: &[SocketAddr]) -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let bodies = Bodies::new();
    task::LocalSet::new().block_on(&runtime, async move {
        let mut accepting = Vec::new();
        for address in addresses {
            let listener = TcpListener::bind(address).await;
            let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
            accepting.push(task::spawn_local(accept(listener, bodies.clone())));
        }
        for one in accepting {
            one.await.context("accepting ended")??;
        }
        Ok(())
    })
}

async fn accept(listener: TcpListener, bodies: Bodies) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("cannot accept")?;
        let bodies = bodies.clone();
        task::spawn_local(async move {
            // A connection that breaks is what whoever called has to know of.
            drop(connection(stream, bodies).await);
        });
    }
}

/// One connection, of the protocol that its first bytes are of (RFC 9113, section 3.4).
async fn connection(stream: TcpStream, bodies: Bodies) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut start = [0; 4];
    let read = stream.peek(&mut start).await?;
    let service = service_fn(move |request| {
        let response = answer(request, &bodies);
        async move { Ok::<_, Infallible>(response) }
    });
    let stream_io = TokioIo::new(stream);
    if start[..read] == *b"PRI " {
        let mut server = http2::Builder::new(TokioExecutor::new());
        server
            .max_concurrent_streams(1024)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(1 << 22);
        server.serve_connection(stream_io, service).await?;
    } else {
        http1::Builder::new()
            .serve_connection(stream_io, service)
            .await?;
    }
    Ok(())
}

fn answer(request: Request<Incoming>, bodies: &Bodies) -> Response<Payload> {
    let path = request.uri().path();
    let (kind, body) = if path.ends_with("/64k") {
        (TEXT, Payload::of(&bodies.kib64))
    } else if path.ends_with("/1m") {
        (TEXT, Payload::of(&bodies.mib))
    } else if path.ends_with("/headers") {
        (TEXT, Payload::of(&headers(&request)))
    } else if path == "/bench.Echo/Unary" {
        (GRPC, Payload::Echo(request.into_body()))
    } else if path == "/bench.Echo/Stream" {
        let messages = Messages::asked_by(request.into_body(), &bodies.message);
        (GRPC, Payload::Messages(messages))
    } else {
        (TEXT, Payload::of(&bodies.kib))
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// What arrived, for probes.
fn headers(request: &Request<Incoming>) -> Bytes {
    let mut lines = Vec::new();
    for (name, value) in request.headers() {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.as_bytes());
        lines.push(b'\n');
    }
    lines.into()
}

// === impl Bodies ===

impl Bodies {
    fn new() -> Self {
        let text = |length: usize| Bytes::from(b"0123456789abcdef".repeat(length / 16));
        // A message of gRPC: not compressed, its length in four bytes, and the bytes.
        let mut message = vec![0, 0, 0, 0, 128];
        message.extend_from_slice(&text(128));
        Self {
            kib: text(1024),
            kib64: text(64 * 1024),
            mib: text(1024 * 1024),
            message: message.into(),
        }
    }
}
