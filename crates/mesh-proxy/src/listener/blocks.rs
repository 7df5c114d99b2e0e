//! The statistics of listeners, made on first use and kept as long as the process runs, as in
//! Envoy.

use mesh_core::Name;
use mesh_core::model::ListenerAddress;
use mesh_core::stats::{
    AuthzStat, Block, ConnectionLimitStat, ExternalStat, HttpStat, ListenerStat, Stat, TcpStat,
    TlsStat,
};
use mesh_route::SessionBook;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// Blocks of statistics by prefix. Shared by all workers. Prefixes come from configuration, never
/// from callers.
#[derive(Debug)]
pub(crate) struct Blocks<S: Stat>(Arc<Mutex<HashMap<Name, Arc<Block<S>>>>>);

/// All that is counted for listeners.
#[derive(Clone, Debug, Default)]
pub(crate) struct Statistics {
    /// By the HTTP manager's prefix.
    pub(crate) http: Blocks<HttpStat>,
    /// By the TCP proxy's prefix.
    pub(crate) tcp: Blocks<TcpStat>,
    /// By address.
    listeners: Blocks<ListenerStat>,
    /// By address.
    tls: Blocks<TlsStat>,
    /// By the connection limit's prefix.
    pub(crate) limits: Blocks<ConnectionLimitStat>,
    /// What is counted of sessions.
    pub(crate) sessions: SessionBook,
    authz: Arc<Mutex<BTreeMap<AuthzKey, Arc<Block<AuthzStat>>>>>,
    external: Arc<Mutex<BTreeMap<AuthzKey, Arc<Block<ExternalStat>>>>>,
}

/// The HTTP manager's prefix, where requests are judged, and the name before what is counted.
type AuthzKey = (Option<Name>, Name);

/// A block of statistics that a gauge can hold on to.
#[derive(Debug)]
pub(crate) struct Counted<S: Stat>(Arc<Block<S>>);

// === impl Blocks ===

impl<S: Stat> Blocks<S> {
    /// The block for a prefix.
    pub(crate) fn block(&self, prefix: &Name) -> Arc<Block<S>> {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.entry(prefix.clone()).or_default().clone()
    }

    /// All blocks, sorted by prefix.
    pub(crate) fn all(&self) -> Vec<(Name, Arc<Block<S>>)> {
        let blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = blocks.iter().map(|(n, b)| (n.clone(), b.clone())).collect();
        drop(blocks);
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

impl<S: Stat> Clone for Blocks<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: Stat> Default for Blocks<S> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

// === impl Statistics ===

impl Statistics {
    /// The block of the listener at an address. As in Envoy a colon is written `_`.
    pub(crate) fn listener(&self, address: &ListenerAddress) -> Arc<Block<ListenerStat>> {
        self.listeners.block(&prefix(address))
    }

    /// What the handshakes of the listener at an address agree on.
    pub(crate) fn tls(&self, address: &ListenerAddress) -> Arc<Block<TlsStat>> {
        self.tls.block(&prefix(address))
    }

    /// What handshakes agreed on, by the listener's address.
    pub(crate) fn all_tls(&self) -> Vec<(Name, Arc<Block<TlsStat>>)> {
        self.tls.all()
    }

    /// The block of rules that judge requests of a manager with this prefix, or connections.
    pub(crate) fn authz(&self, prefix: Option<&Name>, name: Name) -> Arc<Block<AuthzStat>> {
        let mut blocks = self.authz.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (prefix.cloned(), name);
        blocks.entry(key).or_default().clone()
    }

    /// All blocks of rules that judge.
    pub(crate) fn all_authz(&self) -> Vec<(AuthzKey, Arc<Block<AuthzStat>>)> {
        let blocks = self.authz.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.iter().map(|(n, b)| (n.clone(), b.clone())).collect()
    }

    /// The block of a service that is asked about requests of a manager with this prefix, or about
    /// connections.
    pub(crate) fn external(&self, prefix: Option<&Name>, name: Name) -> Arc<Block<ExternalStat>> {
        let mut blocks = self.external.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (prefix.cloned(), name);
        blocks.entry(key).or_default().clone()
    }

    /// All blocks of services that are asked.
    pub(crate) fn all_external(&self) -> Vec<(AuthzKey, Arc<Block<ExternalStat>>)> {
        let blocks = self.external.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.iter().map(|(n, b)| (n.clone(), b.clone())).collect()
    }

    /// The blocks of all listeners, by address.
    pub(crate) fn listeners(&self) -> Vec<(Name, Arc<Block<ListenerStat>>)> {
        self.listeners.all()
    }
}

fn prefix(address: &ListenerAddress) -> Name {
    address.to_string().replace(':', "_").into()
}

// === impl Counted ===

impl<S: Stat> Counted<S> {
    pub(crate) fn new(block: Arc<Block<S>>) -> Self {
        Self(block)
    }
}

impl<S: Stat> AsRef<Block<S>> for Counted<S> {
    fn as_ref(&self) -> &Block<S> {
        &self.0
    }
}
