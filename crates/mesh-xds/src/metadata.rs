//! The names under which metadata carries what Envoy's messages have no field for.

use mesh_core::Name;
use mesh_core::model::WorkloadRef;

/// Istio's own metadata.
pub(crate) const ISTIO: &str = "istio";
/// Facts about a cluster that are in no other namespace.
pub(crate) const MESH: &str = "mesh";
/// What of a [`mesh_core::model::ServiceRef`] Istio's metadata has no place for.
pub(crate) const SERVICE: &str = "mesh.service";
/// What of a [`WorkloadRef`] Istio's metadata has no place for.
pub(crate) const WORKLOAD: &str = "mesh.workload";
/// The labels of an endpoint.
pub(crate) const LABELS: &str = "mesh.labels";
/// What of a listener Envoy has no field for.
pub(crate) const LISTENER: &str = "mesh.listener";

/// What balancers go by.
pub(crate) const BALANCING: &str = "envoy.lb";

/// What decides how connections to an endpoint are secured.
pub(crate) const TRANSPORT: &str = "envoy.transport_socket_match";

/// The key of what an endpoint is hashed as in its [`BALANCING`] metadata.
pub(crate) const HASH_KEY: &str = "hash_key";
/// The key of the services in a cluster's [`ISTIO`] metadata.
pub(crate) const SERVICES: &str = "services";
/// The key of the subset in a cluster's [`ISTIO`] metadata.
pub(crate) const SUBSET: &str = "subset";

/// Whether this entry of a cluster's metadata has a field of its own in the model.
pub(crate) fn is_structure(namespace: &str, key: &str) -> bool {
    match namespace {
        ISTIO => key == SERVICES || key == SUBSET,
        SERVICE => true,
        _ => false,
    }
}

/// The port in a name of Istio's, `outbound|80|v1|reviews.shop.svc.cluster.local`; otherwise 0.
pub(crate) fn port_in(cluster: &str) -> u16 {
    let port = cluster.strip_prefix("outbound|");
    let port = port.and_then(|rest| rest.split_once('|'));
    port.and_then(|(port, _)| port.parse().ok()).unwrap_or(0)
}

/// The parts of a workload and the keys that they have in [`WORKLOAD`] metadata.
pub(crate) fn parts_mut(workload: &mut WorkloadRef) -> [(&'static str, &mut Name); 8] {
    [
        ("name", &mut workload.name),
        ("namespace", &mut workload.namespace),
        ("canonical_service", &mut workload.canonical_service),
        ("canonical_revision", &mut workload.canonical_revision),
        ("cluster", &mut workload.cluster),
        ("app", &mut workload.app),
        ("version", &mut workload.version),
        ("principal", &mut workload.principal),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_read_from_outbound_names_only() {
        assert_eq!(port_in("outbound|80|v1|a.example"), 80);
        for other in [
            "inbound|80||",
            "outbound|x||a",
            "outbound|",
            "a",
            "outbound|80",
        ] {
            assert_eq!(port_in(other), 0, "{other}");
        }
    }
}
