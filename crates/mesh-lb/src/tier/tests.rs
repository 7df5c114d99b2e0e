use super::*;
use proptest::prelude::*;

fn tier(total: u32, healthy: u32, degraded: u32) -> Counts {
    Counts {
        total,
        healthy,
        degraded,
        excluded: 0,
    }
}

#[test]
fn who_is_left_out_is_not_missed_and_counts_where_all_are_in_panic() {
    let with = |excluded, counts: Counts| Counts { excluded, ..counts };
    // Envoy 1.40: one of three and one that drains, six of nine and one, 50 % overprovisioned.
    let tiers = [with(1, tier(3, 1, 0)), with(1, tier(9, 6, 0))];
    let load = Load::with(&tiers, 50, 50);
    assert_eq!(to_healthy(&load), [33, 67]);
    assert!(load.is_in_panic(0) && !load.is_in_panic(1));
    let nobody = [with(3, tier(0, 0, 0)), with(0, tier(1, 0, 0))];
    let load = Load::compute(&nobody, 50);
    assert_eq!(to_healthy(&load), [75, 25], "by how many there are");
}

/// Priorities of 100 hosts each, with these percentages healthy.
fn healthy(percent: &[u32]) -> Vec<Counts> {
    percent.iter().map(|p| tier(100, *p, 0)).collect()
}

fn to_healthy(load: &Load) -> Vec<u32> {
    load.shares().iter().map(|(healthy, _)| *healthy).collect()
}

#[test]
fn traffic_spills_to_the_next_priority_as_in_envoys_table_for_two() {
    // docs: load_balancing/priority, "P=0 healthy endpoints | Traffic to P=0 | to P=1".
    let rows = [
        (100, [100, 0]),
        (72, [100, 0]),
        (71, [99, 1]),
        (50, [70, 30]),
        (25, [35, 65]),
        (0, [0, 100]),
    ];
    for (first, expected) in rows {
        let load = Load::compute(&healthy(&[first, 100]), 50);
        assert_eq!(to_healthy(&load), expected, "P0 at {first} %");
        assert!(!load.is_in_panic(0), "P1 can take everything");
    }
}

#[test]
fn traffic_is_shared_by_three_priorities_as_in_envoys_table() {
    // docs: load_balancing/priority, the table for three priorities.
    let rows = [
        ([100, 100, 100], [100, 0, 0]),
        ([72, 72, 100], [100, 0, 0]),
        ([71, 71, 100], [99, 1, 0]),
        ([50, 50, 100], [70, 30, 0]),
        ([25, 100, 100], [35, 65, 0]),
        ([25, 25, 100], [35, 35, 30]),
        // 35 + 35 + 28 = 98: scaled up, rounding goes to P0.
        ([25, 25, 20], [37, 35, 28]),
    ];
    for (health, expected) in rows {
        let load = Load::compute(&healthy(&health), 0);
        assert_eq!(to_healthy(&load), expected, "{health:?}");
    }
}

#[test]
fn degraded_hosts_get_what_healthy_ones_cannot_take() {
    // 140 % × 50 % = 70 % healthy, 140 % × 20 % = 28 % degraded, 98 together: 71 + 28 and the
    // rounding of 1 to healthy.
    let load = Load::compute(&[tier(10, 5, 2)], 0);
    assert_eq!(load.shares(), [(72, 28)]);
    // Healthy hosts of P1 come before degraded hosts of P0.
    let load = Load::compute(&[tier(10, 0, 10), tier(10, 5, 0)], 0);
    assert_eq!(load.shares(), [(0, 30), (70, 0)]);
    // The comment of `recalculatePerPriorityState`: health 10/20/10, degraded 20/10/0 (already
    // in percent) share 70: 14+2, 28, 14 and 28, 14, 0.
    assert_eq!(
        distribute(&[(10, 20), (20, 10), (10, 0)]),
        [(16, 28), (28, 14), (14, 0)]
    );
}

#[test]
fn only_degraded_hosts_get_everything() {
    let load = Load::compute(&[tier(10, 0, 10)], 50);
    assert_eq!(load.shares(), [(0, 100)]);
    assert_eq!(load.choose(99), Some((0, Availability::Degraded)));
    // What rounding leaves is the first one's that has any: 33 and 66 of 100.
    assert_eq!(
        distribute(&[(0, 0), (0, 10), (0, 20)]),
        [(0, 0), (0, 34), (0, 66)]
    );
}

#[test]
fn one_priority_in_panic_uses_all_of_its_hosts_while_another_does_not() {
    // 140 % × 25 % = 35 and 140 % × 40 % = 56: 91 < 100, so panic is looked at. Both lie below
    // 50 %: all in panic, and shares follow size.
    let load = Load::compute(&healthy(&[25, 40]), 50);
    assert!(load.is_in_panic(0) && load.is_in_panic(1));
    assert_eq!(to_healthy(&load), [50, 50]);
    // With a threshold of 30 only P0 is: shares stay 35/91 and 56/91, rounding to P0.
    let load = Load::compute(&healthy(&[25, 40]), 30);
    assert!(load.is_in_panic(0) && !load.is_in_panic(1));
    assert_eq!(to_healthy(&load), [39, 61]);
    assert_eq!(load.choose(0), Some((0, Availability::Panic)));
    assert_eq!(load.choose(39), Some((1, Availability::Healthy)));
}

