//! Clusters.

use super::{endpoint, metadata, tls};
use crate::pb::envoy::config::cluster::v3 as pb;
use crate::pb::envoy::config::cluster::v3::circuit_breakers::{Thresholds, thresholds};
use crate::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CustomClusterType, DiscoveryType, DnsLookupFamily, EdsClusterConfig,
    RefreshRate,
};
use crate::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use crate::pb::envoy::config::core::v3::{
    BindConfig, RoutingPriority, SocketAddress, TcpKeepalive as Keepalive,
};
use crate::pb::envoy::extensions::clusters::dynamic_forward_proxy::v3::{
    ClusterConfig, cluster_config::ClusterImplementationSpecifier,
};
use crate::wire::{pack, share, to_duration, to_number};
use mesh_core::model::{
    Cluster, DiscoveryKind, Dns, DnsFamily, EndpointSet, Limits, RetryBudget, TcpKeepalive,
};
use std::net::IpAddr;
use std::time::Duration;

mod balancing;
mod health;
mod options;
mod outlier;

pub(super) fn cluster(cluster: &Cluster, endpoints: Option<&EndpointSet>) -> pb::Cluster {
    let mut out = pb::Cluster {
        name: cluster.name.to_string(),
        alt_stat_name: cluster
            .stat_name
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        connect_timeout: Some(to_duration(cluster.connect_timeout)),
        circuit_breakers: breakers(cluster),
        outlier_detection: cluster.outlier.as_ref().map(outlier::detection),
        typed_extension_protocol_options: options::extensions(cluster),
        upstream_connection_options: cluster.tcp_keepalive.as_ref().map(keepalive),
        metadata: metadata::cluster(cluster),
        transport_socket: tls::client(cluster),
        transport_socket_matches: cluster
            .tls_matches
            .iter()
            .map(|one| tls::matched(cluster, one))
            .collect(),
        upstream_bind_config: cluster.bind_source.map(bind),
        health_checks: cluster.health_checks.iter().map(health::check).collect(),
        close_connections_on_host_health_failure: cluster.close_unhealthy,
        ignore_health_on_host_removal: !cluster.health_checks.is_empty() && !cluster.keep_removed,
        ..pb::Cluster::default()
    };
    dns(&mut out, &cluster.dns);
    balancing::write(cluster, &mut out);
    discover(&mut out, cluster.discovery, endpoints);
    out
}

fn discover(out: &mut pb::Cluster, kind: DiscoveryKind, endpoints: Option<&EndpointSet>) {
    let known = match kind {
        DiscoveryKind::StrictDns => DiscoveryType::StrictDns,
        DiscoveryKind::LogicalDns => DiscoveryType::LogicalDns,
        DiscoveryKind::Authority => {
            let cache = ClusterImplementationSpecifier::DnsCacheConfig(super::dns_cache());
            let config = ClusterConfig {
                // Envoy wants names checked by TLS unless this is set; connections are plain.
                allow_insecure_cluster_options: true,
                cluster_implementation_specifier: Some(cache),
                ..ClusterConfig::default()
            };
            let custom = CustomClusterType {
                name: "envoy.clusters.dynamic_forward_proxy".to_owned(),
                typed_config: Some(pack(&config)),
            };
            out.cluster_discovery_type = Some(ClusterDiscoveryType::ClusterType(custom));
            return;
        }
        DiscoveryKind::OriginalDestination => {
            let kind = DiscoveryType::OriginalDst.into();
            out.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind));
            return;
        }
        _ if endpoints.is_some() => DiscoveryType::Static,
        _ => DiscoveryType::Eds,
    };
    out.cluster_discovery_type = Some(ClusterDiscoveryType::Type(known.into()));
    if known == DiscoveryType::Eds {
        out.eds_cluster_config = Some(EdsClusterConfig {
            eds_config: Some(super::ads()),
            service_name: out.name.clone(),
        });
    } else {
        let none = EndpointSet::default();
        let endpoints = endpoints.unwrap_or(&none);
        out.load_assignment = Some(endpoint::endpoints(&out.name, endpoints));
    }
}

