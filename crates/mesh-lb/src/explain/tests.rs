//! A picker is the judge: it gets who is said to be eligible, and nobody else.

use super::*;
use crate::hosts::{Members, Setting};
use crate::{Ask, Picker};
use mesh_core::Rng;
use mesh_core::model::{
    Cluster, Endpoint, EndpointSet, LocalityEndpoints, Maglev, SubsetBalancing, SubsetLocalities,
    SubsetSelector,
};
use mesh_test::fixture::address;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// One endpoint: its health, whether it is ejected, its version.
type One = (Health, bool, bool);

/// Localities: priority, weight, endpoints.
type Spec = Vec<(u32, u32, Vec<One>)>;

fn endpoints(spec: &Spec) -> EndpointSet {
    let mut set = EndpointSet::default();
    let mut port = 0;
    for (zone, (priority, weight, group)) in spec.iter().enumerate() {
        let mut locality = LocalityEndpoints::default();
        locality.locality.zone = format!("z{zone}").into();
        locality.priority = *priority;
        locality.weight = *weight;
        for (health, _, second) in group {
            port += 1;
            let mut endpoint = Endpoint::new(address(&format!("10.0.0.1:{port}")));
            endpoint.health = *health;
            let version = if *second { "\"v2\"" } else { "\"v1\"" };
            endpoint.subset = Arc::new([("version".into(), version.into())].into());
            locality.endpoints.push(Arc::new(endpoint));
        }
        set.localities.push(locality);
    }
    set
}

fn set_of(cluster: Cluster, spec: &Spec) -> HostSet {
    let members = Members::build(1, &endpoints(spec), &Members::default());
    let ejected = spec.iter().flat_map(|(_, _, group)| group);
    for (host, (_, ejected, _)) in members.hosts().iter().zip(ejected) {
        host.set_ejected(*ejected);
    }
    HostSet::build(1, Arc::new(cluster), Arc::new(members), Setting::default())
}

fn spec() -> impl Strategy<Value = Spec> {
    let health = prop_oneof![
        4 => Just(Health::Healthy),
        2 => Just(Health::Degraded),
        2 => Just(Health::Unhealthy),
        1 => Just(Health::Draining),
    ];
    let one = (health, prop::bool::weighted(0.2), any::<bool>());
    let group = (0_u32..3, 0_u32..3, prop::collection::vec(one, 0..4));
    prop::collection::vec(group, 0..5)
}

fn clusters() -> impl Strategy<Value = Cluster> {
    let balancing = prop_oneof![
        Just(Balancing::RoundRobin),
        Just(Balancing::LEAST_REQUEST),
        Just(Balancing::Random),
        Just(Balancing::Maglev(Maglev::default())),
    ];
    let subsets = prop_oneof![
        2 => Just(None),
        1 => Just(Some(SubsetFallback::None)),
        1 => Just(Some(SubsetFallback::Any)),
        1 => Just(Some(SubsetFallback::Default)),
    ];
    let localities = prop_oneof![
        Just(SubsetLocalities::Ignored),
        Just(SubsetLocalities::Weighted),
        Just(SubsetLocalities::Scaled),
    ];
    let more = (any::<bool>(), any::<bool>(), localities);
    let threshold = prop_oneof![Just(0), Just(50), Just(100)];
    (balancing, threshold, any::<bool>(), subsets, more).prop_map(
        |(balancing, threshold, weighted, fallback, (panic_mode_any, by_keys, localities))| {
            let mut cluster = Cluster::new("c");
            cluster.balancing = balancing;
            cluster.panic_threshold = threshold;
            if weighted {
                cluster.localities = LocalityBalancing::Weighted;
            }
            cluster.subsets = fallback.map(|fallback| {
                let mut selector = SubsetSelector::default();
                selector.keys = vec!["version".into()];
                let mut subsets = SubsetBalancing::default();
                subsets.selectors = vec![selector];
                subsets.fallback = fallback;
                subsets.default = [("version".into(), "\"v1\"".into())].into();
                subsets.panic_mode_any = panic_mode_any;
                subsets.localities = localities;
                subsets.fallback_list = true;
                if by_keys {
                    let mut selector = SubsetSelector::default();
                    selector.keys = vec!["colour".into(), "version".into()];
                    selector.fallback = Some(SubsetFallback::Keys);
                    selector.fallback_keys = vec!["version".into()];
                    subsets.selectors.push(selector);
                }
                Arc::new(subsets)
            });
            cluster
        },
    )
}

