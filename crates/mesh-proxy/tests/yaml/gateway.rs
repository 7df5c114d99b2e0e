//! `Gateway`: ports, hosts and redirects to https.

use crate::town::{
    Answer, Backend, Town, ask, free_port, object, object_in, refused, send_to, service, service_at,
};
use mesh_istio::{Node, Role};
use std::collections::BTreeMap;

/// A gateway on loopback whose port 80 is somewhere else.
fn front() -> Node {
    let mut node = Node::gateway("front", "default");
    node.address = [127, 0, 0, 1].into();
    node.role = Role::Gateway {
        ports: BTreeMap::from([(80, free_port())]),
    };
    node
}

fn server(hosts: &str) -> String {
    format!("{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: [{hosts}]}}")
}

fn gateway(servers: &str) -> String {
    object("Gateway", "front", &format!("{{servers: [{servers}]}}"))
}

/// A VirtualService of a namespace, bound to `default/front`, that answers by itself.
fn answering(namespace: &str, name: &str, hosts: &str, with: &str) -> String {
    object_in(
        namespace,
        "VirtualService",
        name,
        &format!(
            "{{hosts: [{hosts}], gateways: [default/front], \
             http: [{{directResponse: {{status: 200, body: {{string: {with}}}}}}}]}}"
        ),
    )
}

#[tokio::test]
async fn a_gateway_leads_requests_to_services() {
    let one = Backend::start("v1").await;
    let yaml = service("a", &[&one])
        + &gateway(&server("'*'"))
        + &object(
            "VirtualService",
            "a",
            "{hosts: ['*'], gateways: [front], http: [{match: [{uri: {prefix: /a}}], \
             route: [{destination: {host: a}}]}]}",
        );
    let town = Town::of(&yaml, front()).await;
    assert_eq!(town.get("anything.example", "/a").await.line(), "200 v1");
    assert_eq!(town.get("anything.example:80", "/a").await.line(), "200 v1");
    assert_eq!(town.get("anything.example", "/b").await.line(), "404 ");
    assert_eq!(one.seen()[0].header("x-envoy-attempt-count"), "1");
}

#[tokio::test]
async fn hosts_bind_virtual_services_and_others_get_404() {
    let yaml = gateway(&server("shop.example, '*.wide.example'"))
        + &answering("default", "shop", "shop.example", "shop")
        + &answering("default", "exact", "x.wide.example", "exact")
        + &answering("default", "z-all", "'*'", "all")
        + &answering("default", "other", "other.example", "other");
    let town = Town::of(&yaml, front()).await;
    for (host, line) in [
        ("shop.example", "200 shop"),
        ("SHOP.example:80", "200 shop"),
        ("x.wide.example", "200 exact"),
        // The star narrows to what the server has.
        ("y.wide.example", "200 all"),
        ("other.example", "404 "),
        ("wide.example", "404 "),
    ] {
        assert_eq!(town.get(host, "/").await.line(), line, "{host}");
    }
}

#[tokio::test]
async fn hosts_with_a_namespace_take_only_its_virtual_services() {
    for (hosts, own, other) in [
        ("'./*'", "200 own", "404 "),
        ("other/*", "404 ", "200 other"),
        ("'*/*'", "200 own", "200 other"),
        ("other/other.example, ./own.example", "200 own", "200 other"),
    ] {
        let yaml = gateway(&server(hosts))
            + &answering("default", "own", "own.example", "own")
            + &answering("other", "other", "other.example", "other");
        let town = Town::of(&yaml, front()).await;
        assert_eq!(town.get("own.example", "/").await.line(), own, "{hosts}");
        assert_eq!(
            town.get("other.example", "/").await.line(),
            other,
            "{hosts}"
        );
    }
}

#[tokio::test]
async fn virtual_services_of_one_host_are_joined_with_catch_alls_last() {
    let matching = |name: &str| {
        format!(
            "{{hosts: [h.example], gateways: [front], http: [{{match: [{{uri: {{prefix: /{name}}}}}], directResponse: {{status: 200, body: {{string: {name}}}}}}}]}}"
        )
    };
    let yaml = gateway(&server("'*'"))
        + &answering("default", "catch-all", "h.example", "rest")
        + &object("VirtualService", "one", &matching("one"))
        + &object("VirtualService", "two", &matching("two"));
    let town = Town::of(&yaml, front()).await;
    for (path, body) in [("/one", "one"), ("/two", "two"), ("/three", "rest")] {
        assert_eq!(town.get("h.example", path).await.body, body);
    }
}

#[tokio::test]
async fn virtual_services_that_do_not_name_the_gateway_are_not_its() {
    let of_mesh = answering("default", "m", "m.example", "m").replace("default/front", "mesh");
    let of_another = answering("default", "o", "o.example", "o").replace("default/front", "back");
    let yaml = gateway(&server("'*'")) + &of_mesh + &of_another;
    let town = Town::of(&yaml, front()).await;
    for host in ["m.example", "o.example"] {
        assert_eq!(town.get(host, "/").await.line(), "404 ");
    }
}

