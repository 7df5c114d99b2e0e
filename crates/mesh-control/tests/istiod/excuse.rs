//! Excuses for differences, and a tally of those that were needed.

use std::collections::BTreeSet;
use std::fmt;

use crate::expected::EXCUSES;
use crate::recorded::{Kind, Node};

/// Why something differs; the worse one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// On purpose.
    Deliberate,
    /// It comes with this issue.
    #[expect(dead_code, reason = "nothing waits for an issue now")]
    NotYet(u32),
}

/// A field of a resource of a case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'p> {
    pub(crate) case: &'p str,
    pub(crate) node: Node,
    pub(crate) kind: Kind,
    pub(crate) name: &'p str,
    pub(crate) field: &'p str,
}

/// An excuse for the fields that it describes. Each case and each place has to need it.
#[derive(Debug)]
pub(crate) struct Excuse {
    pub(crate) verdict: Verdict,
    pub(crate) why: &'static str,
    pub(crate) cases: &'static [&'static str],
    /// The node; `None` is both.
    pub(crate) node: Option<Node>,
    /// Resources with a field each. `*` stands for any text; a field stands for everything below
    /// it too, and the empty one for the whole resource, missing or not.
    pub(crate) places: &'static [(Kind, &'static str, &'static str)],
}

/// The excuses that were needed so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    cases: BTreeSet<(usize, String)>,
    places: BTreeSet<(usize, usize)>,
}

impl Tally {
    /// Whether a difference is expected.
    pub(crate) fn find(&mut self, place: &Place<'_>) -> Option<Verdict> {
        EXCUSES.iter().enumerate().find_map(|(index, excuse)| {
            let which = excuse.covers(place)?;
            self.cases.insert((index, place.case.to_owned()));
            self.places.insert((index, which));
            Some(excuse.verdict)
        })
    }

    /// What excused nothing.
    pub(crate) fn idle(&self) -> Vec<String> {
        let mut idle = Vec::new();
        for (index, excuse) in EXCUSES.iter().enumerate() {
            for case in excuse.cases {
                if !self.cases.contains(&(index, (*case).to_owned())) {
                    idle.push(format!("{}: case {case}", excuse.why));
                }
            }
            for (which, place) in excuse.places.iter().enumerate() {
                if !self.places.contains(&(index, which)) {
                    idle.push(format!("{}: {place:?}", excuse.why));
                }
            }
        }
        idle
    }
}

impl Excuse {
    /// Which of its places it is.
    fn covers(&self, place: &Place<'_>) -> Option<usize> {
        if !self.cases.contains(&place.case) || self.node.is_some_and(|node| node != place.node) {
            return None;
        }
        self.places.iter().position(|(kind, name, field)| {
            *kind == place.kind
                && like(name, place.name)
                && (field.is_empty()
                    || like(field, place.field)
                    || like(&format!("{field}.*"), place.field)
                    || like(&format!("{field}[*"), place.field))
        })
    }
}

/// Whether a text is like a pattern in which `*` stands for any text.
fn like(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|tail| {
            tail.char_indices()
                .map(|(at, _)| at)
                .chain([tail.len()])
                .any(|at| like(rest, &tail[at..]))
        }),
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            case,
            node,
            kind,
            name,
            field,
        } = self;
        write!(f, "case {case}, {node}, {kind:?} {name}, {field}")
    }
}

#[test]
fn a_star_stands_for_any_text() {
    assert!(like("*", "") && like("a*c", "abbc") && like("a*b*", "ab") && like("a", "a"));
    assert!(!like("a*c", "ab") && !like("a", "ab") && !like("", "a"));
}
