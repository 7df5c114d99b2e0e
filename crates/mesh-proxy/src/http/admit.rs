//! Makes a request head fit to be judged and routed, or refuses it.
//!
//! Below this layer the path is normalised, `host` is there and agrees with the request target,
//! `x-request-id` and the `x-forwarded-*` headers are set, and callers from outside the mesh
//! cannot steer us with `x-envoy-*` headers. Settings come from the listener
//! ([`HttpManager`]); bodies are not looked at.

use super::path::{Normalized, normalize};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Uri, Version, uri};
use mesh_core::model::HttpManager;
use mesh_core::reply::Answer;
use mesh_core::{Caller, Error, Exchange, Failure, Rng};
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Admit`] services.
#[derive(Clone, Debug)]
pub(crate) struct AdmitLayer {
    rng: Arc<Rng>,
}

/// Passes on only requests with a sound head.
#[derive(Clone, Debug)]
pub(crate) struct Admit<S> {
    inner: S,
    rng: Arc<Rng>,
}

/// The response future of [`Admit`].
#[pin_project::pin_project(project = Projected)]
pub(crate) enum ResponseFuture<F> {
    Admitted(#[pin] F),
    Refused(#[pin] Ready<Option<Error>>),
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_ENVOY_EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");

/// What a caller from outside the mesh may not say (Envoy `cleanExternalHeaders`).
const INTERNAL_ONLY: [&str; 18] = [
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-force-trace",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-internal",
    "x-envoy-ip-tags",
    "x-envoy-max-retries",
    "x-envoy-original-url",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
];

// === impl AdmitLayer ===

impl AdmitLayer {
    pub(crate) fn new(rng: Arc<Rng>) -> Self {
        Self { rng }
    }
}

impl<S> Layer<S> for AdmitLayer {
    type Service = Admit<S>;
    fn layer(&self, inner: S) -> Admit<S> {
        Admit {
            inner,
            rng: self.rng.clone(),
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
        if let Some(exchange) = &exchange
            && let Some(manager) = &exchange.caller().manager
            && let Err(error) = admit(&mut request, manager, exchange, &self.rng)
        {
            return ResponseFuture::Refused(ready(Some(error)));
        }
        ResponseFuture::Admitted(self.inner.call(request))
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
            Projected::Refused(error) => {
                let error = ready!(error.poll(cx));
                Poll::Ready(Err(error.unwrap_or_else(|| Error::new(Failure::Internal))))
            }
        }
    }
}

fn admit<B>(
    request: &mut Request<B>,
    manager: &HttpManager,
    exchange: &Exchange,
    rng: &Rng,
) -> Result<(), Error> {
    if request.version() < Version::HTTP_11 {
        // As Envoy without `accept_http_10`.
        return Err(Error::answer(
            Failure::BadRequest,
            Answer::new(StatusCode::UPGRADE_REQUIRED),
        ));
    }
    settle_authority(request)?;
    settle_path(request, manager)?;
    let caller = exchange.caller();
    let headers = request.headers_mut();
    if let Some(protocol) = mesh_client::upgrade_of(headers) {
        let wanted = protocol.as_bytes().to_ascii_lowercase();
        if !manager
            .upgrades
            .iter()
            .any(|allowed| allowed.as_bytes() == wanted)
        {
            return Err(Error::new(Failure::UpgradeRefused));
        }
    }
    if manager.use_remote_address {
        for name in INTERNAL_ONLY {
            headers.remove(name);
        }
        forwarded(headers, caller, manager);
    }
    if !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, scheme(caller));
    }
    if manager.request_id {
        let replace = manager.use_remote_address && !manager.keep_external_request_id;
        if replace || !headers.contains_key(X_REQUEST_ID) {
            headers.insert(X_REQUEST_ID, request_id(rng.word(), rng.word()));
        }
    }
    if let Some(id) = headers.get(X_REQUEST_ID) {
        exchange.set_request_id(id.clone());
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
        (Some(host), None) if !host.is_empty() => Ok(()),
        (Some(_), Some(_)) => Err(Error::new(Failure::BadRequest)),
        _ => Err(Error::new(Failure::MissingHost)),
    }
}

fn settle_path<B>(request: &mut Request<B>, manager: &HttpManager) -> Result<(), Error> {
    if request.method() == Method::CONNECT {
        return Ok(());
    }
    let Some(target) = request.uri().path_and_query() else {
        return Ok(());
    };
    match normalize(target.as_str(), manager.path) {
        Normalized::Path(std::borrow::Cow::Borrowed(_)) => Ok(()),
        Normalized::Path(std::borrow::Cow::Owned(path)) => {
            let target = uri::PathAndQuery::try_from(path)
                .map_err(|error| Error::with_source(Failure::InvalidPath, error))?;
            let mut parts = std::mem::take(request.uri_mut()).into_parts();
            parts.path_and_query = Some(target);
            *request.uri_mut() = Uri::from_parts(parts)
                .map_err(|error| Error::with_source(Failure::InvalidPath, error))?;
            Ok(())
        }
        Normalized::Reject => Err(Error::new(Failure::InvalidPath)),
        Normalized::Redirect(path) => {
            let location = HeaderValue::try_from(path)
                .map_err(|error| Error::with_source(Failure::InvalidPath, error))?;
            let answer =
                Answer::new(StatusCode::TEMPORARY_REDIRECT).header(header::LOCATION, location);
            Err(Error::answer(Failure::InvalidPath, answer))
        }
    }
}

/// An edge proxy writes down whom it talks to, and does not believe what it is told.
fn forwarded(headers: &mut HeaderMap, caller: &Caller, manager: &HttpManager) {
    let Some(peer) = caller.peer.map(|peer| peer.ip().to_canonical()) else {
        return;
    };
    let trusted = trusted_address(headers, manager.trusted_hops).unwrap_or(peer);
    let list = match headers.get(X_FORWARDED_FOR).map(HeaderValue::as_bytes) {
        Some(before) if !before.is_empty() => [before, b",", peer.to_string().as_bytes()].concat(),
        _ => peer.to_string().into_bytes(),
    };
    if let Ok(list) = HeaderValue::from_bytes(&list) {
        headers.insert(X_FORWARDED_FOR, list);
    }
    if manager.trusted_hops == 0 {
        headers.insert(X_FORWARDED_PROTO, scheme(caller));
    }
    if let Ok(address) = HeaderValue::try_from(trusted.to_string()) {
        headers.insert(X_ENVOY_EXTERNAL_ADDRESS, address);
    }
}

/// The address that the outermost trusted proxy saw: the `hops`-th from the right.
fn trusted_address(headers: &HeaderMap, hops: u32) -> Option<IpAddr> {
    let back = usize::try_from(hops).ok()?.checked_sub(1)?;
    let list = headers.get(X_FORWARDED_FOR)?.to_str().ok()?;
    list.rsplit(',').nth(back)?.trim().parse().ok()
}

fn scheme(caller: &Caller) -> HeaderValue {
    HeaderValue::from_static(if caller.tls { "https" } else { "http" })
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
mod tests {
    use super::*;
    use mesh_core::model::PathNormalization;

    fn manager() -> HttpManager {
        HttpManager::new("test", "t")
    }

    fn exchange() -> Exchange {
        let mut caller = Caller::default();
        caller.peer = Some("[::ffff:10.1.2.3]:999".parse().unwrap());
        Exchange::new(tokio::time::Instant::now().into_std(), caller)
    }

    fn run(request: http::request::Builder, manager: &HttpManager) -> Result<Request<()>, Error> {
        let mut request = request.body(()).unwrap();
        admit(&mut request, manager, &exchange(), &Rng::with_seed(1))?;
        Ok(request)
    }

    #[test]
    fn the_authority_of_an_absolute_target_wins_over_host() {
        let request = Request::get("http://reviews:9080/x").header("host", "other");
        assert_eq!(
            run(request, &manager()).unwrap().headers()["host"],
            "reviews:9080"
        );
    }

    #[test]
    fn a_request_without_a_host_or_with_two_is_refused() {
        let error = run(Request::get("/x"), &manager()).unwrap_err();
        assert_eq!(error.failure(), Failure::MissingHost);
        let two = Request::get("/x").header("host", "a").header("host", "b");
        assert_eq!(
            run(two, &manager()).unwrap_err().failure(),
            Failure::BadRequest
        );
    }

    #[test]
    fn what_is_forwarded_is_the_normalised_path() {
        let request = run(Request::get("/a/../b?c").header("host", "h"), &manager()).unwrap();
        assert_eq!(request.uri(), "/b?c");
        let mut keep = manager();
        keep.path = PathNormalization::default();
        let request = run(Request::get("/a/../b?c").header("host", "h"), &keep).unwrap();
        assert_eq!(request.uri(), "/a/../b?c");
    }

    #[test]
    fn a_request_id_is_a_random_uuid_and_an_inner_one_is_kept() {
        let request = run(Request::get("/").header("host", "h"), &manager()).unwrap();
        let id = request.headers()["x-request-id"].to_str().unwrap();
        assert_eq!(id.len(), 36);
        assert_eq!(&id[14..15], "4");
        assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"), "{id}");
        let inner = Request::get("/")
            .header("host", "h")
            .header("x-request-id", "mine");
        assert_eq!(
            run(inner, &manager()).unwrap().headers()["x-request-id"],
            "mine"
        );
    }

    #[test]
    fn the_edge_writes_down_the_peer_and_drops_what_only_insiders_may_say() {
        let mut edge = manager();
        edge.use_remote_address = true;
        let request = Request::get("/")
            .header("host", "h")
            .header("x-forwarded-for", "1.1.1.1")
            .header("x-forwarded-proto", "https")
            .header("x-envoy-max-retries", "9")
            .header("x-request-id", "theirs");
        let request = run(request, &edge).unwrap();
        assert_eq!(request.headers()["x-forwarded-for"], "1.1.1.1,10.1.2.3");
        assert_eq!(request.headers()["x-forwarded-proto"], "http");
        assert_eq!(request.headers()["x-envoy-external-address"], "10.1.2.3");
        assert!(!request.headers().contains_key("x-envoy-max-retries"));
        assert_ne!(request.headers()["x-request-id"], "theirs");
    }

    #[test]
    fn a_trusted_proxy_in_front_names_the_caller() {
        let mut edge = manager();
        edge.use_remote_address = true;
        edge.trusted_hops = 1;
        let request = Request::get("/")
            .header("host", "h")
            .header("x-forwarded-for", "8.8.8.8, 9.9.9.9");
        let request = run(request, &edge).unwrap();
        assert_eq!(request.headers()["x-envoy-external-address"], "9.9.9.9");
    }

    #[test]
    fn only_upgrades_that_the_listener_allows_pass() {
        let upgrade = |to| {
            Request::get("/")
                .header("host", "h")
                .header("connection", "upgrade")
                .header("upgrade", to)
        };
        assert!(run(upgrade("WebSocket"), &manager()).is_ok());
        let error = run(upgrade("h2c"), &manager()).unwrap_err();
        assert_eq!(error.failure(), Failure::UpgradeRefused);
    }
}
