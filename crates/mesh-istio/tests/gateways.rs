//! What a gateway gets.

#[path = "support/lib.rs"]
mod support;

use mesh_core::model::Direction;
use mesh_istio::Node;
use support::{BOOKINFO, good, host, hosts, manager, of, service, snapshot, to};

fn gateway(name: &str, servers: &str) -> String {
    format!(
        "---\n{{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {{name: {name}}}, \
         spec: {{selector: {{istio: ingress}}, servers: [{servers}]}}}}\n"
    )
}

fn bound(name: &str, hosts: &str, http: &str) -> String {
    format!(
        "---\n{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: {name}}}, \
         spec: {{hosts: [{hosts}], gateways: [g], http: [{http}]}}}}\n"
    )
}

const TO_A: &str = "route: [{destination: {host: a}}]";
const SERVER: &str = "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}";

#[test]
fn serves_what_is_meant_for_it_on_the_mapped_port() {
    let ingress = of(&good(BOOKINFO), "ingress");
    let at: Vec<String> = ingress
        .listeners()
        .iter()
        .map(|l| l.address.to_string())
        .collect();
    assert_eq!(at, ["127.0.0.1:81", "127.0.0.1:8080"]);
    let http = manager(&ingress, "127.0.0.1_8080");
    assert_eq!(
        (http.direction, &*http.routes),
        (Direction::Gateway, "http.8080")
    );
    assert!(http.use_remote_address);
    let all = host(&ingress, "http.8080", "*:80");
    assert_eq!(all.rules.len(), 2);
    assert_eq!(
        to(&all.rules[0]),
        "outbound|9080||productpage.default.svc.cluster.local"
    );
    // Whatever else is asked for meets no rule.
    assert_eq!(hosts(&ingress, "http.8080"), ["*:80"]);
    assert!(ingress.table("http.8080").unwrap().ignore_port);
}

#[test]
fn sends_old_ports_to_https() {
    let ingress = of(&good(BOOKINFO), "ingress");
    assert!(host(&ingress, "http.81", "secure.example:81").require_tls);
    assert!(!host(&ingress, "http.8080", "*:80").require_tls);
    // Whether there is a route does not matter.
    let bare = gateway(
        "g",
        &SERVER.replace("['*']}", "[s.example], tls: {httpsRedirect: true}}"),
    );
    let (snapshot, _) = snapshot(&good(&bare), &Node::gateway("g", "default"));
    let host = host(&snapshot, "http.80", "s.example:80");
    assert!(host.require_tls && host.rules.is_empty());
}

#[test]
fn a_gateway_without_labels_serves_every_gateway() {
    let (all, _) = snapshot(&good(BOOKINFO), &Node::gateway("g", "istio-system"));
    let names: Vec<&str> = all.listeners().iter().map(|l| &*l.name).collect();
    assert_eq!(names, ["0.0.0.0_80", "0.0.0.0_81"]);
    let mut other = Node::gateway("g", "istio-system");
    other.labels.insert("istio".to_owned(), "other".to_owned());
    assert!(snapshot(&good(BOOKINFO), &other).0.listeners().is_empty());
}

#[test]
fn joins_virtual_services_per_host_with_catch_alls_last() {
    let text = service("a", "default", 80)
        + &gateway("g", SERVER)
        + &bound(
            "one",
            "shop.example",
            &format!(
                "{{name: one, match: [{{uri: {{prefix: /one}}}}], {TO_A}}}, {{name: rest-one, {TO_A}}}"
            ),
        )
        + &bound(
            "two",
            "shop.example, other.example",
            &format!("{{name: two, match: [{{uri: {{prefix: /two}}}}], {TO_A}}}"),
        );
    let (snapshot, findings) = snapshot(&good(&text), &Node::gateway("g", "default"));
    assert!(findings.is_empty(), "{findings:?}");
    let shop = host(&snapshot, "http.80", "shop.example:80");
    let names: Vec<&str> = shop.rules.iter().map(|rule| &*rule.name).collect();
    assert_eq!(names, ["one", "two", "rest-one"]);
    assert_eq!(
        host(&snapshot, "http.80", "other.example:80").rules.len(),
        1
    );
}

