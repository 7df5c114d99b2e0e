//! Which virtual host and route a request meets.

use super::{matching, objects, paths, usual_clusters};
use crate::config::{Config, Source};
use crate::dice::Dice;
use crate::request::Call;
use serde_json::{Value, json};

const DOMAINS: &[&str] = &[
    "mesh.test",
    "Upper.test",
    "mesh.test:8080",
    "*.test",
    "*.mesh.test",
    "*sh.test",
    "*-a.test",
    "*.test:8080",
    "mesh.*",
    "mesh-*",
    "m*",
    "mesh.test:*",
    "a.b.mesh.test",
    "10.1.2.3",
    "[::1]",
    "[::1]:8080",
    "localhost",
];

/// One configuration in so many is about what listeners keep of requests.
const KEPT: usize = 16;

pub(super) fn generate(dice: &mut Dice, requests: usize) -> Config {
    if dice.turn(KEPT) == KEPT - 1 {
        return objects::routed(dice, requests);
    }
    let mut left: Vec<&str> = DOMAINS.to_vec();
    let mut hosts: Vec<Value> = (0..dice.between(0, 3))
        .map(|n| {
            let domains: Vec<&str> = (0..dice.between(1, 3))
                .map(|_| left.remove(dice.below(left.len())))
                .collect();
            host(dice, n, &domains)
        })
        .collect();
    if hosts.is_empty() || dice.chance(80) {
        hosts.insert(dice.below(hosts.len() + 1), host(dice, 9, &["*"]));
    }
    let mut manager = json!({"route_config": {"virtual_hosts": hosts}});
    if dice.chance(40) {
        manager["route_config"]["ignore_port_in_host_matching"] = json!(true);
    }
    if dice.chance(40) {
        manager["normalize_path"] = json!(true);
    }
    if dice.chance(30) {
        manager["merge_slashes"] = json!(true);
    }
    if dice.chance(50) {
        manager["path_with_escaped_slashes_action"] = json!(dice.pick(&[
            "KEEP_UNCHANGED",
            "REJECT_REQUEST",
            "UNESCAPE_AND_REDIRECT",
            "UNESCAPE_AND_FORWARD",
        ]));
    }
    let mut calls: Vec<Call> = (0..requests).map(|_| call(dice, &hosts)).collect();
    meet_ranges(&hosts, &mut calls);
    Config {
        area: "routes",
        source: Source {
            manager,
            clusters: json!(usual_clusters()),
        },
        calls,
    }
}

/// Gives every other request a number that lies in a range that some route wants of a header, if it
/// has no such header: that is rare by chance.
fn meet_ranges(hosts: &[Value], calls: &mut [Call]) {
    let routes = hosts.iter().flat_map(|host| host["routes"].as_array());
    let wanted: Vec<(&str, i64)> = routes
        .flatten()
        .flat_map(|route| route["match"]["headers"].as_array())
        .flatten()
        .filter_map(|header| {
            let start = header["range_match"]["start"].as_i64()?;
            Some((header["name"].as_str()?, start))
        })
        .collect();
    for (at, call) in calls.iter_mut().step_by(2).enumerate() {
        if wanted.is_empty() {
            return;
        }
        let (name, start) = wanted[at % wanted.len()];
        if !call
            .headers
            .iter()
            .any(|(known, _)| known.eq_ignore_ascii_case(name))
        {
            call.headers.push((name.to_owned(), start.to_string()));
        }
    }
}

fn host(dice: &mut Dice, number: usize, domains: &[&str]) -> Value {
    let mut routes: Vec<Value> = (0..dice.between(2, 7))
        .map(|n| route(dice, &format!("v{number}r{n}")))
        .collect();
    if dice.chance(75) {
        let name = format!("v{number}rest");
        routes.push(json!({"name": name, "match": {"prefix": "/"}, "route": {"cluster": "$c"}}));
    }
    json!({"name": format!("v{number}"), "domains": domains, "routes": routes})
}

fn route(dice: &mut Dice, name: &str) -> Value {
    // Mostly one kind of condition alone: then it is known which one held or did not.
    let kind = dice.below(19);
    let mut condition = match kind {
        0..=4 | 15 => paths::matcher(dice),
        _ => json!({"prefix": "/"}),
    };
    match kind {
        5..=8 => condition["headers"] = json!([matching::header(dice)]),
        9..=13 => condition["query_parameters"] = json!([matching::query(dice)]),
        14 if dice.chance(60) => condition["grpc"] = json!({}),
        14 => {
            let share = dice.pick(&[0, 100]);
            condition["runtime_fraction"] =
                json!({"default_value": {"numerator": share, "denominator": "HUNDRED"}});
        }
        16 | 17 => condition["cookies"] = json!([matching::cookie(dice)]),
        18 => condition["tls_context"] = matching::certificate(dice),
        15 => {
            condition["headers"] = (0..dice.between(1, 2))
                .map(|_| matching::header(dice))
                .collect();
            condition["query_parameters"] = (0..dice.between(0, 2))
                .map(|_| matching::query(dice))
                .collect();
            condition["cookies"] = (0..dice.between(0, 1))
                .map(|_| matching::cookie(dice))
                .collect();
        }
        _ => {}
    }
    let mut to = json!({"cluster": dice.pick(&["$a", "$b"])});
    if let Some(text) = paths::template_of(&condition)
        && dice.chance(60)
    {
        let with = paths::TEMPLATES.iter().find(|(it, ..)| *it == text);
        to["path_rewrite_policy"] = paths::template_rewrite(with.map_or("/", |(_, with, _)| with));
    }
    json!({"name": name, "match": condition, "route": to})
}

