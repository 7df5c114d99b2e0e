//! Which policies judge a request or connection, and what they say.

use super::place::place;
use http::Request;
use mesh_core::model::{Authz, AuthzAction, Snapshot};
use mesh_core::{Caller, Error, Exchange, Failure, Origin};
use mesh_policy::{Denied, Facts, Judged, OnRoute};
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
    let first = exchange.first_foreseen();
    let route = OnRoute::of(first.as_ref(), exchange.matched());
    told(snapshot, &manager.authz, route, &facts)
}

/// What the policies of a chain say of a connection.
pub(super) fn of_connection(
    snapshot: &Snapshot,
    authz: &[Arc<Authz>],
    caller: &Caller,
) -> Vec<Value> {
    let facts = Facts::of_connection(caller);
    told(snapshot, authz, OnRoute::default(), &facts).0
}

fn told(
    snapshot: &Snapshot,
    authz: &[Arc<Authz>],
    route: OnRoute<'_>,
    facts: &Facts<'_>,
) -> (Vec<Value>, Option<Error>) {
    let all = mesh_policy::explain(authz, route, facts);
    let denied = all.iter().find(|one| !one.on_trial && !one.verdict.allowed);
    let denied = denied.map(|one| {
        let policy = one.verdict.policy.cloned();
        Error::with_source(Failure::Denied, Denied { policy })
    });
    (all.iter().map(|one| words(snapshot, one)).collect(), denied)
}

fn words(snapshot: &Snapshot, judged: &Judged<'_>) -> Value {
    let policy = judged.verdict.policy;
    let action = match judged.rules.map(|rules| rules.action) {
        _ if judged.asked.is_some() => "CUSTOM",
        Some(AuthzAction::Allow) => "ALLOW",
        Some(AuthzAction::Log) => "AUDIT",
        _ => "DENY",
    };
    let verdict = match judged.verdict.allowed {
        _ if judged.asked.is_some() => "asked",
        true => "allowed",
        false => "denied",
    };
    let policies = judged.rules.map_or(&[][..], |rules| &rules.policies);
    // Where nothing allows it, those that might have.
    let from = policy.or_else(|| policies.first());
    let from = from.map(|policy| policy.origin);
    let from = from.or_else(|| judged.asked.map(|asked| asked.origin));
    json!({
        "action": action,
        "dry_run": judged.on_trial && judged.asked.is_none(),
        "verdict": verdict,
        "asks": judged.asked.map(|asked| asked.cluster.as_str()),
        "policy": policy.map(|policy| policy.name.as_str()),
        "policies": policies.len(),
        "from": place(snapshot, from.unwrap_or(Origin::NONE)),
    })
}