/// Envoy's defaults are not written.
#[expect(deprecated, reason = "istiod writes them, and every Envoy reads them")]
fn dns(out: &mut pb::Cluster, dns: &Dns) {
    let default = Dns::default();
    out.dns_refresh_rate = (dns.refresh != default.refresh).then(|| to_duration(dns.refresh));
    out.dns_jitter = (!dns.jitter.is_zero()).then(|| to_duration(dns.jitter));
    out.respect_dns_ttl = dns.respect_ttl;
    out.dns_failure_refresh_rate = dns.failure_refresh.map(|(base, max)| RefreshRate {
        base_interval: Some(to_duration(base)),
        max_interval: Some(to_duration(max)),
    });
    out.dns_lookup_family = match dns.family {
        DnsFamily::V4Only => DnsLookupFamily::V4Only,
        DnsFamily::V6Only => DnsLookupFamily::V6Only,
        DnsFamily::V4Preferred => DnsLookupFamily::V4Preferred,
        DnsFamily::All => DnsLookupFamily::All,
        _ => DnsLookupFamily::Auto,
    }
    .into();
}

/// Connections are made from this address and any port.
fn bind(source: IpAddr) -> BindConfig {
    BindConfig {
        source_address: Some(SocketAddress {
            address: source.to_string(),
            port_specifier: Some(PortSpecifier::PortValue(0)),
            ..SocketAddress::default()
        }),
        ..BindConfig::default()
    }
}

/// Of each priority nothing where the limits are Envoy's defaults; otherwise all of them, as istiod
/// writes them.
fn breakers(cluster: &Cluster) -> Option<pb::CircuitBreakers> {
    let both = [
        (RoutingPriority::Default, &cluster.limits),
        (RoutingPriority::High, &cluster.high),
    ];
    let differs = |own: &Limits| {
        let mut own = *own;
        own.max_connections_per_host = u32::MAX;
        own != Limits::envoy()
    };
    let said = both.iter().filter(|(_, own)| differs(own));
    let thresholds: Vec<_> = said.map(|(priority, own)| limits(*priority, own)).collect();
    let per_host = both.iter().filter_map(|(priority, own)| {
        let most = own.max_connections_per_host;
        (most != u32::MAX).then(|| Thresholds {
            priority: (*priority).into(),
            max_connections: to_number(most),
            ..Thresholds::default()
        })
    });
    let per_host_thresholds: Vec<Thresholds> = per_host.collect();
    let is_said = !thresholds.is_empty() || !per_host_thresholds.is_empty();
    is_said.then_some(pb::CircuitBreakers {
        thresholds,
        per_host_thresholds,
    })
}

fn limits(priority: RoutingPriority, limits: &Limits) -> Thresholds {
    let pools = Some(limits.max_pools).filter(|most| *most != u32::MAX);
    Thresholds {
        priority: priority.into(),
        max_connections: to_number(limits.max_connections),
        max_pending_requests: to_number(limits.max_pending),
        max_requests: to_number(limits.max_requests),
        max_retries: to_number(limits.max_retries),
        retry_budget: limits.budget.as_ref().map(budget),
        max_connection_pools: pools.and_then(to_number),
        track_remaining: limits.track_remaining,
    }
}

fn budget(budget: &RetryBudget) -> thresholds::RetryBudget {
    let interval = budget.interval;
    thresholds::RetryBudget {
        budget_percent: Some(share::to_percent(budget.share)),
        budget_interval: (!interval.is_zero()).then(|| to_duration(interval)),
        min_retry_concurrency: to_number(budget.min_concurrency),
    }
}

/// Whole seconds, at least one: zero would turn keep-alive off.
fn keepalive(keepalive: &TcpKeepalive) -> pb::UpstreamConnectionOptions {
    let seconds = |time: Option<Duration>| {
        let time = time?;
        let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        to_number(u32::try_from(whole).unwrap_or(u32::MAX).max(1))
    };
    pb::UpstreamConnectionOptions {
        tcp_keepalive: Some(Keepalive {
            keepalive_probes: keepalive.probes.and_then(|probes| to_number(probes.max(1))),
            keepalive_time: seconds(keepalive.time),
            keepalive_interval: seconds(keepalive.interval),
        }),
        ..pb::UpstreamConnectionOptions::default()
    }
}
