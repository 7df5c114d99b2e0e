//! What a server asks for, and what it is told. Pure.

use super::Reported;
use crate::pb::envoy::config::cluster::v3 as cluster;
use crate::pb::envoy::config::core::v3::HealthStatus;
use crate::pb::envoy::config::endpoint::v3 as endpoint;
use crate::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use crate::pb::envoy::service::health::v3 as pb;
use crate::read;
use crate::wire::{At, each, maybe_duration, refuse, to_duration};
use mesh_core::Invalid;
use mesh_core::model::{Address, ClusterEntry, Snapshot, SnapshotBuilder};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Where a server says nothing (as Envoy's `HdsDelegate`).
const INTERVAL: Duration = Duration::from_secs(1);
/// More often nobody is told.
const SHORTEST: Duration = Duration::from_millis(10);
/// How many endpoints a server may have checked, over all clusters.
const ENDPOINTS: usize = 20_000;
/// How long a connection for a check may take to be there (as Envoy's `HdsDelegate`).
const CONNECT: Duration = Duration::from_secs(1);

/// What a server asks for.
#[derive(Debug)]
pub(super) struct Asked {
    /// As it was said.
    specifier: pb::HealthCheckSpecifier,
    pub(super) interval: Duration,
    clusters: Vec<read::ClusterResource>,
    /// The addresses of each cluster's endpoints, in the order of the specifier.
    addresses: Vec<Vec<Address>>,
}

// === impl Asked ===

impl Asked {
    pub(super) fn read(specifier: &pb::HealthCheckSpecifier) -> Result<Self, Invalid> {
        let pb::HealthCheckSpecifier {
            cluster_health_checks,
            interval,
        } = specifier;
        let named = cluster_health_checks.iter();
        let localities = named.flat_map(|one| &one.locality_endpoints);
        let endpoints: usize = localities.map(|one| one.endpoints.len()).sum();
        if endpoints > ENDPOINTS {
            let message = format!("{endpoints} endpoints, of {ENDPOINTS} at most");
            return Err(Invalid::new("cluster_health_checks", message));
        }
        let clusters = each("cluster_health_checks", cluster_health_checks, of_cluster)?;
        let (clusters, addresses) = clusters.into_iter().unzip();
        let interval = maybe_duration("interval", interval.as_ref())?;
        Ok(Self {
            specifier: specifier.clone(),
            interval: interval.unwrap_or(INTERVAL).max(SHORTEST),
            clusters,
            addresses,
        })
    }

    pub(super) fn is(&self, specifier: &pb::HealthCheckSpecifier) -> bool {
        self.specifier == *specifier
    }

    /// The clusters to check. What is known of endpoints that stay is kept.
    pub(super) fn snapshot(&self, before: &Arc<Snapshot>) -> Result<Arc<Snapshot>, Invalid> {
        let mut builder = SnapshotBuilder::from(before);
        for one in &self.clusters {
            builder.cluster(one.cluster.clone());
            if let Some(endpoints) = &one.endpoints {
                builder.endpoints(one.cluster.name.clone(), endpoints.clone());
            }
        }
        Ok(builder.build()?.0)
    }

    /// How everybody is, twice: in a list of all endpoints and by cluster, as Envoy says it.
    #[expect(deprecated, reason = "Envoy still fills the list of all endpoints")]
    pub(super) fn report(
        &self,
        snapshot: &Snapshot,
        health: impl Fn(&Arc<ClusterEntry>) -> HashMap<Address, Reported>,
    ) -> pb::EndpointHealthResponse {
        let mut report = pb::EndpointHealthResponse::default();
        for (asked, addresses) in self
            .specifier
            .cluster_health_checks
            .iter()
            .zip(&self.addresses)
        {
            let known = snapshot.cluster(&asked.cluster_name).map(&health);
            let known = known.unwrap_or_default();
            let mut addresses = addresses.iter();
            let mut of_cluster = pb::ClusterEndpointsHealth {
                cluster_name: asked.cluster_name.clone(),
                ..Default::default()
            };
            for locality in &asked.locality_endpoints {
                let said = locality.endpoints.iter().zip(addresses.by_ref());
                let told: Vec<_> = said
                    .map(|(endpoint, address)| told(endpoint, known.get(address).copied()))
                    .collect();
                report.endpoints_health.extend(told.iter().cloned());
                of_cluster
                    .locality_endpoints_health
                    .push(pb::LocalityEndpointsHealth {
                        locality: Some(locality.locality.clone().unwrap_or_default()),
                        endpoints_health: told,
                    });
            }
            report.cluster_endpoints_health.push(of_cluster);
        }
        report
    }
}

fn told(endpoint: &endpoint::Endpoint, health: Option<Reported>) -> pb::EndpointHealth {
    let status = match health {
        Some(Reported::Healthy) => HealthStatus::Healthy,
        Some(Reported::Timeout) => HealthStatus::Timeout,
        Some(Reported::Unhealthy) | None => HealthStatus::Unhealthy,
    };
    pb::EndpointHealth {
        endpoint: Some(endpoint::Endpoint {
            address: endpoint.address.clone(),
            ..Default::default()
        }),
        health_status: status.into(),
        health_metadata: None,
    }
}

/// As a cluster that is in no configuration (Envoy `HdsDelegate::createClusterConfig`), with the
/// addresses of its endpoints.
fn of_cluster(
    value: &pb::ClusterHealthCheck,
) -> Result<(read::ClusterResource, Vec<Address>), Invalid> {
    let pb::ClusterHealthCheck {
        cluster_name,
        health_checks,
        locality_endpoints,
        transport_socket_matches,
        upstream_bind_config,
    } = value;
    refuse!(transport_socket_matches);
    let localities = locality_endpoints.iter().map(of_locality).collect();
    let proto = cluster::Cluster {
        name: cluster_name.clone(),
        connect_timeout: Some(to_duration(CONNECT)),
        health_checks: health_checks.clone(),
        upstream_bind_config: upstream_bind_config.clone(),
        load_assignment: Some(endpoint::ClusterLoadAssignment {
            cluster_name: cluster_name.clone(),
            endpoints: localities,
            ..Default::default()
        }),
        ..Default::default()
    };
    let resource = read::cluster(&proto)?;
    let all = locality_endpoints.iter().flat_map(|one| &one.endpoints);
    let addresses = all.map(|one| {
        let address = one.address.clone().unwrap_or_default();
        match read::endpoint_address(&address).at("locality_endpoints")? {
            // Nobody resolves it, and Envoy 1.40 ends.
            Address::Host(..) => Err(Invalid::new(
                "locality_endpoints",
                "is no address, but a name",
            )),
            address => Ok(address),
        }
    });
    let addresses = addresses.collect::<Result<_, _>>()?;
    Ok((resource, addresses))
}

fn of_locality(value: &pb::LocalityEndpoints) -> endpoint::LocalityLbEndpoints {
    let endpoints = value.endpoints.iter();
    endpoint::LocalityLbEndpoints {
        locality: value.locality.clone(),
        lb_endpoints: endpoints
            .map(|one| endpoint::LbEndpoint {
                host_identifier: Some(HostIdentifier::Endpoint(one.clone())),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
