//! As whom callers were judged.

use crate::area::policy;
use crate::callers::{ALL, From, Who};
use crate::config::Config;
use crate::facts::Facts;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// Least number of times that what a policy asks of an identity holds, and does not.
const EACH: u64 = 50;
/// Least number of requests of each caller, and with each way to tell of them.
const EACH_CALLER: u64 = 10;

/// What is asked of identities.
const KINDS: [&str; 8] = [
    "principals",
    "namespaces",
    "serviceAccounts",
    "trustDomains",
    "notPrincipals",
    "notNamespaces",
    "notServiceAccounts",
    "notTrustDomains",
];

/// Another name of the mesh's trust domain.
const ALIAS: &str = "alias.test/";
const DOMAIN: &str = "cluster.local/";

#[derive(Debug, Default)]
pub(super) struct Identities {
    /// How often something held, and how often not.
    asked: BTreeMap<&'static str, [u64; 2]>,
    /// Answered requests of callers.
    callers: BTreeMap<&'static str, u64>,
    /// Requests that reached a backend, by what it was to hear of callers.
    told: BTreeMap<&'static str, u64>,
}

// === impl Identities ===

impl Identities {
    /// Notes a request that was answered.
    pub(super) fn note(&mut self, config: &Config, at: usize, facts: &Facts) {
        let secured = config.calls.get(at).and_then(|call| call.secured);
        let Some(who) = secured.and_then(|how| Who::named(how.as_whom)) else {
            return;
        };
        if facts.get("status") == "0" {
            return;
        }
        *self.callers.entry(who.name).or_default() += 1;
        let manager = &config.source.manager;
        let mode = manager["forward_client_cert_details"].as_str();
        let mode = policy::FORWARDING.into_iter().find(|it| Some(*it) == mode);
        if let Some(mode) = mode.filter(|_| facts.get("upstream count") != "0") {
            *self.told.entry(mode).or_default() += 1;
        }
        if config.source.role().is_none() {
            return;
        }
        let documents = config.source.clusters.as_array().into_iter().flatten();
        for (kind, values) in policy::asked(documents) {
            let known = KINDS.iter().find(|it| **it == kind);
            if let (Some(kind), Some(values)) = (known, values) {
                let mut texts = values.iter().filter_map(Value::as_str);
                let is = texts.any(|value| who.uris.iter().any(|id| fits(kind, value, id)));
                let holds = is != kind.starts_with("not");
                self.asked.entry(kind).or_default()[usize::from(!holds)] += 1;
            }
        }
    }

    pub(super) fn lacking(&self) -> Vec<String> {
        let mut lacking = Vec::new();
        for kind in KINDS {
            let [held, not] = self.asked.get(kind).copied().unwrap_or_default();
            if held.min(not) < EACH {
                lacking.push(format!("{kind}: held {held} times, not {not} times"));
            }
        }
        // Others are mostly refused.
        let ours = ALL.iter().filter(|who| who.from == From::Mesh);
        let callers = ours.map(|who| (who.name, &self.callers));
        let told = policy::FORWARDING.into_iter().map(|it| (it, &self.told));
        for (name, all) in callers.chain(told) {
            let seen = all.get(name).copied().unwrap_or_default();
            if seen < EACH_CALLER {
                lacking.push(format!("callers, {name}: {seen} times"));
            }
        }
        lacking
    }
}

/// Whether an identity is what a value of a policy says.
fn fits(kind: &str, value: &str, id: &str) -> bool {
    let Some(principal) = id.strip_prefix("spiffe://") else {
        return false;
    };
    let (domain, rest) = principal.split_once('/').unwrap_or((principal, ""));
    let mut parts = rest.split('/');
    let (namespace, account) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("ns"), Some(namespace), Some("sa"), Some(account)) => (namespace, account),
        _ => ("", ""),
    };
    let kind = kind.strip_prefix("not").unwrap_or(kind).to_lowercase();
    match kind.as_str() {
        "principals" => {
            let by_domain = principal.replacen(ALIAS, DOMAIN, 1);
            like(value, principal) || like(value, &by_domain)
        }
        "namespaces" => like(value, namespace),
        "serviceaccounts" => value == format!("{namespace}/{account}"),
        _ => like(value, domain),
    }
}

/// Whether a text is what a value with a star at an end says.
fn like(value: &str, text: &str) -> bool {
    match (value.strip_prefix('*'), value.strip_suffix('*')) {
        (Some(""), _) => !text.is_empty(),
        (Some(end), _) => text.ends_with(end),
        (_, Some(start)) => text.starts_with(start),
        _ => value == text,
    }
}

impl fmt::Display for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, [held, not]) in &self.asked {
            writeln!(f, "coverage: identities, {kind}: held {held}, not {not}")?;
        }
        for (name, times) in self.callers.iter().chain(&self.told) {
            writeln!(f, "coverage: callers, {name}: {times}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_of_a_namespace_an_account_and_a_domain() {
        let id = "spiffe://alias.test/ns/a/sa/b";
        for (kind, value, expected) in [
            ("principals", "cluster.local/ns/a/sa/b", true),
            ("principals", "*/sa/b", true),
            ("notPrincipals", "cluster.local/ns/x/*", false),
            ("namespaces", "a*", true),
            ("serviceAccounts", "a/b", true),
            ("serviceAccounts", "b", false),
            ("trustDomains", "alias.*", true),
            ("notTrustDomains", "cluster.local", false),
        ] {
            assert_eq!(fits(kind, value, id), expected, "{kind} {value}");
        }
        assert!(!fits("namespaces", "*", "spiffe://cluster.local/a/b"));
    }
}
