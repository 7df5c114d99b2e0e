//! The smallest layer that makes responses of our errors, as axum wants.

use axum::body::Body;
use http::{Request, Response};
use mesh_core::{Error, reply};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tower::{Layer, Service};

#[derive(Clone, Copy)]
pub(crate) struct RespondLayer;

#[derive(Clone)]
pub(crate) struct Respond<S>(S);

impl<S> Layer<S> for RespondLayer {
    type Service = Respond<S>;
    fn layer(&self, inner: S) -> Respond<S> {
        Respond(inner)
    }
}

impl<S, B, R> Service<Request<B>> for Respond<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Error>,
    S::Future: Send + 'static,
    R: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    R::Error: Into<mesh_core::BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx).map(|ready| {
            ready.expect("ready");
            Ok(())
        })
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let response = self.0.call(request);
        Box::pin(async move {
            Ok(match response.await {
                Ok(response) => response.map(Body::new),
                Err(error) => {
                    let answer = reply::answer(error, reply::Asked::default());
                    let mut response = Response::new(Body::from(answer.body));
                    *response.status_mut() = answer.status;
                    response
                }
            })
        })
    }
}
