//! Cookies to hash by: read, and made where there is none.

use super::decide::text;
use crate::cookies::{self, find};
use http::{HeaderMap, HeaderValue};
use mesh_core::Caller;
use mesh_core::model::HashCookie;

/// The hash of a cookie's value. Without a value one is made, where the cookie has a time to live
/// and somebody asks for what is made: the hash of both addresses of the connection, as the PROXY protocol restores them, so that
/// requests which race on one connection get the same (Envoy `Filter::addDownstreamSetCookie`).
pub(super) fn hash(
    wanted: &HashCookie,
    headers: &HeaderMap,
    caller: &Caller,
    made: Option<&mut Vec<HeaderValue>>,
) -> Option<u64> {
    if let Some(value) = find(headers, &wanted.name).filter(|value| !value.is_empty()) {
        return Some(text(value));
    }
    let seconds = wanted.ttl?.as_secs();
    let made = made?;
    let addresses: String = [caller.peer, caller.local]
        .into_iter()
        .flatten()
        .map(|address| address.to_string())
        .collect();
    let value = format!("{:016x}", text(addresses.as_bytes()));
    // One that cannot be a header is not made, and so is not hashed by.
    let line = HeaderValue::try_from(cookies::line(wanted, &value, seconds)).ok()?;
    made.push(line);
    Some(text(value.as_bytes()))
}
