//! Which destination rule applies, and what it says for a port and subset.
//!
//! The look-up goes by namespace first: the client's, the service's, the
//! root's; within one the most specific host wins. Blocks are inherited whole:
//! a port's settings replace the destination's, the subset's are laid over
//! that block by block, and the subset's own port settings replace all four.

use std::collections::HashMap;
use std::sync::Arc;

use mesh_core::Name;
use mesh_core::model::{HashSource, ProxyProtocol};

use super::Compiler;
use crate::diagnostic::Position;
use crate::names::{complete, covers, specificity};
use crate::registry::{Entry, contains};
use crate::spec::destination_rule::Subset;
use crate::spec::traffic_policy::{Blocks, RetryBudget, TrafficPolicy, Tunnel};
use crate::spec::{DestinationRule, MeshConfig, Meta, Object, Spec};
use crate::world::World;

/// The destination rules of one host in one namespace, merged.
#[derive(Debug, Default)]
pub(super) struct Rules<'a> {
    /// The first policy, and whose it is.
    pub(super) policy: Option<(&'a Meta, &'a TrafficPolicy)>,
    /// All subsets; of two with one name the first.
    pub(super) subsets: Vec<(&'a Meta, &'a Subset)>,
    /// The rules' stamps, in order: they say which rules these are.
    pub(super) stamps: Vec<u64>,
    /// They are for workloads with certain labels.
    pub(super) selected: bool,
}

/// All destination rules.
#[derive(Debug, Default)]
pub(super) struct Index {
    namespaces: HashMap<String, Space>,
    /// Some rule says what requests are hashed by.
    hashes: bool,
}

/// The destination rules of a namespace, oldest first.
#[derive(Debug, Default)]
struct Space {
    all: Vec<Known>,
    /// By the host that they name, wildcards left out.
    exact: HashMap<String, Vec<usize>>,
    wildcards: Vec<usize>,
}

/// A destination rule with its host completed.
#[derive(Debug)]
struct Known {
    object: Arc<Object>,
    host: String,
}

/// What holds for one cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Policy {
    pub(super) blocks: Blocks,
    pub(super) retry_budget: Option<RetryBudget>,
    pub(super) tunnel: Option<Tunnel>,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
    /// Where most of it stands.
    pub(super) at: Position,
}

// === impl Policy ===

impl Policy {
    /// What requests are hashed by.
    pub(super) fn hash_source(&self) -> Option<&HashSource> {
        let hash = self.blocks.balancer.as_ref()?.hash.as_ref()?;
        hash.source.as_ref()
    }
}

/// Whether a policy says for some port what requests are hashed by.
fn hashes(policy: &TrafficPolicy) -> bool {
    let ports = policy.ports.iter().map(|port| &port.blocks);
    let mut all = ports.chain([&policy.blocks]);
    all.any(|blocks| {
        let hash = blocks.balancer.as_ref().and_then(|one| one.hash.as_ref());
        hash.is_some_and(|hash| hash.source.is_some())
    })
}

// === impl Index ===

impl Index {
    pub(super) fn of(world: &World) -> Self {
        let mut all: Vec<_> = world
            .objects()
            .filter(|object| matches!(object.spec, Spec::DestinationRule(_)))
            .collect();
        all.sort_by(|one, other| one.meta.seniority().cmp(&other.meta.seniority()));
        let mut index = Self::default();
        for object in all {
            let Spec::DestinationRule(rule) = &object.spec else {
                continue;
            };
            index.hashes |= rule.policy.as_ref().is_some_and(hashes);
            let namespace = &object.meta.namespace;
            let host = complete(&rule.host, namespace);
            let space = index.namespaces.entry(namespace.clone()).or_default();
            let place = space.all.len();
            match host.starts_with('*') {
                true => space.wildcards.push(place),
                false => space.exact.entry(host.clone()).or_default().push(place),
            }
            let object = Arc::clone(object);
            space.all.push(Known { object, host });
        }
        index
    }

    /// Whether any rule says for a whole service what requests are hashed by.
    pub(super) fn hashes(&self) -> bool {
        self.hashes
    }

    /// The rules of a namespace whose host takes in this one, oldest first.
    fn covering(&self, namespace: &str, host: &str) -> Vec<Candidate<'_>> {
        let Some(space) = self.namespaces.get(namespace) else {
            return Vec::new();
        };
        let exact = space.exact.get(host).into_iter().flatten();
        let wild = space.wildcards.iter();
        let wild = wild.filter(|place| covers(&space.all[**place].host, host));
        let mut places: Vec<usize> = exact.chain(wild).copied().collect();
        places.sort_unstable();
        let known = places.into_iter().map(|place| &space.all[place]);
        known
            .filter_map(|known| match &known.object.spec {
                Spec::DestinationRule(rule) => Some(Candidate {
                    meta: &known.object.meta,
                    rule,
                    host: &known.host,
                }),
                _ => None,
            })
            .collect()
    }
}

/// A rule that may apply.
#[derive(Clone, Copy)]
struct Candidate<'r> {
    meta: &'r Meta,
    rule: &'r DestinationRule,
    host: &'r str,
}

/// The rules for a service as clients of `viewer` see them.
pub(super) fn find<'r>(
    compiler: &Compiler<'_>,
    index: &'r Index,
    entry: &Entry,
    viewer: &str,
) -> Rules<'r> {
    let root = compiler.mesh.root_namespace.as_str();
    let usual = &compiler.mesh.destination_rule_export;
    let mut namespaces = vec![viewer, entry.namespace(), root];
    namespaces.dedup();
    for namespace in namespaces {
        let mut candidates = index.covering(namespace, entry.host());
        candidates.retain(|known| {
            // A namespace's own rules hold for it, exported or not.
            let export = known.rule.export_to.as_ref().unwrap_or(usual);
            let shown = namespace == viewer || export.shows(namespace, viewer);
            shown
                && match &known.rule.selector {
                    // A rule with a selector is for clients beside it.
                    Some(labels) => {
                        namespace == viewer
                            && viewer == compiler.viewer.namespace()
                            && contains(compiler.viewer.labels(), labels)
                    }
                    None => true,
                }
        });
        // Rules with a selector are more specific than those for everybody.
        let rank = |known: &Candidate<'_>| (specificity(known.host), known.rule.selector.is_some());
        let Some(best) = candidates.iter().map(rank).max() else {
            continue;
        };
        candidates.retain(|known| rank(known) == best);
        return merge(&candidates);
    }
    Rules::default()
}

fn merge<'r>(rules: &[Candidate<'r>]) -> Rules<'r> {
    let mut merged = Rules::default();
    for Candidate { meta, rule, .. } in rules {
        merged.stamps.push(meta.stamp);
        merged.selected |= rule.selector.is_some();
        if merged.policy.is_none() {
            merged.policy = rule.policy.as_ref().map(|policy| (*meta, policy));
        }
        for subset in &rule.subsets {
            let mut have = merged.subsets.iter();
            if have.all(|(_, have)| have.name != subset.name) {
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
                policy.tunnel.clone_from(&top.tunnel);
                policy.proxy_protocol = top.proxy_protocol;
            }
        }
    }
    if let Some(over) = subset.and_then(|subset| subset.policy.as_ref()) {
        policy.at = over.at;
        policy.retry_budget = over.retry_budget.or(policy.retry_budget);
        policy.tunnel = over.tunnel.clone().or(policy.tunnel);
        policy.proxy_protocol = over.proxy_protocol.or(policy.proxy_protocol);
        let own = &over.blocks;
        let base = policy.blocks;
        policy.blocks = Blocks {
            balancer: own.balancer.clone().or(base.balancer),
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
