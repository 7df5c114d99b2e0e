//! Sends copies of requests elsewhere and throws their answers away.
//!
//! Fixed, a share of all requests goes to a service of its own. Per route, copies go through a
//! clone of the inner service to the clusters that the matched rule names; each carries an
//! [`Exchange`] of its own ([`Exchange::is_shadow`]), so nothing that a copy learns reaches the
//! request, and copies are never copied again. Shares are drawn for each mirror on its own.
//! `CONNECT` and upgrades are not copied, and neither is a request to a cluster that does not
//! exist (Envoy `request_mirror_policies`). As from Envoy, copies per route have `x-envoy-internal`,
//! and the address that the request came in on is added to their `x-forwarded-for`; a fixed share
//! goes out as it is.
//!
//! The request is never slowed nor failed by its copies: its body is handed to them as it is read,
//! through a buffer of 64 KiB each, and a copy that falls further behind fails. Where the request fails
//! before its body was read, they get what of it has arrived, as from Envoy.
//!
//! Nothing is spawned behind your back: copies run on the [`Executor`] that you give. On tokio:
//!
//! ```
//! # use std::pin::Pin;
//! #[derive(Clone)]
//! struct Tokio;
//! impl mesh_route::mirror::Executor for Tokio {
//!     fn spawn(&self, copy: Pin<Box<dyn Future<Output = ()> + Send>>) {
//!         tokio::spawn(copy);
//!     }
//! }
//! ```
//!
//! The inner service gets bodies of type [`TeeBody`], or any type `O` that can be made from it
//! with `Into`; axum and tonic take one type only, which [`MapRequestBodyLayer`] makes:
//!
//! ```
//! # use std::pin::Pin;
//! # #[derive(Clone)]
//! # struct Tokio;
//! # impl mesh_route::mirror::Executor for Tokio {
//! #     fn spawn(&self, copy: Pin<Box<dyn Future<Output = ()> + Send>>) { tokio::spawn(copy); }
//! # }
//! use axum::{Router, body::Body, routing::post};
//! use mesh_core::model::Fraction;
//! use mesh_route::mirror::TeeBody;
//! use mesh_route::{MapRequestBodyLayer, MirrorLayer, ReplyLayer};
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! let boxing = MapRequestBodyLayer::new(Body::new::<TeeBody<Body>>);
//! let shadow = Router::new().route("/", post(|body: String| async move { println!("{body}") }));
//! let shadow = ServiceBuilder::new().layer(boxing.clone()).service(shadow);
//! let app: Router = Router::new().route("/", post(|body: String| async { body })).layer(
//!     ServiceBuilder::new()
//!         .layer(ReplyLayer::new())
//!         .layer(MirrorLayer::fixed(shadow, Fraction::ALL).executor(Tokio))
//!         .layer(boxing),
//! );
//! # let test = async {
//! let response = app.oneshot(http::Request::post("/").body(Body::from("hi")).unwrap()).await;
//! assert_eq!(axum::body::to_bytes(response.unwrap().into_body(), 9).await.unwrap(), "hi");
//! # };
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
//! ```
//!
//! [`MapRequestBodyLayer`]: crate::MapRequestBodyLayer

mod shadow;
mod tee;

pub use shadow::{Fixed, PerRoute, Planned, Shadow};
pub use tee::TeeBody;

