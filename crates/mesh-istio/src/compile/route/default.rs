//! The rules of services that no virtual service speaks for.

use std::sync::Arc;

use mesh_core::model::{Action, HashPolicy, Rule};
use mesh_core::{Name, Origin};

use super::super::memory::Rules;
use super::super::{Compiler, l4, policy as cluster_policy};
use super::{again, default_retry, remembered};
use crate::names::outbound;
use crate::registry::Entry;

/// The rules of a service without a virtual service, where they have to be others than the usual
/// one: its destination rules want something of requests.
pub(in crate::compile) fn wanting(
    compiler: &mut Compiler<'_>,
    entry: &Arc<Entry>,
    port: u16,
    origin: Origin,
) -> Option<Rules> {
    let index = Arc::clone(&compiler.memory.rules);
    if !index.hashes() {
        return None;
    }
    let rules = cluster_policy::find(compiler, &index, entry, compiler.viewer.namespace());
    let policy = cluster_policy::resolve(compiler.mesh, &rules, None, port);
    policy.hash_source()?;
    // No gateway is called so.
    let place = (Name::from(format!("={}", entry.host())), port);
    if let Some(rules) = again(compiler, &entry.meta, &place) {
        return Some(rules);
    }
    Some(remembered(compiler, &entry.meta, place, |compiler| {
        let mut rule = default_rule(compiler, entry.host(), port, origin);
        let policy = l4::policy_of(compiler, entry.host(), "", port);
        let source = policy.hash_source().cloned();
        if let Action::Forward(forward) = &mut rule.action {
            forward.hash.extend(source.map(HashPolicy::new));
        }
        vec![Arc::new(rule)]
    }))
}

/// The rule of a service without a virtual service.
pub(in crate::compile) fn default_rule(
    compiler: &mut Compiler<'_>,
    host: &str,
    port: u16,
    origin: Origin,
) -> Rule {
    let mut rule = Rule::prefix_to("/", outbound(port, "", host));
    rule.name = Name::from("default");
    rule.origin = origin;
    rule.max_grpc_timeout = Some(std::time::Duration::ZERO);
    rule.retry = default_retry(compiler, false);
    rule.operation = Name::from(format!("{host}:{port}/*"));
    rule
}
