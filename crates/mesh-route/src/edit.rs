//! Changes headers on the way in and on the way out, and rewrites path and authority.
//!
//! Fixed edits are the same for every request. Per route they are those of the destination, the
//! rule, the virtual host and the table, in the order that `header.rs` describes, followed by the
//! rule's rewrites; the rewritten request carries `x-envoy-original-host` and
//! `x-envoy-original-path` as from Envoy. Only rules that forward edit requests, and only where their
//! cluster exists.
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
//!     keep_empty: false,
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
use crate::template::{Asked, Facts, Kept, Response as Known};
use crate::{local, rewrite};
use http::header::HOST;
use http::{HeaderName, HeaderValue, Request, Response, Version};
use mesh_core::model::{AuthorityRewrite, Forward, HeaderEdits, PathMatch};
use mesh_core::{BoxError, Error, Exchange, Failure, Matched, WallClock};
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

const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
pub(crate) const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");

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

    #[inline]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let exchange = match &self.policy.fixed {
            Some(_) => Exchange::of(&request).cloned(),
            None => match Exchange::of(&request).filter(|of| of.matched().is_some()) {
                Some(exchange) => Some(exchange.clone()),
                None => return ResponseFuture(State::Calling(self.inner.call(request))),
            },
        };
        let edited = match self.policy.edit_request(&mut request, exchange.as_ref()) {
            Ok(edited) => edited,
            Err(error) => return ResponseFuture(State::Failed(Some(error))),
        };
        if let Some(exchange) = exchange.as_ref().filter(|_| edited) {
            exchange.note_head(&request);
        }
        let Some(kept) = self.policy.kept(&request, exchange.as_ref()) else {
            return ResponseFuture(State::Calling(self.inner.call(request)));
        };
        // Fixed edits are not the route's, whose local replies go by what the route recorded.
        let is_routes = self.policy.fixed.is_none();
        if let Some(exchange) = exchange.as_ref().filter(|_| edited && is_routes) {
            local::keep_instead(exchange, &kept);
        }
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
    /// Whether anything may have changed.
    fn edit_request<B>(
        &self,
        request: &mut Request<B>,
        exchange: Option<&Exchange>,
    ) -> Result<bool, Error> {
        let facts = Facts {
            exchange,
            version: request.version(),
            clock: &self.clock,
            response: Known::None,
        };
        if let Some(fixed) = &self.fixed {
            edit_request(&fixed.request, request, &facts);
            return Ok(!fixed.request.is_empty());
        }
        let Some(matched) = exchange.and_then(Exchange::matched) else {
            return Ok(false);
        };
        // A request that goes nowhere stays as it is (Envoy `Filter::decodeHeaders`).
        let Some(forward) = matched.forward().filter(|_| matched.cluster().is_some()) else {
            return Ok(false);
        };
        let mut edited = false;
        for edits in levels(matched, Direction::Request) {
            edit_request(edits, request, &facts);
            edited = true;
        }
        edited |= rewrite_authority(forward, request);
        edited |= rewrite_path(forward, &matched.rule().condition.path, request)?;
        Ok(edited)
    }

    /// The request headers that the response needs; none if the response is not edited at all.
    fn kept<B>(&self, request: &Request<B>, exchange: Option<&Exchange>) -> Option<Kept> {
        if let Some(Fixed { response, .. }) = &self.fixed {
            return (!response.is_empty()).then(|| Kept::of([response], &Head::of(request)));
        }
        let matched = exchange?.matched()?;
        if levels(matched, Direction::Response).next().is_none() {
            return counts_attempts(matched).then(Kept::default);
        }
        Some(Kept::of(
            levels(matched, Direction::Response),
            &Head::of(request),
        ))
    }
}

