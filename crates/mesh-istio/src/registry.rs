//! The services that the objects in force describe, with their endpoints.
//!
//! The vocabulary is [`mesh_core::discovery`]; [`FileRegistry`] tells changes
//! from one [`World`] to the next in it, like any other registry.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::Name;
use mesh_core::discovery::{AppProtocol, Instance, Service};
use mesh_core::model::{Cidr, Endpoint};

use crate::diagnostic::{Diagnostic, Position, Severity};
use crate::peers::Peers;
use crate::spec::kubernetes::Protocol;
use crate::spec::{Meta, MutualTls, Selector, Visibility};
use crate::world::World;

mod allocate;
mod entries;
mod events;
mod index;
mod kubernetes;
mod places;
mod workload;

pub(crate) use workload::workload_name;

use allocate::Ledger;

pub(crate) use allocate::Allocated;
pub use events::{FileRegistry, FileRegistryHandle};
pub use places::{localities, locality_of};

/// All services, by host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Services {
    list: Vec<Arc<Entry>>,
    by_host: HashMap<Name, usize>,
    /// By namespace, those with a selector.
    selecting: HashMap<Name, Vec<usize>>,
    /// Hosts that are declared more than once, or that no address is left for.
    findings: Vec<Diagnostic>,
    /// Addresses for those that have none.
    ledger: Ledger,
    /// The mesh's configuration that they were made with.
    mesh: u64,
    /// The rules that they were made with of which connections workloads take.
    peers: u64,
}

/// A service with what compiling needs to know besides.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The service as any registry would describe it.
    pub(crate) service: Arc<Service>,
    /// Its endpoints.
    pub(crate) instances: Arc<Vec<Instance>>,
    /// What its ports say they speak; the vocabulary has no word for "not said".
    pub(crate) protocols: BTreeMap<u16, Protocol>,
    /// The workloads' port by service port, where it is a number.
    pub(crate) targets: BTreeMap<u16, u16>,
    /// Labels of its workloads; `None` where it has no selector.
    pub(crate) selector: Option<Selector>,
    pub(crate) visibility: Visibility,
    /// A Kubernetes service, which has short names.
    pub(crate) kubernetes: bool,
    /// It has no virtual address, so its endpoints are called by name too.
    pub(crate) headless: bool,
    /// Which endpoints callers prefer, whatever destination rules say of localities in general.
    pub(crate) distribution: Option<Distribution>,
    /// Blocks of virtual addresses, of which nobody knows which one is called.
    pub(crate) blocks: Vec<Cidr>,
    /// It is to have an address allocated, and these were already. None where it has its own, or
    /// cannot have any.
    pub(crate) allocated: Option<Vec<IpAddr>>,
    /// Names of which its endpoints' certificates must have one; empty is any.
    pub(crate) subject_alt_names: Vec<String>,
    /// The object that declares it.
    pub(crate) meta: Meta,
    /// Where in it.
    pub(crate) at: Position,
}

/// Which endpoints of a service callers prefer (Kubernetes `trafficDistribution`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distribution {
    /// Those of their own zone, then those of their own region.
    SameZone,
}

const DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

/// What an endpoint says that takes mutual TLS (istiod's metadata).
pub(crate) const TLS_MODE: (&str, &str) = ("tlsMode", "\"istio\"");

/// What a workload says that has a sidecar.
const TLS_MODE_LABEL: &str = "security.istio.io/tlsMode";

/// Whether the workload behind an endpoint says that it has a sidecar that takes mutual TLS.
pub(crate) fn speaks_mutual(endpoint: &Endpoint) -> bool {
    let said = endpoint.labels.get(TLS_MODE_LABEL);
    said.is_some_and(|said| *said == *"istio")
}

/// Notes of a service's endpoints which take mutual TLS, and are allowed to.
fn take_mutual(entry: &mut Arc<Entry>, peers: &Peers) {
    let takes = |endpoint: &Endpoint| {
        if !speaks_mutual(endpoint) || !endpoint.transport.is_empty() {
            return false;
        }
        let label = |key: &str| endpoint.labels.get(key).map(Name::as_str);
        let accepted = peers.workload(&endpoint.workload.namespace, label);
        accepted.port(endpoint.address.port()) != MutualTls::Disable
    };
    if !entry.instances.iter().any(|one| takes(&one.endpoint)) {
        return;
    }
    let (key, value) = TLS_MODE;
    let said = Arc::new(BTreeMap::from([(Name::from(key), Name::from(value))]));
    let mut instances = Vec::clone(&entry.instances);
    for one in instances.iter_mut().filter(|one| takes(&one.endpoint)) {
        Arc::make_mut(&mut one.endpoint).transport = Arc::clone(&said);
    }
    Arc::make_mut(entry).instances = Arc::new(instances);
}

