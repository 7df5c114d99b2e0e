//! Which policies judge a request or connection, and what they say.

use super::place::place;
use http::Request;
use mesh_core::model::{Authz, AuthzAction, Snapshot};
use mesh_core::{Caller, Error, Exchange, Failure, Origin};
use mesh_policy::{Denied, Facts, Judged};
use serde_json::{Value, json};
use std::sync::Arc;

/// What the policies of its listener say of a request, each with where it is configured, and the
/// refusal if they deny it.
pub(super) fn of_request<B>(
    snapshot: &Snapshot,
    request: &Request<B>,
) -> (Vec<Value>, Option<Error>) {
    let Some(exchange) = Exchange::of(request) else {
        return (Vec::new(), None);
    };
    let Some(manager) = &exchange.caller().manager else {
        return (Vec::new(), None);
    };
    let facts = Facts::of_exchange(exchange, request);
    told(snapshot, &manager.authz, &facts)
}

/// What the policies of a chain say of a connection.
pub(super) fn of_connection(
    snapshot: &Snapshot,
    authz: &[Arc<Authz>],
    caller: &Caller,
) -> Vec<Value> {
    told(snapshot, authz, &Facts::of_connection(caller)).0
}

fn told(
    snapshot: &Snapshot,
    authz: &[Arc<Authz>],
    facts: &Facts<'_>,
) -> (Vec<Value>, Option<Error>) {
    let all = mesh_policy::explain(authz, facts);
    let denied = all.iter().find(|one| !one.on_trial && !one.verdict.allowed);
    let denied = denied.map(|one| {
        let policy = one.verdict.policy.cloned();
        Error::with_source(Failure::Denied, Denied { policy })
    });
    (all.iter().map(|one| words(snapshot, one)).collect(), denied)
}

fn words(snapshot: &Snapshot, judged: &Judged<'_>) -> Value {
    let policy = judged.verdict.policy;
    let action = match judged.rules.action {
        AuthzAction::Allow => "ALLOW",
        AuthzAction::Log => "AUDIT",
        _ => "DENY",
    };
    // Where nothing allows it, those that might have.
    let from = policy.or_else(|| judged.rules.policies.first());
    json!({
        "action": action,
        "dry_run": judged.on_trial,
        "verdict": if judged.verdict.allowed { "allowed" } else { "denied" },
        "policy": policy.map(|policy| policy.name.as_str()),
        "policies": judged.rules.policies.len(),
        "from": place(snapshot, from.map_or(Origin::NONE, |policy| policy.origin)),
    })
}
