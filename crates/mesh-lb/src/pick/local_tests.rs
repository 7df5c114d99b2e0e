//! Localities, zones, subsets and new hosts.

use super::*;
use crate::hosts::{Members, Setting};
use mesh_core::Rng;
use mesh_core::model::{
    Cluster, ClusterStats, Endpoint, EndpointSet, Health, Locality, LocalityEndpoints, Real,
    SlowStart, SubsetBalancing, SubsetSelector, ZoneAware,
};
use mesh_core::{Name, Shard};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const NOBODY: [u16; 0] = [];

/// Zones with their weight, and for each endpoint whether it is healthy.
type Zones<'a> = &'a [(&'a str, u32, &'a [bool])];

fn locality(zone: &str) -> Locality {
    Locality {
        zone: zone.into(),
        ..Locality::default()
    }
}

fn endpoints(zones: Zones<'_>) -> EndpointSet {
    let mut set = EndpointSet::default();
    let mut port = 0;
    for (zone, weight, healthy) in zones {
        let mut group = LocalityEndpoints::default();
        group.locality = locality(zone);
        group.weight = *weight;
        for healthy in *healthy {
            port += 1;
            let address = mesh_test::fixture::address(&format!("10.0.0.1:{port}"));
            let mut endpoint = Endpoint::new(address);
            if !healthy {
                endpoint.health = Health::Unhealthy;
            }
            group.endpoints.push(Arc::new(endpoint));
        }
        set.localities.push(group);
    }
    set
}

fn built(cluster: Cluster, endpoints: &EndpointSet, now: Option<Instant>) -> HostSet {
    let members = Members::build(1, endpoints, &Members::default());
    let own = locality("own");
    let setting = Setting {
        own: Some(&own),
        now,
        previous: None,
    };
    HostSet::build(1, Arc::new(cluster), Arc::new(members), setting)
}

fn shares(set: &HostSet, ask: &Ask<'_>) -> BTreeMap<String, u32> {
    let (mut picker, rng) = (Picker::default(), Rng::with_seed(3));
    let mut shares = BTreeMap::new();
    for _ in 0..10_000 {
        let ask = Ask {
            word: rng.word(),
            ..*ask
        };
        let zone = match picker.choose(set, &ask) {
            Some(pick) => pick.host.locality().zone.to_string(),
            None => "nobody".to_owned(),
        };
        *shares.entry(zone).or_default() += 1;
    }
    shares
}

fn near(shares: &BTreeMap<String, u32>, expected: &[(&str, u32)]) {
    assert_eq!(shares.len(), expected.len(), "{shares:?}");
    for (zone, expected) in expected {
        assert!(
            shares[*zone].abs_diff(*expected) < 200,
            "{zone}: {shares:?}"
        );
    }
}

#[test]
fn localities_get_their_weight_as_far_as_they_have_hosts() {
    let mut cluster = Cluster::new("c");
    cluster.localities = LocalityBalancing::Weighted;
    // A quarter of b is there: 1.4 / 4 of its weight of 4.
    let set = endpoints(&[
        ("a", 1, &[true, true]),
        ("b", 4, &[true, false, false, false]),
        ("none", 0, &[true]),
    ]);
    for balancing in [
        Balancing::RoundRobin,
        Balancing::Random,
        Balancing::LEAST_REQUEST,
    ] {
        cluster.balancing = balancing;
        let shares = shares(&built(cluster.clone(), &set, None), &Ask::new(0));
        near(&shares, &[("a", 4_167), ("b", 5_833)]);
    }
    let mut all = set;
    all.overprovisioning = Some(400);
    let shares = shares(&built(cluster, &all, None), &Ask::new(0));
    near(&shares, &[("a", 2_000), ("b", 8_000)]);
}

/// Shares and statistics of a zone-aware cluster.
fn zoned(
    policy: ZoneAware,
    zones: Zones<'_>,
    peers: Zones<'_>,
) -> (BTreeMap<String, u32>, ClusterStats) {
    divided(LocalityBalancing::ZoneAware(policy), zones, peers)
}

fn divided(
    localities: LocalityBalancing,
    zones: Zones<'_>,
    peers: Zones<'_>,
) -> (BTreeMap<String, u32>, ClusterStats) {
    let mut cluster = Cluster::new("c");
    cluster.localities = localities;
    let set = built(cluster, &endpoints(zones), None);
    let peers = built(Cluster::new("peers"), &endpoints(peers), None);
    let stats = ClusterStats::default();
    let mut ask = Ask::new(0);
    ask.near = Some(Near { peers: &peers });
    ask.stats = Some((&stats, Shard::default()));
    (shares(&set, &ask), stats)
}

