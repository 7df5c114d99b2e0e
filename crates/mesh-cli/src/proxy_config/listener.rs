//! Listeners, with istioctl's columns and filters: a row for each filter chain.

use super::dump::Dump;
use super::route::domains;
use super::{address, at, list};
use crate::table::Table;
use serde_json::Value;

/// Which listeners.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Filter {
    /// Only this IP address.
    #[arg(long)]
    address: Option<String>,
    /// Only this port.
    #[arg(long)]
    port: Option<u16>,
    /// Only the listener with this name.
    #[arg(long)]
    name: Option<String>,
}

// === impl Filter ===

impl Filter {
    /// The listeners that fit, by port and address.
    pub(super) fn select<'a>(&self, dump: &'a Dump) -> Vec<&'a Value> {
        let mut found: Vec<&Value> = dump.listeners.iter().filter(|one| self.fits(one)).collect();
        found.sort_by_cached_key(|listener| {
            let (host, port) = address(&listener["address"]);
            (port, host)
        });
        found
    }

    fn fits(&self, listener: &Value) -> bool {
        let (host, port) = address(&listener["address"]);
        self.address.as_ref().is_none_or(|is| host == *is)
            && self.port.is_none_or(|is| port == Some(is))
            && self
                .name
                .as_ref()
                .is_none_or(|is| at(listener, "/name") == is)
    }
}

pub(super) fn table(listeners: &[&Value]) -> Table {
    let mut table = Table::with_header(&["ADDRESSES", "PORT", "MATCH", "DESTINATION"]);
    for listener in listeners {
        let (addresses, port) = addresses(listener);
        let mut row = |matches: String, filters: &[Value]| {
            table.push([
                addresses.as_str().into(),
                port.as_str().into(),
                matches.into(),
                destination(filters).into(),
            ]);
        };
        if let Some(api) = listener.pointer("/api_listener/api_listener") {
            row(
                "API".to_owned(),
                &[serde_json::json!({"typed_config": api})],
            );
        }
        for chain in list(listener, "/filter_chains") {
            row(conditions(chain), list(chain, "/filters"));
        }
        if let Some(chain) = listener.get("default_filter_chain") {
            row("ALL".to_owned(), list(chain, "/filters"));
        }
    }
    table
}

fn addresses(listener: &Value) -> (String, String) {
    let (first, port) = address(&listener["address"]);
    let more = list(listener, "/additional_addresses").iter();
    let more = more.map(|more| address(&more["address"]).0);
    let all: Vec<String> = std::iter::once(first).chain(more).collect();
    (
        all.join(","),
        port.map(|port| port.to_string()).unwrap_or_default(),
    )
}

/// What a connection has to be like.
fn conditions(chain: &Value) -> String {
    let texts = |name: &str| {
        let texts = list(chain, &format!("/filter_chain_match/{name}")).iter();
        texts
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(",")
    };
    let mut out = Vec::new();
    for (name, value) in [
        ("SNI", texts("server_names")),
        (
            "Trans",
            at(chain, "/filter_chain_match/transport_protocol").to_owned(),
        ),
        ("App", texts("application_protocols")),
        (
            "Source",
            at(chain, "/filter_chain_match/source_type").to_owned(),
        ),
    ] {
        if !value.is_empty() {
            out.push(format!("{name}: {value}"));
        }
    }
    let ranges: Vec<String> = list(chain, "/filter_chain_match/prefix_ranges")
        .iter()
        .map(|range| {
            let length = range.get("prefix_len").and_then(Value::as_u64).unwrap_or(0);
            format!("{}/{length}", at(range, "/address_prefix"))
        })
        .collect();
    let port = chain
        .pointer("/filter_chain_match/destination_port")
        .and_then(Value::as_u64)
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    match (ranges.is_empty(), port.is_empty()) {
        (false, _) => out.push(format!("Addr: {}{port}", ranges.join(","))),
        (true, false) => out.push(format!("Addr: *{port}")),
        (true, true) => {}
    }
    match out.is_empty() {
        true => "ALL".to_owned(),
        false => out.join("; "),
    }
}

/// Where a connection goes.
fn destination(filters: &[Value]) -> String {
    for filter in filters {
        let config = &filter["typed_config"];
        match at(config, "/@type").rsplit('.').next() {
            Some("HttpConnectionManager") => return http(config),
            Some("TcpProxy") => return tcp(config),
            _ => {}
        }
    }
    match filters.last().map(|filter| at(filter, "/name")) {
        None | Some("") => "Non-HTTP/Non-TCP".to_owned(),
        Some(name) => format!("Non-HTTP/Non-TCP: {name}"),
    }
}

fn http(manager: &Value) -> String {
    if let Some(routes) = manager.get("route_config") {
        return inline(routes);
    }
    match at(manager, "/rds/route_config_name") {
        "" => "HTTP".to_owned(),
        name => format!("Route: {name}"),
    }
}

fn inline(routes: &Value) -> String {
    let hosts = list(routes, "/virtual_hosts");
    // A single route that takes everything is a cluster by another name.
    if let [host] = hosts
        && let [route] = list(host, "/routes")
        && at(route, "/match/prefix") == "/"
        && !at(route, "/route/cluster").is_empty()
    {
        return cluster(at(route, "/route/cluster"));
    }
    let hosts: Vec<String> = hosts
        .iter()
        .map(|host| {
            let domains = match domains(host)[..] {
                ["*"] => String::new(),
                ref all => format!("{} ", all.join("/")),
            };
            let paths = list(host, "/routes").iter();
            let paths: Vec<String> = paths.map(super::route::path).collect();
            format!("{domains}{}", paths.join(", "))
        })
        .collect();
    format!("Inline Route: {}", hosts.join("; "))
}

fn tcp(proxy: &Value) -> String {
    let name = at(proxy, "/cluster");
    if !name.is_empty() {
        return cluster(name);
    }
    let clusters: Vec<String> = list(proxy, "/weighted_clusters/clusters")
        .iter()
        .map(|part| {
            let weight = part.get("weight").and_then(Value::as_u64).unwrap_or(0);
            format!("{}={weight}", at(part, "/name"))
        })
        .collect();
    format!("Cluster: {}", clusters.join(", "))
}

/// istioctl's form: clusters that say so themselves need no label.
fn cluster(name: &str) -> String {
    match name.ends_with("Cluster") {
        true => name.to_owned(),
        false => format!("Cluster: {name}"),
    }
}
