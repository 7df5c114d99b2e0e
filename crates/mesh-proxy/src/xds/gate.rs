//! Sockets that are opened before the configuration that wants them is accepted, so that what is
//! acknowledged is in force, and what cannot be is refused.
//!
//! As in Envoy a listener's address is bound as soon as the listener comes, and nobody listens on it
//! before the listener has all that it refers to: who connects in between is turned away rather than
//! kept waiting.

use crate::accept::{self, Opened, UnixSocket};
use mesh_core::model::{Listener, ListenerAddress, Snapshot};
use mesh_core::{Invalid, Name};
use mesh_xds::assemble::Permit;
use socket2::Socket;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// How long the sockets of workers may take to close after their listener has left. Until then an
/// address in use is taken to be still ours.
const CLOSING: Duration = Duration::from_secs(10);

/// Holds the first socket of each new listener until the reconciler takes it. The kernel queues
/// what connects meanwhile.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Who has which address, in the configuration in force or in one that waits.
    held: HashMap<ListenerAddress, HashMap<Name, Weak<Held>>>,
    /// Addresses that were ours a moment ago, and until when.
    left: HashMap<ListenerAddress, Instant>,
    /// Listeners that are there for good, and were not asked for.
    fixed: HashMap<Name, Arc<Held>>,
    released: Released,
}

/// Who had which address. Apart from the rest, because it is written to on drop.
type Released = Arc<Mutex<Vec<(ListenerAddress, Name, Instant)>>>;

/// The address of a listener. Dropped when no version of the listener has it any more.
#[derive(Debug)]
struct Held {
    name: Name,
    address: ListenerAddress,
    stage: Mutex<Stage>,
    released: Released,
}

#[derive(Debug)]
enum Stage {
    /// The address is ours, and nobody listens.
    Bound(Bound),
    Listening(Opened),
    /// The reconciler has it, or opens its own.
    Taken,
}

#[derive(Debug)]
enum Bound {
    Tcp(#[expect(dead_code, reason = "it keeps the address")] Socket),
    Unix(UnixSocket),
}

// === impl Gate ===

impl Gate {
    /// Binds the address of a listener.
    ///
    /// # Errors
    /// If that cannot be done, with the reason.
    pub(crate) fn admit(&self, listener: &Listener) -> Result<Permit, Invalid> {
        if !listener.bind {
            return Ok(Permit::holding(()));
        }
        let mut state = self.state();
        let State { held, left, .. } = &mut *state;
        let address = &listener.address;
        let names = held.get(address);
        if let Some(held) = names
            .and_then(|names| names.get(&listener.name))
            .and_then(Weak::upgrade)
        {
            return Ok(Permit::holding(held));
        }
        let ours = names.is_some() || left.contains_key(address);
        let stage = bind(listener, ours).map_err(|error| {
            let reason = reason(&error);
            Invalid::new("address", format!("cannot bind '{address}': {reason}"))
        })?;
        Ok(Permit::holding(state.hold(listener, stage)))
    }

    /// Listens on what is new in a snapshot that is about to be published. Where that cannot be
    /// done it is left to the reconciler, which reports it and tries again.
    pub(crate) fn prepare(&self, snapshot: &Snapshot) {
        let mut state = self.state();
        let mut names = HashSet::new();
        for listener in snapshot.listeners().iter().filter(|one| one.bind) {
            names.insert(&listener.name);
            let result = match state.find(listener) {
                Some(held) => held.listen(),
                None => state.open(listener),
            };
            if let Err(error) = result {
                tracing::debug!(listener = %listener.name, %error, "cannot be opened ahead");
            }
        }
        state.fixed.retain(|name, _| names.contains(name));
    }

