//! Endpoints.

use super::{metadata, to_address};
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::config::endpoint::v3 as pb;
use crate::pb::envoy::config::endpoint::v3::cluster_load_assignment::{
    Policy, policy::DropOverload,
};
use crate::wire::share::to_fraction;
use crate::wire::to_number;
use mesh_core::model::{Endpoint, EndpointCheck, EndpointSet, Health, LocalityEndpoints};

pub(super) fn endpoints(name: &str, set: &EndpointSet) -> pb::ClusterLoadAssignment {
    pb::ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: set.localities.iter().map(locality).collect(),
        policy: policy(set),
        ..pb::ClusterLoadAssignment::default()
    }
}

fn policy(set: &EndpointSet) -> Option<Policy> {
    let drops = set.drops.iter().map(|drop| DropOverload {
        category: drop.category.to_string(),
        drop_percentage: Some(to_fraction(drop.share)),
    });
    let policy = Policy {
        drop_overloads: drops.collect(),
        // Envoy refuses 0.
        overprovisioning_factor: set.overprovisioning.and_then(|by| to_number(by.max(1))),
        ..Policy::default()
    };
    (policy != Policy::default()).then_some(policy)
}

fn locality(group: &LocalityEndpoints) -> pb::LocalityLbEndpoints {
    let at = &group.locality;
    pb::LocalityLbEndpoints {
        locality: Some(core::Locality {
            region: at.region.to_string(),
            zone: at.zone.to_string(),
            sub_zone: at.sub_zone.to_string(),
        }),
        lb_endpoints: group.endpoints.iter().map(|one| endpoint(one)).collect(),
        // Envoy refuses a weight of nothing; absent is what it means.
        load_balancing_weight: (group.weight > 0)
            .then(|| to_number(group.weight))
            .flatten(),
        priority: group.priority,
        ..pb::LocalityLbEndpoints::default()
    }
}

fn endpoint(endpoint: &Endpoint) -> pb::LbEndpoint {
    let health = match endpoint.health {
        Health::Degraded => core::HealthStatus::Degraded,
        Health::Unhealthy => core::HealthStatus::Unhealthy,
        Health::Draining => core::HealthStatus::Draining,
        _ => core::HealthStatus::Healthy,
    };
    pb::LbEndpoint {
        health_status: health.into(),
        metadata: metadata::endpoint(endpoint),
        load_balancing_weight: to_number(endpoint.weight.max(1)),
        host_identifier: Some(pb::lb_endpoint::HostIdentifier::Endpoint(pb::Endpoint {
            address: Some(to_address(&endpoint.address)),
            hostname: endpoint.hostname.to_string(),
            health_check_config: endpoint.check.as_deref().map(check),
            ..pb::Endpoint::default()
        })),
    }
}

fn check(check: &EndpointCheck) -> pb::endpoint::HealthCheckConfig {
    pb::endpoint::HealthCheckConfig {
        port_value: check.port.unwrap_or(0).into(),
        hostname: check.hostname.to_string(),
        address: check.address.as_ref().map(to_address),
        disable_active_health_check: check.disabled,
    }
}
