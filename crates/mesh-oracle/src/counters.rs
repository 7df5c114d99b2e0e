//! Counters of a configuration's clusters and of its connection manager.

use crate::config::Role;
use crate::facts::Facts;
use crate::stage::{Peer, Placed};
use std::collections::BTreeMap;

/// Those of a cluster that are compared (besides `upstream_rq_<code>`).
const OF_CLUSTER: &[&str] = &[
    "upstream_rq_total",
    "upstream_rq_completed",
    "upstream_rq_1xx",
    "upstream_rq_2xx",
    "upstream_rq_3xx",
    "upstream_rq_4xx",
    "upstream_rq_5xx",
    "upstream_rq_pending_overflow",
    "upstream_rq_active_overflow",
    "upstream_rq_pending_failure_eject",
    "upstream_internal_redirect_failed_total",
    "upstream_internal_redirect_succeeded_total",
    "upstream_rq_timeout",
    "upstream_rq_per_try_timeout",
    "upstream_rq_per_try_idle_timeout",
    "upstream_rq_max_duration_reached",
    "upstream_rq_retry",
    "upstream_rq_retry_backoff_exponential",
    "upstream_rq_retry_backoff_ratelimited",
    "upstream_rq_retry_success",
    "upstream_rq_retry_overflow",
    "upstream_rq_retry_limit_exceeded",
    "upstream_rq_rx_reset",
    "upstream_rq_cancelled",
    "upstream_rq_maintenance_mode",
    "upstream_cx_connect_fail",
    "upstream_cx_connect_timeout",
    "upstream_cx_overflow",
    "upstream_cx_pool_overflow",
    "circuit_breakers.default.remaining_pending",
    "circuit_breakers.default.remaining_retries",
    "circuit_breakers.default.remaining_rq",
    "upstream_rq_tx_reset",
    "upstream_cx_none_healthy",
    "upstream_cx_protocol_error",
    "lb_healthy_panic",
    "lb_local_cluster_not_ok",
    "lb_subsets_fallback",
    "lb_subsets_fallback_panic",
    "lb_subsets_selected",
    "lb_zone_no_capacity_left",
    "lb_zone_routing_all_directly",
    "maglev_lb.max_entries_per_host",
    "maglev_lb.min_entries_per_host",
    "ring_hash_lb.max_hashes_per_host",
    "ring_hash_lb.min_hashes_per_host",
    "ring_hash_lb.size",
    "upstream_rq_drop_overload",
    "outlier_detection.ejections_enforced_total",
    "outlier_detection.ejections_overflow",
    "outlier_detection.ejections_enforced_consecutive_5xx",
    "outlier_detection.ejections_detected_consecutive_5xx",
    "outlier_detection.ejections_enforced_consecutive_gateway_failure",
    "outlier_detection.ejections_detected_consecutive_gateway_failure",
    "outlier_detection.ejections_enforced_consecutive_local_origin_failure",
    "outlier_detection.ejections_detected_consecutive_local_origin_failure",
    "outlier_detection.ejections_enforced_success_rate",
    "outlier_detection.ejections_enforced_failure_percentage",
];

/// Those of a connection manager.
const OF_MANAGER: &[&str] = &[
    "downstream_rq_total",
    "downstream_rq_completed",
    "downstream_rq_1xx",
    "downstream_rq_2xx",
    "downstream_rq_3xx",
    "downstream_rq_4xx",
    "downstream_rq_5xx",
    "downstream_rq_rejected_via_ip_detection",
    "downstream_cx_protocol_error",
    "downstream_cx_upgrades_total",
    "stateful_session.st.routed",
    "stateful_session.st.failed_open",
    "stateful_session.st.failed_closed",
    "stateful_session.st.no_session",
    "passthrough_internal_redirect_bad_location",
    "passthrough_internal_redirect_no_route",
    "passthrough_internal_redirect_predicate",
    "passthrough_internal_redirect_too_many_redirects",
    "passthrough_internal_redirect_unsafe_scheme",
    "no_route",
    "no_cluster",
    "rq_total",
    "rq_redirect",
    "rq_direct_response",
    "rq_reset_after_downstream_response_started",
    "fault.aborts_injected",
    "fault.delays_injected",
    "fault.response_rl_injected",
    "fault.faults_overflow",
    "rbac.allowed",
    "rbac.denied",
    "rbac.shadow_allowed",
    "rbac.shadow_denied",
    "rbac.own_.allowed",
    "rbac.own_.denied",
    "rbac.own_.shadow_allowed",
    "rbac.own_.shadow_denied",
    "rbac.asked_.shadow_allowed",
    "rbac.asked_.shadow_denied",
    "ext_authz.ok",
    "ext_authz.denied",
    "ext_authz.error",
    "ext_authz.failure_mode_allowed",
    "ext_authz.own.ok",
    "ext_authz.own.denied",
    "ext_authz.own.error",
    "ext_authz.own.failure_mode_allowed",
    "cors.origin_valid",
    "cors.origin_invalid",
];

