//! Reads typed values out of a YAML tree and collects what is wrong with it.
//!
//! A [`Cursor`] is a node plus the path that leads to it. Readers return
//! `None` after reporting a fault, and carry on with the next field, so that
//! one run finds all faults of an object. [`Fields`] knows which fields of a
//! mapping were asked for; whatever is left over at [`Fields::done`] is
//! refused by name, with its place.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Position, Severity};
use crate::yaml::{Node, Value};

mod fields;
pub(crate) mod read;
mod scalar;

pub(crate) use fields::Fields;
pub(crate) use scalar::decode_base64;

/// Collects the findings about one object.
#[derive(Debug)]
pub(crate) struct Report<'t> {
    object: String,
    file: Arc<str>,
    text: &'t str,
    /// Added to the places of a document that stands inside another one.
    shift: Shift,
    findings: RefCell<Vec<Diagnostic>>,
    /// Paths of the fields that readers asked for.
    #[cfg(test)]
    asked: RefCell<std::collections::BTreeSet<String>>,
}

/// How to turn a place in an embedded document into one in its file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shift {
    None,
    /// A literal block: lines and columns moved.
    By {
        lines: u32,
        columns: u32,
    },
    /// Any other text: all that can be said is where it starts.
    To(Position),
}

/// A node on the way through a document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    node: &'a Node,
    path: Path<'a>,
    report: &'a Report<'a>,
}

#[derive(Clone, Copy, Debug)]
struct Path<'a> {
    parent: Option<&'a Self>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Entry(&'a str),
    Item(usize),
}

// === impl Report ===

impl<'t> Report<'t> {
    pub(crate) fn new(object: String, file: &Arc<str>, text: &'t str) -> Self {
        let findings = RefCell::new(Vec::new());
        Self {
            object,
            file: Arc::clone(file),
            text,
            shift: Shift::None,
            findings,
            #[cfg(test)]
            asked: RefCell::default(),
        }
    }

    pub(crate) fn shifted(mut self, shift: Shift) -> Self {
        self.shift = shift;
        self
    }

    pub(crate) fn failed(&self) -> bool {
        self.findings.borrow().iter().any(Diagnostic::is_error)
    }

    /// Paths of the fields that readers asked for, whether they were there or not.
    #[cfg(test)]
    pub(crate) fn asked(&self) -> std::collections::BTreeSet<String> {
        self.asked.borrow().clone()
    }

    pub(crate) fn into_findings(self) -> Vec<Diagnostic> {
        self.findings.into_inner()
    }

    /// The place of a node in the file, whatever document it was read from.
    pub(crate) fn place(&self, at: Position) -> Position {
        match self.shift {
            Shift::None => at,
            Shift::By { lines, columns } => Position {
                line: at.line.saturating_add(lines),
                column: at.column.saturating_add(columns),
                width: at.width,
            },
            Shift::To(place) => place,
        }
    }

    pub(crate) fn add(&self, severity: Severity, at: Position, path: String, message: String) {
        let finding = Diagnostic::at(severity, &self.file, self.text, self.place(at), message)
            .object(&self.object)
            .path(path);
        self.findings.borrow_mut().push(finding);
    }
}

// === impl Cursor ===

impl<'a> Cursor<'a> {
    pub(crate) fn root(node: &'a Node, report: &'a Report<'a>) -> Self {
        Self {
            node,
            path: Path {
                parent: None,
                step: Step::Root,
            },
            report,
        }
    }

