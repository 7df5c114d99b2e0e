//! Policies as extensions.

use super::{Chosen, hash, locality, reported, sessions, subset, weight};
use crate::pb::envoy::config::cluster::v3 as pb;
use crate::pb::envoy::config::cluster::v3::cluster::SlowStartConfig;
use crate::pb::envoy::extensions::load_balancing_policies::client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin;
use crate::pb::envoy::extensions::load_balancing_policies::common::v3::{
    ConsistentHashingLbConfig, SlowStartConfig as Slow,
};
use crate::pb::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use crate::pb::envoy::extensions::load_balancing_policies::maglev::v3::Maglev;
use crate::pb::envoy::extensions::load_balancing_policies::override_host::v3::OverrideHost;
use crate::pb::envoy::extensions::load_balancing_policies::random::v3::Random;
use crate::pb::envoy::extensions::load_balancing_policies::ring_hash::v3::{
    RingHash, ring_hash::HashFunction as Function,
};
use crate::pb::envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin;
use crate::pb::envoy::extensions::load_balancing_policies::subset::v3::Subset;
use crate::pb::envoy::extensions::load_balancing_policies::wrr_locality::v3::WrrLocality;
use crate::pb::google::protobuf::{Any, UInt32Value};
use crate::wire::{At, boolean, enumeration, refuse, required, type_name, unpack};
use mesh_core::Invalid;
use mesh_core::model::{Balancing, HashFunction, HashKeys, LocalityBalancing, SlowStart};
use prost::Name as _;

/// The first policy that is known here, as Envoy and gRPC do it.
pub(super) fn read(value: &pb::LoadBalancingPolicy) -> Result<Chosen, Invalid> {
    inside(value, 0)
}

/// How deep policies may stand in one another (gRFC A52).
const DEPTH: usize = 16;

