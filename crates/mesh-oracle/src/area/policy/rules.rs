//! Policies at random.

use super::path;
use crate::dice::Dice;
use serde_json::{Map, Value, json};

const TYPE: &str = "type.googleapis.com/envoy";

/// What policies can ask, as the fields are called.
const PERMISSIONS: &[&str] = &[
    "any",
    "header",
    "url_path",
    "uri_template",
    "destination_ip",
    "destination_port",
    "destination_port_range",
    "requested_server_name",
    "not_rule",
    "or_rules",
    "and_rules",
];
const PRINCIPALS: &[&str] = &[
    "any",
    "header",
    "url_path",
    "direct_remote_ip",
    "remote_ip",
    "source_ip",
    "authenticated",
    "not_id",
    "or_ids",
    "and_ids",
];

/// The kinds of conditions in some rules.
pub(crate) fn kinds(value: &Value) -> Vec<&'static str> {
    let mut found = Vec::new();
    collect(value, &mut found);
    found.sort_unstable();
    found.dedup();
    found
}

fn collect(value: &Value, found: &mut Vec<&'static str>) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                let all = PERMISSIONS.iter().chain(PRINCIPALS);
                found.extend(all.filter(|kind| *kind == name));
                collect(inner, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|it| collect(it, found)),
        _ => {}
    }
}

pub(super) fn rules(dice: &mut Dice, asks: bool) -> Value {
    let mut policies = Map::new();
    let number = match dice.chance(5) {
        true => 0,
        false => dice.between(1, 4),
    };
    let action = dice.pick(&["ALLOW", "DENY", "DENY", "LOG"]);
    for at in 0..number {
        // Asked in the order of names, and blanks in them are told otherwise.
        let name = format!("{}[{at}] x", dice.pick(&["ns[a]-policy[p]-rule", "b", "B"]));
        let mut permissions = vec![one(dice, PERMISSIONS, 2)];
        let mut principals = vec![one(dice, PRINCIPALS, 2)];
        if dice.chance(30) {
            permissions.push(one(dice, PERMISSIONS, 2));
        }
        if dice.chance(30) {
            principals.push(one(dice, PRINCIPALS, 2));
        }
        if asks && dice.chance(40) {
            principals = vec![json!({"metadata": super::tokens::claim(dice)})];
        }
        let policy = json!({"permissions": permissions, "principals": principals});
        policies.insert(name, policy);
    }
    // Otherwise most requests would be denied.
    if action == "ALLOW" && dice.chance(60) {
        let any = json!([{"any": true}]);
        let other = match dice.chance(50) {
            true => json!([{"header": {"name": "x-token", "present_match": true}}]),
            false => any.clone(),
        };
        policies.insert(
            "z".to_owned(),
            json!({"permissions": any, "principals": other}),
        );
    }
    json!({"action": action, "policies": policies})
}

