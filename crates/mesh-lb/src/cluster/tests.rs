use super::*;
use crate::{Avoid, Picker};
use mesh_core::model::{
    Address, Balancing, Cluster, Endpoint, FailurePercentage, Health, Outlier, Snapshot,
    SnapshotBuilder,
};
use mesh_test::fixture::address;
use std::time::Duration;

fn cluster() -> Cluster {
    let mut cluster = Cluster::new("c");
    cluster.balancing = Balancing::RoundRobin;
    cluster.panic_threshold = 0;
    cluster
}

fn with_outlier(consecutive: u32) -> Cluster {
    let mut cluster = cluster();
    let mut outlier = Outlier::default();
    outlier.consecutive_5xx = consecutive;
    outlier.max_ejection_percent = 100;
    cluster.outlier = Some(outlier);
    cluster
}

fn addresses(ports: impl IntoIterator<Item = u16>) -> EndpointSet {
    EndpointSet::of(
        ports
            .into_iter()
            .map(|port| address(&format!("10.0.0.1:{port}"))),
    )
}

fn snapshot(previous: Option<&Arc<Snapshot>>, cluster: Cluster, ports: u16) -> Arc<Snapshot> {
    let mut builder = previous.map_or_else(SnapshotBuilder::new, SnapshotBuilder::from);
    builder.cluster(cluster);
    builder.endpoints("c", addresses(1..=ports));
    builder.build().unwrap().0
}

fn stat(snapshot: &Snapshot, stat: ClusterStat) -> u64 {
    snapshot.clusters()[0].live().stats().block().get(stat)
}

fn ports(set: &HostSet) -> Vec<u16> {
    set.hosts().iter().map(|h| h.address().port()).collect()
}

/// The addresses that round robin goes through.
fn chosen(set: &HostSet) -> Vec<Address> {
    let mut picker = Picker::default();
    let mut chosen: Vec<_> = (0..set.hosts().len())
        .filter_map(|_| picker.pick(set, 0, Avoid::NONE))
        .map(|pick| pick.host.address().clone())
        .collect();
    chosen.sort_by_key(Address::port);
    chosen.dedup();
    chosen
}

#[test]
fn a_set_is_built_again_only_when_something_changed() {
    let now = Instant::now();
    let snapshot = snapshot(None, cluster(), 2);
    let entry = &snapshot.clusters()[0];
    let hosts = ClusterHosts::of(entry);
    let first = hosts.refresh(entry, now);
    assert_eq!(ports(&first), [1, 2]);
    assert!(Arc::ptr_eq(&first, &hosts.refresh(entry, now)));
    entry.live().publish_endpoints(Arc::new(addresses([2, 3])));
    let second = hosts.refresh(entry, now);
    assert_eq!(ports(&second), [2, 3]);
    assert_eq!(second.hosts()[0].id(), first.hosts()[1].id());
    assert_ne!(first.generation(), second.generation());
}

#[test]
fn hosts_live_on_from_snapshot_to_snapshot_and_a_newer_policy_wins() {
    let now = Instant::now();
    let first = snapshot(None, cluster(), 2);
    let old = &first.clusters()[0];
    let before = ClusterHosts::of(old).refresh(old, now);
    let mut random = cluster();
    random.balancing = Balancing::Random;
    let second = snapshot(Some(&first), random, 2);
    let new = &second.clusters()[0];
    assert!(std::ptr::eq(ClusterHosts::of(old), ClusterHosts::of(new)));
    let after = ClusterHosts::of(new).refresh(new, now);
    assert_eq!(after.balancing(), Balancing::Random);
    assert_eq!(after.hosts()[0].id(), before.hosts()[0].id());
    // A request that still holds the old snapshot changes nothing back.
    let late = ClusterHosts::of(old).refresh(old, now);
    assert!(Arc::ptr_eq(&after, &late));
}

