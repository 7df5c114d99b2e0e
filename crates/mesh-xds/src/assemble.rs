//! From resources, in whatever order they come, to one consistent snapshot after the other.
//!
//! ```text
//!  Change ─► latest version of each resource ─► warm? ─► in force ─► Snapshot
//!            refused: the last good one stays    waits for what it refers to
//! ```
//!
//! What comes into force, and when:
//!
//! * **A cluster** waits for its endpoints, at most for the `initial_fetch_timeout` of its
//!   reference; then it goes on without any. Endpoints that are known already are used at once.
//! * **A listener** waits for its route tables likewise; then it goes on with empty ones.
//! * Both wait for their secrets, each for as long as its reference says; then they go on without,
//!   and handshakes fail until the secret is there. A secret that changes is published to those
//!   who use it without a new snapshot; one that is taken away fails new handshakes.
//! * While the new version of either waits, its old version stays in force. Nothing else waits.
//! * **A route table** comes into force at once, as in Envoy, unless it refers to clusters that
//!   are known but were never in force: Envoy answers 503 NC for those; here the table waits until
//!   they are, or for [`Options::routes_wait`]. A server that makes before it breaks never notices;
//!   with any other, nobody sees the gap. The same holds while the first answer about clusters is
//!   still out ([`Assemble::expect_clusters`]).
//! * A cluster that nobody knows is a warning (503 NC at run time), unless the table has
//!   `validate_clusters`: then the table is refused.
//! * A listener whose address another one has is refused, alone. Listeners may swap addresses. So
//!   is one that is not [admitted](Options::admit): its socket cannot be opened. As in Envoy nothing
//!   is tried again by itself: the next time that the listener comes, it is asked again.
//! * Clusters and listeners that are removed leave with the next snapshot. Route tables and
//!   endpoints leave with the last one that refers to them: that a server removes them has no
//!   effect as long as they are in use (as in Envoy), except that nobody waits for them any more.
//! * Virtual hosts on demand (VHDS) join the tables that ask for them. Listeners and tables do not
//!   wait for any.
//! * Endpoints that change are published to the cluster as it lives, without a new snapshot.
//!
//! The first snapshot after a change shares with the last one whatever did not change, down to
//! what was compiled from virtual hosts ([`mesh_core::Slot`]).
//!
//! Names: a table that came with a listener is called `TABLE (inline in LISTENER)` in snapshots,
//! for several listeners may use one name; a resource from a file `NAME (from PATH)`; a table without
//! the policies that a listener has no filter for `TABLE (without FILTER)`. What a route says for a
//! filter that is missing from its listener has no effect, as in Envoy.
//!
//! There is no I/O and no clock here; every call gets `now`.

mod clusters;
mod hosts;
#[cfg(feature = "client")]
mod latest;
mod links;
mod listeners;
mod publish;
mod secrets;
mod step;
mod stripped;
mod tables;
mod waits;

pub use listeners::{Admit, Permit};
pub use step::{Change, Configure, Interest, Options, Step, To, Verdict};

use crate::TypeUrl;
use crate::read::{Resource, Source};
use clusters::Clusters;
use hosts::Hosts;
use links::Links;
use listeners::Listeners;
use mesh_core::model::{EndpointSet, Snapshot};
use mesh_core::{Invalid, Name};
use publish::Output;
use secrets::Secrets;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use stripped::Stripped;
use tables::Tables;

/// Puts snapshots together.
#[derive(Debug)]
pub struct Assemble {
    options: Options,
    clusters: Clusters,
    endpoints: Links<EndpointSet>,
    secrets: Secrets,
    tables: Tables,
    hosts: Hosts,
    listeners: Listeners,
    stripped: Stripped,
    /// Until when the first answer about clusters is waited for.
    clusters_due: Option<Instant>,
    /// When somebody stops waiting.
    deadlines: BTreeSet<(Instant, TypeUrl, Name)>,
    output: Output,
    step: Step,
}

// === impl Assemble ===

impl Assemble {
    /// Starts with nothing.
    pub fn new(options: Options) -> Self {
        Self {
            output: Output::new(),
            options,
            clusters: Clusters::default(),
            endpoints: Links::default(),
            secrets: Secrets::default(),
            tables: Tables::default(),
            hosts: Hosts::default(),
            listeners: Listeners::default(),
            stripped: Stripped::default(),
            clusters_due: None,
            deadlines: BTreeSet::new(),
            step: Step::default(),
        }
    }

