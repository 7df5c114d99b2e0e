//! A stream to a secret service: what is asked on it, and what comes.

use super::Service;
use crate::TypeUrl;
use crate::client::driver::{now, sleep_until};
use crate::client::incoming::{Api, Opening};
use crate::client::machine::{Event, Machine, Request};
use crate::client::remote::Remote;
use crate::client::{Handle, ServiceReference};
use crate::read::Resource;
use mesh_core::model::StreamOpening;
use mesh_core::{Feed, Name, Rng};
use std::collections::BTreeSet;
use std::pin::pin;
use tokio::sync::mpsc;

/// Requests that wait for the connection to take them.
const REQUESTS: usize = 16;

/// One stream after the other, as long as there is something to ask on them.
pub(super) struct Stream {
    service: Service,
    opening: StreamOpening,
    remote: Remote,
    machine: Machine<Resource>,
    needed: Feed<BTreeSet<ServiceReference>>,
    asked: BTreeSet<Name>,
    handle: Handle,
    random: Rng,
}

// === impl Stream ===

impl Stream {
    pub(super) fn new(
        service: Service,
        opening: StreamOpening,
        remote: Remote,
        needed: Feed<BTreeSet<ServiceReference>>,
        handle: Handle,
    ) -> Self {
        Self {
            machine: Machine::new(service.config.clone(), crate::read::resource),
            service,
            opening,
            remote,
            needed,
            asked: BTreeSet::new(),
            handle,
            random: Rng::from_system(),
        }
    }

    /// Runs until there is nothing to ask any more or the client has ended, and says what it began
    /// with.
    pub(super) async fn run(mut self) -> StreamOpening {
        let needed = self.needed.load();
        self.ask(&needed);
        self.serve().await;
        self.opening
    }

    async fn serve(&mut self) {
        loop {
            while self.machine.retry_at().is_some_and(|at| at > now()) {
                let until = self.machine.retry_at();
                tokio::select! {
                    () = sleep_until(until) => {}
                    changed = self.needed.changed() => match changed {
                        Ok(needed) => self.ask(&needed),
                        Err(_) => return,
                    },
                }
                if self.asked.is_empty() {
                    return;
                }
            }
            let Some(error) = self.session().await else {
                return;
            };
            let (cluster, server) = (&self.service.cluster, &self.remote.uri);
            tracing::warn!(%cluster, %server, %error, "no secret service; secrets stay as they are");
            self.machine.stream_ended();
            self.machine.closed(now(), self.random.word());
        }
    }

    /// Asks for what is needed from here, and for nothing else.
    fn ask(&mut self, needed: &BTreeSet<ServiceReference>) {
        let ours = needed.iter().filter(|one| self.service.has(one));
        let ours = ours.filter(|one| one.opening == self.opening);
        let ours: BTreeSet<Name> = ours.map(|one| one.name.clone()).collect();
        for name in ours.difference(&self.asked) {
            self.machine.subscribe(TypeUrl::Secret, name);
        }
        for name in self.asked.difference(&ours) {
            self.machine.unsubscribe(TypeUrl::Secret, name);
        }
        self.asked = ours;
    }

    /// One stream, until it fails for this reason. None: nothing is asked any more, or the client
    /// has ended.
    async fn session(&mut self) -> Option<String> {
        if self.asked.is_empty() {
            return None;
        }
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
                changed = self.needed.changed() => {
                    let needed = changed.ok()?;
                    self.ask(&needed);
                    if self.asked.is_empty() {
                        return None;
                    }
                }
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
                    tracing::info!(cluster = %self.service.cluster, %name, "there is no such secret");
                    continue;
                }
                Event::Refused(_, error) => {
                    tracing::warn!(cluster = %self.service.cluster, %error, "a response was refused");
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
            let (cluster, opening) = (self.service.cluster.clone(), self.opening.clone());
            let supplied =
                self.handle
                    .supply_secrets(cluster, variant, opening, secrets, update.removed);
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
