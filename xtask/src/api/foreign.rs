//! Types and traits of other crates in a public signature.
//!
//! Who shows such a type makes that crate's next major release a breaking change of their own.
//! Each that is allowed here is one that a user of Tower or of `http` has anyway.

use std::collections::BTreeSet;

use serde_json::Value;

/// Crates of others that may show everywhere, by the name they have in code.
const ALLOWED: &[&str] = &[
    "alloc",
    "bytes",
    "core",
    "http",
    "http_body",
    "std",
    "tower_layer",
    "tower_service",
];

/// Crates of others that may show in one of ours: `(package, crate, why)`.
const EXEMPT: &[(&str, &str, &str)] = &[
    (
        "mesh-proxy",
        "clap_builder",
        "its command line is a subcommand of `mesh` too, in another crate",
    ),
    (
        "mesh-control",
        "clap_builder",
        "its command line is a subcommand of `mesh` too, in another crate",
    ),
    (
        "mesh-client",
        "tokio",
        "a connection that is passed on as it is is over and is what tokio reads and writes",
    ),
    (
        "mesh-http1",
        "tokio",
        "its connections are over and are what tokio reads and writes",
    ),
    (
        "mesh-identity",
        "tokio",
        "its streams are over and are what tokio reads and writes",
    ),
    (
        "mesh-control",
        "tokio",
        "serves on a listener that its user has bound",
    ),
    (
        "mesh-xds",
        "envoy_types",
        "Envoy's messages are its subject; as `pb` they are outside its promise of stability",
    ),
    ("mesh-xds", "prost", "what every message of `pb` implements"),
    (
        "mesh-xds",
        "tokio",
        "serves on a listener that its user has bound",
    ),
];

/// Whether a crate may show in the API of a package.
pub(super) fn is_allowed(package: &str, path: &str) -> bool {
    let name = path.split("::").next().unwrap_or(path);
    ALLOWED.contains(&name)
        || name.starts_with("mesh_")
        || EXEMPT
            .iter()
            .any(|(of, exempt, _)| *of == package && *exempt == name)
}

/// The full paths of what an item of the crate names from other crates.
///
/// Looks at the item's signature only: what it contains (named fields, variants, methods) are
/// items of their own; but the fields of a tuple are listed with it. Bodies and private fields
/// are in no rustdoc JSON, so they are not looked at.
pub(super) fn types_of(json: &Value, id: u32) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let inner = |id: u64| &json["index"][id.to_string()]["inner"];
    let item = inner(id.into());
    walk(json, item, &mut found);
    if let Some(re_exported) = item["use"]["id"].as_u64() {
        found.extend(foreign_path(json, re_exported));
    }
    let tuples = ["struct", "variant"].map(|kind| item[kind]["kind"]["tuple"].as_array());
    for field in tuples.into_iter().flatten().flatten() {
        if let Some(field) = field.as_u64() {
            walk(json, inner(field), &mut found);
        }
    }
    found
}

/// Collects every path in a piece of rustdoc's JSON, at whatever depth.
fn walk(json: &Value, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            // A type or trait by name: `{"path": "Bytes", "id": 7, "args": ...}`.
            if fields.contains_key("path")
                && let Some(id) = fields.get("id").and_then(Value::as_u64)
            {
                found.extend(foreign_path(json, id));
            }
            fields.values().for_each(|value| walk(json, value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| walk(json, value, found)),
        _ => {}
    }
}

/// The full path of an id, if it is of another crate.
fn foreign_path(json: &Value, id: u64) -> Option<String> {
    let summary = &json["paths"][id.to_string()];
    let origin = summary["crate_id"].as_u64().filter(|origin| *origin != 0)?;
    let path: Vec<&str> = summary["path"]
        .as_array()?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    // The first word of a path may be the crate's name; the table has it for certain.
    let name = json["external_crates"][origin.to_string()]["name"].as_str()?;
    let rest = path.get(1..).unwrap_or_default().join("::");
    Some(format!("{name}::{rest}"))
}
