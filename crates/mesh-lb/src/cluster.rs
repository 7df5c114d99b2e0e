//! What the process knows about the hosts of one cluster.
//!
//! A [`ClusterHosts`] lives in the cluster's [slot](mesh_core::model::LiveCluster::slot), so it is
//! carried from snapshot to snapshot with the endpoints and the counts. Whoever needs the hosts
//! asks [`ClusterHosts::refresh`] first: two atomic loads when nothing changed; otherwise the new
//! [`HostSet`] is built once, under a lock, for all workers.
//!
//! Nothing runs on its own. Intervals of outlier detection, and those at which weights are looked at
//! that endpoints report, end when a request is next balanced or
//! reported, or when [`ClusterHosts::sweep`] is called, as an admin thread does every second or so
//! for clusters without traffic. Who publishes endpoints by the thousand calls it right after, so
//! that no request pays for building the set. Only the table of hashes of a subset whose hosts
//! changed is left to the first request for that subset.

mod checks;

use crate::hosts::{Members, Setting, Subsets};
use crate::outlier::{Cause, EjectionRecord, Event, Outcome};
use crate::report::LoadReport;
use crate::{Ejector, Host, HostSet};
use checks::Checks;
use mesh_core::model::{Balancing, Cluster, ClusterEntry, ClusterStats, EndpointSet, Locality};
use mesh_core::stats::ClusterStat;
use mesh_core::{Feed, Publisher, Shard};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// The hosts of one cluster: shared by all workers and all snapshots that have the cluster.
#[derive(Debug)]
pub struct ClusterHosts {
    stats: ClusterStats,
    endpoints: Feed<EndpointSet>,
    sets: Publisher<HostSet>,
    /// Reads what `sets` publishes.
    current: Feed<HostSet>,
    seen: Seen,
    /// Where the node is, once somebody has said so.
    own: OnceLock<Locality>,
    /// Held while a new set is built or a host ejected; never by a request that finds everything
    /// as it was.
    inner: Mutex<Inner>,
}

/// What the present set was built from: read on every pick, so kept apart from the lock.
#[derive(Debug)]
struct Seen {
    endpoints: AtomicU64,
    revision: AtomicU64,
    /// When the present interval of outlier detection ends, in nanoseconds after `start`.
    due: AtomicU64,
    start: OnceLock<Instant>,
}

#[derive(Debug)]
struct Inner {
    ejector: Option<Ejector>,
    /// When weights are looked at next, where endpoints report them and somebody has looked at a
    /// clock.
    weights_due: Option<Instant>,
    checks: Checks,
    generation: u64,
}

/// Outlier detection is off.
const NEVER: u64 = u64::MAX;

/// Outlier detection is on and has not looked at a clock yet.
const AT_ONCE: u64 = 0;

// === impl ClusterHosts ===

impl ClusterHosts {
    /// The hosts of this cluster, made on first use.
    pub fn of(entry: &Arc<ClusterEntry>) -> &Self {
        entry.live().slot().get_or_init(|| Self::new(entry))
    }

    fn new(entry: &ClusterEntry) -> Self {
        let config = entry.config().clone();
        let empty = HostSet::build(0, config, Arc::default(), Setting::default());
        let sets = Publisher::new(empty);
        let this = Self {
            stats: entry.live().stats().clone(),
            endpoints: entry.live().endpoints(),
            current: sets.feed(),
            sets,
            seen: Seen {
                endpoints: AtomicU64::new(0),
                // Even the first entry is newer than nothing.
                revision: AtomicU64::new(0),
                due: AtomicU64::new(NEVER),
                start: OnceLock::new(),
            },
            own: OnceLock::new(),
            inner: Mutex::new(Inner {
                ejector: None,
                weights_due: None,
                checks: Checks::default(),
                generation: 0,
            }),
        };
        this.catch_up(Some(entry), None);
        this
    }

    /// The hosts as they are now, for `entry` or whatever newer configuration of the cluster was
    /// seen. Ends the interval of outlier detection if it is over.
    pub fn refresh(&self, entry: &ClusterEntry, now: Instant) -> Arc<HostSet> {
        self.refresh_in_place(entry, now);
        self.current()
    }

