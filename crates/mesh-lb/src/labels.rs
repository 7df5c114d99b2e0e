//! What endpoints have in their metadata, and what is asked of it: names and values as JSON, in the
//! one form that values have here.

use mesh_core::Name;
use std::collections::BTreeMap;

/// Whether all of `wanted` is in `has`. With `list_as_any` a list has each of its entries, too
/// (Envoy `metadataLabelMatch`).
pub(crate) fn has_all(
    has: &BTreeMap<Name, Name>,
    wanted: &BTreeMap<Name, Name>,
    list_as_any: bool,
) -> bool {
    wanted.iter().all(|(name, value)| {
        let Some(own) = has.get(name) else {
            return false;
        };
        let entries = list_as_any.then(|| entries(own)).flatten();
        match entries {
            Some(entries) => entries.contains(&value.as_str()),
            None => own == value,
        }
    })
}

/// The entries of a list. None where it is something else.
pub(crate) fn entries(json: &str) -> Option<Vec<&str>> {
    let inside = json.strip_prefix('[')?.strip_suffix(']')?;
    Some(parts(inside))
}

/// The fields of an object. None where it is something else.
pub(crate) fn fields(json: &str) -> Option<BTreeMap<Name, Name>> {
    let inside = json.strip_prefix('{')?.strip_suffix('}')?;
    let field = |part: &str| {
        let (name, rest) = text(part)?;
        let value = rest.strip_prefix(':')?;
        Some((Name::from(name), Name::from(value)))
    };
    parts(inside).into_iter().map(field).collect()
}

/// What commas part that are neither in a text nor in something of its own.
fn parts(inside: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    let mut from = 0;
    for (at, byte) in inside.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(&inside[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    if !inside.is_empty() {
        parts.push(&inside[from..]);
    }
    parts
}

/// The text that a part begins with, and what follows it.
fn text(part: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut rest = part.strip_prefix('"')?.chars();
    loop {
        match rest.next()? {
            '"' => return Some((text, rest.as_str())),
            '\\' => text.push(match rest.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let digits: String = rest.by_ref().take(4).collect();
                    char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?
                }
                itself => itself,
            }),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<Name, Name> {
        let pairs = pairs.iter();
        pairs
            .map(|(k, v)| (Name::from(*k), Name::from(*v)))
            .collect()
    }

    #[test]
    fn a_list_has_its_entries_whatever_is_in_them() {
        let list = r#"["a,b","c\"],[",{"x":[1,2]},[],null]"#;
        let expected = [r#""a,b""#, r#""c\"],[""#, r#"{"x":[1,2]}"#, "[]", "null"];
        assert_eq!(entries(list).unwrap(), expected);
        assert_eq!(entries("[]").unwrap(), [""; 0]);
        assert_eq!(entries(r#""[a]""#), None);
    }

    #[test]
    fn an_object_has_its_fields_by_their_plain_names() {
        let fields = fields(r#"{"a\"\u0041":{"b":"}"},"c":1}"#).unwrap();
        assert_eq!(fields, map(&[("a\"A", r#"{"b":"}"}"#), ("c", "1")]));
        assert_eq!(super::fields("{}").unwrap(), map(&[]));
        assert_eq!(super::fields("[]"), None);
        assert_eq!(super::fields("{1}"), None);
    }

    #[test]
    fn a_list_stands_for_any_of_its_entries_only_where_that_is_said() {
        let has = map(&[("list", r#"["a","b"]"#), ("v", "1")]);
        let wanted = map(&[("list", r#""b""#), ("v", "1")]);
        assert!(has_all(&has, &wanted, true) && !has_all(&has, &wanted, false));
        let whole = map(&[("list", r#"["a","b"]"#)]);
        assert!(!has_all(&has, &whole, true) && has_all(&has, &whole, false));
        assert!(!has_all(&has, &map(&[("other", "1")]), true));
        assert!(has_all(&has, &map(&[]), true));
    }

    proptest! {
        #[test]
        fn no_text_upsets_it(json in r#"[\[\]{}",:\\u0-9a\u{e9}]{0,24}"#) {
            let _ = (entries(&json), fields(&json));
            let list = format!("[{json}]");
            if let Some(entries) = entries(&list) {
                prop_assert_eq!(entries.join(","), json);
            }
        }
    }
}
