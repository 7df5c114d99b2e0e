//! Conditions on the heads of requests, where those of routes are not at hand.

use http::header::HOST;
use http::{HeaderName, HeaderValue, Request};
use mesh_core::model::{HeaderKey, HeaderMatch};
use mesh_core::{Caller, Exchange};

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Whether a request's head is as it has to be.
pub(crate) fn is_like<B>(request: &Request<B>, want: &HeaderMatch) -> bool {
    let headers = request.headers();
    let lines = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let uri = request.uri();
    match &want.key {
        HeaderKey::Method => want.holds([request.method().as_str().as_bytes()]),
        HeaderKey::Path => {
            let path = uri.path_and_query().map(|both| both.as_str().as_bytes());
            want.holds(path)
        }
        HeaderKey::Scheme => match uri.scheme_str() {
            Some(scheme) => want.holds([scheme.as_bytes()]),
            None => want.holds([scheme_of(request)]),
        },
        HeaderKey::Authority => authority_is(request, want),
        HeaderKey::Header(name) if name == HOST => authority_is(request, want),
        HeaderKey::Header(name) => want.holds(lines(name)),
    }
}

/// There is one authority, whichever of its two names is asked for.
fn authority_is<B>(request: &Request<B>, want: &HeaderMatch) -> bool {
    let own = request.uri().authority().map(|own| own.as_str().as_bytes());
    let host = || request.headers().get(HOST).map(HeaderValue::as_bytes);
    want.holds(own.or_else(host))
}

/// Of a request that does not say it: as its caller's connection is.
fn scheme_of<B>(request: &Request<B>) -> &[u8] {
    let caller = Exchange::of(request).map(Exchange::caller);
    match request.headers().get(FORWARDED_PROTO) {
        Some(said) => said.as_bytes(),
        None if caller.is_some_and(Caller::is_secure) => b"https",
        None => b"http",
    }
}
