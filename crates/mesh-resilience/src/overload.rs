//! Sheds load before work is done on it.
//!
//! When as many requests are in this layer as it may hold, the next one fails at once with
//! [`Failure::Overloaded`] (503, flag `OM`). A request is in the layer from the call until its
//! response body has ended, failed or been dropped. Put it outermost but for what makes the
//! response, so that a refusal costs next to nothing; unlike
//! [`BreakerLayer`](crate::BreakerLayer) it protects this process rather than an upstream.
//!
//! The number is all that the layer looks at itself, and every request weighs the same. Who looks at
//! memory or at anything else tells it by a [`Shedding`] how much is to be shed. A proxy with one stack per worker has the limit per worker unless the workers' stacks are
//! built from clones of one layer.
//!
//! # Example
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use mesh_core::{BoxError, Failure};
//! use mesh_resilience::OverloadLayer;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let service = ServiceBuilder::new()
//!     .layer(OverloadLayer::fixed(1))
//!     .service(service_fn(|_: Request<()>| async {
//!         Ok::<_, BoxError>(Response::new(Full::new(Bytes::from("busy"))))
//!     }));
//! let _first = service.clone().oneshot(Request::new(())).await?;
//! let error = service.oneshot(Request::new(())).await.unwrap_err();
//! assert_eq!(error.failure(), Failure::Overloaded);
//! # Ok(())
//! # }
//! ```

