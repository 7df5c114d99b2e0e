//! Waits for what a request needs and the configuration does not have: a virtual host, a cluster.
//!
//! Only requests through a manager with
//! [`HttpManager::on_demand`](mesh_core::model::HttpManager::on_demand) wait (Envoy's filter
//! `envoy.filters.http.on_demand`):
//!
//! * no rule matches in a table that has its virtual hosts on demand: for the virtual host of the
//!   request's authority, in lower case, port included;
//! * the rule names a cluster that does not exist, and the rule, its virtual host or the manager,
//!   whichever says something first, has clusters on demand: for that.
//!
//! When the wait ends, the request is routed with the snapshot in force then, with the same random
//! word as before; a virtual host may be followed by its cluster. Each is waited for once: what does
//! not exist or does not come in time is answered as ever (404 NR, 503 NC).
//!
//! The layer stands directly above [`RouteLayer`], which takes its match as it is; a request that
//! met no rule here is not routed again, since shares would be drawn a second time. The body of a request that waits is not read; its caller is held up by flow control. (Envoy
//! answers 404 there if the request had not ended when its virtual host came.) A response future
//! that is dropped no longer waits.

use crate::route::{Lost, RouteLayer, Router, record};
use http::header::HOST;
use http::{Request, Response};
use mesh_core::demand::{Answered, Missing, Outcome};
use mesh_core::model::{ClustersOnDemand, HttpManager, Target};
use mesh_core::stats::HttpStat;
use mesh_core::{BoxError, Caller, Demand, Error, Exchange, Matched, Name};
use pin_project::pin_project;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Sleep, sleep};
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`OnDemand`] services.
#[derive(Clone, Debug)]
pub struct OnDemandLayer {
    route: RouteLayer,
    demand: Option<Demand>,
}

/// A service in which requests wait for what they need.
#[derive(Clone, Debug)]
pub struct OnDemand<S> {
    inner: S,
    /// None: nothing is asked for.
    asks: Option<Asks>,
}

#[derive(Clone, Debug)]
struct Asks {
    router: Arc<Router>,
    demand: Demand,
}

/// The response future of [`OnDemand`].
#[pin_project]
pub struct ResponseFuture<S: Service<Request<B>>, B> {
    #[pin]
    state: State<S, B, S::Future>,
}

#[pin_project(project = StateProj)]
enum State<S, B, F> {
    Calling(#[pin] F),
    Waiting(Option<Box<Waiting<S, B>>>),
    Failed(Option<Error>),
}

/// A request that waits.
struct Waiting<S, B> {
    /// Ready.
    inner: S,
    request: Request<B>,
    exchange: Exchange,
    asks: Asks,
    word: u64,
    answered: Answered,
    limit: Option<Pin<Box<Sleep>>>,
    waited: Waited,
}

/// What was waited for already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Waited {
    host: bool,
    cluster: bool,
}

/// What is done with a request.
#[derive(Debug)]
enum Decision {
    /// It goes on with this match.
    Go(Matched),
    /// It meets no rule.
    Fail(Lost),
    /// It waits for this, at most so long.
    Wait(Missing, Option<Duration>),
}

// === impl OnDemandLayer ===

impl OnDemandLayer {
    /// Requests wait for what `demand` gets, and are routed as by `route`. Without a demand nothing
    /// waits.
    pub fn new(route: RouteLayer, demand: Option<Demand>) -> Self {
        Self { route, demand }
    }
}

impl<S> Layer<S> for OnDemandLayer {
    type Service = OnDemand<S>;
    fn layer(&self, inner: S) -> OnDemand<S> {
        let asks = self.demand.clone().map(|demand| Asks {
            router: self.route.router(),
            demand,
        });
        OnDemand { inner, asks }
    }
}

// === impl OnDemand ===

impl<S, B, R> Service<Request<B>> for OnDemand<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Response<R>;
    type Error = Error;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::wrap)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let asks = self.asks.as_ref();
        let asks = asks.and_then(|asks| Some((asks, Exchange::of(&request)?)));
        let asks = asks.filter(|(_, exchange)| {
            let manager = exchange.caller().manager.as_ref();
            manager.is_some_and(|manager| manager.on_demand.is_some())
                && exchange.matched().is_none()
        });
        let Some((asks, exchange)) = asks else {
            return ResponseFuture::calling(self.inner.call(request));
        };
        let word = exchange.route_word();
        let word = word.unwrap_or_else(|| asks.router.word());
        let waited = Waited::default();
        match asks.decide(&request, exchange.caller(), word, waited) {
            Decision::Go(matched) => {
                record(exchange, matched, &request);
                ResponseFuture::calling(self.inner.call(request))
            }
            Decision::Fail(lost) => ResponseFuture {
                state: State::Failed(Some(lost.into_error(exchange.caller()))),
            },
            Decision::Wait(missing, limit) => {
                let (asks, exchange) = (asks.clone(), exchange.clone());
                let clone = self.inner.clone();
                let (answered, limit, waited) = asks.ask(missing, limit, waited, &exchange);
                let waiting = Waiting {
                    inner: std::mem::replace(&mut self.inner, clone),
                    request,
                    exchange,
                    asks,
                    word,
                    answered,
                    limit,
                    waited,
                };
                ResponseFuture {
                    state: State::Waiting(Some(Box::new(waiting))),
                }
            }
        }
    }
}

// === impl Asks ===