fn one(dice: &mut Dice, kinds: &[&str], depth: usize) -> Value {
    let kind = match depth {
        // Without what holds others.
        0 => dice.pick(&kinds[..kinds.len() - 3]),
        // Most ask about the path or a header.
        _ if dice.chance(35) => dice.pick(&["header", "url_path"]),
        _ => dice.pick(kinds),
    };
    let several = |dice: &mut Dice, name: &str| {
        let all: Vec<Value> = (0..dice.between(1, 3))
            .map(|_| one(dice, kinds, depth.saturating_sub(1)))
            .collect();
        json!({ name: all })
    };
    let value = match kind {
        "any" => json!(true),
        "header" => header(dice),
        "url_path" => json!({"path": text(dice, path)}),
        "uri_template" => json!({"name": "t", "typed_config": {
            "@type": format!("{TYPE}.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"),
            "path_template": dice.pick(&[
                "/admin/*", "/admin/**", "/*", "/**", "/api/{v}/x", "/{a=admin/*}", "/*/x",
                "/**/x", "/a/*.y", "/admin", "/",
            ]),
        }}),
        "destination_ip" => json!({"address_prefix": dice.pick(&["127.0.0.0", "10.0.0.0"]),
                                   "prefix_len": 8}),
        "destination_port" => json!(dice.pick(&[80, 8080])),
        "destination_port_range" => match dice.chance(50) {
            true => json!({"start": 1, "end": 65536}),
            false => json!({"start": 1, "end": 1024}),
        },
        "requested_server_name" => match dice.chance(50) {
            true => json!({"exact": "mesh.test"}),
            false => json!({"safe_regex": {"regex": ".*"}}),
        },
        "direct_remote_ip" | "source_ip" => {
            json!({"address_prefix": dice.pick(&["127.0.0.0", "203.0.113.0"]), "prefix_len": 8})
        }
        "remote_ip" => {
            let block = dice.pick(&[
                ("127.0.0.0", 8),
                ("203.0.113.0", 24),
                ("0.0.0.0", 0),
                ("2001:db8::", 32),
            ]);
            json!({"address_prefix": block.0, "prefix_len": block.1})
        }
        "authenticated" => match dice.chance(30) {
            true => json!({}),
            false => json!({"principal_name": dice.pick(&[
                json!({"safe_regex": {"regex": ".*/ns/a/.*"}}),
                json!({"exact": "spiffe://cluster.local/ns/a/sa/b"}),
                json!({"prefix": "spiffe://cluster.local/"}),
                json!({"suffix": "/SA/b", "ignore_case": true}),
                json!({"contains": "/ns/x/"}),
                json!({"exact": "a.test"}),
                json!({"prefix": "O=a mesh"}),
                json!({"suffix": "CN=no name"}),
            ])}),
        },
        "not_rule" | "not_id" => one(dice, kinds, depth.saturating_sub(1)),
        "or_rules" | "and_rules" => several(dice, "rules"),
        _ => several(dice, "ids"),
    };
    json!({ kind: value })
}

fn header(dice: &mut Dice) -> Value {
    let name = dice.pick(&[
        ":method",
        ":path",
        ":authority",
        ":scheme",
        "x-token",
        "x-token",
        "host",
        "cookie",
    ]);
    let mut matcher = match dice.below(8) {
        0 => json!({"present_match": dice.chance(70)}),
        _ => json!({"string_match": text(dice, |dice| value(dice, name))}),
    };
    matcher["name"] = json!(name);
    if dice.chance(15) {
        matcher["invert_match"] = json!(true);
    }
    if dice.chance(15) {
        matcher["treat_missing_header_as_empty"] = json!(true);
    }
    matcher
}

/// What a header may say.
fn value(dice: &mut Dice, name: &str) -> String {
    match name {
        ":method" => dice.pick(&["GET", "POST", "HEAD", "get"]).to_owned(),
        ":path" => path(dice),
        ":scheme" => dice.pick(&["http", "https"]).to_owned(),
        ":authority" | "host" => {
            let hosts = [
                "mesh.test",
                "MESH.test",
                "mesh.test:80",
                "other.test",
                "mesh.test.",
            ];
            dice.pick(&hosts).to_owned()
        }
        _ => dice.pick(&["abc", "def", "a", "abc,def"]).to_owned(),
    }
}

/// A match of text.
fn text(dice: &mut Dice, word: impl Fn(&mut Dice) -> String) -> Value {
    let word = word(dice);
    let kind = dice.pick(&[
        "exact",
        "exact",
        "prefix",
        "suffix",
        "contains",
        "safe_regex",
    ]);
    let mut matcher = match kind {
        "safe_regex" => {
            let anything = dice.pick(&[".+", ".*", "[a-z/]+", "/admin.*"]);
            return json!({"safe_regex": {"regex": anything}});
        }
        kind => json!({ kind: word }),
    };
    if dice.chance(25) {
        matcher["ignore_case"] = json!(true);
    }
    matcher
}
