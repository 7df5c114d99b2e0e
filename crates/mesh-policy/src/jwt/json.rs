//! JSON as `google.protobuf.Struct` is read from it: an object whose names come once each.

use mesh_core::Claim;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write;

/// An object. None if it is not one.
pub(super) fn object(bytes: &[u8]) -> Option<Claim> {
    let Read(claim) = serde_json::from_slice(bytes).ok()?;
    matches!(claim, Claim::Object(_)).then_some(claim)
}

/// The text of a value, its names in order.
pub(super) fn text(value: &Claim) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Claim, out: &mut String) {
    match value {
        Claim::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Claim::Number(number) => out.push_str(&number.to_string()),
        Claim::Text(text) => quoted(text, out),
        Claim::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Claim::Object(fields) => {
            out.push('{');
            for (at, (name, field)) in fields.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                quoted(name, out);
                out.push(':');
                write(field, out);
            }
            out.push('}');
        }
        _ => out.push_str("null"),
    }
}

fn quoted(text: &str, out: &mut String) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            // As protobuf writes it.
            '<' | '>' | '\u{7f}' | '\0'..='\u{1f}' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(char));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

struct Read(Claim);

struct Reads;

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reads).map(Read)
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "numbers are doubles in protobuf's Struct"
)]
impl<'de> Visitor<'de> for Reads {
    type Value = Claim;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Claim, E> {
        Ok(Claim::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Claim, E> {
        Ok(Claim::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Claim, E> {
        Ok(Claim::Number(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Claim, E> {
        Ok(Claim::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Claim, E> {
        Ok(Claim::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Claim, E> {
        Ok(Claim::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Claim, A::Error> {
        let mut all = Vec::new();
        while let Some(Read(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(Claim::List(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Claim, A::Error> {
        let mut all = BTreeMap::new();
        while let Some((name, Read(value))) = fields.next_entry::<String, Read>()? {
            if all.insert(name, value).is_some() {
                return Err(A::Error::custom("a name comes twice"));
            }
        }
        Ok(Claim::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_objects_only_and_each_name_once() {
        for bad in [
            "",
            "1",
            "[]",
            "{",
            "{\"a\":1,\"a\":1}",
            "{\"a\":1}x",
            "{a:1}",
        ] {
            assert_eq!(object(bad.as_bytes()), None, "{bad}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(500), "]".repeat(500));
        assert_eq!(object(deep.as_bytes()), None);
        let all = r#" {"b":[1,1.5,-2,true,null,"x\"<"],"a":{"c":12345678901234567890}} "#;
        let claim = object(all.as_bytes()).unwrap();
        let expected = r#"{"a":{"c":12345678901234567000},"b":[1,1.5,-2,true,null,"x\"\u003c"]}"#;
        assert_eq!(text(&claim), expected);
    }
}
