//! Clusters, with istioctl's columns and filters.

use super::dump::Dump;
use super::{at, istio_object};
use crate::table::Table;
use clap::ValueEnum;
use serde_json::Value;

/// Which clusters.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Filter {
    /// Only hosts whose name contains this.
    #[arg(long)]
    fqdn: Option<String>,
    /// Only this port of a service.
    #[arg(long)]
    port: Option<u16>,
    /// Only this subset of a DestinationRule.
    #[arg(long)]
    subset: Option<String>,
    /// Only traffic to or from the application.
    #[arg(long, value_enum)]
    direction: Option<Direction>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Direction {
    Inbound,
    Outbound,
}

/// What Istio puts into a cluster's name: `outbound|9080|v1|reviews.default.svc.cluster.local`.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Parts<'a> {
    fqdn: &'a str,
    port: Option<u16>,
    subset: &'a str,
    direction: &'a str,
}

// === impl Filter ===

impl Filter {
    /// The clusters that fit, by host, port and subset.
    pub(super) fn select<'a>(&self, dump: &'a Dump) -> Vec<&'a Value> {
        let clusters = dump.clusters.iter();
        let mut found: Vec<&Value> = clusters
            .filter(|cluster| self.fits(&Parts::of(at(cluster, "/name"))))
            .collect();
        found.sort_by_cached_key(|cluster| Parts::of(at(cluster, "/name")));
        found
    }

    fn fits(&self, parts: &Parts<'_>) -> bool {
        let fqdn = |fqdn: &String| parts.fqdn.contains(fqdn.as_str());
        let direction = |direction: Direction| match direction {
            Direction::Inbound => parts.direction == "inbound",
            Direction::Outbound => parts.direction == "outbound",
        };
        self.fqdn.as_ref().is_none_or(fqdn)
            && self.port.is_none_or(|port| parts.port == Some(port))
            && self.subset.as_ref().is_none_or(|is| parts.subset == is)
            && self.direction.is_none_or(direction)
    }
}

// === impl Parts ===

impl<'a> Parts<'a> {
    fn of(name: &'a str) -> Self {
        let parts: Vec<&str> = name.splitn(4, '|').collect();
        let [direction, port, subset, fqdn] = parts[..] else {
            return Self {
                fqdn: name,
                ..Self::default()
            };
        };
        Self {
            fqdn,
            port: port.parse().ok(),
            subset,
            direction,
        }
    }
}

pub(super) fn table(clusters: &[&Value]) -> Table {
    let mut table = Table::with_header(&[
        "SERVICE FQDN",
        "PORT",
        "SUBSET",
        "DIRECTION",
        "TYPE",
        "DESTINATION RULE",
    ]);
    for cluster in clusters {
        let parts = Parts::of(at(cluster, "/name"));
        table.push([
            parts.fqdn.into(),
            parts
                .port
                .map(|port| port.to_string())
                .unwrap_or_default()
                .into(),
            parts.subset.into(),
            parts.direction.into(),
            kind(cluster).into(),
            istio_object(cluster).into(),
        ]);
    }
    table
}

/// How the cluster finds its endpoints. Envoy leaves out what is the default.
fn kind(cluster: &Value) -> &str {
    match (at(cluster, "/type"), at(cluster, "/cluster_type/name")) {
        ("", "") => "STATIC",
        ("", name) => name,
        (kind, _) => kind,
    }
}
