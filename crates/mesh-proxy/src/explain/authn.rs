//! Whose tokens a request brings, and what is wrong with them.

use super::place::place;
use http::Request;
use mesh_core::model::{Authn, Snapshot};
use mesh_core::{Exchange, Origin, WallClock};
use mesh_policy::OnRoute;
use mesh_policy::jwt::{Look, Now, Step, explain, step_on};
use serde_json::{Value, json};
use std::time::SystemTime;
use tokio::time::Instant;

/// What is found about the tokens of a request: a word for each look at one, and what becomes of the
/// request. None where its listener asks for no tokens. Keys that were not got yet are as good as
/// missing: nothing is asked of anybody here.
pub(super) fn of_request<B>(snapshot: &Snapshot, request: &Request<B>) -> Option<(Value, Step)> {
    let exchange = Exchange::of(request)?;
    let authn = exchange.caller().manager.as_ref()?.authn.as_ref()?;
    let first = exchange.first_foreseen();
    let route = OnRoute::of(first.as_ref(), first.as_ref());
    if route.goes_round(Authn::FILTER) {
        return None;
    }
    let asked = route.tokens();
    let since = WallClock::system().now();
    let now = Now {
        instant: Instant::now().into_std(),
        since_epoch: since
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default(),
    };
    let (status, looks) = explain(authn, asked, request, now);
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
    Some((words, step_on(asked, authn, request, None, now)))
}