impl Asks {
    fn decide<B>(
        &self,
        request: &Request<B>,
        caller: &Caller,
        word: u64,
        waited: Waited,
    ) -> Decision {
        let found = self.router.look(request, caller, word);
        decide(request, caller.manager.as_deref(), found, waited)
    }

    fn ask(
        &self,
        missing: Missing,
        limit: Option<Duration>,
        mut waited: Waited,
        exchange: &Exchange,
    ) -> (Answered, Option<Pin<Box<Sleep>>>, Waited) {
        match missing {
            Missing::VirtualHost { .. } => waited.host = true,
            _ => waited.cluster = true,
        }
        exchange.caller().count(HttpStat::OnDemandAttempt);
        let limit = limit.map(|limit| Box::pin(sleep(limit)));
        (self.demand.ask(missing), limit, waited)
    }
}

fn decide<B>(
    request: &Request<B>,
    manager: Option<&HttpManager>,
    found: Result<Matched, Lost>,
    waited: Waited,
) -> Decision {
    match found {
        Err(Lost::NoRoute(pinned, table)) => {
            let hosts = pinned.tables()[table].on_demand.as_ref();
            let hosts = hosts.filter(|_| !waited.host);
            match hosts.zip(authority(request)) {
                None => Decision::Fail(Lost::NoRoute(pinned, table)),
                Some((hosts, host)) => {
                    let table = hosts.table.clone();
                    Decision::Wait(Missing::VirtualHost { table, host }, hosts.wait)
                }
            }
        }
        Err(lost) => Decision::Fail(lost),
        Ok(matched) => {
            let says = matched.rule().on_demand.or(matched.host().on_demand);
            let says = says.or_else(|| manager?.on_demand);
            match (says, missing_cluster(request, &matched)) {
                (Some(ClustersOnDemand::Within(limit)), Some(name)) if !waited.cluster => {
                    Decision::Wait(Missing::Cluster(name), Some(limit))
                }
                _ => Decision::Go(matched),
            }
        }
    }
}

/// The authority by which a virtual host is asked for.
fn authority<B>(request: &Request<B>) -> Option<Name> {
    let host = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => request.headers().get(HOST)?.to_str().ok()?,
    };
    (!host.is_empty()).then(|| host.to_ascii_lowercase().into())
}

/// The cluster that a request wants and that does not exist.
fn missing_cluster<B>(request: &Request<B>, matched: &Matched) -> Option<Name> {
    if matched.cluster().is_some() {
        return None;
    }
    let header = match &matched.forward()?.to {
        Target::Header(header) => Some(header),
        _ => matched.weighted().and_then(|it| it.cluster_header.as_ref()),
    };
    match header {
        Some(header) => {
            let value = request.headers().get(header)?.to_str().ok()?;
            (!value.is_empty()).then(|| value.into())
        }
        None => matched.cluster_name().cloned(),
    }
}

// === impl Waiting ===

impl<S, B> Waiting<S, B> {
    /// Waits for what was asked for and for whatever turns out to be missing then; ready when the
    /// request can go on, or meets no rule.
    #[inline]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            let counted = match self.answered.as_mut().poll(cx) {
                Poll::Ready(Outcome::Came) => HttpStat::OnDemandSuccess,
                Poll::Ready(Outcome::Refused) => HttpStat::OnDemandRefused,
                Poll::Ready(_) => HttpStat::OnDemandMissing,
                Poll::Pending => {
                    let limit = self.limit.as_mut();
                    match limit.map(|limit| limit.as_mut().poll(cx)) {
                        Some(Poll::Ready(())) => HttpStat::OnDemandTimeout,
                        _ => return Poll::Pending,
                    }
                }
            };
            let caller = self.exchange.caller();
            caller.count(counted);
            match self
                .asks
                .decide(&self.request, caller, self.word, self.waited)
            {
                Decision::Go(matched) => {
                    record(&self.exchange, matched, &self.request);
                    return Poll::Ready(Ok(()));
                }
                Decision::Fail(lost) => return Poll::Ready(Err(lost.into_error(caller))),
                Decision::Wait(missing, limit) => {
                    let asked = self.asks.ask(missing, limit, self.waited, &self.exchange);
                    (self.answered, self.limit, self.waited) = asked;
                }
            }
        }
    }
}

// === impl ResponseFuture ===

impl<S: Service<Request<B>>, B> ResponseFuture<S, B> {
    fn calling(inner: S::Future) -> Self {
        Self {
            state: State::Calling(inner),
        }
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<R>, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Calling(inner) => return inner.poll(cx).map_err(Error::wrap),
                // Waiting ─► Calling
                StateProj::Waiting(waiting) => {
                    if let Some(waiting) = waiting {
                        ready!(waiting.poll(cx))?;
                    }
                    let waiting = waiting.take();
                    let mut waiting = *waiting.expect("a request that waits is called once");
                    let inner = waiting.inner.call(waiting.request);
                    this.state.set(State::Calling(inner));
                }
                StateProj::Failed(error) => {
                    let error = error.take();
                    let error = error.expect("a future is not polled after it was ready");
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

impl<S: Service<Request<B>>, B> fmt::Debug for ResponseFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Calling(_) => "calling",
            State::Waiting(_) => "waiting",
            State::Failed(_) => "failed",
        };
        f.debug_struct("ResponseFuture")
            .field("state", &state)
            .finish()
    }
}

#[cfg(test)]
mod tests;
