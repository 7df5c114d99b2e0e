//! Which fields of VirtualServices requests really met.

use super::list;
use crate::config::Source;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Least number of requests that meet a rule with the field.
const EACH: u64 = 50;

/// Fields of `http` that have an effect, but for what may be one of several things in one place.
const FIELDS: &[&str] = &[
    "name",
    "match.name",
    "match.uri.exact",
    "match.uri.prefix",
    "match.uri.regex",
    "match.ignoreUriCase",
    "match.scheme",
    "match.method",
    "match.authority",
    "match.headers.*.exact",
    "match.headers.*.prefix",
    "match.headers.*.regex",
    "match.headers.*",
    "match.withoutHeaders",
    "match.queryParams",
    "match.port",
    "match.sourceLabels",
    "match.sourceNamespace",
    "match.gateways",
    "match.statPrefix",
    "route",
    "route.destination.subset",
    "route.destination.port",
    "route.headers",
    "route.weight",
    "redirect.uri",
    "redirect.prefixRewrite",
    "redirect.authority",
    "redirect.scheme",
    "redirect.port",
    "redirect.derivePort",
    "redirect.redirectCode",
    "directResponse.status",
    "directResponse.body.string",
    "directResponse.body.bytes",
    "delegate",
    "rewrite.uri",
    "rewrite.authority",
    "rewrite.uriRegexRewrite",
    "timeout",
    "retries.attempts",
    "retries.retryOn",
    "retries.perTryTimeout",
    "retries.backoff",
    "retries.retryIgnorePreviousHosts",
    "retries.retryRemoteLocalities",
    "fault.delay",
    "fault.abort.httpStatus",
    "fault.abort.grpcStatus",
    "mirror",
    "mirrorPercentage",
    "mirrors",
    "corsPolicy.allowOrigins",
    "corsPolicy.allowMethods",
    "corsPolicy.allowHeaders",
    "corsPolicy.exposeHeaders",
    "corsPolicy.maxAge",
    "corsPolicy.allowCredentials",
    "corsPolicy.unmatchedPreflights",
    "headers.request.set",
    "headers.request.add",
    "headers.request.remove",
    "headers.response.set",
    "headers.response.add",
    "headers.response.remove",
];

/// Fields with names of one's own in them.
const MAPS: &[&str] = &[
    "match.headers",
    "match.withoutHeaders",
    "queryParams",
    "request.set",
    "request.add",
    "response.set",
    "response.add",
    "sourceLabels",
];

/// How often rules with a field were met.
#[derive(Debug, Default)]
pub(super) struct Fields(BTreeMap<String, u64>);

// === impl Fields ===

impl Fields {
    /// Notes the rule that a request met, by its name in the access log.
    pub(super) fn note(&mut self, source: &Source, chosen: &str) {
        let (rule, block) = chosen.split_once('.').unwrap_or((chosen, ""));
        let (root, leaf) = match rule.split_once('-') {
            Some((root, leaf)) => (root, Some(leaf)),
            None => (rule, None),
        };
        let named = |of: &Value, name: &str| {
            let mut rules = list(&of["spec"]["http"]).iter();
            rules.find(|it| it["name"] == name).cloned()
        };
        let main = source.documents("VirtualService");
        let Some(root) = main.clone().find_map(|it| named(it, root)) else {
            return;
        };
        let mut met = BTreeSet::new();
        let mut note = |rule: &Value, block: &str| {
            let mut rest = rule.clone();
            let blocks = rest["match"].take();
            let is = |it: &&Value| it["name"].as_str().unwrap_or("") == block;
            let mut fitting = list(&blocks).iter().filter(is);
            // Of several without a name it is not known which.
            if let (Some(block), None) = (fitting.next(), fitting.next()) {
                fields("match.", block, &mut met);
            }
            fields("", &rest, &mut met);
        };
        match leaf {
            None => note(&root, block),
            Some(leaf) => {
                let name = &root["delegate"]["name"];
                let rule = main.filter(|it| it["metadata"]["name"] == *name);
                let rule = rule.filter_map(|it| named(it, leaf)).next();
                note(&root, "top");
                let own = block.strip_prefix("top-").unwrap_or("");
                note(&rule.unwrap_or_default(), own);
            }
        }
        for field in met {
            *self.0.entry(field).or_default() += 1;
        }
    }

