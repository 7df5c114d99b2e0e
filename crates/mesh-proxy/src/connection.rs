//! One connection from accept to its end, read top to bottom: who calls and where to, which chain,
//! TLS, and then HTTP or bytes.

mod arrival;
pub(crate) mod prefixed;

use self::arrival::Arrival;
use crate::guard::Guard;
use crate::http::serve;
use crate::http::stack::RequestStack;
use crate::listener::{ChainState, Counted, Counting, Current, HttpChain, ListenerState, Use};
use crate::origin::Downstream;
use crate::tcp;
use crate::tls::Security;
use crate::worker::Listeners;
use mesh_client::Authorizers;
use mesh_core::model::Inspect;
use mesh_core::stats::{Block, ListenerStat, Raised};
use mesh_core::{Caller, Name, Shard};
use mesh_policy::external::consult_about;
use mesh_policy::{Denied, Facts, Step};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// What a worker's connections have in common.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) shard: Shard,
    /// The worker's listeners, to hand connections to.
    pub(crate) listeners: Listeners,
    pub(crate) stack: RequestStack,
    /// For HTTP/1.
    pub(crate) buffers: mesh_http1::Buffers,
    pub(crate) tcp: tcp::Forwarder,
    /// The way to services that are asked about connections.
    pub(crate) authorizers: Authorizers,
    pub(crate) tasks: TaskTracker,
    pub(crate) guard: Guard,
}

/// Counts a connection of a listener, whatever becomes of it.
struct Open {
    // Not the plan: it would live as long as the last connection that it chose a chain for.
    stats: Arc<Block<ListenerStat>>,
    shard: Shard,
    _active: Raised<Counted<ListenerStat>, ListenerStat>,
}

/// What serves a connection, once it is settled where that goes.
type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection that goes somewhere.
struct Going {
    serving: Serving,
    _counted: Option<Counting>,
    _open: Open,
}

/// A future that counts an open connection as long as it lasts.
#[pin_project::pin_project]
struct WhileOpen<F> {
    #[pin]
    future: F,
    _open: Open,
}

/// Serves a connection of which nothing has to be found out: HTTP in plain text through the only
/// chain. That is most connections there are, so it takes the shortest way and the least memory.
///
/// # Errors
/// Any other connection comes back.
pub(crate) fn serve_plain<IO: Downstream>(
    io: IO,
    peer: SocketAddr,
    local: SocketAddr,
    listener: &ListenerState,
    site: &Site,
) -> Result<impl Future<Output = ()> + Send + use<IO>, IO> {
    let current = listener.current();
    if looks(current.plan().inspect()) || current.plan().listener().hand_off {
        return Err(io);
    }
    let Some(chain) = current.only_chain().cloned() else {
        return Err(io);
    };
    let (Security::Plain, Use::Http(http)) = (chain.chain().security(), chain.chain().usage())
    else {
        return Err(io);
    };
    if !chain.chain().judges().is_empty() || chain.chain().limited().is_some() {
        return Err(io);
    }
    let mut arrival = Arrival::new(io, peer, local, listener.address().unix());
    arrival.keep_source(current.plan().inspect());
    let caller = arrival.caller(site.shard, &chain.chain().config().name);
    let connection = http_connection(http, caller, &chain, site);
    Ok(WhileOpen {
        future: serve::serve(arrival.io, connection),
        _open: Open::new(current.plan().stats(), site.shard),
    })
}

/// Serves any connection that `listener` accepted, until it ends.
pub(crate) async fn serve<IO: Downstream>(
    io: IO,
    peer: SocketAddr,
    local: SocketAddr,
    listener: Arc<ListenerState>,
    site: Arc<Site>,
) {
    // Boxed: a connection keeps no room for what is over before it is served.
    let going = Box::pin(begin(io, peer, local, listener, site)).await;
    if let Some(mut going) = going {
        going.serving.as_mut().await;
    }
}

/// Finds out where a connection goes, and secures it. None where it goes nowhere.
async fn begin<IO: Downstream>(
    io: IO,
    peer: SocketAddr,
    local: SocketAddr,
    listener: Arc<ListenerState>,
    site: Arc<Site>,
) -> Option<Going> {
    let mut arrival = Arrival::new(io, peer, local, listener.address().unix());
    let mut current = listener.current();
    if !look(&mut arrival, &current, site.shard).await {
        return None;
    }
    // Once: the one that gets it keeps it.
    if current.plan().listener().hand_off
        && let Some(original) = arrival.original()
        && let Some(other) = site.listeners.of(original)
        && !Arc::ptr_eq(&other, &listener)
    {
        current = other.current();
        if !look(&mut arrival, &current, site.shard).await {
            return None;
        }
    }
    let Some(chain) = current.choose(&arrival.traits()).cloned() else {
        no_chain(&arrival, &current, &site);
        return None;
    };
    let mut caller = arrival.caller(site.shard, &chain.chain().config().name);
    let open = Open::new(current.plan().stats(), site.shard);
    let counted = chain
        .chain()
        .limited()
        .map(|limited| limited.count(site.shard));
    if let Some(limited) = chain.chain().limited()
        && counted
            .as_ref()
            .is_some_and(|counted| counted.is_too_many())
    {
        limited.delay(chain.drained()).await;
        return None;
    }
    let serving = match chain.chain().security() {
        Security::Plain => pass(arrival.io, caller, &chain, &site),
        Security::Tls(handshake) => {
            let agreed = current.plan().tls().clone();
            drop(current);
            let shaking =
                handshake.accept(arrival.io, &open.stats, agreed, site.shard, &site.guard);
            // Boxed: two places in this future would be far too much for what it accepts.
            let (io, mut info) = Box::pin(shaking).await?;
            // What was seen before is told already.
            if caller.tls.is_none() && !info.server_name.is_empty() {
                Arc::make_mut(&mut info).late_server_name = true;
            }
            caller.tls = Some(info);
            pass(io, caller, &chain, &site)
        }
        Security::Broken(error) => {
            tracing::debug!(chain = %chain.chain().config().name, %error, "closed");
            return None;
        }
    };
    Some(Going {
        serving,
        _counted: counted,
        _open: open,
    })
}

