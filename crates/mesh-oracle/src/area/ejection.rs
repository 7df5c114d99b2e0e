//! Who is taken out of balancing, when, and when it comes back: outlier detection, circuit
//! breakers, panic, and active health checks.
//!
//! Times are short, and requests come either well before something happens or well after: an
//! ejection lasts a second and ends with an interval of a tenth. A hash of a header chooses the
//! host, so which one it is depends on who is healthy and on nothing else. Failures in a row are
//! not tried again: whether a second attempt knows of the ejection that the first one led to is a
//! matter of a few milliseconds in Envoy.

use super::{cluster, cluster2, usual_clusters};
use crate::backend::HEALTH;
use crate::config::{Config, Source};
use crate::dice::Dice;
use crate::pace::{Mark, Pace};
use crate::request::Call;
use serde_json::{Value, json};

/// How long a host is out, in milliseconds.
const OUT: u64 = 1000;
/// After this everybody is back.
const BACK: u64 = 1400;
/// After this every worker knows who is out.
const TOLD: u64 = 25;
/// The requests of a burst are over by then.
const OVER: u64 = OUT - 50;
/// How long rates are measured.
const INTERVAL: u64 = 2000;
/// After this a health check has been answered as often as any threshold asks for.
const CHECKED: u64 = 800;
/// Requests in a row, which have to be over long before a host is back.
const BURST: usize = 10;

/// Where a cluster says that it speaks HTTP/2.
const OPTIONS: &str = "typed_extension_protocol_options";

/// So many kinds of configurations come up in turns.
const TURNS: usize = 12;

const HOSTS: [&str; 4] = ["a", "b", "c", "d"];

pub(super) fn generate(dice: &mut Dice, requests: usize) -> Config {
    let count = dice.between(2, 4);
    let mut hosts = HOSTS[..count].to_vec();
    let mut calls = Vec::new();
    let mut upstream;
    let mut again = dice.chance(20);
    match dice.turn(TURNS) {
        0..=3 => {
            // Failures of its own making, which one of the kinds is about.
            let local = dice.turn(TURNS) == 0;
            if local || dice.chance(25) {
                hosts.push("nobody");
            }
            upstream = balanced(dice, &hosts);
            upstream["outlier_detection"] = consecutive(dice, local);
            again = false;
            in_bursts(dice, requests, &mut calls);
        }
        turn @ 4..=6 => {
            upstream = balanced(dice, &hosts);
            // Everybody would be asked again as soon as one host is out, and nobody could say when
            // an interval ends.
            let threshold = dice.pick(&[0, 0, 30, 50]);
            upstream["common_lb_config"]["healthy_panic_threshold"]["value"] = json!(threshold);
            upstream["outlier_detection"] = rates(dice, turn);
            by_rate(dice, &hosts, requests, &mut calls);
        }
        turn @ 7..=8 => {
            upstream = balanced(dice, &hosts);
            upstream["circuit_breakers"] = match turn {
                7 => breakers(dice),
                _ => of_both(dice),
            };
            in_bursts(dice, requests.min(2 * BURST), &mut calls);
            for call in &mut calls {
                (call.wait, call.pace) = (0, Pace::default());
                if dice.chance(50) {
                    call.target = "/high".into();
                }
            }
        }
        _ => {
            if dice.chance(25) {
                hosts.push("nobody");
            }
            upstream = balanced(dice, &hosts);
            if dice.chance(60) {
                let framed = cluster2("e", &hosts)[OPTIONS].clone();
                upstream[OPTIONS] = framed;
            }
            let framed = !upstream[OPTIONS].is_null();
            upstream["health_checks"] = json!([check(dice, framed)]);
            checked(dice, &hosts, requests, &mut calls);
        }
    }
    let mut clusters = usual_clusters();
    clusters.push(upstream);
    clusters.push(cluster("control", &["m"]));
    let mut action = json!({
        "cluster": "$e",
        "hash_policy": [{"header": {"header_name": "x-key"}}],
    });
    let once = action.clone();
    let mut high = action.clone();
    high["priority"] = json!("HIGH");
    if again {
        action["retry_policy"] = json!({"retry_on": "5xx", "num_retries": 1});
    }
    let host = json!({"name": "v0", "domains": ["*"], "routes": [
        {"name": "control", "match": {"path": "/control"}, "route": {"cluster": "$control"}},
        {"name": "once", "match": {"path": "/once"}, "route": once},
        {"name": "high", "match": {"path": "/high"}, "route": high},
        {"name": "e", "match": {"prefix": "/"}, "route": action},
    ]});
    Config {
        area: "ejection",
        source: Source {
            manager: json!({"route_config": {"virtual_hosts": [host], "validate_clusters": false}}),
            clusters: json!(clusters),
        },
        calls,
    }
}

