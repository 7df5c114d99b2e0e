//! Tells of every request how it ended: statistics, Istio's metrics, access logs.
//!
//! The outermost layer, so that it sees everything: responses from upstream, answers made here,
//! errors that nobody made a response from, and callers that went away. A request is finished
//! exactly once: when its response's body ends, fails or is dropped, or when the future of the
//! response is dropped before there is one. The tunnel behind a response of 101 is not covered:
//! the request ends with that response's head.
//!
//! Where it knows which workload it stands for, it reads and takes off what
//! [peers](crate::istio::peer) say of themselves, so that neither applications nor callers get to
//! see it: on inbound listeners from requests, which it answers with the same of its own; on
//! others from responses, and what services outside the mesh say is not believed.
//!
//! It uses the exchange that a request has, or makes one. Errors pass through as they are,
//! whatever their type, so that the layer fits where a framework wants a certain one.
//!
//! The request's body becomes a [`Received`], and what the inner service takes has to be made from
//! that: with `From` (name that type as the parameter of [`FinishLayer`]), or by a layer that maps
//! request bodies.
//!
//! ```
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full, combinators::BoxBody};
//! use bytes::Bytes;
//! use mesh_core::model::WorkloadRef;
//! use mesh_telemetry::{FinishLayer, Telemetry, finish::Received};
//! use std::{convert::Infallible, sync::Arc};
//! use tower::{ServiceExt, util::MapRequestLayer};
//! use tower_layer::Layer;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! // Something that takes one kind of request body only, as axum and tonic do.
//! let inner = tower::service_fn(|_: Request<BoxBody<Bytes, Infallible>>| async {
//!     Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello"))))
//! });
//! type Body = Received<Full<Bytes>>;
//! let boxed = MapRequestLayer::new(|request: Request<Body>| request.map(BodyExt::boxed));
//!
//! let telemetry = Arc::new(Telemetry::new(WorkloadRef::default()));
//! let service = FinishLayer::<Body>::new(telemetry.clone()).layer(boxed.layer(inner));
//! let request = Request::new(Full::new(Bytes::new()));
//! let response = service.oneshot(request).await.unwrap();
//! assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
//!
//! let mut scrape = mesh_telemetry::expose::Scrape::new();
//! let metrics = scrape.telemetry(&telemetry).prometheus(&Default::default());
//! assert!(metrics.contains("istio_requests_total{reporter=\"source\""));
//! # }
//! ```

mod received;
mod route;
mod tally;
mod tracked;

pub use received::Received;
pub use tracked::Tracked;

use crate::Telemetry;
use crate::telemetry::Own;
use http::{Request, Response};
use http_body::Body;
use mesh_core::{Exchange, upgrade};
use pin_project::pin_project;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tally::Tally;
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Finish`] services, whose inner services take requests with a body of type `O`.
pub struct FinishLayer<O> {
    telemetry: Arc<Telemetry>,
    noted: bool,
    body: PhantomData<fn(O)>,
}

/// A service that tells of every request how it ended.
pub struct Finish<S, O> {
    inner: S,
    telemetry: Own,
    body: PhantomData<fn(O)>,
}

/// The response future of [`Finish`].
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    #[pin]
    inner: F,
    /// Moves into the response's body.
    tally: Option<Tally>,
}

// === impl FinishLayer ===

impl<O> FinishLayer<O> {
    /// Tells `telemetry` of every request.
    pub fn new(telemetry: Arc<Telemetry>) -> Self {
        Self {
            telemetry,
            noted: false,
            body: PhantomData,
        }
    }

    /// Keeps nothing of a request's head for access logs, because a layer below notes that of each
    /// ([`Exchange::note_head`]), whatever becomes of it. Default: what comes is kept, and what is
    /// noted takes its place.
    #[must_use]
    pub fn heads_are_noted(mut self) -> Self {
        self.noted = true;
        self
    }
}

impl<S, O> Layer<S> for FinishLayer<O> {
    type Service = Finish<S, O>;

    fn layer(&self, inner: S) -> Finish<S, O> {
        Finish {
            inner,
            telemetry: Own::new(self.telemetry.clone(), self.noted),
            body: PhantomData,
        }
    }
}

impl<O> Clone for FinishLayer<O> {
    fn clone(&self) -> Self {
        Self {
            telemetry: self.telemetry.clone(),
            noted: self.noted,
            body: PhantomData,
        }
    }
}

impl<O> fmt::Debug for FinishLayer<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FinishLayer").field(&self.telemetry).finish()
    }
}

// === impl Finish ===

impl<S, O, B, R> Service<Request<B>> for Finish<S, O>
where
    S: Service<Request<O>, Response = Response<R>>,
    S::Error: 'static,
    Received<B>: Into<O>,
    B: Body,
    R: Body,
{
    type Response = Response<Tracked<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let exchange = Exchange::of(&request).cloned().unwrap_or_else(|| {
            let now = tokio::time::Instant::now().into_std();
            let exchange = Exchange::without_caller(now);
            exchange.attach(&mut request);
            exchange
        });
        let tally = Tally::begin(self.telemetry.clone(), exchange.clone(), &mut request);
        let request_end = tally.request_end();
        let never =
            upgrade::of(request.headers()).map(|_| upgrade::is_websocket(request.headers()));
        let request = request.map(|body| match never {
            None => Received::new(body, exchange, request_end),
            Some(bounded) => Received::endless(body, exchange, bounded),
        });
        let request = request.map(Into::into);
        ResponseFuture {
            inner: self.inner.call(request),
            tally: Some(tally),
        }
    }
}

impl<S: Clone, O> Clone for Finish<S, O> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            telemetry: self.telemetry.clone(),
            body: PhantomData,
        }
    }
}

impl<S: fmt::Debug, O> fmt::Debug for Finish<S, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finish")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

// === impl ResponseFuture ===

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
    E: 'static,
{
    type Output = Result<Response<Tracked<R>>, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        let mut tally = this
            .tally
            .take()
            .expect("a future is not polled after it was ready");
        match result {
            Ok(mut response) => {
                tally.head(&mut response);
                Poll::Ready(Ok(response.map(|body| Tracked::new(body, tally))))
            }
            Err(error) => {
                tally.fail(&error);
                Poll::Ready(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests;
