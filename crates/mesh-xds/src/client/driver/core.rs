//! Machines, assembly and publishers together: everything of a client but its sockets.

use super::Prepare;
use super::names::{self, Names};
use crate::TypeUrl;
use crate::assemble::{Assemble, Change, Interest, Step, To};
use crate::client::demand::{DemandLimits, Demands, Key};
use crate::client::handle::{FileReference, ServiceReference};
use crate::client::machine::{Event, KindStatus, Machine, Update, Variant};
use crate::client::remote::Remote;
use crate::client::status::{AuthorityStatus, Status};
use crate::read::{Resource, Source, VirtualHostResource};
use crate::xdstp;
use mesh_core::demand::Outcome;
use mesh_core::discovery::NameTable;
use mesh_core::model::Snapshot;
use mesh_core::{Feed, Invalid, Name, Publisher, WallClock};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The ticket of what is given by others: from files and services.
pub(super) const GIVEN: u64 = 0;

/// Tickets of several machines are told apart by the bits above these: no machine ever has so many.
const TICKET_BITS: u32 = 48;

pub(super) struct Core {
    /// The first one has the names that have no authority of their own.
    pub(super) machines: Vec<Machine>,
    /// How it stands with each machine's servers.
    standing: Vec<AuthorityStatus>,
    names: Names,
    /// Whether there is somebody who answers what requests ask for.
    pub(super) answers_demands: bool,
    /// Whether servers are kept from removing things, whatever they are told themselves.
    ignore_resource_deletion: bool,
    pub(super) assemble: Assemble,
    pub(super) snapshots: Publisher<Snapshot>,
    status: Publisher<Status>,
    files: Publisher<BTreeSet<FileReference>>,
    services: Publisher<BTreeSet<ServiceReference>>,
    table: Publisher<Option<NameTable>>,
    prepare: Option<Prepare>,
    /// What each file has.
    pub(super) supplied: HashMap<(TypeUrl, PathBuf), BTreeSet<Name>>,
    pub(super) demands: Demands,
    /// What came on demand and is given up, to be unsubscribed from.
    pub(super) dropped: Vec<Key>,
    initial_fetch_timeout: Option<Duration>,
    clock: WallClock,
}

// === impl Core ===

impl Core {
    pub(super) fn new(
        machines: Vec<Machine>,
        names: Names,
        mut assemble: Assemble,
        fixed: Vec<Resource>,
        prepare: Option<Prepare>,
        initial_fetch_timeout: Option<Duration>,
        clock: WallClock,
    ) -> Result<Self, Invalid> {
        let step = assemble.fix(fixed, super::now());
        let refused = |verdict: &crate::assemble::Verdict| {
            let name = format!("{}[{}]", verdict.kind.short(), verdict.name);
            verdict.result.clone().map_err(|error| error.within(name))
        };
        step.verdicts.iter().try_for_each(refused)?;
        let standing = AuthorityStatus {
            connected: false,
            since: clock.now(),
            server: None,
            last_error: None,
        };
        let standing = vec![standing; machines.len()];
        let status = status_of(&machines, &names, &standing);
        let configs = machines.first().map(Machine::config);
        let mut core = Self {
            answers_demands: false,
            ignore_resource_deletion: configs.is_some_and(|it| it.ignore_resource_deletion),
            machines,
            names,
            standing,
            snapshots: Publisher::from_arc(assemble.snapshot().clone()),
            assemble,
            status: Publisher::new(status),
            files: Publisher::new(BTreeSet::new()),
            services: Publisher::new(BTreeSet::new()),
            table: Publisher::new(None),
            prepare,
            supplied: HashMap::new(),
            demands: Demands::new(DemandLimits::default()),
            dropped: Vec::new(),
            initial_fetch_timeout,
            clock,
        };
        core.act(step, super::now());
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

    pub(super) fn table(&self) -> Feed<Option<NameTable>> {
        self.table.feed()
    }

    pub(super) fn started(&mut self, now: Instant) {
        if let Some(wait) = self.initial_fetch_timeout {
            self.assemble.expect_clusters(now + wait);
        }
    }

    /// When [`Core::tick`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let machines = self.machines.iter().filter_map(Machine::deadline);
        machines.chain(self.assemble.deadline()).min()
    }

    pub(super) fn tick(&mut self, now: Instant) {
        for machine in &mut self.machines {
            machine.tick(now);
        }
        let step = self.assemble.tick(now);
        self.act(step, now);
        self.work(now);
    }

