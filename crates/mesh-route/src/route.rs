//! Finds the rule for each request and records it in the request's [`Exchange`], from which every
//! layer below reads its policy.
//!
//! The route table is the one that the listener names (`Exchange::caller().routes()`), else the
//! one given to [`RouteLayer::table`]. A request without an exchange gets one. The destination of
//! a weighted split is drawn here; a cluster that does not exist is answered further down, by
//! [`RespondLayer`](crate::RespondLayer), because faults, CORS and edits come first (as in Envoy,
//! whose router filter is the last). Requests that no rule matches fail with
//! [`Failure::NoRoute`]; plain-text requests for a host that requires TLS are redirected.
//!
//! A request that already has a match is passed on as it is: of two routers the outer decides.
//!
//! The snapshot in force is pinned once for all services of a layer ([`InForce`]). Give each worker a layer
//! of its own, and none is in another's way.
//!
//! # Example
//!
//! ```
//! use mesh_core::model::{Cluster, RouteTable, Rule, SnapshotBuilder, VirtualHost};
//! use mesh_core::{Exchange, Publisher};
//! use mesh_route::RouteLayer;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! let mut builder = SnapshotBuilder::new();
//! builder.cluster(Cluster::new("reviews-v1"));
//! builder.routes(RouteTable::new("http").host(
//!     VirtualHost::new("reviews", ["reviews:9080"]).rule(Rule::prefix_to("/", "reviews-v1")),
//! ));
//! let (snapshot, _) = builder.build()?;
//! mesh_route::prepare(&snapshot);
//! let publisher = Publisher::from_arc(snapshot);
//!
//! let service = ServiceBuilder::new()
//!     .layer(RouteLayer::new(publisher.feed()).table("http"))
//!     .service(service_fn(|request: http::Request<()>| async move {
//!         let cluster = Exchange::of(&request).and_then(Exchange::cluster).expect("routed");
//!         Ok::<_, mesh_core::Error>(http::Response::new(cluster.config().name.to_string()))
//!     }));
//! # let test = async {
//! let request = http::Request::get("http://reviews:9080/1").body(()).unwrap();
//! assert_eq!(service.oneshot(request).await.unwrap().into_body(), "reviews-v1");
//! # };
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
//! # Ok::<(), mesh_core::Invalid>(())
//! ```

