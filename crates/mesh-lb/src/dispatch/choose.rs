//! Chooses a host for a connection that belongs to one caller.

use super::authority;
use super::flight::Owner;
use super::future::ResponseFuture;
use super::table::Placed;
use super::worker::{Purpose, Worker, original_destination};
use super::zone::Zone;
use crate::host::Ending;
use crate::{Ask, Avoid, ClusterHosts, Host, MakeEndpoint, Outcome};
use http::Request;
use mesh_core::model::{Address, ClusterEntry, DiscoveryKind, Snapshot};
use mesh_core::stats::ClusterStat;
use mesh_core::{Caller, Error, Exchange, Failure, HostId, Rng, Shard};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;
use tower_service::Service;

/// How often a choice that lands on a host that was tried is made again.
const REDRAWS: u32 = 3;

/// The port of `https`, where nobody says which one a server name stands for.
const HTTPS: u16 = 443;

/// Chooses hosts for connections that are passed on as they are, as
/// [`Dispatch`](crate::Dispatch) does for requests: from the same hosts, with the same counts and
/// ejections, and one for each worker.
///
/// Call [`Chooser::adopt`] on every change of configuration: unlike a request, a connection does
/// not bring its snapshot along.
pub struct Chooser<M: MakeEndpoint> {
    worker: Worker<M>,
}

/// A host that was chosen and is not connected to yet: it counts as under way for balancing.
/// Dropped, the connection was given up, and nobody is blamed.
pub struct Chosen<S> {
    /// What [`MakeEndpoint`] made for the host.
    pub service: S,
    engaged: Engaged,
}

/// A connection in use at a host: until it is dropped it counts as a request under way, for
/// balancing (least request), for the host and for the cluster.
pub struct Engaged {
    entry: Arc<ClusterEntry>,
    host: Arc<Host>,
    shard: Shard,
    /// There is a connection.
    used: bool,
}

// === impl Chooser ===

impl<M: MakeEndpoint> Chooser<M> {
    /// A chooser with an empty table, for one worker. Choices are seeded by the system.
    pub fn new(make: M) -> Self {
        Self {
            worker: Worker::new(make),
        }
    }

    /// Draws from `rng` instead.
    #[must_use]
    pub fn rng(mut self, rng: Arc<Rng>) -> Self {
        self.worker.rng = rng;
        self
    }

    /// Says where the node is, for clusters whose localities are told apart.
    #[must_use]
    pub fn zone(mut self, zone: Arc<Zone>) -> Self {
        self.worker.zone = Some(zone);
        self
    }

    /// Drops what belongs to clusters and hosts that are not in `snapshot` any more.
    pub fn adopt(&self, snapshot: &Snapshot) {
        self.worker.adopt(snapshot);
    }

    /// A host of `cluster` for a connection of `caller`, rather not one of those `tried` before.
    /// Balancers that hash go by `hash`, or without it by nothing.
    ///
    /// Where hosts are not discovered it is the caller's original destination, or what its TLS
    /// server name stands for, at the port of the cluster's service, else of the original
    /// destination, else 443.
    ///
    /// # Errors
    /// [`Failure::NoHealthyHost`] where no host may be used, or none is named.
    pub fn choose(
        &self,
        cluster: &Arc<ClusterEntry>,
        caller: &Caller,
        hash: Option<u64>,
        tried: &[HostId],
    ) -> Result<Chosen<M::Service>, Error> {
        let named = match cluster.config().discovery {
            DiscoveryKind::Authority => {
                Some(by_server_name(cluster, caller).inspect_err(|_| {
                    let stats = cluster.live().stats().block();
                    stats.inc(caller.shard, ClusterStat::NoHealthy);
                })?)
            }
            DiscoveryKind::OriginalDestination => {
                Some(original_destination(cluster, Some(caller), caller.shard)?)
            }
            _ => None,
        };
        let placed = match named {
            Some(address) => self.worker.place_at(cluster, None, address),
            None => {
                let ask = Ask {
                    avoid: Avoid::hosts(tried, REDRAWS),
                    hash,
                    ..Ask::new(self.worker.rng.word())
                };
                // Envoy's TCP proxy knows of no share of connections to refuse.
                let purpose = Purpose::Connection;
                self.worker
                    .place_among(cluster, None, caller.shard, ask, purpose, None)
                    .map_err(|refused| refused.error())?
            }
        };
        let Placed { host, service } = placed;
        host.request_begins();
        Ok(Chosen {
            service,
            engaged: Engaged {
                entry: cluster.clone(),
                host,
                shard: caller.shard,
                used: false,
            },
        })
    }