#[test]
fn binds_only_hosts_that_server_and_virtual_service_share() {
    let servers = "{port: {number: 80, protocol: HTTP}, hosts: ['*.shop.example', a.example, \
                   pay/b.example, ./c.example]}";
    let text = service("a", "default", 80)
        + &gateway("g", servers)
        + &bound(
            "v",
            "'*.example', x.shop.example, b.example, stranger.test",
            &format!("{{{TO_A}}}"),
        );
    let (snapshot, _) = snapshot(&good(&text), &Node::gateway("g", "default"));
    assert_eq!(
        hosts(&snapshot, "http.80"),
        [
            "*.shop.example:80",
            "a.example:80",
            "c.example:80",
            "x.shop.example:80"
        ],
    );
}

#[test]
fn a_virtual_service_of_another_namespace_names_the_gateway_in_full() {
    let text = service("a", "default", 80)
        + &gateway("g", SERVER)
        + &bound("near", "near.example", &format!("{{{TO_A}}}"))
        + &bound("far", "far.example", &format!("{{{TO_A}}}"))
            .replace("name: far}", "name: far, namespace: pay}")
        + &bound("full", "full.example", &format!("{{{TO_A}}}"))
            .replace("name: full}", "name: full, namespace: pay}")
            .replace("gateways: [g]", "gateways: [default/g]");
    let (snapshot, _) = snapshot(&good(&text), &Node::gateway("g", "default"));
    assert_eq!(
        hosts(&snapshot, "http.80"),
        ["full.example:80", "near.example:80"]
    );
}

#[test]
fn the_ports_of_its_own_service_are_followed() {
    let text = service("a", "default", 80)
        + &gateway("g", SERVER)
        + "---\n{apiVersion: v1, kind: Service, metadata: {name: ingress}, spec: {selector: {istio: \
           ingress}, ports: [{name: http, port: 80, targetPort: 8080}]}}\n";
    let mut node = Node::gateway("g", "default");
    node.labels.insert("istio".to_owned(), "ingress".to_owned());
    let (snapshot, _) = snapshot(&good(&text), &node);
    assert_eq!(snapshot.listeners()[0].address.to_string(), "0.0.0.0:8080");
}

#[test]
fn two_gateways_on_one_port_share_a_listener() {
    let text = service("a", "default", 80)
        + &gateway("g", SERVER)
        + &gateway("h", SERVER)
        + &bound("v", "a.example", &format!("{{{TO_A}}}")).replace("[g]", "[g, h]");
    let (snapshot, _) = snapshot(&good(&text), &Node::gateway("g", "default"));
    assert_eq!(snapshot.listeners().len(), 1);
    assert_eq!(host(&snapshot, "http.80", "a.example:80").rules.len(), 1);
}

#[test]
fn a_server_on_a_unix_socket_has_a_listener_and_a_table_called_as_istiod_calls_them() {
    let socket = "{port: {number: 0, name: u, protocol: HTTP}, bind: 'unix:///run/g.sock', \
                  hosts: ['*']}, \
                  {port: {name: v, protocol: HTTP}, bind: 'unix://@mesh', hosts: ['*']}";
    let text = service("a", "default", 80)
        + &gateway("g", socket)
        + &bound("v", "'*'", &format!("{{{TO_A}}}"));
    let mut node = Node::gateway("ingress", "default");
    node.labels.insert("istio".to_owned(), "ingress".to_owned());
    let (gateway, findings) = snapshot(&good(&text), &node);
    assert!(findings.is_empty(), "{findings:?}");
    let at: Vec<(&str, String)> = gateway
        .listeners()
        .iter()
        .map(|one| (&*one.name, one.address.to_string()))
        .collect();
    assert_eq!(
        at,
        [
            ("unix:///run/g.sock_0", "/run/g.sock".to_owned()),
            ("unix://@mesh_0", "@mesh".to_owned()),
        ]
    );
    let http = manager(&gateway, "unix:///run/g.sock_0");
    assert_eq!(&*http.routes, "http.0.unix:///run/g.sock");
    let host = host(&gateway, "http.0.unix://@mesh", "*:0");
    assert_eq!(
        to(&host.rules[0]),
        "outbound|80||a.default.svc.cluster.local"
    );
}
