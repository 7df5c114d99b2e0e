//! What one worker keeps about one listener.

use http::HeaderValue;
use mesh_core::model::{HttpManager, Listener};
use mesh_core::stats::{Block, HttpStat, Raised};
use mesh_core::{Caller, Name, Shard};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// One worker's state of one listener. The settings can change while connections are open.
#[derive(Debug)]
pub(crate) struct ListenerState {
    address: SocketAddr,
    shard: Shard,
    settings: Mutex<Settings>,
}

#[derive(Clone, Debug)]
struct Settings {
    manager: Arc<HttpManager>,
    stats: Arc<Block<HttpStat>>,
    /// The `server` header of every response; none leaves the upstream's.
    server: Option<HeaderValue>,
}

/// The HTTP statistics of all listeners, by prefix. Shared by all workers.
#[derive(Clone, Debug, Default)]
pub(crate) struct HttpBlocks(Arc<Mutex<HashMap<Name, Arc<Block<HttpStat>>>>>);

/// A block of statistics that a gauge can hold on to.
#[derive(Clone, Debug)]
pub(crate) struct Counted(Arc<Block<HttpStat>>);

// === impl HttpBlocks ===

impl HttpBlocks {
    /// The block for a prefix, made on first use and kept as long as the process runs, as in
    /// Envoy. Prefixes come from configuration, never from callers.
    pub(crate) fn block(&self, prefix: &Name) -> Arc<Block<HttpStat>> {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.entry(prefix.clone()).or_default().clone()
    }

    /// All blocks, sorted by prefix.
    pub(crate) fn all(&self) -> Vec<(Name, Arc<Block<HttpStat>>)> {
        let blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = blocks.iter().map(|(n, b)| (n.clone(), b.clone())).collect();
        drop(blocks);
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

// === impl ListenerState ===

impl ListenerState {
    pub(crate) fn new(listener: &Listener, shard: Shard, blocks: &HttpBlocks) -> Self {
        let settings = Mutex::new(Settings::of(listener, blocks));
        Self {
            address: listener.address,
            shard,
            settings,
        }
    }

    /// Takes over the settings of a newer configuration: for the next request on each connection.
    pub(crate) fn update(&self, listener: &Listener, blocks: &HttpBlocks) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) =
            Settings::of(listener, blocks);
    }

    fn settings(&self) -> Settings {
        self.settings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn manager(&self) -> Arc<HttpManager> {
        self.settings().manager
    }

    /// Who calls, for one request, and the `server` header that the response gets.
    pub(crate) fn caller(
        &self,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> (Caller, Option<HeaderValue>) {
        let settings = self.settings();
        let mut caller = Caller::default();
        caller.shard = self.shard;
        caller.peer = Some(peer);
        caller.local = Some(local);
        caller.manager = Some(settings.manager);
        caller.stats = Some(settings.stats);
        (caller, settings.server)
    }

    pub(crate) fn count(&self, stat: HttpStat) {
        self.settings().stats.inc(self.shard, stat);
    }

    pub(crate) fn raise(&self, stat: HttpStat) -> Raised<Counted, HttpStat> {
        Raised::new(Counted(self.settings().stats), self.shard, stat)
    }
}

// === impl Settings ===

impl Settings {
    fn of(listener: &Listener, blocks: &HttpBlocks) -> Self {
        let manager = manager_of(listener);
        let stats = blocks.block(&manager.stat_prefix);
        let server = Some(&manager.server_name).filter(|name| !name.is_empty());
        let server = server.and_then(|name| HeaderValue::from_str(name).ok());
        Self {
            manager,
            stats,
            server,
        }
    }
}

fn manager_of(listener: &Listener) -> Arc<HttpManager> {
    let mut managers = listener.managers();
    managers
        .next()
        .expect("only listeners for HTTP are made so far")
        .clone()
}

// === impl Counted ===

impl AsRef<Block<HttpStat>> for Counted {
    fn as_ref(&self) -> &Block<HttpStat> {
        &self.0
    }
}
