//! Workloads that know each other: Istio's metadata exchange between proxies.

use crate::support::Whole;
use crate::town::{
    Answer, Backend, Reply, ask, client, free_port, object, request, routes, send_to, service,
    service_at, world,
};
use http::Request;
use mesh_core::Publisher;
use mesh_core::model::{Cluster, Snapshot, SnapshotBuilder, WorkloadRef};
use mesh_istio::{Inbound, Node, Role, compile};
use mesh_proxy::{Proxy, Running};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const METADATA: &str = "x-envoy-peer-metadata";
const ID: &str = "x-envoy-peer-metadata-id";

/// The host of a service outside the mesh.
const OUTSIDE: &str = "out.example";

/// A proxy that knows which workload it stands for, if any.
struct Station {
    at: SocketAddr,
    proxy: Running,
    // Without it the feed would end.
    _publisher: Publisher<Snapshot>,
}

// === impl Station ===

impl Station {
    async fn start(yaml: &str, mut node: Node) -> Self {
        let mut workload = WorkloadRef::default();
        workload.name = node.name.as_str().into();
        workload.namespace = node.namespace.as_str().into();
        workload.app = node.labels.get("app").map_or("", String::as_str).into();
        workload.version = node.labels.get("version").map_or("", String::as_str).into();
        workload.canonical_service = workload.app.clone();
        if matches!(node.role, Role::Sidecar { .. }) {
            node.base_port = Some(free_port() - 1);
        }
        Self::of(yaml, node, workload).await
    }

    async fn of(yaml: &str, node: Node, workload: WorkloadRef) -> Self {
        let (world, findings) = world(yaml);
        assert!(
            !findings.iter().any(mesh_istio::Diagnostic::is_error),
            "{findings:?}"
        );
        let mut builder = SnapshotBuilder::new();
        compile(&world, &node, &mut builder);
        let (snapshot, _) = builder.build().unwrap();
        let at = match node.base_port {
            Some(_) => node.outbound(0),
            None => snapshot.listeners()[0].address.socket().unwrap(),
        };
        let publisher = Publisher::from_arc(marked(&snapshot));
        let proxy = Proxy::builder(publisher.feed())
            .workload(workload)
            .concurrency(1)
            .seed(Some(7))
            .drain_time(Duration::ZERO)
            .start()
            .await
            .unwrap();
        let listening = proxy.ready().await;
        assert!(listening.failed.is_empty(), "{listening:?}");
        Self {
            at,
            proxy,
            _publisher: publisher,
        }
    }

    /// Sends a request, and sees that the answer says nothing of proxies.
    async fn send(&self, request: Request<Whole>) -> Answer {
        let answer = send_to(self.at, request).await;
        for name in [METADATA, ID] {
            assert_eq!(answer.header(name), "-", "the caller sees {name}");
        }
        answer
    }

    /// Checks that the only series of requests has these labels.
    fn counts_one_with(&self, labels: &[(&str, &str)]) {
        let mut scrape = mesh_telemetry::expose::Scrape::new();
        let text = scrape
            .telemetry(self.proxy.telemetry())
            .prometheus(&Default::default());
        let series: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("istio_requests_total{"))
            .collect();
        assert_eq!(series.len(), 1, "{series:?}");
        for (name, value) in labels {
            let label = format!("{name}=\"{value}\"");
            assert!(series[0].contains(&label), "{label} in {}", series[0]);
        }
    }
}

/// The same with the clusters of [`OUTSIDE`] marked, as istiod marks those of MESH_EXTERNAL.
fn marked(snapshot: &Arc<Snapshot>) -> Arc<Snapshot> {
    let mut builder = SnapshotBuilder::from(snapshot);
    builder.keep_listeners().keep_routes();
    for entry in snapshot.clusters() {
        let mut cluster = Cluster::clone(entry.config());
        if cluster.service.host == OUTSIDE {
            cluster
                .metadata
                .insert("istio/external".into(), "true".into());
        }
        builder.cluster(cluster);
    }
    builder.build().unwrap().0
}

