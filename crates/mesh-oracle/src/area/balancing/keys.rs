//! What requests are hashed by, and requests that have it or do not.

use crate::dice::Dice;
use crate::request::Call;
use serde_json::{Value, json};

/// Policies of a route.
pub(super) fn policies(dice: &mut Dice) -> Vec<Value> {
    let number = dice.pick(&[1, 1, 1, 2, 3]);
    (0..number)
        .map(|_| {
            let mut policy = policy(dice);
            if dice.chance(25) {
                policy["terminal"] = json!(true);
            }
            policy
        })
        .collect()
}

fn policy(dice: &mut Dice) -> Value {
    match dice.below(10) {
        0..5 => {
            let names = [
                "x-key", "x-key", "x-many", "x-edited", "x-absent", "host", "x-case",
            ];
            let name = dice.pick(&names[..6]);
            let mut header = json!({"header_name": name});
            if dice.chance(30) {
                let (regex, with) = dice.pick(&[
                    ("^key-([0-9])[0-9]*$", "<\\1>"),
                    ("[0-9]", "n"),
                    ("k", ""),
                    (".*", "all"),
                    ("([a-z]+)-([0-9]+)", "\\2-\\1"),
                    ("no such text", "x"),
                ]);
                header["regex_rewrite"] = json!({
                    "pattern": {"regex": regex},
                    "substitution": with,
                });
            }
            json!({"header": header})
        }
        5 | 6 => {
            let mut cookie = json!({"name": dice.pick(&["stay", "other"])});
            if dice.chance(40) {
                cookie["ttl"] = json!(dice.pick(&["0s", "60s", "1.5s", "86400s"]));
            }
            if dice.chance(40) {
                cookie["path"] = json!(dice.pick(&["/", "/shop"]));
            }
            if dice.chance(25) {
                cookie["attributes"] = dice.pick(&[
                    json!([{"name": "SameSite", "value": "Strict"}]),
                    json!([{"name": "Secure"}, {"name": "Domain", "value": "a.test"}]),
                ]);
            }
            json!({"cookie": cookie})
        }
        7 => json!({"connection_properties": {"source_ip": !dice.chance(15)}}),
        _ => json!({"query_parameter": {"name": dice.pick(&["q", "q", "r", "absent"])}}),
    }
}

/// Edits by the route: hashes go by what is sent.
pub(super) fn edits(dice: &mut Dice) -> Value {
    let edit = |name: &str, value: &str, action: &str| json!([{"header": {"key": name, "value": value}, "append_action": action}]);
    dice.pick(&[
        edit("x-edited", "edited", "OVERWRITE_IF_EXISTS_OR_ADD"),
        edit("x-many", "added", "APPEND_IF_EXISTS_OR_ADD"),
        edit("x-edited", "%REQ(x-key)%", "APPEND_IF_EXISTS_OR_ADD"),
        // Who calls was decided before.
        edit("x-forwarded-for", "9.9.9.9", "OVERWRITE_IF_EXISTS_OR_ADD"),
        edit(
            "x-envoy-external-address",
            "8.8.8.8",
            "OVERWRITE_IF_EXISTS_OR_ADD",
        ),
    ])
}

/// Fields of the manager that say whose word is taken for who calls.
pub(super) fn manager(dice: &mut Dice) -> Value {
    let mut manager = json!({});
    if dice.chance(40) {
        manager["use_remote_address"] = json!(dice.chance(70));
    }
    if dice.chance(35) {
        manager["xff_num_trusted_hops"] = json!(dice.pick(&[1, 2]));
    }
    if dice.chance(10) {
        manager["skip_xff_append"] = json!(true);
    }
    manager
}

