//! What is made of a listener's configuration, once for all workers.

use super::blocks::Statistics;
use super::connections::Limited;
use crate::chain::{Matcher, Traits};
use crate::tls::Security;
use http::HeaderValue;
use mesh_core::Name;
use mesh_core::model::{
    FilterChain, HttpManager, Inspect, Listener, ListenerAddress, Snapshot, TcpProxy,
};
use mesh_core::stats::{Block, HttpStat, ListenerStat, TcpStat, TlsStat};
use mesh_policy::Judges;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A listener that is ready to serve.
#[derive(Debug)]
pub(crate) struct Plan {
    inspect: Inspect,
    listener: Arc<Listener>,
    matcher: Matcher,
    /// The listener's, then the default one.
    chains: Vec<Arc<Chain>>,
    stats: Arc<Block<ListenerStat>>,
    /// What its handshakes agree on.
    tls: Arc<Block<TlsStat>>,
}

/// A chain that is ready to serve.
#[derive(Debug)]
pub(crate) struct Chain {
    config: Arc<FilterChain>,
    security: Security,
    usage: Use,
    /// Of its connections.
    judges: Judges,
    /// How many there may be.
    limited: Option<Arc<Limited>>,
}

/// What a chain's connections are used for.
#[derive(Debug)]
pub(crate) enum Use {
    Http(HttpChain),
    Tcp(TcpChain),
}

/// HTTP: settings that every request finds in its [`Caller`].
#[derive(Debug)]
pub(crate) struct HttpChain {
    pub(crate) manager: Arc<HttpManager>,
    pub(crate) stats: Arc<Block<HttpStat>>,
    /// The `server` header of every response; none leaves the upstream's.
    pub(crate) server: Option<HeaderValue>,
}

/// Bytes.
#[derive(Debug)]
pub(crate) struct TcpChain {
    pub(crate) proxy: Arc<TcpProxy>,
    pub(crate) stats: Arc<Block<TcpStat>>,
}

/// The plans in use, so that the workers share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plans {
    statistics: Statistics,
    made: Arc<Mutex<HashMap<Name, Weak<Plan>>>>,
}

// === impl Plans ===

impl Plans {
    pub(crate) fn new(statistics: Statistics) -> Self {
        Self {
            statistics,
            made: Arc::default(),
        }
    }

    /// The plan for a listener that is bound to `address`: the one that another worker made, if it
    /// is for the very same. Chains that did not change are taken over from the one before, and
    /// with them the keys of TLS sessions.
    pub(crate) fn of(
        &self,
        listener: &Arc<Listener>,
        address: &ListenerAddress,
        snapshot: &Snapshot,
    ) -> Arc<Plan> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let before = made.get(&listener.name).and_then(Weak::upgrade);
        if let Some(before) = &before
            && Arc::ptr_eq(&before.listener, listener)
        {
            return before.clone();
        }
        let old = before.as_ref().map_or(&[][..], |before| before.chains());
        let stats = &self.statistics;
        let plan = Plan::new(listener.clone(), address, old, stats, snapshot);
        let plan = Arc::new(plan);
        made.retain(|_, plan| plan.strong_count() > 0);
        made.insert(listener.name.clone(), Arc::downgrade(&plan));
        plan
    }
}

// === impl Plan ===

impl Plan {
    fn new(
        listener: Arc<Listener>,
        address: &ListenerAddress,
        before: &[Arc<Chain>],
        statistics: &Statistics,
        snapshot: &Snapshot,
    ) -> Self {
        let chain = |config: &Arc<FilterChain>| {
            let same = |before: &&Arc<Chain>| before.config == *config;
            match before.iter().find(same) {
                Some(before) => before.clone(),
                None => Arc::new(Chain::new(config.clone(), statistics, snapshot)),
            }
        };
        // Who hands connections to where they were going to has to ask where that is, as Envoy does
        // with `use_original_dst` alone.
        let mut inspect = listener.inspect.clone();
        inspect.original_destination |= listener.hand_off;
        Self {
            matcher: Matcher::of(&listener),
            chains: listener.all_chains().map(chain).collect(),
            inspect,
            listener,
            stats: statistics.listener(address),
            tls: statistics.tls(address),
        }
    }

    pub(crate) fn listener(&self) -> &Arc<Listener> {
        &self.listener
    }

    pub(crate) fn inspect(&self) -> &Inspect {
        &self.inspect
    }

    pub(crate) fn chains(&self) -> &[Arc<Chain>] {
        &self.chains
    }

    pub(crate) fn stats(&self) -> &Arc<Block<ListenerStat>> {
        &self.stats
    }

    pub(crate) fn tls(&self) -> &Arc<Block<TlsStat>> {
        &self.tls
    }

    /// The place of the chain that all connections get, where nothing has to be known of them.
    pub(super) fn only(&self) -> Option<usize> {
        // With one chain for everything the default one is never used.
        let fixed = self.matcher.is_fixed() && !self.chains.is_empty();
        fixed.then_some(0)
    }

    /// The place of the chain for a connection.
    pub(super) fn choose(&self, traits: &Traits<'_>) -> Option<usize> {
        let default = self.listener.default_chain.is_some();
        let default = || default.then(|| self.listener.chains.len());
        self.matcher.choose(traits).or_else(default)
    }
}

// === impl Chain ===

impl Chain {
    fn new(config: Arc<FilterChain>, statistics: &Statistics, snapshot: &Snapshot) -> Self {
        let usage = match config.manager() {
            Some(manager) => Use::Http(HttpChain::new(manager.clone(), statistics)),
            None => {
                let proxy = config.proxy().expect("a chain is for HTTP or for bytes");
                Use::Tcp(TcpChain {
                    stats: statistics.tcp.block(&proxy.stat_prefix),
                    proxy: proxy.clone(),
                })
            }
        };
        Self {
            judges: Judges::of_connections(
                &config.authz,
                |name| statistics.authz(None, name),
                |name| statistics.external(None, name),
            ),
            limited: config.connection_limit.as_ref().and_then(|limit| {
                Limited::new(limit, || statistics.limits.block(&limit.stat_prefix))
            }),
            security: Security::of(&config, snapshot),
            usage,
            config,
        }
    }

    pub(crate) fn config(&self) -> &Arc<FilterChain> {
        &self.config
    }

    pub(crate) fn security(&self) -> &Security {
        &self.security
    }

    /// What judges its connections.
    pub(crate) fn judges(&self) -> &Judges {
        &self.judges
    }

    /// How many connections there may be; none is no limit.
    pub(crate) fn limited(&self) -> Option<&Arc<Limited>> {
        self.limited.as_ref()
    }

    pub(crate) fn usage(&self) -> &Use {
        &self.usage
    }
}

// === impl HttpChain ===

impl HttpChain {
    pub(crate) fn new(manager: Arc<HttpManager>, statistics: &Statistics) -> Self {
        if !manager.authz.is_empty() {
            let prefix = Some(&manager.stat_prefix);
            let make = || {
                Judges::of_requests(
                    &manager.authz,
                    |name| statistics.authz(prefix, name),
                    |name| statistics.external(prefix, name),
                )
            };
            manager.authz_slot.get_or_init(make);
        }
        let server = Some(&manager.server_name).filter(|name| !name.is_empty());
        Self {
            stats: statistics.http.block(&manager.stat_prefix),
            server: server.and_then(|name| HeaderValue::from_str(name).ok()),
            manager,
        }
    }
}
