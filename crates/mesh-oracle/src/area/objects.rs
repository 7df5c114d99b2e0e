//! What a listener keeps of requests (Envoy filter state): routes that go by it, and hashes of it.

use super::{matching, usual_clusters};
use crate::config::{Config, Source};
use crate::dice::Dice;
use crate::request::Call;
use serde_json::{Value, json};

const KEYS: [&str; 3] = ["k.a", "k.b", "k.c"];
const TEXT: &str = "envoy.string";
const HASHED: &str = "envoy.hashable_string";
const ADDRESS: &str = "envoy.network.ip";

/// What values are made from; most of it is in headers.
const VALUES: &[&str] = &[
    "%REQ(x-a)%",
    "%REQ(x-a)%",
    "%REQ(x-b)%",
    "%REQ(x-a?x-b)%",
    "%REQ(x-b)%:%REQ(x-a):2%",
    "one",
    "%REQ(:path)%",
    "%PROTOCOL%",
    "100%%",
];
const ADDRESSES: &[&str] = &[
    "10.1.2.3",
    "10.255.0.1",
    "192.168.7.7",
    "::1",
    "2001:db8::7",
    "10.1.2.3:80",
    "a.test",
    "",
];
const BLOCKS: &[(&str, u32)] = &[
    ("10.0.0.0", 8),
    ("10.1.2.3", 32),
    ("192.168.0.0", 16),
    ("0.0.0.0", 0),
    ("2001:db8::", 32),
    ("::", 0),
];

/// Routes by what was kept.
pub(super) fn routed(dice: &mut Dice, requests: usize) -> Config {
    let kinds: Vec<&str> = KEYS
        .iter()
        .map(|_| dice.pick(&[TEXT, TEXT, HASHED, ADDRESS]))
        .collect();
    let mut entries: Vec<Value> = KEYS
        .iter()
        .zip(&kinds)
        .map(|(key, kind)| entry(dice, key, kind))
        .collect();
    if dice.chance(50) {
        // Another one in its place.
        entries.push(entry(dice, KEYS[0], kinds[0]));
    }
    let mut routes: Vec<Value> = (0..dice.between(3, 6))
        .map(|n| {
            let number = if dice.chance(80) { 1 } else { 2 };
            let conditions: Vec<Value> = (0..number)
                .map(|_| {
                    let at = dice.below(KEYS.len());
                    condition(dice, KEYS[at], kinds[at])
                })
                .collect();
            let to = dice.pick(&["$a", "$b"]);
            json!({
                "name": format!("r{n}"),
                "match": {"prefix": "/", "filter_state": conditions},
                "route": {"cluster": to},
            })
        })
        .collect();
    let has_grpc = dice.chance(50);
    if has_grpc {
        routes.insert(
            0,
            json!({"name": "grpc", "match": {"prefix": "/", "grpc": {}}, "route": {"cluster": "$a"}}),
        );
    }
    routes.push(json!({"name": "rest", "match": {"prefix": "/"}, "route": {"cluster": "$c"}}));
    // Without it routes know nothing of what was kept.
    let for_routes = dice.chance(85);
    let calls = (0..requests)
        .map(|_| {
            let call = call(dice, &routes);
            match has_grpc && dice.chance(20) {
                true => call.with("content-type", "application/grpc"),
                false => call,
            }
        })
        .collect();
    Config {
        area: "routes",
        source: Source {
            manager: json!({
                "route_config": {
                    "virtual_hosts": [{"name": "v0", "domains": ["*"], "routes": routes}],
                },
                "http_filters": filters(&entries, for_routes),
            }),
            clusters: json!(usual_clusters()),
        },
        calls,
    }
}

/// Filters of which the first keeps these.
pub(super) fn filters(entries: &[Value], for_routes: bool) -> Value {
    const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters.http";
    json!([
        {"name": "envoy.filters.http.set_filter_state", "typed_config": {
            "@type": format!("{FILTERS}.set_filter_state.v3.Config"),
            "on_request_headers": entries,
            "clear_route_cache": for_routes,
        }},
        {"name": "envoy.filters.http.router", "typed_config": {
            "@type": format!("{FILTERS}.router.v3.Router"),
        }},
    ])
}

/// Something that is kept so that it can be hashed, and something that cannot be.
pub(super) fn hashed(dice: &mut Dice) -> [Value; 2] {
    let hashed = set(
        "k.hash",
        HASHED,
        dice.pick(&["%REQ(x-key)%", "<%REQ(x-key)%>"]),
    );
    let kind = dice.pick(&[TEXT, ADDRESS]);
    [hashed, set("k.text", kind, "%REQ(x-key)%")]
}

fn set(key: &str, kind: &str, value: &str) -> Value {
    json!({
        "object_key": key,
        "factory_key": kind,
        "format_string": {"text_format_source": {"inline_string": value}},
    })
}

fn entry(dice: &mut Dice, key: &str, kind: &str) -> Value {
    let value = match kind {
        ADDRESS if dice.chance(70) => "%REQ(x-ip)%",
        ADDRESS => "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        _ => dice.pick(VALUES),
    };
    let mut entry = set(key, kind, value);
    if dice.chance(30) {
        entry["skip_if_empty"] = json!(true);
    }
    if dice.chance(30) {
        entry["format_string"]["omit_empty_values"] = json!(true);
    }
    entry
}

fn condition(dice: &mut Dice, key: &str, kind: &str) -> Value {
    // Now and then of a key that nobody has, or what the object is not.
    let key = if dice.chance(5) { "k.none" } else { key };
    let is_address = (kind == ADDRESS) != dice.chance(8);
    if !is_address {
        return json!({"key": key, "string_match": matching::string(dice)});
    }
    let ranges: Vec<Value> = (0..dice.between(1, 2))
        .map(|_| {
            let (address, length) = dice.pick(BLOCKS);
            json!({"address_prefix": address, "prefix_len": length})
        })
        .collect();
    json!({"key": key, "address_match": {"ranges": ranges, "invert_match": dice.chance(30)}})
}

fn call(dice: &mut Dice, routes: &[Value]) -> Call {
    let mut call = Call::get(dice.pick(&["/", "/one", "/two?x"]));
    let condition = &routes[dice.below(routes.len())]["match"]["filter_state"][0];
    for name in ["x-a", "x-b"] {
        if dice.chance(15) {
            continue;
        }
        let near_miss = dice.chance(40);
        let text = match &condition["string_match"] {
            Value::Null => dice.pick(&["one", "two", ""]).to_owned(),
            matcher => matching::text_for(dice, matcher, near_miss),
        };
        // What cannot stand in a header as it is.
        call = call.with(name, text.trim());
    }
    if dice.chance(85) {
        call = call.with("x-ip", dice.pick(ADDRESSES));
    }
    call.http2 = dice.chance(20);
    call
}
