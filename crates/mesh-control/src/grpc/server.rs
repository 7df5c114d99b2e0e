//! What gRPC servers that take their configuration over xDS get (gRFC A36).
//!
//! A server asks for the listener of each address that it listens on, by a name made from the
//! template of its bootstrap: `grpc/server?xds.resource.listening_address=%s`, or, as Istio's agent
//! writes it, `xds.istio.io/grpc/lds/inbound/%s`. The ports are known before: those that the node
//! accepts on. The addresses are not, since a server may listen on each of its own, so every port
//! has a listener for each address that servers bind in practice, and one for any other that is
//! asked for.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mesh_core::model::{Direction, Snapshot};
use mesh_xds::pb::envoy::config::core::v3 as core;
use mesh_xds::pb::envoy::config::listener::v3::{
    Filter, FilterChain, Listener, filter::ConfigType,
};
use mesh_xds::pb::envoy::config::route::v3::route::Action;
use mesh_xds::pb::envoy::config::route::v3::route_match::PathSpecifier;
use mesh_xds::pb::envoy::config::route::v3::{
    NonForwardingAction, Route, RouteConfiguration, RouteMatch, VirtualHost,
};
use mesh_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager::RouteSpecifier,
};
use mesh_xds::{Encoded, TypeUrl, write};

use super::listener::{MANAGER, router};
use super::{managers, pack};

/// How the names of servers' listeners begin; the address follows.
const PREFIXES: [&str; 2] = [
    "grpc/server?xds.resource.listening_address=",
    "xds.istio.io/grpc/lds/inbound/",
];

/// Listeners for gRPC servers on a node: for each port that the node accepts on, those of all
/// addresses (`0.0.0.0` and `[::]`), of the loopback interface, and of the address that the
/// snapshot has for the port.
///
/// A server on another address of the node is answered by [`server_listener`]: a control plane
/// asks that when a client subscribes to such a name.
pub fn server_resources(snapshot: &Snapshot) -> Vec<(TypeUrl, Encoded)> {
    let usual: [IpAddr; 4] = [
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv6Addr::UNSPECIFIED.into(),
        Ipv4Addr::LOCALHOST.into(),
        Ipv6Addr::LOCALHOST.into(),
    ];
    let mut all = BTreeSet::new();
    for own in accepted(snapshot) {
        all.extend(usual.map(|ip| SocketAddr::new(ip, own.port())));
        all.insert(own);
    }
    let each = all.into_iter();
    each.flat_map(|address| PREFIXES.map(|prefix| listener(prefix, address)))
        .map(|one| (TypeUrl::Listener, one))
        .collect()
}

/// The listener of this name, if it is one of a gRPC server on a port that the node accepts on.
pub fn server_listener(snapshot: &Snapshot, name: &str) -> Option<Encoded> {
    let mut split = PREFIXES.into_iter();
    let (prefix, address) = split.find_map(|prefix| Some((prefix, name.strip_prefix(prefix)?)))?;
    let address: SocketAddr = address.parse().ok()?;
    let known = accepted(snapshot).any(|own| own.port() == address.port());
    // An address that is written differently makes another name.
    known
        .then(|| listener(prefix, address))
        .filter(|found| &*found.name == name)
}

fn accepted(snapshot: &Snapshot) -> impl Iterator<Item = SocketAddr> {
    let managers = managers(snapshot.listeners(), Direction::Inbound);
    // A gRPC server does not listen on a Unix domain socket by xDS.
    managers.filter_map(|(listener, _)| listener.address.socket())
}

/// Anything that gRPC does not take here (listener filters, an address of another name) makes it
/// refuse the listener.
fn listener(prefix: &str, address: SocketAddr) -> Encoded {
    let name = format!("{prefix}{address}");
    let manager = HttpConnectionManager {
        stat_prefix: format!("inbound_{}", address.port()),
        route_specifier: Some(RouteSpecifier::RouteConfig(routes())),
        http_filters: vec![router()],
        ..HttpConnectionManager::default()
    };
    let filter = Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(ConfigType::TypedConfig(pack(
            MANAGER,
            Encoded::of("", &manager),
        ))),
    };
    let socket = core::SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(
            address.port().into(),
        )),
        ..core::SocketAddress::default()
    };
    let proto = Listener {
        name: name.clone(),
        address: Some(core::Address {
            address: Some(core::address::Address::SocketAddress(socket)),
        }),
        filter_chains: vec![FilterChain {
            name: "inbound-plaintext".to_owned(),
            filters: vec![filter],
            ..FilterChain::default()
        }],
        ..Listener::default()
    };
    write::encode(&name, &proto)
}

/// Every call goes to the application: a server has nowhere else to send it.
fn routes() -> RouteConfiguration {
    let everything = RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
        ..RouteMatch::default()
    };
    let route = Route {
        r#match: Some(everything),
        action: Some(Action::NonForwardingAction(NonForwardingAction {})),
        ..Route::default()
    };
    RouteConfiguration {
        name: "inbound".to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: "inbound".to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..VirtualHost::default()
        }],
        ..RouteConfiguration::default()
    }
}
