//! Workloads and endpoints, found by what services look for.
//!
//! A service looks for workloads by labels: whoever has all of them has the first, so only those
//! that have that one are looked at.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use super::selects;
use crate::spec::kubernetes::{Endpoints, Pod};
use crate::spec::{Meta, Selector, WorkloadEntry};
use crate::world::World;

/// Pods and workload entries.
#[derive(Debug)]
pub(super) struct Workloads<'w> {
    pub(super) pods: Labelled<'w, (&'w Meta, &'w Pod)>,
    pub(super) entries: Labelled<'w, Described<'w>>,
}

/// A workload entry with all of its labels.
#[derive(Debug)]
pub(super) struct Described<'w> {
    pub(super) meta: &'w Meta,
    pub(super) entry: &'w WorkloadEntry,
    pub(super) labels: BTreeMap<String, String>,
}

/// Things with labels, by namespace and each of their labels, in the order in which they came.
#[derive(Debug)]
pub(super) struct Labelled<'w, T> {
    all: Vec<T>,
    places: HashMap<(&'w str, String, String), Vec<usize>>,
}

/// Endpoints by namespace and the name of their service.
#[derive(Debug)]
pub(super) struct Written<'w> {
    slices: HashMap<(&'w str, &'w str), Vec<&'w Endpoints>>,
    whole: HashMap<(&'w str, &'w str), &'w Endpoints>,
}

const SLICE_OWNER: &str = "kubernetes.io/service-name";

// === impl Workloads ===

impl<'w> Workloads<'w> {
    pub(super) fn of(world: &'w World) -> Self {
        let (mut pods, mut entries) = (Labelled::new(), Labelled::new());
        for (meta, pod) in world.pods() {
            pods.add(&meta.namespace, &meta.labels, (meta, pod));
        }
        for (meta, entry) in world.workload_entries() {
            let labels = entry.all_labels(meta);
            let described = Described {
                meta,
                entry,
                labels: labels.clone(),
            };
            entries.add(&meta.namespace, &labels, described);
        }
        Self { pods, entries }
    }

    /// The pods of a namespace that a selector takes in.
    pub(super) fn pods<'s>(
        &'s self,
        namespace: &'w str,
        selector: &'s Selector,
    ) -> impl Iterator<Item = &'s (&'w Meta, &'w Pod)> {
        let some = self.pods.having(namespace, selector);
        some.filter(|(meta, _)| selects(selector, &meta.labels))
    }

    /// The workload entries of a namespace that a selector takes in.
    pub(super) fn entries<'s>(
        &'s self,
        namespace: &'w str,
        selector: &'s Selector,
    ) -> impl Iterator<Item = &'s Described<'w>> {
        let some = self.entries.having(namespace, selector);
        some.filter(|one| selects(selector, &one.labels))
    }
}

// === impl Labelled ===

impl<'w, T> Labelled<'w, T> {
    fn new() -> Self {
        Self {
            all: Vec::new(),
            places: HashMap::new(),
        }
    }

    fn add(&mut self, namespace: &'w str, labels: &BTreeMap<String, String>, one: T) {
        for (key, value) in labels {
            let key = (namespace, key.clone(), value.clone());
            self.places.entry(key).or_default().push(self.all.len());
        }
        self.all.push(one);
    }

    /// Those that have the first of these labels; none for no labels.
    fn having(&self, namespace: &'w str, labels: &Selector) -> impl Iterator<Item = &T> {
        let first = labels.first_key_value();
        let places = first.and_then(|(key, value)| {
            let key = (namespace, key.clone(), value.clone());
            self.places.get(&key)
        });
        places.into_iter().flatten().map(|&place| &self.all[place])
    }
}

// === impl Written ===

impl<'w> Written<'w> {
    pub(super) fn of(world: &'w World) -> Self {
        let slices = world.endpoint_slices().filter_map(|(meta, endpoints)| {
            let owner = meta.labels.get(SLICE_OWNER)?;
            Some(((meta.namespace.as_str(), owner.as_str()), endpoints))
        });
        let whole = world.endpoints().map(|(meta, endpoints)| {
            let key = (meta.namespace.as_str(), meta.name.as_str());
            (key, endpoints)
        });
        Self {
            slices: grouped(slices),
            whole: whole.collect(),
        }
    }

    /// What was written of a service: its slices, or what came before those.
    pub(super) fn get(&self, namespace: &str, name: &str) -> Vec<&'w Endpoints> {
        match self.slices.get(&(namespace, name)) {
            Some(slices) => slices.clone(),
            None => self
                .whole
                .get(&(namespace, name))
                .copied()
                .into_iter()
                .collect(),
        }
    }
}

fn grouped<K: Eq + Hash, V>(all: impl Iterator<Item = (K, V)>) -> HashMap<K, Vec<V>> {
    let mut groups: HashMap<K, Vec<V>> = HashMap::new();
    for (key, value) in all {
        groups.entry(key).or_default().push(value);
    }
    groups
}
