//! Endpoints.

use super::EndpointsResource;
use super::address::address;
use super::metadata;
use crate::pb::envoy::config::core::v3::{self as core, HealthStatus};
use crate::pb::envoy::config::endpoint::v3 as pb;
use crate::pb::envoy::config::endpoint::v3::cluster_load_assignment::Policy;
use crate::wire::{At, each, enumeration, number, pass_over, refuse, required};
use mesh_core::model::{Address, Endpoint, EndpointSet, Health, Locality, LocalityEndpoints};
use mesh_core::{Invalid, Name};
use std::sync::Arc;

/// The share by which Envoy assumes a priority to have more hosts than it needs, in percent. Ours
/// is the same and cannot be changed.
const OVERPROVISIONING: u32 = 140;

/// The endpoints of a cluster.
pub(super) fn resource(value: &pb::ClusterLoadAssignment) -> Result<EndpointsResource, Invalid> {
    if value.cluster_name.is_empty() {
        return Err(Invalid::new("cluster_name", "required, but missing"));
    }
    Ok(EndpointsResource {
        name: value.cluster_name.as_str().into(),
        endpoints: endpoints(value)?,
    })
}

/// The endpoints in an assignment, whatever its name.
pub(super) fn endpoints(value: &pb::ClusterLoadAssignment) -> Result<EndpointSet, Invalid> {
    let pb::ClusterLoadAssignment {
        cluster_name: _,
        endpoints,
        named_endpoints,
        policy,
    } = value;
    refuse!(named_endpoints);
    if let Some(policy) = policy {
        check_policy(policy).at("policy")?;
    }
    let mut set = EndpointSet::default();
    set.localities = each("endpoints", endpoints, locality)?;
    Ok(set)
}

fn check_policy(policy: &Policy) -> Result<(), Invalid> {
    let Policy {
        drop_overloads,
        overprovisioning_factor,
        endpoint_stale_after,
        weighted_priority_health,
    } = policy;
    refuse!(
        drop_overloads,
        endpoint_stale_after,
        weighted_priority_health
    );
    match number(overprovisioning_factor.as_ref()) {
        None | Some(OVERPROVISIONING) => Ok(()),
        Some(other) => {
            let message = format!("{other} is not supported; it is always {OVERPROVISIONING}");
            Err(Invalid::new("overprovisioning_factor", message))
        }
    }
}

fn locality(value: &pb::LocalityLbEndpoints) -> Result<LocalityEndpoints, Invalid> {
    let pb::LocalityLbEndpoints {
        locality,
        metadata,
        lb_endpoints,
        load_balancing_weight,
        priority,
        proximity,
        lb_config,
    } = value;
    refuse!(proximity, lb_config);
    pass_over!("envoy.config.endpoint.v3.LocalityLbEndpoints": metadata);
    let mut group = LocalityEndpoints::default();
    if let Some(core::Locality {
        region,
        zone,
        sub_zone,
    }) = locality
    {
        group.locality = Locality {
            region: region.into(),
            zone: zone.into(),
            sub_zone: sub_zone.into(),
        };
    }
    group.priority = *priority;
    group.weight = number(load_balancing_weight.as_ref()).unwrap_or(0);
    group.endpoints = each("lb_endpoints", lb_endpoints, |one| {
        endpoint(one).map(Arc::new)
    })?;
    Ok(group)
}

fn endpoint(value: &pb::LbEndpoint) -> Result<Endpoint, Invalid> {
    let pb::LbEndpoint {
        health_status,
        metadata,
        load_balancing_weight,
        host_identifier,
    } = value;
    let (at, hostname) = match required("host_identifier", host_identifier)? {
        pb::lb_endpoint::HostIdentifier::Endpoint(endpoint) => host(endpoint).at("endpoint")?,
        pb::lb_endpoint::HostIdentifier::EndpointName(_) => {
            return Err(Invalid::new("endpoint_name", "not supported; use endpoint"));
        }
    };
    let mut endpoint = Endpoint::new(at);
    endpoint.hostname = hostname;
    endpoint.weight = number(load_balancing_weight.as_ref()).unwrap_or(1);
    if endpoint.weight == 0 {
        return Err(Invalid::new("load_balancing_weight", "must be 1 or more"));
    }
    endpoint.health = match enumeration("health_status", *health_status)? {
        HealthStatus::Unknown | HealthStatus::Healthy => Health::Healthy,
        HealthStatus::Unhealthy | HealthStatus::Timeout => Health::Unhealthy,
        HealthStatus::Draining => Health::Draining,
        HealthStatus::Degraded => Health::Degraded,
    };
    if let Some(metadata) = metadata {
        metadata::endpoint(metadata, &mut endpoint);
    }
    Ok(endpoint)
}

/// The address, and the name of its machine where that says more.
fn host(value: &pb::Endpoint) -> Result<(Address, Name), Invalid> {
    let pb::Endpoint {
        address: at,
        health_check_config,
        hostname,
        additional_addresses,
        observability_name,
    } = value;
    refuse!(
        health_check_config,
        additional_addresses,
        observability_name
    );
    let at = address(required("address", at)?).at("address")?;
    let said = match &at {
        Address::Host(name, _) if hostname == name.as_str() => Name::default(),
        _ => Name::from(hostname),
    };
    Ok((at, said))
}
