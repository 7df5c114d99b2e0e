//! The decision: what a request is hashed by. Pure.

use super::cookie;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use mesh_core::Exchange;
use mesh_core::model::{FilterObject, HashPolicy, HashSource, Pattern};
use std::borrow::Cow;
use std::net::IpAddr;
use xxhash_rust::xxh64::xxh64;

/// What [`decide`] came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// What balancing goes by. None where nothing of what is asked for is there.
    pub hash: Option<u64>,
    /// Values of `set-cookie` for the response, where a cookie was made.
    pub cookies: Vec<HeaderValue>,
}

/// Hashes a request by these policies in their order, each with XXH64; a hash is combined with
/// those before it by turning those one bit to the left (Envoy `HashPolicyImpl::generateHash`).
///
/// Who calls is whom the exchange says ([`Exchange::remote`], Envoy `downstreamRemoteAddress`): it
/// was decided when the request came in, and no edit of a header changes it.
pub fn decide(
    policies: &[HashPolicy],
    headers: &HeaderMap,
    uri: &Uri,
    exchange: &Exchange,
) -> Decision {
    let mut decision = Decision::default();
    decision.hash = combined(
        policies,
        headers,
        uri,
        exchange,
        Some(&mut decision.cookies),
    );
    decision
}

/// The hash of what a request brings; no cookie is made.
pub(crate) fn known(
    policies: &[HashPolicy],
    headers: &HeaderMap,
    uri: &Uri,
    exchange: &Exchange,
) -> Option<u64> {
    combined(policies, headers, uri, exchange, None)
}

fn combined(
    policies: &[HashPolicy],
    headers: &HeaderMap,
    uri: &Uri,
    exchange: &Exchange,
    mut made: Option<&mut Vec<HeaderValue>>,
) -> Option<u64> {
    let mut hash: Option<u64> = None;
    for policy in policies {
        let new = match &policy.source {
            HashSource::Header(name, rewrite) => header(name, rewrite.as_ref(), headers, uri),
            HashSource::Cookie(wanted) => {
                cookie::hash(wanted, headers, exchange.caller(), made.as_deref_mut())
            }
            HashSource::SourceIp => source_ip(exchange),
            HashSource::Query(name) => query(uri, name),
            HashSource::FilterState(key) => kept(exchange, key),
            _ => None,
        };
        if let Some(new) = new {
            let old = hash.map_or(0, |old| old.rotate_left(1));
            hash = Some(old ^ new);
        }
        if policy.terminal && hash.is_some() {
            break;
        }
    }
    hash
}

/// An object that was kept so that it can be hashed.
fn kept(exchange: &Exchange, key: &str) -> Option<u64> {
    match exchange.filter_state()?.get(key)? {
        FilterObject::HashableText(value) => Some(text(value)),
        _ => None,
    }
}

/// Who calls. An address that a header names stays as it is written there, in its family.
fn source_ip(exchange: &Exchange) -> Option<u64> {
    let remote = exchange.remote()?;
    if exchange.caller().peer == Some(remote) {
        return Some(of_address(remote.ip()));
    }
    Some(text(remote.ip().to_string().as_bytes()))
}

/// The hash of a peer's address without its port.
pub fn of_address(ip: IpAddr) -> u64 {
    text(ip.to_canonical().to_string().as_bytes())
}

pub(super) fn text(text: &[u8]) -> u64 {
    xxh64(text, 0)
}

/// All values of a header, each rewritten, in order of their bytes; the hash of one is the seed of
/// the next. The host is wherever the request has it.
fn header(
    name: &HeaderName,
    rewrite: Option<&(Pattern, String)>,
    headers: &HeaderMap,
    uri: &Uri,
) -> Option<u64> {
    let rewritten = |value: &'_ [u8]| -> Option<Vec<u8>> {
        rewrite.map(|(pattern, with)| pattern.replace_all(value, with))
    };
    let mut values: Vec<Cow<'_, [u8]>> = headers
        .get_all(name)
        .iter()
        .map(HeaderValue::as_bytes)
        .map(|value| rewritten(value).map_or(Cow::Borrowed(value), Cow::Owned))
        .collect();
    if values.is_empty()
        && *name == HOST
        && let Some(authority) = uri.authority()
    {
        let value = authority.as_str().as_bytes();
        values.push(rewritten(value).map_or(Cow::Borrowed(value), Cow::Owned));
    }
    if values.is_empty() {
        return None;
    }
    values.sort_unstable();
    Some(values.iter().fold(0, |seed, value| xxh64(value, seed)))
}

/// The first value of a query parameter, as it stands there: nothing is decoded.
fn query(uri: &Uri, name: &str) -> Option<u64> {
    let pairs = uri.query()?.split('&');
    let mut values = pairs.filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    });
    values.next().map(|value| text(value.as_bytes()))
}
