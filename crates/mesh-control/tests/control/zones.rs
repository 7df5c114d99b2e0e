//! Proxies that discover themselves: the endpoints that are like them, and clusters that prefer the
//! own zone.

use crate::support::{Delta, Plane, cluster, sidecar};
use mesh_core::model::{Cluster, EndpointSet, LocalityBalancing};
use mesh_xds::client::Client;
use mesh_xds::read::{self, Resource};
use mesh_xds::{Node, TypeUrl, write};
use std::collections::BTreeMap;
use std::time::Duration;

const LOCAL: &str = "local_cluster";

/// Services `a` and `b` with a rule for the former, and workloads: number, service, place.
fn mesh(workloads: &[(u8, &str, &str)]) -> String {
    let mut text = "
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: a}, spec: {host: a,
 trafficPolicy: {loadBalancer: {zoneAwareLbSetting: {minClusterSize: 2}}}}}
---
"
    .to_owned();
    for name in ["a", "b"] {
        text += &format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{selector: {{app: \
             {name}}}, ports: [{{name: http, port: 80}}]}}}}\n---\n"
        );
    }
    for (number, name, place) in workloads {
        text += &format!(
            "{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: \
             w{number}}}, spec: {{address: 10.0.0.{number}, locality: {place}, labels: {{app: \
             {name}, service.istio.io/workload-name: {name}}}}}}}\n---\n"
        );
    }
    text
}

/// A node of the service `app`, in the first zone.
fn node(app: &str) -> Node {
    let labels: BTreeMap<String, String> = [("app".to_owned(), app.to_owned())].into();
    sidecar()
        .with_text("ENABLE_SELF_DISCOVERY", "true")
        .with_text("WORKLOAD_NAME", app)
        .with_map("LABELS", &labels)
        .with_locality(("r1", "z1", ""))
}

/// Zone and address of what comes next for the node's own cluster.
async fn local(client: &mut Delta) -> Vec<String> {
    loop {
        let response = client.next().await.unwrap();
        client.ack(&response).await;
        for one in &response.resources {
            if one.name == LOCAL {
                assert_eq!(response.type_url, TypeUrl::Endpoints.url(), "no cluster");
                let body = &one.resource.as_ref().unwrap().value;
                match read::resource(TypeUrl::Endpoints, body).unwrap() {
                    Resource::Endpoints(read) => return shown(&read.endpoints),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

fn shown(set: &EndpointSet) -> Vec<String> {
    let each = set.localities.iter().flat_map(|group| {
        let zone = &group.locality.zone;
        let all = group.endpoints.iter();
        all.map(move |one| format!("{zone} {}", one.address))
    });
    each.collect()
}

#[tokio::test]
async fn a_node_is_told_who_is_like_it_and_every_change_of_that() {
    let first = [(1, "a", "r1/z1"), (2, "a", "r1/z2"), (3, "b", "r1/z1")];
    let plane = Plane::of(&mesh(&first)).await;
    let mut client = plane.connect(&node("a")).await;
    client.subscribe(TypeUrl::Endpoints, &[LOCAL.into()]).await;
    assert_eq!(
        local(&mut client).await,
        ["z1 10.0.0.1:80", "z2 10.0.0.2:80"]
    );
    // Whoever is something else means something else by the name.
    let mut other = plane.connect(&node("b")).await;
    other.subscribe(TypeUrl::Endpoints, &[LOCAL.into()]).await;
    assert_eq!(local(&mut other).await, ["z1 10.0.0.3:80"]);
    // Nothing but endpoints: those of another region are not like it.
    let second = [(2, "a", "r1/z2"), (3, "b", "r1/z1"), (4, "a", "r2/z1")];
    plane.change(&mesh(&second));
    assert_eq!(local(&mut client).await, ["z2 10.0.0.2:80"]);
    // Another service selects it, and then none does.
    let other_service =
        mesh(&second).replace("{name: a}, spec: {selector", "{name: z}, spec: {selector");
    plane.change(&other_service.replace("10.0.0.2,", "10.0.0.9,"));
    assert_eq!(local(&mut client).await, ["z2 10.0.0.9:80"]);
    plane.change(&mesh(&[(3, "b", "r1/z1")]).replace("{app: a}", "{app: x}"));
    assert!(local(&mut client).await.is_empty());
    plane.change(&mesh(&first));
    assert_eq!(
        local(&mut client).await,
        ["z1 10.0.0.1:80", "z2 10.0.0.2:80"]
    );
}

#[tokio::test]
async fn a_node_without_any_service_is_told_so() {
    let plane = Plane::of(&mesh(&[])).await;
    let mut client = plane.connect(&node("nobody")).await;
    client.subscribe(TypeUrl::Endpoints, &[LOCAL.into()]).await;
    assert!(local(&mut client).await.is_empty());
}

#[tokio::test]
async fn a_node_that_does_not_ask_for_it_has_none_and_a_bad_wish_is_refused() {
    let plane = Plane::of(&mesh(&[(1, "a", "r1/z1")])).await;
    let plain = node("a").with_text("ENABLE_SELF_DISCOVERY", "false");
    let mut client = plane.connect(&plain).await;
    let names = [LOCAL.to_owned(), cluster("a")];
    client.subscribe(TypeUrl::Endpoints, &names).await;
    while client.take().await != TypeUrl::Endpoints {}
    assert_eq!(client.names(TypeUrl::Endpoints), [cluster("a")]);

    let wrong = node("a").with_text("ENABLE_SELF_DISCOVERY", "maybe");
    let mut client = plane.connect(&wrong).await;
    let error = client.next().await.unwrap_err();
    assert!(error.message().contains("ENABLE_SELF_DISCOVERY"), "{error}");
}

#[tokio::test]
async fn a_proxy_of_ours_has_the_cluster_and_knows_how_zones_count() {
    let all = [(1, "a", "r1/z1"), (2, "a", "r1/z2"), (4, "a", "r2/z1")];
    let plane = Plane::of(&mesh(&all)).await;
    // As a bootstrap has it.
    let own = read::cluster(&write::cluster(&Cluster::new(LOCAL), None)).unwrap();
    let client = Client::builder([plane.address.clone()])
        .node(node("a"))
        .fixed([Resource::Cluster(Box::new(own))])
        .build()
        .unwrap();
    let mut snapshots = client.snapshots();
    let running = tokio::spawn(client.run(std::future::pending()));
    let loaded = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let snapshot = snapshots.load();
            let there = |name: &str| {
                let cluster = snapshot.cluster(name)?;
                Some(cluster.live().endpoints().load()).filter(|set| !set.is_empty())
            };
            if let (Some(own), Some(called)) = (there(LOCAL), there(&cluster("a"))) {
                let config = snapshot.cluster(&cluster("a")).unwrap().config().clone();
                return (own, called, config);
            }
            snapshots.changed().await.unwrap();
        }
    });
    let (own, called, config) = loaded.await.expect("a whole snapshot");
    assert_eq!(shown(&own), ["z1 10.0.0.1:80", "z2 10.0.0.2:80"]);
    let priorities: Vec<u32> = called.localities.iter().map(|one| one.priority).collect();
    assert_eq!(priorities, [0, 0, 1]);
    let LocalityBalancing::ZoneAware(zones) = config.localities else {
        panic!("{:?}", config.localities);
    };
    assert_eq!((zones.enabled, zones.minimum), (100, 2));
    running.abort();
}