/// Everybody that a picker gives for many words: at least so many, and more until `enough` are
/// found.
fn picked(set: &HostSet, subset: Option<&BTreeMap<Name, Name>>, enough: usize) -> BTreeSet<HostId> {
    let (rng, mut picker) = (Rng::with_seed(7), Picker::default());
    let mut found = BTreeSet::new();
    for count in 0..400_000 {
        let mut ask = Ask::new(rng.word());
        ask.subset = subset;
        found.extend(picker.choose(set, &ask).map(|pick| pick.host.id()));
        if count > 2_000 && found.len() >= enough {
            break;
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_picker_gets_exactly_who_is_eligible(
        cluster in clusters(),
        spec in spec(),
        wanted in prop::option::of(prop_oneof![Just("v1"), Just("v2"), Just("v9")]),
        other in prop::option::of(prop_oneof![
            Just(("colour", r#""red""#)),
            Just(("fallback_list", r#"[{"version":"v9"},{"version":"v1"}]"#)),
            Just(("fallback_list", "[]")),
            Just(("fallback_list", r#"[{"colour":"red"}]"#)),
        ]),
    ) {
        let set = set_of(cluster, &spec);
        let wanted: Option<BTreeMap<Name, Name>> =
            wanted.map(|version| [("version".into(), format!("{version:?}").into())].into());
        let wanted = wanted.map(|mut wanted| {
            wanted.extend(other.map(|(name, value)| (name.into(), value.into())));
            wanted
        });
        let standings = set.standings(wanted.as_ref());
        let eligible: BTreeSet<HostId> = standings
            .hosts
            .iter()
            .filter(|host| host.verdict.is_eligible())
            .map(|host| host.view.id)
            .collect();
        let found = picked(&set, wanted.as_ref(), eligible.len());
        prop_assert_eq!(found, eligible, "{:#?}", standings);
    }
}

fn verdicts(cluster: Cluster, spec: &Spec) -> Vec<Verdict> {
    let standings = set_of(cluster, spec).standings(None);
    standings.hosts.iter().map(|host| host.verdict).collect()
}

#[test]
fn each_that_may_not_be_chosen_has_its_reason() {
    let first = vec![
        (Health::Healthy, false, false),
        (Health::Healthy, false, false),
        (Health::Healthy, false, false),
        (Health::Healthy, false, false),
        (Health::Healthy, true, false),
        (Health::Draining, false, false),
        (Health::Degraded, false, false),
    ];
    let second = vec![
        (Health::Healthy, false, false),
        (Health::Unhealthy, false, false),
    ];
    let mut eligible = vec![Verdict::Eligible; 4];
    eligible.extend([
        Verdict::Ejected,
        Verdict::Draining,
        Verdict::Degraded,
        Verdict::Priority,
        Verdict::Unhealthy,
    ]);
    let spec = vec![(0, 1, first), (1, 1, second)];
    // 140 % of four sixths is 93 %, which with the degraded one is all.
    let found = verdicts(Cluster::new("c"), &spec);
    assert_eq!(found[4..6], eligible[4..6]);
    let mut all_healthy = spec;
    all_healthy[0]
        .2
        .extend(vec![(Health::Healthy, false, false); 8]);
    let found = verdicts(Cluster::new("c"), &all_healthy);
    assert_eq!(found[..7], eligible[..7]);
    assert_eq!(found[15..], eligible[7..]);
}

#[test]
fn in_panic_the_unhealthy_may_be_chosen_too() {
    let group = vec![
        (Health::Healthy, false, false),
        (Health::Unhealthy, false, false),
        (Health::Healthy, true, false),
        (Health::Draining, false, false),
    ];
    let found = verdicts(Cluster::new("c"), &vec![(0, 1, group)]);
    assert_eq!(
        found,
        [
            Verdict::Eligible,
            Verdict::EligibleInPanic,
            Verdict::EligibleInPanic,
            Verdict::EligibleInPanic,
        ]
    );
}

/// Of the subset that is the default, whom hashes lead nowhere in: the priority whose hosts are all
/// degraded. Its seven percent find somebody of the whole cluster.
#[test]
fn who_finds_nobody_in_a_subset_gets_somebody_of_the_whole() {
    let mut cluster = Cluster::new("c");
    cluster.balancing = Balancing::Maglev(Maglev::default());
    cluster.panic_threshold = 0;
    let mut subsets = SubsetBalancing::default();
    subsets.fallback = SubsetFallback::Default;
    subsets.default = [("version".into(), "\"v1\"".into())].into();
    subsets.panic_mode_any = true;
    cluster.subsets = Some(Arc::new(subsets));
    let healthy = |version| (Health::Healthy, false, version);
    let first = vec![
        (Health::Healthy, true, false),
        healthy(false),
        healthy(false),
        healthy(true),
    ];
    let second = vec![(Health::Degraded, false, false)];
    let found = verdicts(
        cluster.clone(),
        &vec![(0, 0, first.clone()), (1, 0, second)],
    );
    let expected = [
        Verdict::Ejected,
        Verdict::Eligible,
        Verdict::Eligible,
        Verdict::Eligible,
        Verdict::Degraded,
    ];
    assert_eq!(found, expected);
    // Where all of them find somebody, nobody else is asked.
    let found = verdicts(cluster, &vec![(0, 0, first)]);
    assert_eq!(found[3], Verdict::Subset);
}
