//! Computes what consistent hashing goes by, and gives callers the cookie that keeps them with
//! their endpoint.
//!
//! [`decide`] is the decision: header, cookie, address of the caller, query parameter, in order,
//! combined as in Envoy. [`HashLayer`] makes it for each request and records the outcome in the
//! [`Exchange`], where balancing reads it. As in Envoy nothing is computed, and no cookie made,
//! where the rule has no policy or the cluster does not go by hashes.
//!
//! It belongs below [`EditLayer`](crate::EditLayer): Envoy hashes the head as it goes out, edited and
//! rewritten. All attempts share the hash. Cookies go on responses of upstreams, before the edits of
//! responses, so that a rule which removes `set-cookie` removes them too; answers that we make
//! ourselves carry none.
//!
//! # Example
//!
//! ```
//! use http::{HeaderName, Request};
//! use mesh_core::model::{HashPolicy, HashSource};
//! use mesh_core::{Caller, Exchange};
//! use mesh_route::HashLayer;
//! use std::time::Instant;
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! let user = HashSource::Header(HeaderName::from_static("x-user"), None);
//! let service = ServiceBuilder::new()
//!     .layer(HashLayer::fixed([HashPolicy::new(user)]))
//!     .service(axum::Router::new().fallback(|| async { "from upstream" }));
//! let exchange = Exchange::new(Instant::now(), Caller::default());
//! let mut request = Request::get("/").header("x-user", "ann").body(axum::body::Body::empty())?;
//! exchange.attach(&mut request);
//! # let test = async {
//! service.oneshot(request).await.unwrap();
//! assert!(exchange.hash().is_some());
//! # };
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(test);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cookie;
mod decide;
#[cfg(test)]
mod tests;

pub(crate) use decide::known;
pub use decide::{Decision, decide, of_address};

use http::header::SET_COOKIE;
use http::{HeaderValue, Request, Response};
use mesh_core::model::{Balancing, HashPolicy};
use mesh_core::{BoxError, Error, Exchange};
use pin_project::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`struct@Hash`] services.
#[derive(Clone, Debug)]
pub struct HashLayer {
    fixed: Option<Arc<[HashPolicy]>>,
}

/// A service that computes what consistent hashing goes by.
#[derive(Clone, Debug)]
pub struct Hash<S> {
    inner: S,
    fixed: Option<Arc<[HashPolicy]>>,
}

/// The response future of [`struct@Hash`].
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    #[pin]
    inner: F,
    /// Cookies that were made. Empty, and without memory of its own, for most.
    cookies: Vec<HeaderValue>,
}

// === impl HashLayer ===

impl HashLayer {
    /// Hashes all requests by these, wherever they go.
    pub fn fixed(policies: impl IntoIterator<Item = HashPolicy>) -> Self {
        Self {
            fixed: Some(policies.into_iter().collect()),
        }
    }

    /// Hashes requests as their rule says, if they go to a cluster that goes by hashes.
    pub fn per_route() -> Self {
        Self { fixed: None }
    }
}

impl<S> Layer<S> for HashLayer {
    type Service = Hash<S>;

    fn layer(&self, inner: S) -> Hash<S> {
        Hash {
            inner,
            fixed: self.fixed.clone(),
        }
    }
}

// === impl Hash ===

impl<S> Hash<S> {
    fn cookies<B>(&self, request: &Request<B>) -> Vec<HeaderValue> {
        let Some(exchange) = Exchange::of(request) else {
            return Vec::new();
        };
        let policies = match &self.fixed {
            Some(fixed) => fixed,
            None => policies(exchange),
        };
        if policies.is_empty() {
            return Vec::new();
        }
        let decision = decide(policies, request.headers(), request.uri(), exchange);
        if let Some(hash) = decision.hash {
            exchange.set_hash(hash);
        }
        decision.cookies
    }
}

/// What a request's rule says, if its cluster asks for it.
fn policies(exchange: &Exchange) -> &[HashPolicy] {
    let forward = exchange.matched().and_then(|matched| matched.forward());
    let Some(forward) = forward.filter(|forward| !forward.hash.is_empty()) else {
        return &[];
    };
    let by_hash = exchange.cluster().is_some_and(|cluster| {
        matches!(
            cluster.config().balancing,
            Balancing::RingHash(_) | Balancing::Maglev(_)
        )
    });
    if by_hash { &forward.hash } else { &[] }
}

impl<S, B, R> Service<Request<B>> for Hash<S>
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
        let cookies = self.cookies(&request);
        ResponseFuture {
            inner: self.inner.call(request),
            cookies,
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
        let mut response = match ready!(this.inner.poll(cx)) {
            Ok(response) => response,
            // What we answer ourselves carries no cookie.
            Err(error) => return Poll::Ready(Err(Error::wrap(error))),
        };
        for cookie in this.cookies.drain(..) {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        Poll::Ready(Ok(response))
    }
}
