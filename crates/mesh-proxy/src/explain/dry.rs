//! A request through the layers that serve traffic, with a recorder in place of the network.
//!
//! Admission, routing, CORS, header edits, redirects and fixed responses, hashing: what they decide
//! follows from the request and the configuration alone, so none of them waits. The layers that
//! draw, count or wait (faults, limits, mirrors, retries, timeouts) are left out.

use super::{authn, authz};
use crate::http::admit::AdmitLayer;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, request};
use http_body_util::Empty;
use mesh_core::model::{Fraction, Rule, Snapshot, Target, VirtualHost};
use mesh_core::{Error, Exchange, Failure, Matched, Pinned, Publisher, Rng};
use mesh_policy::jwt::Step;
use mesh_route::route::{destination, record};
use mesh_route::{
    CorsLayer, EditLayer, Explanation, HashLayer, Head, ReplyLayer, RespondLayer, RouteLayer,
};
use serde_json::Value;
use std::future::{Ready, ready};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tower_layer::Layer;
use tower_service::Service;

type Body = Empty<Bytes>;

/// What is to be explained.
pub(super) struct Asked {
    /// The head as it arrived, or as it was after admission.
    pub(super) request: Request<()>,
    /// Who calls. Where it has a match, that was the router's decision.
    pub(super) exchange: Exchange,
    /// Admission has seen the request.
    pub(super) admitted: bool,
}

/// What became of it.
pub(super) struct Ran {
    pub(super) exchange: Exchange,
    /// What routing saw and why it decided as it did; none where the request was refused before, or
    /// there is no such table.
    pub(super) told: Option<Told>,
    /// The head as it goes out; none where it does not.
    pub(super) sent: Option<request::Parts>,
    /// The answer that the proxy makes itself, if it does.
    pub(super) answer: Option<Answered>,
}

/// What routing saw.
pub(super) struct Told {
    pub(super) seen: Request<()>,
    pub(super) explanation: Explanation,
    /// What is found about tokens, in words, where they are asked for.
    pub(super) tokens: Option<Value>,
    /// What policies say, in words.
    pub(super) judged: Vec<Value>,
}

/// An answer that comes from the proxy.
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) failure: Option<Failure>,
}

/// What is noted on the way.
#[derive(Default)]
struct Notes {
    told: Option<Told>,
    sent: Option<request::Parts>,
}

type Shared = Arc<Mutex<Notes>>;

/// Above the router: notes what it is about to decide, and decides between parts of a split.
struct Judge<S> {
    inner: S,
    snapshot: Arc<Snapshot>,
    notes: Shared,
}

/// In place of everything below.
struct Recorder(Shared);

/// Runs a request.
pub(super) fn run(snapshot: &Arc<Snapshot>, asked: Asked) -> Ran {
    let notes = Shared::default();
    let stack = HashLayer::per_route().layer(Recorder(notes.clone()));
    let stack = RespondLayer::per_route().layer(stack);
    let stack = EditLayer::per_route().layer(stack);
    let stack = CorsLayer::per_route().layer(stack);
    let feed = Publisher::from_arc(snapshot.clone()).feed();
    let route = RouteLayer::new(feed);
    let upgrades = route.notes();
    let stack = route.layer(stack);
    let stack = Judge {
        inner: stack,
        snapshot: snapshot.clone(),
        notes: notes.clone(),
    };
    let exchange = asked.exchange;
    let mut request = asked.request.map(|()| Body::new());
    exchange.attach(&mut request);
    let response = match asked.admitted {
        true => at_once(&mut ReplyLayer::new().layer(stack), request),
        false => {
            let admit = AdmitLayer::new(Arc::new(Rng::with_seed(0)), upgrades);
            at_once(&mut ReplyLayer::new().layer(admit.layer(stack)), request)
        }
    };
    let Notes { told, sent } = std::mem::take(&mut *lock(&notes));
    let answer = response.filter(|_| sent.is_none());
    Ran {
        answer: answer.map(|(status, headers)| Answered {
            status,
            headers,
            failure: exchange.with_notes(|notes| notes.failure),
        }),
        exchange,
        told,
        sent,
    }
}

/// A head again: neither a body nor what came with it is explained.
pub(super) fn head_of<B>(request: &Request<B>) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.version_mut() = request.version();
    *head.headers_mut() = request.headers().clone();
    head
}

/// The response of a service that waits for nothing.
fn at_once<S, R>(service: &mut S, request: Request<Body>) -> Option<(StatusCode, HeaderMap)>
where
    S: Service<Request<Body>, Response = Response<R>>,
{
    let response = pin!(service.call(request));
    match response.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(response)) => {
            let (head, _) = response.into_parts();
            Some((head.status, head.headers))
        }
        _ => None,
    }
}

