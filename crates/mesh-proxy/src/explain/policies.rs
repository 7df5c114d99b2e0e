//! The policies in force, in words, each with what set it or that it is the default.

use super::place::{knows_places, place, time};
use mesh_core::model::{
    AbortWith, AddMode, AuthorityRewrite, Balancing, Cluster, Cors, DelayBy, Draw, Fault,
    HashSource, HeaderEdits, HttpManager, Limits, LocalityBalancing, Mirror, Outlier, PathRewrite,
    Priority, RateLimit, Retry, Snapshot, UpstreamProtocol,
};
use mesh_core::{Matched, Origin};
use serde_json::{Value, json};
use std::time::Duration;

/// The names that policies have in explanations.
pub const POLICIES: &[&str] = &[
    // Of a route.
    "timeout",
    "retries",
    "idle timeout",
    "longest stream",
    "fault",
    "mirror",
    "rate limit",
    "CORS",
    "rewrite",
    "split by",
    "upgrades",
    "hash by",
    "priority",
    "request headers",
    "response headers",
    "stream idle timeout",
    "request must arrive in",
    // Of a cluster.
    "balancing",
    "limits",
    "outlier detection",
    "connect timeout",
    "TLS",
    "protocol",
    "localities",
    "slow start",
    "connections",
];

/// Puts policies together.
struct List<'a> {
    snapshot: &'a Snapshot,
    all: Vec<Value>,
}

/// Istio's limit for connecting.
const CONNECT: Duration = Duration::from_secs(10);

// === impl List ===

impl List<'_> {
    /// A policy with what set it. Where nothing did it is the default, if `usual` says that it can
    /// be one.
    fn add(&mut self, name: &str, value: impl Into<String>, origin: Origin, usual: bool) {
        debug_assert!(POLICIES.contains(&name), "{name} is not listed");
        let from = place(self.snapshot, origin);
        let default = usual && from.is_null() && knows_places(self.snapshot);
        self.all.push(json!({
            "policy": name,
            "value": value.into(),
            "from": from,
            "default": default,
        }));
    }
}

