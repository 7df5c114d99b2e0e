//! Services that are asked (Envoy's `ext_authz`), and requests that tell them what to say.

use super::TYPE;
use crate::dice::Dice;
use crate::request::Call;
use serde_json::{Value, json};

/// What a service says, over HTTP and over gRPC alike.
const WORDS: &[&str] = &[
    "allow",
    "allow",
    "allow-edit",
    "allow-edit",
    "allow-edit",
    "deny",
    "deny-much",
    "deny-302",
    "deny-201",
    "error",
    "broken",
    "hang",
];
/// More of what it says over gRPC.
const MORE: &[&str] = &["say-error", "empty", "deny-plain"];

/// Whether a configuration is for bodies that are too long for whom is asked.
pub(super) fn takes_little(dice: &Dice) -> bool {
    dice.turn(10) == 2
}

/// A filter that asks, behind rules that say when, or always.
pub(super) fn filters(dice: &mut Dice, tokens: bool) -> Vec<Value> {
    let mut config = json!({
        "@type": format!("{TYPE}.extensions.filters.http.ext_authz.v3.ExtAuthz"),
        "transport_api_version": "V3",
        "failure_mode_allow": dice.chance(25),
        // A route that tokens left alone stays here, and is looked for anew by Envoy.
        "clear_route_cache": dice.chance(30) && !tokens,
    });
    match dice.chance(50) {
        true => config["http_service"] = over_http(dice),
        false => {
            config["grpc_service"] = json!({
                "envoy_grpc": {"cluster_name": "$y", "authority": "asked.test"},
                "timeout": "0.3s",
            });
            if dice.chance(30) {
                let patterns = json!([{"prefix": "x-"}, {"exact": ":path"}]);
                config["allowed_headers"] = json!({"patterns": patterns});
            }
        }
    }
    if dice.chance(30) {
        config["status_on_error"] =
            json!({"code": dice.pick(&["ServiceUnavailable", "TooManyRequests"])});
    }
    let little = takes_little(dice);
    if little || dice.chance(40) {
        config["with_request_body"] = json!({
            "max_request_bytes": dice.pick(&[3, 6, if little { 6 } else { 4000 }]),
            "allow_partial_message": !little && dice.chance(50),
            "pack_as_bytes": dice.chance(30),
        });
    }
    if dice.chance(40) {
        // Its own name, so that counters tell it apart.
        config["stat_prefix"] = json!("own");
    }
    let asks = json!({"name": "envoy.filters.http.ext_authz", "typed_config": config});
    if dice.chance(40) {
        return vec![asks];
    }
    let mut asks = asks;
    asks["typed_config"]["filter_enabled_metadata"] = json!({
        "filter": "envoy.filters.http.rbac",
        "path": [{"key": "asked_shadow_effective_policy_id"}],
        "value": {"string_match": {"prefix": dice.pick(&["ns", "b", "B"])}},
    });
    let rules = json!({
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": format!("{TYPE}.extensions.filters.http.rbac.v3.RBAC"),
            "shadow_rules": super::rules::rules(dice, false),
            "shadow_rules_stat_prefix": "asked_",
        },
    });
    vec![rules, asks]
}

fn over_http(dice: &mut Dice) -> Value {
    let list = |patterns: Value| json!({"patterns": patterns});
    let mut response = json!({});
    if dice.chance(60) {
        response["allowed_upstream_headers"] =
            list(json!([{"exact": "x-up"}, {"prefix": "X-SET", "ignore_case": true}]));
    }
    if dice.chance(40) {
        response["allowed_upstream_headers_to_append"] = list(json!([{"exact": "x-more"}]));
    }
    if dice.chance(60) {
        response["allowed_client_headers"] = list(json!([{"prefix": "x-why"}]));
    }
    if dice.chance(60) {
        response["allowed_client_headers_on_success"] = list(json!([{"suffix": "-down"}]));
    }
    json!({
        "server_uri": {"uri": "http://asked.test", "cluster": "$z", "timeout": "0.3s"},
        "path_prefix": dice.pick(&["", "/check"]),
        "authorization_request": {
            "allowed_headers": {"patterns": [
                {"exact": "x-case"}, {"exact": "x-asked"}, {"prefix": "x-t"},
                {"contains": "tok", "ignore_case": true},
            ]},
            "headers_to_add": [{"key": "x-tier", "value": "gold"}],
        },
        "authorization_response": response,
    })
}

/// Lets a request tell the service what to say.
pub(super) fn told(dice: &mut Dice, filters: &[Value], call: Call) -> Call {
    let word = match dice.chance(15) {
        true => dice.pick(MORE),
        false => dice.pick(WORDS),
    };
    let mut call = call.with("x-asked", word);
    if dice.chance(50) {
        call = call
            .with("x-more", "0")
            .with("x-up", "mine")
            .with("x-gone", "1");
    }
    // Envoy makes one line of several.
    if dice.chance(10) && call.header("authorization").is_none() {
        call = call.with("authorization", "Bearer abc");
    }
    if dice.chance(40) {
        call.method = "POST".to_owned();
        call.body = dice.pick(&["", "abc", "abcdef", "abcdefghij"]).to_owned();
        if filters.iter().any(|it| exceeds(it, &call)) {
            // Of HTTP/2 Envoy lets a last frame through, however long.
            call.http2 = false;
        }
        call.chunked = !call.http2 && !call.body.is_empty() && dice.chance(30);
    }
    call
}

/// Whether a body is longer than what a filter takes.
fn exceeds(filter: &Value, call: &Call) -> bool {
    let body = &filter["typed_config"]["with_request_body"];
    let limit = body["max_request_bytes"].as_u64();
    limit.is_some_and(|limit| call.body.len() as u64 > limit)
}
