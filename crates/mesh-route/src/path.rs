//! Which rules' paths match, without looking at every rule.
//!
//! Exact and prefix paths lie in a radix tree: one walk along the request's path meets every rule
//! whose path matches, so lookup time follows the length of the path and not the number of rules.
//! A hash map for exact paths would find those a little sooner but could not find prefixes, and
//! two structures cost more than one walk. Paths whose case is ignored have a tree of their own,
//! in which letters are folded on the way.
//!
//! A regular expression lies in the tree where its literal beginning ends (`/api/[0-9]+` at
//! `/api/`), and a template where its first wildcard begins (`/users/*` at `/users/`), so only those
//! are tried that can match. Many expressions at one place are compiled together and tried in one
//! pass. What is left (`CONNECT`) is a list.

use crate::candidates::{Candidates, Regexes};
use mesh_core::model::{PathMatch, Rule};
use std::sync::Arc;

/// The rules of one virtual host by their paths.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    sensitive: Tree,
    folded: Tree,
    /// Rules whose paths have to be looked at one by one.
    rest: Vec<u32>,
}

#[derive(Debug)]
struct Tree {
    nodes: Vec<Node>,
    fold: bool,
}

#[derive(Debug, Default)]
struct Node {
    /// The bytes between the parent and this node.
    label: Box<[u8]>,
    /// First byte of the child's label, and the child; sorted.
    children: Vec<(u8, u32)>,
    /// The rules whose paths end here.
    rules: Option<Box<Ends>>,
}

/// Rules whose paths are the way from the root to one node.
#[derive(Debug, Default)]
struct Ends {
    exact: Vec<u32>,
    prefix: Vec<u32>,
    separated: Vec<u32>,
    /// Rules whose templates begin so: they have to be looked at one by one.
    templates: Vec<u32>,
    regexes: Option<Box<Regexes>>,
}

// === impl Paths ===

impl Paths {
    pub(crate) fn compile(rules: &[Arc<Rule>]) -> Self {
        let mut paths = Self::default();
        paths.folded.fold = true;
        // A table that needs more than 32 bits to count its rules does not fit into memory.
        for (index, rule) in (0_u32..).zip(rules) {
            let Self {
                sensitive,
                folded,
                rest,
            } = &mut paths;
            match &rule.condition.path {
                PathMatch::Exact(path) => sensitive.ends_at(path).exact.push(index),
                PathMatch::Prefix(path) => sensitive.ends_at(path).prefix.push(index),
                PathMatch::SeparatedPrefix(path) => sensitive.ends_at(path).separated.push(index),
                PathMatch::ExactIgnoreCase(path) => folded.ends_at(path).exact.push(index),
                PathMatch::PrefixIgnoreCase(path) => folded.ends_at(path).prefix.push(index),
                PathMatch::SeparatedPrefixIgnoreCase(path) => {
                    folded.ends_at(path).separated.push(index);
                }
                PathMatch::Regex(pattern) => {
                    let ends = sensitive.ends_at_bytes(&pattern.stem());
                    ends.regexes.get_or_insert_default().push(index);
                }
                PathMatch::Template(template) => {
                    sensitive.ends_at(template.prefix()).templates.push(index);
                }
                _ => rest.push(index),
            }
        }
        let ends = paths.sensitive.nodes.iter_mut();
        let ends = ends.filter_map(|node| node.rules.as_mut()?.regexes.as_mut());
        ends.for_each(|regexes| regexes.compile(rules));
        paths.sensitive.nodes.shrink_to_fit();
        paths.folded.nodes.shrink_to_fit();
        paths
    }

    /// The rules whose paths may match; none if there are too many lists to be worth it.
    pub(crate) fn candidates<'a>(&'a self, path: Option<&'a str>) -> Option<Candidates<'a>> {
        let path = path.map(str::as_bytes);
        let mut candidates = Candidates::new(path.unwrap_or_default());
        candidates.add_unchecked(&self.rest)?;
        if let Some(path) = path {
            self.sensitive.walk(path, &mut candidates)?;
            self.folded.walk(path, &mut candidates)?;
        }
        Some(candidates)
    }
}

// === impl Tree ===

impl Tree {
    /// The place for rules whose path is this.
    fn ends_at(&mut self, path: &str) -> &mut Ends {
        let mut path = path.as_bytes().to_vec();
        if self.fold {
            path.make_ascii_lowercase();
        }
        self.ends_at_bytes(&path)
    }

    fn ends_at_bytes(&mut self, path: &[u8]) -> &mut Ends {
        let node = self.node(path);
        self.nodes[node].rules.get_or_insert_default()
    }

    /// The node at this path, made if there is none.
    fn node(&mut self, path: &[u8]) -> usize {
        let mut at = 0;
        let mut rest = path;
        loop {
            let Some(first) = rest.first() else {
                return at;
            };
            let children = &self.nodes[at].children;
            let found = children.binary_search_by_key(first, |(byte, _)| *byte);
            let child = match found {
                Ok(found) => children[found].1 as usize,
                Err(place) => {
                    let child = self.push(rest.into());
                    self.nodes[at].children.insert(place, (*first, child));
                    return child as usize;
                }
            };
            let label = &self.nodes[child].label;
            let shared = label.iter().zip(rest).take_while(|(a, b)| a == b).count();
            if shared < label.len() {
                self.split(child, shared);
            }
            at = child;
            rest = &rest[shared..];
        }
    }

