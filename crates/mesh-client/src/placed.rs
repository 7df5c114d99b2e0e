//! Gives the response futures of what is below it a place of their own.
//!
//! Each layer hands its caller the future of the layer below within its own, so what is at the
//! bottom is moved as often as there are layers above. Those of retries and attempts are large:
//! behind one allocation the layers above move a pointer.

use std::pin::Pin;
use std::task::{Context, Poll};
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Placed`] services.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlacedLayer;

/// A service whose response futures are pointers.
#[derive(Clone, Debug)]
pub struct Placed<S>(S);

// === impl PlacedLayer ===

impl<S> Layer<S> for PlacedLayer {
    type Service = Placed<S>;

    fn layer(&self, inner: S) -> Placed<S> {
        Placed(inner)
    }
}

// === impl Placed ===

impl<S, Request> Service<Request> for Placed<S>
where
    S: Service<Request>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<S::Future>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request) -> Self::Future {
        Box::pin(self.0.call(request))
    }
}
