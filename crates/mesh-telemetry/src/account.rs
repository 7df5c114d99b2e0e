//! Counts for a cluster how each request to it was answered, once for all attempts.
//!
//! As Envoy's router filter counts (`chargeUpstreamCode`): the answer that the caller gets, be it
//! an endpoint's or one made in place of it, in `upstream_rq_completed`, by its class and by its
//! code. An answer that is tried again or followed elsewhere is not counted here, nor a request that its caller gave up.
//!
//! The layer belongs above everything that makes further attempts and below everything that
//! answers for other reasons. It notes in the [`Exchange`] that it counts, so that whoever counts
//! single attempts below leaves that to it ([`Exchange::answer_is_counted`]). A request without an
//! exchange or a cluster is left alone.
//!
//! ```
//! use http::Request;
//! use mesh_core::Failure;
//! use mesh_core::model::{Cluster, Rule};
//! use mesh_telemetry::AccountLayer;
//! use mesh_test::{Answers, Probe, empty, fixture};
//! use tower::ServiceExt;
//! use tower_layer::Layer;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let exchange = fixture::exchange(Rule::prefix_to("/", "a"), Some(Cluster::new("a")));
//! let request = fixture::with(Request::new(empty()), &exchange);
//! let upstream = Probe::answering([Answers::Fails(Failure::NoHealthyHost)]);
//! let _ = AccountLayer::per_route().layer(upstream).oneshot(request).await;
//! let stats = exchange.cluster().unwrap().live().stats();
//! assert_eq!(stats.codes().counts(), [(503, 1)]);
//! # }
//! ```

