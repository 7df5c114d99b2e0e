//! The resources of a class, each with what it was made of: what is equal is not encoded again.

use crate::endpoints;
use crate::hosts::Hosts;
use mesh_core::Name;
use mesh_core::discovery::NameTable;
use mesh_core::model::{
    Cluster, ClusterEntry, DiscoveryKind, EndpointSet, Listener, RouteTable, Secret, Snapshot,
};
use mesh_istio::Workshop;
use mesh_xds::server::Changes;
use mesh_xds::{Encoded, TypeUrl, write};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

pub(crate) mod secrets;

/// The resources of a class but for the endpoints that the shared table has.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    clusters: HashMap<Name, Part<ClusterModel>>,
    listeners: HashMap<Name, Part<ListenerModel>>,
    tables: HashMap<Name, Part<RouteTable>>,
    endpoints: HashMap<Name, Part<EndpointSet>>,
    secrets: HashMap<Name, Part<Secret>>,
    /// The names that it may resolve in the mesh, if it asks for them.
    names: HashMap<Name, Part<NameTable>>,
    /// Of which only the bytes are known.
    others: HashMap<(TypeUrl, Name), Encoded>,
}

/// A resource and what it was made of.
type Part<M> = (Arc<M>, Encoded);

/// A cluster, with its endpoints if they travel in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClusterModel {
    config: Arc<Cluster>,
    endpoints: Option<Arc<EndpointSet>>,
}

/// A listener, and whether it forwards to hosts that requests name.
#[derive(Debug, PartialEq)]
pub(crate) struct ListenerModel {
    config: Arc<Listener>,
    forwards: bool,
}

/// What classes have in common: what they are compiled with, and the resources of all, to take
/// over where they are equal.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    pub(crate) workshop: Workshop,
    hosts: Hosts,
    clusters: Candidates<ClusterModel>,
    listeners: Candidates<ListenerModel>,
    tables: Candidates<RouteTable>,
}

type Candidates<M> = HashMap<Name, Vec<Part<M>>>;

/// How many different resources of one name are remembered: gateways and sidecars differ, and
/// namespaces do, but a hundred variants are not worth comparing with.
const CANDIDATES: usize = 8;

/// The new parts, the changes that lead to them, and how many those are by type.
pub(crate) type Made = (Parts, Changes, BTreeMap<TypeUrl, usize>);

/// What is noted while parts are made.
#[derive(Default)]
struct Round {
    changes: Changes,
    changed: BTreeMap<TypeUrl, usize>,
}

// === impl Parts ===

impl Parts {
    /// The resources of a proxy; the endpoints of the clusters in `tabled` are somebody else's.
    pub(crate) fn of_proxy(
        snapshot: &Snapshot,
        names: Option<NameTable>,
        tabled: &HashSet<&Name>,
        before: &Self,
        pool: &mut Pool,
    ) -> Made {
        let mut round = Round::default();
        let mut parts = Self::default();
        let clusters = snapshot.clusters();
        let named = secrets::Named::of(snapshot);
        for entry in clusters {
            let model = ClusterModel::of(entry, &named);
            let name = entry.config().name.clone();
            if entry.config().discovery == DiscoveryKind::Endpoints && !tabled.contains(&name) {
                let set = entry.live().endpoints().load();
                let was = before.endpoints.get(&name);
                let part = round.part(TypeUrl::Endpoints, set, was, None, |set| {
                    endpoints::encode(&name, set)
                });
                parts.endpoints.insert(name.clone(), part);
            }
            let known = Some(pool.clusters.entry(name.clone()).or_default());
            let was = before.clusters.get(&name);
            let part = round.part(TypeUrl::Cluster, Arc::new(model), was, known, |model| {
                let own = model.endpoints.as_deref();
                write::encode(&name, &write::cluster(&model.config, own))
            });
            parts.clusters.insert(name, part);
        }
        let forwards = clusters
            .iter()
            .any(|entry| entry.config().discovery == DiscoveryKind::Authority);
        for config in snapshot.listeners() {
            let name = config.name.clone();
            let model = ListenerModel {
                config: named.listener(config),
                forwards,
            };
            let known = Some(pool.listeners.entry(name.clone()).or_default());
            let was = before.listeners.get(&name);
            let part = round.part(TypeUrl::Listener, Arc::new(model), was, known, |model| {
                let proto = match model.forwards {
                    true => write::forwarding_listener(&model.config, None),
                    false => write::listener(&model.config, None),
                };
                write::encode(&name, &proto)
            });
            parts.listeners.insert(name, part);
        }
        for table in snapshot.tables() {
            let name = table.name.clone();
            let known = Some(pool.tables.entry(name.clone()).or_default());
            let was = before.tables.get(&name);
            let hosts = &mut pool.hosts;
            let part = round.part(TypeUrl::Routes, table.clone(), was, known, |table| {
                hosts.table(table)
            });
            parts.tables.insert(name, part);
        }
        // Never shared with another class, whose snapshot may name it but not have it.
        for (name, secret) in named.present() {
            let was = before.secrets.get(name);
            let part = round.part(TypeUrl::Secret, secret.clone(), was, None, |secret| {
                write::encode_secret(name, secret)
            });
            parts.secrets.insert(name.clone(), part);
        }
        if let Some(table) = names {
            let was = before.names.values().next();
            let model = Arc::new(table);
            let part = round.part(TypeUrl::NameTable, model, was, None, write::name_table);
            parts.names.insert(part.1.name.clone(), part);
        }
        round.removed(TypeUrl::NameTable, &before.names, &parts.names);
        round.removed(TypeUrl::Cluster, &before.clusters, &parts.clusters);
        round.removed(TypeUrl::Endpoints, &before.endpoints, &parts.endpoints);
        round.removed(TypeUrl::Listener, &before.listeners, &parts.listeners);
        round.removed(TypeUrl::Routes, &before.tables, &parts.tables);
        round.removed(TypeUrl::Secret, &before.secrets, &parts.secrets);
        (parts, round.changes, round.changed)
    }

