//! Requests that mean the same as what a policy is about, and look different.

use super::super::{other_case, paths};
use super::path;
use crate::dice::Dice;
use crate::request::Call;
use serde_json::{Value, json};

/// Ways to write a path.
const SPELLINGS: &[fn(&mut Dice, &str) -> String] = &[
    |_, path| path.to_owned(),
    other_case,
    |_, path| format!("/x/..{path}"),
    |_, path| format!("/.{path}"),
    |_, path| format!("/x/%2e%2e{path}"),
    |_, path| format!("/x/%2E.{path}"),
    |_, path| path.replacen('/', "//", 1),
    |_, path| path.replacen("/admin", "/%61dmin", 1),
    |_, path| path.replacen("/admin", "/adm%69n", 1),
    |_, path| path.replacen('/', "/%2f", 1),
    |_, path| format!("/x%2f..{path}"),
    |_, path| format!("/x%5c..{path}"),
    |_, path| path.replacen("/admin", "\\admin", 1),
    |_, path| path.replacen("/admin", "/x\\..\\admin", 1),
    |_, path| format!("{path}/"),
    |_, path| format!("{path}/."),
    |_, path| format!("{path}/x/.."),
    |_, path| format!("{path};x=1"),
    |_, path| format!("/;x{path}"),
    |_, path| format!("/x/..;y=1{path}"),
    |_, path| path.replacen('/', "/.;/", 1),
    |_, path| format!("{path}%00"),
    |_, path| format!("{path}%00.png"),
    |_, path| format!("{path}?x=1"),
    |_, path| format!("{path}?"),
    |_, path| format!("/x?{path}"),
    |_, path| format!("{path}%3fx"),
    |_, path| format!("{path}%20"),
    |_, path| format!("{path}."),
    |_, path| format!("{path}%2e"),
    // Overlong forms of a slash and a dot.
    |_, path| path.replacen('/', "/%c0%af", 1),
    |_, path| format!("/x/%c0%ae%c0%ae{path}"),
    |_, path| format!("/x/%252e%252e{path}"),
    |_, path| format!("/x/%252f{path}"),
    |_, path| path.replacen("/admin", "/%ef%bd%81dmin", 1),
    |_, path| format!("{path}*"),
];

const HOSTS: &[&str] = &[
    "mesh.test",
    "mesh.test",
    "MESH.TEST",
    "mesh.test:80",
    "mesh.test.",
    "other.test",
];

/// A request; policies name these paths.
pub(super) fn call(dice: &mut Dice, named: &[String]) -> Call {
    let path = match dice.below(3) {
        0 if named.is_empty() => "/admin".to_owned(),
        0 => dice.pick(named),
        1 => path(dice),
        _ => {
            let near = json!({"prefix": path(dice)});
            paths::path_for(dice, &near, true)
        }
    };
    let spelling = match dice.chance(45) {
        true => SPELLINGS[0],
        false => dice.pick(SPELLINGS),
    };
    let mut call = Call::get(&spelling(dice, &path));
    call.http2 = dice.chance(20);
    call.host = Some(dice.pick(HOSTS).to_owned());
    call.method = dice
        .pick(&["GET", "GET", "GET", "POST", "HEAD", "PUT", "OPTIONS"])
        .to_owned();
    for _ in 0..dice.pick(&[0, 0, 1, 1, 2]) {
        let name = match call.http2 {
            true => "x-token",
            false => dice.pick(&["x-token", "X-Token", "X-TOKEN"]),
        };
        call = call.with(
            name,
            dice.pick(&["abc", "abc", "def", "", "ABC", "abc,def", " abc"])
                .trim(),
        );
    }
    if dice.chance(25) {
        let said = dice.pick(&[
            "203.0.113.7",
            "10.0.0.1, 203.0.113.7",
            "203.0.113.7, 10.0.0.1",
            "2001:db8::1",
            "x",
        ]);
        call = call.with("x-forwarded-for", said);
    }
    if dice.chance(10) {
        call = call.with("x-forwarded-proto", dice.pick(&["https", "http"]));
    }
    // What a proxy must not go by, or overwrites.
    if dice.chance(10) {
        call = call.with("x-envoy-original-path", "/");
    }
    if dice.chance(5) {
        call = call.grpc();
    }
    if !call.http2 && dice.chance(10) && call.target.starts_with('/') {
        // Absolute form: the target's authority goes before `host`.
        let authority = dice.pick(HOSTS);
        let scheme = dice.pick(&["http", "HTTP"]);
        call.target = format!("{scheme}://{authority}{}", call.target);
    }
    let lower = call.target.to_ascii_lowercase();
    if lower.contains("%00") && ["%5c", "%2f", ".;"].iter().any(|it| lower.contains(it)) {
        // How much of it is decoded before it is refused shows in logs.
        call.target = call.target.replace("%00", "");
    }
    if call.http2 && call.head().is_none() {
        call.http2 = false;
    }
    call
}

/// The paths that filters name.
pub(super) fn named(filters: &[Value]) -> Vec<String> {
    let mut all = Vec::new();
    filters.iter().for_each(|filter| collect(filter, &mut all));
    all
}

fn collect(value: &Value, all: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                let text = inner.as_str().filter(|text| text.starts_with('/'));
                match (&**name, text) {
                    ("exact" | "prefix", Some(text)) => all.push(text.to_owned()),
                    _ => collect(inner, all),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|it| collect(it, all)),
        _ => {}
    }
}
