//! Who called those that called us: `x-forwarded-for` and what goes with it.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use mesh_core::model::HttpManager;
use mesh_core::{Caller, Exchange};
use mesh_route::list;
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_ENVOY_EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");

/// An edge proxy writes down whom it talks to, and does not believe what it is told. `told` says
/// whether there may be a list of whoever else called.
pub(super) fn forwarded(
    headers: &mut HeaderMap,
    exchange: &Exchange,
    manager: &HttpManager,
    told: bool,
) {
    let caller = exchange.caller();
    if !caller.is_connected() {
        return;
    }
    // Who calls over a Unix domain socket has no address: the list stays as it is, as in Envoy.
    let peer = caller.peer_value();
    let hops = manager.trusted_hops.checked_sub(1);
    let said = hops.and_then(|hops| said_address(&forwarded_for(headers), hops));
    if let Some(said) = said {
        exchange.set_remote(SocketAddr::new(said, 0));
    }
    if let Some(peer) = peer.as_ref().filter(|_| !manager.keep_forwarded_for) {
        if told {
            list::append(headers, X_FORWARDED_FOR, peer, ",");
        } else {
            headers.insert(X_FORWARDED_FOR, peer.clone());
        }
    }
    if manager.trusted_hops == 0 {
        headers.insert(X_FORWARDED_PROTO, scheme(caller));
    }
    let said = said.and_then(|said| HeaderValue::try_from(said.to_string()).ok());
    if let Some(trusted) = said.or(peer) {
        headers.insert(X_ENVOY_EXTERNAL_ADDRESS, trusted);
    }
}

/// All that `x-forwarded-for` says.
pub(super) fn forwarded_for(headers: &HeaderMap) -> Cow<'_, [u8]> {
    list::whole(headers, &X_FORWARDED_FOR, ",")
}

/// The address in such a list after which so many were added by proxies that are trusted
/// (Envoy `Utility::getLastAddressFromXFF`).
pub(super) fn said_address(list: &[u8], hops: u32) -> Option<IpAddr> {
    let mut addresses = list.rsplit(|byte| *byte == b',');
    let address = addresses.nth(usize::try_from(hops).ok()?)?;
    std::str::from_utf8(address).ok()?.trim().parse().ok()
}

/// Adds us to those that passed a message on (RFC 9110 §7.6.3, Envoy `via`).
pub(in crate::http) fn append_via(headers: &mut HeaderMap, via: &str) {
    if let Ok(via) = HeaderValue::from_str(via) {
        list::append(headers, header::VIA, &via, ", ");
    }
}

pub(super) fn scheme(caller: &Caller) -> HeaderValue {
    HeaderValue::from_static(if caller.is_secure() { "https" } else { "http" })
}
