//! Connections to endpoints for bytes that nobody looks into.
//!
//! [`TcpUpstreams`] chooses a host of a cluster as HTTP does (balancing, original destination, the
//! TLS server name), connects, tells the endpoint who calls (PROXY protocol), starts TLS, and gives
//! back a [`TcpUpstream`]: one caller's alone, never pooled. Limits, ejections and statistics are
//! the cluster's and shared with HTTP. [`TcpUpstreams::tunnel`] asks an HTTP proxy to connect
//! instead.
//!
//! Nobody looks after time here but the cluster's `connect_timeout`: idle limits and lifetimes
//! belong to whoever copies the bytes.
//!
//! ```
//! use mesh_client::{Upstreams, tcp::TcpUpstreams};
//! use mesh_core::model::{Address, Cluster, EndpointSet, SnapshotBuilder};
//! use mesh_core::{Caller, Shard};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let mut builder = SnapshotBuilder::new();
//! builder.cluster(Cluster::new("db"));
//! builder.endpoints("db", EndpointSet::of([Address::from(listener.local_addr()?)]));
//! let (snapshot, _) = builder.build()?;
//!
//! let tcp = TcpUpstreams::new(Upstreams::new(Shard::default()));
//! let mut tried = Vec::new();
//! let db = &snapshot.clusters()[0];
//! let mut upstream = tcp.connect(db, &Caller::default(), None, &mut tried).await?;
//! let (mut server, _) = listener.accept().await?;
//!
//! upstream.write_all(b"ping").await?;
//! upstream.shutdown().await?;
//! let mut seen = String::new();
//! server.read_to_string(&mut seen).await?;
//! assert_eq!(seen, "ping");
//! // The other half is still open.
//! server.write_all(b"pong").await?;
//! drop(server);
//! seen.clear();
//! upstream.read_to_string(&mut seen).await?;
//! assert_eq!(seen, "pong");
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod stream;
#[cfg(test)]
mod tests;
mod tunnel;

pub use stream::TcpUpstream;
pub(crate) use tunnel::Tunnelled;

use crate::Upstreams;
use crate::upstream::Units;
use crate::upstream::connect::Dial;
use crate::upstream::counted::Counted;
use crate::upstream::seat::Seat;
use crate::upstream::secure::Offer;
use crate::upstream::transport::Io;
use crate::upstream::variant::Variant;
use mesh_core::model::{ClusterEntry, Snapshot, Tunnel};
use mesh_core::stats::ClusterStat;
use mesh_core::usage::{Resource, Taken};
use mesh_core::{Caller, Error, Failure, HostId, Rng};
use mesh_lb::{Chooser, ClusterHosts, Host, MakeEndpoint, Zone};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;
use stream::{Ends, Inner, Watch};

/// One worker's connections for bytes. Clones share their state.
///
/// Call [`TcpUpstreams::adopt`] on every change of configuration, so that clusters which are gone
/// are let go of.
#[derive(Clone)]
pub struct TcpUpstreams {
    upstreams: Upstreams,
    direct: Chooser<Nothing>,
    tunnels: Chooser<Upstreams>,
}

/// A connection is made for each caller, so nothing is kept for a host.
#[derive(Clone, Copy, Debug)]
struct Nothing;

// === impl Nothing ===

impl MakeEndpoint for Nothing {
    type Service = ();

    fn make(&self, _: &Arc<Host>, _: &Arc<ClusterEntry>) {}
}

// === impl TcpUpstreams ===

impl TcpUpstreams {
    /// Connections made as `upstreams` makes them, by the same worker.
    pub fn new(upstreams: Upstreams) -> Self {
        Self {
            direct: Chooser::new(Nothing),
            tunnels: Chooser::new(upstreams.clone()),
            upstreams,
        }
    }

    /// Draws from `rng` instead of one that the system seeds.
    #[must_use]
    pub fn rng(mut self, rng: Arc<Rng>) -> Self {
        self.direct = self.direct.rng(rng.clone());
        self.tunnels = self.tunnels.rng(rng);
        self
    }

    /// Says where the node is, for clusters whose localities are told apart.
    #[must_use]
    pub fn zone(mut self, zone: Arc<Zone>) -> Self {
        self.direct = self.direct.zone(zone.clone());
        self.tunnels = self.tunnels.zone(zone);
        self
    }

    /// Drops what belongs to clusters and hosts that are not in `snapshot` any more. Connections
    /// that are open stay open.
    pub fn adopt(&self, snapshot: &Snapshot) {
        self.direct.adopt(snapshot);
        self.tunnels.adopt(snapshot);
    }