    pub(crate) fn node(&self) -> &'a Node {
        self.node
    }

    pub(crate) fn report(&self) -> &'a Report<'a> {
        self.report
    }

    /// Where this node stands in its file.
    pub(crate) fn at(&self) -> Position {
        self.report.place(self.node.at)
    }

    pub(crate) fn path(&self) -> String {
        self.path.to_string()
    }

    /// Refuses the object because of this node.
    pub(crate) fn error(&self, message: impl Into<String>) {
        self.report
            .add(Severity::Error, self.node.at, self.path(), message.into());
    }

    /// Accepts this node with a reservation.
    pub(crate) fn warn(&self, message: impl Into<String>) {
        self.report
            .add(Severity::Warning, self.node.at, self.path(), message.into());
    }

    pub(crate) fn expected<T>(&self, what: &str) -> Option<T> {
        self.error(format!("expected {what}, found {}", self.node.describe()));
        None
    }

    /// The fields of this mapping.
    pub(crate) fn fields(&'a self) -> Option<Fields<'a>> {
        match &self.node.value {
            Value::Map(entries) => Some(Fields::new(self, entries)),
            _ => self.expected("a mapping"),
        }
    }

    /// The items of this list, each read; those that fail are left out.
    pub(crate) fn list<T>(&self, mut read: impl FnMut(&Cursor<'_>) -> Option<T>) -> Option<Vec<T>> {
        let Value::List(items) = &self.node.value else {
            return self.expected("a list");
        };
        let each = items.iter().enumerate().filter_map(|(index, node)| {
            let path = Path {
                parent: Some(&self.path),
                step: Step::Item(index),
            };
            read(&Cursor {
                node,
                path,
                report: self.report,
            })
        });
        Some(exact(each))
    }

    /// The entries of this mapping under keys of the user's choosing.
    pub(crate) fn entries<T>(
        &self,
        mut read: impl FnMut(&str, &Cursor<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Value::Map(entries) = &self.node.value else {
            return self.expected("a mapping");
        };
        let each = entries.iter().filter_map(|(key, node)| {
            let path = Path {
                parent: Some(&self.path),
                step: Step::Entry(&key.text),
            };
            read(
                &key.text,
                &Cursor {
                    node,
                    path,
                    report: self.report,
                },
            )
        });
        Some(exact(each))
    }
}

/// All of these, in no more room than they need: objects are kept for as long as they are in force.
fn exact<T>(each: impl Iterator<Item = T>) -> Vec<T> {
    let mut all: Vec<T> = each.collect();
    all.shrink_to_fit();
    all
}

// === impl Path ===

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        let first = self
            .parent
            .is_none_or(|parent| matches!(parent.step, Step::Root));
        match self.step {
            Step::Root => Ok(()),
            Step::Item(index) => write!(f, "[{index}]"),
            Step::Field(name) if first => f.write_str(name),
            Step::Field(name) => write!(f, ".{name}"),
            // Header names and labels are full of dots and slashes.
            Step::Entry(name) => write!(f, "[{name:?}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::compose;

    fn findings(text: &str, read: impl FnOnce(&Cursor<'_>)) -> Vec<String> {
        let document = compose(text).expect("valid YAML").remove(0);
        let report = Report::new("Thing a.default".to_owned(), &"f.yaml".into(), text);
        read(&Cursor::root(&document, &report));
        report
            .into_findings()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn refuses_what_nobody_asked_for_with_place_and_path() {
        let found = findings("a:\n- {b: 1, c: 2}\n- {c: 3}\n", |root| {
            let mut fields = root.fields().unwrap();
            fields.list("a", |item| {
                let mut fields = item.fields()?;
                fields.ignore("b");
                fields.done();
                Some(())
            });
            fields.done();
        });
        assert_eq!(
            found,
            [
                "f.yaml:2:10: Thing a.default: a[0].c: unknown field",
                "f.yaml:3:4: Thing a.default: a[1].c: unknown field",
            ],
        );
    }

    #[test]
    fn finds_fields_in_both_spellings_but_not_in_both_at_once() {
        let found = findings("{perTry: 1, per_try: 2}", |root| {
            let mut fields = root.fields().unwrap();
            fields.ignore("perTry");
            fields.done();
        });
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("given twice"), "{}", found[0]);
    }

    #[test]
    fn takes_null_for_absent() {
        let found = findings("{a: ~, b: }", |root| {
            let mut fields = root.fields().unwrap();
            assert!(fields.cursor("a").is_none());
            fields.refuse("b", "never");
            fields.done();
        });
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn says_what_it_found_instead() {
        let found = findings("a: [1]", |root| {
            let mut fields = root.fields().unwrap();
            fields.get("a", |cursor| cursor.fields().map(Fields::done));
        });
        assert_eq!(
            found,
            ["f.yaml:1:4: Thing a.default: a: expected a mapping, found a list"]
        );
    }
}
