//! Counting for the cluster that a request goes to.

use mesh_core::Exchange;
use mesh_core::stats::ClusterStat;

/// Adds one to a statistic of the matched cluster, if there is one.
pub(crate) fn count(exchange: &Exchange, stat: ClusterStat) {
    if let Some(cluster) = exchange.cluster() {
        cluster.live().stats().block().inc(exchange.shard(), stat);
    }
}
