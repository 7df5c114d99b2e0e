//! The client's side of a connection.
//!
//! A request is written, and its response read, in the task that sends it: between the two ends of a
//! proxy there is no task of its own and no wake-up. The [`Connection`] is only there for what nobody
//! else is there for: to notice that the server closed while nothing was going on, and to go on
//! sending a request whose response came early.

mod sending;

pub use self::sending::ResponseFuture;

use self::sending::Sending;
use crate::wire::{self, Piece, Shared, Source, Wire, lock};
use crate::{Buffers, Error, Limits};
use http::{Request, StatusCode};
use parking_lot::{Mutex, MutexGuard};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};

/// Makes connections, each with the same settings.
#[derive(Clone, Debug)]
pub struct Client {
    buffers: Buffers,
    limits: Limits,
    trailers: bool,
}

/// Sends requests on one connection, one after the other. Dropping it closes the connection, once
/// the response under way is over.
pub struct SendRequest<Io: AsyncRead + AsyncWrite + Unpin + Send, B> {
    link: Arc<Link<Io, B>>,
}

/// Watches over a connection, and ends with it. It has to be polled all the while; it sleeps except
/// when the server closes an idle connection, or answers a request before it was sent whole. At the
/// end it shuts the socket down, which TLS tells the server; that is tried once and not waited for.
///
/// # Errors
/// * [`Error::Unasked`]: the server said something that belongs to no response. A 408 is taken for
///   what it says: that an idle connection waited long enough;
/// * what is wrong with the rest of a request whose response came early.
///
/// How other requests fail is told to who sent them.
///
/// # Cancel safety
/// Dropping it closes the connection.
#[must_use = "a connection that is not polled does not notice that it was closed"]
pub struct Connection<Io, B> {
    link: Arc<Link<Io, B>>,
}

/// What they share.
struct Link<Io, B> {
    wire: Shared<Io>,
    /// The part of a request that is sent after its response has begun.
    rest: Mutex<Option<Box<Sending<B>>>>,
    buffers: Buffers,
    limits: Limits,
    trailers: bool,
    on_interim: Option<OnInterim>,
}

/// A request that got no response.
#[non_exhaustive]
pub struct NotAnswered<B> {
    /// Why.
    pub error: Error,
    /// The request, if nothing of it was sent.
    pub request: Option<Box<Request<B>>>,
}

/// Who is told the status of the first interim response to each request (RFC 9110 §15.2).
pub type OnInterim = Arc<dyn Fn(StatusCode) + Send + Sync>;

// === impl Client ===

impl Client {
    /// A client with these buffers and default limits for response heads.
    pub fn with_buffers(buffers: Buffers) -> Self {
        let limits = Limits::default();
        Self {
            buffers,
            limits,
            trailers: true,
        }
    }

    /// Whether trailers that a request announces are sent, as Envoy's `enable_trailers`. Default
    /// true.
    pub fn trailers(mut self, sent: bool) -> Self {
        self.trailers = sent;
        self
    }

    /// What a response head may be.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Speaks HTTP/1.1 on an open connection.
    pub fn handshake<Io, B>(&self, io: Io) -> (SendRequest<Io, B>, Connection<Io, B>)
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.connection(io, None)
    }

    /// The same, with somebody who is told of interim responses. They are passed over all the same.
    pub fn handshake_telling<Io, B>(
        &self,
        io: Io,
        on_interim: OnInterim,
    ) -> (SendRequest<Io, B>, Connection<Io, B>)
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.connection(io, Some(on_interim))
    }

    fn connection<Io, B>(
        &self,
        io: Io,
        on_interim: Option<OnInterim>,
    ) -> (SendRequest<Io, B>, Connection<Io, B>)
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut wire = Wire::new(io, b"", self.buffers.clone());
        wire.client = Some(wire::Client {
            busy: false,
            sending: false,
            keep_alive: true,
            unasked: false,
        });
        let link = Arc::new(Link {
            wire: Mutex::new(wire),
            rest: Mutex::new(None),
            buffers: self.buffers.clone(),
            limits: self.limits,
            trailers: self.trailers,
            on_interim,
        });
        let sender = SendRequest { link: link.clone() };
        (sender, Connection { link })
    }
}

