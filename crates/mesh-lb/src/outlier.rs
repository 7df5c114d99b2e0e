//! Takes hosts that fail out of balancing for a time (Envoy's outlier detection).
//!
//! The rules are those of Envoy's `outlier_detection_impl.cc`. A host is looked at when it fails
//! its n-th request in a row (5xx, gateway errors, or failures on our side), and at the end of each
//! interval when its success rate or share of failures is out of line with the others'. It is
//! ejected if `100 × (ejected + 1) / hosts ≤ max_ejection_percent`, for
//! `min(base × times, max)`, where `times` grows by one with each ejection and falls by one with
//! each interval that the host stays in. Hosts come back only at the end of an interval, with
//! their counters at zero.
//!
//! An [`Ejector`] reads no clock: every method takes `now`, and ends of intervals that nobody
//! looked at are caught up with, each at its own time. Ejection jitter is not supported.
//!
//! ```
//! use mesh_core::model::{Address, Cluster, EndpointSet, Outlier, SnapshotBuilder};
//! use mesh_lb::{ClusterHosts, Outcome};
//! use std::time::{Duration, Instant};
//!
//! let mut cluster = Cluster::new("reviews");
//! let mut outlier = Outlier::default();
//! outlier.consecutive_5xx = 2;
//! outlier.max_ejection_percent = 50;
//! cluster.outlier = Some(outlier);
//! let mut builder = SnapshotBuilder::new();
//! builder.cluster(cluster);
//! let addresses = ["10.0.0.1:80".parse::<Address>()?, "10.0.0.2:80".parse()?];
//! builder.endpoints("reviews", EndpointSet::of(addresses));
//! let (snapshot, _) = builder.build()?;
//!
//! let hosts = ClusterHosts::of(&snapshot.clusters()[0]);
//! let now = Instant::now();
//! let host = hosts.current().hosts()[0].clone();
//! hosts.report(&host, Outcome::Answered(500), now);
//! assert!(!host.is_ejected());
//! hosts.report(&host, Outcome::Answered(503), now);
//! assert!(host.is_ejected());
//! // 30 s later, at the end of an interval of 10 s, it comes back.
//! hosts.sweep(now + Duration::from_secs(29));
//! assert!(host.is_ejected());
//! hosts.sweep(now + Duration::from_secs(30));
//! assert!(!host.is_ejected());
//! # Ok::<(), mesh_core::Invalid>(())
//! ```

mod grpc;
mod monitor;
mod rate;
mod record;

pub(crate) use grpc::judged_status;
pub(crate) use monitor::Monitor;
pub use monitor::Outcome;
pub(crate) use record::Records;
pub use record::{Ejected, EjectionRates, EjectionRecord};

use crate::Host;
use crate::words::WordMap;
use mesh_core::HostId;
use mesh_core::model::Outlier;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Decides which hosts of one cluster are ejected.
#[derive(Debug)]
pub struct Ejector {
    policy: Outlier,
    /// The last end of an interval that was looked at; none before the first look at a clock.
    last: Option<Instant>,
    watched: Vec<Watched>,
    by_id: WordMap<HostId, usize>,
    active: usize,
    records: Records,
}

/// Why a host is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Consecutive 5xx answers (`consecutive_5xx`).
    Consecutive5xx,
    /// Consecutive 502, 503 and 504 answers (`consecutive_gateway_failure`).
    ConsecutiveGateway,
    /// Consecutive failures on our side (`consecutive_local_origin_failure`).
    ConsecutiveLocal,
    /// A success rate far below the mean (`success_rate`).
    SuccessRate,
    /// A large share of failures (`failure_percentage`).
    FailurePercentage,
}

/// What an [`Ejector`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event {
    /// A host met a condition, whether it is ejected for it or not.
    Detected(HostId, Cause),
    /// A host was ejected.
    Ejected(HostId, Cause),
    /// A host was not ejected because enough others are.
    Overflow(HostId, Cause),
    /// A host came back.
    Returned(HostId),
}

