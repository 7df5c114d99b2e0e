//! Listeners.

mod inspect;
mod matches;
mod tcp;

pub(super) use matches::block;

use super::{access_log, authz, external, http, metadata, tls, to_listener_address};
use crate::pb::envoy::config::accesslog::v3::AccessLog as Log;
use crate::pb::envoy::config::accesslog::v3::{
    AccessLogFilter, ResponseFlagFilter, access_log_filter::FilterSpecifier,
};
use crate::pb::envoy::config::core::v3::{RuntimeFeatureFlag, TrafficDirection};
use crate::pb::envoy::config::listener::v3 as pb;
use crate::pb::envoy::config::listener::v3::filter::ConfigType;
use crate::pb::envoy::extensions::filters::network::connection_limit::v3::ConnectionLimit as LimitProto;
use crate::pb::envoy::extensions::filters::network::sni_cluster::v3::SniCluster;
use crate::pb::google::protobuf::UInt64Value;
use crate::wire::{names, pack, to_boolean, to_duration};
use mesh_core::model::{
    AccessLog, ConnectionLimit, Direction, Filter, FilterChain, Listener, RouteTable, TcpTarget,
};
use prost::Name;
use std::time::Duration;

/// `routes` are the tables that are written into the listener, in place of references to them.
pub(super) fn listener(
    listener: &Listener,
    routes: &[&RouteTable],
    forward_proxy: bool,
) -> pb::Listener {
    let inbound = listener.all_chains().next().map(|chain| side(chain));
    let inbound = inbound == Some(Direction::Inbound);
    let chain = |chain: &FilterChain| chain_of(chain, routes, forward_proxy, inbound);
    let inspect = &listener.inspect;
    pb::Listener {
        name: listener.name.to_string(),
        address: Some(to_listener_address(&listener.address, listener.mode)),
        filter_chains: listener.chains.iter().map(|one| chain(one)).collect(),
        default_filter_chain: listener.default_chain.as_ref().map(|one| chain(one)),
        traffic_direction: match inbound {
            true => TrafficDirection::Inbound,
            false => TrafficDirection::Outbound,
        }
        .into(),
        bind_to_port: (!listener.bind).then(|| to_boolean(false)).flatten(),
        use_original_dst: listener.hand_off.then(|| to_boolean(true)).flatten(),
        transparent: listener.transparent.then(|| to_boolean(true)).flatten(),
        listener_filters: inspect::filters(inspect),
        // Nothing said is 15 s, and zero is no limit.
        listener_filters_timeout: (inspect.timeout != Some(Duration::from_secs(15)))
            .then(|| to_duration(inspect.timeout.unwrap_or_default())),
        continue_on_listener_filters_timeout: inspect.continue_on_timeout,
        access_log: listener.access_log.iter().map(unmatched).collect(),
        ..pb::Listener::default()
    }
}

fn side(chain: &FilterChain) -> Direction {
    match &chain.filter {
        Filter::Http(manager) => manager.direction,
        Filter::Tcp(proxy) => proxy.direction,
        _ => Direction::default(),
    }
}

fn chain_of(
    chain: &FilterChain,
    routes: &[&RouteTable],
    forward_proxy: bool,
    inbound: bool,
) -> pb::FilterChain {
    let mut filters = Vec::new();
    if let Some(limit) = &chain.connection_limit {
        filters.push(filter(
            "envoy.filters.network.connection_limit",
            &connection_limit(limit),
        ));
    }
    for one in &chain.authz {
        if one.is_filter() {
            let rules = authz::of_connections(one);
            filters.push(filter(names::AUTHZ_OF_CONNECTIONS, &rules));
        }
        let asked = one.external.as_ref();
        let asked = asked.and_then(|asked| external::of_connections(asked, one));
        filters.extend(asked.map(|asked| filter(names::EXTERNAL_OF_CONNECTIONS, &asked)));
    }
    let mut edge = false;
    match &chain.filter {
        Filter::Http(manager) => {
            edge = manager.use_remote_address;
            let table = routes.iter().find(|table| table.name == manager.routes);
            let manager = http::manager(manager, table.copied(), forward_proxy);
            filters.push(filter(
                "envoy.filters.network.http_connection_manager",
                &manager,
            ));
        }
        Filter::Tcp(proxy) => {
            if matches!(proxy.target, TcpTarget::ServerName(_)) {
                let by_name = SniCluster::default();
                filters.push(filter("envoy.filters.network.sni_cluster", &by_name));
            }
            filters.push(filter(
                "envoy.filters.network.tcp_proxy",
                &tcp::proxy(proxy),
            ));
        }
        // A kind that is not known here: without a filter Envoy refuses it.
        _ => {}
    }
    // Istio calls the edge of a mesh outbound too; it differs in looking at the peer's address.
    // Where that does not tell the two apart, metadata does.
    let plain = match (inbound, edge) {
        (true, _) => Direction::Inbound,
        (false, true) => Direction::Gateway,
        (false, false) => Direction::Outbound,
    };
    let side = side(chain);
    let named = (side != plain).then_some(match side {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
        Direction::Gateway => "gateway",
    });
    pb::FilterChain {
        name: chain.name.to_string(),
        filter_chain_match: matches::matches(&chain.matches),
        filters,
        metadata: named.and_then(metadata::direction),
        transport_socket: chain.tls.as_ref().map(|tls| tls::server(tls)),
        transport_socket_connect_timeout: chain.handshake_timeout.map(to_duration),
        ..pb::FilterChain::default()
    }
}

fn connection_limit(limit: &ConnectionLimit) -> LimitProto {
    LimitProto {
        stat_prefix: limit.stat_prefix.to_string(),
        max_connections: Some(UInt64Value {
            value: limit.max_connections,
        }),
        delay: (!limit.delay.is_zero()).then(|| to_duration(limit.delay)),
        runtime_enabled: (!limit.enabled).then(|| RuntimeFeatureFlag {
            default_value: to_boolean(false),
            // Envoy wants one. Nobody sets it.
            runtime_key: "connection_limit.enabled".to_owned(),
        }),
    }
}

fn filter(name: &str, config: &impl Name) -> pb::Filter {
    pb::Filter {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(pack(config))),
    }
}

/// The log of connections that no chain was found for.
fn unmatched(log: &AccessLog) -> Log {
    let filter = ResponseFlagFilter {
        flags: vec!["NR".to_owned()],
    };
    Log {
        filter: Some(AccessLogFilter {
            filter_specifier: Some(FilterSpecifier::ResponseFlagFilter(filter)),
        }),
        ..access_log::access_log(log)
    }
}
