//! Templates of paths: text and wildcards for segments (Envoy's `UriTemplateMatchConfig`).

use super::template_rewrite::is_name;
use crate::{Invalid, Name};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A template of a path, e.g. `/users/*/files/**`: `*` is one segment, `**` any text, slashes
/// included, and the last of the wildcards. `{name}` and `{name=a/*}` give a part a name, by which
/// a [`TemplateRewrite`](super::TemplateRewrite) takes what stood there. Two templates are equal
/// when their texts are.
#[derive(Clone)]
pub struct PathTemplate(Arc<Whole>);

/// A template as it is written, and what it consists of.
struct Whole {
    text: Name,
    parts: Vec<Part>,
    names: Vec<Named>,
}

/// A part with a name, from one place up to another.
#[derive(Clone, Debug)]
struct Named {
    name: Name,
    start: Place,
    end: Place,
}

/// A place in a template: so many bytes into what the part with this index stands for.
#[derive(Clone, Copy, Debug)]
struct Place {
    part: usize,
    offset: usize,
}

/// The longest template, in bytes (`path_template`'s own limit).
const MAX_TEMPLATE: usize = 256;
/// The most names in a template, and the longest of them (Envoy `uri_template_internal.cc`).
const MAX_NAMES: usize = 5;
const MAX_NAME: usize = 16;

/// What a path has to consist of, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// This text.
    Text(String),
    /// Characters of a segment, at least one.
    Segment,
    /// Any characters of segments, and slashes.
    Rest,
}

/// What stands at the names of a template in one path.
pub(super) struct Captures<'a> {
    template: &'a PathTemplate,
    path: &'a str,
    /// Where each part begins, and maybe where the last one ends.
    starts: Vec<usize>,
}

/// Reads a template from the left.
struct Reader<'a> {
    rest: &'a str,
    parts: Vec<Part>,
    names: Vec<Named>,
}

// === impl PathTemplate ===

impl PathTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// If Envoy would not take it: no `/` at the beginning, characters that are in no path, a
    /// wildcard after `**`, text before a wildcard in one segment.
    pub fn new(text: impl Into<Name>) -> Result<Self, Invalid> {
        let text = text.into();
        let wrong = |why: &str| Invalid::new("", format!("path template {:?} {why}", &*text));
        if text.len() > MAX_TEMPLATE {
            return Err(wrong("is longer than 256 bytes"));
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err(wrong("does not begin with /"));
        };
        let mut reader = Reader {
            rest,
            parts: vec![Part::Text("/".to_owned())],
            names: Vec::new(),
        };
        reader.template().map_err(wrong)?;
        let (parts, names) = (reader.parts, reader.names);
        Ok(Self(Arc::new(Whole { text, parts, names })))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// The text that every path of this template begins with.
    pub fn prefix(&self) -> &str {
        match self.0.parts.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }

    /// Whether a part has this name.
    pub fn names(&self, name: &str) -> bool {
        self.0.names.iter().any(|named| &*named.name == name)
    }

    /// Whether a path without a query is of this template.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.walk(path, |_| {})
    }

    /// What stands at the names of a path of this template; none if it is of another.
    pub(super) fn captures<'a>(&'a self, path: &'a str) -> Option<Captures<'a>> {
        let mut starts = vec![0];
        self.walk(path.as_bytes(), |rest| starts.push(path.len() - rest))
            .then_some(Captures {
                template: self,
                path,
                starts,
            })
    }

    /// Whether a path is of this template. Tells how much of it is left behind each part, up to the
    /// text at the end.
    fn walk(&self, path: &[u8], mut left: impl FnMut(usize)) -> bool {
        let mut rest = path;
        for (at, part) in self.0.parts.iter().enumerate() {
            if at > 0 {
                left(rest.len());
            }
            match part {
                Part::Text(text) => match rest.strip_prefix(text.as_bytes()) {
                    Some(after) => rest = after,
                    None => return false,
                },
                // Only text may follow, and it goes to the end.
                Part::Rest => {
                    let Some(any) = rest.strip_suffix(self.tail(at)) else {
                        return false;
                    };
                    left(rest.len() - any.len());
                    return any.iter().all(|byte| *byte == b'/' || is_wild(*byte));
                }
                Part::Segment => {
                    let tail = self.tail(at);
                    // Text that follows without a slash goes to the end, too.
                    if !tail.is_empty() && !tail.starts_with(b"/") {
                        let Some(any) = rest.strip_suffix(tail) else {
                            return false;
                        };
                        left(rest.len() - any.len());
                        return !any.is_empty() && any.iter().copied().all(is_wild);
                    }
                    let end = rest.iter().position(|byte| !is_wild(*byte));
                    let (segment, after) = rest.split_at(end.unwrap_or(rest.len()));
                    if segment.is_empty() {
                        return false;
                    }
                    rest = after;
                }
            }
        }
        rest.is_empty()
    }

    /// The text after a wildcard.
    fn tail(&self, at: usize) -> &[u8] {
        match self.0.parts.get(at + 1) {
            Some(Part::Text(text)) => text.as_bytes(),
            _ => b"",
        }
    }
}

