//! gRPC servers and the listeners that they ask for.

use crate::support::{Plane, yaml};
use mesh_xds::{Node, TypeUrl};

#[tokio::test]
async fn a_server_on_an_address_that_nobody_knew_is_given_its_listener() {
    let plane = Plane::of(&yaml(1, "1s", "10.0.0.1")).await;
    let own = plane.control.clone();
    let running = tokio::spawn(async move { own.run().await });
    let node = Node::new("sidecar~10.1.1.1~server.default~default.svc.cluster.local")
        .with_text("GENERATOR", "grpc")
        .with_text("MESH_INBOUND", "50051=50051");
    let mut client = plane.connect(&node).await;
    while client.take().await != TypeUrl::Cluster {}
    let prefix = "xds.istio.io/grpc/lds/inbound/";
    let [known, other] = ["0.0.0.0", "10.9.9.9"].map(|ip| format!("{prefix}{ip}:50051"));
    let nobody = format!("{prefix}10.9.9.9:50052");
    let names = [known, other, nobody.clone()];
    client.subscribe(TypeUrl::Listener, &names).await;
    while client.names(TypeUrl::Listener).len() < 2 {
        client.take().await;
    }
    assert!(!client.names(TypeUrl::Listener).contains(&&*nobody));

    // It was there with the first answer: nobody was told that it does not exist.
    let denied: Vec<&str> = client
        .removed
        .iter()
        .map(|(_, name)| name.as_str())
        .collect();
    assert_eq!(denied, [&*nobody]);
    // It stays when something else changes.
    client.removed.clear();
    plane.change(&yaml(2, "2s", "10.0.0.1"));
    let mut later = plane.connect(&node).await;
    while later.take().await != TypeUrl::Cluster {}
    later.subscribe(TypeUrl::Listener, &names[1..2]).await;
    while later.take().await != TypeUrl::Listener {}
    assert_eq!(later.names(TypeUrl::Listener), [&*names[1]]);
    assert!(client.removed.is_empty(), "{:?}", client.removed);
    running.abort();
}
