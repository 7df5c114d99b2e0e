//! Cross-origin resource sharing: answers preflights and says on responses who may read them.
//!
//! As Envoy's filter does it, byte for byte: the origin is echoed and never `*`; `*` in the
//! allowed methods or headers echoes what the request asks for; a preflight whose origin does not
//! match goes on, unless the policy says that it is answered, and then the answer has everything
//! but the origin. Requests whose origin does not match are not refused: browsers do that.
//!
//! Per route the policy is the rule's, and what that leaves empty is as its virtual host's has it;
//! only rules that forward have one.
//! Headers are recorded in the [`Exchange`] too, so that local replies carry them.
//!
//! # Example
//!
//! ```
//! use mesh_core::model::{Cors, StringMatch};
//! use mesh_route::{CorsLayer, ReplyLayer};
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! let mut policy = Cors::default();
//! policy.allow_origins = vec![StringMatch::Suffix(".example".into())];
//! let app: axum::Router = axum::Router::new().route("/", axum::routing::get(|| async {})).layer(
//!     ServiceBuilder::new().layer(ReplyLayer::new()).layer(CorsLayer::fixed(policy)),
//! );
//! # let test = async {
//! let request = http::Request::get("/").header("origin", "http://a.example");
//! let response = app.oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
//! assert_eq!(response.headers()["access-control-allow-origin"], "http://a.example");
//! # };
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
//! ```

mod decide;

use decide::{Decision, Levels, decide};
use http::{HeaderName, HeaderValue, Request, Response};
use mesh_core::model::Cors as Policy;
use mesh_core::stats::HttpStat;
use mesh_core::{BoxError, Error, Exchange, Failure};
use pin_project::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Cors`] services.
#[derive(Clone, Debug)]
pub struct CorsLayer {
    policy: Option<Arc<Policy>>,
}

/// A service that speaks CORS.
#[derive(Clone, Debug)]
pub struct Cors<S> {
    inner: S,
    /// None: that of the matched rule.
    policy: Option<Arc<Policy>>,
}

/// The response future of [`Cors`].
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F>(#[pin] State<F>);

#[pin_project(project = StateProj)]
#[derive(Debug)]
enum State<F> {
    /// Calling, with what goes on the response. Empty for most requests, which costs nothing.
    Calling(#[pin] F, Vec<(HeaderName, HeaderValue)>),
    Answered(Option<Error>),
}

// === impl CorsLayer ===

impl CorsLayer {
    /// Applies the same policy to every request.
    pub fn fixed(policy: Policy) -> Self {
        Self {
            policy: Some(Arc::new(policy)),
        }
    }

    /// Applies the policy of the matched rule or its virtual host, if there is one.
    pub fn per_route() -> Self {
        Self { policy: None }
    }
}

impl<S> Layer<S> for CorsLayer {
    type Service = Cors<S>;
    fn layer(&self, inner: S) -> Cors<S> {
        Cors {
            inner,
            policy: self.policy.clone(),
        }
    }
}

// === impl Cors ===

impl<S> Cors<S> {
    fn decide<B>(&self, request: &Request<B>) -> Decision {
        let exchange = Exchange::of(request);
        let levels = match &self.policy {
            Some(policy) => Some(Levels::one(policy)),
            None => exchange.and_then(Exchange::matched).and_then(|matched| {
                let (rule, host) = (&matched.rule().cors, &matched.host().cors);
                Levels::of(rule.as_deref(), host.as_deref()).filter(|_| matched.forward().is_some())
            }),
        };
        let Some(policy) = levels else {
            return Decision::Ignore;
        };
        let decision = decide(&policy, request.method(), request.headers());
        if let (Some(exchange), Some(valid)) = (exchange, decision.origin_is_valid()) {
            let stat = if valid {
                HttpStat::CorsValid
            } else {
                HttpStat::CorsInvalid
            };
            exchange.caller().count(stat);
        }
        if let (Some(exchange), Decision::Actual(headers)) = (exchange, &decision) {
            for (name, value) in headers {
                exchange.add_reply_header(name.clone(), value.clone());
            }
        }
        decision
    }
}

impl<S, B, R> Service<Request<B>> for Cors<S>
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
        let headers = match self.decide(&request) {
            Decision::Preflight { answer, .. } => {
                let error = Error::answer(Failure::CorsPreflight, answer);
                return ResponseFuture(State::Answered(Some(error)));
            }
            Decision::Actual(headers) => headers,
            Decision::Ignore | Decision::Unknown => Vec::new(),
        };
        ResponseFuture(State::Calling(self.inner.call(request), headers))
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
            StateProj::Answered(error) => Poll::Ready(Err(error
                .take()
                .expect("a future is not polled after it was ready"))),
            StateProj::Calling(inner, headers) => {
                let mut result = ready!(inner.poll(cx)).map_err(Error::wrap);
                if let Ok(response) = &mut result {
                    for (name, value) in headers.drain(..) {
                        response.headers_mut().insert(name, value);
                    }
                }
                Poll::Ready(result)
            }
        }
    }
}

#[cfg(test)]
mod tests;
