//! Listeners.

mod chain;
mod inspect;
mod matches;
mod network;

pub(super) use matches::block;

use super::address::listener_address;
use super::{Given, ListenerResource, access_log};
use crate::metadata::LISTENER;
use crate::pb::envoy::config::accesslog::v3::{self as log, access_log_filter::FilterSpecifier};
use crate::pb::envoy::config::core::v3::{Metadata, TrafficDirection};
use crate::pb::envoy::config::listener::v3 as pb;
use crate::pb::google::protobuf::value::Kind;
use crate::wire::{At, boolean, each, enumeration, pass_over, refuse, required};
use mesh_core::Invalid;
use mesh_core::model::{AccessLog, Direction, Listener};
use std::sync::Arc;

/// A listener, and where its routes are.
#[expect(deprecated, reason = "Envoy still reads the older spellings")]
pub(super) fn listener(value: &pb::Listener) -> Result<ListenerResource, Invalid> {
    let pb::Listener {
        name,
        address: at,
        additional_addresses,
        stat_prefix,
        stats_matcher,
        filter_chains,
        fcds_config,
        filter_chain_matcher,
        use_original_dst,
        default_filter_chain,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        metadata,
        deprecated_v1,
        drain_type,
        listener_filters,
        listener_filters_timeout,
        continue_on_listener_filters_timeout,
        transparent,
        freebind,
        socket_options,
        tcp_fast_open_queue_length,
        traffic_direction,
        udp_listener_config,
        api_listener,
        connection_balance_config,
        reuse_port,
        enable_reuse_port,
        access_log,
        tcp_backlog_size,
        max_connections_to_accept_per_socket_event,
        bind_to_port,
        enable_mptcp,
        ignore_global_conn_limit,
        bypass_overload_manager,
        tcp_keepalive,
        listener_specifier,
    } = value;
    if api_listener.is_some() {
        let message = "an API listener is for gRPC clients; a proxy cannot serve it";
        return Err(Invalid::new("api_listener", message));
    }
    refuse!(
        additional_addresses,
        stat_prefix,
        stats_matcher,
        fcds_config,
        filter_chain_matcher,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        drain_type,
        socket_options,
        tcp_fast_open_queue_length,
        udp_listener_config,
        connection_balance_config,
        tcp_backlog_size,
        enable_mptcp,
        ignore_global_conn_limit,
        bypass_overload_manager,
        tcp_keepalive,
        listener_specifier,
    );
    pass_over!("envoy.config.listener.v3.Listener":
        max_connections_to_accept_per_socket_event,
        reuse_port,
    );
    for (field, value, here) in [
        ("freebind", freebind, false),
        ("enable_reuse_port", enable_reuse_port, true),
    ] {
        if boolean(value.as_ref(), here) != here {
            let message = format!("{} is not supported yet", !here);
            return Err(Invalid::new(field, message));
        }
    }
    if name.is_empty() {
        return Err(Invalid::new("name", "required, but missing"));
    }
    let (bind, mode) = listener_address(required("address", at)?).at("address")?;
    let mut listener = Listener::at(name.as_str(), bind);
    listener.mode = mode;
    let older = deprecated_v1.as_ref();
    let older = older.and_then(|older| older.bind_to_port.as_ref());
    listener.bind = boolean(bind_to_port.as_ref(), true) && boolean(older, true);
    listener.hand_off = boolean(use_original_dst.as_ref(), false);
    listener.transparent = boolean(transparent.as_ref(), false);
    listener.access_log = each("access_log", access_log, unmatched)?;
    listener.inspect = inspect::inspect(listener_filters)?;
    inspect::time(
        listener_filters_timeout.as_ref(),
        *continue_on_listener_filters_timeout,
        &mut listener.inspect,
    )?;

    let direction: TrafficDirection = enumeration("traffic_direction", *traffic_direction)?;
    let from = chain::Listener {
        name,
        inbound: direction == TrafficDirection::Inbound,
        metadata: metadata.as_ref(),
    };
    let mut given = Given::default();
    let mut routes = Vec::new();
    let mut chains = Vec::with_capacity(filter_chains.len());
    for (at, value) in filter_chains.iter().enumerate() {
        let read = chain::chain(value, &from, &mut given);
        let (chain, source) = read.at(format_args!("filter_chains[{at}]"))?;
        routes.extend(source);
        chains.push(Arc::new(chain));
    }
    matches::distinct(&chains)?;
    listener.chains = chains;
    if let Some(value) = default_filter_chain {
        let read = chain::chain(value, &from, &mut given).and_then(|read| {
            if read.0.matches != Default::default() {
                let message = "has no effect in the default filter chain";
                return Err(Invalid::new("filter_chain_match", message));
            }
            Ok(read)
        });
        let (chain, source) = read.at("default_filter_chain")?;
        routes.extend(source);
        listener.default_chain = Some(Arc::new(chain));
    }
    if listener.all_chains().next().is_none() {
        return Err(Invalid::new("filter_chains", "required, but missing"));
    }
    inspect::add_what_is_needed(&mut listener);
    Ok(ListenerResource {
        listener,
        routes,
        secrets: given.into_inner(),
    })
}

/// Envoy has no direction for the edge of a mesh: what looks at the peer's address is one, unless
/// the metadata that this crate writes says otherwise.
fn direction(inbound: bool, edge: bool, metadata: &[Option<&Metadata>]) -> Direction {
    let said = metadata.iter().flatten().find_map(|all| {
        let own = all.filter_metadata.get(LISTENER)?;
        match own.fields.get("direction")?.kind.as_ref()? {
            Kind::StringValue(text) if text == "gateway" => Some(Direction::Gateway),
            Kind::StringValue(text) if text == "inbound" => Some(Direction::Inbound),
            Kind::StringValue(text) if text == "outbound" => Some(Direction::Outbound),
            _ => None,
        }
    });
    said.unwrap_or(match (inbound, edge) {
        (true, _) => Direction::Inbound,
        (false, true) => Direction::Gateway,
        (false, false) => Direction::Outbound,
    })
}

/// The log of connections that no chain was found for: all that a listener logs by itself.
fn unmatched(value: &log::AccessLog) -> Result<AccessLog, Invalid> {
    let filter = value.filter.as_ref();
    let filter = filter.and_then(|filter| filter.filter_specifier.as_ref());
    match filter {
        Some(FilterSpecifier::ResponseFlagFilter(log::ResponseFlagFilter { flags }))
            if *flags == ["NR"] => {}
        _ => {
            let message = "a listener's own log has to have the response_flag_filter NR";
            return Err(Invalid::new("filter", message));
        }
    }
    access_log::access_log(&log::AccessLog {
        filter: None,
        ..value.clone()
    })
}
