//! The TCP proxy.

use super::access_log;
use crate::pb::envoy::extensions::filters::network::tcp_proxy::v3 as pb;
use crate::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, TunnelingConfig, WeightedCluster, weighted_cluster::ClusterWeight,
};
use crate::pb::envoy::r#type::v3::HashPolicy;
use crate::pb::envoy::r#type::v3::hash_policy::PolicySpecifier;
use crate::wire::{At, each, maybe_duration, number, on_demand, refuse, required, unsupported};
use mesh_core::model::{TcpProxy, TcpSplit, TcpTarget, Tunnel};
use mesh_core::{Invalid, Origin};

/// A proxy. `by_name` says that the filter before it chooses the cluster by the server name.
#[expect(deprecated, reason = "Envoy still reads the older spellings")]
pub(super) fn proxy(value: &pb::TcpProxy, by_name: bool) -> Result<TcpProxy, Invalid> {
    let pb::TcpProxy {
        stat_prefix,
        on_demand: demand,
        metadata_match,
        idle_timeout,
        downstream_idle_timeout,
        upstream_idle_timeout,
        access_log,
        max_connect_attempts,
        backoff_options,
        hash_policy,
        tunneling_config,
        max_downstream_connection_duration,
        max_downstream_connection_duration_jitter_percentage,
        access_log_flush_interval,
        flush_access_log_on_connected,
        access_log_options,
        proxy_protocol_tlvs,
        proxy_protocol_tlv_merge_policy,
        upstream_connect_mode,
        max_early_data_bytes,
        check_drain_close,
        cluster_specifier,
    } = value;
    refuse!(
        metadata_match,
        downstream_idle_timeout,
        upstream_idle_timeout,
        backoff_options,
        max_downstream_connection_duration_jitter_percentage,
        access_log_flush_interval,
        flush_access_log_on_connected,
        access_log_options,
        proxy_protocol_tlvs,
        proxy_protocol_tlv_merge_policy,
        upstream_connect_mode,
        max_early_data_bytes,
        check_drain_close,
    );
    if stat_prefix.is_empty() {
        return Err(Invalid::new("stat_prefix", "required, but missing"));
    }
    let target = match (required("cluster_specifier", cluster_specifier)?, by_name) {
        (ClusterSpecifier::Cluster(name), _) if name.is_empty() => {
            return Err(Invalid::new("cluster", "required, but missing"));
        }
        (ClusterSpecifier::Cluster(name), true) => TcpTarget::ServerName(name.into()),
        (ClusterSpecifier::Cluster(name), false) => {
            let all = ClusterWeight {
                name: name.clone(),
                weight: 1,
                ..ClusterWeight::default()
            };
            TcpTarget::Clusters(vec![split(&all)?])
        }
        (ClusterSpecifier::WeightedClusters(_), true) => {
            let message = "not supported behind the sni_cluster filter; use cluster";
            return Err(Invalid::new("weighted_clusters", message));
        }
        (ClusterSpecifier::WeightedClusters(WeightedCluster { clusters }), false) => {
            let splits = each("clusters", clusters, split).at("weighted_clusters")?;
            if splits.is_empty() {
                let message = "required, but missing";
                return Err(Invalid::new("weighted_clusters.clusters", message));
            }
            TcpTarget::Clusters(splits)
        }
    };
    let mut proxy = TcpProxy::new(stat_prefix, target);
    proxy.access_log = each("access_log", access_log, access_log::access_log)?;
    if let Some(idle) = maybe_duration("idle_timeout", idle_timeout.as_ref())? {
        // Zero is for ever.
        proxy.idle_timeout = (!idle.is_zero()).then_some(idle);
    }
    let field = "max_downstream_connection_duration";
    proxy.max_duration = maybe_duration(field, max_downstream_connection_duration.as_ref())?;
    if proxy.max_duration.is_some_and(|limit| limit.is_zero()) {
        return Err(Invalid::new(field, "must be more than zero"));
    }
    match number(max_connect_attempts.as_ref()) {
        None => {}
        Some(0) => return Err(Invalid::new("max_connect_attempts", "must be 1 or more")),
        Some(attempts) => proxy.max_connect_attempts = attempts,
    }
    each("hash_policy", hash_policy, hash)?;
    proxy.hash_source_ip = !hash_policy.is_empty();
    proxy.on_demand = on_demand::tcp(demand.as_ref()).at("on_demand")?;
    proxy.tunnel = match tunneling_config {
        None => None,
        Some(config) => Some(tunnel(config).at("tunneling_config")?),
    };
    Ok(proxy)
}

fn split(value: &ClusterWeight) -> Result<TcpSplit, Invalid> {
    let ClusterWeight {
        name,
        weight,
        metadata_match,
    } = value;
    refuse!(metadata_match);
    if name.is_empty() {
        return Err(Invalid::new("name", "required, but missing"));
    }
    if *weight == 0 {
        return Err(Invalid::new("weight", "must be 1 or more"));
    }
    Ok(TcpSplit {
        origin: Origin::NONE,
        cluster: name.into(),
        weight: *weight,
    })
}

/// Only the caller's address.
fn hash(value: &HashPolicy) -> Result<(), Invalid> {
    let HashPolicy { policy_specifier } = value;
    match required("policy_specifier", policy_specifier)? {
        PolicySpecifier::SourceIp(_) => Ok(()),
        PolicySpecifier::FilterState(_) => Err(unsupported("filter_state")),
    }
}

fn tunnel(value: &TunnelingConfig) -> Result<Tunnel, Invalid> {
    let TunnelingConfig {
        hostname,
        use_post,
        headers_to_add,
        propagate_response_headers,
        post_path,
        propagate_response_trailers,
        request_id_extension,
        request_id_header,
        request_id_metadata_key,
        formatters,
    } = value;
    refuse!(
        headers_to_add,
        propagate_response_headers,
        post_path,
        propagate_response_trailers,
        request_id_extension,
        request_id_header,
        request_id_metadata_key,
        formatters,
    );
    if hostname.is_empty() {
        return Err(Invalid::new("hostname", "required, but missing"));
    }
    if hostname.contains('%') {
        let message = format!("{hostname:?} is not supported: what is between % is not filled in");
        return Err(Invalid::new("hostname", message));
    }
    Ok(Tunnel {
        target: hostname.into(),
        post: *use_post,
    })
}
