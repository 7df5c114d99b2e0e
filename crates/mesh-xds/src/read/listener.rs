//! Listeners.

use super::address::address;
use super::{ListenerResource, RouteSource, extension, http};
use crate::metadata::LISTENER;
use crate::pb::envoy::config::core::v3::{Metadata, TrafficDirection};
use crate::pb::envoy::config::listener::v3::{
    self as pb, FilterChain, FilterChainMatch, ListenerFilter, filter, listener_filter,
};
use crate::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use crate::pb::google::protobuf::value::Kind;
use crate::wire::{
    At, boolean, each, enumeration, pass_over, refuse, required, type_name, unpack, unsupported,
};
use mesh_core::Invalid;
use mesh_core::model::{Address, Direction, HttpManager, Listener};
use prost::Name as _;

/// A listener with one HTTP connection manager, and where its routes are.
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
        access_log,
        tcp_backlog_size,
        enable_mptcp,
        ignore_global_conn_limit,
        bypass_overload_manager,
        tcp_keepalive,
        listener_specifier,
    );
    pass_over!("envoy.config.listener.v3.Listener":
        continue_on_listener_filters_timeout,
        listener_filters_timeout,
        max_connections_to_accept_per_socket_event,
        reuse_port,
    );
    for (field, value, here) in [
        ("use_original_dst", use_original_dst, false),
        ("transparent", transparent, false),
        ("freebind", freebind, false),
        ("bind_to_port", bind_to_port, true),
        ("enable_reuse_port", enable_reuse_port, true),
    ] {
        if boolean(value.as_ref(), here) != here {
            let message = format!("{} is not supported yet", !here);
            return Err(Invalid::new(field, message));
        }
    }
    if let Some(pb::listener::DeprecatedV1 { bind_to_port }) = deprecated_v1
        && !boolean(bind_to_port.as_ref(), true)
    {
        let message = "false is not supported yet";
        return Err(Invalid::new("deprecated_v1.bind_to_port", message));
    }
    if name.is_empty() {
        return Err(Invalid::new("name", "required, but missing"));
    }
    each("listener_filters", listener_filters, listener_filter)?;
    let bind = match address(required("address", at)?).at("address")? {
        Address::Socket(bind) => bind,
        other => {
            let message = format!("{other} is not an IP address and a port");
            return Err(Invalid::new("address.socket_address.address", message));
        }
    };
    let (mut manager, routes) = match (filter_chains.as_slice(), default_filter_chain) {
        ([chain], None) => chain_of(chain, name).at("filter_chains[0]")?,
        ([], Some(chain)) => chain_of(chain, name).at("default_filter_chain")?,
        ([], None) => {
            return Err(Invalid::new("filter_chains", "required, but missing"));
        }
        ([_], Some(_)) => {
            let message = "not supported yet beside another filter chain";
            return Err(Invalid::new("default_filter_chain", message));
        }
        _ => {
            let message = "more than one filter chain is not supported yet";
            return Err(Invalid::new("filter_chains", message));
        }
    };
    let direction_of: TrafficDirection = enumeration("traffic_direction", *traffic_direction)?;
    let inbound = direction_of == TrafficDirection::Inbound;
    manager.direction = direction(inbound, manager.use_remote_address, metadata.as_ref());
    Ok(ListenerResource {
        listener: Listener::http(name.as_str(), bind, manager),
        routes,
    })
}

/// Envoy has no direction for the edge of a mesh: what looks at the peer's address is one, unless
/// the metadata that this crate writes says otherwise.
fn direction(inbound: bool, edge: bool, metadata: Option<&Metadata>) -> Direction {
    let own = metadata.and_then(|all| all.filter_metadata.get(LISTENER));
    let own = own.and_then(|own| own.fields.get("direction"));
    match own.and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) if text == "gateway" => Direction::Gateway,
        Some(Kind::StringValue(text)) if text == "outbound" => Direction::Outbound,
        _ if inbound => Direction::Inbound,
        _ if edge => Direction::Gateway,
        _ => Direction::Outbound,
    }
}

/// Connections are told apart by what they say, not by filters. One that does something here is
/// refused.
fn listener_filter(value: &ListenerFilter) -> Result<(), Invalid> {
    let ListenerFilter {
        name: _,
        filter_disabled,
        config_type,
    } = value;
    pass_over!("envoy.config.listener.v3.ListenerFilter": filter_disabled);
    match required("typed_config", config_type)? {
        listener_filter::ConfigType::TypedConfig(any) => {
            extension::passed_over(any).at("typed_config")
        }
        listener_filter::ConfigType::ConfigDiscovery(_) => Err(unsupported("config_discovery")),
    }
}

#[expect(deprecated, reason = "Envoy still reads `use_proxy_proto`")]
fn chain_of(value: &FilterChain, listener: &str) -> Result<(HttpManager, RouteSource), Invalid> {
    let FilterChain {
        filter_chain_match,
        filters,
        use_proxy_proto,
        metadata,
        transport_socket,
        transport_socket_connect_timeout,
        name,
    } = value;
    if boolean(use_proxy_proto.as_ref(), false) {
        refuse!(use_proxy_proto);
    }
    pass_over!("envoy.config.listener.v3.FilterChain":
        metadata,
        name,
        transport_socket_connect_timeout,
    );
    if let Some(condition) = filter_chain_match
        && *condition != FilterChainMatch::default()
    {
        return Err(Invalid::new("filter_chain_match", "not supported yet"));
    }
    extension::transport_socket(transport_socket.as_ref())?;
    let [only] = filters.as_slice() else {
        let message = format!(
            "{} filters; only one, an HTTP connection manager, is supported so far",
            filters.len()
        );
        return Err(Invalid::new("filters", message));
    };
    network_filter(only, listener).at("filters[0]")
}

fn network_filter(
    value: &pb::Filter,
    listener: &str,
) -> Result<(HttpManager, RouteSource), Invalid> {
    let pb::Filter {
        name: _,
        config_type,
    } = value;
    let any = match required("typed_config", config_type)? {
        filter::ConfigType::TypedConfig(any) => any,
        filter::ConfigType::ConfigDiscovery(_) => return Err(unsupported("config_discovery")),
    };
    let read = || {
        if type_name(any) != HttpConnectionManager::full_name() {
            let message = format!("{:?} is not supported yet", type_name(any));
            return Err(Invalid::new("", message));
        }
        http::manager(&unpack(any)?, listener)
    };
    read().at("typed_config")
}
