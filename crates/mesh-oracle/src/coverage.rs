//! What was really exercised, as the judge saw it: a run that tried nothing proves nothing.

mod identities;
mod kinds;
mod parts;
mod policy;
mod yaml;

use crate::area::{self, AREAS, balancing, protocol};
use crate::chance;
use crate::config::Config;
use crate::facts::Facts;
use crate::run::Outcome;
use kinds::kinds;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// Least number of times that each condition holds, and does not.
const EACH_WAY: u64 = 50;
/// Least number of requests to configurations with each kind of balancing.
const EACH_BALANCING: u64 = 50;
/// So many kinds of balancing may be missed by a seed; the usual one has them all.
const RARE: usize = 2;
/// Least number of times for each kind of failure.
const EACH_FAILURE: u64 = 5;
/// Least share of requests that reach a backend, in percent: in all areas together, and in some of
/// them alone. Of Istio's documents every third rule is a redirect, an answer or a fault.
const REACHING: [u64; 2] = [60, 45];

/// Least number of sets of facts that each subject is compared in.
const EACH_SUBJECT: u64 = 300;
/// The largest share of configurations of Istio's documents that may be refused, in percent.
const REFUSED: u64 = 5;

/// The largest share of configurations that may be too late to be compared, in percent of those of
/// their area.
const LATE: u64 = 10;

/// Who has to be compared in areas of Envoy's configuration, and of Istio's.
const SUBJECTS: [&[&str]; 2] = [
    &["mesh-proxy", "mesh-proxy -c"],
    &["mesh-proxy", "mesh-proxy by YAML", "embedded"],
];
/// Besides, where policies are written for Istio: a client has no way in.
const JUDGED: &[&str] = &["mesh-proxy by YAML"];

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
    "path template",
    "cookie",
    "cookie invert",
    "certificate",
    "filter state, text",
    "filter state, address",
    "grpc",
    "fraction",
    "domain exact",
    "domain suffix",
    "domain prefix",
    "domain any",
];

/// Response flags or details of failures that have to come up.
const FAILURES: &[&str] = &[
    "NR", "NC", "UH", "UF", "UC", "UO", "UT", "URX", "UPE", "UR", "DI", "FI", "RL", "DC", "DR",
];
/// How callers leave, by details.
const LEFT: &[&str] = &[
    "downstream_remote_disconnect",
    "http2.remote_refuse",
    "http2.remote_reset",
];

/// Parts of DestinationRules that have to be there for so many requests.
const POLICIES: &[&str] = &[
    "useSourceIp",
    "useClientProtocol",
    "httpHeaderName",
    "httpQueryParameterName",
    "portLevelSettings",
    "outlierDetection",
];
const EACH_POLICY: u64 = 50;

/// Kinds of health checks and of limits that have to be there for so many requests.
const CHECKS: &[&str] = &[
    "http_health_check",
    "tcp_health_check",
    "grpc_health_check",
    "codec_client_type",
    "per_host_thresholds",
    "\"track_remaining\":true",
];
const EACH_CHECK: u64 = 10;

/// Statuses that have to come up where protocols are bent.
const PROTOCOL: &[&str] = &["200", "204", "304", "400", "404", "426", "431", "501"];

/// The same where attempts are made again, with the least number of times for each.
const RETRY_FLAGS: &[&str] = &["UC", "UF", "UO", "UPE", "UR", "URX", "UT"];
const RETRY_DETAILS: &[&str] = &[
    "max_duration_timeout",
    "response_timeout",
    "upstream_per_try_idle_timeout",
    "upstream_per_try_timeout",
];
const EACH_RETRY: u64 = 2;
/// How often a pause before a retry ends in each quarter of its window, at least.
const EACH_PAUSE: u64 = 5;

/// Counters of clusters that have to grow where hosts are taken out.
const COUNTERS: &[&str] = &[
    "outlier_detection.ejections_overflow",
    "outlier_detection.ejections_enforced_consecutive_5xx",
    "outlier_detection.ejections_enforced_consecutive_gateway_failure",
    "outlier_detection.ejections_enforced_consecutive_local_origin_failure",
    "outlier_detection.ejections_enforced_success_rate",
    "outlier_detection.ejections_enforced_failure_percentage",
    "lb_healthy_panic",
    "upstream_cx_none_healthy",
    "upstream_rq_pending_overflow",
    "upstream_cx_pool_overflow",
];
/// Least that each of these grows.
const EACH_COUNTER: u64 = 1;

