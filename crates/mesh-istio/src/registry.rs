//! The services that the objects in force describe, with their endpoints.
//!
//! The vocabulary is [`mesh_core::discovery`]; [`FileRegistry`] tells changes
//! from one [`World`] to the next in it, like any other registry.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::Name;
use mesh_core::discovery::{AppProtocol, Instance, Service};

use crate::diagnostic::{Diagnostic, Position, Severity};
use crate::spec::kubernetes::Protocol;
use crate::spec::{Meta, Selector, Visibility};
use crate::world::World;

mod entries;
mod events;
mod kubernetes;
mod workload;

pub use events::{FileRegistry, FileRegistryHandle};

/// All services, by host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Services {
    list: Vec<Entry>,
    by_host: BTreeMap<Name, usize>,
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
    /// The object that declares it.
    pub(crate) meta: Meta,
    /// Where in it.
    pub(crate) at: Position,
}

/// Every service that the objects in force describe, with its endpoints, in the order in which
/// [`compile`](crate::compile) meets them.
pub fn services(world: &World) -> Vec<(Arc<Service>, Arc<Vec<Instance>>)> {
    // Competing hosts are reported where routes are compiled.
    let services = Services::of(world, &mut Vec::new());
    let each = services.list.into_iter();
    each.map(|entry| (entry.service, entry.instances)).collect()
}

// === impl Services ===

impl Services {
    /// Collects the services of `world`; the second of two with one host is left out.
    pub(crate) fn of(world: &World, findings: &mut Vec<Diagnostic>) -> Self {
        let mut all = kubernetes::entries(world);
        all.extend(entries::entries(world));
        let mut services = Self::default();
        for entry in all {
            let host = entry.service.id.host.clone();
            if let Some(&first) = services.by_host.get(&host) {
                let message = format!(
                    "host {host:?} belongs to {} already, which wins",
                    services.list[first].meta,
                );
                findings.push(entry.meta.finding(Severity::Warning, entry.at, message));
                continue;
            }
            services.by_host.insert(host, services.list.len());
            services.list.push(entry);
        }
        services
    }

    /// Every service, Kubernetes' first, each sorted by namespace and name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.list.iter()
    }

    /// The service with this full host name.
    pub(crate) fn get(&self, host: &str) -> Option<&Entry> {
        self.by_host.get(host).map(|&index| &self.list[index])
    }

    /// The services whose selector takes in a workload.
    pub(crate) fn selecting<'s>(
        &'s self,
        namespace: &'s str,
        labels: &'s BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'s Entry> {
        self.list.iter().filter(move |entry| {
            *entry.service.id.namespace == *namespace
                && entry
                    .selector
                    .as_ref()
                    .is_some_and(|selector| selects(selector, labels))
        })
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
