//! AuthorizationPolicies at random.

use super::super::path;
use super::{PROVIDER, object, selecting};
use crate::dice::Dice;
use serde_json::{Map, Value, json};

/// What a policy can ask: a field of a source or an operation, each with its opposite, and the
/// keys of conditions.
pub(crate) const KINDS: &[&str] = &[
    "principals",
    "requestPrincipals",
    "serviceAccounts",
    "namespaces",
    "trustDomains",
    "remoteIpBlocks",
    "ipBlocks",
    "notPrincipals",
    "notRequestPrincipals",
    "notServiceAccounts",
    "notNamespaces",
    "notTrustDomains",
    "notRemoteIpBlocks",
    "notIpBlocks",
    "hosts",
    "methods",
    "paths",
    "ports",
    "notHosts",
    "notMethods",
    "notPaths",
    "notPorts",
    "request.headers[x-token]",
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "request.auth.claims[sub]",
    "request.auth.claims[groups]",
    "request.auth.claims[a][b]",
    "request.auth.claims[scope]",
    "destination.ip",
    "destination.port",
    "connection.sni",
];
/// Those of them that are of who calls, from [`KINDS`].
const OF_PEERS: &[&str] = &[
    "principals",
    "principals",
    "principals",
    "serviceAccounts",
    "serviceAccounts",
    "namespaces",
    "namespaces",
    "trustDomains",
    "notPrincipals",
    "notPrincipals",
    "notServiceAccounts",
    "notServiceAccounts",
    "notNamespaces",
    "notNamespaces",
    "notTrustDomains",
];
const POLICY: &str = "AuthorizationPolicy";
/// Parts of the paths that requests have.
const PATHS: [&[&str]; 2] = [&["/admin*"], &["/api*", "/old*", "/moved*"]];
/// Where sources end, and operations.
const PARTS: [usize; 2] = [14, 22];

/// Any policy; those of who has callers with identities mostly ask for them.
pub(super) fn policy(dice: &mut Dice, at: usize, known: bool) -> Value {
    // Mostly those that deny: of several others, few requests are left for what comes after.
    let action = dice.pick(&["ALLOW", "ALLOW", "DENY", "DENY", "DENY", "AUDIT"]);
    let mut spec = json!({"rules": rules(dice, known)});
    if action != "ALLOW" || dice.chance(50) {
        spec["action"] = json!(action);
    }
    if action == "ALLOW" && dice.chance(5) {
        // Nobody.
        spec = json!({});
    } else if action == "ALLOW" && dice.chance(35) {
        // Otherwise most requests would be denied.
        let paths = json!([{"operation": {"notPaths": ["/admin*"]}}]);
        let list = spec["rules"].as_array_mut();
        list.into_iter()
            .for_each(|list| list.push(json!({"to": paths})));
    }
    let mut policy = object("security", POLICY, &format!("p{at}"), spec);
    if dice.chance(12) && action != "AUDIT" {
        let annotations = json!({"istio.io/dry-run": dice.pick(&["true", "true", "false", "1"])});
        policy["metadata"]["annotations"] = annotations;
    }
    selecting(dice, policy)
}

/// One about this kind, which is in force, for the requests that it fits and for others. What hardly
/// any request has is asked of those for some paths, what most have is refused. Values are drawn for
/// each of some parts of all paths: one alone often fits all requests or none.
pub(super) fn about(dice: &mut Dice, kind: &str, name_of_it: &str) -> Value {
    let name = kind.to_lowercase();
    let rare = ["presenter", "requestprincipals", "auth.principal"];
    let rare = rare.iter().any(|it| name.contains(it)) && !name.starts_with("not");
    let allows = rare || dice.chance(30);
    let mut rules = Vec::new();
    if name.ends_with("paths") {
        rules.push(asking_for(dice, kind));
        if allows {
            rules.push(json!({"to": [{"operation": {"notPaths": ["/admin*"]}}]}));
        }
    } else {
        for part in PATHS {
            let mut rule = asking_for(dice, kind);
            let operation = &mut rule["to"][0]["operation"];
            operation["paths"] = json!(part);
            rules.push(rule);
        }
        let others = json!([{"operation": {"notPaths": PATHS.concat()}}]);
        rules.push(match allows {
            true => json!({"to": others}),
            false => {
                let mut rule = asking_for(dice, kind);
                rule["to"][0]["operation"]["notPaths"] = json!(PATHS.concat());
                rule
            }
        });
    }
    let mut spec = json!({"rules": rules});
    if !allows {
        spec["action"] = json!("DENY");
    }
    object("security", POLICY, name_of_it, spec)
}

/// A rule that asks for this kind and nothing else.
fn asking_for(dice: &mut Dice, kind: &str) -> Value {
    let at = KINDS.iter().position(|it| *it == kind).unwrap_or(0);
    let [sources, operations] = PARTS;
    let name = kind.to_lowercase();
    let name = name.strip_prefix("not").unwrap_or(&name);
    let mut rule = json!({});
    if at < sources {
        rule["from"] = json!([{"source": {kind: values(dice, name)}}]);
    } else if at < operations {
        rule["to"] = json!([{"operation": {kind: values(dice, name)}}]);
    } else {
        let way = if dice.chance(70) {
            "values"
        } else {
            "notValues"
        };
        rule["when"] = json!([{"key": kind, way: values(dice, kind)}]);
    }
    if rule["to"].is_null() {
        rule["to"] = json!([{"operation": {}}]);
    }
    rule
}