    /// As [`ClusterHosts::refresh`], for who reads the set with [`ClusterHosts::with`].
    pub(crate) fn refresh_in_place(&self, entry: &ClusterEntry, now: Instant) {
        let is_newer = entry.revision() > self.seen.revision.load(Ordering::Acquire);
        if is_newer || self.has_new_endpoints() || self.is_due(now) {
            self.catch_up(Some(entry), Some(now));
        }
    }

    /// The hosts as they were when somebody last looked.
    pub fn current(&self) -> Arc<HostSet> {
        self.current.load()
    }

    /// Calls `read` with the hosts as they were when somebody last looked, without touching their
    /// reference count.
    pub(crate) fn with<R>(&self, read: impl FnOnce(&HostSet) -> R) -> R {
        self.current.with(|set| read(set))
    }

    /// Says where the node is, for clusters whose localities are told apart. The first who says so
    /// is believed: a process is at one place.
    pub fn locate(&self, own: &Locality) {
        if self.own.get().is_some() || self.own.set(own.clone()).is_err() {
            return;
        }
        let mut inner = self.lock();
        let set = self.current();
        let (config, members) = (set.config().clone(), set.members().clone());
        self.publish(&mut inner, config, members, None);
    }

    /// Ends the interval of outlier detection if it is over, and takes up new endpoints: for
    /// clusters without traffic.
    pub fn sweep(&self, now: Instant) {
        if self.has_new_endpoints() || self.is_due(now) {
            self.catch_up(None, Some(now));
        }
    }

    /// Takes up new endpoints, without a clock.
    pub(crate) fn follow(&self) {
        if self.has_new_endpoints() {
            self.catch_up(None, None);
        }
    }

    /// Counts what became of a request to `host`, and ejects the host if the cluster's outlier
    /// detection says so. Without outlier detection it does nothing.
    pub fn report(&self, host: &Host, outcome: Outcome, now: Instant) {
        if self.seen.due.load(Ordering::Relaxed) == NEVER {
            return;
        }
        // First, so that the outcome counts for the interval that it belongs to.
        self.sweep(now);
        let causes = self.current.with(|set| match &set.config().outlier {
            Some(policy) => host.monitor().note(outcome, policy),
            None => [None, None],
        });
        if causes == [None, None] {
            return;
        }
        let mut inner = self.lock();
        let mut events = Vec::new();
        if let Some(ejector) = &mut inner.ejector {
            for cause in causes.into_iter().flatten() {
                ejector.detected(host.id(), cause, now, &mut events);
            }
        }
        if self.record(&events) {
            let set = self.current();
            let (config, members) = (set.config().clone(), set.members().clone());
            self.publish(&mut inner, config, members, Some(now));
        }
    }

    /// Takes up what an answer of `host` says of its load, if weights follow from that.
    pub(crate) fn take_load(&self, host: &Host, report: &LoadReport, now: Instant) {
        // First, so that weights that expired meanwhile have.
        self.sweep(now);
        self.current.with(|set| {
            if let Some(policy) = set.config().weighed_by_reports() {
                host.reported().note(report, policy, now);
            }
        });
    }

