//! What a look at its tokens does to a request.

use super::decide::{Known, Look, Plan, Setting, Wanted};
use super::head::{Changes, Work};
use super::keys::KeySet;
use super::remote::{Fetch, Remote, RemoteKeys, Wait};
use super::status::JwtStatus;
use crate::facts::Facts;
use bytes::Bytes;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use mesh_core::model::{Authn, Jwks};
use mesh_core::reply::Answer;
use mesh_core::stats::HttpStat;
use mesh_core::{Error, Exchange, Failure, Name};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So much of the path is told to who is refused, in bytes (Envoy).
const LONGEST_PATH: usize = 256;
/// The path before rewrites.
const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");

/// [`Authn`] made ready, in its slot. What cannot be made ready refuses everything.
#[derive(Debug)]
pub(super) struct Ready {
    plan: Option<Plan>,
    keys: Vec<Source>,
}

#[derive(Debug)]
enum Source {
    Inline(Result<Arc<KeySet>, JwtStatus>),
    Remote(Arc<RemoteKeys>),
}

/// The time, as decisions take it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For how long keys are kept.
    pub instant: Instant,
    /// Since 1970, for what tokens say of times.
    pub since_epoch: Duration,
}

/// What becomes of a request.
pub enum Step {
    /// It goes on, with what its tokens change.
    Through(Passed),
    /// It is refused.
    Refused(Error),
    /// Keys have to be got before anything can be said. Ask again after that.
    Waits(Keys),
}

/// What valid tokens change about a request, or nothing.
#[derive(Debug, Default)]
pub struct Passed(Changes);

/// Keys that are on their way; a future that is ready when they have come or have not.
pub struct Keys {
    wait: Wait,
    exchange: Option<Exchange>,
}

// === impl Ready ===

impl Ready {
    pub(super) fn of(authn: &Authn) -> &Self {
        authn.slot.get_or_init(|| Self {
            plan: Plan::of(authn).ok(),
            keys: authn
                .providers
                .iter()
                .map(|provider| match &provider.keys {
                    Jwks::Remote(remote) => {
                        Source::Remote(Arc::new(RemoteKeys::new(remote.clone())))
                    }
                    // Envoy has then no keys at all, whatever is wrong with them.
                    Jwks::Inline(text) => Source::Inline(
                        KeySet::parse(text.as_bytes())
                            .map(Arc::new)
                            .map_err(|_| JwtStatus::NoValidKey),
                    ),
                    _ => Source::Inline(Err(JwtStatus::NoValidKey)),
                })
                .collect(),
        })
    }

    fn known(&self, at: usize, now: Instant, fetches: bool) -> Known {
        match &self.keys[at] {
            Source::Inline(Ok(keys)) => Known::Keys(keys.clone()),
            Source::Inline(Err(status)) => Known::None(*status),
            Source::Remote(keys) => match keys.known(now) {
                Remote::Keys(keys) => Known::Keys(keys),
                Remote::Failed(status) => Known::None(status),
                Remote::Nothing if fetches => Known::Wanted,
                Remote::Nothing => Known::None(JwtStatus::FetchFailed),
            },
        }
    }

    fn remote(&self, at: usize) -> Option<&Arc<RemoteKeys>> {
        match &self.keys[at] {
            Source::Remote(keys) => Some(keys),
            Source::Inline(_) => None,
        }
    }
}

/// What is found about the tokens of a request, told rather than done; nothing is got. `route` is
/// as for [`step_on`].
pub fn explain<B>(
    authn: &Authn,
    route: Option<Option<&Name>>,
    request: &Request<B>,
    now: Now,
) -> (JwtStatus, Vec<Look>) {
    let ready = Ready::of(authn);
    let mut looks = Vec::new();
    let Some(plan) = &ready.plan else {
        return (JwtStatus::NoValidKey, looks);
    };
    if authn.bypass_preflight && is_preflight(request) {
        return (JwtStatus::Valid, looks);
    }
    let mut work = Work::of(request.uri(), request.headers());
    let setting = Setting {
        keys: &|at| ready.known(at, now.instant, false),
        since_epoch: now.since_epoch,
    };
    let status = plan.decide(route, &mut work, &setting, &mut looks);
    (status.unwrap_or(JwtStatus::FetchFailed), looks)
}

