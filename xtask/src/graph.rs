//! `cargo xtask graph`: who may import what.
//!
//! The rules are data ([`rules`]); this file compares them with what `cargo metadata` says. It
//! judges what is declared, optional dependencies included: a feature is no way around a rule.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::bail;

use crate::workspace::{Dependency, DependencyKind, Metadata, Package, Workspace};

mod rules;
#[cfg(test)]
mod tests;

use rules::{ANYTHING, ONLY_FOR_TESTS, Rule, USERS};

/// Checks the workspace and prints what breaks a rule.
///
/// # Errors
///
/// If anything does.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let violations = check(&workspace.metadata);
    for violation in &violations {
        eprintln!("  {violation}");
    }
    if !violations.is_empty() {
        bail!(
            "{} imports that the rules forbid; they are in xtask/src/graph/rules.rs, their reasons \
             in ARCHITECTURE.md",
            violations.len()
        );
    }
    println!(
        "{} packages import only what they may",
        workspace.metadata.members().count()
    );
    Ok(())
}

/// Everything that breaks a rule, in words.
fn check(metadata: &Metadata) -> Vec<String> {
    let graph = Graph::of(metadata);
    let ours: BTreeSet<&str> = metadata.members().map(|member| &*member.name).collect();
    let mut violations = Vec::new();
    for member in metadata.members() {
        // Examples and benches show and measure the whole; they may use all of it.
        let folder = metadata.folder(member);
        if folder.starts_with("examples") || folder.starts_with("benches") {
            continue;
        }
        let Some(rule) = rules::of(&member.name) else {
            violations.push(format!("{} has no rule: give it one", member.name));
            continue;
        };
        violations.extend(own_crates(member, rule, &ours));
        violations.extend(outside_crates(member, rule));
        violations.extend(in_closure(member, rule, &graph));
    }
    violations
}

/// Which of our own crates it imports.
fn own_crates(member: &Package, rule: &Rule, ours: &BTreeSet<&str>) -> Vec<String> {
    let may = |dependency: &Dependency| {
        let name = dependency.name.as_str();
        let for_tests = dependency.kind == Some(DependencyKind::Dev);
        // A package may name itself in its dev-dependencies, to test with another feature set.
        rule.ours == ANYTHING
            || rule.ours.contains(&name)
            || (for_tests && (name == ONLY_FOR_TESTS || name == member.name))
    };
    member
        .dependencies
        .iter()
        .filter(|dependency| ours.contains(dependency.name.as_str()) && !may(dependency))
        .map(|dependency| {
            let allowed = match rule.ours {
                [] => "none of ours".to_owned(),
                ours => ours.join(", "),
            };
            format!(
                "{} imports {} (allowed: {allowed})",
                member.name, dependency.name
            )
        })
        .collect()
}

/// Which crates of others it names itself, and with which features. Its tests may use what they
/// like.
fn outside_crates(member: &Package, rule: &Rule) -> Vec<String> {
    let mut violations = Vec::new();
    for dependency in &member.dependencies {
        if dependency.kind == Some(DependencyKind::Dev) {
            continue;
        }
        let (importer, name) = (&member.name, dependency.name.as_str());
        if rule.not_directly.contains(&name) {
            violations.push(format!("{importer} imports {name}, which it must not"));
        }
        for (outside, users) in USERS {
            if *outside == name && !users.contains(&importer.as_str()) {
                let users = users.join(" and ");
                violations.push(format!(
                    "{importer} imports {name}, which is for {users} only"
                ));
            }
        }
        for (outside, allowed) in rule.features {
            let more = dependency
                .features
                .iter()
                .filter(|feature| *outside == name && !allowed.contains(&feature.as_str()));
            violations.extend(more.map(|feature| {
                let allowed = allowed.join(", ");
                format!("{importer} switches on {name}'s `{feature}` (allowed: {allowed})")
            }));
        }
    }
    violations
}

/// What its users would get with it that they must not, with the way it comes in.
fn in_closure(member: &Package, rule: &Rule, graph: &Graph<'_>) -> Vec<String> {
    rule.never
        .iter()
        .filter_map(|never| graph.way(&member.id, never))
        .map(|way| {
            let last = way.last().copied().unwrap_or_default();
            let way = way.join(" → ");
            format!("{} must never bring in {last}: {way}", member.name)
        })
        .collect()
}

/// Normal dependencies as cargo resolved them.
///
/// Cargo resolves the workspace as one, so a feature that one member switches on in a crate that
/// several share is there for all of them: the closure may be larger than it is for a member
/// built alone, never smaller.
struct Graph<'a> {
    names: BTreeMap<&'a str, &'a str>,
    edges: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Graph<'a> {
    fn of(metadata: &'a Metadata) -> Self {
        let names = metadata
            .packages
            .iter()
            .map(|package| (package.id.as_str(), package.name.as_str()))
            .collect();
        let edges = metadata
            .resolve
            .nodes
            .iter()
            .map(|node| {
                let normal = node.deps.iter().filter(|edge| edge.is_normal());
                (
                    node.id.as_str(),
                    normal.map(|edge| edge.pkg.as_str()).collect(),
                )
            })
            .collect();
        Self { names, edges }
    }

    /// The names on the shortest way from a package to one that is called `name`, if there is one.
    fn way(&self, from: &'a str, name: &str) -> Option<Vec<&'a str>> {
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = VecDeque::from([from]);
        while let Some(id) = queue.pop_front() {
            if id != from && self.names.get(id).is_some_and(|own| *own == name) {
                let ids = std::iter::successors(Some(id), |id| came_from.get(id).copied());
                let mut way: Vec<&str> = ids.filter_map(|id| self.names.get(id).copied()).collect();
                way.reverse();
                return Some(way);
            }
            for next in self.edges.get(id).into_iter().flatten() {
                if *next != from && !came_from.contains_key(next) {
                    came_from.insert(next, id);
                    queue.push_back(next);
                }
            }
        }
        None
    }
}