/// Requests that were reset, of a connection manager, where callers do that. Envoy counts those, too,
/// whose head cannot be read, and those whose body was not whole when they were answered, which is a
/// matter of time.
const RESETS: &[&str] = &["downstream_rq_rx_reset", "downstream_rq_tx_reset"];

/// Those of a rule with statistics of its own that are compared.
const OF_RULE: &[&str] = &[
    "upstream_rq_completed",
    "upstream_rq_1xx",
    "upstream_rq_2xx",
    "upstream_rq_3xx",
    "upstream_rq_4xx",
    "upstream_rq_5xx",
    "upstream_rq_timeout",
    "upstream_rq_retry",
    "upstream_rq_retry_success",
    "upstream_rq_retry_overflow",
    "upstream_rq_retry_limit_exceeded",
];

/// What was counted for a configuration at a subject between two looks.
///
/// Sizes of tables of hashes are left out where there are several of them, with subsets or
/// priorities: they tell of whichever was built last.
pub(crate) fn facts(
    placed: &Placed<'_>,
    peer: &Peer,
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
) -> Facts {
    let id = &placed.id;
    let mut facts = Facts::with_masks(vec![(id.clone(), "CONFIG")]);
    // Listeners of Istio's documents have no name but their address.
    let way = match placed.config.source.role() {
        Some(Role::Inbound) => "inbound",
        _ => "outbound",
    };
    let listener = format!("{way}_{}_{}", peer.address, placed.port);
    let compiled = placed.config.source.role().is_some();
    let clusters = placed.config.source.clusters.to_string();
    let sizes = !clusters.contains("subset") && !clusters.contains(r#""priority":1"#);
    for (name, value) in after {
        let is = |names: &[&str]| {
            let ends = |of: &&str| {
                let rest = name.strip_suffix(of);
                rest.is_some_and(|rest| rest.ends_with('.'))
            };
            names.iter().any(ends)
        };
        let counted = if compiled {
            let of_manager = name.starts_with(&format!("http.{listener}."));
            // The same once more by where a request came from is not told.
            let once_more = [".internal.", ".external."];
            let of_cluster = name.starts_with("cluster.")
                && name.contains(id)
                && !once_more.iter().any(|it| name.contains(it));
            let of_rule = name.starts_with("vhost.") && name.contains(id);
            let code = name.rsplit('.').next().is_some_and(is_code);
            (of_manager && is(OF_MANAGER))
                || (of_cluster && (is(OF_CLUSTER) || code))
                || (of_rule && is(OF_RULE))
        } else {
            let of = |kind: &str| name.strip_prefix(kind)?.strip_prefix(id)?.strip_prefix('.');
            let of_cluster = of("cluster.").and_then(|rest| rest.split_once('.'));
            let of_cluster = of_cluster.is_some_and(|(_, rest)| {
                let retried = rest.starts_with("retry.") || of_canary(rest);
                OF_CLUSTER.contains(&rest) || is_code(rest) || retried
            });
            // All of them, where the virtual host has a name of this configuration.
            let of_route = of("vhost.")
                .and_then(|rest| rest.split_once(".route."))
                .is_some_and(|(_, rest)| rest.contains(".upstream_rq_") && !rest.contains("time"));
            let resets = placed.config.area == "replies";
            let bodiless = || placed.config.calls.iter().all(|call| call.body.is_empty());
            let of_manager = of("http.").is_some_and(|rest| {
                OF_MANAGER.contains(&rest) || (RESETS.contains(&rest) && resets && bodiless())
            });
            of_manager || of_cluster || of_route
        };
        let is_size = name.contains("_lb.");
        // What is there now.
        let before = match is_size || name.contains(".remaining_") {
            true => 0,
            false => *before.get(name).unwrap_or(&0),
        };
        let grown = value.saturating_sub(before);
        let known = !placed.config.is_uncounted() || name.contains(".outlier_detection.");
        if known && counted && grown > 0 && (sizes || !is_size) {
            let name = name.replace(&listener, "LISTENER").replace(&**id, "CONFIG");
            facts.put(&format!("counter {name}"), grown.to_string());
        }
    }
    facts
}

/// But for how long they took.
fn of_canary(name: &str) -> bool {
    name.starts_with("canary.upstream_rq_") && name != "canary.upstream_rq_time"
}

fn is_code(name: &str) -> bool {
    name.strip_prefix("upstream_rq_")
        .is_some_and(|code| code.len() == 3 && code.bytes().all(|it| it.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Source};

    fn told(source: Source, names: &[&str]) -> Vec<String> {
        let config = Config {
            area: "yaml",
            source,
            calls: Vec::new(),
        };
        let placed = Placed {
            id: "c1".into(),
            port: 80,
            config: &config,
        };
        let peer = Peer::new("envoy", [127, 0, 0, 1].into(), "log".into());
        let after = names.iter().map(|name| ((*name).to_owned(), 1)).collect();
        let facts = facts(&placed, &peer, &BTreeMap::new(), &after);
        facts.facts.into_keys().collect()
    }

    #[test]
    fn of_compiled_configurations_clusters_rules_and_the_listener_are_told() {
        let names = [
            "cluster.outbound|80||a.c1.svc.cluster.local.upstream_rq_total",
            "cluster.outbound|80||a.c1.svc.cluster.local.upstream_rq_404",
            "cluster.outbound|80||a.c1.svc.cluster.local.external.upstream_rq_404",
            "cluster.outbound|80||a.c2.svc.cluster.local.upstream_rq_total",
            "cluster.outbound|80||a.c1.svc.cluster.local.upstream_cx_total",
            "http.outbound_127.0.0.1_80.no_route",
            "http.outbound_127.0.0.1_81.no_route",
            "vhost.a.c1:80.route.s.upstream_rq_2xx",
        ];
        let expected = [
            "counter cluster.outbound|80||a.CONFIG.svc.cluster.local.upstream_rq_404",
            "counter cluster.outbound|80||a.CONFIG.svc.cluster.local.upstream_rq_total",
            "counter http.LISTENER.no_route",
            "counter vhost.a.CONFIG:80.route.s.upstream_rq_2xx",
        ];
        let source = Source::istio(Role::Sidecar, Vec::new());
        assert_eq!(told(source, &names), expected);
    }

    #[test]
    fn only_what_grew_for_this_configuration_is_told() {
        let stats = |total| {
            BTreeMap::from([
                ("cluster.c1.a.upstream_rq_total".to_owned(), total),
                ("cluster.c1.a.upstream_rq_503".to_owned(), total),
                ("cluster.c1.a.upstream_cx_total".to_owned(), total),
                ("cluster.c2.a.upstream_rq_total".to_owned(), total),
                ("http.c1.no_route".to_owned(), 3),
                ("http.c1.downstream_rq_total".to_owned(), total + 1),
            ])
        };
        let config = Config {
            area: "routes",
            source: Source {
                manager: serde_json::json!({}),
                clusters: serde_json::json!([]),
            },
            calls: Vec::new(),
        };
        let placed = Placed {
            id: "c1".into(),
            port: 80,
            config: &config,
        };
        let peer = Peer::new("envoy", [127, 0, 0, 1].into(), "log".into());
        let facts = facts(&placed, &peer, &stats(3), &stats(5)).facts;
        let told: Vec<(&str, &str)> = facts.iter().map(|(k, v)| (&**k, &**v)).collect();
        let expected = [
            ("counter cluster.CONFIG.a.upstream_rq_503", "2"),
            ("counter cluster.CONFIG.a.upstream_rq_total", "2"),
            ("counter http.CONFIG.downstream_rq_total", "2"),
        ];
        assert_eq!(told, expected);
    }
}
