//! Builds a snapshot, publishes it, and changes it under a reader.

use mesh_core::model::{
    Address, Cluster, EndpointSet, RouteTable, Rule, SnapshotBuilder, VirtualHost,
};
use mesh_core::{Invalid, Publisher};

fn main() -> Result<(), Invalid> {
    let mut builder = SnapshotBuilder::new();
    builder.cluster(Cluster::new("reviews-v1"));
    builder.endpoints(
        "reviews-v1",
        EndpointSet::of(["127.0.0.1:9080".parse::<Address>()?]),
    );
    builder.routes(
        RouteTable::new("http")
            .host(VirtualHost::new("all", ["*"]).rule(Rule::prefix_to("/", "reviews-v1"))),
    );
    let (first, warnings) = builder.build()?;
    println!(
        "version {} with {} warnings",
        first.version(),
        warnings.len()
    );

    let publisher = Publisher::from_arc(first.clone());
    let feed = publisher.feed();

    let mut builder = SnapshotBuilder::from(&first);
    builder.routes(
        RouteTable::new("http")
            .host(VirtualHost::new("all", ["*"]).rule(Rule::prefix_to("/", "reviews-v3"))),
    );
    let (second, warnings) = builder.build()?;
    for warning in warnings {
        println!("warning: {warning}");
    }
    publisher.publish(second);
    println!("a reader now sees version {}", feed.load().version());
    Ok(())
}