/// A request for one of the routes, or one that comes close to it.
fn call(dice: &mut Dice, hosts: &[Value]) -> Call {
    let host = &hosts[dice.below(hosts.len())];
    let empty = Vec::new();
    let routes = host["routes"].as_array().unwrap_or(&empty);
    let condition = match routes.len() {
        0 => json!({"prefix": "/"}),
        most => routes[dice.below(most)]["match"].clone(),
    };
    // One part of the request at most is wrong on purpose.
    let wrong = dice.below(8);
    let mut target = paths::path_for(dice, &condition, wrong == 0);
    let mut call = Call::get("/");
    let mut query = Vec::new();
    for matcher in condition["query_parameters"].as_array().unwrap_or(&empty) {
        query.push(parameter(dice, matcher, wrong == 1));
    }
    for matcher in condition["headers"].as_array().unwrap_or(&empty) {
        header(dice, matcher, wrong == 2, &mut call);
    }
    for matcher in condition["cookies"].as_array().unwrap_or(&empty) {
        matching::give_cookie(dice, matcher, wrong == 6, &mut call);
    }
    if !condition["grpc"].is_null() && wrong != 3 {
        call = call.grpc();
        if dice.chance(40) {
            let kinds = [
                "application/grpc+proto",
                "application/grpc-web",
                "application/grpc;x",
            ];
            call.headers[0].1 = dice.pick(&kinds).into();
        }
    }
    if dice.chance(15) {
        call.method = dice
            .pick(&["POST", "HEAD", "PUT", "DELETE", "OPTIONS"])
            .into();
    }
    if dice.chance(15) {
        query.push(
            dice.pick(&["x=1", "q", "q=", "&&", "=q", "q=one&q=two", "q=%6fne"])
                .into(),
        );
    }
    if !query.is_empty() {
        target += if target.contains('?') { "&" } else { "?" };
        target += &query.join("&");
    }
    call.target = target;
    let domains = host["domains"].as_array().unwrap_or(&empty);
    let domain = match domains.len() {
        0 => "*",
        most => domains[dice.below(most)].as_str().unwrap_or("*"),
    };
    call.host = Some(authority(dice, domain, wrong == 4));
    if wrong == 5 && dice.chance(30) {
        odd(dice, &mut call);
    }
    call.http2 = dice.chance(25) && call.head().is_some();
    call
}

fn parameter(dice: &mut Dice, matcher: &Value, near_miss: bool) -> String {
    let name = matcher["name"].as_str().unwrap_or("q");
    let name = if near_miss && dice.chance(30) {
        super::other_case(dice, name)
    } else {
        name.to_owned()
    };
    let value = matching::text_for(dice, &matcher["string_match"], near_miss);
    // What cannot stand in a target is written so that it can.
    let escape = |text: &str| text.replace(' ', "%20").replace('\t', "%09");
    match dice.below(6) {
        0 if near_miss => escape(&name),
        1 if near_miss => format!("{}=", escape(&name)),
        2 => format!("{0}={1}&{0}=other", escape(&name), escape(&value)),
        3 if near_miss => format!("{0}=other&{0}={1}", escape(&name), escape(&value)),
        _ => format!("{}={}", escape(&name), escape(&value)),
    }
}

fn header(dice: &mut Dice, matcher: &Value, near_miss: bool, call: &mut Call) {
    let name = matcher["name"].as_str().unwrap_or("x-a");
    if name == ":method" {
        call.method = dice.pick(&["GET", "POST"]).into();
    }
    let lacks = if near_miss { 25 } else { 8 };
    if name.starts_with(':') || dice.chance(lacks) {
        return;
    }
    let mut put = |value: String| {
        let value = value.trim().to_owned();
        call.headers.push((name.to_owned(), value));
    };
    let value = matching::header_value(dice, matcher, near_miss);
    let twice = dice.chance(if near_miss { 30 } else { 5 });
    put(value);
    if twice {
        let more = matching::header_value(dice, matcher, true);
        put(more);
    }
}

/// A host that the domain is for, or one close to it.
fn authority(dice: &mut Dice, domain: &str, near_miss: bool) -> String {
    let mut host = match (domain.strip_prefix('*'), domain.strip_suffix('*')) {
        _ if domain == "*" => dice
            .pick(&["mesh.test", "other.test", "x", "a.mesh.test"])
            .into(),
        (Some(end), _) => format!("{}{end}", dice.pick(&["a", "a.b", "mesh", "x-a"])),
        (_, Some(start)) => format!("{start}{}", dice.pick(&["a", "test", "8080", "b.c"])),
        _ => domain.to_owned(),
    };
    if near_miss {
        host = match dice.below(6) {
            0 => super::other_case(dice, &host),
            1 => format!("{host}."),
            2 => format!("x{host}"),
            3 => host.chars().skip(1).collect(),
            4 => domain.trim_matches('*').to_owned(),
            _ => dice.pick(DOMAINS).replace('*', ""),
        };
    }
    if dice.chance(20) && !host.contains(":8080") {
        host += dice.pick(&[":80", ":8080", ":443", ":"]);
    }
    if host.is_empty() { "x".into() } else { host }
}

/// Shapes of requests that are rare.
fn odd(dice: &mut Dice, call: &mut Call) {
    match dice.below(6) {
        0 => call.target = format!("http://mesh.test{}", call.target),
        1 => call.target = format!("https://other.test{}", call.target),
        2 => {
            call.method = "OPTIONS".into();
            call.target = "*".into();
        }
        3 => {
            call.method = "CONNECT".into();
            call.target = "mesh.test:80".into();
            call.host = Some("mesh.test:80".into());
        }
        4 => call.target = "http://mesh.test".into(),
        _ => call.host = None,
    }
}
