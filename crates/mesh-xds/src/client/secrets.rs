//! Secrets from a service of their own: an agent on the same machine, SPIRE.
//!
//! A listener or cluster may say that its secrets are at a cluster of its own rather than with the
//! control plane. [`Client::services`] says which are needed from where; a [`SecretClient`] for
//! each such cluster asks for them, in the state-of-the-world variant that every such service
//! speaks, and hands over what comes. Secrets that came stay in use while the service is away.

use super::driver::{endpoint, now, said, sleep_until, with_sources};
use super::machine::{Config, Event, Machine, Request, Response, Variant};
use super::{Client, Handle, ServiceReference};
use crate::pb::envoy::service::discovery::v3::DiscoveryResponse;
use crate::pb::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
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
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

/// Requests that wait for the connection to take them.
const REQUESTS: usize = 16;

/// How long a connection may take to be there.
const CONNECT: Duration = Duration::from_secs(5);

/// Asks a secret discovery service for what a [`Client`] needs of it.
pub struct SecretClient {
    cluster: Name,
    uri: Name,
    endpoint: Endpoint,
    machine: Machine<Resource>,
    needed: Feed<BTreeSet<ServiceReference>>,
    asked: BTreeSet<Name>,
    with_files: bool,
    handle: Handle,
    random: Rng,
}

// === impl SecretClient ===

impl SecretClient {
    /// Asks the service of this cluster, at `server` (`http://HOST:PORT`), for what `client` needs
    /// of it.
    ///
    /// # Errors
    /// If the address is none that can be reached.
    pub fn new(
        client: &Client,
        cluster: impl Into<Name>,
        server: &str,
        node: Node,
    ) -> Result<Self, Invalid> {
        let mut config = Config::new(node);
        config.variant = Variant::Sotw;
        Ok(Self {
            cluster: cluster.into(),
            uri: server.into(),
            endpoint: endpoint(server)?.connect_timeout(CONNECT).tcp_nodelay(true),
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
        tokio::select! {
            () = shutdown => {}
            () = self.serve() => {}
        }
    }

    async fn serve(&mut self) {
        let needed = self.needed.load();
        self.ask(&needed);
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
            let (cluster, server) = (&self.cluster, &self.uri);
            tracing::warn!(%cluster, %server, %error, "no secret service; secrets stay as they are");
            self.machine.stream_ended();
            self.machine.closed(now(), self.random.word());
        }
    }

    /// Asks for what is needed from here, and for nothing else.
    fn ask(&mut self, needed: &BTreeSet<ServiceReference>) {
        let is_ours = |one: &&ServiceReference| {
            let in_files = !matches!(SecretName::of(&one.name), SecretName::Other(_));
            one.cluster == self.cluster && (self.with_files || !in_files)
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
        let channel = match self.endpoint.connect().await {
            Ok(channel) => channel,
            Err(error) => return Some(with_sources(&error)),
        };
        self.machine.opened(&self.uri);
        let (requests, queue) = mpsc::channel(REQUESTS);
        // What a server answers it may answer only after a first request.
        self.send(&requests);
        let queue = ReceiverStream::new(queue).filter_map(|request| match request {
            Request::Sotw(request) => Some(*request),
            Request::Delta(_) => None,
        });
        let message = self.machine.config().limits.message;
        let mut client = SecretDiscoveryServiceClient::new(channel)
            .max_decoding_message_size(message)
            .max_encoding_message_size(message);
        let mut incoming: Streaming<DiscoveryResponse> = match client.stream_secrets(queue).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Some(said(&status)),
        };
        loop {
            self.send(&requests);
            let reads = self.machine.may_receive();
            let full = requests.capacity() == 0;
            tokio::select! {
                message = incoming.message(), if reads => match message {
                    Ok(Some(response)) => {
                        self.machine.receive(Response::Sotw(Box::new(response)), now());
                        self.hand_over().await?;
                    }
                    Ok(None) => return Some("the server ended the stream".to_owned()),
                    Err(status) => return Some(said(&status)),
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
                    .supply_secrets(self.cluster.clone(), secrets, update.removed);
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
            .field("uri", &self.uri)
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}
