//! Authorization policies as rules that judge: istiod's filters, one for each action.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::Name;
use mesh_core::model::{
    Authn, Authz, AuthzAction, AuthzPolicy, AuthzRules, Fact, Filter, Listener, Predicate,
};

use super::Compiler;
use crate::registry::contains;
use crate::spec::authorization_policy::{
    Asked, Attribute, PolicyAction, PolicyRule, issuer_and_subject,
};
use crate::spec::{AuthorizationPolicy, Meta};
use crate::world::World;

mod custom;
mod trust;

/// The filters in istiod's order: what is only noted, what denies, what allows.
const ACTIONS: [PolicyAction; 3] = [PolicyAction::Audit, PolicyAction::Deny, PolicyAction::Allow];

/// The label of a proxy that was started for a Gateway of Kubernetes.
pub(super) const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// What makes a policy one on trial.
const DRY_RUN: &str = "istio.io/dry-run";
/// The chain that connections to the listener itself end in.
const BLACK_HOLE: &str = "virtualInbound-blackhole";

/// What judges on the way in to a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Judges {
    requests: Vec<Arc<Authz>>,
    connections: Vec<Arc<Authz>>,
    tokens: Option<Arc<Authn>>,
    /// How many of `requests` judge before tokens are asked for.
    before_tokens: usize,
}

/// The policies for the node that is compiled for.
pub(super) fn judges(compiler: &mut Compiler<'_>) -> Judges {
    let mut by_action: BTreeMap<PolicyAction, Vec<_>> = BTreeMap::new();
    for (meta, spec) in selected(compiler) {
        by_action.entry(spec.action).or_default().push((meta, spec));
    }
    let mut judges = Judges {
        tokens: super::authn::authn(compiler),
        ..Judges::default()
    };
    // Whoever has to be asked is asked first.
    if let Some(policies) = by_action.get(&PolicyAction::Custom) {
        custom::judges(compiler, policies, &mut judges);
    }
    judges.before_tokens = judges.requests.len();
    for action in ACTIONS {
        let Some(policies) = by_action.get(&action) else {
            continue;
        };
        let requests = filter(compiler, action, policies, false);
        judges.requests.push(Arc::new(requests));
        let mut connections = filter(compiler, action, policies, true);
        connections.stat_prefix = Name::from("tcp.");
        judges.connections.push(Arc::new(connections));
    }
    judges
}

impl Judges {
    /// Puts what judges before whatever a listener does.
    pub(super) fn guard(&self, listener: &mut Listener) {
        let judged = !(self.requests.is_empty() && self.connections.is_empty());
        if !judged && self.tokens.is_none() {
            return;
        }
        listener.for_each_chain(|chain| match &mut chain.filter {
            _ if *chain.name == *BLACK_HOLE => {}
            Filter::Http(manager) => {
                let manager = Arc::make_mut(manager);
                manager.authn.clone_from(&self.tokens);
                if manager.authn.is_some() {
                    manager.authn_at = self.before_tokens;
                }
                manager.authz.clone_from(&self.requests);
            }
            _ => chain.authz.clone_from(&self.connections),
        });
    }
}

/// The policies that select the node: those of its namespace and of the root namespace.
fn selected<'a>(compiler: &Compiler<'a>) -> Vec<(&'a Meta, &'a AuthorizationPolicy)> {
    let world: &'a World = compiler.world;
    let viewer = &compiler.viewer;
    let (namespace, labels) = (viewer.namespace(), viewer.labels());
    let selects = |(meta, spec): &(&'a Meta, &'a AuthorizationPolicy)| {
        let own = meta.namespace == namespace;
        if !spec.gateways.is_empty() {
            let name = labels.get(GATEWAY_NAME);
            return own && name.is_some_and(|name| spec.gateways.contains(name));
        }
        let selector = spec.selector.as_ref();
        (own || meta.namespace == compiler.mesh.root_namespace)
            && selector.is_none_or(|selector| contains(labels, selector))
    };
    world.authorization_policies().filter(selects).collect()
}

fn filter(
    compiler: &mut Compiler<'_>,
    action: PolicyAction,
    policies: &[(&Meta, &AuthorizationPolicy)],
    bytes: bool,
) -> Authz {
    let judged = match action {
        PolicyAction::Allow => AuthzAction::Allow,
        PolicyAction::Deny => AuthzAction::Deny,
        PolicyAction::Audit => AuthzAction::Log,
        // Made elsewhere: on trial it denies, to be noted.
        PolicyAction::Custom => AuthzAction::Deny,
    };
    let (mut rules, mut trial) = (None, None);
    for (meta, spec) in policies {
        let dry = meta.annotations.get(DRY_RUN);
        let dry = dry.is_some_and(|value| is_true(value));
        let rules = if dry { &mut trial } else { &mut rules };
        let rules = rules.get_or_insert_with(|| AuthzRules::new(judged, []));
        policies_of(compiler, meta, spec, Naming::default(), bytes, rules);
    }
    for rules in rules.iter_mut().chain(&mut trial) {
        rules.policies.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let mut authz = Authz::default();
    authz.trial_prefix = Name::from(match (&trial, action) {
        // As istiod has it where there are none.
        (None, _) | (_, PolicyAction::Allow) => "istio_dry_run_allow_",
        (_, PolicyAction::Deny) => "istio_dry_run_deny_",
        (_, PolicyAction::Audit | PolicyAction::Custom) => "",
    });
    (authz.rules, authz.trial) = (rules, trial);
    authz
}

/// What stands around the names of rules.
#[derive(Clone, Copy, Debug, Default)]
struct Naming<'a> {
    prefix: &'a str,
    suffix: &'a str,
}

