//! JSON values as YAML.
//!
//! Strings stand without quotes only where every reader takes them for strings, YAML 1.1's
//! included, to which `no` is a boolean and `1:30` a number. Everything else is in double quotes
//! with the escapes that JSON has too.

use serde_json::Value;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// A key that is longer has to be marked as one (YAML 1.2 §7.4.2 draws the line at 1024).
const LONGEST_SIMPLE_KEY: usize = 128;

/// A value as one YAML document, indented by two.
pub(crate) fn emit(value: &Value) -> String {
    let mut out = String::new();
    node(&mut out, value, 0);
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

/// Writes a value whose first line begins where `out` ends and whose others are indented.
fn node(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    spaces(out, indent);
                }
                out.push_str("- ");
                node(out, item, indent + 2);
                end_line(out);
            }
        }
        Value::Object(entries) if !entries.is_empty() => {
            for (index, (key, value)) in entries.iter().enumerate() {
                if index > 0 {
                    spaces(out, indent);
                }
                entry(out, key, value, indent);
                end_line(out);
            }
        }
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => {
            // Writing to a String cannot fail.
            let _ = write!(out, "{number}");
        }
        Value::String(text) => scalar(out, text),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

fn entry(out: &mut String, key: &str, value: &Value, indent: usize) {
    if key.len() > LONGEST_SIMPLE_KEY {
        out.push_str("? ");
        scalar(out, key);
        out.push('\n');
        spaces(out, indent);
    } else {
        scalar(out, key);
    }
    out.push(':');
    // A list may stand below its key without being indented further.
    let below = match value {
        Value::Array(items) if !items.is_empty() => Some(indent),
        Value::Object(entries) if !entries.is_empty() => Some(indent + 2),
        _ => None,
    };
    match below {
        Some(indent) => {
            out.push('\n');
            spaces(out, indent);
            node(out, value, indent);
        }
        None => {
            out.push(' ');
            node(out, value, indent);
        }
    }
}

fn spaces(out: &mut String, indent: usize) {
    let _ = write!(out, "{:indent$}", "");
}

fn end_line(out: &mut String) {
    if !out.ends_with('\n') {
        out.push('\n');
    }
}

fn scalar(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // YAML 1.2 §5.1: what is not printable, and what some readers take for the end of a
            // line or the beginning of a text.
            '\0'..='\u{1f}'
            | '\u{7f}'..='\u{a0}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            character => out.push(character),
        }
    }
    out.push('"');
}

/// Whether nobody takes the text for anything but this string when it has no quotes.
fn is_plain(text: &str) -> bool {
    let Some(first) = text.chars().next() else {
        return false;
    };
    if first.is_ascii_digit() {
        let seconds = text.strip_suffix('s').unwrap_or_default();
        let seconds = seconds.parse::<f64>().is_ok() && !seconds.contains(['e', 'E']);
        return seconds || text.parse::<Ipv4Addr>().is_ok();
    }
    if !(first.is_ascii_alphabetic() || matches!(first, '/' | '_')) || is_word(text) {
        return false;
    }
    if text.ends_with([' ', ':']) || text.contains(": ") {
        return false;
    }
    text.chars().all(|character| {
        character.is_ascii_alphanumeric() || " _./-|:@+=~%()$^*;,".contains(character)
    })
}

/// Whether YAML has another meaning for the word.
fn is_word(text: &str) -> bool {
    let words = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"];
    words.iter().any(|word| text.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_istio::{Files, World};
    use mesh_xds::json::Codec;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_document_looks_as_one_would_write_it() {
        let mut value = json!({
            "name": "outbound|80||reviews.default.svc.cluster.local",
            "connect_timeout": "0.250s",
            "hosts": [{"address": "10.0.0.1", "port": 80}, {"address": "::1"}],
            "empty": {"list": [], "map": {}, "text": "", "nothing": null},
            "nested": [[1, 2.5], [true]],
            "message": "no: \"never\"\n",
        });
        value.sort_all_objects();
        assert_eq!(
            emit(&value),
            r#"connect_timeout: 0.250s
empty:
  list: []
  map: {}
  nothing: null
  text: ""
hosts:
- address: 10.0.0.1
  port: 80
- address: "::1"
message: "no: \"never\"\n"
name: outbound|80||reviews.default.svc.cluster.local
nested:
- - 1
  - 2.5
- - true
"#
        );
    }

    #[test]
    fn what_would_be_something_else_without_quotes_gets_them() {
        let texts = [
            "",
            "80",
            "1e3",
            "0x1f",
            "1:30",
            "no",
            "Yes",
            "OFF",
            "y",
            "~",
            "null",
            ".inf",
            "-",
            "- a",
            "*",
            "&a",
            "!t",
            "%",
            "@a",
            "`",
            "#",
            "a: b",
            "a:",
            "a ",
            " a",
            "a #b",
            "[a]",
            "{a}",
            "|",
            ">",
            "'",
            "\"",
            "?",
            "a\nb",
            "a\tb",
            "é",
            "1_000",
            "1e3s",
            "2001-01-01",
            "=",
            "<<",
        ];
        for text in texts {
            assert!(emit(&json!(text)).starts_with('"'), "{text:?}");
        }
        for text in [
            "0.25s", "10s", "10.0.0.1", "/a", "a:b", "a b", "envoy.x", "a*",
        ] {
            assert_eq!(emit(&json!(text)), format!("{text}\n"));
        }
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z0-9 .:_|/*#,~=<>&!%@?'\"\\[\\]{}\\\\-]{0,12}",
            "(true|no|Null|on|0x1f|1e9|017|1:30|0.5s|-1|\\+1|\\.5|1_0|<<|~|=)",
            "\\PC{0,6}",
            ".{0,6}",
            any::<String>(),
            "[a-z]{120,140}",
        ]
    }

    /// Our readers take `<<` for a merge, even in quotes.
    fn key() -> impl Strategy<Value = String> {
        text().prop_filter("a merge", |text| text != "<<")
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            // In binary fractions: serde_json reads others with the last bit wrong.
            any::<i32>().prop_map(|number| Value::from(f64::from(number) / 8.0)),
            prop_oneof![Just(1e21), Just(-1.5e300), Just(5e-7)].prop_map(Value::from),
            text().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map(key(), inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn envoys_reader_reads_back_what_was_written(value in value()) {
            let (codec, any) = (Codec::new(), "google.protobuf.Value");
            let direct = codec.from_json(any, &value.to_string()).unwrap();
            let yaml = emit(&value);
            let read = codec.from_yaml(any, &yaml);
            prop_assert_eq!(read.as_ref(), Ok(&direct), "{}", yaml);
        }

        #[test]
        fn istios_reader_reads_back_what_was_written(
            annotations in proptest::collection::btree_map(key(), text(), 0..4)
        ) {
            let object = json!({
                "apiVersion": "networking.istio.io/v1",
                "kind": "WorkloadEntry",
                "metadata": {"name": "a", "annotations": annotations},
                "spec": {"address": "10.0.0.1"},
            });
            let yaml = emit(&object);
            let mut world = World::default();
            let findings = world.update(&Files::from_text("a.yaml", &yaml));
            prop_assert!(findings.is_empty(), "{:?}\n{}", findings, yaml);
            let read = world.workload_entries().next().map(|(meta, _)| &meta.annotations);
            prop_assert_eq!(read, Some(&annotations), "{}", yaml);
        }
    }
}
