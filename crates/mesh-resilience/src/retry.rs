//! Makes failed attempts again.
//!
//! The policy says what is retried, how often and after which back-off ([`model::Retry`], Envoy's
//! `RetryPolicy`); it is either fixed or that of the matched rule. A request without a policy is
//! passed on as it came: nothing is kept of it and its future is the inner one. So is a mirror's
//! copy and a `CONNECT`. An upgrade is tried again until it is answered (as in Envoy).
//!
//! * A response that is to be tried again for is dropped, body and all, before the wait; during
//!   the wait nothing of the service is held. Only a response's head is looked at, so a gRPC status
//!   in trailers is never retried for. Once a response has been handed on there is no retry.
//! * The request's body is kept while it is sent, up to 1 MiB (see
//!   [`RetryLayer::buffer_limit`]); a request whose body turned out larger gets the result that it
//!   has. Because nobody reads the body during a wait, Envoy's 507 for a body that grows too large
//!   then cannot happen. Trailers are sent again too.
//! * An answer may say itself how long to wait ([`model::Retry::resets`]).
//! * An error that is not a [`mesh_core::Error`] counts as a reset of unknown kind: retried under
//!   `5xx`, `gateway-error` and `reset`.
//!
//! The inner service gets a [`ReplayBody`], or whatever `O` that can be made from one; see
//! [`MapRequestBodyLayer`](crate::MapRequestBodyLayer) for services that take one body type.
//!
//! With [`RetryLayer::per_route`] the `x-envoy-retry-on`, `-retry-grpc-on`, `-max-retries`,
//! `-retriable-status-codes` and `-retriable-header-names` headers of a request count beside the
//! policy, and are taken out.
//!
//! # Example
//!
//! ```
//! use axum::{Router, body::Body, routing::get};
//! use http::{Request, StatusCode};
//! use mesh_core::model::{Retry, RetryOn};
//! use mesh_resilience::{MapRequestBodyLayer, ReplayBody, RetryLayer};
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicBool, Ordering};
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), mesh_core::Error> {
//! // Fails once.
//! let failed = Arc::new(AtomicBool::new(false));
//! let router: Router = Router::new().route("/", get(move || async move {
//!     match failed.swap(true, Ordering::Relaxed) {
//!         true => StatusCode::OK,
//!         false => StatusCode::SERVICE_UNAVAILABLE,
//!     }
//! }));
//! let mut policy = Retry::default();
//! policy.attempts = 2;
//! policy.on = RetryOn::GATEWAY_ERROR;
//! let service = ServiceBuilder::new()
//!     .layer(RetryLayer::<ReplayBody<Body>>::fixed(policy))
//!     // The router takes axum's body alone.
//!     .layer(MapRequestBodyLayer::new(Body::new::<ReplayBody<Body>>))
//!     .service(router);
//! let response = service.oneshot(Request::new(Body::empty())).await?;
//! assert_eq!(response.status(), StatusCode::OK);
//! # Ok(())
//! # }
//! ```

mod ask;
mod attempts;
mod backoff;
mod budget;
mod decide;
mod hedge;
mod replay;
mod reset;

pub use attempts::LateNotes;
pub use budget::Budgets;
pub use replay::ReplayBody;

use crate::limits::{Limits as AttemptLimits, retry_of};
use crate::time::Deadline;
use ask::Wanted;
use attempts::{Attempts, finish};
use budget::{Window, interval_of};
use hedge::Hedge;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use http_body::Body;
use mesh_core::body::Held;
use mesh_core::model::{self, Limits};
use mesh_core::{BoxError, Error, Exchange, Rng, Usage, WallClock};
use pin_project::pin_project;
use replay::Replay;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Retry`] services whose inner service takes the request body `O`.
pub struct RetryLayer<O> {
    settings: Arc<Settings>,
    body: PhantomData<fn() -> O>,
}

/// A service that makes failed attempts again.
pub struct Retry<S, O> {
    inner: S,
    settings: Arc<Settings>,
    body: PhantomData<fn() -> O>,
}

/// The response future of [`Retry`].
#[pin_project]
pub struct ResponseFuture<S, B, O>
where
    S: Service<Request<O>>,
{
    #[pin]
    state: State<S::Future, Hedge<S, B, O>>,
    /// None where there is nothing to retry.
    attempts: Option<Attempts<S, B>>,
}

#[pin_project(project = StateProj)]
enum State<F, H> {
    /// Attempts that may overlap.
    Hedged(Box<H>),
    /// An attempt is under way.
    Going(#[pin] F),
    /// The next attempt waits for its time.
    Waiting(Deadline),
    /// The next attempt waits for the service.
    Readying,
}

#[derive(Clone, Debug)]
struct Settings {
    /// None where it is the matched rule's.
    policy: Option<Arc<model::Retry>>,
    limits: Option<OwnLimits>,
    budgets: Budgets,
    buffer_limit: usize,
    rng: Arc<Rng>,
    clock: WallClock,
}

#[derive(Clone, Debug)]
struct OwnLimits {
    usage: Arc<Usage>,
    limits: Limits,
    window: Option<Arc<Window>>,
}

/// What is to be done about one request.
struct Plan {
    policy: Arc<model::Retry>,
    wanted: Wanted,
    exchange: Option<Exchange>,
    /// Each attempt says which it is.
    numbered: bool,
    /// Attempts may overlap, from this limit on.
    hedge: Option<Duration>,
}

/// Envoy's `per_connection_buffer_limit_bytes`.
const BUFFER_LIMIT: usize = 1024 * 1024;

const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

// === impl RetryLayer ===

impl<O> RetryLayer<O> {
    /// The same policy for every request. Headers ask for nothing.
    pub fn fixed(policy: impl Into<Arc<model::Retry>>) -> Self {
        Self::with(Some(policy.into()))
    }

    /// The policy of the matched rule, else of its virtual host, within the limits of the cluster
    /// that the request goes to. Where the virtual host counts attempts, each carries
    /// `x-envoy-attempt-count`. A request without an exchange or rule is left alone, and so is one
    /// whose policy has no attempts or conditions.
    pub fn per_route() -> Self {
        Self::with(None)
    }

    fn with(policy: Option<Arc<model::Retry>>) -> Self {
        Self {
            settings: Arc::new(Settings {
                policy,
                limits: None,
                budgets: Budgets::default(),
                buffer_limit: BUFFER_LIMIT,
                rng: Arc::default(),
                clock: WallClock::system(),
            }),
            body: PhantomData,
        }
    }

    fn change(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }

    /// Where the jitter of the back-off comes from. Seeded by the operating system unless set.
    #[must_use]
    pub fn rng(self, rng: Arc<Rng>) -> Self {
        self.change(|settings| settings.rng = rng)
    }

    /// Which time of day it is for answers that say when to come back
    /// ([`model::ResetFormat::UnixTimestamp`]). The machine's unless set.
    #[must_use]
    pub fn clock(self, clock: WallClock) -> Self {
        self.change(|settings| settings.clock = clock)
    }

    /// How many bytes of a request's body are kept for another attempt. 1 MiB unless set. At most
    /// 4096 frames are kept, whatever their size.
    #[must_use]
    pub fn buffer_limit(self, bytes: usize) -> Self {
        self.change(|settings| settings.buffer_limit = bytes)
    }

    /// Keeps `max_retries` or the `budget` of these limits, counted in `usage`, instead of those
    /// of the cluster. A budget is a share of the requests that somebody counts in the same
    /// `usage`, such as a [`BreakerLayer`](crate::BreakerLayer). A layer with a fixed policy and
    /// without this keeps no limit.
    #[must_use]
    pub fn limits(self, limits: Limits, usage: Arc<Usage>) -> Self {
        let now = Instant::now().into_std();
        let window = interval_of(&limits).map(|interval| Arc::new(Window::new(interval, now)));
        self.change(|settings| {
            settings.limits = Some(OwnLimits {
                usage,
                limits,
                window,
            });
        })
    }

    /// Shares the memory of retry budgets with an interval. Layers that were cloned share it
    /// anyway.
    #[must_use]
    pub fn budgets(self, budgets: Budgets) -> Self {
        self.change(|settings| settings.budgets = budgets)
    }
}

impl<S, O> Layer<S> for RetryLayer<O> {
    type Service = Retry<S, O>;

    fn layer(&self, inner: S) -> Retry<S, O> {
        Retry {
            inner,
            settings: self.settings.clone(),
            body: PhantomData,
        }
    }
}

impl<O> Clone for RetryLayer<O> {
    fn clone(&self) -> Self {
        Self {
            settings: self.settings.clone(),
            body: PhantomData,
        }
    }
}

impl<O> fmt::Debug for RetryLayer<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryLayer")
            .field("settings", &self.settings)
            .finish()
    }
}

// === impl Settings ===

impl Settings {
    /// None where the request is not to be retried, whatever happens.
    fn plan<B>(&self, request: &mut Request<B>) -> Option<Plan> {
        let plan = match &self.policy {
            Some(policy) => Plan {
                policy: policy.clone(),
                wanted: Wanted::by_policy(Some(policy)).only_of(Some(policy), request),
                exchange: Exchange::of(request).cloned(),
                numbered: false,
                hedge: None,
            },
            None => self.plan_of_route(request)?,
        };
        let is_shadow = plan.exchange.as_ref().is_some_and(Exchange::is_shadow);
        let is_wanted = !plan.wanted.is_nothing() || plan.hedge.is_some();
        if is_shadow || !is_wanted || request.method() == Method::CONNECT {
            return None;
        }
        if let (Some(_), Some(exchange)) = (plan.hedge, &plan.exchange) {
            exchange.set_hedged();
        }
        Some(plan)
    }

    fn plan_of_route<B>(&self, request: &mut Request<B>) -> Option<Plan> {
        let exchange = Exchange::of(request)?.clone();
        let matched = exchange.matched()?;
        let policy = retry_of(matched);
        let numbered = matched.host().count_attempts;
        let limits = AttemptLimits::of(request);
        let hedge = limits.per_try.filter(|_| limits.hedged);
        let headers = request.headers_mut();
        if numbered {
            headers.insert(ATTEMPT_COUNT, HeaderValue::from_static("1"));
        }
        let own = policy.map(|policy| &**policy);
        let wanted = Wanted::take(own, headers).only_of(own, request);
        if wanted.is_nothing() && hedge.is_none() {
            return None;
        }
        Some(Plan {
            hedge,
            policy: policy.cloned().unwrap_or_default(),
            wanted,
            exchange: Some(exchange),
            numbered,
        })
    }
}

// === impl Retry ===

impl<S, B, O, R> Service<Request<B>> for Retry<S, O>
where
    S: Service<Request<O>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Body,
    ReplayBody<B>: Into<O>,
    R: Body,
{
    type Response = Response<Held<R, LateNotes>>;
    type Error = Error;
    type Future = ResponseFuture<S, B, O>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::wrap)
    }

    #[inline]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Some(plan) = self.settings.plan(&mut request) else {
            let request = request.map(|body| ReplayBody::once(body).into());
            return ResponseFuture {
                state: State::Going(self.inner.call(request)),
                attempts: None,
            };
        };
        // The ready one goes along; what stays here is not ready.
        let clone = self.inner.clone();
        let service = mem::replace(&mut self.inner, clone);
        let (head, body) = request.into_parts();
        let (replay, body) = Replay::begin(body, self.settings.buffer_limit);
        let saved = attempts::save(&head, plan.exchange.as_ref());
        let hedge = plan.hedge;
        let settings = self.settings.clone();
        let mut attempts = Attempts::new(service, saved, replay, plan, settings);
        let request = Request::from_parts(head, body.into());
        let Some(limit) = hedge else {
            return ResponseFuture {
                state: State::Going(attempts.service.call(request)),
                attempts: Some(attempts),
            };
        };
        let first = attempts.service.call(request);
        ResponseFuture {
            state: State::Hedged(Box::new(Hedge::new(first, attempts, limit))),
            attempts: None,
        }
    }
}

impl<S: Clone, O> Clone for Retry<S, O> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            settings: self.settings.clone(),
            body: PhantomData,
        }
    }
}

impl<S: fmt::Debug, O> fmt::Debug for Retry<S, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("inner", &self.inner)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

// === impl ResponseFuture ===

impl<S, B, O, R> Future for ResponseFuture<S, B, O>
where
    S: Service<Request<O>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    B: Body,
    ReplayBody<B>: Into<O>,
    R: Body,
{
    type Output = Result<Response<Held<R, LateNotes>>, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Hedged(hedge) => return hedge.poll(cx),
                // -> Waiting or Readying, unless this result is the last.
                StateProj::Going(inner) => {
                    let result = ready!(inner.poll(cx)).map_err(Error::wrap);
                    let pause = this
                        .attempts
                        .as_mut()
                        .and_then(|attempts| attempts.judge(&result));
                    if let (Some(_), Some(attempts)) = (pause, this.attempts.as_ref()) {
                        attempts.rest(true);
                        attempts.failed(&result);
                    }
                    match pause {
                        None => return Poll::Ready(finish(this.attempts.take(), result)),
                        Some(pause) if pause.is_zero() => State::Readying,
                        Some(pause) => State::Waiting(Deadline::after(pause)),
                    }
                }
                // -> Readying.
                StateProj::Waiting(deadline) => {
                    ready!(deadline.poll(cx));
                    State::Readying
                }
                // -> Going, unless the service fails.
                StateProj::Readying => {
                    let attempts = this
                        .attempts
                        .as_mut()
                        .expect("only a request with attempts left comes here");
                    if let Err(error) = ready!(attempts.service.poll_ready(cx)) {
                        let result = Err(Error::wrap(error));
                        return Poll::Ready(finish(this.attempts.take(), result));
                    }
                    let request = attempts.next().map(Into::into);
                    State::Going(attempts.service.call(request))
                }
            };
            // The future of the attempt before is dropped here, before any wait.
            this.state.set(next);
        }
    }
}

impl<S, B, O> fmt::Debug for ResponseFuture<S, B, O>
where
    S: Service<Request<O>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Hedged(_) => "Hedged",
            State::Going(_) => "Going",
            State::Waiting(_) => "Waiting",
            State::Readying => "Readying",
        };
        f.debug_tuple("ResponseFuture").field(&state).finish()
    }
}

#[cfg(test)]
mod tests;
