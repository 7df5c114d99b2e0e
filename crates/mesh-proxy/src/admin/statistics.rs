//! `/stats`: everything that is counted.

use super::{respond, state, text};
use crate::runtime::Shared;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use mesh_core::stats::Kind;
use mesh_discovery::dns::server::{BUCKETS, Counts};
use mesh_telemetry::expose::{Output, Query, Scrape, Select};
use mesh_xds::TypeUrl;

/// Names of what is counted for each type of resources. Envoy has the latter two for each route
/// table and cluster; here they are for all together.
const SUBSCRIPTIONS: &[(TypeUrl, &str)] = &[
    (TypeUrl::Cluster, "cluster_manager.cds"),
    (TypeUrl::Listener, "listener_manager.lds"),
    (TypeUrl::Routes, "xds.rds"),
    (TypeUrl::Endpoints, "xds.eds"),
];

pub(super) async fn answer(shared: &Shared, query: &str, usual: Output) -> Response<Full<Bytes>> {
    let mut query = match Query::parse(query) {
        Ok(query) => query,
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    if query.output == Output::Text {
        query.output = usual;
    }
    let kind = match query.output {
        Output::Json => "application/json",
        Output::Prometheus => "text/plain; version=0.0.4",
        _ => "text/plain; charset=UTF-8",
    };
    let mut body = String::new();
    if query.output == Output::Text {
        body += &texts(shared, &query);
    }
    body += &scrape(shared, &query).await.write(&query);
    if let (Output::Prometheus, Some(names)) = (query.output, &shared.names) {
        body += &agent(&names.counts(), &query);
    }
    respond(StatusCode::OK, kind, body.into())
}

/// What is text, which comes before the numbers: why there is no control plane (nothing that Envoy
/// has), and versions.
fn texts(shared: &Shared, query: &Query) -> String {
    let Some(control) = &shared.control else {
        return String::new();
    };
    if !matches!(query.select, Select::All | Select::TextReadouts) {
        return String::new();
    }
    let kinds = control.kinds();
    let mut lines = String::new();
    let mut add = |name: &str, text: &str| {
        let unused = query.used_only && text.is_empty();
        let filtered = query
            .filter
            .as_ref()
            .is_some_and(|filter| !filter.is_found_in(name.as_bytes()));
        if !unused && !filtered {
            lines += &format!("{name}: {text:?}\n");
        }
    };
    if let Some(error) = control.last_error() {
        add("control_plane.last_error", &error);
    }
    for (kind, prefix) in SUBSCRIPTIONS {
        let version = kinds.get(kind).map(|kind| kind.version.as_str());
        add(
            &format!("{prefix}.version_text"),
            version.unwrap_or_default(),
        );
    }
    lines
}

/// What a name server for the applications counts, under the names of Istio's agent.
fn agent(counts: &Counts, query: &Query) -> String {
    let mut text = String::new();
    let wanted = |name: &str, used: bool| {
        let filter = query.filter.as_ref();
        let found = filter.is_none_or(|filter| filter.is_found_in(name.as_bytes()));
        found && (used || !query.used_only)
    };
    for (name, help, count) in [
        (
            "dns_requests_total",
            "Questions for names.",
            counts.requests,
        ),
        (
            "dns_upstream_requests_total",
            "Questions for names that were passed on.",
            counts.upstream_requests,
        ),
        (
            "dns_upstream_failures_total",
            "Questions for names that were passed on and not answered.",
            counts.upstream_failures,
        ),
    ] {
        if wanted(name, count > 0) && matches!(query.select, Select::All | Select::Counters) {
            text += &format!("# HELP {name} {help}\n# TYPE {name} counter\n{name} {count}\n");
        }
    }
    let name = "dns_upstream_request_duration_seconds";
    let [buckets @ .., count] = counts.buckets;
    if wanted(name, count > 0) && matches!(query.select, Select::All | Select::Histograms) {
        let help = "How long other name servers take.";
        text += &format!("# HELP {name} {help}\n# TYPE {name} histogram\n");
        for (bound, count) in BUCKETS.iter().zip(buckets) {
            let bound = bound.as_secs_f64();
            text += &format!("{name}_bucket{{le=\"{bound}\"}} {count}\n");
        }
        let sum = counts.duration.as_secs_f64();
        text += &format!(
            "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}\n"
        );
    }
    text
}

/// Everything that is counted and asked for, at this moment.
async fn scrape(shared: &Shared, query: &Query) -> Scrape {
    let mut scrape = Scrape::only(query.clone());
    let snapshot = shared.feed.load();
    scrape.snapshot(&snapshot).telemetry(&shared.telemetry);
    for (prefix, block) in shared.statistics.http.all() {
        scrape.http(&prefix, &block);
    }
    for (prefix, block) in shared.statistics.tcp.all() {
        scrape.tcp(&prefix, &block);
    }
    for ((prefix, name), block) in shared.statistics.all_authz() {
        scrape.authz(prefix.as_deref(), &name, &block);
    }
    for ((prefix, name), block) in shared.statistics.all_external() {
        scrape.external(prefix.as_deref(), &name, &block);
    }
    for ((prefix, name), block) in shared.statistics.sessions.all() {
        scrape.session(prefix.as_deref(), &name, &block);
    }
    for (address, block) in shared.statistics.listeners() {
        scrape.listener(&address, &block);
    }
    for (address, block) in shared.statistics.all_tls() {
        scrape.listener_tls(&address, &block);
    }
    for (prefix, block) in shared.statistics.limits.all() {
        for (name, kind, value) in block.iter() {
            scrape.value(&format!("connection_limit.{prefix}.{name}"), kind, value);
        }
    }
    for (name, kind, value) in shared.guard.statistics() {
        scrape.value(&name, kind, value);
    }
    let listening = shared.listening.load();
    let tasks = shared.runtimes.iter().map(|it| it.num_alive_tasks() as u64);
    let tasks = tasks.sum();
    scrape
        .value(
            "server.live",
            Kind::Gauge,
            u64::from(state(shared).await == "LIVE"),
        )
        .value(
            "server.uptime",
            Kind::Gauge,
            shared.started.elapsed().as_secs(),
        )
        .value("server.concurrency", Kind::Gauge, shared.workers as u64)
        // Not Envoy's, which has none: what the workers do at a time. One that ends never shows here.
        .value("server.tasks", Kind::Gauge, tasks)
        .value(
            "listener_manager.total_listeners_active",
            Kind::Gauge,
            listening.open.len() as u64,
        )
        .value(
            "cluster_manager.active_clusters",
            Kind::Gauge,
            snapshot.clusters().len() as u64,
        );
    if let Some(control) = &shared.control {
        let connected = u64::from(control.connected());
        scrape.value("control_plane.connected_state", Kind::Gauge, connected);
        let kinds = control.kinds();
        for (kind, prefix) in SUBSCRIPTIONS {
            let status = kinds.get(kind).cloned().unwrap_or_default();
            for (what, value) in [
                ("update_attempt", status.update_attempt),
                ("update_success", status.update_success),
                ("update_rejected", status.update_rejected),
            ] {
                scrape.value(&format!("{prefix}.{what}"), Kind::Counter, value);
            }
        }
    }
    scrape
}
