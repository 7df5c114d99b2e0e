use super::*;
use mesh_core::model::{Endpoint, FailurePercentage, SuccessRate};
use mesh_test::fixture::address;
use proptest::prelude::*;

/// An ejector over some hosts, with a clock that counts seconds.
struct Bench {
    ejector: Ejector,
    hosts: Vec<Arc<Host>>,
    start: Instant,
}

fn host(port: usize) -> Arc<Host> {
    let endpoint = Endpoint::new(address(&format!("10.0.0.1:{port}")));
    Arc::new(Host::new(Arc::new(endpoint), 0, Arc::default()))
}

fn policy(max_percent: u32) -> Outlier {
    let mut policy = Outlier::default();
    policy.consecutive_5xx = 1;
    policy.max_ejection_percent = max_percent;
    policy
}

impl Bench {
    fn new(policy: Outlier, hosts: usize) -> Self {
        let hosts: Vec<_> = (1..=hosts).map(host).collect();
        let mut ejector = Ejector::new(policy);
        ejector.follow(&hosts);
        let mut bench = Self {
            ejector,
            hosts,
            start: Instant::now(),
        };
        bench.at(0.0);
        bench
    }

    fn time(&self, seconds: f64) -> Instant {
        self.start + Duration::from_secs_f64(seconds)
    }

    /// Sweeps at this second.
    fn at(&mut self, seconds: f64) -> Vec<Event> {
        let mut events = Vec::new();
        self.ejector.sweep(self.time(seconds), &mut events);
        events
    }

    /// A host answers at this second, after the sweep that is due.
    fn answers(&mut self, seconds: f64, host: usize, status: u16) -> Vec<Event> {
        let mut events = self.at(seconds);
        let host = self.hosts[host].clone();
        let (outcome, now) = (Outcome::Answered(status), self.time(seconds));
        self.ejector.note(&host, outcome, now, &mut events);
        events
    }

    fn is_out(&self, host: usize) -> bool {
        self.hosts[host].is_ejected()
    }

    fn id(&self, host: usize) -> HostId {
        self.hosts[host].id()
    }

    /// The seconds, from `from` in steps of 0.5, up to when the host is back.
    fn back_at(&mut self, host: usize, from: f64) -> f64 {
        let mut seconds = from;
        while self.is_out(host) {
            seconds += 0.5;
            assert!(seconds < 10_000.0, "it never came back");
            self.at(seconds);
        }
        seconds
    }
}

#[test]
fn a_host_that_fails_is_ejected_and_comes_back_at_the_end_of_an_interval() {
    let mut bench = Bench::new(policy(100), 2);
    let id = bench.id(0);
    assert_eq!(
        bench.answers(3.0, 0, 500),
        [
            Event::Detected(id, Cause::Consecutive5xx),
            Event::Ejected(id, Cause::Consecutive5xx)
        ]
    );
    assert!(bench.is_out(0) && !bench.is_out(1));
    // 30 s later is 33 s; intervals end at 30 and 40.
    assert_eq!(bench.at(33.0), []);
    assert_eq!(bench.at(39.9), []);
    assert_eq!(bench.at(40.0), [Event::Returned(id)]);
    assert_eq!(bench.ejector.active(), 0);
}

#[test]
fn each_ejection_lasts_longer_and_each_quiet_interval_takes_one_back() {
    let mut bench = Bench::new(policy(100), 2);
    bench.answers(0.0, 0, 500);
    assert_eq!(bench.back_at(0, 0.0), 30.0, "1 × 30 s");
    bench.answers(35.0, 0, 500);
    assert_eq!(bench.back_at(0, 35.0), 100.0, "2 × 30 s after 35 is 95");
    // Three quiet intervals: 110 and 120 take the times from 2 to 0, 130 has nothing to take.
    bench.at(130.0);
    bench.answers(131.0, 0, 500);
    assert_eq!(bench.back_at(0, 131.0), 170.0, "1 × 30 s after 131 is 161");
    // Ejected again in the very interval of its return: nothing was taken back.
    bench.answers(171.0, 0, 500);
    assert_eq!(bench.back_at(0, 171.0), 240.0, "2 × 30 s after 171 is 231");
}

