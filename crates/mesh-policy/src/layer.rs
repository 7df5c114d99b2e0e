//! Lets through what policies allow; anything else fails with [`Failure::Denied`] (403, `RBAC:
//! access denied`), whose cause is the name of the policy.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response};
//! use mesh_core::model::{
//!     Authz, AuthzAction, AuthzPolicy, AuthzRules, Fact, Predicate, StringMatch,
//! };
//! use mesh_core::{BoxError, Failure};
//! use mesh_policy::AuthzLayer;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let admin = Predicate::Fact(Fact::Path(StringMatch::Prefix("/admin".into())));
//! let policy = AuthzPolicy::new("no-admin", admin, Predicate::Always);
//! let mut authz = Authz::default();
//! authz.rules = Some(AuthzRules::new(AuthzAction::Deny, [policy]));
//! let service = ServiceBuilder::new()
//!     .layer(AuthzLayer::fixed([authz]))
//!     .service(service_fn(|_: Request<()>| async { Ok::<_, BoxError>(Response::new(())) }));
//!
//! let get = |path: &str| Request::get(path).body(()).unwrap();
//! assert!(service.clone().oneshot(get("/a")).await.is_ok());
//! let error = service.oneshot(get("/a/../%61dmin")).await.unwrap_err();
//! assert_eq!(error.failure(), Failure::Denied);
//! assert_eq!(error.cause().as_deref(), Some("no-admin"));
//! # Ok(())
//! # }
//! ```

