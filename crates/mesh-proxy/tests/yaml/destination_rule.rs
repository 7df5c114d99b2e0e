//! `DestinationRule`: subsets, balancing, inheritance, retry budgets, who it is for.

use crate::town::{
    Backend, Reply, Town, client, mesh_config, nobody, object, object_in, policy, refused, routes,
    service, service_at,
};

/// How many connections four requests need: 4 where `maxRequestsPerConnection: 1` is in force.
async fn connections(town: &Town, host: &str, subset: &str) -> u64 {
    town.bodies(host, "/", 4).await;
    town.stat(subset, "upstream_cx_total").await
}

const ONE_EACH: &str = "connectionPool: {http: {maxRequestsPerConnection: 1}}";

#[tokio::test]
async fn subsets_take_the_endpoints_with_their_labels() {
    let (one, two) = (Backend::start("v1").await, Backend::start("v2").await);
    let rule = "{host: a, subsets: [{name: first, labels: {version: v1, app: a}}, {name: all}, \
                {name: none, labels: {version: v1, x: y}}]}";
    let to = |subset: &str| {
        format!(
            "{{match: [{{uri: {{prefix: /{subset}}}}}], route: [{{destination: {{host: a, subset: {subset}}}}}]}}"
        )
    };
    let rules = [to("first"), to("all"), to("none")].join(", ");
    let yaml =
        service("a", &[&one, &two]) + &object("DestinationRule", "a", rule) + &routes(&rules);
    let town = Town::client(&yaml).await;
    town.bodies("a", "/first", 10).await;
    assert_eq!((one.count(), two.count()), (10, 0));
    town.bodies("a", "/all", 40).await;
    assert!(one.count() > 10 && two.count() > 0);
    assert_eq!(
        town.get("a", "/none").await.line(),
        "503 no healthy upstream"
    );
}

#[tokio::test]
async fn load_balancer_round_robin_takes_each_in_turn() {
    let (one, two) = (Backend::start("v1").await, Backend::start("v2").await);
    let yaml = service("a", &[&one, &two]) + &policy("{loadBalancer: {simple: ROUND_ROBIN}}");
    let bodies = Town::client(&yaml).await.bodies("a", "/", 10).await;
    assert!(
        bodies.windows(2).all(|pair| pair[0] != pair[1]),
        "{bodies:?}"
    );
}

