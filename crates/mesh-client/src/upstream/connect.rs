//! Making connections.

use super::lease::Units;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use mesh_core::model::{Address, Cluster};
use socket2::{SockRef, TcpKeepalive};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::net::TcpStream;

/// How connections are made: over TCP, or in memory in tests.
#[derive(Clone)]
pub(crate) enum Connector {
    Tcp,
    #[cfg(test)]
    Memory(Arc<dyn Fn(&Address) -> InMemory + Send + Sync>),
}

/// A connection that will be made in memory.
#[cfg(test)]
pub(crate) type InMemory =
    Pin<Box<dyn Future<Output = io::Result<tokio::io::DuplexStream>> + Send>>;

/// A connection that has just been made.
pub(crate) struct Connected {
    pub(crate) stream: Stream,
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
}

/// A connection, and what is in use for as long as it is open. hyper owns it, and whoever takes it
/// over in an upgrade: what it holds is given back when the socket is closed, never before.
pub(crate) struct Io {
    stream: Stream,
    _held: Units,
}

pub(crate) enum Stream {
    Tcp(TokioIo<TcpStream>),
    #[cfg(test)]
    Memory(TokioIo<tokio::io::DuplexStream>),
}

// === impl Connector ===

impl Connector {
    pub(crate) fn connect(
        &self,
        address: Address,
        cluster: Arc<Cluster>,
    ) -> Pin<Box<dyn Future<Output = io::Result<Connected>> + Send>> {
        match self {
            Self::Tcp => Box::pin(connect_tcp(address, cluster)),
            #[cfg(test)]
            Self::Memory(make) => {
                let made = make(&address);
                Box::pin(async move {
                    Ok(Connected {
                        stream: Stream::Memory(TokioIo::new(made.await?)),
                        remote: None,
                        local: None,
                    })
                })
            }
        }
    }
}

async fn connect_tcp(address: Address, cluster: Arc<Cluster>) -> io::Result<Connected> {
    let stream = match &address {
        Address::Socket(address) => TcpStream::connect(address).await?,
        Address::Host(host, port) => TcpStream::connect((host.as_str(), *port)).await?,
        other => {
            let message = format!("address {other} is of a kind that cannot be connected to");
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
    };
    stream.set_nodelay(true)?;
    if let Some(wanted) = cluster.tcp_keepalive {
        let mut keepalive = TcpKeepalive::new();
        if let Some(time) = wanted.time {
            keepalive = keepalive.with_time(time);
        }
        if let Some(interval) = wanted.interval {
            keepalive = keepalive.with_interval(interval);
        }
        if let Some(probes) = wanted.probes {
            keepalive = keepalive.with_retries(probes);
        }
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    }
    let (remote, local) = (stream.peer_addr().ok(), stream.local_addr().ok());
    Ok(Connected {
        stream: Stream::Tcp(TokioIo::new(stream)),
        remote,
        local,
    })
}

// === impl Io ===

impl Io {
    pub(crate) fn new(stream: Stream, held: Units) -> Self {
        Self {
            stream,
            _held: held,
        }
    }
}

macro_rules! each {
    ($self:ident, $io:ident => $call:expr) => {
        match &mut $self.stream {
            Stream::Tcp($io) => $call,
            #[cfg(test)]
            Stream::Memory($io) => $call,
        }
    };
}

impl Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl Write for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_shutdown(cx))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(io) => io.is_write_vectored(),
            #[cfg(test)]
            Stream::Memory(io) => io.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write_vectored(cx, bufs))
    }
}
