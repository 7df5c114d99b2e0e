//! Filter chains.

use super::{direction, matches, network};
use crate::pb::envoy::config::core::v3::Metadata;
use crate::pb::envoy::config::listener::v3 as pb;
use crate::read::{Given, RouteSource, transport};
use crate::wire::{At, boolean, maybe_duration, refuse};
use mesh_core::Invalid;
use mesh_core::model::{Filter, FilterChain};
use std::sync::Arc;

/// What a chain has to know of its listener.
pub(super) struct Listener<'a> {
    pub(super) name: &'a str,
    pub(super) inbound: bool,
    pub(super) metadata: Option<&'a Metadata>,
}

/// A chain, and where its routes are, if it has any.
#[expect(deprecated, reason = "Envoy still reads `use_proxy_proto`")]
pub(super) fn chain(
    value: &pb::FilterChain,
    listener: &Listener<'_>,
    given: &mut Given,
) -> Result<(FilterChain, Option<RouteSource>), Invalid> {
    let pb::FilterChain {
        filter_chain_match,
        filters,
        use_proxy_proto,
        // Of this, only the direction is read.
        metadata,
        transport_socket,
        transport_socket_connect_timeout,
        name,
    } = value;
    if boolean(use_proxy_proto.as_ref(), false) {
        refuse!(use_proxy_proto);
    }
    let read = network::filters(filters, listener.name)?;
    let edge = match &read.filter {
        Filter::Http(manager) => manager.use_remote_address,
        _ => false,
    };
    let places = [metadata.as_ref(), listener.metadata];
    let side = direction(listener.inbound, edge, &places);
    let mut chain = FilterChain::new(read.filter);
    chain.authz = read.authz;
    chain.connection_limit = read.limit;
    match &mut chain.filter {
        Filter::Http(manager) => Arc::make_mut(manager).direction = side,
        Filter::Tcp(proxy) => Arc::make_mut(proxy).direction = side,
        _ => {}
    }
    chain.name = name.into();
    if let Some(value) = filter_chain_match {
        chain.matches = matches::matches(value).at("filter_chain_match")?;
    }
    chain.tls = transport::server(transport_socket.as_ref(), given)?;
    let field = "transport_socket_connect_timeout";
    let limit = maybe_duration(field, transport_socket_connect_timeout.as_ref())?;
    // Zero is no limit.
    chain.handshake_timeout = limit.filter(|limit| !limit.is_zero());
    Ok((chain, read.routes))
}
