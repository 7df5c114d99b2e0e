//! Addresses that are allocated to service entries, and the names that lead to them.

#[path = "support/lib.rs"]
mod support;

use mesh_core::model::{Snapshot, SnapshotBuilder};
use mesh_istio::{Capture, Node, Workshop, allocated, name_table};
use std::net::{IpAddr, SocketAddr};
use support::{good, host, lines, listeners, snapshot};

const TWO: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: one}
spec:
  hosts: [one.example.com]
  ports: [{number: 9000, name: tcp, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: 10.0.0.1}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: two}
spec:
  hosts: [Two.example.com]
  ports: [{number: 9000, name: tcp, protocol: TCP}, {number: 80, name: http, protocol: HTTP}]
  resolution: DNS
";

fn node(dns_capture: bool, address: &str) -> Node {
    let mut node = Node::sidecar("client", "default");
    node.capture = Capture::Redirect;
    node.dns_capture = dns_capture;
    node.address = address.parse().unwrap();
    node
}

fn names(snapshot: &Snapshot) -> Vec<&str> {
    let mut names = listeners(snapshot);
    names.retain(|name| name.ends_with("_9000"));
    names.sort_unstable();
    names
}

#[test]
fn two_tcp_services_on_one_port_are_told_apart_by_their_addresses() {
    let world = good(TWO);
    let known = allocated(&world);
    let (one, two) = (known["one.example.com"][0], known["two.example.com"][0]);
    let (snapshot, findings) = snapshot(&world, &node(true, "10.0.0.9"));
    assert!(findings.is_empty(), "{:?}", lines(&findings));
    let mut expected = [format!("{one}_9000"), format!("{two}_9000")];
    expected.sort();
    assert_eq!(names(&snapshot), expected);
    for (address, host) in [(one, "one"), (two, "two")] {
        let listener = support::listener(&snapshot, &format!("{address}_9000"));
        assert_eq!(listener.address, SocketAddr::from((address, 9000)));
        assert_eq!(
            support::clusters(&listener.chains[0]),
            [format!("outbound|9000||{host}.example.com")]
        );
    }
    // HTTP is told apart by name, and by the address for who calls that.
    let domains = &host(&snapshot, "80", "two.example.com:80").domains;
    assert!(
        domains.contains(&two.to_string().as_str().into()),
        "{domains:?}"
    );
}

#[test]
fn who_does_not_capture_names_has_no_use_for_the_addresses() {
    let world = good(TWO);
    let (plain, findings) = snapshot(&world, &node(false, "10.0.0.9"));
    assert_eq!(names(&plain), ["0.0.0.0_9000"]);
    assert!(lines(&findings)[0].contains("an address of its own"));
    let mut called = node(true, "10.0.0.9");
    called.capture = Capture::None;
    let (called, _) = snapshot(&world, &called);
    let domains = &host(&called, "http_proxy", "two.example.com:80").domains;
    assert!(domains.iter().all(|one| !one.contains("240.240")));
    let mut gateway = Node::gateway("edge", "default");
    gateway.capture = Capture::Redirect;
    gateway.dns_capture = true;
    assert!(!gateway.uses_allocated());
    assert!(name_table(&world, &gateway).names.is_empty());
}

#[test]
fn a_node_has_the_addresses_of_its_family() {
    let world = good(TWO);
    let all = &allocated(&world)["one.example.com"];
    for (own, expected) in [("10.0.0.9", all[0]), ("fd00::9", all[1])] {
        let node = node(true, own);
        let (snapshot, _) = snapshot(&world, &node);
        let name = format!("{expected}_9000");
        assert!(names(&snapshot).contains(&name.as_str()));
        let place = SocketAddr::from((expected, 9000));
        assert!(snapshot.listeners().iter().any(|one| one.address == place));
        let table = name_table(&world, &node);
        assert_eq!(table.names["one.example.com"].addresses, [expected]);
    }
}

#[test]
fn a_workshop_does_not_mistake_one_kind_of_node_for_the_other() {
    let world = good(TWO);
    let mut workshop = Workshop::new();
    for _ in 0..2 {
        for dns_capture in [true, false] {
            let node = node(dns_capture, "10.0.0.9");
            let mut builder = SnapshotBuilder::new();
            workshop.compile(&world, &node, &mut builder);
            let (made, _) = builder.build().unwrap();
            let (alone, _) = snapshot(&world, &node);
            assert_eq!(made.listeners(), alone.listeners());
            assert_eq!(made.tables(), alone.tables());
        }
    }
}

const KUBERNETES: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.1.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: data}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: tcp, port: 5432}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, namespace: data, labels: {app: db}}
spec: {subdomain: db, hostname: db-0}
status: {podIP: 10.2.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: db-1, namespace: data, labels: {app: db}}
status: {podIP: 10.2.0.2}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: given}
spec:
  hosts: [given.example.com]
  addresses: [10.3.0.1, 10.3.0.2, 10.4.0.0/16]
  ports: [{number: 9000, name: tcp, protocol: TCP}]
  resolution: STATIC
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: anywhere}
spec:
  hosts: [anywhere.example.com]
  ports: [{number: 9001, name: tcp, protocol: TCP}]
  resolution: NONE
";

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn the_table_has_what_a_node_may_call_and_headless_services_by_their_endpoints() {
    let world = good(KUBERNETES);
    let table = name_table(&world, &node(false, "10.0.0.9"));
    let names: Vec<&str> = table.names.keys().map(|name| name.as_str()).collect();
    let (web, db) = ("web.default.svc.cluster.local", "db.data.svc.cluster.local");
    let pod = "db-0.db.data.svc.cluster.local";
    assert_eq!(names, [pod, db, "given.example.com", web]);
    assert_eq!(table.names[web].addresses, ips(&["10.1.0.1"]));
    assert_eq!(table.names[db].addresses, ips(&["10.2.0.1", "10.2.0.2"]));
    assert_eq!(table.names[pod].addresses, ips(&["10.2.0.1"]));
    let given = &table.names["given.example.com"];
    assert_eq!(given.addresses, ips(&["10.3.0.1", "10.3.0.2"]));
    assert!(given.short.is_none());
    let short = table.names[pod].short.as_ref().unwrap();
    assert_eq!((&*short.name, &*short.namespace), ("db-0.db", "data"));
}

#[test]
fn a_sidecar_object_narrows_the_table() {
    let text = KUBERNETES.to_owned()
        + "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: few}\n\
           spec: {egress: [{hosts: [./*]}]}\n";
    let table = name_table(&good(&text), &node(true, "10.0.0.9"));
    assert!(table.names.keys().all(|name| !name.contains("data")));
    assert!(table.names.contains_key("web.default.svc.cluster.local"));
}
