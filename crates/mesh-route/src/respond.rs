//! Answers what needs no upstream: redirects, fixed responses, and rules whose cluster does not
//! exist (503, or [`Forward::not_found`](mesh_core::model::Forward::not_found)).
//!
//! The answer travels outward as an error and becomes a response in
//! [`ReplyLayer`](crate::ReplyLayer). This layer belongs below CORS, faults and rate limits, which
//! apply to such answers too.
//!
//! A [`Target::Header`](mesh_core::model::Target::Header) without its header counts as a cluster
//! that does not exist: 503, as Envoy 1.40 answers (its documentation says 404).
//!
//! # Example
//!
//! ```
//! use mesh_core::model::{Action, Redirect, RedirectPath};
//! use mesh_route::{ReplyLayer, RespondLayer};
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! let mut moved = Redirect::default();
//! moved.path = RedirectPath::Full("/new".into());
//! let app: axum::Router = axum::Router::new().route("/old", axum::routing::get(|| async {})).layer(
//!     ServiceBuilder::new()
//!         .layer(ReplyLayer::new())
//!         .layer(RespondLayer::fixed(Action::Redirect(moved))),
//! );
//! # let test = async {
//! let request = http::Request::get("http://a.example/old").body(axum::body::Body::empty()).unwrap();
//! let response = app.oneshot(request).await.unwrap();
//! assert_eq!(response.headers()["location"], "http://a.example/new");
//! # };
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
//! ```

