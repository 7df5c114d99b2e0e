//! How an endpoint is chosen, in the fields that every Envoy has; in the newer one where they do not
//! say enough.
//!
//! What the policy has no field for is not written: slow start but for round robin and least
//! request, reported weights but for round robin, zones beside those and beside hashes, subsets that nobody can ask for.

use crate::pb::envoy::config::cluster::v3 as pb;
use crate::pb::envoy::config::cluster::v3::cluster::common_lb_config::{
    ConsistentHashingLbConfig, LocalityConfigSpecifier, LocalityWeightedLbConfig, ZoneAwareLbConfig,
};
use crate::pb::envoy::config::cluster::v3::cluster::lb_subset_config::{
    LbSubsetFallbackPolicy as Fallback, LbSubsetMetadataFallbackPolicy as Wishes, LbSubsetSelector,
    lb_subset_selector::LbSubsetSelectorFallbackPolicy as Own,
};
use crate::pb::envoy::config::cluster::v3::cluster::ring_hash_lb_config::HashFunction as Function;
use crate::pb::envoy::config::cluster::v3::cluster::{
    CommonLbConfig, LbConfig, LbPolicy, LbSubsetConfig, LeastRequestLbConfig, MaglevLbConfig,
    RingHashLbConfig, RoundRobinLbConfig, SlowStartConfig,
};
use crate::pb::envoy::config::core::v3::{HealthStatus, HealthStatusSet, RuntimeDouble};
use crate::pb::envoy::r#type::v3::Percent;
use crate::pb::google::protobuf::UInt64Value;
use crate::wire::{to_duration, to_number};
use crate::write::metadata;
use mesh_core::model::{
    Balancing, Cluster, DiscoveryKind, HashFunction, HashKeys, LocalityBalancing, Maglev, Real,
    RingHash, SessionHealth, SlowStart, SubsetBalancing, SubsetFallback, SubsetLocalities,
};

mod extension;

/// How many hosts are drawn for least request where nothing is said.
const CHOICES: u32 = 2;

/// Envoy wants a key for a number that runtime may change. istiod writes this one, which stands
/// for nothing.
const NO_KEY: &str = "(";

/// Writes it all.
pub(super) fn write(cluster: &Cluster, out: &mut pb::Cluster) {
    out.common_lb_config = common(cluster);
    if let Some(policy) = extension::policy(cluster) {
        // What is beside the newer field says nothing of these, or Envoy refuses it.
        if let Some(common) = &mut out.common_lb_config {
            common.locality_config_specifier = None;
            common.consistent_hashing_lb_config = None;
        }
        out.common_lb_config = out
            .common_lb_config
            .take()
            .filter(|common| *common != CommonLbConfig::default());
        out.lb_policy = LbPolicy::LoadBalancingPolicyConfig.into();
        out.load_balancing_policy = Some(policy);
        return;
    }
    out.lb_subset_config = subsets(cluster);
    (out.lb_policy, out.lb_config) = policy(cluster);
}

/// The policy and what it has of its own.
fn policy(cluster: &Cluster) -> (i32, Option<LbConfig>) {
    if is_provided(cluster) {
        return (LbPolicy::ClusterProvided.into(), None);
    }
    let slow_start_config = cluster.slow_start.as_ref().map(slow_start);
    match &cluster.balancing {
        Balancing::RoundRobin => {
            let config = slow_start_config.map(|slow| {
                LbConfig::RoundRobinLbConfig(RoundRobinLbConfig {
                    slow_start_config: Some(slow),
                })
            });
            (LbPolicy::RoundRobin.into(), config)
        }
        Balancing::LeastRequest { choices, bias } => {
            let choices = (*choices).max(CHOICES);
            let config = LeastRequestLbConfig {
                choice_count: (choices != CHOICES).then(|| to_number(choices)).flatten(),
                active_request_bias: (*bias != Real::ONE).then(|| real(*bias)),
                slow_start_config,
            };
            let config = (config != LeastRequestLbConfig::default()).then_some(config);
            let config = config.map(LbConfig::LeastRequestLbConfig);
            (LbPolicy::LeastRequest.into(), config)
        }
        Balancing::RingHash(ring) => {
            let config = LbConfig::RingHashLbConfig(self::ring(ring));
            (LbPolicy::RingHash.into(), Some(config))
        }
        Balancing::Maglev(Maglev { size, .. }) => {
            let config = LbConfig::MaglevLbConfig(MaglevLbConfig {
                table_size: wide(*size),
            });
            (LbPolicy::Maglev.into(), Some(config))
        }
        _ => (LbPolicy::Random.into(), None),
    }
}

