//! Bounds the time until a response body has ended, retries included: the timeout of a route.
//!
//! * Before the response head the limit is an error: [`Failure::RequestTimeout`], or
//!   [`Failure::MaxStreamDuration`].
//! * After it the body fails, which makes the server reset the stream, and the exchange is
//!   flagged. An upgraded connection (status 101, or 2xx to CONNECT) is no longer bounded.
//!
//! With [`DeadlineLayer::per_route`] the limits are those of the matched rule and of the
//! request's headers. As in Envoy's router, `x-envoy-upstream-rq-timeout-ms` and
//! `x-envoy-upstream-rq-per-try-timeout-ms` replace the rule's limits and are taken out,
//! `x-envoy-upstream-rq-timeout-alt-response` has a timeout answered with 204 and is taken out,
//! `grpc-timeout` counts where the rule has a `max_grpc_timeout`, and the request goes on with
//! `x-envoy-expected-rq-timeout-ms` where it has a limit. Whether a caller may set these headers
//! is for the edge to decide; this layer believes them. Zero means no limit everywhere.
//!
//! Belongs outside of [`RetryLayer`](crate::RetryLayer), with
//! [`TimeoutLayer::per_try`](crate::TimeoutLayer::per_try) inside it.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use bytes::Bytes;
//! use mesh_core::BoxError;
//! use mesh_resilience::DeadlineLayer;
//! use std::time::Duration;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let service = ServiceBuilder::new()
//!     .layer(DeadlineLayer::fixed(Duration::from_secs(15)))
//!     .service(service_fn(|_: Request<()>| async {
//!         Ok::<_, BoxError>(Response::new(Full::new(Bytes::from("in time"))))
//!     }));
//! let response = service.oneshot(Request::new(())).await?;
//! assert_eq!(response.into_body().collect().await?.to_bytes(), "in time");
//! # Ok(())
//! # }
//! ```

mod expiry;

use crate::limits::{Limits, has_envoy_headers, is_about_timeouts, retry_of, stream_limit};
use crate::time::{Expiry, later};
use crate::watched::{Watched, watched_body};
use http::{HeaderName, Method, Request, Response, StatusCode};
use http_body::Body;
use mesh_core::reply::Answer;
use mesh_core::{BoxError, Error, Exchange, Failure};
use pin_project::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Deadline`] services.
#[derive(Clone, Debug)]
pub struct DeadlineLayer {
    limit: Limit,
}

/// A service whose response has to end within a limit.
#[derive(Clone, Debug)]
pub struct Deadline<S> {
    inner: S,
    limit: Limit,
    /// The header value that was written last.
    written: Written,
}

/// The response future of [`Deadline`].
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    #[pin]
    inner: Watched<F, Expiry>,
    /// The request asks for a tunnel.
    connect: bool,
    /// The request asks to be told of a timeout by 204 instead of 504.
    alternative: bool,
}

watched_body! {
    /// A response body that has to end in time. When it does not, it fails once with
    /// [`Failure::RequestTimeout`] (or [`Failure::MaxStreamDuration`]), and the body inside is
    /// dropped.
    pub struct DeadlineBody(Expiry);
}

/// Any value asks for 204 instead of 504.
const ALTERNATIVE: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response");

type Written = Option<(u64, http::HeaderValue)>;

#[derive(Clone, Copy, Debug)]
enum Limit {
    Fixed(Duration),
    Route,
}

// === impl DeadlineLayer ===

impl DeadlineLayer {
    /// The same limit for every request, from its end to the end of the response. The end of the
    /// request is [`Exchange::request_end`] where there is an exchange, and the call otherwise.
    pub fn fixed(limit: Duration) -> Self {
        Self {
            limit: Limit::Fixed(limit),
        }
    }

    /// The limits of the matched rule: its `timeout` (Envoy `RouteAction.timeout`), from the end
    /// of the request, and its `max_stream_duration`, from its arrival; see the module for the
    /// headers that change them. A request without an exchange or rule is left alone.
    ///
    /// Whoever makes the exchange has to set [`Exchange::request_end`], or the timeout never
    /// begins.
    pub fn per_route() -> Self {
        Self {
            limit: Limit::Route,
        }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline {
            inner,
            limit: self.limit,
            written: None,
        }
    }
}

// === impl Limit ===

impl Limit {
    fn expiry<B>(self, request: &mut Request<B>, written: &mut Written) -> Option<Expiry> {
        const TIMEOUT: Failure = Failure::RequestTimeout;
        let exchange = Exchange::of(request).cloned();
        let Self::Fixed(limit) = self else {
            return route_expiry(&exchange?, request, written);
        };
        match exchange {
            Some(exchange) => Expiry::of(&exchange, Some((limit, TIMEOUT)), None),
            None => Some(Expiry::from_now(limit, TIMEOUT)),
        }
    }
}

fn route_expiry<B>(
    exchange: &Exchange,
    request: &mut Request<B>,
    written: &mut Written,
) -> Option<Expiry> {
    let matched = exchange.matched()?;
    let (rule, retry) = (matched.rule(), retry_of(matched).map(|retry| &**retry));
    let limits = Limits::take(rule, retry, request.headers_mut()).with_hedge(matched);
    limits.write_with(Duration::ZERO, request.headers_mut(), written);
    if limits != Limits::of_rule(rule, retry) {
        // For those below; they look at the rule where nothing lies here.
        request.extensions_mut().insert(limits);
    }
    let total = limits.total.map(|total| (total, Failure::RequestTimeout));
    let moment = stream_limit(rule, request.headers_mut()).map(|limit| {
        let started = Instant::from_std(exchange.started());
        (later(started, limit), Failure::MaxStreamDuration)
    });
    Expiry::of(exchange, total, moment)
}

// === impl Deadline ===

impl<S, B, R> Service<Request<B>> for Deadline<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body,
    R::Error: Into<BoxError>,
{
    type Response = Response<DeadlineBody<R>>;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::wrap)
    }

    #[inline]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let expiry = self.limit.expiry(&mut request, &mut self.written);
        let connect = request.method() == Method::CONNECT;
        let alternative = matches!(self.limit, Limit::Route)
            && has_envoy_headers(request.headers(), is_about_timeouts)
            && request.headers_mut().remove(ALTERNATIVE).is_some();
        ResponseFuture {
            inner: Watched::new(self.inner.call(request), expiry),
            connect,
            alternative,
        }
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
    type Output = Result<Response<DeadlineBody<R>>, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        let response = result.map_err(|error| told_otherwise(error, *this.alternative))?;
        let is_tunnel = *this.connect && response.status().is_success();
        Poll::Ready(Ok(response.map(|body| {
            DeadlineBody(if is_tunnel { body.unwatched() } else { body })
        })))
    }
}

/// A timeout as its caller wants to be told of it (Envoy
/// `x-envoy-upstream-rq-timeout-alt-response`).
fn told_otherwise(error: Error, alternative: bool) -> Error {
    let timeouts = [
        Failure::RequestTimeout,
        Failure::TryTimeout,
        Failure::TryIdleTimeout,
    ];
    if alternative && timeouts.contains(&error.failure()) {
        return Error::answer(error.failure(), Answer::new(StatusCode::NO_CONTENT));
    }
    error
}

#[cfg(test)]
mod tests;
