//! What both are told, in Envoy's words.

use super::cases::Case;
use mesh_core::model::{
    Address, Balancing, Endpoint, HashFunction, HashKeys, HashPolicy, HashSource, Health,
    LocalityBalancing, Real, SubsetFallback,
};
use serde_json::{Map, Value, json};

pub fn listener(routes: &[Value]) -> Value {
    json!({
        "name": "in",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "in",
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                }],
                "route_config": {
                    "name": "t",
                    "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}],
                },
            },
        }]}],
    })
}

pub fn route(case: &Case) -> Value {
    let policies: Vec<_> = case.policies.iter().map(policy).collect();
    let mut route = json!({
        "match": {"prefix": format!("/{}/", case.cluster.name)},
        "route": {"cluster": case.cluster.name.as_str(), "hash_policy": policies},
        "request_headers_to_add": [{"header": {"key": "x-edited", "value": "edited"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
    });
    if !case.subset.is_empty() {
        route["route"]["metadata_match"] =
            json!({"filter_metadata": {"envoy.lb": fields(&case.subset)}});
    }
    route
}

fn fields(of: &std::collections::BTreeMap<mesh_core::Name, mesh_core::Name>) -> Map<String, Value> {
    of.iter()
        .map(|(name, value)| (name.to_string(), serde_json::from_str(value).unwrap()))
        .collect()
}

fn policy(policy: &HashPolicy) -> Value {
    let mut value = match &policy.source {
        HashSource::Header(name, rewrite) => {
            let mut header = json!({"header_name": name.as_str()});
            if let Some((pattern, with)) = rewrite {
                header["regex_rewrite"] =
                    json!({"pattern": {"regex": pattern.source()}, "substitution": with});
            }
            json!({"header": header})
        }
        HashSource::Cookie(cookie) => {
            let mut value = json!({"name": cookie.name.as_str(), "path": cookie.path.as_str()});
            if let Some(ttl) = cookie.ttl {
                value["ttl"] = json!(format!("{}s", ttl.as_secs()));
            }
            value["attributes"] = cookie
                .attributes
                .iter()
                .map(|(name, value)| json!({"name": name.as_str(), "value": value.as_str()}))
                .collect();
            json!({"cookie": value})
        }
        HashSource::SourceIp => json!({"connection_properties": {"source_ip": true}}),
        HashSource::Query(name) => json!({"query_parameter": {"name": name.as_str()}}),
        other => panic!("{other:?}"),
    };
    value["terminal"] = json!(policy.terminal);
    value
}

pub fn cluster(case: &Case) -> Value {
    let cluster = &case.cluster;
    let endpoints: Vec<_> = case
        .endpoints
        .localities
        .iter()
        .map(|group| {
            json!({
                "locality": {
                    "region": group.locality.region.as_str(),
                    "zone": group.locality.zone.as_str(),
                    "sub_zone": group.locality.sub_zone.as_str(),
                },
                "priority": group.priority,
                "load_balancing_weight": (group.weight > 0).then_some(group.weight),
                "lb_endpoints": group.endpoints.iter().map(|e| endpoint(e)).collect::<Vec<_>>(),
            })
        })
        .collect();
    let mut value = json!({
        "name": cluster.name.as_str(),
        "type": "STATIC",
        "connect_timeout": "1s",
        "common_lb_config": {"healthy_panic_threshold": {"value": cluster.panic_threshold}},
        "load_assignment": {"cluster_name": cluster.name.as_str(), "endpoints": endpoints},
    });
    if let Some(factor) = case.endpoints.overprovisioning {
        value["load_assignment"]["policy"] = json!({"overprovisioning_factor": factor});
    }
    let drops: Vec<_> = case
        .endpoints
        .drops
        .iter()
        .map(|drop| {
            let share = json!({"numerator": drop.share.as_millionths(), "denominator": "MILLION"});
            json!({"category": drop.category.as_str(), "drop_percentage": share})
        })
        .collect();
    if !drops.is_empty() {
        value["load_assignment"]["policy"]["drop_overloads"] = json!(drops);
    }
    let keys = match cluster.balancing {
        Balancing::RingHash(ring) => {
            value["lb_policy"] = json!("RING_HASH");
            value["ring_hash_lb_config"] = json!({
                "minimum_ring_size": ring.minimum,
                "maximum_ring_size": ring.maximum,
                "hash_function": match ring.function {
                    HashFunction::Murmur2 => "MURMUR_HASH_2",
                    _ => "XX_HASH",
                },
            });
            Some(ring.keys)
        }
        Balancing::Maglev(maglev) => {
            value["lb_policy"] = json!("MAGLEV");
            value["maglev_lb_config"] = json!({"table_size": maglev.size});
            Some(maglev.keys)
        }
        Balancing::LeastRequest { choices, bias } => {
            value["lb_policy"] = json!("LEAST_REQUEST");
            let mut config = json!({"choice_count": choices});
            if bias != Real::ONE {
                config["active_request_bias"] =
                    json!({"default_value": bias.get(), "runtime_key": "bias"});
            }
            value["least_request_lb_config"] = config;
            None
        }
        Balancing::RoundRobin => {
            value["lb_policy"] = json!("ROUND_ROBIN");
            None
        }
        _ => {
            value["lb_policy"] = json!("RANDOM");
            None
        }
    };
    if let Some(keys) = keys.filter(|keys| *keys != HashKeys::default()) {
        let mut config = json!({"use_hostname_for_hashing": keys.hostname});
        if let Some(factor) = keys.balance_factor {
            config["hash_balance_factor"] = json!(factor);
        }
        value["common_lb_config"]["consistent_hashing_lb_config"] = config;
        if keys.hostname {
            // Static endpoints have no names there.
            value["type"] = json!("STRICT_DNS");
        }
    }
    match cluster.localities {
        LocalityBalancing::Weighted => {
            value["common_lb_config"]["locality_weighted_lb_config"] = json!({});
        }
        LocalityBalancing::ZoneAware(zone) => {
            value["common_lb_config"]["zone_aware_lb_config"] = json!({
                "routing_enabled": {"value": zone.enabled},
                "min_cluster_size": zone.minimum,
                "fail_traffic_on_panic": zone.fail_in_panic,
            });
        }
        _ => {}
    }
    if let Some(subsets) = &cluster.subsets {
        let fallback = |of: SubsetFallback| match of {
            SubsetFallback::Any => "ANY_ENDPOINT",
            SubsetFallback::Default => "DEFAULT_SUBSET",
            _ => "NO_FALLBACK",
        };
        let selectors: Vec<_> = subsets
            .selectors
            .iter()
            .map(|selector| {
                json!({
                    "keys": selector.keys.iter().map(|key| key.as_str()).collect::<Vec<_>>(),
                    "single_host_per_subset": selector.single,
                    "fallback_policy": selector.fallback.map_or("NOT_DEFINED", fallback),
                })
            })
            .collect();
        value["lb_subset_config"] = json!({
            "subset_selectors": selectors,
            "fallback_policy": fallback(subsets.fallback),
            "default_subset": fields(&subsets.default),
            "panic_mode_any": subsets.panic_mode_any,
        });
    }
    value
}

fn endpoint(endpoint: &Endpoint) -> Value {
    let Address::Socket(address) = endpoint.address else {
        panic!("an address")
    };
    let mut metadata = fields(&endpoint.subset);
    if !endpoint.hash_key.is_empty() {
        metadata.insert("hash_key".to_owned(), json!(endpoint.hash_key.as_str()));
    }
    json!({
        "endpoint": {
            "address": {"socket_address": {
                "address": address.ip().to_string(),
                "port_value": address.port(),
            }},
            "hostname": endpoint.hostname.as_str(),
        },
        "load_balancing_weight": endpoint.weight,
        "health_status": match endpoint.health {
            Health::Healthy => "HEALTHY",
            Health::Degraded => "DEGRADED",
            Health::Draining => "DRAINING",
            _ => "UNHEALTHY",
        },
        "metadata": {"filter_metadata": {"envoy.lb": metadata}},
    })
}
