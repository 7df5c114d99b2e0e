//! Policies, in the old fields and as extensions.

use super::endpoints;
use crate::dice::Dice;
use serde_json::{Value, json};

const POLICIES: &str = "type.googleapis.com/envoy.extensions.load_balancing_policies";

/// The only policy, as an extension.
pub(super) fn extension(cluster: &mut Value, name: &str, kind: &str, mut config: Value) {
    config["@type"] = json!(format!("{POLICIES}.{name}.v3.{kind}"));
    let named = format!("envoy.load_balancing_policies.{name}");
    cluster["load_balancing_policy"] = json!({"policies": [
        {"typed_extension_config": {"name": named, "typed_config": config}},
    ]});
}

/// The policy that there is as an extension, in another one's field.
pub(super) fn within(cluster: &mut Value, name: &str, kind: &str, field: &str) {
    let inner = cluster["load_balancing_policy"].take();
    extension(cluster, name, kind, json!({field: inner}));
}

/// Requests may name endpoints, and else the policy that there is decides.
pub(super) fn named(dice: &mut Dice, cluster: &mut Value) {
    within(cluster, "override_host", "OverrideHost", "fallback_policy");
    let sources = match dice.chance(50) {
        true => json!([{"header": "x-to"}]),
        false => json!([{"header": "x-to"}, {"header": "X-Too"}]),
    };
    let policy = &mut cluster["load_balancing_policy"]["policies"][0];
    policy["typed_extension_config"]["typed_config"]["override_host_sources"] = sources;
}

/// A ring or Maglev's table.
pub(super) fn by_hash(dice: &mut Dice, cluster: &mut Value) {
    let weighted = dice.chance(30);
    let newer = dice.chance(45);
    let mut keys = json!({});
    // The older field is for names that are looked up. Envoy begins when the first of them is, and
    // which one that is is a matter of time.
    if newer && dice.chance(40) {
        keys["use_hostname_for_hashing"] = json!(true);
        endpoints::name(dice, cluster);
    }
    if dice.chance(15) {
        keys["hash_balance_factor"] = json!(dice.pick(&[100, 110, 150, 1000]));
    }
    let ring = dice.chance(55);
    let mut config = json!({});
    if ring {
        if dice.chance(50) {
            let least = dice.pick(&[1, 3, 16, 100, 1024, 3000]);
            config["minimum_ring_size"] = json!(least);
            if dice.chance(50) {
                let most = least + dice.pick(&[0, 1, 17, 1000]);
                config["maximum_ring_size"] = json!(most);
            }
        }
        if dice.chance(35) {
            let functions = ["XX_HASH", "MURMUR_HASH_2"];
            config["hash_function"] = json!(dice.pick(&functions));
        }
    } else if dice.chance(60) {
        config["table_size"] = json!(dice.pick(&[2, 3, 13, 101, 2003, 10_007]));
    }
    let said = keys.as_object().is_some_and(|it| !it.is_empty());
    if newer {
        if said {
            config["consistent_hashing_lb_config"] = keys;
        }
        if weighted {
            config["locality_weighted_lb_config"] = json!({});
        }
        match ring {
            true => extension(cluster, "ring_hash", "RingHash", config),
            false => extension(cluster, "maglev", "Maglev", config),
        }
        return;
    }
    let name = if ring { "RING_HASH" } else { "MAGLEV" };
    cluster["lb_policy"] = json!(name);
    let field = if ring {
        "ring_hash_lb_config"
    } else {
        "maglev_lb_config"
    };
    cluster[field] = config;
    if said {
        cluster["common_lb_config"]["consistent_hashing_lb_config"] = keys;
    }
    if weighted {
        cluster["common_lb_config"]["locality_weighted_lb_config"] = json!({});
    }
}

/// A ring or a table that keeps loads even.
pub(super) fn bounded(dice: &mut Dice, cluster: &mut Value) {
    let names = ["RING_HASH", "MAGLEV"];
    cluster["lb_policy"] = json!(dice.pick(&names));
    let factor = dice.pick(&[100, 105, 120, 150, 200]);
    cluster["common_lb_config"] = json!({
        "consistent_hashing_lb_config": {"hash_balance_factor": factor},
    });
}