    /// What outlier detection did since this was last asked for, in order, and how much more there
    /// was than is kept: 256 records. For whoever logs it, every second or so.
    pub fn take_ejections(&self) -> (Vec<EjectionRecord>, u64) {
        let mut inner = self.lock();
        let ejector = inner.ejector.as_mut();
        ejector.map(Ejector::take_records).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_new_endpoints(&self) -> bool {
        self.endpoints.version() != self.seen.endpoints.load(Ordering::Acquire)
    }

    fn is_due(&self, now: Instant) -> bool {
        match self.seen.due.load(Ordering::Relaxed) {
            NEVER => false,
            AT_ONCE => true,
            due => self.seen.since_start(now) >= due,
        }
    }

    /// Brings everything up to date, under the lock.
    fn catch_up(&self, entry: Option<&ClusterEntry>, now: Option<Instant>) {
        let mut inner = self.lock();
        let old = self.current();
        let mut events = Vec::new();
        let mut changed = false;

        let mut config = old.config().clone();
        let newer = entry.filter(|e| e.revision() > self.seen.revision.load(Ordering::Acquire));
        if let Some(entry) = newer {
            config = entry.config().clone();
        }

        // The version before the value: a value that comes in between is seen again.
        let version = self.endpoints.version();
        let mut members = old.members().clone();
        if version != self.seen.endpoints.load(Ordering::Acquire) {
            let stays = |host: &Host| checks::stays(&config, host);
            let endpoints = self.endpoints.load();
            members = Arc::new(Members::update(version, &endpoints, &members, stays));
            if members.differs_from(old.members()) {
                let stats = self.stats.block();
                stats.inc(Shard::default(), ClusterStat::MembershipChange);
            }
            changed = true;
        }

        if newer.is_some() {
            match (&mut inner.ejector, &config.outlier) {
                (Some(ejector), Some(policy)) => ejector.set_policy(policy.clone()),
                (Some(ejector), None) => {
                    ejector.release(&mut events);
                    inner.ejector = None;
                }
                (none, Some(policy)) => *none = Some(Ejector::new(policy.clone())),
                (None, None) => {}
            }
            changed = true;
        }
        let (weighed, reweighed) = inner.weigh(&config, members, changed, now);
        members = weighed;
        if changed {
            inner.follow(&config, members.hosts(), old.members());
        }
        changed |= reweighed;

        if let (Some(ejector), Some(now)) = (&mut inner.ejector, now) {
            ejector.sweep(now, &mut events);
        }
        if self.record(&events) || changed {
            self.publish(&mut inner, config.clone(), members, now);
        }
        // Last: who sees these finds the new set.
        let due = self.seen.due_of(&inner, &config, now);
        self.seen.due.store(due, Ordering::Relaxed);
        self.seen.endpoints.store(version, Ordering::Release);
        if let Some(entry) = newer {
            self.seen
                .revision
                .store(entry.revision(), Ordering::Release);
        }
    }

    /// Publishes the next set and what follows from it.
    fn publish(
        &self,
        inner: &mut Inner,
        config: Arc<Cluster>,
        members: Arc<Members>,
        now: Option<Instant>,
    ) {
        inner.generation += 1;
        let previous = self.current();
        let is_slow = config.slow_start.is_some();
        let setting = Setting {
            own: self.own.get(),
            now: is_slow.then(|| now.unwrap_or_else(|| tokio::time::Instant::now().into_std())),
            previous: Some(&previous),
        };
        let set = HostSet::build(inner.generation, config, members, setting);
        let ejected = inner.ejector.as_ref().map_or(0, Ejector::active);
        let stats = self.stats.block();
        stats.set(ClusterStat::OutlierActive, ejected as u64);
        stats.set(ClusterStat::MembershipTotal, set.hosts().len() as u64);
        stats.set(ClusterStat::MembershipHealthy, set.healthy() as u64);
        stats.set(ClusterStat::MembershipDegraded, set.degraded() as u64);
        if !set.config().health_checks.is_empty() {
            let (healthy, degraded) = inner.checks.counts();
            stats.set(ClusterStat::CheckHealthy, healthy as u64);
            stats.set(ClusterStat::CheckDegraded, degraded as u64);
            stats.set(ClusterStat::MembershipExcluded, set.excluded() as u64);
        }
        show(&self.stats, &set, &previous);
        self.sets.publish(Arc::new(set));
    }

    /// Counts events; true when they change who may be chosen.
    fn record(&self, events: &[Event]) -> bool {
        let inc = |stat| self.stats.block().inc(Shard::default(), stat);
        let mut changed = false;
        for event in events {
            match event {
                Event::Detected(_, cause) => {
                    if let Some(stat) = detected(*cause) {
                        inc(stat);
                    }
                }
                Event::Ejected(_, cause) => {
                    inc(ClusterStat::OutlierEnforced);
                    inc(enforced(*cause));
                    changed = true;
                }
                Event::Overflow(..) => inc(ClusterStat::OutlierOverflow),
                Event::Returned(_) => changed = true,
            }
        }
        changed
    }
}

/// Shows the size of tables and what became of subsets.
fn show(stats: &ClusterStats, set: &HostSet, previous: &HostSet) {
    let stats = stats.block();
    if let Some(extent) = set.extent() {
        match set.balancing() {
            Balancing::RingHash(_) => {
                stats.set(ClusterStat::RingSize, extent.size);
                stats.set(ClusterStat::RingLeast, extent.least);
                stats.set(ClusterStat::RingMost, extent.most);
            }
            _ => {
                stats.set(ClusterStat::MaglevLeast, extent.least);
                stats.set(ClusterStat::MaglevMost, extent.most);
            }
        }
    }
    let (new, old) = (set.subsets(), previous.subsets());
    if new.is_none() && old.is_none() {
        return;
    }
    let missing = |of: Option<&Subsets>, there| of.map_or(0, |of| of.missing_in(there)) as u64;
    let shard = Shard::default();
    stats.add(shard, ClusterStat::LbSubsetsCreated, missing(new, old));
    stats.add(shard, ClusterStat::LbSubsetsRemoved, missing(old, new));
    let count = new.map_or(0, Subsets::len) as u64;
    stats.set(ClusterStat::LbSubsetsActive, count);
    let duplicates = new.map_or(0, Subsets::duplicates);
    stats.set(ClusterStat::LbSubsetsDuplicate, duplicates);
}

fn detected(cause: Cause) -> Option<ClusterStat> {
    match cause {
        Cause::Consecutive5xx => Some(ClusterStat::OutlierDetected5xx),
        Cause::ConsecutiveGateway => Some(ClusterStat::OutlierDetectedGateway),
        Cause::ConsecutiveLocal => Some(ClusterStat::OutlierDetectedLocal),
        // The vocabulary has no counter for rates that were detected and not enforced.
        Cause::SuccessRate | Cause::FailurePercentage => None,
    }
}

fn enforced(cause: Cause) -> ClusterStat {
    match cause {
        Cause::Consecutive5xx => ClusterStat::OutlierEnforced5xx,
        Cause::ConsecutiveGateway => ClusterStat::OutlierEnforcedGateway,
        Cause::ConsecutiveLocal => ClusterStat::OutlierEnforcedLocal,
        Cause::SuccessRate => ClusterStat::OutlierEnforcedSuccessRate,
        Cause::FailurePercentage => ClusterStat::OutlierEnforcedFailurePercentage,
    }
}

// === impl Inner ===

impl Inner {
    /// Weighs hosts by what they reported, when that is due or they `changed`; as discovery says where
    /// that is not the policy. Whether anything is different then.
    fn weigh(
        &mut self,
        config: &Cluster,
        members: Arc<Members>,
        changed: bool,
        now: Option<Instant>,
    ) -> (Arc<Members>, bool) {
        let weighed = match config.weighed_by_reports() {
            None => {
                self.weights_due = None;
                members.as_discovered().filter(|_| changed)
            }
            Some(policy) => {
                let due = |now| self.weights_due.is_none_or(|due| due <= now);
                let is_due = now.is_some_and(due);
                if let Some(now) = now.filter(|_| is_due) {
                    self.weights_due = Some(now + policy.interval());
                }
                let now = now.or_else(|| changed.then(|| tokio::time::Instant::now().into_std()));
                let now = now.filter(|_| is_due || changed);
                now.and_then(|now| members.weighed(policy, now))
            }
        };
        match weighed {
            Some(weighed) => (Arc::new(weighed), true),
            None => (members, false),
        }
    }

