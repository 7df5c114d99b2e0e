//! A forwarder of HTTP/1.1 that does nothing else, on hyper: one thread, connections to each upstream
//! kept. What `cargo xtask bench peers` calls `hyper`, to tell what the mesh adds to it.
#![forbid(unsafe_code)]

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
};

use anyhow::Context as _;
use clap::Parser;
use http::{HeaderName, Request, Response, header};
use hyper::{
    body::Incoming,
    client::conn::http1::{self as client, SendRequest},
    server::conn::http1 as server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime, task,
};

/// A bare forwarder
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen
    listen: SocketAddr,

    /// Where to, in turn
    #[arg(required = true)]
    upstreams: Vec<SocketAddr>,
}

/// Connections to the upstreams.
#[derive(Debug)]
struct Pool {
    upstreams: Vec<Upstream>,
    next: Cell<usize>,
}

#[derive(Debug)]
struct Upstream {
    address: SocketAddr,
    /// That had a request; one whose response is not over is not ready.
    kept: RefCell<Vec<SendRequest<Incoming>>>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let pool = Rc::new(Pool {
        upstreams: arguments
            .upstreams
            .iter()
            .copied()
            .map(Upstream::new)
            .collect(),
        next: Cell::new(0),
    });
    task::LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(arguments.listen).await;
        let listener = listener.context("cannot listen")?;
        loop {
            let (stream, _) = listener.accept().await.context("cannot accept")?;
            // A connection that breaks is what whoever called has to know of.
            let pool = pool.clone();
            task::spawn_local(async move { drop(connection(stream, pool).await) });
        }
    })
}

async fn connection(stream: TcpStream, pool: Rc<Pool>) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let service = service_fn(move |request| forward(request, pool.clone()));
    let connection = server::Builder::new().serve_connection(TokioIo::new(stream), service);
    Ok(connection.await?)
}

async fn forward(
    mut request: Request<Incoming>,
    pool: Rc<Pool>,
) -> anyhow::Result<Response<Incoming>> {
    for name in HOP_BY_HOP {
        request.headers_mut().remove(name);
    }
    let upstream = pool.next();
    let mut sender = match upstream.take() {
        Some(sender) => sender,
        None => connect(upstream.address).await?,
    };
    let mut response = sender.send_request(request).await?;
    upstream.kept.borrow_mut().push(sender);
    for name in HOP_BY_HOP {
        response.headers_mut().remove(name);
    }
    Ok(response)
}

/// What is about one connection (RFC 9110, section 7.6.1), as far as callers of a bench send it.
const HOP_BY_HOP: [HeaderName; 2] = [header::CONNECTION, header::TE];

async fn connect(address: SocketAddr) -> anyhow::Result<SendRequest<Incoming>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = client::handshake(TokioIo::new(stream)).await?;
    task::spawn_local(async move { drop(connection.await) });
    Ok(sender)
}

// === impl Pool ===

impl Pool {
    fn next(&self) -> &Upstream {
        let at = self.next.get();
        self.next.set((at + 1) % self.upstreams.len());
        &self.upstreams[at]
    }
}

// === impl Upstream ===

impl Upstream {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            kept: RefCell::default(),
        }
    }

    /// One that can have a request; those that are closed are forgotten.
    fn take(&self) -> Option<SendRequest<Incoming>> {
        let mut kept = self.kept.borrow_mut();
        kept.retain(|sender| !sender.is_closed());
        let at = kept.iter().rposition(SendRequest::is_ready)?;
        Some(kept.swap_remove(at))
    }
}
