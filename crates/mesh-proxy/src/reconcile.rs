//! From snapshots to listening sockets.
//!
//! Runs beside the workers: opens the sockets of new listeners (one for each worker), closes those
//! that are gone, and hands changed settings over. Routes and clusters need nothing of this; the
//! workers' stacks read them from the feed.

use crate::accept;
use crate::worker::Command;
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

pub(crate) struct Reconciler {
    workers: Vec<mpsc::UnboundedSender<Command>>,
    open: HashMap<Name, Arc<Listener>>,
    /// Addresses that are or were ours: their sockets may still be draining.
    ours: HashSet<SocketAddr>,
    status: Publisher<Listening>,
}

// === impl Reconciler ===

impl Reconciler {
    pub(crate) fn new(workers: Vec<mpsc::UnboundedSender<Command>>) -> Self {
        Self {
            workers,
            open: HashMap::new(),
            ours: HashSet::new(),
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
        let wanted: HashMap<&Name, &Arc<Listener>> = snapshot
            .listeners()
            .iter()
            .map(|listener| (&listener.name, listener))
            .collect();
        // First what is gone or moved: another listener may want its address.
        let gone: Vec<Name> = self
            .open
            .iter()
            .filter(|(name, open)| wanted.get(name).is_none_or(|l| l.address != open.address))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.open.remove(&name);
            tracing::info!(listener = %name, "closed");
            self.tell(|| Command::Close(name.clone()));
        }
        for listener in snapshot.listeners() {
            match self.open.get(&listener.name) {
                Some(open) if *open == *listener => {}
                Some(_) => self.tell(|| Command::Update(listener.clone())),
                None => {
                    if let Err(error) = self.open(listener) {
                        let message = format!("cannot listen on {}: {error}", listener.address);
                        tracing::error!(listener = %listener.name, "{message}");
                        status.failed.insert(listener.name.clone(), message);
                        continue;
                    }
                    tracing::info!(listener = %listener.name, address = %listener.address, "open");
                }
            }
            self.open.insert(listener.name.clone(), listener.clone());
            status.open.insert(listener.name.clone(), listener.address);
        }
        let again = !status.failed.is_empty();
        self.status.publish(Arc::new(status));
        again
    }

    fn open(&mut self, listener: &Arc<Listener>) -> io::Result<()> {
        if !self.ours.contains(&listener.address) {
            accept::check_free(listener.address)?;
        }
        // All or none: a worker without its socket would leave its share unserved.
        let sockets = self
            .workers
            .iter()
            .map(|_| accept::listen(listener.address))
            .collect::<Result<Vec<_>, _>>()?;
        self.ours.insert(listener.address);
        for (worker, socket) in self.workers.iter().zip(sockets) {
            // A worker that is gone is draining.
            let _ = worker.send(Command::Open(listener.clone(), socket));
        }
        Ok(())
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
