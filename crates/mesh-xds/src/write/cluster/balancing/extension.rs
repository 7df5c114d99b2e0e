//! Policies as extensions, where the older fields cannot say what there is to say.

use super::{NO_KEY, is_provided, percent, slow_start, subsets, wide};
use crate::pb::envoy::config::cluster::v3::LoadBalancingPolicy;
use crate::pb::envoy::config::cluster::v3::cluster::SlowStartConfig;
use crate::pb::envoy::config::cluster::v3::load_balancing_policy::Policy;
use crate::pb::envoy::config::core::v3::{RuntimeDouble, TypedExtensionConfig};
use crate::pb::envoy::extensions::load_balancing_policies::client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin;
use crate::pb::envoy::extensions::load_balancing_policies::common::v3::locality_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig, ZoneAwareLbConfig,
};
use crate::pb::envoy::extensions::load_balancing_policies::common::v3::{
    ConsistentHashingLbConfig, LocalityLbConfig, SlowStartConfig as Slow,
};
use crate::pb::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use crate::pb::envoy::extensions::load_balancing_policies::maglev::v3::Maglev;
use crate::pb::envoy::extensions::load_balancing_policies::override_host::v3::{
    OverrideHost, override_host::OverrideHostSource,
};
use crate::pb::envoy::extensions::load_balancing_policies::random::v3::Random;
use crate::pb::envoy::extensions::load_balancing_policies::ring_hash::v3::{
    RingHash, ring_hash::HashFunction as Function,
};
use crate::pb::envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin;
use crate::pb::envoy::extensions::load_balancing_policies::subset::v3::{
    Subset, subset::LbSubsetSelector,
};
use crate::pb::envoy::extensions::load_balancing_policies::wrr_locality::v3::WrrLocality;
use crate::pb::google::protobuf::FloatValue;
use crate::wire::{pack, to_duration, to_number};
use mesh_core::model::{
    Balancing, Cluster, HashFunction, HashKeys, LocalityBalancing, ReportedWeights,
};

/// The policy, where it has to be one of these.
pub(super) fn policy(cluster: &Cluster) -> Option<LoadBalancingPolicy> {
    if is_provided(cluster) {
        return None;
    }
    let parts = parts(cluster);
    if cluster.host_headers.is_empty() {
        let reported = cluster.weighed_by_reports().map(|_| in_parts(cluster));
        return parts.or(reported);
    }
    let sources = cluster
        .host_headers
        .iter()
        .map(|header| OverrideHostSource {
            header: header.to_string(),
            metadata: None,
        });
    let config = OverrideHost {
        override_host_sources: sources.collect(),
        fallback_policy: Some(parts.unwrap_or_else(|| in_parts(cluster))),
        ..OverrideHost::default()
    };
    Some(named("override_host", &config))
}

/// The policy for the endpoints of all parts, where there are parts.
fn in_parts(cluster: &Cluster) -> LoadBalancingPolicy {
    as_subsets(cluster).unwrap_or_else(|| chosen(cluster))
}

/// The parts that only the newer field can say.
fn parts(cluster: &Cluster) -> Option<LoadBalancingPolicy> {
    let own = cluster.subsets.as_deref()?;
    as_subsets(cluster).filter(|_| own.redundant_keys)
}

fn as_subsets(cluster: &Cluster) -> Option<LoadBalancingPolicy> {
    let own = cluster.subsets.as_deref()?;
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
    if let Some(policy) = cluster.weighed_by_reports() {
        let reported = named(
            "client_side_weighted_round_robin",
            &reported(policy, slow_start_config),
        );
        // It knows no localities by itself.
        return match weighted {
            false => reported,
            true => named(
                "wrr_locality",
                &WrrLocality {
                    endpoint_picking_policy: Some(reported),
                },
            ),
        };
    }
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

/// Envoy's defaults are not written.
fn reported(policy: &ReportedWeights, slow: Option<Slow>) -> ClientSideWeightedRoundRobin {
    let default = ReportedWeights::default();
    let period = |period, default| (period != default).then(|| to_duration(period));
    let names = policy.utilization.iter();
    ClientSideWeightedRoundRobin {
        blackout_period: period(policy.blackout, default.blackout),
        weight_expiration_period: period(policy.expiration, default.expiration),
        weight_update_period: period(policy.update, default.update),
        error_utilization_penalty: (policy.error_penalty != default.error_penalty).then(|| {
            FloatValue {
                value: policy.error_penalty.get() as f32,
            }
        }),
        metric_names_for_computing_utilization: names.map(ToString::to_string).collect(),
        slow_start_config: slow,
        ..ClientSideWeightedRoundRobin::default()
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