use crate::facts::Facts;
use crate::judges::{Denied, Judges, Step};
use crate::on_route::OnRoute;
use crate::path::{Normalized, normalize};
use http::header::LOCATION;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use mesh_core::model::{Authz, HttpManager, PathNormalization};
use mesh_core::reply::Answer;
use mesh_core::{BoxError, Error, Exchange, Failure, Shard};
use pin_project::pin_project;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Authorize`] services.
#[derive(Clone, Debug)]
pub struct AuthzLayer {
    by: By,
}

/// A service that lets through what policies allow.
#[derive(Clone, Debug)]
pub struct Authorize<S> {
    inner: S,
    by: By,
}

/// The response future of [`Authorize`].
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    #[pin]
    state: State<F>,
}

#[pin_project(project = StateProj)]
#[derive(Debug)]
enum State<F> {
    Going(#[pin] F),
    /// None once it was told.
    Refused(Option<Error>),
}

#[derive(Clone, Debug)]
enum By {
    Listener,
    Fixed(Arc<Judges>, PathNormalization),
}

// === impl AuthzLayer ===

impl AuthzLayer {
    /// The same rules for every request, asked in order. Where no proxy in front did, the path is
    /// normalised as Istio does by default (`BASE`: dot segments, `\`, escapes of what needs none;
    /// `%00` is answered 400), and goes on so.
    pub fn fixed(authz: impl IntoIterator<Item = Authz>) -> Self {
        let authz: Vec<_> = authz.into_iter().map(Arc::new).collect();
        let base = PathNormalization {
            normalize: true,
            ..PathNormalization::default()
        };
        Self {
            by: By::Fixed(Arc::new(Judges::new(&authz)), base),
        }
    }

    /// Normalises paths in another way.
    #[must_use]
    pub fn normalizing(mut self, rules: PathNormalization) -> Self {
        if let By::Fixed(_, normalization) = &mut self.by {
            *normalization = rules;
        }
        self
    }

    /// The rules of the listener (`HttpManager::authz`). A request that came through none is left
    /// alone.
    pub fn per_listener() -> Self {
        Self { by: By::Listener }
    }
}

impl<S> Layer<S> for AuthzLayer {
    type Service = Authorize<S>;

    fn layer(&self, inner: S) -> Authorize<S> {
        Authorize {
            inner,
            by: self.by.clone(),
        }
    }
}

// === impl By ===

impl By {
    fn admits<B>(&self, request: &mut Request<B>) -> Result<(), Error> {
        let (judges, normalization) = match self {
            Self::Listener => return admit(request),
            Self::Fixed(judges, normalization) => (judges, *normalization),
        };
        let exchange = Exchange::of(request);
        if exchange.is_none_or(|exchange| exchange.caller().manager.is_none()) {
            settle(request, normalization)?;
        }
        judge(judges, Exchange::of(request), request)
    }
}

/// Judges a request by the rules of its listener (`HttpManager::authz`), and counts it, for
/// services that have something else to do with what is denied. One that came through no listener
/// is let through. See [`AuthzLayer::per_listener`].
///
/// # Errors
/// [`Failure::Denied`], with the policy's name as its cause.
pub fn admit<B>(request: &Request<B>) -> Result<(), Error> {
    match step(request, 0..usize::MAX)? {
        Step::Admitted => Ok(()),
        // Nobody is asked here.
        Step::Ask(_) => Err(Denied { policy: None }.into()),
    }
}

/// As [`admit`], by the sets of rules at these places, until a service has to be asked
/// ([`Judges::step`]).
///
/// # Errors
/// As [`admit`].
pub fn step<B>(request: &Request<B>, places: Range<usize>) -> Result<Step, Error> {
    step_on(OnRoute::default(), request, places)
}

/// As [`step`], of a request whose route may say something of the filters.
///
/// # Errors
/// As [`admit`].
pub fn step_on<B>(
    route: OnRoute<'_>,
    request: &Request<B>,
    places: Range<usize>,
) -> Result<Step, Error> {
    let exchange = Exchange::of(request);
    let Some((exchange, manager)) =
        exchange.and_then(|one| Some((one, one.caller().manager.as_ref()?)))
    else {
        return Ok(Step::Admitted);
    };
    if manager.authz.is_empty() {
        return Ok(Step::Admitted);
    }
    let facts = Facts::of_exchange(exchange, request);
    let step = judges(manager).step_on(route, places, &facts, exchange.shard());
    step.map_err(Error::from)
}

/// What judges requests by the rules of a listener.
pub fn judges(manager: &HttpManager) -> &Judges {
    manager
        .authz_slot
        .get_or_init(|| Judges::new(&manager.authz))
}

fn judge<B>(
    judges: &Judges,
    exchange: Option<&Exchange>,
    request: &Request<B>,
) -> Result<(), Error> {
    let judged = match exchange {
        Some(exchange) => judges.judge(&Facts::of_exchange(exchange, request), exchange.shard()),
        None => judges.judge(&Facts::of_request(request), Shard::default()),
    };
    judged.map_err(Error::from)
}

/// Normalises the path of a request.
fn settle<B>(request: &mut Request<B>, rules: PathNormalization) -> Result<(), Error> {
    let Some(both) = request.uri().path_and_query() else {
        return Ok(());
    };
    let path = match normalize(both.as_str(), rules) {
        Normalized::Path(std::borrow::Cow::Borrowed(_)) => return Ok(()),
        Normalized::Path(std::borrow::Cow::Owned(path)) => path,
        Normalized::Reject => return Err(Error::new(Failure::InvalidPath)),
        Normalized::Redirect(path) => {
            let location = HeaderValue::try_from(path);
            let location = location.map_err(|_| Error::new(Failure::InvalidPath))?;
            let answer = Answer::new(StatusCode::TEMPORARY_REDIRECT).header(LOCATION, location);
            return Err(Error::answer(Failure::Redirect, answer));
        }
    };
    let path = PathAndQuery::try_from(path).map_err(|_| Error::new(Failure::InvalidPath))?;
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(path);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Error::new(Failure::InvalidPath))?;
    Ok(())
}

impl From<Denied> for Error {
    fn from(denied: Denied) -> Self {
        Self::with_source(Failure::Denied, denied)
    }
}

// === impl Authorize ===

impl<S, B, R> Service<Request<B>> for Authorize<S>
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
        let state = match self.by.admits(&mut request) {
            Ok(()) => State::Going(self.inner.call(request)),
            Err(error) => State::Refused(Some(error)),
        };
        ResponseFuture { state }
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
        match self.project().state.project() {
            StateProj::Going(inner) => Poll::Ready(ready!(inner.poll(cx)).map_err(Error::wrap)),
            StateProj::Refused(error) => {
                let error = error.take();
                Poll::Ready(Err(error.unwrap_or_else(|| Error::new(Failure::Denied))))
            }
        }
    }
}

#[cfg(test)]
mod tests;
