//! Follows the addresses behind a name: `cargo run -p mesh-discovery --example resolve
//! --features system -- localhost:80`.

use mesh_core::Publisher;
use mesh_core::model::{Address, Cluster, DiscoveryKind, EndpointSet, SnapshotBuilder};
use mesh_discovery::dns::{Resolver, System};
use std::time::Duration;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), mesh_core::Invalid> {
    let name = std::env::args().nth(1);
    let name: Address = name.as_deref().unwrap_or("localhost:80").parse()?;

    let mut cluster = Cluster::new("example");
    cluster.discovery = DiscoveryKind::StrictDns;
    let mut builder = SnapshotBuilder::new();
    builder.cluster(cluster);
    builder.endpoints("example", EndpointSet::of([name]));
    let (snapshot, _) = builder.build()?;
    let mut endpoints = match snapshot.cluster("example") {
        Some(cluster) => cluster.live().endpoints(),
        None => return Ok(()),
    };

    let snapshots = Publisher::from_arc(snapshot);
    let resolving = Resolver::new(snapshots.feed(), System::new()).run();
    let showing = async {
        while let Ok(now) = endpoints.changed().await {
            let addresses: Vec<String> = now.iter().map(|one| one.address.to_string()).collect();
            println!("{}", addresses.join(" "));
        }
    };
    tokio::select! {
        () = resolving => {}
        () = showing => {}
        () = tokio::time::sleep(Duration::from_secs(12)) => {}
    }
    Ok(())
}