/// Those of a route and of the listener that it was reached by.
pub(super) fn of_route(matched: &Matched, manager: Option<&HttpManager>) -> Vec<Value> {
    let (rule, host) = (matched.rule(), matched.host());
    let mut list = List {
        snapshot: matched.snapshot(),
        all: Vec::new(),
    };
    if matched.forward().is_some() {
        let timeout = rule.timeout.map_or_else(|| "none".to_owned(), time);
        list.add("timeout", timeout, rule.timeout_origin, true);
        let retry = rule.retry.as_ref().or(host.retry.as_ref());
        match retry {
            Some(retry) => list.add("retries", retries(retry), retry.origin, true),
            None => list.add("retries", "none", Origin::NONE, false),
        }
    }
    if let Some(limit) = rule.idle_timeout {
        list.add("idle timeout", time(limit), rule.origin, false);
    }
    if let Some(limit) = rule.max_stream_duration {
        list.add("longest stream", time(limit), rule.origin, false);
    }
    if let Some(fault) = &rule.fault {
        list.add("fault", faults(fault), fault.origin, false);
    }
    for mirror in &rule.mirrors {
        list.add("mirror", copies(mirror), mirror.origin, false);
    }
    let listener = manager.and_then(|manager| manager.rate_limit.as_ref());
    for limit in rule.rate_limit.iter().chain(listener) {
        list.add("rate limit", rate(limit), limit.origin, false);
    }
    // Field by field a rule's own policy goes before the virtual host's.
    let levels = || [&rule.cors, &host.cors].into_iter().flatten();
    let named = levels().find(|cors| !cors.allow_origins.is_empty());
    if let Some(cors) = named.or_else(|| levels().next()) {
        list.add("CORS", origins(cors), cors.origin, false);
    }
    if let Some(forward) = matched.forward() {
        match &forward.draw {
            Draw::Header(name) => list.add("split by", name.as_str(), rule.origin, false),
            Draw::Hash => list.add("split by", "the hash", rule.origin, false),
            Draw::Random => {}
        }
        if !forward.upgrades.is_empty() {
            let each = forward.upgrades.iter();
            let each =
                each.map(|(name, passes)| format!("{name} {}", if *passes { "on" } else { "off" }));
            let all: Vec<String> = each.collect();
            list.add("upgrades", all.join(", "), rule.origin, false);
        }
        let origin = forward.rewrite_origin;
        match &forward.path {
            PathRewrite::Prefix(new) => {
                list.add("rewrite", format!("what matched to {new:?}"), origin, false);
            }
            PathRewrite::Regex(pattern, with) => {
                let text = format!("{:?} to {with:?}", pattern.source());
                list.add("rewrite", text, origin, false);
            }
            PathRewrite::Template(with) => {
                list.add("rewrite", format!("to {:?}", with.as_str()), origin, false);
            }
            _ => {}
        }
        let authority = match forward.authority.as_deref() {
            Some(AuthorityRewrite::Literal(name)) => Some(format!("authority to {name}")),
            Some(AuthorityRewrite::FromEndpoint) => {
                Some("authority to the endpoint's host name".to_owned())
            }
            Some(AuthorityRewrite::FromHeader(name)) => {
                Some(format!("authority to the header {name}"))
            }
            Some(AuthorityRewrite::FromPath(pattern, with)) => {
                let pattern = pattern.source();
                Some(format!(
                    "authority to the path, {pattern:?} in it to {with:?}"
                ))
            }
            _ => None,
        };
        if let Some(authority) = authority {
            list.add("rewrite", authority, origin, false);
        }
        let sources: Vec<String> = forward.hash.iter().map(|one| source(&one.source)).collect();
        if !sources.is_empty() {
            list.add("hash by", sources.join(", "), Origin::NONE, false);
        }
        if forward.priority == Priority::High {
            list.add("priority", "HIGH", Origin::NONE, false);
        }
    }
    edits(&mut list, matched);
    if let Some(manager) = manager {
        if let Some(limit) = manager.stream_idle_timeout {
            list.add("stream idle timeout", time(limit), Origin::NONE, false);
        }
        if let Some(limit) = manager.request_timeout {
            list.add("request must arrive in", time(limit), Origin::NONE, false);
        }
    }
    list.all
}

/// Header edits, the closest first.
fn edits(list: &mut List<'_>, matched: &Matched) {
    let (rule, host, table) = (matched.rule(), matched.host(), matched.table());
    let part = matched.weighted();
    let none = HeaderEdits::default();
    let levels = [
        (
            part.map_or(&none, |part| &part.request_edits),
            part.map_or(&none, |part| &part.response_edits),
            part.map_or(Origin::NONE, |part| part.origin),
        ),
        (&rule.request_edits, &rule.response_edits, rule.origin),
        (&host.request_edits, &host.response_edits, host.origin),
        (&table.request_edits, &table.response_edits, Origin::NONE),
    ];
    for (request, response, origin) in levels {
        for (name, edits) in [("request headers", request), ("response headers", response)] {
            if !edits.is_empty() {
                list.add(name, edit(edits), origin, false);
            }
        }
    }
}

