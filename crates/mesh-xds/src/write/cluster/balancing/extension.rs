//! Policies as extensions, where the older fields cannot say what there is to say.

use super::{NO_KEY, percent, slow_start, subsets, wide};
use crate::pb::envoy::config::cluster::v3::LoadBalancingPolicy;
use crate::pb::envoy::config::cluster::v3::cluster::SlowStartConfig;
use crate::pb::envoy::config::cluster::v3::load_balancing_policy::Policy;
use crate::pb::envoy::config::core::v3::{RuntimeDouble, TypedExtensionConfig};
use crate::pb::envoy::extensions::load_balancing_policies::common::v3::locality_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig, ZoneAwareLbConfig,
};
use crate::pb::envoy::extensions::load_balancing_policies::common::v3::{
    ConsistentHashingLbConfig, LocalityLbConfig, SlowStartConfig as Slow,
};
use crate::pb::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use crate::pb::envoy::extensions::load_balancing_policies::maglev::v3::Maglev;
use crate::pb::envoy::extensions::load_balancing_policies::random::v3::Random;
use crate::pb::envoy::extensions::load_balancing_policies::ring_hash::v3::{
    RingHash, ring_hash::HashFunction as Function,
};
use crate::pb::envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin;
use crate::pb::envoy::extensions::load_balancing_policies::subset::v3::{
    Subset, subset::LbSubsetSelector,
};
use crate::wire::{pack, to_number};
use mesh_core::model::{Balancing, Cluster, HashFunction, HashKeys, LocalityBalancing};

/// The policy, where it has to be one of these.
pub(super) fn policy(cluster: &Cluster) -> Option<LoadBalancingPolicy> {
    let own = cluster
        .subsets
        .as_deref()
        .filter(|own| own.redundant_keys)?;
    let older = subsets(cluster)?;
    // The numbers of both are the same.
    let selectors = older.subset_selectors.into_iter();
    let selectors = selectors.map(|selector| LbSubsetSelector {
        keys: selector.keys,
        single_host_per_subset: selector.single_host_per_subset,
        fallback_policy: selector.fallback_policy,
        fallback_keys_subset: selector.fallback_keys_subset,
    });
    let config = Subset {
        fallback_policy: older.fallback_policy,
        default_subset: older.default_subset,
        subset_selectors: selectors.collect(),
        allow_redundant_keys: own.redundant_keys,
        locality_weight_aware: older.locality_weight_aware,
        scale_locality_weight: older.scale_locality_weight,
        panic_mode_any: older.panic_mode_any,
        list_as_any: older.list_as_any,
        metadata_fallback_policy: older.metadata_fallback_policy,
        subset_lb_policy: Some(chosen(cluster)),
    };
    Some(named("subset", &config))
}

/// The policy that chooses among the endpoints of one part, or of all.
fn chosen(cluster: &Cluster) -> LoadBalancingPolicy {
    let slow_start_config = cluster
        .slow_start
        .as_ref()
        .map(|slow| newer(slow_start(slow)));
    let locality_lb_config = localities(&cluster.localities);
    let weighted = cluster.localities == LocalityBalancing::Weighted;
    let locality_weighted_lb_config = weighted.then(LocalityWeightedLbConfig::default);
    match &cluster.balancing {
        Balancing::RoundRobin => named(
            "round_robin",
            &RoundRobin {
                slow_start_config,
                locality_lb_config,
            },
        ),
        Balancing::LeastRequest { choices, bias } => named(
            "least_request",
            &LeastRequest {
                choice_count: to_number((*choices).max(super::CHOICES)),
                active_request_bias: Some(RuntimeDouble {
                    default_value: bias.get(),
                    runtime_key: NO_KEY.to_owned(),
                }),
                slow_start_config,
                locality_lb_config,
                ..LeastRequest::default()
            },
        ),
        Balancing::RingHash(ring) => named(
            "ring_hash",
            &RingHash {
                hash_function: match ring.function {
                    HashFunction::Murmur2 => Function::MurmurHash2,
                    _ => Function::XxHash,
                }
                .into(),
                minimum_ring_size: wide(ring.minimum),
                maximum_ring_size: wide(ring.maximum),
                consistent_hashing_lb_config: Some(keys(ring.keys)),
                locality_weighted_lb_config,
                ..RingHash::default()
            },
        ),
        Balancing::Maglev(table) => named(
            "maglev",
            &Maglev {
                table_size: wide(table.size),
                consistent_hashing_lb_config: Some(keys(table.keys)),
                locality_weighted_lb_config,
            },
        ),
        _ => named("random", &Random { locality_lb_config }),
    }
}

fn named<M: prost::Name>(name: &str, config: &M) -> LoadBalancingPolicy {
    LoadBalancingPolicy {
        policies: vec![Policy {
            typed_extension_config: Some(TypedExtensionConfig {
                name: format!("envoy.load_balancing_policies.{name}"),
                typed_config: Some(pack(config)),
            }),
        }],
    }
}

fn newer(slow: SlowStartConfig) -> Slow {
    Slow {
        slow_start_window: slow.slow_start_window,
        aggression: slow.aggression,
        min_weight_percent: slow.min_weight_percent,
    }
}

fn keys(keys: HashKeys) -> ConsistentHashingLbConfig {
    ConsistentHashingLbConfig {
        use_hostname_for_hashing: keys.hostname,
        hash_balance_factor: keys.balance_factor.and_then(|at| to_number(at.max(100))),
        ..ConsistentHashingLbConfig::default()
    }
}

fn localities(localities: &LocalityBalancing) -> Option<LocalityLbConfig> {
    let specifier = match localities {
        LocalityBalancing::Weighted => {
            LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig::default())
        }
        LocalityBalancing::ZoneAware(zones) => {
            LocalityConfigSpecifier::ZoneAwareLbConfig(ZoneAwareLbConfig {
                routing_enabled: Some(percent(zones.enabled)),
                min_cluster_size: wide(zones.minimum),
                fail_traffic_on_panic: zones.fail_in_panic,
                ..ZoneAwareLbConfig::default()
            })
        }
        _ => return None,
    };
    Some(LocalityLbConfig {
        locality_config_specifier: Some(specifier),
    })
}
