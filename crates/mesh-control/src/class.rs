//! What nodes with the same inputs get: compiled once, encoded once.

use crate::endpoints::{Want, select};
use crate::inputs::Inputs;
use crate::node::{Described, Generator};
use crate::parts::{Parts, Pool};
use mesh_core::discovery::Instance;
use mesh_core::model::{
    Cluster, ClusterEntry, DiscoveryKind, EndpointSet, Snapshot, SnapshotBuilder,
};
use mesh_core::{Invalid, Name};
use mesh_istio::{Alike, Diagnostic, Node, Severity, Spread, Workshop, name_table, names};
use mesh_xds::server::{Changes, ResourceSet, View};
use mesh_xds::{Encoded, TypeUrl};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Nodes that get the same.
#[derive(Debug)]
pub(crate) struct Class {
    /// Tells classes apart; never used again.
    pub(crate) number: usize,
    pub(crate) key: Key,
    /// The node without what makes no difference.
    pub(crate) essence: Node,
    pub(crate) generator: Generator,
    /// What is not shared with other classes.
    pub(crate) set: ResourceSet,
    pub(crate) view: View,
    compiled: Mutex<Arc<Compiled>>,
    /// Listeners that gRPC servers asked for and that nobody could have known before.
    asked: Mutex<BTreeSet<Name>>,
}

/// How many such listeners a class has.
const ASKED: usize = 256;

/// What makes a class: the whole description of a node as text, so that nothing that is added to
/// the description is ever forgotten here.
pub(crate) type Key = String;

/// What was made for a class.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) findings: Vec<Diagnostic>,
    /// References to what does not exist.
    pub(crate) dangling: Vec<Diagnostic>,
    /// What was found out about each cluster's endpoints.
    verdicts: HashMap<Name, Verdict>,
    /// The clusters whose endpoints are in the table.
    pub(crate) wants: Vec<Want>,
    /// Hosts of services whose endpoints depend on more: they are compiled with everything else.
    pub(crate) opaque: HashSet<Name>,
    pub(crate) parts: Parts,
    pub(crate) took: Duration,
}

/// What a cluster needs of the table of endpoints, with what says so. It stays while those are the
/// very same.
#[derive(Clone, Debug)]
struct Verdict {
    config: Arc<Cluster>,
    endpoints: Arc<EndpointSet>,
    instances: Option<Arc<Vec<Instance>>>,
    /// Which endpoints come first.
    spread: Option<Arc<Spread>>,
    want: Option<Result<Want, Name>>,
}

/// A class's next state and how its set gets there.
pub(crate) struct Step {
    pub(crate) class: Arc<Class>,
    pub(crate) compiled: Arc<Compiled>,
    pub(crate) changes: Changes,
    /// How many resources were encoded and are sent, or removed, by type.
    pub(crate) changed: BTreeMap<TypeUrl, usize>,
}

// === impl Class ===

impl Class {
    pub(crate) fn key(inputs: &Inputs, described: &Described) -> (Key, Node) {
        let essence = inputs.essence(&described.node);
        (format!("{} {essence:?}", described.generator), essence)
    }

    pub(crate) fn new(
        number: usize,
        (key, essence): (Key, Node),
        generator: Generator,
        shared: &ResourceSet,
    ) -> Self {
        let set = ResourceSet::new();
        Self {
            number,
            key,
            essence,
            generator,
            view: View::of([set.clone(), shared.clone()]),
            set,
            compiled: Mutex::default(),
            asked: Mutex::default(),
        }
    }

    /// What is in force.
    pub(crate) fn compiled(&self) -> Arc<Compiled> {
        self.lock().clone()
    }

    pub(crate) fn replace(&self, compiled: Arc<Compiled>) {
        *self.lock() = compiled;
    }

    /// Compiles what the objects say now; nothing is in force yet.
    ///
    /// # Errors
    /// If the parts do not fit together; what is in force stays.
    pub(crate) fn compile(
        self: &Arc<Self>,
        inputs: &Inputs,
        pool: &mut Pool,
        now: Instant,
    ) -> Result<Step, Invalid> {
        let before = self.compiled();
        let Built {
            snapshot,
            findings,
            dangling,
        } = build(
            &mut pool.workshop,
            &inputs.world,
            &self.essence,
            &before.snapshot,
        )?;
        let mut wants = Vec::new();
        let mut opaque = HashSet::new();
        let mut verdicts = HashMap::with_capacity(snapshot.clusters().len());
        for entry in snapshot.clusters() {
            let verdict = Verdict::of(
                inputs,
                &snapshot,
                entry,
                pool.workshop.spread(&entry.config().name),
                &before.verdicts,
            );
            match &verdict.want {
                Some(Ok(want)) => wants.push(want.clone()),
                Some(Err(host)) => {
                    opaque.insert(host.clone());
                }
                None => {}
            }
            verdicts.insert(entry.config().name.clone(), verdict);
        }
        let alike = match self.generator {
            Generator::Proxy => Alike::of(&inputs.world, &self.essence),
            Generator::Grpc => None,
        };
        wants.extend(alike.map(Want::local));
        let tabled = wants.iter().map(|want| &want.cluster).collect();
        let (parts, changes, changed) = match self.generator {
            Generator::Proxy => {
                let node = &self.essence;
                let names = node.dns_capture.then(|| name_table(&inputs.world, node));
                Parts::of_proxy(&snapshot, names, &tabled, &before.parts, pool)
            }
            Generator::Grpc => {
                let mut resources = crate::grpc::resources(&snapshot);
                resources.extend(crate::grpc::server_resources(&snapshot));
                resources.extend(self.asked_of(&snapshot, &resources));
                let (differs, made) = Parts::of_grpc(resources, &snapshot, &tabled, &before.parts);
                let host =
                    |name: &Name| Some(snapshot.cluster(name)?.config().service.host.clone());
                opaque.extend(differs.iter().filter_map(host));
                wants.retain(|want| !differs.contains(&want.cluster));
                made
            }
        };
        let compiled = Compiled {
            snapshot,
            findings,
            dangling,
            verdicts,
            wants,
            opaque,
            parts,
            took: now.elapsed(),
        };
        Ok(Step {
            class: self.clone(),
            compiled: Arc::new(compiled),
            changes,
            changed,
        })
    }

