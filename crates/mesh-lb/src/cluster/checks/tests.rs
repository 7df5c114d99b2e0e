use super::*;
use crate::{Outcome, Standing, Verdict};
use mesh_core::model::{
    Balancing, Endpoint, EndpointCheck, EndpointSet, HealthCheck, Outlier, Probe, SlowStart,
    Snapshot, SnapshotBuilder, TcpProbe,
};
use mesh_test::fixture::address;

const UNWELL: Answer = Answer::Unwell {
    retriable: false,
    excluded: false,
};

fn cluster() -> Cluster {
    let mut cluster = Cluster::new("c");
    cluster.balancing = Balancing::RoundRobin;
    cluster.panic_threshold = 0;
    let second = Duration::from_secs(1);
    let check = HealthCheck::new(Probe::Tcp(TcpProbe::default()), second, second);
    cluster.health_checks = [check].into();
    cluster
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint::new(address(&format!("10.0.0.1:{port}")))
}

fn endpoints(endpoints: impl IntoIterator<Item = Endpoint>) -> EndpointSet {
    EndpointSet::from_endpoints(endpoints.into_iter().map(Arc::new).collect())
}

fn snapshot(previous: Option<&Arc<Snapshot>>, cluster: Cluster) -> Arc<Snapshot> {
    let mut builder = previous.map_or_else(SnapshotBuilder::new, SnapshotBuilder::from);
    builder.cluster(cluster);
    builder.endpoints("c", endpoints([1, 2].map(endpoint)));
    builder.build().unwrap().0
}

fn hosts(snapshot: &Snapshot) -> &ClusterHosts {
    ClusterHosts::of(&snapshot.clusters()[0])
}

fn stat(snapshot: &Snapshot, stat: ClusterStat) -> u64 {
    snapshot.clusters()[0].live().stats().block().get(stat)
}

/// The ports of those that may be chosen.
fn eligible(hosts: &ClusterHosts) -> Vec<u16> {
    let standings = hosts.standings(None);
    let eligible = standings
        .hosts
        .iter()
        .filter(|host| host.verdict.is_eligible());
    eligible.map(|host| host.view.address.port()).collect()
}

fn answer(hosts: &ClusterHosts, at: usize, answer: Answer) -> Option<Duration> {
    let id = hosts.current().hosts()[at].id();
    hosts.checked(id, 0, answer, Instant::now(), 0)
}

#[test]
fn a_host_that_a_check_brings_back_is_slow_again() {
    let mut cluster = cluster();
    cluster.slow_start = Some(SlowStart::new(Duration::from_secs(100)));
    let snapshot = snapshot(None, cluster);
    let hosts = hosts(&snapshot);
    let start = Instant::now();
    let id = hosts.current().hosts()[0].id();
    let answer = |seconds: u64, answer| {
        let now = start + Duration::from_secs(seconds);
        hosts.checked(id, 0, answer, now, 0);
        let since = hosts.current().hosts()[0].healthy_since();
        since.map(|since| since.saturating_duration_since(start).as_secs())
    };
    assert_eq!(answer(5, Answer::Well), Some(5), "the first answer");
    assert_eq!(answer(20, Answer::Well), Some(5), "nothing new");
    assert_eq!(answer(200, Answer::Passive), Some(5), "it is out");
    let back = (300..310).map(|seconds| answer(seconds, Answer::Well));
    let back: Vec<_> = back.collect();
    assert!(
        back.contains(&Some(300)) || back.contains(&Some(301)),
        "{back:?}"
    );
    assert_eq!(back[9], back[5], "and is back once");
}

