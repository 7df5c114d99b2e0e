//! A connection in memory, for tests.

use super::Downstream;
use crate::tcp::{Fails, Upstream};
use mesh_core::exchange;
use mesh_core::model::Endpoint;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::Notify;

/// One end of a connection in memory.
#[derive(Debug)]
pub(crate) struct Pipe {
    io: DuplexStream,
    original: Option<SocketAddr>,
    pub(crate) fate: Arc<Fate>,
    /// It stands for one through an HTTP proxy.
    pub(crate) tunnel: bool,
}

/// What becomes of one end, as seen from outside.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    reset: AtomicBool,
    broken: AtomicBool,
    /// The endpoint behind it fails.
    pub(crate) fails: Notify,
}

// === impl Fate ===

impl Fate {
    /// Whether it would be reset if it were closed.
    pub(crate) fn is_reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }

    /// Reading fails from now on.
    pub(crate) fn breaks(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }
}

// === impl Pipe ===

impl Pipe {
    /// Two ends that hold `size` bytes each way.
    pub(crate) fn new(size: usize) -> (Self, DuplexStream) {
        Self::intercepted(size, None)
    }

    /// The same, of a connection that was going elsewhere.
    pub(crate) fn intercepted(size: usize, original: Option<SocketAddr>) -> (Self, DuplexStream) {
        let (io, theirs) = tokio::io::duplex(size);
        let pipe = Self {
            io,
            original,
            fate: Arc::default(),
            tunnel: false,
        };
        (pipe, theirs)
    }
}

impl Downstream for Pipe {
    fn original_destination(&self) -> Option<SocketAddr> {
        self.original
    }

    fn reset_when_closed(&self) {
        self.fate.reset.store(true, Ordering::Relaxed);
    }
}

impl Upstream for Pipe {
    fn described(&self) -> exchange::Upstream {
        let address: SocketAddr = ([127, 0, 0, 1], 9).into();
        exchange::Upstream::new(Arc::new(Endpoint::new(address)))
    }

    fn reset_when_closed(&self) {
        self.fate.reset.store(true, Ordering::Relaxed);
    }

    fn endpoint_fails(&self) -> Option<Fails> {
        let fate = self.fate.clone();
        Some(Box::pin(async move { fate.fails.notified().await }))
    }

    fn is_tunnel(&self) -> bool {
        self.tunnel
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        // As a socket does: what comes after a reset is an error rather than the end.
        let ended = matches!(polled, Poll::Ready(Ok(()))) && buffer.filled().len() == before;
        if ended && self.fate.broken.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        polled
    }
}

impl AsyncWrite for Pipe {
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
}
