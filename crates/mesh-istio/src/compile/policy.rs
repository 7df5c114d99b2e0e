//! Which destination rule applies, and what it says for a port and subset.
//!
//! The look-up goes by namespace first: the client's, the service's, the
//! root's; within one the most specific host wins. Blocks are inherited whole:
//! a port's settings replace the destination's, the subset's are laid over
//! that block by block, and the subset's own port settings replace all four.

use std::collections::BTreeMap;

use mesh_core::Name;

use super::Compiler;
use crate::diagnostic::Position;
use crate::names::{complete, covers, specificity};
use crate::registry::{Entry, contains};
use crate::spec::destination_rule::Subset;
use crate::spec::traffic_policy::{Blocks, RetryBudget, TrafficPolicy};
use crate::spec::{DestinationRule, MeshConfig, Meta};
use crate::world::World;

/// The destination rules of one host in one namespace, merged.
#[derive(Debug, Default)]
pub(super) struct Rules<'a> {
    /// The first policy, and whose it is.
    pub(super) policy: Option<(&'a Meta, &'a TrafficPolicy)>,
    /// All subsets; of two with one name the first.
    pub(super) subsets: Vec<(&'a Meta, &'a Subset)>,
}

/// A destination rule with its host completed.
#[derive(Debug)]
pub(super) struct Known<'a> {
    meta: &'a Meta,
    rule: &'a DestinationRule,
    host: String,
}

/// What holds for one cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Policy {
    pub(super) blocks: Blocks,
    pub(super) retry_budget: Option<RetryBudget>,
    /// Where most of it stands.
    pub(super) at: Position,
}

/// All destination rules by namespace, oldest first.
pub(super) fn known(world: &World) -> BTreeMap<&str, Vec<Known<'_>>> {
    let mut all: Vec<_> = world.destination_rules().collect();
    all.sort_by_key(|(meta, _)| meta.seniority());
    let mut known: BTreeMap<&str, Vec<Known<'_>>> = BTreeMap::new();
    for (meta, rule) in all {
        let host = complete(&rule.host, &meta.namespace);
        known
            .entry(&meta.namespace)
            .or_default()
            .push(Known { meta, rule, host });
    }
    known
}

/// The rules for a service as clients of `viewer` see them.
pub(super) fn find<'a>(compiler: &Compiler<'a>, entry: &Entry, viewer: &str) -> Rules<'a> {
    let root = compiler.mesh.root_namespace.as_str();
    let usual = &compiler.mesh.destination_rule_export;
    let mut namespaces = vec![viewer, entry.namespace(), root];
    namespaces.dedup();
    for namespace in namespaces {
        let mut candidates: Vec<&Known<'a>> = compiler
            .rules
            .get(namespace)
            .into_iter()
            .flatten()
            .filter(|known| covers(&known.host, entry.host()))
            .filter(|known| {
                // A namespace's own rules hold for it, exported or not.
                namespace == viewer
                    || known
                        .rule
                        .export_to
                        .as_ref()
                        .unwrap_or(usual)
                        .shows(namespace, viewer)
            })
            .filter(|known| match &known.rule.selector {
                // A rule with a selector is for clients beside it.
                Some(labels) => {
                    namespace == viewer
                        && viewer == compiler.node.namespace
                        && contains(&compiler.node.labels, labels)
                }
                None => true,
            })
            .collect();
        // Rules with a selector are more specific than those for everybody.
        let rank = |known: &Known<'_>| (specificity(&known.host), known.rule.selector.is_some());
        let Some(best) = candidates.iter().map(|known| rank(known)).max() else {
            continue;
        };
        candidates.retain(|known| rank(known) == best);
        return merge(candidates.into_iter().map(|known| (known.meta, known.rule)));
    }
    Rules::default()
}

fn merge<'a>(rules: impl Iterator<Item = (&'a Meta, &'a DestinationRule)>) -> Rules<'a> {
    let mut merged = Rules::default();
    for (meta, rule) in rules {
        if merged.policy.is_none() {
            merged.policy = rule.policy.as_ref().map(|policy| (meta, policy));
        }
        for subset in &rule.subsets {
            if merged
                .subsets
                .iter()
                .all(|(_, have)| have.name != subset.name)
            {
                merged.subsets.push((meta, subset));
            }
        }
    }
    merged
}

/// What holds for a port of a destination, and of a subset of it.
pub(super) fn resolve(
    mesh: &MeshConfig,
    rules: &Rules<'_>,
    subset: Option<&Subset>,
    port: u16,
) -> Policy {
    let mut policy = Policy::default();
    if let Some((_, top)) = rules.policy {
        policy.at = top.at;
        match top.ports.iter().find(|one| one.port == port) {
            Some(own) => {
                policy.blocks = own.blocks.clone();
                policy.at = own.at;
            }
            None => {
                policy.blocks = top.blocks.clone();
                policy.retry_budget = top.retry_budget;
            }
        }
    }
    if let Some(over) = subset.and_then(|subset| subset.policy.as_ref()) {
        policy.at = over.at;
        policy.retry_budget = over.retry_budget.or(policy.retry_budget);
        let own = &over.blocks;
        let base = policy.blocks;
        policy.blocks = Blocks {
            balancer: own.balancer.or(base.balancer),
            pool: own.pool.clone().or(base.pool),
            outlier: own.outlier.clone().or(base.outlier),
            tls: own.tls.clone().or(base.tls),
        };
        if let Some(own) = over.ports.iter().find(|one| one.port == port) {
            policy.blocks = own.blocks.clone();
            policy.at = own.at;
        }
    }
    if let Some(usual) = &mesh.policy {
        let blocks = &mut policy.blocks;
        blocks.pool = blocks.pool.take().or_else(|| usual.blocks.pool.clone());
        blocks.outlier = blocks
            .outlier
            .take()
            .or_else(|| usual.blocks.outlier.clone());
    }
    policy
}

/// A subset's labels in the model's words.
pub(super) fn labels(subset: &Subset) -> Vec<(Name, Name)> {
    subset
        .labels
        .iter()
        .map(|(key, value)| (Name::from(key), Name::from(value)))
        .collect()
}
