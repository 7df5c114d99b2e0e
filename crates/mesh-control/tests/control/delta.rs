//! One change, and what is sent of it.

use crate::support::{Plane, cluster, files, gateway, sidecar, yaml};
use mesh_control::Control;
use mesh_core::discovery::{Event, Instance, ServiceId};
use mesh_core::model::{Address, Endpoint};
use mesh_xds::{Node, TypeUrl};
use std::sync::Arc;
use tonic::Code;

const GATEWAY: &str = "---\n{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: \
                       g}, spec: {selector: {istio: ingress}, servers: [{port: {number: 80, name: \
                       http, protocol: HTTP}, hosts: ['*']}]}}\n";

fn event(host: &str, addresses: &[&str]) -> Event {
    let each = addresses.iter().map(|address| {
        let address: Address = format!("{address}:80").parse().unwrap();
        Instance::new(80, Arc::new(Endpoint::new(address)))
    });
    let id = ServiceId {
        host: format!("{host}.default.svc.cluster.local").into(),
        namespace: "default".into(),
    };
    Event::EndpointsChanged(id, Arc::new(each.collect()))
}

#[tokio::test]
async fn a_sidecar_and_a_gateway_are_served() {
    let plane = Plane::of(&(yaml(3, "1s", "10.0.0.1") + GATEWAY)).await;
    let mut client = plane.connect(&sidecar()).await;
    client.settle(&["http_proxy"]).await;
    assert_eq!(client.names(TypeUrl::Listener), ["127.0.0.1_20101"]);
    assert_eq!(client.names(TypeUrl::Endpoints).len(), 3);

    let node = gateway()
        .with_map("LABELS", [("istio", "ingress")])
        .with_text("MESH_MAP_PORT", "80=8080");
    let mut client = plane.connect(&node).await;
    client.settle(&["http.8080"]).await;
    assert_eq!(client.names(TypeUrl::Listener), ["0.0.0.0_8080"]);
    assert!(
        client
            .names(TypeUrl::Cluster)
            .contains(&cluster("s2").as_str())
    );
}

#[tokio::test]
async fn a_new_timeout_is_sent_as_one_table() {
    let plane = Plane::of(&yaml(5, "1s", "10.0.0.1")).await;
    let mut client = plane.connect(&sidecar()).await;
    client.settle(&["http_proxy"]).await;
    plane.change(&yaml(5, "2s", "10.0.0.1"));
    let news = client.until(TypeUrl::Routes).await;
    assert_eq!(news, [(TypeUrl::Routes, "http_proxy".to_owned())]);
}

#[tokio::test]
async fn a_new_endpoint_is_sent_alone_and_without_waiting() {
    let plane = Plane::of(&yaml(5, "1s", "10.0.0.1")).await;
    let mut client = plane.connect(&sidecar()).await;
    client.settle(&["http_proxy"]).await;
    // Nobody runs the control plane: what waits would wait for ever.
    plane.control.update(&files(&yaml(5, "1s", "10.0.0.2")));
    let news = client.until(TypeUrl::Endpoints).await;
    assert_eq!(news, [(TypeUrl::Endpoints, cluster("s0"))]);
}

#[tokio::test]
async fn endpoints_of_another_registry_are_sent_until_the_objects_say_something_else() {
    let plane = Plane::of(&yaml(2, "1s", "10.0.0.1")).await;
    let mut client = plane.connect(&sidecar()).await;
    client.settle(&["http_proxy"]).await;
    let before = client.have[&(TypeUrl::Endpoints, cluster("s0"))].clone();

    assert!(
        plane
            .control
            .endpoints_changed(&event("s0", &["10.9.0.1", "10.9.0.2"]))
    );
    let news = client.until(TypeUrl::Endpoints).await;
    assert_eq!(news, [(TypeUrl::Endpoints, cluster("s0"))]);

    // Another change does not bring the old ones back.
    plane.change(&yaml(2, "2s", "10.0.0.1"));
    let news = client.until(TypeUrl::Routes).await;
    assert_eq!(news, [(TypeUrl::Routes, "http_proxy".to_owned())]);

    plane.change(&yaml(2, "2s", "10.0.0.2"));
    client.until(TypeUrl::Endpoints).await;
    plane.change(&yaml(2, "2s", "10.0.0.1"));
    client.until(TypeUrl::Endpoints).await;
    assert_eq!(client.have[&(TypeUrl::Endpoints, cluster("s0"))], before);

    assert!(
        !plane
            .control
            .endpoints_changed(&event("unknown", &["10.9.0.1"]))
    );
}

#[tokio::test]
async fn a_service_that_goes_is_removed_after_the_routes_to_it() {
    let plane = Plane::of(&yaml(3, "1s", "10.0.0.1")).await;
    let mut client = plane.connect(&sidecar()).await;
    client.settle(&["http_proxy"]).await;
    plane.change(&yaml(2, "1s", "10.0.0.1"));
    let news = client.until(TypeUrl::Routes).await;
    assert_eq!(news, [(TypeUrl::Routes, "http_proxy".to_owned())]);
    while !client.removed.contains(&(TypeUrl::Cluster, cluster("s2"))) {
        client.take().await;
    }
}

