//! What kinds of conditions a route has.

use super::list;
use serde_json::Value;

/// The kinds of conditions of a route.
pub(super) fn kinds(condition: &Value) -> Vec<String> {
    let mut kinds = Vec::new();
    let any_case = condition["case_sensitive"] == false;
    let path = ["prefix", "path", "path_separated_prefix"]
        .into_iter()
        .find(|kind| !condition[*kind].is_null());
    kinds.push(match path {
        Some("prefix") if condition["prefix"] == "/" => "any path".into(),
        Some(kind) if any_case => format!("{kind}, any case"),
        Some(kind) => kind.into(),
        None if !condition["path_match_policy"].is_null() => "path template".into(),
        None => "path regex".into(),
    });
    for header in list(&condition["headers"]) {
        kinds.push(format!("header {}", value_kind(header)));
        if header["invert_match"] == true {
            kinds.push("header invert".into());
        }
        if header["treat_missing_header_as_empty"] == true {
            kinds.push("header missing is empty".into());
        }
    }
    for query in list(&condition["query_parameters"]) {
        kinds.push(format!("query {}", value_kind(query)));
    }
    for cookie in list(&condition["cookies"]) {
        kinds.push("cookie".into());
        if cookie["invert_match"] == true {
            kinds.push("cookie invert".into());
        }
    }
    if !condition["tls_context"].is_null() {
        kinds.push("certificate".into());
    }
    for object in list(&condition["filter_state"]) {
        let is_text = !object["string_match"].is_null();
        let kind = if is_text { "text" } else { "address" };
        kinds.push(format!("filter state, {kind}"));
    }
    if !condition["grpc"].is_null() {
        kinds.push("grpc".into());
    }
    if !condition["runtime_fraction"].is_null() {
        kinds.push("fraction".into());
    }
    kinds
}

fn value_kind(matcher: &Value) -> &'static str {
    let text = &matcher["string_match"];
    let kinds = [
        ("exact", "exact"),
        ("prefix", "prefix"),
        ("suffix", "suffix"),
        ("contains", "contains"),
        ("safe_regex", "regex"),
    ];
    let found = kinds.iter().find(|(field, _)| !text[*field].is_null());
    match found {
        Some((_, name)) => name,
        None if !matcher["range_match"].is_null() => "range",
        None => "present",
    }
}
