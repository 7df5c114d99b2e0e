//! What an intercepted sidecar gets. That it is what istiod sends is tested with its recordings,
//! in mesh-control.

#[path = "support/lib.rs"]
mod support;

use std::sync::Arc;

use mesh_core::model::Snapshot;
use mesh_istio::{Capture, Diagnostic, Node};
use support::{addresses, cluster, host, hosts, lines, service, snapshot, to, world};

fn intercepted(text: &str) -> (Arc<Snapshot>, Vec<String>) {
    let mut node = Node::sidecar("client", "default");
    node.capture = Capture::Redirect;
    node.labels = [("app".to_owned(), "a".to_owned())].into();
    node.address = [10, 0, 0, 1].into();
    let (world, findings) = world(text);
    assert!(!findings.iter().any(Diagnostic::is_error), "{findings:?}");
    let (snapshot, findings) = snapshot(&world, &node);
    (snapshot, lines(&findings))
}

fn tables(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.tables().iter().map(|table| &*table.name).collect()
}

fn kubernetes(name: &str, address: &str, ports: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{clusterIP: {address}, ports: [{ports}]}}\n---\n"
    )
}

#[test]
fn each_port_has_a_table_with_the_services_that_have_it() {
    let text = kubernetes(
        "x",
        "10.1.0.1",
        "{name: http, port: 80}, {name: http-b, port: 81}",
    ) + &kubernetes("y", "10.1.0.2", "{name: http, port: 80}");
    let (snapshot, findings) = intercepted(&text);
    assert_eq!(findings, Vec::<String>::new());
    assert_eq!(tables(&snapshot), ["80", "81"]);
    let (x, y) = ("x.default.svc.cluster.local", "y.default.svc.cluster.local");
    assert_eq!(
        hosts(&snapshot, "80"),
        [&format!("{x}:80"), &format!("{y}:80"), "allow_any"]
    );
    assert_eq!(hosts(&snapshot, "81"), [&format!("{x}:81"), "allow_any"]);
    assert!(snapshot.table("80").unwrap().ignore_port);
    let domains = &host(&snapshot, "81", &format!("{x}:81")).domains;
    assert!(
        domains.iter().all(|domain| !domain.contains(':')),
        "{domains:?}"
    );
    assert!(snapshot.listeners().is_empty());
}

#[test]
fn ports_that_do_not_say_what_they_speak_have_a_table_each() {
    let text = kubernetes("x", "10.1.0.1", "{name: web, port: 80}")
        + &kubernetes("y", "10.1.0.2", "{name: http, port: 80}");
    let (snapshot, _) = intercepted(&text);
    let own = "x.default.svc.cluster.local:80";
    assert_eq!(tables(&snapshot), [own, "80"]);
    assert_eq!(host(&snapshot, own, own).domains, ["*"]);
    assert_eq!(hosts(&snapshot, own), [own]);
}

#[test]
fn ports_that_are_not_http_have_clusters_and_no_table() {
    let text = kubernetes(
        "x",
        "10.1.0.1",
        "{name: tcp, port: 7000}, {name: https, port: 443}",
    );
    let (snapshot, _) = intercepted(&text);
    assert_eq!(tables(&snapshot), Vec::<&str>::new());
    for port in [443, 7000] {
        let name = format!("outbound|{port}||x.default.svc.cluster.local");
        let expected = format!("{name};");
        assert_eq!(
            cluster(&snapshot, &name).stat_name.as_deref(),
            Some(&*expected)
        );
    }
}

#[test]
fn the_way_in_is_named_by_the_applications_port() {
    let text = service("a", "default", 80).replace("port: 80", "port: 80, targetPort: 8080");
    let (snapshot, _) = intercepted(&text);
    assert_eq!(addresses(&snapshot, "inbound|8080||"), ["10.0.0.1:8080"]);
    let rule = &host(&snapshot, "inbound|8080||", "inbound|http|80").rules[0];
    assert_eq!(to(rule), "inbound|8080||");
}

#[test]
fn a_virtual_service_for_a_name_without_a_service_is_on_port_80_only() {
    let text = kubernetes(
        "x",
        "10.1.0.1",
        "{name: http, port: 80}, {name: http-b, port: 81}",
    ) + "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\n\
           spec: {hosts: [made-up.example], http: [{route: [{destination: {host: x, port: \
           {number: 80}}}]}]}\n";
    let (snapshot, _) = intercepted(&text);
    assert_eq!(
        host(&snapshot, "80", "made-up.example:80").domains,
        ["made-up.example"]
    );
    assert!(!hosts(&snapshot, "81").contains(&"made-up.example:81"));
}

#[test]
fn a_sidecars_listener_with_a_port_reaches_what_it_names_and_no_more() {
    let text = kubernetes("x", "10.1.0.1", "{name: http, port: 80}")
        + &kubernetes("y", "10.1.0.2", "{name: http, port: 80}")
        + &kubernetes("z", "10.1.0.3", "{name: http, port: 81}")
        + "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: s}\nspec:\n  \
           outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n  egress:\n  \
           - {port: {number: 80, protocol: HTTP}, hosts: ['./x.default.svc.cluster.local']}\n  \
           - {hosts: ['./*']}\n";
    let (snapshot, _) = intercepted(&text);
    assert_eq!(
        hosts(&snapshot, "80"),
        ["x.default.svc.cluster.local:80", "block_all"]
    );
    assert_eq!(
        hosts(&snapshot, "81"),
        ["z.default.svc.cluster.local:81", "block_all"]
    );
}
