//! `Sidecar`: what a workload sees and what it accepts.

use crate::town::{
    Backend, Reply, Town, ask, free_port, mesh_config, object, object_in, refused, send_to,
    service, service_at,
};
use mesh_istio::{Inbound, Node, Role};
use std::net::SocketAddr;

const HTTP: &str = "{name: http, port: 80}";

/// `a` and `b` in the client's namespace and `c` in another; unknown hosts are 502.
async fn world(sidecar: &str) -> String {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let c = Backend::start("c").await;
    mesh_config(&["outboundTrafficPolicy: {mode: REGISTRY_ONLY}"])
        + &service("a", &[&a])
        + &service("b", &[&b])
        + &service_at("c", "other", HTTP, &[("v1", c.address)])
        + &object("Sidecar", "s", sidecar)
}

/// Which of the three services a client sees.
async fn sees(town: &Town) -> String {
    let mut seen = String::new();
    for host in ["a.default", "b.default", "c.other"] {
        let answer = town.get(host, "/").await;
        match answer.status.as_u16() {
            200 => seen += &answer.body,
            502 => {}
            other => panic!("{other} from {host}"),
        }
    }
    seen
}

#[tokio::test]
async fn egress_hosts_are_all_that_is_seen() {
    for (hosts, seen) in [
        ("'*/*'", "abc"),
        ("'./*'", "ab"),
        ("'other/*'", "c"),
        ("'./a.default.svc.cluster.local'", "a"),
        ("'*/*.other.svc.cluster.local'", "c"),
        ("'~/*'", ""),
        ("'./a.default.svc.cluster.local', 'other/*'", "ac"),
        ("'*/*', '~other/*'", "ab"),
        ("'*/*', '~./b.default.svc.cluster.local'", "ac"),
    ] {
        let yaml = world(&format!("{{egress: [{{hosts: [{hosts}]}}]}}")).await;
        assert_eq!(sees(&Town::client(&yaml).await).await, seen, "{hosts}");
    }
}

#[tokio::test]
async fn workload_selector_chooses_the_clients_it_is_for() {
    for (labels, seen) in [("{app: client}", "c"), ("{app: x}", "abc")] {
        let yaml = world(&format!(
            "{{workloadSelector: {{labels: {labels}}}, egress: [{{hosts: ['other/*']}}]}}"
        ))
        .await;
        assert_eq!(sees(&Town::client(&yaml).await).await, seen, "{labels}");
    }
}

#[tokio::test]
async fn the_closest_sidecar_wins() {
    let rule = |hosts: &str| format!("{{egress: [{{hosts: [{hosts}]}}]}}");
    let mut yaml = world(&rule("'~/*'"))
        .await
        .replace("name: s,", "name: gone,");
    yaml = yaml.replace(
        "kind: Sidecar\nmetadata: {name: gone, namespace: default}",
        "kind: Sidecar\nmetadata: {name: root, namespace: istio-system}",
    );
    assert_eq!(sees(&Town::client(&yaml).await).await, "", "the root's");
    yaml += &object("Sidecar", "plain", &rule("'./*'"));
    assert_eq!(
        sees(&Town::client(&yaml).await).await,
        "ab",
        "the namespace's"
    );
    yaml += &object(
        "Sidecar",
        "chosen",
        "{workloadSelector: {labels: {app: client}}, egress: [{hosts: ['other/*']}]}",
    );
    assert_eq!(
        sees(&Town::client(&yaml).await).await,
        "c",
        "the workload's"
    );
}

#[tokio::test]
async fn virtual_services_are_scoped_as_well() {
    let yaml = world("{egress: [{hosts: ['./*']}]}").await
        + &object_in(
            "other",
            "VirtualService",
            "v",
            "{hosts: [a.default.svc.cluster.local], http: [{directResponse: {status: 418}}]}",
        );
    assert_eq!(
        Town::client(&yaml).await.get("a", "/").await.line(),
        "200 a"
    );
    let yaml = yaml.replace("'./*'", "'*/*'");
    assert_eq!(Town::client(&yaml).await.get("a", "/").await.status, 418);
}

