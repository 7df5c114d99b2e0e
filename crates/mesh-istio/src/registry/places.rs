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
        Self::of_machines(world.machines())
    }

    fn of_machines<'w>(machines: impl Iterator<Item = &'w Meta>) -> Self {
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

/// Where one workload runs, as [`localities`] has it.
pub fn locality_of(world: &World, namespace: &str, name: &str) -> Option<Locality> {
    let is_it = |meta: &Meta| meta.namespace == namespace && meta.name == name;
    let pod = world.pods().find(|(meta, _)| is_it(meta));
    let pod = pod.map(|(meta, pod)| {
        let machines = world.machines();
        let places = Places::of_machines(machines.filter(|machine| machine.name == pod.node));
        places.of_pod(meta, pod)
    });
    let entry = || {
        let entry = world.workload_entries().find(|(meta, _)| is_it(meta));
        entry.map(|(_, entry)| parse_locality(&entry.locality))
    };
    let is_somewhere = |locality: &Locality| *locality != Locality::default();
    let pod = pod.filter(is_somewhere);
    pod.or_else(|| entry().filter(is_somewhere))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Files;

    #[test]
    fn one_workload_is_where_all_of_them_are() {
        let pod = |name: &str, more: &str, machine: &str| {
            format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: n{more}}}, spec: \
                 {{nodeName: {machine}}}}}\n---\n"
            )
        };
        let entry = |name: &str, locality: &str| {
            format!(
                "{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: \
                 {name}, namespace: n}}, spec: {{address: 10.0.0.1, locality: {locality}}}}}\n---\n"
            )
        };
        let text = [
            "{apiVersion: v1, kind: Node, metadata: {name: m, labels: \
             {topology.kubernetes.io/zone: z}}}\n---\n"
                .to_owned(),
            pod("on", "", "m"),
            pod("off", "", "other"),
            pod("own", ", labels: {istio-locality: r.y}", "m"),
            pod("both", "", "m"),
            pod("lost", "", "other"),
            entry("both", "a/b"),
            entry("lost", "c/d"),
            entry("alone", "e"),
            entry("nowhere", "''"),
        ];
        let mut world = World::default();
        let findings = world.update(&Files::from_text("a.yaml", &text.concat()));
        assert!(findings.is_empty(), "{findings:?}");
        let all = localities(&world);
        let mut found = 0;
        for name in ["on", "off", "own", "both", "lost", "alone", "nowhere", "?"] {
            let one = locality_of(&world, "n", name);
            assert_eq!(
                one.as_ref(),
                all.get(&("n".to_owned(), name.to_owned())),
                "{name}"
            );
            found += usize::from(one.is_some());
            assert_eq!(locality_of(&world, "other", name), None);
        }
        assert_eq!(found, 5);
    }
}
