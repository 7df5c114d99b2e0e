//! Follows redirects of upstreams before anybody sees them (Envoy `internal_redirect_policy`).
//!
//! Two layers do it together, because who finds out is far below who can send a request through
//! everything again. [`KeepLayer`] belongs below timeouts and above attempts: where the matched
//! rule has a policy it keeps the head and, up to 1 MiB, the body of a request, and when an answer
//! redirects it, leaves the request as it goes on in the [`Exchange`]. [`FollowLayer`] belongs
//! above all else: it takes such a request from there, drops the answer, and calls its inner
//! service again, with a record of its own. The request is routed, judged, limited and counted
//! anew, as in Envoy, whose stream is made again.
//!
//! What cannot be followed is passed on: where the request has not come in whole or was too large
//! to keep, where the `location` is no URL of http or https, has another scheme, was followed too
//! often, leads to no route, or to one that the policy does not take. A copy of a mirror, `CONNECT`
//! and upgrades are never followed. A request that goes on says where it was in
//! `x-envoy-original-url`; for 303 it becomes a GET without a body.
//!
//! # Example
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response, StatusCode};
//! use http_body_util::Full;
//! use mesh_core::model::{Cluster, FollowRedirects, RouteTable, Rule, SnapshotBuilder, VirtualHost};
//! use mesh_core::{Error, Publisher};
//! use mesh_route::follow::{Again, FollowLayer, KeepBody, KeepLayer};
//! use mesh_route::{MapRequestBodyLayer, RouteLayer};
//! use std::sync::Arc;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! let mut rule = Rule::prefix_to("/", "shop");
//! rule.follow = Some(Arc::new(FollowRedirects::default()));
//! let mut builder = SnapshotBuilder::new();
//! builder.cluster(Cluster::new("shop"));
//! builder.routes(RouteTable::new("http").host(VirtualHost::new("shop", ["*"]).rule(rule)));
//! let publisher = Publisher::from_arc(builder.build()?.0);
//!
//! // Two kinds of bodies go through: those that come in, and those that go on.
//! type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Error>;
//! let moved = service_fn(|request: Request<Body>| async move {
//!     let mut response = Response::new(Full::<Bytes>::default());
//!     if request.uri().path() == "/old" {
//!         *response.status_mut() = StatusCode::FOUND;
//!         response.headers_mut().insert("location", "http://shop/new".parse().unwrap());
//!     }
//!     Ok::<_, Error>(response)
//! });
//! let route = RouteLayer::new(publisher.feed()).table("http");
//! let keep = KeepLayer::per_route(route.notes());
//! let service = ServiceBuilder::new()
//!     .layer(FollowLayer::new(|again: Again| Body::new(again)))
//!     .layer(route)
//!     .layer(keep)
//!     .layer(MapRequestBodyLayer::new(|body: KeepBody<Body>| Body::new(body)))
//!     .service(moved);
//! # let test = async {
//! use http_body_util::BodyExt;
//! let body = Full::new(Bytes::new()).map_err(|never| match never {});
//! let request = Request::get("http://shop/old").body(Body::new(body)).unwrap();
//! # let request = { let now = std::time::Instant::now();
//! #   let exchange = mesh_core::Exchange::without_caller(now);
//! #   exchange.set_request_is_whole();
//! #   let mut request = request; exchange.attach(&mut request); request };
//! assert_eq!(service.oneshot(request).await.unwrap().status(), StatusCode::OK);
//! # };
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
//! # Ok::<(), mesh_core::Invalid>(())
//! ```

mod again;
mod decide;
mod keep;
mod kept;
mod location;

pub use again::Again;
pub use keep::{Keep, KeepLayer, ResponseFuture as KeepFuture};
pub use kept::KeepBody;

use http::header::CONTENT_LENGTH;
use http::{Request, Response};
use mesh_core::Exchange;
use pin_project::pin_project;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Follow`] services, whose inner services take the body `B`.
pub struct FollowLayer<B> {
    body: fn(Again) -> B,
}

/// A service that sends requests on where answers said.
pub struct Follow<S, B> {
    inner: S,
    /// For requests that go on; shared, so that others cost no clone.
    again: Arc<Mutex<S>>,
    body: fn(Again) -> B,
}

/// The response future of [`Follow`].
#[pin_project]
pub struct ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    #[pin]
    state: State<S, B>,
    exchange: Exchange,
    again: Arc<Mutex<S>>,
    body: fn(Again) -> B,
}

#[pin_project(project = StateProj)]
enum State<S, B>
where
    S: Service<Request<B>>,
{
    Going(#[pin] S::Future),
    /// The service is not ready for the request as it goes on.
    Readying(Box<(S, Option<Request<B>>)>),
}

// === impl FollowLayer ===

impl<B> FollowLayer<B> {
    /// Follows what a [`KeepLayer`] below finds. `body` makes the body of a request that goes on.
    pub fn new(body: fn(Again) -> B) -> Self {
        Self { body }
    }
}

impl<S: Clone, B> Layer<S> for FollowLayer<B> {
    type Service = Follow<S, B>;

    fn layer(&self, inner: S) -> Follow<S, B> {
        Follow {
            again: Arc::new(Mutex::new(inner.clone())),
            inner,
            body: self.body,
        }
    }
}

impl<B> Clone for FollowLayer<B> {
    fn clone(&self) -> Self {
        Self { body: self.body }
    }
}

impl<B> fmt::Debug for FollowLayer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowLayer").finish_non_exhaustive()
    }
}

// === impl Follow ===

impl<S, B, R> Service<Request<B>> for Follow<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let exchange = Exchange::of(&request).cloned().unwrap_or_else(|| {
            let exchange = Exchange::without_caller(now());
            exchange.attach(&mut request);
            exchange
        });
        ResponseFuture {
            state: State::Going(self.inner.call(request)),
            exchange,
            again: self.again.clone(),
            body: self.body,
        }
    }
}

impl<S: Clone, B> Clone for Follow<S, B> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            again: self.again.clone(),
            body: self.body,
        }
    }
}

impl<S: fmt::Debug, B> fmt::Debug for Follow<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

// === impl ResponseFuture ===

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
{
    type Output = Result<Response<R>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                // -> Readying, unless nothing was left to go on with.
                StateProj::Going(inner) => {
                    let result = ready!(inner.poll(cx));
                    let Some(onward) = this.exchange.take_onward() else {
                        return Poll::Ready(result);
                    };
                    // The answer is nobody's: it ends before the request goes on.
                    drop(result);
                    *this.exchange = this.exchange.for_onward(now());
                    let (head, data) = onward.request.into_parts();
                    let has_length = head.headers.contains_key(CONTENT_LENGTH);
                    let body = (this.body)(Again::new(data, onward.trailers, has_length));
                    let mut request = Request::from_parts(head, body);
                    this.exchange.attach(&mut request);
                    let again = this.again.lock().unwrap_or_else(PoisonError::into_inner);
                    State::Readying(Box::new((again.clone(), Some(request))))
                }
                // -> Going, unless the service fails.
                StateProj::Readying(waiting) => {
                    let (service, request) = &mut **waiting;
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        return Poll::Ready(Err(error));
                    }
                    let request = mem::take(request).expect("a request goes on once");
                    State::Going(service.call(request))
                }
            };
            this.state.set(next);
        }
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("exchange", &self.exchange)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
