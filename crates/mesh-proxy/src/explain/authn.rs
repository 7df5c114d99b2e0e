//! Whose tokens a request brings, and what is wrong with them.

use super::place::place;
use http::Request;
use mesh_core::model::Snapshot;
use mesh_core::{Exchange, Origin, WallClock};
use mesh_policy::jwt::{Look, Now, Step, explain, step};
use serde_json::{Value, json};
use std::time::SystemTime;
use tokio::time::Instant;

/// What is found about the tokens of a request: a word for each look at one, and what becomes of the
/// request. None where its listener asks for no tokens. Keys that were not got yet are as good as
/// missing: nothing is asked of anybody here.
pub(super) fn of_request<B>(snapshot: &Snapshot, request: &Request<B>) -> Option<(Value, Step)> {
    let manager = Exchange::of(request)?.caller().manager.as_ref()?;
    let authn = manager.authn.as_ref()?;
    let since = WallClock::system().now();
    let now = Now {
        instant: Instant::now().into_std(),
        since_epoch: since
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default(),
    };
    let (status, looks) = explain(authn, request, now);
    let origin = |look: &Look| {
        let name = look.provider.as_ref()?;
        authn.providers.iter().find(|one| one.name == *name)
    };
    let tokens: Vec<_> = looks
        .iter()
        .map(|look| {
            let provider = origin(look);
            json!({
                "provider": look.provider.as_ref().map(|name| name.as_str()),
                "issuer": provider.map(|provider| provider.issuer.as_str()),
                "status": look.status.to_string(),
                "from": place(snapshot, provider.map_or(Origin::NONE, |one| one.origin)),
            })
        })
        .collect();
    let words = json!({
        "verdict": if status.is_valid() { "allowed" } else { "denied" },
        "status": status.to_string(),
        "tokens": tokens,
    });
    Some((words, step(authn, request, None, now)))
}
