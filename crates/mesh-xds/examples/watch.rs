//! Watches a control plane: `watch http://HOST:PORT [NODE-ID] [sotw]`. Says what is in force each
//! time that it changes, until it is interrupted.

use mesh_core::model::Snapshot;
use mesh_xds::Node;
use mesh_xds::client::{Client, Variant};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: watch http://HOST:PORT [NODE-ID] [sotw]";
    let server = arguments.next().ok_or(usage)?;
    let node = arguments.next().unwrap_or_else(|| "watch".to_owned());
    let variant = match arguments.next().as_deref() {
        Some("sotw") => Variant::Sotw,
        Some(_) => return Err(usage.into()),
        None => Variant::Delta,
    };
    let client = Client::builder([server])
        .node(Node::new(node))
        .variant(variant)
        .build()?;
    let (mut snapshots, mut status) = (client.snapshots(), client.status());
    let watch = async move {
        loop {
            tokio::select! {
                Ok(snapshot) = snapshots.changed() => show(&snapshot),
                Ok(status) = status.changed() => println!("{status:#?}"),
                else => return,
            }
        }
    };
    tokio::join!(
        watch,
        client.run(async {
            // Without a signal to wait for it runs until it is killed.
            let _ = tokio::signal::ctrl_c().await;
        })
    );
    Ok(())
}

fn show(snapshot: &Snapshot) {
    println!("snapshot {}", snapshot.version());
    for listener in snapshot.listeners() {
        println!("  listener {} at {}", listener.name, listener.address);
    }
    for table in snapshot.tables() {
        let hosts = table.virtual_hosts.len();
        println!("  routes {} with {hosts} virtual hosts", table.name);
    }
    for cluster in snapshot.clusters() {
        let endpoints = cluster.live().endpoints().load().len();
        println!(
            "  cluster {} with {endpoints} endpoints",
            cluster.config().name
        );
    }
}