/// Looks at the tokens of a request: it goes on with what that changes ([`Passed::apply`]), or not
/// at all. Without `fetch`, keys that would have to be got are as good as missing.
pub fn step<B>(authn: &Authn, request: &Request<B>, fetch: Option<&dyn Fetch>, now: Now) -> Step {
    step_on(None, authn, request, fetch, now)
}

/// As [`step`], of a request whose route asks something else: what [`Authn::named`] has by this
/// name, or nothing ([`OnRoute::tokens`](crate::OnRoute::tokens)). A name that there is not refuses
/// every request.
pub fn step_on<B>(
    route: Option<Option<&Name>>,
    authn: &Authn,
    request: &Request<B>,
    fetch: Option<&dyn Fetch>,
    now: Now,
) -> Step {
    let exchange = Exchange::of(request).cloned();
    let count = |stat| {
        if let Some(exchange) = &exchange {
            exchange.caller().count(stat);
        }
    };
    if authn.bypass_preflight && is_preflight(request) {
        count(HttpStat::JwtPreflight);
        count(HttpStat::JwtAllowed);
        let mut work = Work::of(request.uri(), request.headers());
        if let Some(plan) = &Ready::of(authn).plan {
            plan.sanitize(&mut work);
        }
        return Step::Through(Passed(work.changes()));
    }
    if let Some(Some(name)) = route
        && !authn.named.iter().any(|(known, _)| known == name)
    {
        count(HttpStat::JwtDenied);
        return Step::Refused(unnamed(authn, name));
    }
    let ready = Ready::of(authn);
    let mut work = Work::of(request.uri(), request.headers());
    let setting = Setting {
        keys: &|at| ready.known(at, now.instant, fetch.is_some()),
        since_epoch: now.since_epoch,
    };
    let decided = match &ready.plan {
        Some(plan) => plan.decide(route, &mut work, &setting, &mut Vec::new()),
        None => Ok(JwtStatus::NoValidKey),
    };
    match decided {
        Ok(JwtStatus::Valid) => {
            count(HttpStat::JwtAllowed);
            Step::Through(Passed(work.changes()))
        }
        Ok(status) => {
            count(HttpStat::JwtDenied);
            if let Some(exchange) = &exchange {
                note(exchange, work.changes(), request);
            }
            Step::Refused(refusal(status, request, authn.silent))
        }
        Err(Wanted(at)) => {
            let wait = ready.remote(at).zip(fetch);
            let wait = wait.and_then(|(keys, fetch)| keys.wait(fetch, now.instant));
            match wait {
                Some(wait) => Step::Waits(Keys { wait, exchange }),
                None => Step::Refused(refusal(JwtStatus::FetchFailed, request, authn.silent)),
            }
        }
    }
}

/// Access logs have the head as the first of several tokens left it, and the route that its claims
/// lead to, though another was refused.
fn note<B>(exchange: &Exchange, mut changes: Changes, request: &Request<B>) {
    if let Some(claims) = changes.claims.take().filter(|_| changes.clear_route) {
        exchange.set_claims(claims);
    }
    if changes.uri.is_none() && changes.headers.is_none() {
        return;
    }
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = changes.uri.unwrap_or_else(|| request.uri().clone());
    let headers = changes.headers;
    *head.headers_mut() = headers.unwrap_or_else(|| request.headers().clone());
    exchange.note_head(&head);
}

// === impl Passed ===

impl Passed {
    /// Whether anything about the request changes.
    pub fn changes(&self) -> bool {
        let Changes {
            uri,
            headers,
            claims,
            ..
        } = &self.0;
        uri.is_some() || headers.is_some() || claims.is_some()
    }

    /// Whether its route is the one that it has then, not the one that it had before.
    pub fn clears_route(&self) -> bool {
        self.0.clear_route
    }

