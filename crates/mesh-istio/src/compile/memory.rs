//! What was compiled before, with what it was made of: whatever is made of the same again is the
//! very same thing.
//!
//! Objects are told apart by their stamps and services by their entries, so that nothing is
//! compared but numbers and addresses. What is not used for a whole round is forgotten.

use std::collections::HashMap;
use std::sync::Arc;

use mesh_core::model::{Cluster, EndpointSet, RouteTable, Rule, VirtualHost};
use mesh_core::{Name, Origin, Origins};

use super::policy::Index;
use super::spread::Spread;
use super::viewer::{Asked, Viewer};
use super::{Half, Heard};
use crate::diagnostic::Position;
use crate::peers::Peers;
use crate::registry::Entry;
use crate::spec::Meta;
use crate::spec::sidecar::OutboundPolicy;
use crate::world::World;

/// What was compiled before.
#[derive(Debug, Default)]
pub(super) struct Memory {
    world: Option<World>,
    /// The mesh's configuration: with another one, nothing is the same.
    mesh: u64,
    round: u64,
    pub(super) origins: Arc<Origins>,
    places: HashMap<(u64, Position), Origin>,
    /// The object that the last origin is of, by its stamp, and its file.
    last: Option<(u64, Name, Name)>,
    /// How many origins there were after the first round.
    usual: Option<usize>,
    pub(super) rules: Arc<Index>,
    pub(super) peers: Arc<Peers>,
    halves: Vec<(Asked, Arc<Half>)>,
    clusters: HashMap<Name, Vec<Used<Clusters>>>,
    hosts: HashMap<Name, Vec<Used<Host>>>,
    lists: HashMap<(u64, Site), Vec<Used<List>>>,
    tables: HashMap<Name, Vec<Used<Arc<RouteTable>>>>,
    rests: Vec<(OutboundPolicy, Arc<VirtualHost>)>,
}

/// Something, and the last round in which it was used.
#[derive(Debug)]
struct Used<T> {
    round: u64,
    what: T,
}

/// The clusters of a service, with their endpoints.
pub(super) type Made = Arc<Vec<(Arc<Cluster>, Arc<EndpointSet>)>>;

/// The rules of a virtual service at a site.
pub(super) type Rules = Arc<Vec<Arc<Rule>>>;

#[derive(Debug)]
struct Clusters {
    entry: Arc<Entry>,
    /// The destination rules that hold for it, in order.
    rules: Vec<u64>,
    place: Place,
    made: Made,
}

/// Where clusters are used, as far as they depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Connections come from and go to anywhere.
    pub(super) intercepts: bool,
    /// On a gateway.
    pub(super) gateway: bool,
    /// With a certificate of the mesh.
    pub(super) identity: bool,
    /// Its workloads take mutual TLS, as far as is said of their namespace.
    pub(super) mutual: bool,
    /// Which endpoints come first, cluster by cluster; empty where that is said of none.
    pub(super) spreads: Vec<Option<Arc<Spread>>>,
}

/// What a virtual host speaks for.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// The service, or none for a name that no service has.
    pub(super) entry: Option<Arc<Entry>>,
    pub(super) port: u16,
    /// In a table of all ports.
    pub(super) proxy: bool,
    /// Short names count, or, without a service, names without a port.
    pub(super) short: bool,
}

#[derive(Debug)]
struct Host {
    subject: Subject,
    domains: Arc<Vec<Name>>,
    made: Vec<Used<Filled>>,
}

/// A virtual host with all its domains; of no rules, the one of a service without any.
#[derive(Debug)]
struct Filled {
    rules: Option<Rules>,
    origin: Origin,
    host: Arc<VirtualHost>,
}

/// A gateway or `mesh`, and a port.
pub(super) type Site = (Name, u16);

/// Rules with everything that had a say in them.
#[derive(Clone, Debug)]
pub(super) struct List {
    pub(super) asked: Asked,
    pub(super) heard: Arc<Heard>,
    pub(super) rules: Rules,
}

/// Origins of what is gone are kept until there are this many more than there should be.
const SPARE: usize = 1 << 16;

// === impl Memory ===

