//! What was really exercised, as the judge saw it: a run that tried nothing proves nothing.

use crate::config::Config;
use crate::facts::Facts;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// Least number of times that each condition holds, and does not.
const EACH_WAY: u64 = 50;
/// Least number of times for each kind of failure.
const EACH_FAILURE: u64 = 5;
/// Least share of requests that reach a backend, in percent.
const REACHING: u64 = 60;

/// Kinds of conditions.
const CONDITIONS: &[&str] = &[
    "prefix",
    "prefix, any case",
    "path",
    "path, any case",
    "path_separated_prefix",
    "path_separated_prefix, any case",
    "path regex",
    "header exact",
    "header prefix",
    "header suffix",
    "header contains",
    "header regex",
    "header range",
    "header present",
    "header invert",
    "header missing is empty",
    "query exact",
    "query prefix",
    "query suffix",
    "query contains",
    "query regex",
    "query present",
    "grpc",
    "fraction",
    "domain exact",
    "domain suffix",
    "domain prefix",
    "domain any",
];

/// Response flags or details of failures that have to come up.
const FAILURES: &[&str] = &[
    "NR", "NC", "UH", "UF", "UC", "UO", "UT", "URX", "UPE", "UR", "DI", "FI", "RL",
];

/// How often what was seen.
#[derive(Debug, Default)]
pub(crate) struct Coverage {
    /// Times that a condition held, and that it alone made a route be passed over.
    conditions: BTreeMap<String, (u64, u64)>,
    flags: BTreeMap<String, u64>,
    details: BTreeMap<String, u64>,
    pub(crate) requests: u64,
    reached: u64,
}

// === impl Coverage ===

impl Coverage {
    /// Notes what the judge did with a configuration.
    pub(crate) fn note(&mut self, config: &Config, judged: &[Facts]) {
        let manager = &config.source.manager;
        for facts in judged.iter().take(config.calls.len()) {
            self.requests += 1;
            self.reached += u64::from(facts.get("upstream count") != "0");
            for flag in facts.get("log flags").split(',') {
                *self.flags.entry(flag.to_owned()).or_default() += 1;
            }
            let details = facts.get("log details");
            let details = details.split(['{', ':']).next().unwrap_or(details);
            *self.details.entry(details.to_owned()).or_default() += 1;
            if config.area == "routes" {
                self.conditions(&manager["route_config"], facts.get("log route"));
            }
        }
    }

    fn conditions(&mut self, table: &Value, chosen: &str) {
        for host in list(&table["virtual_hosts"]) {
            let routes = list(&host["routes"]);
            let at = routes.iter().position(|route| route["name"] == chosen);
            for domain in list(&host["domains"]) {
                let kind = match domain.as_str().unwrap_or_default() {
                    "*" => "domain any",
                    it if it.starts_with('*') => "domain suffix",
                    it if it.ends_with('*') => "domain prefix",
                    _ => "domain exact",
                };
                // Whether it was this domain or another of the same host is not told apart.
                self.one(kind, at.is_some());
            }
            let Some(at) = at else { continue };
            for kind in kinds(&routes[at]["match"]) {
                self.one(&kind, true);
            }
            for route in &routes[..at] {
                let mut kinds = kinds(&route["match"]);
                kinds.retain(|kind| kind != "any path");
                // With several conditions it is not known which one did not hold.
                let base = |it: &String| !it.ends_with("invert") && !it.ends_with("empty");
                if kinds.iter().filter(|it| base(it)).count() == 1 {
                    kinds.iter().for_each(|kind| self.one(kind, false));
                }
            }
        }
    }

    fn one(&mut self, kind: &str, held: bool) {
        let entry = self.conditions.entry(kind.to_owned()).or_default();
        *(if held { &mut entry.0 } else { &mut entry.1 }) += 1;
    }

    /// What was not exercised enough. Only what the areas that ran are for is asked for.
    pub(crate) fn lacking(&self, areas: &[&str]) -> Vec<String> {
        let mut lacking = Vec::new();
        if areas.contains(&"routes") {
            for kind in CONDITIONS {
                let (held, not) = self.conditions.get(*kind).copied().unwrap_or_default();
                if held.min(not) < EACH_WAY {
                    lacking.push(format!("{kind}: held {held} times, did not {not} times"));
                }
            }
        }
        if areas.contains(&"replies") {
            for flag in FAILURES {
                let seen = self.flags.get(*flag).copied().unwrap_or_default();
                if seen < EACH_FAILURE {
                    lacking.push(format!("flag {flag}: {seen} times"));
                }
            }
        }
        if self.reached * 100 < self.requests * REACHING {
            let (reached, all) = (self.reached, self.requests);
            lacking.push(format!("{reached} of {all} requests reached a backend"));
        }
        lacking
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, (held, not)) in &self.conditions {
            writeln!(f, "coverage: {kind}: held {held}, did not {not}")?;
        }
        for (flag, times) in &self.flags {
            writeln!(f, "coverage: flag {flag}: {times}")?;
        }
        for (details, times) in &self.details {
            writeln!(f, "coverage: details {details}: {times}")?;
        }
        let share = self.reached * 100 / self.requests.max(1);
        write!(f, "coverage: {share} % of requests reached a backend")
    }
}

/// The kinds of conditions of a route.
fn kinds(condition: &Value) -> Vec<String> {
    let mut kinds = Vec::new();
    let any_case = condition["case_sensitive"] == false;
    let path = ["prefix", "path", "path_separated_prefix"]
        .into_iter()
        .find(|kind| !condition[*kind].is_null());
    kinds.push(match path {
        Some("prefix") if condition["prefix"] == "/" => "any path".into(),
        Some(kind) if any_case => format!("{kind}, any case"),
        Some(kind) => kind.into(),
        None => "path regex".into(),
    });
    for header in list(&condition["headers"]) {
        kinds.push(format!("header {}", value_kind(header)));
        if header["invert_match"] == true {
            kinds.push("header invert".into());
        }
        if header["treat_missing_header_as_empty"] == true {
            kinds.push("header missing is empty".into());
        }
    }
    for query in list(&condition["query_parameters"]) {
        kinds.push(format!("query {}", value_kind(query)));
    }
    if !condition["grpc"].is_null() {
        kinds.push("grpc".into());
    }
    if !condition["runtime_fraction"].is_null() {
        kinds.push("fraction".into());
    }
    kinds
}

fn value_kind(matcher: &Value) -> &'static str {
    let text = &matcher["string_match"];
    let kinds = [
        ("exact", "exact"),
        ("prefix", "prefix"),
        ("suffix", "suffix"),
        ("contains", "contains"),
        ("safe_regex", "regex"),
    ];
    let found = kinds.iter().find(|(field, _)| !text[*field].is_null());
    match found {
        Some((_, name)) => name,
        None if !matcher["range_match"].is_null() => "range",
        None => "present",
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