    /// The resources of a gRPC client, as they were made. Returns besides which clusters of
    /// `tabled` have endpoints that differ from what the table says.
    pub(crate) fn of_grpc(
        resources: Vec<(TypeUrl, Encoded)>,
        snapshot: &Snapshot,
        tabled: &HashSet<&Name>,
        before: &Self,
    ) -> (HashSet<Name>, Made) {
        let mut round = Round::default();
        let mut parts = Self::default();
        // A cluster whose endpoints are not beside it has them in it.
        let clusters = resources
            .iter()
            .filter(|(kind, _)| *kind == TypeUrl::Cluster);
        let mut differs: HashSet<Name> = clusters.map(|(_, one)| one.name.clone()).collect();
        differs.retain(|name| tabled.contains(name));
        for (kind, encoded) in resources {
            if kind == TypeUrl::Endpoints {
                differs.remove(&encoded.name);
            }
            if kind == TypeUrl::Endpoints && tabled.contains(&encoded.name) {
                let entry = snapshot.cluster(&encoded.name);
                let usual = entry.map(|entry| {
                    endpoints::encode(&encoded.name, &entry.live().endpoints().load())
                });
                if usual.is_some_and(|usual| usual.version == encoded.version) {
                    continue;
                }
                differs.insert(encoded.name.clone());
            }
            let key = (kind, encoded.name.clone());
            if before.others.get(&key).map(|was| &was.version) != Some(&encoded.version) {
                round.set(kind, encoded.clone());
            }
            parts.others.insert(key, encoded);
        }
        for (kind, name) in before.others.keys() {
            if !parts.others.contains_key(&(*kind, name.clone())) {
                round.remove(*kind, name.clone());
            }
        }
        (differs, (parts, round.changes, round.changed))
    }
}

// === impl ClusterModel ===

impl ClusterModel {
    fn of(entry: &ClusterEntry, named: &secrets::Named) -> Self {
        let config = named.cluster(entry.config());
        let travels = config.discovery != DiscoveryKind::Endpoints;
        Self {
            config,
            endpoints: travels.then(|| entry.live().endpoints().load()),
        }
    }
}

// === impl Pool ===

impl Pool {
    /// Forgets what these classes do not have.
    pub(crate) fn retain<'a>(&mut self, classes: impl IntoIterator<Item = &'a Parts>) {
        self.clusters.clear();
        self.listeners.clear();
        self.tables.clear();
        self.hosts.sweep();
        for parts in classes {
            note(&mut self.clusters, &parts.clusters);
            note(&mut self.listeners, &parts.listeners);
            note(&mut self.tables, &parts.tables);
        }
    }
}

fn note<M>(known: &mut Candidates<M>, parts: &HashMap<Name, Part<M>>) {
    for (name, part) in parts {
        let candidates = known.entry(name.clone()).or_default();
        let version = &part.1.version;
        if candidates.len() < CANDIDATES && candidates.iter().all(|one| one.1.version != *version) {
            candidates.push(part.clone());
        }
    }
}

// === impl Round ===

impl Round {
    /// The resource of a model: what it was before, what another class has, or a new one.
    fn part<M: PartialEq>(
        &mut self,
        kind: TypeUrl,
        model: Arc<M>,
        before: Option<&Part<M>>,
        known: Option<&mut Vec<Part<M>>>,
        encode: impl FnOnce(&M) -> Encoded,
    ) -> Part<M> {
        let is = |(one, _): &&Part<M>| Arc::ptr_eq(one, &model) || **one == *model;
        if let Some((_, encoded)) = before.filter(is) {
            // The new model, whose origins are those of now.
            return (model, encoded.clone());
        }
        let encoded = match known {
            Some(known) => match known.iter().find(is) {
                Some((_, encoded)) => encoded.clone(),
                None => {
                    let encoded = encode(&model);
                    if known.len() < CANDIDATES {
                        known.push((model.clone(), encoded.clone()));
                    }
                    encoded
                }
            },
            None => encode(&model),
        };
        // Different models may be written alike.
        if before.is_none_or(|(_, was)| was.version != encoded.version) {
            self.set(kind, encoded.clone());
        }
        (model, encoded)
    }

    fn removed<M>(
        &mut self,
        kind: TypeUrl,
        before: &HashMap<Name, Part<M>>,
        now: &HashMap<Name, Part<M>>,
    ) {
        for name in before.keys().filter(|name| !now.contains_key(*name)) {
            self.remove(kind, name.clone());
        }
    }

    fn set(&mut self, kind: TypeUrl, encoded: Encoded) {
        self.changes = std::mem::take(&mut self.changes).set(kind, encoded);
        *self.changed.entry(kind).or_default() += 1;
    }

    fn remove(&mut self, kind: TypeUrl, name: Name) {
        self.changes = std::mem::take(&mut self.changes).remove(kind, name);
        *self.changed.entry(kind).or_default() += 1;
    }
}

#[cfg(test)]
mod tests;
