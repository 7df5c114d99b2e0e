//! The table of names, as Istio's agent asks for it: naming nothing.

use crate::support::{Delta, Plane, SIDECAR, gateway, sidecar};
use mesh_core::discovery::NameTable;
use mesh_xds::read::{self, Resource};
use mesh_xds::{Node, TypeUrl};
use serde_json::Value;
use std::net::IpAddr;

fn entry(name: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: {name}}}, \
         spec: {{hosts: [{name}.example.com], ports: [{{number: 9000, name: tcp, protocol: TCP}}], \
         resolution: STATIC, endpoints: [{{address: 10.0.0.1}}]}}}}\n---\n"
    )
}

fn capturing() -> Node {
    Node::new(SIDECAR).with_text("DNS_CAPTURE", "true")
}

/// The next table that is sent.
async fn table(client: &mut Delta) -> NameTable {
    loop {
        let response = client.next().await.unwrap();
        client.ack(&response).await;
        if response.type_url != TypeUrl::NameTable.url() {
            continue;
        }
        let [one] = response.resources.as_slice() else {
            panic!("one table: {response:?}");
        };
        let body = one.resource.as_ref().unwrap();
        assert_eq!(body.type_url, TypeUrl::NameTable.url());
        match read::resource(TypeUrl::NameTable, &body.value).unwrap() {
            Resource::NameTable(table) => return *table,
            other => panic!("{other:?}"),
        }
    }
}

fn address(table: &NameTable, name: &str) -> IpAddr {
    table.names[format!("{name}.example.com").as_str()].addresses[0]
}

#[tokio::test]
async fn a_node_that_captures_names_gets_its_table_and_every_change_of_it() {
    let plane = Plane::of(&(entry("a") + &entry("b"))).await;
    let mut client = plane.connect(&capturing()).await;
    client.subscribe(TypeUrl::NameTable, &[]).await;
    let first = table(&mut client).await;
    assert_eq!(first.names.len(), 2);
    assert_ne!(address(&first, "a"), address(&first, "b"));
    plane.change(&(entry("a") + &entry("b") + &entry("c")));
    let second = table(&mut client).await;
    for name in ["a", "b"] {
        assert_eq!(address(&second, name), address(&first, name));
    }
    // Whoever is gone is, and who comes back finds a place of its own.
    plane.change(&(entry("b") + &entry("c")));
    let third = table(&mut client).await;
    assert_eq!(third.names.len(), 2);
    assert_eq!(address(&third, "c"), address(&second, "c"));
    // The pages say it too.
    let page = crate::http::page(&plane.control, "/debug/registryz")
        .await
        .1;
    let all = page.as_array().unwrap();
    let one = all.iter().find(|one| one["hostname"] == "b.example.com");
    let shown = &one.unwrap()["auto_allocated_addresses"];
    assert_eq!(shown[0], Value::from(address(&third, "b").to_string()));
    // And listeners are where the names lead.
    let names = listeners(&mut client).await;
    for name in ["b", "c"] {
        let listener = format!("{}_9000", address(&third, name));
        assert!(names.contains(&listener), "{names:?}");
    }
}

/// Asks for all listeners.
async fn listeners(client: &mut Delta) -> Vec<String> {
    client.subscribe(TypeUrl::Listener, &["*".to_owned()]).await;
    loop {
        let response = client.next().await.unwrap();
        client.ack(&response).await;
        if response.type_url == TypeUrl::Listener.url() {
            let names = response.resources.into_iter().map(|one| one.name);
            return names.collect();
        }
    }
}

#[tokio::test]
async fn a_node_that_does_not_has_no_table_and_no_allocated_addresses() {
    let plane = Plane::of(&entry("a")).await;
    let mut client = plane.connect(&Node::new(SIDECAR)).await;
    let names = listeners(&mut client).await;
    assert!(names.contains(&"0.0.0.0_9000".to_owned()), "{names:?}");
    client.subscribe(TypeUrl::NameTable, &[]).await;
    loop {
        let response = client.next().await.unwrap();
        if response.type_url == TypeUrl::NameTable.url() {
            assert!(response.resources.is_empty());
            break;
        }
    }
}

/// A headless service with one endpoint: a pod with a name of its own.
fn headless(address: &str, hostname: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: db}}, spec: {{clusterIP: None, \
         selector: {{app: db}}, ports: [{{name: tcp, port: 80}}]}}}}\n---\n\
         {{apiVersion: v1, kind: Pod, metadata: {{name: db-0, labels: {{app: db}}}}, spec: \
         {{hostname: {hostname}, subdomain: db}}, status: {{podIP: {address}, podIPs: [{{ip: \
         {address}}}], conditions: [{{type: Ready, status: 'True'}}]}}}}\n"
    )
}

#[tokio::test]
async fn names_follow_the_endpoints_that_answer_for_them() {
    let name = |one: &str| format!("{one}.default.svc.cluster.local");
    let plane = Plane::of(&headless("10.0.0.1", "first")).await;
    for node in [gateway(), sidecar()] {
        plane.change(&headless("10.0.0.1", "first"));
        let node = node.with_text("DNS_CAPTURE", "true");
        let mut client = plane.connect(&node).await;
        client.subscribe(TypeUrl::NameTable, &[]).await;
        let at = |table: &NameTable, one: &str| {
            let found = table.names.get(name(one).as_str())?;
            Some(found.addresses[0].to_string())
        };
        let now = table(&mut client).await;
        assert_eq!(at(&now, "db").as_deref(), Some("10.0.0.1"));
        assert_eq!(at(&now, "first.db").as_deref(), Some("10.0.0.1"));
        // Nothing but the endpoint.
        plane.change(&headless("10.0.0.2", "first"));
        let now = table(&mut client).await;
        assert_eq!(at(&now, "db").as_deref(), Some("10.0.0.2"));
        assert_eq!(at(&now, "first.db").as_deref(), Some("10.0.0.2"));
        // Nothing but its name.
        plane.change(&headless("10.0.0.2", "second"));
        let now = table(&mut client).await;
        assert_eq!(at(&now, "first.db"), None);
        assert_eq!(at(&now, "second.db").as_deref(), Some("10.0.0.2"));
    }
}