    /// Takes tokens off, writes headers, and notes what was said, as an extension
    /// ([`mesh_core::Claims`]) and, if routes go by it, on the request's [`Exchange`].
    pub fn apply<B>(self, request: &mut Request<B>) {
        let changes = self.0;
        let head = changes.uri.is_some() || changes.headers.is_some();
        if let Some(uri) = changes.uri {
            *request.uri_mut() = uri;
        }
        if let Some(headers) = changes.headers {
            *request.headers_mut() = headers;
        }
        if let Some(exchange) = Exchange::of(request).filter(|_| head) {
            exchange.note_head(request);
        }
        // What was said before somebody else looked says nothing.
        request.extensions_mut().remove::<mesh_core::Claims>();
        if let Some(claims) = changes.claims {
            // Routes go by it only where they are looked for afterwards.
            let exchange = Exchange::of(request).filter(|_| changes.clear_route);
            if let Some(exchange) = exchange {
                exchange.set_claims(claims.clone());
            }
            request.extensions_mut().insert(claims);
        }
    }
}

fn is_preflight<B>(request: &Request<B>) -> bool {
    let says = |name: HeaderName| {
        let value = request.headers().get(name);
        value.is_some_and(|value| !value.is_empty())
    };
    request.method() == Method::OPTIONS && says(ORIGIN) && says(ACCESS_CONTROL_REQUEST_METHOD)
}

fn refusal<B>(status: JwtStatus, request: &Request<B>, silent: bool) -> Error {
    let code = match status {
        JwtStatus::AudienceNotAllowed => StatusCode::FORBIDDEN,
        _ => StatusCode::UNAUTHORIZED,
    };
    let mut answer = Answer::new(code);
    if !silent {
        answer = answer.body(Bytes::from(status.to_string()));
        if let Some(value) = challenge(status, request) {
            answer = answer.header(WWW_AUTHENTICATE, value);
        }
    }
    Error::with_source(Failure::Unauthenticated, status).answered(answer)
}

/// The route names what there is not, in Envoy's words.
fn unnamed(authn: &Authn, name: &Name) -> Error {
    let known: Vec<&str> = authn.named.iter().map(|(name, _)| name.as_str()).collect();
    let known = known.join(",");
    let why = format!("Wrong requirement_name: {name}. It should be one of [{known}]");
    let mut answer = Answer::new(StatusCode::FORBIDDEN);
    if !authn.silent {
        answer = answer.body(Bytes::from(format!("Failed JWT authentication: {why}")));
    }
    Error::with_source(Failure::Unauthenticated, why).answered(answer)
}

/// `www-authenticate` (RFC 6750 §3), the request's own URI as the realm.
fn challenge<B>(status: JwtStatus, request: &Request<B>) -> Option<HeaderValue> {
    let facts = match Exchange::of(request) {
        Some(exchange) => Facts::of_exchange(exchange, request),
        None => Facts::of_request(request),
    };
    let facts = facts.request?;
    let mut value = b"Bearer realm=\"".to_vec();
    let path = facts
        .headers()
        .get(ORIGINAL_PATH)
        .map(HeaderValue::as_bytes);
    let path = path.or_else(|| facts.path_and_query().map(str::as_bytes));
    if let Some(path) = path {
        value.extend(facts.scheme().as_bytes());
        value.extend(b"://");
        value.extend(facts.authority().unwrap_or_default());
        value.extend(&path[..path.len().min(LONGEST_PATH)]);
    }
    value.push(b'"');
    if status != JwtStatus::Missing {
        value.extend(b", error=\"invalid_token\"");
    }
    HeaderValue::from_bytes(&value).ok()
}

// === impl Keys ===

impl Future for Keys {
    type Output = ();

    fn poll(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<()> {
        let this = self.get_mut();
        let came = std::task::ready!(std::pin::Pin::new(&mut this.wait).poll(cx));
        if let (Some(good), Some(exchange)) = (came, &this.exchange) {
            let stat = match good {
                true => HttpStat::JwksFetched,
                false => HttpStat::JwksFailed,
            };
            exchange.caller().count(stat);
        }
        std::task::Poll::Ready(())
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Through(passed) => f.debug_tuple("Through").field(passed).finish(),
            Self::Refused(error) => f.debug_tuple("Refused").field(error).finish(),
            Self::Waits(_) => f.write_str("Waits"),
        }
    }
}