/// What is said whatever the policy.
fn common(cluster: &Cluster) -> Option<CommonLbConfig> {
    let keys = match &cluster.balancing {
        _ if is_provided(cluster) => HashKeys::default(),
        Balancing::RingHash(RingHash { keys, .. }) | Balancing::Maglev(Maglev { keys, .. }) => {
            *keys
        }
        _ => HashKeys::default(),
    };
    let common = CommonLbConfig {
        healthy_panic_threshold: (cluster.panic_threshold != 50)
            .then(|| percent(cluster.panic_threshold)),
        locality_config_specifier: match &cluster.localities {
            LocalityBalancing::Weighted => {
                let config = LocalityWeightedLbConfig::default();
                Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(config))
            }
            LocalityBalancing::ZoneAware(zones) => {
                let config = ZoneAwareLbConfig {
                    routing_enabled: Some(percent(zones.enabled)),
                    min_cluster_size: wide(zones.minimum),
                    fail_traffic_on_panic: zones.fail_in_panic,
                };
                Some(LocalityConfigSpecifier::ZoneAwareLbConfig(config))
            }
            _ => None,
        },
        consistent_hashing_lb_config: (keys != HashKeys::default()).then(|| {
            ConsistentHashingLbConfig {
                use_hostname_for_hashing: keys.hostname,
                hash_balance_factor: keys.balance_factor.and_then(|at| to_number(at.max(100))),
            }
        }),
        override_host_status: session_health(cluster.session_health),
        ..CommonLbConfig::default()
    };
    (common != CommonLbConfig::default()).then_some(common)
}

/// Where sessions may be kept, if that is not as Envoy has it.
fn session_health(health: SessionHealth) -> Option<HealthStatusSet> {
    if health == SessionHealth::default() {
        return None;
    }
    let all = [
        (health.healthy, HealthStatus::Unknown),
        (health.healthy, HealthStatus::Healthy),
        (health.unhealthy, HealthStatus::Unhealthy),
        (health.draining, HealthStatus::Draining),
        (health.unhealthy, HealthStatus::Timeout),
        (health.degraded, HealthStatus::Degraded),
    ];
    let all = all.into_iter().filter(|(is, _)| *is);
    Some(HealthStatusSet {
        statuses: all.map(|(_, status)| status.into()).collect(),
    })
}

/// Parts that requests ask for.
fn subsets(cluster: &Cluster) -> Option<LbSubsetConfig> {
    let subsets = cluster.subsets.as_deref()?;
    if subsets.selectors.is_empty() || is_provided(cluster) {
        return None;
    }
    let SubsetBalancing {
        selectors,
        fallback,
        default,
        panic_mode_any,
        list_as_any,
        localities,
        fallback_list,
        ..
    } = subsets;
    let selectors = selectors.iter().map(|selector| LbSubsetSelector {
        keys: selector.keys.iter().map(ToString::to_string).collect(),
        single_host_per_subset: selector.single,
        fallback_policy: match selector.fallback {
            None => Own::NotDefined,
            Some(SubsetFallback::Any) => Own::AnyEndpoint,
            Some(SubsetFallback::Default) => Own::DefaultSubset,
            Some(SubsetFallback::Keys) => Own::KeysSubset,
            Some(_) => Own::NoFallback,
        }
        .into(),
        fallback_keys_subset: selector
            .fallback_keys
            .iter()
            .map(ToString::to_string)
            .collect(),
    });
    Some(LbSubsetConfig {
        fallback_policy: match fallback {
            SubsetFallback::Any => Fallback::AnyEndpoint,
            SubsetFallback::Default => Fallback::DefaultSubset,
            _ => Fallback::NoFallback,
        }
        .into(),
        default_subset: (!default.is_empty()).then(|| metadata::values(default)),
        subset_selectors: selectors.collect(),
        // Envoy refuses it where localities have no weights, and then it says nothing.
        locality_weight_aware: *localities != SubsetLocalities::Ignored
            && cluster.localities == LocalityBalancing::Weighted,
        scale_locality_weight: *localities == SubsetLocalities::Scaled,
        panic_mode_any: *panic_mode_any,
        list_as_any: *list_as_any,
        metadata_fallback_policy: match fallback_list {
            true => Wishes::FallbackList,
            false => Wishes::MetadataNoFallback,
        }
        .into(),
    })
}

fn is_provided(cluster: &Cluster) -> bool {
    matches!(
        cluster.discovery,
        DiscoveryKind::Authority | DiscoveryKind::OriginalDestination
    )
}

/// As istiod writes it: the least size always, and what differs from Envoy's defaults.
fn ring(ring: &RingHash) -> RingHashLbConfig {
    let default = RingHash::default();
    RingHashLbConfig {
        minimum_ring_size: wide(ring.minimum),
        maximum_ring_size: (ring.maximum != default.maximum)
            .then(|| wide(ring.maximum))
            .flatten(),
        hash_function: match ring.function {
            HashFunction::Murmur2 => Function::MurmurHash2,
            _ => Function::XxHash,
        }
        .into(),
    }
}

fn slow_start(slow: &SlowStart) -> SlowStartConfig {
    let default = SlowStart::new(slow.window);
    SlowStartConfig {
        slow_start_window: Some(to_duration(slow.window)),
        aggression: (slow.aggression != default.aggression).then(|| real(slow.aggression)),
        min_weight_percent: (slow.minimum != default.minimum).then(|| percent(slow.minimum)),
    }
}

fn real(real: Real) -> RuntimeDouble {
    RuntimeDouble {
        default_value: real.get(),
        runtime_key: NO_KEY.to_owned(),
    }
}

fn percent(value: u32) -> Percent {
    Percent {
        value: value.min(100).into(),
    }
}

fn wide(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}
