//! Judges requests by the policies of their listener, before they go anywhere.
//!
//! Outside routing, because what is denied must not tell whether there is a route, nor have anything
//! asked for on demand. Access logs say which route it would have taken nevertheless, as in Envoy.
//!
//! Where a service has to be asked, the request waits for its answer here; the call goes to the
//! service's cluster as any other request does, but it is tried once.

mod authorizer;

pub use authorizer::{Authorizer, Authorizers};

use crate::Body;
use crate::on_route::Routes;
use http::{Request, Response};
use mesh_core::model::HttpManager;
use mesh_core::{BoxError, Error, Exchange, Failure};
use mesh_policy::Step;
use mesh_policy::external::{Checked, Consulted, consult_on};
use mesh_route::route::{Notes, record};
use pin_project::pin_project;
use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tower_service::Service;

/// A service that lets through what policies allow.
#[derive(Clone, Debug)]
pub struct Guard<S> {
    inner: S,
    notes: Notes,
    authorizers: Arc<Authorizers>,
    part: Part,
}

/// Which of a listener's rules judge.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// Those before tokens are asked for (`HttpManager::authn_at`).
    BeforeTokens,
    /// All others.
    AfterTokens,
}

/// The response future of [`Guard`].
#[pin_project(project = Proj)]
pub enum ResponseFuture<F, R> {
    /// Let through.
    Going(#[pin] F),
    /// A service is asked first.
    Asking(Pin<Box<dyn Future<Output = Result<R, Error>> + Send>>),
    /// Denied; none once it was told.
    Denied(Option<Error>),
}

// === impl Guard ===

impl<S> Guard<S> {
    pub(crate) fn new(inner: S, notes: Notes, authorizers: Arc<Authorizers>, part: Part) -> Self {
        Self {
            inner,
            notes,
            authorizers,
            part,
        }
    }

    /// Judges by the rules of its part from this place on.
    #[inline]
    fn step(&self, request: &Request<Body>, from: usize) -> Result<Step, Error> {
        let manager = Exchange::of(request).and_then(|one| one.caller().manager.as_ref());
        let Some(manager) = manager.filter(|manager| !manager.authz.is_empty()) else {
            return Ok(Step::Admitted);
        };
        let first = match manager.authn {
            Some(_) => manager.authn_at,
            None => 0,
        };
        let places = match self.part {
            Part::BeforeTokens => from..first,
            Part::AfterTokens => from.max(first)..usize::MAX,
        };
        if places.is_empty() {
            return Ok(Step::Admitted);
        }
        if self.notes.says_policies() {
            return self.step_on_route(manager, request, places);
        }
        mesh_policy::step(request, places)
    }

    /// The same where routes say something of the rules.
    #[cold]
    fn step_on_route(
        &self,
        manager: &HttpManager,
        request: &Request<Body>,
        places: Range<usize>,
    ) -> Result<Step, Error> {
        let routes = Routes::of(&self.notes, request);
        let step = mesh_policy::step_on(routes.on(), request, places)?;
        if step == Step::Admitted && matches!(self.part, Part::AfterTokens) {
            routes.keep(manager, request);
        }
        Ok(step)
    }

    /// Asks the service at this place, and judges on.
    async fn asking<R>(
        mut self,
        mut at: usize,
        mut request: Request<Body>,
    ) -> Result<Response<R>, Error>
    where
        S: Service<Request<Body>, Response = Response<R>>,
        S::Error: Into<BoxError>,
    {
        loop {
            request = self.ask(at, request).await?;
            match self.step(&request, at + 1) {
                Ok(Step::Admitted) => break,
                Ok(Step::Ask(next)) => at = next,
                Err(error) => {
                    self.notes.note(&request);
                    return Err(error);
                }
            }
        }
        let ready = poll_fn(|cx| self.inner.poll_ready(cx)).await;
        ready.map_err(Error::wrap)?;
        self.inner.call(request).await.map_err(Error::wrap)
    }

