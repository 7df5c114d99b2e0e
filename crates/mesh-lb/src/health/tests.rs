use super::*;
use mesh_core::model::{Probe, TcpProbe};
use proptest::collection::vec;
use proptest::prelude::*;

const UNWELL: Answer = Answer::Unwell {
    retriable: false,
    excluded: false,
};
const RETRIABLE: Answer = Answer::Unwell {
    retriable: true,
    excluded: false,
};

fn check(unhealthy: u32, healthy: u32) -> HealthCheck {
    let second = Duration::from_secs(1);
    let mut check = HealthCheck::new(Probe::Tcp(TcpProbe::default()), second, second);
    check.unhealthy_threshold = unhealthy;
    check.healthy_threshold = healthy;
    check
}

/// After each of these answers, whether the host is healthy.
fn healthy(check: &HealthCheck, answers: &[Answer]) -> Vec<bool> {
    let mut session = Session::default();
    answers
        .iter()
        .map(|answer| {
            session.note(*answer, check);
            !session.is_failed()
        })
        .collect()
}

fn answer() -> impl Strategy<Value = Answer> {
    let unwell = any::<(bool, bool)>().prop_map(|(retriable, excluded)| Answer::Unwell {
        retriable,
        excluded,
    });
    prop_oneof![
        4 => Just(Answer::Well),
        1 => Just(Answer::Degraded),
        2 => unwell,
        2 => Just(Answer::Unreachable),
        1 => Just(Answer::Late),
        1 => Just(Answer::Passive),
    ]
}

#[test]
fn the_first_answer_counts_at_once_and_later_ones_by_their_number() {
    let (well, gone) = (Answer::Well, Answer::Unreachable);
    assert_eq!(healthy(&check(2, 3), &[well]), [true]);
    assert_eq!(
        healthy(&check(2, 2), &[gone, well, well, gone, well, gone, gone]),
        [false, false, true, true, true, true, false],
        "a success in between begins the count anew"
    );
    assert_eq!(
        healthy(&check(1, 2), &[gone, well, gone, well, well]),
        [false, false, false, false, true]
    );
}

#[test]
fn an_answer_that_is_no_is_enough_unless_it_may_be_asked_again() {
    let well = Answer::Well;
    assert_eq!(healthy(&check(3, 1), &[well, UNWELL]), [true, false]);
    assert_eq!(
        healthy(&check(3, 1), &[well, RETRIABLE, Answer::Late, RETRIABLE]),
        [true, true, true, false]
    );
    assert_eq!(
        healthy(&check(3, 1), &[well, Answer::Passive]),
        [true, false]
    );
}

#[test]
fn who_asks_to_be_left_out_is_until_it_is_healthy_again() {
    let check = check(1, 2);
    let mut session = Session::default();
    session.note(Answer::Well, &check);
    session.note(Answer::Passive, &check);
    assert!(session.checked().excluded);
    session.note(Answer::Well, &check);
    assert!(session.checked().excluded && session.is_failed());
    session.note(Answer::Well, &check);
    assert_eq!(session.checked(), Checked::default());
}

#[test]
fn a_host_becomes_degraded_and_is_no_longer() {
    let check = check(1, 1);
    let mut session = Session::default();
    assert_eq!(session.note(Answer::Degraded, &check), Transition::Changed);
    assert!(session.checked().degraded && !session.is_failed());
    assert_eq!(
        session.note(Answer::Degraded, &check),
        Transition::Unchanged
    );
    assert_eq!(session.note(Answer::Well, &check), Transition::Changed);
    assert!(!session.checked().degraded);
}

