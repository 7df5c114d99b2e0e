//! Changes headers on the way in and on the way out, and rewrites path and authority.
//!
//! Fixed edits are the same for every request. Per route they are those of the destination, the
//! rule, the virtual host and the table, in the order that `header.rs` describes, followed by the
//! rule's rewrites; the rewritten request carries `x-envoy-original-host` and
//! `x-envoy-original-path` as from Envoy. Only rules that forward edit requests.
//!
//! Responses are edited when they come from below. What we answer ourselves travels as an error
//! and gets its edits in [`ReplyLayer`](crate::ReplyLayer). A rewrite to the chosen endpoint's host
//! name ([`AuthorityRewrite::FromEndpoint`]) is left to whoever chooses the endpoint. An edit of
//! `host` changes the authority, wherever the request has it; `host` is never removed.
//!
//! # Example
//!
//! ```
//! use http::{HeaderName, HeaderValue};
//! use mesh_core::model::{AddMode, HeaderAdd, HeaderEdits, HeaderTemplate};
//! use mesh_route::{EditLayer, ReplyLayer};
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! let mut outgoing = HeaderEdits::default();
//! outgoing.add.push(HeaderAdd {
//!     name: HeaderName::from_static("x-served-by"),
//!     value: HeaderTemplate::Fixed(HeaderValue::from_static("mesh")),
//!     mode: AddMode::Overwrite,
//! });
//! let app: axum::Router = axum::Router::new().route("/", axum::routing::get(|| async {})).layer(
//!     ServiceBuilder::new()
//!         .layer(ReplyLayer::new())
//!         .layer(EditLayer::fixed(HeaderEdits::default(), outgoing)),
//! );
//! # let test = async {
//! let response = app.oneshot(http::Request::new(axum::body::Body::empty())).await.unwrap();
//! assert_eq!(response.headers()["x-served-by"], "mesh");
//! # };
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
//! ```