#[test]
fn panic_begins_below_the_threshold_not_at_it() {
    // One priority: up to 71 % of hosts its health is below 100 %, so panic is looked at.
    for (healthy, threshold, panic) in [(5, 50, false), (4, 50, true), (7, 71, true)] {
        let load = Load::compute(&[tier(10, healthy, 0)], threshold);
        assert_eq!(load.is_in_panic(0), panic, "{healthy} of 10 at {threshold}");
    }
    assert!(
        !Load::compute(&[tier(10, 8, 0)], 100).is_in_panic(0),
        "health of 100 % is never panic, whatever the threshold"
    );
    assert!(
        !Load::compute(&[tier(10, 2, 3)], 50).is_in_panic(0),
        "degraded hosts count as usable"
    );
}

#[test]
fn total_panic_shares_by_size() {
    // 2 and 1 of 3 hosts: 66 and 33, rounding to the first that has hosts.
    let load = Load::compute(&[tier(0, 0, 0), tier(2, 0, 0), tier(1, 0, 0)], 50);
    assert_eq!(to_healthy(&load), [0, 67, 33]);
    assert_eq!(load.choose(67), Some((2, Availability::Panic)));
}

#[test]
fn a_threshold_of_zero_never_panics() {
    let load = Load::compute(&[tier(10, 0, 0)], 0);
    assert!(!load.is_in_panic(0));
    assert_eq!(load.choose(5), Some((0, Availability::Healthy)));
    assert_eq!(
        Load::compute(&[], 0).choose(1),
        None,
        "no priority, no choice"
    );
}

#[test]
fn one_healthy_host_that_rounds_to_no_health_is_found_all_the_same() {
    // 140 × 1 / 300 = 0 %.
    let load = Load::compute(&[tier(300, 0, 0), tier(300, 1, 0)], 0);
    assert_eq!(to_healthy(&load), [0, 100]);
    let load = Load::compute(&[tier(300, 0, 0), tier(300, 0, 1)], 0);
    assert_eq!(load.shares(), [(0, 0), (0, 100)]);
}

#[test]
fn priorities_that_were_tried_are_left_out_until_none_is_left() {
    let load = Load::compute(&healthy(&[100, 100, 100]), 50);
    assert_eq!(
        load.choose_without(|tier| tier == 0, 0).map(|c| c.0),
        Some(1)
    );
    assert_eq!(
        load.choose_without(|tier| tier < 2, 0).map(|c| c.0),
        Some(2)
    );
    assert_eq!(load.choose_without(|_| true, 0).map(|c| c.0), Some(0));
}

fn counts() -> impl Strategy<Value = Counts> {
    (0..200_u32, 0..200_u32, 0..200_u32).prop_map(|(healthy, degraded, rest)| Counts {
        excluded: rest % 7,
        total: healthy + degraded + rest,
        healthy,
        degraded,
    })
}

proptest! {
    #[test]
    fn every_word_finds_a_priority_and_shares_make_up_a_whole(
        tiers in prop::collection::vec(counts(), 1..6),
        threshold in 0..=100_u32,
    ) {
        let load = Load::compute(&tiers, threshold);
        let usable = |c: &Counts| c.healthy + c.degraded > 0;
        let has_hosts = tiers.iter().any(|c| c.total + c.excluded > 0);
        if !has_hosts && threshold > 0 {
            return Ok(());
        }
        let whole: u32 = load.shares().iter().map(|(a, b)| a + b).sum();
        prop_assert_eq!(whole, 100);
        for word in 0..100 {
            let (tier, availability) = load.choose(word).expect("shares make up a whole");
            // Nobody is sent where nobody is, unless there is nobody anywhere.
            match availability {
                Availability::Healthy if tiers.iter().any(usable) =>
                    prop_assert!(tiers[tier].healthy > 0),
                Availability::Healthy => {}
                Availability::Degraded => prop_assert!(tiers[tier].degraded > 0),
                Availability::Panic => {
                    prop_assert!(tiers[tier].total + tiers[tier].excluded > 0);
                }
            }
        }
    }

    #[test]
    fn more_health_in_the_first_priority_never_takes_traffic_from_it(
        total in 1..100_u32, healthy in 0..99_u32, others in counts(),
    ) {
        let healthy = healthy.min(total - 1);
        let share = |healthy| {
            Load::compute(&[tier(total, healthy, 0), others], 0).shares()[0].0
        };
        // What rounding leaves is at most two percent here, and goes to this priority.
        prop_assert!(share(healthy + 1) + 2 >= share(healthy));
    }
}
