//! One request on its way, until its response has begun.

use super::{Link, NotAnswered};
use crate::encode::{self, Encoder};
use crate::head::{self, may_be_whole};
use crate::output::Output;
use crate::server::send;
use crate::upgrade::Pending;
use crate::wire::{Shared, Wire, body, lock};
use crate::{Body, BoxError, Buffers, Error, HeadError};
use http::{Method, Request, Response, header};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};

/// Interim responses to one request, at most.
const MOST_INTERIM: u32 = 32;

/// The response to a request.
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture<Io, B> {
    link: Arc<Link<Io, B>>,
    /// Until it begins to be sent.
    request: Option<Request<B>>,
    sending: Option<Sending<B>>,
    method: Method,
    asks_upgrade: bool,
    scanned: usize,
    interim: u32,
    /// The request could not be sent whole. There may be a response all the same.
    unsent: Option<Error>,
    /// The connection is its own, and closes with it.
    begun: bool,
}

/// What is to be sent.
pub(super) struct Sending<B> {
    output: Output,
    encoder: Encoder,
    body: Option<Pin<Box<B>>>,
}

// === impl ResponseFuture ===

impl<Io, B> ResponseFuture<Io, B> {
    pub(super) fn new(link: Arc<Link<Io, B>>, request: Request<B>) -> Self {
        Self {
            link,
            method: request.method().clone(),
            asks_upgrade: request
                .headers()
                .keys()
                .any(|name| *name == header::UPGRADE),
            request: Some(request),
            sending: None,
            scanned: 0,
            interim: 0,
            unsent: None,
            begun: false,
        }
    }
}

// A body is in a box, and a request is not polled.
impl<Io, B> Unpin for ResponseFuture<Io, B> {}

impl<Io, B> ResponseFuture<Io, B>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// Takes the connection. The request comes back if it cannot be had.
    fn begin(&mut self, request: Request<B>, cx: &mut Context<'_>) -> Result<(), NotAnswered<B>> {
        let mut wire = lock(&self.link.wire);
        if wire.is_idle() && (wire.poll_gone(cx).is_ready() || !wire.input().is_empty()) {
            wire.close_unasked();
        }
        let is_idle = wire.is_idle();
        let Some(client) = wire.client.as_mut().filter(|_| is_idle) else {
            return Err(NotAnswered {
                error: Error::Closed,
                request: Some(Box::new(request)),
            });
        };
        client.busy = true;
        client.sending = true;
        // The answer may take it away.
        client.keep_alive = true;
        drop(wire);
        self.begun = true;
        let (head, body) = request.into_parts();
        let mut output = Output::default();
        let exact = if body.is_end_stream() {
            Some(0)
        } else {
            body.size_hint().exact()
        };
        let buffers = &self.link.buffers;
        let encoder = encode::request(output.buffer(buffers), &head, exact, self.link.trailers);
        buffers.keep_map(head.headers);
        buffers.keep_extensions(head.extensions);
        self.sending = Some(Sending {
            output,
            body: (!encoder.is_full()).then(|| Box::pin(body)),
            encoder,
        });
        Ok(())
    }

    /// Sends what it can. Pending does not mean that there is no response.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let Some(sending) = &mut self.sending else {
            return Ok(());
        };
        match sending.poll(&self.link.wire, &self.link.buffers, cx) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(())) => {
                lock(&self.link.wire).sent();
            }
            // A server may answer and close without having read all of it.
            Poll::Ready(Err(Error::Io(error))) => self.unsent = Some(Error::Io(error)),
            Poll::Ready(Err(error)) => return Err(error),
        }
        self.sending = None;
        Ok(())
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<Body>, Error>> {
        let link = self.link.clone();
        let mut wire = lock(&link.wire);
        loop {
            // Only servers pass over empty lines (RFC 9112 §2.2).
            if let [b'\r' | b'\n', ..] = wire.input() {
                return Poll::Ready(Err(HeadError::Line.into()));
            }
            if !wire.input().is_empty()
                && let Some(response) = self.parse(&mut wire)?
            {
                return Poll::Ready(Ok(response));
            }
            let Poll::Ready(read) = wire.poll_head(cx) else {
                wire.wait(cx);
                return Poll::Pending;
            };
            if read? == 0 {
                if !wire.input().is_empty() {
                    return Poll::Ready(Err(HeadError::Incomplete.into()));
                }
                return Poll::Ready(Err(self.unsent.take().unwrap_or(Error::Closed)));
            }
        }
    }

    /// The final response, once its head is there. Interim ones are dropped.
    fn parse(&mut self, wire: &mut Wire<Io>) -> Result<Option<Response<Body>>, Error> {
        let (limits, buffers) = (&self.link.limits, &self.link.buffers);
        loop {
            if !may_be_whole(wire.input(), self.scanned) {
                self.scanned = wire.input().len();
                if self.scanned > limits.head {
                    return Err(HeadError::TooLarge.into());
                }
                return Ok(None);
            }
            let (map, mut names) = buffers.head(true);
            let head =
                head::response_like(wire.input(), limits, map, &self.method, Some(&mut names));
            buffers.keep_names(names, true);
            let Some(head) = head? else {
                self.scanned = wire.input().len();
                return Ok(None);
            };
            self.scanned = 0;
            wire.consume(head.len);
            if head.is_upgrade {
                return Ok(Some(self.switch(wire, head.response)?));
            }
            let status = head.response.status();
            if status.is_informational() {
                if let (0, Some(tell)) = (self.interim, &self.link.on_interim) {
                    tell(status);
                }
                buffers.keep_map(head.response.into_parts().0.headers);
                self.interim += 1;
                if self.interim > MOST_INTERIM {
                    return Err(HeadError::Unasked.into());
                }
                continue;
            }
            if let Some(client) = &mut wire.client {
                client.keep_alive &= head.keep_alive && self.unsent.is_none();
            }
            let body = body(&self.link, wire, head.length, limits);
            wire.release();
            self.hand_over(wire);
            if wire.is_complete() {
                wire.exchange_over();
            }
            return Ok(Some(head.response.map(|()| body)));
        }
    }

    /// What is left of the request is sent by the connection's own task.
    fn hand_over(&mut self, wire: &mut Wire<Io>) {
        self.begun = false;
        let Some(sending) = self.sending.take() else {
            return;
        };
        *self.link.rest() = Some(Box::new(sending));
        wire.wake();
    }

    fn switch(
        &mut self,
        wire: &mut Wire<Io>,
        mut response: Response<()>,
    ) -> Result<Response<Body>, Error> {
        if self.method != Method::CONNECT && !self.asks_upgrade {
            return Err(HeadError::Unasked.into());
        }
        if self.sending.is_some() || self.unsent.is_some() {
            // The rest of the request would be in front of what is not HTTP any more.
            return Err(HeadError::Unasked.into());
        }
        self.begun = false;
        let pending = Pending::offer(response.extensions_mut());
        if let Some((io, first)) = wire.give_away() {
            pending.fulfil(io, first);
        }
        wire.close();
        Ok(response.map(|()| Body::whole(bytes::Bytes::new())))
    }
}

