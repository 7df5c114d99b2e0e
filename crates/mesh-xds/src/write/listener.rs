//! Listeners.

use super::{http, metadata, to_address};
use crate::pb::envoy::config::core::v3::{Metadata, TrafficDirection};
use crate::pb::envoy::config::listener::v3::{self as pb, FilterChain, filter};
use crate::wire::pack;
use mesh_core::model::{Address, Direction, HttpManager, Listener, RouteTable};

pub(super) fn listener(
    listener: &Listener,
    routes: Option<&RouteTable>,
    forward_proxy: bool,
) -> pb::Listener {
    let manager: &HttpManager = listener
        .managers()
        .next()
        .expect("only listeners for HTTP are made so far");
    let (direction, metadata) = direction(manager);
    let filter = pb::Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(pack(&http::manager(
            manager,
            routes,
            forward_proxy,
        )))),
    };
    pb::Listener {
        name: listener.name.to_string(),
        address: Some(to_address(&Address::Socket(listener.address))),
        filter_chains: vec![FilterChain {
            filters: vec![filter],
            ..FilterChain::default()
        }],
        traffic_direction: direction.into(),
        metadata,
        ..pb::Listener::default()
    }
}

/// Istio calls the edge of a mesh outbound too; it differs in looking at the peer's address. Where
/// that does not tell the two apart, metadata does.
fn direction(manager: &HttpManager) -> (TrafficDirection, Option<Metadata>) {
    match (manager.direction, manager.use_remote_address) {
        (Direction::Inbound, _) => (TrafficDirection::Inbound, None),
        (Direction::Outbound, false) | (Direction::Gateway, true) => {
            (TrafficDirection::Outbound, None)
        }
        (Direction::Outbound, true) => {
            (TrafficDirection::Outbound, metadata::direction("outbound"))
        }
        (Direction::Gateway, false) => (TrafficDirection::Outbound, metadata::direction("gateway")),
    }
}
