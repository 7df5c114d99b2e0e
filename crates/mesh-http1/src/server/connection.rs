//! One connection of a server.

use super::exchange::{self, Current, Exchange, Progress};
use super::{Parts, Refused, Settings};
use crate::head::may_be_whole;
use crate::output::Output;
use crate::wire::{Shared, Wire, body, lock};
use crate::{Body, BoxError, Buffers, Error, HeadError, head};
use bytes::{Buf, Bytes};
use http::{Request, Response};
use parking_lot::Mutex;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;
use tower_service::Service;

/// How long a caller whose request was not read whole is waited for after the answer, so that it
/// reads it: a socket that is closed with unread bytes takes back what was written. As Envoy's
/// `delayed_close_timeout`.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// Requests that were sent ahead and are answered before other tasks have their turn.
const TURN: usize = 16;

/// What every connection of HTTP/2 begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One connection, as a future that ends with it.
///
/// # Cancel safety
/// Dropping it closes the connection and drops the request under way.
pub struct Connection<Io, S: Service<Request<Body>>, B> {
    shared: Held<Io>,
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
    /// The next request is the last, if there is none under way.
    last: bool,
    /// Requests and refusals so far.
    requests: u64,
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

/// Closes the socket with the connection: a body that somebody still holds must not keep it open.
struct Held<Io>(Arc<Shared<Io>>);

// === impl Connection ===

impl<Io, S: Service<Request<Body>>, B> Connection<Io, S, B> {
    pub(super) fn new(
        io: Io,
        first: &[u8],
        service: S,
        buffers: Buffers,
        settings: Settings,
    ) -> Self {
        let wire = Wire::new(io, first, buffers.clone());
        Self {
            shared: Held(Arc::new(Mutex::new(wire))),
            buffers,
            settings,
            service,
            phase: Phase::Head,
            exchange: None,
            output: Output::default(),
            scanned: 0,
            head_timer: None,
            leaving: false,
            last: false,
            requests: 0,
            error: None,
        }
    }

    /// Finishes the request under way, says `connection: close`, and closes. A connection that waits
    /// for a request closes at once; one that has a part of a head takes that request.
    ///
    /// The connection has to be polled after this.
    pub fn graceful_shutdown(&mut self) {
        self.leaving = true;
    }

    /// Says `connection: close` with the response to the request under way, or to the next one, and
    /// closes then.
    pub fn last_request(&mut self) {
        self.last = true;
    }

    /// How many requests came, and heads that were none.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Whether a request is being answered.
    pub fn is_answering(&self) -> bool {
        matches!(self.phase, Phase::Exchange)
    }

    /// What is left after [`Error::Http2`]. None if the connection was given away or closed.
    pub fn into_parts(self) -> Option<Parts<Io, S>> {
        let (io, first) = lock(&self.shared).give_away()?;
        let service = self.service;
        Some(Parts { io, first, service })
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
            let mut is_preface = false;
            if self.settings.http2 && self.requests == 0 && !wire.input().is_empty() {
                match begins_http2(wire.input()) {
                    Some(true) => return Poll::Ready(Err(Error::Http2)),
                    Some(false) => {}
                    None => {
                        is_preface = true;
                        // Something is there, and all of it is still to be looked at.
                        self.scanned = 1;
                    }
                }
            }
            // A CR may have been there before its LF, and nothing has begun with it.
            if wire.skip_empty_lines() {
                self.scanned = 0;
                self.head_timer = None;
            }
            if !wire.input().is_empty() && !is_preface {
                let scanned = &mut self.scanned;
                match parse(
                    &self.shared.0,
                    &mut wire,
                    &self.settings,
                    &self.buffers,
                    scanned,
                ) {
                    Ok(None) => {}
                    Ok(Some((request, mut current))) => {
                        drop(wire);
                        self.head_timer = None;
                        current.leave_if(self.leaving || self.last);
                        self.begin(request, current, cx);
                        return Poll::Ready(Ok(()));
                    }
                    Err(error) => {
                        drop(wire);
                        self.refuse(Refused::Head(error), cx);
                        return Poll::Ready(Ok(()));
                    }
                }
            } else if self.leaving && !is_preface {
                drop(wire);
                self.phase = Phase::Shutdown { linger: false };
                return Poll::Ready(Ok(()));
            }
            match wire.poll_head(cx) {
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
        self.requests += 1;
        let mut exchange = Box::pin(Exchange::new(current));
        match self.service.poll_ready(cx) {
            Poll::Ready(Ok(())) => exchange.as_mut().call(|| self.service.call(request)),
            // Whatever it is, it is said when it is polled again.
            Poll::Pending | Poll::Ready(Err(_)) => exchange.as_mut().wait(request),
        }
        self.exchange = Some(exchange);
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
        self.refuse(Refused::Timeout, cx);
        Poll::Ready(Ok(()))
    }

    /// Head -> Exchange or Flush: answers what is no request, and closes.
    fn refuse(&mut self, refused: Refused, cx: &mut Context<'_>) {
        self.head_timer = None;
        self.scanned = 0;
        self.error = Some(match refused {
            Refused::Head(error) => Error::Head(error),
            Refused::Timeout => Error::HeadTimeout,
        });
        if self.settings.tells_refusals {
            let mut request = Request::new(Body::whole(Bytes::new()));
            request.extensions_mut().insert(refused);
            self.begin(request, Current::refused(), cx);
            return;
        }
        self.requests += 1;
        let status = refused.status();
        let out = self.output.buffer(&self.buffers);
        exchange::refusal(out, status, self.settings.date, &self.buffers);
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
                shared: &self.shared,
                buffers: &self.buffers,
                date: self.settings.date,
                leaving: self.leaving || self.last,
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
            // What was refused may go on.
            let linger = self.error.is_some() || !wire.is_complete() || !wire.input().is_empty();
            Phase::Shutdown { linger }
        };
        if let Some(fault) = wire.fault() {
            self.error.get_or_insert(Error::Body(fault));
        }
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
        let (map, mut names) = buffers.head(false);
        let head = head::request_like(wire.input(), limits, map, Some(&mut names));
        buffers.keep_names(names, false);
        head?
    } else if wire.input().len() > limits.head {
        return Err(HeadError::TooLarge);
    } else {
        None
    };
    let Some(mut head) = head else {
        *scanned = wire.input().len();
        return Ok(None);
    };
    settings.check(&head)?;
    *scanned = 0;
    wire.consume(head.len);
    let body = body(shared, wire, head.length, limits);
    if head.expects_continue && !wire.is_complete() {
        wire.expect();
    }
    wire.release();
    head.takes_trailers &= settings.trailers;
    *head.request.extensions_mut() = buffers.extensions();
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

impl<Io, S: Service<Request<Body>>, B> fmt::Debug for Connection<Io, S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("phase", &self.phase)
            .field("leaving", &self.leaving)
            .finish_non_exhaustive()
    }
}

/// Whether that is what a connection of HTTP/2 begins with. None if it may still become that.
fn begins_http2(input: &[u8]) -> Option<bool> {
    if input.len() >= PREFACE.len() {
        return Some(input.starts_with(PREFACE));
    }
    (!PREFACE.starts_with(input)).then_some(false)
}

// === impl Held ===

impl<Io> Deref for Held<Io> {
    type Target = Shared<Io>;

    fn deref(&self) -> &Shared<Io> {
        &self.0
    }
}

impl<Io> Drop for Held<Io> {
    fn drop(&mut self) {
        lock(&self.0).close();
    }
}
