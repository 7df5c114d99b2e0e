//! What of the area of policies was exercised.

use crate::area::policy;
use crate::config::{Config, Role};
use crate::facts::Facts;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// Least number of times that requests are denied, and are not, where a kind of condition is asked.
const EACH: u64 = 10;
/// The same of what Istio's policies ask, and how many kinds of it may be missed by a seed.
const EACH_WRITTEN: u64 = 5;
const RARE: usize = 6;
/// Kinds of conditions.
const KINDS: &[&str] = &[
    "and_ids",
    "and_rules",
    "any",
    "authenticated",
    "destination_ip",
    "destination_port",
    "destination_port_range",
    "direct_remote_ip",
    "header",
    "not_id",
    "not_rule",
    "or_ids",
    "or_rules",
    "remote_ip",
    "requested_server_name",
    "source_ip",
    "uri_template",
    "url_path",
];

/// What is wrong with tokens.
const REFUSALS: &[&str] = &[
    "Audiences_in_Jwt_are_not_allowed",
    "Jwks_doesn't_have_key_to_match_kid_or_alg_from_Jwt",
    "Jwt_is_expired",
    "Jwt_is_missing",
    "Jwt_is_not_in_the_form_of_Header.Payload.Signature_with_two_dots_and_3_sections",
    "Jwt_issuer_is_not_configured",
    "Jwt_not_yet_valid",
    "Jwt_verification_fails",
];

/// How often what was seen: denied, and not.
#[derive(Debug, Default)]
pub(super) struct Policies {
    seen: BTreeMap<&'static str, Times>,
    /// Of kinds in Istio's policies.
    written: BTreeMap<&'static str, Times>,
}

/// How often it was denied, and how often not.
#[derive(Clone, Copy, Debug, Default)]
struct Times(u64, u64);

impl Times {
    fn of(&mut self, denied: bool) -> &mut u64 {
        match denied {
            true => &mut self.0,
            false => &mut self.1,
        }
    }
}

impl Policies {
    pub(super) fn note(&mut self, config: &Config, facts: &Facts) {
        let details = facts.get("log details");
        let denied = details.starts_with("rbac_access_denied_matched_policy");
        if denied && !details.contains("[none]") {
            self.one("denied by a policy's name", true);
        }
        let refused = details.strip_prefix("jwt_authn_access_denied{");
        for why in REFUSALS {
            if refused.and_then(|rest| rest.strip_suffix('}')) == Some(*why) {
                self.one(why, true);
            }
        }
        let filters = config.source.manager["http_filters"].to_string();
        let written = config.source.documents("RequestAuthentication").next();
        if filters.contains("JwtAuthentication") || written.is_some() {
            self.one("asked for tokens", refused.is_some());
        }
        if facts.get("upstream count") != "0" {
            self.one("reached a backend", true);
        }
        if facts.get("status") == "404" || denied {
            self.one("no route, or denied", denied);
        }
        let asked = [
            (
                "asked: allowed",
                facts.get("upstream 0 line").starts_with(['y', 'z'])
                    && facts.get("status") == "200",
            ),
            ("asked: denied", details == "ext_authz_denied"),
            ("asked: failed", details == "ext_authz_error"),
            ("asked: too large", details == "request_payload_too_large"),
        ];
        for (kind, _) in asked.iter().filter(|(_, seen)| *seen) {
            self.one(kind, true);
        }
        let documents = config.source.clusters.as_array();
        if let (Some(documents), Some(role)) = (documents, config.source.role()) {
            self.written(documents, role, denied, details);
            return;
        }
        for kind in policy::kinds(&config.source.manager["http_filters"]) {
            self.one(kind, denied);
        }
        for kind in policy::said(&config.source.manager) {
            self.one(kind, true);
        }
    }

    /// Notes what was asked by Istio's documents.
    fn written(&mut self, documents: &[Value], role: Role, denied: bool, details: &str) {
        let (way, by_trial) = match role {
            Role::Gateway => ("Istio, a gateway", "Istio, on trial on a gateway"),
            _ => ("Istio, the way in", "Istio, on trial on the way in"),
        };
        self.one(way, denied);
        let trial = |it: &Value| !it["metadata"]["annotations"].is_null();
        if documents.iter().any(trial) {
            self.one(by_trial, denied);
        }
        let name = details.strip_prefix("rbac_access_denied_matched_policy[");
        let name = name.filter(|name| *name != "none]");
        for kind in policy::asked_by(documents, name) {
            *self.written.entry(kind).or_default().of(denied) += 1;
        }
    }

    fn one(&mut self, kind: &'static str, denied: bool) {
        *self.seen.entry(kind).or_default().of(denied) += 1;
    }

    pub(super) fn lacking(&self) -> Vec<String> {
        let mut lacking = Vec::new();
        let both = KINDS
            .iter()
            .chain(&["no route, or denied", "asked for tokens"])
            .chain(&["Istio, a gateway", "Istio, the way in"]);
        for kind in both {
            let Times(denied, not) = self.seen.get(*kind).copied().unwrap_or_default();
            if denied.min(not) < EACH {
                lacking.push(format!(
                    "policy, {kind}: denied {denied} times, not {not} times"
                ));
            }
        }
        let mut missed = Vec::new();
        for kind in policy::KINDS {
            let Times(denied, not) = self.written.get(kind).copied().unwrap_or_default();
            if denied.min(not) < EACH_WRITTEN {
                missed.push(format!(
                    "AuthorizationPolicy, {kind}: denied {denied} times, not {not} times"
                ));
            }
        }
        if missed.len() > RARE {
            lacking.extend(missed);
        }
        let once = [
            "denied by a policy's name",
            "reached a backend",
            "asked: allowed",
            "asked: denied",
            "asked: failed",
        ];
        for kind in once.iter().chain(REFUSALS).chain(&policy::SAID) {
            let Times(seen, _) = self.seen.get(*kind).copied().unwrap_or_default();
            if seen < EACH {
                lacking.push(format!("policy, {kind}: {seen} times"));
            }
        }
        let Times(seen, _) = self
            .seen
            .get("asked: too large")
            .copied()
            .unwrap_or_default();
        if seen == 0 {
            lacking.push("policy, asked: too large: never".to_owned());
        }
        lacking
    }
}

impl fmt::Display for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, Times(denied, not)) in &self.seen {
            writeln!(f, "coverage: policy, {kind}: denied {denied}, not {not}")?;
        }
        for (kind, Times(denied, not)) in &self.written {
            writeln!(
                f,
                "coverage: AuthorizationPolicy, {kind}: denied {denied}, not {not}"
            )?;
        }
        Ok(())
    }
}