#[derive(Debug)]
struct Watched {
    host: Arc<Host>,
    ejected_at: Option<Instant>,
    /// How often it was ejected, and when it last came back: for the log.
    ejections: u32,
    returned_at: Option<Instant>,
    /// How many times the base time an ejection lasts (Envoy's eject time back-off).
    times: u32,
    /// It came back at the end of the interval that is being looked at.
    just_returned: bool,
}

/// Intervals are at least this long, so that catching up with missed ones comes to an end.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

// === impl Cause ===

impl Cause {
    /// How many failures in a row it takes, of the detector that ejects or else of the one that
    /// counts. 0 is never.
    fn threshold(self, policy: &Outlier) -> u32 {
        let (ejects, counts) = match self {
            Self::Consecutive5xx => (policy.consecutive_5xx, policy.unenforced.consecutive_5xx),
            Self::ConsecutiveGateway => (
                policy.consecutive_gateway_failure,
                policy.unenforced.consecutive_gateway_failure,
            ),
            Self::ConsecutiveLocal => (
                policy.consecutive_local_failure,
                policy.unenforced.consecutive_local_failure,
            ),
            Self::SuccessRate | Self::FailurePercentage => (0, 0),
        };
        if ejects > 0 { ejects } else { counts }
    }

    fn is_enforced(self, policy: &Outlier) -> bool {
        match self {
            Self::Consecutive5xx => policy.consecutive_5xx > 0,
            Self::ConsecutiveGateway => policy.consecutive_gateway_failure > 0,
            Self::ConsecutiveLocal => policy.consecutive_local_failure > 0,
            Self::SuccessRate | Self::FailurePercentage => true,
        }
    }
}

// === impl Ejector ===

impl Ejector {
    /// An ejector without hosts. Its first interval begins at the first [`Ejector::sweep`].
    pub fn new(policy: Outlier) -> Self {
        Self {
            policy,
            last: None,
            watched: Vec::new(),
            by_id: WordMap::default(),
            active: 0,
            records: Records::default(),
        }
    }

    /// Applies another policy from now on. Ejected hosts stay ejected, for as long as the new
    /// policy says.
    pub fn set_policy(&mut self, policy: Outlier) {
        self.policy = policy;
    }

    /// Watches exactly these hosts. Those that were watched before keep their history.
    pub fn follow(&mut self, hosts: &[Arc<Host>]) {
        let mut before = std::mem::take(&mut self.by_id);
        let mut old: Vec<_> = self.watched.drain(..).map(Some).collect();
        for host in hosts {
            let known = before.remove(&host.id()).and_then(|at| old[at].take());
            let watched = match known {
                Some(known) => Watched {
                    host: host.clone(),
                    ..known
                },
                None => Watched {
                    host: host.clone(),
                    ejected_at: None,
                    ejections: 0,
                    returned_at: None,
                    times: 0,
                    just_returned: false,
                },
            };
            self.by_id.insert(host.id(), self.watched.len());
            self.watched.push(watched);
        }
        self.active = self
            .watched
            .iter()
            .filter(|w| w.ejected_at.is_some())
            .count();
    }

    /// Lets every host back at once: detection was switched off.
    pub fn release(&mut self, events: &mut Vec<Event>) {
        for watched in &mut self.watched {
            if watched.ejected_at.is_some() {
                watched.let_back(events);
            }
        }
        self.active = 0;
    }

    /// An active health check of a host succeeded, and it is healthy by that: it comes back, if the
    /// policy says so.
    pub(crate) fn is_well(&mut self, id: HostId, now: Instant, events: &mut Vec<Event>) {
        let at = self.by_id.get(&id).filter(|_| self.policy.uneject_on_check);
        if let Some(watched) = at.map(|at| &mut self.watched[*at])
            && watched.ejected_at.is_some()
        {
            self.records.add(watched.returns(now));
            watched.let_back(events);
            self.active -= 1;
        }
    }

