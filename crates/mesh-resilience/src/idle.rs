//! Ends streams on which nothing moves.
//!
//! A request or response without progress for the limit fails: before the response head with an
//! error, after it in the body, which makes the server reset the stream. Progress is a response
//! head, a frame of the response's body, or (where there is an exchange, and something counts
//! into [`Exchange::received`]) bytes of the request's body. Because those bytes are counted and
//! not announced, a stream on which only the request moved is found idle between one and two
//! limits after its last byte.
//!
//! A reader that does not read is not covered: a response body that nobody polls makes no
//! progress, and is not asked whether it could.
//!
//! # Example
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Empty;
//! use mesh_core::{BoxError, Failure};
//! use mesh_resilience::IdleLayer;
//! use std::time::Duration;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let service = ServiceBuilder::new()
//!     .layer(IdleLayer::fixed(Duration::from_secs(300)))
//!     .service(service_fn(|_: Request<()>| {
//!         std::future::pending::<Result<Response<Empty<Bytes>>, BoxError>>()
//!     }));
//! let error = service.oneshot(Request::new(())).await.unwrap_err();
//! assert_eq!(error.failure(), Failure::StreamIdle);
//! # }
//! ```

mod watch;

use crate::limits::retry_of;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use mesh_core::{BoxError, Error, Exchange, Failure};
use pin_project::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;
use tower_layer::Layer;
use tower_service::Service;
use watch::Watch;

/// Builds [`Idle`] services.
#[derive(Clone, Debug)]
pub struct IdleLayer {
    limit: Limit,
}

/// A service whose streams may not stand still.
#[derive(Clone, Debug)]
pub struct Idle<S> {
    inner: S,
    limit: Limit,
}

/// The response future of [`Idle`].
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    #[pin]
    inner: F,
    watch: Option<Watch>,
    #[pin]
    timer: Option<Sleep>,
}

/// A response body that may not stand still. When it does, it fails once, and the body inside is
/// dropped.
#[pin_project]
#[derive(Debug)]
pub struct IdleBody<B> {
    #[pin]
    inner: Option<B>,
    watch: Option<Watch>,
}

#[derive(Clone, Copy, Debug)]
enum Limit {
    Fixed(Duration),
    Route,
    PerTry,
}

// === impl IdleLayer ===

impl IdleLayer {
    /// The same limit for every request ([`Failure::StreamIdle`]).
    pub fn fixed(limit: Duration) -> Self {
        Self {
            limit: Limit::Fixed(limit),
        }
    }

    /// The matched rule's limit (Envoy `RouteAction.idle_timeout`), else the listener's (Envoy
    /// `HttpConnectionManager.stream_idle_timeout`); [`Failure::StreamIdle`]. Zero is no limit. A
    /// request without an exchange is left alone.
    pub fn per_route() -> Self {
        Self {
            limit: Limit::Route,
        }
    }

    /// The limit for one attempt of the matched rule's retry policy, else of its virtual host's
    /// (Envoy `RetryPolicy.per_try_idle_timeout`); [`Failure::TryIdleTimeout`], which may be
    /// retried. Belongs below [`RetryLayer`](crate::RetryLayer).
    pub fn per_try() -> Self {
        Self {
            limit: Limit::PerTry,
        }
    }
}

impl<S> Layer<S> for IdleLayer {
    type Service = Idle<S>;

    fn layer(&self, inner: S) -> Idle<S> {
        Idle {
            inner,
            limit: self.limit,
        }
    }
}

// === impl Limit ===

impl Limit {
    fn watch(self, exchange: Option<&Exchange>) -> Option<Watch> {
        let limit = match self {
            Self::Fixed(limit) => Some(limit),
            Self::Route => exchange.and_then(|exchange| {
                let listener = exchange.caller().manager.as_ref();
                exchange
                    .rule()
                    .and_then(|rule| rule.idle_timeout)
                    .or_else(|| listener.and_then(|manager| manager.stream_idle_timeout))
            }),
            Self::PerTry => exchange
                .and_then(Exchange::matched)
                .and_then(retry_of)
                .and_then(|retry| retry.per_try_idle_timeout),
        };
        let failure = match self {
            Self::PerTry => Failure::TryIdleTimeout,
            Self::Fixed(_) | Self::Route => Failure::StreamIdle,
        };
        let limit = limit.filter(|limit| !limit.is_zero())?;
        Some(Watch::new(limit, failure, exchange.cloned()))
    }
}

// === impl Idle ===

impl<S, B, R> Service<Request<B>> for Idle<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body,
    R::Error: Into<BoxError>,
{
    type Response = Response<IdleBody<R>>;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::wrap)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let watch = self.limit.watch(Exchange::of(&request));
        ResponseFuture {
            inner: self.inner.call(request),
            watch,
            timer: None,
        }
    }
}

// === impl ResponseFuture ===

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
    R: Body,
    R::Error: Into<BoxError>,
{
    type Output = Result<Response<IdleBody<R>>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(result) = this.inner.poll(cx) {
            return Poll::Ready(result.map_err(Error::wrap).map(|response| {
                // Nothing of an upgraded connection passes through its response's body.
                let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
                let watch = this.watch.take().filter(|_| !upgraded);
                response.map(|body| IdleBody::new(body, watch))
            }));
        }
        let Some(watch) = this.watch else {
            return Poll::Pending;
        };
        let failure = ready!(watch.poll_in(this.timer, cx));
        if let Some(exchange) = watch.exchange() {
            if failure == Failure::StreamIdle {
                exchange.set_timed_out();
            } else {
                // An attempt that is given up may be followed by another; the request goes on.
                exchange.with_notes_mut(|notes| notes.failure = Some(failure));
            }
        }
        Poll::Ready(Err(Error::new(failure)))
    }
}

// === impl IdleBody ===

impl<B: Body> IdleBody<B> {
    fn new(inner: B, watch: Option<Watch>) -> Self {
        let mut watch = watch.filter(|_| !inner.is_end_stream());
        if let Some(watch) = &mut watch {
            watch.progress();
        }
        Self {
            inner: Some(inner),
            watch,
        }
    }
}

impl<B> Body for IdleBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Error>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(frame) = inner.poll_frame(cx) {
            match (&frame, &mut *this.watch) {
                (Some(Ok(_)), Some(watch)) => watch.progress(),
                _ => *this.watch = None,
            }
            return Poll::Ready(frame.map(|result| result.map_err(Error::wrap)));
        }
        let Some(watch) = this.watch else {
            return Poll::Pending;
        };
        let error = Error::new(ready!(watch.poll(cx)));
        if let Some(exchange) = watch.exchange() {
            exchange.set_timed_out();
            exchange.note_error(&error);
        }
        *this.watch = None;
        this.inner.set(None);
        Poll::Ready(Some(Err(error)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

#[cfg(test)]
mod tests;