use crate::edit::ORIGINAL_PATH;
use crate::head::Head;
use crate::{local, rewrite};
use http::header::LOCATION;
use http::{HeaderValue, Request, Response, StatusCode};
use mesh_core::model::{Action, DirectResponse, Forward, PathMatch, Redirect};
use mesh_core::reply::Answer;
use mesh_core::stats::HttpStat;
use mesh_core::{BoxError, Error, Exchange, Failure, Matched};
use pin_project::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Respond`] services.
#[derive(Clone, Debug)]
pub struct RespondLayer {
    action: Option<Arc<Action>>,
}

/// A service that answers what needs no upstream.
#[derive(Clone, Debug)]
pub struct Respond<S> {
    inner: S,
    /// None: that of the matched rule.
    action: Option<Arc<Action>>,
}

/// The response future of [`Respond`].
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F>(#[pin] State<F>);

#[pin_project(project = StateProj)]
#[derive(Debug)]
enum State<F> {
    Calling(#[pin] F),
    Answered(Option<Error>),
}

// === impl RespondLayer ===

impl RespondLayer {
    /// Does the same with every request. The prefix of a redirect is that of a rule for `/`;
    /// [`Action::Forward`] lets requests through.
    pub fn fixed(action: Action) -> Self {
        Self {
            action: Some(Arc::new(action)),
        }
    }

    /// Does what the matched rule says.
    pub fn per_route() -> Self {
        Self { action: None }
    }
}

impl<S> Layer<S> for RespondLayer {
    type Service = Respond<S>;
    fn layer(&self, inner: S) -> Respond<S> {
        Respond {
            inner,
            action: self.action.clone(),
        }
    }
}

// === impl Respond ===

impl<S> Respond<S> {
    fn decide<B>(&self, request: &Request<B>, exchange: Option<&Exchange>) -> Option<Error> {
        let count = |stat| {
            if let Some(exchange) = exchange {
                exchange.caller().count(stat);
            }
        };
        let matched = exchange.and_then(Exchange::matched);
        let (action, path) = match (&self.action, matched) {
            (Some(action), _) => (&**action, &PathMatch::default()),
            (None, Some(matched)) => {
                let rule = matched.rule();
                (&rule.action, &rule.condition.path)
            }
            (None, None) => return None,
        };
        match action {
            Action::Redirect(redirect) => {
                count(HttpStat::RqDirectResponse);
                if let (Some(exchange), Some(matched)) = (exchange, matched) {
                    tell(redirect, path, request, exchange, matched);
                }
                Some(redirected(redirect, path, &Head::of(request)))
            }
            Action::Respond(response) => {
                count(HttpStat::RqDirectResponse);
                Some(answered(response))
            }
            Action::Forward(forward) if self.action.is_none() => {
                if matched.is_some_and(|matched| matched.cluster().is_some()) {
                    return None;
                }
                count(HttpStat::NoCluster);
                Some(no_cluster(forward))
            }
            _ => None,
        }
    }
}

/// Lets edits of the response and logs know the path as the redirect changes it.
fn tell<B>(
    redirect: &Redirect,
    path: &PathMatch,
    request: &Request<B>,
    exchange: &Exchange,
    matched: &Matched,
) {
    let Some(old) = request.uri().path_and_query().map(|it| it.as_str()) else {
        return;
    };
    let Some(new) = rewrite::redirected(redirect, path, old) else {
        return;
    };
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    head.headers_mut().clone_from(request.headers());
    exchange.attach(&mut head);
    if rewrite::set_path(head.uri_mut(), &new).is_err() {
        return;
    }
    if let Ok(old) = HeaderValue::from_str(old) {
        head.headers_mut().insert(ORIGINAL_PATH, old);
    }
    exchange.note_head(&head);
    local::keep_again(exchange, matched, &head);
}

fn redirected(redirect: &Redirect, path: &PathMatch, head: &Head<'_>) -> Error {
    let code = match redirect.code {
        0 => StatusCode::MOVED_PERMANENTLY,
        code => StatusCode::from_u16(code).unwrap_or(StatusCode::MOVED_PERMANENTLY),
    };
    let mut answer = Answer::new(code);
    // What the request brought is fit for a header; what the configuration adds was checked.
    if let Ok(location) = HeaderValue::try_from(rewrite::location(redirect, path, head)) {
        answer.headers.insert(LOCATION, location);
    }
    Error::answer(Failure::Redirect, answer)
}

fn answered(response: &DirectResponse) -> Error {
    let answer = Answer::new(response.status).body(response.body.clone());
    Error::answer(Failure::DirectResponse, answer)
}

fn no_cluster(forward: &Forward) -> Error {
    match forward.not_found {
        Some(status) => Error::answer(Failure::NoCluster, Answer::new(status)),
        None => Error::new(Failure::NoCluster),
    }
}

impl<S, B, R> Service<Request<B>> for Respond<S>
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
        let exchange = Exchange::of(&request);
        if let Some(exchange) = exchange.filter(|of| of.matched().is_some()) {
            exchange.caller().count(HttpStat::RouterRqTotal);
        }
        if let Some(error) = self.decide(&request, exchange) {
            return ResponseFuture(State::Answered(Some(error)));
        }
        ResponseFuture(State::Calling(self.inner.call(request)))
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
            StateProj::Calling(inner) => inner.poll(cx).map_err(Error::wrap),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::{Cluster, HttpManager, Rule, Target};
    use mesh_core::stats::Block;
    use mesh_core::{Caller, Matched, Pinned, reply};
    use mesh_test::{BoxedBody, Probe, contract, fixture, text};
    use tower::ServiceExt;

    fn request(exchange: &Exchange) -> Request<BoxedBody> {
        let request = Request::get("http://a.example/old/x?q")
            .body(text(""))
            .unwrap();
        fixture::with(request, exchange)
    }

    fn counted(rule: Rule, cluster: Option<Cluster>) -> (Exchange, Arc<Block<HttpStat>>) {
        let snapshot = fixture::snapshot(vec![rule], cluster.into_iter().collect());
        let stats = Arc::new(Block::default());
        let mut caller = Caller::default();
        caller.stats = Some(stats.clone());
        caller.manager = Some(Arc::new(HttpManager::new("in", "t")));
        let exchange = Exchange::new(tokio::time::Instant::now().into_std(), caller);
        let cluster = (!snapshot.clusters().is_empty()).then_some(0);
        let matched = Matched::new(Pinned::new(snapshot), 0, 0, 0).to(None, cluster);
        exchange.set_matched(matched);
        (exchange, stats)
    }

    async fn answer(exchange: &Exchange) -> (Failure, Answer) {
        let probe = Probe::new();
        let service = RespondLayer::per_route().layer(probe.clone());
        let error = service.oneshot(request(exchange)).await.unwrap_err();
        assert_eq!(probe.calls(), 0);
        (
            error.failure(),
            reply::answer(error, reply::Asked::default()),
        )
    }

    #[tokio::test]
    async fn keeps_the_contract_of_layers() {
        contract::check(RespondLayer::per_route()).await;
        contract::check(RespondLayer::fixed(Action::default())).await;
    }

    #[tokio::test]
    async fn a_redirect_of_the_rule_is_answered_and_counted() {
        let mut redirect = Redirect::default();
        redirect.code = 308;
        redirect.path = mesh_core::model::RedirectPath::Prefix("/new".into());
        let mut rule = Rule::prefix_to("/old", "never");
        rule.action = Action::Redirect(redirect);
        let (exchange, stats) = counted(rule, None);
        let (failure, answer) = answer(&exchange).await;
        assert_eq!((failure, answer.status.as_u16()), (Failure::Redirect, 308));
        assert_eq!(answer.headers[LOCATION], "http://a.example/new/x?q");
        assert_eq!(stats.get(HttpStat::RqDirectResponse), 1);
        assert_eq!(stats.get(HttpStat::NoCluster), 0);
    }

    #[tokio::test]
    async fn a_fixed_response_of_the_rule_is_answered_and_counted() {
        let mut response = DirectResponse::default();
        response.status = StatusCode::IM_A_TEAPOT;
        response.body = "short".into();
        let rule = Rule::new(Default::default(), Action::Respond(response));
        let (exchange, stats) = counted(rule, None);
        let (failure, answer) = answer(&exchange).await;
        assert_eq!(
            (failure, answer.status.as_u16()),
            (Failure::DirectResponse, 418)
        );
        assert_eq!(answer.body, "short");
        assert_eq!(stats.get(HttpStat::RqDirectResponse), 1);
    }

    #[tokio::test]
    async fn a_cluster_that_does_not_exist_is_answered_with_the_status_of_the_rule() {
        let (exchange, stats) = counted(Rule::prefix_to("/", "gone"), None);
        let (failure, reply) = answer(&exchange).await;
        assert_eq!((failure, reply.status.as_u16()), (Failure::NoCluster, 503));
        assert_eq!(stats.get(HttpStat::NoCluster), 1);

        let mut forward = Forward::default();
        forward.to = Target::Header(http::HeaderName::from_static("x-cluster"));
        forward.not_found = Some(StatusCode::NOT_FOUND);
        let rule = Rule::new(Default::default(), Action::Forward(forward));
        let (exchange, _) = counted(rule, None);
        let (failure, reply) = answer(&exchange).await;
        assert_eq!((failure, reply.status.as_u16()), (Failure::NoCluster, 404));
    }

    #[tokio::test]
    async fn a_request_for_a_cluster_that_exists_goes_on() {
        let (exchange, stats) = counted(Rule::prefix_to("/", "a"), Some(Cluster::new("a")));
        let service = RespondLayer::per_route().layer(Probe::new());
        let response = service.oneshot(request(&exchange)).await.unwrap();
        assert_eq!(response.status(), 200);
        let counted: Vec<_> = stats.iter().filter(|(_, _, value)| *value > 0).collect();
        assert_eq!(counted.len(), 1, "only that it got here: {counted:?}");
        assert_eq!(stats.get(HttpStat::RouterRqTotal), 1);
    }
}
