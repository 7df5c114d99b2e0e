//! The fields of a mapping: asked for by name, refused by name, never ignored.

use super::{Cursor, Path, Report, Step};
use crate::diagnostic::{Position, Severity};
use crate::yaml::{Key, Node};

/// The fields of a mapping that is being read.
pub(crate) struct Fields<'a> {
    cursor: &'a Cursor<'a>,
    entries: &'a [(Key, Node)],
    taken: Vec<bool>,
}

// === impl Fields ===

impl<'a> Fields<'a> {
    pub(super) fn new(cursor: &'a Cursor<'a>, entries: &'a [(Key, Node)]) -> Self {
        Self {
            cursor,
            entries,
            taken: vec![false; entries.len()],
        }
    }

    /// The field `name` (in camelCase; snake_case is found too), unless it is null.
    pub(crate) fn cursor(&mut self, name: &'static str) -> Option<Cursor<'a>> {
        let index = self.take(name)?;
        let node = &self.entries[index].1;
        let path = Path {
            parent: Some(&self.cursor.path),
            step: Step::Field(name),
        };
        (!node.is_null()).then_some(Cursor {
            node,
            path,
            report: self.cursor.report,
        })
    }

    /// The field `name`, read.
    pub(crate) fn get<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Cursor<'_>) -> Option<T>,
    ) -> Option<T> {
        self.cursor(name).as_ref().and_then(read)
    }

    /// The field `name`, read; its absence is a fault.
    pub(crate) fn need<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Cursor<'_>) -> Option<T>,
    ) -> Option<T> {
        match self.cursor(name) {
            Some(cursor) => read(&cursor),
            None => {
                self.cursor.error(format!("{name} is missing"));
                None
            }
        }
    }

    /// The list `name`, each item read; absent is empty.
    pub(crate) fn list<T>(
        &mut self,
        name: &'static str,
        read: impl FnMut(&Cursor<'_>) -> Option<T>,
    ) -> Vec<T> {
        self.get(name, |cursor| cursor.list(read))
            .unwrap_or_default()
    }

    /// The map `name`, each entry read; absent is empty.
    pub(crate) fn entries<T>(
        &mut self,
        name: &'static str,
        read: impl FnMut(&str, &Cursor<'_>) -> Option<T>,
    ) -> Vec<T> {
        self.get(name, |cursor| cursor.entries(read))
            .unwrap_or_default()
    }

    /// Refuses the field `name`, which exists and is not supported.
    pub(crate) fn refuse(&mut self, name: &'static str, why: &str) {
        if let Some(cursor) = self.key(name) {
            cursor.error(format!("not supported: {why}"));
        }
    }

    /// Refuses the field `name`, which exists and will be supported later.
    pub(crate) fn later(&mut self, name: &'static str, what: &str) {
        if let Some(cursor) = self.key(name) {
            cursor.error(format!("not supported yet: {what}"));
        }
    }

    /// Accepts the field `name` whatever it says.
    pub(crate) fn ignore(&mut self, name: &'static str) {
        self.take(name);
    }

    /// Whether the field is there, null or not taken yet.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries
            .iter()
            .any(|(key, node)| spells(&key.text, name) && !node.is_null())
    }

    /// The value of a field, without taking it.
    pub(crate) fn peek(&self, name: &str) -> Option<&'a Node> {
        self.entries
            .iter()
            .find(|(key, _)| spells(&key.text, name))
            .map(|(_, node)| node)
    }

    /// Refuses every field that nobody asked for.
    pub(crate) fn done(self) {
        for ((key, _), _) in self
            .entries
            .iter()
            .zip(&self.taken)
            .filter(|(_, taken)| !**taken)
        {
            let path = Path {
                parent: Some(&self.cursor.path),
                step: Step::Field(&key.text),
            };
            let message = "unknown field".to_owned();
            self.cursor
                .report
                .add(Severity::Error, key.at, path.to_string(), message);
        }
    }

    /// A cursor that points at the key of a field that is about to be refused.
    fn key(&mut self, name: &'static str) -> Option<KeyCursor<'a>> {
        let index = self.take(name)?;
        let (key, node) = &self.entries[index];
        let path = Path {
            parent: Some(&self.cursor.path),
            step: Step::Field(name),
        };
        (!node.is_null()).then_some(KeyCursor {
            at: key.at,
            path,
            report: self.cursor.report,
        })
    }

    fn take(&mut self, name: &str) -> Option<usize> {
        #[cfg(test)]
        self.cursor.report.asked.borrow_mut().insert(
            Path {
                parent: Some(&self.cursor.path),
                step: Step::Field(name),
            }
            .to_string(),
        );
        let mut found = None;
        for (index, (key, _)) in self.entries.iter().enumerate() {
            if !spells(&key.text, name) {
                continue;
            }
            self.taken[index] = true;
            if found.is_some() {
                let path = Path {
                    parent: Some(&self.cursor.path),
                    step: Step::Field(name),
                };
                let message = "given twice, in camelCase and in snake_case".to_owned();
                self.cursor
                    .report
                    .add(Severity::Error, key.at, path.to_string(), message);
                break;
            }
            found = Some(index);
        }
        found
    }
}

struct KeyCursor<'a> {
    at: Position,
    path: Path<'a>,
    report: &'a Report<'a>,
}

impl KeyCursor<'_> {
    fn error(&self, message: String) {
        self.report
            .add(Severity::Error, self.at, self.path.to_string(), message);
    }
}

/// Whether `key`, in camelCase or snake_case, is the field with this camelCase `name`.
fn spells(key: &str, name: &str) -> bool {
    if key == name {
        return true;
    }
    if !key.contains('_') {
        return false;
    }
    let mut name = name.chars();
    let mut upper = false;
    for c in key.chars() {
        if c == '_' {
            upper = true;
            continue;
        }
        let c = if upper { c.to_ascii_uppercase() } else { c };
        upper = false;
        if name.next() != Some(c) {
            return false;
        }
    }
    name.next().is_none() && !upper
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_two_spellings() {
        assert!(spells(
            "max_requests_per_connection",
            "maxRequestsPerConnection"
        ));
        assert!(spells("consecutive_5xx_errors", "consecutive5xxErrors"));
        assert!(!spells("consecutive_5xx_", "consecutive5xx"));
        assert!(!spells("maxrequests", "maxRequests"));
    }
}
