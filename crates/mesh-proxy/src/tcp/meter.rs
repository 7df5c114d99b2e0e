//! What is counted for a connection whose bytes are passed on: its statistics, its metrics and its
//! line in the access log.

use crate::listener::TcpChain;
use mesh_core::exchange::Upstream;
use mesh_core::model::ClusterEntry;
use mesh_core::stats::{Block, TcpStat};
use mesh_core::{Caller, Error, Failure, Flags, Shard};
use mesh_telemetry::Telemetry;
use mesh_telemetry::tcp::{Connection, REPORT_EVERY};
use std::sync::Arc;
use tokio::time::Instant;

/// Counts one connection. Dropped, it has ended.
pub(super) struct Meter {
    record: Connection,
    stats: Arc<Block<TcpStat>>,
    shard: Shard,
    /// When bytes were passed on last, or the connection was made.
    last: Instant,
    /// When the metrics are brought up to date, if there is something to say.
    due: Option<Instant>,
    news: bool,
    held: [usize; 2],
}

// === impl Meter ===

impl Meter {
    pub(super) fn begin(chain: &TcpChain, caller: Caller, telemetry: &Arc<Telemetry>) -> Self {
        let (began, shard) = (Instant::now(), caller.shard);
        chain.stats.inc(shard, TcpStat::CxTotal);
        Self {
            record: Connection::begin(telemetry.clone(), &chain.proxy, caller, began.into_std()),
            stats: chain.stats.clone(),
            shard,
            last: began,
            due: None,
            news: false,
            held: [0; 2],
        }
    }

    pub(super) fn caller(&self) -> &Caller {
        self.record.exchange().caller()
    }

    pub(super) fn count(&self, stat: TcpStat) {
        self.stats.inc(self.shard, stat);
    }

    pub(super) fn goes_to(&self, cluster: &Arc<ClusterEntry>) {
        self.record.cluster(cluster.clone());
    }

    /// There is an endpoint.
    pub(super) fn connected(&mut self, upstream: Upstream) {
        self.record.upstream(upstream);
        self.last = Instant::now();
        self.record.report();
    }

    /// There is none.
    pub(super) fn failed(&self, error: &Error) {
        self.record.fail(error.failure(), error.cause());
    }

    /// A policy denies it.
    pub(super) fn denied(&self, policy: &str) {
        let details = mesh_core::reply::denied(policy);
        let exchange = self.record.exchange();
        exchange.with_notes_mut(|notes| notes.termination = Some(details));
    }

    /// A service that is asked denies it, or could not be asked.
    pub(super) fn refused(&self, error: &Error) {
        let row = error.failure().row();
        let exchange = self.record.exchange();
        exchange.flag(row.flags);
        let details = row.details.to_owned();
        exchange.with_notes_mut(|notes| notes.termination = Some(details));
    }

    /// There is nowhere to go.
    pub(super) fn no_route(&self) {
        self.count(TcpStat::CxNoRoute);
        self.record.fail(Failure::NoCluster, None);
    }

    /// Bytes of the caller were passed on.
    pub(super) fn passed_up(&mut self, count: usize) {
        self.stats.add(self.shard, TcpStat::CxRxBytes, count as u64);
        self.record.received(count as u64);
        self.passed();
    }

    /// Bytes were passed on to the caller.
    pub(super) fn passed_down(&mut self, count: usize) {
        self.stats.add(self.shard, TcpStat::CxTxBytes, count as u64);
        self.record.sent(count as u64);
        self.passed();
    }

    fn passed(&mut self) {
        self.last = Instant::now();
        if self.due.is_none() {
            self.due = Some(self.last + REPORT_EVERY);
            self.news = true;
        }
    }

    /// How many bytes are held, of the caller and for it.
    pub(super) fn holds(&mut self, up: usize, down: usize) {
        let stats = [TcpStat::CxRxBytesBuffered, TcpStat::CxTxBytesBuffered];
        for ((held, now), stat) in self.held.iter_mut().zip([up, down]).zip(stats) {
            if *held != now {
                // Gauges wrap: adding what is missing to the full circle takes off.
                let change = (now as u64).wrapping_sub(*held as u64);
                self.stats.add(self.shard, stat, change);
                *held = now;
            }
        }
    }

    /// Whether a report has become due since this was asked last.
    pub(super) fn has_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn report(&mut self) {
        self.due = None;
        self.record.report();
    }

    /// Since when nothing was passed on.
    pub(super) fn idle_since(&self) -> Instant {
        self.last
    }

    /// The endpoint broke it.
    pub(super) fn reset_by_endpoint(&self) {
        self.record.exchange().flag(Flags::UR);
    }

    /// It has lived for as long as it may.
    pub(super) fn too_old(&self) {
        self.count(TcpStat::MaxDuration);
        self.record.exchange().flag(Flags::DT);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.holds(0, 0);
    }
}
