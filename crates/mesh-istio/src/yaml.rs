//! A YAML tree that remembers where everything stood.
//!
//! Scalars keep their text and whether they were quoted, so that it is the
//! *reader* of a field who decides what `1.10` or `yes` means; nothing is lost
//! to an early guess. JSON is read by the same code, being YAML.
//!
//! Anchors, aliases and merge keys (`<<`) work. Custom tags are ignored.

use crate::diagnostic::Position;

mod compose;

pub(crate) use compose::compose;

/// One node and the place it starts at.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Value,
    /// Nesting below this node; bounds the recursion of everyone who walks it.
    height: u16,
    /// Nodes in this subtree; bounds what aliases may unfold to.
    size: u32,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A scalar as it was written.
#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    pub(crate) text: Box<str>,
    /// Not quoted, hence open to interpretation as number, boolean or null.
    pub(crate) plain: bool,
    /// Where the text of a literal block starts and how deep it is indented.
    pub(crate) block: Option<Block>,
}

/// The first content line of a literal block scalar, and its indentation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) line: u32,
    pub(crate) indent: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) at: Position,
    pub(crate) text: Box<str>,
}

/// What a plain scalar stands for in YAML's core schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Null,
    Bool(bool),
    Number,
    Text,
}

// === impl Node ===

impl Node {
    fn scalar(at: Position, scalar: Scalar) -> Self {
        Self {
            at,
            value: Value::Scalar(scalar),
            height: 0,
            size: 1,
        }
    }

    fn list(at: Position, mut items: Vec<Self>) -> Self {
        // Most are short, and all of a file's are there at the same time.
        items.shrink_to_fit();
        let height = items
            .iter()
            .map(|n| n.height)
            .max()
            .unwrap_or(0)
            .saturating_add(1);
        let size = items.iter().fold(1u32, |sum, n| sum.saturating_add(n.size));
        Self {
            at,
            value: Value::List(items),
            height,
            size,
        }
    }

    fn map(at: Position, mut entries: Vec<(Key, Self)>) -> Self {
        entries.shrink_to_fit();
        let height = entries
            .iter()
            .map(|(_, n)| n.height)
            .max()
            .unwrap_or(0)
            .saturating_add(1);
        let size = entries
            .iter()
            .fold(1u32, |sum, (_, n)| sum.saturating_add(n.size));
        Self {
            at,
            value: Value::Map(entries),
            height,
            size,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.sort() == Sort::Null)
    }

    /// The entry of a map, under exactly this key.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries
                .iter()
                .find(|(k, _)| &*k.text == key)
                .map(|(_, n)| n),
            _ => None,
        }
    }

    /// The text of a scalar, however it was written; `None` for null.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) if scalar.sort() != Sort::Null => Some(&scalar.text),
            _ => None,
        }
    }

    /// How to call this node when something else was expected.
    pub(crate) fn describe(&self) -> &'static str {
        match &self.value {
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
            Value::Scalar(scalar) => match scalar.sort() {
                Sort::Null => "nothing",
                Sort::Bool(_) => "a boolean",
                Sort::Number => "a number",
                Sort::Text => "text",
            },
        }
    }
}

// === impl Scalar ===

impl Scalar {
    pub(crate) fn sort(&self) -> Sort {
        if !self.plain {
            return Sort::Text;
        }
        match &*self.text {
            "" | "~" | "null" | "Null" | "NULL" => Sort::Null,
            "true" | "True" | "TRUE" => Sort::Bool(true),
            "false" | "False" | "FALSE" => Sort::Bool(false),
            text if is_number(text) => Sort::Number,
            _ => Sort::Text,
        }
    }
}

/// YAML 1.2 core schema, 10.3.2: integers, floats, `.inf` and `.nan`.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    match unsigned {
        ".inf" | ".Inf" | ".INF" => return true,
        ".nan" | ".NaN" | ".NAN" => return unsigned.len() == text.len(),
        _ => {}
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return !digits.is_empty() && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
    }
    // `1e5` is a number and `e5` is not; f64's own grammar agrees once the
    // first character is known to be a digit or a dot (it also knows `inf`).
    unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.contains(|c: char| c.is_ascii_digit())
        && unsigned.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_plain_scalars_as_the_core_schema_does() {
        let sort = |text: &str| {
            Scalar {
                text: text.into(),
                plain: true,
                block: None,
            }
            .sort()
        };
        for text in [
            "1", "-1", "1.10", "0x1f", "0o17", "1e5", ".5", "-.inf", ".nan", "5.",
        ] {
            assert_eq!(sort(text), Sort::Number, "{text}");
        }
        for text in [
            "v1", "1s", "inf", "e5", "yes", "0x", "1.2.3.4", "-", ".", "-.nan", "10_0",
        ] {
            assert_eq!(sort(text), Sort::Text, "{text}");
        }
        assert_eq!(sort("~"), Sort::Null);
        assert_eq!(sort("TRUE"), Sort::Bool(true));
    }
}
