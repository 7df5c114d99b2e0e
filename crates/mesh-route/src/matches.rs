//! Whether a request meets a rule's condition. Pure; nothing here allocates for ordinary heads.
//!
//! The rules are those of Envoy's `RouteMatch` and `HeaderMatcher`
//! (`config/route/v3/route_components.proto`), checked against Envoy 1.40.

use crate::cookies;
use crate::head::{Head, with_header};
use http::header::HOST;
use http::{HeaderValue, Method};
use mesh_core::model::{
    ClaimCondition, Condition, CookieMatch, FilterStateMatch, HeaderKey, HeaderMatch, PathMatch,
    QueryMatch, ValueMatch,
};
use mesh_core::reply::is_grpc;

/// A part of a [`Condition`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Predicate {
    Path,
    /// The header match at this place.
    Header(usize),
    /// The query match at this place.
    Query(usize),
    /// The condition on a cookie at this place.
    Cookie(usize),
    Tls,
    /// The condition on a claim at this place.
    Claim(usize),
    /// The condition on what was kept at this place.
    FilterState(usize),
    Grpc,
    Share,
}

/// The first part of the condition that the request does not meet.
pub(crate) fn unmet(condition: &Condition, head: &Head<'_>, word: u64) -> Option<Predicate> {
    if !path(&condition.path, head) {
        return Some(Predicate::Path);
    }
    unmet_beside_path(condition, head, word)
}

/// As [`unmet`], for a request whose path is known to match.
pub(crate) fn unmet_beside_path(
    condition: &Condition,
    head: &Head<'_>,
    word: u64,
) -> Option<Predicate> {
    if let Some(at) = condition
        .headers
        .iter()
        .position(|want| !header(want, head))
    {
        return Some(Predicate::Header(at));
    }
    if let Some(at) = condition.query.iter().position(|want| !query(want, head)) {
        return Some(Predicate::Query(at));
    }
    let met = |want: &CookieMatch| want.holds(cookies::find(head.headers(), &want.name));
    if let Some(at) = condition.cookies.iter().position(|want| !met(want)) {
        return Some(Predicate::Cookie(at));
    }
    if condition.tls.is_some_and(|want| !want.holds(head.tls())) {
        return Some(Predicate::Tls);
    }
    let met = |want: &ClaimCondition| want.claim.holds(head.claims()) != want.invert;
    if let Some(at) = condition.claims.iter().position(|want| !met(want)) {
        return Some(Predicate::Claim(at));
    }
    let met = |want: &FilterStateMatch| want.holds(head.filter_state());
    if let Some(at) = condition.filter_state.iter().position(|want| !met(want)) {
        return Some(Predicate::FilterState(at));
    }
    if condition.grpc && !is_grpc(head.headers()) {
        return Some(Predicate::Grpc);
    }
    if condition.share.is_some_and(|share| !share.admits(word)) {
        return Some(Predicate::Share);
    }
    None
}

/// Whether the request's path matches. Without a path (a plain `CONNECT`), only
/// [`PathMatch::Connect`] does.
pub(crate) fn path(want: &PathMatch, head: &Head<'_>) -> bool {
    if let PathMatch::Connect = want {
        return head.method() == Method::CONNECT;
    }
    let Some(path) = head.path().map(str::as_bytes) else {
        return false;
    };
    match want {
        PathMatch::Prefix(prefix) => path.starts_with(prefix.as_bytes()),
        PathMatch::Exact(exact) => path == exact.as_bytes(),
        PathMatch::SeparatedPrefix(prefix) => path
            .strip_prefix(prefix.as_bytes())
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'/'))),
        PathMatch::PrefixIgnoreCase(prefix) => strip_any_case(path, prefix).is_some(),
        PathMatch::ExactIgnoreCase(exact) => path.eq_ignore_ascii_case(exact.as_bytes()),
        PathMatch::SeparatedPrefixIgnoreCase(prefix) => strip_any_case(path, prefix)
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'/'))),
        PathMatch::Regex(pattern) => pattern.is_match(path),
        PathMatch::Template(template) => template.matches(path),
        // A kind of match that this version does not know matches nothing.
        _ => false,
    }
}

fn strip_any_case<'a>(path: &'a [u8], prefix: &str) -> Option<&'a [u8]> {
    let (head, rest) = path.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix.as_bytes()).then_some(rest)
}

fn header(want: &HeaderMatch, head: &Head<'_>) -> bool {
    match &want.key {
        // There is one authority, whichever of its two names is asked for.
        HeaderKey::Header(name) if name != HOST => {
            let lines = head.headers().get_all(name).iter();
            want.holds(lines.map(HeaderValue::as_bytes))
        }
        key => with_value(key, head, |value| want.holds(value)),
    }
}

fn query(want: &QueryMatch, head: &Head<'_>) -> bool {
    let value = query_value(head, &want.name);
    match &want.value {
        ValueMatch::Present(present) => value.is_some() == *present,
        value_match => value.is_some_and(|value| value_match.holds(value.as_bytes())),
    }
}

/// Calls `look` with what a header match looks at.
pub(crate) fn with_value<T>(
    key: &HeaderKey,
    head: &Head<'_>,
    look: impl FnOnce(Option<&[u8]>) -> T,
) -> T {
    match key {
        HeaderKey::Method => look(Some(head.method().as_str().as_bytes())),
        HeaderKey::Authority => look(head.authority().map(str::as_bytes)),
        HeaderKey::Scheme => look(Some(head.scheme().as_bytes())),
        HeaderKey::Path => look(head.path_and_query().map(str::as_bytes)),
        // There is one authority, whichever of its two names is asked for.
        HeaderKey::Header(name) if name == HOST => look(head.authority().map(str::as_bytes)),
        HeaderKey::Header(name) => with_header(head.headers(), name, look),
    }
}

/// The first value of a query parameter, as it was sent: neither name nor value is decoded. A
/// parameter without `=` is empty.
pub(crate) fn query_value<'a>(head: &Head<'a>, name: &str) -> Option<&'a str> {
    head.query()?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

#[cfg(test)]
mod tests;
