//! Bounds how many requests are under way at once.
//!
//! A request counts from the call until its response body has ended, failed or been dropped. One
//! that would be too many fails at once with [`Failure::Overflow`] (503, `x-envoy-overloaded`),
//! which is never retried and says nothing about any host. Nothing queues and nothing is reserved
//! in `poll_ready`.
//!
//! Of [`Limits`], this layer keeps `max_requests` alone. `max_connections` and `max_pending`
//! belong to whoever has connections to wait for, a pool; `max_retries` and `budget` are kept by
//! [`RetryLayer`](crate::RetryLayer). They all count in one [`Usage`], which
//! [`BreakerLayer::usage`] hands out. An upgraded connection counts only until its response's
//! (empty) body ends. mesh-client's pools need none of this: as Envoy's they keep all three limits,
//! `max_requests` of those requests that have a connection.
//!
//! Limits are soft, as in Envoy: as many requests as there are threads may slip past one. The
//! gauges `circuit_breakers.default.*_open` are not written here: whoever shows them compares
//! [`Usage::get`] with the limits at that moment.
//!
//! # Example
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use mesh_core::model::Limits;
//! use mesh_core::{BoxError, Failure};
//! use mesh_resilience::BreakerLayer;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let mut limits = Limits::unlimited();
//! limits.max_requests = 1;
//! let service = ServiceBuilder::new()
//!     .layer(BreakerLayer::new(limits))
//!     .service(service_fn(|_: Request<()>| async {
//!         Ok::<_, BoxError>(Response::new(Full::new(Bytes::from("busy"))))
//!     }));
//! let first = service.clone().oneshot(Request::new(())).await?;
//! let error = service.clone().oneshot(Request::new(())).await.unwrap_err();
//! assert_eq!(error.failure(), Failure::Overflow);
//! drop(first);
//! assert!(service.oneshot(Request::new(())).await.is_ok());
//! # Ok(())
//! # }
//! ```