fn lock(notes: &Shared) -> MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Judge ===

impl<S> Judge<S> {
    fn look(&self, request: &Request<Body>) -> Option<Told> {
        let (explanation, matched) = self.find(request)?;
        if let (Some(exchange), Some(matched)) = (Exchange::of(request), matched) {
            record(exchange, matched, request);
        }
        Some(Told {
            seen: head_of(request),
            explanation,
            tokens: None,
            judged: Vec::new(),
        })
    }

    /// What the router would decide.
    fn find(&self, request: &Request<Body>) -> Option<(Explanation, Option<Matched>)> {
        let exchange = Exchange::of(request)?;
        let table = exchange.caller().routes()?;
        let table = self.snapshot.table_index(table)?;
        let head = Head::of(request);
        let routes = &self.snapshot.tables()[table];
        let found = exchange
            .matched()
            .map(|matched| (matched.host().clone(), matched.rule_index()));
        let told = |word| mesh_route::explain(routes, &head, word);
        let explanation = match &found {
            // A rule's share of requests is for the smallest words.
            None => told(0),
            Some((host, rule)) => told(word_for(host, *rule)),
        };
        // As the router would: it leaves alone what has a match.
        let mut met = exchange.matched().cloned();
        if let (None, Some((host, rule))) = (&met, explanation.found()) {
            let virtual_host = &routes.virtual_hosts[host];
            // The router answers those itself.
            if !virtual_host.require_tls || head.is_secure() {
                let chosen = &virtual_host.rules[rule];
                let word = heaviest(chosen);
                let (part, cluster) = destination(chosen, &self.snapshot, request, word);
                let pinned = Pinned::new(self.snapshot.clone());
                met = Some(Matched::new(pinned, table, host, rule).to(part, cluster));
            }
        }
        Some((explanation, met))
    }
}

/// A word with which a rule may have been found: who decided did not keep it. It is the smallest
/// that is in the share of the rule itself and in that of no rule before it.
fn word_for(host: &VirtualHost, rule: usize) -> u64 {
    let shares = host.rules[..rule]
        .iter()
        .filter_map(|rule| rule.condition.share);
    let own = host.rules[rule].condition.share;
    let own = own.map_or(Fraction::ALL, |own| own).as_millionths();
    let outside = shares
        .map(Fraction::as_millionths)
        .filter(|share| *share < own);
    outside.max().map_or(0, u64::from)
}

/// A word that falls on the destination with the largest weight.
fn heaviest(rule: &Rule) -> u64 {
    let Some(Target::Weighted(parts)) = rule.forward().map(|forward| &forward.to) else {
        return 0;
    };
    let most = parts.iter().map(|part| part.weight).max().unwrap_or(0);
    let before = parts.iter().take_while(|part| part.weight < most);
    before.map(|part| u64::from(part.weight)).sum()
}

impl<S> Service<Request<Body>> for Judge<S>
where
    S: Service<Request<Body>, Error = Error>,
    S::Future: 'static,
    S::Response: 'static,
{
    type Response = S::Response;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, Error>>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let (mut told, mut tokens, mut refused) = (None, None, None);
        if self.snapshot.says_policies()
            && let Some((_, matched)) = self.find(&request)
            && let Some(exchange) = Exchange::of(&request)
        {
            exchange.foresee(matched, 0);
        }
        if let Some((words, step)) = authn::of_request(&self.snapshot, &request) {
            tokens = Some(words);
            match step {
                Step::Through(passed) => {
                    // As where traffic is served: the route is the one that it had before.
                    if passed.changes() && !passed.clears_route() {
                        told = self.look(&request);
                    }
                    passed.apply(&mut request);
                }
                Step::Refused(error) => refused = Some(error),
                Step::Waits(_) => {}
            }
        }
        let mut told = told.or_else(|| self.look(&request));
        let (judged, denied) = match &refused {
            // Nobody asks those who judge.
            Some(_) => (Vec::new(), None),
            None => authz::of_request(&self.snapshot, &request),
        };
        if let Some(told) = &mut told {
            told.tokens = tokens;
            told.judged = judged;
        }
        lock(&self.notes).told = told;
        match refused.or(denied) {
            // Above routing, as where traffic is served.
            Some(error) => Box::pin(ready(Err(error))),
            None => Box::pin(self.inner.call(request)),
        }
    }
}

// === impl Recorder ===

impl Service<Request<Body>> for Recorder {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Ready<Result<Response<Body>, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        lock(&self.0).sent = Some(request.into_parts().0);
        ready(Ok(Response::new(Body::new())))
    }
}
