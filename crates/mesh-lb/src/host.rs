//! One endpoint of one cluster, and what the whole process knows about it.
//!
//! A [`Host`] is an endpoint as discovery describes it now, joined to the state that outlives the
//! description: requests under way, counts, ejection. A new weight, health or label makes a new
//! `Host` with the same [`HostId`] and the same state; another address makes another host.

use crate::health::Checked;
use crate::outlier::Monitor;
use crate::report::Reported;
use mesh_core::HostId;
use mesh_core::model::{Address, Endpoint, Health, Locality};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// An endpoint that may be chosen. Shared by all workers.
pub struct Host {
    id: HostId,
    endpoint: Arc<Endpoint>,
    priority: u32,
    locality: Arc<Locality>,
    /// Its share relative to others, at least 1: what discovery says, or what follows from its
    /// reports.
    weight: u32,
    /// Discovery does not name it any more.
    leaving: bool,
    state: Arc<State>,
}

/// What was counted for a host since it became known (the numbers of Envoy's `/clusters`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostCounts {
    /// Requests sent to it (`rq_total`).
    pub rq_total: u64,
    /// Answers other than 5xx (`rq_success`).
    pub rq_success: u64,
    /// 5xx answers and failures on our side (`rq_error`).
    pub rq_error: u64,
    /// Requests given up because of a timeout (`rq_timeout`).
    pub rq_timeout: u64,
    /// Connections made (`cx_total`).
    pub cx_total: u64,
    /// Connections open now (`cx_active`).
    pub cx_active: u32,
    /// Connections that could not be made (`cx_connect_fail`).
    pub cx_connect_fail: u64,
}

/// Tells whether a host was ejected, or failed its health checks, since this was made.
#[derive(Clone, Debug)]
pub struct Lapse {
    state: Arc<State>,
    before: u32,
}

/// A connection to a host that is there or being made, for as long as this is not dropped.
#[derive(Debug)]
pub struct HostSeat(Arc<State>);

/// Counts a connection to a host for as long as it is open.
#[derive(Debug)]
pub struct HostConnection(Arc<State>);

#[derive(Default)]
struct State {
    active: AtomicU32,
    ejected: AtomicBool,
    /// How often it was ejected or failed its checks.
    lapses: AtomicU32,
    /// [`Checked`] as bits.
    checked: AtomicU8,
    monitor: Monitor,
    /// What it says of its load, where it is asked.
    reported: Reported,
    /// When it was first seen healthy, where hosts are slow at first.
    healthy_since: OnceLock<Instant>,
    /// How much later a health check brought it back, in nanoseconds.
    healthy_again: AtomicU64,
    rq_total: AtomicU64,
    rq_success: AtomicU64,
    rq_error: AtomicU64,
    rq_timeout: AtomicU64,
    cx_total: AtomicU64,
    cx_active: AtomicU32,
    cx_connect_fail: AtomicU64,
    /// Connections that are there or being made.
    seats: AtomicU32,
}

/// How a request to a host ended, for its counts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    Success,
    Error,
    Timeout,
}

/// A name that nobody had before.
fn next() -> HostId {
    // The one process-wide word of this crate: ids only have to differ, also between clusters
    // and between meshes in one process, and nothing can be learned from them.
    static NEXT: AtomicU64 = AtomicU64::new(1);
    HostId(NEXT.fetch_add(1, Ordering::Relaxed))
}

// === impl Host ===

impl Host {
    /// A host that nobody knew before.
    pub(crate) fn new(endpoint: Arc<Endpoint>, priority: u32, locality: Arc<Locality>) -> Self {
        Self {
            id: next(),
            weight: endpoint.weight.max(1),
            endpoint,
            priority,
            locality,
            leaving: false,
            state: Arc::default(),
        }
    }