/// How often what was seen.
#[derive(Debug, Default)]
pub(crate) struct Coverage {
    /// Times that a condition held, and that it alone made a route be passed over.
    conditions: BTreeMap<String, (u64, u64)>,
    /// Requests to configurations with each kind of balancing, and endpoints that were reached.
    balancing: BTreeMap<&'static str, u64>,
    flags: BTreeMap<String, u64>,
    details: BTreeMap<String, u64>,
    /// The parts of their windows that pauses before retries ended in.
    pauses: BTreeMap<String, u64>,
    /// Statuses in the area of protocols, and kinds of what was bent.
    protocol: BTreeMap<String, u64>,
    bent: BTreeMap<&'static str, u64>,
    pub(crate) requests: u64,
    /// Of those that could reach a backend.
    reached: u64,
    could: u64,
    fields: yaml::Fields,
    parts: parts::Parts,
    policies: BTreeMap<&'static str, u64>,
    checks: BTreeMap<&'static str, u64>,
    authz: policy::Policies,
    identities: identities::Identities,
    /// Sets of facts that subjects were compared in.
    subjects: BTreeMap<&'static str, u64>,
    /// Configurations of an area, and those of them that the judge refused.
    configs: BTreeMap<&'static str, (u64, u64)>,
    /// Those of an area that were never in time.
    late: BTreeMap<&'static str, u64>,
    /// What clusters counted, by the name of the counter.
    counters: BTreeMap<String, u64>,
}

// === impl Coverage ===

impl Coverage {
    /// Notes what the judge did with a configuration.
    pub(crate) fn note(&mut self, config: &Config, outcome: &Outcome) {
        let (manager, judged) = (&config.source.manager, &outcome.judged);
        for (subject, sets) in &outcome.subjects {
            *self.subjects.entry(subject).or_default() += u64::try_from(*sets).unwrap_or(0);
        }
        let (all, refused) = self.configs.entry(config.area).or_default();
        *all += 1;
        *self.late.entry(config.area).or_default() += u64::from(outcome.late);
        // The last set is of counters alone, and always there.
        *refused += u64::from(judged.len() < 2);
        if config.area == "balancing" && judged.len() > config.calls.len() {
            for kind in balancing::kinds(config) {
                *self.balancing.entry(kind).or_default() += config.calls.len() as u64;
            }
        }
        if config.area == "protocol" && judged.len() > config.calls.len() {
            for raw in config.calls.iter().filter_map(|call| call.raw.as_deref()) {
                for (kind, _) in protocol::KINDS.iter().filter(|(_, is)| is(raw)) {
                    *self.bent.entry(kind).or_default() += 1;
                }
            }
        }
        if config.area == "ejection" {
            let clusters = config.source.clusters.to_string();
            let compared = if outcome.late { 0 } else { judged.len() };
            for check in CHECKS.iter().filter(|it| clusters.contains(**it)) {
                *self.checks.entry(check).or_default() += compared as u64;
            }
            judged
                .iter()
                .skip(config.calls.len())
                .for_each(|it| self.counted(it));
        }
        for (at, facts) in judged.iter().take(config.calls.len()).enumerate() {
            self.requests += 1;
            self.parts.note(config, facts.get("log route"));
            if config.area == "protocol" {
                // Half of them are refused, and have no line in the log that is theirs.
                let status = facts.get("status").to_owned();
                *self.protocol.entry(status).or_default() += 1;
                continue;
            }
            if config.area == "policy" {
                // Many are denied on purpose.
                self.authz.note(config, facts);
                self.identities.note(config, at, facts);
                continue;
            }
            self.could += 1;
            self.reached += u64::from(facts.get("upstream count") != "0");
            for flag in facts.get("log flags").split(',') {
                *self.flags.entry(flag.to_owned()).or_default() += 1;
            }
            let details = facts.get("log details");
            let details = details.split(['{', ':']).next().unwrap_or(details);
            *self.details.entry(details.to_owned()).or_default() += 1;
            for pause in chance::each_pause(facts) {
                *self.pauses.entry(pause.to_owned()).or_default() += 1;
            }
            if config.area == "actions" && facts.get("log before 0 details") == "internal_redirect"
            {
                self.one("redirect followed", true);
            } else if config.area == "actions" && facts.get("status").starts_with("30") {
                self.one("redirect followed", false);
            }
            if config.area == "ejection" && facts.get("log route") == "high" {
                let room = facts.get("upstream count") != "0";
                self.one("priority HIGH, and there was room", room);
            }
            if config.area == "retries" && is_hedged(config, facts.get("log route")) {
                let attempts = facts.get("log attempts").parse().unwrap_or(0);
                self.one("attempts may overlap, and there are several", attempts > 1);
            }
            if config.area == "retries" {
                let attempts = facts.get("log attempts").parse().unwrap_or(0);
                if let Some(condition) = area::retried_for(config, facts.get("log route")) {
                    self.one(&format!("retry on {condition}"), attempts > 1);
                }
            }
            if config.area == "yaml" {
                let documents = config.source.clusters.to_string();
                for policy in POLICIES.iter().filter(|it| documents.contains(**it)) {
                    *self.policies.entry(policy).or_default() += 1;
                }
                self.fields.note(&config.source, facts.get("log route"));
            }
            if config.area == "routes" {
                self.conditions(&manager["route_config"], facts.get("log route"));
            }
        }
    }

