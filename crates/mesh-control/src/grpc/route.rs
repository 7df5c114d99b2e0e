//! Route tables with one virtual host (gRFC A28).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::Name;
use mesh_core::model::{
    AbortWith, Action, Fault, FaultAbort, Forward, Fraction, HashSource, Retry, RetryOn,
    RouteTable, Rule, Target, VirtualHost, Weighted,
};
use mesh_istio::names::BLACK_HOLE;
use mesh_xds::pb::envoy::config::route::v3::RouteConfiguration;
use mesh_xds::write;

use super::condition;

/// The codes that gRPC retries on (gRFC A44).
const CODES: [RetryOn; 5] = [
    RetryOn::GRPC_CANCELLED,
    RetryOn::GRPC_DEADLINE_EXCEEDED,
    RetryOn::GRPC_INTERNAL,
    RetryOn::GRPC_RESOURCE_EXHAUSTED,
    RetryOn::GRPC_UNAVAILABLE,
];
/// gRPC wants some time between attempts.
const SHORTEST_BACKOFF: Duration = Duration::from_millis(1);

// gRPC's status codes.
const UNKNOWN: u32 = 2;
const PERMISSION_DENIED: u32 = 7;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;
const UNAVAILABLE: u32 = 14;
const UNAUTHENTICATED: u32 = 16;

/// A table as gRPC has it.
pub(super) struct Table {
    pub(super) name: String,
    pub(super) proto: RouteConfiguration,
    /// The clusters that it refers to.
    pub(super) clusters: BTreeSet<Name>,
}

// === impl Table ===

impl Table {
    /// The table of this name for a virtual host, which is for calls of one port.
    pub(super) fn new(name: String, port: u16, host: &VirtualHost) -> Self {
        // Calls have the target as their authority, port and all; an application may have set
        // another one.
        let mut seen = BTreeSet::new();
        let twins = bare(host, port).flat_map(|bare| [bare.to_owned(), format!("{bare}:{port}")]);
        let domains: Vec<String> = twins.filter(|one| seen.insert(one.clone())).collect();
        let mut written = VirtualHost::new(host.name.clone(), domains);
        for rule in &host.rules {
            written.rules.extend(rules(rule, host).map(Arc::new));
        }
        let each = written.rules.iter().filter_map(|rule| rule.forward());
        let clusters = each.flat_map(|to| to.clusters().map(|(name, _)| name.clone()));
        let clusters = clusters.collect();
        let mut proto = write::route::table(&RouteTable::new(name.as_str()).host(written));
        proto.max_direct_response_body_size_bytes = None;
        Self {
            name,
            proto,
            clusters,
        }
    }
}

/// The domains of a virtual host without their port.
pub(super) fn bare(host: &VirtualHost, port: u16) -> impl Iterator<Item = &str> {
    let suffix = format!(":{port}");
    let mut seen = BTreeSet::new();
    host.domains
        .iter()
        .map(move |domain| domain.strip_suffix(suffix.as_str()).unwrap_or(domain))
        .filter(move |domain| seen.insert(*domain))
}

/// What a rule is for gRPC: any number of rules.
fn rules(rule: &Rule, host: &VirtualHost) -> impl Iterator<Item = Rule> {
    let (forward, status) = match action(&rule.action) {
        Ok(forward) => (forward, None),
        Err(status) => (Forward::to(BLACK_HOLE), Some(status)),
    };
    let mut kept = Rule::new(Default::default(), Action::Forward(forward));
    kept.name = rule.name.clone();
    kept.fault = match status {
        None => rule.fault.clone(),
        Some(status) => Some(Arc::new(answer(rule.fault.as_deref(), status))),
    };
    let limits = [rule.timeout, rule.max_stream_duration];
    let limits = limits.into_iter().flatten();
    let limit = limits.filter(|limit| !limit.is_zero()).min();
    kept.max_stream_duration = Some(limit.unwrap_or_default());
    if status.is_none() {
        let asked = rule.retry.as_ref().or(host.retry.as_ref());
        kept.retry = asked.and_then(|asked| retry(asked)).map(Arc::new);
    }
    condition::split(&rule.condition)
        .into_iter()
        .map(move |condition| {
            let mut one = kept.clone();
            one.condition = condition;
            one
        })
}

/// Where calls go, or the gRPC status that they end with.
fn action(action: &Action) -> Result<Forward, u32> {
    let (to, hash) = match action {
        Action::Forward(forward) => (&forward.to, &forward.hash),
        Action::Respond(answer) => return Err(status_of(answer.status.as_u16())),
        // A redirect, as any answer that is not of gRPC.
        _ => return Err(UNKNOWN),
    };
    let mut forward = match to {
        Target::Cluster(name, _) if !name.is_empty() => Forward::to(name.clone()),
        Target::Weighted(parts) if weighs(parts) => {
            let parts = parts.iter().filter(|part| part.weight > 0);
            Forward::split(parts.map(|part| (part.cluster.clone(), part.weight)))
        }
        _ => return Err(UNAVAILABLE),
    };
    // A client knows nothing else of its calls (gRFC A42).
    let headers = hash.iter();
    let headers = headers.filter(|one| matches!(one.source, HashSource::Header(..)));
    forward.hash = headers.cloned().collect();
    Ok(forward)
}

/// What a gRPC client makes of an HTTP status (gRPC's `http-grpc-status-mapping`).
fn status_of(status: u16) -> u32 {
    match status {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502 | 503 | 504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// The fault that ends every call with a status, after the delay that the rule asks for.
fn answer(asked: Option<&Fault>, status: u32) -> Fault {
    let mut fault = asked.cloned().unwrap_or_default();
    let certain = |abort: &FaultAbort| abort.share == Fraction::ALL;
    if !fault.abort.as_ref().is_some_and(certain) {
        fault.abort = Some(FaultAbort {
            with: AbortWith::Grpc(status),
            share: Fraction::ALL,
        });
    }
    fault
}

/// Whether gRPC takes these weights: it refuses the table if the sum is nothing or more than
/// fits.
fn weighs(parts: &[Weighted]) -> bool {
    let sum: u64 = parts.iter().map(|part| u64::from(part.weight)).sum();
    let named = parts
        .iter()
        .all(|part| part.weight == 0 || !part.cluster.is_empty());
    named && (1..=u64::from(u32::MAX)).contains(&sum)
}

fn retry(asked: &Retry) -> Option<Retry> {
    let mut kept = Retry::default();
    for code in CODES.into_iter().filter(|code| asked.on.has(*code)) {
        kept.on = kept.on.with(code);
    }
    kept.attempts = asked.attempts;
    kept.backoff_base = asked.backoff_base.max(SHORTEST_BACKOFF);
    kept.backoff_max = asked.backoff_max.max(kept.backoff_base);
    (!kept.on.is_empty() && kept.attempts > 0).then_some(kept)
}