#[test]
fn membership_is_counted() {
    let now = Instant::now();
    let snapshot = snapshot(None, cluster(), 2);
    let entry = &snapshot.clusters()[0];
    let hosts = ClusterHosts::of(entry);
    let mut degraded = Endpoint::new(address("10.0.0.1:3"));
    degraded.health = Health::Degraded;
    let mut endpoints: Vec<_> = addresses([1, 2]).iter().cloned().collect();
    endpoints.push(Arc::new(degraded));
    entry
        .live()
        .publish_endpoints(Arc::new(EndpointSet::from_endpoints(endpoints.clone())));
    hosts.refresh(entry, now);
    assert_eq!(stat(&snapshot, ClusterStat::MembershipTotal), 3);
    assert_eq!(stat(&snapshot, ClusterStat::MembershipHealthy), 2);
    assert_eq!(stat(&snapshot, ClusterStat::MembershipDegraded), 1);
    assert_eq!(stat(&snapshot, ClusterStat::MembershipChange), 2);
    // Another weight is no change of membership.
    let mut heavy = Endpoint::clone(&endpoints[0]);
    heavy.weight = 9;
    endpoints[0] = Arc::new(heavy);
    entry
        .live()
        .publish_endpoints(Arc::new(EndpointSet::from_endpoints(endpoints)));
    assert_eq!(hosts.refresh(entry, now).hosts()[0].weight(), 9);
    assert_eq!(stat(&snapshot, ClusterStat::MembershipChange), 2);
}

#[test]
fn an_ejected_host_is_not_chosen_until_it_is_back() {
    let now = Instant::now();
    let snapshot = snapshot(None, with_outlier(2), 3);
    let entry = &snapshot.clusters()[0];
    let hosts = ClusterHosts::of(entry);
    let host = hosts.refresh(entry, now).hosts()[1].clone();
    for _ in 0..2 {
        hosts.report(&host, Outcome::Answered(502), now);
    }
    assert_eq!(
        chosen(&hosts.current()),
        [address("10.0.0.1:1"), address("10.0.0.1:3")]
    );
    assert_eq!(stat(&snapshot, ClusterStat::OutlierActive), 1);
    assert_eq!(stat(&snapshot, ClusterStat::OutlierEnforced), 1);
    assert_eq!(stat(&snapshot, ClusterStat::OutlierEnforced5xx), 1);
    assert_eq!(stat(&snapshot, ClusterStat::OutlierDetected5xx), 1);
    assert_eq!(stat(&snapshot, ClusterStat::MembershipHealthy), 2);

    // It stays ejected although its weight changes, and comes back at a pick after 30 s.
    let heavier: Vec<_> = addresses(1..=3)
        .iter()
        .map(|endpoint| {
            let mut endpoint = Endpoint::clone(endpoint);
            endpoint.weight = 2;
            Arc::new(endpoint)
        })
        .collect();
    entry
        .live()
        .publish_endpoints(Arc::new(EndpointSet::from_endpoints(heavier)));
    let set = hosts.refresh(entry, now + Duration::from_secs(29));
    assert_eq!(chosen(&set).len(), 2);
    let set = hosts.refresh(entry, now + Duration::from_secs(30));
    assert_eq!(chosen(&set).len(), 3);
    assert_eq!(stat(&snapshot, ClusterStat::OutlierActive), 0);
}

#[test]
fn a_sweep_brings_hosts_back_without_traffic() {
    let now = Instant::now();
    let snapshot = snapshot(None, with_outlier(1), 2);
    let hosts = ClusterHosts::of(&snapshot.clusters()[0]);
    hosts.sweep(now);
    let host = hosts.current().hosts()[0].clone();
    hosts.report(&host, Outcome::Local(503), now + Duration::from_secs(1));
    hosts.sweep(now + Duration::from_secs(39));
    assert_eq!(hosts.current().healthy(), 1);
    hosts.sweep(now + Duration::from_secs(40));
    assert_eq!(hosts.current().healthy(), 2);
}

