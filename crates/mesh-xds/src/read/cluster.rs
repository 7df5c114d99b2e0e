//! Clusters.

use super::address;
use super::{ClusterResource, Given, metadata, transport};
use crate::pb::envoy::config::cluster::v3 as pb;
use crate::pb::envoy::config::core::v3 as core;
use crate::wire::{At, boolean, maybe_duration, number, refuse};
use mesh_core::Invalid;
use mesh_core::model::{
    Address, Cluster, DiscoveryKind, HealthCheck, Probe, TcpKeepalive, UpstreamProtocol,
};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

mod balancing;
mod discovery;
mod dns;
pub(super) mod health;
mod limits;
mod options;
mod outlier;

pub(super) use discovery::dns_cache;

/// A cluster, with its endpoints or where they are.
#[expect(deprecated, reason = "Envoy still reads the older spellings")]
pub(super) fn cluster(value: &pb::Cluster) -> Result<ClusterResource, Invalid> {
    let pb::Cluster {
        transport_socket_matches,
        transport_socket_matcher,
        name,
        alt_stat_name,
        stats_matcher,
        eds_cluster_config,
        connect_timeout,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        lb_policy,
        load_assignment,
        health_checks,
        max_requests_per_connection,
        circuit_breakers,
        upstream_http_protocol_options,
        common_http_protocol_options,
        http_protocol_options,
        http2_protocol_options,
        typed_extension_protocol_options,
        dns_refresh_rate,
        dns_jitter,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_lookup_family,
        dns_resolvers,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        wait_for_warm_on_init,
        outlier_detection,
        cleanup_interval,
        upstream_bind_config,
        lb_subset_config,
        common_lb_config,
        transport_socket,
        metadata: facts,
        protocol_selection,
        upstream_connection_options,
        close_connections_on_host_health_failure,
        ignore_health_on_host_removal,
        filters,
        load_balancing_policy,
        lrs_server,
        lrs_report_endpoint_metrics,
        track_timeout_budgets,
        upstream_config,
        track_cluster_stats,
        preconnect_policy,
        connection_pool_per_downstream_connection,
        queuing_policies,
        cluster_discovery_type,
        lb_config,
    } = value;
    refuse!(
        transport_socket_matcher,
        stats_matcher,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        dns_resolvers,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        filters,
        lrs_server,
        lrs_report_endpoint_metrics,
        track_timeout_budgets,
        upstream_config,
        track_cluster_stats,
        preconnect_policy,
        connection_pool_per_downstream_connection,
        queuing_policies,
    );
    crate::wire::pass_over!("envoy.config.cluster.v3.Cluster":
        cleanup_interval,
        wait_for_warm_on_init,
    );
    if name.is_empty() {
        return Err(Invalid::new("name", "required, but missing"));
    }
    let mut given = Given::default();
    let transport = transport::client(transport_socket.as_ref(), &mut given)?;

    let mut cluster = Cluster::new(name.as_str());
    cluster.tls = transport.tls;
    cluster.proxy_protocol = transport.proxy_protocol;
    let matches = transport::matches(transport_socket_matches, &mut given)?;
    if let Some(first) = matches.first() {
        // Every endpoint that none of them is for is reached the usual way; with one for all of
        // them there is none, and its header counts.
        if transport_socket.is_none() && matches.iter().any(|(one, _)| one.labels.is_empty()) {
            cluster.proxy_protocol = first.1;
        }
        for (index, (_, announced)) in matches.iter().enumerate() {
            if *announced != cluster.proxy_protocol {
                let message = "not supported: the PROXY protocol to some endpoints only";
                let path = format!("transport_socket_matches[{index}].transport_socket");
                return Err(Invalid::new(path, message));
            }
        }
    }
    cluster.tls_matches = matches.into_iter().map(|(one, _)| one).collect();
    cluster.stat_name = (!alt_stat_name.is_empty()).then(|| alt_stat_name.into());
    if let Some(limit) = maybe_duration("connect_timeout", connect_timeout.as_ref())? {
        if limit.is_zero() {
            return Err(Invalid::new("connect_timeout", "must be more than zero"));
        }
        cluster.connect_timeout = limit;
    }
    let failure = dns_failure_refresh_rate.as_ref();
    let dns = dns::Parts {
        refresh: dns_refresh_rate.as_ref(),
        jitter: dns_jitter.as_ref(),
        respect_ttl: *respect_dns_ttl,
        failure: failure.map(|rate| (rate.base_interval.as_ref(), rate.max_interval.as_ref())),
        family: dns::family("dns_lookup_family", *dns_lookup_family)?,
        resolver: typed_dns_resolver_config.as_ref(),
    };
    let found = discovery::read(&discovery::Parts {
        name,
        kind: cluster_discovery_type.as_ref(),
        eds: eds_cluster_config.as_ref(),
        assignment: load_assignment.as_ref(),
        dns: dns.read()?,
    })?;
    cluster.discovery = found.kind;
    cluster.dns = found.dns;
    if let Some(config) = upstream_bind_config {
        cluster.bind_source = bind_source(config).at("upstream_bind_config")?;
    }
    let chosen = balancing::read(&balancing::Parts {
        discovery: found.kind,
        policy: *lb_policy,
        config: lb_config.as_ref(),
        common: common_lb_config.as_ref(),
        subsets: lb_subset_config.as_ref(),
        policies: load_balancing_policy.as_ref(),
    })?;
    cluster.balancing = chosen.balancing;
    cluster.slow_start = chosen.slow_start;
    cluster.reported_weights = chosen.reported_weights;
    cluster.host_headers = chosen.host_headers;
    cluster.session_health = chosen.session_health;
    cluster.localities = chosen.localities;
    cluster.subsets = chosen.subsets.map(Arc::new);
    cluster.panic_threshold = chosen.panic_threshold;
    if let Some(breakers) = circuit_breakers {
        limits::read(breakers, &mut cluster).at("circuit_breakers")?;
    }
    if let Some(detection) = outlier_detection {
        cluster.outlier = Some(outlier::read(detection).at("outlier_detection")?);
    }
    let older = options::Older {
        requests: number(max_requests_per_connection.as_ref()),
        common: common_http_protocol_options.as_ref(),
        http1: http_protocol_options.as_ref(),
        http2: http2_protocol_options.as_ref(),
        upstream: upstream_http_protocol_options.as_ref(),
        selection: *protocol_selection,
    };
    options::read(typed_extension_protocol_options, &older, &mut cluster)?;
    let checks = health::read(health_checks)?;
    if !checks.is_empty() {
        check_checks(&cluster, &checks)?;
        // Only these learn of endpoints that go one by one.
        let is_dynamic = found.eds.is_some() || found.kind == DiscoveryKind::StrictDns;
        cluster.keep_removed = is_dynamic && !ignore_health_on_host_removal;
    }
    cluster.health_checks = checks.into();
    cluster.close_unhealthy = *close_connections_on_host_health_failure;
    if let Some(options) = upstream_connection_options {
        cluster.tcp_keepalive = connection_options(options).at("upstream_connection_options")?;
    }
    if let Some(facts) = facts {
        metadata::cluster(facts, &mut cluster);
    }
    Ok(ClusterResource {
        cluster,
        endpoints: found.endpoints,
        eds: found.eds,
        secrets: given.into_inner(),
    })
}

