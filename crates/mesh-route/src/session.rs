//! Keeps the requests of a caller at one endpoint (Envoy's HTTP filter `stateful_session`).
//!
//! [`SessionLayer`] reads from a request which endpoint answered before and leaves that in the
//! [`Exchange`], where whoever chooses an endpoint finds it; of the answer it tells the caller which
//! endpoint it was, where that is another one than the caller named. That holds for answers that
//! we make ourselves after an endpoint was chosen, too: the layer records it for
//! [`ReplyLayer`](crate::ReplyLayer) then. Where a redirect is followed, the request comes through
//! again, and the first answer is told to nobody.
//!
//! Callers can name any endpoint of the cluster that the route goes to, and none other. What they are
//! told is not encrypted: it is the address of the endpoint.
//!
//! It belongs above [`EditLayer`](crate::EditLayer), so that edits of answers come before what
//! is told here, as in Envoy; and below whatever answers without an endpoint.
//!
//! # Example
//!
//! ```
//! use http::{HeaderName, Request};
//! use mesh_core::model::{Session, SessionState};
//! use mesh_core::{Caller, Exchange};
//! use mesh_route::SessionLayer;
//! use std::time::Instant;
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! let state = SessionState::Header(HeaderName::from_static("x-session"));
//! let service = ServiceBuilder::new()
//!     .layer(SessionLayer::fixed(Session::new(state)))
//!     .service(axum::Router::new().fallback(|| async { "from upstream" }));
//! let exchange = Exchange::new(Instant::now(), Caller::default());
//! // "10.0.0.1:80" in base64.
//! let request = Request::get("/").header("x-session", "MTAuMC4wLjE6ODA=");
//! let mut request = request.body(axum::body::Body::empty())?;
//! exchange.attach(&mut request);
//! # let test = async {
//! service.oneshot(request).await.unwrap();
//! assert_eq!(exchange.session_host().unwrap().address, "10.0.0.1:80");
//! # };
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(test);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod book;
mod state;
#[cfg(test)]
mod tests;

pub use book::SessionBook;