    /// Applies what the machine hands on, and publishes it before it is acknowledged.
    pub(super) fn work(&mut self, now: Instant) {
        for index in 0..self.machines.len() {
            while let Some(event) = self.machines[index].poll_event() {
                match event {
                    Event::Update(update) => self.update(index, update, now),
                    Event::Missing(kind, name) => {
                        tracing::info!(kind = kind.short(), %name, "the control plane has no such resource");
                    }
                    Event::Absent(kind, name) => {
                        self.answered(&(kind, name), Outcome::Absent, now);
                    }
                    Event::Refused(kind, error) => {
                        tracing::warn!(%kind, %error, "a response of the control plane was refused");
                    }
                }
            }
        }
        if !self.dropped.is_empty() {
            self.let_go(now);
            return self.work(now);
        }
        self.publish_status();
    }

    fn update(&mut self, index: usize, update: Update<Resource>, now: Instant) {
        let Update {
            ticket,
            kind,
            resources,
            instead,
            removed,
        } = update;
        if kind == TypeUrl::NameTable {
            // Nothing refers to it. One that is gone stays, as in Istio's agent.
            for (name, resource) in resources {
                if let Resource::NameTable(table) = resource {
                    self.table.publish(Arc::new(Some(*table)));
                }
                self.machines[index].settle(ticket, &name, Ok(()));
            }
            self.machines[index].handed_over(ticket);
            return;
        }
        let awaited = |machine: &Machine| machine.awaits(TypeUrl::Cluster);
        if kind == TypeUrl::Cluster && !self.machines.iter().any(awaited) {
            self.assemble.clusters_answered();
        }
        let absent: Vec<Name> = match kind {
            TypeUrl::Cluster => removed.clone(),
            _ => Vec::new(),
        };
        let gone = removed.iter().flat_map(|form| self.names.names(kind, form));
        let gone = gone.map(|name| To::Gone(kind, name));
        let came = resources.into_iter();
        let came = came.flat_map(|(form, resource)| match resource {
            // Called by its resource's name, whatever it says itself.
            Resource::VirtualHost(host) => {
                let name = form;
                let replaced = instead.iter().filter(|(by, _)| *by == name);
                vec![Resource::VirtualHost(Box::new(VirtualHostResource {
                    instead_of: replaced.map(|(_, left)| left.clone()).collect(),
                    name,
                    ..*host
                }))]
            }
            other => self.names.spelled(kind, &form, other),
        });
        let changes = gone.chain(came.map(To::Is)).map(|to| Change {
            from: Source::Ads,
            ticket: ticket | (index as u64) << TICKET_BITS,
            to,
        });
        let step = self.assemble.apply(changes.collect(), now);
        self.act(step, now);
        self.machines[index].handed_over(ticket);
        for name in absent {
            self.answered(&(kind, name), Outcome::Absent, now);
        }
    }

