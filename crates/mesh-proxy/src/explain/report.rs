//! The whole answer: listener, virtual host, rules, destinations, policies, hosts.

use super::bound::Bound;
use super::clusters::{cluster, is_discovered};
use super::dry::{self, Answered, Asked, Ran, Told};
use super::listener::{self, Choice, Chosen};
use super::place::place;
use super::{BadQuestion, Question, authz, policies};
use http::header::LOCATION;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, request};
use mesh_core::exchange::TlsInfo;
use mesh_core::model::{
    Direction, Filter, HttpManager, Snapshot, Target, TcpProxy, TcpTarget, TlsVersion, Weighted,
};
use mesh_core::{Caller, Exchange, Matched, Name};
use mesh_route::Head;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The answer to a question.
///
/// # Errors
/// If it names a listener that does not exist.
pub(super) fn of_question(
    snapshot: &Arc<Snapshot>,
    question: &Question,
    bound: Bound,
) -> Result<Value, BadQuestion> {
    let Choice { chosen, others } = listener::choose(snapshot, question)?;
    let mut report = Map::new();
    report.insert("configuration".into(), snapshot.version().into());
    report.insert("request".into(), line(&question.request(), bound));
    let others = others.iter().take(bound.others).map(|(listener, why)| {
        json!({
            "name": listener.name.as_str(),
            "address": listener.address.to_string(),
            "why_not": why,
        })
    });
    let others: Vec<Value> = others.collect();
    report.insert(
        "listener".into(),
        chosen.as_ref().map(|it| at(snapshot, it)).into(),
    );
    report.insert("other_listeners".into(), others.into());
    match chosen.as_ref().map(|chosen| &chosen.chain.filter) {
        Some(Filter::Tcp(proxy)) => {
            report.insert("tcp".into(), tcp(snapshot, proxy, bound));
            let rules = chosen
                .as_ref()
                .map_or(&[][..], |chosen| &chosen.chain.authz);
            if !rules.is_empty() {
                let judged = authz::of_connection(snapshot, rules, &Caller::default());
                report.insert("authorization".into(), judged.into());
            }
        }
        Some(Filter::Http(manager)) => {
            let mut caller = Caller::default();
            caller.manager = Some(manager.clone());
            if question.is_secure() {
                let mut tls = TlsInfo::default();
                tls.version = Some(TlsVersion::V1_3);
                tls.server_name = question.host().into();
                caller.tls = Some(Arc::new(tls));
            }
            let now = tokio::time::Instant::now().into_std();
            let asked = Asked {
                request: question.request(),
                exchange: Exchange::new(now, caller),
                admitted: false,
            };
            routed(
                snapshot,
                &dry::run(snapshot, asked),
                manager,
                bound,
                &mut report,
            );
        }
        _ => {}
    }
    Ok(Value::Object(report))
}

/// The answer for a request that a proxy serves: its head as admission left it, what became of it
/// here, and its exchange.
pub(super) fn of_served(
    snapshot: &Arc<Snapshot>,
    request: &Request<()>,
    ran: &Ran,
    served: &Exchange,
    bound: Bound,
) -> Value {
    let mut report = Map::new();
    report.insert("configuration".into(), snapshot.version().into());
    report.insert("request".into(), line(request, bound));
    let caller = served.caller();
    let Some(manager) = caller.manager.clone() else {
        return Value::Object(report);
    };
    let listener = snapshot
        .listeners()
        .iter()
        .find(|listener| listener.managers().any(|one| Arc::ptr_eq(one, &manager)));
    let listener = listener.map(|listener| {
        json!({
            "name": listener.name.as_str(),
            "address": listener.address.to_string(),
            "direction": direction(manager.direction),
            "routes": manager.routes.as_str(),
            "chain": caller.chain.as_str(),
            "from": place(snapshot, listener.origin),
        })
    });
    report.insert("listener".into(), listener.into());
    routed(snapshot, ran, &manager, bound, &mut report);
    let upstream = served.with_notes(|notes| {
        let upstream = notes.upstream.as_ref()?;
        Some(upstream.endpoint.address.to_string())
    });
    // As in access logs.
    let attempts = match served.answer_is_counted() || upstream.is_some() {
        true => served.attempts(),
        false => 0,
    };
    let served = json!({"endpoint": upstream, "attempts": attempts});
    report.insert("served".into(), served);
    Value::Object(report)
}