/// What a wildcard stands for: RFC 3986's `pchar`. Envoy 1.40 takes `*` in, though its sources of
/// earlier versions did not.
fn is_wild(byte: u8) -> bool {
    byte == b'*' || is_literal(byte)
}

/// What may stand in a segment of a template: the same without the wildcard's own `*`.
pub(super) fn is_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte)
}

impl PartialEq for PathTemplate {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for PathTemplate {}

impl Hash for PathTemplate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PathTemplate({:?})", self.as_str())
    }
}

// === impl Captures ===

impl<'a> Captures<'a> {
    /// What stands at this name; none if nothing has it.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        let mut names = self.template.0.names.iter();
        let named = names.find(|named| &*named.name == name)?;
        self.path
            .get(self.place(named.start)..self.place(named.end))
    }

    fn place(&self, place: Place) -> usize {
        match self.starts.get(place.part) {
            Some(start) => start + place.offset,
            None => self.path.len(),
        }
    }
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn template(&mut self) -> Result<(), &'static str> {
        while !self.rest.is_empty() {
            match self.rest.as_bytes()[0] {
                b'{' => self.named()?,
                _ => self.piece()?,
            }
            if self.rest.is_empty() {
                return Ok(());
            }
            let Some(after) = self.rest.strip_prefix('/') else {
                // Text directly after a wildcard: it is the end.
                let text = std::mem::take(&mut self.rest);
                return self.literal(text);
            };
            self.text("/");
            self.rest = after;
        }
        Ok(())
    }

    /// A wildcard or the text of a segment.
    fn piece(&mut self) -> Result<(), &'static str> {
        if let Some(after) = self.rest.strip_prefix("**") {
            self.rest = after;
            return self.wildcard(Part::Rest);
        }
        if let Some(after) = self.rest.strip_prefix('*') {
            self.rest = after;
            return self.wildcard(Part::Segment);
        }
        let end = self.rest.find('/').unwrap_or(self.rest.len());
        let (text, after) = self.rest.split_at(end);
        self.rest = after;
        self.literal(text)
    }

    /// `{name}` or `{name=pieces}`.
    fn named(&mut self) -> Result<(), &'static str> {
        let inside = &self.rest[1..];
        let end = inside.find('}').ok_or("has a { without a }")?;
        let (inside, after) = (&inside[..end], &inside[end + 1..]);
        let (name, pieces) = match inside.split_once('=') {
            Some((name, pieces)) => (name, pieces),
            None => (inside, "*"),
        };
        if !is_name(name) {
            return Err("has a name that is not letters, digits and _");
        }
        if name.len() > MAX_NAME {
            return Err("has a name of more than 16 bytes");
        }
        if self.names.iter().any(|named| &*named.name == name) {
            return Err("has a name twice");
        }
        if self.names.len() == MAX_NAMES {
            return Err("has more than 5 names");
        }
        let start = self.place();
        self.rest = pieces;
        loop {
            self.piece()?;
            if self.rest.is_empty() {
                break;
            }
            self.rest = match self.rest.strip_prefix('/') {
                Some(after) if !after.is_empty() => after,
                _ => return Err("has a name for something that is not whole segments"),
            };
            self.text("/");
        }
        self.rest = after;
        self.names.push(Named {
            name: name.into(),
            start,
            end: self.place(),
        });
        Ok(())
    }

    /// Where what was read so far ends.
    fn place(&self) -> Place {
        let last = self.parts.len() - 1;
        match &self.parts[last] {
            Part::Text(text) => Place {
                part: last,
                offset: text.len(),
            },
            _ => Place {
                part: last + 1,
                offset: 0,
            },
        }
    }

    fn wildcard(&mut self, part: Part) -> Result<(), &'static str> {
        if self.parts.contains(&Part::Rest) {
            return Err("has a wildcard after **");
        }
        self.parts.push(part);
        Ok(())
    }

    fn literal(&mut self, text: &str) -> Result<(), &'static str> {
        if text.is_empty() || !text.bytes().all(is_literal) {
            return Err("has a segment that is empty, or has characters that are in none");
        }
        self.text(text);
        Ok(())
    }

    fn text(&mut self, text: &str) {
        match self.parts.last_mut() {
            Some(Part::Text(last)) => last.push_str(text),
            _ => self.parts.push(Part::Text(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(template: &str, path: &str) -> bool {
        PathTemplate::new(template)
            .unwrap()
            .matches(path.as_bytes())
    }

    #[test]
    fn one_star_is_one_segment_and_two_are_any_text() {
        assert!(matches("/items/*/x", "/items/7/x"));
        assert!(!matches("/items/*/x", "/items//x"));
        assert!(!matches("/items/*/x", "/items/7/8/x"));
        assert!(matches("/a/**", "/a/"));
        assert!(matches("/a/**", "/a/b/c"));
        assert!(!matches("/a/**", "/a"));
        assert!(matches("/a/**/z", "/a/b/z"));
        assert!(!matches("/a/**/z", "/a/z"));
        assert!(matches("/a/*.html", "/a/x.html"));
        assert!(!matches("/a/*.html", "/a/.html"));
        assert!(matches("/{a=b/*}/c", "/b/x/c"));
        assert!(matches("/**", "/admin*"));
        assert!(matches("/*/x", "/a*/x"));
        assert!(matches("/", "/"));
        assert!(matches("/a/", "/a/"));
        assert!(!matches("/a/*", "/a/b\\c"));
    }

    #[test]
    fn what_envoy_would_not_take_is_refused() {
        for text in [
            "",
            "a",
            "//",
            "/a*",
            "/**/*",
            "/**/{a}",
            "/*/a|b",
            "/{",
            "/{1}",
            "/{a}/{a}",
            "/{a=}",
            "/{a=b/}",
            "/*b/c",
            "/{a}/{b}/{c}/{d}/{e}/{f}",
            "/{abcdefghijklmnopq}",
            "/a b",
            "/a?",
        ] {
            assert!(PathTemplate::new(text).is_err(), "{text}");
        }
    }

    /// The expression that Envoy makes of a template without names.
    fn expression(template: &str) -> super::super::Pattern {
        const CLASS: &str = "a-zA-Z0-9\\-._~%!$&'()*+,;:@=";
        let mut out = String::new();
        let mut rest = template;
        while let Some(byte) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("**") {
                out += &format!("[{CLASS}/]*");
                rest = after;
            } else if let Some(after) = rest.strip_prefix('*') {
                out += &format!("[{CLASS}]+");
                rest = after;
            } else {
                out += &format!("\\Q{byte}\\E");
                rest = &rest[byte.len_utf8()..];
            }
        }
        super::super::Pattern::new(&out).unwrap()
    }

    proptest! {
        #[test]
        fn reading_and_matching_never_panic(text in ".{0,40}", path: Vec<u8>) {
            if let Ok(template) = PathTemplate::new(text.as_str()) {
                template.matches(&path);
            }
        }

        #[test]
        fn matches_what_the_regular_expression_of_it_matches(
            text in "(/(a|b|\\*|\\*\\*)){1,4}(\\.x)?", path in "(/(a|b|\\.x|ab|c\\.x|%|a\\*)?){0,5}"
        ) {
            if let Ok(template) = PathTemplate::new(text.as_str()) {
                let regex = expression(&text);
                prop_assert_eq!(template.matches(path.as_bytes()), regex.is_match(path.as_bytes()));
            }
        }
    }
}
