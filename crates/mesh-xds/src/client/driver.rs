//! Drives machines over gRPC and publishes snapshots.

mod builder;
mod core;
mod demand;
mod describe;
mod given;
mod lane;
mod names;
mod session;
mod sotw;

pub use builder::{Builder, Prepare, Wanted};

use self::core::Core;
use super::Server;
use super::handle::{Command, FileReference, Handle, ServiceReference};
use super::remote::Keys;
use super::status::Status;
use futures_util::future::join_all;
use lane::Lane;
use mesh_core::Feed;
use mesh_core::discovery::NameTable;
use mesh_core::model::Snapshot;
use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, mpsc};

/// A client of a control plane, or of one for each authority.
///
/// It asks for all listeners and clusters, or for those that it is told, and for the route tables
/// and endpoints that those refer to. Nothing is spawned by it; only what tonic needs for a
/// connection runs on the current runtime, and ends with the connection.
pub struct Client {
    shared: Shared,
    lanes: Vec<Lane>,
    keys: Keys,
    commands: mpsc::Receiver<Command>,
    handle: Handle,
}

/// What the streams of a client have in common.
struct Shared {
    // Held between two awaits only.
    core: Mutex<Core>,
    /// Tells each stream that there may be something to send.
    lanes: Vec<Notify>,
    /// Tells that timers may have changed.
    timers: Notify,
}

// === impl Client ===

impl Client {
    /// A client of these servers, the best first: see [`Fallback`](super::Fallback) for when
    /// another one is spoken to than the first. Without servers there is only what files and the
    /// bootstrap say.
    pub fn builder<S: Into<Server>>(servers: impl IntoIterator<Item = S>) -> Builder {
        Builder::new(servers.into_iter().map(Into::into).collect())
    }

    /// Snapshots, now and from now on.
    pub fn snapshots(&self) -> Feed<Snapshot> {
        self.shared.core().snapshots()
    }

    /// How it stands with the control plane.
    pub fn status(&self) -> Feed<Status> {
        self.shared.core().status()
    }

    /// The names that the node may resolve in the mesh, once they came; see [`Builder::names`].
    pub fn names(&self) -> Feed<Option<NameTable>> {
        self.shared.core().table()
    }

    /// Resources that are referred to and are in files; somebody else reads and watches those, and
    /// gives them to [`Handle::supply`].
    pub fn files(&self) -> Feed<BTreeSet<FileReference>> {
        self.shared.core().files()
    }

    /// Secrets that are referred to and that services of their own have; somebody else asks those
    /// ([`SecretClient`](super::SecretClient) does), and gives the answers to
    /// [`Handle::supply_secrets`].
    pub fn services(&self) -> Feed<BTreeSet<ServiceReference>> {
        self.shared.core().services()
    }

    /// Talks to the client while it runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until `shutdown` is ready.
    ///
    /// # Cancel safety
    /// Dropped, it leaves the last snapshot with everybody who has a feed of it.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self {
            shared,
            mut lanes,
            mut keys,
            mut commands,
            // While it lives there may always be another command.
            handle: _handle,
        } = self;
        let shared = &shared;
        let serve = async {
            shared.core().started(now());
            let streams = async {
                keys.refresh().await;
                let lanes = lanes.iter_mut().map(|lane| lane.serve(shared));
                tokio::join!(join_all(lanes), keys.run());
            };
            tokio::join!(streams, shared.attend(&mut commands));
        };
        // Only handles of others keep it: nobody waits for an answer that does not come.
        tokio::select! {
            () = shutdown => {}
            () = serve => {}
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("lanes", &self.lanes)
            .field("core", &*self.shared.core())
            .finish()
    }
}

// === impl Shared ===

impl Shared {
    fn core(&self) -> MutexGuard<'_, Core> {
        // It is whole between two calls, whatever panicked in one.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened on one stream, or on none: the others, and the timers, may have to do
    /// something.
    fn happened(&self, on: Option<usize>) {
        for (index, lane) in self.lanes.iter().enumerate() {
            if Some(index) != on {
                lane.notify_one();
            }
        }
        self.timers.notify_one();
    }

    /// Does what commands and timers say.
    async fn attend(&self, commands: &mut mpsc::Receiver<Command>) {
        loop {
            let deadline = self.core().deadline();
            tokio::select! {
                () = sleep_until(deadline) => self.core().tick(now()),
                Some(command) = commands.recv() => self.core().command(command, now()),
                () = self.timers.notified() => continue,
            }
            self.happened(None);
        }
    }
}

pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

pub(super) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
