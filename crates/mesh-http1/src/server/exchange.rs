//! One request and its response.

use crate::encode::{self, Answered, Encoder};
use crate::output::Output;
use crate::upgrade::Pending;
use crate::wire::{Shared, lock};
use crate::{Body, BoxError, Buffers, Error, RequestHead};
use bytes::Buf;
use http::{Method, Request, Response, StatusCode};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tower_service::Service;

/// A request under way.
#[pin_project::pin_project]
pub(super) struct Exchange<F, B> {
    current: Current,
    #[pin]
    step: Step<F, B>,
}

/// In its own memory: most connections have none most of the time.
pub(super) type Boxed<F, B> = Pin<Box<Exchange<F, B>>>;

/// What is known of the request when its response is written.
#[derive(Debug)]
pub(super) struct Current {
    method: Method,
    is_http10: bool,
    takes_trailers: bool,
    keep_alive: bool,
    upgrade: Option<Pending>,
    is_tunnel: bool,
    encoder: Encoder,
}

#[pin_project::pin_project(project = StepProjected)]
enum Step<F, B> {
    /// The service is not ready.
    Waiting(Option<Box<Request<Body>>>),
    /// Waiting -> Call: the service works.
    Call(#[pin] F),
    /// Call -> Respond: the head is written, the body is on its way.
    Respond(#[pin] B),
    /// Call or Respond -> Written
    Written,
}

/// What an exchange works with.
pub(super) struct Progress<'a, Io, S> {
    pub(super) service: &'a mut S,
    pub(super) output: &'a mut Output,
    pub(super) shared: &'a Shared<Io>,
    pub(super) buffers: &'a Buffers,
    pub(super) date: bool,
    pub(super) leaving: bool,
}

/// Writes the answer to what is no request.
pub(super) fn refusal(out: &mut Vec<u8>, status: StatusCode, date: bool, buffers: &Buffers) {
    let (head, ()) = Response::new(()).into_parts();
    let mut head = head;
    head.status = status;
    let to = Answered {
        method: &Method::GET,
        is_http10: false,
        takes_trailers: false,
        keep_alive: false,
        date,
    };
    encode::response(out, &head, Some(0), &to, buffers);
}

// === impl Current ===

impl Current {
    /// Of a request that is about to be passed on. Offers the connection if that is asked for.
    pub(super) fn of(head: &mut RequestHead) -> Self {
        let request = &mut head.request;
        Self {
            method: request.method().clone(),
            is_http10: request.version() == http::Version::HTTP_10,
            takes_trailers: head.takes_trailers,
            keep_alive: head.keep_alive,
            upgrade: head
                .wants_upgrade
                .then(|| Pending::offer(request.extensions_mut())),
            is_tunnel: false,
            encoder: Encoder::Nothing,
        }
    }

    /// Of what is answered as no request.
    pub(super) fn refused() -> Self {
        Self {
            method: Method::GET,
            is_http10: false,
            takes_trailers: false,
            keep_alive: false,
            upgrade: None,
            is_tunnel: false,
            encoder: Encoder::Nothing,
        }
    }

    /// It is the last one if the connection is about to close.
    pub(super) fn leave_if(&mut self, leaving: bool) {
        self.keep_alive &= !leaving;
    }

    /// Writes the response's head.
    fn answer<Io, S, B>(
        &mut self,
        response: Response<B>,
        with: &mut Progress<'_, Io, S>,
    ) -> Result<B, Error>
    where
        B: http_body::Body,
    {
        let is_complete = lock(with.shared).answered();
        let (head, body) = response.into_parts();
        let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if head.status.is_informational() && !(switches && self.upgrade.is_some()) {
            return Err(Error::Service("an interim response is no answer".into()));
        }
        let connects = self.method == Method::CONNECT && head.status.is_success();
        self.is_tunnel = switches || connects;
        if self.is_tunnel && !is_complete {
            return Err(Error::Service(
                "the protocol was switched before the request was whole".into(),
            ));
        }
        let exact = if body.is_end_stream() {
            Some(0)
        } else {
            body.size_hint().exact()
        };
        let to = Answered {
            method: &self.method,
            is_http10: self.is_http10,
            takes_trailers: self.takes_trailers,
            // Nobody waits for what is left of a request that was answered early. As Envoy.
            keep_alive: self.keep_alive && is_complete && !with.leaving,
            date: with.date,
        };
        let out = with.output.buffer(with.buffers);
        let written = encode::response(out, &head, exact, &to, with.buffers);
        with.buffers.keep_map(head.headers);
        self.encoder = written.encoder;
        self.keep_alive = written.keep_alive;
        Ok(body)
    }
}

// === impl Exchange ===

impl<F, B> Exchange<F, B> {
    /// In its place, for a future that is large, or for a request that waits.
    pub(super) fn new(current: Current) -> Self {
        let step = Step::Written;
        Self { current, step }
    }