// === impl SendRequest ===

impl<Io, B> SendRequest<Io, B>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: http_body::Body,
{
    /// Whether a request can be sent now: the last response is over, and the server is still there.
    /// What was not noticed yet is noticed when a request is sent, which then comes back.
    pub fn is_ready(&self) -> bool {
        lock(&self.link.wire).is_idle()
    }

    /// Whether no request can be sent any more.
    pub fn is_closed(&self) -> bool {
        lock(&self.link.wire).io.is_none()
    }

    /// Sends a request in origin form with its `host`. `content-length` and `transfer-encoding` are
    /// set as the body is. `expect: 100-continue` is not waited for.
    ///
    /// # Errors
    /// With the request, if nothing was sent: the connection is closed, or not ready.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub fn send_request(&mut self, request: Request<B>) -> ResponseFuture<Io, B> {
        ResponseFuture::new(self.link.clone(), request)
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin + Send, B> Drop for SendRequest<Io, B> {
    fn drop(&mut self) {
        let mut wire = lock(&self.link.wire);
        if wire.is_idle() {
            wire.close();
        } else if let Some(client) = &mut wire.client {
            client.keep_alive = false;
        }
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin + Send, B> fmt::Debug for SendRequest<Io, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendRequest").finish_non_exhaustive()
    }
}

// === impl Connection ===

impl<Io, B> Future for Connection<Io, B>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: http_body::Body,
    B::Error: Into<crate::BoxError>,
{
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let link = &*self.link;
        // First, so that whatever happens from here on wakes us.
        lock(&link.wire).watch(cx.waker());
        // Taken out, so that no lock is held while the body is polled.
        let rest = link.rest().take();
        let mut outcome = Ok(());
        if let Some(mut sending) = rest {
            match sending.poll(&link.wire, &link.buffers, cx) {
                Poll::Pending => *link.rest() = Some(sending),
                Poll::Ready(Ok(())) => lock(&link.wire).sent(),
                // A server may answer and close without having read all of it. It is not sent
                // whole, so the end of the response is that of the connection.
                Poll::Ready(Err(Error::Io(_))) => {}
                // The response is over, and nobody needs the rest.
                Poll::Ready(Err(Error::Closed)) => {}
                Poll::Ready(Err(error)) => {
                    lock(&link.wire).close();
                    outcome = Err(error);
                }
            }
        }
        let mut wire = lock(&link.wire);
        if wire.is_idle() {
            let gone = wire.poll_gone(cx);
            // Nothing was asked for, so nothing may come.
            if gone.is_ready() || !wire.input().is_empty() {
                wire.close_unasked();
            }
        }
        if wire.io.is_some() {
            return Poll::Pending;
        }
        if wire.client.is_some_and(|client| client.unasked) {
            outcome = Err(Error::Unasked);
        }
        let closing = wire.take_closing();
        drop(wire);
        if let Some(mut io) = closing {
            // A server that does not read is not waited for.
            let _ = Pin::new(&mut io).poll_shutdown(cx);
        }
        Poll::Ready(outcome)
    }
}

impl<Io, B> Drop for Connection<Io, B> {
    fn drop(&mut self) {
        let mut wire = lock(&self.link.wire);
        wire.close();
        let closing = wire.take_closing();
        drop(wire);
        let rest = self.link.rest().take();
        // Neither is dropped while something is locked.
        drop((closing, rest));
    }
}

impl<Io, B> fmt::Debug for Connection<Io, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

// === impl NotAnswered ===

impl<B> fmt::Debug for NotAnswered<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotAnswered")
            .field("error", &self.error)
            .field("unsent", &self.request.is_some())
            .finish()
    }
}

// === impl Link ===

impl<Io, B> Link<Io, B> {
    fn rest(&self) -> MutexGuard<'_, Option<Box<Sending<B>>>> {
        self.rest.lock()
    }
}

impl<Io, B> Source for Link<Io, B>
where
    Io: AsyncRead + Unpin + Send,
    B: Send,
{
    fn poll_piece(&self, message: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, Error>>> {
        lock(&self.wire).poll_piece(message, cx)
    }

    fn let_go(&self, message: u64) {
        lock(&self.wire).let_go(message);
    }
}

#[cfg(test)]
mod tests;
