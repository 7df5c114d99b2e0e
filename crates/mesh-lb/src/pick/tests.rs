use super::*;
use crate::hosts::{Members, Setting};
use mesh_core::Rng;
use mesh_core::model::{Cluster, Endpoint, EndpointSet, Health, LocalityEndpoints, Real};
use mesh_test::fixture::address;
use proptest::prelude::*;
use std::collections::HashMap;

/// Endpoints by priority, each a weight and a health.
type Spec = Vec<Vec<(u32, Health)>>;

fn endpoints(spec: &Spec) -> EndpointSet {
    let mut set = EndpointSet::default();
    let mut port = 0;
    for (priority, group) in (0..).zip(spec) {
        let mut locality = LocalityEndpoints::default();
        locality.priority = priority;
        for (weight, health) in group {
            port += 1;
            let mut endpoint = Endpoint::new(address(&format!("10.0.0.1:{port}")));
            endpoint.weight = *weight;
            endpoint.health = *health;
            locality.endpoints.push(Arc::new(endpoint));
        }
        set.localities.push(locality);
    }
    set
}

fn set_of(balancing: Balancing, panic_threshold: u32, spec: &Spec) -> HostSet {
    let mut cluster = Cluster::new("c");
    cluster.balancing = balancing;
    cluster.panic_threshold = panic_threshold;
    let members = Members::build(1, &endpoints(spec), &Members::default());
    HostSet::build(1, Arc::new(cluster), Arc::new(members), Setting::default())
}

fn weighted(balancing: Balancing, weights: &[u32]) -> HostSet {
    let group = weights.iter().map(|w| (*w, Health::Healthy)).collect();
    set_of(balancing, 50, &vec![group])
}

/// How often each host is chosen, by its place in the set.
fn counts(set: &HostSet, picker: &mut Picker, picks: usize, rng: &Rng) -> Vec<usize> {
    let places: HashMap<_, _> = (0..).zip(set.hosts()).map(|(at, h)| (h.id(), at)).collect();
    let mut counts = vec![0; set.hosts().len()];
    for _ in 0..picks {
        let pick = picker.pick(set, rng.word(), Avoid::NONE).expect("somebody");
        let at: usize = places[&pick.host.id()];
        counts[at] += 1;
    }
    counts
}

const LEAST: Balancing = Balancing::LEAST_REQUEST;

#[test]
fn turns_by_weight_have_the_order_that_envoys_have() {
    // Read off a running Envoy 1.40, from wherever it had begun. Of those that are due at once the
    // lighter ones come first.
    let turns = [4, 0, 1, 3, 4, 3, 4, 0, 1, 3, 4, 3, 4, 0, 1, 3, 4, 3, 4, 2];
    for balancing in [Balancing::RoundRobin, LEAST] {
        for seed in 0..20 {
            let set = weighted(balancing, &[4, 4, 1, 8, 8]);
            let (mut picker, rng) = (Picker::default(), Rng::with_seed(seed));
            let mut pick = || {
                picker
                    .pick(&set, rng.word(), Avoid::NONE)
                    .unwrap()
                    .host
                    .id()
            };
            let picks: Vec<_> = std::iter::repeat_with(&mut pick).take(75).collect();
            let at = |id| set.hosts().iter().position(|host| host.id() == id);
            let picks: Vec<_> = picks.into_iter().filter_map(at).collect();
            // The first time round it depends on where it begins.
            let found = picks[25..].windows(turns.len()).any(|some| some == turns);
            assert!(found, "{balancing:?}, {seed}: {picks:?}");
        }
    }
}

#[test]
fn round_robin_takes_each_in_turn() {
    let set = weighted(Balancing::RoundRobin, &[1, 1, 1]);
    let mut picker = Picker::default();
    let ids: Vec<_> = (0..9)
        .map(|_| picker.pick(&set, 1, Avoid::NONE).unwrap().host.id())
        .collect();
    assert_eq!(ids[..3], ids[3..6]);
    assert_eq!(ids[..3], ids[6..]);
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
}

#[test]
fn workers_do_not_all_begin_with_the_same_host() {
    let set = weighted(Balancing::RoundRobin, &[1; 10]);
    let rng = Rng::with_seed(3);
    let mut first: Vec<_> = (0..100)
        .map(|_| {
            counts(&set, &mut Picker::default(), 1, &rng)
                .iter()
                .position(|c| *c == 1)
        })
        .collect();
    first.sort_unstable();
    first.dedup();
    assert_eq!(first.len(), 10);
}

