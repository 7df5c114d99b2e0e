//! `trafficPolicy.outlierDetection`: hosts that fail are left out for a time.

use crate::town::{Backend, Reply, Town, nobody, policy, refused, service, service_at};
use std::time::Duration;

/// A town with a good and a bad host in turn, and how the bad one answers.
async fn town(outlier: &str, status: u16) -> (Town, Backend, Backend) {
    let (good, bad) = (Backend::start("good").await, Backend::start("bad").await);
    bad.always(Reply::With(status, vec![]));
    let yaml = service("a", &[&good, &bad])
        + &policy(&format!(
            "{{loadBalancer: {{simple: ROUND_ROBIN}}, outlierDetection: {outlier}}}"
        ));
    (Town::client(&yaml).await, good, bad)
}

/// How many of 20 requests the bad host gets.
async fn bad_gets(outlier: &str, status: u16) -> usize {
    let (town, good, bad) = town(outlier, status).await;
    town.bodies("a", "/", 20).await;
    assert_eq!(good.count() + bad.count(), 20);
    bad.count()
}

/// Ejections because of each cause, with a host that cannot be reached.
async fn unreachable(outlier: &str) -> [u64; 2] {
    let good = Backend::start("good").await;
    let workloads = [("good", good.address), ("dead", nobody())];
    let yaml = service_at("a", "default", "{name: http, port: 80}", &workloads)
        + &policy(&format!(
            "{{loadBalancer: {{simple: ROUND_ROBIN}}, outlierDetection: {outlier}}}"
        ))
        + &crate::town::routes("{retries: {attempts: 0}, route: [{destination: {host: a}}]}");
    let town = Town::client(&yaml).await;
    town.bodies("a", "/", 20).await;
    let stat = |cause: &str| format!("outlier_detection.ejections_enforced_consecutive_{cause}");
    [
        town.stat("", &stat("5xx")).await,
        town.stat("", &stat("local_origin_failure")).await,
    ]
}

#[tokio::test]
async fn consecutive_5xx_errors_eject() {
    let all = "maxEjectionPercent: 100";
    assert_eq!(
        bad_gets(&format!("{{consecutive5xxErrors: 2, {all}}}"), 500).await,
        2
    );
    assert_eq!(bad_gets(&format!("{{{all}}}"), 500).await, 5);
    assert_eq!(
        bad_gets(&format!("{{consecutive5xxErrors: 0, {all}}}"), 500).await,
        10
    );
    assert_eq!(
        bad_gets(&format!("{{consecutive5xxErrors: 2, {all}}}"), 404).await,
        10
    );
}

#[tokio::test]
async fn consecutive_gateway_errors_eject_for_502_to_504_only() {
    for field in [
        "consecutiveGatewayErrors: 2, consecutive5xxErrors: 0",
        "consecutiveErrors: 2",
    ] {
        let outlier = format!("{{{field}, maxEjectionPercent: 100}}");
        for (status, expected) in [(502, 2), (503, 2), (504, 2), (500, 10)] {
            assert_eq!(
                bad_gets(&outlier, status).await,
                expected,
                "{field} {status}"
            );
        }
    }
}

#[tokio::test]
async fn a_success_sets_the_count_back() {
    let (town, _, bad) = town("{consecutive5xxErrors: 2, maxEjectionPercent: 100}", 500).await;
    bad.plan((0..5).flat_map(|_| [Reply::With(500, vec![]), Reply::With(200, vec![])]));
    town.bodies("a", "/", 20).await;
    assert_eq!(bad.count(), 10);
}

#[tokio::test]
async fn max_ejection_percent_is_10_unless_it_is_said() {
    assert_eq!(bad_gets("{consecutive5xxErrors: 1}", 500).await, 10);
    assert_eq!(
        bad_gets("{consecutive5xxErrors: 1, maxEjectionPercent: 49}", 500).await,
        10
    );
    assert_eq!(
        bad_gets("{consecutive5xxErrors: 1, maxEjectionPercent: 50}", 500).await,
        1
    );
}

