//! The server's side of a connection.
//!
//! A [`Connection`] is a future that reads a request, calls a service, and writes what it answers,
//! all in its own task. While it waits for a request it holds no buffer and no service future.

mod exchange;

pub(crate) use self::exchange::send;

use self::exchange::{Current, Exchange, Progress};
use crate::head::may_be_whole;
use crate::output::Output;
use crate::wire::{Shared, Wire, body, lock};
use crate::{Body, BoxError, Buffers, Error, HeadError, Limits, head};
use bytes::Buf;
use http::{Request, Response, StatusCode};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;
use tower_service::Service;

/// How long a caller whose request was not read whole is waited for after the answer, so that it
/// reads it: a socket that is closed with unread bytes takes back what was written. As Envoy's
/// `delayed_close_timeout`.
const LINGER: Duration = Duration::from_secs(1);

/// Requests that were sent ahead and are answered before other tasks have their turn.
const TURN: usize = 16;

/// Serves connections, each with the same settings.
#[derive(Clone, Debug)]
pub struct Server {
    buffers: Buffers,
    settings: Settings,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) limits: Limits,
    pub(crate) head_timeout: Option<Duration>,
    pub(crate) date: bool,
}

/// One connection, as a future that ends with it.
///
/// # Cancel safety
/// Dropping it closes the connection and drops the request under way.
pub struct Connection<Io, S: Service<Request<Body>>, B> {
    shared: Arc<Shared<Io>>,
    buffers: Buffers,
    settings: Settings,
    service: S,
    phase: Phase,
    exchange: Option<exchange::Boxed<S::Future, B>>,
    output: Output,
    /// Bytes of a head that are known not to be all of it.
    scanned: usize,
    /// Runs while a part of a head is there.
    head_timer: Option<Pin<Box<Sleep>>>,
    /// No request is taken after the present one.
    leaving: bool,
    /// What the connection ends with.
    error: Option<Error>,
}

/// Where a connection is in its life.
#[derive(Debug)]
enum Phase {
    /// Waits for a head.
    Head,
    /// Head -> Exchange: a request is being answered.
    Exchange,
    /// Head or Exchange -> Flush: writes what is left, and then closes.
    Flush { linger: bool },
    /// Flush -> Shutdown: says that nothing more comes.
    Shutdown { linger: bool },
    /// Shutdown -> Linger: waits for the caller to have read the answer.
    Linger(Pin<Box<Sleep>>),
    /// The socket is closed, or somebody else's.
    Over,
}

// === impl Server ===

impl Server {
    /// A server with these buffers, default limits, no limit on the time of a head, and a `date` in
    /// responses that have none.
    pub fn with_buffers(buffers: Buffers) -> Self {
        let settings = Settings {
            limits: Limits::default(),
            head_timeout: None,
            date: true,
        };
        Self { buffers, settings }
    }

    /// What a request head may be.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// How long a head may take from its first byte to its last; then the answer is 408. As Envoy's
    /// `request_headers_timeout`. How long a connection may idle is for the caller to decide.
    pub fn head_timeout(mut self, limit: Option<Duration>) -> Self {
        self.settings.head_timeout = limit;
        self
    }

    /// Whether responses without a `date` get one (RFC 9110 §6.6.1).
    pub fn date(mut self, date: bool) -> Self {
        self.settings.date = date;
        self
    }

    /// Serves a connection of which `first` was read already.
    pub fn serve<Io, S, B>(&self, io: Io, first: &[u8], service: S) -> Connection<Io, S, B>
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Service<Request<Body>, Response = Response<B>>,
        S::Error: Into<BoxError>,
        B: http_body::Body,
        B::Error: Into<BoxError>,
    {
        let buffers = self.buffers.clone();
        Connection {
            shared: Arc::new(Mutex::new(Wire::new(io, first, buffers.clone()))),
            buffers,
            settings: self.settings,
            service,
            phase: Phase::Head,
            exchange: None,
            output: Output::default(),
            scanned: 0,
            head_timer: None,
            leaving: false,
            error: None,
        }
    }
}

// === impl Connection ===

impl<Io, S: Service<Request<Body>>, B> Connection<Io, S, B> {
    /// Finishes the request under way, says `connection: close`, and closes. A connection that waits
    /// for a request closes at once; one that has a part of a head takes that request.
    ///
    /// The connection has to be polled after this.
    pub fn graceful_shutdown(&mut self) {
        self.leaving = true;
    }

