//! Gives what is below it a place of its own: its response futures, and then its response bodies.
//!
//! Each layer hands its caller the future of the layer below within its own, and later the response
//! with its body, so what is at the bottom is moved as often as there are layers above. Those of
//! retries, timeouts and attempts are large: behind one allocation, which the body takes over from the
//! future, the layers above move a pointer.

use http::Response;
use http_body::{Body, Frame, SizeHint};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Placed`] services.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlacedLayer;

/// A service whose response futures and bodies are pointers.
#[derive(Clone, Debug)]
pub struct Placed<S>(S);

/// The response future of [`Placed`].
pub struct PlacedFuture<F, B>(Option<Pin<Box<Place<F, B>>>>);

/// The response body of [`Placed`].
pub struct PlacedBody<F, B>(Pin<Box<Place<F, B>>>);

#[pin_project::pin_project(project = Projected)]
enum Place<F, B> {
    Future(#[pin] F),
    /// Future -> Body: the response's head went on.
    Body(#[pin] B),
}

// === impl PlacedLayer ===

impl<S> Layer<S> for PlacedLayer {
    type Service = Placed<S>;

    fn layer(&self, inner: S) -> Placed<S> {
        Placed(inner)
    }
}

// === impl Placed ===

impl<S, Request, B> Service<Request> for Placed<S>
where
    S: Service<Request, Response = Response<B>>,
    B: Body,
{
    type Response = Response<PlacedBody<S::Future, B>>;
    type Error = S::Error;
    type Future = PlacedFuture<S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request) -> Self::Future {
        PlacedFuture(Some(Box::pin(Place::Future(self.0.call(request)))))
    }
}

// === impl PlacedFuture ===

impl<F, B, E> Future for PlacedFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<PlacedBody<F, B>>, E>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = match self.0.as_mut().map(|place| place.as_mut().project()) {
            Some(Projected::Future(future)) => future.poll(cx),
            Some(Projected::Body(_)) | None => Poll::Pending,
        };
        let (head, body) = ready!(polled)?.into_parts();
        let mut place = self
            .0
            .take()
            .expect("a future is not polled after it was ready");
        place.set(Place::Body(body));
        Poll::Ready(Ok(Response::from_parts(head, PlacedBody(place))))
    }
}

impl<F, B> fmt::Debug for PlacedFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlacedFuture")
    }
}

// === impl PlacedBody ===

impl<F, B: Body> Body for PlacedBody<F, B> {
    type Data = B::Data;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match self.0.as_mut().project() {
            Projected::Body(body) => body.poll_frame(cx),
            Projected::Future(_) => Poll::Ready(None),
        }
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        match &*self.0 {
            Place::Body(body) => body.is_end_stream(),
            Place::Future(_) => true,
        }
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        match &*self.0 {
            Place::Body(body) => body.size_hint(),
            Place::Future(_) => SizeHint::with_exact(0),
        }
    }
}

impl<F, B> fmt::Debug for PlacedBody<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlacedBody")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use mesh_test::{Probe, contract, empty, read};
    use tower::ServiceExt;

    #[tokio::test]
    async fn keeps_the_contract_of_a_layer() {
        contract::check(PlacedLayer).await;
    }

    #[tokio::test]
    async fn a_response_is_no_larger_than_its_head_and_a_pointer() {
        let service = PlacedLayer.layer(Probe::new());
        let response = service.oneshot(Request::new(empty())).await.unwrap();
        let head = size_of::<Response<()>>();
        assert_eq!(size_of_val(&response), head + size_of::<usize>());
        read(response.into_body()).await;
    }
}
