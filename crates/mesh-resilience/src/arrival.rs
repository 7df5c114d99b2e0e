//! Bounds the time in which a request has to arrive whole.
//!
//! A request whose body still comes when the limit is over, and that has not been answered until
//! then, fails with [`Failure::RequestOverall`] (408). An answer that has begun ends the watch, as
//! does the end of the request: a response that takes long is not this layer's concern (Envoy
//! `HttpConnectionManager.request_timeout`).
//!
//! Belongs right below what makes responses of errors. The time is counted from
//! [`Exchange::started`], and the end of the request is [`Exchange::request_end`]; a request without
//! an exchange is left alone, because nobody says when it is whole.
//!
//! # Example
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Empty;
//! use mesh_core::{BoxError, Exchange, Failure};
//! use mesh_resilience::ArrivalLayer;
//! use std::time::{Duration, Instant};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let service = ServiceBuilder::new()
//!     .layer(ArrivalLayer::fixed(Duration::from_secs(3)))
//!     .service(service_fn(|_: Request<()>| {
//!         std::future::pending::<Result<Response<Empty<Bytes>>, BoxError>>()
//!     }));
//! let mut upload = Request::new(());
//! Exchange::without_caller(Instant::now()).attach(&mut upload);
//! let error = service.oneshot(upload).await.unwrap_err();
//! assert_eq!(error.failure(), Failure::RequestOverall);
//! # }
//! ```

use crate::time::{Deadline, later};
use http::{Request, Response};
use mesh_core::{BoxError, Error, Exchange, Failure};
use pin_project::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Arrival`] services.
#[derive(Clone, Copy, Debug)]
pub struct ArrivalLayer {
    limit: Option<Duration>,
}

/// A service whose requests have to arrive in time.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<S> {
    inner: S,
    limit: Option<Duration>,
}

/// The response future of [`Arrival`].
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    #[pin]
    inner: F,
    /// None once the request is whole. Boxed: most requests are when they come.
    arriving: Option<Box<Arriving>>,
}

/// A request of which something is still to come.
#[derive(Debug)]
struct Arriving {
    exchange: Exchange,
    deadline: Deadline,
}

// === impl ArrivalLayer ===

impl ArrivalLayer {
    /// The same limit for every request; zero is none.
    pub fn fixed(limit: Duration) -> Self {
        Self { limit: Some(limit) }
    }

    /// The limit of the listener that a request came through
    /// ([`HttpManager::request_timeout`](mesh_core::model::HttpManager::request_timeout)); none and
    /// zero are no limit.
    pub fn per_listener() -> Self {
        Self { limit: None }
    }
}

impl<S> Layer<S> for ArrivalLayer {
    type Service = Arrival<S>;

    fn layer(&self, inner: S) -> Arrival<S> {
        Arrival {
            inner,
            limit: self.limit,
        }
    }
}

// === impl Arriving ===

impl Arriving {
    fn of<B>(request: &Request<B>, limit: Option<Duration>) -> Option<Self> {
        let exchange = Exchange::of(request)?;
        let listener = || exchange.caller().manager.as_ref()?.request_timeout;
        let limit = limit.or_else(listener).filter(|limit| !limit.is_zero())?;
        if exchange.request_is_whole() {
            return None;
        }
        let started = Instant::from_std(exchange.started());
        Some(Self {
            exchange: exchange.clone(),
            deadline: Deadline::at(later(started, limit)),
        })
    }
}

// === impl Arrival ===

impl<S, B, R> Service<Request<B>> for Arrival<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    type Response = Response<R>;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::wrap)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let arriving = Arriving::of(&request, self.limit).map(Box::new);
        ResponseFuture {
            inner: self.inner.call(request),
            arriving,
        }
    }
}

// === impl ResponseFuture ===

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<R>, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // An answer that is here beats a timer that fired in the same wake-up.
        if let Poll::Ready(result) = this.inner.poll(cx) {
            return Poll::Ready(result.map_err(Error::wrap));
        }
        let Some(arriving) = this.arriving else {
            return Poll::Pending;
        };
        if !arriving.exchange.request_is_whole() {
            ready!(arriving.deadline.poll(cx));
            if !arriving.exchange.request_is_whole() {
                // Those below are not to take it for a caller that went away.
                arriving.exchange.set_timed_out();
                return Poll::Ready(Err(Error::new(Failure::RequestOverall)));
            }
        }
        *this.arriving = None;
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::Caller;
    use mesh_core::model::HttpManager;
    use mesh_test::{Answers, Probe, fixture};
    use std::sync::Arc;
    use tower::ServiceExt;

    const SECOND: Duration = Duration::from_secs(1);

    fn upload(limit: Option<Duration>) -> Exchange {
        let mut manager = HttpManager::new("shop", "shop");
        manager.request_timeout = limit;
        let mut caller = Caller::default();
        caller.manager = Some(Arc::new(manager));
        Exchange::new(Instant::now().into_std(), caller)
    }

    async fn answered(layer: ArrivalLayer, exchange: &Exchange, after: Duration) -> Option<u16> {
        let answers = [Answers::After(after, http::StatusCode::OK)];
        let service = layer.layer(Probe::answering(answers));
        let request = fixture::with(Request::new(mesh_test::empty()), exchange);
        match service.oneshot(request).await {
            Ok(response) => Some(response.status().as_u16()),
            Err(error) => {
                assert_eq!(error.failure(), Failure::RequestOverall);
                None
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_does_not_arrive_in_time_fails() {
        let listener = ArrivalLayer::per_listener();
        let limited = upload(Some(SECOND));
        let began = Instant::now();
        assert_eq!(answered(listener, &limited, 2 * SECOND).await, None);
        assert_eq!(began.elapsed(), SECOND);
        assert!(limited.timed_out());

        let fixed = ArrivalLayer::fixed(SECOND);
        assert_eq!(answered(fixed, &upload(None), 2 * SECOND).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_in_time_and_no_limit_are_left_alone() {
        let listener = ArrivalLayer::per_listener();
        for limit in [None, Some(Duration::ZERO), Some(3 * SECOND)] {
            let exchange = upload(limit);
            assert_eq!(answered(listener, &exchange, 2 * SECOND).await, Some(200));
            assert!(!exchange.timed_out());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_arrived_may_be_answered_late() {
        let listener = ArrivalLayer::per_listener();
        let whole = upload(Some(SECOND));
        whole.set_request_is_whole();
        assert_eq!(answered(listener, &whole, 9 * SECOND).await, Some(200));

        // It ends while it is waited for.
        let later = upload(Some(2 * SECOND));
        let ends = async {
            tokio::time::sleep(SECOND).await;
            later.set_request_is_whole();
        };
        let answer = answered(listener, &later, 9 * SECOND);
        assert_eq!(tokio::join!(answer, ends).0, Some(200));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_is_counted_from_the_arrival_of_the_head() {
        let exchange = upload(Some(2 * SECOND));
        tokio::time::sleep(SECOND).await;
        let began = Instant::now();
        let listener = ArrivalLayer::per_listener();
        assert_eq!(answered(listener, &exchange, 9 * SECOND).await, None);
        assert_eq!(began.elapsed(), SECOND);
    }
}
