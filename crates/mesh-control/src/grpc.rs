//! What proxyless gRPC clients and servers get.
//!
//! A client with the target `xds:///reviews.shop:9080` asks for the listener of that name and
//! follows it to a route table, clusters and endpoints. Names are istiod's:
//!
//! ```text
//! LDS reviews.shop:9080 ─► RDS outbound|9080||reviews.shop.svc.cluster.local
//!       (one per name)       one virtual host ─► CDS outbound|9080|v1|reviews… ─► EDS
//! ```
//!
//! Every name of a virtual host is a target, but for addresses and wildcards. Targets need a port.
//!
//! # What becomes of a configuration
//!
//! gRPC is not a proxy. It is sent what its own proposals (gRFCs) cover:
//!
//! | in the model | for gRPC |
//! |---|---|
//! | paths, headers, shares of requests | the same (A28); a separated prefix becomes a path and a prefix |
//! | method, scheme | decided here: gRPC's are `POST` and `http` |
//! | a header that counts as empty when it is missing | two routes, one of them for its absence; 16 routes of one rule at most |
//! | query parameters, `CONNECT` | no route: no gRPC request has them |
//! | weighted clusters | the same (A28) |
//! | redirects, direct responses, a cluster named by a header, weights whose sum is nothing | a fault (A33) on a route to `BlackHoleCluster`, with the status that a gRPC client makes of such an answer, or `UNAVAILABLE`; istiod sends the action as it is, and what clients make of that differs (Node's process ends) |
//! | timeouts | `max_stream_duration` (A31), the shorter of the two; idle timeouts are dropped |
//! | retries | the five gRPC codes and the back-off (A44); a policy without any of the codes, and time limits per attempt, are dropped |
//! | faults | the same (A33) |
//! | mirrors, rewrites, header edits, CORS, rate limits | dropped |
//! | round robin, random | round robin, as istiod |
//! | least request | asked for (A48) and round robin where the client does not know it (A52); istiod asks for round robin |
//! | limits | `max_requests` counts (A32), and is Istio's 2³² − 1 unless set; istiod leaves gRPC's 1024 |
//! | outlier detection | the same (A50); what ejects after consecutive errors has no effect in gRPC |
//! | endpoints | IP addresses, each once (A27); weights of localities are filled in, since gRPC passes over localities that have none |
//! | clusters resolved by DNS | their IP addresses if they have some, else their first name (A37) |
//! | panic threshold, connection pools, keep-alive, protocol | dropped |
//!
//! Passthrough is not there either: a target that no service has does not resolve.
//!
//! ```
//! use mesh_control::grpc;
//! use mesh_core::model::SnapshotBuilder;
//! use mesh_istio::{Files, Node, World, compile};
//!
//! let mut world = World::default();
//! world.update(&Files::from_text("a.yaml", "
//! apiVersion: v1
//! kind: Service
//! metadata: {name: reviews}
//! spec: {ports: [{name: grpc, port: 9080}]}
//! "));
//! let mut builder = SnapshotBuilder::new();
//! compile(&world, &Node::sidecar("client", "default"), &mut builder);
//! let (snapshot, _) = builder.build()?;
//! let resources = grpc::resources(&snapshot);
//! assert!(resources.iter().any(|(_, one)| &*one.name == "reviews.default:9080"));
//! # Ok::<(), mesh_core::Invalid>(())
//! ```

use std::collections::HashSet;

use mesh_core::Name;
use mesh_core::model::{ClusterEntry, Direction, HttpManager, Listener, Snapshot};
use mesh_istio::names::outbound;
use mesh_xds::pb::google::protobuf::Any;
use mesh_xds::{Encoded, TypeUrl, write};

mod cluster;
mod condition;
mod endpoint;
mod listener;
mod route;
mod server;

#[cfg(test)]
mod tests;

pub use server::{server_listener, server_resources};

