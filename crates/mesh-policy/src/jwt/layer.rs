//! Lets through who brings the tokens that are asked for; anyone else is refused with
//! [`Failure::Unauthenticated`] (401, or 403 where the token is for somebody else).

use super::admit::{Keys, Now, Passed, Step, step};
use super::remote::Fetch;
use http::{Request, Response};
use mesh_core::model::Authn;
use mesh_core::{BoxError, Error, Failure, WallClock};
use pin_project::pin_project;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Instant, SystemTime};
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Authenticate`] services.
///
/// ```
/// use http::{Request, Response};
/// use mesh_core::model::{Authn, AuthnRule, Jwks, JwtProvider, TokenRequirement};
/// use mesh_core::{BoxError, Failure};
/// use mesh_policy::jwt::JwtLayer;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let keys = r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQ"}]}"#;
/// let mut authn = Authn::default();
/// authn.providers = vec![JwtProvider::new("own", "me", Jwks::Inline(keys.into()))];
/// authn.rules = vec![AuthnRule::always(TokenRequirement::Provider("own".into(), vec![]))];
/// let service = ServiceBuilder::new()
///     .layer(JwtLayer::fixed(authn))
///     .service(service_fn(|_: Request<()>| async { Ok::<_, BoxError>(Response::new(())) }));
///
/// let error = service.oneshot(Request::get("/").body(())?).await.unwrap_err();
/// assert_eq!(error.failure(), Failure::Unauthenticated);
/// assert_eq!(error.cause().as_deref(), Some("Jwt is missing"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct JwtLayer {
    with: Arc<With>,
}

/// A service that lets through who brings the tokens that are asked for.
#[derive(Clone)]
pub struct Authenticate<S> {
    inner: S,
    with: Arc<With>,
}

struct With {
    authn: Authn,
    fetch: Option<Arc<dyn Fetch>>,
    clock: WallClock,
}

/// The response future of [`Authenticate`].
#[pin_project]
pub struct ResponseFuture<S: Service<Request<B>>, B> {
    #[pin]
    state: State<S, B, S::Future>,
}

#[pin_project(project = StateProj)]
enum State<S, B, F> {
    Going(#[pin] F),
    /// Keys are on their way. None once it goes on.
    Waiting(Option<Box<Waiting<S, B>>>),
    /// None once it was told.
    Refused(Option<Error>),
}

struct Waiting<S, B> {
    /// Ready.
    inner: S,
    request: Request<B>,
    with: Arc<With>,
    keys: Keys,
}

// === impl JwtLayer ===

impl JwtLayer {
    /// The same is asked of every request. Keys that would have to be got are as good as missing
    /// until there is something to [get](Self::fetching) them.
    pub fn fixed(authn: Authn) -> Self {
        let with = With {
            authn,
            fetch: None,
            clock: WallClock::system(),
        };
        Self {
            with: Arc::new(with),
        }
    }

    /// Gets keys with this. Default: nothing is got.
    #[must_use]
    pub fn fetching(self, fetch: Arc<dyn Fetch>) -> Self {
        let With { authn, clock, .. } = &*self.with;
        let with = With {
            authn: authn.clone(),
            fetch: Some(fetch),
            clock: clock.clone(),
        };
        Self {
            with: Arc::new(with),
        }
    }

    /// What the time is. Default: the machine's clock.
    #[must_use]
    pub fn clock(self, clock: WallClock) -> Self {
        let With { authn, fetch, .. } = &*self.with;
        let with = With {
            authn: authn.clone(),
            fetch: fetch.clone(),
            clock,
        };
        Self {
            with: Arc::new(with),
        }
    }
}

impl<S> Layer<S> for JwtLayer {
    type Service = Authenticate<S>;

    fn layer(&self, inner: S) -> Authenticate<S> {
        Authenticate {
            inner,
            with: self.with.clone(),
        }
    }
}

impl fmt::Debug for JwtLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JwtLayer").field(&self.with.authn).finish()
    }
}

// === impl With ===

impl With {
    fn step<B>(&self, request: &mut Request<B>) -> Step {
        let step = step(&self.authn, request, self.fetch.as_deref(), self.now());
        match step {
            Step::Through(passed) => {
                passed.apply(request);
                Step::Through(Passed::default())
            }
            other => other,
        }
    }

    fn now(&self) -> Now {
        let since = self.clock.now().duration_since(SystemTime::UNIX_EPOCH);
        Now {
            instant: Instant::now(),
            // Before 1970 no token expires.
            since_epoch: since.unwrap_or_default(),
        }
    }
}

// === impl Authenticate ===

impl<S, B, R> Service<Request<B>> for Authenticate<S>
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
        let state = match self.with.step(&mut request) {
            Step::Through(_) => State::Going(self.inner.call(request)),
            Step::Refused(error) => State::Refused(Some(error)),
            Step::Waits(keys) => {
                let clone = self.inner.clone();
                State::Waiting(Some(Box::new(Waiting {
                    inner: std::mem::replace(&mut self.inner, clone),
                    request,
                    with: self.with.clone(),
                    keys,
                })))
            }
        };
        ResponseFuture { state }
    }
}

impl<S: fmt::Debug> fmt::Debug for Authenticate<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Authenticate");
        debug.field("inner", &self.inner).finish_non_exhaustive()
    }
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
                    match waits.with.step(&mut waits.request) {
                        // Another provider's, or nobody got them after all.
                        Step::Waits(keys) => {
                            waits.keys = keys;
                            continue;
                        }
                        Step::Refused(error) => State::Refused(Some(error)),
                        Step::Through(_) => match waiting.take() {
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
