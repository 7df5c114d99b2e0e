//! What of balancing a configuration exercises.

use crate::config::Config;
use serde_json::Value;

/// Words in a configuration that each have to come up.
pub(crate) const KINDS: &[&str] = &[
    "RING_HASH",
    "MAGLEV",
    "RANDOM",
    "ROUND_ROBIN",
    "LEAST_REQUEST",
    "ring_hash.v3",
    "maglev.v3",
    "random.v3",
    "round_robin.v3",
    "least_request.v3",
    "subset.v3",
    "client_side_weighted_round_robin.v3",
    "wrr_locality.v3",
    "metric_names_for_computing_utilization",
    "error_utilization_penalty",
    "override_host.v3",
    "override_host_status",
    "CookieBasedSessionState",
    "HeaderBasedSessionState",
    "EnvelopeSessionState",
    "StatefulSessionPerRoute",
    "\"strict\":true",
    "status_on_strict_destination_not_found",
    "MURMUR_HASH_2",
    "minimum_ring_size",
    "maximum_ring_size",
    "table_size",
    "use_hostname_for_hashing",
    "hash_balance_factor",
    "hash_key",
    "load_balancing_weight",
    "\"priority\":1",
    "\"priority\":2",
    "UNHEALTHY",
    "DEGRADED",
    "DRAINING",
    "overprovisioning_factor",
    "healthy_panic_threshold",
    "locality_weighted_lb_config",
    "zone_aware_lb_config",
    "fail_traffic_on_panic",
    "slow_start_config",
    "active_request_bias",
    "choice_count",
    "drop_overloads",
    "lb_subset_config",
    "single_host_per_subset",
    "panic_mode_any",
    "default_subset",
    "NO_FALLBACK",
    "ANY_ENDPOINT",
    "DEFAULT_SUBSET",
    "KEYS_SUBSET",
    "allow_redundant_keys",
    "FALLBACK_LIST",
    "fallback_list",
    "list_as_any",
    "locality_weight_aware",
    "scale_locality_weight",
    "metadata_match",
    "weighted_clusters",
    "header_name",
    "regex_rewrite",
    "\"cookie\":",
    "\"ttl\":",
    "\"attributes\":",
    "source_ip",
    "query_parameter",
    "terminal",
    "use_remote_address",
    "xff_num_trusted_hops",
];

/// Those that this one has.
pub(crate) fn kinds(config: &Config) -> impl Iterator<Item = &'static str> {
    let text: String = config.source.parts().map(Value::to_string).concat();
    KINDS
        .iter()
        .copied()
        .filter(move |kind| text.contains(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;
    use std::collections::BTreeMap;

    #[test]
    fn every_kind_comes_up_often_enough_in_the_usual_run() {
        // With its usual seed, and no more configurations than the area's share of 300.
        let mut requests = BTreeMap::new();
        for stream in 0..66 {
            let config = super::super::generate(&mut Dice::of(7, 3 << 32 | stream), 35);
            for kind in kinds(&config) {
                *requests.entry(kind).or_default() += config.calls.len();
            }
        }
        let is_rare = |kind: &&str| requests.get(*kind).is_none_or(|times: &usize| *times < 50);
        let rare: Vec<_> = KINDS.iter().copied().filter(is_rare).collect();
        assert!(rare.is_empty(), "{rare:?}");
    }
}