    /// The socket of a listener, unless it was taken before.
    pub(crate) fn take(&self, listener: &Listener) -> Option<Opened> {
        let held = self.state().find(listener)?;
        let mut stage = held.stage.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *stage, Stage::Taken) {
            Stage::Listening(socket) => Some(socket),
            Stage::Bound(_) | Stage::Taken => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.note_released(Instant::now());
        state
    }
}

// === impl State ===

impl State {
    fn note_released(&mut self, now: Instant) {
        let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        let released = std::mem::take(&mut *released);
        for (address, name, at) in released {
            if let Some(names) = self.held.get_mut(&address) {
                // It may have come back meanwhile.
                if names
                    .get(&name)
                    .is_some_and(|held| held.strong_count() == 0)
                {
                    names.remove(&name);
                }
                if names.is_empty() {
                    self.held.remove(&address);
                }
            }
            self.left.insert(address, at + CLOSING);
        }
        self.left.retain(|_, until| *until > now);
    }

    fn find(&self, listener: &Listener) -> Option<Arc<Held>> {
        self.held
            .get(&listener.address)?
            .get(&listener.name)?
            .upgrade()
    }

    fn hold(&mut self, listener: &Listener, stage: Stage) -> Arc<Held> {
        let held = Arc::new(Held {
            name: listener.name.clone(),
            address: listener.address.clone(),
            stage: Mutex::new(stage),
            released: self.released.clone(),
        });
        let names = self.held.entry(held.address.clone()).or_default();
        names.insert(held.name.clone(), Arc::downgrade(&held));
        held
    }

    /// Opens a listener that was not asked for.
    fn open(&mut self, listener: &Listener) -> io::Result<()> {
        let address = &listener.address;
        let ours = self.held.contains_key(address) || self.left.contains_key(address);
        let socket = match address {
            ListenerAddress::Socket(address) => {
                if !ours {
                    accept::check_free(*address)?;
                }
                Opened::Tcp(accept::listen(*address)?)
            }
            // The reconciler has the socket that is there.
            ListenerAddress::Unix(_) if ours => return Ok(()),
            ListenerAddress::Unix(path) => {
                let socket = UnixSocket::bind(path, listener.mode)?;
                socket.listen()?;
                Opened::Unix(socket)
            }
        };
        let held = self.hold(listener, Stage::Listening(socket));
        self.fixed.insert(listener.name.clone(), held);
        Ok(())
    }
}

// === impl Held ===

impl Held {
    fn listen(&self) -> io::Result<()> {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        let Stage::Bound(bound) = &*stage else {
            return Ok(());
        };
        let opened = match (bound, &self.address) {
            (Bound::Unix(socket), _) => {
                socket.listen()?;
                Opened::Unix(socket.clone())
            }
            (Bound::Tcp(_), ListenerAddress::Socket(address)) => {
                Opened::Tcp(accept::listen(*address)?)
            }
            (Bound::Tcp(_), ListenerAddress::Unix(_)) => return Ok(()),
        };
        *stage = Stage::Listening(opened);
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        released.push((self.address.clone(), self.name.clone(), Instant::now()));
    }
}

/// Binds the address of a listener.
fn bind(listener: &Listener, ours: bool) -> io::Result<Stage> {
    match &listener.address {
        ListenerAddress::Socket(address) => {
            let socket = bind_tcp(*address, ours)?;
            Ok(Stage::Bound(Bound::Tcp(socket)))
        }
        // A path has one socket, and the one there is serves until the reconciler hands it on.
        ListenerAddress::Unix(_) if ours => Ok(Stage::Taken),
        ListenerAddress::Unix(path) => {
            let socket = UnixSocket::bind(path, listener.mode)?;
            Ok(Stage::Bound(Bound::Unix(socket)))
        }
    }
}

/// As [`accept::listen`] does. Workers share their port, so it is looked first whether a stranger
/// has it.
fn bind_tcp(address: SocketAddr, ours: bool) -> io::Result<Socket> {
    if !ours {
        accept::check_free(address)?;
    }
    let socket = accept::socket_for(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// What the system says, without the number that Rust adds.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error ") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests;
