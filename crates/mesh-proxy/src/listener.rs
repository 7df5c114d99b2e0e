//! What one worker keeps about one listener.

mod blocks;
mod connections;
mod plan;

pub(crate) use blocks::{Counted, Statistics};
pub(crate) use connections::Counting;
pub(crate) use plan::{Chain, HttpChain, Plan, Plans, TcpChain, Use};

use crate::chain::Traits;
use mesh_core::Shard;
use mesh_core::model::ListenerAddress;
use mesh_core::stats::{ListenerStat, Raised};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// One worker's state of one listener. The plan can change while connections are open.
#[derive(Debug)]
pub(crate) struct ListenerState {
    address: ListenerAddress,
    current: Mutex<Arc<Current>>,
}

/// A plan in force, and the worker's state of its chains.
#[derive(Debug)]
pub(crate) struct Current {
    plan: Arc<Plan>,
    /// In the order of the plan's chains.
    chains: Vec<Arc<ChainState>>,
}

/// One worker's state of one chain.
#[derive(Debug)]
pub(crate) struct ChainState {
    chain: Arc<Chain>,
    /// Its connections are to finish.
    drain: watch::Sender<bool>,
}

// === impl ListenerState ===

impl ListenerState {
    /// The state of a listener at the address that it really has.
    pub(crate) fn new(plan: Arc<Plan>, address: impl Into<ListenerAddress>) -> Self {
        Self {
            address: address.into(),
            current: Mutex::new(Arc::new(Current::new(plan, &[]))),
        }
    }

    /// Takes over a newer plan: for connections to come. Those of chains that are the same stay,
    /// those of others drain.
    pub(crate) fn update(&self, plan: Arc<Plan>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Arc::new(Current::new(plan, &current.chains));
        let old = std::mem::replace(&mut *current, new.clone());
        drop(current);
        let gone = |old: &&Arc<ChainState>| !new.chains.iter().any(|kept| Arc::ptr_eq(kept, old));
        for chain in old.chains.iter().filter(gone) {
            chain.drain.send_replace(true);
        }
    }

    /// Lets all connections finish.
    pub(crate) fn drain(&self) {
        for chain in &self.current().chains {
            chain.drain.send_replace(true);
        }
    }

    pub(crate) fn current(&self) -> Arc<Current> {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn address(&self) -> &ListenerAddress {
        &self.address
    }
}

// === impl Current ===

impl Current {
    fn new(plan: Arc<Plan>, before: &[Arc<ChainState>]) -> Self {
        let state = |chain: &Arc<Chain>| {
            let same = |before: &&Arc<ChainState>| before.chain.config() == chain.config();
            match before.iter().find(same) {
                Some(before) => before.clone(),
                None => Arc::new(ChainState::new(chain.clone())),
            }
        };
        Self {
            chains: plan.chains().iter().map(state).collect(),
            plan,
        }
    }

    pub(crate) fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The chain that all connections get, if they all get the same.
    pub(crate) fn only_chain(&self) -> Option<&Arc<ChainState>> {
        self.chains.get(self.plan.only()?)
    }

    /// The chain for a connection.
    pub(crate) fn choose(&self, traits: &Traits<'_>) -> Option<&Arc<ChainState>> {
        self.chains.get(self.plan.choose(traits)?)
    }

    pub(crate) fn count(&self, shard: Shard, stat: ListenerStat) {
        self.plan.stats().inc(shard, stat);
    }

    pub(crate) fn raise(
        &self,
        shard: Shard,
        stat: ListenerStat,
    ) -> Raised<Counted<ListenerStat>, ListenerStat> {
        Raised::new(Counted::new(self.plan.stats().clone()), shard, stat)
    }
}

// === impl ChainState ===

impl ChainState {
    fn new(chain: Arc<Chain>) -> Self {
        Self {
            chain,
            drain: watch::Sender::new(false),
        }
    }

    pub(crate) fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    /// Says when the chain's connections are to finish.
    pub(crate) fn drained(&self) -> watch::Receiver<bool> {
        self.drain.subscribe()
    }
}

#[cfg(test)]
mod tests;
