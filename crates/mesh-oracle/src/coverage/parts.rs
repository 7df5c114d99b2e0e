//! Parts of routes that have to be there for so many requests.

use crate::config::Config;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// Areas, and what stands in the routes of Envoy's configuration there.
const PARTS: &[(&str, &str, &str)] = &[
    ("actions", "split by a header", r#""header_name":"x-draw""#),
    ("actions", "split by a hash", r#""use_hash_policy":true"#),
    (
        "actions",
        "split to the cluster of a header",
        r#"[{"cluster_header":"x-cluster""#,
    ),
    (
        "actions",
        "copy to the cluster of a header",
        r#""cluster_header":"x-copy""#,
    ),
    (
        "actions",
        "copy with a host of its own",
        r#""host_rewrite_literal":"copy."#,
    ),
    (
        "actions",
        "copy with other headers",
        r#""request_headers_mutations""#,
    ),
    ("protocol", "upgrades of a route", r#""upgrade_configs""#),
    ("replies", "delay that is asked for", r#""header_delay""#),
    ("replies", "abort that is asked for", r#""header_abort""#),
    ("replies", "slow answer", r#""fixed_limit""#),
    (
        "replies",
        "slow answer that is asked for",
        r#""header_limit""#,
    ),
    ("replies", "too many faults", r#""max_active_faults":0"#),
    (
        "routes",
        "new path of a template",
        r#""path_rewrite_policy""#,
    ),
];
/// So many requests each.
const EACH_PART: u64 = 5;

/// How many requests met routes with each part.
#[derive(Debug, Default)]
pub(super) struct Parts(BTreeMap<&'static str, u64>);

// === impl Parts ===

impl Parts {
    /// Notes a request that met this route.
    pub(super) fn note(&mut self, config: &Config, chosen: &str) {
        let mut parts = PARTS.iter().filter(|(area, ..)| *area == config.area);
        let Some(route) = parts.clone().next().and_then(|_| route(config, chosen)) else {
            return;
        };
        let route = route.to_string();
        for (_, name, _) in parts.by_ref().filter(|(.., text)| route.contains(text)) {
            *self.0.entry(name).or_default() += 1;
        }
    }

    pub(super) fn lacking<'a>(&'a self, areas: &'a [&str]) -> impl Iterator<Item = String> + 'a {
        let wanted = PARTS.iter().filter(|(area, ..)| areas.contains(area));
        let seen = wanted.map(|(_, name, _)| (name, self.0.get(name).copied().unwrap_or(0)));
        seen.filter(|(_, seen)| *seen < EACH_PART)
            .map(|(name, seen)| format!("{name}: {seen} requests"))
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = self.0.iter();
        all.try_for_each(|(name, times)| writeln!(f, "coverage: {name}: {times} requests"))
    }
}

/// The route with this name.
fn route<'a>(config: &'a Config, name: &str) -> Option<&'a Value> {
    let hosts = config.source.manager["route_config"]["virtual_hosts"].as_array()?;
    let routes = hosts.iter().filter_map(|host| host["routes"].as_array());
    routes.flatten().find(|route| route["name"] == name)
}
