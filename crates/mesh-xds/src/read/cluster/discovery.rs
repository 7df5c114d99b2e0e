//! How the endpoints of a cluster become known.

use super::dns;
use crate::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CustomClusterType, DiscoveryType, EdsClusterConfig,
};
use crate::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use crate::pb::envoy::extensions::clusters::common::dns::v3::DnsLookupFamily as Family;
use crate::pb::envoy::extensions::clusters::dns::v3::DnsCluster;
use crate::pb::envoy::extensions::clusters::dynamic_forward_proxy::v3::{
    ClusterConfig, cluster_config::ClusterImplementationSpecifier,
};
use crate::pb::envoy::extensions::clusters::original_dst::v3::OriginalDstCluster;
use crate::pb::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use crate::pb::google::protobuf::Any;
use crate::read::extension::dns_resolver;
use crate::read::{Reference, endpoint, source};
use crate::wire::{At, enumeration, pass_over, refuse, required, type_name, unpack, unsupported};
use mesh_core::Invalid;
use mesh_core::model::{DiscoveryKind, Dns, DnsFamily, EndpointSet};
use prost::Name as _;

/// The fields of a cluster that say where its endpoints come from.
pub(super) struct Parts<'a> {
    pub(super) name: &'a str,
    pub(super) kind: Option<&'a ClusterDiscoveryType>,
    pub(super) eds: Option<&'a EdsClusterConfig>,
    pub(super) assignment: Option<&'a ClusterLoadAssignment>,
    pub(super) dns: Dns,
}

/// Where the endpoints of a cluster come from.
pub(super) struct Found {
    pub(super) kind: DiscoveryKind,
    pub(super) endpoints: Option<EndpointSet>,
    pub(super) eds: Option<Reference>,
    pub(super) dns: Dns,
}

pub(super) fn read(parts: &Parts<'_>) -> Result<Found, Invalid> {
    let kind = match parts.kind {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(kind)) => enumeration("type", *kind)?,
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            return parts.custom(custom).at("cluster_type");
        }
    };
    match kind {
        DiscoveryType::Static => parts.given(DiscoveryKind::Endpoints),
        DiscoveryType::StrictDns => parts.given(DiscoveryKind::StrictDns),
        DiscoveryType::LogicalDns => parts.given(DiscoveryKind::LogicalDns),
        DiscoveryType::Eds => {
            refuse_assignment(parts.assignment)?;
            let config = parts.eds;
            let config = config
                .ok_or_else(|| Invalid::new("eds_cluster_config", "required, but missing"))?;
            let EdsClusterConfig {
                eds_config,
                service_name,
            } = config;
            let name = match service_name.as_str() {
                "" => parts.name,
                name => name,
            };
            let reference = || {
                let from = required("eds_config", eds_config)?;
                source::reference(name, from).at("eds_config")
            };
            Ok(Found {
                kind: DiscoveryKind::Endpoints,
                endpoints: None,
                eds: Some(reference().at("eds_cluster_config")?),
                dns: parts.dns,
            })
        }
        DiscoveryType::OriginalDst => parts.chosen(DiscoveryKind::OriginalDestination),
    }
}

impl Parts<'_> {
    /// Endpoints that come with the cluster.
    fn given(&self, kind: DiscoveryKind) -> Result<Found, Invalid> {
        if self.eds.is_some() {
            let message = "goes with type EDS only";
            return Err(Invalid::new("eds_cluster_config", message));
        }
        let set = self.assignment.map(endpoint::endpoints).transpose();
        let set = set.at("load_assignment")?.unwrap_or_default();
        if kind == DiscoveryKind::LogicalDns && (set.localities.len(), set.len()) != (1, 1) {
            let message = "a LOGICAL_DNS cluster has one locality with one endpoint";
            return Err(Invalid::new("load_assignment", message));
        }
        Ok(Found {
            kind,
            endpoints: Some(set),
            eds: None,
            dns: self.dns,
        })
    }

    /// Endpoints that each request or connection chooses.
    fn chosen(&self, kind: DiscoveryKind) -> Result<Found, Invalid> {
        refuse_assignment(self.assignment)?;
        if self.eds.is_some() {
            let message = "goes with type EDS only";
            return Err(Invalid::new("eds_cluster_config", message));
        }
        Ok(Found {
            kind,
            endpoints: None,
            eds: None,
            dns: self.dns,
        })
    }

    fn custom(&self, value: &CustomClusterType) -> Result<Found, Invalid> {
        let CustomClusterType {
            // Envoy goes by the type of the message.
            name: _,
            typed_config,
        } = value;
        let any = required("typed_config", typed_config)?;
        let name = type_name(any);
        if name == ClusterConfig::full_name() {
            forward_proxy(any).at("typed_config")?;
            self.chosen(DiscoveryKind::Authority)
        } else if name == OriginalDstCluster::full_name() {
            original(&unpack(any).at("typed_config")?).at("typed_config")?;
            self.chosen(DiscoveryKind::OriginalDestination)
        } else if name == DnsCluster::full_name() {
            let (kind, dns) = dns_cluster(any).at("typed_config")?;
            let found = self.given(kind)?;
            Ok(Found { dns, ..found })
        } else {
            Err(Invalid::new(
                "typed_config",
                format!("{name:?} is not supported"),
            ))
        }
    }
}