    /// Those that were not met often enough.
    pub(super) fn lacking(&self) -> Vec<String> {
        let times = |field: &str| self.0.get(field).copied().unwrap_or_default();
        let few = FIELDS.iter().filter(|field| times(field) < EACH);
        few.map(|field| format!("http[].{field}: met {} times", times(field)))
            .collect()
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (field, times) in &self.0 {
            writeln!(f, "coverage: http[].{field}: {times}")?;
        }
        Ok(())
    }
}

/// The paths of all fields, and of those in lists without their places.
fn fields(path: &str, value: &Value, into: &mut BTreeSet<String>) {
    for (name, inner) in value.as_object().into_iter().flatten() {
        // At 0 % nothing happens.
        let never = |it: &Value| it["percentage"]["value"] == 0.0 || it["percentage"] == 0.0;
        if inner.is_null() || never(inner) {
            continue;
        }
        let path = format!("{path}{name}");
        into.insert(path.clone());
        // What follows are names of somebody's headers and parameters.
        if MAPS.iter().any(|map| path.ends_with(map)) {
            let kinds = inner
                .as_object()
                .into_iter()
                .flatten()
                .map(|(_, wanted)| wanted);
            let kinds = kinds.map(|it| it.as_object().and_then(|it| it.keys().next()));
            let path = |kind: Option<&String>| match kind {
                Some(kind) => format!("{path}.*.{kind}"),
                None => format!("{path}.*"),
            };
            into.extend(kinds.map(path));
            continue;
        }
        for item in list(inner).iter().chain([inner]) {
            if !never(item) {
                fields(&format!("{path}."), item, into);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Role;
    use serde_json::json;

    fn met(chosen: &str) -> Vec<String> {
        let rules = |name: &str, http: Value| json!({"kind": "VirtualService", "metadata": {"name": name}, "spec": {"http": http}});
        let main = json!([
            {
                "name": "r0",
                "match": [{"name": "m0", "uri": {"exact": "/"}}, {"port": 80}, {"scheme": {}}],
                "fault": {"abort": {"httpStatus": 418, "percentage": {"value": 0.0}}},
                "route": [{"destination": {"host": "a"}, "weight": 1}],
            },
            {"name": "r1", "match": [{"name": "top", "uri": {"prefix": "/"}}], "delegate": {"name": "leaf"}},
        ]);
        let leaf =
            json!([{"name": "d0", "match": [{"method": {"exact": "GET"}}], "timeout": "1s"}]);
        let documents = vec![rules("main", main), rules("leaf", leaf)];
        let mut fields = Fields::default();
        fields.note(&Source::istio(Role::Sidecar, documents), chosen);
        fields.0.into_keys().collect()
    }

    #[test]
    fn the_fields_of_the_rule_and_of_the_block_that_was_met_are_told() {
        let route = [
            "fault",
            "name",
            "route",
            "route.destination",
            "route.destination.host",
            "route.weight",
        ];
        let block = ["match.name", "match.uri", "match.uri.exact"];
        let all: BTreeSet<&str> = route.into_iter().chain(block).collect();
        assert_eq!(met("r0.m0"), all.into_iter().collect::<Vec<_>>());
        // Two blocks have no name.
        assert_eq!(met("r0"), route);
        assert!(met("nobody").is_empty());
    }

    #[test]
    fn of_a_delegate_the_fields_of_both_rules_are_told() {
        let fields = met("r1-d0.top");
        for wanted in ["delegate", "match.uri.prefix", "match.method", "timeout"] {
            assert!(
                fields.iter().any(|it| it == wanted),
                "{wanted} in {fields:?}"
            );
        }
    }
}