#[tokio::test]
async fn an_egress_port_is_a_listener_for_services_with_that_port() {
    let port = free_port();
    let a = Backend::start("a").await;
    let ports = format!("{{name: http, port: {port}}}");
    let yaml = service_at("a", "default", &ports, &[("v1", a.address)])
        + &object(
            "Sidecar",
            "s",
            &format!(
                "{{egress: [{{port: {{number: {port}, protocol: HTTP, name: x}}, \
                 bind: 127.0.0.1, captureMode: NONE, hosts: ['./*']}}]}}"
            ),
        );
    let town = Town::client(&yaml).await;
    let at: SocketAddr = ([127, 0, 0, 1], port).into();
    assert_eq!(send_to(at, ask("a", "/")).await.line(), "200 a");
    assert_eq!(send_to(at, ask("a:1234", "/")).await.line(), "200 a");
    assert_eq!(town.get(&format!("a:{port}"), "/").await.line(), "200 a");
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn an_egress_listener_binds_where_it_says_and_may_be_a_proxy() {
    let (port, a) = (free_port(), Backend::start("a").await);
    let yaml = service("a", &[&a])
        + &object(
            "Sidecar",
            "s",
            &format!(
                "{{egress: [{{port: {{number: {port}, protocol: HTTP_PROXY}}, bind: 127.0.0.3, \
                 hosts: ['./*']}}]}}"
            ),
        );
    let _town = Town::client(&yaml).await;
    let at: SocketAddr = ([127, 0, 0, 3], port).into();
    assert_eq!(send_to(at, ask("a:80", "/")).await.line(), "200 a");
}

#[tokio::test]
async fn outbound_traffic_policy_overrules_the_meshs() {
    let outside = Backend::start("outside").await;
    let host = outside.address.to_string();
    for (mesh, sidecar, line) in [
        ("REGISTRY_ONLY", "{}", "502 "),
        (
            "REGISTRY_ONLY",
            "{outboundTrafficPolicy: {mode: ALLOW_ANY}}",
            "200 outside",
        ),
        (
            "ALLOW_ANY",
            "{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}",
            "502 ",
        ),
        ("ALLOW_ANY", "{outboundTrafficPolicy: {}}", "502 "),
        ("ALLOW_ANY", "{}", "200 outside"),
    ] {
        let yaml = mesh_config(&[&format!("outboundTrafficPolicy: {{mode: {mesh}}}")])
            + &object("Sidecar", "s", sidecar);
        let town = Town::client(&yaml).await;
        assert_eq!(town.get(&host, "/").await.line(), line, "{mesh} {sidecar}");
    }
}

/// The workload `a`, whose port is `port`, with the application behind it.
fn workload(port: u16, application: u16) -> Node {
    let mut node = Node::sidecar("a-v1", "default");
    node.labels.insert("app".to_owned(), "a".to_owned());
    node.role = Role::Sidecar {
        inbound: vec![Inbound { port, application }],
    };
    node
}

#[tokio::test]
async fn ingress_says_what_is_accepted_and_where_it_goes() {
    let (usual, other) = (Backend::start("usual").await, Backend::start("other").await);
    for (endpoint, body) in [
        ("".to_owned(), "usual"),
        (format!(", defaultEndpoint: '{}'", other.address), "other"),
        (
            format!(", defaultEndpoint: '0.0.0.0:{}'", other.address.port()),
            "other",
        ),
    ] {
        let port = free_port();
        let yaml = object(
            "Sidecar",
            "s",
            &format!(
                "{{ingress: [{{port: {{number: {port}, protocol: HTTP, name: x}}, \
                 captureMode: NONE{endpoint}}}]}}"
            ),
        );
        let _town = Town::of(&yaml, workload(port, usual.address.port())).await;
        let at: SocketAddr = ([127, 0, 0, 1], port).into();
        assert_eq!(send_to(at, ask("a", "/")).await.body, body, "{endpoint}");
    }
    // What is not listed is not accepted any more.
    let (port, second) = (free_port(), free_port());
    let yaml = object(
        "Sidecar",
        "s",
        &format!(
            "{{ingress: [{{port: {{number: {second}, protocol: HTTP}}, \
             defaultEndpoint: '{}'}}]}}",
            other.address
        ),
    );
    let _town = Town::of(&yaml, workload(port, usual.address.port())).await;
    assert!(
        tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_err()
    );
    let at: SocketAddr = ([127, 0, 0, 1], second).into();
    assert_eq!(send_to(at, ask("a", "/")).await.body, "other");
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn ingress_binds_where_it_says() {
    let (one, port) = (Backend::start("v1").await, free_port());
    let yaml = object(
        "Sidecar",
        "s",
        &format!("{{ingress: [{{port: {{number: {port}, protocol: HTTP}}, bind: 127.0.0.4}}]}}"),
    );
    let _town = Town::of(&yaml, workload(port, one.address.port())).await;
    let at: SocketAddr = ([127, 0, 0, 4], port).into();
    assert_eq!(send_to(at, ask("a", "/")).await.body, "v1");
}

#[tokio::test]
async fn inbound_pools_are_the_ports_then_the_sidecars_then_the_rules() {
    let pool = |most: u32| format!("{{http: {{maxRequestsPerConnection: {most}}}}}");
    for (general, of_port, connections) in
        [(None, None, 4), (Some(2), None, 2), (Some(1), Some(4), 1)]
    {
        let (one, port) = (Backend::start("v1").await, free_port());
        let mut spec = String::new();
        if let Some(most) = general {
            spec += &format!("inboundConnectionPool: {}, ", pool(most));
        }
        if let Some(most) = of_port {
            spec += &format!(
                "ingress: [{{port: {{number: {port}, protocol: HTTP}}, connectionPool: {}}}]",
                pool(most)
            );
        }
        let yaml = object(
            "WorkloadEntry",
            "a-v1",
            &format!("{{address: 127.0.0.1, labels: {{app: a}}, ports: {{http: {port}}}}}"),
        ) + &service("a", &[])
            + &crate::town::policy(&format!("{{connectionPool: {}}}", pool(1)))
            + &object("Sidecar", "s", &format!("{{{spec}}}"));
        let town = Town::of(&yaml, workload(port, one.address.port())).await;
        let at: SocketAddr = ([127, 0, 0, 1], port).into();
        for _ in 0..4 {
            assert_eq!(send_to(at, ask("a", "/")).await.status, 200);
        }
        let name = format!("cluster.inbound|{port}||.upstream_cx_total");
        assert_eq!(
            town.whole_stat(&name).await,
            connections,
            "{general:?} {of_port:?}"
        );
    }
}

#[tokio::test]
async fn inbound_does_not_retry_what_the_application_answered() {
    let (one, port) = (Backend::start("v1").await, free_port());
    one.always(Reply::With(503, vec![]));
    let _town = Town::of("", workload(port, one.address.port())).await;
    let at: SocketAddr = ([127, 0, 0, 1], port).into();
    assert_eq!(send_to(at, ask("a", "/")).await.status, 503);
    assert_eq!(one.count(), 1);
}

#[tokio::test]
async fn gateways_ignore_sidecars() {
    let yaml = world("{egress: [{hosts: ['~/*']}]}").await
        + &object(
            "Gateway",
            "front",
            "{servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}",
        )
        + &object(
            "VirtualService",
            "v",
            "{hosts: ['*'], gateways: [front], http: [{route: [{destination: {host: a}}]}]}",
        );
    let mut node = Node::gateway("front", "default");
    node.address = [127, 0, 0, 1].into();
    node.role = Role::Gateway {
        ports: [(80, free_port())].into(),
    };
    assert_eq!(Town::of(&yaml, node).await.get("x", "/").await.body, "a");
}

#[test]
fn what_comes_later_is_refused_by_name() {
    let port = "port: {number: 9000, protocol: HTTP}";
    for (field, spec) in [
        (
            "egressProxy",
            "{outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: e}}}".into(),
        ),
        (
            "mode",
            "{outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}}".into(),
        ),
        (
            "bind",
            format!("{{egress: [{{{port}, bind: 'unix:///x', hosts: ['*/*']}}]}}")
                .replace("number: 9000, protocol: HTTP", "protocol: TCP"),
        ),
        (
            "targetPort",
            "{ingress: [{port: {number: 9, protocol: HTTP, targetPort: 1}}]}".into(),
        ),
    ] {
        let errors = refused(&object("Sidecar", "s", &spec));
        assert!(
            errors.contains(field) && errors.contains("not supported"),
            "{field}: {errors}"
        );
    }
}
