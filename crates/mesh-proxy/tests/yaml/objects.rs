//! Objects as YAML text.

use crate::town::Backend;
use std::net::SocketAddr;

/// A Kubernetes service on port 80 whose workloads carry `version: NAME` labels, after the names
/// of their backends.
pub(crate) fn service(name: &str, backends: &[&Backend]) -> String {
    let workloads: Vec<(&str, SocketAddr)> =
        backends.iter().map(|it| (it.name, it.address)).collect();
    service_at(name, "default", "{name: http, port: 80}", &workloads)
}

/// The same, of a namespace and with ports of one's own; all workload ports are `http`.
pub(crate) fn service_at(
    name: &str,
    namespace: &str,
    ports: &str,
    workloads: &[(&str, SocketAddr)],
) -> String {
    let mut yaml = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{selector: {{app: {name}}}, ports: [{ports}]}}\n---\n"
    );
    for (version, address) in workloads {
        yaml += &format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n\
             metadata: {{name: {name}-{version}, namespace: {namespace}}}\n\
             spec: {{address: {}, labels: {{app: {name}, version: {version}}}, \
             ports: {{http: {}}}}}\n---\n",
            address.ip(),
            address.port(),
        );
    }
    yaml
}

/// An object of `networking.istio.io` in namespace `default`, its spec in flow style.
pub(crate) fn object(kind: &str, name: &str, spec: &str) -> String {
    object_in("default", kind, name, spec)
}

pub(crate) fn object_in(namespace: &str, kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
    )
}

/// A VirtualService for the host `a` with these rules.
pub(crate) fn routes(http: &str) -> String {
    object(
        "VirtualService",
        "a",
        &format!("{{hosts: [a], http: [{http}]}}"),
    )
}

/// A DestinationRule for the host `a` with a subset for each backend.
pub(crate) fn subsets(backends: &[&Backend]) -> String {
    let subsets: Vec<String> = backends
        .iter()
        .map(|it| format!("{{name: {0}, labels: {{version: {0}}}}}", it.name))
        .collect();
    let spec = format!("{{host: a, subsets: [{}]}}", subsets.join(", "));
    object("DestinationRule", "a", &spec)
}

/// A DestinationRule for the host `a` with this policy.
pub(crate) fn policy(policy: &str) -> String {
    object(
        "DestinationRule",
        "a",
        &format!("{{host: a, trafficPolicy: {policy}}}"),
    )
}

pub(crate) fn mesh_config(lines: &[&str]) -> String {
    let mut yaml = "apiVersion: v1\nkind: ConfigMap\n\
         metadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |-\n"
        .to_owned();
    for line in lines {
        yaml += &format!("    {line}\n");
    }
    yaml + "---\n"
}

/// An address where nobody listens.
pub(crate) fn nobody() -> SocketAddr {
    ([127, 0, 0, 1], 1).into()
}