fn inside(value: &pb::LoadBalancingPolicy, depth: usize) -> Result<Chosen, Invalid> {
    let pb::LoadBalancingPolicy { policies } = value;
    if depth >= DEPTH {
        let message = format!("more than {DEPTH} policies in one another");
        return Err(Invalid::new("policies", message));
    }
    let mut unknown = Vec::new();
    for (at, policy) in policies.iter().enumerate() {
        let pb::load_balancing_policy::Policy {
            typed_extension_config,
        } = policy;
        let inner = || {
            let config = required("typed_extension_config", typed_extension_config)?;
            let any =
                required("typed_config", &config.typed_config).at("typed_extension_config")?;
            known(any, depth).at("typed_extension_config.typed_config")
        };
        match inner().at(format_args!("policies[{at}]"))? {
            Ok(chosen) => return Ok(chosen),
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
fn known(any: &Any, depth: usize) -> Result<Result<Chosen, String>, Invalid> {
    let name = type_name(any);
    let chosen = if name == RoundRobin::full_name() {
        let RoundRobin {
            slow_start_config,
            locality_lb_config,
        } = &unpack(any)?;
        Chosen {
            balancing: Balancing::RoundRobin,
            slow_start: slow_start(slow_start_config.as_ref())?,
            localities: locality::read(locality_lb_config.as_ref())?,
            ..Chosen::default()
        }
    } else if name == LeastRequest::full_name() {
        least_request(&unpack(any)?)?
    } else if name == Random::full_name() {
        let Random { locality_lb_config } = &unpack(any)?;
        Chosen {
            balancing: Balancing::Random,
            localities: locality::read(locality_lb_config.as_ref())?,
            ..Chosen::default()
        }
    } else if name == RingHash::full_name() {
        ring(&unpack(any)?)?
    } else if name == Maglev::full_name() {
        maglev(&unpack(any)?)?
    } else if name == WrrLocality::full_name() {
        let WrrLocality {
            endpoint_picking_policy,
        } = &unpack(any)?;
        let field = "endpoint_picking_policy";
        let mut chosen = inside(required(field, endpoint_picking_policy)?, depth + 1).at(field)?;
        not_inside(&chosen, field)?;
        chosen.localities = LocalityBalancing::Weighted;
        chosen
    } else if name == ClientSideWeightedRoundRobin::full_name() {
        reported::read(&unpack(any)?)?
    } else if name == OverrideHost::full_name() {
        let value: OverrideHost = unpack(any)?;
        let headers = sessions::headers(&value)?;
        let field = "fallback_policy";
        let mut chosen = inside(required(field, &value.fallback_policy)?, depth + 1).at(field)?;
        not_inside(&chosen, field)?;
        chosen.host_headers = headers;
        chosen
    } else if name == Subset::full_name() {
        let value: Subset = unpack(any)?;
        let subsets = subset::extension(&value)?;
        let field = "subset_lb_policy";
        let mut chosen = inside(required(field, &value.subset_lb_policy)?, depth + 1).at(field)?;
        if chosen.subsets.is_some() {
            return Err(Invalid::new(field, "subsets of subsets are not supported"));
        }
        not_inside(&chosen, field)?;
        chosen.subsets = subsets;
        chosen
    } else {
        return Ok(Err(name.to_owned()));
    };
    Ok(Ok(chosen))
}

/// Endpoints are named for a whole cluster, by one policy that has all others in it.
fn not_inside(chosen: &Chosen, field: &str) -> Result<(), Invalid> {
    if chosen.host_headers.is_empty() {
        return Ok(());
    }
    let message = "override_host in another policy is not supported";
    Err(Invalid::new(field, message))
}

#[expect(deprecated, reason = "Envoy still reads `enable_full_scan`")]
fn least_request(value: &LeastRequest) -> Result<Chosen, Invalid> {
    let LeastRequest {
        choice_count,
        active_request_bias,
        slow_start_config,
        locality_lb_config,
        enable_full_scan,
        selection_method,
    } = value;
    refuse!(selection_method);
    if boolean(enable_full_scan.as_ref(), false) {
        refuse!(enable_full_scan);
    }
    Ok(Chosen {
        balancing: weight::least_request(choice_count.as_ref(), active_request_bias.as_ref())?,
        slow_start: slow_start(slow_start_config.as_ref())?,
        localities: locality::read(locality_lb_config.as_ref())?,
        ..Chosen::default()
    })
}

#[expect(deprecated, reason = "Envoy still reads the older spellings of keys")]
fn ring(value: &RingHash) -> Result<Chosen, Invalid> {
    let RingHash {
        hash_function,
        minimum_ring_size,
        maximum_ring_size,
        use_hostname_for_hashing,
        hash_balance_factor,
        consistent_hashing_lb_config,
        locality_weighted_lb_config,
    } = value;
    let older = (*use_hostname_for_hashing, hash_balance_factor.as_ref());
    let ring = hash::Ring {
        minimum: hash::wide(minimum_ring_size.as_ref()),
        maximum: hash::wide(maximum_ring_size.as_ref()),
        function: match enumeration("hash_function", *hash_function)? {
            Function::DefaultHash | Function::XxHash => HashFunction::XxHash,
            Function::MurmurHash2 => HashFunction::Murmur2,
        },
    };
    let keys = keys(consistent_hashing_lb_config.as_ref(), older)?;
    Ok(Chosen {
        balancing: hash::ring(&ring, keys)?,
        localities: weighted(locality_weighted_lb_config.is_some()),
        ..Chosen::default()
    })
}

fn maglev(value: &Maglev) -> Result<Chosen, Invalid> {
    let Maglev {
        table_size,
        consistent_hashing_lb_config,
        locality_weighted_lb_config,
    } = value;
    let keys = keys(consistent_hashing_lb_config.as_ref(), (false, None))?;
    Ok(Chosen {
        balancing: hash::maglev(table_size.as_ref(), keys)?,
        localities: weighted(locality_weighted_lb_config.is_some()),
        ..Chosen::default()
    })
}

fn weighted(asked: bool) -> LocalityBalancing {
    match asked {
        true => LocalityBalancing::Weighted,
        false => LocalityBalancing::Ignored,
    }
}

/// With the newer message Envoy does not look at the older fields.
fn keys(
    value: Option<&ConsistentHashingLbConfig>,
    (hostname, factor): (bool, Option<&UInt32Value>),
) -> Result<HashKeys, Invalid> {
    let Some(ConsistentHashingLbConfig {
        use_hostname_for_hashing,
        hash_balance_factor,
        hash_policy,
    }) = value
    else {
        return hash::factor(hostname, factor);
    };
    let read = || {
        refuse!(hash_policy);
        hash::factor(*use_hostname_for_hashing, hash_balance_factor.as_ref())
    };
    read().at("consistent_hashing_lb_config")
}

pub(super) fn slow_start(value: Option<&Slow>) -> Result<Option<SlowStart>, Invalid> {
    let older = value.map(|value| {
        let Slow {
            slow_start_window,
            aggression,
            min_weight_percent,
        } = value;
        SlowStartConfig {
            slow_start_window: *slow_start_window,
            aggression: aggression.clone(),
            min_weight_percent: *min_weight_percent,
        }
    });
    weight::slow_start(older.as_ref())
}
