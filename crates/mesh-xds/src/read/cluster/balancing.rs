//! How an endpoint is chosen.

use crate::pb::envoy::config::cluster::v3 as pb;
use crate::pb::envoy::config::cluster::v3::cluster::common_lb_config::LocalityConfigSpecifier;
use crate::pb::envoy::config::cluster::v3::cluster::{
    CommonLbConfig, LbConfig, LbPolicy, LbSubsetConfig, LeastRequestLbConfig, OriginalDstLbConfig,
    RoundRobinLbConfig,
};
use crate::wire::{At, enumeration, refuse};
use http::HeaderName;
use mesh_core::Invalid;
use mesh_core::model::{
    Balancing, DiscoveryKind, HashKeys, LocalityBalancing, ReportedWeights, SessionHealth,
    SlowStart, SubsetBalancing,
};
use std::sync::Arc;

mod extension;
mod hash;
mod locality;
mod reported;
mod sessions;
mod subset;
mod weight;

/// The fields of a cluster that say how an endpoint is chosen.
pub(super) struct Parts<'a> {
    pub(super) discovery: DiscoveryKind,
    pub(super) policy: i32,
    pub(super) config: Option<&'a LbConfig>,
    pub(super) common: Option<&'a CommonLbConfig>,
    pub(super) subsets: Option<&'a LbSubsetConfig>,
    pub(super) policies: Option<&'a pb::LoadBalancingPolicy>,
}

/// What they say.
#[derive(Default)]
pub(super) struct Chosen {
    pub(super) balancing: Balancing,
    pub(super) slow_start: Option<SlowStart>,
    pub(super) localities: LocalityBalancing,
    pub(super) subsets: Option<SubsetBalancing>,
    /// Endpoints are weighed by what they report.
    pub(super) reported_weights: Option<Arc<ReportedWeights>>,
    /// Headers that name endpoints.
    pub(super) host_headers: Vec<HeaderName>,
    /// Where sessions may be kept.
    pub(super) session_health: SessionHealth,
    /// Below this share of healthy endpoints, in percent, all are used.
    pub(super) panic_threshold: u32,
}

/// What is said whatever the policy.
struct Common {
    panic_threshold: u32,
    localities: LocalityBalancing,
    keys: Option<HashKeys>,
    session_health: SessionHealth,
}

pub(super) fn read(parts: &Parts<'_>) -> Result<Chosen, Invalid> {
    let common = parts.common.map(common).transpose();
    let common = common.at("common_lb_config")?.unwrap_or_default();
    let mut chosen = match parts.policies {
        Some(policies) => {
            alone(parts)?;
            extension::read(policies).at("load_balancing_policy")?
        }
        None => by_name(parts, &common)?,
    };
    chosen.panic_threshold = common.panic_threshold;
    chosen.session_health = common.session_health;
    Ok(chosen)
}

/// The newer field says everything that the older ones do, and Envoy refuses most of them beside it.
fn alone(parts: &Parts<'_>) -> Result<(), Invalid> {
    let refused = |field: &str| {
        let message = "cannot be combined with load_balancing_policy";
        Err(Invalid::new(field, message))
    };
    if parts.subsets.is_some() {
        return refused("lb_subset_config");
    }
    let Some(common) = parts.common else {
        return Ok(());
    };
    match common.locality_config_specifier {
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(_)) => {
            refused("common_lb_config.zone_aware_lb_config")
        }
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => {
            refused("common_lb_config.locality_weighted_lb_config")
        }
        None if common.consistent_hashing_lb_config.is_some() => {
            refused("common_lb_config.consistent_hashing_lb_config")
        }
        None => Ok(()),
    }
}

