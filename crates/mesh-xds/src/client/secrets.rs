//! Secrets from a service of their own: an agent on the same machine, SPIRE.
//!
//! A listener or cluster may say that its secrets are at a cluster of its own rather than with the
//! control plane. [`Client::services`] says which are needed from where; a [`SecretClient`] for
//! each such cluster and variant asks for them, and hands over what comes. Secrets that came stay
//! in use while the service is away.

mod stream;

use super::machine::{Config, Variant};
use super::remote::{Keys, Patience, Remote, remotes};
use super::{Client, Handle, Server, ServiceReference};
use crate::Node;
use futures_util::stream::{FuturesUnordered, StreamExt};
use mesh_core::model::{SecretName, StreamOpening};
use mesh_core::{Feed, Invalid, Name};
use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::time::Duration;
use stream::Stream;

/// How long a connection may take to be there.
const CONNECT: Duration = Duration::from_secs(5);

/// How many streams there may be at once. What is asked with yet another beginning has to wait.
const STREAMS: usize = 64;

/// Asks a secret discovery service for what a [`Client`] needs of it: on one stream for all that is
/// asked with the same [`StreamOpening`].
pub struct SecretClient {
    service: Service,
    remote: Remote,
    keys: Keys,
    needed: Feed<BTreeSet<ServiceReference>>,
    handle: Handle,
}

/// The service, and what is asked of it.
#[derive(Clone)]
struct Service {
    cluster: Name,
    config: Config,
    with_files: bool,
}

// === impl SecretClient ===

impl SecretClient {
    /// Asks the service of this cluster, at `server`, for what `client` needs of it in this
    /// variant.
    ///
    /// # Errors
    /// If the server is none that can be reached.
    pub fn new(
        client: &Client,
        cluster: impl Into<Name>,
        server: impl Into<Server>,
        variant: Variant,
        node: Node,
    ) -> Result<Self, Invalid> {
        let mut config = Config::new(node);
        config.variant = variant;
        let patience = Patience {
            connect: CONNECT,
            keep_alive: None,
        };
        let (mut found, keys) = remotes(vec![server.into()], patience)?;
        Ok(Self {
            service: Service {
                cluster: cluster.into(),
                config,
                with_files: true,
            },
            // One server is one remote.
            remote: found.remove(0),
            keys,
            needed: client.services(),
            handle: client.handle(),
        })
    }

    /// Leaves out secrets whose names say in which files they lie ([`SecretName`]): somebody else
    /// reads those.
    #[must_use]
    pub fn without_files(mut self) -> Self {
        self.service.with_files = false;
        self
    }

    /// Runs until `shutdown` is ready or the client has ended.
    ///
    /// # Cancel safety
    /// Dropped, it leaves the secrets that came in use.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut keys = std::mem::take(&mut self.keys);
        let serve = async {
            // No files are read for a service that nobody needs.
            if self.first_needed().await.is_none() {
                return;
            }
            keys.refresh().await;
            tokio::select! {
                () = keys.run() => {}
                () = self.serve() => {}
            }
        };
        tokio::select! {
            () = shutdown => {}
            () = serve => {}
        }
    }

    /// Until there is something to ask for. None: the client has ended.
    async fn first_needed(&mut self) -> Option<()> {
        let mut needed = self.needed.load();
        while !needed.iter().any(|one| self.service.has(one)) {
            needed = self.needed.changed().await.ok()?;
        }
        Some(())
    }

    /// Starts a stream for each beginning that is needed; each ends by itself.
    async fn serve(&mut self) {
        let mut running = BTreeSet::new();
        let mut without = BTreeSet::new();
        let mut streams = FuturesUnordered::new();
        loop {
            let needed = self.needed.load();
            let needed = needed.iter().filter(|one| self.service.has(one));
            let wanted: BTreeSet<_> = needed.map(|one| one.opening.clone()).collect();
            without.retain(|one| wanted.contains(one));
            for opening in wanted {
                if running.contains(&opening) {
                    continue;
                }
                match self.stream(&opening, running.len()) {
                    Ok(stream) => {
                        streams.push(stream.run());
                        without.remove(&opening);
                        running.insert(opening);
                    }
                    // Said once, as long as it is wanted.
                    Err(error) if without.insert(opening.clone()) => {
                        let cluster = &self.service.cluster;
                        tracing::warn!(%cluster, ?opening, %error, "secrets cannot be asked for");
                    }
                    Err(_) => {}
                }
            }
            tokio::select! {
                Some(ended) = streams.next() => {
                    running.remove(&ended);
                }
                changed = self.needed.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }

    fn stream(&self, opening: &StreamOpening, running: usize) -> Result<Stream, Invalid> {
        if running >= STREAMS {
            let message = format!("there are {STREAMS} streams already, which is the most");
            return Err(Invalid::new("", message));
        }
        Ok(Stream::new(
            self.service.clone(),
            opening.clone(),
            self.remote.opened_with(opening)?,
            self.needed.clone(),
            self.handle.clone(),
        ))
    }
}

impl fmt::Debug for SecretClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretClient")
            .field("cluster", &self.service.cluster)
            .field("server", &self.remote.uri)
            .finish_non_exhaustive()
    }
}

// === impl Service ===

impl Service {
    /// Whether this is to be asked of it here.
    fn has(&self, one: &ServiceReference) -> bool {
        let in_files = !matches!(SecretName::of(&one.name), SecretName::Other(_));
        one.cluster == self.cluster
            && one.variant == self.config.variant
            && (self.with_files || !in_files)
    }
}
