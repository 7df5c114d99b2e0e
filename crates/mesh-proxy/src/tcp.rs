//! Passing bytes on: one connection, read top to bottom: which cluster, an endpoint, then bytes
//! both ways until both have ended or time is up (Envoy's `tcp_proxy`).

mod buffers;
mod copy;
mod meter;
mod target;
mod upstream;

pub(crate) use buffers::Buffers;
pub(crate) use upstream::{Connect, Upstream};

use self::copy::{Copy, Side, Step};
use self::meter::Meter;
use crate::listener::TcpChain;
use crate::origin::Downstream;
use mesh_client::tcp::TcpUpstreams;
use mesh_core::model::{ClusterEntry, Snapshot};
use mesh_core::stats::TcpStat;
use mesh_core::{Caller, Error, Failure, Feed, Flags, HostId, Rng};
use mesh_telemetry::Telemetry;
use mesh_telemetry::tcp::REPORT_EVERY;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// What a worker passes bytes on with.
#[derive(Clone)]
pub(crate) struct Forwarder<C = TcpUpstreams> {
    pub(crate) feed: Feed<Snapshot>,
    pub(crate) upstreams: C,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) rng: Arc<Rng>,
    pub(crate) buffers: Buffers,
    /// How long connections may go on once they are to finish: nobody can tell the peers.
    pub(crate) drain_time: Duration,
}

/// Why bytes are passed on no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Both sides have said all.
    Whole,
    /// One side broke.
    Broken(Side),
    Idle,
    TooOld,
    Drained,
}

/// When nothing will happen, as far as anybody can tell.
const FAR: Duration = Duration::from_secs(86_400 * 365);

/// Passes a connection on until it ends.
pub(crate) async fn serve<IO: Downstream, C: Connect>(
    io: IO,
    chain: &TcpChain,
    caller: Caller,
    drain: watch::Receiver<bool>,
    forwarder: &Forwarder<C>,
) {
    let began = Instant::now();
    let meter = Meter::begin(chain, caller, &forwarder.telemetry);
    let limit = chain.proxy.max_duration.unwrap_or(FAR);
    let forwarding = forward(io, chain, &meter, drain, forwarder, began + limit);
    // While an endpoint is looked for, too.
    if tokio::time::timeout_at(began + limit, forwarding).await.is_err() {
        meter.count(TcpStat::MaxDuration);
        meter.flag(Flags::DT);
    }
    meter.end();
}
