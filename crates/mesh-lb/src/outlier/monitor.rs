//! What is counted for one host. Every worker counts here, without a lock.

use super::Cause;
use super::rate::Sample;
use mesh_core::model::Outlier;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What became of a request, as far as it says something about the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The host answered with this HTTP status (for gRPC: the one its status stands for).
    Answered(u16),
    /// The failure was seen on our side: no connection, no answer in time, a reset. The status is
    /// what it counts as where such failures are not judged apart (see
    /// [`Failure::local_origin`](mesh_core::Failure::local_origin)).
    Local(u16),
    /// The same of a host that could be reached: there was a connection, and it broke or nothing
    /// came. Where such failures are judged apart, it is a success first (Envoy's
    /// `LocalOriginConnectSuccess`).
    Broken(u16),
}

/// Consecutive failures of one host and what it did in the present interval.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    server: AtomicU32,
    gateway: AtomicU32,
    local: AtomicU32,
    external_rate: Bucket,
    local_rate: Bucket,
}

/// Successes of requests in one interval.
#[derive(Debug, Default)]
struct Bucket {
    success: AtomicU64,
    total: AtomicU64,
}

// === impl Monitor ===

impl Monitor {
    /// Counts an outcome and says which thresholds it met. They are met at equality: a counter
    /// beyond its threshold says nothing until it was set back.
    pub(crate) fn note(&self, outcome: Outcome, policy: &Outlier) -> [Option<Cause>; 2] {
        match outcome {
            Outcome::Answered(status) => {
                if policy.split_local_origin {
                    // Whatever it answered, it could be reached.
                    set_back(&self.local);
                    self.local_rate.count(true, policy);
                }
                self.note_status(by_codes(status, &policy.error_codes), policy)
            }
            Outcome::Local(_) | Outcome::Broken(_) if policy.split_local_origin => {
                if matches!(outcome, Outcome::Broken(_)) {
                    set_back(&self.local);
                    self.local_rate.count(true, policy);
                }
                self.local_rate.count(false, policy);
                let met = meets(&self.local, Cause::ConsecutiveLocal.threshold(policy));
                [met.then_some(Cause::ConsecutiveLocal), None]
            }
            Outcome::Local(status) | Outcome::Broken(status) => self.note_status(status, policy),
        }
    }

    fn note_status(&self, status: u16, policy: &Outlier) -> [Option<Cause>; 2] {
        let is_error = (500..600).contains(&status);
        self.external_rate.count(!is_error, policy);
        if !is_error {
            set_back(&self.server);
            set_back(&self.gateway);
            return [None, None];
        }
        let gateway = if matches!(status, 502..=504) {
            meets(&self.gateway, Cause::ConsecutiveGateway.threshold(policy))
        } else {
            set_back(&self.gateway);
            false
        };
        let server = meets(&self.server, Cause::Consecutive5xx.threshold(policy));
        [
            gateway.then_some(Cause::ConsecutiveGateway),
            server.then_some(Cause::Consecutive5xx),
        ]
    }

    /// Sets back the counter behind this cause.
    pub(super) fn reset(&self, cause: Cause) {
        match cause {
            Cause::Consecutive5xx => set_back(&self.server),
            Cause::ConsecutiveGateway => set_back(&self.gateway),
            Cause::ConsecutiveLocal => set_back(&self.local),
            Cause::SuccessRate | Cause::FailurePercentage => {}
        }
    }

    pub(super) fn reset_all(&self) {
        set_back(&self.server);
        set_back(&self.gateway);
        set_back(&self.local);
    }

    pub(super) fn take_external(&self) -> Sample {
        self.external_rate.take()
    }

    pub(super) fn take_local(&self) -> Sample {
        self.local_rate.take()
    }
}

/// A list of error codes replaces the rule that 5xx are errors: a listed code counts as a 5xx
/// (itself if it is one, else 500), any other as a success. Envoy: `error_matcher`, router.cc.
fn by_codes(status: u16, codes: &[u16]) -> u16 {
    match (codes.is_empty(), codes.contains(&status)) {
        (true, _) => status,
        (false, false) => 200,
        (false, true) if (500..600).contains(&status) => status,
        (false, true) => 500,
    }
}

/// Counts up; true when that makes the threshold. A threshold of 0 is off.
fn meets(counter: &AtomicU32, threshold: u32) -> bool {
    counter.fetch_add(1, Ordering::Relaxed).wrapping_add(1) == threshold && threshold != 0
}

fn set_back(counter: &AtomicU32) {
    // Nearly always zero already: then the line stays shared between cores.
    if counter.load(Ordering::Relaxed) != 0 {
        counter.store(0, Ordering::Relaxed);
    }
}

// === impl Bucket ===