    /// The same host as discovery describes it now.
    pub(crate) fn described(
        self: &Arc<Self>,
        endpoint: &Arc<Endpoint>,
        priority: u32,
        locality: &Arc<Locality>,
    ) -> Arc<Self> {
        if self.endpoint == *endpoint
            && self.weight == endpoint.weight.max(1)
            && self.priority == priority
            && self.locality == *locality
            && !self.leaving
        {
            return self.clone();
        }
        // Connections of another kind must not be mixed with those that there are, which go by the
        // name.
        let id = match self.endpoint.transport == endpoint.transport {
            true => self.id,
            false => next(),
        };
        Arc::new(Self {
            id,
            endpoint: endpoint.clone(),
            priority,
            locality: locality.clone(),
            weight: endpoint.weight.max(1),
            leaving: false,
            state: self.state.clone(),
        })
    }

    /// The same host, which discovery does not name any more.
    pub(crate) fn left(self: &Arc<Self>) -> Arc<Self> {
        match self.leaving {
            true => self.clone(),
            false => self.changed(true, self.weight),
        }
    }

    /// The same host with this weight in place of what discovery says.
    pub(crate) fn weighing(self: &Arc<Self>, weight: u32) -> Arc<Self> {
        match self.weight == weight {
            true => self.clone(),
            false => self.changed(self.leaving, weight),
        }
    }

    fn changed(&self, leaving: bool, weight: u32) -> Arc<Self> {
        Arc::new(Self {
            id: self.id,
            endpoint: self.endpoint.clone(),
            priority: self.priority,
            locality: self.locality.clone(),
            weight,
            leaving,
            state: self.state.clone(),
        })
    }

    /// Its name for as long as its address belongs to the cluster, and it says the same of how
    /// connections to it are secured.
    pub fn id(&self) -> HostId {
        self.id
    }

    /// What discovery says about it.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Where to connect.
    pub fn address(&self) -> &Address {
        &self.endpoint.address
    }

    /// Its share of requests relative to others, at least 1: what discovery says, or in a cluster
    /// with [`reported_weights`](mesh_core::model::Cluster::reported_weights) what follows from its
    /// reports.
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// The priority that it belongs to; 0 is used first.
    pub fn priority(&self) -> u32 {
        self.priority
    }

    /// Where it is.
    pub fn locality(&self) -> &Locality {
        &self.locality
    }

    pub(crate) fn shared_locality(&self) -> &Arc<Locality> {
        &self.locality
    }

    /// Requests under way, over all workers, response bodies included.
    pub fn active(&self) -> u32 {
        self.state.active.load(Ordering::Relaxed)
    }

    /// Whether outlier detection has taken it out of balancing.
    pub fn is_ejected(&self) -> bool {
        self.state.ejected.load(Ordering::Relaxed)
    }

    /// What active health checks say of it.
    pub fn checked(&self) -> Checked {
        Checked::from_bits(self.state.checked.load(Ordering::Relaxed))
    }

    /// Whether discovery does not name it any more, and it stays until a health check fails
    /// ([`Cluster::keep_removed`](mesh_core::model::Cluster::keep_removed)).
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Its health for balancing: the worst of what discovery and active health checks say, unless
    /// it is ejected. Ejected hosts are unhealthy, so priorities and panic see them. One that
    /// drains keeps draining: nobody misses it, and it is used in panic, as in Envoy.
    pub fn health(&self) -> Health {
        let checked = self.checked();
        match self.endpoint.health {
            Health::Draining => Health::Draining,
            _ if self.is_ejected() || checked.failed => Health::Unhealthy,
            Health::Healthy if checked.degraded => Health::Degraded,
            health => health,
        }
    }

    /// Its health for who keeps a session at it: what makes it ill now comes before what discovery
    /// says of it (Envoy `Host::healthStatus`).
    pub(crate) fn told_health(&self) -> Health {
        match self.is_ejected() || self.checked().failed {
            true => Health::Unhealthy,
            false => self.health(),
        }
    }

    /// Whether active health checks of its cluster ask it.
    pub(crate) fn is_to_be_checked(&self) -> bool {
        let own = self.endpoint.check.as_ref();
        !own.is_some_and(|own| own.disabled)
    }

