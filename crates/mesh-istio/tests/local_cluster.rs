//! The node's own cluster: whose endpoints tell how many callers a zone has.

#[path = "support/lib.rs"]
mod support;

use mesh_core::model::{EndpointSet, SnapshotBuilder};
use mesh_istio::{Alike, Node, World, compile, local_endpoints, parse_locality};
use support::good;

/// A service of this name and age, which selects by this.
fn service(name: &str, created: &str, selector: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}, creationTimestamp: \
         '{created}'}}, spec: {{selector: {{{selector}}}, ports: [{{name: http, port: 80, \
         targetPort: 8080}}, {{name: more, port: 81, targetPort: 8181}}]}}}}\n"
    )
}

/// A workload with this last byte of its address, at a place, with labels.
fn workload(number: u8, place: &str, labels: &str) -> String {
    format!(
        "---\n{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: \
         w{number}}}, spec: {{address: 10.0.0.{number}, locality: {place}, labels: {{app: a, \
         {labels}}}}}}}\n"
    )
}

const NAMED: &str = "service.istio.io/workload-name: shop";

fn node() -> Node {
    let mut node = Node::sidecar("pod-7", "default");
    node.self_discovery = true;
    node.locality = parse_locality("r1/z1");
    let labels = [("app", "a"), ("service.istio.io/workload-name", "shop")];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    node.labels.extend(labels);
    node
}

/// Addresses by zone.
fn shown(set: &EndpointSet) -> Vec<String> {
    let each = set.localities.iter().map(|group| {
        let all = group.endpoints.iter();
        let all: Vec<String> = all.map(|one| one.address.to_string()).collect();
        format!("{}: {}", group.locality.zone, all.join(" "))
    });
    each.collect()
}

fn of(world: &World, node: &Node) -> Vec<String> {
    shown(&local_endpoints(world, node).expect("it discovers itself"))
}

#[test]
fn those_of_the_own_region_workload_and_revision_are_like_a_node() {
    let yaml = service("a", "", "app: a")
        + &workload(1, "r1/z1", NAMED)
        + &workload(2, "r1/z2", NAMED)
        + &workload(3, "r1/z2/s", NAMED)
        + &workload(4, "r2/z1", NAMED)
        + &workload(5, "r1/z1", "service.istio.io/workload-name: other")
        + &workload(6, "r1/z1", &format!("{NAMED}, pod-template-hash: abc"))
        + &workload(7, "r1/z1", "b: c");
    let world = good(&yaml);
    // One port is enough.
    let ordinary = [
        "z1: 10.0.0.1:8080",
        "z2: 10.0.0.2:8080",
        "z2: 10.0.0.3:8080",
    ];
    assert_eq!(of(&world, &node()), ordinary);

    let mut other = node();
    let hash = ("pod-template-hash".to_owned(), "abc".to_owned());
    other.labels.extend([hash]);
    assert_eq!(of(&world, &other), ["z1: 10.0.0.6:8080"]);
    // What the node says of its workload wins over its labels.
    other = node();
    other.workload = "other".to_owned();
    assert_eq!(of(&world, &other), ["z1: 10.0.0.5:8080"]);
    // A workload without the label is called as it is itself.
    other = node();
    other.labels.remove("service.istio.io/workload-name");
    other.name = "w7".to_owned();
    assert_eq!(of(&world, &other), ["z1: 10.0.0.7:8080"]);

    other = node();
    other.self_discovery = false;
    assert!(local_endpoints(&world, &other).is_none());
    other = node();
    other.labels.insert("app".to_owned(), "b".to_owned());
    assert!(of(&world, &other).is_empty(), "no service selects it");
    other = node();
    other.namespace = "elsewhere".to_owned();
    assert!(of(&world, &other).is_empty());
}

#[test]
fn the_oldest_service_counts_and_of_those_the_first_by_name() {
    let host = |yaml: &str| Alike::of(&good(yaml), &node()).unwrap().host().cloned();
    let (old, new) = ("2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z");
    let two = |one: &str, other: &str| service("b", one, "app: a") + &service("c", other, "app: a");
    let full = |name: &str| Some(format!("{name}.default.svc.cluster.local").into());
    assert_eq!(host(&two(new, old)), full("c"));
    assert_eq!(host(&two(old, new)), full("b"));
    assert_eq!(host(&two(old, old)), full("b"));
    assert_eq!(host(&service("b", old, "app: x")), None);
}

#[test]
fn a_node_that_discovers_itself_has_the_cluster_and_no_other_has() {
    let world = good(&(service("a", "", "app: a") + &workload(1, "r1/z1", NAMED)));
    let compiled = |node: &Node| {
        let mut builder = SnapshotBuilder::new();
        assert!(compile(&world, node, &mut builder).is_empty());
        let snapshot = builder.build().unwrap().0;
        let cluster = snapshot.cluster("local_cluster");
        cluster.map(|cluster| shown(&cluster.live().endpoints().load()))
    };
    let one = vec!["z1: 10.0.0.1:8080".to_owned()];
    assert_eq!(compiled(&node()), Some(one));
    let mut other = node();
    other.self_discovery = false;
    assert_eq!(compiled(&other), None);
}
