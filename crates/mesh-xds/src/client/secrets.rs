//! Secrets from a service of their own: an agent on the same machine, SPIRE.
//!
//! A listener or cluster may say that its secrets are at a cluster of its own rather than with the
//! control plane. [`Client::services`] says which are needed from where; a [`SecretClient`] for
//! each such cluster and variant asks for them, and hands over what comes. Secrets that came stay
//! in use while the service is away.

use super::driver::{now, sleep_until};
use super::incoming::{Api, Opening};
use super::machine::{Config, Event, Machine, Request, Variant};
use super::remote::{Keys, Patience, Remote, remotes};
use super::{Client, Handle, Server, ServiceReference};
use crate::read::Resource;
use crate::{Node, TypeUrl};
use mesh_core::model::SecretName;
use mesh_core::{Feed, Invalid, Name, Rng};
use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::mpsc;

/// Requests that wait for the connection to take them.
const REQUESTS: usize = 16;

/// How long a connection may take to be there.
const CONNECT: Duration = Duration::from_secs(5);

/// Asks a secret discovery service for what a [`Client`] needs of it.
pub struct SecretClient {
    cluster: Name,
    remote: Remote,
    keys: Keys,
    machine: Machine<Resource>,
    needed: Feed<BTreeSet<ServiceReference>>,
    asked: BTreeSet<Name>,
    with_files: bool,
    handle: Handle,
    random: Rng,
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
            cluster: cluster.into(),
            // One server is one remote.
            remote: found.remove(0),
            keys,
            machine: Machine::new(config, crate::read::resource),
            needed: client.services(),
            asked: BTreeSet::new(),
            with_files: true,
            handle: client.handle(),
            random: Rng::from_system(),
        })
    }

    /// Leaves out secrets whose names say in which files they lie ([`SecretName`]): somebody else
    /// reads those.
    #[must_use]
    pub fn without_files(mut self) -> Self {
        self.with_files = false;
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
        loop {
            self.ask(&needed);
            if !self.asked.is_empty() {
                return Some(());
            }
            needed = self.needed.changed().await.ok()?;
        }
    }

    async fn serve(&mut self) {
        loop {
            // Without anything to ask for there is no reason to be connected.
            while self.asked.is_empty() || self.machine.retry_at().is_some_and(|at| at > now()) {
                let until = self.machine.retry_at().filter(|_| !self.asked.is_empty());
                tokio::select! {
                    () = sleep_until(until) => {}
                    changed = self.needed.changed() => match changed {
                        Ok(needed) => self.ask(&needed),
                        Err(_) => return,
                    },
                }
            }
            let Some(error) = self.session().await else {
                return;
            };
            let (cluster, server) = (&self.cluster, &self.remote.uri);
            tracing::warn!(%cluster, %server, %error, "no secret service; secrets stay as they are");
            self.machine.stream_ended();
            self.machine.closed(now(), self.random.word());
        }
    }

    /// Asks for what is needed from here, and for nothing else.
    fn ask(&mut self, needed: &BTreeSet<ServiceReference>) {
        let is_ours = |one: &&ServiceReference| {
            let in_files = !matches!(SecretName::of(&one.name), SecretName::Other(_));
            one.cluster == self.cluster
                && one.variant == self.machine.config().variant
                && (self.with_files || !in_files)
        };
        let ours = needed.iter().filter(is_ours);
        let ours: BTreeSet<Name> = ours.map(|one| one.name.clone()).collect();
        for name in ours.difference(&self.asked) {
            self.machine.subscribe(TypeUrl::Secret, name);
        }
        for name in self.asked.difference(&ours) {
            self.machine.unsubscribe(TypeUrl::Secret, name);
        }
        self.asked = ours;
    }

    /// One stream, until it fails for this reason. None: the client has ended.
    async fn session(&mut self) -> Option<String> {
        let channel = match self.remote.connect().await {
            Ok(channel) => channel,
            Err(error) => return Some(error),
        };
        self.machine.opened(&self.remote.uri);
        let (requests, queue) = mpsc::channel(REQUESTS);
        // What a server answers it may answer only after a first request.
        self.send(&requests);
        let opening = Opening {
            api: Api::Secrets,
            variant: self.machine.config().variant,
            message: self.machine.config().limits.message,
        };
        let mut incoming = match opening.open(channel, &self.remote, queue).await {
            Ok(incoming) => incoming,
            Err(error) => return Some(error),
        };
        loop {
            self.send(&requests);
            let reads = self.machine.may_receive();
            let full = requests.capacity() == 0;
            tokio::select! {
                message = incoming.next(), if reads => match message {
                    Ok(response) => {
                        self.machine.receive(response, now());
                        self.hand_over().await?;
                    }
                    Err(error) => return Some(error),
                },
                changed = self.needed.changed() => match changed {
                    Ok(needed) => self.ask(&needed),
                    Err(_) => return None,
                },
                _ = requests.reserve(), if full => {}
                () = sleep_until(self.machine.deadline()) => self.machine.tick(now()),
            }
        }
    }

    fn send(&mut self, requests: &mpsc::Sender<Request>) {
        while let Ok(place) = requests.try_reserve() {
            match self.machine.poll_request(now()) {
                Some(request) => place.send(request),
                None => return,
            }
        }
    }

    /// Gives what came to the client, and answers as it says. None: the client has ended.
    async fn hand_over(&mut self) -> Option<()> {
        let variant = self.machine.config().variant;
        while let Some(event) = self.machine.poll_event() {
            let update = match event {
                Event::Update(update) => update,
                Event::Missing(_, name) | Event::Absent(_, name) => {
                    tracing::info!(cluster = %self.cluster, %name, "there is no such secret");
                    continue;
                }
                Event::Refused(_, error) => {
                    tracing::warn!(cluster = %self.cluster, %error, "a response was refused");
                    continue;
                }
            };
            let mut secrets = Vec::new();
            let mut names = Vec::new();
            for (name, resource) in update.resources {
                match resource {
                    Resource::Secret(secret) => {
                        secrets.push(secret);
                        names.push(name);
                    }
                    _ => {
                        let error = "is not a secret".to_owned();
                        self.machine.settle(update.ticket, &name, Err(error));
                    }
                }
            }
            let supplied =
                self.handle
                    .supply_secrets(self.cluster.clone(), variant, secrets, update.removed);
            let refused = pin!(supplied).await.ok()?;
            for name in names {
                let error = refused.iter().find(|(refused, _)| *refused == name);
                let result = error.map_or(Ok(()), |(_, error)| Err(error.to_string()));
                self.machine.settle(update.ticket, &name, result);
            }
            self.machine.handed_over(update.ticket);
        }
        Some(())
    }
}

impl fmt::Debug for SecretClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretClient")
            .field("cluster", &self.cluster)
            .field("server", &self.remote.uri)
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}
