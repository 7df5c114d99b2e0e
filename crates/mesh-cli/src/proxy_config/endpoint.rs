//! Endpoints from `/clusters?format=json`, with istioctl's columns and filters.

use super::{address, at, list};
use crate::style::Tone;
use crate::table::{Cell, Table};
use serde_json::{Value, json};

/// Which endpoints.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Filter {
    /// Only this address.
    #[arg(long)]
    address: Option<String>,
    /// Only this port.
    #[arg(long)]
    port: Option<u16>,
    /// Only this cluster.
    #[arg(long)]
    cluster: Option<String>,
    /// Only those in this state: healthy, unhealthy, draining, timeout, degraded, unknown.
    #[arg(long)]
    status: Option<String>,
}

struct Endpoint<'a> {
    cluster: &'a str,
    host: String,
    port: Option<u16>,
    /// What discovery says, and what Envoy's own health checks say.
    status: &'a str,
    ejected: bool,
}

// === impl Filter ===

impl Filter {
    fn fits(&self, endpoint: &Endpoint<'_>) -> bool {
        self.address.as_ref().is_none_or(|is| endpoint.host == *is)
            && self.port.is_none_or(|is| endpoint.port == Some(is))
            && self
                .cluster
                .as_ref()
                .is_none_or(|is| endpoint.cluster == is)
            && self
                .status
                .as_ref()
                .is_none_or(|is| endpoint.status.eq_ignore_ascii_case(is))
    }
}

// === impl Endpoint ===

impl<'a> Endpoint<'a> {
    fn of(cluster: &'a str, host: &'a Value) -> Self {
        let health = &host["health_status"];
        let is = |field: &str| health.get(field).and_then(Value::as_bool) == Some(true);
        let status = match at(health, "/eds_health_status") {
            "" => "UNKNOWN",
            "HEALTHY" if is("failed_active_health_check") => "UNHEALTHY",
            status => status,
        };
        let (address, port) = address(&host["address"]);
        Self {
            cluster,
            host: address,
            port,
            status,
            ejected: is("failed_outlier_check"),
        }
    }

    fn name(&self) -> String {
        match self.port {
            Some(port) if self.host.contains(':') => format!("[{}]:{port}", self.host),
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }
}

/// What Envoy says about the clusters that have fitting hosts, with those hosts only.
pub(super) fn select(statuses: &Value, filter: &Filter) -> Value {
    let clusters = list(statuses, "/cluster_statuses").iter();
    let clusters = clusters.filter_map(|cluster| {
        let name = at(cluster, "/name");
        let fits = |host: &&Value| filter.fits(&Endpoint::of(name, host));
        let hosts: Vec<&Value> = list(cluster, "/host_statuses")
            .iter()
            .filter(fits)
            .collect();
        if hosts.is_empty() {
            return None;
        }
        let mut cluster = cluster.clone();
        cluster["host_statuses"] = json!(hosts);
        Some(cluster)
    });
    let mut clusters: Vec<Value> = clusters.collect();
    clusters.sort_by(|a, b| at(a, "/name").cmp(at(b, "/name")));
    Value::Array(clusters)
}

pub(super) fn table(statuses: &Value, filter: &Filter) -> Table {
    let clusters = list(statuses, "/cluster_statuses").iter();
    let endpoints = clusters.flat_map(|cluster| {
        let hosts = list(cluster, "/host_statuses").iter();
        hosts.map(|host| Endpoint::of(at(cluster, "/name"), host))
    });
    let mut endpoints: Vec<Endpoint<'_>> = endpoints.filter(|one| filter.fits(one)).collect();
    endpoints.sort_by(|a, b| {
        let key = |one: &Endpoint<'_>| (one.host.clone(), one.port);
        key(a).cmp(&key(b)).then_with(|| a.cluster.cmp(b.cluster))
    });
    let header = ["ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"];
    let mut table = Table::with_header(&header);
    for endpoint in endpoints {
        let tone = match endpoint.status {
            "HEALTHY" => Tone::Good,
            "DEGRADED" | "DRAINING" | "UNKNOWN" => Tone::Doubtful,
            _ => Tone::Bad,
        };
        let outlier = match endpoint.ejected {
            true => Cell::toned("FAILED", Tone::Bad),
            false => Cell::toned("OK", Tone::Good),
        };
        table.push([
            endpoint.name().into(),
            Cell::toned(endpoint.status, tone),
            outlier,
            endpoint.cluster.into(),
        ]);
    }
    table
}
