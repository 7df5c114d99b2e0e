//! A local rate limit: requests beyond a token bucket are refused.
//!
//! Refused requests fail with [`Failure::RateLimited`] and the policy's status (429 unless set).
//! As with Envoy's `local_ratelimit` filter, no `x-envoy-ratelimited` header is added: that is for
//! the global rate limit. The bucket belongs to the policy object (`RateLimit.slot`), so it is
//! shared by everything that shares the policy: all workers, all clones of a service.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response};
//! use mesh_core::model::RateLimit;
//! use mesh_core::{BoxError, Failure};
//! use mesh_resilience::RateLayer;
//! use std::time::Duration;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let two_a_minute = RateLimit::new(2, 2, Duration::from_secs(60));
//! let service = ServiceBuilder::new()
//!     .layer(RateLayer::fixed(two_a_minute))
//!     .service(service_fn(|_: Request<()>| async { Ok::<_, BoxError>(Response::new(())) }));
//! for _ in 0..2 {
//!     service.clone().oneshot(Request::new(())).await?;
//! }
//! let error = service.oneshot(Request::new(())).await.unwrap_err();
//! assert_eq!(error.failure(), Failure::RateLimited(429));
//! # Ok(())
//! # }
//! ```

mod bucket;

use bucket::Bucket;
use http::{Request, Response};
use mesh_core::model::RateLimit;
use mesh_core::stats::HttpStat;
use mesh_core::{BoxError, Error, Exchange, Failure};
use pin_project::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Rate`] services.
#[derive(Clone, Debug)]
pub struct RateLayer {
    limit: Limit,
}

/// A service that lets through what its token bucket allows.
#[derive(Clone, Debug)]
pub struct Rate<S> {
    inner: S,
    limit: Limit,
}

/// The response future of [`Rate`].
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    #[pin]
    state: State<F>,
}

#[pin_project(project = StateProj)]
#[derive(Debug)]
enum State<F> {
    Going(#[pin] F),
    Refused(Failure),
}

#[derive(Clone, Debug)]
enum Limit {
    Fixed(Arc<RateLimit>),
    Route,
}

// === impl RateLayer ===

impl RateLayer {
    /// The same bucket for every request. All services that this layer and its clones make share
    /// it.
    pub fn fixed(limit: RateLimit) -> Self {
        Self {
            limit: Limit::Fixed(Arc::new(limit)),
        }
    }

    /// The bucket of the matched rule, else of the listener: as in Envoy, the more specific one
    /// alone. A request without either is left alone.
    pub fn per_route() -> Self {
        Self {
            limit: Limit::Route,
        }
    }
}

impl<S> Layer<S> for RateLayer {
    type Service = Rate<S>;

    fn layer(&self, inner: S) -> Rate<S> {
        Rate {
            inner,
            limit: self.limit.clone(),
        }
    }
}

// === impl Limit ===

impl Limit {
    /// Why the request is refused, if it is.
    fn refuses(&self, exchange: Option<&Exchange>) -> Option<Failure> {
        let limit = match self {
            Self::Fixed(limit) => limit,
            Self::Route => exchange.and_then(of_route)?,
        };
        let now = Instant::now().into_std();
        let bucket = limit.slot.get_or_init(|| Bucket::new(limit, now));
        let admitted = bucket.take(now);
        if let Some(exchange) = exchange {
            exchange.caller().count(match admitted {
                true => HttpStat::RateOk,
                false => HttpStat::RateLimited,
            });
        }
        (!admitted).then(|| Failure::RateLimited(limit.status.as_u16()))
    }
}

fn of_route(exchange: &Exchange) -> Option<&Arc<RateLimit>> {
    let listener = exchange.caller().manager.as_ref();
    exchange
        .rule()
        .and_then(|rule| rule.rate_limit.as_ref())
        .or_else(|| listener.and_then(|manager| manager.rate_limit.as_ref()))
}

// === impl Rate ===

impl<S, B, R> Service<Request<B>> for Rate<S>
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
        if let Some(failure) = self.limit.refuses(Exchange::of(&request)) {
            return ResponseFuture {
                state: State::Refused(failure),
            };
        }
        ResponseFuture {
            state: State::Going(self.inner.call(request)),
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
        match self.project().state.project() {
            StateProj::Going(inner) => inner.poll(cx).map_err(Error::wrap),
            StateProj::Refused(failure) => Poll::Ready(Err(Error::new(*failure))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;
    use mesh_core::Caller;
    use mesh_core::model::{HttpManager, Rule};
    use mesh_core::stats::Block;
    use mesh_test::{Probe, contract, empty, fixture};
    use std::time::Duration;
    use tower::ServiceExt;

    const SECOND: Duration = Duration::from_secs(1);

    fn bucket(tokens: u32) -> RateLimit {
        RateLimit::new(tokens, tokens, SECOND)
    }

    #[tokio::test]
    async fn keeps_the_contract_of_a_layer() {
        contract::check(RateLayer::fixed(bucket(100))).await;
        contract::check(RateLayer::per_route()).await;
    }

    async fn admitted(service: &Rate<Probe>, exchange: Option<&Exchange>) -> bool {
        let mut request = Request::new(empty());
        if let Some(exchange) = exchange {
            exchange.attach(&mut request);
        }
        match service.clone().oneshot(request).await {
            Ok(_) => true,
            Err(error) => {
                assert!(matches!(error.failure(), Failure::RateLimited(_)));
                false
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn clones_share_a_bucket_and_it_fills_with_time() {
        let probe = Probe::new();
        let service = RateLayer::fixed(bucket(2)).layer(probe.clone());
        let mut seen = Vec::new();
        for _ in 0..2 {
            for _ in 0..3 {
                seen.push(admitted(&service, None).await);
            }
            tokio::time::advance(SECOND).await;
        }
        assert_eq!(seen, [true, true, false, true, true, false]);
        assert_eq!(
            probe.calls(),
            4,
            "what is refused does not reach the service"
        );
    }

    fn exchange(rule: Option<RateLimit>, listener: Option<RateLimit>) -> Exchange {
        let mut manager = HttpManager::new("l", "t");
        manager.rate_limit = listener.map(Arc::new);
        let mut caller = Caller::default();
        caller.manager = Some(Arc::new(manager));
        caller.stats = Some(Arc::new(Block::default()));
        let mut ruled = Rule::prefix_to("/", "a");
        ruled.rate_limit = rule.map(Arc::new);
        let exchange = Exchange::new(Instant::now().into_std(), caller);
        exchange.set_matched(fixture::exchange(ruled, None).matched().unwrap().clone());
        exchange
    }

    #[tokio::test(start_paused = true)]
    async fn a_rules_bucket_stands_in_for_the_listeners() {
        for (rule, listener, expected) in [
            (Some(3), Some(1), 3),
            (None, Some(1), 1),
            (Some(1), None, 1),
            (None, None, 5),
        ] {
            let exchange = exchange(rule.map(bucket), listener.map(bucket));
            let service = RateLayer::per_route().layer(Probe::new());
            let mut count = 0;
            for _ in 0..5 {
                count += u64::from(admitted(&service, Some(&exchange)).await);
            }
            assert_eq!(count, expected);
            let stats = exchange.caller().stats.as_ref().unwrap();
            let limited = rule.or(listener).is_some();
            assert_eq!(stats.get(HttpStat::RateOk), if limited { count } else { 0 });
            assert_eq!(stats.get(HttpStat::RateLimited), 5 - count);
        }
    }

    #[tokio::test]
    async fn the_status_of_a_refusal_is_the_policys() {
        let mut limit = bucket(0);
        limit.status = StatusCode::SERVICE_UNAVAILABLE;
        let service = RateLayer::fixed(limit).layer(Probe::new());
        let error = service.oneshot(Request::new(empty())).await.unwrap_err();
        assert_eq!(error.failure(), Failure::RateLimited(503));
    }

    #[test]
    fn the_future_is_small() {
        // On top of the inner future.
        assert_eq!(size_of::<ResponseFuture<[u64; 4]>>(), 8 + 32);
    }
}