    /// The latest snapshot.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        self.output.snapshot()
    }

    /// Adds resources that are there from the start and for good: they win over others of the same
    /// name and are never removed (Envoy's `static_resources`).
    pub fn fix(&mut self, resources: impl IntoIterator<Item = Resource>, now: Instant) -> Step {
        let changes = resources.into_iter().map(|resource| Change {
            from: Source::Ads,
            ticket: 0,
            to: To::Is(resource),
        });
        self.run(changes.collect(), true, now)
    }

    /// Route tables wait until the first answer about clusters was reported
    /// ([`Assemble::clusters_answered`]), or until `due`.
    pub fn expect_clusters(&mut self, due: Instant) {
        self.clusters_due = Some(due);
    }

    /// The first answer about clusters is there. Takes effect with the next call of
    /// [`Assemble::apply`], to which that answer is given.
    pub fn clusters_answered(&mut self) {
        self.clusters_due = None;
        self.tables.check_all();
    }

    /// Takes in what came and went. All of it takes effect in one snapshot.
    pub fn apply(&mut self, changes: Vec<Change>, now: Instant) -> Step {
        self.run(changes, false, now)
    }

    /// Whether the latest version of a listener or cluster that comes from the aggregated stream
    /// waits for what it refers to.
    pub fn waits(&self, kind: TypeUrl, name: &str) -> bool {
        match kind {
            TypeUrl::Cluster => self.clusters.waits(name),
            TypeUrl::Listener => self.listeners.is_warming(name),
            _ => false,
        }
    }

    /// When [`Assemble::tick`] has to be called if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let first = self.deadlines.first().map(|(at, ..)| *at);
        first.into_iter().chain(self.clusters_due).min()
    }

    /// Lets go on what has waited long enough.
    pub fn tick(&mut self, now: Instant) -> Step {
        self.run(Vec::new(), false, now)
    }

    fn run(&mut self, changes: Vec<Change>, fixed: bool, now: Instant) -> Step {
        let mut clusters = Vec::new();
        let mut tables = Vec::new();
        let mut hosts = Vec::new();
        let mut listeners = Vec::new();
        // What is referred to goes first, whatever the order was; removals before additions, so
        // that what they held is free.
        for change in changes {
            let Change { from, ticket, to } = change;
            match to {
                To::Gone(TypeUrl::Cluster, name) => self.remove_cluster(&name),
                To::Gone(TypeUrl::Endpoints, name) => self.endpoints_gone(&from, &name),
                To::Gone(TypeUrl::Listener, name) => self.remove_listener(&name),
                To::Gone(TypeUrl::Routes, name) => self.table_gone(&from, &name),
                To::Gone(TypeUrl::Secret, name) => self.secret_gone(&from, &name),
                To::Gone(TypeUrl::VirtualHost, name) => self.host_gone(&name),
                To::Gone(..) => {}
                To::Is(Resource::Cluster(cluster)) => clusters.push((*cluster, ticket)),
                To::Is(Resource::Endpoints(set)) => {
                    let result = self.set_endpoints(&from, &set.name, set.endpoints);
                    self.verdict(ticket, TypeUrl::Endpoints, &set.name, result);
                }
                To::Is(Resource::Listener(listener)) => listeners.push((*listener, ticket)),
                To::Is(Resource::Routes(table)) => tables.push((from, *table, ticket)),
                // Nothing refers to it: who wants it has it from the stream.
                To::Is(Resource::NameTable(_)) => {}
                To::Is(Resource::VirtualHost(host)) => hosts.push((*host, ticket)),
                To::Is(Resource::Secret(secret)) => {
                    let name = secret.name.clone();
                    let result = self.set_secret(&from, secret, fixed);
                    self.verdict(ticket, TypeUrl::Secret, &name, result);
                }
            }
        }
        for (cluster, ticket) in clusters {
            self.set_cluster(cluster, ticket, fixed, now);
        }
        // A snapshot's clusters are known before tables that may refer to them are looked at.
        for (from, table, ticket) in tables {
            self.set_table(&from, table, ticket, fixed, now);
        }
        self.set_listeners(listeners, fixed, now);
        for (resource, ticket) in hosts {
            self.set_host(resource, ticket);
        }
        self.offer_hosts(now);
        self.expire(now);
        self.settle(now);
        self.follow_references();
        self.publish();
        std::mem::take(&mut self.step)
    }

    /// Brings into force whatever is ready, from what is referred to up to what refers to it.
    fn settle(&mut self, now: Instant) {
        self.warm_clusters();
        self.settle_tables(now);
        self.settle_hosts();
        self.warm_listeners();
    }

    fn expire(&mut self, now: Instant) {
        if self.clusters_due.is_some_and(|due| due <= now) {
            self.clusters_answered();
            self.warn("the first answer about clusters did not come; routes go on without");
        }
        while let Some((at, ..)) = self.deadlines.first()
            && *at <= now
        {
            let Some((at, kind, name)) = self.deadlines.pop_first() else {
                return;
            };
            match kind {
                TypeUrl::Cluster => self.cluster_waited(&name, at),
                TypeUrl::Listener => self.listener_waited(&name, at),
                // They look at the time themselves.
                _ => self.tables.check_all(),
            }
        }
    }

    fn verdict(&mut self, ticket: u64, kind: TypeUrl, name: &Name, result: Result<(), Invalid>) {
        self.step.verdicts.push(Verdict {
            ticket,
            kind,
            name: name.clone(),
            result,
        });
    }

    fn warn(&mut self, message: impl Into<String>) {
        self.step.warnings.push(mesh_core::model::Warning {
            origin: mesh_core::Origin::NONE,
            message: message.into(),
        });
    }
}