/// A cluster whose hosts are chosen by a hash.
fn balanced(dice: &mut Dice, hosts: &[&str]) -> Value {
    let mut cluster = cluster("e", hosts);
    cluster["lb_policy"] = dice.pick(&[json!("RING_HASH"), json!("MAGLEV")]);
    let threshold = dice.pick(&[0, 0, 30, 50, 70, 100]);
    cluster["common_lb_config"] = json!({
        "healthy_panic_threshold": {"value": threshold},
        // Envoy would wait up to a second before it tells its workers who is out.
        "update_merge_window": "0s",
    });
    cluster
}

fn time(millis: u64) -> String {
    format!("{}.{:03}s", millis / 1000, millis % 1000)
}

/// Ejection for failures in a row.
fn consecutive(dice: &mut Dice, local: bool) -> Value {
    let mut detection = json!({
        "interval": "0.100s",
        "base_ejection_time": time(OUT),
        "max_ejection_time": time(OUT),
        "max_ejection_percent": dice.pick(&[0, 10, 25, 34, 50, 67, 75, 100, 100, 100]),
        "consecutive_5xx": dice.between(1, 4),
    });
    if dice.chance(50) {
        detection["consecutive_gateway_failure"] = json!(dice.between(1, 3));
        detection["enforcing_consecutive_gateway_failure"] = json!(100);
    }
    if dice.chance(20) {
        detection["enforcing_consecutive_5xx"] = json!(0);
    }
    if local || dice.chance(40) {
        detection["split_external_local_origin_errors"] = json!(true);
        detection["consecutive_local_origin_failure"] = json!(dice.between(1, 3));
    }
    if dice.chance(30) {
        detection["always_eject_one_host"] = json!(true);
    }
    detection
}

/// Ejection by rates, at the end of a long interval, for another one. Gateway errors are not rates:
/// a single one takes a host out, which shows when an interval ends.
///
/// Everybody may be taken out: of several who should be Envoy takes any as the first.
fn rates(dice: &mut Dice, turn: usize) -> Value {
    let mut detection = json!({
        "interval": time(INTERVAL),
        "base_ejection_time": "0.001s",
        "max_ejection_percent": 100,
        "consecutive_5xx": 1000,
        "consecutive_gateway_failure": 1,
        "enforcing_consecutive_gateway_failure": 100,
        "enforcing_success_rate": 0,
    });
    if turn == 4 {
        detection["enforcing_failure_percentage"] = json!(100);
        detection["failure_percentage_threshold"] = json!(dice.pick(&[25, 40, 50, 60, 100]));
        detection["failure_percentage_minimum_hosts"] = json!(dice.between(1, 3));
        detection["failure_percentage_request_volume"] = json!(dice.between(2, 4));
    } else {
        detection["enforcing_success_rate"] = json!(100);
        detection["success_rate_minimum_hosts"] = json!(dice.pick(&[1, 2, 2, 2, 3]));
        detection["success_rate_request_volume"] = json!(dice.between(1, 3));
        detection["success_rate_stdev_factor"] = json!(match turn {
            // With these whoever is below the mean is out.
            5 => dice.pick(&[0, 0, 100, 500]),
            _ => dice.pick(&[0, 500, 1000, 1900]),
        });
    }
    detection
}

fn breakers(dice: &mut Dice) -> Value {
    let mut thresholds = json!({});
    for field in [
        "max_connections",
        "max_pending_requests",
        "max_requests",
        "max_retries",
    ] {
        if dice.chance(40) {
            thresholds[field] = json!(dice.below(3));
        }
    }
    if dice.turn(2) == 0 || dice.chance(40) {
        thresholds["max_pending_requests"] = json!(0);
    }
    thresholds["track_remaining"] = json!(dice.chance(50));
    // Whoever is let in at all with the other limits is not at this priority.
    let none = json!({"priority": "HIGH", "max_requests": 0});
    let mut breakers = json!({"thresholds": [thresholds, none]});
    if dice.turn(2) == 0 {
        breakers["per_host_thresholds"] = json!([{"max_connections": dice.below(2)}]);
    }
    breakers
}

/// Limits of both priorities. Those on pools make endpoints unreachable, and too few of them are
/// for endpoints that a hash insists on.
fn of_both(dice: &mut Dice) -> Value {
    let mut both = Vec::new();
    for priority in ["DEFAULT", "HIGH"] {
        let mut thresholds = json!({"priority": priority});
        if dice.chance(25) {
            let field = dice.pick(&["max_connections", "max_pending_requests", "max_requests"]);
            thresholds[field] = json!(dice.below(2));
        } else {
            thresholds["max_connection_pools"] = json!(dice.pick(&[0, 1, 1, 1, 2]));
        }
        both.push(thresholds);
    }
    both[0]["max_connection_pools"] = json!(1);
    if dice.chance(50) {
        both.reverse();
    }
    json!({"thresholds": both})
}

