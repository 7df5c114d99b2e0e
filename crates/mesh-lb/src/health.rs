//! What active health checks make of a host: answers in, a verdict and the time of the next
//! question out.
//!
//! The rules are those of Envoy's `health_checker_base_impl.cc`. A host is unhealthy until it was
//! asked. Its first answer counts at once; from then on it takes as many answers in a row as the
//! check's thresholds say to change what it is, but for one that says plainly that the host is not
//! well: that one is enough. Nothing here reads a clock, waits, or asks: whoever does reports to
//! [`ClusterHosts::checked`](crate::ClusterHosts::checked).
//!
//! ```
//! use mesh_core::model::{HealthCheck, HttpProbe, Probe};
//! use mesh_lb::health::{Answer, Session, Transition};
//! use std::time::Duration;
//!
//! let second = Duration::from_secs(1);
//! let probe = Probe::Http(Box::new(HttpProbe::new("/healthz")));
//! let mut check = HealthCheck::new(probe, second, second);
//! check.unhealthy_threshold = 2;
//! let mut session = Session::default();
//! assert!(session.is_failed());
//! assert_eq!(session.note(Answer::Well, &check), Transition::Changed);
//! assert_eq!(session.note(Answer::Unreachable, &check), Transition::Pending);
//! assert!(!session.is_failed());
//! assert_eq!(session.note(Answer::Unreachable, &check), Transition::Changed);
//! assert!(session.is_failed());
//! ```

use mesh_core::model::{HealthCheck, Pace};
use mesh_core::rng::mix;
use std::time::Duration;

/// What a host answered, or did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Answer {
    /// It is well.
    Well,
    /// It is well, and would rather have others take the load (`x-envoy-degraded`).
    Degraded,
    /// It is not well.
    Unwell {
        /// Another answer may follow: it counts as one failure. Otherwise the host is unhealthy at
        /// once.
        retriable: bool,
        /// It asks to be left out of balancing altogether (`x-envoy-immediate-health-check-fail`).
        excluded: bool,
    },
    /// There is no connection, or no longer one.
    Unreachable,
    /// There was no answer in time.
    Late,
    /// An answer to somebody's request said so (`x-envoy-immediate-health-check-fail`).
    Passive,
}

/// What an answer changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transition {
    /// Nothing.
    Unchanged,
    /// Nothing yet: it takes more of these answers.
    Pending,
    /// What the host is.
    Changed,
}

/// The answers of one host to one check.
#[derive(Clone, Debug)]
pub struct Session {
    /// There was no answer yet.
    is_first: bool,
    failed: bool,
    degraded: bool,
    excluded: bool,
    late: bool,
    /// Answers in a row that speak against what it is.
    in_a_row: u32,
}

/// What active health checks say of a host. [`Checked::default`] is what a host is that is not
/// checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Checked {
    /// It fails, or was not asked yet (Envoy `failed_active_hc`).
    pub failed: bool,
    /// It says that it is degraded (`degraded_active_hc`).
    pub degraded: bool,
    /// It asked to be left out, which also means that nobody misses it
    /// (`excluded_via_immediate_hc_fail`).
    pub excluded: bool,
    /// It fails because its answers do not come in time (`active_hc_timeout`).
    pub late: bool,
}

// === impl Answer ===

impl Answer {
    /// Whether the host is well.
    pub fn is_well(self) -> bool {
        matches!(self, Self::Well | Self::Degraded)
    }

    /// Whether nothing was answered (Envoy `network_failure`).
    pub fn is_network_failure(self) -> bool {
        matches!(self, Self::Unreachable | Self::Late)
    }

    /// Whether one of these is enough.
    fn is_decisive(self) -> bool {
        match self {
            Self::Unwell { retriable, .. } => !retriable,
            Self::Passive => true,
            _ => false,
        }
    }

    fn excludes(self) -> bool {
        matches!(self, Self::Passive | Self::Unwell { excluded: true, .. })
    }
}

// === impl Session ===

impl Session {
    /// Of a host that served before it was checked, and serves until its first answer.
    pub(crate) fn in_service() -> Self {
        Self {
            failed: false,
            ..Self::default()
        }
    }

    /// Takes an answer into account.
    pub fn note(&mut self, answer: Answer, check: &HealthCheck) -> Transition {
        let is_first = std::mem::replace(&mut self.is_first, false);
        if answer.is_well() {
            self.well(answer == Answer::Degraded, is_first, check)
        } else {
            self.unwell(answer, is_first, check)
        }
    }

