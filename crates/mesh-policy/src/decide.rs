//! Rules made ready, and what they say.

use crate::facts::Facts;
use crate::holds::{check, holds};
use crate::index::Index;
use mesh_core::Invalid;
use mesh_core::model::{AuthzAction, AuthzPolicy, AuthzRules};
use std::sync::Arc;

/// Rules that are ready to judge.
#[derive(Debug)]
pub struct Compiled {
    action: AuthzAction,
    /// In the order of their names, as Envoy asks them.
    policies: Vec<Arc<AuthzPolicy>>,
    index: Index,
}

/// What rules say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// It may go on.
    pub allowed: bool,
    /// The first policy that matches, if one does.
    pub policy: Option<&'a Arc<AuthzPolicy>>,
}

/// Makes rules ready.
///
/// # Errors
/// With the path of the field, if there is a condition that this version does not know, or one too
/// deep in others to be judged.
pub fn compile(rules: &AuthzRules) -> Result<Compiled, Invalid> {
    if !matches!(
        rules.action,
        AuthzAction::Allow | AuthzAction::Deny | AuthzAction::Log
    ) {
        return Err(Invalid::new("action", "is one that is not known"));
    }
    for policy in &rules.policies {
        let place = || format!("policies[{}]", policy.name);
        check(&policy.permission).map_err(|error| error.within("permission").within(place()))?;
        check(&policy.principal).map_err(|error| error.within("principal").within(place()))?;
    }
    let mut policies = rules.policies.clone();
    policies.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Compiled {
        action: rules.action,
        index: Index::of(&policies),
        policies,
    })
}

/// What rules say of a request or connection.
pub fn decide<'a>(rules: &'a Compiled, facts: &Facts<'_>) -> Verdict<'a> {
    let matches = |at: usize| {
        let policy = &rules.policies[at];
        holds(&policy.permission, facts) && holds(&policy.principal, facts)
    };
    let first = rules.index.first(facts, matches);
    let policy = first.map(|at| &rules.policies[at]);
    let allowed = match rules.action {
        AuthzAction::Allow => policy.is_some(),
        AuthzAction::Log => true,
        // Any other was refused when it was compiled.
        _ => policy.is_none(),
    };
    Verdict { allowed, policy }
}

// === impl Compiled ===

impl Compiled {
    /// What a match means.
    pub fn action(&self) -> AuthzAction {
        self.action
    }

    /// The policies, in the order in which they are asked.
    pub fn policies(&self) -> &[Arc<AuthzPolicy>] {
        &self.policies
    }
}

#[cfg(test)]
mod tests;
