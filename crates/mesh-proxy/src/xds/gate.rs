//! Sockets that are opened before the configuration that wants them is published, so that what is
//! acknowledged is in force.

use crate::accept;
use mesh_core::Name;
use mesh_core::model::{Listener, Snapshot};
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

/// Holds the first socket of each new listener until the reconciler takes it. The kernel queues
/// what connects meanwhile.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    held: HashMap<Name, Held>,
    /// Addresses that were ours a moment ago: their sockets may not be closed yet.
    left: HashSet<SocketAddr>,
}

#[derive(Debug)]
struct Held {
    address: SocketAddr,
    /// None once it was taken.
    socket: Option<TcpListener>,
}

// === impl Gate ===

impl Gate {
    /// Opens what is new in a snapshot that is about to be published. What cannot be opened is
    /// left to the reconciler, which reports it and tries again.
    pub(crate) fn prepare(&self, snapshot: &Snapshot) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { held, left } = &mut *state;
        let mut ours = std::mem::take(left);
        ours.extend(held.values().map(|held| held.address));
        let mut names = HashSet::new();
        for listener in snapshot.listeners() {
            names.insert(&listener.name);
            let before = held.get(&listener.name).map(|held| held.address);
            if before == Some(listener.address) {
                continue;
            }
            left.extend(before);
            match open(listener.address, &ours) {
                Ok(socket) => {
                    let new = Held {
                        address: listener.address,
                        socket: Some(socket),
                    };
                    held.insert(listener.name.clone(), new);
                }
                Err(error) => {
                    tracing::debug!(listener = %listener.name, %error, "cannot be opened ahead");
                    held.remove(&listener.name);
                }
            }
        }
        held.retain(|name, held| {
            let stays = names.contains(name);
            if !stays {
                left.insert(held.address);
            }
            stays
        });
    }

    /// The socket of a listener, unless it was taken before.
    pub(crate) fn take(&self, listener: &Listener) -> Option<TcpListener> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = state.held.get_mut(&listener.name)?;
        if held.address != listener.address {
            return None;
        }
        held.socket.take()
    }
}

fn open(address: SocketAddr, ours: &HashSet<SocketAddr>) -> io::Result<TcpListener> {
    if !ours.contains(&address) {
        accept::check_free(address)?;
    }
    accept::listen(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::{HttpManager, RouteTable, SnapshotBuilder};

    fn snapshot(listeners: &[(&str, SocketAddr)]) -> Arc<Snapshot> {
        let mut builder = SnapshotBuilder::new();
        builder.routes(RouteTable::new("t"));
        for (name, address) in listeners {
            builder.listener(Listener::http(*name, *address, HttpManager::new("s", "t")));
        }
        builder.build().unwrap().0
    }

    /// An address that is taken for as long as the socket lives.
    fn taken() -> (TcpListener, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[test]
    fn who_connects_before_the_socket_is_taken_waits_in_it() {
        let (socket, address) = taken();
        drop(socket);
        let gate = Gate::default();
        let snapshot = snapshot(&[("a", address)]);
        gate.prepare(&snapshot);
        let caller = std::net::TcpStream::connect(address).unwrap();
        let socket = gate.take(&snapshot.listeners()[0]).unwrap();
        let (_, peer) = socket.accept().unwrap();
        assert_eq!(peer, caller.local_addr().unwrap());
        assert!(
            gate.take(&snapshot.listeners()[0]).is_none(),
            "it is taken once"
        );
    }

    #[test]
    fn what_somebody_else_has_is_left_to_the_reconciler_until_it_is_free() {
        let (socket, address) = taken();
        let gate = Gate::default();
        let snapshot = snapshot(&[("a", address)]);
        gate.prepare(&snapshot);
        assert!(gate.take(&snapshot.listeners()[0]).is_none());
        drop(socket);
        gate.prepare(&snapshot);
        assert!(gate.take(&snapshot.listeners()[0]).is_some());
    }

    #[test]
    fn an_address_that_changes_hands_is_not_mistaken_for_a_strangers() {
        let (socket, address) = taken();
        drop(socket);
        let gate = Gate::default();
        let before = snapshot(&[("a", address)]);
        gate.prepare(&before);
        let _serving = gate.take(&before.listeners()[0]).unwrap();
        let after = snapshot(&[("b", address)]);
        gate.prepare(&after);
        assert!(gate.take(&before.listeners()[0]).is_none());
        assert!(gate.take(&after.listeners()[0]).is_some());
    }

    #[test]
    fn what_left_before_it_was_taken_is_closed() {
        let (socket, address) = taken();
        drop(socket);
        let gate = Gate::default();
        gate.prepare(&snapshot(&[("a", address)]));
        gate.prepare(&snapshot(&[]));
        assert!(std::net::TcpStream::connect(address).is_err());
    }
}
