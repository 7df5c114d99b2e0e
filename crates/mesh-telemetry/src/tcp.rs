//! What is told of connections that are passed on as they are.
//!
//! A [`Connection`] is made when such a connection begins and told what happens to it. When it is
//! dropped, its line goes to the access logs, and Istio's TCP metrics have all of it.
//!
//! ```
//! use mesh_core::Caller;
//! use mesh_core::model::{TcpProxy, WorkloadRef};
//! use mesh_telemetry::{Telemetry, tcp::Connection};
//! use std::{sync::Arc, time::Instant};
//!
//! let telemetry = Arc::new(Telemetry::new(WorkloadRef::default()));
//! let proxy = Arc::new(TcpProxy::to("mongo", "outbound|27017||mongo"));
//! let connection = Connection::begin(telemetry, &proxy, Caller::default(), Instant::now());
//! connection.received(140);
//! connection.sent(309);
//! connection.end(Instant::now());
//! ```

use crate::Telemetry;
use crate::access_log::Entry;
use crate::istio::{Outcome, Reporter, Seen, Spoken, TcpCount};
use crate::telemetry::Listener;
use mesh_core::exchange::Upstream;
use mesh_core::model::{AccessLog, ClusterEntry, TcpProxy, WorkloadRef};
use mesh_core::{Caller, Exchange, Failure, Flags};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often a connection that goes on should be [reported](Connection::report): Istio's
/// `tcpReportingDuration`.
pub const REPORT_EVERY: Duration = Duration::from_secs(5);

/// One connection that is passed on as it is.
#[derive(Debug)]
pub struct Connection {
    telemetry: Arc<Telemetry>,
    listener: Arc<Listener>,
    exchange: Exchange,
    entry: Entry,
    opened: AtomicBool,
    /// Bytes that the metrics have already.
    received: AtomicU64,
    sent: AtomicU64,
}

/// Writes the line of a connection that no filter chain was found for, to the listener's own
/// access logs.
pub fn refuse(telemetry: &Telemetry, logs: &[AccessLog], caller: Caller, began: Instant) {
    let failure = Failure::NoFilterChain;
    let exchange = Exchange::new(began, caller);
    exchange.flag(failure.row().flags);
    exchange.set_details(failure.row().details);
    let mut entry = Entry::new();
    entry.begin(telemetry.clock.now());
    entry.end(began);
    let mut worker = telemetry.worker(exchange.shard());
    let logs = telemetry.logs(logs);
    let (shard, line) = (exchange.shard(), &mut worker.line);
    logs.write(&exchange, &entry, &telemetry.hostname, shard, line);
}

// === impl Connection ===

impl Connection {
    /// A connection that began at `now`.
    pub fn begin(
        telemetry: Arc<Telemetry>,
        proxy: &Arc<TcpProxy>,
        caller: Caller,
        now: Instant,
    ) -> Self {
        let listener = {
            let mut worker = telemetry.worker(caller.shard);
            worker.proxy(proxy, &telemetry)
        };
        let mut entry = Entry::new();
        entry.begin(telemetry.clock.now());
        Self {
            telemetry,
            listener,
            exchange: Exchange::new(now, caller),
            entry,
            opened: AtomicBool::new(false),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        }
    }

    /// Who called, and what is learned of the connection.
    pub fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// The cluster that it goes to.
    pub fn cluster(&self, cluster: Arc<ClusterEntry>) {
        self.exchange.set_cluster(cluster);
    }

    /// The endpoint that it goes to.
    pub fn upstream(&self, upstream: Upstream) {
        self.exchange.set_upstream(upstream);
    }

    /// Counts bytes that came from the caller.
    pub fn received(&self, bytes: u64) {
        self.exchange.count_received(bytes);
    }

    /// Counts bytes that went to the caller.
    pub fn sent(&self, bytes: u64) {
        self.exchange.count_sent(bytes);
    }

    /// It could not be passed on. `reason` is why the transport failed.
    pub fn fail(&self, failure: Failure, reason: Option<String>) {
        self.exchange.flag(failure.row().flags);
        if matches!(failure, Failure::ConnectFailed | Failure::ConnectTimeout) {
            // No more endpoints are tried.
            self.exchange.flag(Flags::URX);
        }
        self.exchange.with_notes_mut(|notes| {
            notes.failure = Some(failure);
            notes.transport_failure = reason;
        });
    }

    /// Brings the metrics up to date: that it was opened, and the bytes since the last report.
    pub fn report(&self) {
        self.count(false);
    }

    fn count(&self, ends: bool) {
        let exchange = &self.exchange;
        let series = exchange.with_notes(|notes| {
            let endpoint = match self.listener.reporter {
                Reporter::Source => notes.upstream.as_ref(),
                Reporter::Destination => None,
            };
            let shown = exchange
                .caller()
                .tls
                .as_ref()
                .and_then(|tls| tls.peer.as_ref());
            let seen = Seen {
                reporter: self.listener.reporter,
                node: &self.telemetry.node,
                cluster: exchange.cluster().map(|cluster| cluster.config()),
                peer: None,
                endpoint: None,
                outcome: Outcome {
                    code: 0,
                    flags: exchange.flags(),
                    spoken: Spoken::Tcp,
                    grpc_status: None,
                    tls: match self.listener.reporter {
                        Reporter::Source => exchange.caller().is_secure(),
                        Reporter::Destination => shown.is_some(),
                    },
                },
            };
            let workload = endpoint.map(|upstream| &upstream.endpoint.workload);
            let principal = shown.and_then(|peer| peer.uris.first());
            let caller = match (self.listener.reporter, principal) {
                (Reporter::Destination, Some(principal)) => {
                    let mut caller = WorkloadRef::default();
                    caller.principal = principal.clone();
                    Some(Arc::new(caller))
                }
                _ => None,
            };
            let labels = seen.labels(caller.as_ref(), workload);
            let registry = &self.telemetry.connections;
            registry.series(&labels, self.listener.reporter)
        });
        let shard = exchange.shard();
        if !self.opened.swap(true, Ordering::Relaxed) {
            series.inc(shard, TcpCount::Opened);
        }
        for (stat, counted, total) in [
            (TcpCount::Received, &self.received, exchange.received()),
            (TcpCount::Sent, &self.sent, exchange.sent()),
        ] {
            let before = counted.swap(total, Ordering::Relaxed);
            series.add(shard, stat, total.saturating_sub(before));
        }
        if ends {
            series.inc(shard, TcpCount::Closed);
        }
    }

    /// It ended at `now`.
    pub fn end(mut self, now: Instant) {
        self.entry.end(now);
    }
}

impl Drop for Connection {
    /// However it ended: its line and its last numbers.
    fn drop(&mut self) {
        self.count(true);
        let exchange = &self.exchange;
        let mut worker = self.telemetry.worker(exchange.shard());
        let (shard, line) = (exchange.shard(), &mut worker.line);
        let (logs, hostname) = (&self.listener.logs, &self.telemetry.hostname);
        logs.write(exchange, &self.entry, hostname, shard, line);
    }
}

#[cfg(test)]
mod tests;
