//! Drives the machine over gRPC and publishes snapshots.

mod builder;
mod core;
mod demand;
mod describe;
mod session;
mod sotw;

pub use builder::{Builder, Prepare, Wanted};

use self::core::Core;
use super::backoff::Backoff;
use super::handle::{Command, FileReference, Handle, ServiceReference};
use super::status::Status;
pub(super) use builder::endpoint;
use mesh_core::model::Snapshot;
use mesh_core::{Feed, Name, Rng};
use session::End;
pub(super) use session::{said, with_sources};
use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::time::Instant;
use tokio::sync::mpsc;
use tonic::transport::Endpoint;

/// A client of a control plane.
///
/// It asks for all listeners and clusters, or for those that it is told, and for the route tables
/// and endpoints that those refer to. Nothing is spawned by it; only what tonic needs for a
/// connection runs on the current runtime, and ends with the connection.
pub struct Client {
    core: Core,
    servers: Vec<Server>,
    commands: mpsc::Receiver<Command>,
    handle: Handle,
    random: Rng,
    /// How long it takes to look for a better server. It grows while those that are found turn
    /// out to be of no use.
    search: Backoff,
}

/// A control plane.
struct Server {
    uri: Name,
    endpoint: Endpoint,
}

// === impl Client ===

impl Client {
    /// A client of these servers, each `http://host:port`, the best first (gRFC A71): the next one
    /// is tried when one cannot be reached while something is still missing, and left again as
    /// soon as a better one can be reached. Without servers there is only what files and the
    /// bootstrap say.
    pub fn builder<S: Into<String>>(servers: impl IntoIterator<Item = S>) -> Builder {
        Builder::new(servers.into_iter().map(Into::into).collect())
    }

    /// Snapshots, now and from now on.
    pub fn snapshots(&self) -> Feed<Snapshot> {
        self.core.snapshots()
    }

    /// How it stands with the control plane.
    pub fn status(&self) -> Feed<Status> {
        self.core.status()
    }

    /// Resources that are referred to and are in files; somebody else reads and watches those, and
    /// gives them to [`Handle::supply`].
    pub fn files(&self) -> Feed<BTreeSet<FileReference>> {
        self.core.files()
    }

    /// Secrets that are referred to and that services of their own have; somebody else asks those
    /// ([`SecretClient`](super::SecretClient) does), and gives the answers to
    /// [`Handle::supply_secrets`].
    pub fn services(&self) -> Feed<BTreeSet<ServiceReference>> {
        self.core.services()
    }

    /// Talks to the client while it runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until `shutdown` is ready.
    ///
    /// # Cancel safety
    /// Dropped, it leaves the last snapshot with everybody who has a feed of it.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        // Only handles of others keep it: nobody waits for an answer that does not come.
        tokio::select! {
            () = shutdown => {}
            () = self.serve() => {}
        }
    }

    async fn serve(&mut self) {
        self.core.started(now());
        let mut at = 0;
        // The server that was left for a better one.
        let mut left: Option<usize> = None;
        loop {
            self.idle().await;
            let Some(server) = self.servers.get(at) else {
                // No servers at all.
                std::future::pending::<()>().await;
                return;
            };
            tracing::debug!(server = %server.uri, "connecting to the control plane");
            let end = self.session(at).await;
            let answered = self.core.machine.is_answered();
            if let End::Better(better, search) = end {
                self.search = search;
                self.core.closed(None, now());
                left = Some(at);
                at = better;
                continue;
            }
            if let End::Failed(reason) = end {
                let server = self.servers.get(at).map(|server| server.uri.clone());
                self.core.closed(Some((server, reason)), now());
            }
            if answered && at == 0 {
                self.search.reset();
            }
            let back = left.take().filter(|_| !answered);
            let last = self.servers.len() - 1;
            at = match back {
                // The better one can be reached, but is of no use.
                Some(left) => left,
                None if answered || self.core.machine.has_everything() => 0,
                None if at < last => at + 1,
                None => 0,
            };
            // The next in the list is tried at once; then it starts over after a while.
            if at == 0 || back.is_some() || answered {
                self.core.machine.closed(now(), self.random.word());
            }
        }
    }

    /// Until the next attempt to connect is due, or for ever without servers.
    async fn idle(&mut self) {
        loop {
            let retry = self.core.machine.retry_at();
            if !self.servers.is_empty() && retry.is_none_or(|at| at <= now()) {
                return;
            }
            let until = retry.filter(|_| !self.servers.is_empty());
            let until = until.into_iter().chain(self.core.deadline()).min();
            tokio::select! {
                () = sleep_until(until) => self.core.tick(now()),
                Some(command) = self.commands.recv() => self.core.command(command, now()),
            }
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = self.servers.iter().map(|server| &server.uri);
        f.debug_struct("Client")
            .field("servers", &servers.collect::<Vec<_>>())
            .field("core", &self.core)
            .finish()
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
