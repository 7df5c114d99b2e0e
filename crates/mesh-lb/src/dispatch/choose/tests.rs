use super::*;
use crate::ClusterHosts;
use mesh_core::exchange::TlsInfo;
use mesh_core::model::{Balancing, Cluster, EndpointSet, Outlier, Real, Rule};
use mesh_test::fixture;

fn chooser() -> Chooser<impl MakeEndpoint<Service = String>> {
    let make = |host: &Arc<Host>, _: &Arc<ClusterEntry>| host.address().to_string();
    Chooser::new(make).rng(Arc::new(Rng::with_seed(1)))
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::new("c");
    cluster.balancing = Balancing::LeastRequest {
        choices: 32,
        bias: Real::ONE,
    };
    let mut outlier = Outlier::default();
    outlier.consecutive_5xx = 2;
    outlier.max_ejection_percent = 100;
    cluster.outlier = Some(outlier);
    cluster
}

/// The entry of a cluster with these endpoints.
fn entry(cluster: Cluster, endpoints: &[&str]) -> Arc<ClusterEntry> {
    let snapshot = fixture::snapshot(vec![Rule::prefix_to("/", "c")], vec![cluster]);
    let entry = snapshot.clusters()[0].clone();
    let set = EndpointSet::of(endpoints.iter().map(|text| fixture::address(text)));
    entry.live().publish_endpoints(Arc::new(set));
    entry
}

fn stat(entry: &ClusterEntry, stat: ClusterStat) -> u64 {
    entry.live().stats().block().get(stat)
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[test]
fn a_connection_in_use_counts_as_a_request_under_way() {
    let entry = entry(cluster(), &["10.0.0.1:1", "10.0.0.2:1"]);
    let (chooser, caller) = (chooser(), Caller::default());
    let first = chooser.choose(&entry, &caller, None, &[]).unwrap();
    let host = first.host().clone();
    assert_eq!(host.active(), 1, "from the choice on");
    assert_eq!(stat(&entry, ClusterStat::RqTotal), 0);
    let engaged = first.connected(now());
    assert_eq!(engaged.host().id(), host.id());
    assert_eq!(host.counts().rq_total, 1);
    assert_eq!(stat(&entry, ClusterStat::RqTotal), 1);
    assert_eq!(stat(&entry, ClusterStat::RqActive), 1);
    for _ in 0..8 {
        let other = chooser.choose(&entry, &caller, None, &[]).unwrap();
        assert_ne!(other.host().id(), host.id(), "the other has less to do");
    }
    drop(engaged);
    assert_eq!(host.active(), 0);
    assert_eq!(stat(&entry, ClusterStat::RqActive), 0);
}

#[test]
fn hosts_that_were_tried_are_avoided_while_there_are_others() {
    let mut cluster = cluster();
    cluster.balancing = Balancing::RoundRobin;
    let entry = entry(cluster, &["10.0.0.1:1", "10.0.0.2:1"]);
    let (chooser, caller) = (chooser(), Caller::default());
    let tried = chooser
        .choose(&entry, &caller, None, &[])
        .unwrap()
        .host()
        .id();
    for _ in 0..4 {
        let next = chooser.choose(&entry, &caller, None, &[tried]).unwrap();
        assert_ne!(next.host().id(), tried);
    }
    let both: Vec<_> = ClusterHosts::of(&entry)
        .view()
        .iter()
        .map(|h| h.id)
        .collect();
    chooser.choose(&entry, &caller, None, &both).unwrap();
}

#[test]
fn connections_that_fail_eject_a_host_and_one_that_succeeds_forgives() {
    let entry = entry(cluster(), &["10.0.0.1:1"]);
    let (chooser, caller) = (chooser(), Caller::default());
    let choose = || chooser.choose(&entry, &caller, None, &[]).unwrap();
    choose().failed(Failure::ConnectFailed, now());
    drop(choose().connected(now()));
    choose().failed(Failure::ConnectTimeout, now());
    drop(choose());
    choose().failed(Failure::Overflow, now());
    assert!(!ClusterHosts::of(&entry).view()[0].ejected);
    choose().failed(Failure::ConnectFailed, now());
    let host = &ClusterHosts::of(&entry).view()[0];
    assert!(host.ejected);
    assert_eq!((host.active, host.counts.rq_error), (0, 3));
}

#[test]
fn the_original_destination_is_the_host() {
    let mut cluster = cluster();
    cluster.discovery = DiscoveryKind::OriginalDestination;
    let entry = entry(cluster, &[]);
    let chooser = chooser();
    let mut caller = Caller::default();
    for original in [None, Some("0.0.0.0:80"), Some("10.0.0.1:0")] {
        caller.original = original.map(|text| text.parse().unwrap());
        let error = chooser.choose(&entry, &caller, None, &[]).unwrap_err();
        assert_eq!(error.failure(), Failure::NoHealthyHost, "{original:?}");
    }
    assert_eq!(stat(&entry, ClusterStat::OriginalDestinationInvalid), 3);
    assert_eq!(stat(&entry, ClusterStat::NoHealthy), 3);
    caller.original = Some("[2001:db8::1]:5432".parse().unwrap());
    let chosen = chooser.choose(&entry, &caller, None, &[]).unwrap();
    assert_eq!(chosen.service, "[2001:db8::1]:5432");
    let id = chosen.host().id();
    // It may fail as often as it likes: there is no other to go to.
    chosen.failed(Failure::ConnectFailed, now());
    for _ in 0..3 {
        let again = chooser.choose(&entry, &caller, None, &[]).unwrap();
        assert_eq!(again.host().id(), id);
        again.failed(Failure::ConnectFailed, now());
    }
}

#[test]
fn for_bytes_the_authority_is_the_server_name_at_the_port_of_the_service() {
    let caller = |name: &str, original: Option<&str>| {
        let mut tls = TlsInfo::default();
        tls.server_name = name.into();
        let mut caller = Caller::default();
        caller.tls = Some(Arc::new(tls));
        caller.original = original.map(|text| text.parse().unwrap());
        caller
    };
    let mut cluster = cluster();
    cluster.discovery = DiscoveryKind::Authority;
    let unknown = entry(cluster.clone(), &[]);
    cluster.service.port = 9443;
    let known = entry(cluster, &[]);
    for (entry, original, expected) in [
        (&unknown, None, "db.example:443"),
        (&unknown, Some("10.0.0.1:8443"), "db.example:8443"),
        (&known, Some("10.0.0.1:8443"), "db.example:9443"),
    ] {
        let caller = caller("DB.example", original);
        let chosen = chooser().choose(entry, &caller, None, &[]).unwrap();
        assert_eq!(chosen.service, expected);
    }
    for nobody in [caller("", None), Caller::default()] {
        let error = chooser().choose(&known, &nobody, None, &[]).unwrap_err();
        assert_eq!(error.failure(), Failure::NoHealthyHost);
    }
    assert_eq!(stat(&known, ClusterStat::NoHealthy), 2);
}

#[test]
fn a_cluster_without_hosts_has_none_to_choose() {
    let entry = entry(cluster(), &[]);
    let error = chooser().choose(&entry, &Caller::default(), None, &[]);
    assert_eq!(error.unwrap_err().failure(), Failure::NoHealthyHost);
    assert_eq!(stat(&entry, ClusterStat::NoHealthy), 1);
}
