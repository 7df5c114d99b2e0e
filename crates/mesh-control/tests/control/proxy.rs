//! Our own client of xDS gets one consistent snapshot.

use crate::support::{Plane, cluster, sidecar, yaml};
use mesh_xds::client::Client;
use std::time::Duration;

#[tokio::test]
async fn a_proxy_of_ours_reads_everything_it_is_sent() {
    let plane = Plane::of(&yaml(3, "7s", "10.0.0.1")).await;
    let client = Client::builder([plane.address.clone()])
        .node(sidecar())
        .build()
        .unwrap();
    let mut snapshots = client.snapshots();
    let running = tokio::spawn(client.run(std::future::pending()));
    let seven = Duration::from_secs(7);
    tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let snapshot = snapshots.load();
            let timeout = snapshot.table("http_proxy").and_then(|table| {
                let rule = table.virtual_hosts.first()?.rules.first()?;
                rule.timeout
            });
            let endpoints = snapshot.cluster(&cluster("s0"));
            let endpoints = endpoints.map(|entry| entry.live().endpoints().load().len());
            if (timeout, endpoints) == (Some(seven), Some(1)) {
                break;
            }
            snapshots.changed().await.unwrap();
        }
    })
    .await
    .expect("a whole snapshot");
    running.abort();
}