/// Everything from admission on.
fn routed(
    snapshot: &Arc<Snapshot>,
    ran: &Ran,
    manager: &HttpManager,
    bound: Bound,
    report: &mut Map<String, Value>,
) {
    let host = ran
        .told
        .as_ref()
        .map(|told| virtual_host(snapshot, told, manager));
    report.insert("virtual_host".into(), host.into());
    if let Some(told) = &ran.told {
        rules(snapshot, told, manager, bound, report);
    }
    if let Some(tokens) = ran.told.as_ref().and_then(|told| told.tokens.as_ref()) {
        report.insert("authentication".into(), tokens.clone());
    }
    let judged = ran.told.as_ref().map(|told| &told.judged);
    if let Some(judged) = judged.filter(|judged| !judged.is_empty()) {
        report.insert("authorization".into(), judged.clone().into());
    }
    let matched = ran.exchange.matched();
    report.insert("route".into(), matched.map(route).into());
    let targets = matched.map(|matched| destinations(matched, ran, bound));
    let (targets, left_out) = targets.unwrap_or_default();
    report.insert("destinations_left_out".into(), left_out.into());
    report.insert("destinations".into(), targets.into());
    report.insert("answer".into(), ran.answer.as_ref().map(answered).into());
    let goes_out = ran.sent.as_ref().zip(ran.told.as_ref());
    let goes_out = goes_out.map(|(sent, told)| outgoing(sent, told, ran.exchange.hash()));
    report.insert("sent".into(), goes_out.into());
    let Some(matched) = matched else {
        return;
    };
    if bound.whole {
        let policies = policies::of_route(matched, Some(manager));
        report.insert("policies".into(), policies.into());
    }
    let clusters = clusters(snapshot, matched, &ran.exchange, bound);
    report.insert("clusters".into(), clusters.into());
}

fn line(request: &Request<()>, bound: Bound) -> Value {
    let head = Head::of(request);
    let headers = request.headers().iter();
    let headers = headers.filter(|(name, _)| *name != http::header::HOST);
    let mut value = json!({
        "method": request.method().as_str(),
        "authority": head.authority(),
        "path": head.path_and_query(),
    });
    match bound.whole {
        true => value["headers"] = headers.map(pair).collect(),
        false => value["headers_left_out"] = headers.count().into(),
    }
    value
}

fn at(snapshot: &Snapshot, chosen: &Chosen<'_>) -> Value {
    let listener = chosen.listener;
    let mut value = json!({
        "name": listener.name.as_str(),
        "address": listener.address.to_string(),
        "chain": chosen.chain.name.as_str(),
        "why": chosen.why,
        "from": place(snapshot, listener.origin),
    });
    if let Filter::Http(manager) = &chosen.chain.filter {
        value["direction"] = direction(manager.direction).into();
        value["routes"] = manager.routes.as_str().into();
    }
    value
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Outbound => "outbound",
        Direction::Inbound => "inbound",
        Direction::Gateway => "gateway",
    }
}

fn tcp(snapshot: &Arc<Snapshot>, proxy: &TcpProxy, bound: Bound) -> Value {
    let parts: Vec<(&Name, u32)> = match &proxy.target {
        TcpTarget::Clusters(parts) => parts.iter().map(|one| (&one.cluster, one.weight)).collect(),
        TcpTarget::ServerName(name) => vec![(name, 1)],
        _ => Vec::new(),
    };
    let listed = parts.iter().take(bound.others);
    let destinations: Vec<Value> = listed
        .clone()
        .map(|(cluster, weight)| json!({"cluster": cluster.as_str(), "weight": weight}))
        .collect();
    let clusters: Vec<Value> = listed
        .filter_map(|(name, _)| snapshot.cluster(name))
        .map(|entry| cluster(snapshot, entry, None, bound))
        .collect();
    json!({"destinations": destinations, "clusters": clusters})
}