#[test]
fn ejections_last_no_longer_than_the_longest() {
    let mut policy = policy(100);
    policy.max_ejection_time = Duration::from_secs(50);
    let mut bench = Bench::new(policy, 2);
    let mut now = 0.0;
    let mut lasted = Vec::new();
    for _ in 0..4 {
        bench.answers(now, 0, 500);
        let back = bench.back_at(0, now);
        lasted.push(back - now);
        now = back;
    }
    assert_eq!(lasted, [30.0, 50.0, 50.0, 50.0]);
    // Times stopped growing at 3 (30 × 3 ≥ 50 + 30): three quiet intervals and it is 30 s again.
    bench.at(now + 30.0);
    bench.answers(now + 30.0, 0, 500);
    assert_eq!(bench.back_at(0, now + 30.0), now + 60.0);
}

#[test]
fn a_base_longer_than_the_longest_is_the_longest() {
    let mut policy = policy(100);
    policy.base_ejection_time = Duration::from_secs(400);
    let mut bench = Bench::new(policy, 2);
    bench.answers(0.0, 0, 500);
    assert_eq!(bench.back_at(0, 0.0), 400.0);
}

#[test]
fn no_more_are_ejected_than_the_largest_percentage() {
    // hosts, percent, how many may be out: 100 × (n + 1) / hosts ≤ percent.
    let rows = [
        (9, 10, 0),
        (10, 10, 1),
        (19, 10, 1),
        (20, 10, 2),
        (3, 34, 1),
        (3, 33, 0),
        (4, 50, 2),
        (4, 100, 4),
        (5, 0, 0),
        (2, 1000, 2),
    ];
    for (hosts, percent, expected) in rows {
        let mut bench = Bench::new(policy(percent), hosts);
        let mut overflows = 0;
        for host in 0..hosts {
            let events = bench.answers(1.0, host, 500);
            overflows += events
                .iter()
                .filter(|e| matches!(e, Event::Overflow(..)))
                .count();
        }
        assert_eq!(
            bench.ejector.active(),
            expected,
            "{hosts} hosts at {percent} %"
        );
        assert_eq!(overflows, hosts - expected);
    }
}

#[test]
fn one_may_always_be_ejected_where_that_is_asked_for() {
    let mut policy = policy(10);
    policy.always_eject_one = true;
    let mut bench = Bench::new(policy, 3);
    for host in 0..3 {
        bench.answers(1.0, host, 500);
    }
    assert_eq!(bench.ejector.active(), 1);
    assert!(bench.is_out(0));
}

#[test]
fn a_host_that_was_spared_is_looked_at_again_after_as_many_failures() {
    let mut policy = policy(10);
    policy.consecutive_5xx = 3;
    let mut bench = Bench::new(policy, 2);
    let overflows: Vec<_> = (1..=7)
        .filter(|n| !bench.answers(f64::from(*n), 0, 500).is_empty())
        .collect();
    assert_eq!(overflows, [3, 6]);
}

#[test]
fn counters_begin_at_zero_when_a_host_comes_back() {
    let mut policy = policy(100);
    policy.consecutive_5xx = 3;
    policy.consecutive_gateway_failure = 2;
    let mut bench = Bench::new(policy, 2);
    bench.answers(1.0, 0, 503);
    bench.answers(1.0, 0, 503);
    assert!(bench.is_out(0), "two gateway errors");
    // While it is out, requests that were under way still fail.
    assert_eq!(bench.answers(2.0, 0, 503), []);
    assert_eq!(bench.back_at(0, 2.0), 40.0);
    assert_eq!(
        bench.answers(41.0, 0, 503),
        [],
        "a first failure, not a third"
    );
    assert!(!bench.answers(42.0, 0, 503).is_empty());
}

