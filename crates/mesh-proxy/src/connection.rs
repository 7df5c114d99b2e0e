//! One connection from accept to its end, read top to bottom: who calls and where to, which chain,
//! TLS, and then HTTP or bytes.

mod arrival;
mod prefixed;

use self::arrival::Arrival;
use crate::http::serve;
use crate::http::stack::RequestStack;
use crate::listener::{ChainState, Counted, Current, HttpChain, ListenerState, Use};
use crate::origin::Downstream;
use crate::tcp;
use crate::tls::Security;
use crate::worker::Listeners;
use mesh_core::stats::{ListenerStat, Raised};
use mesh_core::{Caller, Name, Shard};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// What a worker's connections have in common.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) shard: Shard,
    /// The worker's listeners, to hand connections to.
    pub(crate) listeners: Listeners,
    pub(crate) stack: RequestStack,
    pub(crate) tcp: tcp::Forwarder,
    pub(crate) tasks: TaskTracker,
}

/// Counts a connection of a listener, whatever becomes of it.
struct Open {
    current: Arc<Current>,
    shard: Shard,
    _active: Raised<Counted<ListenerStat>, ListenerStat>,
}

/// Serves a connection that `listener` accepted, until it ends.
pub(crate) async fn serve<IO: Downstream>(
    io: IO,
    peer: SocketAddr,
    local: SocketAddr,
    listener: Arc<ListenerState>,
    site: Site,
) {
    let mut arrival = Arrival::new(io, peer, local);
    let mut current = listener.current();
    if !look(&mut arrival, &current, site.shard).await {
        return;
    }
    // Once: the one that gets it keeps it.
    if current.plan().listener().hand_off
        && let Some(original) = arrival.original()
        && let Some(other) = site.listeners.of(original)
        && !Arc::ptr_eq(&other, &listener)
    {
        current = other.current();
        if !look(&mut arrival, &current, site.shard).await {
            return;
        }
    }
    let chain = current
        .only_chain()
        .or_else(|| current.choose(&arrival.traits()));
    let Some(chain) = chain.cloned() else {
        no_chain(&arrival, &current, &site);
        return;
    };
    let caller = arrival.caller(site.shard, &chain.chain().config().name);
    let open = Open::new(current, site.shard);
    use_chain(arrival, caller, chain, open, site).await;
}

/// Finds out what a listener wants to know. Returns whether to go on.
async fn look<IO: Downstream>(
    arrival: &mut Arrival<IO>,
    current: &Arc<Current>,
    shard: Shard,
) -> bool {
    let inspect = current.plan().inspect();
    let reads = inspect.proxy_protocol.is_some() || inspect.tls.is_some() || inspect.http.is_some();
    if !reads && !inspect.original_destination {
        return true;
    }
    let _active = current.raise(shard, ListenerStat::PreCxActive);
    let looked = match inspect.timeout.filter(|_| reads) {
        // Boxed: most connections outlive it by far.
        Some(limit) => Box::pin(tokio::time::timeout(limit, arrival.look(inspect))).await,
        None => Ok(Box::pin(arrival.look(inspect)).await),
    };
    match looked {
        Ok(Ok(())) => true,
        Ok(Err(rejected)) => {
            tracing::debug!(listener = %current.plan().listener().name, %rejected, "closed");
            false
        }
        Err(_) => {
            current.count(shard, ListenerStat::PreCxTimeout);
            inspect.continue_on_timeout
        }
    }
}

/// A connection that nothing is configured for is closed.
fn no_chain<IO>(arrival: &Arrival<IO>, current: &Current, site: &Site) {
    current.count(site.shard, ListenerStat::NoFilterChainMatch);
    let logs = &current.plan().listener().access_log;
    if !logs.is_empty() {
        let caller = arrival.caller(site.shard, &Name::default());
        let now = Instant::now().into_std();
        mesh_telemetry::tcp::refuse(site.tcp.telemetry(), logs, caller, now);
    }
}

async fn use_chain<IO: Downstream>(
    arrival: Arrival<IO>,
    mut caller: Caller,
    chain: Arc<ChainState>,
    open: Open,
    site: Site,
) {
    match chain.chain().security() {
        Security::Plain => match chain.chain().usage() {
            Use::Http(http) => {
                let connection = http_connection(http, caller, &chain, site);
                // Without an indirection: the shortest way for most connections there are.
                serve::serve(arrival.io, connection).await;
            }
            Use::Tcp(tcp) => {
                Box::pin(tcp::serve(arrival.io, tcp, caller, chain.drained(), &site.tcp)).await;
            }
        },
        Security::Tls(handshake) => {
            let stats = open.current.plan().stats();
            let accepting = Box::pin(handshake.accept(arrival.io, stats, site.shard));
            let Some((io, info)) = accepting.await else {
                return;
            };
            caller.tls = Some(info);
            match chain.chain().usage() {
                Use::Http(http) => {
                    let connection = http_connection(http, caller, &chain, site);
                    Box::pin(serve::serve(io, connection)).await;
                }
                Use::Tcp(tcp) => {
                    Box::pin(tcp::serve(io, tcp, caller, chain.drained(), &site.tcp)).await;
                }
            }
        }
        Security::Broken(error) => {
            tracing::debug!(chain = %chain.chain().config().name, %error, "closed");
        }
    }
    drop(open);
}

fn http_connection(
    http: &HttpChain,
    caller: Caller,
    chain: &ChainState,
    site: Site,
) -> serve::Connection {
    serve::Connection {
        caller,
        manager: http.manager.clone(),
        stats: http.stats.clone(),
        server: http.server.clone(),
        stack: site.stack,
        tasks: site.tasks,
        drain: chain.drained(),
    }
}

// === impl Open ===

impl Open {
    fn new(current: Arc<Current>, shard: Shard) -> Self {
        current.count(shard, ListenerStat::CxTotal);
        Self {
            _active: current.raise(shard, ListenerStat::CxActive),
            current,
            shard,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.current.count(self.shard, ListenerStat::CxDestroy);
    }
}

#[cfg(test)]
mod tests;