/// Every service that the objects in force describe, with its endpoints, in the order in which
/// [`compile`](crate::compile) meets them.
pub fn services(world: &World) -> Vec<(Arc<Service>, Arc<Vec<Instance>>)> {
    // Competing hosts are reported where routes are compiled.
    let each = world.catalog().list.iter();
    each.map(|entry| (Arc::clone(&entry.service), Arc::clone(&entry.instances)))
        .collect()
}

/// The addresses that are allocated to the hosts of service entries without any. Only nodes that
/// resolve names with a table of the mesh use them: [`Node::dns_capture`](crate::Node).
pub fn allocated(world: &World) -> BTreeMap<Name, Vec<IpAddr>> {
    let services = world.catalog();
    let each = services.list.iter().filter_map(|entry| {
        let allocated = services.allocated(entry.host())?;
        Some((
            entry.service.id.host.clone(),
            allocated.addresses().collect(),
        ))
    });
    each.collect()
}

/// Whether the addresses of a service are those of its endpoints (Kubernetes `clusterIP: None`): names
/// in [`name_table`](crate::name_table) change with them.
pub fn is_headless(world: &World, host: &str) -> bool {
    let entry = world.catalog().entry(host);
    entry.is_some_and(|entry| entry.headless)
}

// === impl Services ===

impl Services {
    /// Collects the services of `world`; the second of two with one host is left out. An entry
    /// that is as it was before is the very same one.
    pub(crate) fn of(world: &World, before: Option<&Self>) -> Self {
        let ledger = before.map(|before| &before.ledger);
        let mesh = world.mesh_object().map_or(0, |object| object.meta.stamp);
        let peers = Peers::of(world);
        let before = before.filter(|before| before.mesh == mesh && before.peers == peers.stamp());
        let workloads = index::Workloads::of(world);
        let mut all = kubernetes::entries(world, &workloads);
        all.extend(entries::entries(world, &workloads, before));
        let mut services = Self {
            mesh,
            peers: peers.stamp(),
            ..Self::default()
        };
        for mut entry in all {
            take_mutual(&mut entry, &peers);
            let host = entry.service.id.host.clone();
            if let Some(&first) = services.by_host.get(&host) {
                let message = format!(
                    "host {host:?} belongs to {} already, which wins",
                    services.list[first].meta,
                );
                let finding = entry.meta.finding(Severity::Warning, entry.at, message);
                services.findings.push(finding);
                continue;
            }
            if let Some(was) = before.and_then(|before| before.entry(&host))
                && was.is(&entry)
            {
                entry = Arc::clone(was);
            }
            let place = services.list.len();
            if entry.selector.is_some() {
                let namespace = entry.service.id.namespace.clone();
                services.selecting.entry(namespace).or_default().push(place);
            }
            services.by_host.insert(host, place);
            services.list.push(entry);
        }
        services.ledger = Ledger::of(&services.list, ledger);
        for host in &services.ledger.without {
            if let Some(entry) = services
                .by_host
                .get(host)
                .map(|&place| &services.list[place])
            {
                let message = format!(
                    "no address is left to allocate to {host:?}: give it one in spec.addresses"
                );
                let finding = entry.meta.finding(Severity::Warning, entry.at, message);
                services.findings.push(finding);
            }
        }
        services
    }

    /// As much of them as has a say in those of the next world: who has which address.
    pub(crate) fn at_rest(&self) -> Self {
        Self {
            ledger: self.ledger.at_rest(),
            ..Self::default()
        }
    }

    /// What was allocated to a host.
    pub(crate) fn allocated(&self, host: &str) -> Option<&Allocated> {
        self.ledger.get(host)
    }

    /// What is wrong with the services as a whole.
    pub(crate) fn findings(&self) -> &[Diagnostic] {
        &self.findings
    }