fn stat(stats: &ClusterStats, stat: ClusterStat) -> u64 {
    stats.block().get(stat)
}

#[test]
fn the_own_zone_takes_all_that_it_has_room_for() {
    let quarter: Zones<'_> = &[("own", 0, &[true]), ("b", 0, &[true; 3])];
    let (shares, stats) = zoned(
        ZoneAware::default(),
        &[("own", 0, &[true; 2]), ("b", 0, &[true; 4])],
        quarter,
    );
    near(&shares, &[("own", 10_000)]);
    assert_eq!(stat(&stats, ClusterStat::LbZoneAllDirectly), 10_000);
    assert_eq!(stat(&stats, ClusterStat::LbZoneRecalculated), 1);

    // 10 % of the endpoints for 25 % of the callers: 40 % stay. b has 20 % for 75 %: no room.
    let (shares, stats) = zoned(
        ZoneAware::default(),
        &[
            ("own", 0, &[true]),
            ("b", 0, &[true; 2]),
            ("c", 0, &[true; 7]),
        ],
        quarter,
    );
    near(&shares, &[("own", 4_000), ("c", 6_000)]);
    let sampled = stat(&stats, ClusterStat::LbZoneSampled);
    assert_eq!(sampled + stat(&stats, ClusterStat::LbZoneCrossZone), 10_000);
}

#[test]
fn the_own_zone_is_preferred_where_nothing_else_is_said_of_zones() {
    // As in Envoy, which does so wherever `local_cluster_name` is set.
    let peers: Zones<'_> = &[("own", 0, &[true]), ("b", 0, &[true; 3])];
    let zones: Zones<'_> = &[("own", 0, &[true; 2]), ("b", 0, &[true; 4])];
    let (shares, _) = divided(LocalityBalancing::Ignored, zones, peers);
    near(&shares, &[("own", 10_000)]);
    let (shares, _) = divided(LocalityBalancing::Weighted, zones, peers);
    near(&shares, &[("own", 10_000)]);
    let weights: Zones<'_> = &[("own", 1, &[true; 2]), ("b", 4, &[true; 4])];
    let (shares, _) = divided(LocalityBalancing::Weighted, weights, peers);
    near(&shares, &[("b", 8_000), ("own", 2_000)]);
}

#[test]
fn zones_are_not_told_apart_where_that_would_be_guesswork() {
    let six: Zones<'_> = &[("own", 0, &[true; 2]), ("b", 0, &[true; 4])];
    let peers: Zones<'_> = &[("own", 0, &[true]), ("b", 0, &[true])];
    let even = [("b", 6_667), ("own", 3_333)];
    let mut large = ZoneAware::default();
    large.minimum = 7;
    let (shares, stats) = zoned(large, six, peers);
    near(&shares, &even);
    assert_eq!(stat(&stats, ClusterStat::LbZoneClusterTooSmall), 1);

    let (shares, _) = zoned(ZoneAware::default(), six, &[("own", 0, &[true])]);
    near(&shares, &even);

    let elsewhere: Zones<'_> = &[("b", 0, &[true]), ("c", 0, &[true])];
    let (shares, stats) = zoned(ZoneAware::default(), six, elsewhere);
    near(&shares, &even);
    assert_eq!(stat(&stats, ClusterStat::LbLocalClusterNotOk), 1);

    let mut off = ZoneAware::default();
    off.enabled = 0;
    near(&zoned(off, six, peers).0, &even);
}

#[test]
fn in_panic_there_is_nobody_where_that_is_asked_for() {
    let mut policy = ZoneAware::default();
    policy.fail_in_panic = true;
    let (shares, stats) = zoned(
        policy,
        &[("own", 0, &[true, false, false]), ("b", 0, &[false; 4])],
        &[("own", 0, &[true]), ("b", 0, &[true])],
    );
    near(&shares, &[("nobody", 10_000)]);
    assert_eq!(stat(&stats, ClusterStat::LbHealthyPanic), 10_000);
}

/// Endpoints of two versions, two of them in production.
fn labelled() -> EndpointSet {
    let name = |text: &str| Name::from(text);
    let endpoints = [("v1", true), ("v1", false), ("v2", true), ("v3", false)];
    let endpoints = (1..).zip(endpoints).map(|(port, (version, stage))| {
        let address = mesh_test::fixture::address(&format!("10.0.0.1:{port}"));
        let mut endpoint = Endpoint::new(address);
        let mut subset = BTreeMap::from([(name("version"), name(version))]);
        if stage {
            subset.insert(name("stage"), name("prod"));
        }
        endpoint.subset = Arc::new(subset);
        Arc::new(endpoint)
    });
    EndpointSet::from_endpoints(endpoints.collect())
}

