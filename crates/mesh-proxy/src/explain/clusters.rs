//! A cluster that a request may go to: its policy, and who of its hosts may get the request.

use super::bound::Bound;
use super::place::place;
use super::policies;
use mesh_core::Exchange;
use mesh_core::model::{Address, ClusterEntry, DiscoveryKind, Endpoint, Health, Snapshot};
use mesh_lb::{ClusterHosts, Standing, Standings};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;

/// One cluster. The exchange's route says which subset is asked for.
pub(super) fn cluster(
    snapshot: &Snapshot,
    entry: &Arc<ClusterEntry>,
    exchange: Option<&Exchange>,
    bound: Bound,
) -> Value {
    let config = entry.config();
    let hosts = ClusterHosts::of(entry);
    let standings = match exchange {
        Some(exchange) => hosts.standings_for(exchange),
        None => hosts.standings(None),
    };
    let others = outside_of_subset(snapshot, entry, &standings);
    let count = standings.hosts.len() + others.len();
    let listed = standings.hosts.iter().map(host);
    let listed = listed.chain(others.iter().map(|one| outsider(one)));
    let priorities = standings.priorities.iter().map(|one| {
        json!({
            "priority": one.priority,
            "healthy_percent": one.healthy,
            "degraded_percent": one.degraded,
            "panic": one.panic,
        })
    });
    let mut value = json!({
        "name": config.name.as_str(),
        "endpoints_from": discovery(config.discovery),
        "eligible": standings.eligible(),
        "endpoints_left_out": count.saturating_sub(bound.hosts),
        "endpoints": listed.take(bound.hosts).collect::<Vec<_>>(),
        "priorities": priorities.take(bound.others).collect::<Vec<_>>(),
        "from": place(snapshot, config.origin),
    });
    if bound.whole {
        value["policies"] = policies::of_cluster(snapshot, config).into();
    }
    value
}

/// Whether hosts of the cluster are known before a request comes.
pub(super) fn is_discovered(kind: DiscoveryKind) -> bool {
    !matches!(
        kind,
        DiscoveryKind::Authority | DiscoveryKind::OriginalDestination
    )
}

fn discovery(kind: DiscoveryKind) -> &'static str {
    match kind {
        DiscoveryKind::StrictDns | DiscoveryKind::LogicalDns => "DNS",
        DiscoveryKind::Authority => "the request's authority",
        DiscoveryKind::OriginalDestination => "the address that the connection was going to",
        _ => "discovery",
    }
}

/// The endpoints of a subset's service that are not in the subset: they are in the cluster of the
/// whole service only.
fn outside_of_subset(
    snapshot: &Snapshot,
    entry: &ClusterEntry,
    standings: &Standings,
) -> Vec<Arc<Endpoint>> {
    let service = &entry.config().service;
    if service.subset.is_empty() || service.host.is_empty() {
        return Vec::new();
    }
    let mut clusters = snapshot.clusters().iter();
    let whole = clusters.find(|other| {
        let other = &other.config().service;
        other.subset.is_empty() && other.host == service.host && other.port == service.port
    });
    let Some(whole) = whole else {
        return Vec::new();
    };
    let inside: HashSet<&Address> = standings
        .hosts
        .iter()
        .map(|host| &host.endpoint.address)
        .collect();
    let endpoints = whole.live().endpoints().load();
    let outside = endpoints
        .iter()
        .filter(|one| !inside.contains(&one.address));
    outside.cloned().collect()
}

fn host(standing: &Standing) -> Value {
    let view = &standing.view;
    let mut value = about(&standing.endpoint);
    value["eligible"] = standing.verdict.is_eligible().into();
    value["why"] = standing.verdict.to_string().into();
    value["priority"] = view.priority.into();
    value["ejected"] = view.ejected.into();
    if view.checked.failed || view.checked.degraded {
        let said = if view.checked.failed {
            "failed"
        } else {
            "degraded"
        };
        value["health_check"] = said.into();
    }
    value["active_requests"] = view.active.into();
    let place = &view.locality;
    if [&place.region, &place.zone, &place.sub_zone]
        .iter()
        .any(|part| !part.is_empty())
    {
        value["locality"] = place.to_string().into();
    }
    value
}

fn outsider(endpoint: &Endpoint) -> Value {
    let mut value = about(endpoint);
    value["eligible"] = false.into();
    value["why"] = "is not in the subset".into();
    value
}

fn about(endpoint: &Endpoint) -> Value {
    let labels: serde_json::Map<String, Value> = endpoint
        .labels
        .iter()
        .map(|(key, value)| (key.to_string(), value.as_str().into()))
        .collect();
    let workload = &endpoint.workload;
    json!({
        "address": endpoint.address.to_string(),
        "workload": workload.name.as_str(),
        "labels": labels,
        "weight": endpoint.weight,
        "health": match endpoint.health {
            Health::Healthy => "healthy",
            Health::Degraded => "degraded",
            Health::Draining => "draining",
            _ => "unhealthy",
        },
    })
}
