//! Builds trees from the parser's events, within bounds.
//!
//! Works on an explicit stack: a hostile document may nest as deep as it likes
//! without reaching ours, and aliases may not unfold to more than fits.

use std::collections::{HashMap, HashSet};

use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag};

use super::{Block, Key, Node, Scalar, Value};
use crate::diagnostic::Position;

/// Broken YAML: where and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Syntax {
    pub(crate) at: Position,
    pub(crate) message: String,
}

const DEEPEST: u16 = 100;
const MOST_NODES: u32 = 1_000_000;

/// A collection that is still open.
enum Open {
    List {
        at: Position,
        anchor: usize,
        items: Vec<Node>,
    },
    Map(OpenMap),
}

struct OpenMap {
    at: Position,
    anchor: usize,
    entries: Vec<(Key, Node)>,
    key: Option<Key>,
    /// Keys seen, with their lines: a linear search would let one long map take hours.
    seen: HashMap<Box<str>, u32>,
}

struct Composer {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    documents: Vec<Node>,
    nodes: u32,
}

/// The documents of `text`, empty ones left out.
pub(crate) fn compose(text: &str) -> Result<Vec<Node>, Syntax> {
    let mut composer = Composer {
        open: Vec::new(),
        anchors: HashMap::new(),
        documents: Vec::new(),
        nodes: 0,
    };
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(Syntax::of_scan)?;
        composer.event(event, span)?;
    }
    Ok(composer.documents)
}

// === impl Composer ===

impl Composer {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Syntax> {
        let at = position(span);
        match event {
            Event::DocumentStart(..) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                let scalar = Scalar {
                    block: (style == ScalarStyle::Literal).then(|| block(&text, at)),
                    plain: style == ScalarStyle::Plain && !is_string(tag.as_deref()),
                    text: text.into(),
                };
                self.place(Node::scalar(at, scalar), anchor)?;
            }
            Event::SequenceStart(_, anchor, _) => {
                self.deepen(at)?;
                self.open.push(Open::List {
                    at,
                    anchor,
                    items: Vec::new(),
                });
            }
            Event::MappingStart(_, anchor, _) => {
                self.deepen(at)?;
                self.open.push(Open::Map(OpenMap {
                    at,
                    anchor,
                    entries: Vec::new(),
                    key: None,
                    seen: HashMap::new(),
                }));
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List { at, anchor, items }) => {
                    self.place(Node::list(at, items), anchor)?;
                }
                Some(Open::Map(OpenMap {
                    at,
                    anchor,
                    entries,
                    ..
                })) => {
                    self.place(Node::map(at, merged(entries)?), anchor)?;
                }
                None => {}
            },
            Event::Alias(id) => {
                // An anchor still open is one that would contain itself.
                let Some(target) = self.anchors.get(&id) else {
                    return Err(Syntax::new(at, "an alias inside the node it refers to"));
                };
                let mut copy = target.clone();
                copy.at = at;
                self.nodes = self.nodes.saturating_add(copy.size);
                self.place(copy, 0)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Puts a finished node where it belongs: under a key, in a list, or on top.
    fn place(&mut self, node: Node, anchor: usize) -> Result<(), Syntax> {
        self.nodes = self.nodes.saturating_add(1);
        if self.nodes > MOST_NODES {
            return Err(Syntax::new(
                node.at,
                format!("more than {MOST_NODES} values in one file"),
            ));
        }
        if node.height > DEEPEST {
            return Err(Syntax::new(
                node.at,
                format!("nested deeper than {DEEPEST} levels"),
            ));
        }
        if anchor != 0 {
            self.nodes = self.nodes.saturating_add(node.size);
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map(map)) => match map.key.take() {
                Some(key) => map.entries.push((key, node)),
                None => map.key = Some(map.as_key(node)?),
            },
            None if node.is_null() => {}
            None => self.documents.push(node),
        }
        Ok(())
    }

