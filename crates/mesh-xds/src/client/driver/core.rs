//! Machine, assembly and publishers together: everything of a client but its sockets.

use super::Prepare;
use crate::TypeUrl;
use crate::assemble::{Assemble, Change, Interest, Step, To};
use crate::client::demand::{DemandLimits, Demands, Key};
use crate::client::handle::{Command, FileReference, ServiceReference};
use crate::client::machine::{Event, Machine, Update};
use crate::client::status::Status;
use crate::read::{Resource, Source, VirtualHostResource};
use mesh_core::demand::Outcome;
use mesh_core::model::Snapshot;
use mesh_core::{Feed, Invalid, Name, Publisher, WallClock};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The ticket of what is given by others: from files and services.
const GIVEN: u64 = 0;

pub(super) struct Core {
    pub(super) machine: Machine,
    pub(super) assemble: Assemble,
    pub(super) snapshots: Publisher<Snapshot>,
    status: Publisher<Status>,
    files: Publisher<BTreeSet<FileReference>>,
    services: Publisher<BTreeSet<ServiceReference>>,
    prepare: Option<Prepare>,
    /// What each file has.
    supplied: HashMap<(TypeUrl, PathBuf), BTreeSet<Name>>,
    pub(super) demands: Demands,
    /// What came on demand and is given up, to be unsubscribed from.
    pub(super) dropped: Vec<Key>,
    initial_fetch_timeout: Option<Duration>,
    clock: WallClock,
}

// === impl Core ===

impl Core {
    pub(super) fn new(
        machine: Machine,
        mut assemble: Assemble,
        fixed: Vec<Resource>,
        prepare: Option<Prepare>,
        initial_fetch_timeout: Option<Duration>,
        demand_limits: DemandLimits,
        clock: WallClock,
    ) -> Result<Self, Invalid> {
        let step = assemble.fix(fixed, super::now());
        let refused = |verdict: &crate::assemble::Verdict| {
            let name = format!("{}[{}]", verdict.kind.short(), verdict.name);
            verdict.result.clone().map_err(|error| error.within(name))
        };
        step.verdicts.iter().try_for_each(refused)?;
        let status = Status {
            connected: false,
            since: clock.now(),
            server: None,
            last_error: None,
            kinds: BTreeMap::new(),
        };
        let mut core = Self {
            machine,
            snapshots: Publisher::from_arc(assemble.snapshot().clone()),
            assemble,
            status: Publisher::new(status),
            files: Publisher::new(BTreeSet::new()),
            services: Publisher::new(BTreeSet::new()),
            prepare,
            supplied: HashMap::new(),
            demands: Demands::new(demand_limits),
            dropped: Vec::new(),
            initial_fetch_timeout,
            clock,
        };
        core.act(step);
        Ok(core)
    }

    pub(super) fn snapshots(&self) -> Feed<Snapshot> {
        self.snapshots.feed()
    }

    pub(super) fn status(&self) -> Feed<Status> {
        self.status.feed()
    }

    pub(super) fn files(&self) -> Feed<BTreeSet<FileReference>> {
        self.files.feed()
    }

    pub(super) fn services(&self) -> Feed<BTreeSet<ServiceReference>> {
        self.services.feed()
    }

    pub(super) fn started(&mut self, now: Instant) {
        if let Some(wait) = self.initial_fetch_timeout {
            self.assemble.expect_clusters(now + wait);
        }
    }

