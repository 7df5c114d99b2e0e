//! The connections of one pool that speak one protocol, and who waits for them.

use super::lease::{Idle, Lease, Sender, Shared};
use super::pool::Pool;
use mesh_core::model::{Cluster, ClusterEntry};
use mesh_core::usage::Taken;
use mesh_core::{Error, stats};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::oneshot;

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// A request that waits for a connection.
pub(super) struct Waiter {
    pub(super) to: oneshot::Sender<Result<Lease, Error>>,
    /// Its unit of the cluster's limit on pending requests, given back when it is served.
    pub(super) _pending: (
        Taken,
        stats::Raised<super::pool::Counted, stats::ClusterStat>,
    ),
}

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
        }
    }

    /// A connection that can take a request now.
    pub(super) fn ready(&mut self, pool: &Arc<Pool>, now: Instant) -> Option<Lease> {
        match self.protocol {
            Protocol::Http1 => {
                while let Some(idle) = self.idle.pop() {
                    if idle.sender.is_closed() {
                        continue;
                    }
                    if idle.is_expired(&self.entry.config().clone(), now) {
                        pool.count(stats::ClusterStat::CxIdleTimeout);
                        continue;
                    }
                    return Some(Lease::new(
                        Sender::Http1(idle.sender),
                        idle.meta,
                        pool.clone(),
                        true,
                    ));
                }
                None
            }
            Protocol::Http2 => {
                let config = self.entry.config();
                self.shared.retain(|shared| !shared.is_spent(config, now));
                let shared = self.shared.iter().find(|shared| shared.has_room(config))?;
                Some(shared.lease(pool.clone(), true))
            }
        }
    }

    /// Whether another connection should be made for those who wait.
    pub(super) fn wants_connection(&self) -> bool {
        let each = match self.protocol {
            Protocol::Http1 => 1,
            // What h2 assumes until the peer's SETTINGS arrive.
            Protocol::Http2 => (self.entry.config().max_concurrent_streams as usize).clamp(1, 100),
        };
        self.waiting.len() > self.connecting as usize * each
    }

    /// Hands a connection to whoever has waited longest, or keeps it.
    pub(super) fn offer(&mut self, mut lease: Lease, now: Instant) {
        while let Some(waiter) = self.waiting.pop_front() {
            match waiter.to.send(Ok(lease)) {
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

// === impl Idle ===

impl Idle {
    pub(super) fn is_expired(&self, cluster: &Cluster, now: Instant) -> bool {
        let idle = cluster
            .idle_timeout
            .is_some_and(|limit| now.duration_since(self.since) >= limit);
        idle || self.meta.is_worn_out(cluster, now)
    }
}

// === impl Shared ===

impl Shared {
    /// No request may start on it any more.
    fn is_spent(&self, cluster: &Cluster, now: Instant) -> bool {
        if self.sender.is_closed() || self.meta.is_worn_out(cluster, now) {
            return true;
        }
        let idle_for = now.duration_since(self.idle_since());
        self.in_flight.load(Ordering::Relaxed) == 0
            && cluster.idle_timeout.is_some_and(|limit| idle_for >= limit)
    }

    fn has_room(&self, cluster: &Cluster) -> bool {
        let peer = self.most.load(Ordering::Relaxed);
        let most = peer.min(cluster.max_concurrent_streams as usize);
        (self.in_flight.load(Ordering::Relaxed) as usize) < most
    }
}
