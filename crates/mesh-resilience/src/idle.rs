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
//! [`IdleLayer`] watches what the caller sees, [`TryIdleLayer`] one attempt.
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

pub mod attempt;
mod watch;

pub use attempt::{TryIdle, TryIdleBody, TryIdleLayer};

use crate::watched::{Watched, watched_body};
use http::{Request, Response};
use http_body::Body;
use mesh_core::{BoxError, Error, Exchange};
use pin_project::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
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
pub struct ResponseFuture<F>(#[pin] Watched<F, Watch>);

watched_body! {
    /// A response body that may not stand still. When it does, it fails once, and the body inside is
    /// dropped.
    pub struct IdleBody(Watch);
}

#[derive(Clone, Copy, Debug)]
enum Limit {
    Fixed(Duration),
    Route,
}

// === impl IdleLayer ===

impl IdleLayer {
    /// The same limit for every request ([`Failure::StreamIdle`](mesh_core::Failure::StreamIdle)).
    pub fn fixed(limit: Duration) -> Self {
        Self {
            limit: Limit::Fixed(limit),
        }
    }

    /// The matched rule's limit (Envoy `RouteAction.idle_timeout`), else the listener's (Envoy
    /// `HttpConnectionManager.stream_idle_timeout`); [`Failure::StreamIdle`](mesh_core::Failure::StreamIdle). Zero is no limit. A
    /// request without an exchange is left alone.
    pub fn per_route() -> Self {
        Self {
            limit: Limit::Route,
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
        };
        let limit = limit.filter(|limit| !limit.is_zero())?;
        Some(Watch::new(limit, exchange.cloned()))
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

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let watch = self.limit.watch(Exchange::of(&request));
        ResponseFuture(Watched::new(self.inner.call(request), watch))
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

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(self.project().0.poll(cx));
        Poll::Ready(result.map(|response| response.map(IdleBody)))
    }
}

#[cfg(test)]
mod tests;
