//! How an endpoint is chosen.

use crate::pb::envoy::config::cluster::v3 as pb;
use crate::pb::envoy::config::cluster::v3::cluster::{
    CommonLbConfig, LbConfig, LbPolicy, LeastRequestLbConfig, OriginalDstLbConfig,
    RoundRobinLbConfig,
};
use crate::pb::envoy::extensions::load_balancing_policies::common::v3::LocalityLbConfig;
use crate::pb::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use crate::pb::envoy::extensions::load_balancing_policies::random::v3::Random;
use crate::pb::envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin;
use crate::pb::google::protobuf::{Any, UInt32Value};
use crate::wire::{
    At, boolean, enumeration, number, refuse, required, type_name, unpack, unsupported,
};
use mesh_core::Invalid;
use mesh_core::model::{Balancing, DiscoveryKind, Real};
use prost::Name as _;

/// The fields of a cluster that say how an endpoint is chosen.
pub(super) struct Parts<'a> {
    pub(super) discovery: DiscoveryKind,
    pub(super) policy: i32,
    pub(super) config: Option<&'a LbConfig>,
    pub(super) policies: Option<&'a pb::LoadBalancingPolicy>,
}

pub(super) fn read(parts: &Parts<'_>) -> Result<Balancing, Invalid> {
    // As in Envoy, the newer field wins whatever the older one says.
    if let Some(policies) = parts.policies {
        return extension(policies).at("load_balancing_policy");
    }
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
    match (policy, parts.config) {
        (LbPolicy::RoundRobin, None) => Ok(Balancing::RoundRobin),
        (LbPolicy::RoundRobin, Some(LbConfig::RoundRobinLbConfig(config))) => {
            let RoundRobinLbConfig { slow_start_config } = config;
            let plain = || {
                refuse!(slow_start_config);
                Ok(Balancing::RoundRobin)
            };
            plain().at("round_robin_lb_config")
        }
        (LbPolicy::LeastRequest, None) => Ok(Balancing::LEAST_REQUEST),
        (LbPolicy::LeastRequest, Some(LbConfig::LeastRequestLbConfig(config))) => {
            least_request(config).at("least_request_lb_config")
        }
        (LbPolicy::Random, None) => Ok(Balancing::Random),
        (LbPolicy::ClusterProvided, None) => Ok(Balancing::default()),
        (LbPolicy::ClusterProvided, Some(LbConfig::OriginalDstLbConfig(config))) => {
            let OriginalDstLbConfig {
                use_http_header,
                http_header_name,
                upstream_port_override,
                metadata_key,
            } = config;
            let plain = || {
                refuse!(
                    use_http_header,
                    http_header_name,
                    upstream_port_override,
                    metadata_key
                );
                Ok(Balancing::default())
            };
            plain().at("original_dst_lb_config")
        }
        (LbPolicy::LoadBalancingPolicyConfig, _) => {
            let message = "required by lb_policy, but missing";
            Err(Invalid::new("load_balancing_policy", message))
        }
        (LbPolicy::RingHash | LbPolicy::Maglev, _) => {
            let message = format!("{} is not supported yet", policy.as_str_name());
            Err(Invalid::new("lb_policy", message))
        }
        (_, Some(other)) => {
            let message = format!("does not go with lb_policy {}", policy.as_str_name());
            Err(Invalid::new(name(other), message))
        }
    }
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

fn least_request(config: &LeastRequestLbConfig) -> Result<Balancing, Invalid> {
    let LeastRequestLbConfig {
        choice_count,
        active_request_bias,
        slow_start_config,
    } = config;
    refuse!(active_request_bias, slow_start_config);
    choices(choice_count.as_ref())
}

fn choices(count: Option<&UInt32Value>) -> Result<Balancing, Invalid> {
    match number(count).unwrap_or(2) {
        few @ (0 | 1) => {
            let message = format!("{few} is too few to choose from; use 2 or more");
            Err(Invalid::new("choice_count", message))
        }
        choices => Ok(Balancing::LeastRequest {
            choices,
            bias: Real::ONE,
        }),
    }
}

/// The first policy that is known here, as Envoy and gRPC do it.
fn extension(value: &pb::LoadBalancingPolicy) -> Result<Balancing, Invalid> {
    let pb::LoadBalancingPolicy { policies } = value;
    let mut unknown = Vec::new();
    for (at, policy) in policies.iter().enumerate() {
        let pb::load_balancing_policy::Policy {
            typed_extension_config,
        } = policy;
        let inner = || {
            let config = required("typed_extension_config", typed_extension_config)?;
            let any =
                required("typed_config", &config.typed_config).at("typed_extension_config")?;
            known(any).at("typed_extension_config.typed_config")
        };
        match inner().at(format_args!("policies[{at}]"))? {
            Ok(balancing) => return Ok(balancing),
            Err(name) => unknown.push(name),
        }
    }
    let message = match unknown.as_slice() {
        [] => "has no policy".to_owned(),
        names => format!("not supported: {}", names.join(", ")),
    };
    Err(Invalid::new("policies", message))
}

/// The policy, or its name where it is not known.
fn known(any: &Any) -> Result<Result<Balancing, String>, Invalid> {
    let name = type_name(any);
    if name == RoundRobin::full_name() {
        let RoundRobin {
            slow_start_config,
            locality_lb_config,
        } = &unpack(any)?;
        refuse!(slow_start_config);
        locality(locality_lb_config.as_ref())?;
        Ok(Ok(Balancing::RoundRobin))
    } else if name == LeastRequest::full_name() {
        least_request_extension(&unpack(any)?).map(Ok)
    } else if name == Random::full_name() {
        let Random { locality_lb_config } = &unpack(any)?;
        locality(locality_lb_config.as_ref())?;
        Ok(Ok(Balancing::Random))
    } else {
        Ok(Err(name.to_owned()))
    }
}

#[expect(deprecated, reason = "Envoy still reads `enable_full_scan`")]
fn least_request_extension(value: &LeastRequest) -> Result<Balancing, Invalid> {
    let LeastRequest {
        choice_count,
        active_request_bias,
        slow_start_config,
        locality_lb_config,
        enable_full_scan,
        selection_method,
    } = value;
    refuse!(active_request_bias, slow_start_config, selection_method);
    if boolean(enable_full_scan.as_ref(), false) {
        refuse!(enable_full_scan);
    }
    locality(locality_lb_config.as_ref())?;
    choices(choice_count.as_ref())
}

fn locality(value: Option<&LocalityLbConfig>) -> Result<(), Invalid> {
    let Some(LocalityLbConfig {
        locality_config_specifier,
    }) = value
    else {
        return Ok(());
    };
    match locality_config_specifier {
        None => Ok(()),
        Some(_) => Err(unsupported("locality_lb_config.locality_config_specifier")),
    }
}

/// The share of healthy endpoints below which all are used, in whole percent.
pub(super) fn panic_threshold(value: &CommonLbConfig) -> Result<u32, Invalid> {
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
        consistent_hashing_lb_config,
        override_host_status,
    );
    crate::wire::pass_over!("envoy.config.cluster.v3.Cluster.CommonLbConfig": update_merge_window);
    match locality_config_specifier {
        None => {}
        Some(pb::cluster::common_lb_config::LocalityConfigSpecifier::ZoneAwareLbConfig(_)) => {
            return Err(unsupported("zone_aware_lb_config"));
        }
        Some(pb::cluster::common_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(
            _,
        )) => return Err(unsupported("locality_weighted_lb_config")),
    }
    let Some(percent) = healthy_panic_threshold else {
        return Ok(50);
    };
    if !(0.0..=100.0).contains(&percent.value) || percent.value.fract() != 0.0 {
        let message = format!("{} is not a whole number from 0 to 100", percent.value);
        return Err(Invalid::new("healthy_panic_threshold.value", message));
    }
    // Whole and from 0 to 100: checked above.
    Ok(percent.value as u32)
}