#[test]
fn hosts_are_chosen_once_their_check_succeeded() {
    let snapshot = snapshot(None, cluster());
    let hosts = hosts(&snapshot);
    assert_eq!((hosts.to_check().len(), hosts.is_checked()), (2, false));
    assert!(eligible(hosts).is_empty());
    let verdict = |standing: &Standing| standing.verdict;
    assert_eq!(verdict(&hosts.standings(None).hosts[0]), Verdict::Failing);

    assert_eq!(
        answer(hosts, 1, Answer::Well),
        Some(Duration::from_secs(60))
    );
    assert_eq!((eligible(hosts), hosts.is_checked()), (vec![2], false));
    answer(hosts, 0, Answer::Late);
    assert_eq!((eligible(hosts), hosts.is_checked()), (vec![2], true));
    assert!(hosts.view()[0].checked.late);
    for (what, value) in [
        (ClusterStat::CheckSuccess, 1),
        (ClusterStat::CheckFailure, 1),
        (ClusterStat::CheckNetworkFailure, 1),
        (ClusterStat::CheckHealthy, 1),
        (ClusterStat::MembershipHealthy, 1),
        (ClusterStat::MembershipTotal, 2),
    ] {
        assert_eq!(stat(&snapshot, what), value, "{what:?}");
    }
    // There was a connection by now: the usual interval holds.
    let block = snapshot.clusters()[0].live().stats().block();
    block.inc(Shard::default(), ClusterStat::CxTotal);
    assert_eq!(answer(hosts, 0, Answer::Well), Some(Duration::from_secs(1)));
    assert_eq!(eligible(hosts), [1, 2]);
}

#[test]
fn a_degraded_host_waits_behind_healthy_ones() {
    let snapshot = snapshot(None, cluster());
    let hosts = hosts(&snapshot);
    answer(hosts, 0, Answer::Degraded);
    assert_eq!(eligible(hosts), [1]);
    answer(hosts, 1, Answer::Well);
    // 140 % of one in two is 70 %: the rest goes to the degraded one.
    assert_eq!(eligible(hosts), [1, 2]);
    assert_eq!(stat(&snapshot, ClusterStat::CheckDegraded), 1);
    assert_eq!(stat(&snapshot, ClusterStat::MembershipDegraded), 1);
}

#[test]
fn unhealthy_hosts_count_in_panic_and_those_that_ask_to_be_left_out_do_not() {
    let mut config = cluster();
    config.panic_threshold = 60;
    let snapshot = snapshot(None, config);
    let hosts = hosts(&snapshot);
    assert_eq!(eligible(hosts), [1, 2], "none is healthy: panic");
    answer(hosts, 0, Answer::Well);
    assert_eq!(eligible(hosts), [1, 2], "one of two is less than 60 %");
    answer(hosts, 1, Answer::Well);
    hosts.fails(&hosts.current().hosts()[1].clone(), Instant::now());
    assert_eq!(eligible(hosts), [1], "nobody misses the other");
    assert_eq!(stat(&snapshot, ClusterStat::CheckPassiveFailure), 1);
    assert_eq!(stat(&snapshot, ClusterStat::MembershipExcluded), 1);
    answer(hosts, 1, Answer::Well);
    assert_eq!(eligible(hosts), [1, 2]);
}

#[test]
fn a_host_that_discovery_leaves_out_goes_when_its_check_fails() {
    let mut config = cluster();
    config.keep_removed = true;
    let snapshot = snapshot(None, config);
    let entry = &snapshot.clusters()[0];
    let hosts = hosts(&snapshot);
    answer(hosts, 1, Answer::Well);
    entry
        .live()
        .publish_endpoints(Arc::new(endpoints([endpoint(3)])));
    let ports = || -> Vec<_> { hosts.view().iter().map(|one| one.address.port()).collect() };
    assert_eq!(ports(), [3, 2], "the one that failed is gone");
    assert!(hosts.view()[1].leaving && !hosts.view()[0].leaving);
    assert_eq!(eligible(hosts), [2]);
    // It may come back.
    let both = endpoints([endpoint(3), endpoint(2)]);
    entry.live().publish_endpoints(Arc::new(both));
    assert!(!hosts.view()[1].leaving);
    entry
        .live()
        .publish_endpoints(Arc::new(endpoints([endpoint(3)])));
    assert_eq!(hosts.to_check().len(), 2);
    answer(hosts, 1, UNWELL);
    assert_eq!((ports(), hosts.to_check().len()), (vec![3], 1));
    assert_eq!(
        answer(hosts, 0, Answer::Well),
        Some(Duration::from_secs(60))
    );
    // One that is not to be kept goes at once.
    let mut config = cluster();
    config.keep_removed = false;
    let after = self::snapshot(Some(&snapshot), config);
    let entry = &after.clusters()[0];
    hosts.refresh(entry, Instant::now());
    entry
        .live()
        .publish_endpoints(Arc::new(EndpointSet::default()));
    assert!(ports().is_empty());
}

