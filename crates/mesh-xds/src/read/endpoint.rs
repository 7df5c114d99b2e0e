//! Endpoints.

use super::EndpointsResource;
use super::address::address;
use super::metadata;
use crate::pb::envoy::config::core::v3::{self as core, HealthStatus};
use crate::pb::envoy::config::endpoint::v3 as pb;
use crate::pb::envoy::config::endpoint::v3::cluster_load_assignment::{
    Policy, policy::DropOverload,
};
use crate::pb::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};
use crate::wire::{At, each, enumeration, number, pass_over, refuse, required, share};
use mesh_core::model::{
    Address, Drop, Endpoint, EndpointCheck, EndpointSet, Fraction, Health, Locality,
    LocalityEndpoints,
};
use mesh_core::{Invalid, Name};
use std::sync::Arc;

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
        policy: said,
    } = value;
    refuse!(named_endpoints);
    let mut set = EndpointSet::default();
    if let Some(said) = said {
        policy(said, &mut set).at("policy")?;
    }
    set.localities = each("endpoints", endpoints, locality)?;
    Ok(set)
}

fn policy(policy: &Policy, set: &mut EndpointSet) -> Result<(), Invalid> {
    let Policy {
        drop_overloads,
        overprovisioning_factor,
        endpoint_stale_after,
        weighted_priority_health,
    } = policy;
    refuse!(endpoint_stale_after, weighted_priority_health);
    set.overprovisioning = number(overprovisioning_factor.as_ref());
    if set.overprovisioning == Some(0) {
        let message = "must be 1 or more";
        return Err(Invalid::new("overprovisioning_factor", message));
    }
    set.drops = each("drop_overloads", drop_overloads, drop_overload)?;
    Ok(())
}

fn drop_overload(value: &DropOverload) -> Result<Drop, Invalid> {
    let DropOverload {
        category,
        drop_percentage,
    } = value;
    if category.is_empty() {
        return Err(Invalid::new("category", "required, but missing"));
    }
    // As in Envoy, and unlike elsewhere, not capped.
    let whole = |value: &FractionalPercent| match value.denominator() {
        DenominatorType::Hundred => 100,
        DenominatorType::TenThousand => 10_000,
        DenominatorType::Million => 1_000_000,
    };
    if let Some(value) = drop_percentage
        && value.numerator > whole(value)
    {
        let message = format!("{} of {} is more than all", value.numerator, whole(value));
        return Err(Invalid::new("drop_percentage", message));
    }
    let share = drop_percentage.as_ref().map(share::fraction).transpose();
    Ok(Drop {
        category: category.into(),
        share: share.at("drop_percentage")?.unwrap_or(Fraction::NONE),
    })
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
    let (at, hostname, check) = match required("host_identifier", host_identifier)? {
        pb::lb_endpoint::HostIdentifier::Endpoint(endpoint) => host(endpoint).at("endpoint")?,
        pb::lb_endpoint::HostIdentifier::EndpointName(_) => {
            return Err(Invalid::new("endpoint_name", "not supported; use endpoint"));
        }
    };
    let mut endpoint = Endpoint::new(at);
    endpoint.hostname = hostname;
    endpoint.check = check.map(Arc::new);
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

/// The address, the name of its machine where that says more, and what it says of its checks.
fn host(value: &pb::Endpoint) -> Result<(Address, Name, Option<EndpointCheck>), Invalid> {
    let pb::Endpoint {
        address: at,
        health_check_config,
        hostname,
        additional_addresses,
        observability_name,
    } = value;
    refuse!(additional_addresses, observability_name);
    let at = address(required("address", at)?).at("address")?;
    let said = match &at {
        Address::Host(name, _) if hostname == name.as_str() => Name::default(),
        _ => Name::from(hostname),
    };
    let own = health_check_config.as_ref();
    let own = own.map(|own| check(own, &at)).transpose();
    let own = own.at("health_check_config")?;
    Ok((at, said, own.filter(|own| *own != EndpointCheck::default())))
}

fn check(value: &pb::endpoint::HealthCheckConfig, own: &Address) -> Result<EndpointCheck, Invalid> {
    let pb::endpoint::HealthCheckConfig {
        port_value,
        hostname,
        address: other,
        disable_active_health_check,
    } = value;
    let other = other.as_ref().map(address).transpose().at("address")?;
    let port = u16::try_from(*port_value);
    let port = port.map_err(|_| Invalid::new("port_value", "is not a port"))?;
    let port = (port != 0).then_some(port);
    if port.is_some() && matches!(other.as_ref().unwrap_or(own), Address::Unix(_)) {
        return Err(Invalid::new(
            "port_value",
            "a Unix domain socket has no port",
        ));
    }
    Ok(EndpointCheck {
        disabled: *disable_active_health_check,
        port,
        address: other,
        hostname: super::cluster::health::authority("hostname", hostname)?,
    })
}
