//! The connections of one worker to one endpoint.

use super::connect::{Connected, Connector};
use super::fault;
use super::lane::{Lane, Protocol, Waiter};
use super::lease::{Lease, Meta, Sender, Shared};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mesh_core::model::{ClusterEntry, ClusterStats};
use mesh_core::stats::{Block, ClusterStat, Raised};
use mesh_core::usage::{Resource, Taken};
use mesh_core::{Error, Failure, Shard};
use mesh_lb::Host;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;
use tokio::sync::oneshot;

/// Flow control windows of upstream HTTP/2 connections. The connection's is larger than a
/// stream's, so that one slow stream cannot hold up the others.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// The connections of one worker to one endpoint.
pub(crate) struct Pool {
    connector: Connector,
    host: Arc<Host>,
    shard: Shard,
    stats: Counted,
    http1: Mutex<Lane>,
    http2: Mutex<Lane>,
}

/// A cluster's statistics, as something that a gauge can hold on to.
#[derive(Clone, Debug)]
pub(crate) struct Counted(ClusterStats);

/// Either a connection, or a place in the queue.
pub(super) enum Checkout {
    Ready(Lease),
    Wait(oneshot::Receiver<Result<Lease, Error>>),
}

// === impl Counted ===

impl AsRef<Block<ClusterStat>> for Counted {
    fn as_ref(&self) -> &Block<ClusterStat> {
        self.0.block()
    }
}

// === impl Pool ===

impl Pool {
    pub(super) fn new(
        connector: Connector,
        host: Arc<Host>,
        shard: Shard,
        entry: Arc<ClusterEntry>,
    ) -> Self {
        Self {
            connector,
            host,
            shard,
            stats: Counted(entry.live().stats().clone()),
            http1: Mutex::new(Lane::new(Protocol::Http1, entry.clone())),
            http2: Mutex::new(Lane::new(Protocol::Http2, entry)),
        }
    }

    fn lane(&self, protocol: Protocol) -> MutexGuard<'_, Lane> {
        let lane = match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
        };
        lane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, stat: ClusterStat) {
        self.stats.as_ref().inc(self.shard, stat);
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
        let usage = entry.live().usage();
        let Some(pending) = usage.take(Resource::Pending, entry.config().limits.max_pending) else {
            self.count(ClusterStat::RqPendingOverflow);
            return Err(Error::new(Failure::Overflow).unsent());
        };
        self.count(ClusterStat::RqPendingTotal);
        let raised = Raised::new(self.stats.clone(), self.shard, ClusterStat::RqPendingActive);
        let (to, from) = oneshot::channel();
        lane.waiting.push_back(Waiter {
            to,
            _pending: (pending, raised),
        });
        self.connect_if_wanted(&mut lane);
        Ok(Checkout::Wait(from))
    }

    fn connect_if_wanted(self: &Arc<Self>, lane: &mut Lane) {
        lane.waiting.retain(|waiter| !waiter.to.is_closed());
        while lane.wants_connection() {
            let usage = lane.entry.live().usage();
            let limit = lane.entry.config().limits.max_connections;
            let taken = match usage.take(Resource::Connections, limit) {
                Some(taken) => taken,
                None => {
                    self.count(ClusterStat::CxOverflow);
                    if lane.open > 0 {
                        return;
                    }
                    usage.take_anyway(Resource::Connections)
                }
            };
            lane.open += 1;
            lane.connecting += 1;
            // A task of its own: a caller that goes away must not end a connection attempt that
            // others wait for. It ends when the pool does, or when the connection is closed.
            let attempt = establish(
                Arc::downgrade(self),
                self.connector.clone(),
                self.host.clone(),
                lane.protocol,
                lane.entry.clone(),
                taken,
            );
            tokio::spawn(attempt);
        }
    }

    fn established(self: &Arc<Self>, protocol: Protocol, made: Made) {
        let now = self.now();
        let mut lane = self.lane(protocol);
        lane.connecting -= 1;
        match made {
            Made::Http1(sender, meta) => {
                lane.offer(
                    Lease::new(Sender::Http1(sender), meta, self.clone(), false),
                    now,
                );
            }
            Made::Http2(shared) => {
                lane.shared.push(shared);
                lane.serve_shared(self, now);
            }
        }
    }

    fn connect_failed(self: &Arc<Self>, protocol: Protocol, error: &Error) {
        let mut lane = self.lane(protocol);
        lane.connecting -= 1;
        lane.open -= 1;
        // Everyone who waits is told, as in Envoy: they decide what to do, and nobody is stuck
        // behind an endpoint that does not answer.
        for waiter in std::mem::take(&mut lane.waiting) {
            self.count(ClusterStat::RqPendingFailureEject);
            let copy = match error.cause() {
                Some(cause) => Error::with_source(error.failure(), cause),
                None => Error::new(error.failure()),
            };
            // A waiter that is gone needs no news.
            let _ = waiter.to.send(Err(copy.unsent()));
        }
    }

    /// A connection was closed by either side.
    fn closed(self: &Arc<Self>, protocol: Protocol) {
        let mut lane = self.lane(protocol);
        lane.open -= 1;
        lane.idle.retain(|idle| !idle.sender.is_closed());
        lane.shared.retain(|shared| !shared.sender.is_closed());
        self.connect_if_wanted(&mut lane);
    }

    /// An HTTP/1 connection is free again.
    pub(super) fn give_back(self: &Arc<Self>, lease: Lease) {
        let now = self.now();
        let mut lane = self.lane(Protocol::Http1);
        if lease.meta().is_worn_out(lane.entry.config(), now) {
            if lease.meta().has_served_all(lane.entry.config()) {
                self.count(ClusterStat::CxMaxRequests);
            }
            // Unlock first: what is dropped here closes the connection.
            drop(lane);
            drop(lease.into_idle(now));
            return;
        }
        lane.offer(lease, now);
    }

    /// A stream of a shared connection ended.
    pub(super) fn serve_shared(self: &Arc<Self>) {
        let now = self.now();
        let mut lane = self.lane(Protocol::Http2);
        lane.serve_shared(self, now);
    }

    /// Closes connections that were unused for too long.
    pub(super) fn sweep(&self, now: Instant) {
        let mut expired = Vec::new();
        let mut lane = self.lane(Protocol::Http1);
        let config = lane.entry.config().clone();
        lane.idle = std::mem::take(&mut lane.idle)
            .into_iter()
            .filter_map(|idle| {
                if idle.is_expired(&config, now) {
                    self.count(ClusterStat::CxIdleTimeout);
                    expired.push(idle);
                    return None;
                }
                Some(idle)
            })
            .collect();
        drop(lane);
        drop(expired);
        let mut lane = self.lane(Protocol::Http2);
        let config = lane.entry.config().clone();
        lane.shared.retain(|shared| {
            let idle = config.idle_timeout.is_some_and(|limit| {
                shared.in_flight.load(Ordering::Relaxed) == 0
                    && now.duration_since(shared.idle_since()) >= limit
            });
            if idle {
                self.count(ClusterStat::CxIdleTimeout);
            }
            !idle
        });
    }
}

