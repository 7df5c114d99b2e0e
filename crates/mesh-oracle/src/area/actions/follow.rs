//! Redirects of upstreams that are followed.

use super::TYPE;
use crate::dice::Dice;
use crate::request::Call;
use serde_json::{Value, json};

/// What a route follows, in a table of so many.
pub(super) fn policy(dice: &mut Dice, to: &mut Value) {
    if dice.chance(10) {
        to["internal_redirect_action"] = json!("HANDLE_INTERNAL_REDIRECT");
        if dice.chance(50) {
            to["max_internal_redirects"] = json!(dice.between(1, 3));
        }
        return;
    }
    let mut policy = json!({});
    if dice.chance(60) {
        policy["max_internal_redirects"] = json!(dice.pick(&[0, 1, 2, 3, 3, 5]));
    }
    if dice.chance(60) {
        policy["redirect_response_codes"] = dice.pick(&[
            json!([301, 302, 303, 307, 308]),
            json!([303]),
            json!([301, 307, 404]),
            json!([304]),
        ]);
    }
    if dice.chance(40) {
        policy["allow_cross_scheme_redirect"] = json!(true);
    }
    let mut predicates = Vec::new();
    for (name, kind) in [
        ("previous_routes", "PreviousRoutesConfig"),
        ("safe_cross_scheme", "SafeCrossSchemeConfig"),
        ("allow_listed_routes", "AllowListedRoutesConfig"),
    ] {
        if !dice.chance(20) {
            continue;
        }
        let mut config =
            json!({"@type": format!("{TYPE}.extensions.internal_redirect.{name}.v3.{kind}")});
        if name == "allow_listed_routes" {
            config["allowed_route_names"] = json!(["v0r0", "v0r1", "v0r3"]);
        }
        predicates.push(json!({
            "name": format!("envoy.internal_redirect_predicates.{name}"),
            "typed_config": config,
        }));
    }
    if !predicates.is_empty() {
        policy["predicates"] = json!(predicates);
    }
    if dice.chance(40) {
        policy["response_headers_to_copy"] = dice.pick(&[
            json!(["x-a"]),
            json!(["x-multi", "x-b"]),
            json!(["X-None", "x-backend"]),
        ]);
    }
    to["internal_redirect_policy"] = policy;
}

/// Whether a route follows redirects.
pub(super) fn is_followed(route: &Value) -> bool {
    let to = &route["route"];
    !to["internal_redirect_policy"].is_null() || !to["internal_redirect_action"].is_null()
}

/// Takes out edits that remove `x-forwarded-proto`: without it Envoy finds no route for a request
/// that goes on.
pub(super) fn keep_scheme(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, it| {
                name != "request_headers_to_remove" || *it != json!(["x-forwarded-proto"])
            });
            fields.values_mut().for_each(keep_scheme);
        }
        Value::Array(values) => values.iter_mut().for_each(keep_scheme),
        _ => {}
    }
}

/// A request whose answers send it elsewhere.
pub(super) fn call(dice: &mut Dice, call: Call, routes: usize) -> Call {
    let path = dice.pick(&["", "/", "/x.test/y", "/a/../b", "?q=2", "/a#part", "/%61 b"]);
    let route = dice.below(routes + 1);
    let host = dice.pick(&[
        "mesh.test",
        "MESH.test:80",
        "mesh.test:8080",
        "other.test:81",
    ]);
    let location = match dice.below(12) {
        0 => format!("https://{host}/r{route}{path}"),
        1 => dice
            .pick(&["/r1", "", "nonsense", "http://", "//mesh.test/r1"])
            .to_owned(),
        _ => format!("http://{host}/r{route}{path}"),
    };
    let words: Vec<&str> = (0..dice.between(1, 4))
        .map(|_| dice.pick(&["to-302", "to-302", "to-301", "to-303", "to-307", "to-308"]))
        .collect();
    let mut script = words.join(",");
    if dice.chance(70) {
        script += ",200";
    }
    let call = call.script(&script);
    // Some answers say nothing of a place.
    match dice.chance(95) {
        true => call.with("x-location", &location),
        false => call,
    }
}
