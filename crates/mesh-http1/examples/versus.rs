//! The same small server on this crate and on hyper, to be measured side by side.
//!
//! ```text
//! cargo run --release -p mesh-http1 --example versus -- serve ours 127.0.0.1:8081
//! cargo run --release -p mesh-http1 --example versus -- serve hyper 127.0.0.1:8082
//! wrk -t1 -c64 http://127.0.0.1:8081/
//! cargo run --release -p mesh-http1 --example versus -- idle 127.0.0.1:8081 10000 PID
//! ```
//!
//! `forward KIND ADDRESS UPSTREAM` passes requests on, over a pool of connections, with both ends of
//! that kind. `serve` answers `/` with 1 KiB and `/N` with N bytes, on one thread. `idle` opens connections,
//! sends one request on each, waits for the answer, and prints what the process holds for each.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_http1::{Body, Buffers, Client, Server, client};
use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn Error>;

async fn answer<B: HttpBody>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    let size = request
        .uri()
        .path()
        .get(1..)
        .and_then(|size| size.parse().ok());
    // What was sent is read, as a proxy would.
    let is_whole = request.into_body().collect().await.is_ok();
    static TEXT: [u8; 1 << 20] = [b'x'; 1 << 20];
    let body = Bytes::from_static(&TEXT[..size.unwrap_or(1 << 10).min(TEXT.len())]);
    let mut response = Response::new(Full::new(body));
    if !is_whole {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    let text = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
        .headers_mut()
        .insert(header::SERVER, HeaderValue::from_static("versus"));
    Ok(response)
}

/// Takes a connection.
type Accept = Box<dyn FnMut(TcpStream)>;

async fn accept(address: &str, mut each: Accept) -> Result<(), Failure> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (io, _) = listener.accept().await?;
        io.set_nodelay(true)?;
        each(io);
    }
}

fn serve(kind: &str) -> Accept {
    if kind == "hyper" {
        return Box::new(|io| {
            let service = hyper::service::service_fn(answer);
            drop(tokio::spawn(
                on_hyper().serve_connection(TokioIo::new(io), service),
            ));
        });
    }
    let server = Server::with_buffers(Buffers::default());
    Box::new(move |io| {
        drop(tokio::spawn(server.serve(
            io,
            b"",
            tower::service_fn(answer),
        )));
    })
}

fn on_hyper() -> hyper::server::conn::http1::Builder {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(None);
    builder
}

fn forward(kind: &str, upstream: &str) -> Accept {
    let to: Arc<str> = upstream.into();
    if kind == "hyper" {
        let pool = Arc::new(Pool::<http1::SendRequest<Incoming>>(Mutex::default()));
        return Box::new(move |io| {
            let (pool, to) = (pool.clone(), to.clone());
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let (pool, to) = (pool.clone(), to.clone());
                async move {
                    let mut sender = match pool.get(|s| s.is_ready()) {
                        Some(sender) => sender,
                        None => {
                            let io = TokioIo::new(connect(&to).await?);
                            let (mut sender, connection) = http1::handshake(io).await?;
                            drop(tokio::spawn(connection));
                            sender.ready().await?;
                            sender
                        }
                    };
                    let response = sender.send_request(request).await?;
                    Ok::<_, Boxed>(response.map(|body| pool.back(sender, body)))
                }
            });
            drop(tokio::spawn(
                on_hyper().serve_connection(TokioIo::new(io), service),
            ));
        });
    }
    let buffers = Buffers::default();
    let server = Server::with_buffers(buffers.clone());
    let client = Client::with_buffers(buffers);
    let pool = Arc::new(Pool::<client::SendRequest<TcpStream, Body>>(
        Mutex::default(),
    ));
    Box::new(move |io| {
        let (client, pool, to) = (client.clone(), pool.clone(), to.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (client, pool, to) = (client.clone(), pool.clone(), to.clone());
            async move {
                let mut sender = match pool.get(|sender| sender.is_ready()) {
                    Some(sender) => sender,
                    None => {
                        let (sender, connection) = client.handshake(connect(&to).await?);
                        drop(tokio::spawn(connection));
                        sender
                    }
                };
                let response = sender.send_request(request).await;
                let response = response.map_err(|failed| failed.error)?;
                Ok::<_, Boxed>(response.map(|body| pool.back(sender, body)))
            }
        });
        drop(tokio::spawn(server.serve(io, b"", service)));
    })
}

async fn connect(to: &str) -> std::io::Result<TcpStream> {
    let io = TcpStream::connect(to).await?;
    io.set_nodelay(true)?;
    Ok(io)
}

type Boxed = Box<dyn Error + Send + Sync>;

/// Connections without a request.
struct Pool<S>(Mutex<Vec<S>>);

/// A body that brings its connection back.
struct Pooled<S, B> {
    body: B,
    lease: Option<(S, Arc<Pool<S>>)>,
}

impl<S> Pool<S> {
    fn get(&self, is_ready: impl Fn(&S) -> bool) -> Option<S> {
        let mut idle = self.0.lock().unwrap();
        std::iter::from_fn(|| idle.pop()).find(|sender| is_ready(sender))
    }

    fn back<B: HttpBody>(self: Arc<Self>, sender: S, body: B) -> Pooled<S, B> {
        let mut pooled = Pooled {
            body,
            lease: Some((sender, self)),
        };
        pooled.settle();
        pooled
    }
}

impl<S, B: HttpBody> Pooled<S, B> {
    fn settle(&mut self) {
        if self.body.is_end_stream()
            && let Some((sender, pool)) = self.lease.take()
        {
            pool.0.lock().unwrap().push(sender);
        }
    }
}

impl<S: Unpin, B: HttpBody + Unpin> HttpBody for Pooled<S, B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.settle();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn idle(address: &str, count: usize, process: &str) -> Result<(), Failure> {
    let before = resident(process)?;
    let mut open = Vec::new();
    for _ in 0..count {
        let mut io = TcpStream::connect(address).await?;
        io.write_all(b"GET /10 HTTP/1.1\r\nhost: a\r\n\r\n").await?;
        let mut seen = Vec::new();
        while !seen.ends_with(b"x") {
            let read = io.read_buf(&mut seen).await?;
            assert!(read > 0, "closed");
        }
        open.push(io);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = resident(process)?;
    println!(
        "{} bytes for each of {count}",
        (after - before) / count as u64
    );
    Ok(())
}

fn resident(process: &str) -> Result<u64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("no VmRSS")?.parse::<u64>()? * 1024)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", kind @ ("ours" | "hyper"), address] => accept(address, serve(kind)).await,
        ["forward", kind @ ("ours" | "hyper"), address, upstream] => {
            accept(address, forward(kind, upstream)).await
        }
        ["idle", address, count, process] => idle(address, count.parse()?, process).await,
        _ => Err(
            "serve KIND ADDRESS, forward KIND ADDRESS UPSTREAM or idle ADDRESS COUNT PID".into(),
        ),
    }
}