use crate::count::count;
use http::{Request, Response};
use http_body::Body;
use mesh_core::body::Held;
use mesh_core::model::{Limits, Priority};
use mesh_core::stats::ClusterStat;
use mesh_core::usage::{Resource, Taken};
use mesh_core::{BoxError, Error, Exchange, Failure, Usage};
use pin_project::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Breaker`] services.
#[derive(Clone, Debug)]
pub struct BreakerLayer {
    limit: Limit,
}

/// A service that refuses what would be too much at once.
#[derive(Clone, Debug)]
pub struct Breaker<S> {
    inner: S,
    limit: Limit,
}

/// The response future of [`Breaker`].
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    #[pin]
    state: State<F>,
}

#[pin_project(project = StateProj)]
#[derive(Debug)]
enum State<F> {
    Going {
        #[pin]
        inner: F,
        unit: Option<Taken>,
    },
    Refused,
}

#[derive(Clone, Debug)]
enum Limit {
    Fixed(Arc<Usage>, u32),
    Route,
}

// === impl BreakerLayer ===

impl BreakerLayer {
    /// The same limits for every request. All services that this layer and its clones make count
    /// together.
    pub fn new(limits: Limits) -> Self {
        Self {
            limit: Limit::Fixed(Arc::default(), limits.max_requests),
        }
    }

    /// The limits of the cluster that the request goes to, of its rule's priority (Envoy
    /// `CircuitBreakers.Thresholds.max_requests`, Istio `http2MaxRequests`), counted in the
    /// cluster's [`Usage`] and `upstream_rq_active_overflow`. A request without an exchange or
    /// cluster is left alone.
    pub fn per_route() -> Self {
        Self {
            limit: Limit::Route,
        }
    }

    /// What is in use, where the limits are fixed: for gauges, and for others that keep the other
    /// limits.
    pub fn usage(&self) -> Option<&Arc<Usage>> {
        match &self.limit {
            Limit::Fixed(usage, _) => Some(usage),
            Limit::Route => None,
        }
    }
}

impl<S> Layer<S> for BreakerLayer {
    type Service = Breaker<S>;

    fn layer(&self, inner: S) -> Breaker<S> {
        Breaker {
            inner,
            limit: self.limit.clone(),
        }
    }
}

// === impl Limit ===

impl Limit {
    /// A unit, if there is anything to count in.
    fn admit<B>(&self, request: &Request<B>) -> Result<Option<Taken>, Failure> {
        let exchange = Exchange::of(request);
        let (usage, most) = match self {
            Self::Fixed(usage, most) => (usage, *most),
            Self::Route => {
                let Some(cluster) = exchange.and_then(Exchange::cluster) else {
                    return Ok(None);
                };
                let priority = exchange.map_or(Priority::Default, Exchange::priority);
                let limits = cluster.config().limits_of(priority);
                (cluster.live().usage_of(priority), limits.max_requests)
            }
        };
        let unit = usage.take(Resource::Requests, most);
        if unit.is_none()
            && let Some(exchange) = exchange
        {
            count(exchange, ClusterStat::RqActiveOverflow);
        }
        unit.map(Some).ok_or(Failure::Overflow)
    }
}

// === impl Breaker ===

impl<S, B, R> Service<Request<B>> for Breaker<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body,
{
    type Response = Response<Held<R, Taken>>;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::wrap)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let state = match self.limit.admit(&request) {
            Ok(unit) => State::Going {
                inner: self.inner.call(request),
                unit,
            },
            Err(_) => State::Refused,
        };
        ResponseFuture { state }
    }
}

// === impl ResponseFuture ===

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
    R: Body,
{
    type Output = Result<Response<Held<R, Taken>>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Refused => Poll::Ready(Err(Error::new(Failure::Overflow))),
            StateProj::Going { inner, unit } => {
                let result = ready!(inner.poll(cx));
                // Given up here when the result is an error.
                let unit = unit.take();
                Poll::Ready(
                    result
                        .map(|response| response.map(|body| Held::new(body, unit)))
                        .map_err(Error::wrap),
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::{Cluster, Rule};
    use mesh_test::{Answers, BoxedBody, Probe, contract, empty, fixture, read};
    use tower::ServiceExt;

    fn at_most(max_requests: u32) -> Limits {
        let mut limits = Limits::unlimited();
        limits.max_requests = max_requests;
        limits
    }

    #[tokio::test]
    async fn keeps_the_contract_of_a_layer() {
        contract::check(BreakerLayer::new(Limits::unlimited())).await;
        contract::check(BreakerLayer::per_route()).await;
    }

    #[tokio::test]
    async fn a_request_counts_until_its_response_has_been_read() {
        let layer = BreakerLayer::new(at_most(1));
        let usage = layer.usage().unwrap().clone();
        let probe = Probe::new();
        let service = layer.layer(probe.clone());
        let first = service
            .clone()
            .oneshot(Request::new(empty()))
            .await
            .unwrap();
        let second = service.clone().oneshot(Request::new(empty())).await;
        assert_eq!(second.unwrap_err().failure(), Failure::Overflow);
        assert_eq!(
            probe.calls(),
            1,
            "what is refused does not reach the service"
        );
        assert_eq!(read(first.into_body()).await, "ok");
        assert_eq!(usage.get(Resource::Requests), 0);
        assert!(service.oneshot(Request::new(empty())).await.is_ok());
    }

    #[tokio::test]
    async fn a_request_that_fails_or_is_dropped_gives_its_place_up() {
        let layer = BreakerLayer::new(at_most(1));
        let usage = layer.usage().unwrap().clone();
        let answers = [Answers::Fails(Failure::ConnectFailed), Answers::Never];
        let mut service = layer.layer(Probe::answering(answers));
        let failed = service.clone().oneshot(Request::new(empty())).await;
        assert!(failed.is_err());
        assert_eq!(usage.get(Resource::Requests), 0);
        let ready = ServiceExt::<Request<BoxedBody>>::ready(&mut service);
        let waiting = ready.await.unwrap().call(Request::new(empty()));
        assert_eq!(usage.get(Resource::Requests), 1);
        drop(waiting);
        assert_eq!(usage.get(Resource::Requests), 0);
    }

    #[tokio::test]
    async fn readiness_takes_no_place() {
        let layer = BreakerLayer::new(at_most(1));
        let mut waiting = layer.layer(Probe::new());
        ServiceExt::<Request<BoxedBody>>::ready(&mut waiting)
            .await
            .unwrap();
        let other = layer.layer(Probe::new());
        assert!(other.oneshot(Request::new(empty())).await.is_ok());
    }

    #[tokio::test]
    async fn the_limit_of_a_cluster_holds_for_all_layers_and_is_counted() {
        let mut cluster = Cluster::new("a");
        cluster.limits = at_most(1);
        let exchange = fixture::exchange(Rule::prefix_to("/", "a"), Some(cluster));
        let request = || fixture::with(Request::new(empty()), &exchange);
        let first = BreakerLayer::per_route().layer(Probe::new());
        let held = first.oneshot(request()).await.unwrap();
        let second = BreakerLayer::per_route().layer(Probe::new());
        let error = second.clone().oneshot(request()).await.unwrap_err();
        assert_eq!(error.failure(), Failure::Overflow);
        let stats = exchange.cluster().unwrap().live().stats();
        assert_eq!(stats.block().get(ClusterStat::RqActiveOverflow), 1);
        drop(held);
        assert!(second.oneshot(request()).await.is_ok());
    }

    #[test]
    fn the_future_is_small() {
        // On top of the inner future.
        assert_eq!(size_of::<ResponseFuture<u64>>(), 16 + 8);
    }
}