use http::{HeaderName, Request, Response};
use mesh_core::{BoxError, Error, Exchange, seldom, upgrade};
use pin_project::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Account`] services.
#[derive(Clone, Copy, Debug, Default)]
pub struct AccountLayer(());

/// A service whose answers are counted for their cluster.
#[derive(Clone, Debug)]
pub struct Account<S> {
    inner: S,
}

/// The response future of [`Account`].
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    #[pin]
    inner: F,
    exchange: Option<Exchange>,
}

// === impl AccountLayer ===

impl AccountLayer {
    /// Counts for the cluster that the router chose.
    pub fn per_route() -> Self {
        Self(())
    }
}

impl<S> Layer<S> for AccountLayer {
    type Service = Account<S>;

    fn layer(&self, inner: S) -> Account<S> {
        Account { inner }
    }
}

// === impl Account ===

impl<S, B, R> Service<Request<B>> for Account<S>
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
        let exchange = Exchange::of(&request).filter(|of| of.cluster().is_some());
        let exchange = exchange.cloned();
        if let Some(exchange) = &exchange {
            exchange.set_answer_is_counted();
        }
        ResponseFuture {
            inner: self.inner.call(request),
            exchange,
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
        let result = ready!(this.inner.poll(cx)).map_err(Error::wrap);
        let says = |response: &Response<R>| {
            let says = seldom::get(response.headers(), &CANARY);
            says.is_some_and(|says| says == "true")
        };
        let says_canary = result.as_ref().is_ok_and(says);
        let status = match &result {
            Ok(response) => Some(response.status()),
            // A gRPC caller is answered with 200, and 503 is counted.
            Err(error) if error.failure().replaces_an_answer() => Some(error.status()),
            Err(_) => None,
        };
        let counts =
            |of: &Exchange| !of.has_gone_on() && !of.is_between_attempts() && !is_no_answer(of);
        let exchange = this.exchange.take().filter(counts);
        if let (Some(exchange), Some(status)) = (exchange, status)
            && let Some(cluster) = exchange.cluster()
        {
            let stats = cluster.live().stats();
            stats.answered(exchange.shard(), status);
            if says_canary || exchange.went_to_canary() {
                stats.answered_by_canary(exchange.shard(), status);
            }
        }
        Poll::Ready(result)
    }
}

/// A server that says so is a canary, whatever is known of it (Envoy
/// `Filter::chargeUpstreamCode`).
const CANARY: HeaderName = HeaderName::from_static("x-envoy-upstream-canary");

/// Whether a WebSocket was answered with something that tells it nothing.
fn is_no_answer(exchange: &Exchange) -> bool {
    exchange.with_notes(|notes| notes.details.as_deref() == Some(upgrade::UNSUCCESSFUL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;
    use mesh_core::Failure;
    use mesh_core::exchange::Upstream;
    use mesh_core::model::{Cluster, Endpoint, Rule};
    use mesh_core::stats::ClusterStat;
    use mesh_test::{Answers, BoxedBody, Probe, contract, empty, fixture};
    use std::sync::Arc;
    use tower::ServiceExt;

    #[tokio::test]
    async fn keeps_the_contract_of_a_layer() {
        contract::check(AccountLayer::per_route()).await;
    }

    #[tokio::test]
    async fn answers_count_by_their_code_and_failures_by_what_they_are_answered_with() {
        let exchange = fixture::exchange(Rule::prefix_to("/", "a"), Some(Cluster::new("a")));
        let upstream = Probe::answering([
            Answers::With(StatusCode::OK, ""),
            Answers::With(StatusCode::NOT_FOUND, ""),
            Answers::Fails(Failure::NoHealthyHost),
            Answers::Fails(Failure::Overflow),
            Answers::Fails(Failure::UpstreamProtocol),
            Answers::Fails(Failure::RequestTimeout),
            // These are no answers of an upstream's, nor in place of one.
            Answers::Fails(Failure::StreamIdle),
            Answers::Fails(Failure::ReplayOverflow),
            Answers::Fails(Failure::ClientGone),
        ]);
        let service = AccountLayer::per_route().layer(upstream);
        for _ in 0..9 {
            let request = fixture::with(Request::new(empty()), &exchange);
            let _ = service.clone().oneshot(request).await;
            assert!(exchange.answer_is_counted());
        }
        let stats = exchange.cluster().unwrap().live().stats();
        let codes = [(200, 1), (404, 1), (502, 1), (503, 2), (504, 1)];
        assert_eq!(stats.codes().counts(), codes);
        let classes = [
            ClusterStat::Rq2xx,
            ClusterStat::Rq4xx,
            ClusterStat::Rq5xx,
            ClusterStat::RqCompleted,
        ];
        assert_eq!(classes.map(|it| stats.block().get(it)), [1, 1, 4, 6]);
    }

    #[tokio::test]
    async fn answers_of_canaries_count_once_more() {
        for (known, says, counted) in [
            (None, None, false),
            (Some("true"), None, true),
            (Some("true"), Some("false"), true),
            // A text is none in Envoy either.
            (Some("\"true\""), None, false),
            (None, Some("true"), true),
            (None, Some("1"), false),
        ] {
            let exchange = fixture::exchange(Rule::prefix_to("/", "a"), Some(Cluster::new("a")));
            let mut endpoint = Endpoint::new(std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
            if let Some(known) = known {
                endpoint.subset = Arc::new([("canary".into(), known.into())].into());
            }
            exchange.set_upstream(Upstream::new(Arc::new(endpoint)));
            let upstream = tower::service_fn(move |_: Request<BoxedBody>| async move {
                let response = Response::builder().status(404);
                let response = match says {
                    Some(says) => response.header(CANARY, says),
                    None => response,
                };
                Ok::<_, Error>(response.body(()).unwrap())
            });
            let service = AccountLayer::per_route().layer(upstream);
            let request = fixture::with(Request::new(empty()), &exchange);
            service.oneshot(request).await.unwrap();
            let stats = exchange.cluster().unwrap().live().stats();
            let codes = stats.canary_codes().map(|codes| codes.counts());
            assert_eq!(codes, counted.then(|| vec![(404, 1)]), "{known:?} {says:?}");
        }
    }

    #[tokio::test]
    async fn a_websocket_that_is_not_opened_counts_no_answer() {
        let exchange = fixture::exchange(Rule::prefix_to("/", "a"), Some(Cluster::new("a")));
        let upstream = Probe::answering([Answers::With(StatusCode::OK, "")]);
        let service = AccountLayer::per_route().layer(upstream);
        exchange.set_details(upgrade::UNSUCCESSFUL);
        let request = fixture::with(Request::new(empty()), &exchange);
        service.oneshot(request).await.unwrap();
        let stats = exchange.cluster().unwrap().live().stats();
        assert_eq!(stats.block().get(ClusterStat::RqCompleted), 0);
    }

    #[test]
    fn the_future_is_small() {
        // On top of the inner future.
        assert_eq!(size_of::<ResponseFuture<u64>>(), 8 + 16);
    }
}