#[tokio::test]
async fn load_balancer_random_takes_any() {
    let (one, two) = (Backend::start("v1").await, Backend::start("v2").await);
    let yaml = service("a", &[&one, &two]) + &policy("{loadBalancer: {simple: RANDOM}}");
    let town = Town::client(&yaml).await;
    let bodies = town.bodies("a", "/", 60).await;
    assert!(
        bodies.windows(2).any(|pair| pair[0] == pair[1]),
        "{bodies:?}"
    );
    // How busy a host is does not matter.
    one.plan([Reply::Hold]);
    two.plan([Reply::Hold]);
    let held = town.start_get("a", "/held");
    one.arrived(1).await;
    let before = (one.count(), two.count());
    let more: Vec<_> = (0..40).map(|_| town.start_get("a", "/")).collect();
    while one.count() + two.count() < before.0 + before.1 + 40 {
        tokio::task::yield_now().await;
    }
    assert!(one.count() > before.0 + 5 && two.count() > before.1 + 5);
    one.release();
    two.release();
    held.await.unwrap();
    for task in more {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn load_balancer_least_request_avoids_the_busier_of_two() {
    for simple in ["LEAST_REQUEST", "UNSPECIFIED", "LEAST_CONN", ""] {
        let (one, two) = (Backend::start("v1").await, Backend::start("v2").await);
        let mut yaml = service("a", &[&one, &two]);
        if !simple.is_empty() {
            yaml += &policy(&format!("{{loadBalancer: {{simple: {simple}}}}}"));
        }
        let town = Town::client(&yaml).await;
        one.plan([Reply::Hold]);
        two.plan([Reply::Hold]);
        let held = town.start_get("a", "/held");
        while one.count() + two.count() == 0 {
            tokio::task::yield_now().await;
        }
        let (busy, free) = if one.count() == 1 {
            (&one, &two)
        } else {
            (&two, &one)
        };
        // The other one's plan is used up first.
        let second = town.start_get("a", "/");
        free.arrived(1).await;
        free.release();
        second.await.unwrap();
        town.bodies("a", "/", 20).await;
        // Two draws may hit the busy host twice; Envoy's P2C draws with replacement.
        assert!(free.count() > busy.count() + 5, "{simple}");
        busy.release();
        assert_eq!(held.await.unwrap().status, 200);
    }
}

#[test]
fn zones_and_localities_exclude_one_another() {
    let value = "{loadBalancer: {localityLbSetting: {}, zoneAwareLbSetting: {enabled: true}}}";
    let errors = refused(&policy(value));
    assert!(
        errors.contains("localityLbSetting and zoneAwareLbSetting exclude one another"),
        "{value}: {errors}"
    );
}

#[tokio::test]
async fn tls_disable_is_what_happens_anyway() {
    let one = Backend::start("v1").await;
    let yaml = service("a", &[&one]) + &policy("{tls: {mode: DISABLE}}");
    assert_eq!(
        Town::client(&yaml).await.get("a", "/").await.line(),
        "200 v1"
    );
}

#[tokio::test]
async fn port_level_settings_replace_the_policy_for_their_port() {
    let one = Backend::start("v1").await;
    for (ports, expected) in [
        // Nothing is left of the destination's own pool.
        ("[{port: {number: 80}, loadBalancer: {simple: RANDOM}}]", 1),
        ("[{port: {number: 81}, loadBalancer: {simple: RANDOM}}]", 4),
        (
            "[{port: {number: 80}, connectionPool: {http: {maxRequestsPerConnection: 2}}}]",
            2,
        ),
    ] {
        let yaml =
            service("a", &[&one]) + &policy(&format!("{{{ONE_EACH}, portLevelSettings: {ports}}}"));
        assert_eq!(
            connections(&Town::client(&yaml).await, "a", "").await,
            expected,
            "{ports}"
        );
    }
}

#[tokio::test]
async fn a_subset_inherits_block_by_block() {
    let one = Backend::start("v1").await;
    for (subset, expected) in [
        ("", 4),
        (", trafficPolicy: {loadBalancer: {simple: RANDOM}}", 4),
        // A block of its own is the whole block.
        (
            ", trafficPolicy: {connectionPool: {http: {maxRetries: 1}}}",
            1,
        ),
        (
            ", trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 2}}}",
            2,
        ),
        (
            ", trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 2}}, \
             portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]}",
            1,
        ),
    ] {
        let rule = format!(
            "{{host: a, trafficPolicy: {{{ONE_EACH}}}, \
             subsets: [{{name: v1, labels: {{version: v1}}{subset}}}]}}"
        );
        let yaml = service("a", &[&one])
            + &object("DestinationRule", "a", &rule)
            + &routes("{route: [{destination: {host: a, subset: v1}}]}");
        let town = Town::client(&yaml).await;
        assert_eq!(connections(&town, "a", "v1").await, expected, "{subset}");
    }
}

/// Failures after which a retry is allowed or not, by the budget.
async fn retried(budget: &str, subset: bool, before: usize) -> usize {
    let one = Backend::start("v1").await;
    let policy = format!("trafficPolicy: {{retryBudget: {budget}}}");
    let rule = match subset {
        false => format!("{{host: a, {policy}, subsets: [{{name: v1}}]}}"),
        true => format!("{{host: a, subsets: [{{name: v1, {policy}}}]}}"),
    };
    let yaml = service("a", &[&one])
        + &object("DestinationRule", "a", &rule)
        + &routes(
            "{retries: {attempts: 1, retryOn: 5xx, backoff: 1ms}, \
             route: [{destination: {host: a, subset: v1}}]}",
        );
    let town = Town::client(&yaml).await;
    town.bodies("a", "/", before).await;
    one.forget();
    one.plan([Reply::With(500, vec![])]);
    let status = town.get("a", "/").await.status;
    let overflow = town.stat("v1", "upstream_rq_retry_overflow").await;
    assert_eq!(
        (status == 500, overflow),
        (one.count() == 1, u64::from(status == 500))
    );
    one.count() - 1
}

#[tokio::test]
async fn retry_budget_percent_and_min_retry_concurrency_limit_retries() {
    for subset in [false, true] {
        // Of one request under way half is none.
        assert_eq!(
            retried("{percent: 50, minRetryConcurrency: 0}", subset, 0).await,
            0
        );
        assert_eq!(
            retried("{percent: 100, minRetryConcurrency: 0}", subset, 0).await,
            1
        );
        assert_eq!(
            retried("{percent: 0, minRetryConcurrency: 1}", subset, 0).await,
            1
        );
        assert_eq!(
            retried("{percent: 0}", subset, 0).await,
            1,
            "at least three by default"
        );
    }
}

#[tokio::test]
async fn retry_budget_interval_counts_the_requests_of_the_window() {
    let budget = "{percent: 50, minRetryConcurrency: 0, budgetInterval: 1h}";
    assert_eq!(retried(budget, false, 10).await, 1);
    assert_eq!(
        retried("{percent: 50, minRetryConcurrency: 0}", false, 10).await,
        0
    );
}

#[tokio::test]
async fn export_to_shows_a_rule_to_other_namespaces() {
    let one = Backend::start("v1").await;
    for (export, expected) in [("'*'", 4), ("default", 4), (".", 1), ("elsewhere", 1)] {
        let rule = format!("{{host: a, exportTo: [{export}], trafficPolicy: {{{ONE_EACH}}}}}");
        let yaml = service_at(
            "a",
            "other",
            "{name: http, port: 80}",
            &[("v1", one.address)],
        ) + &object_in("other", "DestinationRule", "a", &rule);
        let town = Town::client(&yaml).await;
        town.bodies("a.other", "/", 4).await;
        let name = "cluster.outbound|80||a.other.svc.cluster.local.upstream_cx_total";
        assert_eq!(town.whole_stat(name).await, expected, "{export}");
    }
}

#[tokio::test]
async fn the_clients_namespace_comes_before_the_services_and_the_root() {
    let one = Backend::start("v1").await;
    let fqdn = "a.other.svc.cluster.local";
    let rule = |most: u32| {
        format!(
            "{{host: '*.other.svc.cluster.local', \
             trafficPolicy: {{connectionPool: {{http: {{maxRequestsPerConnection: {most}}}}}}}}}"
        )
    };
    let mut yaml = service_at(
        "a",
        "other",
        "{name: http, port: 80}",
        &[("v1", one.address)],
    );
    for (namespace, most, expected) in [
        ("istio-system", 4, 1),
        ("other", 2, 2),
        // A wildcard here beats an exact host there.
        ("default", 1, 4),
    ] {
        let mut rule = rule(most);
        if namespace == "other" {
            rule = rule.replace("'*.other.svc.cluster.local'", fqdn);
        }
        yaml += &object_in(namespace, "DestinationRule", "a", &rule);
        let town = Town::client(&yaml).await;
        town.bodies("a.other", "/", 4).await;
        let name = format!("cluster.outbound|80||{fqdn}.upstream_cx_total");
        assert_eq!(town.whole_stat(&name).await, expected, "{namespace}");
    }
}

#[tokio::test]
async fn the_most_specific_host_wins_and_rules_of_one_host_are_merged() {
    let one = Backend::start("v1").await;
    let yaml = service("a", &[&one])
        + &object(
            "DestinationRule",
            "wide",
            "{host: '*.local', subsets: [{name: v9}]}",
        )
        + &object(
            "DestinationRule",
            "b",
            &format!("{{host: a, trafficPolicy: {{{ONE_EACH}}}}}"),
        )
        + &object("DestinationRule", "c", "{host: a, subsets: [{name: v1}]}")
        + &routes("{route: [{destination: {host: a, subset: v1}}]}");
    assert_eq!(connections(&Town::client(&yaml).await, "a", "v1").await, 4);
}

#[tokio::test]
async fn workload_selector_is_for_the_clients_beside_the_rule() {
    let one = Backend::start("v1").await;
    for (labels, expected) in [("app: client", 4), ("app: other", 1)] {
        let rule = format!(
            "{{host: a, workloadSelector: {{matchLabels: {{{labels}}}}}, trafficPolicy: {{{ONE_EACH}}}}}"
        );
        let yaml = service("a", &[&one]) + &object("DestinationRule", "a", &rule);
        let town = Town::of(&yaml, client()).await;
        assert_eq!(connections(&town, "a", "").await, expected, "{labels}");
    }
}

#[tokio::test]
async fn the_default_export_of_destination_rules_is_the_meshs() {
    let one = Backend::start("v1").await;
    let yaml = mesh_config(&["defaultDestinationRuleExportTo: ['.']"])
        + &service_at(
            "a",
            "other",
            "{name: http, port: 80}",
            &[("v1", one.address)],
        )
        + &object_in(
            "other",
            "DestinationRule",
            "a",
            &format!("{{host: a, trafficPolicy: {{{ONE_EACH}}}}}"),
        );
    let town = Town::client(&yaml).await;
    town.bodies("a.other", "/", 4).await;
    let name = "cluster.outbound|80||a.other.svc.cluster.local.upstream_cx_total";
    assert_eq!(town.whole_stat(name).await, 1);
}

#[tokio::test]
async fn circuit_breakers_are_open_ended_without_a_pool() {
    // Envoy's own default would be three retries at once.
    let yaml = service_at(
        "a",
        "default",
        "{name: http, port: 80}",
        &[("v1", nobody())],
    ) + &routes(
        "{retries: {attempts: 9, retryOn: connect-failure, backoff: 1ms}, route: [{destination: {host: a}}]}",
    );
    let town = Town::client(&yaml).await;
    let all: Vec<_> = (0..10).map(|_| town.start_get("a", "/")).collect();
    for one in all {
        assert_eq!(one.await.unwrap().status, 503);
    }
    assert_eq!(town.stat("", "upstream_rq_retry").await, 90);
    assert_eq!(town.stat("", "upstream_rq_retry_overflow").await, 0);
}