    /// What happened since this was last asked for, in order, and how much more there was than is
    /// kept.
    pub(crate) fn take_records(&mut self) -> (Vec<EjectionRecord>, u64) {
        self.records.take()
    }

    /// How many hosts are ejected.
    pub fn active(&self) -> usize {
        self.active
    }

    /// When the present interval ends. None before the first look at a clock.
    pub fn due(&self) -> Option<Instant> {
        self.last?.checked_add(self.interval())
    }

    fn interval(&self) -> Duration {
        self.policy.interval.max(SHORTEST_INTERVAL)
    }

    /// Counts what became of a request to `host`, and ejects the host if that was one failure too
    /// many.
    pub fn note(&mut self, host: &Host, outcome: Outcome, now: Instant, events: &mut Vec<Event>) {
        for cause in host
            .monitor()
            .note(outcome, &self.policy)
            .into_iter()
            .flatten()
        {
            self.detected(host.id(), cause, now, events);
        }
    }

    /// A host met a condition for consecutive failures. Hosts that are not watched any more, or
    /// are ejected already, are left alone.
    pub(crate) fn detected(
        &mut self,
        id: HostId,
        cause: Cause,
        now: Instant,
        events: &mut Vec<Event>,
    ) {
        let Some(at) = self.by_id.get(&id).copied() else {
            return;
        };
        if self.watched[at].ejected_at.is_some() {
            return;
        }
        self.judge(at, cause, (false, None), now, events);
        // Counting begins anew even if the host stays: otherwise it would never be looked at
        // again, for a counter beyond its threshold does not meet it.
        self.watched[at].host.monitor().reset(cause);
    }

    /// Ejects the host unless too many are. Of rates, whether they are of failures on our side, and
    /// what they are.
    fn judge(
        &mut self,
        at: usize,
        cause: Cause,
        (local, rates): (bool, Option<EjectionRates>),
        now: Instant,
        events: &mut Vec<Event>,
    ) {
        let (total, max) = (
            self.watched.len() as u64,
            self.policy.max_ejection_percent.min(100),
        );
        let allowed = 100 * (self.active as u64 + 1) <= u64::from(max) * total
            || (self.policy.always_eject_one && self.active == 0);
        let longest = self.longest();
        let watched = &mut self.watched[at];
        let id = watched.host.id();
        events.push(Event::Detected(id, cause));
        if !allowed {
            events.push(Event::Overflow(id, cause));
            return;
        }
        let enforced = cause.is_enforced(&self.policy);
        watched.ejections = watched.ejections.saturating_add(u32::from(enforced));
        let ejected = Ejected {
            cause,
            local,
            enforced,
            rates,
        };
        let record = watched.record(now, watched.returned_at, Some(ejected));
        self.records.add(record);
        if !enforced {
            return;
        }
        watched.host.set_ejected(true);
        watched.ejected_at = Some(now);
        let base = self.policy.base_ejection_time;
        if base.saturating_mul(watched.times) < longest.saturating_add(base) {
            watched.times += 1;
        }
        self.active += 1;
        events.push(Event::Ejected(id, cause));
    }

    /// The longest ejection: never less than the base time.
    fn longest(&self) -> Duration {
        self.policy
            .max_ejection_time
            .max(self.policy.base_ejection_time)
    }

    fn lasts(&self, times: u32) -> Duration {
        self.policy
            .base_ejection_time
            .saturating_mul(times)
            .min(self.longest())
    }

    /// Looks at every interval that ended up to `now`.
    pub fn sweep(&mut self, now: Instant, events: &mut Vec<Event>) {
        if self.last.is_none() {
            self.last = Some(now);
        }
        let Some(due) = self.due().filter(|due| *due <= now) else {
            return;
        };
        self.interval_ends(due, events);
        // Nothing was counted after `due`, or this sweep would have come earlier: what is left is
        // to let hosts back and their times down.
        let missed = (now - due).as_nanos() / self.interval().as_nanos();
        if missed > 0 {
            self.intervals_pass(due, missed, events);
        }
        let into_the_next = (now - due).as_nanos() % self.interval().as_nanos();
        self.last = Some(now - Duration::from_nanos(into_the_next as u64));
    }