    /// Publishes, subscribes and answers as a step says. Returns what was refused of files.
    pub(super) fn act(&mut self, step: Step, now: Instant) -> Vec<(Name, Invalid)> {
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
        let mut known = Vec::new();
        for interest in step.interests {
            match interest {
                Interest::Start(TypeUrl::VirtualHost, table) => {
                    self.machines[0].follow(&table.name)
                }
                Interest::Stop(TypeUrl::VirtualHost, _, table) => self.unfollow(&table),
                Interest::Start(kind, to) => match to.from {
                    Source::Ads => known.extend(self.subscribe(kind, &to.name)),
                    Source::Service {
                        cluster,
                        delta,
                        opening,
                    } => {
                        let services =
                            services.get_or_insert_with(|| (*self.services.load()).clone());
                        services.insert(ServiceReference {
                            cluster,
                            variant: variant(delta),
                            opening,
                            name: to.name,
                        });
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
                    Source::Ads => self.unsubscribe(kind, &name),
                    Source::Service {
                        cluster,
                        delta,
                        opening,
                    } => {
                        let services =
                            services.get_or_insert_with(|| (*self.services.load()).clone());
                        services.remove(&ServiceReference {
                            cluster,
                            variant: variant(delta),
                            opening,
                            name,
                        });
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
        for verdict in &step.verdicts {
            if let Err(error) = &verdict.result {
                let (kind, name) = (verdict.kind.short(), &verdict.name);
                tracing::warn!(kind, %name, %error, "a resource was refused; the last good one stays");
            }
            if verdict.ticket == GIVEN {
                let error = verdict.result.clone().err();
                refused.extend(error.map(|error| (verdict.name.clone(), error)));
            } else {
                let result = verdict.result.as_ref().copied();
                let result = result.map_err(ToString::to_string);
                self.settle(verdict.ticket, &verdict.name, result);
            }
        }
        // Behind it, since what is accepted may answer for more names.
        self.demands_settled(&step.verdicts);
        if !known.is_empty() {
            let step = self.assemble.apply(known, now);
            self.act(step, now);
        }
        refused
    }

    fn settle(&mut self, ticket: u64, name: &Name, result: Result<(), String>) {
        let index = usize::try_from(ticket >> TICKET_BITS).unwrap_or(usize::MAX);
        if let Some(machine) = self.machines.get_mut(index) {
            let form = xdstp::canonical(name);
            let ticket = ticket & ((1 << TICKET_BITS) - 1);
            machine.settle(ticket, &Name::from(form.as_ref()), result);
        }
    }

    /// Asks whoever has it for a resource. Returns what is known of it already because it is asked
    /// for by another spelling of its name: nobody sends it again for this one.
    pub(super) fn subscribe(&mut self, kind: TypeUrl, name: &Name) -> Option<Change> {
        let (index, form) = match self.names.place(kind, name) {
            Ok(place) => place,
            Err(error) => {
                tracing::warn!(kind = kind.short(), %error, "a resource cannot be asked for");
                return None;
            }
        };
        let other = self.names.other_spelling(kind, &form, name);
        self.names.asked(kind, &form, name);
        self.machines[index].subscribe(kind, &form);
        let to = match self.assemble.latest(kind, &other?) {
            Some(resource) => To::Is(names::renamed(resource, name.clone())),
            None if self.machines[index].is_known_missing(kind, &form) => {
                To::Gone(kind, name.clone())
            }
            None => return None,
        };
        Some(Change {
            from: Source::Ads,
            ticket: GIVEN,
            to,
        })
    }

    fn unsubscribe(&mut self, kind: TypeUrl, name: &Name) {
        if let Ok((index, form)) = self.names.place(kind, name)
            && self.names.left(kind, &form, name)
        {
            self.machines[index].unsubscribe(kind, &form);
        }
    }

    pub(super) fn machine(&mut self, index: usize) -> &mut Machine {
        &mut self.machines[index]
    }

    pub(super) fn machine_ref(&self, index: usize) -> &Machine {
        &self.machines[index]
    }

    /// A stream is being opened.
    pub(super) fn opened(&mut self, index: usize, server: &Remote) {
        let keeps = self.ignore_resource_deletion || server.ignore_resource_deletion;
        let machine = &mut self.machines[index];
        machine.ignore_resource_deletion(keeps);
        machine.opened(&server.uri);
    }

    /// A stream is open.
    pub(super) fn connected(&mut self, index: usize, server: &Name) {
        tracing::info!(%server, "connected to the control plane");
        let standing = &mut self.standing[index];
        standing.connected = true;
        standing.since = self.clock.now();
        standing.server = Some(server.clone());
        self.publish_status();
    }

    /// The stream ended, for this reason unless we ended it.
    pub(super) fn closed(&mut self, index: usize, why: Option<(Name, String)>, now: Instant) {
        self.machines[index].stream_ended();
        let standing = &mut self.standing[index];
        if standing.connected {
            standing.connected = false;
            standing.since = self.clock.now();
        }
        if let Some((server, error)) = why {
            // Said once for as long as nothing else happens.
            if standing.last_error.as_ref() != Some(&error) {
                tracing::warn!(%server, %error, "no control plane; the last configuration stays");
            }
            standing.last_error = Some(error);
        }
        self.work(now);
    }

    fn publish_status(&self) {
        let status = status_of(&self.machines, &self.names, &self.standing);
        if *self.status.load() != status {
            self.status.publish(Arc::new(status));
        }
    }
}

/// How it stands with everybody.
fn status_of(machines: &[Machine], names: &Names, standing: &[AuthorityStatus]) -> Status {
    let mut kinds: BTreeMap<TypeUrl, KindStatus> = BTreeMap::new();
    for (kind, status) in machines.iter().flat_map(Machine::kinds) {
        match kinds.get_mut(&kind) {
            Some(all) => all.add(status),
            None => drop(kinds.insert(kind, status)),
        }
    }
    let authorities = names.authorities().iter();
    Status {
        connected: standing[0].connected,
        since: standing[0].since,
        server: standing[0].server.clone(),
        last_error: standing[0].last_error.clone(),
        kinds,
        authorities: authorities
            .map(|(name, index)| (name.clone(), standing[*index].clone()))
            .collect(),
    }
}

fn variant(delta: bool) -> Variant {
    match delta {
        true => Variant::Delta,
        false => Variant::Sotw,
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