    /// Every service, Kubernetes' first, each sorted by namespace and name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.list.iter()
    }

    /// The service with this full host name.
    pub(crate) fn get(&self, host: &str) -> Option<&Entry> {
        self.entry(host).map(|entry| &**entry)
    }

    /// The same, to be kept.
    pub(crate) fn entry(&self, host: &str) -> Option<&Arc<Entry>> {
        self.by_host.get(host).map(|&index| &self.list[index])
    }

    /// The services whose selector takes in a workload.
    pub(crate) fn selecting<'s>(
        &'s self,
        namespace: &str,
        labels: &'s BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'s Entry> {
        let places = self.selecting.get(namespace).into_iter().flatten();
        places
            .map(|&place| &*self.list[place])
            .filter(move |entry| {
                let selector = entry.selector.as_ref();
                selector.is_some_and(|selector| selects(selector, labels))
            })
    }
}

// === impl Distribution ===

impl Distribution {
    /// What the field of a service says, or else its annotation. Other values prefer nothing.
    fn of(field: &str, meta: &Meta) -> Option<Self> {
        let annotation = meta.annotations.get(DISTRIBUTION);
        let said = match field {
            "" => annotation.map_or("", String::as_str),
            field => field,
        };
        let known = ["PreferClose", "PreferSameZone"];
        let known = known.iter().any(|one| one.eq_ignore_ascii_case(said));
        known.then_some(Self::SameZone)
    }
}

// === impl Entry ===

impl Entry {
    pub(crate) fn host(&self) -> &str {
        &self.service.id.host
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.service.id.namespace
    }

    /// All ports.
    pub(crate) fn ports(&self) -> impl Iterator<Item = (u16, Protocol)> {
        self.service
            .ports
            .iter()
            .filter_map(|port| Some((port.number, *self.protocols.get(&port.number)?)))
    }

    /// The ports that can be routed as HTTP.
    pub(crate) fn http_ports(&self) -> impl Iterator<Item = (u16, Protocol)> {
        self.ports().filter(|(_, protocol)| protocol.is_http())
    }

    /// Whether another entry says the same to a letter, its place and its endpoints too.
    fn is(&self, other: &Self) -> bool {
        self.meta.stamp == other.meta.stamp
            && self.at == other.at
            && self.service == other.service
            && self.instances == other.instances
            && self.protocols == other.protocols
            && self.targets == other.targets
            && self.selector == other.selector
            && self.visibility == other.visibility
            && self.distribution == other.distribution
            && (self.kubernetes, self.headless) == (other.kubernetes, other.headless)
            && self.blocks == other.blocks
            && self.allocated == other.allocated
            && self.subject_alt_names == other.subject_alt_names
    }

    /// Its only port, if it has no more.
    pub(crate) fn only_port(&self) -> Option<u16> {
        match self.service.ports.as_slice() {
            [port] => Some(port.number),
            _ => None,
        }
    }

    /// Whether clients of this namespace see it.
    pub(crate) fn shows(&self, viewer: &str) -> bool {
        self.visibility.shows(self.namespace(), viewer)
    }
}

/// Whether every label of `selector` is among `labels`. An empty selector takes in nothing:
/// for services that means that somebody else writes their endpoints.
pub(crate) fn selects(selector: &Selector, labels: &BTreeMap<String, String>) -> bool {
    !selector.is_empty() && contains(labels, selector)
}

/// Whether every label of `part` is among `labels`.
pub(crate) fn contains(labels: &BTreeMap<String, String>, part: &Selector) -> bool {
    part.iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

fn app_protocol(protocol: Protocol) -> AppProtocol {
    match protocol {
        Protocol::Http | Protocol::Unknown => AppProtocol::Http,
        Protocol::Http2 => AppProtocol::Http2,
        Protocol::Grpc => AppProtocol::Grpc,
        Protocol::Tls => AppProtocol::Tls,
        Protocol::Tcp | Protocol::Udp => AppProtocol::Tcp,
    }
}

/// `exportTo` in the vocabulary of discovery, where an empty list is everybody.
fn export_names(visibility: &Visibility, own: &str) -> Vec<Name> {
    match visibility {
        Visibility::All => Vec::new(),
        // No namespace is called so.
        Visibility::None => vec![Name::from("~")],
        Visibility::Only {
            own: mine,
            namespaces,
        } => {
            let own = mine.then_some(own);
            own.into_iter()
                .chain(namespaces.iter().map(String::as_str))
                .map(Name::from)
                .collect()
        }
    }
}

fn names(map: &BTreeMap<String, String>) -> BTreeMap<Name, Name> {
    map.iter()
        .map(|(key, value)| (Name::from(key), Name::from(value)))
        .collect()
}
