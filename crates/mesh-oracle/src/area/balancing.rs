//! Which endpoint a request goes to: by hashes, subsets, priorities and localities, by chance, by what
//! endpoints report, and where requests are kept at one or name one.
//!
//! All endpoints are one backend at many addresses. Where hashes decide, every request has to reach
//! the endpoint that Envoy chooses; where chance does, the request says how it is judged
//! ([`crate::chance`]).

mod endpoints;
mod kept;
mod keys;
mod kinds;
mod policy;
mod reported;
mod subsets;

pub(crate) use kinds::{KINDS, kinds};

use super::objects;
use crate::config::{Config, Source};
use crate::dice::Dice;
use crate::request::Call;
use serde_json::{Value, json};

/// How many more requests a configuration has where chance is measured, and where hashes decide.
const SAMPLES: usize = 12;
const HASHED: usize = 2;
/// So many requests are under way at once.
const HELD: usize = 16;

/// One configuration in so many hashes what a listener kept of requests.
const KEPT: usize = 12;

pub(super) fn generate(dice: &mut Dice, requests: usize) -> Config {
    if dice.turn(KEPT) == KEPT - 1 {
        return by_what_was_kept(dice, requests * HASHED);
    }
    match dice.below(100) {
        0..32 => hashed(dice, requests * HASHED),
        32..49 => in_subsets(dice, requests * HASHED),
        49..56 => in_turn(dice, requests),
        56..61 => bounded(dice),
        61..72 => kept::generate(dice, requests * HASHED),
        72..78 => reported::generate(dice, requests * 2),
        _ => shares(dice, requests * SAMPLES),
    }
}

fn config(routes: Vec<Value>, manager: Value, cluster: Value, calls: Vec<Call>) -> Config {
    let mut manager = manager;
    manager["route_config"] = json!({
        "virtual_hosts": [{"name": "v0", "domains": ["*"], "routes": routes}],
    });
    Config {
        area: "balancing",
        source: Source {
            manager,
            clusters: json!([cluster]),
        },
        calls,
    }
}

fn route(number: usize) -> Value {
    json!({
        "name": format!("r{number}"),
        "match": {"prefix": format!("/{number}/")},
        "route": {"cluster": "$x"},
    })
}

/// A ring or a table, with several routes that hash by different things.
fn hashed(dice: &mut Dice, requests: usize) -> Config {
    let mut cluster = endpoints::cluster(dice);
    policy::by_hash(dice, &mut cluster);
    let (mut routes, mut all) = (Vec::new(), Vec::new());
    for number in 0..dice.between(1, 3) {
        let policies = keys::policies(dice);
        let mut route = route(number);
        route["route"]["hash_policy"] = json!(policies);
        if dice.chance(20) {
            route["request_headers_to_add"] = keys::edits(dice);
        }
        if dice.chance(10) {
            route["route"]["prefix_rewrite"] = json!("/new/");
        }
        if dice.chance(10) {
            route["route"]["host_rewrite_literal"] = json!("new.test");
        }
        routes.push(route);
        all.push(policies);
    }
    let manager = keys::manager(dice);
    let calls = (0..requests)
        .map(|at| {
            let number = dice.below(all.len());
            keys::call(dice, number, at, &all[number])
        })
        .collect();
    config(routes, manager, cluster, calls)
}

/// A ring or a table, and hashes of what was kept. What cannot be hashed is as if it were not there.
fn by_what_was_kept(dice: &mut Dice, requests: usize) -> Config {
    let mut cluster = endpoints::cluster(dice);
    policy::by_hash(dice, &mut cluster);
    let entries = objects::hashed(dice);
    let mut policies = vec![
        json!({"filter_state": {"key": "k.text"}, "terminal": true}),
        json!({"filter_state": {"key": "k.hash"}, "terminal": dice.chance(50)}),
        json!({"header": {"header_name": "x-more"}}),
    ];
    if dice.chance(50) {
        policies.push(json!({"filter_state": {"key": "k.hash"}}));
    }
    let mut route = route(0);
    route["route"]["hash_policy"] = json!(policies);
    let mut manager = keys::manager(dice);
    manager["http_filters"] = objects::filters(&entries, dice.chance(50));
    let calls = (0..requests)
        .map(|at| {
            let mut call = Call::get("/0/").with("x-more", dice.pick(&["a", "b"]));
            if !dice.chance(10) {
                call = call.with("x-key", &format!("key-{at}"));
            }
            call
        })
        .collect();
    config(vec![route], manager, cluster, calls)
}

/// Parts of a cluster by metadata.
fn in_subsets(dice: &mut Dice, requests: usize) -> Config {
    let mut cluster = endpoints::cluster(dice);
    let hashes = dice.chance(75);
    if hashes {
        policy::by_hash(dice, &mut cluster);
    } else {
        policy::by_chance(dice, &mut cluster);
    }
    subsets::divide(dice, &mut cluster);
    let number = dice.between(2, 5);
    let routes = (0..number)
        .map(|number| {
            let mut route = route(number);
            if hashes {
                route["route"]["hash_policy"] = json!([{"header": {"header_name": "x-key"}}]);
            }
            subsets::ask(dice, &mut route);
            route
        })
        .collect();
    let requests = if hashes { requests } else { requests * 4 };
    let calls = (0..requests)
        .map(|at| {
            let number = dice.below(number);
            let call = Call::get(&format!("/{number}/")).with("x-key", &format!("key-{at}"));
            match hashes {
                true => call,
                false => call.with("x-judge", &format!("share r{number}")),
            }
        })
        .collect();
    config(routes, json!({}), cluster, calls)
}

/// Requests that are all under way at once, so that some endpoints get too many.
fn bounded(dice: &mut Dice) -> Config {
    let (mut cluster, hosts) = endpoints::alike(dice);
    policy::bounded(dice, &mut cluster);
    let mut route = route(0);
    route["route"]["hash_policy"] = json!([{"header": {"header_name": "x-key"}}]);
    let keys = dice.between(1, 4);
    let calls = (0..dice.between(hosts, HELD))
        .map(|_| {
            let key = format!("key-{}", dice.below(keys));
            Call::get("/0/").with("x-key", &key).script("hold")
        })
        .collect();
    config(vec![route], json!({}), cluster, calls)
}

/// Turns, whose order Envoy does not leave to chance once they have begun.
fn in_turn(dice: &mut Dice, requests: usize) -> Config {
    let exact = dice.chance(60);
    let (cluster, hosts, whole) = policy::turns(dice, exact);
    let judge = match exact {
        true => format!("turn round {whole}"),
        false => "weights round".to_owned(),
    };
    let calls = (0..requests.max(4 * whole).max(2 * hosts))
        .map(|_| Call::get("/0/").with("x-judge", &judge))
        .collect();
    config(vec![route(0)], json!({}), cluster, calls)
}

/// Choices that only have shares in common.
fn shares(dice: &mut Dice, requests: usize) -> Config {
    let mut cluster = endpoints::cluster(dice);
    policy::by_chance(dice, &mut cluster);
    let calls = (0..requests)
        .map(|_| Call::get("/0/").with("x-judge", "share all"))
        .collect();
    config(vec![route(0)], json!({}), cluster, calls)
}