    /// Watches exactly these hosts.
    fn follow(&mut self, config: &Cluster, hosts: &[Arc<Host>], old: &Members) {
        if let Some(ejector) = &mut self.ejector {
            ejector.follow(hosts);
        }
        self.checks.follow(config, hosts, old);
    }
}

// === impl Seen ===

impl Seen {
    fn since_start(&self, now: Instant) -> u64 {
        let start = *self.start.get_or_init(|| now);
        let nanos = now.saturating_duration_since(start).as_nanos();
        u64::try_from(nanos).unwrap_or(NEVER - 1)
    }

    fn due_of(&self, inner: &Inner, config: &Cluster, now: Option<Instant>) -> u64 {
        let ejections = inner.ejector.as_ref().map(Ejector::due);
        let weights = config.weighed_by_reports().map(|_| inner.weights_due);
        if ejections.is_none() && weights.is_none() {
            return NEVER;
        }
        if let Some(now) = now {
            self.start.get_or_init(|| now);
        }
        let all = [ejections, weights].into_iter().flatten();
        let all = all.map(|due| match due {
            // An interval takes at least a millisecond, so this is not AT_ONCE.
            Some(due) => self.since_start(due).max(1),
            None => AT_ONCE,
        });
        all.min().unwrap_or(NEVER)
    }
}

#[cfg(test)]
mod tests;
