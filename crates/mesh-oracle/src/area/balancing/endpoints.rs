//! Endpoints in localities and priorities, some of them not well.

use crate::dice::Dice;
use serde_json::{Value, json};

const HEALTH: [&str; 7] = [
    "HEALTHY",
    "UNKNOWN",
    "UNHEALTHY",
    "UNHEALTHY",
    "TIMEOUT",
    "DRAINING",
    "DEGRADED",
];

/// A cluster without a policy.
pub(super) fn cluster(dice: &mut Dice) -> Value {
    let mut next = 10;
    let sick = dice.pick(&[0, 0, 15, 40, 80, 100]);
    let weights = dice.chance(50);
    let tiers = dice.pick(&[1, 1, 1, 2, 3]);
    let mut groups = Vec::new();
    for priority in 0..tiers {
        let zones = dice.pick(&[1, 1, 2, 3]);
        let start = dice.below(4);
        for zone in 0..zones {
            let most = dice.pick(&[1, 3, 6, 9]);
            let least = usize::from(dice.chance(95));
            let hosts = dice.between(least, most);
            let hosts = (0..hosts)
                .map(|_| {
                    next += 1;
                    host(dice, next, sick, weights)
                })
                .collect();
            let zone = ["own", "b", "a", "z"][(start + zone) % 4];
            groups.push(group(dice, zone, priority, hosts));
        }
    }
    let mut cluster = json!({
        "name": "$x",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "$x", "endpoints": groups},
    });
    if dice.chance(25) {
        let factor = dice.pick(&[50, 100, 120, 200, 1000]);
        cluster["load_assignment"]["policy"] = json!({"overprovisioning_factor": factor});
    }
    if dice.chance(40) {
        let share = dice.pick(&[0, 0, 1, 20, 50, 70, 100]);
        cluster["common_lb_config"] = json!({"healthy_panic_threshold": {"value": share}});
    }
    cluster
}

/// A few healthy endpoints without a policy, and how many.
pub(super) fn alike(dice: &mut Dice) -> (Value, usize) {
    let number = dice.between(2, 6);
    let weights = dice.chance(40);
    let hosts = (11..11 + number)
        .map(|at| host(dice, at, 0, weights))
        .collect();
    let group = group(dice, "a", 0, hosts);
    let cluster = json!({
        "name": "$x",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "$x", "endpoints": [group]},
    });
    (cluster, number)
}

/// Gives them all names.
pub(super) fn name(dice: &mut Dice, cluster: &mut Value) {
    let groups = cluster["load_assignment"]["endpoints"].as_array_mut();
    let hosts = groups
        .into_iter()
        .flatten()
        .filter_map(|group| group["lb_endpoints"].as_array_mut());
    for (at, host) in hosts.flatten().enumerate() {
        let name = match dice.chance(90) {
            true => format!("name-{at}.test"),
            false => format!("{at}"),
        };
        host["endpoint"]["hostname"] = json!(name);
    }
}

fn group(dice: &mut Dice, zone: &str, priority: usize, hosts: Vec<Value>) -> Value {
    let mut group = json!({
        "locality": {"region": "r", "zone": zone},
        "priority": priority,
        "lb_endpoints": hosts,
    });
    if dice.chance(10) {
        group["locality"]["sub_zone"] = json!("s");
    }
    if dice.chance(70) {
        group["load_balancing_weight"] = json!(dice.pick(&[1, 1, 2, 3, 10, 100]));
    }
    group
}

fn host(dice: &mut Dice, number: usize, sick: usize, weights: bool) -> Value {
    let mut host = json!({"endpoint": {"address": {"socket_address": {
        "address": format!("127.0.0.{number}"), "port_value": "@w",
    }}}});
    if dice.chance(sick) {
        host["health_status"] = json!(dice.pick(&HEALTH));
    }
    if weights && dice.chance(80) {
        host["load_balancing_weight"] = json!(dice.pick(&[1, 1, 2, 3, 7, 50, 128]));
    }
    let mut said = serde_json::Map::new();
    for (key, values) in super::subsets::LABELS {
        if dice.chance(75) {
            said.insert((*key).into(), values(dice));
        }
    }
    if dice.chance(15) {
        // With one key for two endpoints it is the order of a sort that decides.
        let key = dice.pick(&[json!(format!("key of {number}")), json!("")]);
        let other = json!(number);
        let key = if dice.chance(85) { key } else { other };
        said.insert("hash_key".into(), key);
    }
    if dice.chance(60) {
        host["metadata"] = json!({"filter_metadata": {"envoy.lb": said}});
    }
    if dice.chance(15) {
        host["endpoint"]["hostname"] = json!(format!("host-{number}.test"));
    }
    host
}
