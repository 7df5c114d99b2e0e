//! Connections that stop being HTTP: protocol switches (RFC 9110 §7.8) and tunnels.

use bytes::{Buf, Bytes};
use http::Extensions;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// A connection that was HTTP, as bytes. What came behind the last head is read first.
pub struct Upgraded {
    io: Box<dyn Stream>,
    first: Bytes,
}

/// Becomes the connection, once the other protocol begins. Fails if it never does.
#[derive(Debug)]
pub struct OnUpgrade(oneshot::Receiver<Upgraded>);

/// No other protocol began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection did not switch protocols")]
#[non_exhaustive]
pub struct NotUpgraded;

/// The connection's side.
#[derive(Debug)]
pub(crate) struct Pending(oneshot::Sender<Upgraded>);

/// What is put on a message. Extensions must be clonable, and only one can have it.
#[derive(Clone)]
struct Offer(Arc<Mutex<Option<OnUpgrade>>>);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<Io: AsyncRead + AsyncWrite + Unpin + Send> Stream for Io {}

/// Takes the connection's future self off a request that was received, before it is answered with
/// 101 (or 2xx, if it is CONNECT), or off such a response. None if no upgrade was asked for.
pub fn on(extensions: &mut Extensions) -> Option<OnUpgrade> {
    let Offer(offer) = extensions.remove()?;
    offer.lock().unwrap_or_else(PoisonError::into_inner).take()
}

// === impl Pending ===

impl Pending {
    /// Puts the offer of the connection on a message.
    pub(crate) fn offer(extensions: &mut Extensions) -> Self {
        let (to, from) = oneshot::channel();
        extensions.insert(Offer(Arc::new(Mutex::new(Some(OnUpgrade(from))))));
        Self(to)
    }

    /// Gives the connection away. If nobody wants it, it is closed.
    pub(crate) fn fulfil<Io>(self, io: Io, first: Bytes)
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = Box::new(io);
        drop(self.0.send(Upgraded { io, first }));
    }
}

// === impl OnUpgrade ===

impl Future for OnUpgrade {
    type Output = Result<Upgraded, NotUpgraded>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_err(|_| NotUpgraded)
    }
}

// === impl Upgraded ===

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let count = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..count]);
        self.first.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upgraded {
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
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded")
            .field("first", &self.first.len())
            .finish_non_exhaustive()
    }
}
