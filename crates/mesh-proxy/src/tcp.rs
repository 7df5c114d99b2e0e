//! Passing bytes on: one connection, read top to bottom: which cluster, an endpoint, then bytes
//! both ways until both have ended or time is up (Envoy's `tcp_proxy`).

mod buffers;
mod copy;
mod meter;
mod on_demand;
mod splice;
mod target;
mod upstream;

pub(crate) use buffers::Buffers;
pub(crate) use upstream::{Connect, Fails, Upstream};

use self::copy::{Copy, Side, Step};
use self::meter::Meter;
use self::on_demand::Early;
use crate::listener::TcpChain;
use crate::origin::Downstream;
use mesh_client::tcp::TcpUpstreams;
use mesh_core::model::{ClusterEntry, ClustersOnDemand, Snapshot, TcpProxy};
use mesh_core::stats::TcpStat;
use mesh_core::{Caller, Demand, Error, Failure, Feed, Rng};
use mesh_telemetry::Telemetry;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// What a worker passes bytes on with.
#[derive(Clone)]
pub(crate) struct Forwarder<C = TcpUpstreams> {
    pub(crate) feed: Feed<Snapshot>,
    /// Gets clusters that are missing.
    pub(crate) demand: Option<Demand>,
    pub(crate) upstreams: C,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) rng: Arc<Rng>,
    pub(crate) buffers: Buffers,
    /// How long connections may go on once they are to finish: nobody can tell the peers.
    pub(crate) drain_time: Duration,
}

/// Passes a connection on until it ends.
pub(crate) async fn serve<IO: Downstream, C: Connect>(
    mut io: IO,
    chain: &TcpChain,
    caller: Caller,
    mut drain: watch::Receiver<bool>,
    forwarder: &Forwarder<C>,
) {
    let proxy = &chain.proxy;
    let too_old = proxy.max_duration.map(|limit| Instant::now() + limit);
    let mut meter = Meter::begin(chain, caller, &forwarder.telemetry);
    let word = forwarder.rng.word();
    let mut early = None;
    let cluster = target::choose(&proxy.target, meter.caller(), word);
    let found = cluster.and_then(|name| forwarder.feed.load().cluster(name).cloned());
    let found = match (found, cluster, forwarder.demand.as_ref(), proxy.on_demand) {
        (None, Some(name), Some(demand), ClustersOnDemand::Within(limit)) => {
            let name = name.clone();
            let heard = early.insert(Early::new(&forwarder.buffers));
            let came = tokio::select! {
                came = on_demand::wait(&name, limit, demand, &meter) => came,
                () = until(too_old) => return meter.too_old(),
                () = heard.gone(&mut io) => return,
                // Nothing has passed yet that could be finished.
                _ = drain.wait_for(|drain| *drain) => false,
            };
            let found = came.then(|| forwarder.feed.load().cluster(&name).cloned());
            found.flatten()
        }
        (found, ..) => found,
    };
    let Some(cluster) = found else {
        meter.no_route();
        return;
    };
    meter.goes_to(&cluster);
    let connecting = connect(&cluster, proxy, meter.caller(), &forwarder.upstreams);
    let connected = tokio::select! {
        connected = connecting => connected,
        () = until(too_old) => {
            meter.too_old();
            return;
        }
    };
    let upstream = match connected {
        Ok(upstream) => upstream,
        Err(error) => {
            meter.failed(&error);
            return;
        }
    };
    meter.connected(upstream.described());
    let mut fails = upstream.endpoint_fails();
    let mut copy = Copy::new(io, upstream, forwarder.buffers.clone());
    if let Some(early) = early {
        copy.begin_with(early);
    }
    let mut drained = None;
    loop {
        let idle = proxy.idle_timeout.map(|limit| meter.idle_since() + limit);
        let next = [idle, too_old, drained, meter.due()]
            .into_iter()
            .flatten()
            .min();
        tokio::select! {
            biased;
            step = poll_fn(|cx| copy.poll(cx, &mut meter)) => match step {
                Step::Passed => {}
                Step::Whole => return,
                // What was reset on one side must not look whole on the other, as far as that can
                // be told there.
                Step::Broken(Side::Downstream) => return copy.upstream.reset_when_closed(),
                Step::Broken(Side::Upstream) => {
                    meter.reset_by_endpoint();
                    return copy.downstream.reset_when_closed();
                }
            },
            // Both sides are closed, as they are (Envoy `onHostHealthFailure`).
            () = ready(&mut fails) => return,
            // The sender is gone only when the worker is: then finish as well.
            _ = drain.wait_for(|drain| *drain), if drained.is_none() => {
                drained = Some(Instant::now() + forwarder.drain_time);
            }
            () = until(next) => {
                let now = Instant::now();
                let is_up = |at: Option<Instant>| at.is_some_and(|at| at <= now);
                let idle = proxy.idle_timeout.map(|limit| meter.idle_since() + limit);
                if is_up(too_old) {
                    return meter.too_old();
                }
                if is_up(idle) {
                    return meter.count(TcpStat::IdleTimeout);
                }
                if is_up(drained) {
                    return;
                }
                if is_up(meter.due()) {
                    meter.report();
                }
            }
        }
    }
}

/// Notes a connection that a policy denies, and that is closed before it goes anywhere.
pub(crate) fn deny<C>(chain: &TcpChain, caller: Caller, policy: &str, forwarder: &Forwarder<C>) {
    Meter::begin(chain, caller, &forwarder.telemetry).denied(policy);
}

/// Notes a connection that a service which is asked denies, or cannot be asked about, and that is
/// closed before it goes anywhere.
pub(crate) fn refuse<C>(chain: &TcpChain, caller: Caller, error: &Error, forwarder: &Forwarder<C>) {
    Meter::begin(chain, caller, &forwarder.telemetry).refused(error);
}

/// Connects, with as many attempts as there may be.
async fn connect<C: Connect>(
    cluster: &Arc<ClusterEntry>,
    proxy: &TcpProxy,
    caller: &Caller,
    upstreams: &C,
) -> Result<C::Upstream, Error> {
    let mut tried = Vec::new();
    let peer = caller.peer.filter(|_| proxy.hash_source_ip);
    let hash = peer.map(|peer| mesh_route::hash::of_address(peer.ip()));
    let mut left = proxy.max_connect_attempts.max(1);
    loop {
        left -= 1;
        let tunnel = proxy.tunnel.as_ref();
        let connected = upstreams.connect(cluster, caller, hash, tunnel, &mut tried);
        match connected.await {
            Err(error) if left > 0 && is_worth_another(&error) => {}
            done => return done,
        }
    }
}

/// Only what an endpoint does may be different with another one.
fn is_worth_another(error: &Error) -> bool {
    matches!(
        error.failure(),
        Failure::ConnectFailed | Failure::ConnectTimeout
    )
}

async fn ready(fails: &mut Option<Fails>) {
    match fails {
        Some(fails) => fails.await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

// === impl Forwarder ===

impl<C> Forwarder<C> {
    pub(crate) fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }
}

#[cfg(test)]
mod tests;
