//! Ends attempts on which nothing moves.
//!
//! As in Envoy's router the limit begins when the request has arrived whole, and anew with the
//! response's head and each frame of its body. Before the head the attempt fails, which a retry
//! policy for `5xx`, `gateway-error` or `reset` makes again; after it the body fails, which makes
//! the server reset the stream.
//!
//! What is kept lies on the heap, and only where a policy has the limit: a request's future is a
//! pointer larger for it.

use crate::count::count;
use crate::limits::retry_of;
use crate::time::{Deadline, later};
use crate::watched::{self, Watched, watched_body};
use http::{Request, Response};
use http_body::Body;
use mesh_core::stats::ClusterStat;
use mesh_core::{BoxError, Error, Exchange, Failure};
use pin_project::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`TryIdle`] services.
#[derive(Clone, Debug)]
pub struct TryIdleLayer(());

/// A service whose attempts may not stand still.
#[derive(Clone, Debug)]
pub struct TryIdle<S> {
    inner: S,
}

/// The response future of [`TryIdle`].
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F>(#[pin] Watched<F, Box<Watch>>);

watched_body! {
    /// The response body of an attempt that may not stand still. When it does, it fails once, and the
    /// body inside is dropped.
    pub struct TryIdleBody(Box<Watch>);
}

/// Watches one attempt. Progress only notes the time; the timer is moved when it fires.
#[derive(Debug)]
struct Watch {
    exchange: Exchange,
    limit: Duration,
    last: Instant,
    /// None until the request has arrived whole.
    deadline: Option<Deadline>,
}

// === impl TryIdleLayer ===

impl TryIdleLayer {
    /// The limit for one attempt of the matched rule's retry policy, else of its virtual host's
    /// (Envoy `RetryPolicy.per_try_idle_timeout`); [`Failure::TryIdleTimeout`]. Zero is no limit.
    /// Belongs below [`RetryLayer`](crate::RetryLayer).
    ///
    /// The limit begins with [`Exchange::request_end`]; whoever makes the exchange has to set it.
    pub fn per_route() -> Self {
        Self(())
    }
}

impl<S> Layer<S> for TryIdleLayer {
    type Service = TryIdle<S>;

    fn layer(&self, inner: S) -> TryIdle<S> {
        TryIdle { inner }
    }
}

// === impl TryIdle ===

impl<S, B, R> Service<Request<B>> for TryIdle<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body,
    R::Error: Into<BoxError>,
{
    type Response = Response<TryIdleBody<R>>;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::wrap)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let watch = Exchange::of(&request).and_then(Watch::of);
        ResponseFuture(Watched::new(self.inner.call(request), watch))
    }
}

// === impl ResponseFuture ===

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
    R: Body,
    R::Error: Into<BoxError>,
{
    type Output = Result<Response<TryIdleBody<R>>, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(self.project().0.poll(cx));
        Poll::Ready(result.map(|response| response.map(TryIdleBody)))
    }
}

// === impl Watch ===

impl Watch {
    fn of(exchange: &Exchange) -> Option<Box<Self>> {
        let retry = exchange.matched().and_then(retry_of)?;
        let limit = retry
            .per_try_idle_timeout
            .filter(|limit| !limit.is_zero())?;
        Some(Box::new(Self {
            exchange: exchange.clone(),
            limit,
            last: Instant::now(),
            deadline: None,
        }))
    }

    /// Something moved.
    fn progress(&mut self) {
        self.last = Instant::now();
    }

    /// Ready once the request has arrived and nothing has moved for the limit.
    #[inline]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.deadline.is_none() {
            ready!(self.exchange.request_end().poll_set(cx));
            self.last = Instant::now();
        }
        let first = later(self.last, self.limit);
        let deadline = self.deadline.get_or_insert_with(|| Deadline::at(first));
        loop {
            ready!(deadline.poll(cx));
            let due = later(self.last, self.limit);
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            deadline.reset(due);
        }
    }

    /// Says and counts that the attempt stood still, before it is dropped because of it.
    fn expired(&self) -> Error {
        let error = Error::new(Failure::TryIdleTimeout);
        count(&self.exchange, ClusterStat::RqPerTryIdleTimeout);
        // Not of the whole request: there may be another attempt.
        self.exchange.note_error(&error);
        error
    }
}

impl watched::Watch for Box<Watch> {
    /// What is kept lies on the heap already.
    type Timer = ();

    fn poll_head(&mut self, _: Pin<&mut ()>, cx: &mut Context<'_>) -> Poll<Error> {
        self.poll_body(cx)
    }

    fn begin(&mut self) {
        self.progress();
    }

    fn moved(&mut self, _: bool) -> Result<bool, Error> {
        self.progress();
        Ok(true)
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        ready!(self.poll(cx));
        Poll::Ready(self.expired())
    }
}

#[cfg(test)]
mod tests;