impl Bucket {
    /// Counts a request, where anybody will ask for it.
    fn count(&self, success: bool, policy: &Outlier) {
        if policy.success_rate.is_none() && policy.failure_percentage.is_none() {
            return;
        }
        if success {
            self.success.fetch_add(1, Ordering::Relaxed);
        }
        self.total.fetch_add(1, Ordering::Relaxed);
    }

    fn take(&self) -> Sample {
        let success = self.success.swap(0, Ordering::Relaxed);
        Sample {
            success,
            // A request counted between the two swaps must not make more than everything.
            total: self.total.swap(0, Ordering::Relaxed).max(success),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(server: u32, gateway: u32) -> Outlier {
        let mut policy = Outlier::default();
        policy.consecutive_5xx = server;
        policy.consecutive_gateway_failure = gateway;
        policy
    }

    /// The causes after each of these outcomes.
    fn met(policy: &Outlier, outcomes: &[Outcome]) -> Vec<Vec<Cause>> {
        let monitor = Monitor::default();
        outcomes
            .iter()
            .map(|outcome| {
                monitor
                    .note(*outcome, policy)
                    .into_iter()
                    .flatten()
                    .collect()
            })
            .collect()
    }

    fn answers(statuses: &[u16]) -> Vec<Outcome> {
        statuses.iter().copied().map(Outcome::Answered).collect()
    }

    #[test]
    fn a_threshold_is_met_once_at_equality_and_a_success_sets_it_back() {
        use Cause::Consecutive5xx;
        assert_eq!(
            met(
                &policy(2, 0),
                &answers(&[500, 200, 500, 500, 500, 404, 500, 501])
            ),
            [
                vec![],
                vec![],
                vec![],
                vec![Consecutive5xx],
                vec![],
                vec![],
                vec![],
                vec![Consecutive5xx]
            ]
        );
    }

    #[test]
    fn another_5xx_sets_the_gateway_counter_back() {
        use Cause::{Consecutive5xx, ConsecutiveGateway};
        assert_eq!(
            met(&policy(4, 2), &answers(&[502, 500, 503, 504])),
            [
                vec![],
                vec![],
                vec![],
                vec![ConsecutiveGateway, Consecutive5xx]
            ]
        );
    }

    #[test]
    fn a_threshold_of_zero_is_off() {
        assert!(
            met(&policy(0, 0), &answers(&[503; 20]))
                .iter()
                .all(Vec::is_empty)
        );
    }

    #[test]
    fn local_failures_count_as_answers_unless_they_are_judged_apart() {
        let local = [Outcome::Local(503), Outcome::Local(504)];
        assert_eq!(
            met(&policy(0, 2), &local)[1],
            [Cause::ConsecutiveGateway],
            "connect failure and timeout are gateway errors"
        );
        let mut apart = policy(1, 1);
        apart.split_local_origin = true;
        apart.consecutive_local_failure = 2;
        assert_eq!(met(&apart, &local), [vec![], vec![Cause::ConsecutiveLocal]]);
        let reached = [
            Outcome::Local(503),
            Outcome::Answered(200),
            Outcome::Local(503),
        ];
        assert!(met(&apart, &reached).iter().all(Vec::is_empty));
    }

    #[test]
    fn a_connection_that_breaks_is_a_host_that_was_reached() {
        let mut apart = policy(1, 1);
        apart.split_local_origin = true;
        apart.consecutive_local_failure = 2;
        let broken = [Outcome::Broken(503); 5];
        assert!(met(&apart, &broken).iter().all(Vec::is_empty));
        apart.consecutive_local_failure = 1;
        assert_eq!(met(&apart, &broken)[4], [Cause::ConsecutiveLocal]);
        assert_eq!(
            met(&policy(0, 2), &broken)[1],
            [Cause::ConsecutiveGateway],
            "not apart it is a failure as any other"
        );
    }

    #[test]
    fn a_detector_that_is_not_enforced_finds_the_same() {
        let mut counting = policy(0, 0);
        counting.unenforced.consecutive_5xx = 2;
        let found = met(&counting, &answers(&[500, 500, 500, 500]));
        assert_eq!(found[1], [Cause::Consecutive5xx]);
        assert!(found[0].is_empty() && found[2].is_empty() && found[3].is_empty());
    }

    #[test]
    fn a_list_of_codes_replaces_the_5xx_rule() {
        let mut listed = policy(1, 1);
        listed.error_codes = vec![404, 503];
        assert_eq!(
            met(&listed, &answers(&[500, 404, 502, 503])),
            [
                vec![],
                vec![Cause::Consecutive5xx],
                vec![],
                vec![Cause::ConsecutiveGateway, Cause::Consecutive5xx]
            ]
        );
        assert_eq!(
            met(&listed, &[Outcome::Local(500)])[0],
            [Cause::Consecutive5xx],
            "failures on our side are no answers and keep the 5xx rule"
        );
    }
}