/// Adds what the rules of one policy come to.
fn policies_of(
    compiler: &mut Compiler<'_>,
    meta: &Meta,
    spec: &AuthorizationPolicy,
    naming: Naming<'_>,
    bytes: bool,
    rules: &mut AuthzRules,
) {
    let name = |at: usize| {
        let Naming { prefix, suffix } = naming;
        let (namespace, policy) = (&meta.namespace, &meta.name);
        format!("{prefix}ns[{namespace}]-policy[{policy}]-rule[{at}]{suffix}")
    };
    if spec.rules.is_empty() {
        let never = || Predicate::Not(Box::new(Predicate::Always));
        let mut policy = AuthzPolicy::new(name(0), never(), never());
        policy.origin = compiler.origin(meta, meta.at);
        rules.policies.push(Arc::new(policy));
    }
    for (at, rule) in spec.rules.iter().enumerate() {
        let site = Site {
            compiler,
            namespace: &meta.namespace,
            bytes,
            strict: spec.action == PolicyAction::Allow,
        };
        if let Some((permission, principal)) = site.rule(rule) {
            let mut policy = AuthzPolicy::new(name(at), permission, principal);
            policy.origin = compiler.origin(meta, rule.at);
            rules.policies.push(Arc::new(policy));
        }
    }
}

/// What Go's `strconv.ParseBool` takes for true.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// What a rule is made for.
struct Site<'a, 'w> {
    compiler: &'a Compiler<'w>,
    /// The policy's own.
    namespace: &'a str,
    /// Connections of bytes rather than requests.
    bytes: bool,
    /// What cannot be asked of bytes takes its rule along: it would allow more without. Otherwise
    /// it is left out, and the rule matches more.
    strict: bool,
}

/// A rule allows what cannot be told of bytes.
struct Dropped;

impl Site<'_, '_> {
    fn rule(&self, rule: &PolicyRule) -> Option<(Predicate, Predicate)> {
        let operations = self.either(&rule.operations).ok()?;
        let sources = self.either(&rule.sources).ok()?;
        Some((operations, sources))
    }

    /// One of several alternatives.
    fn either(&self, alternatives: &[Vec<Asked>]) -> Result<Predicate, Dropped> {
        let all: Result<Vec<_>, _> = alternatives.iter().map(|one| self.all(one)).collect();
        let mut all = all?;
        Ok(match all.len() {
            1 => all.remove(0),
            _ => Predicate::Any(all),
        })
    }

    fn all(&self, asked: &[Asked]) -> Result<Predicate, Dropped> {
        let mut all = Vec::new();
        for one in asked {
            if self.bytes && one.attribute.is_of_http() {
                if self.strict {
                    return Err(Dropped);
                }
                continue;
            }
            all.extend(self.one_of(&one.attribute, &one.values));
            let not = self.one_of(&one.attribute, &one.not_values);
            all.extend(not.map(|one| Predicate::Not(Box::new(one))));
        }
        if all.is_empty() {
            all.push(Predicate::Always);
        }
        Ok(Predicate::All(all))
    }

    /// That an attribute is one of some values; none where there are none.
    fn one_of(&self, attribute: &Attribute, values: &[String]) -> Option<Predicate> {
        if values.is_empty() {
            return None;
        }
        if attribute.is_of_token() {
            return of_token(attribute, values);
        }
        let aliases;
        let values = match attribute {
            Attribute::Principal => {
                let mesh = self.compiler.mesh;
                aliases = trust::aliases(values, &mesh.trust_domain, &mesh.trust_domain_aliases);
                &aliases
            }
            _ => values,
        };
        // Each value was checked when it was read.
        let facts = values
            .iter()
            .filter_map(|value| attribute.fact(value, self.namespace).ok());
        let facts: Vec<_> = facts.map(Predicate::Fact).collect();
        (!facts.is_empty()).then_some(Predicate::Any(facts))
    }
}

/// What is asked of tokens is asked in one.
fn of_token(attribute: &Attribute, values: &[String]) -> Option<Predicate> {
    if *attribute != Attribute::RequestPrincipal {
        return attribute.claim(values).ok().map(Predicate::Fact);
    }
    let both = |facts: [Fact; 2]| Predicate::All(facts.map(Predicate::Fact).to_vec());
    let all = values
        .iter()
        .filter_map(|value| issuer_and_subject(value).ok());
    let mut all: Vec<_> = all.map(both).collect();
    match all.len() {
        0 => None,
        1 => Some(all.remove(0)),
        _ => Some(Predicate::Any(all)),
    }
}
