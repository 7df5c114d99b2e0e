//! Tests of the loop that asks.

use super::*;
use crate::dns::{Answer, LookupError};
use mesh_core::Publisher;
use mesh_core::model::{Address, Cluster, DiscoveryKind, DnsFamily, EndpointSet, SnapshotBuilder};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// Answers each question a second later with one more than the last.
struct Counting(AtomicU8);

impl Lookup for Counting {
    async fn lookup(&self, _: &str, _: DnsFamily) -> Result<Answer, LookupError> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Answer {
            addresses: vec![[10, 0, 0, number].into()],
            ttl: Duration::ZERO,
        })
    }
}

#[tokio::test(start_paused = true)]
async fn names_are_looked_up_again_and_again_until_the_snapshots_end() {
    let mut cluster = Cluster::new("c");
    cluster.discovery = DiscoveryKind::StrictDns;
    cluster.dns.refresh = Duration::from_secs(10);
    let mut builder = SnapshotBuilder::new();
    builder.cluster(cluster);
    builder.endpoints("c", EndpointSet::of(["a:80".parse::<Address>().unwrap()]));
    let (snapshot, _) = builder.build().unwrap();
    let live = snapshot.cluster("c").unwrap().live().clone();
    let publisher = Publisher::from_arc(snapshot);
    let resolver = Resolver::new(publisher.feed(), Counting(AtomicU8::new(1)));
    let running = tokio::spawn(resolver.run());
    let mut endpoints = live.endpoints();
    for number in 1..=3 {
        let before = Instant::now();
        let found = endpoints.changed().await.unwrap();
        let address = found.iter().next().unwrap().address.to_string();
        assert_eq!(address, format!("10.0.0.{number}:80"));
        let waited = before.elapsed();
        assert_eq!(waited.as_secs(), if number == 1 { 1 } else { 11 });
    }
    drop(publisher);
    running.await.unwrap();
    let given = endpoints.changed().await.unwrap();
    assert_eq!(
        given,
        Arc::new(EndpointSet::of(["a:80".parse::<Address>().unwrap()]))
    );
}
