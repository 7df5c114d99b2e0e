//! The TCP proxy.

use crate::pb::envoy::extensions::filters::network::tcp_proxy::v3 as pb;
use crate::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, TunnelingConfig, WeightedCluster, weighted_cluster::ClusterWeight,
};
use crate::pb::envoy::r#type::v3::HashPolicy;
use crate::pb::envoy::r#type::v3::hash_policy::{PolicySpecifier, SourceIp};
use crate::wire::{on_demand, to_duration, to_number};
use crate::write::access_log;
use mesh_core::model::{TcpProxy, TcpSplit, TcpTarget};
use std::time::Duration;

/// A connection without a byte is closed after this long where nothing is said (Envoy).
const IDLE: Duration = Duration::from_secs(3600);

pub(super) fn proxy(proxy: &TcpProxy) -> pb::TcpProxy {
    let idle = proxy.idle_timeout;
    let attempts = proxy.max_connect_attempts.max(1);
    pb::TcpProxy {
        stat_prefix: proxy.stat_prefix.to_string(),
        cluster_specifier: Some(match &proxy.target {
            TcpTarget::Clusters(splits) => clusters(splits),
            TcpTarget::ServerName(name) => ClusterSpecifier::Cluster(name.to_string()),
            // A kind that is not known here: Envoy refuses an empty name.
            _ => ClusterSpecifier::Cluster(String::new()),
        }),
        // Zero is for ever.
        idle_timeout: (idle != Some(IDLE)).then(|| to_duration(idle.unwrap_or_default())),
        max_downstream_connection_duration: proxy.max_duration.map(to_duration),
        access_log: proxy
            .access_log
            .iter()
            .map(access_log::access_log)
            .collect(),
        max_connect_attempts: (attempts > 1).then(|| to_number(attempts)).flatten(),
        hash_policy: match proxy.hash_source_ip {
            false => Vec::new(),
            true => vec![HashPolicy {
                policy_specifier: Some(PolicySpecifier::SourceIp(SourceIp::default())),
            }],
        },
        tunneling_config: proxy.tunnel.as_ref().map(|tunnel| TunnelingConfig {
            hostname: tunnel.target.to_string(),
            use_post: tunnel.post,
            ..TunnelingConfig::default()
        }),
        on_demand: on_demand::to_tcp(proxy.on_demand),
        ..pb::TcpProxy::default()
    }
}

fn clusters(splits: &[TcpSplit]) -> ClusterSpecifier {
    if let [
        TcpSplit {
            cluster, weight: 1, ..
        },
    ] = splits
    {
        return ClusterSpecifier::Cluster(cluster.to_string());
    }
    let clusters = splits.iter().map(|split| ClusterWeight {
        name: split.cluster.to_string(),
        weight: split.weight.max(1),
        ..ClusterWeight::default()
    });
    ClusterSpecifier::WeightedClusters(WeightedCluster {
        clusters: clusters.collect(),
    })
}
