//! Where pods run: the labels of their machines say it.

use std::collections::{BTreeMap, HashMap};

use mesh_core::Name;
use mesh_core::model::Locality;

use crate::node::parse_locality;
use crate::spec::Meta;
use crate::spec::kubernetes::Pod;
use crate::world::World;

/// The localities of machines by their names.
#[derive(Debug, Default)]
pub(super) struct Places {
    machines: HashMap<String, Locality>,
}

/// Labels of machines, the newer ones first.
const REGION: [&str; 2] = [
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/region",
];
const ZONE: [&str; 2] = [
    "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/zone",
];
const SUB_ZONE: [&str; 1] = ["topology.istio.io/subzone"];

/// The label by which a pod says itself where it is, with dots for slashes.
const OWN: &str = "istio-locality";

// === impl Places ===

impl Places {
    pub(super) fn of_world(world: &World) -> Self {
        let machines = world.machines();
        let machines = machines.map(|meta| (meta.name.clone(), of_labels(&meta.labels)));
        Self {
            machines: machines.collect(),
        }
    }

    /// Where this machine is.
    pub(super) fn of(&self, machine: &str) -> Locality {
        self.machines.get(machine).cloned().unwrap_or_default()
    }

    pub(super) fn of_pod(&self, meta: &Meta, pod: &Pod) -> Locality {
        match meta.labels.get(OWN) {
            Some(own) => parse_locality(&own.replace('.', "/")),
            None => self.of(&pod.node),
        }
    }
}

fn of_labels(labels: &BTreeMap<String, String>) -> Locality {
    let label = |keys: &[&str]| {
        let found = keys.iter().find_map(|key| labels.get(*key));
        found.map(Name::from).unwrap_or_default()
    };
    Locality {
        region: label(&REGION),
        zone: label(&ZONE),
        sub_zone: label(&SUB_ZONE),
    }
}

/// Where workloads run, as far as the objects say: pods where their machines are or their labels
/// say, a `WorkloadEntry` where it says itself. By namespace and name; of two the pod counts.
pub fn localities(world: &World) -> HashMap<(String, String), Locality> {
    let key = |meta: &Meta| (meta.namespace.clone(), meta.name.clone());
    let entries = world.workload_entries();
    let entries = entries.map(|(meta, entry)| (key(meta), parse_locality(&entry.locality)));
    let places = Places::of_world(world);
    let pods = world.pods();
    let pods = pods.map(|(meta, pod)| (key(meta), places.of_pod(meta, pod)));
    let all = entries.chain(pods);
    all.filter(|(_, locality)| *locality != Locality::default())
        .collect()
}
