//! Clusters (gRFCs A27, A32, A37, A42, A48, A50).

use std::net::SocketAddr;

use mesh_core::model::{Address, Balancing, Cluster, DiscoveryKind, EndpointSet, RingHash};
use mesh_xds::pb::envoy::config::cluster::v3 as pb;
use mesh_xds::pb::envoy::config::cluster::v3::load_balancing_policy::Policy;
use mesh_xds::pb::envoy::config::core::v3::TypedExtensionConfig;
use mesh_xds::pb::envoy::extensions::load_balancing_policies as policies;
use mesh_xds::pb::google::protobuf::UInt32Value;
use mesh_xds::{Encoded, write};

use super::pack;

/// Fewer choices gRPC refuses, more it ignores (gRFC A48).
const CHOICES: std::ops::RangeInclusive<u32> = 2..=10;

/// Writes a cluster, with its endpoint where it is a name to be resolved.
pub(super) fn write(cluster: &Cluster, endpoints: &EndpointSet) -> pb::Cluster {
    let mut kept = Cluster::new(cluster.name.clone());
    kept.balancing = ring(&cluster.balancing).unwrap_or(Balancing::RoundRobin);
    kept.connect_timeout = cluster.connect_timeout;
    kept.limits = cluster.limits;
    kept.limits.budget = None;
    kept.limits.max_pools = u32::MAX;
    kept.limits.max_connections_per_host = u32::MAX;
    kept.limits.track_remaining = false;
    kept.outlier = cluster.outlier.clone();
    if let Some(outlier) = &mut kept.outlier {
        outlier.error_codes.clear();
    }
    let mut out = match resolved(cluster, endpoints) {
        None => write::cluster(&kept, None),
        Some(name) => {
            kept.discovery = DiscoveryKind::LogicalDns;
            write::cluster(&kept, Some(&EndpointSet::of([name.clone()])))
        }
    };
    if let Balancing::LeastRequest { choices, .. } = cluster.balancing {
        out.load_balancing_policy = Some(least_request(choices));
    }
    out
}

/// A ring where requests are hashed: gRPC has no tables, and one hash function (gRFC A42).
fn ring(balancing: &Balancing) -> Option<Balancing> {
    let mut ring = RingHash::default();
    match balancing {
        Balancing::RingHash(asked) => {
            ring.minimum = asked.minimum;
            ring.maximum = asked.maximum;
        }
        Balancing::Maglev(_) => {}
        _ => return None,
    }
    Some(Balancing::RingHash(ring))
}

/// Whether a cluster's endpoints are a resource of their own.
pub(super) fn has_own_endpoints(cluster: &Cluster, endpoints: &EndpointSet) -> bool {
    resolved(cluster, endpoints).is_none()
}

/// The name that the client resolves, if a cluster has nothing better. gRPC takes exactly one.
fn resolved<'e>(cluster: &Cluster, endpoints: &'e EndpointSet) -> Option<&'e Address> {
    let dns = matches!(
        cluster.discovery,
        DiscoveryKind::StrictDns | DiscoveryKind::LogicalDns
    );
    let addresses = || endpoints.iter().map(|endpoint| &endpoint.address);
    if !dns || addresses().any(|one| socket(one).is_some()) {
        return None;
    }
    addresses().find(|one| matches!(one, Address::Host(..)))
}

/// The IP address of an endpoint that has one.
pub(super) fn socket(address: &Address) -> Option<SocketAddr> {
    match address {
        Address::Socket(socket) => Some(*socket),
        _ => None,
    }
}

/// Least request inside of localities where the client knows it, else round robin. A client that
/// knows lists of policies takes the first that it has (gRFC A52).
fn least_request(choices: u32) -> pb::LoadBalancingPolicy {
    let choices = choices.clamp(*CHOICES.start(), *CHOICES.end());
    let least = policies::least_request::v3::LeastRequest {
        choice_count: Some(UInt32Value { value: choices }),
        ..Default::default()
    };
    let round = policies::round_robin::v3::RoundRobin::default();
    let inner = vec![
        policy("least_request.v3.LeastRequest", Encoded::of("", &least)),
        policy("round_robin.v3.RoundRobin", Encoded::of("", &round)),
    ];
    let outer = policies::wrr_locality::v3::WrrLocality {
        endpoint_picking_policy: Some(pb::LoadBalancingPolicy { policies: inner }),
    };
    pb::LoadBalancingPolicy {
        policies: vec![policy(
            "wrr_locality.v3.WrrLocality",
            Encoded::of("", &outer),
        )],
    }
}

fn policy(kind: &str, message: Encoded) -> Policy {
    let kind = format!("envoy.extensions.load_balancing_policies.{kind}");
    Policy {
        typed_extension_config: Some(TypedExtensionConfig {
            typed_config: Some(pack(&kind, message)),
            name: kind,
        }),
    }
}