use crate::head::Head;
use crate::header::apply_parts;
use crate::list;
use crate::rewrite::{set_authority, shadow_authority};
use crate::template::{Asked, Facts, Response as Known};
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Body;
use mesh_core::model::{self, Fraction};
use mesh_core::{BoxError, Error, Exchange, Rng, WallClock};
use pin_project::pin_project;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Mirror`] services.
pub struct MirrorLayer<M, E, O> {
    target: M,
    executor: E,
    settings: Settings,
    body: PhantomData<fn() -> O>,
}

/// A service that sends copies of its requests elsewhere. `M` is where, `E` runs them, `O` is the
/// body that the inner service takes.
pub struct Mirror<S, M, E, O> {
    inner: S,
    target: M,
    executor: E,
    settings: Settings,
    body: PhantomData<fn() -> O>,
}

/// The response future of [`Mirror`].
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F>(#[pin] F);

/// Runs copies.
pub trait Executor: Clone + Send + Sync + 'static {
    /// Runs `copy` to its end, at some time, in some place.
    fn spawn(&self, copy: Pin<Box<dyn Future<Output = ()> + Send>>);
}

/// The executor has yet to be given, with [`MirrorLayer::executor`].
#[derive(Clone, Copy, Debug)]
pub struct NoExecutor;

#[derive(Clone, Debug)]
struct Settings {
    rng: Arc<Rng>,
    /// Most bytes that a copy may be behind.
    buffer: usize,
}

const ENVOY_INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// How far a copy may be behind, in bytes.
const BUFFER: usize = 64 * 1024;

// === impl MirrorLayer ===

impl<T, O> MirrorLayer<Fixed<T>, NoExecutor, O> {
    /// Sends a share of all requests to `shadow` as well. Their host stays as it is.
    pub fn fixed(shadow: T, share: Fraction) -> Self {
        Self::new(Fixed {
            service: shadow,
            share,
            shadow_host: false,
        })
    }
}

impl<T, E, O> MirrorLayer<Fixed<T>, E, O> {
    /// Appends `-shadow` to the host of copies, as Envoy does unless it is told not to.
    #[must_use]
    pub fn shadow_host(mut self) -> Self {
        self.target.shadow_host = true;
        self
    }
}

impl<O> MirrorLayer<PerRoute, NoExecutor, O> {
    /// Sends copies where the matched rule says.
    pub fn per_route() -> Self {
        Self::new(PerRoute)
    }
}

impl<M, O> MirrorLayer<M, NoExecutor, O> {
    fn new(target: M) -> Self {
        Self {
            target,
            executor: NoExecutor,
            settings: Settings {
                rng: Arc::new(Rng::from_system()),
                buffer: BUFFER,
            },
            body: PhantomData,
        }
    }

    /// What runs the copies.
    #[must_use]
    pub fn executor<E: Executor>(self, executor: E) -> MirrorLayer<M, E, O> {
        MirrorLayer {
            target: self.target,
            executor,
            settings: self.settings,
            body: PhantomData,
        }
    }
}

impl<M, E, O> MirrorLayer<M, E, O> {
    /// Where the random words for shares come from. Default: seeded from the operating system.
    #[must_use]
    pub fn rng(mut self, rng: Arc<Rng>) -> Self {
        self.settings.rng = rng;
        self
    }

    /// How many bytes of a body a copy may be behind before it fails. Default 64 KiB.
    #[must_use]
    pub fn buffer(mut self, bytes: usize) -> Self {
        self.settings.buffer = bytes;
        self
    }
}

impl<S, M: Clone, E: Executor, O> Layer<S> for MirrorLayer<M, E, O> {
    type Service = Mirror<S, M, E, O>;
    fn layer(&self, inner: S) -> Self::Service {
        Mirror {
            inner,
            target: self.target.clone(),
            executor: self.executor.clone(),
            settings: self.settings.clone(),
            body: PhantomData,
        }
    }
}

impl<M: Clone, E: Clone, O> Clone for MirrorLayer<M, E, O> {
    fn clone(&self) -> Self {
        Self {
            target: self.target.clone(),
            executor: self.executor.clone(),
            settings: self.settings.clone(),
            body: PhantomData,
        }
    }
}

impl<M: fmt::Debug, E, O> fmt::Debug for MirrorLayer<M, E, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MirrorLayer")
            .field("target", &self.target)
            .field("buffer", &self.settings.buffer)
            .finish_non_exhaustive()
    }
}

// === impl Mirror ===

impl<S, M, E, O, B, R> Service<Request<B>> for Mirror<S, M, E, O>
where
    S: Service<Request<O>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    M: Shadow<S, O>,
    E: Executor,
    B: Body<Data = Bytes>,
    TeeBody<B>: Into<O>,
{
    type Response = Response<R>;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::wrap)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let exchange = Exchange::of(&request);
        let planned = match shadow::can_be_copied(&request, exchange) {
            true => self
                .target
                .plan(request.headers(), exchange, &self.settings.rng),
            false => Vec::new(),
        };
        if planned.is_empty() {
            let request = request.map(|body| TeeBody::plain(body).into());
            return ResponseFuture(self.inner.call(request));
        }
        let (head, body) = request.into_parts();
        let (body, bodies) = TeeBody::tee(body, planned.len(), self.settings.buffer);
        let copies: Vec<Request<O>> = planned
            .into_iter()
            .zip(bodies)
            .map(|(planned, body)| {
                let body = body.tell(planned.exchange.as_ref());
                copy(&head, planned, body.into())
            })
            .collect();
        // The request first: an executor may be one that runs what it is given at once.
        let response = self.inner.call(Request::from_parts(head, body.into()));
        for copy in copies {
            self.target.send(&self.inner, copy, &self.executor);
        }
        ResponseFuture(response)
    }
}

impl<S: Clone, M: Clone, E: Clone, O> Clone for Mirror<S, M, E, O> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            target: self.target.clone(),
            executor: self.executor.clone(),
            settings: self.settings.clone(),
            body: PhantomData,
        }
    }
}

impl<S: fmt::Debug, M: fmt::Debug, E, O> fmt::Debug for Mirror<S, M, E, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror")
            .field("inner", &self.inner)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// A request with the same head. Of its extensions only the exchange goes along, a new one.
fn copy<O>(head: &http::request::Parts, planned: Planned, body: O) -> Request<O> {
    let mut copy = Request::new(body);
    *copy.method_mut() = head.method.clone();
    *copy.uri_mut() = head.uri.clone();
    *copy.version_mut() = head.version;
    *copy.headers_mut() = head.headers.clone();
    if planned.internal {
        let ours = planned.exchange.as_ref().and_then(own_address);
        announce(copy.headers_mut(), ours);
    }
    if let Some(exchange) = planned.exchange {
        exchange.attach(&mut copy);
    }
    if let Some(mirror) = planned.mirror {
        change(&mut copy, &mirror, head.extensions.get());
    }
    if planned.shadow_host {
        name_as_shadow(&mut copy);
    }
    copy
}

/// Makes a mirror's changes to a copy: its edits one after the other, then its host.
fn change<O>(copy: &mut Request<O>, mirror: &model::Mirror, exchange: Option<&Exchange>) {
    let clock = WallClock::system();
    let facts = Facts {
        exchange,
        version: copy.version(),
        clock: &clock,
        response: Known::None,
    };
    let (method, uri) = (copy.method().clone(), copy.uri().clone());
    let headers = copy.headers_mut();
    for edit in &mirror.edits.add {
        apply_parts(&[], std::slice::from_ref(edit), headers, |edit, headers| {
            facts.value(edit, Asked::Request(&method, &uri, headers), None)
        });
    }
    for name in &mirror.edits.remove {
        headers.remove(name);
    }
    if let Some(authority) = &mirror.authority {
        let mut uri = uri;
        if set_authority(&mut uri, headers, authority) {
            *copy.uri_mut() = uri;
        }
    }
}

/// Says that a copy is a request of our own, as Envoy's client for such requests does: it counts as
/// internal, and we are the last in the list of those who passed it on.
fn announce(headers: &mut HeaderMap, ours: Option<IpAddr>) {
    headers.insert(ENVOY_INTERNAL, HeaderValue::from_static("true"));
    let ours = ours.and_then(|ours| HeaderValue::try_from(ours.to_string()).ok());
    if let Some(ours) = ours {
        list::append(headers, FORWARDED_FOR, &ours, ",");
    }
}

/// Ours, as far as a request tells: where it came in, unless it was on its way elsewhere.
fn own_address(exchange: &Exchange) -> Option<IpAddr> {
    let caller = exchange.caller();
    let local = caller.local.filter(|_| caller.original.is_none())?;
    Some(local.ip().to_canonical())
}

fn name_as_shadow<O>(copy: &mut Request<O>) {
    let Some(authority) = Head::of(copy).authority().map(shadow_authority) else {
        return;
    };
    let mut uri = copy.uri().clone();
    if set_authority(&mut uri, copy.headers_mut(), &authority) {
        *copy.uri_mut() = uri;
    } else if copy.headers().contains_key(HOST)
        && let Ok(value) = HeaderValue::try_from(authority)
    {
        // `[::1]-shadow` is no authority, but it is what Envoy sends.
        copy.headers_mut().insert(HOST, value);
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
        self.project().0.poll(cx).map_err(Error::wrap)
    }
}

#[cfg(test)]
mod tests;
