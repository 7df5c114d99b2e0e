//! Rules that may match a path, merged from several lists in the order of the virtual host.

use mesh_core::model::{PathMatch, Pattern, Patterns, Rule};
use std::sync::Arc;

/// Rules in order, among which is every rule whose path matches.
#[derive(Debug)]
pub(crate) struct Candidates<'a> {
    path: &'a [u8],
    lists: [&'a [u32]; LISTS],
    used: usize,
    /// A bit for each list: the paths of its rules have to be looked at.
    unchecked: u32,
    /// Regular expressions that were not tried yet: they may never have to be.
    regexes: [&'a [Group]; SETS],
    waiting: usize,
    /// Rules whose expressions were tried and match, the first one last.
    matching: Vec<u32>,
}

/// A rule that may match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) rule: usize,
    /// Its path is known to match.
    pub(crate) path_matches: bool,
}

/// Rules whose paths are regular expressions.
#[derive(Debug, Default)]
pub(crate) struct Regexes {
    /// All of them, as long as they are few.
    rules: Vec<u32>,
    /// Else these, in order.
    groups: Vec<Group>,
}

/// Some rules whose expressions are tried in one pass.
#[derive(Debug)]
struct Group {
    rules: Vec<u32>,
    together: Patterns,
}

/// More prefixes of one path than this have rules of their own only in tables made to be slow.
const LISTS: usize = 16;
const SETS: usize = 4;

/// From this number on, one pass over all expressions is faster than one after the other (bench
/// `find/regex`).
const TOGETHER: usize = 4;

/// With more than this in a group the automaton of one pass may outgrow its memory, and then it is
/// slower than one expression after the other.
const MOST_TOGETHER: usize = 100;

/// Where the next rule comes from.
#[derive(Clone, Copy)]
enum From {
    List(usize),
    Regexes(usize),
    Matching,
}

// === impl Candidates ===

impl<'a> Candidates<'a> {
    pub(crate) fn new(path: &'a [u8]) -> Self {
        Self {
            path,
            lists: [&[]; LISTS],
            used: 0,
            unchecked: 0,
            regexes: [&[]; SETS],
            waiting: 0,
            matching: Vec::new(),
        }
    }

    /// Adds rules whose paths match; none if there are too many lists.
    pub(crate) fn add(&mut self, list: &'a [u32]) -> Option<()> {
        if !list.is_empty() {
            *self.lists.get_mut(self.used)? = list;
            self.used += 1;
        }
        Some(())
    }

    /// Adds rules whose paths have to be looked at; none if there are too many lists.
    pub(crate) fn add_unchecked(&mut self, list: &'a [u32]) -> Option<()> {
        if !list.is_empty() {
            self.unchecked |= 1 << self.used;
        }
        self.add(list)
    }

    /// Adds rules whose paths match if their expressions do; none if there are too many lists.
    pub(crate) fn add_regexes(&mut self, regexes: &'a Regexes) -> Option<()> {
        if regexes.groups.is_empty() {
            return self.add_unchecked(&regexes.rules);
        }
        *self.regexes.get_mut(self.waiting)? = &regexes.groups;
        self.waiting += 1;
        Some(())
    }

    /// Where the next rule in the order of the virtual host is.
    fn first(&self) -> Option<From> {
        let mut best = (u32::MAX, None);
        let mut offer = |rule: Option<&u32>, from: From| {
            if let Some(rule) = rule
                && *rule < best.0
            {
                best = (*rule, Some(from));
            }
        };
        for (place, list) in self.lists[..self.used].iter().enumerate() {
            offer(list.first(), From::List(place));
        }
        for (place, groups) in self.regexes[..self.waiting].iter().enumerate() {
            let next = groups.first().and_then(|group| group.rules.first());
            offer(next, From::Regexes(place));
        }
        offer(self.matching.last(), From::Matching);
        best.1
    }

    /// Tries all expressions of the next group of a list.
    fn try_group(&mut self, place: usize) {
        let Some((group, rest)) = self.regexes[place].split_first() else {
            return;
        };
        self.regexes[place] = rest;
        let matching = group.together.matching(self.path);
        self.matching
            .extend(matching.map(|place| group.rules[place]));
        self.matching.sort_unstable_by(|a, b| b.cmp(a));
    }
}

impl Iterator for Candidates<'_> {
    type Item = Candidate;

    fn next(&mut self) -> Option<Candidate> {
        loop {
            let (rule, path_matches) = match self.first()? {
                From::List(place) => {
                    let (first, rest) = self.lists[place].split_first()?;
                    self.lists[place] = rest;
                    (*first, self.unchecked & (1 << place) == 0)
                }
                From::Regexes(place) => {
                    self.try_group(place);
                    continue;
                }
                From::Matching => (self.matching.pop()?, true),
            };
            return Some(Candidate {
                // Made from an index of a slice.
                rule: rule as usize,
                path_matches,
            });
        }
    }
}

// === impl Regexes ===

impl Regexes {
    /// Adds a rule, which comes after all that are there.
    pub(crate) fn push(&mut self, rule: u32) {
        self.rules.push(rule);
    }

    /// To be called when all are there.
    pub(crate) fn compile(&mut self, rules: &[Arc<Rule>]) {
        if self.rules.len() < TOGETHER {
            return;
        }
        let pattern = |rule: &u32| -> Option<&Pattern> {
            match &rules.get(*rule as usize)?.condition.path {
                PathMatch::Regex(pattern) => Some(pattern),
                _ => None,
            }
        };
        let group = |rules: &[u32]| -> Option<Group> {
            let patterns: Option<Vec<&Pattern>> = rules.iter().map(pattern).collect();
            Some(Group {
                rules: rules.to_vec(),
                together: Patterns::new(patterns?)?,
            })
        };
        let groups: Option<Vec<Group>> = self.rules.chunks(MOST_TOGETHER).map(group).collect();
        self.groups = groups.unwrap_or_default();
    }
}