    /// Notes what the judge counted.
    fn counted(&mut self, facts: &Facts) {
        for (name, value) in &facts.facts {
            let counter = name
                .split_once("CONFIG.")
                .and_then(|(_, it)| it.split_once('.'));
            if let (Some((_, counter)), Ok(value)) = (counter, value.parse::<u64>())
                && COUNTERS.contains(&counter)
            {
                *self.counters.entry(counter.to_owned()).or_default() += value;
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
        let both = [
            ("actions", "redirect followed"),
            ("retries", "attempts may overlap, and there are several"),
            ("ejection", "priority HIGH, and there was room"),
        ];
        for (_, kind) in both.iter().filter(|(area, _)| areas.contains(area)) {
            let (held, not) = self.conditions.get(*kind).copied().unwrap_or_default();
            if held.min(not) < EACH_RETRY {
                lacking.push(format!("{kind}: held {held} times, did not {not} times"));
            }
        }
        if areas.contains(&"balancing") {
            let before = lacking.len();
            for kind in balancing::KINDS {
                let seen = self.balancing.get(kind).copied().unwrap_or_default();
                if seen < EACH_BALANCING {
                    lacking.push(format!("{kind}: {seen} requests"));
                }
            }
            if lacking.len() - before <= RARE {
                lacking.truncate(before);
            }
        }
        if areas.contains(&"replies") {
            for flag in FAILURES {
                let seen = self.flags.get(*flag).copied().unwrap_or_default();
                if seen < EACH_FAILURE {
                    lacking.push(format!("flag {flag}: {seen} times"));
                }
            }
            for details in LEFT {
                let seen = self.details.get(*details).copied().unwrap_or_default();
                if seen < EACH_RETRY {
                    lacking.push(format!("{details}: {seen} times"));
                }
            }
        }
        if areas.contains(&"protocol") {
            for status in PROTOCOL {
                let seen = self.protocol.get(*status).copied().unwrap_or_default();
                if seen < EACH_FAILURE {
                    lacking.push(format!("protocol, status {status}: {seen} times"));
                }
            }
            for (kind, _) in protocol::KINDS {
                let seen = self.bent.get(kind).copied().unwrap_or_default();
                if seen < EACH_FAILURE {
                    lacking.push(format!("protocol, {kind}: {seen} times"));
                }
            }
        }
        if areas.contains(&"policy") {
            lacking.extend(self.authz.lacking());
            lacking.extend(self.identities.lacking());
        }
        if areas.contains(&"retries") {
            let conditions = area::retry_conditions();
            for kind in conditions.map(|name| format!("retry on {name}")) {
                let (held, not) = self.conditions.get(&kind).copied().unwrap_or_default();
                if held.min(not) < EACH_RETRY {
                    lacking.push(format!("{kind}: held {held} times, did not {not} times"));
                }
            }
            let flags = RETRY_FLAGS.iter().map(|it| (it, &self.flags));
            for pause in ["1st", "2nd", "3rd", "4th"] {
                let seen = self.pauses.get(pause).copied().unwrap_or_default();
                if seen < EACH_PAUSE {
                    lacking.push(format!("pauses in the {pause} quarter: {seen}"));
                }
            }
            let details = RETRY_DETAILS.iter().map(|it| (it, &self.details));
            for (it, all) in flags.chain(details) {
                let seen = all.get(*it).copied().unwrap_or_default();
                if seen < EACH_RETRY {
                    lacking.push(format!("{it}: {seen} times"));
                }
            }
        }
        lacking.extend(self.parts.lacking(areas));
        let compiled = areas.contains(&"yaml");
        if compiled {
            lacking.extend(self.fields.lacking());
            lacking.extend(few(POLICIES, &self.policies, EACH_POLICY));
            let (all, refused) = self.configs.get("yaml").copied().unwrap_or_default();
            if refused * 100 > all * REFUSED {
                lacking.push(format!(
                    "{refused} of {all} configurations of Istio's were refused"
                ));
            }
        }
        let raw = areas.iter().any(|area| *area != "yaml");
        let wanted = [(raw, SUBJECTS[0]), (compiled, SUBJECTS[1])];
        for (wanted, subjects) in wanted
            .into_iter()
            .chain([(areas.contains(&"policy"), JUDGED)])
        {
            for subject in subjects.iter().filter(|_| wanted) {
                let sets = self.subjects.get(subject).copied().unwrap_or_default();
                if sets < EACH_SUBJECT {
                    lacking.push(format!("{subject}: compared for {sets} requests"));
                }
            }
        }
        if areas.contains(&"ejection") {
            let missed: Vec<_> = few(CHECKS, &self.checks, EACH_CHECK).collect();
            // The area is small: one of them may be missed by a seed.
            if missed.len() > 1 {
                lacking.extend(missed);
            }
            for counter in COUNTERS {
                let seen = self.counters.get(*counter).copied().unwrap_or_default();
                if seen < EACH_COUNTER {
                    lacking.push(format!("{counter}: {seen} times"));
                }
            }
        }
        for (area, late) in &self.late {
            let (all, _) = self.configs.get(area).copied().unwrap_or_default();
            if late * 100 > all * LATE {
                lacking.push(format!(
                    "{late} of {all} configurations of {area} were not in time"
                ));
            }
        }
        let [of_all, of_some] = REACHING;
        let is_all = AREAS.iter().all(|area| areas.contains(&area.name));
        let least = if is_all { of_all } else { of_some };
        if self.reached * 100 < self.could * least {
            let (reached, all) = (self.reached, self.could);
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
        for (kind, requests) in &self.balancing {
            writeln!(f, "coverage: balancing {kind}: {requests}")?;
        }
        for (flag, times) in &self.flags {
            writeln!(f, "coverage: flag {flag}: {times}")?;
        }
        for (part, times) in &self.pauses {
            writeln!(f, "coverage: pauses, {part} of the window: {times}")?;
        }
        for (details, times) in &self.details {
            writeln!(f, "coverage: details {details}: {times}")?;
        }
        write!(f, "{}{}", self.authz, self.identities)?;
        for (status, times) in &self.protocol {
            writeln!(f, "coverage: protocol, status {status}: {times}")?;
        }
        for (kind, times) in &self.bent {
            writeln!(f, "coverage: protocol, {kind}: {times}")?;
        }
        write!(f, "{}{}", self.fields, self.parts)?;
        for (part, times) in self.policies.iter().chain(&self.checks) {
            writeln!(f, "coverage: {part}: {times} requests")?;
        }
        for (area, (all, refused)) in &self.configs {
            let late = self.late.get(area).copied().unwrap_or_default();
            writeln!(
                f,
                "coverage: {area}: {all} configurations, {refused} refused by Envoy or by us, \
                 {late} never in time"
            )?;
        }
        for (subject, sets) in &self.subjects {
            writeln!(f, "coverage: {subject}: {sets} requests compared")?;
        }
        for (counter, times) in &self.counters {
            writeln!(f, "coverage: {counter}: {times}")?;
        }
        let share = self.reached * 100 / self.could.max(1);
        write!(f, "coverage: {share} % of requests reached a backend")
    }
}

/// Whether a route lets attempts overlap.
fn is_hedged(config: &Config, route: &str) -> bool {
    let host = &config.source.manager["route_config"]["virtual_hosts"][0];
    let mut routes = list(&host["routes"]).iter();
    let route = routes.find(|it| it["name"] == route);
    route.is_some_and(|it| !it["route"]["hedge_policy"].is_null())
}

/// Those of which there were too few.
fn few<'a>(
    wanted: &'a [&str],
    seen: &'a BTreeMap<&str, u64>,
    least: u64,
) -> impl Iterator<Item = String> + 'a {
    let times = wanted
        .iter()
        .map(|it| (it, seen.get(it).copied().unwrap_or_default()));
    let few = times.filter(move |(_, times)| *times < least);
    few.map(|(it, times)| format!("{it}: {times} requests"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
