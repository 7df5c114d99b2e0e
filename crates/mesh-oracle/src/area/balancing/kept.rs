//! Requests that are kept at an endpoint, or name one, in clusters where hashes decide otherwise.

use super::{config, endpoints, policy, route};
use crate::config::Config;
use crate::dice::Dice;
use crate::request::Call;
use serde_json::{Value, json};

const STATES: &str = "type.googleapis.com/envoy.extensions.http.stateful_session";
const FILTER: &str = "type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3";

/// What a cookie, header or envelope is called.
const COOKIE: &str = "sc";
const HEADER: &str = "x-s";
/// One that the backend answers with, too, where it is asked for cookies.
const ENVELOPE: &str = "x-r";

/// Where callers are told of their endpoint.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Cookie,
    Header,
    Envelope,
    Nowhere,
}

/// Several routes, each with sessions of its own or the listener's.
pub(super) fn generate(dice: &mut Dice, requests: usize) -> Config {
    let mut cluster = endpoints::cluster(dice);
    policy::by_hash(dice, &mut cluster);
    if dice.chance(25) {
        nobody(&mut cluster);
    }
    if dice.chance(40) {
        cluster["common_lb_config"]["override_host_status"] = statuses(dice);
    }
    let names = cluster["load_balancing_policy"].is_object() && dice.chance(60);
    if names {
        policy::named(dice, &mut cluster);
    }
    let of_listener = state(dice);
    let (mut routes, mut states) = (Vec::new(), Vec::new());
    for number in 0..dice.between(2, 4) {
        let mut route = route(number);
        route["route"]["hash_policy"] = json!([{"header": {"header_name": "x-key"}}]);
        if dice.chance(50) {
            route["route"]["retry_policy"] = json!({"retry_on": "5xx", "num_retries": 2});
        }
        if dice.chance(25) {
            route["response_headers_to_remove"] = json!([HEADER, "set-cookie"]);
        }
        let mut here = of_listener;
        match dice.below(10) {
            0 => {
                route["typed_per_filter_config"] = per_route(json!({"disabled": true}));
                here = State::Nowhere;
            }
            1..5 => {
                here = state(dice);
                let own = session(dice, here, "");
                route["typed_per_filter_config"] = per_route(json!({"stateful_session": own}));
            }
            _ => {}
        }
        routes.push(route);
        states.push(here);
    }
    let mut manager = json!({});
    let mut filter = session(dice, of_listener, "st");
    filter["@type"] = json!(format!("{FILTER}.StatefulSession"));
    manager["http_filters"] = json!([
        {"name": "envoy.filters.http.stateful_session", "typed_config": filter},
        {"name": "envoy.filters.http.router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        }},
    ]);
    let hosts = addresses(&cluster);
    let calls = (0..requests)
        .map(|at| {
            let number = dice.below(states.len());
            call(dice, number, at, states[number], &hosts)
        })
        .collect();
    config(routes, manager, cluster, calls)
}

fn state(dice: &mut Dice) -> State {
    match dice.below(20) {
        0..8 => State::Cookie,
        8..14 => State::Header,
        14..19 => State::Envelope,
        _ => State::Nowhere,
    }
}

fn session(dice: &mut Dice, state: State, prefix: &str) -> Value {
    let (name, mut config) = match state {
        State::Cookie => {
            let mut cookie = json!({"name": COOKIE});
            if dice.chance(50) {
                cookie["ttl"] = json!(dice.pick(&["0s", "60s", "3600.5s"]));
            }
            if dice.chance(50) {
                cookie["path"] = json!(dice.pick(&["/", "/0/", "/1", "/0/a"]));
            }
            if dice.chance(30) {
                cookie["attributes"] =
                    json!([{"name": "SameSite", "value": "Strict"}, {"name": "Secure"}]);
            }
            ("cookie", json!({"cookie": cookie}))
        }
        State::Header => ("header", json!({"name": "X-S"})),
        State::Envelope => ("envelope", json!({"header": {"name": ENVELOPE}})),
        State::Nowhere => return json!({"stat_prefix": prefix}),
    };
    let kind = match state {
        State::Cookie => "CookieBasedSessionState",
        State::Header => "HeaderBasedSessionState",
        _ => "EnvelopeSessionState",
    };
    config["@type"] = json!(format!("{STATES}.{name}.v3.{kind}"));
    let mut session = json!({
        "session_state": {
            "name": format!("envoy.http.stateful_session.{name}"), "typed_config": config,
        },
        "stat_prefix": prefix,
    });
    if dice.chance(35) {
        session["strict"] = json!(true);
    }
    if dice.chance(30) {
        session["status_on_strict_destination_not_found"] = json!(dice.pick(&[404, 503, 421, 200]));
    }
    session
}

fn per_route(mut said: Value) -> Value {
    said["@type"] = json!(format!("{FILTER}.StatefulSessionPerRoute"));
    json!({"envoy.filters.http.stateful_session": said})
}

/// What is told apart here: not nothing from healthy, nor timeouts from what is ill.
fn statuses(dice: &mut Dice) -> Value {
    let groups: [&[&str]; 4] = [
        &["UNKNOWN", "HEALTHY"],
        &["DEGRADED"],
        &["DRAINING"],
        &["UNHEALTHY", "TIMEOUT"],
    ];
    let all = groups.into_iter().filter(|_| dice.chance(50));
    json!({"statuses": all.flatten().collect::<Vec<_>>()})
}

/// One endpoint more, that refuses connections.
fn nobody(cluster: &mut Value) {
    let hosts = &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"];
    if let Some(hosts) = hosts.as_array_mut() {
        // Where names are hashed all have one.
        hosts.push(
            json!({"endpoint": {"hostname": "nobody.test", "address": {"socket_address": {
                "address": "127.0.0.1", "port_value": "@nobody",
            }}}}),
        );
    }
}

/// The addresses of the endpoints, as requests are given them: `127.0.0.11@w`.
fn addresses(cluster: &Value) -> Vec<String> {
    let groups = cluster["load_assignment"]["endpoints"].as_array();
    let hosts = groups.into_iter().flatten();
    let hosts = hosts.flat_map(|group| group["lb_endpoints"].as_array().into_iter().flatten());
    let address = |host: &Value| {
        let at = &host["endpoint"]["address"]["socket_address"];
        Some(format!(
            "{}{}",
            at["address"].as_str()?,
            at["port_value"].as_str()?
        ))
    };
    hosts.filter_map(address).collect()
}

fn call(dice: &mut Dice, number: usize, at: usize, state: State, hosts: &[String]) -> Call {
    let paths = ["", "a", "a/b", "?q"];
    let mut call = Call::get(&format!("/{number}/{}", dice.pick(&paths)));
    call = call.with("x-key", &format!("key-{at}"));
    let host = match hosts {
        hosts if !hosts.is_empty() && dice.chance(85) => dice.pick(hosts),
        // At no such address, or at no address at all.
        _ => dice
            .pick(&["127.0.0.99@w", "127.0.0.099@w", "x@w"])
            .to_owned(),
    };
    match state {
        State::Cookie if dice.chance(85) => call = call.with("cookie", &cookie(dice, &host)),
        State::Header if dice.chance(80) => call = call.with(HEADER, &header(dice, &host)),
        State::Envelope if dice.chance(80) => call = call.with(ENVELOPE, &envelope(dice, &host)),
        _ => {}
    }
    if dice.chance(40) {
        call = call.with("x-to", &list(dice, hosts));
    }
    if dice.chance(10) {
        call = call.with("x-too", &list(dice, hosts));
    }
    let scripts = ["200", "200", "503 200", "503 503 200", "cookies", "cookies"];
    call.script(dice.pick(&scripts))
}

fn cookie(dice: &mut Dice, host: &str) -> String {
    let value = match dice.below(10) {
        0..4 => format!("{{cookie:{host}}}"),
        4 => format!("{{cookie:{host}:0}}"),
        5 => format!("{{cookie:{host}:1}}"),
        6 => format!("{{cookie:{host}:4102444800}}"),
        7..9 => format!("{{base64:{host}}}"),
        _ => dice.pick(&["", "!!", "EAU=", "Zg"]).to_owned(),
    };
    match dice.below(4) {
        0 => format!("a=b; {COOKIE}=\"{value}\""),
        1 => format!("{COOKIE}={value}; {COOKIE}=Zg=="),
        _ => format!("{COOKIE}={value}"),
    }
}

fn header(dice: &mut Dice, host: &str) -> String {
    match dice.below(10) {
        0 => format!("{{cookie:{host}}}"),
        1 => dice.pick(&["zz", "", "Zg=="]).to_owned(),
        _ => format!("{{base64:{host}}}"),
    }
}

fn envelope(dice: &mut Dice, host: &str) -> String {
    // "sid" in base64.
    let own = dice.pick(&[";UV:c2lk", ";UV:c2lk", ";;Q:1;UV:c2lk", "", ";UV:", ";UV:!"]);
    match dice.chance(90) {
        true => format!("{{base64:{host}}}{own}"),
        false => format!("zz{own}"),
    }
}

fn list(dice: &mut Dice, hosts: &[String]) -> String {
    let one = |dice: &mut Dice| match hosts {
        hosts if !hosts.is_empty() && dice.chance(75) => format!("{{at:{}}}", dice.pick(hosts)),
        _ => dice
            .pick(&["10.0.0.1:1", "localhost:80", "", " "])
            .to_owned(),
    };
    let all: Vec<_> = (0..dice.between(1, 4)).map(|_| one(dice)).collect();
    all.join(dice.pick(&[",", ", "]))
}