use crate::head::Head;
use crate::rewrite::location_with_tls;
use crate::{local, split, table};
use http::header::LOCATION;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use mesh_core::model::{Rule, Snapshot, Target};
use mesh_core::reply::Answer;
use mesh_core::rng::mix;
use mesh_core::stats::HttpStat;
use mesh_core::{
    BoxError, Caller, Error, Exchange, Failure, InForce, Matched, Name, Pinned, Rng, WallClock,
};
use pin_project::pin_project;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Route`] services.
#[derive(Clone, Debug)]
pub struct RouteLayer {
    in_force: InForce,
    table: Option<Name>,
    rng: Arc<Rng>,
}

/// A service that finds the rule for each request.
#[derive(Clone, Debug)]
pub struct Route<S> {
    inner: S,
    router: Arc<Router>,
}

/// The response future of [`Route`].
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    #[pin]
    state: State<F>,
    made: Option<Made>,
}

#[pin_project(project = StateProj)]
#[derive(Debug)]
enum State<F> {
    Calling(#[pin] F),
    Failed(Option<Error>),
}

/// An exchange that the router made itself: no layer above knows it, so what belongs on a local
/// reply has to be put there on the way out.
struct Made {
    exchange: Exchange,
    version: Version,
}

/// What all clones of one service share.
#[derive(Debug)]
pub(crate) struct Router {
    in_force: InForce,
    table: Option<Name>,
    rng: Arc<Rng>,
    /// Whether routes say something of the filters that judge, in its lowest bit, and the version of
    /// the feed at which that was so.
    policed: AtomicU64,
}

/// Why a request meets no rule.
#[derive(Debug)]
pub(crate) enum Lost {
    NoTable,
    /// None in this table of this snapshot.
    NoRoute(Pinned, usize),
    /// It has to come with TLS.
    WithoutTls(Error),
}

/// Notes on requests which rule they meet, without sending them anywhere.
#[derive(Clone, Debug)]
pub struct Notes(Arc<Router>);

// === impl RouteLayer ===

impl RouteLayer {
    /// Routes by the route tables of the snapshots of a feed, or of what layers share.
    pub fn new(in_force: impl Into<InForce>) -> Self {
        Self {
            in_force: in_force.into(),
            table: None,
            rng: Arc::new(Rng::from_system()),
        }
    }

    /// The route table for requests that did not come through a listener.
    #[must_use]
    pub fn table(mut self, name: impl Into<Name>) -> Self {
        self.table = Some(name.into());
        self
    }

    /// Where the random words for shares and weighted splits come from. Default: seeded from the
    /// operating system.
    #[must_use]
    pub fn rng(mut self, rng: Arc<Rng>) -> Self {
        self.rng = rng;
        self
    }

    /// What notes on requests which rule they meet, for those that go no further than that.
    pub fn notes(&self) -> Notes {
        Notes(self.router())
    }

    pub(crate) fn router(&self) -> Arc<Router> {
        Arc::new(Router {
            in_force: self.in_force.clone(),
            table: self.table.clone(),
            rng: self.rng.clone(),
            policed: AtomicU64::new(u64::MAX),
        })
    }
}

impl<S> Layer<S> for RouteLayer {
    type Service = Route<S>;
    fn layer(&self, inner: S) -> Route<S> {
        Route {
            inner,
            router: self.router(),
        }
    }
}

// === impl Route ===

impl<S, B, R> Service<Request<B>> for Route<S>
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
        let known = Exchange::of(&request).cloned();
        if known
            .as_ref()
            .is_some_and(|known| known.matched().is_some())
        {
            return ResponseFuture::calling(self.inner.call(request), None);
        }
        let (exchange, made) = match known {
            Some(exchange) => (exchange, None),
            None => {
                let now = tokio::time::Instant::now().into_std();
                let exchange = Exchange::without_caller(now);
                exchange.attach(&mut request);
                let made = Made {
                    exchange: exchange.clone(),
                    version: request.version(),
                };
                (exchange, Some(made))
            }
        };
        match self.router.find(&request, exchange.caller()) {
            Ok(matched) => {
                record(&exchange, matched, &request);
                ResponseFuture::calling(self.inner.call(request), made)
            }
            Err(error) => ResponseFuture {
                state: State::Failed(Some(error)),
                made: None,
            },
        }
    }
}

// === impl Notes ===

impl Notes {
    /// Which rule a request meets, if it meets one. Nothing is noted, nor counted.
    pub fn find<B>(&self, request: &Request<B>) -> Option<Matched> {
        let exchange = Exchange::of(request)?;
        match exchange.matched() {
            Some(known) => Some(known.clone()),
            None => self.0.meets(request, exchange),
        }
    }

    /// Whether a route says something of the filters that judge
    /// ([`RoutePolicies`](mesh_core::model::RoutePolicies)), in the snapshot in force.
    #[inline]
    pub fn says_policies(&self) -> bool {
        self.0.says_policies()
    }

    /// As [`find`](Self::find), and it is noted, so that it is found once
    /// ([`Exchange::foreseen`]).
    pub fn foresee<B>(&self, request: &Request<B>) -> Option<Matched> {
        let exchange = Exchange::of(request)?;
        if let Some(known) = exchange.foreseen() {
            return Some(known);
        }
        let word = exchange.route_word().unwrap_or_else(|| self.0.word());
        let found = match exchange.matched() {
            Some(known) => Some(known.clone()),
            None => self.0.look(request, exchange.caller(), word).ok(),
        };
        exchange.foresee(found.clone(), word);
        found
    }

    /// The rule that a request would meet, if there is one. Nothing is noted or counted.
    pub(crate) fn rule(&self, request: &Request<()>) -> Option<Arc<Rule>> {
        let exchange = Exchange::of(request)?;
        let matched = self.0.look(request, exchange.caller(), self.0.word());
        Some(matched.ok()?.rule().clone())
    }

    /// Notes on the exchange of a request which rule it meets, if it meets one and that is not
    /// known yet. Nothing is counted.
    pub fn note<B>(&self, request: &Request<B>) {
        let Some(exchange) = Exchange::of(request) else {
            return;
        };
        if exchange.matched().is_none()
            && let Some(matched) = self.0.meets(request, exchange)
        {
            record(exchange, matched, request);
        }
    }
}

// === impl Router ===

impl Router {
    fn find<B>(&self, request: &Request<B>, caller: &Caller) -> Result<Matched, Error> {
        let found = self.look(request, caller, self.rng.word());
        found.map_err(|lost| lost.into_error(caller))
    }

    /// The rule that a request meets, which may be known already.
    fn meets<B>(&self, request: &Request<B>, exchange: &Exchange) -> Option<Matched> {
        // Noted by requests of routes only that say something of the filters that judge.
        if self.says_policies()
            && let Some(word) = exchange.route_word()
        {
            let known = exchange.foreseen();
            return known.or_else(|| self.look(request, exchange.caller(), word).ok());
        }
        self.look(request, exchange.caller(), self.word()).ok()
    }

    #[inline]
    fn says_policies(&self) -> bool {
        let version = self.in_force.feed().version() << 1;
        let known = self.policed.load(Ordering::Relaxed);
        match known & !1 == version {
            true => known & 1 == 1,
            false => self.look_for_policies(version),
        }
    }

    #[cold]
    fn look_for_policies(&self, version: u64) -> bool {
        // The version came first: what is newer is looked at once more.
        let said = self.in_force.feed().load().says_policies();
        let known = version | u64::from(said);
        self.policed.store(known, Ordering::Relaxed);
        said
    }

    /// A random word, for [`Router::look`].
    pub(crate) fn word(&self) -> u64 {
        self.rng.word()
    }

    /// What a request meets in the snapshot in force. `word` is random and decides about shares.
    pub(crate) fn look<B>(
        &self,
        request: &Request<B>,
        caller: &Caller,
        word: u64,
    ) -> Result<Matched, Lost> {
        let pinned = self.in_force.pinned();
        let name = caller.routes().or(self.table.as_ref());
        let index = name.and_then(|name| pinned.table_index(name));
        let index = index.ok_or(Lost::NoTable)?;
        let table = &pinned.tables()[index];
        let no_route = || Lost::NoRoute(pinned.clone(), index);
        let head = Head::of(request);
        let host = table::find_host(table, &head).ok_or_else(no_route)?;
        if table.virtual_hosts[host].require_tls && !head.is_secure() {
            return Err(Lost::WithoutTls(with_tls(&head)));
        }
        let rule = table::find_rule(&table.virtual_hosts[host], &head, word);
        let rule = rule.ok_or_else(no_route)?;
        let (part, cluster) = destination(
            &table.virtual_hosts[host].rules[rule],
            &pinned,
            request,
            // The word itself has already decided about shares.
            mix(word),
        );
        Ok(Matched::new(pinned, index, host, rule).to(part, cluster))
    }
}

/// Which part of a split a rule sends to with this random word, unless the request has one of its
/// own, and which cluster of the snapshot that is, if it exists: what [`Matched::to`] takes.
pub fn destination<B>(
    rule: &Rule,
    snapshot: &Snapshot,
    request: &Request<B>,
    word: u64,
) -> (Option<usize>, Option<usize>) {
    let Some(forward) = rule.forward() else {
        return (None, None);
    };
    match &forward.to {
        Target::Cluster(name, _) => (None, snapshot.cluster_index(name)),
        Target::Weighted(parts) => {
            let word = split::word_of(forward, request).unwrap_or(word);
            let part = split::draw(parts, word);
            let cluster = part.and_then(|part| {
                let part = &parts[part];
                match named_by(part.cluster_header.as_ref(), request) {
                    Some(name) => snapshot.cluster_index(name?),
                    None => snapshot.cluster_index(&part.cluster),
                }
            });
            (part, cluster)
        }
        Target::Header(name) => {
            let name = named_by(Some(name), request).flatten();
            (None, name.and_then(|name| snapshot.cluster_index(name)))
        }
        _ => (None, None),
    }
}

/// What a request has to say where a header names the cluster. Whoever sends it is not trusted:
/// only its first value counts.
fn named_by<'a, B>(
    header: Option<&HeaderName>,
    request: &'a Request<B>,
) -> Option<Option<&'a str>> {
    let value = request.headers().get(header?);
    Some(value.and_then(|value| value.to_str().ok()))
}

/// Writes down what was found for a request, and what the rule's response edits need of it: what a
/// router does, for whoever decides in its place. Only the first match of an exchange counts.
pub fn record<B>(exchange: &Exchange, matched: Matched, request: &Request<B>) {
    local::keep(exchange, &matched, request);
    exchange.set_matched(matched);
}

fn with_tls(head: &Head<'_>) -> Error {
    let mut answer = Answer::new(StatusCode::MOVED_PERMANENTLY);
    if let Ok(location) = HeaderValue::try_from(location_with_tls(head)) {
        answer.headers.insert(LOCATION, location);
    }
    Error::answer(Failure::Redirect, answer)
}

// === impl ResponseFuture ===

impl<F> ResponseFuture<F> {
    fn calling(inner: F, made: Option<Made>) -> Self {
        Self {
            state: State::Calling(inner),
            made,
        }
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<R>, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.state.project() {
            StateProj::Failed(error) => Poll::Ready(Err(error
                .take()
                .expect("a future is not polled after it was ready"))),
            StateProj::Calling(inner) => inner.poll(cx).map_err(|error| {
                let error = Error::wrap(error);
                match this.made.take() {
                    Some(made) => made.dress(error),
                    None => error,
                }
            }),
        }
    }
}

// === impl Made ===

impl Made {
    fn dress(self, error: Error) -> Error {
        if !local::dresses(&self.exchange) {
            return error;
        }
        self.exchange.note_error(&error);
        let failure = error.failure();
        let clock = WallClock::system();
        let answer = local::dress(error, &self.exchange, self.version, &clock);
        Error::answer(failure, answer)
    }
}

impl fmt::Debug for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.exchange.fmt(f)
    }
}

// === impl Lost ===

impl Lost {
    /// What the caller gets; it is counted.
    pub(crate) fn into_error(self, caller: &Caller) -> Error {
        match self {
            Self::NoTable | Self::NoRoute(..) => {
                // In Envoy it is the router that finds no route.
                caller.count(HttpStat::RouterRqTotal);
                caller.count(HttpStat::NoRoute);
                Error::new(Failure::NoRoute)
            }
            Self::WithoutTls(error) => {
                caller.count(HttpStat::RouterRqTotal);
                caller.count(HttpStat::RqDirectResponse);
                error
            }
        }
    }
}

#[cfg(test)]
mod tests;
