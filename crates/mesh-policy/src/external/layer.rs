//! Asks a service about every request, before anything of yours.
//!
//! # Example
//!
//! ```
//! use axum::body::Body;
//! use http::{Request, Response};
//! use mesh_core::model::{Ask, AskHttp, External};
//! use mesh_core::{BoxError, Failure};
//! use mesh_policy::external::{AskBody, Checked, ExtAuthzLayer};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! // A client of yours; here one that knows nobody.
//! let authorizer = service_fn(|asked: Request<AskBody>| async move {
//!     assert_eq!(asked.uri().path(), "/check/a");
//!     Ok::<_, BoxError>(Response::builder().status(401).body(Body::from("who?"))?)
//! });
//! let mut ask = AskHttp::default();
//! ask.path_prefix = "/check".into();
//! let external = External::new("authorizer", Ask::Http(ask));
//! let service = ServiceBuilder::new()
//!     .layer(ExtAuthzLayer::fixed(external, authorizer))
//!     .service(service_fn(|_: Request<Checked<Body>>| async {
//!         Ok::<_, BoxError>(Response::new(Body::empty()))
//!     }));
//! let mut error = service.oneshot(Request::get("/a").body(Body::empty())?).await.unwrap_err();
//! assert_eq!(error.failure(), Failure::CheckDenied(401));
//! assert_eq!(error.take_answer().expect("its own answer").body, "who?");
//! # Ok(())
//! # }
//! ```

use super::{AskBody, Checked, Consulted, consult};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use mesh_core::model::External;
use mesh_core::stats::{Block, ExternalStat};
use mesh_core::{BoxError, Error};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`ExtAuthz`] services.
#[derive(Clone, Debug)]
pub struct ExtAuthzLayer<A> {
    external: Arc<External>,
    stats: Arc<Block<ExternalStat>>,
    authorizer: A,
}

/// A service that asks another about every request. The inner one gets a [`Checked`] body.
#[derive(Clone, Debug)]
pub struct ExtAuthz<S, A> {
    inner: S,
    external: Arc<External>,
    stats: Arc<Block<ExternalStat>>,
    authorizer: A,
}

/// The response future of [`ExtAuthz`].
pub struct ResponseFuture<R>(Pin<Box<dyn Future<Output = Result<Response<R>, Error>> + Send>>);

// === impl ExtAuthzLayer ===

impl<A> ExtAuthzLayer<A> {
    /// Asks `authorizer` about every request, as `external` says. Its cluster and what it is asked only
    /// for (`External::only`) mean nothing here.
    pub fn fixed(external: External, authorizer: A) -> Self {
        Self {
            external: Arc::new(external),
            stats: Arc::default(),
            authorizer,
        }
    }

    /// Counts here.
    #[must_use]
    pub fn stats(mut self, stats: Arc<Block<ExternalStat>>) -> Self {
        self.stats = stats;
        self
    }
}

impl<S, A: Clone> Layer<S> for ExtAuthzLayer<A> {
    type Service = ExtAuthz<S, A>;

    fn layer(&self, inner: S) -> ExtAuthz<S, A> {
        ExtAuthz {
            inner,
            external: self.external.clone(),
            stats: self.stats.clone(),
            authorizer: self.authorizer.clone(),
        }
    }
}

// === impl ExtAuthz ===

impl<S, A, B, R, Q> Service<Request<B>> for ExtAuthz<S, A>
where
    S: Service<Request<Checked<B>>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    A: Service<Request<AskBody>, Response = Response<Q>> + Clone + Send + 'static,
    A::Error: Send,
    A::Future: Send,
    Q: Body + Send,
    Q::Data: Send,
    Q::Error: Send,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<R>;
    type Error = Error;
    type Future = ResponseFuture<R>;

    /// Always ready: both services are made ready where they are called.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut inner = self.inner.clone();
        let authorizer = self.authorizer.clone();
        let (external, stats) = (self.external.clone(), self.stats.clone());
        ResponseFuture(Box::pin(async move {
            let consulted = consult(&external, &stats, authorizer, request).await?;
            let Consulted { request, reply } = consulted;
            let ready = poll_fn(|cx| inner.poll_ready(cx)).await;
            ready.map_err(Error::wrap)?;
            let mut response = inner.call(request).await.map_err(Error::wrap)?;
            for edit in reply {
                edit.apply(response.headers_mut());
            }
            Ok(response)
        }))
    }
}

// === impl ResponseFuture ===

impl<R> Future for ResponseFuture<R> {
    type Output = Result<Response<R>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl<R> fmt::Debug for ResponseFuture<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}