    fn deepen(&self, at: Position) -> Result<(), Syntax> {
        if self.open.len() >= usize::from(DEEPEST) {
            return Err(Syntax::new(
                at,
                format!("nested deeper than {DEEPEST} levels"),
            ));
        }
        Ok(())
    }
}

/// Where the text of a literal block stands in the source, so that what is in
/// it (a mesh configuration in a ConfigMap) has true positions. The parser
/// points at the first line with something on it; blank ones before are text too.
fn block(text: &str, at: Position) -> Block {
    let blank = text.bytes().take_while(|&b| b == b'\n').count();
    let blank = u32::try_from(blank).unwrap_or(u32::MAX);
    Block {
        line: at.line.saturating_sub(blank),
        indent: at.column.saturating_sub(1),
    }
}

// === impl OpenMap ===

impl OpenMap {
    /// Takes a finished node as the next key.
    fn as_key(&mut self, node: Node) -> Result<Key, Syntax> {
        let Value::Scalar(scalar) = node.value else {
            return Err(Syntax::new(node.at, "a key must be plain text"));
        };
        let first = self.seen.insert(scalar.text.clone(), node.at.line);
        if let Some(first) = first.filter(|_| &*scalar.text != "<<") {
            let message = format!("key {:?} given twice, first at line {first}", scalar.text);
            return Err(Syntax::new(node.at, message));
        }
        Ok(Key {
            at: node.at,
            text: scalar.text,
        })
    }
}

/// Applies merge keys: what is written beside `<<` wins over what it brings.
fn merged(entries: Vec<(Key, Node)>) -> Result<Vec<(Key, Node)>, Syntax> {
    if entries.iter().all(|(key, _)| &*key.text != "<<") {
        return Ok(entries);
    }
    let (merges, mut kept): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|(key, _)| &*key.text == "<<");
    for (_, source) in merges {
        let at = source.at;
        let sources = match source.value {
            Value::List(items) => items,
            _ => vec![source],
        };
        for source in sources {
            let Value::Map(brought) = source.value else {
                return Err(Syntax::new(
                    at,
                    "a merge key takes a mapping or a list of mappings",
                ));
            };
            let have: HashSet<Box<str>> = kept.iter().map(|(key, _)| key.text.clone()).collect();
            kept.extend(
                brought
                    .into_iter()
                    .filter(|(key, _)| !have.contains(&key.text)),
            );
        }
    }
    Ok(kept)
}

fn is_string(tag: Option<&Tag>) -> bool {
    tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"))
}

fn line(marker: &Marker) -> u32 {
    u32::try_from(marker.line()).unwrap_or(u32::MAX)
}

fn column(marker: &Marker) -> u32 {
    u32::try_from(marker.col())
        .unwrap_or(u32::MAX)
        .saturating_add(1)
}

fn position(span: Span) -> Position {
    let (start, end) = (&span.start, &span.end);
    let width = match start.line() == end.line() {
        true => u32::try_from(end.col().saturating_sub(start.col())).unwrap_or(u32::MAX),
        false => 1,
    };
    Position {
        line: line(start),
        column: column(start),
        width: width.max(1),
    }
}

// === impl Syntax ===