    /// True when that is news.
    pub(crate) fn set_checked(&self, checked: Checked) -> bool {
        let bits = checked.to_bits();
        let before = self.state.checked.swap(bits, Ordering::Relaxed);
        if checked.failed && !Checked::from_bits(before).failed {
            self.state.lapses.fetch_add(1, Ordering::Relaxed);
        }
        before != bits
    }

    /// From now on, tells of lapses of its health. Connections from before one are not to be used
    /// again (Envoy `ClusterManagerImpl::onHostHealthFailure`).
    pub fn lapse(&self) -> Lapse {
        Lapse {
            state: self.state.clone(),
            before: self.state.lapses.load(Ordering::Relaxed),
        }
    }

    /// What was counted so far.
    pub fn counts(&self) -> HostCounts {
        let state = &self.state;
        HostCounts {
            rq_total: state.rq_total.load(Ordering::Relaxed),
            rq_success: state.rq_success.load(Ordering::Relaxed),
            rq_error: state.rq_error.load(Ordering::Relaxed),
            rq_timeout: state.rq_timeout.load(Ordering::Relaxed),
            cx_total: state.cx_total.load(Ordering::Relaxed),
            cx_active: state.cx_active.load(Ordering::Relaxed),
            cx_connect_fail: state.cx_connect_fail.load(Ordering::Relaxed),
        }
    }

    /// Counts a connection that was made to this host until the returned value is dropped.
    pub fn connected(&self) -> HostConnection {
        self.state.cx_total.fetch_add(1, Ordering::Relaxed);
        self.state.cx_active.fetch_add(1, Ordering::Relaxed);
        HostConnection(self.state.clone())
    }

    /// Takes a place for a connection that is to be made, unless there are `limit` already.
    pub fn seat(&self, limit: u32) -> Option<HostSeat> {
        let seat = self.seat_anyway();
        // Added first: one atomic where there is room, as everywhere that counts.
        (self.state.seats.load(Ordering::Relaxed) <= limit).then_some(seat)
    }

    /// Takes a place whatever the limit.
    pub fn seat_anyway(&self) -> HostSeat {
        self.state.seats.fetch_add(1, Ordering::Relaxed);
        HostSeat(self.state.clone())
    }

