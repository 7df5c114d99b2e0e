//! Bounds the time to a response head.
//!
//! The limit is either fixed when the layer is built, or that of one attempt in the matched
//! rule's retry policy. Below a retry layer it bounds each attempt ([`Failure::TryTimeout`], which
//! a retry policy for `5xx`, `gateway-error` or `reset` retries, as in Envoy); alone it bounds the
//! request. A request without a limit costs one extension lookup and no timer.
//!
//! Response bodies are not covered; see [`deadline`](crate::deadline) for those.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response};
//! use mesh_core::{BoxError, Failure};
//! use mesh_resilience::TimeoutLayer;
//! use std::time::Duration;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let service = ServiceBuilder::new()
//!     .layer(TimeoutLayer::fixed(Duration::from_secs(1)))
//!     .service(service_fn(|_: Request<()>| std::future::pending::<Result<Response<()>, BoxError>>()));
//! let error = service.oneshot(Request::new(())).await.unwrap_err();
//! assert_eq!(error.failure(), Failure::TryTimeout);
//! # }
//! ```

use crate::count::count;
use crate::limits::Limits;
use crate::time::Expiry;
use http::{Request, Response};
use mesh_core::stats::ClusterStat;
use mesh_core::{BoxError, Error, Exchange, Failure};
use pin_project::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Timeout`] services.
#[derive(Clone, Debug)]
pub struct TimeoutLayer {
    limit: Limit,
}

/// A service whose response head has to arrive within a limit.
#[derive(Clone, Debug)]
pub struct Timeout<S> {
    inner: S,
    limit: Limit,
}

/// The response future of [`Timeout`].
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    #[pin]
    inner: F,
    expiry: Option<Expiry>,
    #[pin]
    timer: Option<Sleep>,
}

#[derive(Clone, Copy, Debug)]
enum Limit {
    Fixed(Duration),
    PerTry,
}

// === impl TimeoutLayer ===

impl TimeoutLayer {
    /// The same limit for every request, counted from the call.
    pub fn fixed(limit: Duration) -> Self {
        Self {
            limit: Limit::Fixed(limit),
        }
    }

    /// The limit for one attempt of the matched rule's retry policy, else of its virtual host's
    /// (Envoy `RetryPolicy.per_try_timeout`), counted from the call or from the end of the
    /// request, whichever is later. A limit that is not shorter than the route's timeout is
    /// ignored. Belongs below [`RetryLayer`](crate::RetryLayer).
    ///
    /// The end of the request is [`Exchange::request_end`]; whoever makes the exchange has to set
    /// it, or the limit never begins.
    pub fn per_try() -> Self {
        Self {
            limit: Limit::PerTry,
        }
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Timeout<S> {
        Timeout {
            inner,
            limit: self.limit,
        }
    }
}

// === impl Timeout ===

impl<S, B, R> Service<Request<B>> for Timeout<S>
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
        let expiry = match self.limit {
            Limit::Fixed(limit) => Some(Expiry::from_now(limit, Failure::TryTimeout)),
            // Whoever lets attempts overlap watches their limits.
            Limit::PerTry => Exchange::of(&request)
                .filter(|of| !of.is_hedged())
                .and_then(|exchange| {
                    let limit = Limits::of(&request).per_try?;
                    Expiry::of(exchange, Some((limit, Failure::TryTimeout)), None)
                }),
        };
        ResponseFuture {
            inner: self.inner.call(request),
            expiry,
            timer: None,
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
        // The response first: an answer that is already here beats a timer that fired in the same
        // wake-up.
        if let Poll::Ready(result) = this.inner.poll(cx) {
            return Poll::Ready(result.map_err(Error::wrap));
        }
        let Some(expiry) = this.expiry else {
            return Poll::Pending;
        };
        let failure = ready!(expiry.poll_in(this.timer, cx));
        if let Some(exchange) = expiry.exchange() {
            count(exchange, ClusterStat::RqPerTryTimeout);
            // Whoever sees the attempt dropped must be able to tell why.
            exchange.with_notes_mut(|notes| notes.failure = Some(failure));
        }
        Poll::Ready(Err(Error::new(failure)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::{Cluster, Retry, Rule};
    use mesh_test::{Answers, Probe, contract, empty, fixture};
    use std::sync::Arc;
    use tokio::time::Instant;
    use tower::ServiceExt;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn keeps_the_contract_of_a_layer() {
        contract::check(TimeoutLayer::fixed(SECOND)).await;
        contract::check(TimeoutLayer::per_try()).await;
    }

    fn exchange(per_try: Duration, timeout: Option<Duration>) -> Exchange {
        let mut retry = Retry::default();
        retry.per_try_timeout = Some(per_try);
        let mut rule = Rule::prefix_to("/", "a");
        rule.retry = Some(Arc::new(retry));
        rule.timeout = timeout;
        fixture::exchange(rule, Some(Cluster::new("a")))
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_is_late_is_a_timeout_and_one_in_time_is_not() {
        for (delay, expected) in [(999, None), (1001, Some(Failure::TryTimeout))] {
            let answer = Answers::After(Duration::from_millis(delay), http::StatusCode::OK);
            let service = TimeoutLayer::fixed(SECOND).layer(Probe::answering([answer]));
            let result = service.oneshot(Request::new(empty())).await;
            assert_eq!(result.err().map(|error| error.failure()), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_is_bounded_by_the_retry_policy_and_counted() {
        let exchange = exchange(SECOND, Some(2 * SECOND));
        exchange.request_end().set();
        let start = Instant::now();
        let service = TimeoutLayer::per_try().layer(Probe::answering([Answers::Never]));
        let request = fixture::with(Request::new(empty()), &exchange);
        let error = service.oneshot(request).await.unwrap_err();
        assert_eq!(error.failure(), Failure::TryTimeout);
        assert_eq!(start.elapsed(), SECOND);
        let stats = exchange.cluster().unwrap().live().stats();
        assert_eq!(stats.block().get(ClusterStat::RqPerTryTimeout), 1);
        let noted = exchange.with_notes(|notes| notes.failure);
        assert_eq!(noted, Some(Failure::TryTimeout), "for who sees the drop");
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_as_long_as_the_routes_timeout_is_ignored() {
        let exchange = exchange(2 * SECOND, Some(2 * SECOND));
        exchange.request_end().set();
        let answer = Answers::After(10 * SECOND, http::StatusCode::OK);
        let service = TimeoutLayer::per_try().layer(Probe::answering([answer]));
        let request = fixture::with(Request::new(empty()), &exchange);
        assert!(service.oneshot(request).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_takes_long_does_not_use_up_the_attempts_time() {
        let exchange = exchange(SECOND, None);
        let answer = Answers::After(3 * SECOND + SECOND / 2, http::StatusCode::OK);
        let service = TimeoutLayer::per_try().layer(Probe::answering([answer]));
        let request = fixture::with(Request::new(empty()), &exchange);
        let upload = async {
            tokio::time::sleep(3 * SECOND).await;
            exchange.request_end().set();
        };
        let (result, ()) = tokio::join!(service.oneshot(request), upload);
        assert!(result.is_ok());
    }

    #[test]
    fn the_future_is_small() {
        // On top of the inner future, with a limit or without.
        assert!(size_of::<ResponseFuture<()>>() <= 200);
    }
}