    fn well(&mut self, degraded: bool, is_first: bool, check: &HealthCheck) -> Transition {
        let mut transition = Transition::Unchanged;
        if self.failed {
            self.in_a_row = self.in_a_row.saturating_add(1);
            if is_first || self.in_a_row == check.healthy_threshold {
                // failed -> healthy
                (self.failed, self.excluded, self.late) = (false, false, false);
                self.in_a_row = 0;
                transition = Transition::Changed;
            } else {
                transition = Transition::Pending;
            }
        } else {
            self.in_a_row = 0;
        }
        if degraded != self.degraded {
            self.degraded = degraded;
            if transition == Transition::Unchanged {
                transition = Transition::Changed;
            }
        }
        transition
    }

    fn unwell(&mut self, answer: Answer, is_first: bool, check: &HealthCheck) -> Transition {
        let mut transition = Transition::Unchanged;
        if self.failed {
            self.in_a_row = 0;
        } else {
            self.in_a_row = self.in_a_row.saturating_add(1);
            let enough = self.in_a_row == check.unhealthy_threshold;
            if is_first || enough || answer.is_decisive() {
                // healthy -> failed
                self.failed = true;
                self.in_a_row = 0;
                transition = Transition::Changed;
            } else {
                transition = Transition::Pending;
            }
        }
        if answer.excludes() && self.failed && !self.excluded {
            self.excluded = true;
            transition = Transition::Changed;
        }
        self.late = self.failed && answer == Answer::Late;
        transition
    }

    /// Whether the host was not asked yet, or not answered well enough.
    pub fn is_failed(&self) -> bool {
        self.failed
    }

    /// Whether there was an answer, or a question without one.
    pub fn is_begun(&self) -> bool {
        !self.is_first
    }

    pub(crate) fn checked(&self) -> Checked {
        Checked {
            failed: self.failed,
            degraded: self.degraded,
            excluded: self.excluded,
            late: self.late,
        }
    }
}

impl Default for Session {
    /// Of a host that nobody asked yet.
    fn default() -> Self {
        Self {
            is_first: true,
            failed: true,
            degraded: false,
            excluded: false,
            late: false,
            in_a_row: 0,
        }
    }
}

// === impl Checked ===

impl Checked {
    /// What two checks of one host say together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            failed: self.failed || other.failed,
            degraded: self.degraded || other.degraded,
            excluded: self.excluded || other.excluded,
            late: self.late || other.late,
        }
    }

    pub(crate) fn to_bits(self) -> u8 {
        u8::from(self.failed)
            | u8::from(self.degraded) << 1
            | u8::from(self.excluded) << 2
            | u8::from(self.late) << 3
    }

    pub(crate) fn from_bits(bits: u8) -> Self {
        let has = |bit: u8| bits & (1 << bit) != 0;
        Self {
            failed: has(0),
            degraded: has(1),
            excluded: has(2),
            late: has(3),
        }
    }
}

/// How long to wait before the first question; `word` is random.
pub fn first_wait(pace: &Pace, word: u64) -> Duration {
    if pace.initial_jitter.is_zero() {
        return Duration::ZERO;
    }
    below(pace.initial_jitter, word).max(SHORTEST)
}

/// How long to wait for the next question after this answer; `word` is random. Where there was
/// never `traffic` to the cluster there is less reason to ask.
pub fn wait(
    pace: &Pace,
    traffic: bool,
    answer: Answer,
    transition: Transition,
    word: u64,
) -> Duration {
    let pending = transition == Transition::Pending;
    let unhealthy = pace.unhealthy.unwrap_or(pace.interval);
    let usual = match (traffic, answer.is_well(), pending) {
        (true, true, false) => pace.interval,
        (true, true, true) => pace.healthy_edge.unwrap_or(pace.interval),
        (true, false, false) => unhealthy,
        (true, false, true) => pace.unhealthy_edge.unwrap_or(unhealthy),
        (false, true, false) => pace.no_traffic_healthy.unwrap_or(pace.no_traffic),
        (false, ..) => pace.no_traffic,
    };
    let share = usual.saturating_mul(pace.jitter_percent) / 100;
    usual
        .saturating_add(below(share, word))
        .saturating_add(below(pace.jitter, mix(word)))
        .max(SHORTEST)
}

/// As in Envoy, so that nobody is asked without end.
const SHORTEST: Duration = Duration::from_millis(1);

/// Something random that is less.
fn below(limit: Duration, word: u64) -> Duration {
    let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
    match nanos {
        0 => Duration::ZERO,
        nanos => Duration::from_nanos(word % nanos),
    }
}

#[cfg(test)]
mod tests;