    /// Counts a connection that could not be made.
    pub fn connect_failed(&self) {
        self.state.cx_connect_fail.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn reported(&self) -> &Reported {
        &self.state.reported
    }

    pub(crate) fn monitor(&self) -> &Monitor {
        &self.state.monitor
    }

    /// When it was first seen healthy by a cluster whose hosts are slow at first, or when a health
    /// check last brought it back since.
    pub(crate) fn healthy_since(&self) -> Option<Instant> {
        let first = self.state.healthy_since.get().copied()?;
        let later = self.state.healthy_again.load(Ordering::Relaxed);
        Some(first + Duration::from_nanos(later))
    }

    /// As [`Host::healthy_since`]; `now`, if it was not seen before.
    pub(crate) fn note_healthy(&self, now: Instant) -> Instant {
        self.state.healthy_since.get_or_init(|| now);
        self.healthy_since().unwrap_or(now)
    }

    /// A health check brought it back: where hosts are slow at first, it is new again.
    pub(crate) fn note_healthy_again(&self, now: Instant) {
        if let Some(first) = self.state.healthy_since.get() {
            let later = now.saturating_duration_since(*first).as_nanos();
            // Five hundred years are enough.
            let later = u64::try_from(later).unwrap_or(u64::MAX);
            self.state.healthy_again.store(later, Ordering::Relaxed);
        }
    }

    pub(crate) fn set_ejected(&self, ejected: bool) {
        let before = self.state.ejected.swap(ejected, Ordering::Relaxed);
        if ejected && !before {
            self.state.lapses.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a request for which there is a connection, and a connection that is one caller's
    /// own, which is to it what a request is to others.
    pub fn sending(&self) {
        self.state.rq_total.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody wants to send a request, or a connection of its own: it counts as under way from
    /// now on.
    pub(crate) fn request_begins(&self) {
        self.state.active.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn request_is_over(&self) {
        self.state.active.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn count(&self, ending: Ending) {
        let counter = match ending {
            Ending::Success => &self.state.rq_success,
            Ending::Error => &self.state.rq_error,
            Ending::Timeout => &self.state.rq_timeout,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("id", &self.id.0)
            .field("address", &format_args!("{}", self.address()))
            .field("health", &self.health())
            .field("active", &self.active())
            .finish_non_exhaustive()
    }
}

// === impl Lapse ===

impl Lapse {
    /// Whether there was one.
    #[inline]
    pub fn has_come(&self) -> bool {
        self.state.lapses.load(Ordering::Relaxed) != self.before
    }
}

// === impl HostSeat ===

impl Drop for HostSeat {
    fn drop(&mut self) {
        self.0.seats.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl HostConnection ===

impl Drop for HostConnection {
    fn drop(&mut self) {
        self.0.cx_active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("active", &self.active)
            .field("ejected", &self.ejected)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(weight: u32) -> Arc<Endpoint> {
        let mut endpoint = Endpoint::new(mesh_test::fixture::address("10.0.0.1:80"));
        endpoint.weight = weight;
        Arc::new(endpoint)
    }

    #[test]
    fn a_new_description_keeps_the_id_and_the_state() {
        let locality = Arc::default();
        let host = Arc::new(Host::new(endpoint(1), 0, Arc::clone(&locality)));
        host.request_begins();
        host.set_ejected(true);
        let heavier = host.described(&endpoint(7), 2, &locality);
        assert_eq!(
            (heavier.id(), heavier.active(), heavier.is_ejected()),
            (host.id(), 1, true)
        );
        assert_eq!((heavier.weight(), heavier.priority()), (7, 2));
        heavier.request_is_over();
        assert_eq!(host.active(), 0, "one state behind both descriptions");
        assert!(
            Arc::ptr_eq(&host, &host.described(&endpoint(1), 0, &locality)),
            "the same description is the same host"
        );
    }

    #[test]
    fn a_lapse_is_an_ejection_or_a_failed_check_and_no_recovery() {
        let host = Host::new(endpoint(1), 0, Arc::default());
        let (first, failed) = (
            host.lapse(),
            Checked {
                failed: true,
                ..Checked::default()
            },
        );
        assert!(!first.has_come());
        host.set_ejected(true);
        assert!(first.has_come());
        let second = host.lapse();
        host.set_ejected(false);
        host.set_checked(Checked::default());
        assert!(!second.has_come());
        host.set_checked(failed);
        assert!(second.has_come());
        let third = host.lapse();
        host.set_checked(failed);
        assert!(!third.has_come(), "it was ill before");
    }

    #[test]
    fn an_open_connection_is_counted_until_it_is_dropped() {
        let host = Host::new(endpoint(1), 0, Arc::default());
        let (first, second) = (host.connected(), host.connected());
        drop(first);
        host.connect_failed();
        let counts = host.counts();
        assert_eq!((counts.cx_total, counts.cx_active), (2, 1));
        assert_eq!(counts.cx_connect_fail, 1);
        drop(second);
        assert_eq!(host.counts().cx_active, 0);
    }

    #[test]
    fn an_ejected_host_is_unhealthy_and_a_draining_one_stays_draining() {
        let host = Host::new(endpoint(0), 0, Arc::default());
        assert_eq!(host.weight(), 1, "a weight of nothing counts as one");
        host.set_ejected(true);
        assert_eq!(host.health(), Health::Unhealthy);
        let mut leaving = Endpoint::new(mesh_test::fixture::address("10.0.0.1:80"));
        leaving.health = Health::Draining;
        let host = Host::new(Arc::new(leaving), 0, Arc::default());
        host.set_ejected(true);
        assert_eq!(host.health(), Health::Draining);
    }
}