#[test]
fn each_case_has_an_interval_of_its_own() {
    let seconds = Duration::from_secs;
    let mut pace = Pace::new(seconds(1));
    let with =
        |pace: &Pace, traffic, answer, transition| wait(pace, traffic, answer, transition, 7);
    let (well, gone) = (Answer::Well, Answer::Unreachable);
    use Transition::{Changed, Pending, Unchanged};
    assert_eq!(with(&pace, false, well, Unchanged), seconds(60));
    assert_eq!(with(&pace, true, gone, Pending), seconds(1));
    pace.unhealthy = Some(seconds(2));
    assert_eq!(with(&pace, true, gone, Pending), seconds(2));
    pace.unhealthy_edge = Some(seconds(3));
    pace.healthy_edge = Some(seconds(4));
    pace.no_traffic = seconds(5);
    assert_eq!(with(&pace, false, well, Unchanged), seconds(5));
    pace.no_traffic_healthy = Some(seconds(6));
    for (traffic, answer, transition, expected) in [
        (true, well, Unchanged, 1),
        (true, well, Changed, 1),
        (true, well, Pending, 4),
        (true, gone, Unchanged, 2),
        (true, gone, Changed, 2),
        (true, gone, Pending, 3),
        (false, well, Changed, 6),
        (false, well, Pending, 5),
        (false, gone, Changed, 5),
        (false, gone, Pending, 5),
    ] {
        let got = with(&pace, traffic, answer, transition);
        assert_eq!(
            got,
            seconds(expected),
            "{traffic} {answer:?} {transition:?}"
        );
    }
    assert_eq!(first_wait(&pace, 7), Duration::ZERO);
}

proptest! {
    /// An account of the rules that looks at all answers so far instead of counting.
    #[test]
    fn the_verdict_follows_from_the_answers_alone(
        answers in vec(answer(), 1..40), unhealthy in 1_u32..4, healthy in 1_u32..4,
    ) {
        let check = check(unhealthy, healthy);
        let mut session = Session::default();
        let mut well = false;
        // Where the present verdict came to be.
        let mut since = 0;
        for at in 0..answers.len() {
            session.note(answers[at], &check);
            let run = answers[since..=at]
                .iter()
                .rev()
                .take_while(|answer| answer.is_well() != well)
                .count();
            let decisive = matches!(
                answers[at],
                Answer::Passive | Answer::Unwell { retriable: false, .. }
            );
            let needed = if well { unhealthy } else { healthy };
            let against = answers[at].is_well() != well;
            let enough = run == needed as usize || (well && decisive) || at == 0;
            if against && enough {
                well = !well;
                since = at + 1;
            }
            prop_assert_eq!(!session.is_failed(), well, "after {:?}", &answers[..=at]);
            prop_assert!(session.is_begun());
            let checked = session.checked();
            prop_assert!(!checked.late || checked.failed);
            prop_assert!(!checked.excluded || checked.failed);
            prop_assert_eq!(Checked::from_bits(checked.to_bits()), checked);
        }
    }

    #[test]
    fn a_wait_is_the_interval_and_less_than_the_jitter_more(
        interval in 1_u64..100_000, jitter in 0_u64..10_000, percent in 0_u32..200, word: u64,
    ) {
        let millis = Duration::from_millis;
        let mut pace = Pace::new(millis(interval));
        pace.jitter = millis(jitter);
        pace.jitter_percent = percent;
        pace.initial_jitter = millis(jitter);
        let got = wait(&pace, true, Answer::Well, Transition::Unchanged, word);
        prop_assert!(got >= millis(interval));
        prop_assert!(got <= millis(interval + jitter) + millis(interval) * percent / 100);
        let first = first_wait(&pace, word);
        prop_assert!(first <= millis(jitter));
    }

    #[test]
    fn no_settings_make_it_panic_or_ask_without_end(
        times in vec(any::<(u64, u32)>(), 4), percent: u32, word: u64, answer in answer(),
    ) {
        let time = |at: usize| Duration::new(times[at].0, times[at].1 % 1_000_000_000);
        let mut pace = Pace::new(time(0));
        pace.jitter = time(1);
        pace.unhealthy = Some(time(2));
        pace.initial_jitter = time(3);
        pace.jitter_percent = percent;
        for traffic in [true, false] {
            let got = wait(&pace, traffic, answer, Transition::Pending, word);
            prop_assert!(got >= Duration::from_millis(1));
        }
        first_wait(&pace, word);
    }
}
