//! YAML's events to a tree.
//!
//! The open lists and maps are on a stack of our own, so a hostile document may nest as deep as it
//! likes without reaching the thread's, and aliases may not unfold to more than fits.

use std::collections::{HashMap, HashSet};

use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle};

use super::JsonError;
use super::tree::{Key, Node, Value};

/// How deep a document may be nested; serde_json has the same limit.
const MAX_DEPTH: usize = 127;

/// How many values one document may have, after aliases are unfolded.
const MAX_NODES: usize = 4_000_000;

type Place = Option<(u32, u32)>;

/// A list or map that is not at its end.
struct Open {
    place: Place,
    anchor: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Node>),
    Map {
        entries: Vec<(Key, Node)>,
        /// Whose value comes next.
        key: Option<Key>,
    },
}

#[derive(Default)]
struct Composer {
    open: Vec<Open>,
    /// Named nodes, with the number of nodes in them and how deep they go.
    anchors: HashMap<usize, (Node, usize, usize)>,
    document: Option<Node>,
    documents: usize,
    nodes: usize,
}

/// Reads the one document of a text; an empty text is null.
pub(super) fn read(text: &str) -> Result<Node, JsonError> {
    let mut composer = Composer::default();
    for event in Parser::new_from_str(text) {
        let (event, span) =
            event.map_err(|error| JsonError::new(error.info()).at(place(error.marker())))?;
        composer.event(event, place(&span.start))?;
    }
    let nothing = Node {
        value: Value::Null,
        place: None,
    };
    Ok(composer.document.unwrap_or(nothing))
}

// === impl Composer ===

impl Composer {
    fn event(&mut self, event: Event<'_>, place: Place) -> Result<(), JsonError> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let error = "there is a second document, where one was expected";
                    return Err(JsonError::new(error).at(place));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_string = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
                // A key is a string, whatever it looks like.
                let is_string = is_string || self.expects_key();
                let value = match style == ScalarStyle::Plain && !is_string {
                    true => plain(&text),
                    false => Value::Text(text.into()),
                };
                self.place(Node { value, place }, anchor)?;
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open(place, anchor, Inside::List(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, _) => {
                let (entries, key) = (Vec::new(), None);
                self.open(place, anchor, Inside::Map { entries, key })?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open {
                    place,
                    anchor,
                    inside,
                }) = self.open.pop()
                {
                    let value = match inside {
                        Inside::List(items) => Value::List(items),
                        Inside::Map { entries, .. } => Value::Map(merged(entries)?),
                    };
                    self.place(Node { value, place }, anchor)?;
                }
            }
            Event::Alias(anchor) => {
                // An anchor that is still open would contain itself.
                let Some((node, size, height)) = self.anchors.get(&anchor) else {
                    let error = "an alias cannot stand inside of what it stands for";
                    return Err(JsonError::new(error).at(place));
                };
                self.nodes += size;
                if self.open.len() + height > MAX_DEPTH {
                    return Err(too_deep(place));
                }
                if self.nodes > MAX_NODES {
                    return Err(too_many(place));
                }
                let value = node.value.clone();
                self.place(Node { value, place }, 0)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn expects_key(&self) -> bool {
        let open = self.open.last().map(|open| &open.inside);
        matches!(open, Some(Inside::Map { key: None, .. }))
    }

    fn open(&mut self, place: Place, anchor: usize, inside: Inside) -> Result<(), JsonError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(place));
        }
        self.open.push(Open {
            place,
            anchor,
            inside,
        });
        Ok(())
    }

    /// Puts a node that is complete where it belongs: on top, in a list, as a key or under one.
    fn place(&mut self, node: Node, anchor: usize) -> Result<(), JsonError> {
        self.nodes += 1;
        if anchor != 0 {
            let (size, height) = measure(&node);
            // The copy that is kept for aliases.
            self.nodes += size;
            self.anchors.insert(anchor, (node.clone(), size, height));
        }
        if self.nodes > MAX_NODES {
            return Err(too_many(node.place));
        }
        match self.open.last_mut().map(|open| &mut open.inside) {
            None => self.document = Some(node),
            Some(Inside::List(items)) => items.push(node),
            Some(Inside::Map { entries, key }) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => *key = Some(self::key(node)?),
            },
        }
        Ok(())
    }
}

fn key(node: Node) -> Result<Key, JsonError> {
    let place = node.place;
    match node.value {
        Value::Text(text) => Ok(Key { text, place }),
        _ => Err(JsonError::new("a key has to be a string").at(place)),
    }
}

/// Applies merge keys: what stands beside a `<<` wins over what it brings.
fn merged(entries: Vec<(Key, Node)>) -> Result<Vec<(Key, Node)>, JsonError> {
    if entries.iter().all(|(key, _)| key.text != "<<") {
        return Ok(entries);
    }
    let (merges, mut kept): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|(key, _)| key.text == "<<");
    let mut have: HashSet<String> = kept.iter().map(|(key, _)| key.text.clone()).collect();
    for (_, source) in merges {
        let place = source.place;
        let sources = match source.value {
            Value::List(items) => items,
            _ => vec![source],
        };
        for source in sources {
            let Value::Map(brought) = source.value else {
                return Err(JsonError::new("has to be a map or a list of maps")
                    .at(place)
                    .within("<<"));
            };
            let new = brought
                .into_iter()
                .filter(|(key, _)| have.insert(key.text.clone()));
            kept.extend(new);
        }
    }
    Ok(kept)
}