    /// Sends a request that no route chose the cluster of: one that opens a tunnel.
    pub fn call<B>(
        &self,
        cluster: &Arc<ClusterEntry>,
        exchange: Exchange,
        request: Request<B>,
    ) -> ResponseFuture<M::Service, B>
    where
        M::Service: Service<Request<B>>,
    {
        let owner = Owner::Fixed(cluster.clone(), Some(exchange));
        self.worker.call(owner, request)
    }
}

fn by_server_name(cluster: &ClusterEntry, caller: &Caller) -> Result<Address, Failure> {
    let name = caller.tls.as_ref().map_or("", |tls| &tls.server_name);
    let original = || caller.original.map(|original| original.port());
    let port = match cluster.config().service.port {
        0 => original().unwrap_or(HTTPS),
        port => port,
    };
    authority::of_server_name(name, port)
}

impl<M: MakeEndpoint> Clone for Chooser<M> {
    fn clone(&self) -> Self {
        Self {
            worker: self.worker.clone(),
        }
    }
}

impl<M: MakeEndpoint> fmt::Debug for Chooser<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Chooser").field(&self.worker).finish()
    }
}

// === impl Chosen ===

impl<S> Chosen<S> {
    /// The host.
    pub fn host(&self) -> &Arc<Host> {
        &self.engaged.host
    }

    /// There is a connection: outlier detection counts a success.
    pub fn connected(self, now: Instant) -> Engaged {
        let mut engaged = self.engaged;
        engaged.used = true;
        engaged.host.sending();
        engaged.host.count(Ending::Success);
        let stats = engaged.entry.live().stats().block();
        stats.inc(engaged.shard, ClusterStat::RqTotal);
        stats.inc(engaged.shard, ClusterStat::RqActive);
        // As in Envoy, where failures on our side are not judged apart: `codeForEvent` of
        // `LocalOriginConnectSuccessFinal`.
        engaged.report(Outcome::Answered(200), now);
        engaged
    }

    /// There is none: outlier detection counts a failure on our side, if the host is to blame.
    pub fn failed(self, failure: Failure, now: Instant) {
        if let Some(status) = failure.local_origin() {
            self.engaged.host.count(Ending::Error);
            // A connection that is not made in time counts as any timeout does.
            let status = match failure {
                Failure::ConnectTimeout => 504,
                _ => status,
            };
            self.engaged.report(Outcome::Local(status), now);
        }
    }
}

impl<S> fmt::Debug for Chosen<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Chosen").field(&self.engaged.host).finish()
    }
}

// === impl Engaged ===

impl Engaged {
    /// The host.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// The cluster that it was chosen from.
    pub fn cluster(&self) -> &Arc<ClusterEntry> {
        &self.entry
    }

    fn report(&self, outcome: Outcome, now: Instant) {
        ClusterHosts::of(&self.entry).report(&self.host, outcome, now);
    }
}

impl Drop for Engaged {
    fn drop(&mut self) {
        self.host.request_is_over();
        if self.used {
            let stats = self.entry.live().stats().block();
            stats.dec(self.shard, ClusterStat::RqActive);
        }
    }
}

impl fmt::Debug for Engaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Engaged").field(&self.host).finish()
    }
}

#[cfg(test)]
mod tests;