#[test]
fn a_rotation_that_keeps_starting_anew_still_follows_the_weights() {
    // As when endpoints change faster than requests come.
    for balancing in [Balancing::RoundRobin, LEAST] {
        let set = weighted(balancing, &[1, 1, 1, 5]);
        let rng = Rng::with_seed(5);
        let mut heavy = 0;
        for _ in 0..8_000 {
            heavy += counts(&set, &mut Picker::default(), 1, &rng)[3];
        }
        // 5 of 8 is 5000; the deviation is 43.
        assert!((4_800..5_200).contains(&heavy), "{balancing:?}: {heavy}");
    }
}

#[test]
fn random_choices_fall_evenly_whatever_the_weights() {
    let rng = Rng::with_seed(1);
    for (weights, picks) in [(vec![1; 10], 50_000), (vec![1, 2, 3, 4], 50_000)] {
        let set = weighted(Balancing::Random, &weights);
        let counts = counts(&set, &mut Picker::default(), picks, &rng);
        // As in Envoy.
        let weights = vec![1; weights.len()];
        let whole: u32 = weights.iter().sum();
        // Pearson's statistic; 27.9 is the 0.999 quantile for nine degrees of freedom.
        let chi: f64 = weights
            .iter()
            .zip(&counts)
            .map(|(weight, count)| {
                let expected = picks as f64 * f64::from(*weight) / f64::from(whole);
                (*count as f64 - expected).powi(2) / expected
            })
            .sum();
        assert!(chi < 27.9, "{counts:?}: {chi}");
    }
}

#[test]
fn of_two_hosts_the_one_with_fewer_requests_is_chosen() {
    let set = weighted(LEAST, &[1, 1]);
    set.hosts()[0].request_begins();
    let counts = counts(&set, &mut Picker::default(), 100, &Rng::with_seed(1));
    assert_eq!(counts, [0, 100]);
}

#[test]
fn the_busiest_of_many_is_never_chosen_by_two_choices() {
    let set = weighted(LEAST, &[1; 10]);
    set.hosts()[4].request_begins();
    let busy = counts(&set, &mut Picker::default(), 5_000, &Rng::with_seed(1));
    assert_eq!(busy[4], 0, "any other is less busy");
    for (at, count) in busy.iter().enumerate().filter(|(at, _)| *at != 4) {
        assert!((430..690).contains(count), "host {at}: {busy:?}");
    }
}

#[test]
fn more_choices_than_hosts_find_the_least_busy() {
    let set = weighted(
        Balancing::LeastRequest {
            choices: 1_000_000,
            bias: Real::ONE,
        },
        &[1; 3],
    );
    for (at, active) in [(0, 2), (1, 1), (2, 3)] {
        (0..active).for_each(|_| set.hosts()[at].request_begins());
    }
    let counts = counts(&set, &mut Picker::default(), 200, &Rng::with_seed(1));
    assert!(counts[1] > 140, "{counts:?}");
    assert_eq!(counts[2], 0, "{counts:?}");
}

#[test]
fn unequal_weights_share_idle_requests_by_weight_and_busy_hosts_get_less() {
    let rng = Rng::with_seed(1);
    let set = weighted(LEAST, &[1, 3]);
    let idle = counts(&set, &mut Picker::default(), 4_000, &rng);
    assert!((990..=1_010).contains(&idle[0]), "{idle:?}");
    // Two under way: 3 / (2 + 1) = 1, the same as the other.
    set.hosts()[1].request_begins();
    set.hosts()[1].request_begins();
    let busy = counts(&set, &mut Picker::default(), 4_000, &rng);
    assert!((1_990..=2_010).contains(&busy[0]), "{busy:?}");
}

#[test]
fn the_bias_says_how_much_requests_under_way_weigh() {
    let share = |bias| {
        let bias = Real::new(bias).unwrap();
        let set = weighted(Balancing::LeastRequest { choices: 2, bias }, &[1, 2]);
        (0..3).for_each(|_| set.hosts()[1].request_begins());
        let counts = counts(&set, &mut Picker::default(), 9_000, &Rng::with_seed(1));
        counts[1] as f64 / 9_000.0
    };
    // 2 / 4^bias to 1.
    for (bias, expected) in [
        (0.0, 2.0 / 3.0),
        (0.5, 0.5),
        (1.0, 1.0 / 3.0),
        (2.0, 1.0 / 9.0),
    ] {
        let share = share(bias);
        assert!((share - expected).abs() < 0.01, "{bias}: {share}");
    }
    assert!(share(1e300) < 0.001, "next to nothing, and no panic");
}