#[tokio::test]
async fn interval_and_base_ejection_time_let_a_host_back() {
    let outlier = "{consecutive5xxErrors: 1, maxEjectionPercent: 100, \
                   interval: 0.05s, baseEjectionTime: 0.1s}";
    let (town, _, bad) = town(outlier, 500).await;
    bad.plan([Reply::With(500, vec![])]);
    bad.always(Reply::With(200, vec![]));
    town.bodies("a", "/", 2).await;
    // The defaults, 10 s and 30 s, would be too late.
    let back = tokio::time::timeout(
        Duration::from_secs(8),
        town.until("outlier_detection.ejections_active", 0),
    );
    back.await.unwrap();
    assert_eq!(
        town.stat("", "outlier_detection.ejections_enforced_total")
            .await,
        1
    );
    bad.forget();
    town.bodies("a", "/", 4).await;
    assert_eq!(bad.count(), 2);
}

#[tokio::test]
async fn ejected_hosts_get_nothing_before_their_time_is_over() {
    let outlier = "{consecutive5xxErrors: 1, maxEjectionPercent: 100, \
                   interval: 0.001s, baseEjectionTime: 1h}";
    let (town, good, bad) = town(outlier, 500).await;
    town.bodies("a", "/", 100).await;
    assert_eq!((good.count(), bad.count()), (99, 1));
    assert_eq!(town.stat("", "outlier_detection.ejections_active").await, 1);
    assert_eq!(town.stat("", "membership_healthy").await, 1);
}

#[tokio::test]
async fn min_health_percent_brings_ejected_hosts_back_in_panic() {
    let outlier = |least: u32| {
        format!(
            "{{consecutive5xxErrors: 1, maxEjectionPercent: 100, minHealthPercent: {least}, \
             baseEjectionTime: 1h}}"
        )
    };
    assert_eq!(bad_gets(&outlier(50), 500).await, 1);
    assert_eq!(bad_gets(&outlier(51), 500).await, 10);
    let (town, ..) = town(&outlier(51), 500).await;
    town.bodies("a", "/", 4).await;
    assert!(town.stat("", "lb_healthy_panic").await > 0);
}

#[tokio::test]
async fn without_a_min_health_percent_there_is_no_panic() {
    let (town, good, bad) = town("{consecutive5xxErrors: 1, maxEjectionPercent: 100}", 500).await;
    good.always(Reply::With(500, vec![]));
    town.bodies("a", "/", 4).await;
    assert_eq!((good.count(), bad.count()), (1, 1));
    assert_eq!(town.get("a", "/").await.line(), "503 no healthy upstream");
}

#[tokio::test]
async fn http_error_codes_replace_the_5xx_rule() {
    let outlier = "{consecutive5xxErrors: 2, maxEjectionPercent: 100, \
                   outlierDetectionHttpErrorCodes: [404, 503]}";
    for (status, expected) in [(404, 2), (503, 2), (500, 10)] {
        assert_eq!(bad_gets(outlier, status).await, expected, "{status}");
    }
}

#[tokio::test]
async fn local_failures_count_as_5xx_unless_they_are_split() {
    let all = "maxEjectionPercent: 100";
    let together = format!("{{consecutive5xxErrors: 2, {all}}}");
    assert_eq!(unreachable(&together).await, [1, 0]);
    let split = format!(
        "{{consecutive5xxErrors: 1, splitExternalLocalOriginErrors: true, \
         consecutiveLocalOriginFailures: 2, {all}}}"
    );
    assert_eq!(unreachable(&split).await, [0, 1]);
    // Five unless it is said.
    let usual = format!("{{splitExternalLocalOriginErrors: true, {all}}}");
    assert_eq!(unreachable(&usual).await, [0, 1]);
    let never = format!(
        "{{splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 0, {all}}}"
    );
    assert_eq!(unreachable(&never).await, [0, 0]);
    let errors = refused(&policy(
        "{outlierDetection: {consecutiveLocalOriginFailures: 1}}",
    ));
    assert!(
        errors.contains("splitExternalLocalOriginErrors"),
        "{errors}"
    );
}
