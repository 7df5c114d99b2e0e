//! Counters of a configuration's clusters and of its connection manager.

use crate::facts::Facts;
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
    "upstream_rq_timeout",
    "upstream_rq_per_try_timeout",
    "upstream_rq_max_duration_reached",
    "upstream_rq_retry",
    "upstream_rq_retry_success",
    "upstream_rq_retry_overflow",
    "upstream_rq_retry_limit_exceeded",
    "upstream_rq_rx_reset",
    "upstream_rq_cancelled",
    "upstream_rq_maintenance_mode",
    "upstream_cx_connect_fail",
    "upstream_cx_connect_timeout",
    "upstream_rq_tx_reset",
    "upstream_cx_none_healthy",
    "upstream_cx_protocol_error",
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
    "no_route",
    "no_cluster",
    "rq_total",
    "rq_redirect",
    "rq_direct_response",
    "rq_reset_after_downstream_response_started",
    "fault.aborts_injected",
    "fault.delays_injected",
    "cors.origin_valid",
    "cors.origin_invalid",
];

/// What was counted for the configuration `id` between two looks.
pub(crate) fn facts(
    id: &str,
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
) -> Facts {
    let mut facts = Facts::with_masks(vec![(id.to_owned(), "CONFIG")]);
    for (name, value) in after {
        let of_manager = name
            .strip_prefix("http.")
            .and_then(|rest| rest.strip_prefix(id)?.strip_prefix('.'))
            .is_some_and(|rest| OF_MANAGER.contains(&rest));
        let of_cluster = name
            .strip_prefix("cluster.")
            .and_then(|rest| rest.strip_prefix(id)?.strip_prefix('.')?.split_once('.'))
            .is_some_and(|(_, rest)| OF_CLUSTER.contains(&rest) || is_code(rest));
        let grown = value.saturating_sub(*before.get(name).unwrap_or(&0));
        if (of_manager || of_cluster) && grown > 0 {
            facts.put(
                &format!("counter {}", name.replace(id, "CONFIG")),
                grown.to_string(),
            );
        }
    }
    facts
}

fn is_code(name: &str) -> bool {
    name.strip_prefix("upstream_rq_")
        .is_some_and(|code| code.len() == 3 && code.bytes().all(|it| it.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let facts = facts("c1", &stats(3), &stats(5)).facts;
        let told: Vec<(&str, &str)> = facts.iter().map(|(k, v)| (&**k, &**v)).collect();
        let expected = [
            ("counter cluster.CONFIG.a.upstream_rq_503", "2"),
            ("counter cluster.CONFIG.a.upstream_rq_total", "2"),
            ("counter http.CONFIG.downstream_rq_total", "2"),
        ];
        assert_eq!(told, expected);
    }
}