enum Made {
    Http1(
        hyper::client::conn::http1::SendRequest<crate::Body>,
        Arc<Meta>,
    ),
    Http2(Arc<Shared>),
}

/// Makes one connection and drives it until it is closed.
async fn establish(
    pool: Weak<Pool>,
    connector: Connector,
    host: Arc<Host>,
    protocol: Protocol,
    entry: Arc<ClusterEntry>,
    taken: Taken,
) {
    let started = tokio::time::Instant::now();
    let limit = entry.config().connect_timeout;
    let connecting = connector.connect(host.address().clone(), entry.config().clone());
    let made = match tokio::time::timeout(limit, connecting).await {
        Ok(made) => made.map_err(|error| fault::connecting(&error)),
        Err(_) => Err(Error::new(Failure::ConnectTimeout).unsent()),
    };
    let Some(owner) = pool.upgrade() else { return };
    let connected = match made {
        Ok(connected) => connected,
        Err(error) => {
            owner.count(ClusterStat::CxConnectFail);
            host.connect_failed();
            if error.failure() == Failure::ConnectTimeout {
                owner.count(ClusterStat::CxConnectTimeout);
            }
            // The unit of the connection limit first, so that a waiter may use it.
            drop(taken);
            owner.connect_failed(protocol, &error);
            return;
        }
    };
    owner.count(ClusterStat::CxTotal);
    let millis = started.elapsed().as_secs_f64() * 1000.0;
    owner.stats.0.connect_time().record(owner.shard, millis);
    let meta = Arc::new(Meta {
        remote: connected.remote,
        local: connected.local,
        opened: started.into_std(),
        requests: AtomicU32::new(0),
        _taken: taken,
        _host: host.connected(),
        _active: Raised::new(owner.stats.clone(), owner.shard, ClusterStat::CxActive),
    });
    let driven = drive(&owner, connected, protocol, &entry, meta).await;
    let driver = match driven {
        Ok((made, driver)) => {
            owner.established(protocol, made);
            driver
        }
        Err(error) => {
            owner.connect_failed(protocol, &fault::sending(error, true));
            return;
        }
    };
    // From here on only the connection itself: the pool may go away.
    drop(owner);
    driver.await;
    if let Some(owner) = pool.upgrade() {
        owner.count(ClusterStat::CxDestroy);
        owner.closed(protocol);
    }
}

type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The HTTP handshake. The driver holds the connection's unit of the limit until it is closed.
async fn drive(
    pool: &Pool,
    connected: Connected,
    protocol: Protocol,
    entry: &ClusterEntry,
    meta: Arc<Meta>,
) -> Result<(Made, Driver), hyper::Error> {
    match protocol {
        Protocol::Http1 => {
            pool.count(ClusterStat::CxHttp1Total);
            let (sender, connection) = hyper::client::conn::http1::Builder::new()
                .handshake(connected.io)
                .await?;
            let held = meta.clone();
            let driver = Box::pin(async move {
                // How it ended is told to the request that was on it; an idle one just closes.
                let _ = connection.with_upgrades().await;
                drop(held);
            });
            Ok((Made::Http1(sender, meta), driver))
        }
        Protocol::Http2 => {
            pool.count(ClusterStat::CxHttp2Total);
            let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW);
            if let Some((interval, timeout)) = entry.config().http2_keepalive {
                builder
                    .keep_alive_interval(interval)
                    .keep_alive_timeout(timeout);
            }
            let (sender, mut connection) = builder.handshake(connected.io).await?;
            let most = Arc::new(AtomicUsize::new(100));
            let (held, publish) = (meta.clone(), most.clone());
            let driver = Box::pin(async move {
                // As above. The peer's limit on streams is only known in here.
                let _ = poll_fn(|cx| {
                    let done = Pin::new(&mut connection).poll(cx);
                    publish.store(connection.current_max_send_streams(), Ordering::Relaxed);
                    done
                })
                .await;
                drop(held);
            });
            let shared = Shared::new(sender, most, meta, pool.now());
            Ok((Made::Http2(Arc::new(shared)), driver))
        }
    }
}