#[test]
fn intervals_that_nobody_looked_at_are_caught_up_with() {
    let mut watched = Bench::new(policy(100), 2);
    let mut slept = Bench::new(policy(100), 2);
    for bench in [&mut watched, &mut slept] {
        bench.answers(3.0, 0, 500);
        bench.back_at(0, 3.0);
        bench.answers(41.0, 0, 500);
        assert!(bench.is_out(0), "for 2 × 30 s, until 101, so until 110");
    }
    for tenth in 411..1_265 {
        watched.at(f64::from(tenth) / 10.0);
    }
    let id = slept.id(0);
    assert_eq!(slept.at(126.5), [Event::Returned(id)]);
    // Back at 110, one quiet interval at 120: the third lasts 2 × 30 s for both.
    for bench in [&mut watched, &mut slept] {
        bench.answers(127.0, 0, 500);
        assert_eq!(bench.back_at(0, 127.0), 190.0);
        assert_eq!(
            bench.ejector.due(),
            Some(bench.time(200.0)),
            "the grid stays"
        );
    }
}

#[test]
fn a_host_that_left_is_forgotten_and_one_that_stays_keeps_its_history() {
    let mut bench = Bench::new(policy(100), 3);
    bench.answers(1.0, 0, 500);
    bench.answers(1.0, 1, 500);
    let gone = bench.hosts.remove(0);
    bench.ejector.follow(&bench.hosts);
    assert_eq!(bench.ejector.active(), 1);
    let mut events = Vec::new();
    let now = bench.time(2.0);
    bench
        .ejector
        .note(&gone, Outcome::Answered(500), now, &mut events);
    assert_eq!(events, [], "nobody cares any more");
    assert_eq!(bench.back_at(0, 2.0), 40.0);
}

#[test]
fn switching_detection_off_lets_everybody_back() {
    let mut bench = Bench::new(policy(100), 2);
    bench.answers(1.0, 0, 500);
    let mut events = Vec::new();
    bench.ejector.release(&mut events);
    assert_eq!(events, [Event::Returned(bench.id(0))]);
    assert!(!bench.is_out(0));
    assert_eq!(bench.ejector.active(), 0);
}

#[test]
fn success_rates_are_judged_once_on_the_interval_that_ended() {
    let mut policy = policy(100);
    policy.consecutive_5xx = 0;
    policy.success_rate = Some(SuccessRate::default());
    let mut bench = Bench::new(policy, 5);
    let id = bench.id(2);
    let interval = |bench: &mut Bench, at: f64| {
        for request in 0..100 {
            for host in 0..5 {
                let failed = host == 2 && request % 2 == 0;
                bench.answers(at, host, if failed { 500 } else { 200 });
            }
        }
    };
    interval(&mut bench, 5.0);
    assert!(
        !bench.is_out(2),
        "nothing is judged before the interval ends"
    );
    assert_eq!(
        bench.at(10.0),
        [
            Event::Detected(id, Cause::SuccessRate),
            Event::Ejected(id, Cause::SuccessRate)
        ]
    );
    // Ejected at 10, back at 40; the counts of the first interval are not judged again.
    assert_eq!(bench.back_at(2, 10.0), 40.0);
    assert_eq!(bench.at(50.0), []);
}

#[test]
fn success_rates_of_local_failures_are_judged_apart_when_split() {
    let mut policy = policy(100);
    policy.consecutive_5xx = 0;
    policy.consecutive_local_failure = 0;
    policy.split_local_origin = true;
    policy.failure_percentage = Some(FailurePercentage::default());
    let mut bench = Bench::new(policy, 5);
    for _ in 0..50 {
        for host in bench.hosts.clone() {
            // The first host can never be reached.
            let outcome = match host.id() == bench.id(0) {
                true => Outcome::Local(503),
                false => Outcome::Answered(200),
            };
            let now = bench.time(1.0);
            bench.ejector.note(&host, outcome, now, &mut Vec::new());
        }
    }
    let id = bench.id(0);
    assert_eq!(
        bench.at(10.0),
        [
            Event::Detected(id, Cause::FailurePercentage),
            Event::Ejected(id, Cause::FailurePercentage)
        ]
    );
}