use http::header::SET_COOKIE;
use http::{HeaderMap, Request, Response};
use mesh_core::exchange::{PutReply, ReplyEdit, SessionHost};
use mesh_core::model::{Address, RouteSession, Session as Policy};
use mesh_core::stats::SessionStat;
use mesh_core::{BoxError, Error, Exchange, Failure, WallClock};
use pin_project::pin_project;
use state::{Found, Told};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::UNIX_EPOCH;
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Session`] services.
#[derive(Clone, Debug)]
pub struct SessionLayer {
    with: With,
}

/// A service that keeps requests at an endpoint.
#[derive(Clone, Debug)]
pub struct Session<S> {
    inner: S,
    with: With,
}

/// The response future of [`Session`].
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    #[pin]
    inner: F,
    /// None for most, and without memory of its own then.
    kept: Option<Box<Kept>>,
}

#[derive(Clone, Debug)]
struct With {
    fixed: Option<Arc<Policy>>,
    clock: WallClock,
    book: SessionBook,
}

/// What is needed once there is an answer.
#[derive(Debug)]
struct Kept {
    exchange: Exchange,
    policy: Arc<Policy>,
    /// Its statistics have the listener's prefix.
    of_listener: bool,
    found: Found,
    with: With,
}

// === impl SessionLayer ===

impl SessionLayer {
    /// Keeps all requests so.
    pub fn fixed(policy: Policy) -> Self {
        Self::new(Some(Arc::new(policy)))
    }

    /// Keeps requests as their listener says, or their rule in its place. Those that do not come
    /// through a listener are kept as their rule says.
    pub fn per_route() -> Self {
        Self::new(None)
    }

    /// The clock that cookies end by. Default: the machine's.
    #[must_use]
    pub fn clock(mut self, clock: WallClock) -> Self {
        self.with.clock = clock;
        self
    }

    /// Where it is counted; the same for all workers of a process. Default: nowhere that anybody sees.
    #[must_use]
    pub fn book(mut self, book: SessionBook) -> Self {
        self.with.book = book;
        self
    }

    fn new(fixed: Option<Arc<Policy>>) -> Self {
        let with = With {
            fixed,
            clock: WallClock::system(),
            book: SessionBook::default(),
        };
        Self { with }
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = Session<S>;

    fn layer(&self, inner: S) -> Session<S> {
        Session {
            inner,
            with: self.with.clone(),
        }
    }
}

// === impl Session ===

impl<S, B, R> Service<Request<B>> for Session<S>
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
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let kept = self.with.keep(&mut request);
        ResponseFuture {
            inner: self.inner.call(request),
            kept,
        }
    }
}

// === impl With ===

impl With {
    fn keep<B>(&self, request: &mut Request<B>) -> Option<Box<Kept>> {
        let exchange = Exchange::of(request)?;
        let (policy, of_listener) = match &self.fixed {
            Some(fixed) => (fixed.clone(), false),
            None => policy(exchange)?,
        };
        let exchange = exchange.clone();
        let found = match &policy.state {
            None => Found::Nowhere,
            Some(state) => state::read(state, request, self.now()),
        };
        if let Found::Asked(Some(address)) = &found {
            exchange.set_session_host(SessionHost {
                address: address.clone(),
                strict: policy.strict,
                missing_status: policy.missing_status,
            });
        }
        Some(Box::new(Kept {
            exchange,
            policy,
            of_listener,
            found,
            with: self.clone(),
        }))
    }

    /// Seconds since 1970.
    fn now(&self) -> u64 {
        let since = self.clock.now().duration_since(UNIX_EPOCH);
        since.unwrap_or_default().as_secs()
    }
}

/// How a request is kept, and whether its listener says so rather than its rule. A rule has a say
/// where the listener keeps any.
fn policy(exchange: &Exchange) -> Option<(Arc<Policy>, bool)> {
    let of_listener = match &exchange.caller().manager {
        Some(manager) => Some(manager.session.as_ref()?),
        None => None,
    };
    match exchange.rule().and_then(|rule| rule.session.as_ref()) {
        Some(RouteSession::Instead(own)) => Some((own.clone(), false)),
        Some(_) => None,
        None => Some((of_listener?.clone(), true)),
    }
}

// === impl Kept ===

impl Kept {
    /// What the caller is told of the endpoint that answered.
    fn told(&self, headers: &HeaderMap) -> Option<Told> {
        let endpoint = self.endpoint()?;
        let (Some(state), Found::Asked(named)) = (&self.policy.state, &self.found) else {
            self.count(SessionStat::NoSession);
            return None;
        };
        let is_other = named.as_ref() != Some(&endpoint);
        let told = state::write(state, &endpoint, is_other, headers, || self.with.now());
        // Where a session is told every time, that alone does not mean that it moved.
        match told.is_some() && is_other {
            false => self.count(SessionStat::Routed),
            true if !self.policy.strict => self.count(SessionStat::FailedOpen),
            true => {}
        }
        told
    }

    /// The endpoint that was chosen, as Envoy writes its address.
    fn endpoint(&self) -> Option<String> {
        self.exchange.with_notes(|notes| {
            let upstream = notes.upstream.as_ref()?;
            let address = &upstream.endpoint.address;
            Some(match (address, upstream.remote) {
                (Address::Host(..), Some(resolved)) => resolved.to_string(),
                _ => address.as_envoy().to_string(),
            })
        })
    }

    fn answered<R>(&self, response: &mut Response<R>) {
        if self.exchange.has_gone_on() {
            return;
        }
        let told = self.told(response.headers());
        if let Some(Told { name, value }) = told {
            self.edit(name, value).apply(response.headers_mut());
        }
    }

    fn failed(&self, error: &Error) {
        if self.exchange.has_gone_on() {
            return;
        }
        if let Some(Told { name, value }) = self.told(&HeaderMap::new()) {
            self.exchange.edit_reply(self.edit(name, value));
        }
        let missing = error.failure() == Failure::NoHealthyHost && self.endpoint().is_none();
        if missing && self.policy.strict && self.found != Found::Nowhere {
            self.count(SessionStat::FailedClosed);
        }
    }

    fn edit(&self, name: http::HeaderName, value: http::HeaderValue) -> ReplyEdit {
        let put = match name {
            SET_COOKIE => PutReply::Add,
            _ => PutReply::Set,
        };
        ReplyEdit { name, value, put }
    }

    fn count(&self, stat: SessionStat) {
        let manager = self.exchange.caller().manager.as_ref();
        let manager = manager.filter(|_| self.of_listener);
        let prefix = manager.map(|manager| &manager.stat_prefix);
        if let Some(block) = self.with.book.of(prefix, &self.policy) {
            block.inc(self.exchange.shard(), stat);
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

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx)).map_err(Error::wrap);
        let Some(kept) = this.kept.take() else {
            return Poll::Ready(result);
        };
        Poll::Ready(match result {
            Ok(mut response) => {
                kept.answered(&mut response);
                Ok(response)
            }
            Err(error) => {
                kept.failed(&error);
                Err(error)
            }
        })
    }
}