/// Those of a cluster.
pub(super) fn of_cluster(snapshot: &Snapshot, cluster: &Cluster) -> Vec<Value> {
    let mut list = List {
        snapshot,
        all: Vec::new(),
    };
    // One block may set many things: who leaves one out has the default of it.
    let from = |usual: bool| match usual {
        true => Origin::NONE,
        false => cluster.policy_origin,
    };
    let usual = cluster.balancing == Balancing::LEAST_REQUEST;
    list.add(
        "balancing",
        balancing(cluster.balancing),
        from(usual),
        usual,
    );
    let usual = cluster.limits == Limits::unlimited();
    list.add("limits", limits(&cluster.limits), from(usual), usual);
    if cluster.high != Limits::envoy() {
        let text = format!("of HIGH priority: {}", limits(&cluster.high));
        list.add("limits", text, from(false), false);
    }
    match &cluster.outlier {
        Some(outlier) => {
            let closes = match cluster.close_unhealthy {
                true => "; connections for bytes are closed then",
                false => "",
            };
            let text = ejection(outlier) + closes;
            list.add("outlier detection", text, outlier.origin, false);
        }
        None => list.add("outlier detection", "none", Origin::NONE, true),
    }
    let usual = cluster.connect_timeout == CONNECT;
    let connect = time(cluster.connect_timeout);
    list.add("connect timeout", connect, from(usual), usual);
    match &cluster.tls {
        Some(tls) => {
            let text = match &tls.sni {
                name if name.is_empty() => "yes".to_owned(),
                name => format!("yes, for {name}"),
            };
            list.add("TLS", text, tls.origin, false);
        }
        None => list.add("TLS", "none", Origin::NONE, true),
    }
    let protocol = match cluster.protocol {
        UpstreamProtocol::Http1 => "HTTP/1.1",
        UpstreamProtocol::Http2 => "HTTP/2",
        UpstreamProtocol::AsDownstream => "the caller's",
        UpstreamProtocol::Alpn => "HTTP/2 where TLS agrees on it",
        _ => "unknown",
    };
    list.add("protocol", protocol, Origin::NONE, false);
    match cluster.localities {
        LocalityBalancing::Weighted => {
            list.add("localities", "by weight", cluster.policy_origin, false);
        }
        LocalityBalancing::ZoneAware(zones) => {
            let text = match zones.enabled {
                0 => "none first, whatever the node knows of its own zone",
                _ => "the own zone first, as far as it can take it",
            };
            list.add("localities", text, cluster.policy_origin, false);
        }
        _ => {}
    }
    if let Some(slow) = &cluster.slow_start {
        let text = format!("over {}", time(slow.window));
        list.add("slow start", text, cluster.policy_origin, false);
    }
    if cluster.max_requests_per_connection > 0 {
        let text = format!("{} requests each", cluster.max_requests_per_connection);
        list.add("connections", text, cluster.policy_origin, false);
    }
    list.all
}

fn retries(retry: &Retry) -> String {
    let on: Vec<&str> = retry.on.names().collect();
    let mut text = format!("{} on {}", retry.attempts, on.join(", "));
    if !retry.status_codes.is_empty() {
        let codes: Vec<String> = retry.status_codes.iter().map(u16::to_string).collect();
        text += &format!(" ({})", codes.join(", "));
    }
    if let Some(limit) = retry.per_try_timeout {
        text += &format!("; each try {}", time(limit));
    }
    text + &format!(
        "; back-off {} to {}",
        time(retry.backoff_base),
        time(retry.backoff_max)
    )
}

fn faults(fault: &Fault) -> String {
    let delay = fault.delay.as_ref().map(|delay| match delay.by {
        DelayBy::Fixed(length) => format!("delay of {} for {}", time(length), delay.share),
        _ => format!("delay as the request says for {} at most", delay.share),
    });
    let abort = fault.abort.as_ref().map(|abort| match abort.with {
        AbortWith::Http(status) => format!("abort with {} for {}", status.as_u16(), abort.share),
        AbortWith::Grpc(status) => format!("abort with gRPC {status} for {}", abort.share),
        AbortWith::Header(_) => format!("abort as the request says for {} at most", abort.share),
    });
    let mut all: Vec<String> = delay.into_iter().chain(abort).collect();
    if !fault.upstream.is_empty() {
        all.push(format!("only to {}", fault.upstream));
    }
    if !(fault.headers.is_empty() && fault.nodes.is_empty()) {
        all.push("only for some requests".to_owned());
    }
    all.join(", ")
}

fn copies(mirror: &Mirror) -> String {
    match &mirror.cluster_header {
        Some(header) => format!("{} to the cluster in {header}", mirror.share),
        None => format!("{} to {}", mirror.share, mirror.cluster),
    }
}

fn rate(limit: &RateLimit) -> String {
    format!(
        "{} at once, {} more every {}, else {}",
        limit.max_tokens,
        limit.tokens_per_fill,
        time(limit.fill_interval),
        limit.status.as_u16(),
    )
}