fn by_name(parts: &Parts<'_>, common: &Common) -> Result<Chosen, Invalid> {
    let policy = enumeration::<LbPolicy>("lb_policy", parts.policy)?;
    let chosen = matches!(
        parts.discovery,
        DiscoveryKind::Authority | DiscoveryKind::OriginalDestination
    );
    if chosen != (policy == LbPolicy::ClusterProvided) {
        let message = format!(
            "{} does not go with this type of cluster",
            policy.as_str_name()
        );
        return Err(Invalid::new("lb_policy", message));
    }
    let keys = common.keys.unwrap_or_default();
    let hashes = matches!(policy, LbPolicy::RingHash | LbPolicy::Maglev);
    if common.keys.is_some() && !hashes {
        let message = "goes with lb_policy RING_HASH and MAGLEV only";
        let field = "common_lb_config.consistent_hashing_lb_config";
        return Err(Invalid::new(field, message));
    }
    let (balancing, slow_start) = match (policy, parts.config) {
        (LbPolicy::RoundRobin, None) => (Balancing::RoundRobin, None),
        (LbPolicy::RoundRobin, Some(LbConfig::RoundRobinLbConfig(config))) => {
            let RoundRobinLbConfig { slow_start_config } = config;
            let slow = weight::slow_start(slow_start_config.as_ref());
            (Balancing::RoundRobin, slow.at("round_robin_lb_config")?)
        }
        (LbPolicy::LeastRequest, None) => (Balancing::LEAST_REQUEST, None),
        (LbPolicy::LeastRequest, Some(LbConfig::LeastRequestLbConfig(config))) => {
            least_request(config).at("least_request_lb_config")?
        }
        (LbPolicy::Random, None) => (Balancing::Random, None),
        (LbPolicy::RingHash, None) => (hash::ring(&hash::Ring::default(), keys)?, None),
        (LbPolicy::RingHash, Some(LbConfig::RingHashLbConfig(config))) => {
            let ring = hash::Ring::of(config).and_then(|ring| hash::ring(&ring, keys));
            (ring.at("ring_hash_lb_config")?, None)
        }
        (LbPolicy::Maglev, None) => (hash::maglev(None, keys)?, None),
        (LbPolicy::Maglev, Some(LbConfig::MaglevLbConfig(config))) => {
            let table = hash::maglev(config.table_size.as_ref(), keys);
            (table.at("maglev_lb_config")?, None)
        }
        (LbPolicy::ClusterProvided, None) => (Balancing::default(), None),
        (LbPolicy::ClusterProvided, Some(LbConfig::OriginalDstLbConfig(config))) => {
            original_destination(config).at("original_dst_lb_config")?;
            (Balancing::default(), None)
        }
        (LbPolicy::LoadBalancingPolicyConfig, _) => {
            let message = "required by lb_policy, but missing";
            return Err(Invalid::new("load_balancing_policy", message));
        }
        (_, Some(other)) => {
            let message = format!("does not go with lb_policy {}", policy.as_str_name());
            return Err(Invalid::new(name(other), message));
        }
    };
    let aware = parts.subsets.is_some_and(|it| it.locality_weight_aware);
    if aware && common.localities != LocalityBalancing::Weighted {
        let message = "goes with common_lb_config.locality_weighted_lb_config";
        return Err(Invalid::new(
            "lb_subset_config.locality_weight_aware",
            message,
        ));
    }
    let subsets = parts.subsets.map(subset::by_name).transpose();
    let subsets = subsets.at("lb_subset_config")?.flatten();
    if subsets.is_some() && policy == LbPolicy::ClusterProvided {
        let message = "cannot be combined with lb_policy CLUSTER_PROVIDED";
        return Err(Invalid::new("lb_subset_config", message));
    }
    Ok(Chosen {
        balancing,
        slow_start,
        localities: match common.localities {
            // With hashes Envoy has no zones.
            LocalityBalancing::ZoneAware(_) if hashes => LocalityBalancing::Ignored,
            other => other,
        },
        subsets,
        ..Chosen::default()
    })
}

fn name(config: &LbConfig) -> &'static str {
    match config {
        LbConfig::RingHashLbConfig(_) => "ring_hash_lb_config",
        LbConfig::MaglevLbConfig(_) => "maglev_lb_config",
        LbConfig::OriginalDstLbConfig(_) => "original_dst_lb_config",
        LbConfig::LeastRequestLbConfig(_) => "least_request_lb_config",
        LbConfig::RoundRobinLbConfig(_) => "round_robin_lb_config",
    }
}

fn least_request(config: &LeastRequestLbConfig) -> Result<(Balancing, Option<SlowStart>), Invalid> {
    let LeastRequestLbConfig {
        choice_count,
        active_request_bias,
        slow_start_config,
    } = config;
    let balancing = weight::least_request(choice_count.as_ref(), active_request_bias.as_ref())?;
    Ok((balancing, weight::slow_start(slow_start_config.as_ref())?))
}

fn original_destination(config: &OriginalDstLbConfig) -> Result<(), Invalid> {
    let OriginalDstLbConfig {
        use_http_header,
        http_header_name,
        upstream_port_override,
        metadata_key,
    } = config;
    refuse!(
        use_http_header,
        http_header_name,
        upstream_port_override,
        metadata_key
    );
    Ok(())
}

fn common(value: &CommonLbConfig) -> Result<Common, Invalid> {
    let CommonLbConfig {
        healthy_panic_threshold,
        update_merge_window,
        ignore_new_hosts_until_first_hc,
        close_connections_on_host_set_change,
        consistent_hashing_lb_config,
        override_host_status,
        locality_config_specifier,
    } = value;
    refuse!(
        ignore_new_hosts_until_first_hc,
        close_connections_on_host_set_change,
    );
    crate::wire::pass_over!("envoy.config.cluster.v3.Cluster.CommonLbConfig": update_merge_window);
    let keys = consistent_hashing_lb_config.as_ref().map(hash::keys);
    Ok(Common {
        panic_threshold: weight::percent(
            "healthy_panic_threshold",
            healthy_panic_threshold.as_ref(),
            50,
        )?,
        localities: match locality_config_specifier {
            None => LocalityBalancing::Ignored,
            Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => {
                LocalityBalancing::Weighted
            }
            Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zones)) => {
                locality::zones(zones).at("zone_aware_lb_config")?
            }
        },
        keys: keys.transpose().at("consistent_hashing_lb_config")?,
        session_health: override_host_status
            .as_ref()
            .map(sessions::health)
            .transpose()
            .at("override_host_status")?
            .unwrap_or_default(),
    })
}

// === impl Common ===

impl Default for Common {
    fn default() -> Self {
        Self {
            panic_threshold: 50,
            localities: LocalityBalancing::Ignored,
            keys: None,
            session_health: SessionHealth::default(),
        }
    }
}
