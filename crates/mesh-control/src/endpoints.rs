//! The endpoints of services: one table for all proxies, whatever else they see.
//!
//! Which endpoints a cluster has depends on the service's port and the labels of the subset, and
//! in which order they come on where the proxy is, if rules tell localities apart. Of everything
//! else each cluster's endpoints are encoded once, into a set that is part of every view. Two
//! classes may have different labels under one subset's name (rules of different namespaces), or
//! may be in different places; the second keeps what it means in a set of its own, which comes
//! first in its view.
//!
//! A change of a service's endpoints costs what the service's own clusters cost, however many
//! services and classes there are.

use crate::inputs::{Inputs, Labels};
use mesh_core::Name;
use mesh_core::discovery::Instance;
use mesh_core::model::EndpointSet;
use mesh_istio::names::LOCAL;
use mesh_istio::{Alike, Spread, endpoints_of};
use mesh_xds::server::{Changes, ResourceSet};
use mesh_xds::{Encoded, TypeUrl, write};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// A cluster of a service, as its endpoints need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) cluster: Name,
    pub(crate) host: Name,
    pub(crate) port: u16,
    pub(crate) labels: Labels,
    /// Which endpoints come first.
    pub(crate) spread: Option<Arc<Spread>>,
    /// Those that are like a node, and nothing of the above: the node's own cluster, which has the
    /// same name for all that mean different things by it.
    pub(crate) alike: Option<Alike>,
}

/// Endpoints of services by host.
#[derive(Debug, Default)]
pub(crate) struct Table {
    shared: ResourceSet,
    hosts: HashMap<Name, Host>,
}

#[derive(Debug, Default)]
struct Host {
    /// Of the inputs that were the newest when the endpoints were set.
    generation: u64,
    instances: Arc<Vec<Instance>>,
    told: Option<Told>,
    parts: Vec<Part>,
}

/// Endpoints that did not come with the objects. They hold until the objects say something else
/// than they did then.
#[derive(Clone, Debug)]
struct Told {
    instead_of: Arc<Vec<Instance>>,
}

/// The endpoints of one cluster.
#[derive(Clone, Debug)]
struct Part {
    want: Want,
    /// The set of a class that means something else than the others do.
    own: Option<(usize, ResourceSet)>,
    model: Arc<EndpointSet>,
    encoded: Encoded,
}

/// Changes by set, under the number of its class. What all share comes last: no class is to see
/// what others mean.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    sets: BTreeMap<usize, (ResourceSet, Changes)>,
    /// How many resources are set or removed.
    pub(crate) count: usize,
}

/// The number under which the shared set stands.
const SHARED: usize = usize::MAX;

/// What one class wants: its number, its set and its clusters.
pub(crate) type Wanted<'a> = (usize, &'a ResourceSet, &'a [Want]);

// === impl Want ===

impl Want {
    /// The cluster of those that are like a node.
    pub(crate) fn local(alike: Alike) -> Self {
        Self {
            cluster: LOCAL.into(),
            // Of no service it has no endpoints, and is told so.
            host: alike.host().cloned().unwrap_or_default(),
            port: 0,
            labels: Arc::new([]),
            spread: None,
            alike: Some(alike),
        }
    }

    /// Its endpoints, among those of the host.
    fn select(&self, instances: &[Instance]) -> EndpointSet {
        match &self.alike {
            Some(alike) => alike.among(instances),
            None => select(instances, self.port, &self.labels, self.spread.as_deref()),
        }
    }
}

// === impl Table ===

impl Table {
    /// The set that all classes share.
    pub(crate) fn shared(&self) -> &ResourceSet {
        &self.shared
    }

    /// The endpoints of a service, wherever they came from.
    pub(crate) fn instances(&self, host: &str) -> Option<&Arc<Vec<Instance>>> {
        Some(&self.hosts.get(host)?.instances)
    }