fn virtual_host(snapshot: &Snapshot, told: &Told, manager: &HttpManager) -> Value {
    let Some((name, at)) = &told.explanation.host else {
        return Value::Null;
    };
    let table = snapshot.table(&manager.routes);
    let host = table.and_then(|table| table.virtual_hosts.get(*at));
    json!({
        "name": name.as_str(),
        "domain": told.explanation.domain.as_deref(),
        "table": manager.routes.as_str(),
        "requires_tls": host.is_some_and(|host| host.require_tls),
        "from": host.map(|host| place(snapshot, host.origin)),
    })
}

/// The rules that were considered. Where there are too many, the last ones that did not match are
/// left out, never the one that did.
fn rules(
    snapshot: &Snapshot,
    told: &Told,
    manager: &HttpManager,
    bound: Bound,
    report: &mut Map<String, Value>,
) {
    let table = snapshot.table(&manager.routes);
    let at = told.explanation.host.as_ref().map(|(_, at)| *at);
    let host = table.zip(at).map(|(table, at)| &table.virtual_hosts[at]);
    let all = &told.explanation.rules;
    let listed = all
        .iter()
        .enumerate()
        .filter(|(place, considered)| *place < bound.rules || considered.failed.is_none());
    let listed: Vec<Value> = listed
        .map(|(_, considered)| {
            let rule = host.and_then(|host| host.rules.get(considered.rule));
            let condition = rule.map(|rule| match rule.condition.origin.is_none() {
                true => rule.origin,
                false => rule.condition.origin,
            });
            json!({
                "index": considered.rule,
                "name": considered.name.as_str(),
                "matches": considered.failed.is_none(),
                "wants": considered.wants,
                "unmet": considered.failed.as_ref().map(|unmet| json!({
                    "wanted": unmet.wanted,
                    "had": unmet.had,
                })),
                "from": condition.map(|origin| place(snapshot, origin)),
            })
        })
        .collect();
    report.insert("rules_left_out".into(), (all.len() - listed.len()).into());
    report.insert("rules".into(), listed.into());
}

fn route(matched: &Matched) -> Value {
    let rule = matched.rule();
    json!({
        "index": matched.rule_index(),
        "name": rule.name.as_str(),
        "from": place(matched.snapshot(), rule.origin),
    })
}

/// Where it goes, with weights. The one that is taken here is the heaviest; in a proxy that serves
/// the request it is the one that was drawn. Where there are too many, that one is not among those
/// that are left out, which are counted.
fn destinations(matched: &Matched, ran: &Ran, bound: Bound) -> (Vec<Value>, usize) {
    let Some(forward) = matched.forward() else {
        return (Vec::new(), 0);
    };
    let snapshot = matched.snapshot();
    let one = |cluster: &Name, weight: Option<(u32, u64)>, taken: bool, from: Value| {
        let entry = snapshot.cluster(cluster);
        let service = entry.map(|entry| &entry.config().service);
        let percent = weight.map(|(weight, total)| match total {
            0 => 0.0,
            total => (f64::from(weight) * 10_000.0 / total as f64).round() / 100.0,
        });
        json!({
            "cluster": cluster.as_str(),
            "host": service.map(|service| service.host.as_str()).filter(|host| !host.is_empty()),
            "port": service.map(|service| service.port).filter(|port| *port > 0),
            "subset": service.map(|service| service.subset.as_str()).filter(|it| !it.is_empty()),
            "weight": weight.map(|(weight, _)| weight),
            "percent": percent,
            "taken": taken,
            "exists": entry.is_some(),
            "from": from,
        })
    };
    let seen = ran.told.as_ref().map(|told| told.seen.headers());
    let value = |header: &HeaderName| seen.and_then(|headers| headers.get(header)?.to_str().ok());
    let listed: Vec<Value> = match &forward.to {
        Target::Cluster(cluster, origin) => {
            vec![one(cluster, None, true, place(snapshot, *origin))]
        }
        Target::Weighted(parts) => {
            let total: u64 = parts.iter().map(|part| u64::from(part.weight)).sum();
            let taken = matched.weighted();
            let is_taken = |part: &Weighted| taken.is_some_and(|taken| std::ptr::eq(taken, part));
            let each = parts.iter().enumerate();
            each.filter(|(at, part)| *at < bound.others || is_taken(part))
                .map(|(_, part)| {
                    let from = place(snapshot, part.origin);
                    let weight = Some((part.weight, total));
                    let named = part
                        .cluster_header
                        .as_ref()
                        .map(|it| value(it).unwrap_or_default());
                    let name = named.map(Name::from);
                    one(
                        name.as_ref().unwrap_or(&part.cluster),
                        weight,
                        is_taken(part),
                        from,
                    )
                })
                .collect()
        }
        Target::Header(header) => value(header)
            .map(|name| one(&name.into(), None, true, Value::Null))
            .into_iter()
            .collect(),
        _ => Vec::new(),
    };
    let all = match &forward.to {
        Target::Weighted(parts) => parts.len(),
        _ => listed.len(),
    };
    let left_out = all - listed.len();
    (listed, left_out)
}

