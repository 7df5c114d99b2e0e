//! Parts of a cluster by metadata, and routes that ask for them.

use super::policy;
use crate::dice::Dice;
use serde_json::{Map, Value, json};

/// Draws a value.
type Draw = fn(&mut Dice) -> Value;

/// What endpoints may have.
pub(super) const LABELS: &[(&str, Draw)] = &[
    ("version", |dice| json!(format!("v{}", dice.below(3)))),
    ("stage", |dice| json!(dice.pick(&["prod", "test"]))),
    ("id", |dice| json!(dice.below(5))),
    ("new", |dice| json!(dice.chance(50))),
    ("list", |dice| {
        dice.pick(&[json!(["a", "b"]), json!(["b"]), json!("a")])
    }),
];

/// What cannot be had.
const OTHERS: [(&str, &str); 2] = [("version", "v9"), ("colour", "red")];

/// Makes parts of it.
pub(super) fn divide(dice: &mut Dice, cluster: &mut Value) {
    let mut selectors = Vec::new();
    for _ in 0..dice.between(1, 4) {
        let keys = dice.pick(&[
            json!(["version"]),
            json!(["version"]),
            json!(["stage", "version"]),
            json!(["id"]),
            json!(["new"]),
            json!(["list"]),
            json!(["version", "colour"]),
            json!(["stage"]),
        ]);
        let mut selector = json!({"keys": keys});
        if dice.chance(40) {
            let fallbacks = [
                "NO_FALLBACK",
                "ANY_ENDPOINT",
                "DEFAULT_SUBSET",
                "NOT_DEFINED",
            ];
            selector["fallback_policy"] = json!(dice.pick(&fallbacks));
        }
        if keys_of(&selector) == 2 && dice.chance(60) {
            // Asks again by one of them.
            let one = dice.below(2);
            selector["fallback_policy"] = json!("KEYS_SUBSET");
            selector["fallback_keys_subset"] = json!([selector["keys"][one]]);
        }
        if dice.chance(30) && keys_of(&selector) == 1 {
            selector["single_host_per_subset"] = json!(true);
        }
        selectors.push(selector);
    }
    let mut config = json!({"subset_selectors": selectors});
    let fallbacks = ["NO_FALLBACK", "ANY_ENDPOINT", "DEFAULT_SUBSET"];
    config["fallback_policy"] = json!(dice.pick(&fallbacks));
    if dice.chance(70) {
        config["default_subset"] = Value::Object(wanted(dice));
    }
    if dice.chance(25) {
        config["panic_mode_any"] = json!(true);
    }
    for field in ["list_as_any", "locality_weight_aware"] {
        if dice.chance(40) {
            config[field] = json!(true);
        }
    }
    if dice.chance(25) {
        config["scale_locality_weight"] = json!(true);
    }
    if dice.chance(40) {
        config["metadata_fallback_policy"] = json!("FALLBACK_LIST");
    }
    let inner = cluster["load_balancing_policy"].take();
    if inner.is_null() {
        if let Some(fields) = cluster.as_object_mut() {
            fields.remove("load_balancing_policy");
        }
        cluster["lb_subset_config"] = config;
    } else {
        config["subset_lb_policy"] = inner;
        if dice.chance(60) {
            config["allow_redundant_keys"] = json!(true);
        }
        policy::extension(cluster, "subset", "Subset", config);
    }
}

fn keys_of(selector: &Value) -> usize {
    selector["keys"].as_array().map_or(0, Vec::len)
}

/// A subset that may or may not exist.
fn wanted(dice: &mut Dice) -> Map<String, Value> {
    let mut wanted = Map::new();
    for _ in 0..dice.pick(&[1, 1, 2]) {
        if dice.chance(15) {
            let (key, value) = dice.pick(&OTHERS);
            wanted.insert(key.into(), json!(value));
        } else {
            let (key, values) = dice.pick(LABELS);
            wanted.insert(key.into(), values(dice));
        }
    }
    wanted
}

/// Makes a route ask for one, itself or by the part of a split.
pub(super) fn ask(dice: &mut Dice, route: &mut Value) {
    let metadata = |wanted| json!({"filter_metadata": {"envoy.lb": Value::Object(wanted)}});
    if dice.chance(85) {
        let mut first = wanted(dice);
        if dice.chance(35) {
            let wishes = (0..dice.between(0, 3)).map(|_| Value::Object(wanted(dice)));
            let wishes: Vec<Value> = wishes.collect();
            first.insert("fallback_list".into(), json!(wishes));
        }
        route["route"]["metadata_match"] = metadata(first);
    }
    if dice.chance(20) {
        if let Some(fields) = route["route"].as_object_mut() {
            fields.remove("cluster");
        }
        let mut part = json!({"name": "$x", "weight": 1});
        if dice.chance(70) {
            part["metadata_match"] = metadata(wanted(dice));
        }
        route["route"]["weighted_clusters"] = json!({"clusters": [part]});
    }
}
