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
//! With `--mutual FOLDER` (see `peers-load authority`) the addresses of `--secure` are served, too: with
//! TLS 1.3 for callers whose certificate the folder's authority signed. There `/headers` says in its
//! first line whose that is.
//!
//! A port is served by one thread. Bodies are shared, and nothing is allocated for a request but
//! what hyper does.
#![forbid(unsafe_code)]

use std::{
    error::Error,
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

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
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    runtime, task,
};
use tokio_rustls::TlsAcceptor;

use crate::payload::{Messages, Payload};

mod payload;
mod tls;

/// The backend of `cargo xtask bench peers`
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen
    #[arg(required = true)]
    addresses: Vec<SocketAddr>,

    /// Threads, which share the addresses
    #[arg(long, default_value_t = 1)]
    threads: usize,

    /// Where to listen with mutual TLS
    #[arg(
        long,
        value_name = "ADDRESS",
        value_delimiter = ',',
        requires = "mutual"
    )]
    secure: Vec<SocketAddr>,

    /// Breaks one request in so many, by chance, instead of answering it; `/broken` says how many it were
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    breaks: u64,

    /// The backend's certificate and key, and the authority of callers
    #[arg(long, value_name = "FOLDER")]
    mutual: Option<PathBuf>,
}

/// Where to listen, and with what.
type Listens = (SocketAddr, Option<TlsAcceptor>);

/// Requests that are not answered.
#[derive(Debug, Default)]
struct Breaks {
    /// One in so many; 0 for none.
    one_in: u64,
    /// What was drawn last.
    drawn: AtomicU64,
    number: AtomicU64,
}

/// What requests of all threads have in common.
#[derive(Clone, Debug)]
struct Served {
    bodies: Bodies,
    breaks: Arc<Breaks>,
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
    let plain = arguments.addresses.iter().map(|address| (*address, None));
    let mut all: Vec<Listens> = plain.collect();
    if let Some(folder) = &arguments.mutual {
        let acceptor = tls::acceptor(folder)?;
        let secure = arguments.secure.iter();
        all.extend(secure.map(|address| (*address, Some(acceptor.clone()))));
    }
    let breaks = Arc::new(Breaks {
        one_in: arguments.breaks,
        ..Breaks::default()
    });
    let running: Vec<_> = (0..threads)
        .map(|at| {
            let breaks = breaks.clone();
            let mine: Vec<_> = all.iter().skip(at).step_by(threads).cloned().collect();
            thread::spawn(move || serve(mine, breaks))
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
fn serve(mine: Vec<Listens>, breaks: Arc<Breaks>) -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let served = Served {
        bodies: Bodies::new(),
        breaks,
    };
    task::LocalSet::new().block_on(&runtime, async move {
        let mut accepting = Vec::new();
        for (address, acceptor) in mine {
            let listener = TcpListener::bind(address).await;
            let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
            accepting.push(task::spawn_local(accept(
                listener,
                acceptor,
                served.clone(),
            )));
        }
        for one in accepting {
            one.await.context("accepting ended")??;
        }
        Ok(())
    })
}

async fn accept(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    served: Served,
) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("cannot accept")?;
        let (acceptor, served) = (acceptor.clone(), served.clone());
        task::spawn_local(async move {
            // A connection that breaks is what whoever called has to know of.
            drop(match acceptor {
                None => plain(stream, served).await,
                Some(acceptor) => secure(stream, &acceptor, served).await,
            });
        });
    }
}

/// One connection, of the protocol that its first bytes are of (RFC 9113, section 3.4).
async fn plain(stream: TcpStream, served: Served) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut start = [0; 4];
    let read = stream.peek(&mut start).await?;
    let is_h2 = start[..read] == *b"PRI ";
    exchange(stream, is_h2, served, None).await
}

/// One connection with TLS, of the protocol that was agreed on.
async fn secure(stream: TcpStream, acceptor: &TlsAcceptor, served: Served) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let session = stream.get_ref().1;
    let is_h2 = session.alpn_protocol() == Some(tls::H2);
    let caller = tls::caller(session)?;
    exchange(stream, is_h2, served, Some(caller)).await
}

/// Requests of one connection; the caller is the one of mutual TLS.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    is_h2: bool,
    served: Served,
    caller: Option<Arc<str>>,
) -> anyhow::Result<()> {
    let service = service_fn(move |request| {
        let response = match served.breaks.wants() && request.uri().path() != BROKEN {
            true => Err(Broken),
            false => Ok(answer(request, &served, caller.as_deref())),
        };
        async move { response }
    });
    let stream_io = TokioIo::new(stream);
    if is_h2 {
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

fn answer(request: Request<Incoming>, served: &Served, caller: Option<&str>) -> Response<Payload> {
    let bodies = &served.bodies;
    let path = request.uri().path();
    let (kind, body) = if path.ends_with("/64k") {
        (TEXT, Payload::of(&bodies.kib64))
    } else if path.ends_with("/1m") {
        (TEXT, Payload::of(&bodies.mib))
    } else if path.ends_with("/headers") {
        (TEXT, Payload::of(&headers(&request, caller)))
    } else if path == BROKEN {
        let number = served.breaks.number.load(Ordering::Relaxed);
        (TEXT, Payload::of(&number.to_string().into()))
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

/// Where it is said how many requests were broken.
const BROKEN: &str = "/broken";
const TEXT: HeaderValue = HeaderValue::from_static("text/plain");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// What arrived, for probes. The caller comes first: no header can be taken for that line.
fn headers(request: &Request<Incoming>, caller: Option<&str>) -> Bytes {
    let mut lines = Vec::new();
    if let Some(caller) = caller {
        lines.extend_from_slice(format!("caller {caller}\n").as_bytes());
    }
    for (name, value) in request.headers() {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.as_bytes());
        lines.push(b'\n');
    }
    lines.into()
}

/// Why there is no answer: HTTP/1.1 ends the connection, HTTP/2 the stream.
#[derive(Debug)]
struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken as asked for")
    }
}

impl Error for Broken {}

// === impl Breaks ===

impl Breaks {
    /// Whether the next request is not answered.
    fn wants(&self) -> bool {
        if self.one_in == 0 {
            return false;
        }
        // SplitMix64: evenly spread, and the same in each run with one caller.
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut drawn = self
            .drawn
            .fetch_add(STEP, Ordering::Relaxed)
            .wrapping_add(STEP);
        drawn = (drawn ^ drawn >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        drawn = (drawn ^ drawn >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let is_broken = (drawn ^ drawn >> 31).is_multiple_of(self.one_in);
        if is_broken {
            self.number.fetch_add(1, Ordering::Relaxed);
        }
        is_broken
    }
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
