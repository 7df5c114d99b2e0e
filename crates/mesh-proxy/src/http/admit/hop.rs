//! What of a head is meant for one hop, and goes no further.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use mesh_route::list;

/// What `connection` cannot name: the message would mean something else without it.
const NOT_FOR_US_ALONE: [HeaderName; 4] = [
    header::TE,
    header::UPGRADE,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
];

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Removes what `connection` names: meant for us alone (RFC 9110 §7.6.1). Done before any header of
/// our own is set, or a caller could name `x-forwarded-for` and have ours removed on the way out
/// (as in CVE-2022-31813). Whoever names `host` has none, as in Envoy.
///
/// Nobody switches to `h2c` any more (RFC 9113 §3.1): it is left out, as by Envoy.
pub(super) fn leave_connection(headers: &mut HeaderMap) {
    let is_h2c = |to: &HeaderValue| to.as_bytes().eq_ignore_ascii_case(b"h2c");
    if headers.get(header::UPGRADE).is_some_and(is_h2c) {
        headers.remove(header::UPGRADE);
        headers.remove(HTTP2_SETTINGS);
    }
    if !headers.contains_key(header::CONNECTION) {
        return;
    }
    let upgrades = mesh_core::upgrade::of(headers).is_some();
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        .filter(|name| !NOT_FOR_US_ALONE.contains(name))
        .filter(|name| !upgrades || *name != header::HOST)
        .collect();
    for name in named {
        headers.remove(name);
    }
    headers.remove(header::CONNECTION);
    if upgrades {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// HTTP/2 may cut a cookie into lines, for its compression; nobody else reads it so (RFC 9113
/// §8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    join(headers, header::COOKIE, "; ");
}

/// Makes one line of several that say who calls (RFC 9110 §5.3), as Envoy does: whoever is behind
/// sees what was judged, and takes none of them for the whole.
pub(super) fn join_authorization(headers: &mut HeaderMap) {
    // Most requests have no field in several lines.
    if headers.len() != headers.keys_len() {
        join(headers, header::AUTHORIZATION, ",");
    }
}

fn join(headers: &mut HeaderMap, name: HeaderName, between: &str) {
    if headers.get_all(&name).iter().nth(1).is_none() {
        return;
    }
    let mut lines = headers.get_all(&name).iter();
    let is_sensitive = lines.any(HeaderValue::is_sensitive);
    let all = list::whole(headers, &name, between);
    let Ok(mut all) = HeaderValue::from_bytes(&all) else {
        return;
    };
    // RFC 7541 §7.1.3: nobody on the way may write it into a table.
    all.set_sensitive(is_sensitive);
    headers.insert(name, all);
}