#[test]
fn a_host_that_is_not_to_be_asked_is_healthy() {
    let snapshot = snapshot(None, cluster());
    let mut quiet = endpoint(2);
    let own = EndpointCheck {
        disabled: true,
        ..EndpointCheck::default()
    };
    quiet.check = Some(Arc::new(own));
    let live = snapshot.clusters()[0].live();
    live.publish_endpoints(Arc::new(endpoints([endpoint(1), quiet])));
    let hosts = hosts(&snapshot);
    assert_eq!((hosts.to_check().len(), eligible(hosts)), (1, vec![2]));
}

#[test]
fn a_success_lets_an_ejected_host_back_if_the_policy_says_so() {
    for (lets_back, expected) in [(true, vec![1, 2]), (false, vec![2])] {
        let mut config = cluster();
        let mut outlier = Outlier::default();
        outlier.consecutive_5xx = 1;
        outlier.max_ejection_percent = 100;
        outlier.uneject_on_check = lets_back;
        config.outlier = Some(outlier);
        let snapshot = snapshot(None, config);
        let hosts = hosts(&snapshot);
        answer(hosts, 0, Answer::Well);
        answer(hosts, 1, Answer::Well);
        let first = hosts.current().hosts()[0].clone();
        hosts.report(&first, Outcome::Answered(500), Instant::now());
        assert_eq!(eligible(hosts), [2]);
        answer(hosts, 0, Answer::Well);
        assert_eq!(eligible(hosts), expected);
        let active = stat(&snapshot, ClusterStat::OutlierActive);
        assert_eq!(active, u64::from(!lets_back));
    }
}

#[test]
fn checks_that_are_new_to_a_cluster_take_no_host_out_before_it_was_asked() {
    let mut without = cluster();
    without.health_checks = Arc::default();
    let first = snapshot(None, without.clone());
    let hosts = hosts(&first);
    assert_eq!((eligible(hosts), hosts.is_checked()), (vec![1, 2], true));
    let second = snapshot(Some(&first), cluster());
    let refresh = |snapshot: &Snapshot| hosts.refresh(&snapshot.clusters()[0], Instant::now());
    refresh(&second);
    assert_eq!((eligible(hosts), hosts.is_checked()), (vec![1, 2], false));
    answer(hosts, 0, Answer::Unreachable);
    answer(hosts, 1, Answer::Unreachable);
    assert!(eligible(hosts).is_empty());
    let third = snapshot(Some(&second), without);
    refresh(&third);
    assert_eq!(eligible(hosts), [1, 2], "without checks nobody fails one");
    assert_eq!(answer(hosts, 0, Answer::Well), None);
    hosts.fails(&hosts.current().hosts()[0].clone(), Instant::now());
    assert_eq!(eligible(hosts), [1, 2]);
}

#[test]
fn every_check_of_a_cluster_has_to_be_content() {
    let mut config = cluster();
    let check = config.health_checks[0].clone();
    config.health_checks = [check.clone(), check].into();
    let snapshot = snapshot(None, config);
    let hosts = hosts(&snapshot);
    let id = hosts.to_check()[0].id();
    let now = Instant::now();
    hosts.checked(id, 0, Answer::Well, now, 0);
    assert!(eligible(hosts).is_empty());
    hosts.checked(id, 1, Answer::Well, now, 0);
    assert_eq!(eligible(hosts), [1]);
    hosts.checked(id, 0, UNWELL, now, 0);
    assert!(eligible(hosts).is_empty());
    assert_eq!(hosts.checked(id, 2, Answer::Well, now, 0), None);
}
