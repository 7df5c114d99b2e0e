//! What `Dispatch` and `Balance` have in common: from a request to a host's service.

use super::authority;
use super::drops;
use super::flight::{Flight, Owner};
use super::future::ResponseFuture;
use super::override_host::{self, Refused, Wishing};
use super::table::{Placed, Table};
use super::wanted::Wanted;
use super::zone::Zone;
use crate::{Ask, Avoid, ClusterHosts, MakeEndpoint, Near};
use http::Request;
use mesh_core::model::{
    Address, AuthorityRewrite, ClusterEntry, DiscoveryKind, LocalityBalancing, Retry, Snapshot,
};
use mesh_core::stats::ClusterStat;
use mesh_core::{Caller, Exchange, Failure, HostId, Rng, Shard};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tower_service::Service;

/// One worker's services and cursors. Clones share them.
pub(crate) struct Worker<M: MakeEndpoint> {
    make: M,
    table: Arc<Mutex<Table<M::Service>>>,
    pub(crate) rng: Arc<Rng>,
    /// Where the node is.
    pub(crate) zone: Option<Arc<Zone>>,
}

/// What a host is chosen for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A connection that is passed on as it is.
    Connection,
    /// A request: discovery may want its share refused.
    Request,
    /// Another attempt of one.
    Retry,
}

// === impl Worker ===

impl<M: MakeEndpoint> Worker<M> {
    pub(crate) fn new(make: M) -> Self {
        Self {
            make,
            table: Arc::default(),
            rng: Arc::default(),
            zone: None,
        }
    }

    pub(crate) fn adopt(&self, snapshot: &Snapshot) {
        let mut table = self.table();
        table.adopt(snapshot);
        if let Some(cluster) = self.zone.as_ref().and_then(|zone| zone.cluster.as_ref()) {
            table.local = snapshot.cluster(cluster).cloned();
        }
    }

    fn table(&self) -> MutexGuard<'_, Table<M::Service>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request to a host of its owner's cluster.
    pub(crate) fn call<B>(
        &self,
        owner: Owner,
        mut request: Request<B>,
    ) -> ResponseFuture<M::Service, B>
    where
        M::Service: Service<Request<B>>,
    {
        match self.place(&owner, &request) {
            Ok(placed) => {
                if let Some(exchange) = owner.exchange() {
                    exchange.note_tried(placed.host.id());
                    exchange.set_upstream(mesh_core::exchange::Upstream::new(
                        placed.host.endpoint().clone(),
                    ));
                    if takes_endpoints_name(exchange)
                        && let Some(name) = placed.host.endpoint().host_name()
                    {
                        authority::set(&mut request, name);
                    }
                }
                let grpc = mesh_core::reply::is_grpc(request.headers());
                let flight = Flight::begin(owner, placed.host, grpc, M::COUNTS_REQUESTS);
                ResponseFuture::new(placed.service, request, flight)
            }
            Err(refused) => {
                if refused.failure.replaces_an_answer() {
                    owner.answered(refused.status());
                }
                ResponseFuture::refused(refused.error())
            }
        }
    }

    fn place<B>(&self, owner: &Owner, request: &Request<B>) -> Result<Placed<M::Service>, Refused> {
        let entry = owner.cluster();
        let caller = owner.exchange().map(Exchange::caller);
        let named = match entry.config().discovery {
            DiscoveryKind::Authority => {
                let tls = caller.is_some_and(Caller::is_secure);
                Some(authority::of(request, tls)?)
            }
            DiscoveryKind::OriginalDestination => {
                Some(original_destination(entry, caller, owner.shard())?)
            }
            _ => None,
        };
        if let Some(address) = named {
            return Ok(self.place_at(entry, owner.snapshot(), address));
        }
        let (tried, retry) = owner.exchange().map_or_else(Default::default, tried_before);
        let mut avoid = Avoid::NONE;
        if let Some(retry) = retry {
            avoid.hosts = &tried;
            avoid.previous = retry.avoid_previous_hosts;
            avoid.canaries = retry.avoid_canaries;
            avoid.metadata = &retry.avoid_metadata;
            avoid.redraws = if retry.avoids_hosts() {
                retry.host_attempts
            } else {
                0
            };
            avoid.priorities = retry.other_priorities;
            avoid.priority_attempts = retry.priority_attempts;
        }
        let wanted = Wanted::of(owner.exchange());
        let ask = Ask {
            avoid,
            hash: owner.exchange().and_then(Exchange::hash),
            subset: wanted.subset(),
            ..Ask::new(self.rng.word())
        };
        let purpose = match owner.exchange() {
            Some(exchange) if exchange.attempts() > 1 => Purpose::Retry,
            _ => Purpose::Request,
        };
        let wishing = Wishing {
            exchange: owner.exchange(),
            headers: request.headers(),
        };
        let wishing = Some(wishing);
        self.place_among(
            entry,
            owner.snapshot(),
            owner.shard(),
            ask,
            purpose,
            wishing,
        )
    }

