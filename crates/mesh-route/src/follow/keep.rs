//! Keeps requests whose answers may send them elsewhere.

use super::decide::{PassedOn, head, loses_body, place, takes, tell};
use super::kept::{KeepBody, Kept, Parts};
use crate::head::Head;
use crate::route::Notes;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use http_body::Body;
use mesh_core::exchange::Onward;
use mesh_core::model::FollowRedirects;
use mesh_core::stats::ClusterStat;
use mesh_core::{BoxError, Error, Exchange, upgrade};
use pin_project::pin_project;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Keep`] services, whose inner services take the request body `O`.
pub struct KeepLayer<O> {
    notes: Notes,
    body: PhantomData<fn() -> O>,
}

/// A service that keeps requests whose answers may send them elsewhere.
pub struct Keep<S, O> {
    inner: S,
    notes: Notes,
    body: PhantomData<fn() -> O>,
}

/// The response future of [`Keep`].
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    #[pin]
    inner: F,
    /// None where answers are passed on.
    watched: Option<Box<Watched>>,
}

/// A request whose answer may send it elsewhere.
struct Watched {
    policy: Arc<FollowRedirects>,
    head: Request<()>,
    kept: Option<Kept>,
    exchange: Exchange,
    notes: Notes,
}

const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

// === impl KeepLayer ===

impl<O> KeepLayer<O> {
    /// Keeps requests where the matched rule follows redirects. `notes` finds the routes that they
    /// lead to.
    pub fn per_route(notes: Notes) -> Self {
        Self {
            notes,
            body: PhantomData,
        }
    }
}

impl<S, O> Layer<S> for KeepLayer<O> {
    type Service = Keep<S, O>;

    fn layer(&self, inner: S) -> Keep<S, O> {
        Keep {
            inner,
            notes: self.notes.clone(),
            body: PhantomData,
        }
    }
}

impl<O> Clone for KeepLayer<O> {
    fn clone(&self) -> Self {
        Self::per_route(self.notes.clone())
    }
}

impl<O> fmt::Debug for KeepLayer<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeepLayer").finish_non_exhaustive()
    }
}

// === impl Keep ===

impl<S, O> Keep<S, O> {
    fn watch<B: Body>(&self, request: &Request<B>) -> Option<Box<Watched>> {
        let exchange = Exchange::of(request)?;
        let policy = exchange.rule()?.follow.as_ref()?;
        let is_tunnel =
            request.method() == Method::CONNECT || upgrade::of(request.headers()).is_some();
        if exchange.is_shadow() || is_tunnel {
            return None;
        }
        let mut head = Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.version_mut() = request.version();
        head.headers_mut().clone_from(request.headers());
        exchange.attach(&mut head);
        Some(Box::new(Watched {
            policy: policy.clone(),
            head,
            kept: (!request.body().is_end_stream()).then(Kept::default),
            exchange: exchange.clone(),
            notes: self.notes.clone(),
        }))
    }
}

impl<S, B, O, R> Service<Request<B>> for Keep<S, O>
where
    S: Service<Request<O>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes>,
    KeepBody<B>: Into<O>,
{
    type Response = Response<R>;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::wrap)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let watched = self.watch(&request);
        let kept = watched.as_ref().and_then(|watched| watched.kept.clone());
        let request = request.map(|body| KeepBody::new(body, kept).into());
        ResponseFuture {
            inner: self.inner.call(request),
            watched,
        }
    }
}

impl<S: Clone, O> Clone for Keep<S, O> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            notes: self.notes.clone(),
            body: PhantomData,
        }
    }
}

impl<S: fmt::Debug, O> fmt::Debug for Keep<S, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keep")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
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
        if let (Some(watched), Ok(response)) = (this.watched.take(), &result) {
            watched.answered(response);
        }
        Poll::Ready(result)
    }
}

// === impl Watched ===

impl Watched {
    /// Leaves the request as it goes on, if the answer sends it elsewhere.
    fn answered<R>(mut self, response: &Response<R>) {
        if !self.policy.statuses.contains(&response.status()) {
            return;
        }
        let stat = match self.onward(response) {
            Ok(onward) => {
                self.exchange.set_details("internal_redirect");
                self.exchange.go_on(onward);
                ClusterStat::RedirectSucceeded
            }
            Err(passed_on) => {
                if let Some(stat) = passed_on.stat() {
                    self.exchange.caller().count(stat);
                }
                ClusterStat::RedirectFailed
            }
        };
        if let Some(cluster) = self.exchange.cluster() {
            let stats = cluster.live().stats();
            stats.block().inc(self.exchange.shard(), stat);
        }
    }

    fn onward<R>(&mut self, response: &Response<R>) -> Result<Onward, PassedOn> {
        let exchange = &self.exchange;
        let kept = self.kept.as_ref();
        if !exchange.request_is_whole() || kept.is_some_and(Kept::is_given_up) {
            return Err(PassedOn::Unfit);
        }
        let matched = exchange.matched().ok_or(PassedOn::Unfit)?;
        if matched.host().count_attempts {
            let number = HeaderValue::from(exchange.attempts());
            self.head.headers_mut().insert(ATTEMPT_COUNT, number);
        }
        let old = Head::of(&self.head);
        let path = old.path_and_query().ok_or(PassedOn::Unfit)?;
        // As Envoy has it, a connection in plain text makes a request of http of it.
        let secure = exchange.caller().is_secure() && old.scheme() != "http";
        let place = place(
            &self.policy,
            response.headers(),
            secure,
            exchange.redirects(),
        )?;
        let onward = head(&self.policy, &self.head, response.headers(), &place);
        let mut onward = onward.ok_or(PassedOn::BadLocation)?;
        exchange.attach(&mut onward);
        let rule = self.notes.rule(&onward).ok_or(PassedOn::NoRoute)?;
        let names = (&matched.rule().name, &rule.name);
        if !takes(&self.policy, exchange, names, (secure, place.secure)) {
            return Err(PassedOn::Target);
        }
        let loses_body = loses_body(response.status(), &mut onward);
        tell(
            &mut onward,
            secure,
            old.authority().unwrap_or_default(),
            path,
        );
        let parts = kept.map(Kept::take).unwrap_or_default();
        let parts = if loses_body { Parts::default() } else { parts };
        onward.extensions_mut().clear();
        Ok(Onward {
            request: onward.map(|()| parts.data),
            trailers: parts.trailers,
        })
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("exchange", &self.exchange)
            .finish_non_exhaustive()
    }
}