/// The sidecar of `a-v1`, which accepts on `port` for an application. It says that it is of another
/// version than its WorkloadEntry says.
fn server(port: u16, application: &Backend) -> Node {
    let mut node = Node::sidecar("a-v1", "default");
    node.labels = BTreeMap::from([
        ("app".to_owned(), "a".to_owned()),
        ("version".to_owned(), "v7".to_owned()),
    ]);
    node.role = Role::Sidecar {
        inbound: vec![Inbound {
            port,
            application: application.address.port(),
        }],
    };
    node
}

/// The service `a`, whose workload is reached on this port.
fn through(port: u16) -> String {
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    service_at("a", "default", "{name: http, port: 80}", &[("v1", at)])
}

fn outside(backend: &Backend) -> String {
    object(
        "ServiceEntry",
        "out",
        &format!(
            "{{hosts: [{OUTSIDE}], location: MESH_EXTERNAL, resolution: STATIC, \
             ports: [{{number: 80, name: http, protocol: HTTP}}], \
             endpoints: [{{address: 127.0.0.1, ports: {{http: {}}}}}]}}",
            backend.address.port()
        ),
    )
}

/// A request of somebody who says to be a workload.
fn forged(host: &str) -> Request<Whole> {
    // A google.protobuf.Struct with WORKLOAD_NAME: forged.
    let metadata = "ChkKDVdPUktMT0FEX05BTUUSCBoGZm9yZ2Vk";
    request("GET", host, "/", &[(METADATA, metadata), (ID, "forged")])
}

fn told_of(backend: &Backend, number: usize) -> (String, String) {
    let seen = &backend.seen()[number];
    (seen.header(METADATA), seen.header(ID))
}

fn nothing() -> (String, String) {
    ("-".to_owned(), "-".to_owned())
}

#[tokio::test]
async fn both_sides_know_both_workloads_and_nobody_else_sees_how() {
    let (application, port) = (Backend::start("app").await, free_port());
    let yaml = through(port);
    let server = Station::start(&yaml, server(port, &application)).await;
    let client = Station::start(&yaml, client()).await;
    assert_eq!(client.send(ask("a", "/")).await.line(), "200 app");
    assert_eq!(told_of(&application, 0), nothing());
    server.counts_one_with(&[
        ("reporter", "destination"),
        ("source_workload", "client"),
        ("source_workload_namespace", "default"),
        ("source_canonical_service", "client"),
        ("source_app", "client"),
        ("destination_workload", "a-v1"),
        ("destination_service", "a.default.svc.cluster.local"),
    ]);
    client.counts_one_with(&[
        ("reporter", "source"),
        ("source_workload", "client"),
        ("destination_workload", "a-v1"),
        ("destination_app", "a"),
        ("destination_version", "v7"),
        ("destination_service", "a.default.svc.cluster.local"),
    ]);
}

#[tokio::test]
async fn an_application_cannot_say_that_it_is_somebody_else() {
    let (application, port) = (Backend::start("app").await, free_port());
    let yaml = through(port);
    let server = Station::start(&yaml, server(port, &application)).await;
    let client = Station::start(&yaml, client()).await;
    assert_eq!(client.send(forged("a")).await.line(), "200 app");
    assert_eq!(told_of(&application, 0), nothing());
    server.counts_one_with(&[("source_workload", "client")]);
}

#[tokio::test]
async fn a_caller_without_a_sidecar_is_unknown_and_gets_no_headers() {
    let (application, port) = (Backend::start("app").await, free_port());
    let server = Station::start(&through(port), server(port, &application)).await;
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let answer = send_to(at, ask("a", "/")).await;
    assert_eq!((answer.header(METADATA), answer.header(ID)), nothing());
    server.counts_one_with(&[
        ("source_workload", "unknown"),
        ("destination_workload", "a-v1"),
    ]);
}