/// One that asks a service about what its rules match.
pub(super) fn asking(dice: &mut Dice) -> Value {
    let rules = match dice.chance(50) {
        true => json!([{}]),
        false => rules(dice, false),
    };
    let spec = json!({"action": "CUSTOM", "provider": {"name": PROVIDER}, "rules": rules});
    selecting(dice, object("security", POLICY, "ask", spec))
}

fn rules(dice: &mut Dice, known: bool) -> Value {
    if dice.chance(6) {
        return json!([{}]);
    }
    (0..dice.pick(&[1, 1, 2, 3]))
        .map(|_| rule(dice, known))
        .collect()
}

fn rule(dice: &mut Dice, known: bool) -> Value {
    let [sources, operations] = PARTS;
    let mut rule = json!({});
    let which = dice.below(8) | usize::from(known && dice.chance(70));
    let list = |dice: &mut Dice, name: &str, kinds: &[&str]| -> Value {
        let number = dice.pick(&[1, 1, 2]);
        let each = (0..number).map(|_| json!({ name: fields(dice, kinds) }));
        each.collect()
    };
    if which & 1 != 0 {
        let kinds = match known && dice.chance(80) {
            true => OF_PEERS,
            false => &KINDS[..sources],
        };
        rule["from"] = list(dice, "source", kinds);
    }
    if which & 2 != 0 || which == 0 {
        rule["to"] = list(dice, "operation", &KINDS[sources..operations]);
    }
    if which & 4 != 0 {
        let number = dice.pick(&[1, 1, 2]);
        let keys = &KINDS[operations..];
        let each = (0..number).map(|_| condition(dice, keys));
        rule["when"] = each.collect();
    }
    rule
}

/// One field or two of a source or an operation.
fn fields(dice: &mut Dice, kinds: &[&str]) -> Value {
    let mut fields = Map::new();
    for _ in 0..dice.pick(&[1, 1, 1, 2]) {
        let kind = dice.pick(kinds);
        let account = |name: &str| name.to_lowercase().ends_with("serviceaccounts");
        let excluded = |name: &str| {
            let name = name.to_lowercase();
            !name.contains("request")
                && (name.ends_with("principals") || name.ends_with("namespaces"))
        };
        // They exclude each other.
        if fields
            .keys()
            .any(|it| account(it) && excluded(kind) || excluded(it) && account(kind))
        {
            continue;
        }
        let name = kind.strip_prefix("not").unwrap_or(kind);
        fields.insert(kind.to_owned(), values(dice, &name.to_lowercase()));
    }
    Value::Object(fields)
}

fn condition(dice: &mut Dice, keys: &[&str]) -> Value {
    let key = dice.pick(keys);
    let mut condition = json!({"key": key});
    match dice.below(5) {
        0 => condition["notValues"] = values(dice, key),
        1 => {
            condition["values"] = values(dice, key);
            condition["notValues"] = values(dice, key);
        }
        _ => condition["values"] = values(dice, key),
    }
    condition
}

/// One value or two of a field or of a key of conditions.
fn values(dice: &mut Dice, of: &str) -> Value {
    let number = dice.pick(&[1, 1, 2]);
    (0..number).map(|_| json!(value(dice, of))).collect()
}

fn value(dice: &mut Dice, of: &str) -> String {
    let some: &[&str] = match of {
        "paths" => return path_value(dice),
        "principals" | "source.principal" => &[
            "*",
            "cluster.local/ns/a/sa/b",
            "alias.test/ns/a/sa/b",
            "cluster.local/ns/a/*",
            "cluster.local/*",
            "*/sa/b",
        ],
        "requestprincipals" | "request.auth.principal" => &[
            "*",
            "https://a.test/me",
            "https://a.test/*",
            "https://b.test/x*",
            "*/me",
            "https://*",
            "*me",
        ],
        "serviceaccounts" | "source.serviceAccount" => &["a/b", "a/b", "a/c", "b"],
        "namespaces" | "source.namespace" => &["a", "*", "a*", "*a", "x", "x", "x*"],
        "trustdomains" | "source.trustDomain" => &[
            "cluster.local",
            "alias.test",
            "else.test",
            "*.test",
            "cl*",
            "*",
        ],
        "remoteipblocks" | "remote.ip" => &[
            "203.0.113.0/24",
            "127.0.0.0/8",
            "127.0.0.1",
            "10.0.0.1",
            "2001:db8::/32",
            "0.0.0.0/0",
        ],
        "ipblocks" | "source.ip" | "destination.ip" => {
            &["127.0.0.0/8", "127.0.0.1", "10.0.0.0/8", "2001:db8::1"]
        }
        "hosts" => &[
            "mesh.test",
            "MESH.test",
            "mesh.*",
            "*.test",
            "*",
            "mesh.test:80",
            "mesh.test.",
            "other.test",
        ],
        "methods" => &["GET", "POST", "P*", "*T", "*", "HEAD", "get"],
        "ports" | "destination.port" => &["{port listener}", "{port listener}", "80"],
        "request.headers[x-token]" => &["abc", "abc", "a*", "*c", "*", "abc,def", "def"],
        "request.auth.audiences" => &["shop", "pay", "s*", "*", "http*"],
        "request.auth.presenter" => &["shop", "s*", "nobody"],
        "connection.sni" => &["mesh.test", "*.test", "*"],
        // Claims.
        _ => &["me", "m*", "*e", "*", "xy", "x*"],
    };
    dice.pick(some).to_owned()
}