    /// The end of an interval with traffic, in Envoy's order: come back, judge rates, count down.
    fn interval_ends(&mut self, now: Instant, events: &mut Vec<Event>) {
        for at in 0..self.watched.len() {
            let lasts = self.lasts(self.watched[at].times);
            let watched = &mut self.watched[at];
            watched.just_returned = false;
            if let Some(since) = watched.ejected_at
                && now.saturating_duration_since(since) >= lasts
            {
                self.records.add(watched.returns(now));
                watched.let_back(events);
                watched.just_returned = true;
                self.active -= 1;
            }
        }
        self.judge_rates(Monitor::take_external, false, now, events);
        self.judge_rates(Monitor::take_local, true, now, events);
        for watched in &mut self.watched {
            if watched.ejected_at.is_none() && !watched.just_returned {
                watched.times = watched.times.saturating_sub(1);
            }
        }
    }

    /// The ends of `count` intervals without traffic after `first`.
    fn intervals_pass(&mut self, first: Instant, count: u128, events: &mut Vec<Event>) {
        for at in 0..self.watched.len() {
            let lasts = self.lasts(self.watched[at].times);
            let interval = self.interval().as_nanos();
            let watched = &mut self.watched[at];
            let quiet = match watched.ejected_at {
                None => count,
                Some(since) => {
                    let rest = lasts.saturating_sub(first.saturating_duration_since(since));
                    let back_at = rest.as_nanos().div_ceil(interval).max(1);
                    if back_at > count {
                        continue;
                    }
                    let passed = u64::try_from(back_at * interval).unwrap_or(u64::MAX);
                    let back = first + Duration::from_nanos(passed);
                    self.records.add(watched.returns(back));
                    watched.let_back(events);
                    self.active -= 1;
                    count - back_at
                }
            };
            let quiet = u32::try_from(quiet).unwrap_or(u32::MAX);
            watched.times = watched.times.saturating_sub(quiet);
        }
    }

    /// Judges what one kind of bucket holds, and empties it.
    fn judge_rates(
        &mut self,
        take: fn(&Monitor) -> rate::Sample,
        local: bool,
        now: Instant,
        events: &mut Vec<Event>,
    ) {
        if self.policy.success_rate.is_none() && self.policy.failure_percentage.is_none() {
            return;
        }
        let samples: Vec<_> = self
            .watched
            .iter()
            .map(|watched| (watched.ejected_at.is_none(), take(watched.host.monitor())))
            .enumerate()
            .filter_map(|(at, (is_in, sample))| is_in.then_some((at, sample)))
            .collect();
        let total = self.watched.len();
        for (at, cause, rates) in rate::outliers(&samples, total, &self.policy) {
            if self.watched[at].ejected_at.is_none() {
                self.judge(at, cause, (local, Some(rates)), now, events);
            }
        }
    }
}

// === impl Watched ===

impl Watched {
    /// It comes back, for the log. To be called before it does.
    fn returns(&mut self, now: Instant) -> EjectionRecord {
        self.returned_at = Some(now);
        self.record(now, self.ejected_at, None)
    }

    fn record(
        &self,
        now: Instant,
        last: Option<Instant>,
        ejected: Option<Ejected>,
    ) -> EjectionRecord {
        EjectionRecord {
            address: self.host.address().clone(),
            at: now,
            since: last.map(|last| now.saturating_duration_since(last)),
            ejections: self.ejections,
            ejected,
        }
    }

    fn let_back(&mut self, events: &mut Vec<Event>) {
        self.ejected_at = None;
        self.host.set_ejected(false);
        self.host.monitor().reset_all();
        events.push(Event::Returned(self.host.id()));
    }
}

#[cfg(test)]
mod tests;