fn edit_request<B>(edits: &HeaderEdits, request: &mut Request<B>, facts: &Facts<'_>) {
    if edits.is_empty() {
        return;
    }
    let host = request.headers().get(HOST).cloned();
    // Taken out while they change, so that the rest of the request can be read.
    let mut headers = std::mem::take(request.headers_mut());
    apply(edits, &mut headers, |edit, headers| {
        let asked = Asked::Request(request.method(), request.uri(), headers);
        facts.value(edit, asked, None)
    });
    *request.headers_mut() = headers;
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

/// Whether it was rewritten.
fn rewrite_authority<B>(forward: &Forward, request: &mut Request<B>) -> bool {
    let new = match forward.authority.as_deref() {
        Some(AuthorityRewrite::Literal(name)) => Some(name.to_string()),
        Some(AuthorityRewrite::FromPath(pattern, with)) => {
            let path = request.uri().path().as_bytes();
            String::from_utf8(pattern.replace_all(path, with)).ok()
        }
        Some(AuthorityRewrite::FromHeader(name)) => {
            let value = request.headers().get(name);
            value
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        }
        _ => None,
    };
    let Some(new) = new.filter(|new| !new.is_empty()) else {
        return false;
    };
    let old = Head::of(request).authority().map(HeaderValue::try_from);
    let mut uri = request.uri().clone();
    // What the caller's header says need not be an authority; then the request keeps its own.
    if !rewrite::set_authority(&mut uri, request.headers_mut(), &new) {
        return false;
    }
    *request.uri_mut() = uri;
    if let Some(Ok(old)) = old {
        let headers = request.headers_mut();
        if forward.append_forwarded_host {
            rewrite::append_forwarded_host(headers, &old);
        }
        headers.insert(ORIGINAL_HOST, old);
    }
    true
}

/// Whether responses of this rule say how many attempts there were.
fn counts_attempts(matched: &Matched) -> bool {
    matched.host().count_attempts_in_response && matched.forward().is_some()
}

/// Whether it was rewritten.
fn rewrite_path<B>(
    forward: &Forward,
    matched: &PathMatch,
    request: &mut Request<B>,
) -> Result<bool, Error> {
    let Some(old) = request.uri().path_and_query() else {
        return Ok(false);
    };
    let Some(new) = rewrite::path(&forward.path, matched, old.as_str()) else {
        return Ok(false);
    };
    let original = HeaderValue::try_from(old.as_str());
    rewrite::set_path(request.uri_mut(), &new)
        .map_err(|error| Error::with_source(Failure::InvalidPath, error))?;
    if let Ok(original) = original {
        request.headers_mut().insert(ORIGINAL_PATH, original);
    }
    Ok(true)
}

// === impl After ===

impl After {
    fn edit<R>(&self, response: &mut Response<R>) {
        if let Some(attempts) = self.attempts() {
            response.headers_mut().insert(ATTEMPT_COUNT, attempts);
        }
        let facts = Facts {
            exchange: self.exchange.as_ref(),
            version: self.version,
            clock: &self.policy.clock,
            response: Known::Upstream(response.status()),
        };
        let mut edit = |edits: &HeaderEdits| {
            apply(edits, response.headers_mut(), |edit, headers| {
                facts.value(edit, Asked::Kept(&self.kept), Some(headers))
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

    /// What was not answered from upstream counts its attempts, too (Envoy `modify_headers`).
    fn fail(&self, failure: Failure) {
        if matches!(failure, Failure::NoCluster | Failure::MaxStreamDuration) {
            // There was none, or it was not the router that answered.
            return;
        }
        if let (Some(attempts), Some(exchange)) = (self.attempts(), &self.exchange) {
            exchange.add_reply_header(ATTEMPT_COUNT, attempts);
        }
    }

    fn attempts(&self) -> Option<HeaderValue> {
        let exchange = self.exchange.as_ref()?;
        let counts = self.policy.fixed.is_none() && counts_attempts(exchange.matched()?);
        counts.then(|| HeaderValue::from(exchange.attempts()))
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

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().0.project() {
            StateProj::Failed(error) => Poll::Ready(Err(error
                .take()
                .expect("a future is not polled after it was ready"))),
            StateProj::Calling(inner) => inner.poll(cx).map_err(Error::wrap),
            StateProj::Editing(inner, after) => {
                let mut result = ready!(inner.poll(cx)).map_err(Error::wrap);
                match &mut result {
                    Ok(response) => after.edit(response),
                    Err(error) => after.fail(error.failure()),
                }
                Poll::Ready(result)
            }
        }
    }
}

#[cfg(test)]
mod tests;