#[tokio::test]
async fn bad_objects_are_refused_alone_and_keep_their_last_good_version() {
    let plane = Plane::of(&yaml(2, "1s", "10.0.0.1")).await;
    let mut client = plane.connect(&sidecar()).await;
    client.settle(&["http_proxy"]).await;
    let table = client.have[&(TypeUrl::Routes, "http_proxy".to_owned())].clone();

    let bad = yaml(2, "never", "10.0.0.1");
    let outcome = plane.control.update(&files(&bad));
    assert!(outcome.accepted);
    let said = outcome.findings[0].to_string();
    assert!(
        said.starts_with("mesh.yaml:5:") && said.contains("timeout"),
        "{said}"
    );

    // One more service beside the bad object: it comes, and the bad one's last good stays.
    let outcome = plane.control.update(&files(&yaml(3, "never", "10.0.0.1")));
    assert!(outcome.findings[0].is_error());
    plane.control.flush();
    let news = client.until(TypeUrl::Routes).await;
    assert!(
        news.contains(&(TypeUrl::Cluster, cluster("s2"))),
        "{news:?}"
    );
    assert_ne!(
        client.have[&(TypeUrl::Routes, "http_proxy".to_owned())],
        table
    );
    plane.change(&yaml(2, "1s", "10.0.0.1"));
    client.until(TypeUrl::Routes).await;
    assert_eq!(
        client.have[&(TypeUrl::Routes, "http_proxy".to_owned())],
        table
    );
}

#[tokio::test]
async fn strictly_a_change_with_dangling_references_is_refused_as_a_whole() {
    let good = yaml(2, "1s", "10.0.0.1");
    let plane = Plane::start(Control::builder().strict(true), &good).await;
    let mut client = plane.connect(&sidecar()).await;
    client.settle(&["http_proxy"]).await;

    let dangling = good.replace(
        "destination: {host: s0}",
        "destination: {host: s0, subset: v9}",
    );
    let more = dangling
        + "---\n{apiVersion: v1, kind: Service, metadata: {name: s9}, spec: \
                           {ports: [{name: http, port: 80}]}}\n";
    let outcome = plane.control.update(&files(&more));
    assert!(!outcome.accepted);
    let said = outcome.findings[0].to_string();
    assert!(outcome.findings[0].is_error());
    assert!(said.starts_with("mesh.yaml:5:"), "{said}");
    assert!(said.contains("VirtualService v.default"), "{said}");
    assert!(said.contains("outbound|80|v9|s0.default"), "{said}");

    // Nothing of it is in force: the next good change is all that is sent.
    plane.control.flush();
    plane.change(&yaml(2, "2s", "10.0.0.1"));
    let news = client.until(TypeUrl::Routes).await;
    assert_eq!(news, [(TypeUrl::Routes, "http_proxy".to_owned())]);
}

#[tokio::test]
async fn a_node_that_cannot_be_served_is_told_why() {
    let plane = Plane::of("").await;
    let early = plane.connect(&sidecar()).await.next().await.unwrap_err();
    assert_eq!(early.code(), Code::Unavailable, "{early}");
    plane.control.update(&files(&yaml(1, "1s", "10.0.0.1")));
    let bad = plane
        .connect(&Node::new("envoy"))
        .await
        .next()
        .await
        .unwrap_err();
    assert_eq!(bad.code(), Code::InvalidArgument);
    assert!(
        bad.message().contains("TYPE~IP~NAME.NAMESPACE~DOMAIN"),
        "{bad}"
    );
    plane
        .connect(&sidecar())
        .await
        .settle(&["http_proxy"])
        .await;
}

#[tokio::test]
async fn a_grpc_client_gets_what_it_asks_for_by_the_name_of_its_target() {
    let plane = Plane::of(&yaml(2, "1s", "10.0.0.1")).await;
    let node = sidecar().with_text("GENERATOR", "grpc");
    let mut client = plane.connect(&node).await;
    while client.take().await != TypeUrl::Cluster {}
    while client.take().await != TypeUrl::Endpoints {}
    let target = "s0.default.svc.cluster.local:80".to_owned();
    client
        .subscribe(TypeUrl::Listener, std::slice::from_ref(&target))
        .await;
    let news = client.until(TypeUrl::Listener).await;
    assert_eq!(news, [(TypeUrl::Listener, target)]);
    // Endpoints are those of proxies, and go the same quick way.
    plane.control.update(&files(&yaml(2, "1s", "10.0.0.2")));
    let news = client.until(TypeUrl::Endpoints).await;
    assert_eq!(news, [(TypeUrl::Endpoints, cluster("s0"))]);
}
