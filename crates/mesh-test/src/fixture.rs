//! Snapshots, and requests that have already met a rule.

use http::Request;
use mesh_core::model::{
    Address, Cluster, EndpointSet, RouteTable, Rule, Snapshot, SnapshotBuilder, VirtualHost,
};
use mesh_core::{Caller, Exchange, Matched, Pinned};
use std::sync::Arc;

/// An endpoint address for tests that never connect.
///
/// # Panics
/// If `text` is not an address.
pub fn address(text: &str) -> Address {
    text.parse().expect("an address")
}

/// A snapshot with one table `t`, one virtual host `*` with these rules, and these clusters, each
/// with one endpoint.
///
/// # Panics
/// If the parts do not fit together.
pub fn snapshot(rules: Vec<Rule>, clusters: Vec<Cluster>) -> Arc<Snapshot> {
    let mut builder = SnapshotBuilder::new();
    let host = rules
        .into_iter()
        .fold(VirtualHost::new("all", ["*"]), VirtualHost::rule);
    builder.routes(RouteTable::new("t").host(host));
    for cluster in clusters {
        builder.endpoints(
            cluster.name.clone(),
            EndpointSet::of([address("127.0.0.1:9080")]),
        );
        builder.cluster(cluster);
    }
    builder.build().expect("a consistent snapshot").0
}

/// An exchange whose router found the first rule of `snapshot`, on its first cluster if there is
/// one. Its clock is tokio's, so that paused time works.
pub fn matched(snapshot: &Arc<Snapshot>) -> Exchange {
    let exchange = Exchange::new(tokio::time::Instant::now().into_std(), Caller::default());
    let cluster = (!snapshot.clusters().is_empty()).then_some(0);
    exchange.set_matched(Matched::new(Pinned::new(snapshot.clone()), 0, 0, 0).to(None, cluster));
    exchange
}

/// An exchange that met this rule, which sends to `cluster` if there is one.
pub fn exchange(rule: Rule, cluster: Option<Cluster>) -> Exchange {
    matched(&snapshot(vec![rule], cluster.into_iter().collect()))
}

/// A request that carries `exchange`.
pub fn with<B>(mut request: Request<B>, exchange: &Exchange) -> Request<B> {
    exchange.attach(&mut request);
    request
}
