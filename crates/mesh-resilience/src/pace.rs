//! Answers that are passed on slowly, on purpose.
//!
//! [`FaultLayer`](crate::FaultLayer) says how slowly (Envoy `HTTPFault.response_rate_limit`), and this
//! layer does it. It belongs outside of whatever makes responses of errors: as in Envoy the answers
//! that we give ourselves are slow, too. Heads, trailers and a first twentieth of a second's worth of
//! the body are not held back; afterwards more is passed on every 50 ms.
//!
//! Up to 1 MiB of a body is read ahead, so that who answers is not slow itself, and timeouts below
//! this layer are about whoever they are meant for. A body that fails does so at once.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response};
//! use mesh_core::BoxError;
//! use mesh_resilience::PaceLayer;
//! use std::num::NonZeroU64;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let modem = NonZeroU64::new(7).unwrap();
//! let service = ServiceBuilder::new()
//!     .layer(PaceLayer::fixed(modem))
//!     .service(service_fn(|_: Request<()>| async {
//!         Ok::<_, BoxError>(Response::new(http_body_util::Full::new(bytes::Bytes::from("slow"))))
//!     }));
//! assert!(service.oneshot(Request::new(())).await.is_ok());
//! # }
//! ```

mod body;
mod bucket;

pub use body::PacedBody;

use http::{Request, Response};
use http_body::Body;
use mesh_core::{Caller, Exchange};
use pin_project::pin_project;
use std::future::Future;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Pace`] services.
#[derive(Clone, Copy, Debug)]
pub struct PaceLayer {
    fixed: Option<NonZeroU64>,
}

/// A service whose answers may be passed on slowly.
#[derive(Clone, Copy, Debug)]
pub struct Pace<S> {
    inner: S,
    fixed: Option<NonZeroU64>,
}

/// The response future of [`Pace`].
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    #[pin]
    inner: F,
    rate: Rate,
}

/// What says how slow the answer is.
#[derive(Debug)]
enum Rate {
    Fixed(NonZeroU64),
    Of(Exchange),
}

// === impl PaceLayer ===

impl PaceLayer {
    /// All answers at this rate, in KiB (1,024 bytes) a second.
    pub fn fixed(rate: NonZeroU64) -> Self {
        Self { fixed: Some(rate) }
    }

    /// At the rate that [`Exchange::set_pace`] says; without one an answer is passed on as it
    /// comes. A request without an exchange is given one, so that layers below can say it.
    pub fn per_route() -> Self {
        Self { fixed: None }
    }
}

impl<S> Layer<S> for PaceLayer {
    type Service = Pace<S>;

    fn layer(&self, inner: S) -> Pace<S> {
        Pace {
            inner,
            fixed: self.fixed,
        }
    }
}

// === impl Pace ===

impl<S, B, R> Service<Request<B>> for Pace<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body,
{
    type Response = Response<PacedBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let rate = self
            .fixed
            .map_or_else(|| Rate::Of(own(&mut request)), Rate::Fixed);
        ResponseFuture {
            inner: self.inner.call(request),
            rate,
        }
    }
}

/// The request's exchange; it is given one if it has none.
fn own<B>(request: &mut Request<B>) -> Exchange {
    Exchange::of(request).cloned().unwrap_or_else(|| {
        let exchange = Exchange::new(Instant::now().into_std(), Caller::default());
        exchange.attach(request);
        exchange
    })
}

// === impl ResponseFuture ===

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Result<Response<PacedBody<R>>, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        let rate = match this.rate {
            Rate::Fixed(rate) => Some(*rate),
            Rate::Of(exchange) => exchange.pace(),
        };
        Poll::Ready(Ok(response.map(|body| PacedBody::new(body, rate))))
    }
}

#[cfg(test)]
mod tests;