    /// The service was called.
    #[inline]
    pub(super) fn call(self: Pin<&mut Self>, future: impl FnOnce() -> F) {
        self.project().step.set(Step::Call(future()));
    }

    /// The service is to be called when it is ready.
    pub(super) fn wait(self: Pin<&mut Self>, request: Request<Body>) {
        let step = Step::Waiting(Some(Box::new(request)));
        self.project().step.set(step);
    }

    /// Whether another request may follow, and who takes the connection if none does.
    pub(super) fn outcome(self: Pin<&mut Self>) -> (bool, Option<Pending>) {
        let current = self.project().current;
        let tunnel = current.upgrade.take().filter(|_| current.is_tunnel);
        (current.keep_alive && !current.is_tunnel, tunnel)
    }
}

impl<F, B> Exchange<F, B>
where
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    /// Goes on until the response is in the output, the output is full, or something has to be
    /// waited for.
    pub(super) fn poll<Io, S>(
        self: Pin<&mut Self>,
        with: &mut Progress<'_, Io, S>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>>
    where
        S: Service<Request<Body>, Response = Response<B>, Future = F>,
        S::Error: Into<BoxError>,
        F: Future<Output = Result<Response<B>, S::Error>>,
    {
        let mut this = self.project();
        loop {
            // Each next step is put in its place as it is made: the largest one is a request's future.
            match this.step.as_mut().project() {
                StepProjected::Waiting(request) => {
                    let ready = ready!(with.service.poll_ready(cx));
                    ready.map_err(|error| Error::Service(error.into()))?;
                    match request.take() {
                        Some(request) => this.step.set(Step::Call(with.service.call(*request))),
                        None => this.step.set(Step::Written),
                    }
                }
                StepProjected::Call(future) => {
                    let response = ready!(future.poll(cx));
                    let response = response.map_err(|error| Error::Service(error.into()))?;
                    let body = this.current.answer(response, with)?;
                    this.step.set(Step::Respond(body));
                }
                StepProjected::Respond(body) => {
                    ready!(send(
                        body,
                        &mut this.current.encoder,
                        with.output,
                        with.buffers,
                        cx
                    ))?;
                    this.step.set(Step::Written);
                }
                StepProjected::Written => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// Moves a body into the output. Ready once all of it is there.
pub(crate) fn send<B>(
    mut body: Pin<&mut B>,
    encoder: &mut Encoder,
    output: &mut Output,
    buffers: &Buffers,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Error>>
where
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    loop {
        if encoder.is_full() {
            return Poll::Ready(Ok(()));
        }
        if !output.has_room() {
            return Poll::Pending;
        }
        let frame = if body.is_end_stream() {
            None
        } else {
            ready!(body.as_mut().poll_frame(cx))
        };
        let Some(frame) = frame else {
            return Poll::Ready(encoder.end(output, buffers, None));
        };
        match frame
            .map_err(|error| Error::Outgoing(error.into()))?
            .into_data()
        {
            Ok(mut data) => {
                let data = data.copy_to_bytes(data.remaining());
                encoder.data(output, buffers, data, body.is_end_stream());
            }
            Err(frame) => {
                let trailers = frame.into_trailers().ok();
                return Poll::Ready(encoder.end(output, buffers, trailers));
            }
        }
    }
}
