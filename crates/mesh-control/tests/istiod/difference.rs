//! Where two resources differ, field by field.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

/// One place where two resources differ.
#[derive(Debug)]
pub(crate) struct Difference {
    /// The field; empty for a resource that only one side has.
    pub(crate) path: String,
    ours: Option<Value>,
    theirs: Option<Value>,
}

/// Every place where they differ, as deep as possible.
pub(crate) fn differences(ours: Option<&Value>, theirs: Option<&Value>) -> Vec<Difference> {
    let mut found = Vec::new();
    walk(String::new(), ours, theirs, &mut found);
    found
}

fn walk(path: String, ours: Option<&Value>, theirs: Option<&Value>, found: &mut Vec<Difference>) {
    match (ours, theirs) {
        (Some(one), Some(other)) if one == other => {}
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for key in keys {
                let path = match path.as_str() {
                    "" => key.clone(),
                    path => format!("{path}.{key}"),
                };
                walk(path, one.get(key), other.get(key), found);
            }
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) if one.len() == other.len() => {
            for (index, (one, other)) in one.iter().zip(other).enumerate() {
                walk(format!("{path}[{index}]"), Some(one), Some(other), found);
            }
        }
        _ => found.push(Difference {
            path,
            ours: ours.cloned(),
            theirs: theirs.cloned(),
        }),
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |side: &Option<Value>| match side {
            None => "nothing".to_owned(),
            Some(value) => {
                let text = value.to_string();
                match text.char_indices().nth(400) {
                    Some((end, _)) => format!("{}…", &text[..end]),
                    None => text,
                }
            }
        };
        write!(
            f,
            "ours {}, istiod's {}",
            shown(&self.ours),
            shown(&self.theirs)
        )
    }
}

#[test]
fn differences_are_told_by_their_fields() {
    let one = serde_json::json!({"a": {"b": [1, 2]}, "c": 1, "d": [1]});
    let other = serde_json::json!({"a": {"b": [1, 3]}, "d": [1, 2], "e": 1});
    let paths: Vec<_> = differences(Some(&one), Some(&other))
        .into_iter()
        .map(|difference| difference.path)
        .collect();
    assert_eq!(paths, ["a.b[1]", "c", "d", "e"]);
    assert_eq!(differences(None, Some(&one))[0].path, "");
    assert!(differences(Some(&one), Some(&one)).is_empty());
}