    /// Whether a gRPC server that asks for this listener is given one.
    pub(crate) fn serves(&self, name: &Name) -> bool {
        crate::grpc::server_listener(&self.compiled().snapshot, name).is_some()
    }

    /// Notes that a gRPC server asks for this listener. Returns whether there is one now that
    /// there was not before: the class has to be compiled again. To be called with the pool in
    /// hand, so that whoever finds it noted finds it compiled as well.
    pub(crate) fn ask(&self, name: &Name) -> bool {
        let known = self.serves(name);
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        known && asked.len() < ASKED && asked.insert(name.clone())
    }

    /// The listeners that were asked for and are not among these.
    fn asked_of(
        &self,
        snapshot: &Snapshot,
        resources: &[(TypeUrl, Encoded)],
    ) -> Vec<(TypeUrl, Encoded)> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let there = |name: &Name| {
            let mut all = resources.iter();
            all.any(|(kind, one)| *kind == TypeUrl::Listener && one.name == *name)
        };
        let fresh = asked.iter().filter(|name| !there(name));
        fresh
            .filter_map(|name| crate::grpc::server_listener(snapshot, name))
            .map(|one| (TypeUrl::Listener, one))
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Compiled>> {
        // It is only ever replaced.
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A snapshot with what there is to say about it.
pub(crate) struct Built {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) findings: Vec<Diagnostic>,
    pub(crate) dangling: Vec<Diagnostic>,
}

/// Compiles a node's snapshot.
pub(crate) fn build(
    workshop: &mut Workshop,
    world: &mesh_istio::World,
    node: &Node,
    previous: &Arc<Snapshot>,
) -> Result<Built, Invalid> {
    let mut builder = SnapshotBuilder::from(previous);
    let findings = workshop.compile(world, node, &mut builder);
    let (snapshot, warnings) = builder.build()?;
    let mut dangling = Vec::new();
    for warning in warnings {
        let place = snapshot.origins().place(warning.origin);
        let finding = Diagnostic {
            severity: Severity::Warning,
            object: place.map(|place| place.object.to_string()),
            file: place.map_or_else(|| "".into(), |place| place.file.as_str().into()),
            line: place.map_or(0, |place| place.line),
            column: place.map_or(0, |place| place.column),
            path: String::new(),
            message: warning.message,
            snippet: None,
        };
        if !dangling.contains(&finding) {
            dangling.push(finding);
        }
    }
    Ok(Built {
        snapshot,
        findings,
        dangling,
    })
}

// === impl Verdict ===

impl Verdict {
    fn of(
        inputs: &Inputs,
        snapshot: &Snapshot,
        entry: &ClusterEntry,
        spread: Option<&Arc<Spread>>,
        before: &HashMap<Name, Self>,
    ) -> Self {
        let config = entry.config();
        let endpoints = entry.live().endpoints().load();
        let known = inputs.services.get(&config.service.host);
        let instances = known.map(|known| &known.instances);
        let same = |was: &&Self| {
            Arc::ptr_eq(&was.config, config)
                && Arc::ptr_eq(&was.endpoints, &endpoints)
                && was.spread.as_ref() == spread
                && match (&was.instances, instances) {
                    (Some(was), Some(now)) => Arc::ptr_eq(was, now),
                    (None, None) => true,
                    _ => false,
                }
        };
        if let Some(was) = before.get(&config.name).filter(same) {
            return was.clone();
        }
        Self {
            config: config.clone(),
            instances: instances.cloned(),
            spread: spread.cloned(),
            want: want(inputs, snapshot, entry, spread),
            endpoints,
        }
    }
}

/// What a cluster needs of the table of endpoints; the host, if the table cannot serve it;
/// nothing, if its endpoints are not those of a service.
fn want(
    inputs: &Inputs,
    snapshot: &Snapshot,
    entry: &ClusterEntry,
    spread: Option<&Arc<Spread>>,
) -> Option<Result<Want, Name>> {
    let config = entry.config();
    let service = &config.service;
    let known = inputs.services.get(&service.host)?;
    if *config.name != *names::outbound(service.port, &service.subset, &service.host) {
        return None;
    }
    let host = service.host.clone();
    if config.discovery != DiscoveryKind::Endpoints {
        return Some(Err(host));
    }
    let labels = match service.subset.is_empty() {
        true => Some(Arc::from([])),
        false => {
            let place = snapshot.origins().place(config.origin);
            let at = place.map(|place| (place.file.clone(), place.line, place.column));
            at.and_then(|at| inputs.subsets.get(&at).cloned())
        }
    };
    let Some(labels) = labels else {
        return Some(Err(host));
    };
    // Whatever else may have a say in endpoints one day: only what the table would say itself is
    // left to it.
    let order = spread.map(|spread| &**spread);
    let ours = select(&known.instances, service.port, &labels, order);
    if ours != *entry.live().endpoints().load() {
        return Some(Err(host));
    }
    Some(Ok(Want {
        cluster: config.name.clone(),
        host,
        port: service.port,
        labels,
        spread: spread.cloned(),
        alike: None,
    }))
}
