//! Turns every error below into a response, so that nothing fails above.
//!
//! What is answered follows from the error's [`Failure`](mesh_core::Failure) (status, body, flags;
//! gRPC requests get 200 with `grpc-status`), or is the answer that a layer below decided:
//! redirect, fixed response, preflight. Where the request has an [`Exchange`], the error's flags
//! and details are recorded in it, response edits of the matched rule apply to local replies too,
//! and headers recorded with [`Exchange::add_reply_header`] go on every response. Without one the
//! request is still answered.
//!
//! A failure after the response head has gone out is not covered: the body fails, and whoever
//! sends it resets the stream.
//!
//! # Example
//!
//! ```
//! use axum::{Router, body::Body, routing::get};
//! use mesh_core::model::{Action, DirectResponse};
//! use mesh_route::{ReplyLayer, RespondLayer};
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! let mut teapot = DirectResponse::default();
//! teapot.status = http::StatusCode::IM_A_TEAPOT;
//! // axum only takes layers that cannot fail: anything of ours goes below a `ReplyLayer`.
//! let app: Router = Router::new().route("/", get(|| async { "never" })).layer(
//!     ServiceBuilder::new()
//!         .layer(ReplyLayer::new())
//!         .layer(RespondLayer::fixed(Action::Respond(teapot))),
//! );
//! # tokio_test(async {
//! let response = app.oneshot(http::Request::new(Body::empty())).await.unwrap();
//! assert_eq!(response.status(), 418);
//! # });
//! # fn tokio_test(test: impl Future<Output = ()>) {
//! #     tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test)
//! # }
//! ```

use crate::local::{Recorded, settle};
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use mesh_core::reply::{Answer, Asked, is_grpc};
use mesh_core::{BoxError, Error, Exchange, WallClock};
use pin_project::pin_project;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Reply`] services.
#[derive(Clone, Debug, Default)]
pub struct ReplyLayer {
    clock: WallClock,
}

/// A service that always answers.
#[derive(Debug)]
pub struct Reply<S> {
    inner: S,
    clock: WallClock,
    /// What the inner service said when it was asked whether it is ready. Belongs to the next call.
    unready: Option<Error>,
}

/// The response future of [`Reply`].
#[pin_project]
pub struct ResponseFuture<F> {
    #[pin]
    state: State<F>,
    asker: Asker,
}

/// A response's body: the inner service's, or a local reply's.
#[pin_project]
#[derive(Debug)]
pub struct ReplyBody<B>(#[pin] Kind<B>);

#[pin_project(project = KindProj)]
#[derive(Debug)]
enum Kind<B> {
    Inner(#[pin] B),
    /// Taken when it was sent.
    Local(Option<Bytes>),
}

#[pin_project(project = StateProj)]
enum State<F> {
    Calling(#[pin] F),
    Failed(Option<Error>),
}

/// What has to be known of a request to answer it.
struct Asker {
    exchange: Option<Exchange>,
    clock: WallClock,
    grpc: bool,
    /// Whether nobody but us keeps the body from being sent: of HTTP/1 the server knows.
    bodiless: bool,
    version: Version,
}

// === impl ReplyLayer ===

impl ReplyLayer {
    /// Answers errors as Envoy does.
    pub fn new() -> Self {
        Self::default()
    }

    /// The clock for `%START_TIME%` in headers of local replies. Default: the machine's.
    #[must_use]
    pub fn clock(mut self, clock: WallClock) -> Self {
        self.clock = clock;
        self
    }
}

impl<S> Layer<S> for ReplyLayer {
    type Service = Reply<S>;
    fn layer(&self, inner: S) -> Reply<S> {
        Reply {
            inner,
            clock: self.clock.clone(),
            unready: None,
        }
    }
}

// === impl Reply ===

impl<S, B, R> Service<Request<B>> for Reply<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body,
    R::Data: From<Bytes>,
{
    type Response = Response<ReplyBody<R>>;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.unready.is_none()
            && let Err(error) = ready!(self.inner.poll_ready(cx))
        {
            // This service cannot fail, so the failure is the answer to the next request.
            self.unready = Some(Error::wrap(error));
        }
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let asker = Asker {
            exchange: Exchange::of(&request).cloned(),
            clock: self.clock.clone(),
            // A tunnel is no call, whatever its headers say (seen of Envoy).
            grpc: request.method() != Method::CONNECT && is_grpc(request.headers()),
            bodiless: request.method() == Method::HEAD && request.version() == Version::HTTP_2,
            version: request.version(),
        };
        if let Some(error) = self.unready.take() {
            return ResponseFuture {
                state: State::Failed(Some(error)),
                asker,
            };
        }
        ResponseFuture {
            state: State::Calling(self.inner.call(request)),
            asker,
        }
    }
}

impl<S: Clone> Clone for Reply<S> {
    /// Readiness is not cloned, and neither is its failure.
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            clock: self.clock.clone(),
            unready: None,
        }
    }
}

// === impl ResponseFuture ===

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<ReplyBody<R>>, Infallible>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let error = match this.state.project() {
            StateProj::Failed(error) => error
                .take()
                .expect("a future is not polled after it was ready"),
            StateProj::Calling(inner) => match ready!(inner.poll(cx)) {
                Ok(response) => return Poll::Ready(Ok(this.asker.pass(response))),
                Err(error) => Error::wrap(error),
            },
        };
        Poll::Ready(Ok(this.asker.answer(error)))
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

// === impl Asker ===

impl Asker {
    fn pass<R>(&self, response: Response<R>) -> Response<ReplyBody<R>> {
        let mut response = response.map(|body| ReplyBody(Kind::Inner(body)));
        if let Some(exchange) = &self.exchange {
            Recorded::take(exchange).put(response.headers_mut());
        }
        response
    }

    fn answer<R>(&self, error: Error) -> Response<ReplyBody<R>> {
        if let Some(exchange) = &self.exchange {
            exchange.note_error(&error);
        }
        let exchange = self.exchange.as_ref();
        let asked = Asked {
            grpc: self.grpc,
            retried: exchange.is_some_and(|exchange| exchange.attempts() > 1),
        };
        let answer = settle(error, exchange, asked, self.version, &self.clock);
        let Answer {
            status,
            mut headers,
            body,
            ..
        } = answer;
        let mut body = (!body.is_empty()).then_some(body);
        if self.bodiless
            && let Some(body) = body.take()
        {
            // What GET would have had (RFC 9110 §9.3.2).
            headers.insert(CONTENT_LENGTH, body.len().into());
        }
        let mut response = Response::new(ReplyBody(Kind::Local(body)));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

// === impl ReplyBody ===

impl<B> Body for ReplyBody<B>
where
    B: Body,
    B::Data: From<Bytes>,
{
    type Data = B::Data;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match self.project().0.project() {
            KindProj::Inner(body) => body.poll_frame(cx),
            KindProj::Local(body) => {
                Poll::Ready(body.take().map(|body| Ok(Frame::data(body.into()))))
            }
        }
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Inner(body) => body.is_end_stream(),
            Kind::Local(body) => body.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Inner(body) => body.size_hint(),
            // Lengths of memory fit into 64 bits.
            Kind::Local(body) => SizeHint::with_exact(body.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}

impl<B: Default> Default for ReplyBody<B> {
    fn default() -> Self {
        Self(Kind::Inner(B::default()))
    }
}

#[cfg(test)]
mod tests;