/// A request to the route with this number.
pub(super) fn call(dice: &mut Dice, route: usize, at: usize, policies: &[Value]) -> Call {
    let queries = [
        format!("?q=key-{at}"),
        format!("?a=1&q=key-{at}&q=z"),
        format!("?r=%20{at}&q="),
        "?q".to_owned(),
        format!("?Q={at}&qq=1"),
        String::new(),
    ];
    let mut call = Call::get(&format!("/{route}/x{}", dice.pick(&queries)));
    if dice.chance(20) {
        call.http2 = true;
    }
    if dice.chance(85) {
        call = call.with("x-key", &format!("key-{at}"));
        if dice.chance(10) {
            call = call.with("x-key", &format!("Key-{at}"));
        }
    } else if dice.chance(30) {
        call = call.with("x-key", "");
    }
    for value in ["b", "a", "", "c, d"] {
        if dice.chance(30) {
            call = call.with("x-many", &format!("{value}{at}"));
        }
    }
    if dice.chance(30) {
        call = call.with("x-edited", &format!("e{at}"));
    }
    if dice.chance(50) {
        let cookie = dice.pick(&[
            format!("stay=user-{at}"),
            format!("a=b; stay=\"user-{at}\"; stay=other"),
            format!("other=\"o{at}\"; stay="),
            format!("stay=\"\"; other=o{at};x"),
            format!(" stay = u{at}"),
            format!("STAY=u{at}; other=a=b"),
        ]);
        call = call.with("cookie", &cookie);
        if dice.chance(15) {
            call = call.with("cookie", &format!("other=second{at}"));
        }
    }
    for _ in 0..dice.pick(&[0, 0, 1, 2]) {
        let said = [
            format!("10.0.{}.1", at % 250),
            format!("10.1.1.1, 10.0.{}.2", at % 250),
            format!("::1,2001:db8::{at:x}"),
            format!(" ::ffff:10.9.8.{} ", at % 250),
            "nobody".to_owned(),
            format!("10.2.2.{},", at % 250),
            format!("10.3.3.3:{}", 1000 + at),
            String::new(),
        ];
        call = call.with("x-forwarded-for", &dice.pick(&said));
    }
    if dice.chance(10) {
        call = call.with("x-envoy-external-address", "7.7.7.7");
    }
    if call.headers.iter().any(|(_, value)| value.trim() != value) {
        // HTTP/2 does not allow it (RFC 9113 §8.2.1).
        call.http2 = false;
    }
    if is_certain(&call, policies) {
        return call;
    }
    call.with("x-judge", "any")
}

/// Whether there is a hash that depends on nothing but the request and the address of the caller.
fn is_certain(call: &Call, policies: &[Value]) -> bool {
    let mut certain = false;
    for policy in policies {
        let header = policy["header"]["header_name"].as_str();
        certain |= header.is_some_and(|name| name == "host" || call.header(name).is_some());
        certain |= policy["connection_properties"]["source_ip"] == true;
        if let Some(name) = policy["query_parameter"]["name"].as_str() {
            let query = call.target.split_once('?').map_or("", |(_, query)| query);
            let mut keys = query.split('&').map(|pair| pair.split('=').next());
            certain |= keys.any(|key| key == Some(name));
        }
        if let Some(name) = policy["cookie"]["name"].as_str() {
            if has_cookie(call, name) {
                certain = true;
            } else if !policy["cookie"]["ttl"].is_null() {
                // One that is made is another for each connection.
                return false;
            }
        }
        if certain && policy["terminal"] == true {
            return true;
        }
    }
    certain
}

/// Whether a cookie is there for certain. Those of [`call`] begin with a letter.
fn has_cookie(call: &Call, name: &str) -> bool {
    let cookies = call.headers.iter().filter(|(it, _)| it == "cookie");
    let mut pairs = cookies.flat_map(|(_, value)| value.split(';'));
    let first = pairs.find_map(|pair| {
        let value = pair.trim_start().strip_prefix(name)?.strip_prefix('=')?;
        Some(
            value
                .trim_start_matches('"')
                .starts_with(char::is_alphabetic),
        )
    });
    first == Some(true)
}
