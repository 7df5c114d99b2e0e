//! Opens connections: to the proxy where there is one, whatever was asked for, else to the host.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use tokio::{net::TcpStream, time::timeout};
use tower::Service;

/// How long a connection may take to be made. A call has a timeout of its own; this one ends
/// connections that the pool goes on making after the call that wanted them was dropped.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to the proxy, or to the host and port of the URI.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connector {
    proxy: Option<SocketAddr>,
}

/// A connection that knows whether a proxy is at the other end.
#[derive(Debug)]
pub(crate) struct Stream {
    io: TokioIo<TcpStream>,
    proxied: bool,
}

// === impl Connector ===

impl Connector {
    pub(crate) fn through(proxy: Option<SocketAddr>) -> Self {
        Self { proxy }
    }

    async fn connect(self, uri: Uri) -> io::Result<Stream> {
        let stream = match self.proxy {
            Some(proxy) => TcpStream::connect(proxy).await?,
            None => {
                let host = uri.host().unwrap_or_default();
                // An IPv6 host has brackets in a URI and none as an address (RFC 3986 §3.2.2).
                let host = host.trim_start_matches('[').trim_end_matches(']');
                TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?
            }
        };
        stream.set_nodelay(true)?;
        Ok(Stream {
            io: TokioIo::new(stream),
            proxied: self.proxy.is_some(),
        })
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = timeout(CONNECT_TIMEOUT, self.connect(uri));
        Box::pin(async { connecting.await? })
    }
}

// === impl Stream ===

impl Connection for Stream {
    fn connected(&self) -> Connected {
        // This is what makes hyper send the absolute form that a proxy wants (RFC 9112 §3.2.2).
        Connected::new().proxy(self.proxied)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }
}
