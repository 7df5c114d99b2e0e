//! Endpoints that are weighed by what they report.

use super::{config, policy, route};
use crate::config::Config;
use crate::dice::Dice;
use crate::request::Call;
use serde_json::{Value, json};

/// Longer than weights are looked at, on a machine that others share.
const SETTLED: u64 = 700;

/// Reports first, until each endpoint has answered, and then requests by what was reported.
pub(super) fn generate(dice: &mut Dice, requests: usize) -> Config {
    let hosts = dice.between(2, 5);
    let heavy = dice.chance(40);
    let endpoints: Vec<Value> = (11..11 + hosts)
        .map(|number| {
            let mut host = json!({"endpoint": {"address": {"socket_address": {
                "address": format!("127.0.0.{number}"), "port_value": "@w",
            }}}});
            if heavy {
                // It does not count.
                host["load_balancing_weight"] = json!(dice.pick(&[1, 5, 50]));
            }
            host
        })
        .collect();
    let mut cluster = json!({
        "name": "$x",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "$x", "endpoints": [{
            "locality": {"region": "r", "zone": "a"},
            "load_balancing_weight": 1,
            "lb_endpoints": endpoints,
        }]},
    });
    let mut asked = json!({
        // One in five has no weight of its own before the end of all requests.
        "blackout_period": dice.pick(&["0s", "0s", "0s", "0s", "600s"]),
        "weight_update_period": dice.pick(&["0.1s", "0.01s", "0.2s"]),
    });
    if dice.chance(60) {
        asked["error_utilization_penalty"] = json!(dice.pick(&[0.0, 0.5, 1.0, 2.0]));
    }
    if dice.chance(60) {
        let names = [
            "named_metrics.a",
            "utilization.*",
            "mem_utilization",
            "nothing",
        ];
        let names: Vec<_> = names.into_iter().filter(|_| dice.chance(50)).collect();
        asked["metric_names_for_computing_utilization"] = json!(names);
    }
    policy::extension(
        &mut cluster,
        "client_side_weighted_round_robin",
        "ClientSideWeightedRoundRobin",
        asked,
    );
    if dice.chance(30) {
        policy::within(
            &mut cluster,
            "wrr_locality",
            "WrrLocality",
            "endpoint_picking_policy",
        );
    }
    let said: Vec<String> = (11..11 + hosts).map(|at| report(dice, at)).collect();
    let said = said.join("|");
    // At first all weigh the same.
    let telling = (0..4 * hosts).map(|at| {
        let mut call = Call::get("/0/")
            .with("x-judge", "any")
            .with("x-load", &said);
        call.wait = if at == 0 { SETTLED } else { 0 };
        call
    });
    let weighed = (0..requests).map(|at| {
        let mut call = Call::get("/0/").with("x-judge", "weights reported");
        call.wait = if at == 0 { SETTLED } else { 0 };
        call
    });
    let mut calls: Vec<_> = telling.collect();
    calls.extend(weighed);
    config(vec![route(0)], json!({}), cluster, calls)
}

/// What the endpoint at this address says of its load: a kind, and the report.
fn report(dice: &mut Dice, at: usize) -> String {
    let requests = dice.pick(&[10, 20, 35, 50]);
    let utilization = dice.pick(&[0.5, 1.0, 2.5]);
    let mut metrics = vec![
        ("rps_fractional", requests.to_string()),
        ("cpu_utilization", utilization.to_string()),
    ];
    for (name, values) in [
        ("eps", ["1", "5", "10"]),
        ("mem_utilization", ["0.25", "0.5", "0.9"]),
        ("application_utilization", ["0", "0.5", "2"]),
        ("named_metrics.a", ["0", "0.5", "4"]),
        ("utilization.b", ["0.1", "1", "1.5"]),
    ] {
        if dice.chance(35) {
            metrics.push((name, dice.pick(&values).to_owned()));
        }
    }
    let kind = match dice.below(10) {
        0..5 => "TEXT",
        5..7 => "BIN",
        7..8 => "bin",
        8..9 => "JSON",
        // It says nothing.
        _ => return String::new(),
    };
    if dice.chance(10) {
        metrics.push(("odd", "x".to_owned()));
    }
    let metrics = metrics
        .iter()
        .map(|(name, value)| format!("{name}:{value}"));
    let metrics = metrics.collect::<Vec<_>>().join(",");
    format!("127.0.0.{at} {kind} {metrics}")
}