    /// Whether it waits for a request, of which nothing is there yet.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Head) && self.scanned == 0
    }
}

// Nothing in it is pinned but what is in boxes.
impl<Io, S: Service<Request<Body>>, B> Unpin for Connection<Io, S, B> {}

impl<Io, S, B> Connection<Io, S, B>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    /// Head -> Exchange, Flush or Over.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            let mut wire = lock(&self.shared);
            // A CR may have been there before its LF, and nothing has begun with it.
            if wire.skip_empty_lines() {
                self.scanned = 0;
                self.head_timer = None;
            }
            if !wire.input().is_empty() {
                let scanned = &mut self.scanned;
                match parse(
                    &self.shared,
                    &mut wire,
                    &self.settings,
                    &self.buffers,
                    scanned,
                ) {
                    Ok(None) => {}
                    Ok(Some((request, mut current))) => {
                        drop(wire);
                        self.head_timer = None;
                        current.leave_if(self.leaving);
                        self.begin(request, current, cx);
                        return Poll::Ready(Ok(()));
                    }
                    Err(error) => {
                        drop(wire);
                        self.refuse(error.status(), Error::Head(error));
                        return Poll::Ready(Ok(()));
                    }
                }
            } else if self.leaving {
                drop(wire);
                self.phase = Phase::Shutdown { linger: false };
                return Poll::Ready(Ok(()));
            }
            match wire.poll_fill(1, cx) {
                Poll::Ready(Ok(0)) => {
                    let clean = wire.input().is_empty();
                    drop(wire);
                    self.phase = Phase::Shutdown { linger: false };
                    self.error = (!clean).then_some(Error::Closed);
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Error::Io(error))),
                Poll::Pending => {
                    drop(wire);
                    return self.poll_head_timer(cx);
                }
            }
        }
    }

    fn begin(&mut self, request: Request<Body>, current: Current, cx: &mut Context<'_>) {
        self.phase = Phase::Exchange;
        let exchange = match self.service.poll_ready(cx) {
            Poll::Ready(Ok(())) => Exchange::called(self.service.call(request), current),
            // Whatever it is, it is said when it is polled again.
            Poll::Pending | Poll::Ready(Err(_)) => Exchange::waiting(request, current),
        };
        self.exchange = Some(Box::pin(exchange));
    }

    /// Pending while a part of a head is there and its time is not up.
    fn poll_head_timer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Some(limit) = self.settings.head_timeout.filter(|_| self.scanned > 0) else {
            return Poll::Pending;
        };
        let timer = self
            .head_timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(timer.as_mut().poll(cx));
        self.refuse(StatusCode::REQUEST_TIMEOUT, Error::HeadTimeout);
        Poll::Ready(Ok(()))
    }

    /// Answers what is no request, and closes.
    fn refuse(&mut self, status: StatusCode, error: Error) {
        let out = self.output.buffer(&self.buffers);
        exchange::refusal(out, status, self.settings.date, &self.buffers);
        self.head_timer = None;
        self.error = Some(error);
        self.phase = Phase::Flush { linger: true };
    }

    /// Exchange -> Head, Flush or Over.
    fn poll_exchange(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            let Some(exchange) = &mut self.exchange else {
                return Poll::Ready(Ok(()));
            };
            lock(&self.shared).forget_owner();
            let mut progress = Progress {
                service: &mut self.service,
                output: &mut self.output,
                shared: &*self.shared,
                buffers: &self.buffers,
                date: self.settings.date,
                leaving: self.leaving,
            };
            let is_written = match exchange.as_mut().poll(&mut progress, cx) {
                Poll::Pending => false,
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(error)) => {
                    // The caller sees how far it went.
                    self.exchange = None;
                    self.error = Some(error);
                    self.phase = Phase::Flush { linger: false };
                    return Poll::Ready(Ok(()));
                }
            };
            let mut wire = lock(&self.shared);
            if wire.takes_continue() {
                let output = self.output.buffer(&self.buffers);
                output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            let had_room = self.output.has_room();
            let Some(io) = &mut wire.io else {
                return Poll::Ready(Err(Error::Closed));
            };
            if self.output.poll_flush(io, &self.buffers, cx)?.is_pending() {
                wire.set_owner(cx.waker());
                return Poll::Pending;
            }
            if is_written {
                drop(wire);
                self.finish();
                return Poll::Ready(Ok(()));
            }
            if had_room {
                wire.set_owner(cx.waker());
                return wire.poll_gone(cx).map(Err);
            }
        }
    }

    /// The response was written.
    fn finish(&mut self) {
        let Some(mut exchange) = self.exchange.take() else {
            return;
        };
        let (keep_alive, tunnel) = exchange.as_mut().outcome();
        // It may hold the request's body, which takes the lock when it is dropped.
        drop(exchange);
        let mut wire = lock(&self.shared);
        if let Some(pending) = tunnel {
            self.phase = Phase::Over;
            if let Some((io, first)) = wire.give_away() {
                drop(wire);
                pending.fulfil(io, first);
            }
            return;
        }
        self.phase = if keep_alive && wire.is_complete() {
            Phase::Head
        } else {
            Phase::Shutdown {
                linger: !wire.is_complete() || !wire.input().is_empty(),
            }
        };
    }

    /// Shutdown -> Linger or Over.
    fn poll_shutdown(&mut self, linger: bool, cx: &mut Context<'_>) -> Poll<()> {
        let mut wire = lock(&self.shared);
        if linger {
            wire.abandon();
        }
        if let Some(io) = &mut wire.io {
            // It closes either way.
            drop(ready!(Pin::new(io).poll_shutdown(cx)));
        }
        self.phase = if linger {
            Phase::Linger(Box::pin(tokio::time::sleep(LINGER)))
        } else {
            Phase::Over
        };
        Poll::Ready(())
    }
}

