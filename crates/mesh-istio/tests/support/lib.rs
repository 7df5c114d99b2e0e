//! What the integration tests share.
#![allow(dead_code)]

use std::sync::Arc;

use mesh_core::model::{
    Action, Cluster, FilterChain, HttpManager, Listener, Rule, Snapshot, SnapshotBuilder, Target,
    TcpTarget, VirtualHost,
};
use mesh_istio::{Diagnostic, Files, Node, World, compile};

pub(crate) const BOOKINFO: &str = include_str!("../data/bookinfo.yaml");

/// A world of one file, with what was found in it.
pub(crate) fn world(text: &str) -> (World, Vec<Diagnostic>) {
    let mut world = World::default();
    let findings = world.update(&Files::from_text("mesh.yaml", text));
    (world, findings)
}

/// A world without a fault.
pub(crate) fn good(text: &str) -> World {
    let (world, findings) = world(text);
    assert!(findings.is_empty(), "{}", lines(&findings).join("\n"));
    world
}

pub(crate) fn lines(findings: &[Diagnostic]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

/// What a node gets, and what was found on the way.
pub(crate) fn snapshot(world: &World, node: &Node) -> (Arc<Snapshot>, Vec<Diagnostic>) {
    let mut builder = SnapshotBuilder::new();
    let findings = compile(world, node, &mut builder);
    let (snapshot, _) = builder.build().expect("what was accepted can be built");
    (snapshot, findings)
}

/// What the described node of this name gets; nothing may be found.
pub(crate) fn of(world: &World, name: &str) -> Arc<Snapshot> {
    let node = Node::find(world, name, "default")
        .expect("good annotations")
        .expect("described");
    let (snapshot, findings) = snapshot(world, &node);
    assert!(findings.is_empty(), "{}", lines(&findings).join("\n"));
    snapshot
}

/// What a plain client in namespace `default` gets, with its findings.
pub(crate) fn client(text: &str) -> (Arc<Snapshot>, Vec<Diagnostic>) {
    snapshot(&good(text), &Node::sidecar("client", "default"))
}

pub(crate) fn host<'s>(snapshot: &'s Snapshot, table: &str, name: &str) -> &'s VirtualHost {
    let table = snapshot
        .table(table)
        .unwrap_or_else(|| panic!("table {table}"));
    let found = table.virtual_hosts.iter().find(|host| host.name == name);
    found.unwrap_or_else(|| {
        let names: Vec<&str> = table.virtual_hosts.iter().map(|host| &*host.name).collect();
        panic!("virtual host {name} among {names:?}")
    })
}

pub(crate) fn hosts<'s>(snapshot: &'s Snapshot, table: &str) -> Vec<&'s str> {
    let table = snapshot
        .table(table)
        .unwrap_or_else(|| panic!("table {table}"));
    table.virtual_hosts.iter().map(|host| &*host.name).collect()
}

pub(crate) fn cluster<'s>(snapshot: &'s Snapshot, name: &str) -> &'s Cluster {
    snapshot
        .cluster(name)
        .unwrap_or_else(|| panic!("cluster {name}"))
        .config()
}

pub(crate) fn addresses(snapshot: &Snapshot, name: &str) -> Vec<String> {
    let entry = snapshot
        .cluster(name)
        .unwrap_or_else(|| panic!("cluster {name}"));
    let set = entry.live().endpoints().load();
    set.iter()
        .map(|endpoint| endpoint.address.to_string())
        .collect()
}

/// The only cluster that a rule sends to.
pub(crate) fn to(rule: &Rule) -> &str {
    match &rule.action {
        Action::Forward(forward) => match &forward.to {
            Target::Cluster(name, _) => name,
            other => panic!("one cluster instead of {other:?}"),
        },
        other => panic!("forwarding instead of {other:?}"),
    }
}

pub(crate) fn manager<'s>(snapshot: &'s Snapshot, listener: &str) -> &'s HttpManager {
    let found = snapshot.listeners().iter().find(|one| one.name == listener);
    let found = found.unwrap_or_else(|| panic!("listener {listener}"));
    found.managers().next().expect("a listener for HTTP")
}

pub(crate) fn listener<'s>(snapshot: &'s Snapshot, name: &str) -> &'s Listener {
    let found = snapshot.listeners().iter().find(|one| one.name == name);
    found.unwrap_or_else(|| panic!("listener {name} among {:?}", listeners(snapshot)))
}

pub(crate) fn listeners(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.listeners().iter().map(|one| &*one.name).collect()
}

/// The clusters that a chain for bytes leads to, with their weights where there are several.
pub(crate) fn clusters(chain: &FilterChain) -> Vec<String> {
    let proxy = chain.proxy().expect("a chain for bytes");
    match &proxy.target {
        TcpTarget::Clusters(splits) => match splits.as_slice() {
            [only] => vec![only.cluster.to_string()],
            several => several
                .iter()
                .map(|one| format!("{} {}", one.weight, one.cluster))
                .collect(),
        },
        other => panic!("clusters instead of {other:?}"),
    }
}

/// An Istio object `x` with this under `spec`, in flow style.
pub(crate) fn object(kind: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{{spec}}}\n"
    )
}

/// A VirtualService with this under `spec.http`, as one rule in flow style.
pub(crate) fn virtual_service(http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v}}\n\
         spec: {{hosts: [v.example], http: [{http}]}}\n"
    )
}

pub(crate) fn destination_rule(policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: d}}\n\
         spec: {{host: a, trafficPolicy: {policy}}}\n"
    )
}

/// A Kubernetes service with one HTTP port and one pod behind it.
pub(crate) fn service(name: &str, namespace: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: {port}}}]}}\n---\n\
         apiVersion: v1\nkind: Pod\n\
         metadata: {{name: {name}-1, namespace: {namespace}, labels: {{app: {name}, version: v1}}}}\n\
         status: {{podIP: 10.0.0.1}}\n---\n"
    )
}
