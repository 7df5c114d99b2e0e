//! Changes the type of request bodies on their way in.
//!
//! Layers that wrap the body ([`MirrorLayer`](crate::MirrorLayer), retries, idle timeouts) change
//! its type, while axum's router and tonic's channel take one type only. Put this layer below such
//! a layer, with a function that makes the body what the service takes.
//!
//! The conversion is a plain function, so the layer's type can be named.
//!
//! # Example
//!
//! ```
//! use mesh_route::MapRequestBodyLayer;
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! let app = axum::Router::new().route("/", axum::routing::post(|body: String| async { body }));
//! let service = ServiceBuilder::new()
//!     .layer(MapRequestBodyLayer::new(axum::body::Body::new::<http_body_util::Full<bytes::Bytes>>))
//!     .service(app);
//! # let test = async {
//! let request = http::Request::post("/").body(http_body_util::Full::from("hello")).unwrap();
//! let response = service.oneshot(request).await.unwrap();
//! let body = axum::body::to_bytes(response.into_body(), 10).await.unwrap();
//! assert_eq!(body, "hello");
//! # };
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
//! ```

use http::Request;
use std::fmt;
use std::task::{Context, Poll};
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`MapRequestBody`] services.
pub struct MapRequestBodyLayer<A, B> {
    map: fn(A) -> B,
}

/// A service that turns request bodies of type `A` into type `B`.
pub struct MapRequestBody<S, A, B> {
    inner: S,
    map: fn(A) -> B,
}

// === impl MapRequestBodyLayer ===

impl<A, B> MapRequestBodyLayer<A, B> {
    /// Turns each request's body into another with `map`.
    pub fn new(map: fn(A) -> B) -> Self {
        Self { map }
    }
}

impl<S, A, B> Layer<S> for MapRequestBodyLayer<A, B> {
    type Service = MapRequestBody<S, A, B>;
    fn layer(&self, inner: S) -> Self::Service {
        MapRequestBody {
            inner,
            map: self.map,
        }
    }
}

impl<A, B> Clone for MapRequestBodyLayer<A, B> {
    fn clone(&self) -> Self {
        Self { map: self.map }
    }
}

impl<A, B> fmt::Debug for MapRequestBodyLayer<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MapRequestBodyLayer")
    }
}

// === impl MapRequestBody ===

impl<S, A, B> Service<Request<A>> for MapRequestBody<S, A, B>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> S::Future {
        self.inner.call(request.map(self.map))
    }
}

impl<S: Clone, A, B> Clone for MapRequestBody<S, A, B> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            map: self.map,
        }
    }
}

impl<S: fmt::Debug, A, B> fmt::Debug for MapRequestBody<S, A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapRequestBody")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_test::{BoxedBody, Probe, contract, text};
    use tower::ServiceExt;

    #[tokio::test]
    async fn keeps_the_contract_of_layers() {
        contract::check(MapRequestBodyLayer::new(
            std::convert::identity::<BoxedBody>,
        ))
        .await;
    }

    #[tokio::test]
    async fn the_inner_service_gets_the_new_body() {
        let probe = Probe::new();
        let service = MapRequestBodyLayer::new(text).layer(probe.clone());
        service.oneshot(Request::new("static")).await.unwrap();
        assert_eq!(probe.requests()[0].body(), "static");
    }
}