impl Memory {
    /// Turns to a world. What was not used for the last one is forgotten.
    pub(super) fn turn(&mut self, world: &World) {
        if self.world.as_ref().is_some_and(|known| known.is(world)) {
            return;
        }
        let mesh = world.mesh_object().map_or(0, |object| object.meta.stamp);
        let origins = self.origins.len();
        let usual = *self.usual.get_or_insert(origins);
        if self.world.is_some() && (mesh != self.mesh || origins > 2 * usual + SPARE) {
            *self = Self::default();
        }
        if self.world.is_none() {
            self.usual = None;
        }
        let last = self.round;
        sweep(&mut self.clusters, last);
        sweep(&mut self.hosts, last);
        sweep(&mut self.lists, last);
        sweep(&mut self.tables, last);
        for host in self.hosts.values_mut().flatten() {
            host.what.made.retain(|one| one.round >= last);
        }
        self.halves.clear();
        self.round += 1;
        self.mesh = mesh;
        self.rules = Arc::new(Index::of(world));
        self.peers = Arc::new(Peers::of(world));
        self.world = Some(world.clone());
    }

    /// The origin that stands for a place in an object.
    pub(super) fn origin(&mut self, meta: &Meta, at: Position) -> Origin {
        let (origins, last) = (&mut self.origins, &mut self.last);
        *self.places.entry((meta.stamp, at)).or_insert_with(|| {
            // Rules come one after the other, so that names are written once for many of them.
            let (object, file) = match last.take() {
                Some((stamp, object, file)) if stamp == meta.stamp => (object, file),
                Some((_, _, file)) if *file == *meta.file => (Name::from(meta.to_string()), file),
                _ => (Name::from(meta.to_string()), Name::from(&*meta.file)),
            };
            *last = Some((meta.stamp, object.clone(), file.clone()));
            let place = mesh_core::Place::new(object, file, at.line, at.column);
            Arc::make_mut(origins).add(place)
        })
    }

    /// A half that was made in this round.
    pub(super) fn half(&self, viewer: &Viewer<'_>) -> Option<Arc<Half>> {
        let mut known = self.halves.iter();
        let (_, half) = known.find(|(asked, _)| asked.holds(viewer))?;
        Some(Arc::clone(half))
    }

    pub(super) fn keep_half(&mut self, asked: Asked, half: &Arc<Half>) {
        self.halves.push((asked, Arc::clone(half)));
    }

    /// The clusters of a service under these destination rules.
    pub(super) fn clusters(
        &mut self,
        entry: &Arc<Entry>,
        rules: &[u64],
        place: &Place,
    ) -> Option<Made> {
        let known = self.clusters.get_mut(&entry.service.id.host)?;
        let found = find(known, self.round, |one| {
            Arc::ptr_eq(&one.entry, entry) && one.rules == rules && one.place == *place
        })?;
        Some(Arc::clone(&found.made))
    }

    pub(super) fn keep_clusters(
        &mut self,
        entry: &Arc<Entry>,
        rules: Vec<u64>,
        place: Place,
        made: &Made,
    ) {
        let what = Clusters {
            entry: Arc::clone(entry),
            rules,
            place,
            made: Arc::clone(made),
        };
        let host = entry.service.id.host.clone();
        let round = self.round;
        let known = self.clusters.entry(host).or_default();
        known.push(Used { round, what });
    }

    /// Every domain of a subject; they are all different.
    pub(super) fn domains(
        &mut self,
        name: &Name,
        subject: &Subject,
        make: impl FnOnce() -> Vec<String>,
    ) -> Arc<Vec<Name>> {
        if let Some(known) = self.host(name, subject) {
            return Arc::clone(&known.domains);
        }
        let mut domains: Vec<Name> = Vec::new();
        for domain in make() {
            if domains.iter().all(|have| **have != *domain) {
                domains.push(domain.into());
            }
        }
        let domains = Arc::new(domains);
        let what = Host {
            subject: subject.clone(),
            domains: Arc::clone(&domains),
            made: Vec::new(),
        };
        let round = self.round;
        let known = self.hosts.entry(name.clone()).or_default();
        known.push(Used { round, what });
        domains
    }

