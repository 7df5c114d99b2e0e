//! Makes a request head fit to be judged and routed, or refuses it.
//!
//! Below this layer the path is normalised, `host` is there and agrees with the request target,
//! `x-request-id` and the `x-forwarded-*` headers are set, and callers from outside the mesh
//! cannot steer us with `x-envoy-*` headers. Settings come from the listener
//! ([`HttpManager`]); bodies are not looked at.

use super::path::{Normalized, normalize};
use crate::explain::{Explainer, Served};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Uri, Version, uri};
use mesh_core::model::{Direction, HttpManager, StripPort};
use mesh_core::reply::{Answer, Asked};
use mesh_core::stats::HttpStat;
use mesh_core::{Caller, Error, Exchange, Failure, Rng};
use mesh_telemetry::istio::peer;
use std::borrow::Cow;
use std::future::{Ready, ready};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Admit`] services.
#[derive(Clone, Debug)]
pub(crate) struct AdmitLayer {
    rng: Arc<Rng>,
    explainer: Option<Arc<Explainer>>,
}

/// Passes on only requests with a sound head.
#[derive(Clone, Debug)]
pub(crate) struct Admit<S> {
    inner: S,
    rng: Arc<Rng>,
    /// Whoever brings its token is told why a request went where it went.
    explainer: Option<Arc<Explainer>>,
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
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_ENVOY_EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");

const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

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

/// What `connection` cannot name: the message would mean something else without it.
const NOT_FOR_US_ALONE: [HeaderName; 5] = [
    header::HOST,
    header::TE,
    header::UPGRADE,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
];

// === impl AdmitLayer ===

impl AdmitLayer {
    pub(crate) fn new(rng: Arc<Rng>) -> Self {
        Self {
            rng,
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
            rng: self.rng.clone(),
            explainer: self.explainer.clone(),
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
            && let Err(error) = admit(&mut request, manager, exchange, &self.rng)
        {
            if let Some(served) = served {
                served.answer();
            }
            let last = request.version() < Version::HTTP_2;
            let error = if last { closing(error) } else { error };
            return ResponseFuture::Refused(ready(Some(error)));
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

fn admit<B>(
    request: &mut Request<B>,
    manager: &HttpManager,
    exchange: &Exchange,
    rng: &Rng,
) -> Result<(), Error> {
    if request.version() < Version::HTTP_11 {
        // As Envoy without `accept_http_10`.
        let answer = Answer::new(StatusCode::UPGRADE_REQUIRED).body("Upgrade Required");
        return Err(Error::answer(Failure::BadRequest, answer));
    }
    if request.method() == Method::CONNECT {
        // Tunnels are not built here, so no rule can be one for them. In Envoy it is the router
        // that finds none.
        exchange.caller().count(HttpStat::RouterRqTotal);
        exchange.caller().count(HttpStat::NoRoute);
        return Err(Error::new(Failure::NoRoute));
    }
    settle_length(request)?;
    settle_authority(request)?;
    let caller = exchange.caller();
    // What access logs tell of is noted again if so.
    let mut changed = false;
    if manager.strip_port != StripPort::Keep {
        changed |= strip_port(request, manager.strip_port, caller);
    }
    changed |= settle_path(request, manager, exchange)?;
    let headers = request.headers_mut();
    changed |= leave_connection(headers);
    if let Some(protocol) = mesh_client::upgrade_of(headers) {
        let wanted = protocol.as_bytes().to_ascii_lowercase();
        if !manager
            .upgrades
            .iter()
            .any(|allowed| allowed.as_bytes() == wanted)
        {
            if changed {
                exchange.note_head(request);
            }
            return Err(Error::new(Failure::UpgradeRefused));
        }
    }
    // Most requests have none of them: one look at the names instead of one for each.
    if headers
        .keys()
        .any(|name| name.as_str().starts_with("x-envoy-"))
    {
        for name in &STEERING {
            changed |= headers.remove(name).is_some();
        }
        for name in INSIDE_ONLY.iter().filter(|_| manager.use_remote_address) {
            changed |= headers.remove(name).is_some();
        }
        for name in PEER
            .iter()
            .filter(|_| manager.direction == Direction::Gateway)
        {
            changed |= headers.remove(name).is_some();
        }
    }
    let proved = caller.tls.as_ref().is_some_and(|tls| tls.peer.is_some());
    if manager.use_remote_address || !proved {
        // Who shows no certificate cannot vouch for one (Envoy's `forward_client_cert_details`, in
        // every mode but the one that is refused), and nobody outside can.
        changed |= headers.remove(X_FORWARDED_CLIENT_CERT).is_some();
    }
    if manager.use_remote_address {
        changed = true;
        forwarded(headers, exchange, manager);
    } else if headers.contains_key(X_FORWARDED_FOR)
        && let Some(said) = said_address(&forwarded_for(headers), manager.trusted_hops)
    {
        // Whoever is in front is trusted with it (Envoy's `envoy.http.original_ip_detection.xff`).
        exchange.set_remote(SocketAddr::new(said, 0));
    }
    if !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, scheme(caller));
        changed |= exchange.watches(&X_FORWARDED_PROTO);
    }
    if !manager.via.is_empty() {
        append_via(headers, &manager.via);
        changed = true;
    }
    if manager.request_id {
        let replace = manager.use_remote_address && !manager.keep_external_request_id;
        if replace || headers.get(X_REQUEST_ID).is_none_or(HeaderValue::is_empty) {
            headers.insert(X_REQUEST_ID, request_id(rng.word(), rng.word()));
        }
    }
    if let Some(id) = headers.get(X_REQUEST_ID) {
        exchange.set_request_id(id.clone());
    }
    if changed {
        exchange.note_head(request);
    }
    Ok(())
}

/// Removes what `connection` names: meant for us alone (RFC 9110 §7.6.1). Done before any header of
/// our own is set, or a caller could name `x-forwarded-for` and have ours removed on the way out
/// (as in CVE-2022-31813).
/// Says whether anything was.
fn leave_connection(headers: &mut HeaderMap) -> bool {
    if !headers.contains_key(header::CONNECTION) {
        return false;
    }
    let upgrades = mesh_client::upgrade_of(headers).is_some();
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        .filter(|name| !NOT_FOR_US_ALONE.contains(name))
        .collect();
    for name in named {
        headers.remove(name);
    }
    headers.remove(header::CONNECTION);
    if upgrades {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    true
}

/// A body whose length two parties could read differently is how requests are smuggled (RFC 9112
/// §6.1, §6.3): only `chunked`, and not together with a length.
fn settle_length<B>(request: &Request<B>) -> Result<(), Error> {
    if request.version() > Version::HTTP_11 {
        return Ok(());
    }
    let Some(coding) = request.headers().get(header::TRANSFER_ENCODING) else {
        return Ok(());
    };
    let more = request
        .headers()
        .get_all(header::TRANSFER_ENCODING)
        .iter()
        .count()
        > 1;
    if more
        || !coding
            .as_bytes()
            .trim_ascii()
            .eq_ignore_ascii_case(b"chunked")
    {
        let answer = Answer::new(StatusCode::NOT_IMPLEMENTED);
        return Err(Error::answer(Failure::BadRequest, answer));
    }
    if request.headers().contains_key(header::CONTENT_LENGTH) {
        return Err(Error::new(Failure::BadRequest));
    }
    Ok(())
}

/// The target's authority wins over `host` (RFC 9112 §3.2.2), and one of them has to be there.
fn settle_authority<B>(request: &mut Request<B>) -> Result<(), Error> {
    if let Some(authority) = request.uri().authority() {
        let text = authority.as_str();
        let host = text.rsplit_once('@').map_or(text, |(_, host)| host);
        let value = HeaderValue::from_str(host)
            .map_err(|error| Error::with_source(Failure::BadRequest, error))?;
        request.headers_mut().insert(header::HOST, value);
        return Ok(());
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if !host.is_empty() => {
            if host.as_bytes().iter().all(|byte| is_of_authority(*byte)) {
                Ok(())
            } else {
                Err(Error::new(Failure::BadRequest))
            }
        }
        (Some(_), Some(_)) => Err(Error::new(Failure::BadRequest)),
        _ => Err(Error::new(Failure::MissingHost)),
    }
}

/// RFC 3986 §3.2, without what separates user information: nobody should send any (RFC 9110 §4.2.4).
fn is_of_authority(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(&byte)
}

/// Takes the port off the authority, wherever the request has it. Whether there was one.
fn strip_port<B>(request: &mut Request<B>, which: StripPort, caller: &Caller) -> bool {
    let host = request.headers().get(header::HOST);
    let Some(host) = host.and_then(|host| host.to_str().ok()) else {
        return false;
    };
    let Some((name, port)) = host.rsplit_once(':') else {
        return false;
    };
    // What follows a colon within the brackets of an address is no number (Envoy
    // `HeaderUtility::stripPortFromHost`).
    let Ok(port) = port.parse::<u32>() else {
        return false;
    };
    let ours = caller.local.map(|local| u32::from(local.port()));
    if which == StripPort::Matching && ours != Some(port) {
        return false;
    }
    let name = name.to_owned();
    let mut uri = request.uri().clone();
    let set = mesh_route::rewrite::set_authority(&mut uri, request.headers_mut(), &name);
    *request.uri_mut() = uri;
    set
}

/// Whether it was changed.
fn settle_path<B>(
    request: &mut Request<B>,
    manager: &HttpManager,
    exchange: &Exchange,
) -> Result<bool, Error> {
    let Some(target) = request.uri().path_and_query() else {
        return Ok(false);
    };
    if !target.as_str().starts_with('/') {
        // `*`: nothing is routed by it (Envoy `absolute_path_rejected`).
        return Err(Error::new(Failure::NotAPath));
    }
    match normalize(target.as_str(), manager.path) {
        Normalized::Path(Cow::Borrowed(_)) => Ok(false),
        Normalized::Path(Cow::Owned(path)) => {
            set_path(request, &path)?;
            Ok(true)
        }
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

/// An edge proxy writes down whom it talks to, and does not believe what it is told.
fn forwarded(headers: &mut HeaderMap, exchange: &Exchange, manager: &HttpManager) {
    let caller = exchange.caller();
    if !caller.is_connected() {
        return;
    }
    // Who calls over a Unix domain socket has no address: the list stays as it is, as in Envoy.
    let peer = caller.peer.map(|peer| peer.ip().to_canonical());
    let before = forwarded_for(headers);
    let hops = manager.trusted_hops.checked_sub(1);
    let said = hops.and_then(|hops| said_address(&before, hops));
    if let Some(said) = said {
        exchange.set_remote(SocketAddr::new(said, 0));
    }
    let added = peer.filter(|_| !manager.keep_forwarded_for);
    let list = added.map(|peer| match before.is_empty() {
        true => peer.to_string().into_bytes(),
        false => [&*before, b",", peer.to_string().as_bytes()].concat(),
    });
    if let Some(Ok(list)) = list.map(|list| HeaderValue::from_bytes(&list)) {
        headers.insert(X_FORWARDED_FOR, list);
    }
    if manager.trusted_hops == 0 {
        headers.insert(X_FORWARDED_PROTO, scheme(caller));
    }
    if let Some(trusted) = said.or(peer)
        && let Ok(address) = HeaderValue::try_from(trusted.to_string())
    {
        headers.insert(X_ENVOY_EXTERNAL_ADDRESS, address);
    }
}

/// All that `x-forwarded-for` says: it is one list, on however many lines (RFC 9110 §5.3).
fn forwarded_for(headers: &HeaderMap) -> Cow<'_, [u8]> {
    let mut lines = headers.get_all(X_FORWARDED_FOR).iter();
    let lines = lines.by_ref().map(HeaderValue::as_bytes);
    let mut lines = lines.filter(|line| !line.is_empty());
    let Some(first) = lines.next() else {
        return Cow::Borrowed(b"");
    };
    lines.fold(Cow::Borrowed(first), |all, line| {
        Cow::Owned([&*all, b",", line].concat())
    })
}

/// The address in such a list after which so many were added by proxies that are trusted
/// (Envoy `Utility::getLastAddressFromXFF`).
fn said_address(list: &[u8], hops: u32) -> Option<IpAddr> {
    let mut addresses = list.rsplit(|byte| *byte == b',');
    let address = addresses.nth(usize::try_from(hops).ok()?)?;
    std::str::from_utf8(address).ok()?.trim().parse().ok()
}

/// Adds us to those that passed a message on (RFC 9110 §7.6.3, Envoy `via`).
pub(super) fn append_via(headers: &mut HeaderMap, via: &str) {
    let lines = headers.get_all(header::VIA).iter();
    let lines = lines
        .map(HeaderValue::as_bytes)
        .filter(|line| !line.is_empty());
    let all: Vec<&[u8]> = lines.chain([via.as_bytes()]).collect();
    if let Ok(all) = HeaderValue::from_bytes(&all.join(&b", "[..])) {
        headers.insert(header::VIA, all);
    }
}

fn scheme(caller: &Caller) -> HeaderValue {
    HeaderValue::from_static(if caller.is_secure() { "https" } else { "http" })
}

/// A random UUID (RFC 9562 version 4) from two random words.
fn request_id(high: u64, low: u64) -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let high = (high & !0xf000) | 0x4000;
    let low = (low & !(0b11 << 62)) | (0b10 << 62);
    let digits = (u128::from(high) << 64) | u128::from(low);
    let mut text = [b'-'; 36];
    let mut shift = 128;
    for (at, place) in text.iter_mut().enumerate() {
        if matches!(at, 8 | 13 | 18 | 23) {
            continue;
        }
        shift -= 4;
        // Four bits at a time, so the index is below 16.
        *place = HEX[((digits >> shift) & 0xf) as usize];
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests;
