//! The connections of one pool that speak one protocol, and who waits for them.

use super::lease::{Idle, Lease, Sender, Shared};
use super::pool::Pool;
use mesh_core::Error;
use mesh_core::model::{Cluster, ClusterEntry};
use mesh_core::stats::ClusterStat;
use mesh_core::usage::Taken;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Streams that an HTTP/2 peer allows until its SETTINGS have arrived (RFC 9113 §6.5.2 recommends
/// that no peer allows fewer).
const ASSUMED_STREAMS: usize = 100;

/// What is spoken on the connections of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
    /// What each connection agrees on in TLS: HTTP/2 or HTTP/1.1.
    Alpn,
}

/// A request that waits for a connection. What it counts for is held at its other end, so that a
/// request which is given up stops counting at once.
pub(super) type Waiter = oneshot::Sender<Result<Lease, Error>>;

/// Nothing in here runs foreign code when it is dropped but wake-ups, so a lane may drop
/// connections while it is locked. A [`Lease`] that still has its connection must not be dropped
/// then: it would lock the lane again.
pub(super) struct Lane {
    pub(super) protocol: Protocol,
    /// The newest configuration that a request came with.
    pub(super) entry: Arc<ClusterEntry>,
    /// HTTP/1 connections with nothing to do, the one used last on top.
    pub(super) idle: Vec<Idle>,
    /// HTTP/2 connections.
    pub(super) shared: Vec<Arc<Shared>>,
    pub(super) waiting: VecDeque<Waiter>,
    /// Connections that are open or being made.
    pub(super) open: u32,
    /// Connections that are being made.
    pub(super) connecting: u32,
    /// What it counts for among the pools of its cluster, while it is in use.
    pub(super) unit: Option<Taken>,
    /// The last connection agreed on HTTP/1.1, so the next ones will hardly be shared.
    pub(super) got_http1: bool,
}

/// Why a connection takes no more requests.
pub(super) enum Spent {
    Closed,
    Idle,
    Requests,
    Age,
}

// === impl Lane ===

impl Lane {
    pub(super) fn new(protocol: Protocol, entry: Arc<ClusterEntry>) -> Self {
        Self {
            protocol,
            entry,
            idle: Vec::new(),
            shared: Vec::new(),
            waiting: VecDeque::new(),
            open: 0,
            connecting: 0,
            unit: None,
            got_http1: false,
        }
    }

    /// A connection that can take a request now.
    pub(super) fn ready(&mut self, pool: &Arc<Pool>, now: Instant) -> Option<Lease> {
        if self.protocol != Protocol::Http1 {
            self.retire(pool, now);
            let config = self.entry.config();
            if let Some(shared) = self.shared.iter().find(|shared| shared.has_room(config)) {
                return Some(shared.lease(pool.clone()));
            }
        }
        while let Some(idle) = self.idle.pop() {
            if let Some(spent) = idle.spent(self.entry.config(), now) {
                pool.count_spent(&spent);
                continue;
            }
            let sender = Sender::Http1(idle.sender);
            return Some(Lease::new(sender, idle.meta, pool.clone(), true));
        }
        None
    }

    /// Lets go of every connection that takes no more requests. A shared one stays open until its
    /// streams have ended.
    pub(super) fn retire(&mut self, pool: &Pool, now: Instant) {
        let config = self.entry.config();
        let keep = |spent: Option<Spent>| {
            if let Some(spent) = &spent {
                pool.count_spent(spent);
            }
            spent.is_none()
        };
        self.idle.retain(|idle| keep(idle.spent(config, now)));
        self.shared.retain(|shared| keep(shared.spent(config, now)));
    }

    /// Whether there are connections, or somebody waits for one.
    pub(super) fn is_in_use(&self) -> bool {
        self.open > 0 || !self.waiting.is_empty()
    }

    /// Nothing is left: it counts as a pool no more.
    pub(super) fn settle(&mut self) {
        if !self.is_in_use() {
            self.unit = None;
        }
    }

    /// Whether a request waits here or is under way, or a connection is being made.
    fn is_busy(&self) -> bool {
        let shared = self.shared.iter();
        let streams = shared.map(|one| one.in_flight.load(Ordering::Relaxed));
        let free = self.idle.len() + self.shared.len();
        let used = self.connecting > 0 || self.open as usize > free;
        used || !self.waiting.is_empty() || streams.sum::<u32>() > 0
    }

