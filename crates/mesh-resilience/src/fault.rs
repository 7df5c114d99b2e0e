//! Delays and aborts put in on purpose, to see how callers cope.
//!
//! First the delay, then the abort; whether each happens is drawn on its own, from its own share. The
//! answer may be slow as well: that is done by [`PaceLayer`](crate::PaceLayer), which belongs outside.
//! How many requests have faults at a time may be limited, over a listener.
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

mod active;

use crate::like::is_like;
use crate::time::Deadline;
use active::Active;
use http::{HeaderMap, HeaderName, Request, Response};
use mesh_core::model::{self, AbortWith, DelayBy, Fraction, SlowBy};
use mesh_core::stats::HttpStat;
use mesh_core::{BoxError, Error, Exchange, Failure, Flags, Rng};
use pin_project::pin_project;
use std::fmt;
use std::future::Future;
use std::mem;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Fault`] services.
#[derive(Clone, Debug)]
pub struct FaultLayer {
    source: Source,
    rng: Arc<Rng>,
    /// Faults under way of requests without a listener.
    active: Arc<AtomicU64>,
}

/// A service that delays and aborts a share of its requests.
#[derive(Clone, Debug)]
pub struct Fault<S> {
    inner: S,
    source: Source,
    rng: Arc<Rng>,
    active: Arc<AtomicU64>,
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
    admission: Admission,
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
    slow: Option<NonZeroU64>,
}

/// Whether a request may have faults, of which there may be too many already (Envoy
/// `FaultFilter::tryIncActiveFaults`).
struct Admission {
    most: Option<u32>,
    own: Arc<AtomicU64>,
    caller: Option<Exchange>,
    /// It has one.
    active: Option<Active>,
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
            active: Arc::default(),
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
            active: self.active.clone(),
        }
    }
}

// === impl Plan ===

const DELAY: HeaderName = HeaderName::from_static("x-envoy-fault-delay-request");
const DELAY_SHARE: HeaderName = HeaderName::from_static("x-envoy-fault-delay-request-percentage");
const ABORT: HeaderName = HeaderName::from_static("x-envoy-fault-abort-request");
const ABORT_GRPC: HeaderName = HeaderName::from_static("x-envoy-fault-abort-grpc-request");
const ABORT_SHARE: HeaderName = HeaderName::from_static("x-envoy-fault-abort-request-percentage");
const SLOW: HeaderName = HeaderName::from_static("x-envoy-fault-throughput-response");
const SLOW_SHARE: HeaderName =
    HeaderName::from_static("x-envoy-fault-throughput-response-percentage");
const NODE: HeaderName = HeaderName::from_static("x-envoy-downstream-service-node");

/// Decides what is done to a request with these headers, from one random word for the delay, one for
/// the abort and one for how slow the answer is.
fn decide(fault: &model::Fault, headers: &HeaderMap, words: [u64; 3]) -> Plan {
    let [delay_word, abort_word, slow_word] = words;
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
    let slow = fault.slow.as_ref().and_then(|slow| {
        let (rate, share) = match slow.by {
            SlowBy::Fixed(rate) => (rate, slow.share),
            SlowBy::Header(unit) => {
                let rate = NonZeroU64::new(number(headers, &SLOW)?)?;
                (rate, lowered(slow.share, unit, headers, &SLOW_SHARE))
            }
            _ => return None,
        };
        share.admits(slow_word).then_some(rate)
    });
    Plan { delay, abort, slow }
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
    fn plan<B>(
        &self,
        request: &Request<B>,
        exchange: Option<&Exchange>,
    ) -> Option<(Plan, Admission)> {
        let fault = match &self.source {
            Source::Fixed(fault) => fault,
            Source::Route => exchange?.rule()?.fault.as_ref()?,
        };
        if !concerns(fault, request, exchange) {
            return None;
        }
        let words = [(); 3].map(|()| self.rng.word());
        let plan = decide(fault, request.headers(), words);
        let admission = Admission {
            most: fault.max_active,
            own: self.active.clone(),
            caller: exchange.cloned(),
            active: None,
        };
        (plan != Plan::default()).then_some((plan, admission))
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
        let Some((plan, mut admission)) = self.plan(&request, exchange) else {
            return ResponseFuture {
                state: State::Going(self.inner.call(request)),
            };
        };
        if let (Some(rate), Some(exchange)) = (plan.slow, exchange)
            && admission.admits()
        {
            exchange.caller().count(HttpStat::FaultSlow);
            exchange.set_pace(rate, admission.lasting());
        }
        let delay = plan.delay.filter(|_| admission.admits());
        let state = if let Some(delay) = delay {
            if let Some(exchange) = exchange {
                exchange.flag(Flags::DI);
                exchange.caller().count(HttpStat::FaultDelays);
            }
            // The ready one goes along; what stays here is not ready.
            let clone = self.inner.clone();
            State::Delayed(Some(Box::new(Delayed {
                deadline: Deadline::after(delay),
                abort: plan.abort,
                admission,
                service: mem::replace(&mut self.inner, clone),
                request,
            })))
        } else if let Some(failure) = plan.abort.filter(|_| admission.admits()) {
            State::Aborted(failure, exchange.cloned())
        } else {
            return ResponseFuture {
                state: State::Going(self.inner.call(request)),
            };
        };
        ResponseFuture { state }
    }
}

// === impl Admission ===

impl Admission {
    /// Whether there may be one more fault. What has one already may have another.
    fn admits(&mut self) -> bool {
        let stats = self
            .caller
            .as_ref()
            .and_then(|it| it.caller().stats.clone());
        let shard = self
            .caller
            .as_ref()
            .map(Exchange::shard)
            .unwrap_or_default();
        if self.active.is_some() {
            return true;
        }
        let most = self.most.map_or(u64::MAX, u64::from);
        self.active = Active::take(stats, shard, &self.own, most);
        if self.active.is_none()
            && let Some(exchange) = &self.caller
        {
            exchange.caller().count(HttpStat::FaultOverflow);
        }
        self.active.is_some()
    }

    /// What is to be held until the request is over. Another fault of it counts no more.
    fn lasting(&mut self) -> Option<Box<dyn std::any::Any + Send + Sync>> {
        let active = self.active.replace(Active::Lasting)?;
        Some(Box::new(active))
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
                        mut admission,
                        mut service,
                        request,
                        ..
                    } = *delayed.take().expect("it was there a moment ago");
                    match abort.filter(|_| admission.admits()) {
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