/// The number of nodes in it, and how deep it goes.
fn measure(node: &Node) -> (usize, usize) {
    let (mut size, mut height) = (0, 0);
    let mut waiting = vec![(node, 0)];
    while let Some((node, depth)) = waiting.pop() {
        size += 1;
        height = height.max(depth);
        match &node.value {
            Value::List(items) => waiting.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Map(entries) => {
                waiting.extend(entries.iter().map(|(_, item)| (item, depth + 1)))
            }
            _ => {}
        }
    }
    (size, height)
}

/// What a scalar without quotes stands for: YAML 1.1, as Envoy reads it.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => {
            return Value::Bool(true);
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => {
            return Value::Bool(false);
        }
        ".inf" | ".Inf" | ".INF" | "+.inf" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let is_number = |character: char| character.is_ascii_digit() || character == '.';
    if !digits.starts_with(is_number) {
        return Value::Text(text.into());
    }
    let (base, whole) = match (digits.strip_prefix("0x"), digits.strip_prefix('0')) {
        (Some(hex), _) => (16, hex),
        (None, Some(octal)) if !octal.is_empty() => (8, octal.trim_start_matches('o')),
        _ => (10, digits),
    };
    let is_plain = whole.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if let Some(number) = i64::from_str_radix(whole, base).ok().filter(|_| is_plain) {
        return Value::Integer(sign * i128::from(number));
    }
    let number = text
        .parse::<u64>()
        .map(|number| Value::Integer(number.into()));
    let number = number.ok().or_else(|| text.parse().ok().map(Value::Float));
    number.unwrap_or_else(|| Value::Text(text.into()))
}

fn place(marker: &Marker) -> Place {
    let line = u32::try_from(marker.line()).ok()?;
    let column = u32::try_from(marker.col()).ok()?;
    Some((line, column.saturating_add(1)))
}

fn too_deep(place: Place) -> JsonError {
    JsonError::new(format!("is nested more than {MAX_DEPTH} levels deep")).at(place)
}

fn too_many(place: Place) -> JsonError {
    JsonError::new(format!("has more than {MAX_NODES} values")).at(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> String {
        shown(&read(text).unwrap())
    }

    fn shown(node: &Node) -> String {
        match &node.value {
            Value::Null => "null".into(),
            Value::Bool(value) => value.to_string(),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => format!("{number:?}"),
            Value::Text(text) => format!("{text:?}"),
            Value::List(items) => {
                let items: Vec<_> = items.iter().map(shown).collect();
                format!("[{}]", items.join(" "))
            }
            Value::Map(entries) => {
                let entries = entries
                    .iter()
                    .map(|(key, node)| key.text.clone() + ":" + &shown(node));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(" "))
            }
        }
    }

    #[test]
    fn plain_scalars_are_what_envoy_takes_them_for() {
        let numbers = "[1, -2, 020, 0x1F, 1.5, 1e3, 18446744073709551615]";
        assert_eq!(
            text(numbers),
            "[1 -2 16 31 1.5 1000.0 18446744073709551615]"
        );
        let quoted = "[on, No, ~, '', '1', \"on\", !!str 1, .inf]";
        assert_eq!(text(quoted), r#"[true false null "" "1" "on" "1" inf]"#);
        let words = "[1s, 1.2.3.4, e5, infinity, nan, 10.0.0.0/8, -a, 0x, +]";
        let expected = r#"["1s" "1.2.3.4" "e5" "infinity" "nan" "10.0.0.0/8" "-a" "0x" "+"]"#;
        assert_eq!(text(words), expected);
        assert_eq!(text("{y: y, 1: 1, null: null}"), "{y:true 1:1 null:null}");
    }

    #[test]
    fn aliases_and_merge_keys_are_unfolded() {
        assert_eq!(
            text("{a: &a {x: 1, y: 2}, b: *a, c: {<<: *a, y: 3}}"),
            "{a:{x:1 y:2} b:{x:1 y:2} c:{y:3 x:1}}"
        );
        assert!(read("&a [*a]").is_err());
        assert!(read("{<<: 1}").is_err());
    }

    #[test]
    fn a_document_has_a_size_and_is_alone() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..10 {
            let inner = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb += &format!("a{level}: &a{level} [{inner}]\n");
        }
        assert!(read(&bomb).unwrap_err().message().contains("more than"));
        assert!(read(&("[".repeat(128) + &"]".repeat(128))).is_err());
        assert!(read(&("[".repeat(127) + &"]".repeat(127))).is_ok());
        let half = |inner: &str| "[".repeat(70) + inner + &"]".repeat(70);
        let twice = format!("[&a {}, {}]", half("x"), half("*a"));
        assert!(read(&twice).unwrap_err().message().contains("deep"));
        assert_eq!(read("a: 1\n---\nb: 1\n").unwrap_err().place(), Some((2, 1)));
        assert_eq!(text(""), "null");
        assert_eq!(text("---\n# nothing\n"), "null");
    }
}
