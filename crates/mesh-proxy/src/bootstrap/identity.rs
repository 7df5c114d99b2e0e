//! Who a node says it is to a control plane: Istio's id and metadata, and a few entries of our own
//! that our control plane reads.
//!
//! | metadata | |
//! |---|---|
//! | `NAMESPACE`, `LABELS`, `INSTANCE_IPS`, `ISTIO_VERSION`, `CLUSTER_ID` | as Istio has them |
//! | `DNS_CAPTURE`, `ENABLE_SELF_DISCOVERY` | `"true"`, as Istio has them |
//! | `INTERCEPTION_MODE` | `NONE`: connections come to the ports that the node was given; or `REDIRECT`, `TPROXY` |
//! | `MESH_IDENTITY` | `"true"`, or `"false"`: whether the proxy has a certificate of the mesh |
//! | `MESH_BASE_PORT` | `"20100"`: the node's first port |
//! | `MESH_INBOUND` | `"9080=9180,…"`: accepted port and application port |
//! | `MESH_MAP_PORT` | `"80=8080,…"`: a Gateway's port and the one that is accepted on |

use super::node::Interception;
use mesh_core::model::Locality;
use mesh_istio::{Node, Role};
use mesh_xds::Node as Identity;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs, UdpSocket};

/// The Istio whose configuration the proxy understands: istiod keeps from older ones what is newer
/// than they are.
const ISTIO_VERSION: &str = "1.30.0";

/// The name of the only cluster there is; istiod's own default.
const CLUSTER_ID: &str = "Kubernetes";

/// The node with this id, or with the one that follows from the rest.
pub(super) fn identity(
    node: &Node,
    id: Option<&str>,
    ip: IpAddr,
    interception: Interception,
) -> Identity {
    let Node {
        name,
        namespace,
        labels,
        address: _,
        base_port,
        locality,
        role,
        capture: _,
        dns_capture,
        identity: own,
        self_discovery,
        workload,
    } = node;
    let kind = match role {
        Role::Gateway { .. } => "router",
        Role::Sidecar { .. } => "sidecar",
    };
    let id = id.map_or_else(
        || format!("{kind}~{ip}~{name}.{namespace}~{namespace}.svc.cluster.local"),
        ToOwned::to_owned,
    );
    let ip = Identity::new(&id)
        .address()
        .map_or_else(|| ip.to_string(), ToOwned::to_owned);
    let mut identity = Identity::new(id)
        .with_cluster(format!("{name}.{namespace}"))
        .with_text("NAME", name)
        .with_text("NAMESPACE", namespace)
        .with_text("INTERCEPTION_MODE", interception.mode())
        .with_text("INSTANCE_IPS", ip)
        .with_text("ISTIO_VERSION", ISTIO_VERSION)
        .with_text("CLUSTER_ID", CLUSTER_ID)
        .with_text("MESH_IDENTITY", own.to_string())
        .with_map("LABELS", labels);
    if !workload.is_empty() {
        identity = identity.with_text("WORKLOAD_NAME", workload);
    }
    if *self_discovery {
        identity = identity.with_text("ENABLE_SELF_DISCOVERY", "true");
    }
    if *dns_capture {
        identity = identity.with_text("DNS_CAPTURE", "true");
    }
    if *locality != Locality::default() {
        let Locality {
            region,
            zone,
            sub_zone,
        } = locality;
        identity = identity.with_locality((region, zone, sub_zone));
    }
    if let Some(port) = base_port {
        identity = identity.with_text("MESH_BASE_PORT", port.to_string());
    }
    let (key, pairs): (_, BTreeMap<u16, u16>) = match role {
        Role::Gateway { ports } => ("MESH_MAP_PORT", ports.clone()),
        Role::Sidecar { inbound } => {
            let pairs = inbound.iter().map(|one| (one.port, one.application));
            ("MESH_INBOUND", pairs.collect())
        }
    };
    if !pairs.is_empty() {
        let pairs: Vec<String> = pairs.iter().map(|(a, b)| format!("{a}={b}")).collect();
        identity = identity.with_text(key, pairs.join(","));
    }
    identity
}

/// The address that a control plane is called from, or the loopback address.
pub(super) fn address_towards(server: &str) -> IpAddr {
    let find = || {
        let server = server.to_socket_addrs().ok()?.next()?;
        let any: IpAddr = match server {
            std::net::SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        // Connecting a datagram socket sends nothing; the kernel only looks up the way.
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(server).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    find().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_istio::Inbound;

    const IP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));

    #[test]
    fn a_sidecar_says_what_istio_and_our_control_plane_read() {
        let mut node = Node::sidecar("reviews-v1", "shop");
        node.labels.insert("app".to_owned(), "reviews".to_owned());
        node.base_port = Some(20100);
        node.role = Role::Sidecar {
            inbound: vec![
                Inbound {
                    port: 9080,
                    application: 9180,
                },
                Inbound {
                    port: 9081,
                    application: 9181,
                },
            ],
        };
        let identity = identity(&node, None, IP, Interception::None);
        let id = "sidecar~10.0.0.7~reviews-v1.shop~shop.svc.cluster.local";
        assert_eq!(identity.id(), id);
        for (key, value) in [
            ("NAMESPACE", "shop"),
            ("INTERCEPTION_MODE", "NONE"),
            ("INSTANCE_IPS", "10.0.0.7"),
            ("MESH_BASE_PORT", "20100"),
            ("MESH_INBOUND", "9080=9180,9081=9181"),
            ("MESH_IDENTITY", "false"),
        ] {
            assert_eq!(identity.text(key), Some(value), "{key}");
        }
        assert_eq!(identity.text("MESH_MAP_PORT"), None);
        assert_eq!(identity.map("LABELS")["app"], "reviews");
    }

    #[test]
    fn an_intercepted_node_says_how() {
        let node = Node::sidecar("reviews-v1", "shop");
        for (interception, mode) in [
            (Interception::Redirect, "REDIRECT"),
            (Interception::Tproxy, "TPROXY"),
        ] {
            let identity = identity(&node, None, IP, interception);
            assert_eq!(identity.text("INTERCEPTION_MODE"), Some(mode));
            assert_eq!(identity.text("DNS_CAPTURE"), None);
        }
        let mut node = node;
        node.dns_capture = true;
        let identity = identity(&node, None, IP, Interception::Redirect);
        assert_eq!(identity.text("DNS_CAPTURE"), Some("true"));
    }

    #[test]
    fn an_id_that_is_given_is_kept_with_its_address() {
        let mut node = Node::gateway("edge", "istio-system");
        node.role = Role::Gateway {
            ports: [(80, 8080)].into(),
        };
        let id = "router~10.9.9.9~edge.istio-system~x";
        let identity = identity(&node, Some(id), IP, Interception::None);
        assert_eq!(identity.id(), id);
        assert_eq!(identity.text("INSTANCE_IPS"), Some("10.9.9.9"));
        assert_eq!(identity.text("MESH_MAP_PORT"), Some("80=8080"));
    }

    #[test]
    fn a_control_plane_on_this_machine_is_called_from_the_loopback_address() {
        assert_eq!(address_towards("127.0.0.1:15010"), Ipv4Addr::LOCALHOST);
        assert_eq!(address_towards("no such host"), Ipv4Addr::LOCALHOST);
    }
}