impl Syntax {
    fn new(at: Position, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
        }
    }

    fn of_scan(error: ScanError) -> Self {
        let marker = error.marker();
        let at = Position {
            line: line(marker),
            column: column(marker),
            width: 1,
        };
        Self {
            at,
            message: error.info(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Node {
        let mut documents = compose(text).expect("valid YAML");
        assert_eq!(documents.len(), 1, "{text}");
        documents.remove(0)
    }

    fn place(node: &Node) -> (u32, u32, u32) {
        (node.at.line, node.at.column, node.at.width)
    }

    #[test]
    fn keeps_the_place_of_keys_and_values() {
        let root = one("a: 1\nb:\n  - x: \"two\"\n    y: {z: 3}\n");
        assert_eq!(place(root.get("a").unwrap()), (1, 4, 1));
        let Value::List(items) = &root.get("b").unwrap().value else {
            panic!("a list")
        };
        assert_eq!((items[0].at.line, items[0].at.column), (3, 5));
        assert_eq!(place(items[0].get("x").unwrap()), (3, 8, 5));
        let Value::Map(inner) = &items[0].get("y").unwrap().value else {
            panic!("a map")
        };
        assert_eq!((inner[0].0.at.line, inner[0].0.at.column), (4, 9));
    }

    #[test]
    fn counts_columns_in_characters() {
        assert_eq!(place(one("{é: ünï, b: c}").get("b").unwrap()), (1, 13, 1));
    }

    #[test]
    fn splits_documents_and_drops_empty_ones() {
        let documents = compose("---\n# nothing\n---\na: 1\n---\nb: 2\n---\n").unwrap();
        assert_eq!(documents.len(), 2);
    }

    #[test]
    fn reads_json() {
        let root = one("{\n\t\"a\": [true, null],\n\t\"b\": \"x\"\n}\n");
        assert_eq!(root.get("b").unwrap().text(), Some("x"));
    }

    #[test]
    fn refuses_a_key_given_twice() {
        let error = compose("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!((error.at.line, error.at.column), (3, 1));
        assert!(
            error.message.contains("first at line 1"),
            "{}",
            error.message
        );
    }

    #[test]
    fn unfolds_aliases_and_merge_keys() {
        let root = one("base: &b {x: 1, y: 2}\nuse: *b\nmore: {<<: *b, y: 3}\n");
        assert_eq!(root.get("use").unwrap().get("x").unwrap().text(), Some("1"));
        let more = root.get("more").unwrap();
        assert_eq!(more.get("x").unwrap().text(), Some("1"));
        assert_eq!(more.get("y").unwrap().text(), Some("3"));
        assert!(more.get("<<").is_none());
    }

    #[test]
    fn bounds_what_aliases_unfold_to() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..10 {
            let from = vec![format!("*a{}", level - 1); 10].join(", ");
            text += &format!("a{level}: &a{level} [{from}]\n");
        }
        let error = compose(&text).unwrap_err();
        assert!(error.message.contains("more than"), "{}", error.message);
    }

    #[test]
    fn bounds_the_depth_reached_directly_or_through_aliases() {
        let deep = format!("{}{}", "[".repeat(150), "]".repeat(150));
        assert!(compose(&deep).unwrap_err().message.contains("deeper"));
        let half = |inner: &str| format!("{}{inner}{}", "[".repeat(60), "]".repeat(60));
        let text = format!("a: &a {}\nb: {}\n", half("x"), half("*a"));
        assert!(compose(&text).unwrap_err().message.contains("deeper"));
    }

    #[test]
    fn refuses_an_alias_to_itself() {
        assert!(compose("a: &a [*a]\n").is_err());
    }

    #[test]
    fn says_where_broken_yaml_breaks() {
        let error = compose("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
        assert!(error.at.line >= 2, "{error:?}");
        assert!(!error.message.is_empty());
    }

    #[test]
    fn finds_the_text_of_a_literal_block() {
        let root = one("data:\n  mesh: |-\n    a: 1\n    b: 2\n");
        let mesh = root.get("data").unwrap().get("mesh").unwrap();
        let Value::Scalar(Scalar {
            block: Some(block), ..
        }) = &mesh.value
        else {
            panic!()
        };
        assert_eq!((block.line, block.indent), (3, 4));
        let root = one("mesh: |\n\n\n  a: 1\n");
        let mesh = root.get("mesh").unwrap();
        let Value::Scalar(Scalar {
            block: Some(block),
            text,
            ..
        }) = &mesh.value
        else {
            panic!()
        };
        let line = block.line as usize + text.lines().position(|l| l == "a: 1").unwrap();
        assert_eq!((line, block.indent), (4, 2));
    }
}
