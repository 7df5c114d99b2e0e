//! Localities of one priority: by weight, or the own zone first.

use super::weight::percent;
use crate::pb::envoy::config::cluster::v3::cluster::common_lb_config::ZoneAwareLbConfig;
use crate::pb::envoy::extensions::load_balancing_policies::common::v3::LocalityLbConfig;
use crate::pb::envoy::extensions::load_balancing_policies::common::v3::locality_lb_config::{
    LocalityConfigSpecifier, ZoneAwareLbConfig as Extension,
};
use crate::wire::{At, refuse};
use mesh_core::Invalid;
use mesh_core::model::{LocalityBalancing, ZoneAware};

/// The own zone first.
pub(super) fn zones(value: &ZoneAwareLbConfig) -> Result<LocalityBalancing, Invalid> {
    let ZoneAwareLbConfig {
        routing_enabled,
        min_cluster_size,
        fail_traffic_on_panic,
    } = value;
    let mut zones = ZoneAware::default();
    zones.enabled = percent("routing_enabled", routing_enabled.as_ref(), zones.enabled)?;
    zones.minimum = super::hash::wide(min_cluster_size.as_ref()).unwrap_or(zones.minimum);
    zones.fail_in_panic = *fail_traffic_on_panic;
    Ok(LocalityBalancing::ZoneAware(zones))
}

/// What the extensions have in common.
pub(super) fn read(value: Option<&LocalityLbConfig>) -> Result<LocalityBalancing, Invalid> {
    let Some(LocalityLbConfig {
        locality_config_specifier,
    }) = value
    else {
        return Ok(LocalityBalancing::Ignored);
    };
    let read = || match locality_config_specifier {
        // Envoy does not mind.
        None => Ok(LocalityBalancing::Ignored),
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => {
            Ok(LocalityBalancing::Weighted)
        }
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zones)) => {
            extension(zones).at("zone_aware_lb_config")
        }
    };
    read().at("locality_lb_config")
}

#[expect(
    deprecated,
    reason = "Envoy still reads `force_locality_direct_routing`"
)]
fn extension(value: &Extension) -> Result<LocalityBalancing, Invalid> {
    let Extension {
        routing_enabled,
        min_cluster_size,
        fail_traffic_on_panic,
        force_locality_direct_routing,
        force_local_zone,
        locality_basis,
    } = value;
    refuse!(
        force_locality_direct_routing,
        force_local_zone,
        locality_basis
    );
    zones(&ZoneAwareLbConfig {
        routing_enabled: *routing_enabled,
        min_cluster_size: *min_cluster_size,
        fail_traffic_on_panic: *fail_traffic_on_panic,
    })
}
