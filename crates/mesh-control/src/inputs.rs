//! What pushes are made from: the objects in force, and tables of what is looked up in them.

use crate::node::Directory;
use mesh_core::Name;
use mesh_core::discovery::{Instance, Resolution, Service};
use mesh_core::model::{Address, Locality};
use mesh_istio::{Node, Role, World, localities, minds_localities, services};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// The labels of a subset, sorted.
pub(crate) type Labels = Arc<[(Name, Name)]>;

/// A place in a file.
pub(crate) type At = (Name, u32, u32);

/// The objects in force, and what is looked up in them. Never changed.
#[derive(Debug)]
pub(crate) struct Inputs {
    /// Later ones have a larger one.
    pub(crate) generation: u64,
    pub(crate) world: World,
    pub(crate) services: HashMap<Name, Known>,
    /// The labels of subsets by the place where the subset stands.
    pub(crate) subsets: HashMap<At, Labels>,
    nodes: HashMap<(String, String), Result<Node, String>>,
    /// Addresses of endpoints, and how many have each.
    addresses: Arc<HashMap<IpAddr, usize>>,
    /// Some `Sidecar` names ports to accept on.
    has_ingress: bool,
    /// Some rule tells localities apart.
    minds_localities: bool,
    /// Where workloads run, by namespace and name, if that counts.
    localities: HashMap<(String, String), Locality>,
}

/// A service with its endpoints. What did not change is the same `Arc` as before.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) service: Arc<Service>,
    pub(crate) instances: Arc<Vec<Instance>>,
}

// === impl Inputs ===

impl Inputs {
    pub(crate) fn of(mut world: World, previous: Option<&Self>) -> Self {
        if let Some(previous) = previous {
            world.settle(&previous.world);
        }
        let mut known = HashMap::new();
        for (service, mut instances) in services(&world) {
            let before = previous.and_then(|previous| previous.services.get(&service.id.host));
            if let Some(before) = before.filter(|before| before.instances == instances) {
                instances = before.instances.clone();
            }
            known.insert(service.id.host.clone(), Known { service, instances });
        }
        let addresses = match previous {
            Some(previous) => moved(&previous.addresses, &previous.services, &known),
            None => moved(&Arc::default(), &HashMap::new(), &known),
        };
        let mut subsets = HashMap::new();
        for (meta, rule) in world.destination_rules() {
            for subset in &rule.subsets {
                let at = (Name::from(&*meta.file), subset.at.line, subset.at.column);
                let labels = subset.labels.iter();
                let labels = labels.map(|(key, value)| (Name::from(key), Name::from(value)));
                subsets.insert(at, labels.collect());
            }
        }
        let (described, findings) = Node::all(&world);
        let mut nodes = HashMap::new();
        for node in described {
            nodes.insert((node.namespace.clone(), node.name.clone()), Ok(node));
        }
        // Only those that are wrong are looked at one by one.
        if !findings.is_empty() {
            for (meta, _) in world.workload_entries() {
                if let Err(finding) = Node::find(&world, &meta.name, &meta.namespace) {
                    let key = (meta.namespace.clone(), meta.name.clone());
                    nodes.insert(key, Err(finding.to_string()));
                }
            }
        }
        let has_ingress = world
            .sidecars()
            .any(|(_, sidecar)| !sidecar.ingress.is_empty());
        let minds_localities = minds_localities(&world);
        let localities = match minds_localities {
            true => localities(&world),
            false => HashMap::new(),
        };
        Self {
            generation: previous.map_or(1, |previous| previous.generation + 1),
            world,
            services: known,
            subsets,
            nodes,
            addresses,
            has_ingress,
            minds_localities,
            localities,
        }
    }

    /// The services whose endpoints are others than they were, and nothing else of them is.
    pub(crate) fn moved<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a Known> {
        self.services.iter().filter_map(|(host, now)| {
            let was = before.services.get(host)?;
            let moved = !Arc::ptr_eq(&was.instances, &now.instances)
                && was.service == now.service
                && now.service.resolution == Resolution::Static;
            moved.then_some(now)
        })
    }

    /// Whether any workload runs elsewhere than before, if that counts.
    pub(crate) fn has_relocated(&self, before: &Self) -> bool {
        self.localities != before.localities
    }

    /// Whether this workload (namespace and name) runs elsewhere than before, if that counts.
    pub(crate) fn is_elsewhere(&self, before: &Self, workload: &(String, String)) -> bool {
        self.localities.get(workload) != before.localities.get(workload)
    }

    /// A node without what makes no difference to what is compiled for it, so that nodes with the
    /// same inputs are the same.
    pub(crate) fn essence(&self, node: &Node) -> Node {
        let mut node = node.clone();
        node.workload = match node.self_discovery {
            true => node.workload().to_owned(),
            false => String::new(),
        };
        node.name.clear();
        if !self.minds_localities {
            let region = std::mem::take(&mut node.locality).region;
            if node.self_discovery {
                node.locality.region = region;
            }
        }
        let accepts = match &node.role {
            Role::Sidecar { inbound } => !inbound.is_empty() || self.has_ingress,
            Role::Gateway { .. } => true,
        };
        // Its address is where it accepts, and how its services are recognised.
        if !accepts && !self.addresses.contains_key(&node.address) {
            node.address = match node.address {
                IpAddr::V4(_) => IpAddr::from([0, 0, 0, 0]),
                IpAddr::V6(_) => IpAddr::from([0_u16; 8]),
            };
        }
        node
    }
}

/// The addresses of endpoints, given those of before: the same ones where nothing moved.
fn moved(
    addresses: &Arc<HashMap<IpAddr, usize>>,
    before: &HashMap<Name, Known>,
    now: &HashMap<Name, Known>,
) -> Arc<HashMap<IpAddr, usize>> {
    let other = |one: &HashMap<Name, Known>, host: &Name, known: &Known| {
        let there = one.get(host);
        there.is_none_or(|there| !Arc::ptr_eq(&there.instances, &known.instances))
    };
    let gone = before.iter().filter(|(host, was)| other(now, host, was));
    let came = now
        .iter()
        .filter(|(host, known)| other(before, host, known));
    let mut addresses = addresses.clone();
    for address in came.flat_map(|(_, known)| known.instances.iter().filter_map(ip)) {
        *Arc::make_mut(&mut addresses).entry(address).or_default() += 1;
    }
    for address in gone.flat_map(|(_, was)| was.instances.iter().filter_map(ip)) {
        let addresses = Arc::make_mut(&mut addresses);
        if let Some(count) = addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&address);
            }
        }
    }
    addresses
}

/// The address of an endpoint, if it is one.
pub(crate) fn ip(instance: &Instance) -> Option<IpAddr> {
    match instance.endpoint.address {
        Address::Socket(address) => Some(address.ip()),
        _ => None,
    }
}

// === impl Directory ===

impl Directory for Inputs {
    fn workload(&self, name: &str, namespace: &str) -> Option<Result<Node, String>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.nodes.get(&key).cloned()
    }

    fn locality(&self, name: &str, namespace: &str) -> Locality {
        let key = (namespace.to_owned(), name.to_owned());
        self.localities.get(&key).cloned().unwrap_or_default()
    }

    fn is_selected(&self, labels: &BTreeMap<String, String>) -> bool {
        self.world.is_selected(labels)
    }
}