impl<Io, B> Future for ResponseFuture<Io, B>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<Body>, NotAnswered<B>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(request) = this.request.take() {
            this.begin(request, cx)?;
        }
        let result = match this.send(cx) {
            Ok(()) => ready!(this.poll_head(cx)),
            Err(error) => Err(error),
        };
        if result.is_err() {
            lock(&this.link.wire).close();
            this.begun = false;
        }
        Poll::Ready(result.map_err(|error| NotAnswered {
            error,
            request: None,
        }))
    }
}

impl<Io, B> Drop for ResponseFuture<Io, B> {
    fn drop(&mut self) {
        if self.begun {
            lock(&self.link.wire).close();
        }
    }
}

impl<Io, B> fmt::Debug for ResponseFuture<Io, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

// === impl Sending ===

impl<B> Sending<B>
where
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    /// Ready once all of it is written.
    pub(super) fn poll<Io: AsyncWrite + Unpin>(
        &mut self,
        shared: &Shared<Io>,
        buffers: &Buffers,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        loop {
            let is_last = match &mut self.body {
                None => true,
                Some(body) => {
                    match send(
                        body.as_mut(),
                        &mut self.encoder,
                        &mut self.output,
                        buffers,
                        cx,
                    ) {
                        Poll::Ready(sent) => {
                            sent?;
                            self.body = None;
                            true
                        }
                        Poll::Pending => false,
                    }
                }
            };
            let had_room = self.output.has_room();
            let mut wire = lock(shared);
            let Some(io) = &mut wire.io else {
                return Poll::Ready(Err(Error::Closed));
            };
            ready!(self.output.poll_flush(io, buffers, cx))?;
            if is_last {
                return Poll::Ready(Ok(()));
            }
            if had_room {
                return Poll::Pending;
            }
        }
    }
}