/// Random, round robin or least request, with or without localities.
pub(super) fn by_chance(dice: &mut Dice, cluster: &mut Value) {
    let policies = [
        ("RANDOM", "random", "Random"),
        ("ROUND_ROBIN", "round_robin", "RoundRobin"),
        ("LEAST_REQUEST", "least_request", "LeastRequest"),
        ("LEAST_REQUEST", "least_request", "LeastRequest"),
    ];
    let (older, name, kind) = dice.pick(&policies);
    let mut config = json!({});
    if older == "LEAST_REQUEST" && dice.chance(80) {
        config["choice_count"] = json!(dice.pick(&[2, 3, 5]));
        if dice.chance(80) {
            let bias = dice.pick(&[0.0, 0.5, 1.0, 2.0]);
            config["active_request_bias"] = json!({"default_value": bias, "runtime_key": "bias"});
        }
    }
    if older != "RANDOM" && dice.chance(50) {
        // Longer than any run: how new an endpoint is makes no difference.
        let mut slow = json!({"slow_start_window": "3600s"});
        if dice.chance(50) {
            slow["min_weight_percent"] = json!({"value": dice.pick(&[1, 50, 100])});
        }
        config["slow_start_config"] = slow;
    }
    if dice.chance(25) {
        // Envoy takes one category only.
        let share = json!({"numerator": dice.pick(&[0, 10, 30, 60, 100])});
        let shares = json!([{"category": "a", "drop_percentage": share}]);
        cluster["load_assignment"]["policy"]["drop_overloads"] = shares;
    }
    let localities = match dice.below(10) {
        0..3 => json!({"locality_weighted_lb_config": {}}),
        3..8 => json!({"zone_aware_lb_config": zones(dice)}),
        _ => json!({}),
    };
    if dice.chance(50) {
        if localities.as_object().is_some_and(|it| !it.is_empty()) {
            config["locality_lb_config"] = localities;
        }
        extension(cluster, name, kind, config);
        return;
    }
    cluster["lb_policy"] = json!(older);
    if older != "RANDOM" {
        cluster[format!("{name}_lb_config")] = config;
    }
    for (field, value) in localities.as_object().into_iter().flatten() {
        cluster["common_lb_config"][field] = value.clone();
    }
}

fn zones(dice: &mut Dice) -> Value {
    let mut zones = json!({});
    if dice.chance(60) {
        zones["min_cluster_size"] = json!(dice.pick(&[1, 3, 6]));
    }
    if dice.chance(40) {
        zones["routing_enabled"] = json!({"value": dice.pick(&[0, 50, 100])});
    }
    if dice.chance(60) {
        zones["fail_traffic_on_panic"] = json!(true);
    }
    zones
}

/// Endpoints whose turn comes in an order that is known: the cluster, how many there are, and after
/// how many turns it begins anew.
pub(super) fn turns(dice: &mut Dice, exact: bool) -> (Value, usize, usize) {
    let hosts = dice.between(1, 7);
    let alike = exact && dice.chance(50);
    // Sums of such shares are exact, so nobody's turn moves.
    let weights: &[usize] = if exact {
        &[1, 2, 4, 8]
    } else {
        &[1, 3, 5, 7, 10]
    };
    let weights: Vec<usize> = (0..hosts)
        .map(|_| if alike { 1 } else { dice.pick(weights) })
        .collect();
    let endpoints: Vec<Value> = (11..)
        .zip(&weights)
        .map(|(number, weight)| {
            json!({
                "endpoint": {"address": {"socket_address": {
                    "address": format!("127.0.0.{number}"), "port_value": "@w",
                }}},
                "load_balancing_weight": weight,
            })
        })
        .collect();
    let mut cluster = json!({
        "name": "$x",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "$x", "endpoints": [{"lb_endpoints": endpoints}]},
    });
    let same = weights.iter().all(|weight| *weight == weights[0]);
    if !same && dice.chance(30) {
        // By weight it is a turn, too, as long as nothing is under way.
        cluster["lb_policy"] = json!("LEAST_REQUEST");
    } else if dice.chance(30) {
        extension(&mut cluster, "round_robin", "RoundRobin", json!({}));
    } else {
        cluster["lb_policy"] = json!("ROUND_ROBIN");
    }
    let whole = if same { hosts } else { weights.iter().sum() };
    (cluster, hosts, whole)
}