fn answered(answer: &Answered) -> Value {
    let row = answer.failure.map(mesh_core::Failure::row);
    let location = answer.headers.get(LOCATION);
    json!({
        "status": answer.status.as_u16(),
        "why": answer.failure.map(|failure| failure.to_string()),
        "flags": row.map(|row| row.flags.to_string()),
        "location": location.map(|value| String::from_utf8_lossy(value.as_bytes())),
        "headers": pairs(&answer.headers),
    })
}

fn pairs(headers: &HeaderMap) -> Vec<Value> {
    headers.iter().map(pair).collect()
}

fn pair((name, value): (&HeaderName, &HeaderValue)) -> Value {
    json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])
}

/// The head as it goes out, and what of it differs from what routing saw.
fn outgoing(sent: &request::Parts, told: &Told, hash: Option<u64>) -> Value {
    let authority = |uri: &Uri, headers: &HeaderMap| {
        let mut request = Request::new(());
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers.clone();
        Head::of(&request).authority().map(str::to_owned)
    };
    let seen = told.seen.headers();
    let is_host = |name: &HeaderName| *name == http::header::HOST;
    let mut set = HeaderMap::new();
    for name in sent.headers.keys().filter(|name| !is_host(name)) {
        let same = sent
            .headers
            .get_all(name)
            .iter()
            .eq(seen.get_all(name).iter());
        if !same {
            for value in sent.headers.get_all(name) {
                set.append(name, value.clone());
            }
        }
    }
    let gone = seen
        .keys()
        .filter(|name| !is_host(name) && !sent.headers.contains_key(*name));
    let gone: Vec<&str> = gone.map(HeaderName::as_str).collect();
    json!({
        "method": sent.method.as_str(),
        "authority": authority(&sent.uri, &sent.headers),
        "path": sent.uri.path_and_query().map(|path| path.as_str()),
        "headers_set": pairs(&set),
        "headers_removed": gone,
        "hash": hash.map(|hash| format!("{hash:016x}")),
    })
}

/// The clusters of the destinations, the one that is taken first.
fn clusters(
    snapshot: &Arc<Snapshot>,
    matched: &Matched,
    exchange: &Exchange,
    bound: Bound,
) -> Vec<Value> {
    let mut all = Vec::new();
    let taken = matched.cluster();
    if let Some(entry) = taken.filter(|entry| is_discovered(entry.config().discovery)) {
        all.push(cluster(snapshot, entry, Some(exchange), bound));
    }
    let Some(Target::Weighted(parts)) = matched.forward().map(|forward| &forward.to) else {
        return all;
    };
    for (at, part) in parts.iter().enumerate().take(bound.others) {
        let Some(index) = snapshot.cluster_index(&part.cluster) else {
            continue;
        };
        let is_taken = matched
            .weighted()
            .is_some_and(|taken| std::ptr::eq(taken, part));
        if is_taken || part.weight == 0 || !bound.whole {
            continue;
        }
        let entry = &snapshot.clusters()[index];
        let own = exchange.for_shadow(matched.clone().to(Some(at), Some(index)));
        all.push(cluster(snapshot, entry, Some(&own), bound));
    }
    all
}