    /// Asks the service at this place, once.
    async fn ask(&self, at: usize, request: Request<Body>) -> Result<Request<Body>, Error> {
        let manager = Exchange::of(&request).and_then(|one| one.caller().manager.clone());
        let manager = manager.ok_or(Failure::Internal)?;
        let asked = mesh_policy::judges(&manager).external(at);
        let (external, stats) = asked.ok_or(Failure::Internal)?;
        // Tokens that come later may want the route anew; until then it is that of the request as it
        // came, which is noted.
        let for_tokens = matches!(self.part, Part::BeforeTokens) && clears_route(&manager);
        let found = match for_tokens {
            true => self.notes.foresee(&request),
            false => self.notes.find(&request),
        };
        // As in Envoy nobody is asked about what has no route. What is there on demand is not found
        // before somebody waited for it, which is not done here.
        if found.is_none() && manager.on_demand.is_none() {
            return Ok(request);
        }
        // The route is that of the request as it came, unless it has to be found anew.
        let anew = external.clear_route || manager.on_demand.is_some() || for_tokens;
        let exchange = Exchange::of(&request).cloned();
        let mut later = None;
        match (found, &exchange) {
            (Some(found), Some(_)) if anew => later = Some((found, copy(&request))),
            (Some(found), Some(exchange)) if exchange.matched().is_none() => {
                record(exchange, found, &request);
            }
            _ => {}
        }
        let authorizer = self.authorizers.of(external, &request);
        let routes = match self.notes.says_policies() {
            true => Routes::of(&self.notes, &request),
            false => Routes::default(),
        };
        let consulted = consult_on(routes.on(), external, stats, authorizer, request);
        let error = match consulted.await {
            Ok(Consulted { request, .. }) => {
                // It may have changed, and logs tell of it as it goes on.
                if let Some(exchange) = &exchange {
                    exchange.note_head(&request);
                    if external.clear_route {
                        exchange.forget_foreseen();
                    }
                }
                return Ok(request.map(plain));
            }
            Err(error) => error,
        };
        if let Some(exchange) = exchange {
            if let Some((found, before)) = later.filter(|_| exchange.matched().is_none()) {
                record(&exchange, found, &before);
            }
            // Counted as if the cluster had said so (Envoy `charge_cluster_response_stats`).
            if let (Failure::CheckDenied(_), Some(cluster)) = (error.failure(), exchange.cluster())
            {
                let stats = cluster.live().stats();
                stats.answered(exchange.shard(), error.status());
            }
        }
        Err(error)
    }
}

/// Whether a token may lead a request elsewhere than where it came to.
fn clears_route(manager: &HttpManager) -> bool {
    let authn = manager.authn.as_ref();
    authn.is_some_and(|authn| authn.providers.iter().any(|it| it.clear_route))
}

/// The head of a request, with its exchange.
fn copy(request: &Request<Body>) -> Request<()> {
    let mut copy = Request::new(());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    copy.headers_mut().clone_from(request.headers());
    if let Some(exchange) = Exchange::of(request) {
        exchange.attach(&mut copy);
    }
    copy
}

/// The body itself, where nothing of it was read.
fn plain(body: Checked<Body>) -> Body {
    match body.into_whole() {
        Ok(body) => body,
        Err(read) => Body::new(read),
    }
}

impl<S, R> Service<Request<Body>> for Guard<S>
where
    R: 'static,
    S: Service<Request<Body>, Response = Response<R>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    type Response = Response<R>;
    type Error = Error;
    type Future = ResponseFuture<S::Future, Response<R>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::wrap)
    }

    #[inline]
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.step(&request, 0) {
            Ok(Step::Admitted) => ResponseFuture::Going(self.inner.call(request)),
            Ok(Step::Ask(at)) => {
                let asking = self.clone().asking(at, request);
                ResponseFuture::Asking(Box::pin(asking))
            }
            Err(error) => {
                self.notes.note(&request);
                ResponseFuture::Denied(Some(error))
            }
        }
    }
}

// === impl ResponseFuture ===

impl<F, R, E> Future for ResponseFuture<F, R>
where
    F: Future<Output = Result<R, E>>,
    E: Into<BoxError>,
{
    type Output = Result<R, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Proj::Going(inner) => Poll::Ready(ready!(inner.poll(cx)).map_err(Error::wrap)),
            Proj::Asking(asking) => asking.as_mut().poll(cx),
            Proj::Denied(error) => {
                let error = error.take();
                Poll::Ready(Err(error.unwrap_or_else(|| Error::new(Failure::Denied))))
            }
        }
    }
}

impl<F, R> fmt::Debug for ResponseFuture<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Going(_) => "Going",
            Self::Asking(_) => "Asking",
            Self::Denied(_) => "Denied",
        })
    }
}

#[cfg(test)]
mod tests;