fn origins(cors: &Cors) -> String {
    let allowed: Vec<String> = cors.allow_origins.iter().map(ToString::to_string).collect();
    format!("origins {}", allowed.join(", "))
}

fn source(source: &HashSource) -> String {
    match source {
        HashSource::Header(name, _) => format!("header {name}"),
        HashSource::Cookie(cookie) => format!("cookie {}", cookie.name),
        HashSource::SourceIp => "the caller's address".to_owned(),
        HashSource::Query(name) => format!("query {name}"),
        HashSource::FilterState(key) => format!("filter state {key}"),
        _ => "something that this version does not know".to_owned(),
    }
}

fn edit(edits: &HeaderEdits) -> String {
    let removed = edits.remove.iter().map(|name| format!("remove {name}"));
    let added = edits.add.iter().map(|edit| {
        let how = match edit.mode {
            AddMode::Append => "add",
            AddMode::Overwrite => "set",
            AddMode::IfAbsent => "add if absent",
            AddMode::OverwriteIfPresent => "set if present",
        };
        format!("{how} {}", edit.name)
    });
    let all: Vec<String> = removed.chain(added).collect();
    all.join(", ")
}

fn balancing(balancing: Balancing) -> String {
    match balancing {
        Balancing::RoundRobin => "round robin".to_owned(),
        Balancing::LeastRequest { choices, .. } => format!("least request of {choices}"),
        Balancing::Random => "random".to_owned(),
        Balancing::RingHash(_) => "ring hash".to_owned(),
        Balancing::Maglev(_) => "Maglev".to_owned(),
        _ => "unknown".to_owned(),
    }
}

fn limits(limits: &Limits) -> String {
    let parts = [
        ("connections", limits.max_connections),
        (
            "connections of an endpoint",
            limits.max_connections_per_host,
        ),
        ("pending requests", limits.max_pending),
        ("requests", limits.max_requests),
        ("pools", limits.max_pools),
        // A budget is in its place.
        (
            "retries",
            limits.budget.map_or(limits.max_retries, |_| u32::MAX),
        ),
    ];
    let budget = limits.budget.map(|budget| {
        let of = match budget.interval.is_zero() {
            true => "requests under way".to_owned(),
            false => format!("requests of the last {}", time(budget.interval)),
        };
        let (share, least) = (budget.share, budget.min_concurrency);
        format!("retries up to {share} of {of} and {least} in any case")
    });
    let set: Vec<String> = parts
        .iter()
        .filter(|(_, most)| *most != u32::MAX)
        .map(|(what, most)| format!("{most} {what}"))
        .chain(budget)
        .collect();
    match set.is_empty() {
        true => "none".to_owned(),
        false => set.join(", "),
    }
}

fn ejection(outlier: &Outlier) -> String {
    let errors = match outlier.error_codes.as_slice() {
        [] => "5xx".to_owned(),
        codes => {
            let codes: Vec<String> = codes.iter().map(u16::to_string).collect();
            format!("errors ({})", codes.join(", "))
        }
    };
    let local = match outlier.split_local_origin {
        true => outlier.consecutive_local_failure,
        false => 0,
    };
    let counts = [
        (&*errors, outlier.consecutive_5xx),
        ("gateway failures", outlier.consecutive_gateway_failure),
        ("local failures", local),
    ];
    let counts = counts.iter().filter(|(_, count)| *count > 0);
    let counts = counts.map(|(what, count)| format!("after {count} {what} in a row"));
    let rate = outlier.success_rate.map(|rate| {
        let deviations = f64::from(rate.stdev_factor) / 1000.0;
        format!("at a success rate {deviations} deviations below the mean")
    });
    let failures = outlier.failure_percentage;
    let failures = failures.map(|failures| format!("at {}% failures", failures.threshold));
    let set: Vec<String> = counts.chain(rate).chain(failures).collect();
    if set.is_empty() {
        return "none".to_owned();
    }
    format!(
        "{}, for {} and longer, at most {}% of hosts",
        set.join(" or "),
        time(outlier.base_ejection_time),
        outlier.max_ejection_percent,
    )
}

#[cfg(test)]
mod tests;