    /// Closes the connections of a pool that has nothing to do, so that it counts no more (Envoy
    /// `ConnPoolMap::freeOnePool`). Whether there was one.
    pub(super) fn free(&mut self) -> bool {
        if self.unit.is_none() || self.is_busy() {
            return false;
        }
        self.idle.clear();
        self.shared.clear();
        self.unit.take().is_some()
    }

    /// Streams to expect of a new HTTP/2 connection: what the peer said on the others.
    pub(super) fn expected_streams(&self) -> usize {
        let said = self.shared.iter().map(|shared| shared.peer_allows()).min();
        said.unwrap_or(ASSUMED_STREAMS).clamp(1, ASSUMED_STREAMS)
    }

    /// Whether another connection should be made for those who wait.
    pub(super) fn wants_connection(&self) -> bool {
        let each = match self.protocol {
            Protocol::Http1 => 1,
            Protocol::Alpn if self.got_http1 => 1,
            // Until an endpoint has been seen to speak HTTP/1.1 it is taken for one that shares,
            // as in Envoy (`HttpConnPoolImplMixed`).
            Protocol::Http2 | Protocol::Alpn => {
                let config = self.entry.config();
                let requests = match config.max_requests_per_connection {
                    0 => ASSUMED_STREAMS,
                    most => most as usize,
                };
                self.expected_streams()
                    .min(config.max_concurrent_streams as usize)
                    .min(requests)
                    .max(1)
            }
        };
        self.waiting.len() > self.connecting as usize * each
    }

    /// Hands a connection to whoever has waited longest, or keeps it.
    pub(super) fn offer(&mut self, mut lease: Lease, now: Instant) {
        while let Some(waiter) = self.waiting.pop_front() {
            match waiter.send(Ok(lease)) {
                Ok(()) => return,
                // That request was dropped in the meantime.
                Err(Ok(back)) => lease = back,
                Err(Err(_)) => return,
            }
        }
        if let Some(idle) = lease.into_idle(now) {
            self.idle.push(idle);
        }
    }

    /// Gives room on shared connections to those who wait.
    pub(super) fn serve_shared(&mut self, pool: &Arc<Pool>, now: Instant) {
        while !self.waiting.is_empty() {
            let Some(lease) = self.ready(pool, now) else {
                return;
            };
            self.offer(lease, now);
        }
    }
}

// === impl Spent ===

impl Spent {
    pub(super) fn stat(&self) -> Option<ClusterStat> {
        match self {
            Self::Idle => Some(ClusterStat::CxIdleTimeout),
            Self::Requests => Some(ClusterStat::CxMaxRequests),
            Self::Closed | Self::Age => None,
        }
    }
}

// === impl Idle ===

impl Idle {
    fn spent(&self, cluster: &Cluster, now: Instant) -> Option<Spent> {
        if self.sender.is_closed() {
            return Some(Spent::Closed);
        }
        let unused = now.saturating_duration_since(self.since);
        if over(unused, cluster.idle_timeout) {
            return Some(Spent::Idle);
        }
        // One that has served all its requests does not come here unless the limit was lowered.
        self.meta.is_worn_out(cluster, now).then_some(Spent::Age)
    }
}

// === impl Shared ===

impl Shared {
    fn spent(&self, cluster: &Cluster, now: Instant) -> Option<Spent> {
        if self.sender.is_closed() {
            return Some(Spent::Closed);
        }
        if self.meta.has_served_all(cluster) {
            return Some(Spent::Requests);
        }
        if self.meta.is_worn_out(cluster, now) {
            return Some(Spent::Age);
        }
        let unused = now.saturating_duration_since(self.idle_since());
        let is_free = self.in_flight.load(Ordering::Relaxed) == 0;
        (is_free && over(unused, cluster.idle_timeout)).then_some(Spent::Idle)
    }

    fn has_room(&self, cluster: &Cluster) -> bool {
        let most = self
            .peer_allows()
            .max(1)
            .min(cluster.max_concurrent_streams.max(1) as usize);
        (self.in_flight.load(Ordering::Relaxed) as usize) < most
    }
}

fn over(time: Duration, limit: Option<Duration>) -> bool {
    limit.is_some_and(|limit| time >= limit)
}
