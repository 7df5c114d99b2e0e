use super::*;
use mesh_core::Pinned;
use mesh_core::model::{
    Action, ClientTls, Condition, Draw, FailurePercentage, FaultAbort, Forward, Fraction,
    HashPolicy, Pattern, RetryBudget, RouteTable, Rule, SlowStart, SnapshotBuilder, SuccessRate,
    VirtualHost,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A rule that has everything.
fn rule() -> Rule {
    let mut forward = Forward::to("c");
    forward.path = PathRewrite::Prefix("/new".to_owned());
    let version = Pattern::new("^/v(.)/.*").unwrap();
    forward.authority = Some(AuthorityRewrite::FromPath(version, "v\\1".to_owned()).into());
    forward.draw = Draw::Hash;
    forward.upgrades.push(("websocket".into(), true));
    forward.hash.push(HashPolicy::new(HashSource::SourceIp));
    forward.priority = Priority::High;
    let mut rule = Rule::new(Condition::default(), Action::Forward(forward));
    let limit = Some(Duration::from_secs(1));
    (rule.timeout, rule.idle_timeout, rule.max_stream_duration) = (limit, limit, limit);
    let mut fault = Fault::default();
    fault.abort = Some(FaultAbort {
        with: AbortWith::Http(http::StatusCode::IM_A_TEAPOT),
        share: Fraction::ALL,
    });
    rule.fault = Some(Arc::new(fault));
    rule.mirrors.push(Mirror::to("c"));
    rule.rate_limit = Some(Arc::new(RateLimit::new(1, 1, Duration::from_secs(1))));
    rule.cors = Some(Arc::new(Cors::default()));
    let name = http::header::VIA;
    rule.request_edits.remove.push(name.clone());
    rule.response_edits.remove.push(name);
    rule
}

/// A cluster that has everything.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new("c");
    cluster.tls = Some(Arc::new(ClientTls::default()));
    cluster.localities = LocalityBalancing::Weighted;
    cluster.slow_start = Some(SlowStart::new(Duration::from_secs(1)));
    cluster.max_requests_per_connection = 1;
    cluster
}

#[test]
fn the_list_has_every_name_and_no_other() {
    let mut builder = SnapshotBuilder::new();
    builder.cluster(cluster());
    let host = VirtualHost::new("a", ["a"]).rule(rule());
    builder.routes(RouteTable::new("t").host(host));
    let (snapshot, _) = builder.build().unwrap();
    let mut manager = HttpManager::new("m", "t");
    manager.stream_idle_timeout = Some(Duration::from_secs(1));
    manager.request_timeout = Some(Duration::from_secs(1));
    let matched = Matched::new(Pinned::new(snapshot.clone()), 0, 0, 0).to(None, Some(0));
    let route = of_route(&matched, Some(&manager));
    let all = route.into_iter().chain(of_cluster(&snapshot, &cluster()));
    let all: Vec<Value> = all.collect();
    let names: BTreeSet<&str> = all
        .iter()
        .map(|one| one["policy"].as_str().unwrap())
        .collect();
    assert_eq!(names, POLICIES.iter().copied().collect());
    let authority = all
        .iter()
        .any(|one| one["value"] == r#"authority to the path, "^/v(.)/.*" in it to "v\\1""#);
    assert!(authority, "{all:#?}");
}

#[test]
fn a_budget_is_in_the_place_of_most_retries() {
    let mut all = Limits::unlimited();
    assert_eq!(limits(&all), "none");
    all.max_retries = 3;
    assert_eq!(limits(&all), "3 retries");
    all.max_pools = 2;
    assert_eq!(limits(&all), "2 pools, 3 retries");
    all.max_pools = u32::MAX;
    let mut budget = RetryBudget {
        share: Fraction::percent(25.0).unwrap(),
        min_concurrency: 2,
        interval: Duration::ZERO,
    };
    all.budget = Some(budget);
    all.max_requests = 9;
    assert_eq!(
        limits(&all),
        "9 requests, retries up to 25% of requests under way and 2 in any case"
    );
    budget.interval = Duration::from_secs(10);
    all.budget = Some(budget);
    assert_eq!(
        limits(&all),
        "9 requests, retries up to 25% of requests of the last 10s and 2 in any case"
    );
}

#[test]
fn all_that_ejects_is_told() {
    let mut outlier = Outlier::default();
    let rest = ", for 30s and longer, at most 10% of hosts";
    let told = |outlier: &Outlier| {
        let text = ejection(outlier);
        text.strip_suffix(rest).unwrap_or(&text).to_owned()
    };
    outlier.consecutive_gateway_failure = 0;
    assert_eq!(told(&outlier), "after 5 5xx in a row");
    outlier.error_codes = vec![404, 503];
    assert_eq!(told(&outlier), "after 5 errors (404, 503) in a row");
    outlier.consecutive_5xx = 0;
    assert_eq!(told(&outlier), "none");
    outlier.split_local_origin = true;
    outlier.consecutive_local_failure = 4;
    assert_eq!(told(&outlier), "after 4 local failures in a row");
    outlier.split_local_origin = false;
    outlier.success_rate = Some(SuccessRate::default());
    assert_eq!(
        told(&outlier),
        "at a success rate 1.9 deviations below the mean"
    );
    outlier.failure_percentage = Some(FailurePercentage::default());
    assert_eq!(
        told(&outlier),
        "at a success rate 1.9 deviations below the mean or at 85% failures"
    );
}