/// A path as policies write it.
fn path_value(dice: &mut Dice) -> String {
    let path = path(dice);
    match dice.below(8) {
        0..=2 => path.replace(['{', '}'], ""),
        3 | 4 => format!("{path}*"),
        5 => format!("*{}", &path[path.rfind('/').unwrap_or(0)..]),
        _ => dice
            .pick(&[
                "*",
                "/admin/{*}",
                "/admin/{**}",
                "/{*}/x",
                "/{**}",
                "/{*}",
                "/api/{*}/x",
                "/admin/{**}/x",
            ])
            .to_owned(),
    }
}

/// The paths that policies name, without what may follow.
pub(super) fn paths(documents: &[Value]) -> Vec<String> {
    let mut found = Vec::new();
    for (kind, values) in asked(documents) {
        let values = values.filter(|_| kind == "paths" || kind == "notPaths");
        for text in values.into_iter().flatten().filter_map(Value::as_str) {
            let text = text.trim_end_matches('*');
            let text = text.replace("{**}", "a/b").replace("{*}", "a");
            if text.starts_with('/') {
                found.push(text);
            }
        }
    }
    found
}

/// The kinds of what is asked by policies among these documents; by one rule alone, if it is named.
pub(crate) fn kinds(documents: &[Value], denied_by: Option<&str>) -> Vec<&'static str> {
    let asked: Vec<&str> = match denied_by.and_then(|name| rule_named(documents, name)) {
        Some(rule) => asked_by(rule).map(|(kind, _)| kind).collect(),
        None => asked(documents).map(|(kind, _)| kind).collect(),
    };
    let known = KINDS.iter().copied();
    known.filter(|kind| asked.contains(kind)).collect()
}

/// The rule that is told as `ns[…]-policy[NAME]-rule[AT]`.
fn rule_named<'a>(documents: &'a [Value], name: &str) -> Option<&'a Value> {
    let (_, rest) = name.split_once("-policy[")?;
    let (policy, rest) = rest.split_once("]-rule[")?;
    let at: usize = rest.split(']').next()?.parse().ok()?;
    let mut policies = documents.iter().filter(|it| it["kind"] == POLICY);
    policies.find(|it| it["metadata"]["name"] == policy)?["spec"]["rules"].get(at)
}

type Asked<'a> = (&'a str, Option<&'a Vec<Value>>);

/// What is asked by policies among these documents, with the values, where it is a field.
pub(crate) fn asked<'a>(
    documents: impl IntoIterator<Item = &'a Value>,
) -> impl Iterator<Item = Asked<'a>> {
    let documents = documents.into_iter();
    let policies = documents.filter(|it| it["kind"] == POLICY);
    policies
        .flat_map(|it| list(&it["spec"]["rules"]))
        .flat_map(asked_by)
}

fn asked_by(rule: &Value) -> impl Iterator<Item = Asked<'_>> {
    let sources = list(&rule["from"]).map(|it| &it["source"]);
    let operations = list(&rule["to"]).map(|it| &it["operation"]);
    let fields = sources.chain(operations).filter_map(Value::as_object);
    let fields = fields.flatten();
    let fields = fields.map(|(kind, values)| (&**kind, values.as_array()));
    let keys = list(&rule["when"]).filter_map(|it| Some((it["key"].as_str()?, None)));
    fields.chain(keys)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_rule_that_denies_only_its_own_kinds_are_told() {
        let spec = json!({"action": "DENY", "rules": [
            {"from": [{"source": {"notNamespaces": ["a"]}}], "when": [{"key": "source.ip"}]},
            {"to": [{"operation": {"paths": ["/a*", "*", "/{*}/x"], "ports": ["80"]}}]},
        ]});
        let documents = [object("security", POLICY, "p", spec)];
        let all = ["notNamespaces", "paths", "ports", "source.ip"];
        assert_eq!(kinds(&documents, None), all);
        let of = |name| kinds(&documents, Some(name));
        assert_eq!(of("ns[c1]-policy[p]-rule[1]"), ["paths", "ports"]);
        // Nobody of that name.
        assert_eq!(of("none"), all);
        assert_eq!(paths(&documents), ["/a", "/a/x"]);
    }
}
