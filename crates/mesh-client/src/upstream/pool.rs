//! The connections of one worker to one endpoint.

use super::connect::Connector;
use super::counted::Counted;
use super::establish::{Attempt, Made, spawn};
use super::lane::{Lane, Protocol, Spent};
use super::lease::{Lease, Sender, Shared};
use super::seat::Seat;
use super::variant::Variant;
use mesh_core::model::{ClusterEntry, Limits, Priority};
use mesh_core::stats::{ClusterStat, Raised};
use mesh_core::usage::{Resource, Taken};
use mesh_core::{Error, Failure, Shard, Usage};
use mesh_lb::Host;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;
use tokio::sync::oneshot;

/// The connections of one worker to one endpoint that are alike.
pub(crate) struct Pool {
    pub(super) connector: Connector,
    pub(super) http1: mesh_http1::Client,
    pub(super) host: Arc<Host>,
    pub(super) counted: Counted,
    /// What the connections have in common besides the endpoint.
    pub(super) variant: Variant,
    lanes: [Mutex<Lane>; 3],
    /// Those that are not alike, each kind in a pool of its own.
    variants: Mutex<Variants>,
    /// The pool that this is a kind of, if it is one.
    root: Weak<Self>,
}

/// Pools by what is special about their connections.
#[derive(Default)]
struct Variants {
    pools: HashMap<Variant, Kept>,
    uses: u64,
}

struct Kept {
    pool: Arc<Pool>,
    used: u64,
}

/// How many kinds of connections to one endpoint a worker keeps. Callers can make up names and
/// come from many ports; beyond this, idle connections of the kind used least recently are closed.
const MOST_VARIANTS: usize = 1024;

/// Either a connection, or a place in the queue.
pub(super) enum Checkout {
    Ready(Lease),
    Wait(Place),
}

/// A place in the queue for a connection. It counts as a pending request until it is served or
/// dropped, and then as one that was given up.
pub(super) struct Place {
    from: oneshot::Receiver<Result<Lease, Error>>,
    served: bool,
    counted: Counted,
    _pending: (Taken, Raised<Counted, ClusterStat>),
}

// === impl Place ===

impl Place {
    /// Waits for a connection.
    pub(super) async fn served(mut self) -> Result<Lease, Error> {
        // A pool tells everyone who waits how it ended for them, so this is only for safety.
        let gone = |_| Err(Error::new(Failure::ConnectFailed).unsent());
        let served = (&mut self.from).await.unwrap_or_else(gone);
        self.served = true;
        served
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.served {
            self.counted.count(ClusterStat::RqCancelled);
        }
    }
}

// === impl Pool ===

impl Pool {
    pub(super) fn new(
        (connector, http1): (Connector, mesh_http1::Client),
        host: Arc<Host>,
        shard: Shard,
        entry: &Arc<ClusterEntry>,
    ) -> Self {
        let counted = Counted::new(entry.live().stats().clone(), shard);
        let codec = (connector, http1);
        Self::of_kind(codec, host, counted, Variant::default(), entry, Weak::new())
    }

    fn of_kind(
        (connector, http1): (Connector, mesh_http1::Client),
        host: Arc<Host>,
        counted: Counted,
        variant: Variant,
        entry: &Arc<ClusterEntry>,
        root: Weak<Self>,
    ) -> Self {
        let lane = |protocol| Mutex::new(Lane::new(protocol, entry.clone()));
        Self {
            connector,
            http1,
            host,
            counted,
            variant,
            lanes: [Protocol::Http1, Protocol::Http2, Protocol::Alpn].map(lane),
            variants: Mutex::default(),
            root,
        }
    }

    /// The pool for connections of this kind.
    pub(super) fn variant(
        self: &Arc<Self>,
        wanted: Variant,
        entry: &Arc<ClusterEntry>,
    ) -> Arc<Self> {
        if wanted == self.variant {
            return self.clone();
        }
        let mut variants = self.variants.lock().unwrap_or_else(PoisonError::into_inner);
        variants.uses += 1;
        let used = variants.uses;
        if let Some(kept) = variants.pools.get_mut(&wanted) {
            kept.used = used;
            return kept.pool.clone();
        }
        let forgotten = (variants.pools.len() >= MOST_VARIANTS).then(|| variants.forget());
        let pool = Arc::new(Self::of_kind(
            (self.connector.clone(), self.http1.clone()),
            self.host.clone(),
            self.counted.clone(),
            wanted.clone(),
            entry,
            Arc::downgrade(self),
        ));
        let kept = Kept {
            pool: pool.clone(),
            used,
        };
        variants.pools.insert(wanted, kept);
        drop(variants);
        drop(forgotten);
        pool
    }