#[test]
fn a_host_that_fails_both_rate_rules_is_ejected_once() {
    let mut policy = policy(100);
    policy.consecutive_5xx = 0;
    policy.success_rate = Some(SuccessRate::default());
    policy.failure_percentage = Some(FailurePercentage::default());
    let mut bench = Bench::new(policy, 6);
    for _ in 0..100 {
        for host in 0..6 {
            bench.answers(1.0, host, if host == 0 { 500 } else { 200 });
        }
    }
    let events = bench.at(10.0);
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!(bench.ejector.active(), 1);
}

#[test]
fn another_policy_changes_the_interval_and_keeps_who_is_out() {
    let mut bench = Bench::new(policy(100), 2);
    bench.answers(1.0, 0, 500);
    let mut quicker = policy(100);
    quicker.interval = Duration::from_secs(1);
    quicker.base_ejection_time = Duration::from_secs(5);
    bench.ejector.set_policy(quicker);
    assert!(bench.is_out(0));
    assert_eq!(bench.back_at(0, 1.0), 6.0);
}

proptest! {
    #[test]
    fn whatever_happens_the_largest_share_holds_and_nobody_is_lost(
        percent in 0..=100_u32,
        hosts in 1..12_usize,
        steps in prop::collection::vec((0..12_usize, 0..40_u32, any::<bool>()), 1..80),
    ) {
        let mut bench = Bench::new(policy(percent), hosts);
        let mut tenths = 0;
        for (host, wait, fails) in steps {
            tenths += wait * 7;
            let status = if fails { 500 } else { 200 };
            bench.answers(f64::from(tenths) / 10.0, host % hosts, status);
            let out = bench.hosts.iter().filter(|host| host.is_ejected()).count();
            prop_assert_eq!(out, bench.ejector.active());
            prop_assert!(out == 0 || 100 * out <= percent as usize * hosts);
        }
        bench.at(f64::from(tenths) / 10.0 + 320.0);
        prop_assert_eq!(bench.ejector.active(), 0, "no ejection lasts longer than 300 s and a tick");
    }

    #[test]
    fn looking_once_or_often_comes_to_the_same(
        failures in prop::collection::vec((0..3_usize, 1..900_u32), 1..6),
        quiet in 1..2_000_u32,
    ) {
        let (mut often, mut once) = (Bench::new(policy(100), 3), Bench::new(policy(100), 3));
        let mut tenths = 0;
        for (host, wait) in failures {
            for tenth in tenths..tenths + wait {
                often.at(f64::from(tenth) / 10.0);
            }
            tenths += wait;
            for bench in [&mut often, &mut once] {
                bench.answers(f64::from(tenths) / 10.0, host, 500);
            }
        }
        for tenth in tenths..=tenths + quiet {
            often.at(f64::from(tenth) / 10.0);
        }
        once.at(f64::from(tenths + quiet) / 10.0);
        for host in 0..3 {
            prop_assert_eq!(often.is_out(host), once.is_out(host));
            prop_assert_eq!(often.ejector.watched[host].times, once.ejector.watched[host].times);
        }
        let due = |bench: &Bench| bench.ejector.due().map(|due| due - bench.start);
        prop_assert_eq!(due(&often), due(&once));
    }
}

#[test]
fn what_a_detector_that_is_not_enforced_finds_is_told_and_ejects_nobody() {
    let mut policy = Outlier::default();
    policy.consecutive_5xx = 0;
    policy.unenforced.consecutive_5xx = 2;
    policy.max_ejection_percent = 100;
    let host = host(1);
    let mut ejector = Ejector::new(policy);
    ejector.follow(std::slice::from_ref(&host));
    let (mut events, now) = (Vec::new(), Instant::now());
    for _ in 0..4 {
        ejector.note(&host, Outcome::Answered(500), now, &mut events);
    }
    let found = Event::Detected(host.id(), Cause::Consecutive5xx);
    assert_eq!(events, [found, found]);
    assert!(!host.is_ejected());
}