#[test]
fn detection_is_switched_on_and_off_by_newer_snapshots() {
    let now = Instant::now();
    let first = snapshot(None, cluster(), 2);
    let entry = &first.clusters()[0];
    let hosts = ClusterHosts::of(entry);
    let host = hosts.refresh(entry, now).hosts()[0].clone();
    hosts.report(&host, Outcome::Answered(500), now);
    assert!(!host.is_ejected());

    let second = snapshot(Some(&first), with_outlier(1), 2);
    hosts.refresh(&second.clusters()[0], now);
    hosts.report(&host, Outcome::Answered(500), now);
    assert!(host.is_ejected());

    let third = snapshot(Some(&second), cluster(), 2);
    assert_eq!(hosts.refresh(&third.clusters()[0], now).healthy(), 2);
    assert!(!host.is_ejected());
    assert_eq!(stat(&third, ClusterStat::OutlierActive), 0);
}

#[test]
fn a_refused_ejection_is_counted() {
    let now = Instant::now();
    let mut cluster = with_outlier(1);
    if let Some(outlier) = &mut cluster.outlier {
        outlier.max_ejection_percent = 10;
    }
    let snapshot = snapshot(None, cluster, 9);
    let entry = &snapshot.clusters()[0];
    let hosts = ClusterHosts::of(entry);
    let host = hosts.refresh(entry, now).hosts()[0].clone();
    hosts.report(&host, Outcome::Answered(500), now);
    assert!(!host.is_ejected(), "one of nine is more than 10 %");
    assert_eq!(stat(&snapshot, ClusterStat::OutlierOverflow), 1);
    assert_eq!(stat(&snapshot, ClusterStat::OutlierEnforced), 0);
}

#[test]
fn an_ejected_host_that_leaves_is_not_counted_any_more() {
    let now = Instant::now();
    let snapshot = snapshot(None, with_outlier(1), 2);
    let entry = &snapshot.clusters()[0];
    let hosts = ClusterHosts::of(entry);
    let host = hosts.refresh(entry, now).hosts()[0].clone();
    hosts.report(&host, Outcome::Answered(500), now);
    entry.live().publish_endpoints(Arc::new(addresses([2])));
    hosts.refresh(entry, now);
    assert_eq!(stat(&snapshot, ClusterStat::OutlierActive), 0);
    entry.live().publish_endpoints(Arc::new(addresses([1, 2])));
    let set = hosts.refresh(entry, now);
    assert_eq!(set.healthy(), 2, "an address that returns is a new host");
    assert_ne!(set.hosts()[0].id(), host.id());
}

#[test]
fn a_report_after_the_end_of_an_interval_counts_for_the_next() {
    let start = Instant::now();
    let mut cluster = with_outlier(0);
    if let Some(outlier) = &mut cluster.outlier {
        outlier.failure_percentage = Some(FailurePercentage::default());
    }
    let snapshot = snapshot(None, cluster, 5);
    let hosts = ClusterHosts::of(&snapshot.clusters()[0]);
    hosts.sweep(start);
    let report = |seconds, times, first_fails| {
        for (at, host) in hosts.current().hosts().iter().enumerate() {
            let status = if at == 0 && first_fails { 500 } else { 200 };
            for _ in 0..times {
                let now = start + Duration::from_secs(seconds);
                hosts.report(host, Outcome::Answered(status), now);
            }
        }
    };
    // Nobody looks at 10 s. Together both intervals would have 90 % failures.
    report(5, 50, false);
    report(15, 450, true);
    hosts.sweep(start + Duration::from_secs(16));
    assert_eq!(hosts.current().healthy(), 5);
    hosts.sweep(start + Duration::from_secs(20));
    assert!(hosts.view()[0].ejected);
}

mod reported {
    use super::*;
    use crate::report::LoadReport;
    use mesh_core::model::ReportedWeights;

    fn snapshot_of(change: impl FnOnce(&mut ReportedWeights)) -> Arc<Snapshot> {
        let mut policy = ReportedWeights::default();
        policy.blackout = Duration::ZERO;
        change(&mut policy);
        let mut weighed = cluster();
        weighed.reported_weights = Some(Arc::new(policy));
        snapshot(None, weighed, 3)
    }

