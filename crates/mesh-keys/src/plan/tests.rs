use super::*;
use proptest::prelude::*;

fn source(name: &str) -> KeySource {
    KeySource::Uri(name.into())
}

fn wanted(names: impl IntoIterator<Item = String>) -> WantedKeys {
    let each = names.into_iter();
    each.map(|name| (source(&name), Duration::from_secs(5)))
        .collect()
}

fn one() -> (Plan, Instant) {
    let mut plan = Plan::new(Duration::from_secs(1200));
    let now = Instant::now();
    assert_eq!(plan.want(&wanted(["a".to_owned()]), now), 0);
    (plan, now)
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_soon_and_then_less_often() {
    let (mut plan, mut now) = one();
    for pause in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
        assert!(plan.take(now).is_some());
        assert!(plan.take(now).is_none(), "it is under way");
        assert!(plan.ended(&source("a"), false, now, 0));
        let due = plan.due().unwrap();
        assert_eq!(due - now, Duration::from_secs(pause));
        assert!(plan.take(due - Duration::from_millis(1)).is_none());
        now = due;
    }
    plan.take(now).unwrap();
    plan.ended(&source("a"), true, now, 0);
    assert_eq!(plan.due().unwrap() - now, Duration::from_secs(1200));
    now = plan.due().unwrap();
    plan.take(now).unwrap();
    plan.ended(&source("a"), false, now, 0);
    let again = plan.due().unwrap() - now;
    assert_eq!(again, Duration::from_secs(1), "from the beginning");
}

#[tokio::test(start_paused = true)]
async fn chance_shortens_a_pause_by_a_tenth_at_most() {
    let (mut plan, now) = one();
    plan.take(now).unwrap();
    plan.ended(&source("a"), true, now, u64::MAX);
    let pause = plan.due().unwrap() - now;
    let tenth = Duration::from_secs(1080);
    assert!(
        pause >= tenth && pause < tenth + Duration::from_millis(1),
        "{pause:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_not_wanted_any_more_is_neither_asked_for_nor_taken() {
    let (mut plan, now) = one();
    assert!(!plan.is_settled());
    plan.take(now).unwrap();
    plan.want(&WantedKeys::new(), now);
    assert!(plan.is_settled() && plan.due().is_none());
    assert!(!plan.ended(&source("a"), true, now, 0));
    plan.want(&wanted(["a".to_owned()]), now);
    assert!(!plan.is_settled(), "it is new");
    assert_eq!(plan.take(now).unwrap().0, source("a"));
}

#[tokio::test(start_paused = true)]
async fn there_are_bounds_on_how_many_are_wanted_and_asked_for() {
    let mut plan = Plan::new(Duration::from_secs(1200));
    let now = Instant::now();
    let many = wanted((0..300).map(|at| format!("{at:03}")));
    assert_eq!(plan.want(&many, now), 300 - MOST_SOURCES);
    let taken: Vec<_> = std::iter::from_fn(|| plan.take(now)).collect();
    assert_eq!(taken.len(), MOST_AT_ONCE);
    assert_eq!(plan.due(), None, "there is nothing to do but to wait");
    plan.ended(&taken[3].0, true, now, 0);
    assert!(plan.due().is_some() && plan.take(now).is_some());
}

proptest! {
    #[test]
    fn whatever_happens_as_many_are_under_way_as_were_begun(
        steps in prop::collection::vec((0_u8..4, 0_usize..20, any::<u64>()), 0..200)
    ) {
        let mut plan = Plan::new(Duration::from_secs(10));
        let mut now = Instant::now();
        let mut begun: Vec<KeySource> = Vec::new();
        for (what, which, word) in steps {
            match what {
                0 => {
                    plan.want(&wanted((0..which).map(|at| at.to_string())), now);
                }
                1 => begun.extend(plan.take(now).map(|(source, _)| source)),
                2 if !begun.is_empty() => {
                    let source = begun.swap_remove(which % begun.len());
                    plan.ended(&source, word % 2 == 0, now, word);
                }
                _ => now += Duration::from_millis(word % 5000),
            }
            prop_assert_eq!(plan.under_way, begun.len());
            prop_assert!(begun.len() <= MOST_AT_ONCE);
            let longest = now + Duration::from_secs(10);
            prop_assert!(plan.entries.values().all(|one| one.due.is_none_or(|due| due <= longest)));
        }
    }
}