    fn push(&mut self, label: Box<[u8]>) -> u32 {
        self.nodes.push(Node {
            label,
            ..Node::default()
        });
        u32::try_from(self.nodes.len() - 1).expect("fewer nodes than bytes of memory")
    }

    /// Cuts a node's label after `keep` bytes; what was there moves into a child.
    fn split(&mut self, at: usize, keep: usize) {
        let tail: Box<[u8]> = self.nodes[at].label[keep..].into();
        let first = tail[0];
        let lower = self.push(tail);
        let node = &mut self.nodes[at];
        node.label = node.label[..keep].into();
        let children = std::mem::replace(&mut node.children, vec![(first, lower)]);
        let rules = node.rules.take();
        let lower = &mut self.nodes[lower as usize];
        lower.children = children;
        lower.rules = rules;
    }

    /// Adds every list of rules whose paths match.
    fn walk<'a>(&'a self, path: &[u8], candidates: &mut Candidates<'a>) -> Option<()> {
        let mut node = &self.nodes[0];
        let mut rest = path;
        loop {
            if let Some(ends) = &node.rules {
                candidates.add(&ends.prefix)?;
                candidates.add_unchecked(&ends.templates)?;
                if let Some(regexes) = &ends.regexes {
                    candidates.add_regexes(regexes)?;
                }
                match rest.first() {
                    None => {
                        candidates.add(&ends.exact)?;
                        candidates.add(&ends.separated)?;
                    }
                    Some(b'/') => candidates.add(&ends.separated)?,
                    Some(_) => {}
                }
            }
            let Some(first) = rest.first().map(|byte| self.byte(*byte)) else {
                return Some(());
            };
            let found = node
                .children
                .binary_search_by_key(&first, |(byte, _)| *byte);
            let Ok(found) = found else {
                return Some(());
            };
            node = &self.nodes[node.children[found].1 as usize];
            let Some((part, after)) = rest.split_at_checked(node.label.len()) else {
                return Some(());
            };
            let same = if self.fold {
                part.eq_ignore_ascii_case(&node.label)
            } else {
                *part == *node.label
            };
            if !same {
                return Some(());
            }
            rest = after;
        }
    }

    fn byte(&self, byte: u8) -> u8 {
        if self.fold {
            byte.to_ascii_lowercase()
        } else {
            byte
        }
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
            fold: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::{Action, Condition, Pattern};

    fn rules(paths: impl IntoIterator<Item = PathMatch>) -> Vec<Arc<Rule>> {
        let rule = |path| {
            let mut condition = Condition::default();
            condition.path = path;
            Arc::new(Rule::new(condition, Action::default()))
        };
        paths.into_iter().map(rule).collect()
    }

    #[test]
    fn candidates_come_in_the_order_of_the_rules() {
        let regex = |source| PathMatch::Regex(Pattern::new(source).unwrap());
        let compiled = Paths::compile(&rules([
            PathMatch::Exact("/a/b".into()),
            PathMatch::Prefix("/".into()),
            PathMatch::Connect,
            PathMatch::SeparatedPrefix("/a".into()),
            PathMatch::Prefix("/a/c".into()),
            PathMatch::PrefixIgnoreCase("/A".into()),
            PathMatch::Prefix(String::new()),
            regex("/a/.*"),
            regex(".*/b"),
        ]));
        let found = |path| -> Vec<usize> {
            let candidates = compiled.candidates(path).unwrap();
            candidates.map(|candidate| candidate.rule).collect()
        };
        assert_eq!(found(Some("/a/b")), [0, 1, 2, 3, 5, 6, 7, 8]);
        assert_eq!(found(Some("/ab")), [1, 2, 5, 6, 8]);
        assert_eq!(found(Some("*")), [2, 6, 8]);
        assert_eq!(found(None), [2]);
    }

    #[test]
    fn a_path_that_was_found_is_not_looked_at_again() {
        let prefix = || PathMatch::Prefix("/".into());
        let checked = |paths: Vec<PathMatch>| -> Vec<bool> {
            let compiled = Paths::compile(&rules(paths));
            let candidates = compiled.candidates(Some("/x")).unwrap();
            candidates.map(|candidate| candidate.path_matches).collect()
        };
        assert_eq!(checked(vec![prefix()]), [true]);
        assert_eq!(checked(vec![PathMatch::Connect, prefix()]), [false, true]);
    }

    #[test]
    fn a_table_with_very_many_nested_prefixes_is_left_to_a_scan() {
        let nested = (0..40).map(|depth| PathMatch::Prefix("/".repeat(depth)));
        let compiled = Paths::compile(&rules(nested));
        assert!(compiled.candidates(Some(&"/".repeat(40))).is_none());
        assert_eq!(compiled.candidates(Some("/x")).unwrap().count(), 2);
    }
}