use crate::head::Head;
use crate::header::{Direction, apply, levels};
use crate::rewrite;
use crate::template::{Facts, Kept, Response as Known};
use http::header::HOST;
use http::{HeaderName, HeaderValue, Request, Response, Version};
use mesh_core::model::{AuthorityRewrite, Forward, HeaderEdits, PathMatch};
use mesh_core::{BoxError, Error, Exchange, Failure, WallClock};
use pin_project::pin_project;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Edit`] services.
#[derive(Clone, Debug)]
pub struct EditLayer {
    policy: Arc<Policy>,
}

/// A service that changes headers of requests and responses.
#[derive(Clone, Debug)]
pub struct Edit<S> {
    inner: S,
    policy: Arc<Policy>,
}

/// The response future of [`Edit`].
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F>(#[pin] State<F>);

#[pin_project(project = StateProj)]
#[derive(Debug)]
enum State<F> {
    Calling(#[pin] F),
    /// The response has to be edited.
    Editing(#[pin] F, Box<After>),
    Failed(Option<Error>),
}

/// What is needed to edit the response.
struct After {
    policy: Arc<Policy>,
    exchange: Option<Exchange>,
    kept: Kept,
    version: Version,
}

#[derive(Clone, Debug)]
struct Policy {
    /// None: those of the matched rule.
    fixed: Option<Fixed>,
    clock: WallClock,
}

#[derive(Clone, Debug)]
struct Fixed {
    request: HeaderEdits,
    response: HeaderEdits,
}

const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");

// === impl EditLayer ===

impl EditLayer {
    /// Applies the same edits to every request and response.
    pub fn fixed(request: HeaderEdits, response: HeaderEdits) -> Self {
        Self::new(Some(Fixed { request, response }))
    }

    /// Applies the edits and rewrites of the matched rule.
    pub fn per_route() -> Self {
        Self::new(None)
    }

    /// The clock for `%START_TIME%`. Default: the machine's.
    #[must_use]
    pub fn clock(mut self, clock: WallClock) -> Self {
        Arc::make_mut(&mut self.policy).clock = clock;
        self
    }

    fn new(fixed: Option<Fixed>) -> Self {
        let policy = Policy {
            fixed,
            clock: WallClock::system(),
        };
        Self {
            policy: Arc::new(policy),
        }
    }
}

impl<S> Layer<S> for EditLayer {
    type Service = Edit<S>;
    fn layer(&self, inner: S) -> Edit<S> {
        Edit {
            inner,
            policy: self.policy.clone(),
        }
    }
}

// === impl Edit ===

impl<S, B, R> Service<Request<B>> for Edit<S>
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

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let exchange = match &self.policy.fixed {
            Some(_) => Exchange::of(&request).cloned(),
            None => match Exchange::of(&request).filter(|of| of.matched().is_some()) {
                Some(exchange) => Some(exchange.clone()),
                None => return ResponseFuture(State::Calling(self.inner.call(request))),
            },
        };
        if let Err(error) = self.policy.edit_request(&mut request, exchange.as_ref()) {
            return ResponseFuture(State::Failed(Some(error)));
        }
        let Some(kept) = self.policy.kept(&request, exchange.as_ref()) else {
            return ResponseFuture(State::Calling(self.inner.call(request)));
        };
        let after = After {
            policy: self.policy.clone(),
            exchange,
            kept,
            version: request.version(),
        };
        ResponseFuture(State::Editing(self.inner.call(request), Box::new(after)))
    }
}

// === impl Policy ===

impl Policy {
    fn edit_request<B>(
        &self,
        request: &mut Request<B>,
        exchange: Option<&Exchange>,
    ) -> Result<(), Error> {
        let facts = Facts {
            exchange,
            version: request.version(),
            clock: &self.clock,
            response: Known::None,
        };
        if let Some(fixed) = &self.fixed {
            edit_request(&fixed.request, request, &facts);
            return Ok(());
        }
        let Some(matched) = exchange.and_then(Exchange::matched) else {
            return Ok(());
        };
        let Some(forward) = matched.forward() else {
            return Ok(());
        };
        for edits in levels(matched, Direction::Request) {
            edit_request(edits, request, &facts);
        }
        rewrite_authority(forward, request);
        rewrite_path(forward, &matched.rule().condition.path, request)
    }

    /// The request headers that the response needs; none if the response is not edited at all.
    fn kept<B>(&self, request: &Request<B>, exchange: Option<&Exchange>) -> Option<Kept> {
        let headers = request.headers();
        if let Some(Fixed { response, .. }) = &self.fixed {
            return (!response.is_empty()).then(|| Kept::of([response], headers));
        }
        let matched = exchange?.matched()?;
        levels(matched, Direction::Response).next()?;
        Some(Kept::of(levels(matched, Direction::Response), headers))
    }
}

fn edit_request<B>(edits: &HeaderEdits, request: &mut Request<B>, facts: &Facts<'_>) {
    if edits.is_empty() {
        return;
    }
    let host = request.headers().get(HOST).cloned();
    apply(edits, request.headers_mut(), |template, headers| {
        facts.value(template, |name| headers.get(name), None)
    });
    let edited = edits.add.iter().any(|edit| edit.name == HOST);
    if !edited && !edits.remove.contains(&HOST) {
        return;
    }
    // Two values or none at all would make the request unroutable further on.
    let value = request.headers().get_all(HOST).iter().next_back().cloned();
    match value.or_else(|| host.clone()) {
        Some(value) => request.headers_mut().insert(HOST, value),
        None => return,
    };
    if request.headers().get(HOST) != host.as_ref() {
        set_authority_of_uri(request);
    }
}

/// Makes the URI's authority that of the `host` header.
fn set_authority_of_uri<B>(request: &mut Request<B>) {
    let host = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    let Some(host) = host.map(str::to_owned) else {
        return;
    };
    let mut uri = request.uri().clone();
    rewrite::set_authority(&mut uri, request.headers_mut(), &host);
    *request.uri_mut() = uri;
}

fn rewrite_authority<B>(forward: &Forward, request: &mut Request<B>) {
    let new = match &forward.authority {
        Some(AuthorityRewrite::Literal(name)) => Some(name.to_string()),
        Some(AuthorityRewrite::FromHeader(name)) => {
            let value = request.headers().get(name);
            value
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        }
        _ => None,
    };
    let Some(new) = new.filter(|new| !new.is_empty()) else {
        return;
    };
    let old = Head::of(request).authority().map(HeaderValue::try_from);
    let mut uri = request.uri().clone();
    // What the caller's header says need not be an authority; then the request keeps its own.
    if rewrite::set_authority(&mut uri, request.headers_mut(), &new) {
        *request.uri_mut() = uri;
        if let Some(Ok(old)) = old {
            request.headers_mut().insert(ORIGINAL_HOST, old);
        }
    }
}

fn rewrite_path<B>(
    forward: &Forward,
    matched: &PathMatch,
    request: &mut Request<B>,
) -> Result<(), Error> {
    let Some(old) = request.uri().path_and_query() else {
        return Ok(());
    };
    let Some(new) = rewrite::path(&forward.path, matched, old.as_str()) else {
        return Ok(());
    };
    let original = HeaderValue::try_from(old.as_str());
    rewrite::set_path(request.uri_mut(), &new)
        .map_err(|error| Error::with_source(Failure::InvalidPath, error))?;
    if let Ok(original) = original {
        request.headers_mut().insert(ORIGINAL_PATH, original);
    }
    Ok(())
}

// === impl After ===

impl After {
    fn edit<R>(&self, response: &mut Response<R>) {
        let facts = Facts {
            exchange: self.exchange.as_ref(),
            version: self.version,
            clock: &self.policy.clock,
            response: Known::Upstream(response.status()),
        };
        let mut edit = |edits: &HeaderEdits| {
            apply(edits, response.headers_mut(), |template, headers| {
                facts.value(template, |name| self.kept.get(name), Some(headers))
            });
        };
        match (&self.policy.fixed, &self.exchange) {
            (Some(fixed), _) => edit(&fixed.response),
            (None, Some(exchange)) => {
                if let Some(matched) = exchange.matched() {
                    levels(matched, Direction::Response).for_each(edit);
                }
            }
            (None, None) => {}
        }
    }
}

impl fmt::Debug for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("After")
            .field("exchange", &self.exchange)
            .finish_non_exhaustive()
    }
}

// === impl ResponseFuture ===

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<R>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().0.project() {
            StateProj::Failed(error) => Poll::Ready(Err(error
                .take()
                .expect("a future is not polled after it was ready"))),
            StateProj::Calling(inner) => inner.poll(cx).map_err(Error::wrap),
            StateProj::Editing(inner, after) => {
                let mut result = ready!(inner.poll(cx)).map_err(Error::wrap);
                if let Ok(response) = &mut result {
                    after.edit(response);
                }
                Poll::Ready(result)
            }
        }
    }
}

#[cfg(test)]
mod tests;