/// What a cluster with health checks has to be.
fn check_checks(cluster: &Cluster, checks: &[HealthCheck]) -> Result<(), Invalid> {
    if matches!(
        cluster.discovery,
        DiscoveryKind::Authority | DiscoveryKind::OriginalDestination
    ) {
        let message = "not supported where requests or connections name the endpoints";
        return Err(Invalid::new("health_checks", message));
    }
    // Envoy refuses it too.
    let asks_grpc = |check: &HealthCheck| matches!(check.probe, Probe::Grpc(_));
    if cluster.protocol == UpstreamProtocol::Http1 && checks.iter().any(asks_grpc) {
        let message = "the cluster has to speak HTTP/2";
        return Err(Invalid::new("health_checks[0].grpc_health_check", message));
    }
    Ok(())
}

/// The address that connections are made from; the port has to be any.
#[expect(deprecated, reason = "Envoy still reads the older spellings")]
fn bind_source(value: &core::BindConfig) -> Result<Option<IpAddr>, Invalid> {
    let core::BindConfig {
        source_address,
        freebind,
        socket_options,
        extra_source_addresses,
        additional_source_addresses,
        local_address_selector,
        validate_network_namespaces,
    } = value;
    refuse!(
        socket_options,
        extra_source_addresses,
        additional_source_addresses,
        local_address_selector,
        validate_network_namespaces,
    );
    if boolean(freebind.as_ref(), false) {
        refuse!(freebind);
    }
    let Some(source) = source_address else {
        return Ok(None);
    };
    match address::socket_address(source).at("source_address")? {
        Address::Socket(source) if source.port() == 0 => Ok(Some(source.ip())),
        other => {
            let message = format!("{other} is not an IP address with the port 0");
            Err(Invalid::new("source_address", message))
        }
    }
}

fn connection_options(
    options: &pb::UpstreamConnectionOptions,
) -> Result<Option<TcpKeepalive>, Invalid> {
    let pb::UpstreamConnectionOptions {
        tcp_keepalive,
        set_local_interface_name_on_upstream_connections,
        happy_eyeballs_config,
    } = options;
    refuse!(
        set_local_interface_name_on_upstream_connections,
        happy_eyeballs_config
    );
    Ok(tcp_keepalive.as_ref().and_then(keepalive))
}

/// Zero in any part turns keep-alive off.
fn keepalive(value: &core::TcpKeepalive) -> Option<TcpKeepalive> {
    let core::TcpKeepalive {
        keepalive_probes,
        keepalive_time,
        keepalive_interval,
    } = value;
    let probes = number(keepalive_probes.as_ref());
    let time = number(keepalive_time.as_ref());
    let interval = number(keepalive_interval.as_ref());
    let seconds = |value: u32| Duration::from_secs(value.into());
    (![probes, time, interval].contains(&Some(0))).then(|| TcpKeepalive {
        probes,
        time: time.map(seconds),
        interval: interval.map(seconds),
    })
}
