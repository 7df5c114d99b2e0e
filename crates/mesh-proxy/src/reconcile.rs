//! From snapshots to listening sockets.
//!
//! Runs beside the workers: opens the sockets of new listeners (one for each worker), closes those
//! that are gone, and hands changed settings over. Routes and clusters need nothing of this; the
//! workers' stacks read them from the feed.

use crate::accept;
use crate::worker::Command;
use crate::xds::Gate;
use mesh_core::model::{Listener, Snapshot};
use mesh_core::{Name, Publisher};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a listener that could not be opened is left alone before it is tried again.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// What is known of the listeners, for the admin interface and for tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    /// The version of the snapshot that was last worked in.
    pub version: u64,
    /// Listeners that accept connections, with the address that they have.
    pub open: BTreeMap<Name, SocketAddr>,
    /// Listeners that do not, and why.
    pub failed: BTreeMap<Name, String>,
}

/// A listener whose sockets are open, and where: port 0 means any.
struct Open {
    listener: Arc<Listener>,
    address: SocketAddr,
}

pub(crate) struct Reconciler {
    workers: Vec<mpsc::UnboundedSender<Command>>,
    open: HashMap<Name, Open>,
    /// Addresses that were ours a moment ago: their sockets may not be closed yet.
    leaving: HashSet<SocketAddr>,
    status: Publisher<Listening>,
    gate: Gate,
}

// === impl Reconciler ===

impl Reconciler {
    /// Sockets that `gate` holds already are taken from it.
    pub(crate) fn new(workers: Vec<mpsc::UnboundedSender<Command>>, gate: Gate) -> Self {
        Self {
            workers,
            gate,
            open: HashMap::new(),
            leaving: HashSet::new(),
            status: Publisher::new(Listening::default()),
        }
    }

    pub(crate) fn status(&self) -> mesh_core::Feed<Listening> {
        self.status.feed()
    }

    /// Makes the sockets what the snapshot says. Returns whether something has to be tried again.
    pub(crate) fn apply(&mut self, snapshot: &Snapshot) -> bool {
        let mut status = Listening {
            version: snapshot.version(),
            ..Listening::default()
        };
        let left = std::mem::take(&mut self.leaving);
        // New sockets first, so that an address which only changes hands is never closed. Several
        // may share it for that moment.
        for listener in snapshot.listeners() {
            let moves = match self.open.get(&listener.name) {
                Some(open) if open.listener == *listener => false,
                Some(open) if is_in_place(&open.listener, listener) => {
                    self.tell(|| Command::Update(listener.clone()));
                    false
                }
                _ => true,
            };
            let address = match self.open.get_mut(&listener.name) {
                Some(open) if !moves => {
                    open.listener = listener.clone();
                    open.address
                }
                _ => match self.open(listener, &left) {
                    Ok(address) => address,
                    Err(error) => {
                        let message = format!("cannot listen on {}: {error}", listener.address);
                        tracing::error!(listener = %listener.name, "{message}");
                        status.failed.insert(listener.name.clone(), message);
                        // One that cannot move stays where it is until it can.
                        continue;
                    }
                },
            };
            status.open.insert(listener.name.clone(), address);
        }
        let gone: Vec<Name> = self
            .open
            .keys()
            .filter(|name| snapshot.listeners().iter().all(|l| l.name != **name))
            .cloned()
            .collect();
        for name in gone {
            if let Some(open) = self.open.remove(&name) {
                self.leave(&open);
            }
            tracing::info!(listener = %name, "closed");
            self.tell(|| Command::Close(name.clone()));
        }
        let again = !status.failed.is_empty();
        self.status.publish(Arc::new(status));
        again
    }

    /// Opens a listener's sockets. A worker that has it open elsewhere moves it.
    fn open(
        &mut self,
        listener: &Arc<Listener>,
        left: &HashSet<SocketAddr>,
    ) -> io::Result<SocketAddr> {
        if !listener.bind {
            return Ok(self.stand(listener));
        }
        let mut held = self.gate.take(listener);
        let open = self.open.values().filter(|open| open.listener.bind);
        let open = open.map(|open| &open.address);
        let mut ours = open.chain(left).chain(&self.leaving);
        if held.is_none() && !ours.any(|address| *address == listener.address) {
            accept::check_free(listener.address)?;
        }
        // All or none: a worker without its socket would leave its share unserved.
        let mut address = listener.address;
        let mut sockets = Vec::with_capacity(self.workers.len());
        for _ in &self.workers {
            let socket = match held.take() {
                Some(socket) => socket,
                None => accept::listen(address)?,
            };
            // For port 0 the first socket settles the port of all.
            address = socket.local_addr()?;
            if listener.transparent {
                accept::make_transparent(&socket)?;
            }
            sockets.push(socket);
        }
        tracing::info!(listener = %listener.name, %address, "open");
        for (worker, socket) in self.workers.iter().zip(sockets) {
            // A worker that is gone is draining.
            let _ = worker.send(Command::Open(listener.clone(), socket));
        }
        let open = Open {
            listener: listener.clone(),
            address,
        };
        if let Some(before) = self.open.insert(listener.name.clone(), open) {
            self.leave(&before);
        }
        Ok(address)
    }

    /// Takes up a listener that gets only what others hand over.
    fn stand(&mut self, listener: &Arc<Listener>) -> SocketAddr {
        tracing::info!(listener = %listener.name, address = %listener.address, "stands");
        self.tell(|| Command::Stand(listener.clone()));
        let open = Open {
            listener: listener.clone(),
            address: listener.address,
        };
        if let Some(before) = self.open.insert(listener.name.clone(), open) {
            self.leave(&before);
        }
        listener.address
    }

    /// Remembers an address that the workers give up.
    fn leave(&mut self, open: &Open) {
        if open.listener.bind {
            self.leaving.insert(open.address);
        }
    }

    pub(crate) fn drain(&mut self) {
        self.open.clear();
        self.tell(|| Command::Drain);
    }

    fn tell(&self, command: impl Fn() -> Command) {
        for worker in &self.workers {
            // As above.
            let _ = worker.send(command());
        }
    }
}

/// Whether a listener that changes keeps its sockets.
fn is_in_place(before: &Listener, after: &Listener) -> bool {
    let socket = |listener: &Listener| (listener.address, listener.bind, listener.transparent);
    socket(before) == socket(after)
}

#[cfg(test)]
mod tests;