/// The ports that requests for this subset reach.
fn reached(config: &SubsetBalancing, wanted: &[(&str, &str)]) -> Vec<u16> {
    let mut cluster = Cluster::new("c");
    cluster.balancing = Balancing::RoundRobin;
    cluster.subsets = Some(Arc::new(config.clone()));
    let set = built(cluster, &labelled(), None);
    let wanted = wanted
        .iter()
        .map(|(name, value)| (Name::from(*name), Name::from(*value)))
        .collect();
    let mut ask = Ask::new(0);
    ask.subset = Some(&wanted);
    let mut picker = Picker::default();
    let picks = (0..20).filter_map(|_| picker.choose(&set, &ask));
    let mut ports: Vec<_> = picks.map(|pick| pick.host.address().port()).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[test]
fn requests_reach_the_subset_that_they_ask_for_or_what_there_is_instead() {
    let selector = |keys: &[&str]| {
        let mut selector = SubsetSelector::default();
        selector.keys = keys.iter().map(|key| Name::from(*key)).collect();
        selector
    };
    let mut config = SubsetBalancing::default();
    config.selectors = vec![selector(&["version"]), selector(&["stage", "version"])];
    assert_eq!(reached(&config, &[("version", "v1")]), [1, 2]);
    assert_eq!(
        reached(&config, &[("version", "v1"), ("stage", "prod")]),
        [1]
    );
    assert_eq!(
        reached(&config, &[("stage", "prod")]),
        NOBODY,
        "nobody asks by that alone"
    );
    assert_eq!(reached(&config, &[]), NOBODY);

    config.fallback = SubsetFallback::Any;
    assert_eq!(reached(&config, &[("version", "v9")]), [1, 2, 3, 4]);
    config.fallback = SubsetFallback::Default;
    config.default = BTreeMap::from([("version".into(), "v2".into())]);
    assert_eq!(reached(&config, &[("version", "v9")]), [3]);
    assert_eq!(reached(&config, &[]), [3]);
    config.selectors[0].fallback = Some(SubsetFallback::None);
    assert_eq!(reached(&config, &[("version", "v9")]), NOBODY);

    config.default = BTreeMap::from([("version".into(), "v9".into())]);
    assert_eq!(reached(&config, &[]), NOBODY);
    config.panic_mode_any = true;
    assert_eq!(reached(&config, &[]), [1, 2, 3, 4]);

    config.selectors = vec![selector(&["stage"])];
    config.selectors[0].single = true;
    assert_eq!(
        reached(&config, &[("stage", "prod")]),
        [1],
        "the first of two"
    );
}

#[test]
fn a_new_host_gets_its_share_little_by_little() {
    for balancing in [Balancing::RoundRobin, Balancing::LEAST_REQUEST] {
        let mut cluster = Cluster::new("c");
        cluster.balancing = balancing;
        cluster.slow_start = Some(SlowStart::new(Duration::from_secs(100)));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let old = endpoints(&[("old", 0, &[true])]);
        let first = Members::build(1, &old, &Members::default());
        let build = |members: &Arc<Members>, now| {
            let setting = Setting {
                now: Some(now),
                ..Setting::default()
            };
            HostSet::build(1, Arc::new(cluster.clone()), members.clone(), setting)
        };
        let first = Arc::new(first);
        build(&first, start);
        let both = endpoints(&[("old", 0, &[true]), ("new", 0, &[true])]);
        let set = build(&Arc::new(Members::build(2, &both, &first)), at(1_000));
        let share = |seconds| {
            let mut ask = Ask::new(0);
            ask.now = Some(at(seconds));
            let shares = shares(&set, &ask);
            f64::from(shares["new"]) / 10_000.0
        };
        // Its weight is a tenth, a quarter, the whole of the other's.
        for (seconds, expected) in [
            (1_000, 1.0 / 11.0),
            (1_025, 0.2),
            (1_100, 0.5),
            (9_000, 0.5),
        ] {
            let share = share(seconds);
            assert!(
                (share - expected).abs() < 0.01,
                "{balancing:?} {seconds}: {share}"
            );
        }
    }
}

#[test]
fn all_are_equally_new_at_first() {
    let mut cluster = Cluster::new("c");
    cluster.balancing = Balancing::RoundRobin;
    let mut slow = SlowStart::new(Duration::from_secs(100));
    (slow.minimum, slow.aggression) = (0, Real::new(0.01).unwrap());
    cluster.slow_start = Some(slow);
    let now = Instant::now();
    let set = built(
        cluster,
        &endpoints(&[("a", 0, &[true]), ("b", 0, &[true])]),
        Some(now),
    );
    let mut ask = Ask::new(0);
    ask.now = Some(now);
    near(&shares(&set, &ask), &[("a", 5_000), ("b", 5_000)]);
}