#[tokio::test]
async fn a_response_made_by_the_sidecar_says_whose_it_is() {
    let (application, port) = (Backend::start("app").await, free_port());
    let mut gone = server(port, &application);
    gone.role = Role::Sidecar {
        inbound: vec![Inbound {
            port,
            application: 1,
        }],
    };
    let yaml = through(port);
    let _server = Station::start(&yaml, gone).await;
    let client = Station::start(&yaml, client()).await;
    assert_eq!(client.send(ask("a", "/")).await.status, 503);
    client.counts_one_with(&[("response_code", "503"), ("destination_version", "v7")]);
}

#[tokio::test]
async fn services_outside_the_mesh_are_told_nothing() {
    let (known, unknown) = (Backend::start("known").await, Backend::start("any").await);
    let client = Station::start(&outside(&known), client()).await;
    let by_authority = unknown.address.to_string();
    for (backend, host) in [(&known, OUTSIDE), (&unknown, &*by_authority)] {
        for (number, request) in [ask(host, "/"), forged(host)].into_iter().enumerate() {
            assert_eq!(client.send(request).await.status, 200, "{host}");
            assert_eq!(told_of(backend, number), nothing(), "{host}");
        }
    }
}

#[tokio::test]
async fn a_copy_that_leaves_the_mesh_says_less_than_its_request() {
    let (inside, copied) = (Backend::start("v1").await, Backend::start("out").await);
    let yaml = service("a", &[&inside])
        + &outside(&copied)
        + &object(
            "VirtualService",
            "a",
            &format!(
                "{{hosts: [a], http: [{{route: [{{destination: {{host: a}}}}], \
                 mirror: {{host: {OUTSIDE}}}}}]}}"
            ),
        );
    let client = Station::start(&yaml, client()).await;
    assert_eq!(client.send(ask("a", "/")).await.line(), "200 v1");
    copied.arrived(1).await;
    assert_ne!(told_of(&inside, 0), nothing());
    assert_eq!(told_of(&copied, 0), nothing());
}

#[tokio::test]
async fn every_attempt_says_who_calls() {
    let one = Backend::start("v1").await;
    one.plan([Reply::With(503, vec![(METADATA, "garbage!")])]);
    let yaml = service("a", &[&one])
        + &routes("{retries: {attempts: 1, retryOn: 5xx}, route: [{destination: {host: a}}]}");
    let client = Station::start(&yaml, client()).await;
    assert_eq!(client.send(ask("a", "/")).await.line(), "200 v1");
    assert_eq!(one.count(), 2);
    assert_ne!(told_of(&one, 0), nothing());
    assert_eq!(told_of(&one, 0), told_of(&one, 1));
}

#[tokio::test]
async fn a_client_at_a_gateway_cannot_inject_a_source() {
    for (known, source) in [(true, "front"), (false, "unknown")] {
        let (application, port) = (Backend::start("app").await, free_port());
        let yaml = through(port)
            + &object(
                "Gateway",
                "front",
                "{servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}",
            )
            + &object(
                "VirtualService",
                "a",
                "{hosts: ['*'], gateways: [front], http: [{route: [{destination: {host: a}}]}]}",
            );
        let server = Station::start(&yaml, server(port, &application)).await;
        let mut front = Node::gateway("front", "default");
        front.address = [127, 0, 0, 1].into();
        front.role = Role::Gateway {
            ports: BTreeMap::from([(80, free_port())]),
        };
        let front = if known {
            Station::start(&yaml, front).await
        } else {
            Station::of(&yaml, front, WorkloadRef::default()).await
        };
        assert_eq!(front.send(forged("x.example")).await.line(), "200 app");
        assert_eq!(told_of(&application, 0), nothing());
        server.counts_one_with(&[("source_workload", source)]);
    }
}