    /// Connects to a host of `cluster`, rather not one of those `tried` before; the one that is
    /// chosen now is added to them. One call is one attempt (Envoy `max_connect_attempts`).
    /// Balancers that hash go by `hash`.
    ///
    /// # Errors
    /// * [`Failure::NoHealthyHost`]: no host may be used, or none is named;
    /// * [`Failure::Overflow`]: the cluster's limit on connections, pending requests or requests
    ///   is met. As in Envoy it is met strictly, because a connection for bytes is never shared;
    /// * [`Failure::ConnectFailed`], [`Failure::ConnectTimeout`]: with the reason as cause.
    ///
    /// # Cancel safety
    /// A future that is dropped gives the attempt up, and outlier detection blames nobody.
    pub async fn connect(
        &self,
        cluster: &Arc<ClusterEntry>,
        caller: &Caller,
        hash: Option<u64>,
        tried: &mut Vec<HostId>,
    ) -> Result<TcpUpstream, Error> {
        let chosen = self.direct.choose(cluster, caller, hash, tried)?;
        tried.push(chosen.host().id());
        let counted = self.counted(cluster);
        let (usage, limits) = (cluster.live().usage(), &cluster.config().limits);
        let Some(connection) = Seat::take(chosen.host(), usage, limits) else {
            counted.count(ClusterStat::CxOverflow);
            return Err(Error::new(Failure::Overflow).unsent());
        };
        let request = self.take(cluster, Resource::Requests, ClusterStat::RqPendingOverflow)?;
        let pending = self.take(cluster, Resource::Pending, ClusterStat::RqPendingOverflow)?;
        counted.count(ClusterStat::RqPendingTotal);
        let raised = counted.raise(ClusterStat::RqPendingActive);

        let host = chosen.host().clone();
        let dial = Dial {
            connector: self.upstreams.connector().clone(),
            host: host.clone(),
            entry: cluster.clone(),
            variant: Variant::of_caller(cluster.config(), caller),
            offer: Offer::Own,
            counted: counted.clone(),
        };
        let started = now();
        let made = dial.dial().await;
        drop((pending, raised));
        let connected = match made {
            Ok(connected) => connected,
            Err(error) => {
                counted.count(ClusterStat::RqPendingFailureEject);
                chosen.failed(error.failure(), now());
                return Err(error);
            }
        };
        let took = now().saturating_duration_since(started);
        let watch = cluster.config().close_unhealthy.then(|| {
            Box::new(Watch {
                lapse: host.lapse(),
                sets: ClusterHosts::of(cluster).sets(),
            })
        });
        let units = Units::new(&counted, &host, connection, took);
        let engaged = chosen.connected(now());
        let ends = Ends {
            endpoint: host.endpoint().clone(),
            remote: connected.remote,
            local: connected.local,
            tls: connected.tls,
        };
        let io = Io::new(connected.stream, units);
        let inner = Inner::Direct(io, engaged);
        let upstream = TcpUpstream::new(inner, ends, counted, Some(request));
        Ok(upstream.watching(watch))
    }

    /// Asks an HTTP proxy, a host of `cluster`, to connect to where `tunnel` says (Envoy
    /// `TunnelingConfig`), over HTTP/1.1 or HTTP/2 as the cluster has it. The hosts that are
    /// chosen now are added to `tried`.
    ///
    /// With CONNECT any 2xx opens the tunnel over HTTP/1.1 and 200 over HTTP/2; with POST it is
    /// 200. How long the proxy may take to answer is up to the caller, who drops the future.
    ///
    /// # Errors
    /// As [`TcpUpstreams::connect`]; another answer is [`Failure::ConnectFailed`].
    ///
    /// # Cancel safety
    /// A future that is dropped gives the attempt up.
    pub async fn tunnel(
        &self,
        cluster: &Arc<ClusterEntry>,
        caller: &Caller,
        hash: Option<u64>,
        tunnel: &Tunnel,
        tried: &mut Vec<HostId>,
    ) -> Result<TcpUpstream, Error> {
        let counted = self.counted(cluster);
        let opened = tunnel::open(&self.tunnels, cluster, (caller, hash), tunnel, tried).await?;
        let (inner, ends) = opened;
        // The pool that it came from keeps the limit on requests.
        Ok(TcpUpstream::new(inner, ends, counted, None))
    }

    fn counted(&self, cluster: &ClusterEntry) -> Counted {
        Counted::new(cluster.live().stats().clone(), self.upstreams.shard())
    }

    fn take(
        &self,
        cluster: &ClusterEntry,
        resource: Resource,
        stat: ClusterStat,
    ) -> Result<Taken, Error> {
        let limits = &cluster.config().limits;
        let limit = match resource {
            Resource::Connections => limits.max_connections,
            Resource::Pending => limits.max_pending,
            Resource::Requests => limits.max_requests,
            Resource::Retries => limits.max_retries,
            Resource::Pools => limits.max_pools,
        };
        cluster.live().usage().take(resource, limit).ok_or_else(|| {
            self.counted(cluster).count(stat);
            Error::new(Failure::Overflow).unsent()
        })
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl fmt::Debug for TcpUpstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpUpstreams")
            .field("upstreams", &self.upstreams)
            .finish_non_exhaustive()
    }
}
