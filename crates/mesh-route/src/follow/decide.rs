//! Whether a request goes on where an answer says, and as what. Pure, but for what the exchange
//! remembers of routes.
//!
//! The order of the questions is Envoy's (`Filter::setupRedirect` and
//! `convertRequestHeadersForInternalRedirect` in `source/common/router/router.cc`).

use super::location::{Location, parse};
use http::header::{CONTENT_LENGTH, HOST, LOCATION};
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use mesh_core::model::{FollowRedirects, RedirectTarget};
use mesh_core::stats::HttpStat;
use mesh_core::{Exchange, Name};

/// Why an answer is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PassedOn {
    /// The request is not whole, or there is no `location`.
    Unfit,
    BadLocation,
    UnsafeScheme,
    TooMany,
    NoRoute,
    Target,
}

/// Where the request was before.
const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-envoy-original-url");

/// What Envoy's router has taken out of a request when it goes on.
const STEERING: [HeaderName; 10] = [
    HeaderName::from_static("x-envoy-hedge-on-per-try-timeout"),
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-retriable-header-names"),
    HeaderName::from_static("x-envoy-retriable-status-codes"),
    HeaderName::from_static("x-envoy-retry-grpc-on"),
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-upstream-alt-stat-name"),
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-ms"),
];

// === impl PassedOn ===

impl PassedOn {
    /// What it is counted as besides.
    pub(super) fn stat(self) -> Option<HttpStat> {
        Some(match self {
            Self::Unfit => return None,
            Self::BadLocation => HttpStat::RedirectBadLocation,
            Self::UnsafeScheme => HttpStat::RedirectUnsafeScheme,
            Self::TooMany => HttpStat::RedirectTooMany,
            Self::NoRoute => HttpStat::RedirectNoRoute,
            Self::Target => HttpStat::RedirectPredicate,
        })
    }
}

/// Where an answer leads, as far as that is to be followed. `secure` is whether the request is of
/// https, `before` how many redirects it has behind it.
pub(super) fn place(
    policy: &FollowRedirects,
    answer: &HeaderMap,
    secure: bool,
    before: u32,
) -> Result<Location, PassedOn> {
    let value = answer.get(LOCATION).ok_or(PassedOn::Unfit)?;
    let place = value.to_str().ok().and_then(parse);
    let place = place.ok_or(PassedOn::BadLocation)?;
    if !policy.other_scheme && place.secure != secure {
        return Err(PassedOn::UnsafeScheme);
    }
    if before >= policy.most {
        return Err(PassedOn::TooMany);
    }
    Ok(place)
}

/// The head of the request as it goes on to `place`. `None` if it fits into none.
pub(super) fn head(
    policy: &FollowRedirects,
    request: &Request<()>,
    answer: &HeaderMap,
    place: &Location,
) -> Option<Request<()>> {
    let mut headers = request.headers().clone();
    for name in &STEERING {
        headers.remove(name);
    }
    for name in &policy.copy_headers {
        headers.remove(name);
        for value in answer.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    if headers.contains_key(HOST) {
        headers.insert(HOST, HeaderValue::try_from(place.authority.as_str()).ok()?);
    }
    let scheme = if place.secure {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    };
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(place.authority.clone())
        .path_and_query(place.path.clone());
    let mut onward = Request::new(());
    *onward.method_mut() = request.method().clone();
    *onward.version_mut() = request.version();
    *onward.uri_mut() = uri.build().ok()?;
    *onward.headers_mut() = headers;
    Some(onward)
}

/// Whether the policy of the route `by` takes the route `to`. That it was asked for is remembered,
/// as in Envoy, even where another part of the policy does not take it.
pub(super) fn takes(
    policy: &FollowRedirects,
    exchange: &Exchange,
    (by, to): (&Name, &Name),
    (secure, will_be): (bool, bool),
) -> bool {
    policy.targets.iter().all(|target| match target {
        RedirectTarget::NotPrevious => exchange.take_route(by, to),
        RedirectTarget::Named(names) => names.contains(to),
        RedirectTarget::SafeScheme => secure || !will_be,
        // One that is not known here takes nothing.
        _ => false,
    })
}

/// Whether the request goes on without its body (RFC 9110 §15.4.4); its head is changed then.
pub(super) fn loses_body(status: StatusCode, head: &mut Request<()>) -> bool {
    let keeps = [Method::GET, Method::HEAD].contains(head.method());
    if status != StatusCode::SEE_OTHER || keeps {
        return false;
    }
    *head.method_mut() = Method::GET;
    head.headers_mut().remove(CONTENT_LENGTH);
    true
}

/// Says where the request was.
pub(super) fn tell(onward: &mut Request<()>, secure: bool, authority: &str, path: &str) {
    let scheme = if secure { "https" } else { "http" };
    if let Ok(value) = HeaderValue::try_from(format!("{scheme}://{authority}{path}")) {
        onward.headers_mut().insert(ORIGINAL_URL, value);
    }
}
