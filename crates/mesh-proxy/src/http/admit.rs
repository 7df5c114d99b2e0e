//! Makes a request head fit to be judged and routed, or refuses it.
//!
//! Below this layer the path is normalised, `host` is there and agrees with the request target,
//! `x-request-id` and the `x-forwarded-*` headers are set, and callers from outside the mesh
//! cannot steer us with `x-envoy-*` headers. Settings come from the listener
//! ([`HttpManager`]); bodies are not looked at.

mod authority;
mod forwarded;
mod hop;

pub(super) use self::forwarded::append_via;

use self::authority::{settle_authority, strip_port};
use self::forwarded::{X_FORWARDED_PROTO, forwarded, forwarded_for, said_address, scheme};
use self::hop::{join_authorization, join_cookies, leave_connection};
use super::certificate;
use crate::explain::{Explainer, Served};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Uri, Version, uri};
use mesh_core::model::{Direction, HttpManager, StripPort};
use mesh_core::reply::{Answer, Asked};
use mesh_core::stats::HttpStat;
use mesh_core::{Error, Exchange, Failure, Matched, Rng, WallClock};
use mesh_http1::server::Refused;
use mesh_policy::path::{Normalized, normalize};
use mesh_route::filter_state;
use mesh_route::route::Notes;
use mesh_telemetry::istio::peer;
use std::borrow::Cow;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Admit`] services.
#[derive(Clone, Debug)]
pub(crate) struct AdmitLayer {
    tools: Arc<Tools>,
    explainer: Option<Arc<Explainer>>,
}

/// Passes on only requests with a sound head.
#[derive(Clone, Debug)]
pub(crate) struct Admit<S> {
    inner: S,
    tools: Arc<Tools>,
    /// Whoever brings its token is told why a request went where it went.
    explainer: Option<Arc<Explainer>>,
    /// What upstreams are told of the connection's certificate, once there was a request.
    certificate: Option<Arc<certificate::Told>>,
}

/// What all connections share: each of them has room for one pointer.
#[derive(Debug)]
struct Tools {
    rng: Arc<Rng>,
    notes: Notes,
}

/// The response future of [`Admit`].
#[pin_project::pin_project(project = Projected)]
pub(crate) enum ResponseFuture<F> {
    Admitted(#[pin] F),
    /// Admitted, and the response says why it is what it is.
    Explained(#[pin] F, Option<Box<Served>>),
    Refused(#[pin] Ready<Option<Error>>),
}

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How callers could steer us: taken from everyone, because with Envoy's defaults no address counts
/// as internal (`ConnectionManagerUtility::cleanInternalHeaders`).
const STEERING: [HeaderName; 15] = [
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-force-trace"),
    HeaderName::from_static("x-envoy-hedge-on-per-try-timeout"),
    HeaderName::from_static("x-envoy-internal"),
    HeaderName::from_static("x-envoy-ip-tags"),
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-original-url"),
    HeaderName::from_static("x-envoy-retriable-header-names"),
    HeaderName::from_static("x-envoy-retriable-status-codes"),
    HeaderName::from_static("x-envoy-retry-grpc-on"),
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-upstream-alt-stat-name"),
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-ms"),
];

/// What besides may not come in at the edge of the mesh.
const INSIDE_ONLY: [HeaderName; 5] = [
    HeaderName::from_static("x-envoy-decorator-operation"),
    HeaderName::from_static("x-envoy-downstream-service-cluster"),
    HeaderName::from_static("x-envoy-downstream-service-node"),
    HeaderName::from_static("x-envoy-original-host"),
    HeaderName::from_static("x-envoy-original-path"),
];

/// By what workloads of the mesh know each other: nobody who comes through a gateway is one. Envoy
/// knows nothing of it, so elsewhere it is left to the layers that exchange metadata.
const PEER: [HeaderName; 2] = [peer::METADATA, peer::METADATA_ID];

// === impl AdmitLayer ===

impl AdmitLayer {
    /// Routes may have upgrades of their own: `notes` finds them.
    pub(crate) fn new(rng: Arc<Rng>, notes: Notes) -> Self {
        Self {
            tools: Arc::new(Tools { rng, notes }),
            explainer: None,
        }
    }

    /// Requests that bring its token are explained. Without one nobody looks for a token.
    #[must_use]
    pub(crate) fn explaining(mut self, explainer: Option<Arc<Explainer>>) -> Self {
        self.explainer = explainer;
        self
    }
}

impl<S> Layer<S> for AdmitLayer {
    type Service = Admit<S>;
    fn layer(&self, inner: S) -> Admit<S> {
        Admit {
            inner,
            tools: self.tools.clone(),
            explainer: self.explainer.clone(),
            certificate: None,
        }
    }
}

// === impl Admit ===

impl<S, B> Service<Request<B>> for Admit<S>
where
    S: Service<Request<B>, Error = Error>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let exchange = Exchange::of(&request).cloned();
        let mut served = None;
        if let (Some(explainer), Some(exchange)) = (&self.explainer, &exchange) {
            served = explainer.take(&mut request, exchange);
        }
        if let Some(exchange) = &exchange
            && let Some(manager) = &exchange.caller().manager
            && let Err(error) = admit(
                &mut request,
                manager,
                exchange,
                &self.tools.rng,
                Some(&self.tools.notes),
                &mut self.certificate,
            )
        {
            if let Some(served) = served {
                served.answer();
            }
            let last = request.version() < Version::HTTP_2;
            let error = if last { closing(error) } else { error };
            return ResponseFuture::Refused(ready(Some(error)));
        }
        if let Some(exchange) = &exchange
            && let Some(manager) = &exchange.caller().manager
            && let Some(set) = &manager.filter_state
        {
            let state = filter_state::decide(set, &request, exchange, &WallClock::system());
            exchange.set_filter_state(state);
        }
        match served {
            None => ResponseFuture::Admitted(self.inner.call(request)),
            Some(mut served) => {
                served.admitted(&request);
                ResponseFuture::Explained(self.inner.call(request), Some(served))
            }
        }
    }
}

// === impl ResponseFuture ===

impl<F, R> Future for ResponseFuture<F>
where
    F: Future<Output = Result<R, Error>>,
{
    type Output = Result<R, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Projected::Admitted(inner) => inner.poll(cx),
            Projected::Explained(inner, served) => {
                let result = ready!(inner.poll(cx));
                if let Some(served) = served.take() {
                    served.answer();
                }
                Poll::Ready(result)
            }
            Projected::Refused(error) => {
                let error = ready!(error.poll(cx));
                Poll::Ready(Err(error.unwrap_or_else(|| Error::new(Failure::Internal))))
            }
        }
    }
}

/// The answer to a head that is refused is the last on its connection: as in Envoy, where a request
/// is not whole before its head was looked at (`ActiveStream::decodeHeaders`). A redirect to the
/// same path without escapes comes later there, and so does `*`.
fn closing(error: Error) -> Error {
    let failure = error.failure();
    let answer = mesh_core::reply::answer(error, Asked::default());
    if answer.status.is_redirection() || failure == Failure::NotAPath {
        return Error::answer(failure, answer);
    }
    let close = HeaderValue::from_static("close");
    Error::answer(failure, answer.header(header::CONNECTION, close))
}

/// Whether an upgrade passes: as the route says, or else the listener (Envoy
/// `HttpConnectionManagerConfig::createUpgradeFilterChain`).
fn passes<B>(
    wanted: &[u8],
    manager: &HttpManager,
    request: &Request<B>,
    notes: Option<&Notes>,
) -> bool {
    let matched = notes.and_then(|notes| notes.find(request));
    let forward = matched.as_ref().and_then(Matched::forward);
    let said = forward.and_then(|forward| {
        let mut upgrades = forward.upgrades.iter();
        upgrades.find(|(name, _)| name.as_bytes() == wanted)
    });
    match said {
        Some((_, passes)) => *passes,
        None => manager
            .upgrades
            .iter()
            .any(|name| name.as_bytes() == wanted),
    }
}

/// Notes the head of every request for access logs, whatever becomes of it.
fn admit<B>(
    request: &mut Request<B>,
    manager: &HttpManager,
    exchange: &Exchange,
    rng: &Rng,
    notes: Option<&Notes>,
    known: &mut Option<Arc<certificate::Told>>,
) -> Result<(), Error> {
    if request.uri().path_and_query().is_none()
        && let Some(refused) = request.extensions().get::<Refused>()
    {
        let refused = *refused;
        exchange.note_head(request);
        return Err(refuse(refused));
    }
    if request.method() == Method::CONNECT {
        exchange.note_head(request);
        // Tunnels are not built here, so no rule can be one for them. In Envoy it is the router
        // that finds none.
        exchange.caller().count(HttpStat::RouterRqTotal);
        exchange.caller().count(HttpStat::NoRoute);
        return Err(Error::new(Failure::NoRoute));
    }
    let caller = exchange.caller();
    if exchange.is_onward() {
        exchange.note_head(request);
        // A redirect led it here: the rest was looked at when it came, as in Envoy.
        if manager.strip_port != StripPort::Keep {
            strip_port(request, manager.strip_port, caller);
        }
        settle_path(request, manager, exchange)?;
        exchange.note_head(request);
        return Ok(());
    }
    let seen = Seen::of(request.headers());
    let strips = manager.strip_port != StripPort::Keep;
    // Access logs tell of a path that is refused with the head as it came.
    let changes = seen.hop || strips;
    if changes {
        exchange.note_head(request);
    }
    if seen.hop {
        leave_connection(request.headers_mut());
    }
    if let Err(error) = settle_authority(request) {
        exchange.note_head(request);
        return Err(error);
    }
    if strips {
        strip_port(request, manager.strip_port, caller);
    }
    if let Err(error) = settle_path(request, manager, exchange) {
        if !changes {
            exchange.note_head(request);
        }
        return Err(error);
    }
    if request.version() > Version::HTTP_11 {
        join_cookies(request.headers_mut());
    }
    join_authorization(request.headers_mut());
    if seen.hop
        && let Some(protocol) = mesh_core::upgrade::of(request.headers())
    {
        let wanted = protocol.as_bytes().to_ascii_lowercase();
        if !passes(&wanted, manager, request, notes) {
            exchange.note_head(request);
            // As in Envoy, where the route is known before anything asks what it lets through.
            if let Some(notes) = notes {
                notes.note(request);
            }
            return Err(Error::new(Failure::UpgradeRefused));
        }
        caller.count(HttpStat::CxUpgradesTotal);
    }
    let headers = request.headers_mut();
    if seen.envoy {
        for name in &STEERING {
            headers.remove(name);
        }
        for name in INSIDE_ONLY.iter().filter(|_| manager.use_remote_address) {
            headers.remove(name);
        }
        for name in PEER
            .iter()
            .filter(|_| manager.direction == Direction::Gateway)
        {
            headers.remove(name);
        }
    }
    // Who shows a certificate may have the header added, too.
    let shown = caller.tls.as_ref().filter(|tls| tls.peer.is_some());
    if seen.certificate || shown.is_some() {
        certificate::settle(headers, manager.client_certificate, shown, known);
    }
    if manager.use_remote_address {
        forwarded(headers, exchange, manager, seen.forwarded_for);
    } else if seen.forwarded_for
        && let Some(said) = said_address(&forwarded_for(headers), manager.trusted_hops)
    {
        // Whoever is in front is trusted with it (Envoy's `envoy.http.original_ip_detection.xff`).
        exchange.set_remote(SocketAddr::new(said, 0));
    }
    // Said just now.
    let is_said = manager.use_remote_address && manager.trusted_hops == 0 && caller.is_connected();
    if !is_said && !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, scheme(caller));
    }
    if !manager.via.is_empty() {
        append_via(headers, &manager.via);
    }
    let replace = manager.use_remote_address && !manager.keep_external_request_id;
    let mut id = None;
    if seen.request_id && !(manager.request_id && replace) {
        id = headers.get(X_REQUEST_ID).cloned();
    }
    if manager.request_id && id.as_ref().is_none_or(HeaderValue::is_empty) {
        let new = request_id(rng.word(), rng.word());
        headers.insert(X_REQUEST_ID, new.clone());
        id = Some(new);
    }
    if let Some(id) = id {
        exchange.set_request_id(id);
    }
    exchange.note_head(request);
    Ok(())
}

/// Which of the headers that are looked at may be there: one look at all names, of which most requests
/// have few, instead of one for each.
#[derive(Default)]
struct Seen {
    /// `connection` or `upgrade`.
    hop: bool,
    /// What begins with `x-envoy-`.
    envoy: bool,
    certificate: bool,
    forwarded_for: bool,
    request_id: bool,
}

impl Seen {
    fn of(headers: &HeaderMap) -> Self {
        let mut seen = Self::default();
        for name in headers.keys() {
            if *name == header::CONNECTION || *name == header::UPGRADE {
                seen.hop = true;
            } else if let Some(rest) = name.as_str().strip_prefix("x-") {
                match rest {
                    "forwarded-for" => seen.forwarded_for = true,
                    "forwarded-client-cert" => seen.certificate = true,
                    "request-id" => seen.request_id = true,
                    _ => seen.envoy |= rest.starts_with("envoy-"),
                }
            }
        }
        seen
    }
}

/// The answer to what the codec takes for no request.
fn refuse(refused: Refused) -> Error {
    if refused == Refused::Timeout {
        return Error::new(Failure::RequestHead);
    }
    let status = refused.status();
    let answer = Answer::new(status).body(status.canonical_reason().unwrap_or_default());
    Error::answer(Failure::BadRequest, answer)
}

fn bad_request() -> Error {
    let answer = Answer::new(StatusCode::BAD_REQUEST).body("Bad Request");
    Error::answer(Failure::BadRequest, answer)
}

fn settle_path<B>(
    request: &mut Request<B>,
    manager: &HttpManager,
    exchange: &Exchange,
) -> Result<(), Error> {
    let Some(target) = request.uri().path_and_query() else {
        return Ok(());
    };
    if !target.as_str().starts_with('/') {
        // `*`: nothing is routed by it (Envoy `absolute_path_rejected`).
        return Err(Error::new(Failure::NotAPath));
    }
    match normalize(target.as_str(), manager.path) {
        Normalized::Path(Cow::Borrowed(_)) => Ok(()),
        Normalized::Path(Cow::Owned(path)) => set_path(request, &path),
        Normalized::Reject => Err(Error::new(Failure::InvalidPath)),
        Normalized::Redirect(path) => {
            // Logs tell of the path that is redirected to.
            set_path(request, &path)?;
            exchange.note_head(request);
            let location = HeaderValue::try_from(path)
                .map_err(|error| Error::with_source(Failure::InvalidPath, error))?;
            let answer =
                Answer::new(StatusCode::TEMPORARY_REDIRECT).header(header::LOCATION, location);
            Err(Error::answer(Failure::InvalidPath, answer))
        }
    }
}

fn set_path<B>(request: &mut Request<B>, path: &str) -> Result<(), Error> {
    let target = uri::PathAndQuery::try_from(path)
        .map_err(|error| Error::with_source(Failure::InvalidPath, error))?;
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.path_and_query = Some(target);
    *request.uri_mut() =
        Uri::from_parts(parts).map_err(|error| Error::with_source(Failure::InvalidPath, error))?;
    Ok(())
}

/// A random UUID (RFC 9562 version 4) from two random words.
fn request_id(high: u64, low: u64) -> HeaderValue {
    let high = (high & !0xf000) | 0x4000;
    let low = (low & !(0b11 << 62)) | (0b10 << 62);
    let (first, second) = (digits(high), digits(low));
    let mut text = [b'-'; 36];
    text[..8].copy_from_slice(&first[..8]);
    text[9..13].copy_from_slice(&first[8..12]);
    text[14..18].copy_from_slice(&first[12..]);
    text[19..23].copy_from_slice(&second[..4]);
    text[24..].copy_from_slice(&second[4..]);
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// The sixteen digits of a word, all of them at once: four bits lie in each byte of two words.
fn digits(word: u64) -> [u8; 16] {
    let word = u128::from(word);
    // Halves go apart: 32 bits, 16, 8, and 4.
    let word = (word | (word << 32)) & 0x0000_0000_ffff_ffff_0000_0000_ffff_ffff;
    let word = (word | (word << 16)) & 0x0000_ffff_0000_ffff_0000_ffff_0000_ffff;
    let word = (word | (word << 8)) & 0x00ff_00ff_00ff_00ff_00ff_00ff_00ff_00ff;
    let word = (word | (word << 4)) & 0x0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f;
    const EACH: u128 = 0x0101_0101_0101_0101_0101_0101_0101_0101;
    // Six more bring 10 to 16, and so only a letter to the fifth bit.
    let letters = ((word + 6 * EACH) >> 4) & EACH;
    let letter = u128::from(b'a' - b'0' - 10);
    (word + u128::from(b'0') * EACH + letters * letter).to_be_bytes()
}

#[cfg(test)]
mod tests;