    /// A host that is named rather than discovered.
    pub(super) fn place_at(
        &self,
        entry: &Arc<ClusterEntry>,
        snapshot: Option<&Snapshot>,
        address: Address,
    ) -> Placed<M::Service> {
        let now = tokio::time::Instant::now().into_std();
        let mut table = self.table();
        table.meet(snapshot, entry.key());
        table.place_at(entry, address, now, &self.make)
    }

    /// One of the cluster's hosts, unless discovery wants it refused.
    pub(super) fn place_among(
        &self,
        entry: &Arc<ClusterEntry>,
        snapshot: Option<&Snapshot>,
        shard: Shard,
        ask: Ask<'_>,
        purpose: Purpose,
        wishing: Option<Wishing<'_>>,
    ) -> Result<Placed<M::Service>, Refused> {
        let hosts = ClusterHosts::of(entry);
        let now = tokio::time::Instant::now().into_std();
        hosts.refresh_in_place(entry, now);
        let placed = {
            let mut table = self.table();
            table.meet(snapshot, entry.key());
            let config = entry.config();
            let peers = self.zone.as_ref().and_then(|zone| {
                let near = zone.cluster.is_some() && config.zones().is_some();
                if near || config.localities != LocalityBalancing::Ignored {
                    hosts.locate(&zone.locality);
                }
                near.then(|| table.peers(zone, snapshot, now)).flatten()
            });
            let ask = Ask {
                now: Some(now),
                stats: Some((entry.live().stats(), shard)),
                near: peers.as_deref().map(|peers| Near { peers }),
                ..ask
            };
            hosts.with(|set| {
                let is_new = purpose == Purpose::Request;
                let dropped = is_new
                    .then(|| drops::dropped(set.drops(), || self.rng.word()))
                    .flatten();
                if let Some(failure) = dropped {
                    // Envoy does not count where all are.
                    if failure == Failure::DropOverload {
                        let stats = entry.live().stats().block();
                        stats.inc(shard, ClusterStat::RqDropOverload);
                    }
                    return Err(failure.into());
                }
                let chosen = wishing.map(|of| override_host::choose(set, of));
                let chosen = match chosen.transpose() {
                    Ok(chosen) => chosen.flatten(),
                    Err(refused) => {
                        no_host(entry, shard);
                        return Err(refused);
                    }
                };
                Ok(table.place(entry, set, &ask, chosen, &self.make))
            })?
        };
        placed.ok_or_else(|| {
            no_host(entry, shard);
            Failure::NoHealthyHost.into()
        })
    }
}

fn no_host(entry: &ClusterEntry, shard: Shard) {
    let stats = entry.live().stats().block();
    stats.inc(shard, ClusterStat::NoHealthy);
}

/// Where the caller's connection was going to before it was intercepted. Without that, or with an
/// address that nobody can be reached at, there is no host (Envoy `OriginalDstCluster`).
pub(super) fn original_destination(
    entry: &ClusterEntry,
    caller: Option<&Caller>,
    shard: Shard,
) -> Result<Address, Failure> {
    let original = caller.and_then(|caller| caller.original);
    let usable = original.filter(|to| !to.ip().is_unspecified() && to.port() != 0);
    usable.map(Address::Socket).ok_or_else(|| {
        let stats = entry.live().stats().block();
        stats.inc(shard, ClusterStat::OriginalDestinationInvalid);
        stats.inc(shard, ClusterStat::NoHealthy);
        Failure::NoHealthyHost
    })
}

/// The hosts of earlier attempts, where the policy of a retry asks for them.
fn tried_before(exchange: &Exchange) -> (Vec<HostId>, Option<&Retry>) {
    if exchange.attempts() < 2 {
        return (Vec::new(), None);
    }
    let retry = exchange.matched().and_then(|matched| {
        let own = matched.rule().retry.as_ref();
        own.or(matched.host().retry.as_ref()).map(Arc::as_ref)
    });
    match retry.filter(|retry| retry.avoids()) {
        Some(retry) => (exchange.tried(), Some(retry)),
        None => (Vec::new(), None),
    }
}

fn takes_endpoints_name(exchange: &Exchange) -> bool {
    let forward = exchange.matched().and_then(|matched| matched.forward());
    forward.is_some_and(|forward| {
        forward.authority.as_deref() == Some(&AuthorityRewrite::FromEndpoint)
    })
}

impl<M: MakeEndpoint> Clone for Worker<M> {
    fn clone(&self) -> Self {
        Self {
            make: self.make.clone(),
            table: self.table.clone(),
            rng: self.rng.clone(),
            zone: self.zone.clone(),
        }
    }
}

impl<M: MakeEndpoint> fmt::Debug for Worker<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.table.try_lock() {
            Ok(table) => table.fmt(f),
            Err(_) => f.write_str("Worker(busy)"),
        }
    }
}
