//! Delays and aborts put in on purpose, to see how callers cope.
//!
//! First the delay, then the abort; whether each happens is drawn on its own, from its own share.
//! An aborted request fails with [`Failure::FaultAbort`] or [`Failure::FaultAbortGrpc`] and never
//! reaches the service. What is done, and for which share, may be left to the headers of requests
//! (`x-envoy-fault-…`), where the fault says so.
//!
//! In a stack this belongs outside of timeouts and retries, which therefore neither cover nor
//! repair what is put in (as in Envoy, whose fault filter comes before its router). During a delay
//! the inner service's readiness is held, so that a service with a limit on concurrency counts the
//! request from its arrival.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use mesh_core::model::{AbortWith, Fault, FaultAbort, Fraction};
//! use mesh_core::{BoxError, Failure};
//! use mesh_resilience::FaultLayer;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let mut fault = Fault::default();
//! fault.abort = Some(FaultAbort {
//!     with: AbortWith::Http(StatusCode::IM_A_TEAPOT),
//!     share: Fraction::ALL,
//! });
//! let service = ServiceBuilder::new()
//!     .layer(FaultLayer::fixed(fault))
//!     .service(service_fn(|_: Request<()>| async { Ok::<_, BoxError>(Response::new(())) }));
//! let error = service.oneshot(Request::new(())).await.unwrap_err();
//! assert_eq!(error.failure(), Failure::FaultAbort(418));
//! # }
//! ```