#[test]
fn a_retry_avoids_hosts_that_were_tried_as_often_as_it_may_draw_again() {
    let set = weighted(Balancing::RoundRobin, &[1, 1, 1]);
    let [a, b, c] = [0, 1, 2].map(|at| set.hosts()[at].id());
    let mut picker = Picker::default();
    for word in 0..50 {
        let tried = [a, b];
        let pick = picker.pick(&set, word, Avoid::hosts(&tried, 5)).unwrap();
        assert_eq!(
            pick.host.id(),
            c,
            "round robin needs two more draws at most"
        );
        // All were tried: any will do, and it ends.
        assert!(
            picker
                .pick(&set, word, Avoid::hosts(&[a, b, c], 5))
                .is_some()
        );
    }
    let seen: Vec<_> = (0..3)
        .map(|_| {
            picker
                .pick(&set, 0, Avoid::hosts(&[a, b], 0))
                .unwrap()
                .host
                .id()
        })
        .collect();
    assert!(
        seen.contains(&a),
        "no draw left, so whatever comes is accepted"
    );
}

#[test]
fn after_every_second_attempt_the_priorities_tried_are_left_out() {
    let healthy = vec![(1, Health::Healthy)];
    let set = set_of(
        Balancing::Random,
        50,
        &vec![healthy.clone(), healthy.clone(), healthy],
    );
    let ids: Vec<_> = set.hosts().iter().map(|host| host.id()).collect();
    let mut picker = Picker::default();
    let mut priority = |tried: &[HostId]| {
        let avoid = Avoid::hosts(tried, 0).and_priorities();
        picker.pick(&set, 7, avoid).unwrap().host.priority()
    };
    assert_eq!(
        priority(&[ids[0]]),
        0,
        "after one attempt all are still there"
    );
    assert_eq!(priority(&[ids[0], ids[0]]), 1);
    assert_eq!(
        priority(&[ids[0], ids[0], ids[1]]),
        1,
        "looked at again after the fourth"
    );
    assert_eq!(priority(&[ids[0], ids[0], ids[1], ids[1]]), 2);
    assert_eq!(
        priority(&[ids[0], ids[1], ids[2], ids[2]]),
        0,
        "none is left: all again"
    );
    let more = [ids[0], ids[1], ids[2], ids[2], ids[0], ids[0]];
    assert_eq!(priority(&more), 1, "and anew");
    let mut after_each = Avoid::hosts(&ids[..1], 0).and_priorities();
    after_each.priority_attempts = 1;
    let next = picker.pick(&set, 7, after_each).unwrap();
    assert_eq!(next.host.priority(), 1, "looked at after every attempt");
}

#[test]
fn panic_uses_everybody_and_says_so() {
    use Health::{Healthy, Unhealthy};
    let spec = vec![vec![
        (1, Healthy),
        (1, Unhealthy),
        (1, Unhealthy),
        (1, Unhealthy),
    ]];
    let panic = set_of(Balancing::Random, 50, &spec);
    let mut picker = Picker::default();
    assert!(picker.pick(&panic, 0, Avoid::NONE).unwrap().panic);
    let all = counts(&panic, &mut picker, 400, &Rng::with_seed(1));
    assert!(all.iter().all(|count| *count > 50), "{all:?}");

    let never = set_of(Balancing::Random, 0, &spec);
    let mut picker = Picker::default();
    assert!(!picker.pick(&never, 0, Avoid::NONE).unwrap().panic);
    assert_eq!(
        counts(&never, &mut picker, 400, &Rng::with_seed(1)),
        [400, 0, 0, 0]
    );
    let nobody = set_of(Balancing::Random, 0, &vec![vec![(1, Unhealthy)]]);
    assert!(Picker::default().pick(&nobody, 0, Avoid::NONE).is_none());
}

#[test]
fn nobody_is_chosen_from_an_empty_set() {
    for spec in [vec![], vec![vec![]]] {
        for threshold in [0, 50] {
            let set = set_of(Balancing::RoundRobin, threshold, &spec);
            assert!(Picker::default().pick(&set, 0, Avoid::NONE).is_none());
        }
    }
}

#[test]
fn who_drains_is_chosen_in_panic_only() {
    let spec = vec![vec![(1, Health::Draining)]];
    let never = set_of(Balancing::RoundRobin, 0, &spec);
    assert!(Picker::default().pick(&never, 0, Avoid::NONE).is_none());
    let set = set_of(Balancing::RoundRobin, 50, &spec);
    let pick = Picker::default().pick(&set, 0, Avoid::NONE);
    assert!(pick.expect("all are used").panic);
    let half = vec![vec![(1, Health::Draining), (1, Health::Healthy)]];
    let set = set_of(Balancing::RoundRobin, 50, &half);
    let mut picker = Picker::default();
    for word in 0..20 {
        let host = picker.pick(&set, word, Avoid::NONE).unwrap().host;
        assert_eq!(host.health(), Health::Healthy);
    }
}