use http::{Request, Response};
use http_body::Body;
use mesh_core::body::Held;
use mesh_core::stats::HttpStat;
use mesh_core::usage::{Resource, Taken};
use mesh_core::{BoxError, Error, Exchange, Failure, Rng, Usage};
use pin_project::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Overload`] services.
#[derive(Clone, Debug)]
pub struct OverloadLayer {
    usage: Arc<Usage>,
    most: u32,
    told: Option<Told>,
}

/// The part of all requests that is shed, whatever their number. A clone is the same one: whoever
/// looks at the process sets it, and layers obey. Default: none.
#[derive(Clone, Debug, Default)]
pub struct Shedding(Arc<AtomicU32>);

/// Somebody tells how much is shed.
#[derive(Clone, Debug)]
struct Told(Arc<(Shedding, Arc<Rng>)>);

/// A service that sheds what is too much for this process.
#[derive(Clone, Debug)]
pub struct Overload<S> {
    inner: S,
    usage: Arc<Usage>,
    most: u32,
    told: Option<Told>,
}

/// The response future of [`Overload`].
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
    Shed,
}

// === impl OverloadLayer ===

impl OverloadLayer {
    /// At most this many requests at once, in all services that this layer and its clones make.
    pub fn fixed(most: u32) -> Self {
        Self {
            usage: Arc::default(),
            most,
            told: None,
        }
    }

    /// Sheds besides what `shedding` says. `rng` chooses the requests.
    #[must_use]
    pub fn shedding(mut self, shedding: Shedding, rng: Arc<Rng>) -> Self {
        self.told = Some(Told(Arc::new((shedding, rng))));
        self
    }

    /// How many requests are in the layer now.
    pub fn active(&self) -> u32 {
        self.usage.get(Resource::Requests)
    }
}

impl<S> Layer<S> for OverloadLayer {
    type Service = Overload<S>;

    fn layer(&self, inner: S) -> Overload<S> {
        Overload {
            inner,
            usage: self.usage.clone(),
            most: self.most,
            told: self.told.clone(),
        }
    }
}

// === impl Shedding ===

impl Shedding {
    /// All of them, in millionths.
    const ALL: u32 = 1_000_000;

    /// Sheds so many of a million requests, from now on. More than a million is all.
    pub fn set(&self, millionths: u32) {
        self.0.store(millionths, Ordering::Relaxed);
    }

    /// Whether a request with this random word is shed.
    pub fn sheds(&self, word: u64) -> bool {
        match self.0.load(Ordering::Relaxed) {
            0 => false,
            some => word % u64::from(Self::ALL) < u64::from(some),
        }
    }
}

// === impl Told ===

impl Told {
    fn sheds(&self) -> bool {
        // Mostly nothing is shed, and no word is drawn for that.
        let (shedding, rng) = &*self.0;
        shedding.0.load(Ordering::Relaxed) > 0 && shedding.sheds(rng.word())
    }
}

// === impl Overload ===

impl<S, B, R> Service<Request<B>> for Overload<S>
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
        let told = self.told.as_ref();
        let unit = match told.is_some_and(Told::sheds) {
            true => None,
            false => self.usage.take(Resource::Requests, self.most),
        };
        let Some(unit) = unit else {
            if let Some(exchange) = Exchange::of(&request) {
                exchange.caller().count(HttpStat::RqOverloadClose);
            }
            return ResponseFuture { state: State::Shed };
        };
        let state = State::Going {
            inner: self.inner.call(request),
            unit: Some(unit),
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
            StateProj::Shed => Poll::Ready(Err(Error::new(Failure::Overloaded))),
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
    use mesh_core::Caller;
    use mesh_core::stats::Block;
    use mesh_test::{BoxedBody, Probe, contract, empty, fixture, read};
    use tower::ServiceExt;

    #[tokio::test]
    async fn keeps_the_contract_of_a_layer() {
        contract::check(OverloadLayer::fixed(10)).await;
    }

    #[tokio::test]
    async fn what_is_too_much_is_shed_and_counted_until_there_is_room_again() {
        let layer = OverloadLayer::fixed(2);
        let probe = Probe::new();
        let service = layer.layer(probe.clone());
        let first = service
            .clone()
            .oneshot(Request::new(empty()))
            .await
            .unwrap();
        let _second = service
            .clone()
            .oneshot(Request::new(empty()))
            .await
            .unwrap();
        assert_eq!(layer.active(), 2);

        let mut caller = Caller::default();
        caller.stats = Some(Arc::new(Block::default()));
        let exchange = Exchange::new(tokio::time::Instant::now().into_std(), caller);
        let third = fixture::with(Request::new(empty()), &exchange);
        let error = service.clone().oneshot(third).await.unwrap_err();
        assert_eq!(error.failure(), Failure::Overloaded);
        assert_eq!(probe.calls(), 2, "what is shed does not reach the service");
        let stats = exchange.caller().stats.as_ref().unwrap();
        assert_eq!(stats.get(HttpStat::RqOverloadClose), 1);

        read(first.into_body()).await;
        assert!(service.oneshot(Request::new(empty())).await.is_ok());
    }

    #[tokio::test]
    async fn a_request_that_is_dropped_makes_room() {
        let layer = OverloadLayer::fixed(1);
        let answers = [mesh_test::Answers::Never];
        let mut service = layer.layer(Probe::answering(answers));
        let ready = ServiceExt::<Request<BoxedBody>>::ready(&mut service);
        let waiting = ready.await.unwrap().call(Request::new(empty()));
        assert_eq!(layer.active(), 1);
        drop(waiting);
        assert_eq!(layer.active(), 0);
    }

    #[tokio::test]
    async fn as_much_is_shed_as_somebody_says() {
        let shedding = Shedding::default();
        let layer = OverloadLayer::fixed(u32::MAX);
        let layer = layer.shedding(shedding.clone(), Arc::new(Rng::with_seed(1)));
        let service = layer.layer(Probe::new());
        for (millionths, least, most) in [
            (0, 0, 0),
            (250_000, 150, 350),
            (1_000_000, 1000, 1000),
            (u32::MAX, 1000, 1000),
            (0, 0, 0),
        ] {
            shedding.set(millionths);
            let mut shed = 0;
            for _ in 0..1000 {
                let answer = service.clone().oneshot(Request::new(empty())).await;
                shed += usize::from(answer.is_err());
            }
            assert!((least..=most).contains(&shed), "{millionths}: {shed}");
        }
        contract::check(layer).await;
    }

    #[test]
    fn the_future_is_small() {
        // On top of the inner future.
        assert_eq!(size_of::<ResponseFuture<u64>>(), 16 + 8);
    }
}