    /// The virtual host of a subject with all its domains.
    pub(super) fn filled(
        &mut self,
        name: &Name,
        subject: &Subject,
        rules: Option<&Rules>,
        origin: Origin,
    ) -> Option<Arc<VirtualHost>> {
        let round = self.round;
        let host = self.host(name, subject)?;
        let found = find(&mut host.made, round, |one| {
            let same = match (&one.rules, rules) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                (None, None) => true,
                _ => false,
            };
            same && one.origin.index() == origin.index()
        })?;
        Some(Arc::clone(&found.host))
    }

    pub(super) fn keep_filled(
        &mut self,
        name: &Name,
        subject: &Subject,
        rules: Option<&Rules>,
        host: &Arc<VirtualHost>,
    ) {
        let round = self.round;
        if let Some(known) = self.host(name, subject) {
            let what = Filled {
                rules: rules.cloned(),
                origin: host.origin,
                host: Arc::clone(host),
            };
            known.made.push(Used { round, what });
        }
    }

    fn host(&mut self, name: &Name, subject: &Subject) -> Option<&mut Host> {
        let round = self.round;
        let known = self.hosts.get_mut(name)?;
        find(known, round, |one| one.subject.is(subject))
    }

    /// The rules that were made of a virtual service at a site.
    pub(super) fn lists(&self, stamp: u64, site: &Site) -> impl Iterator<Item = &List> {
        let known = self.lists.get(&(stamp, site.clone()));
        known.into_iter().flatten().map(|one| &one.what)
    }

    pub(super) fn use_list(&mut self, stamp: u64, site: &Site, index: usize) {
        let known = self.lists.get_mut(&(stamp, site.clone()));
        if let Some(list) = known.and_then(|known| known.get_mut(index)) {
            list.round = self.round;
        }
    }

    pub(super) fn keep_list(&mut self, stamp: u64, site: Site, what: List) {
        let round = self.round;
        let known = self.lists.entry((stamp, site)).or_default();
        known.push(Used { round, what });
    }

    /// A table, or the very one that is like it.
    pub(super) fn table(&mut self, table: RouteTable) -> Arc<RouteTable> {
        let round = self.round;
        let known = self.tables.entry(table.name.clone()).or_default();
        let same = |one: &Arc<RouteTable>| {
            one.ignore_port == table.ignore_port
                && one.virtual_hosts.len() == table.virtual_hosts.len()
                && one
                    .virtual_hosts
                    .iter()
                    .zip(&table.virtual_hosts)
                    .all(|(one, other)| Arc::ptr_eq(one, other))
                // Whatever else a table may get one day; the hosts are known to be the same.
                && **one == table
        };
        if let Some(found) = find(known, round, same) {
            return Arc::clone(found);
        }
        let table = Arc::new(table);
        let what = Arc::clone(&table);
        known.push(Used { round, what });
        table
    }

    /// The virtual host for everything else.
    pub(super) fn rest(
        &mut self,
        policy: OutboundPolicy,
        make: impl FnOnce() -> VirtualHost,
    ) -> Arc<VirtualHost> {
        let known = self.rests.iter().find(|(have, _)| *have == policy);
        if let Some((_, host)) = known {
            return Arc::clone(host);
        }
        let host = Arc::new(make());
        self.rests.push((policy, Arc::clone(&host)));
        host
    }
}

fn find<T>(known: &mut [Used<T>], round: u64, is: impl Fn(&T) -> bool) -> Option<&mut T> {
    let found = known.iter_mut().find(|one| is(&one.what))?;
    found.round = round;
    Some(&mut found.what)
}

fn sweep<K, T>(known: &mut HashMap<K, Vec<Used<T>>>, last: u64) {
    known.retain(|_, all| {
        all.retain(|one| one.round >= last);
        !all.is_empty()
    });
}

// === impl Subject ===

impl Subject {
    fn is(&self, other: &Self) -> bool {
        let same = match (&self.entry, &other.entry) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        same && self.port == other.port && self.proxy == other.proxy && self.short == other.short
    }
}
