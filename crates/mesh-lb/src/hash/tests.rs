use super::*;
use crate::hosts::{HostSet, Members, Setting};
use crate::pick::{Ask, Avoid, Picker};
use mesh_core::Rng;
use mesh_core::model::{
    Address, Cluster, Endpoint, EndpointSet, HashFunction, Maglev as MaglevConfig, RingHash,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn set_of(balancing: Balancing, weights: &[(u8, u32)]) -> HostSet {
    let endpoints = weights.iter().map(|(at, weight)| {
        let address = mesh_test::fixture::address(&format!("127.0.77.{at}:81"));
        let mut endpoint = Endpoint::new(address);
        endpoint.weight = *weight;
        Arc::new(endpoint)
    });
    let endpoints = EndpointSet::from_endpoints(endpoints.collect());
    let members = Members::build(1, &endpoints, &Members::default());
    let mut cluster = Cluster::new("c");
    cluster.balancing = balancing;
    HostSet::build(1, Arc::new(cluster), Arc::new(members), Setting::default())
}

fn ring(change: impl FnOnce(&mut RingHash)) -> Balancing {
    let mut ring = RingHash::default();
    change(&mut ring);
    Balancing::RingHash(ring)
}

fn maglev(change: impl FnOnce(&mut MaglevConfig)) -> Balancing {
    let mut maglev = MaglevConfig::default();
    change(&mut maglev);
    Balancing::Maglev(maglev)
}

/// The last part of the address that a hash leads to.
fn found(set: &HostSet, hash: u64) -> u8 {
    let ask = Ask::new(0).hash(Some(hash));
    let pick = Picker::default().choose(set, &ask).expect("somebody");
    match pick.host.address() {
        Address::Socket(address) => match address.ip() {
            std::net::IpAddr::V4(ip) => ip.octets()[3],
            std::net::IpAddr::V6(_) => 0,
        },
        _ => 0,
    }
}

/// Where an Envoy 1.40 with the same endpoints sent the keys `key-0`, `key-1`, …
fn assert_sends(balancing: Balancing, weights: [u32; 5], recorded: &str, extent: (u64, u64, u64)) {
    let weights: Vec<(u8, u32)> = (1..).zip(weights).collect();
    let set = set_of(balancing, &weights);
    let sent: String = (0..recorded.len())
        .map(|key| found(&set, xx(format!("key-{key}").as_bytes())).to_string())
        .collect();
    assert_eq!(sent, recorded);
    let (size, least, most) = extent;
    assert_eq!(set.extent(), Some(Extent { size, least, most }));
}

const WEIGHTS: [u32; 5] = [1, 2, 7, 100, 3];

#[test]
fn rings_send_keys_where_envoy_sent_them() {
    assert_sends(
        ring(|_| {}),
        [1; 5],
        "441541132253244223425114321522354522344513551112",
        (1025, 205, 205),
    );
    assert_sends(
        ring(|ring| ring.function = HashFunction::Murmur2),
        [1; 5],
        "423241315151342444242141212121311453243412114342",
        (1025, 205, 205),
    );
    assert_sends(
        ring(|ring| (ring.minimum, ring.maximum) = (100, 333)),
        WEIGHTS,
        "444444444444444444444444444144444444444444324444",
        (113, 1, 100),
    );
}

#[test]
fn tables_send_keys_where_envoy_sent_them() {
    assert_sends(
        maglev(|_| {}),
        [1; 5],
        "551355445152214115552321433453541252452241424245",
        (65_537, 13_107, 13_108),
    );
    assert_sends(
        maglev(|maglev| maglev.size = 251),
        WEIGHTS,
        "444444444444444343444444444344444444444344444324",
        (251, 3, 220),
    );
}

#[test]
fn a_retry_moves_on_and_no_further_than_it_may() {
    let set = set_of(ring(|_| {}), &[(1, 1), (2, 1), (3, 1)]);
    let first = found(&set, 77);
    let tried: Vec<_> = set
        .hosts()
        .iter()
        .filter(|host| host.address().to_string() == format!("127.0.77.{first}:81"))
        .map(|host| host.id())
        .collect();
    let choose = |redraws| {
        let ask = Ask::new(0)
            .hash(Some(77))
            .avoid(Avoid::hosts(&tried, redraws));
        Picker::default().choose(&set, &ask).unwrap().host.id()
    };
    assert_eq!(choose(0), tried[0]);
    assert_ne!(choose(100), tried[0]);
}

#[test]
fn without_a_hash_any_host_will_do() {
    let set = set_of(maglev(|_| {}), &[(1, 1), (2, 1), (3, 1)]);
    let (mut picker, rng) = (Picker::default(), Rng::with_seed(1));
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..3_000 {
        let pick = picker.pick(&set, rng.word(), Avoid::NONE).unwrap();
        *counts.entry(pick.host.address().to_string()).or_default() += 1;
    }
    assert!(
        counts.values().all(|count| (850..1_150).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn a_host_with_too_much_under_way_is_passed_over_for_always_the_same_one() {
    let balancing = ring(|ring| ring.keys.balance_factor = Some(120));
    let set = set_of(balancing, &[(1, 1), (2, 1), (3, 1), (4, 1)]);
    let first = found(&set, 77);
    let host = |at: u8| &set.hosts()[usize::from(at) - 1];
    // ((10 + 1) × 120 + 99) / 100 = 14 places, 4 for each.
    (0..5).for_each(|_| host(first).request_begins());
    (0..5).for_each(|_| host(first % 4 + 1).request_begins());
    let second = found(&set, 77);
    assert!(second != first && second != first % 4 + 1);
    assert_eq!(found(&set, 77), second);
    (0..3).for_each(|_| host(first).request_is_over());
    assert_eq!(found(&set, 77), first);
}

#[test]
fn where_all_have_too_much_the_least_overloaded_gets_it() {
    let hosts: Vec<_> = set_of(Balancing::Random, &[(1, 1), (2, 1)])
        .hosts()
        .iter()
        .map(|host| Weighed {
            host: host.clone(),
            share: 0.5,
        })
        .collect();
    for (at, active) in [(0, 9), (1, 7)] {
        (0..active).for_each(|_| hosts[at].host.request_begins());
    }
    // As if nobody else had anything: one place for each.
    assert_eq!(bounded::choose(&hosts, 0, 1, 100, 0), 1);
}

#[test]
fn the_text_of_a_host_is_its_key_else_its_name_else_its_address() {
    let mut endpoint = Endpoint::new(mesh_test::fixture::address("[::1]:80"));
    let text = |endpoint: &Endpoint, hostname| {
        let mut keys = HashKeys::default();
        keys.hostname = hostname;
        let host = Host::new(Arc::new(endpoint.clone()), 0, Arc::default());
        key(&host, keys).into_owned()
    };
    assert_eq!(text(&endpoint, true), "[::1]:80");
    endpoint.hostname = "a.example".into();
    assert_eq!(text(&endpoint, false), "[::1]:80");
    assert_eq!(text(&endpoint, true), "a.example");
    endpoint.hash_key = "mine".into();
    assert_eq!(text(&endpoint, true), "mine");
}

#[test]
fn a_table_is_kept_while_its_hosts_stay_the_same() {
    let set = set_of(maglev(|_| {}), &[(1, 1), (2, 1)]);
    let again = |previous: &HostSet| {
        let setting = Setting {
            previous: Some(previous),
            ..Setting::default()
        };
        HostSet::build(2, set.config().clone(), set.members().clone(), setting)
    };
    let table = |set: &HostSet| set.tiers()[0].built_table().unwrap().clone();
    assert!(Arc::ptr_eq(&table(&set), &table(&again(&set))));
    set.hosts()[0].set_ejected(true);
    let fewer = again(&set);
    assert!(!Arc::ptr_eq(&table(&set), &table(&fewer)));
}

#[test]
fn a_ring_without_points_leads_nowhere() {
    let set = set_of(ring(|ring| ring.minimum = 0), &[(1, 1)]);
    assert!(Picker::default().pick(&set, 1, Avoid::NONE).is_none());
}

fn any_balancing() -> impl Strategy<Value = Balancing> {
    prop_oneof![
        (0..3_000_u64, 0..5_000_u64, any::<bool>()).prop_map(|(minimum, maximum, murmur)| {
            ring(|ring| {
                (ring.minimum, ring.maximum) = (minimum, maximum);
                if murmur {
                    ring.function = HashFunction::Murmur2;
                }
            })
        }),
        (0..3_000_u64).prop_map(|size| maglev(|maglev| maglev.size = size)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_weights_and_no_sizes_make_it_panic(
        balancing in any_balancing(),
        weights in prop::collection::vec(any::<u32>(), 0..20),
        hashes in prop::collection::vec(any::<u64>(), 20),
        redraws in 0..5_u32,
    ) {
        let weights: Vec<(u8, u32)> = (1..).zip(weights).collect();
        let set = set_of(balancing, &weights);
        let tried: Vec<_> = set.hosts().iter().take(2).map(|host| host.id()).collect();
        for hash in hashes.into_iter().chain([0, u64::MAX]) {
            let ask = Ask::new(1).hash(Some(hash)).avoid(Avoid::hosts(&tried, redraws));
            let pick = Picker::default().choose(&set, &ask);
            prop_assert!(pick.is_none() || !weights.is_empty());
        }
    }

    #[test]
    fn when_a_host_leaves_the_others_keep_most_of_their_keys(
        count in 3..12_u8, leaver in 0..3_u8, by_ring: bool,
    ) {
        let balancing = if by_ring { ring(|_| {}) } else { maglev(|_| {}) };
        let all: Vec<_> = (1..=count).map(|at| (at, 1)).collect();
        let rest: Vec<_> = all.iter().copied().filter(|(at, _)| *at != leaver + 1).collect();
        let (before, after) = (set_of(balancing, &all), set_of(balancing, &rest));
        let rng = Rng::with_seed(1);
        let moved = (0..2_000).map(|_| rng.word()).filter(|hash| {
            let old = found(&before, *hash);
            old != leaver + 1 && old != found(&after, *hash)
        });
        let moved = moved.count();
        // The ring keeps its size, so those that stay get more points and take from each other:
        // of three hosts a ninth of all keys, of more a smaller part.
        prop_assert!(moved < 300, "{moved} of 2,000");
    }

    #[test]
    fn each_host_gets_keys_in_proportion_to_its_weight(
        weights in prop::collection::vec(1..6_u32, 2..8), by_ring: bool,
    ) {
        let balancing = if by_ring { ring(|ring| ring.minimum = 20_000) } else { maglev(|_| {}) };
        let weights: Vec<(u8, u32)> = (1..).zip(weights).collect();
        let set = set_of(balancing, &weights);
        let (rng, sum) = (Rng::with_seed(2), weights.iter().map(|(_, weight)| weight).sum::<u32>());
        let mut counts = vec![0_u32; weights.len()];
        for _ in 0..10_000 {
            counts[usize::from(found(&set, rng.word())) - 1] += 1;
        }
        for ((_, weight), count) in weights.iter().zip(&counts) {
            let due = 10_000.0 * f64::from(*weight) / f64::from(sum);
            prop_assert!((f64::from(*count) - due).abs() < 350.0, "{weights:?} {counts:?}");
        }
    }
}

#[test]
fn a_unix_domain_socket_is_hashed_by_its_bare_path() {
    let path = mesh_core::model::UnixPath::new("/run/app.sock").unwrap();
    let endpoints = EndpointSet::from_endpoints(vec![Arc::new(Endpoint::new(path))]);
    let members = Members::build(1, &endpoints, &Members::default());
    assert_eq!(
        key(&members.hosts()[0], HashKeys::default()),
        "/run/app.sock"
    );
}
