//! The streams that are open.

use super::machine::{Ledger, Machine};
use super::{Assign, Client, Event, Limits, Observer, Refused, Scope, StreamId};
use crate::Node;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The streams that are open, and who is to hear of them.
pub(super) struct Registry {
    limits: Arc<Limits>,
    assign: Box<dyn Assign>,
    observer: Option<Box<dyn Observer>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: u64,
    streams: BTreeMap<StreamId, Arc<Open>>,
    nodes: HashMap<String, Streams>,
    /// Streams that have a place but no machine yet, included.
    count: usize,
}

/// The streams of one node.
struct Streams {
    count: usize,
    ledger: Arc<Ledger>,
}

/// An open stream.
pub(super) struct Open {
    pub(super) client: Client,
    pub(super) since: Instant,
    machine: Mutex<Machine>,
}

/// A stream's place, given back when dropped.
pub(super) struct Place {
    registry: Arc<Registry>,
    pub(super) id: StreamId,
    pub(super) ledger: Arc<Ledger>,
    node: String,
    /// Once it is open.
    open: Option<Arc<Open>>,
    /// Why the server ended it, if it did.
    pub(super) refused: Option<Refused>,
}

// === impl Registry ===

impl Registry {
    pub(super) fn new(
        limits: Arc<Limits>,
        assign: Box<dyn Assign>,
        observer: Option<Box<dyn Observer>>,
    ) -> Self {
        Self {
            limits,
            assign,
            observer,
            state: Mutex::default(),
        }
    }

    pub(super) fn assign(&self) -> &dyn Assign {
        &*self.assign
    }

    /// A place for one more stream.
    pub(super) fn enter(self: &Arc<Self>, node: &Node) -> Result<Place, Refused> {
        let mut state = self.state();
        if state.count >= self.limits.streams {
            return Err(Refused::exhausted(format!(
                "the server has {} streams and takes no more",
                state.count
            )));
        }
        let known = state
            .nodes
            .get(node.id())
            .map_or(0, |streams| streams.count);
        if known >= self.limits.streams_per_node {
            return Err(Refused::exhausted(format!(
                "node {:?} has {known} streams and may have no more",
                node.id()
            )));
        }
        state.count += 1;
        state.last += 1;
        let id = StreamId(state.last);
        let streams = state
            .nodes
            .entry(node.id().to_owned())
            .or_insert_with(|| Streams {
                count: 0,
                ledger: Arc::new(Ledger::new()),
            });
        streams.count += 1;
        Ok(Place {
            registry: self.clone(),
            id,
            ledger: streams.ledger.clone(),
            node: node.id().to_owned(),
            open: None,
            refused: None,
        })
    }

    /// The open streams, by number.
    pub(super) fn streams(&self) -> Vec<Arc<Open>> {
        self.state().streams.values().cloned().collect()
    }

    pub(super) fn stream(&self, id: StreamId) -> Option<Arc<Open>> {
        self.state().streams.get(&id).cloned()
    }

    pub(super) fn tell(&self, client: &Client, event: &Event) {
        if let Some(observer) = &self.observer {
            observer.event(client, event);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Counts and maps change together, between two locks of nothing else.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Place ===

impl Place {
    /// The stream is open; others may look at it.
    pub(super) fn open(&mut self, client: Client, mut machine: Machine, now: Instant) -> Arc<Open> {
        if matches!(client.scope, Scope::Only(_)) {
            machine.join(&self.ledger);
        }
        let open = Arc::new(Open {
            client,
            since: now,
            machine: Mutex::new(machine),
        });
        self.registry.state().streams.insert(self.id, open.clone());
        self.registry.tell(&open.client, &Event::Connected);
        self.open = Some(open.clone());
        open
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        {
            let mut state = self.registry.state();
            state.count -= 1;
            state.streams.remove(&self.id);
            if let Some(streams) = state.nodes.get_mut(&self.node) {
                streams.count -= 1;
                if streams.count == 0 {
                    state.nodes.remove(&self.node);
                }
            }
        }
        if let Some(open) = &self.open {
            let refused = self.refused.take();
            self.registry
                .tell(&open.client, &Event::Disconnected { refused });
            self.registry.assign.released(&open.client.node);
        }
    }
}

// === impl Open ===

impl Open {
    pub(super) fn machine(&self) -> MutexGuard<'_, Machine> {
        // A panic in the machine ends its stream; others only look at it.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
