//! What routes say of the filters that judge (`typed_per_filter_config`).

use super::{PREFIXES, TYPE};
use crate::dice::Dice;
use serde_json::{Map, Value, json};

/// What may be said, as it is called in the coverage.
pub(crate) const SAID: [&str; 8] = [
    "a filter that routes go round",
    "rules of routes",
    "no rules on routes",
    "no tokens on routes",
    "tokens that routes ask for",
    "routes without a question",
    "routes that tell more",
    "bodies of routes",
];

/// Lets the virtual host and some of its routes say something, in two of five configurations.
pub(super) fn say(dice: &mut Dice, filters: &[Value], host: &mut Value) {
    if !dice.chance(40) {
        return;
    }
    if dice.chance(50) {
        level(dice, filters, host);
    }
    for route in host["routes"].as_array_mut().into_iter().flatten() {
        if dice.chance(50) {
            level(dice, filters, route);
        }
    }
}

/// The kinds of what routes say.
pub(crate) fn said(manager: &Value) -> Vec<&'static str> {
    let text = manager["route_config"].to_string();
    let marks = [
        "FilterConfig\",\"disabled\"",
        "RBACPerRoute\",\"rbac\"",
        "RBACPerRoute\"}",
        "PerRouteConfig\",\"disabled\"",
        "requirement_name",
        "ExtAuthzPerRoute\",\"disabled\"",
        "context_extensions",
        "request_body",
    ];
    let pairs = SAID.into_iter().zip(marks);
    let there = pairs.filter(|(_, mark)| text.contains(mark));
    there.map(|(said, _)| said).collect()
}

fn level(dice: &mut Dice, filters: &[Value], level: &mut Value) {
    let mut says = Map::new();
    for filter in filters {
        let Some(name) = filter["name"].as_str() else {
            continue;
        };
        if !says.contains_key(name) && dice.chance(70) {
            let kind = name.rsplit('.').next().unwrap_or_default();
            if let Some(config) = of(dice, kind) {
                says.insert(name.to_owned(), config);
            }
        }
    }
    level["typed_per_filter_config"] = Value::Object(says);
}

fn of(dice: &mut Dice, kind: &str) -> Option<Value> {
    let message = |name: &str| format!("{TYPE}.extensions.filters.http.{kind}.v3.{name}");
    let off = json!({
        "@type": format!("{TYPE}.config.route.v3.FilterConfig"), "disabled": true,
    });
    let config = match kind {
        "rbac" => {
            let mut config = json!({"@type": message("RBACPerRoute")});
            if dice.chance(75) {
                let mut own = json!({
                    "rules_stat_prefix": dice.pick(&PREFIXES),
                    "shadow_rules_stat_prefix": dice.pick(&["", "asked_", "asked_"]),
                    "rules": super::rules::rules(dice, false),
                });
                if dice.chance(50) {
                    own["shadow_rules"] = super::rules::rules(dice, false);
                }
                config["rbac"] = own;
            }
            config
        }
        "jwt_authn" => {
            let message = message("PerRouteConfig");
            match dice.chance(30) {
                true => json!({"@type": message, "disabled": true}),
                false => {
                    let name = dice.pick(&["first", "first", "second", "second", "third"]);
                    json!({"@type": message, "requirement_name": name})
                }
            }
        }
        "ext_authz" => {
            let message = message("ExtAuthzPerRoute");
            match dice.below(4) {
                0 => json!({"@type": message, "disabled": true}),
                more => {
                    let mut settings = json!({});
                    if more > 1 {
                        let name = dice.pick(&["a", "b"]);
                        settings["context_extensions"] = json!({name: "1", "c": more.to_string()});
                    }
                    match dice.below(4) {
                        0 => settings["disable_request_body_buffering"] = json!(true),
                        1 => {
                            settings["with_request_body"] = json!({
                                "max_request_bytes": 4000,
                                "pack_as_bytes": dice.chance(50),
                            });
                        }
                        _ => {}
                    }
                    json!({"@type": message, "check_settings": settings})
                }
            }
        }
        _ => return None,
    };
    Some(if dice.chance(20) { off } else { config })
}
