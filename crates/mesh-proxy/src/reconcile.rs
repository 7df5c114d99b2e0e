//! From snapshots to listening sockets.
//!
//! Runs beside the workers: opens the sockets of new listeners (one for each worker), closes those
//! that are gone, and hands changed settings over. Routes and clusters need nothing of this; the
//! workers' stacks read them from the feed.

use crate::accept::{self, InUse, Opened, UnixSocket};
use crate::worker::Command;
use crate::xds::Gate;
use mesh_core::model::{Listener, ListenerAddress, Snapshot, UnixPath};
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
    pub open: BTreeMap<Name, ListenerAddress>,
    /// Listeners that do not, and why.
    pub failed: BTreeMap<Name, String>,
}

/// A listener whose sockets are open, and where: port 0 means any.
struct Open {
    listener: Arc<Listener>,
    address: ListenerAddress,
    /// Where it is a Unix domain socket.
    unix: Option<UnixSocket>,
}

pub(crate) struct Reconciler {
    workers: Vec<mpsc::UnboundedSender<Command>>,
    open: HashMap<Name, Open>,
    /// Addresses that were ours a moment ago: their sockets may not be closed yet.
    leaving: HashSet<ListenerAddress>,
    /// The Unix domain sockets that are ours. A path has one socket at a time, so who comes to one
    /// that another listener has, or has just left, takes that over.
    unix: HashMap<UnixPath, InUse>,
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
            unix: HashMap::new(),
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
        self.unix.retain(|_, socket| socket.get().is_some());
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
            let opened = match self.open.get_mut(&listener.name) {
                Some(open) if !moves => open.stay(listener),
                _ => self.open(listener, &left),
            };
            match opened {
                Ok(address) => {
                    status.open.insert(listener.name.clone(), address);
                }
                Err(error) => {
                    let message = format!("cannot listen on {}: {error}", listener.address);
                    tracing::error!(listener = %listener.name, "{message}");
                    // One that cannot move stays where it is until it can.
                    status.failed.insert(listener.name.clone(), message);
                }
            }
        }
        let gone: Vec<Name> = self
            .open
            .keys()
            .filter(|name| snapshot.listeners().iter().all(|l| l.name != **name))
            .cloned()
            .collect();
        for name in gone {
            if let Some(open) = self.open.remove(&name) {
                self.leave(open);
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
        left: &HashSet<ListenerAddress>,
    ) -> io::Result<ListenerAddress> {
        if !listener.bind {
            return Ok(self.stand(listener));
        }
        let held = self.gate.take(listener);
        let (sockets, address, unix) = match &listener.address {
            ListenerAddress::Socket(address) => {
                let (sockets, address) = self.open_tcp(listener, *address, held, left)?;
                (sockets, ListenerAddress::Socket(address), None)
            }
            ListenerAddress::Unix(path) => {
                let socket = self.open_unix(path, listener.mode, held)?;
                let shared = self.workers.iter().map(|_| Opened::Unix(socket.clone()));
                (shared.collect(), listener.address.clone(), Some(socket))
            }
        };
        tracing::info!(listener = %listener.name, %address, "open");
        for (worker, socket) in self.workers.iter().zip(sockets) {
            // A worker that is gone is draining.
            let _ = worker.send(Command::Open(listener.clone(), socket));
        }
        let open = Open {
            listener: listener.clone(),
            address: address.clone(),
            unix,
        };
        if let Some(before) = self.open.insert(listener.name.clone(), open) {
            self.leave(before);
        }
        Ok(address)
    }

    /// A socket for each worker, all or none: a worker without its socket would leave its share
    /// unserved.
    fn open_tcp(
        &self,
        listener: &Listener,
        mut address: SocketAddr,
        held: Option<Opened>,
        left: &HashSet<ListenerAddress>,
    ) -> io::Result<(Vec<Opened>, SocketAddr)> {
        let mut held = match held {
            Some(Opened::Tcp(socket)) => Some(socket),
            _ => None,
        };
        let open = self.open.values().filter(|open| open.listener.bind);
        let open = open.map(|open| &open.address);
        let mut ours = open.chain(left).chain(&self.leaving);
        if held.is_none() && !ours.any(|address| *address == listener.address) {
            accept::check_free(address)?;
        }
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
            sockets.push(Opened::Tcp(socket));
        }
        Ok((sockets, address))
    }

    /// The one socket that a path has: the one that is there already, if it is ours.
    fn open_unix(
        &mut self,
        path: &UnixPath,
        mode: u32,
        held: Option<Opened>,
    ) -> io::Result<UnixSocket> {
        let socket = match held {
            Some(Opened::Unix(socket)) => socket,
            _ => match self.unix.get(path).and_then(InUse::get) {
                Some(socket) => {
                    socket.set_mode(mode)?;
                    socket
                }
                None => UnixSocket::bind(path, mode)?,
            },
        };
        socket.listen()?;
        self.unix.insert(path.clone(), socket.in_use());
        Ok(socket)
    }

    /// Takes up a listener that gets only what others hand over.
    fn stand(&mut self, listener: &Arc<Listener>) -> ListenerAddress {
        tracing::info!(listener = %listener.name, address = %listener.address, "stands");
        self.tell(|| Command::Stand(listener.clone()));
        let open = Open {
            listener: listener.clone(),
            address: listener.address.clone(),
            unix: None,
        };
        if let Some(before) = self.open.insert(listener.name.clone(), open) {
            self.leave(before);
        }
        listener.address.clone()
    }

    /// Remembers an address that the workers give up.
    fn leave(&mut self, open: Open) {
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
    before.address == after.address
        && (before.bind, before.transparent) == (after.bind, after.transparent)
}

// === impl Open ===

impl Open {
    /// Takes over the settings of a listener that keeps its sockets.
    fn stay(&mut self, listener: &Arc<Listener>) -> io::Result<ListenerAddress> {
        if let Some(socket) = &self.unix
            && self.listener.mode != listener.mode
        {
            socket.set_mode(listener.mode)?;
        }
        self.listener = listener.clone();
        Ok(self.address.clone())
    }
}

#[cfg(test)]
mod tests;