    fn load(requests_per_second: f64) -> LoadReport {
        LoadReport {
            cpu: 0.5,
            requests_per_second,
            ..LoadReport::default()
        }
    }

    fn weights(set: &HostSet) -> Vec<u32> {
        set.hosts().iter().map(|host| host.weight()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn reports_become_weights_when_they_are_next_looked_at() {
        let snapshot = snapshot_of(|_| {});
        let entry = &snapshot.clusters()[0];
        let hosts = ClusterHosts::of(entry);
        let start = tokio::time::Instant::now().into_std();
        let at = |millis| start + Duration::from_millis(millis);
        let first = hosts.refresh(entry, start);
        hosts.take_load(&first.hosts()[0], &load(10.0), at(10));
        hosts.take_load(&first.hosts()[1], &load(20.0), at(20));
        assert_eq!(weights(&hosts.refresh(entry, at(999))), [1, 1, 1]);
        let second = hosts.refresh(entry, at(1000));
        assert_eq!(weights(&second), [20, 40, 30]);
        assert_eq!(weights(&first), [1, 1, 1], "a set never changes");
        assert_eq!(second.hosts()[0].id(), first.hosts()[0].id());
        // Nothing changed: it is the same set.
        let third = hosts.refresh(entry, at(2000));
        assert!(Arc::ptr_eq(&second, &third));
        // Of 90 picks each gets its weight's share.
        let mut picker = Picker::default();
        let mut picks = [0; 3];
        for _ in 0..90 {
            let host = picker.pick(&third, 7, Avoid::NONE).unwrap().host;
            picks[usize::from(host.address().port()) - 1] += 1;
        }
        assert_eq!(picks, [20, 40, 30]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_discovery_says_of_weights_does_not_count_and_new_endpoints_are_weighed_at_once() {
        let snapshot = snapshot_of(|_| {});
        let entry = &snapshot.clusters()[0];
        let hosts = ClusterHosts::of(entry);
        let start = tokio::time::Instant::now().into_std();
        let set = hosts.refresh(entry, start);
        hosts.take_load(&set.hosts()[0], &load(10.0), start);
        let heavy = |port: u16| {
            let mut endpoint = Endpoint::new(address(&format!("10.0.0.1:{port}")));
            endpoint.weight = 9;
            Arc::new(endpoint)
        };
        let endpoints = EndpointSet::from_endpoints([1, 2, 7].map(heavy).to_vec());
        entry.live().publish_endpoints(Arc::new(endpoints));
        assert_eq!(weights(&hosts.refresh(entry, start)), [20, 20, 20]);

        // Without the policy it counts again.
        let mut builder = SnapshotBuilder::from(&snapshot);
        builder.cluster(cluster());
        let snapshot = builder.build().unwrap().0;
        let set = hosts.refresh(&snapshot.clusters()[0], start);
        assert_eq!(weights(&set), [9, 9, 9]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_weight_that_expired_without_traffic_is_not_kept_by_the_next_report() {
        let snapshot = snapshot_of(|policy| {
            policy.blackout = Duration::from_secs(5);
            policy.expiration = Duration::from_secs(60);
        });
        let entry = &snapshot.clusters()[0];
        let hosts = ClusterHosts::of(entry);
        let start = tokio::time::Instant::now().into_std();
        let at = |seconds| start + Duration::from_secs(seconds);
        let host = hosts.refresh(entry, start).hosts()[0].clone();
        hosts.take_load(&host, &load(10.0), start);
        assert_eq!(weights(&hosts.refresh(entry, at(6))), [20, 20, 20]);
        hosts.take_load(&host, &load(10.0), at(600));
        assert_eq!(weights(&hosts.refresh(entry, at(602))), [1, 1, 1]);
        assert_eq!(weights(&hosts.refresh(entry, at(606))), [20, 20, 20]);
    }
}