/// Passes a connection to what its chain is used for.
fn pass<IO: Downstream>(
    io: IO,
    caller: Caller,
    chain: &Arc<ChainState>,
    site: &Arc<Site>,
) -> Serving {
    let judges = chain.chain().judges();
    if judges.is_empty() {
        return go(io, caller, chain, site);
    }
    match judges.step(0..usize::MAX, &Facts::of_connection(&caller), site.shard) {
        Ok(Step::Admitted) => go(io, caller, chain, site),
        Ok(Step::Ask(at)) => Box::pin(ask(io, caller, chain.clone(), site.clone(), at)),
        Err(denied) => {
            deny(caller, &denied, chain, site);
            Box::pin(std::future::ready(()))
        }
    }
}

/// Asks the service at this place about a connection, before anything of it is read, and judges on.
async fn ask<IO: Downstream>(
    io: IO,
    caller: Caller,
    chain: Arc<ChainState>,
    site: Arc<Site>,
    mut at: usize,
) {
    let judges = chain.chain().judges();
    while let Some((external, stats)) = judges.external(at) {
        let authorizer = site.authorizers.on(external, site.shard);
        if let Err(error) = consult_about(external, stats, authorizer, &caller).await {
            if let Use::Tcp(tcp) = chain.chain().usage() {
                tcp::refuse(tcp, caller, &error, &site.tcp);
            }
            return;
        }
        match judges.step(
            at + 1..usize::MAX,
            &Facts::of_connection(&caller),
            site.shard,
        ) {
            Ok(Step::Admitted) => return go(io, caller, &chain, &site).await,
            Ok(Step::Ask(next)) => at = next,
            Err(denied) => return deny(caller, &denied, &chain, &site),
        }
    }
}

/// Notes that a connection is denied. Of HTTP nothing was asked for yet that could be logged.
fn deny(caller: Caller, denied: &Denied, chain: &ChainState, site: &Site) {
    if let Use::Tcp(tcp) = chain.chain().usage() {
        tcp::deny(tcp, caller, &denied.to_string(), &site.tcp);
    }
}

/// Passes on a connection that may go on.
fn go<IO: Downstream>(
    io: IO,
    caller: Caller,
    chain: &Arc<ChainState>,
    site: &Arc<Site>,
) -> Serving {
    match chain.chain().usage() {
        Use::Http(http) => {
            let connection = http_connection(http, caller, chain, site);
            Box::pin(serve::serve(io, connection))
        }
        Use::Tcp(_) => Box::pin(bytes(io, caller, chain.clone(), site.clone())),
    }
}

/// Passes on a connection whose bytes are nobody's business.
async fn bytes<IO: Downstream>(io: IO, caller: Caller, chain: Arc<ChainState>, site: Arc<Site>) {
    if let Use::Tcp(tcp) = chain.chain().usage() {
        tcp::serve(io, tcp, caller, chain.drained(), &site.tcp).await;
    }
}

/// Whether anything has to be found out.
fn looks(inspect: &Inspect) -> bool {
    reads(inspect) || inspect.original_destination
}

/// Whether the caller has to say something first.
fn reads(inspect: &Inspect) -> bool {
    inspect.proxy_protocol.is_some() || inspect.tls.is_some() || inspect.http.is_some()
}

/// Finds out what a listener wants to know. Returns whether to go on.
async fn look<IO: Downstream>(
    arrival: &mut Arrival<IO>,
    current: &Arc<Current>,
    shard: Shard,
) -> bool {
    let inspect = current.plan().inspect();
    arrival.keep_source(inspect);
    if !looks(inspect) {
        return true;
    }
    let _active = current.raise(shard, ListenerStat::PreCxActive);
    let looked = match inspect.timeout.filter(|_| reads(inspect)) {
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

fn http_connection(
    http: &HttpChain,
    caller: Caller,
    chain: &ChainState,
    site: &Site,
) -> serve::Connection {
    serve::Connection {
        caller,
        manager: http.manager.clone(),
        stats: http.stats.clone(),
        server: http.server.clone(),
        stack: site.stack.clone(),
        buffers: site.buffers.clone(),
        tasks: site.tasks.clone(),
        guard: site.guard.clone(),
        drain: chain.drained(),
    }
}

// === impl WhileOpen ===

impl<F: Future> Future for WhileOpen<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().future.poll(cx)
    }
}

// === impl Open ===

impl Open {
    fn new(stats: &Arc<Block<ListenerStat>>, shard: Shard) -> Self {
        stats.inc(shard, ListenerStat::CxTotal);
        let counted = Counted::new(stats.clone());
        Self {
            _active: Raised::new(counted, shard, ListenerStat::CxActive),
            stats: stats.clone(),
            shard,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stats.inc(self.shard, ListenerStat::CxDestroy);
    }
}

#[cfg(test)]
mod tests;
