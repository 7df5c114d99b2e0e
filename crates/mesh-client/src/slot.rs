//! Places in the stack for a user's own layers. An empty slot costs a branch.

use crate::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh_core::{BoxError, Error};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tower_layer::Layer;
use tower_service::Service;

/// A user's layer, to be put into a stack.
///
/// The layer sees [`Body`] on both sides. It may be of any kind: its readiness is awaited for each
/// request on a clone of its own, inside the response future, so a layer that is never ready holds
/// up its own requests and nobody else's.
#[derive(Clone, Default)]
pub struct Slot(Option<Arc<dyn Fn(Boxed) -> Boxed + Send + Sync>>);

/// A service with its type erased.
#[derive(Clone)]
pub struct Boxed(Arc<dyn Call>);

/// A slot in a stack, empty or not.
#[derive(Clone, Debug)]
pub enum Slotted<S> {
    /// Nothing there: requests go straight on.
    Empty(S),
    /// A user's layer around the rest of the stack.
    Custom(Boxed),
}

/// The response future of [`Slotted`].
#[pin_project::pin_project(project = FutureProjected)]
#[derive(Debug)]
pub enum SlotFuture<F> {
    /// The rest of the stack's.
    Empty(#[pin] F),
    /// A user's.
    Custom(BoxedFuture),
}

/// A response body that came through a slot.
#[pin_project::pin_project(project = BodyProjected)]
#[derive(Debug)]
pub enum SlotBody<B> {
    /// From the rest of the stack.
    Empty(#[pin] B),
    /// From a user's layer.
    Custom(#[pin] Body),
}

/// The response future of [`Boxed`].
pub struct BoxedFuture(Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>);

trait Call: Send + Sync {
    fn call(&self, request: Request<Body>) -> BoxedFuture;
}

struct Erased<S>(Mutex<S>);

// === impl Slot ===

impl Slot {
    /// A slot with nothing in it.
    pub fn empty() -> Self {
        Self(None)
    }

    /// A slot with a layer in it.
    pub fn new<L, R>(layer: L) -> Self
    where
        L: Layer<Boxed> + Send + Sync + 'static,
        L::Service: Service<Request<Body>, Response = Response<R>> + Clone + Send + 'static,
        <L::Service as Service<Request<Body>>>::Error: Into<BoxError>,
        <L::Service as Service<Request<Body>>>::Future: Send,
        R: HttpBody<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        Self(Some(Arc::new(move |inner| Boxed::new(layer.layer(inner)))))
    }

    /// Puts the slot around the rest of a stack.
    pub(crate) fn around<S, R>(&self, inner: S) -> Slotted<S>
    where
        S: Service<Request<Body>, Response = Response<R>, Error = Error> + Clone + Send + 'static,
        S::Future: Send,
        R: HttpBody<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        match &self.0 {
            None => Slotted::Empty(inner),
            Some(layer) => Slotted::Custom(layer(Boxed::new(inner))),
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Slot(custom)"
        } else {
            "Slot(empty)"
        })
    }
}

// === impl Boxed ===

impl Boxed {
    fn new<S, R>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<R>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        R: HttpBody<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        Self(Arc::new(Erased(Mutex::new(service))))
    }
}

impl<S, R> Call for Erased<S>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    R: HttpBody<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    fn call(&self, request: Request<Body>) -> BoxedFuture {
        let mut service = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        BoxedFuture(Box::pin(async move {
            std::future::poll_fn(|cx| service.poll_ready(cx))
                .await
                .map_err(Error::wrap)?;
            let response = service.call(request).await.map_err(Error::wrap)?;
            Ok(response.map(Body::new))
        }))
    }
}

impl Service<Request<Body>> for Boxed {
    type Response = Response<Body>;
    type Error = Error;
    type Future = BoxedFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> BoxedFuture {
        self.0.call(request)
    }
}

impl fmt::Debug for Boxed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Boxed")
    }
}

// === impl BoxedFuture ===

impl Future for BoxedFuture {
    type Output = Result<Response<Body>, Error>;
    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for BoxedFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxedFuture")
    }
}

// === impl Slotted ===

impl<S, R> Service<Request<Body>> for Slotted<S>
where
    S: Service<Request<Body>, Response = Response<R>, Error = Error>,
{
    type Response = Response<SlotBody<R>>;
    type Error = Error;
    type Future = SlotFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match self {
            Self::Empty(inner) => inner.poll_ready(cx),
            Self::Custom(custom) => custom.poll_ready(cx),
        }
    }

    #[inline]
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self {
            Self::Empty(inner) => SlotFuture::Empty(inner.call(request)),
            Self::Custom(custom) => SlotFuture::Custom(custom.call(request)),
        }
    }
}

// === impl SlotFuture ===

impl<F, R> Future for SlotFuture<F>
where
    F: Future<Output = Result<Response<R>, Error>>,
{
    type Output = Result<Response<SlotBody<R>>, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project() {
            FutureProjected::Empty(inner) => {
                ready!(inner.poll(cx)).map(|response| response.map(SlotBody::Empty))
            }
            FutureProjected::Custom(custom) => {
                ready!(Pin::new(custom).poll(cx)).map(|response| response.map(SlotBody::Custom))
            }
        })
    }
}

// === impl SlotBody ===

impl<B> HttpBody for SlotBody<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.project() {
            BodyProjected::Empty(body) => {
                let frame = ready!(body.poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(Error::wrap)))
            }
            BodyProjected::Custom(body) => body.poll_frame(cx),
        }
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty(body) => body.is_end_stream(),
            Self::Custom(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty(body) => body.size_hint(),
            Self::Custom(body) => body.size_hint(),
        }
    }
}