    fn lane(&self, protocol: Protocol) -> MutexGuard<'_, Lane> {
        let lane = &self.lanes[protocol as usize];
        lane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, stat: ClusterStat) {
        self.counted.count(stat);
    }

    pub(super) fn count_spent(&self, spent: &Spent) {
        if let Some(stat) = spent.stat() {
            self.count(stat);
        }
    }

    pub(super) fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// A connection for one request, or a place in the queue for one.
    pub(super) fn checkout(
        self: &Arc<Self>,
        protocol: Protocol,
        entry: &Arc<ClusterEntry>,
        now: Instant,
    ) -> Result<Checkout, Error> {
        let mut lane = self.lane(protocol);
        if entry.revision() > lane.entry.revision() {
            lane.entry = entry.clone();
        }
        if let Some(lease) = lane.ready(self, now) {
            return Ok(Checkout::Ready(lease));
        }
        if lane.unit.is_none() {
            drop(lane);
            let unit = self.count_pool(entry)?;
            lane = self.lane(protocol);
            // Several threads may have a clone of one endpoint.
            lane.unit.get_or_insert(unit);
        }
        let (usage, limits) = self.limits(entry);
        let Some(pending) = usage.take(Resource::Pending, limits.max_pending) else {
            // A pool that has had no connection yet still counts, as in Envoy: only a connection that
            // ends makes one idle.
            self.count(ClusterStat::RqPendingOverflow);
            return Err(Error::new(Failure::Overflow).unsent());
        };
        self.count(ClusterStat::RqPendingTotal);
        let raised = self.counted.raise(ClusterStat::RqPendingActive);
        let (to, from) = oneshot::channel();
        lane.waiting.push_back(to);
        let attempts = self.attempts(&mut lane);
        drop(lane);
        spawn(attempts);
        Ok(Checkout::Wait(Place {
            from,
            served: false,
            counted: self.counted.clone(),
            _pending: (pending, raised),
        }))
    }

    /// What is in use of the limits that hold here, and the limits.
    fn limits<'a>(&self, entry: &'a ClusterEntry) -> (&'a Arc<Usage>, &'a Limits) {
        let priority = self.variant.priority;
        let limits = entry.config().limits_of(priority);
        (entry.live().usage_of(priority), limits)
    }

    /// Takes a place among the pools. Where there is none, one to the same endpoint that has
    /// nothing to do gives up its own; without any, nobody is there to go to, as in Envoy
    /// (`ConnPoolMap::getPool`, `Filter::sendNoHealthyUpstreamResponse`).
    fn count_pool(self: &Arc<Self>, entry: &ClusterEntry) -> Result<Taken, Error> {
        let (usage, limits) = self.limits(entry);
        let take = || usage.take(Resource::Pools, limits.max_pools);
        if let Some(unit) = take() {
            return Ok(unit);
        }
        let root = self.root.upgrade().unwrap_or_else(|| self.clone());
        if root.free_one(self.variant.priority)
            && let Some(unit) = take()
        {
            return Ok(unit);
        }
        self.count(ClusterStat::CxPoolOverflow);
        Err(Error::new(Failure::NoHealthyHost).unsent())
    }

    /// Closes one pool to this endpoint that has nothing to do.
    fn free_one(&self, priority: Priority) -> bool {
        let own = self.variant.priority == priority
            && self.lanes.iter().any(|lane| {
                let mut lane = lane.lock().unwrap_or_else(PoisonError::into_inner);
                lane.free()
            });
        let variants = self.variants.lock().unwrap_or_else(PoisonError::into_inner);
        own || variants
            .pools
            .values()
            .any(|kept| kept.pool.free_one(priority))
    }

    /// Takes a place among the requests under way, for one that has a connection: as in Envoy
    /// those that wait for one count apart (`ConnPoolImplBase::attachStreamToClient`).
    pub(super) fn admit(&self, entry: &ClusterEntry) -> Result<Taken, Error> {
        let (usage, limits) = self.limits(entry);
        let unit = usage.take(Resource::Requests, limits.max_requests);
        unit.ok_or_else(|| {
            self.count(ClusterStat::RqActiveOverflow);
            Error::new(Failure::Overflow).unsent()
        })
    }

    /// The attempts to connect that those who wait need. To be spawned once the lane is unlocked:
    /// a runtime that is shutting down drops a task at once, and an attempt that is dropped locks
    /// the lane.
    #[must_use]
    fn attempts(self: &Arc<Self>, lane: &mut Lane) -> Vec<Attempt> {
        lane.waiting.retain(|waiter| !waiter.is_closed());
        let mut attempts = Vec::new();
        while lane.wants_connection() {
            let (usage, limits) = self.limits(&lane.entry);
            let seat = match Seat::take(&self.host, usage, limits) {
                Some(seat) => seat,
                None => {
                    self.count(ClusterStat::CxOverflow);
                    if lane.open > 0 {
                        break;
                    }
                    Seat::take_anyway(&self.host, usage)
                }
            };
            lane.open += 1;
            lane.connecting += 1;
            attempts.push(Attempt::new(self, lane, seat));
        }
        attempts
    }

    pub(super) fn established(self: &Arc<Self>, protocol: Protocol, made: Made) {
        let now = self.now();
        let mut lane = self.lane(protocol);
        lane.connecting -= 1;
        match made {
            Made::Http1(sender, meta) => {
                lane.got_http1 = true;
                let lease = Lease::new(Sender::Http1(sender), meta, self.clone(), false);
                lane.offer(lease, now);
            }
            Made::Http2(shared) => {
                lane.got_http1 = false;
                lane.shared.push(shared);
                lane.serve_shared(self, now);
            }
        }
        // The connection may have room for fewer than were waiting for it.
        let attempts = self.attempts(&mut lane);
        drop(lane);
        spawn(attempts);
    }

    /// A connection could not be made.
    pub(super) fn connect_failed(&self, protocol: Protocol, error: &Error) {
        let mut lane = self.lane(protocol);
        lane.connecting -= 1;
        lane.open -= 1;
        self.tell(lane, error);
    }

    /// The task that drove an open connection was dropped: its runtime is gone. A new attempt
    /// would be dropped too, so whoever waits is told.
    pub(super) fn abandoned(&self, protocol: Protocol, error: &Error) {
        let mut lane = self.lane(protocol);
        lane.open -= 1;
        self.tell(lane, error);
    }

    /// Tells everyone who waits, as Envoy does: they decide what to do, and nobody is stuck behind
    /// an endpoint that does not answer.
    fn tell(&self, mut lane: MutexGuard<'_, Lane>, error: &Error) {
        let waiting = std::mem::take(&mut lane.waiting);
        lane.settle();
        drop(lane);
        for waiter in waiting.into_iter().filter(|waiter| !waiter.is_closed()) {
            self.count(ClusterStat::RqPendingFailureEject);
            let copy = match error.cause() {
                Some(cause) => Error::with_source(error.failure(), cause),
                None => Error::new(error.failure()),
            };
            // A waiter that is gone needs no news.
            let _ = waiter.send(Err(copy.unsent()));
        }
    }

    /// A connection was closed by either side, or belongs to an upgraded exchange now.
    pub(super) fn closed(self: &Arc<Self>, protocol: Protocol) {
        let now = self.now();
        let mut lane = self.lane(protocol);
        lane.open -= 1;
        lane.retire(self, now);
        let attempts = self.attempts(&mut lane);
        lane.settle();
        drop(lane);
        spawn(attempts);
    }

    /// An HTTP/1 connection is free again.
    pub(super) fn give_back(self: &Arc<Self>, lease: Lease) {
        let now = self.now();
        let mut lane = self.lane(lease.meta().lane);
        let worn_out = lease.meta().is_worn_out(lane.entry.config(), now);
        if worn_out || lease.is_closed() {
            if lease.meta().has_served_all(lane.entry.config()) {
                self.count(ClusterStat::CxMaxRequests);
            }
            // What is dropped here closes the connection, and its task makes room for the next.
            drop(lane);
            drop(lease.into_idle(now));
            return;
        }
        lane.offer(lease, now);
    }

    /// A stream of a shared connection ended.
    pub(super) fn stream_ended(self: &Arc<Self>, shared: &Shared) {
        let now = self.now();
        let mut lane = self.lane(shared.meta.lane);
        shared.release(now);
        lane.serve_shared(self, now);
    }

    /// Closes connections that were unused for too long, and forgets kinds that have none left.
    pub(super) fn sweep(&self, now: Instant) {
        for lane in &self.lanes {
            let mut lane = lane.lock().unwrap_or_else(PoisonError::into_inner);
            lane.retire(self, now);
        }
        let mut variants = self.variants.lock().unwrap_or_else(PoisonError::into_inner);
        variants.pools.retain(|_, kept| {
            kept.pool.sweep(now);
            kept.pool.is_in_use() || Arc::strong_count(&kept.pool) > 1
        });
    }

    #[cfg(test)]
    pub(super) fn kinds(&self) -> usize {
        self.variants.lock().unwrap().pools.len()
    }

    /// Whether there are connections, or somebody waits for one.
    fn is_in_use(&self) -> bool {
        self.lanes.iter().any(|lane| {
            let lane = lane.lock().unwrap_or_else(PoisonError::into_inner);
            lane.is_in_use()
        })
    }
}

// === impl Variants ===

impl Variants {
    /// Only new kinds come here and the bound is small, so looking at all of them will do.
    fn forget(&mut self) -> Option<Kept> {
        let oldest = self.pools.iter().min_by_key(|(_, kept)| kept.used);
        let oldest = oldest.map(|(variant, _)| variant.clone())?;
        self.pools.remove(&oldest)
    }
}
