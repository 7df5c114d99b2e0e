//! Rules that judge requests, as Envoy's own (`rbac`) and as Istio's documents, and requests that try to
//! get around them.

mod asked;
mod evade;
mod istio;
mod mutual;
mod routes;
mod rules;
mod tokens;

use super::{cluster, cluster2, paths};
use crate::config::{Config, Source};
use crate::dice::Dice;
use serde_json::{Value, json};

pub(crate) use istio::{KINDS, asked, kinds as asked_by};
pub(crate) use mutual::FORWARDING;
pub(crate) use routes::{SAID, said};
pub(crate) use rules::kinds;

const TYPE: &str = "type.googleapis.com/envoy";

/// What `rules_stat_prefix` and `shadow_rules_stat_prefix` are; counters are known by them.
const PREFIXES: [&str; 2] = ["", "own_"];

/// How many of five configurations are Istio's documents.
const WRITTEN_FOR_ISTIO: usize = 2;

pub(super) fn generate(dice: &mut Dice, requests: usize) -> Config {
    let (turn, of_five) = (dice.turn(usize::MAX), dice.turn(5));
    if of_five < WRITTEN_FOR_ISTIO {
        let number = turn / 5 * WRITTEN_FOR_ISTIO + of_five;
        // Each kind has its turn twice before others have theirs three times.
        let kinds = [0, KINDS.len() / 2].map(|more| KINDS[(number + more) % KINDS.len()]);
        return istio::generate(dice, requests, kinds);
    }
    let mut filters = Vec::new();
    let tokens = dice.chance(50);
    if tokens {
        filters.push(tokens::filter(dice));
    }
    for _ in 0..dice.pick(&[1, 1, 1, 2, 3]) {
        filters.push(filter(dice, tokens));
    }
    let named = |name: &str, kind: &str| {
        json!({
            "name": format!("envoy.filters.http.{name}"),
            "typed_config": {"@type": format!("{TYPE}.extensions.filters.http.{name}.v3.{kind}")},
        })
    };
    let asks = dice.chance(45) || asked::takes_little(dice);
    if asks {
        let at = dice.below(filters.len() + 1);
        let asked = asked::filters(dice, tokens);
        filters.splice(at..at, asked);
    }
    filters.push(named("fault", "HTTPFault"));
    filters.push(named("cors", "Cors"));
    filters.push(named("router", "Router"));
    let mut host = host(dice, tokens);
    routes::say(dice, &filters, &mut host);
    let mut manager = json!({
        "http_filters": filters,
        "normalize_path": dice.chance(70),
        "merge_slashes": dice.chance(30),
        "path_with_escaped_slashes_action": dice.pick(&[
            "KEEP_UNCHANGED", "KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_FORWARD",
        ]),
        "use_remote_address": dice.chance(50),
        "xff_num_trusted_hops": dice.below(2),
        "route_config": {"virtual_hosts": [host], "validate_clusters": false},
    });
    if dice.chance(20) {
        manager["strip_any_host_port"] = json!(true);
    }
    // Two of five, in turn.
    let number = turn / 5 * (5 - WRITTEN_FOR_ISTIO) + of_five - WRITTEN_FOR_ISTIO;
    let secured = (number % 5 < 2).then_some(number / 5 * 2 + number % 5);
    let strangers = secured.map(|at| mutual::listen(dice, at, &mut manager));
    let named = evade::named(&filters);
    let calls = (0..requests).map(|_| {
        let mut call = evade::call(dice, &named);
        if tokens {
            call = tokens::bring(dice, call);
        }
        if let Some(strangers) = strangers {
            call = mutual::bring(dice, strangers, call);
        }
        match asks {
            true => asked::told(dice, &filters, call),
            false => call,
        }
    });
    let calls = calls.collect();
    Config {
        area: "policy",
        source: Source {
            manager,
            clusters: json!([
                cluster("a", &["a"]),
                cluster("b", &["b"]),
                cluster2("y", &["y"]),
                cluster("z", &["z"]),
            ]),
        },
        calls,
    }
}

/// Routes that rewrite, answer and redirect; some paths have none.
fn host(dice: &mut Dice, tokens: bool) -> Value {
    let mut routes = vec![
        json!({"name": "rewritten", "match": {"prefix": "/old/"},
               "route": {"cluster": "$a", "prefix_rewrite": "/admin/"}}),
        json!({"name": "answered", "match": {"path": "/fixed"},
               "direct_response": {"status": 200, "body": {"inline_string": "fixed"}}}),
        json!({"name": "redirected", "match": {"prefix": "/moved"},
               "redirect": {"path_redirect": "/new"}}),
        json!({"name": "admin", "match": {"prefix": "/admin"}, "route": {"cluster": "$b"}}),
    ];
    if tokens && dice.chance(60) {
        let matcher = tokens::claim(dice);
        let route = json!({"name": "claimed", "route": {"cluster": "$b"},
                           "match": {"prefix": "/", "dynamic_metadata": [matcher]}});
        let at = dice.below(routes.len() + 1);
        routes.insert(at, route);
    }
    // Without it some requests meet no route, and are judged nevertheless.
    if dice.chance(75) {
        routes.push(json!({"name": "rest", "match": {"prefix": "/"}, "route": {"cluster": "$a"}}));
    }
    json!({
        "name": "v0",
        "domains": ["*"],
        "routes": routes,
        "response_headers_to_add": [{"header": {"key": "x-edit", "value": "%RESPONSE_CODE%"}}],
    })
}

fn filter(dice: &mut Dice, asks: bool) -> Value {
    let mut config = json!({
        "@type": format!("{TYPE}.extensions.filters.http.rbac.v3.RBAC"),
        "rules_stat_prefix": dice.pick(&PREFIXES),
        "shadow_rules_stat_prefix": dice.pick(&PREFIXES),
    });
    if dice.chance(93) {
        config["rules"] = rules::rules(dice, asks);
    }
    if dice.chance(30) {
        config["shadow_rules"] = rules::rules(dice, asks);
    }
    json!({"name": "envoy.filters.http.rbac", "typed_config": config})
}

/// A path of the few that rules are about.
fn path(dice: &mut Dice) -> String {
    match dice.below(4) {
        0 => paths::path(dice, 3),
        _ => dice
            .pick(&[
                "/admin",
                "/admin/",
                "/admin/x",
                "/api/v1/x",
                "/old/x",
                "/fixed",
                "/moved",
                "/",
            ])
            .to_owned(),
    }
}
