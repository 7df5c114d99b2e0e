//! Asks requests for the tokens that their listener wants, before anything else looks at them.
//!
//! Outside of routing, because routes may go by what a token says. Where they do not
//! (`JwtProvider::clear_route`), the route is that of the head as it came, as in Envoy: taking a
//! token off, or writing what it says into a header, leads nowhere else.

use crate::jwks::Fetcher;
use crate::on_route::Routes;
use http::{Request, Response};
use mesh_core::model::{Authn as Tokens, HttpManager};
use mesh_core::{BoxError, Error, Exchange, Failure, WallClock};
use mesh_policy::jwt::{Keys, Now, Passed, Step, step_on};
use mesh_route::route::{Notes, record};
use pin_project::pin_project;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;
use tokio::time::Instant;
use tower_service::Service;

/// A service that lets through who brings the tokens that the listener asks for.
#[derive(Clone, Debug)]
pub struct Authn<S> {
    inner: S,
    with: Arc<With>,
}

#[derive(Debug)]
struct With {
    notes: Notes,
    fetcher: Fetcher,
    clock: WallClock,
}

/// The response future of [`Authn`].
#[pin_project]
pub struct ResponseFuture<S: Service<Request<B>>, B> {
    #[pin]
    state: State<S, B, S::Future>,
}

#[pin_project(project = StateProj)]
enum State<S, B, F> {
    /// Let through.
    Going(#[pin] F),
    /// Keys are on their way; none once it goes on.
    Waiting(Option<Box<Waiting<S, B>>>),
    /// Refused; none once it was told.
    Refused(Option<Error>),
}

/// A request that waits for keys.
struct Waiting<S, B> {
    /// Ready.
    inner: S,
    request: Request<B>,
    manager: Arc<HttpManager>,
    with: Arc<With>,
    keys: Keys,
}

// === impl Authn ===

impl<S> Authn<S> {
    pub(crate) fn new(inner: S, notes: Notes, fetcher: Fetcher) -> Self {
        let with = With {
            notes,
            fetcher,
            clock: WallClock::system(),
        };
        Self {
            inner,
            with: Arc::new(with),
        }
    }
}

impl<S, B, R> Service<Request<B>> for Authn<S>
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

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let manager = Exchange::of(&request).and_then(|it| it.caller().manager.as_ref());
        let manager = manager.filter(|manager| manager.authn.is_some()).cloned();
        let state = match manager {
            None => State::Going(self.inner.call(request)),
            Some(manager) => match self.with.look(&manager, &mut request) {
                Looked::Through => State::Going(self.inner.call(request)),
                Looked::Refused(error) => State::Refused(Some(error)),
                Looked::Waits(keys) => {
                    let clone = self.inner.clone();
                    State::Waiting(Some(Box::new(Waiting {
                        inner: std::mem::replace(&mut self.inner, clone),
                        request,
                        manager,
                        with: self.with.clone(),
                        keys,
                    })))
                }
            },
        };
        ResponseFuture { state }
    }
}

/// What became of a request.
enum Looked {
    Through,
    Refused(Error),
    Waits(Keys),
}

// === impl With ===

impl With {
    fn look<B>(&self, manager: &HttpManager, request: &mut Request<B>) -> Looked {
        let Some(authn) = &manager.authn else {
            return Looked::Through;
        };
        let says = self.notes.says_policies();
        let routes = match says {
            true => Routes::of(&self.notes, request),
            false => Routes::default(),
        };
        if routes.on().goes_round(Tokens::FILTER) {
            self.settle(manager, request);
            return Looked::Through;
        }
        let asked = routes.on().tokens();
        match step_on(asked, authn, &*request, Some(&self.fetcher), self.now()) {
            Step::Through(passed) => {
                self.pass(manager, passed, request);
                if says {
                    self.settle(manager, request);
                }
                Looked::Through
            }
            Step::Refused(error) => {
                // Claims of another token may have led it elsewhere before.
                let exchange = Exchange::of(&*request);
                let led = exchange.filter(|it| it.claims().is_some());
                if let Some(exchange) = led {
                    exchange.forget_foreseen();
                }
                if led.is_some() || !keep_foreseen(manager, request) {
                    self.notes.note(request);
                }
                Looked::Refused(error)
            }
            Step::Waits(keys) => Looked::Waits(keys),
        }
    }

    fn pass<B>(&self, manager: &HttpManager, passed: Passed, request: &mut Request<B>) {
        // What is missing would not be asked for if the route were known before.
        let clears = passed.clears_route();
        let keeps = !clears && manager.on_demand.is_none();
        if keeps && !keep_foreseen(manager, request) && passed.changes() {
            self.notes.note(request);
        }
        passed.apply(request);
        if let Some(exchange) = Exchange::of(request).filter(|_| clears) {
            exchange.forget_foreseen();
        }
    }

    /// Where nobody judges behind, the request goes on by the route that it was judged by.
    #[cold]
    fn settle<B>(&self, manager: &HttpManager, request: &Request<B>) {
        if manager.authz.len() <= manager.authn_at {
            Routes::of(&self.notes, request).keep(manager, request);
        }
    }

    fn now(&self) -> Now {
        let since = self.clock.now().duration_since(SystemTime::UNIX_EPOCH);
        Now {
            instant: Instant::now().into_std(),
            // Before 1970 no token expires.
            since_epoch: since.unwrap_or_default(),
        }
    }
}

/// Keeps the route that a request came to, where a service was asked about it before tokens: it may
/// have changed the request since. Whether there was one.
fn keep_foreseen<B>(manager: &HttpManager, request: &Request<B>) -> bool {
    if manager.authn_at == 0 {
        return false;
    }
    let exchange = Exchange::of(request).filter(|it| it.matched().is_none());
    let Some((exchange, route)) = exchange.and_then(|it| Some((it, it.foreseen()?))) else {
        return false;
    };
    record(exchange, route, request);
    true
}

// === impl ResponseFuture ===

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<R>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Going(inner) => {
                    return Poll::Ready(ready!(inner.poll(cx)).map_err(Error::wrap));
                }
                StateProj::Refused(error) => {
                    let error = error.take();
                    let again = || Error::new(Failure::Unauthenticated);
                    return Poll::Ready(Err(error.unwrap_or_else(again)));
                }
                StateProj::Waiting(waiting) => {
                    let Some(waits) = waiting else {
                        return Poll::Ready(Err(Error::new(Failure::Unauthenticated)));
                    };
                    ready!(Pin::new(&mut waits.keys).poll(cx));
                    match waits.with.look(&waits.manager, &mut waits.request) {
                        // Another provider's, or whoever got them gave up.
                        Looked::Waits(keys) => {
                            waits.keys = keys;
                            continue;
                        }
                        Looked::Refused(error) => State::Refused(Some(error)),
                        Looked::Through => match waiting.take() {
                            Some(mut waits) => State::Going(waits.inner.call(waits.request)),
                            None => State::Refused(None),
                        },
                    }
                }
            };
            this.state.set(next);
        }
    }
}

impl<S: Service<Request<B>>, B> fmt::Debug for ResponseFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}