    /// When [`Core::tick`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let machine = self.machine.deadline();
        machine.into_iter().chain(self.assemble.deadline()).min()
    }

    pub(super) fn tick(&mut self, now: Instant) {
        self.machine.tick(now);
        let step = self.assemble.tick(now);
        self.act(step);
        self.work(now);
    }

    /// Applies what the machine hands on, and publishes it before it is acknowledged.
    pub(super) fn work(&mut self, now: Instant) {
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Update(update) => self.update(update, now),
                Event::Missing(kind, name) => {
                    tracing::info!(kind = kind.short(), %name, "the control plane has no such resource");
                }
                Event::Absent(kind, name) => self.answered(&(kind, name), Outcome::Absent, now),
                Event::Refused(kind, error) => {
                    tracing::warn!(%kind, %error, "a response of the control plane was refused");
                }
            }
        }
        if !self.dropped.is_empty() {
            self.let_go(now);
            return self.work(now);
        }
        self.publish_status();
    }

    fn update(&mut self, update: Update<Resource>, now: Instant) {
        let Update {
            ticket,
            kind,
            resources,
            removed,
        } = update;
        if kind == TypeUrl::Cluster {
            self.assemble.clusters_answered();
        }
        let absent: Vec<Name> = match kind {
            TypeUrl::Cluster => removed.clone(),
            _ => Vec::new(),
        };
        let gone = removed.into_iter().map(|name| To::Gone(kind, name));
        let came = resources.into_iter().map(|(name, resource)| {
            To::Is(match resource {
                Resource::VirtualHost(host) => {
                    Resource::VirtualHost(Box::new(VirtualHostResource { name, ..*host }))
                }
                other => other,
            })
        });
        let changes = gone.chain(came).map(|to| Change {
            from: Source::Ads,
            ticket,
            to,
        });
        let step = self.assemble.apply(changes.collect(), now);
        self.act(step);
        self.machine.handed_over(ticket);
        for name in absent {
            self.answered(&(kind, name), Outcome::Absent, now);
        }
    }

    /// Publishes, subscribes and answers as a step says. Returns what was refused of files.
    pub(super) fn act(&mut self, step: Step) -> Vec<(Name, Invalid)> {
        if let Some(snapshot) = step.snapshot {
            if let Some(prepare) = &self.prepare {
                prepare(&snapshot);
            }
            self.snapshots.publish(snapshot);
            self.clusters_came();
        }
        for warning in step.warnings {
            tracing::warn!(%warning, "configuration");
        }
        let mut files = None;
        let mut services = None;
        for interest in step.interests {
            match interest {
                Interest::Start(TypeUrl::VirtualHost, table) => self.machine.follow(&table.name),
                Interest::Stop(TypeUrl::VirtualHost, _, table) => self.unfollow(&table),
                Interest::Start(kind, to) => match to.from {
                    Source::Ads => self.machine.subscribe(kind, &to.name),
                    Source::Service(cluster) => {
                        let services =
                            services.get_or_insert_with(|| (*self.services.load()).clone());
                        let name = to.name;
                        services.insert(ServiceReference { cluster, name });
                    }
                    Source::Path(path) => {
                        let files = files.get_or_insert_with(|| (*self.files.load()).clone());
                        forget(files, kind, &path, &to.name);
                        files.insert(FileReference {
                            kind,
                            path,
                            name: to.name,
                            watched_directory: to.watched_directory,
                        });
                    }
                },
                Interest::Stop(kind, from, name) => match from {
                    Source::Ads => self.machine.unsubscribe(kind, &name),
                    Source::Service(cluster) => {
                        let services =
                            services.get_or_insert_with(|| (*self.services.load()).clone());
                        services.remove(&ServiceReference { cluster, name });
                    }
                    Source::Path(path) => {
                        let files = files.get_or_insert_with(|| (*self.files.load()).clone());
                        forget(files, kind, &path, &name);
                    }
                },
            }
        }
        if let Some(files) = files {
            self.files.publish(Arc::new(files));
        }
        if let Some(services) = services {
            self.services.publish(Arc::new(services));
        }
        let mut refused = Vec::new();
        self.hosts_settled(&step.verdicts);
        for verdict in step.verdicts {
            if let Err(error) = &verdict.result {
                let (kind, name) = (verdict.kind.short(), &verdict.name);
                tracing::warn!(kind, %name, %error, "a resource was refused; the last good one stays");
            }
            if verdict.ticket == GIVEN {
                refused.extend(verdict.result.err().map(|error| (verdict.name, error)));
            } else {
                let result = verdict.result.map_err(|error| error.to_string());
                self.machine.settle(verdict.ticket, &verdict.name, result);
            }
        }
        refused
    }

    pub(super) fn command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Ask { missing, answer } => self.ask(&missing, answer, now),
            Command::Resources { kind, answer } => {
                // Who asked may have lost interest; that is no concern of ours.
                let resources = self.machine.resources(kind).map(|mut resource| {
                    resource.waits = self.assemble.waits(kind, &resource.name);
                    resource
                });
                let _ = answer.send(resources.collect());
            }
            Command::SupplySecrets {
                cluster,
                secrets,
                gone,
                answer,
            } => {
                let from = Source::Service(cluster);
                let gone = gone.into_iter().map(|name| To::Gone(TypeUrl::Secret, name));
                let came = secrets.into_iter().map(|one| To::Is(Resource::Secret(one)));
                let changes = gone.chain(came).map(|to| Change {
                    from: from.clone(),
                    ticket: GIVEN,
                    to,
                });
                let step = self.assemble.apply(changes.collect(), now);
                let refused = self.act(step);
                self.work(now);
                let _ = answer.send(refused);
            }
            Command::Supply {
                kind,
                path,
                resources,
                answer,
            } => {
                let refused = self.supply(kind, path, resources, now);
                self.work(now);
                let _ = answer.send(refused);
            }
        }
    }

    fn supply(
        &mut self,
        kind: TypeUrl,
        path: PathBuf,
        resources: Vec<Resource>,
        now: Instant,
    ) -> Vec<(Name, Invalid)> {
        let names: BTreeSet<Name> = resources.iter().map(name_of).collect();
        let from = Source::Path(path.clone());
        let before = self.supplied.insert((kind, path), names.clone());
        let gone = before
            .into_iter()
            .flatten()
            .filter(|name| !names.contains(name));
        let changes = gone
            .map(|name| To::Gone(kind, name))
            .chain(resources.into_iter().map(To::Is))
            .map(|to| Change {
                from: from.clone(),
                ticket: GIVEN,
                to,
            });
        let step = self.assemble.apply(changes.collect(), now);
        self.act(step)
    }

    /// A stream is open.
    pub(super) fn connected(&mut self, server: &Name) {
        tracing::info!(%server, "connected to the control plane");
        let mut status = (*self.status.load()).clone();
        status.connected = true;
        status.since = self.clock.now();
        status.server = Some(server.clone());
        self.status.publish(Arc::new(status));
    }

    /// The stream ended, for this reason unless we ended it.
    pub(super) fn closed(&mut self, why: Option<(Option<Name>, String)>, now: Instant) {
        self.machine.stream_ended();
        let mut status = (*self.status.load()).clone();
        if status.connected {
            status.connected = false;
            status.since = self.clock.now();
        }
        if let Some((server, error)) = why {
            // Said once for as long as nothing else happens.
            if status.last_error.as_ref() != Some(&error) {
                tracing::warn!(server = server.as_deref(), %error, "no control plane; the last configuration stays");
            }
            status.last_error = Some(error);
        }
        self.status.publish(Arc::new(status));
        self.work(now);
    }

    fn publish_status(&self) {
        let old = self.status.load();
        let kinds: BTreeMap<_, _> = self.machine.kinds().collect();
        if old.kinds != kinds {
            let mut status = (*old).clone();
            status.kinds = kinds;
            self.status.publish(Arc::new(status));
        }
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// A resource in a file is no longer wanted as it was.
fn forget(files: &mut BTreeSet<FileReference>, kind: TypeUrl, path: &Path, name: &Name) {
    files.retain(|file| file.kind != kind || file.path != *path || file.name != *name);
}

fn name_of(resource: &Resource) -> Name {
    match resource {
        Resource::Cluster(cluster) => cluster.cluster.name.clone(),
        Resource::Endpoints(endpoints) => endpoints.name.clone(),
        Resource::Listener(listener) => listener.listener.name.clone(),
        Resource::Routes(table) => table.name.clone(),
        Resource::Secret(secret) => secret.name.clone(),
        Resource::VirtualHost(host) => host.name.clone(),
    }
}
