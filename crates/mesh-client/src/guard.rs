//! Judges requests by the policies of their listener, before they go anywhere.
//!
//! Outside routing, because what is denied must not tell whether there is a route, nor have anything
//! asked for on demand. Access logs say which route it would have taken nevertheless, as in Envoy.

use http::{Request, Response};
use mesh_core::{BoxError, Error, Failure};
use mesh_route::route::Notes;
use pin_project::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tower_service::Service;

/// A service that lets through what policies allow.
#[derive(Clone, Debug)]
pub struct Guard<S> {
    inner: S,
    notes: Notes,
}

/// The response future of [`Guard`].
#[pin_project(project = Proj)]
#[derive(Debug)]
pub enum ResponseFuture<F> {
    /// Let through.
    Going(#[pin] F),
    /// Denied; none once it was told.
    Denied(Option<Error>),
}

// === impl Guard ===

impl<S> Guard<S> {
    pub(crate) fn new(inner: S, notes: Notes) -> Self {
        Self { inner, notes }
    }
}

impl<S, B, R> Service<Request<B>> for Guard<S>
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
        match mesh_policy::admit(&request) {
            Ok(()) => ResponseFuture::Going(self.inner.call(request)),
            Err(error) => {
                self.notes.note(&request);
                ResponseFuture::Denied(Some(error))
            }
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

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Proj::Going(inner) => Poll::Ready(ready!(inner.poll(cx)).map_err(Error::wrap)),
            Proj::Denied(error) => {
                let error = error.take();
                Poll::Ready(Err(error.unwrap_or_else(|| Error::new(Failure::Denied))))
            }
        }
    }
}
