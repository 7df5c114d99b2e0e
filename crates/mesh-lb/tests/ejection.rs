//! Ejections while many threads report: the largest share holds, and every request goes to a host
//! that is in.

use mesh_core::Rng;
use mesh_core::model::{Balancing, Cluster, EndpointSet, Outlier, SnapshotBuilder};
use mesh_core::stats::ClusterStat;
use mesh_lb::{Avoid, ClusterHosts, Outcome, Picker};
use mesh_test::fixture::address;
use std::time::{Duration, Instant};

#[test]
fn many_threads_that_report_failures_never_eject_too_many() {
    let mut cluster = Cluster::new("c");
    cluster.balancing = Balancing::RoundRobin;
    cluster.panic_threshold = 0;
    let mut outlier = Outlier::default();
    outlier.consecutive_5xx = 3;
    outlier.max_ejection_percent = 30;
    cluster.outlier = Some(outlier);
    let mut builder = SnapshotBuilder::new();
    builder.cluster(cluster);
    let endpoints = (1..=20).map(|port| address(&format!("10.0.0.1:{port}")));
    builder.endpoints("c", EndpointSet::of(endpoints));
    let (snapshot, _) = builder.build().unwrap();
    let entry = &snapshot.clusters()[0];
    let hosts = ClusterHosts::of(entry);
    let start = Instant::now();

    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                let rng = Rng::with_seed(thread);
                let mut picker = Picker::default();
                for request in 0..5_000_u32 {
                    let now = start + Duration::from_millis(u64::from(request) * 50);
                    let set = hosts.refresh(entry, now);
                    let host = picker.pick(&set, rng.word(), Avoid::NONE).unwrap().host;
                    // Hosts with an odd port always fail.
                    let status = if host.address().port() % 2 == 1 {
                        503
                    } else {
                        200
                    };
                    hosts.report(&host, Outcome::Answered(status), now);
                    let out = set.hosts().len() - set.healthy();
                    assert!(out <= 6, "{out} of 20 are more than 30 %");
                }
            });
        }
    });
    let stats = entry.live().stats().block();
    let out = hosts.view().iter().filter(|host| host.ejected).count() as u64;
    assert_eq!(stats.get(ClusterStat::OutlierActive), out);
    assert_eq!(stats.get(ClusterStat::MembershipHealthy), 20 - out);
    assert!(stats.get(ClusterStat::OutlierEnforced) >= 6);
    assert!(stats.get(ClusterStat::OutlierOverflow) > 0);
    // Long after the last failure everybody is back.
    hosts.sweep(start + Duration::from_secs(1_000));
    assert_eq!(stats.get(ClusterStat::OutlierActive), 0);
    assert!(hosts.view().iter().all(|host| !host.ejected));
}
