//! Routes, with istioctl's columns and filter: a row for each route.

use super::dump::Dump;
use super::{at, istio_object, list};
use crate::table::Table;
use serde_json::Value;
use std::net::IpAddr;

/// The domains that are printed; the rest is counted.
const DOMAINS_SHOWN: usize = 2;

/// Which routes.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Filter {
    /// Only the route configuration with this name.
    #[arg(long)]
    name: Option<String>,
}

// === impl Filter ===

impl Filter {
    /// The route configurations that fit, by name.
    pub(super) fn select<'a>(&self, dump: &'a Dump) -> Vec<&'a Value> {
        let fits = |table: &&Value| self.name.as_ref().is_none_or(|is| at(table, "/name") == is);
        let mut found: Vec<&Value> = dump.routes.iter().filter(fits).collect();
        // Names that are ports come in the order of ports.
        found.sort_by_cached_key(|table| {
            let name = at(table, "/name");
            (name.parse::<u16>().map_or(u32::MAX, u32::from), name)
        });
        found
    }
}

pub(super) fn table(tables: &[&Value]) -> Table {
    let header = ["NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"];
    let mut table = Table::with_header(&header);
    for routes in tables {
        for host in list(routes, "/virtual_hosts") {
            let mut row = |matches: String, object: String| {
                table.push([
                    at(routes, "/name").into(),
                    at(host, "/name").into(),
                    shown(&domains(host)).into(),
                    matches.into(),
                    object.into(),
                ]);
            };
            let all = list(host, "/routes");
            if all.is_empty() {
                row("404".to_owned(), String::new());
            }
            for route in all {
                row(conditions(route), istio_object(route));
            }
        }
    }
    table
}

/// The path that a route is for, and how many further conditions it has.
fn conditions(route: &Value) -> String {
    let more = list(route, "/match/headers").len() + list(route, "/match/query_parameters").len();
    match more {
        0 => path(route),
        1 => format!("{} +1 condition", path(route)),
        more => format!("{} +{more} conditions", path(route)),
    }
}

/// The path that a route is for.
pub(super) fn path(route: &Value) -> String {
    let condition = &route["match"];
    for (pointer, before, after) in [
        ("/prefix", "", "*"),
        ("/path", "", ""),
        ("/path_separated_prefix", "PathPrefix:", ""),
        ("/safe_regex/regex", "regex ", ""),
    ] {
        let text = at(condition, pointer);
        if !text.is_empty() {
            return format!("{before}{text}{after}");
        }
    }
    match condition {
        Value::Object(fields) if fields.contains_key("connect_matcher") => "CONNECT".to_owned(),
        // Envoy leaves out an empty prefix, which every path has.
        Value::Object(fields) if fields.contains_key("prefix") => "*".to_owned(),
        _ => String::new(),
    }
}

/// The domains of a virtual host, names before addresses and the short ones first, without twins
/// that only differ in their port or in the dot at the end.
pub(super) fn domains(host: &Value) -> Vec<&str> {
    let mut out: Vec<&str> = Vec::new();
    for domain in list(host, "/domains").iter().filter_map(Value::as_str) {
        let bare = match domain.rsplit_once(':') {
            Some((bare, port)) if is_port(port) && (bare.ends_with(']') || !bare.contains(':')) => {
                bare
            }
            _ => domain,
        };
        let bare = match bare.strip_suffix('.') {
            Some(name) if !name.is_empty() => name,
            _ => bare,
        };
        if !out.contains(&bare) {
            out.push(bare);
        }
    }
    out.sort_by_key(|domain| (is_address(domain), domain.len()));
    out
}

fn is_port(text: &str) -> bool {
    text == "*" || text.parse::<u16>().is_ok()
}

fn is_address(text: &str) -> bool {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok()
}

fn shown(domains: &[&str]) -> String {
    match domains.len() {
        0..=DOMAINS_SHOWN => domains.join(", "),
        count => format!(
            "{} + {} more...",
            domains[..DOMAINS_SHOWN].join(", "),
            count - DOMAINS_SHOWN
        ),
    }
}