fn check(dice: &mut Dice, framed: bool) -> Value {
    let mut check = json!({
        "timeout": "0.100s",
        "interval": "0.100s",
        "no_traffic_interval": "0.100s",
        "unhealthy_threshold": dice.between(1, 3),
        "healthy_threshold": dice.between(1, 3),
    });
    if dice.chance(20) {
        check["tcp_health_check"] = json!({});
        return check;
    }
    if framed && dice.chance(50) {
        check["grpc_health_check"] = json!({"service_name": "s", "authority": "$hc"});
        return check;
    }
    let mut http = json!({"path": "/healthz", "host": "$hc"});
    if framed {
        http["codec_client_type"] = json!("HTTP2");
    }
    if dice.chance(40) {
        http["expected_statuses"] = json!([{"start": 200, "end": 205}, {"start": 404, "end": 405}]);
    }
    if dice.chance(40) {
        http["retriable_statuses"] = json!([{"start": 500, "end": 600}]);
    }
    if dice.chance(20) {
        check["reuse_connection"] = json!(false);
    }
    check["http_health_check"] = http;
    check
}

fn call(dice: &mut Dice, scripts: &[&str]) -> Call {
    let key = format!("k{}", dice.below(12));
    Call::get("/")
        .with("x-key", &key)
        .script(dice.pick(scripts))
}

/// Requests in bursts, each beginning with everybody back; some look again while hosts are out.
fn in_bursts(dice: &mut Dice, requests: usize, calls: &mut Vec<Call>) {
    let failing = [
        "500", "502", "503", "504", "close", "reset", "200", "404", "501",
    ];
    while calls.len() < requests {
        let scripts = if dice.chance(30) {
            dice.pick(&[&failing[..4], &failing[4..7], &failing[..1]])
                .to_vec()
        } else {
            failing.to_vec()
        };
        let looks = dice.below(BURST);
        for at in 0..BURST.min(requests - calls.len()) {
            let mut call = call(dice, &scripts);
            // Envoy tells its workers of an ejection a moment after the answer that led to it.
            call.wait = TOLD;
            call.pace.limit = OVER;
            if at == 0 {
                call.pace.mark = Some(Mark::Sent);
                call.wait = BACK;
            } else if at == looks {
                call.wait = OUT / 4;
            }
            calls.push(call);
        }
    }
}

/// One burst, of which each host has so many failures, and a look after the interval.
fn by_rate(dice: &mut Dice, hosts: &[&str], requests: usize, calls: &mut Vec<Call>) {
    let keys = hosts.len() * 3;
    let mut bad: Vec<usize> = (0..keys)
        .map(|_| dice.pick(&[0, 0, 50, 100, 100]))
        .collect();
    // Rates that are all alike take nobody out: two keys often are of two hosts.
    (bad[0], bad[1]) = (0, 100);
    let mut begins = Call::get("/once").with("x-key", "k0").script("502");
    begins.pace.mark = Some(Mark::Interval);
    calls.push(begins);
    let look = requests * 2 / 3;
    for at in 1..requests {
        let key = format!("k{}", at % keys);
        let fails = at < look && dice.chance(bad[at % keys]);
        let script = if fails { "500" } else { "200" };
        let mut call = Call::get("/").with("x-key", &key).script(script);
        // Well before the end of the interval, or between that and the end of the next.
        call.pace.limit = INTERVAL - 200;
        if at >= look {
            (call.pace.after, call.pace.limit) = (INTERVAL + 300, 2 * INTERVAL - 200);
        }
        calls.push(call);
    }
}

/// Hosts become ill and well again, and requests look at it in between.
fn checked(dice: &mut Dice, hosts: &[&str], requests: usize, calls: &mut Vec<Call>) {
    let words = [
        "503", "404", "close", "hang", "degraded", "fail", "200", "200",
    ];
    let well: Vec<String> = hosts.iter().map(|host| format!("{host}=200")).collect();
    let control = |words: &[String]| {
        let call = Call::get("/control").with(HEALTH, "$hc");
        call.with("x-health-words", &words.join(","))
    };
    let mut first = Call::get("/").with("x-key", "k");
    first.wait = CHECKED;
    calls.push(first);
    while calls.len() + 3 < requests {
        for _ in 0..6.min(requests - calls.len() - 2) {
            calls.push(call(dice, &["200"]));
        }
        let said: Vec<String> = hosts
            .iter()
            .map(|host| format!("{host}={}", dice.pick(&words)))
            .collect();
        calls.push(control(&said));
        let mut look = call(dice, &["200"]);
        look.wait = CHECKED;
        calls.push(look);
    }
    calls.push(control(&well));
    let mut last = call(dice, &["200"]);
    last.wait = CHECKED;
    calls.push(last);
}
