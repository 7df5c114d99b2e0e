//! Puts layers that change the request's body on services that take one body type.
//!
//! [`RetryLayer`](crate::RetryLayer) sends a [`ReplayBody`](crate::ReplayBody); an axum `Router`
//! takes `axum::body::Body`, a tonic server `tonic::body::Body`. This layer, put directly around
//! such a service, turns the one into the other with a plain function, usually the target's own
//! constructor. Response bodies are left alone.
//!
//! # Example
//!
//! ```
//! use axum::{Router, body::Body, routing::post};
//! use http::{Request, StatusCode};
//! use mesh_core::model::{Retry, RetryOn};
//! use mesh_resilience::{MapRequestBodyLayer, ReplayBody, RetryLayer};
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), mesh_core::Error> {
//! let router: Router = Router::new().route("/", post(|body: String| async { body }));
//! let mut policy = Retry::default();
//! policy.on = RetryOn::SERVER_ERROR;
//! let service = ServiceBuilder::new()
//!     .layer(RetryLayer::<ReplayBody<Body>>::fixed(policy))
//!     .layer(MapRequestBodyLayer::new(Body::new::<ReplayBody<Body>>))
//!     .service(router);
//! let request = Request::post("/").body(Body::from("again, if need be")).expect("valid");
//! assert_eq!(service.oneshot(request).await?.status(), StatusCode::OK);
//! # Ok(())
//! # }
//! ```

use http::Request;
use std::fmt;
use std::task::{Context, Poll};
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`MapRequestBody`] services.
pub struct MapRequestBodyLayer<I, O> {
    map: fn(I) -> O,
}

/// A service that takes requests with the body `I` and passes them on with the body `O`.
pub struct MapRequestBody<S, I, O> {
    inner: S,
    map: fn(I) -> O,
}

// === impl MapRequestBodyLayer ===

impl<I, O> MapRequestBodyLayer<I, O> {
    /// Turns each request's body into another with `map`.
    pub fn new(map: fn(I) -> O) -> Self {
        Self { map }
    }
}

impl<S, I, O> Layer<S> for MapRequestBodyLayer<I, O> {
    type Service = MapRequestBody<S, I, O>;

    fn layer(&self, inner: S) -> Self::Service {
        MapRequestBody {
            inner,
            map: self.map,
        }
    }
}

impl<I, O> Clone for MapRequestBodyLayer<I, O> {
    fn clone(&self) -> Self {
        Self { map: self.map }
    }
}

impl<I, O> fmt::Debug for MapRequestBodyLayer<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapRequestBodyLayer")
            .finish_non_exhaustive()
    }
}

// === impl MapRequestBody ===

impl<S, I, O> Service<Request<I>> for MapRequestBody<S, I, O>
where
    S: Service<Request<O>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<I>) -> S::Future {
        self.inner.call(request.map(self.map))
    }
}

impl<S: Clone, I, O> Clone for MapRequestBody<S, I, O> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            map: self.map,
        }
    }
}

impl<S: fmt::Debug, I, O> fmt::Debug for MapRequestBody<S, I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapRequestBody")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Full};
    use mesh_test::{BoxedBody, Probe, contract};
    use tower::ServiceExt;

    #[tokio::test]
    async fn keeps_the_contract_of_a_layer() {
        contract::check(MapRequestBodyLayer::new(|body: BoxedBody| body)).await;
    }

    #[tokio::test]
    async fn the_inner_service_gets_the_other_body() {
        fn shout(text: &'static str) -> BoxedBody {
            Full::from(text.to_uppercase())
                .map_err(|never| match never {})
                .boxed()
        }
        let probe = Probe::new();
        let service = MapRequestBodyLayer::new(shout).layer(probe.clone());
        service.oneshot(Request::new("quiet")).await.unwrap();
        assert_eq!(probe.requests()[0].body(), "QUIET");
    }
}