fn balancing() -> impl Strategy<Value = Balancing> {
    prop_oneof![
        Just(Balancing::RoundRobin),
        Just(Balancing::Random),
        (0..5_u32).prop_map(|choices| Balancing::LeastRequest {
            choices,
            bias: Real::ONE
        }),
    ]
}

fn health() -> impl Strategy<Value = Health> {
    prop_oneof![
        3 => Just(Health::Healthy),
        1 => Just(Health::Degraded),
        1 => Just(Health::Unhealthy),
        1 => Just(Health::Draining),
    ]
}

fn spec() -> impl Strategy<Value = Spec> {
    let group = prop::collection::vec((1..6_u32, health()), 0..6);
    prop::collection::vec(group, 0..4)
}

proptest! {
    #[test]
    fn round_robin_gives_each_its_weight_in_any_window_of_a_full_cycle(
        weights in prop::collection::vec(1..30_u32, 1..9),
        seed: u64,
        skip in 0..100_usize,
    ) {
        let set = weighted(Balancing::RoundRobin, &weights);
        let (mut picker, rng) = (Picker::default(), Rng::with_seed(seed));
        let whole: u32 = weights.iter().sum();
        counts(&set, &mut picker, skip, &rng);
        for _ in 0..2 {
            let window = counts(&set, &mut picker, whole as usize, &rng);
            let expected: Vec<_> = weights.iter().map(|weight| *weight as usize).collect();
            prop_assert_eq!(window, expected);
        }
    }

    #[test]
    fn round_robin_never_lets_a_host_fall_far_behind(
        weights in prop::collection::vec(1..30_u32, 2..9),
        seed: u64,
    ) {
        let set = weighted(Balancing::RoundRobin, &weights);
        let (mut picker, rng) = (Picker::default(), Rng::with_seed(seed));
        let whole: u32 = weights.iter().sum();
        // Earliest deadline first: in n picks a host of weight w has had w·n/W, less than its
        // neighbours' count away.
        let slack = weights.len() as f64 + 1.0;
        let mut had = vec![0; weights.len()];
        for n in 1..=whole {
            let pick = counts(&set, &mut picker, 1, &rng);
            had.iter_mut().zip(pick).for_each(|(had, one)| *had += one);
            for (had, weight) in had.iter().zip(&weights) {
                let due = f64::from(*weight) * f64::from(n) / f64::from(whole);
                prop_assert!((*had as f64 - due).abs() <= slack, "{had} of {due}");
            }
        }
    }

    #[test]
    fn nobody_who_may_not_be_used_is_ever_chosen(
        spec in spec(), balancing in balancing(), threshold in 0..=100_u32,
        ejected in prop::collection::vec(any::<bool>(), 24), seed: u64,
    ) {
        let members = Members::build(1, &endpoints(&spec), &Members::default());
        for (host, ejected) in members.hosts().iter().zip(ejected) {
            host.set_ejected(ejected);
        }
        let mut cluster = Cluster::new("c");
        cluster.balancing = balancing;
        cluster.panic_threshold = threshold;
        let set = HostSet::build(1, Arc::new(cluster), Arc::new(members), Setting::default());
        let (mut picker, rng) = (Picker::default(), Rng::with_seed(seed));
        let usable = set.healthy() + set.degraded() > 0;
        for _ in 0..200 {
            let Some(pick) = picker.pick(&set, rng.word(), Avoid::NONE) else {
                prop_assert!(!usable, "somebody could have been chosen");
                continue;
            };
            let host = &pick.host;
            prop_assert!(
                pick.panic || matches!(host.health(), Health::Healthy | Health::Degraded)
            );
            prop_assert!(!pick.panic || threshold > 0);
        }
    }

    #[test]
    fn a_change_of_endpoints_leaves_every_other_host_as_it_was(
        before in prop::collection::btree_set(1..40_u16, 0..20),
        after in prop::collection::btree_set(1..40_u16, 0..20),
    ) {
        let build = |ports: &std::collections::BTreeSet<u16>, stamp, previous: &Members| {
            let addresses = ports.iter().map(|port| address(&format!("10.0.0.1:{port}")));
            Members::build(stamp, &EndpointSet::of(addresses), previous)
        };
        let first = build(&before, 1, &Members::default());
        first.hosts().iter().for_each(|host| host.request_begins());
        let second = build(&after, 2, &first);
        prop_assert_eq!(second.hosts().len(), after.len());
        for host in second.hosts() {
            let known = before.contains(&host.address().port());
            prop_assert_eq!(first.contains(host.id()), known);
            prop_assert_eq!(host.active(), u32::from(known));
        }
        prop_assert_eq!(second.differs_from(&first), before != after);
    }
}
