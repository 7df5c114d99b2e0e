//! Whether a text is a set of keys, which Envoy asks of a listener before it takes it.

use crate::pb::google::protobuf::{Struct, Value, value::Kind};
use crate::wire::json;
use mesh_core::Invalid;

/// The largest set, in bytes.
const MAX: usize = 1 << 20;

/// # Errors
/// In Envoy's words, if there is nothing in it that looks like a key. Whether numbers are those of a
/// key is not looked at.
pub(super) fn check(text: &str) -> Result<(), Invalid> {
    let wrong = |why: &str| Err(Invalid::new("", format!("has invalid local jwks: {why}")));
    if text.len() > MAX {
        return wrong("Jwks is too large");
    }
    let Some(Some(Kind::StructValue(set))) = json::value(text).map(|value| value.kind) else {
        return wrong("Jwks is an invalid JSON");
    };
    let Some(keys) = set.fields.get("keys") else {
        return wrong("Jwks does not have [keys] field");
    };
    let Some(Kind::ListValue(keys)) = &keys.kind else {
        return wrong("[keys] in Jwks is not an array");
    };
    match keys.values.iter().any(is_key) {
        true => Ok(()),
        false => wrong("Jwks doesn't have any valid public key"),
    }
}

fn is_key(value: &Value) -> bool {
    let Some(Kind::StructValue(key)) = &value.kind else {
        return false;
    };
    let has = |names: &[&str]| names.iter().all(|name| text(key, name).is_some());
    match text(key, "kty") {
        Some("RSA") => has(&["n", "e"]),
        Some("EC") => has(&["x", "y"]),
        Some("oct") => has(&["k"]),
        Some("OKP") => has(&["crv", "x"]),
        _ => false,
    }
}

fn text<'a>(key: &'a Struct, name: &str) -> Option<&'a str> {
    match &key.fields.get(name)?.kind {
        Some(Kind::StringValue(text)) if !text.is_empty() => Some(text),
        _ => None,
    }
}
