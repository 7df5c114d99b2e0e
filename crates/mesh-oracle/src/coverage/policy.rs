//! What of the area of policies was exercised.

use crate::area::policy;
use crate::config::Config;
use crate::facts::Facts;
use std::collections::BTreeMap;
use std::fmt;

/// Least number of times that requests are denied, and are not, where a kind of condition is asked.
const EACH: u64 = 10;
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
pub(super) struct Policies(BTreeMap<&'static str, (u64, u64)>);

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
        if filters.contains("JwtAuthentication") {
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
        for kind in policy::kinds(&config.source.manager["http_filters"]) {
            self.one(kind, denied);
        }
    }

    fn one(&mut self, kind: &'static str, denied: bool) {
        let seen = self.0.entry(kind).or_default();
        *(if denied { &mut seen.0 } else { &mut seen.1 }) += 1;
    }

    pub(super) fn lacking(&self) -> Vec<String> {
        let mut lacking = Vec::new();
        let both = KINDS
            .iter()
            .chain(&["no route, or denied", "asked for tokens"]);
        for kind in both {
            let (denied, not) = self.0.get(*kind).copied().unwrap_or_default();
            if denied.min(not) < EACH {
                lacking.push(format!(
                    "policy, {kind}: denied {denied} times, not {not} times"
                ));
            }
        }
        let once = [
            "denied by a policy's name",
            "reached a backend",
            "asked: allowed",
            "asked: denied",
            "asked: failed",
        ];
        for kind in once.iter().chain(REFUSALS) {
            let (seen, _) = self.0.get(*kind).copied().unwrap_or_default();
            if seen < EACH {
                lacking.push(format!("policy, {kind}: {seen} times"));
            }
        }
        let (seen, _) = self.0.get("asked: too large").copied().unwrap_or_default();
        if seen == 0 {
            lacking.push("policy, asked: too large: never".to_owned());
        }
        lacking
    }
}

impl fmt::Display for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, (denied, not)) in &self.0 {
            writeln!(f, "coverage: policy, {kind}: denied {denied}, not {not}")?;
        }
        Ok(())
    }
}