fn refuse_assignment(assignment: Option<&ClusterLoadAssignment>) -> Result<(), Invalid> {
    match assignment {
        None => Ok(()),
        Some(_) => Err(Invalid::new(
            "load_assignment",
            "does not go with this type of cluster",
        )),
    }
}

fn dns_cluster(any: &Any) -> Result<(DiscoveryKind, Dns), Invalid> {
    let DnsCluster {
        dns_refresh_rate,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_jitter,
        typed_dns_resolver_config,
        dns_lookup_family,
        all_addresses_in_single_endpoint,
        dns_min_refresh_rate,
    } = &unpack(any)?;
    pass_over!("envoy.extensions.clusters.dns.v3.DnsCluster": dns_min_refresh_rate);
    let failure = dns_failure_refresh_rate.as_ref();
    let parts = dns::Parts {
        refresh: dns_refresh_rate.as_ref(),
        jitter: dns_jitter.as_ref(),
        respect_ttl: *respect_dns_ttl,
        failure: failure.map(|rate| (rate.base_interval.as_ref(), rate.max_interval.as_ref())),
        family: match enumeration("dns_lookup_family", *dns_lookup_family)? {
            Family::Unspecified | Family::Auto => DnsFamily::Auto,
            Family::V4Only => DnsFamily::V4Only,
            Family::V6Only => DnsFamily::V6Only,
            Family::V4Preferred => DnsFamily::V4Preferred,
            Family::All => DnsFamily::All,
        },
        resolver: typed_dns_resolver_config.as_ref(),
    };
    let kind = match all_addresses_in_single_endpoint {
        true => DiscoveryKind::LogicalDns,
        false => DiscoveryKind::StrictDns,
    };
    Ok((kind, parts.read()?))
}

/// The place where the connection was going, and no other.
fn original(value: &OriginalDstCluster) -> Result<(), Invalid> {
    let OriginalDstCluster {
        use_http_header,
        http_header_name,
        upstream_port_override,
        metadata_key,
    } = value;
    refuse!(
        use_http_header,
        http_header_name,
        upstream_port_override,
        metadata_key
    );
    Ok(())
}

fn forward_proxy(any: &Any) -> Result<(), Invalid> {
    let ClusterConfig {
        allow_insecure_cluster_options,
        allow_coalesced_connections,
        cluster_implementation_specifier,
    } = &unpack(any)?;
    refuse!(allow_coalesced_connections);
    pass_over!("envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig":
        allow_insecure_cluster_options);
    match cluster_implementation_specifier {
        None => Ok(()),
        Some(ClusterImplementationSpecifier::DnsCacheConfig(cache)) => {
            dns_cache(cache).at("dns_cache_config")
        }
        Some(ClusterImplementationSpecifier::SubClustersConfig(_)) => {
            Err(unsupported("sub_clusters_config"))
        }
    }
}

/// What a forward proxy remembers of DNS. Names are looked up for each connection here.
#[expect(deprecated, reason = "Envoy still reads the older spellings")]
pub(in crate::read) fn dns_cache(value: &DnsCacheConfig) -> Result<(), Invalid> {
    let DnsCacheConfig {
        name,
        dns_lookup_family,
        dns_refresh_rate,
        dns_min_refresh_rate,
        host_ttl,
        max_hosts,
        disable_dns_refresh_on_failure,
        dns_failure_refresh_rate,
        dns_cache_circuit_breaker,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        preresolve_hostnames,
        dns_query_timeout,
        key_value_config,
        resolved_address_filter,
    } = value;
    refuse!(
        dns_cache_circuit_breaker,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        dns_query_timeout,
        key_value_config,
        resolved_address_filter,
    );
    pass_over!("envoy.extensions.common.dynamic_forward_proxy.v3.DnsCacheConfig":
        disable_dns_refresh_on_failure,
        dns_failure_refresh_rate,
        dns_min_refresh_rate,
        dns_refresh_rate,
        host_ttl,
        max_hosts,
        name,
        preresolve_hostnames,
    );
    dns_resolver(typed_dns_resolver_config.as_ref())?;
    // Whatever the resolver returns is used, so only IPv6 alone cannot be promised.
    match dns::family("dns_lookup_family", *dns_lookup_family)? {
        DnsFamily::V6Only => Err(Invalid::new(
            "dns_lookup_family",
            "V6_ONLY is not supported",
        )),
        _ => Ok(()),
    }
}