    /// Makes the table anew for these classes. Returns what to set before, and what to remove
    /// after everything else has changed.
    pub(crate) fn rebuild<'a>(
        &mut self,
        inputs: &Inputs,
        classes: impl IntoIterator<Item = Wanted<'a>>,
    ) -> (Moves, Moves) {
        let mut old = std::mem::take(&mut self.hosts);
        for (name, known) in &inputs.services {
            let mut host = Host {
                generation: inputs.generation,
                instances: known.instances.clone(),
                ..Host::default()
            };
            if let Some(was) = old.get(name)
                && was.outlives(inputs, &known.instances)
            {
                host.generation = was.generation;
                host.instances.clone_from(&was.instances);
                host.told.clone_from(&was.told);
            }
            self.hosts.insert(name.clone(), host);
        }
        let mut setting = Moves::default();
        for (class, set, wants) in classes {
            for want in wants {
                let before = old.get_mut(&want.host);
                self.add(want, class, set, before, &mut setting);
            }
        }
        let parts = self.hosts.values().flat_map(|host| &host.parts);
        let alike = parts.filter(|one| one.want.alike.is_some());
        let alike: HashSet<Option<usize>> = alike.map(Part::class).collect();
        let mut removing = Moves::default();
        for (name, host) in old {
            let now = self.hosts.get(&name).map(|host| host.parts.as_slice());
            for part in host.parts {
                let cluster = &part.want.cluster;
                let same = |one: &Part| one.want.cluster == *cluster && one.class() == part.class();
                let stays = match &part.want.alike {
                    // Another service may select the node now.
                    Some(_) => alike.contains(&part.class()),
                    None => now.unwrap_or_default().iter().any(same),
                };
                if !stays {
                    removing.remove(part.set(&self.shared), cluster.clone());
                }
            }
        }
        (setting, removing)
    }

    /// Adds the clusters of one more class.
    pub(crate) fn extend(&mut self, (class, set, wants): Wanted<'_>) -> Moves {
        let mut setting = Moves::default();
        for want in wants {
            self.add(want, class, set, None, &mut setting);
        }
        setting
    }

    /// Other endpoints of a service. They come with the objects, or instead of theirs.
    pub(crate) fn update(
        &mut self,
        host: &str,
        instances: &Arc<Vec<Instance>>,
        instead_of: Option<Arc<Vec<Instance>>>,
        generation: u64,
    ) -> Moves {
        let mut moves = Moves::default();
        let Some(host) = self.hosts.get_mut(host) else {
            return moves;
        };
        host.generation = generation;
        host.instances.clone_from(instances);
        host.told = instead_of.map(|instead_of| Told { instead_of });
        for part in &mut host.parts {
            let model = part.want.select(instances);
            if *part.model != model {
                part.model = Arc::new(model);
                part.encoded = encode(&part.want.cluster, &part.model);
                moves.set(part.set(&self.shared), part.encoded.clone());
            }
        }
        moves
    }

    fn add(
        &mut self,
        want: &Want,
        class: usize,
        set: &ResourceSet,
        before: Option<&mut Host>,
        moves: &mut Moves,
    ) {
        let host = self.hosts.entry(want.host.clone()).or_default();
        let shared = host
            .parts
            .iter()
            .find(|one| one.want.cluster == want.cluster && one.own.is_none());
        if shared.is_some_and(|one| one.want == *want) {
            return;
        }
        let is_own = shared.is_some() || want.alike.is_some();
        let own = is_own.then(|| (class, set.clone()));
        let number = own.as_ref().map(|_| class);
        let was = before.and_then(|before| {
            let found = before.parts.iter();
            let mut found = found.filter(|one| one.want == *want && one.class() == number);
            let unmoved = Arc::ptr_eq(&before.instances, &host.instances);
            found.next().cloned().map(|part| (part, unmoved))
        });
        let mut part = match was {
            Some((part, true)) => {
                host.parts.push(part);
                return;
            }
            Some((part, false)) => part,
            None => Part {
                want: want.clone(),
                own,
                model: Arc::default(),
                encoded: Encoded::new(want.cluster.clone(), Vec::new()),
            },
        };
        let model = want.select(&host.instances);
        if part.encoded.bytes.is_empty() || *part.model != model {
            part.model = Arc::new(model);
            part.encoded = encode(&want.cluster, &part.model);
            moves.set(part.set(&self.shared), part.encoded.clone());
        }
        host.parts.push(part);
    }
}

// === impl Host ===

impl Host {
    /// Whether its endpoints stay although the objects are read again: they may have been told, or
    /// have come while older objects were being compiled.
    fn outlives(&self, inputs: &Inputs, instances: &[Instance]) -> bool {
        let told = self.told.as_ref();
        self.generation > inputs.generation
            || told.is_some_and(|told| *told.instead_of == *instances)
    }
}

// === impl Part ===

impl Part {
    fn set<'a>(&'a self, shared: &'a ResourceSet) -> (usize, &'a ResourceSet) {
        match &self.own {
            Some((class, set)) => (*class, set),
            None => (SHARED, shared),
        }
    }

    fn class(&self) -> Option<usize> {
        self.own.as_ref().map(|(class, _)| *class)
    }
}

// === impl Moves ===

impl Moves {
    /// Makes the changes.
    pub(crate) fn apply(self) {
        for (set, changes) in self.sets.into_values() {
            set.apply(changes);
        }
    }

    fn set(&mut self, set: (usize, &ResourceSet), resource: Encoded) {
        self.change(set, |changes| changes.set(TypeUrl::Endpoints, resource));
    }

    fn remove(&mut self, set: (usize, &ResourceSet), name: Name) {
        self.change(set, |changes| changes.remove(TypeUrl::Endpoints, name));
    }

    fn change(
        &mut self,
        (number, set): (usize, &ResourceSet),
        change: impl FnOnce(Changes) -> Changes,
    ) {
        self.count += 1;
        let entry = self.sets.entry(number);
        let (_, changes) = entry.or_insert_with(|| (set.clone(), Changes::new()));
        *changes = change(std::mem::take(changes));
    }
}

/// The endpoints that a cluster of a service has.
pub(crate) fn select(
    instances: &[Instance],
    port: u16,
    labels: &Labels,
    spread: Option<&Spread>,
) -> EndpointSet {
    let labels = labels.iter().map(|(key, value)| (&**key, &**value));
    endpoints_of(instances, port, labels, spread)
}

pub(crate) fn encode(cluster: &Name, model: &EndpointSet) -> Encoded {
    write::encode(cluster, &write::endpoints(cluster, model))
}

#[cfg(test)]
mod tests;