use crate::like::is_like;
use crate::time::Deadline;
use http::{HeaderMap, HeaderName, Request, Response};
use mesh_core::model::{self, AbortWith, DelayBy, Fraction};
use mesh_core::stats::HttpStat;
use mesh_core::{BoxError, Error, Exchange, Failure, Flags, Rng};
use pin_project::pin_project;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Fault`] services.
#[derive(Clone, Debug)]
pub struct FaultLayer {
    source: Source,
    rng: Arc<Rng>,
}

/// A service that delays and aborts a share of its requests.
#[derive(Clone, Debug)]
pub struct Fault<S> {
    inner: S,
    source: Source,
    rng: Arc<Rng>,
}

/// The response future of [`Fault`].
#[pin_project]
pub struct ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    #[pin]
    state: State<S, S::Future, B>,
}

#[pin_project(project = StateProj)]
enum State<S, F, B> {
    Going(#[pin] F),
    /// Boxed: a request is large, and delays are rare. Taken when the time has come.
    Delayed(Option<Box<Delayed<S, B>>>),
    /// Taken with the result.
    Aborted(Failure, Option<Exchange>),
}

struct Delayed<S, B> {
    deadline: Deadline,
    abort: Option<Failure>,
    /// Ready.
    service: S,
    request: Request<B>,
}

#[derive(Clone, Debug)]
enum Source {
    Fixed(Arc<model::Fault>),
    Route,
}

/// What is done to one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Plan {
    delay: Option<Duration>,
    abort: Option<Failure>,
}

// === impl FaultLayer ===

impl FaultLayer {
    /// The same fault for every request.
    pub fn fixed(fault: model::Fault) -> Self {
        Self::from_source(Source::Fixed(Arc::new(fault)))
    }

    /// The fault of the matched rule (Envoy `HTTPFault`, Istio `HTTPFaultInjection`). A request
    /// without an exchange or a fault is left alone.
    pub fn per_route() -> Self {
        Self::from_source(Source::Route)
    }

    fn from_source(source: Source) -> Self {
        Self {
            source,
            rng: Arc::default(),
        }
    }

    /// Where chance comes from. Seeded by the operating system unless set.
    #[must_use]
    pub fn rng(mut self, rng: Arc<Rng>) -> Self {
        self.rng = rng;
        self
    }
}

impl<S> Layer<S> for FaultLayer {
    type Service = Fault<S>;

    fn layer(&self, inner: S) -> Fault<S> {
        Fault {
            inner,
            source: self.source.clone(),
            rng: self.rng.clone(),
        }
    }
}

// === impl Plan ===

const DELAY: HeaderName = HeaderName::from_static("x-envoy-fault-delay-request");
const DELAY_SHARE: HeaderName = HeaderName::from_static("x-envoy-fault-delay-request-percentage");
const ABORT: HeaderName = HeaderName::from_static("x-envoy-fault-abort-request");
const ABORT_GRPC: HeaderName = HeaderName::from_static("x-envoy-fault-abort-grpc-request");
const ABORT_SHARE: HeaderName = HeaderName::from_static("x-envoy-fault-abort-request-percentage");
const NODE: HeaderName = HeaderName::from_static("x-envoy-downstream-service-node");

/// Decides what is done to a request with these headers, from one random word for the delay and one
/// for the abort.
fn decide(fault: &model::Fault, headers: &HeaderMap, delay_word: u64, abort_word: u64) -> Plan {
    let delay = fault.delay.as_ref().and_then(|delay| {
        let (length, share) = match delay.by {
            DelayBy::Fixed(length) => (length, delay.share),
            DelayBy::Header(unit) => {
                let length = Duration::from_millis(number(headers, &DELAY)?);
                (length, lowered(delay.share, unit, headers, &DELAY_SHARE))
            }
            _ => return None,
        };
        (!length.is_zero() && share.admits(delay_word)).then_some(length)
    });
    let abort = fault.abort.as_ref().and_then(|abort| {
        let (with, share) = match abort.with {
            AbortWith::Http(status) => (Failure::FaultAbort(status.as_u16()), abort.share),
            AbortWith::Grpc(code) => (Failure::FaultAbortGrpc(code), abort.share),
            AbortWith::Header(unit) => {
                let share = lowered(abort.share, unit, headers, &ABORT_SHARE);
                (asked_for(headers)?, share)
            }
        };
        share.admits(abort_word).then_some(with)
    });
    Plan { delay, abort }
}

/// The abort that a request asks for.
fn asked_for(headers: &HeaderMap) -> Option<Failure> {
    let status = number(headers, &ABORT).filter(|status| (200..600).contains(status));
    if let Some(status) = status.and_then(|status| u16::try_from(status).ok()) {
        return Some(Failure::FaultAbort(status));
    }
    let code = number(headers, &ABORT_GRPC)?;
    Some(Failure::FaultAbortGrpc(u32::try_from(code).ok()?))
}

/// The share, or as much less as a request says (Envoy `HeaderPercentageProvider`).
fn lowered(share: Fraction, unit: Fraction, headers: &HeaderMap, name: &HeaderName) -> Fraction {
    let Some(said) = number(headers, name).and_then(|said| u32::try_from(said).ok()) else {
        return share;
    };
    share.min(Fraction::millionths(
        said.saturating_mul(unit.as_millionths()),
    ))
}

/// The number in a header, whose first line counts alone: nobody trusts who sends it.
fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// Whether a fault is for this request at all.
fn concerns<B>(fault: &model::Fault, request: &Request<B>, exchange: Option<&Exchange>) -> bool {
    let goes_to = || exchange.and_then(Exchange::matched)?.cluster_name();
    let says = || request.headers().get(&NODE)?.to_str().ok();
    (fault.upstream.is_empty() || goes_to() == Some(&fault.upstream))
        && (fault.nodes.is_empty()
            || says().is_some_and(|node| fault.nodes.iter().any(|known| known == node)))
        && fault.headers.iter().all(|want| is_like(request, want))
}

// === impl Fault ===

impl<S> Fault<S> {
    fn plan<B>(&self, request: &Request<B>, exchange: Option<&Exchange>) -> Plan {
        let fault = match &self.source {
            Source::Fixed(fault) => Some(fault),
            Source::Route => exchange
                .and_then(Exchange::rule)
                .and_then(|rule| rule.fault.as_ref()),
        };
        let Some(fault) = fault else {
            return Plan::default();
        };
        if !concerns(fault, request, exchange) {
            return Plan::default();
        }
        let words = (self.rng.word(), self.rng.word());
        decide(fault, request.headers(), words.0, words.1)
    }
}

impl<S, B, R> Service<Request<B>> for Fault<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Response<R>;
    type Error = Error;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::wrap)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let exchange = Exchange::of(&request);
        let plan = self.plan(&request, exchange);
        let state = if let Some(delay) = plan.delay {
            if let Some(exchange) = exchange {
                exchange.flag(Flags::DI);
                exchange.caller().count(HttpStat::FaultDelays);
            }
            // The ready one goes along; what stays here is not ready.
            let clone = self.inner.clone();
            State::Delayed(Some(Box::new(Delayed {
                deadline: Deadline::after(delay),
                abort: plan.abort,
                service: mem::replace(&mut self.inner, clone),
                request,
            })))
        } else if let Some(failure) = plan.abort {
            State::Aborted(failure, exchange.cloned())
        } else {
            return ResponseFuture {
                state: State::Going(self.inner.call(request)),
            };
        };
        ResponseFuture { state }
    }
}

// === impl ResponseFuture ===

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<R>, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Going(inner) => {
                    return inner.poll(cx).map_err(Error::wrap);
                }
                // -> Aborted or Going, when the time has come.
                StateProj::Delayed(delayed) => {
                    let waiting = delayed.as_mut().expect("taken only when the state changes");
                    ready!(waiting.deadline.poll(cx));
                    let Delayed {
                        abort,
                        mut service,
                        request,
                        ..
                    } = *delayed.take().expect("it was there a moment ago");
                    match abort {
                        Some(failure) => State::Aborted(failure, Exchange::of(&request).cloned()),
                        None => State::Going(service.call(request)),
                    }
                }
                StateProj::Aborted(failure, exchange) => {
                    if let Some(exchange) = exchange.take() {
                        exchange.flag(Flags::FI);
                        exchange.caller().count(HttpStat::FaultAborts);
                    }
                    return Poll::Ready(Err(Error::new(*failure)));
                }
            };
            state.set(next);
        }
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Going(_) => "Going",
            State::Delayed(_) => "Delayed",
            State::Aborted(..) => "Aborted",
        };
        f.debug_tuple("ResponseFuture").field(&state).finish()
    }
}

#[cfg(test)]
mod tests;