/// Everything that gRPC clients on a node may ask for, in the order in which an aggregated stream
/// sends it: clusters, endpoints, listeners, routes.
///
/// The snapshot is a sidecar's; what it accepts for its application is in [`server_resources`].
pub fn resources(snapshot: &Snapshot) -> Vec<(TypeUrl, Encoded)> {
    let targets = targets(snapshot);
    let mut out = Vec::new();
    let mut referred = HashSet::new();
    let mut clusters = Vec::new();
    for name in targets.iter().flat_map(|target| &target.table.clusters) {
        if let Some(entry) = snapshot.cluster(name)
            && referred.insert(&entry.config().name)
        {
            clusters.push(entry);
        }
    }
    for entry in &clusters {
        let config = entry.config();
        let endpoints = entry.live().endpoints().load();
        let proto = cluster::write(config, &endpoints);
        out.push((TypeUrl::Cluster, write::encode(&config.name, &proto)));
    }
    let endpoints = clusters.iter().filter_map(|entry| endpoints(entry));
    out.extend(endpoints.map(|one| (TypeUrl::Endpoints, one)));
    for target in &targets {
        for name in &target.names {
            let proto = listener::write(name, &target.table.name);
            out.push((TypeUrl::Listener, write::encode(name, &proto)));
        }
    }
    for target in &targets {
        let proto = write::encode(&target.table.name, &target.table.proto);
        out.push((TypeUrl::Routes, proto));
    }
    out
}

/// The endpoints of a cluster as they are now; nothing if they come with the cluster.
///
/// Where they break no rule of gRPC's, the bytes are those that a proxy gets.
fn endpoints(entry: &ClusterEntry) -> Option<Encoded> {
    let (config, set) = (entry.config(), entry.live().endpoints().load());
    cluster::has_own_endpoints(config, &set).then(|| {
        let proto = write::endpoints(&config.name, &endpoint::usable(&set));
        write::encode(&config.name, &proto)
    })
}

/// A service's port, or what a virtual service speaks for.
struct Target {
    /// What clients call it.
    names: Vec<String>,
    table: route::Table,
}

/// All targets, by the outbound tables in order. Of two listeners with one name the first has it.
fn targets(snapshot: &Snapshot) -> Vec<Target> {
    let (mut tables, mut ports, mut taken) = (HashSet::new(), HashSet::new(), HashSet::new());
    let mut targets = Vec::new();
    for manager in managers(snapshot.listeners(), Direction::Outbound).map(|(_, manager)| manager) {
        let Some(table) = snapshot.table(&manager.routes) else {
            continue;
        };
        if !tables.insert(&manager.routes) {
            continue;
        }
        for host in &table.virtual_hosts {
            let Some((name, port)) = host_and_port(&host.name) else {
                continue;
            };
            if !ports.insert((name, port)) {
                continue;
            }
            let names: Vec<String> = route::bare(host, port)
                .filter(|domain| is_target(domain))
                .map(|domain| format!("{domain}:{port}"))
                .filter(|name| taken.insert(name.clone()))
                .collect();
            if !names.is_empty() {
                let table = route::Table::new(outbound(port, "", name), port, host);
                targets.push(Target { names, table });
            }
        }
    }
    targets
}

/// The connection managers of a direction, with their listeners.
fn managers(
    listeners: &[std::sync::Arc<Listener>],
    direction: Direction,
) -> impl Iterator<Item = (&Listener, &HttpManager)> {
    // What is not HTTP is not gRPC.
    listeners.iter().filter_map(move |listener| {
        let manager: &HttpManager = listener.managers().next()?;
        (manager.direction == direction).then_some((&**listener, manager))
    })
}

/// What a virtual host is for; nothing for the one that takes the rest, and for wildcards, which
/// nobody can ask for.
fn host_and_port(name: &Name) -> Option<(&str, u16)> {
    let (host, port) = name.rsplit_once(':')?;
    (!host.starts_with('*')).then_some((host, port.parse().ok()?))
}

/// Whether istiod would find a service by this name: it completes short ones and takes full ones.
fn is_target(domain: &str) -> bool {
    let wildcard = domain.contains('*');
    let address = domain.starts_with('[') || domain.parse::<std::net::Ipv4Addr>().is_ok();
    !wildcard && !address && !domain.ends_with('.')
}

/// Packs an encoded message whose type has this name.
fn pack(kind: &str, message: Encoded) -> Any {
    Any {
        type_url: format!("type.googleapis.com/{kind}"),
        value: message.bytes.into(),
    }
}