/// Takes a request from what was read. None if its head goes on.
fn parse<Io>(
    shared: &Arc<Shared<Io>>,
    wire: &mut Wire<Io>,
    settings: &Settings,
    buffers: &Buffers,
    scanned: &mut usize,
) -> Result<Option<(Request<Body>, Current)>, HeadError>
where
    Io: AsyncRead + Unpin + Send + 'static,
{
    let limits = &settings.limits;
    let head = if may_be_whole(wire.input(), *scanned) {
        head::request(wire.input(), limits, buffers.map())?
    } else if wire.input().len() > limits.head {
        return Err(HeadError::TooLarge);
    } else {
        None
    };
    let Some(mut head) = head else {
        *scanned = wire.input().len();
        return Ok(None);
    };
    *scanned = 0;
    wire.consume(head.len);
    let body = body(shared, wire, head.length, limits);
    if head.expects_continue && !wire.is_complete() {
        wire.expect();
    }
    wire.release();
    let current = Current::of(&mut head);
    Ok(Some((head.request.map(|()| body), current)))
}

impl<Io, S, B> Future for Connection<Io, S, B>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: http_body::Body,
    B::Data: Buf,
    B::Error: Into<BoxError>,
{
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut turns = 0;
        loop {
            match &mut this.phase {
                Phase::Head if turns == TURN => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Phase::Head => {
                    turns += 1;
                    ready!(this.poll_head(cx))?;
                }
                Phase::Exchange => ready!(this.poll_exchange(cx))?,
                Phase::Flush { linger } => {
                    let linger = *linger;
                    let mut wire = lock(&this.shared);
                    if let Some(io) = &mut wire.io {
                        ready!(this.output.poll_flush(io, &this.buffers, cx))?;
                    }
                    this.phase = Phase::Shutdown { linger };
                }
                Phase::Shutdown { linger } => {
                    let linger = *linger;
                    ready!(this.poll_shutdown(linger, cx));
                }
                Phase::Linger(timer) => {
                    if timer.as_mut().poll(cx).is_pending() {
                        ready!(lock(&this.shared).poll_drained(cx));
                    }
                    this.phase = Phase::Over;
                }
                Phase::Over => {
                    // A body that somebody still holds must not keep the socket open.
                    lock(&this.shared).close();
                    return Poll::Ready(this.error.take().map_or(Ok(()), Err));
                }
            }
        }
    }
}

impl<Io, S: Service<Request<Body>>, B> Drop for Connection<Io, S, B> {
    fn drop(&mut self) {
        lock(&self.shared).close();
    }
}

impl<Io, S: Service<Request<Body>>, B> fmt::Debug for Connection<Io, S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("phase", &self.phase)
            .field("leaving", &self.leaving)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