#[tokio::test]
async fn https_redirect_sends_every_request_to_https() {
    let redirecting = server("'*'").replace("hosts", "tls: {httpsRedirect: true}, hosts");
    let yaml = gateway(&redirecting) + &answering("default", "a", "a.example", "a");
    let town = Town::of(&yaml, front()).await;
    for host in ["a.example", "unknown.example"] {
        let answer: Answer = town.get(host, "/x?y").await;
        assert_eq!(answer.status, 301);
        assert_eq!(answer.header("location"), format!("https://{host}/x?y"));
    }
    let not = gateway(&server("'*'").replace("hosts", "tls: {httpsRedirect: false}, hosts"));
    let yaml = not + &answering("default", "a", "a.example", "a");
    assert_eq!(
        Town::of(&yaml, front())
            .await
            .get("a.example", "/")
            .await
            .line(),
        "200 a"
    );
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn bind_is_the_address_that_is_listened_on() {
    let node = front();
    let yaml = gateway(&server("'*'").replace("hosts", "bind: 127.0.0.2, hosts"))
        + &answering("default", "a", "'*'", "a");
    let town = Town::of(&yaml, node).await;
    assert_eq!(town.at.ip().to_string(), "127.0.0.2");
    assert_eq!(town.get("a.example", "/").await.line(), "200 a");
    let elsewhere = tokio::net::TcpStream::connect(("127.0.0.1", town.at.port())).await;
    assert!(elsewhere.is_err());
}

#[tokio::test]
async fn several_servers_may_have_ports_of_their_own() {
    let mut node = front();
    let (first, second) = (free_port(), free_port());
    node.role = Role::Gateway {
        ports: BTreeMap::from([(80, first), (81, second)]),
    };
    let other = server("b.example")
        .replace("80", "81")
        .replace("HTTP", "HTTP2");
    let yaml = gateway(&format!("{}, {other}", server("a.example")))
        + &answering("default", "a", "a.example", "a")
        + &answering("default", "b", "b.example", "b");
    let _town = Town::of(&yaml, node).await;
    for (port, host, line) in [
        (first, "a.example", "200 a"),
        (first, "b.example", "404 "),
        (second, "b.example", "200 b"),
        (second, "a.example", "404 "),
    ] {
        let at = ([127, 0, 0, 1], port).into();
        assert_eq!(
            send_to(at, ask(host, "/")).await.line(),
            line,
            "{port} {host}"
        );
    }
}

#[tokio::test]
async fn selector_chooses_the_gateways_of_a_proxy_by_its_labels() {
    let yaml = object(
        "Gateway",
        "front",
        &format!(
            "{{selector: {{istio: ingress}}, servers: [{}]}}",
            server("'*'")
        ),
    ) + &answering("default", "a", "a.example", "a");
    for (label, known) in [("ingress", true), ("egress", false)] {
        let mut node = front();
        node.labels.insert("istio".to_owned(), label.to_owned());
        let (world, _) = crate::town::world(&yaml);
        let mut builder = mesh_core::model::SnapshotBuilder::new();
        mesh_istio::compile(&world, &node, &mut builder);
        let (snapshot, _) = builder.build().unwrap();
        assert_eq!(snapshot.listeners().len(), usize::from(known), "{label}");
        if known {
            let town = Town::of(&yaml, node).await;
            assert_eq!(town.get("a.example", "/").await.line(), "200 a");
        }
    }
}

#[tokio::test]
async fn the_gateways_own_service_says_where_its_port_is() {
    let port = free_port();
    let mut node = front();
    node.labels.insert("app".to_owned(), "front".to_owned());
    node.role = Role::Gateway {
        ports: BTreeMap::new(),
    };
    let ports = format!("{{name: http, port: 80, targetPort: {port}}}");
    let yaml = service_at("front", "default", &ports, &[])
        + &object(
            "Gateway",
            "front",
            &format!("{{selector: {{app: front}}, servers: [{}]}}", server("'*'")),
        )
        + &answering("default", "a", "'*'", "a");
    let town = Town::of(&yaml, node).await;
    assert_eq!(town.at.port(), port);
    assert_eq!(town.get("a.example", "/").await.line(), "200 a");
}

#[test]
fn what_comes_later_is_refused_by_name() {
    for (field, server) in [
        (
            "protocol",
            "{port: {number: 443, name: s, protocol: GRPC-WEB}, hosts: [a]}".to_owned(),
        ),
        (
            "defaultEndpoint",
            server("a").replace("hosts", "defaultEndpoint: '127.0.0.1:1', hosts"),
        ),
        (
            "targetPort",
            server("a").replace("name: http", "name: http, targetPort: 1"),
        ),
    ] {
        let errors = refused(&gateway(&server));
        assert!(
            errors.contains(field) && errors.contains("not supported"),
            "{field}: {errors}"
        );
    }
}
