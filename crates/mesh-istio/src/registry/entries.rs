//! Service entries with their endpoints.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::Name;
use mesh_core::discovery::{Instance, Resolution, Service, ServicePort};
use mesh_core::model::{Address, Health, UnixPath};

use super::index::Workloads;
use super::places::Places;
use super::workload::{Workload, address};
use super::{Distribution, Entry, Services, app_protocol, export_names, names};
use crate::spec::service_entry::{EntryPort, Resolution as SpecResolution};
use crate::spec::{Meta, ServiceEntry};
use crate::world::World;

/// One entry per host of every service entry. One whose endpoints all stand in it is not made
/// again.
pub(super) fn entries<'w>(
    world: &'w World,
    workloads: &Workloads<'w>,
    before: Option<&Services>,
) -> Vec<Arc<Entry>> {
    let mut all: Vec<_> = world.service_entries().collect();
    all.sort_by_key(|(meta, _)| meta.seniority());
    // Few select pods.
    let places = OnceCell::new();
    let mut entries = Vec::new();
    for (meta, spec) in all {
        for host in &spec.hosts {
            let was = before.and_then(|before| before.entry(host));
            let same = |was: &&Arc<Entry>| was.meta.stamp == meta.stamp && was.at == host.at;
            if let Some(was) = was.filter(same).filter(|_| spec.selector.is_none()) {
                entries.push(Arc::clone(was));
                continue;
            }
            let mut entry = entry(world, workloads, &places, meta, spec, host);
            entry.at = host.at;
            entries.push(Arc::new(entry));
        }
    }
    entries
}

fn entry<'w>(
    world: &'w World,
    workloads: &Workloads<'w>,
    places: &OnceCell<Places>,
    meta: &'w Meta,
    spec: &ServiceEntry,
    host: &str,
) -> Entry {
    let mut service = Service::new(host, &meta.namespace);
    service.name = Name::from(host);
    service.labels = names(&meta.labels);
    let single = spec.addresses.iter().filter(|block| block.is_single());
    service.addresses = single.map(|block| block.address()).collect();
    service.external = spec.external;
    service.resolution = match spec.resolution {
        SpecResolution::Static => Resolution::Static,
        SpecResolution::Dns => Resolution::Dns,
        SpecResolution::DnsRoundRobin => Resolution::DnsRoundRobin,
        SpecResolution::None => Resolution::None,
        SpecResolution::DynamicDns => Resolution::DynamicDns,
    };
    service.ports = spec
        .ports
        .iter()
        .map(|port| ServicePort::new(&port.name, port.number, app_protocol(port.protocol)))
        .collect();
    let visibility = spec
        .export_to
        .clone()
        .unwrap_or_else(|| world.mesh_config().service_export.clone());
    service.export_to = export_names(&visibility, &meta.namespace);
    Entry {
        service: Arc::new(service),
        instances: Arc::new(instances(world, workloads, places, meta, spec, host)),
        protocols: spec
            .ports
            .iter()
            .map(|port| (port.number, port.protocol))
            .collect(),
        targets: spec
            .ports
            .iter()
            .map(|port| (port.number, port.target.unwrap_or(port.number)))
            .collect(),
        selector: spec.selector.clone(),
        visibility,
        kubernetes: false,
        blocks: spec
            .addresses
            .iter()
            .copied()
            .filter(|block| !block.is_single())
            .collect(),
        allocated: spec.host_wants_addresses(meta, host).then(|| {
            let each = spec.allocated.iter();
            let own = each.filter(|(of, _)| of.eq_ignore_ascii_case(host));
            own.map(|(_, address)| *address).collect()
        }),
        subject_alt_names: spec.subject_alt_names.clone(),
        headless: false,
        distribution: Distribution::of("", meta),
        meta: meta.clone(),
        at: meta.at,
    }
}

fn instances<'w>(
    world: &World,
    workloads: &Workloads<'w>,
    places: &OnceCell<Places>,
    meta: &'w Meta,
    spec: &ServiceEntry,
    host: &str,
) -> Vec<Instance> {
    let trust_domain = &world.mesh_config().trust_domain;
    let mut found = Vec::new();
    for (index, entry) in spec.endpoints.iter().enumerate() {
        let name = format!("{}-{index}", meta.name);
        let workload = Workload::of_entry(&name, meta, entry, &entry.labels, trust_domain);
        found.extend(spec.ports.iter().map(|port| {
            let address = address(&entry.address, target(&entry.ports, port));
            workload.at(port.number, address, Health::Healthy)
        }));
    }
    if let Some(selector) = &spec.selector {
        for one in workloads.entries(&meta.namespace, selector) {
            let (entry_meta, entry, labels) = (one.meta, one.entry, &one.labels);
            let unix = UnixPath::from_url(&entry.address).is_some();
            let looked_up = matches!(
                spec.resolution,
                SpecResolution::Dns | SpecResolution::DnsRoundRobin
            );
            // A Unix domain socket is neither looked up, nor does it tell several ports apart.
            if unix && (looked_up || spec.ports.len() != 1) {
                continue;
            }
            let name = &entry_meta.name;
            let workload = Workload::of_entry(name, entry_meta, entry, labels, trust_domain);
            found.extend(spec.ports.iter().map(|port| {
                let address = address(&entry.address, target(&entry.ports, port));
                workload.at(port.number, address, Health::Healthy)
            }));
        }
        for (pod_meta, pod) in workloads.pods(&meta.namespace, selector) {
            let (Some(ip), true) = (pod.addresses.first(), pod.ready && !pod.finished) else {
                continue;
            };
            let workload = Workload::new(
                &pod_meta.name,
                &pod_meta.namespace,
                &pod_meta.labels,
                &pod.service_account,
                trust_domain,
            );
            let places = places.get_or_init(|| Places::of_world(world));
            let workload = workload.in_locality(places.of_pod(pod_meta, pod));
            found.extend(spec.ports.iter().map(|port| {
                let address = Address::Socket((*ip, target(&BTreeMap::new(), port)).into());
                workload.at(port.number, address, Health::Healthy)
            }));
        }
    }
    // Without endpoints the host itself is looked up.
    if matches!(
        spec.resolution,
        SpecResolution::Dns | SpecResolution::DnsRoundRobin
    ) && spec.endpoints.is_empty()
        && spec.selector.is_none()
    {
        let workload = Workload::new(&meta.name, &meta.namespace, &meta.labels, "", trust_domain);
        found.extend(spec.ports.iter().map(|port| {
            let address = address(host, target(&BTreeMap::new(), port));
            workload.at(port.number, address, Health::Healthy)
        }));
    }
    found
}

/// The port of an endpoint: by name, or the target port, or the service's own.
fn target(ports: &BTreeMap<String, u16>, port: &EntryPort) -> u16 {
    ports
        .get(&port.name)
        .copied()
        .or(port.target)
        .unwrap_or(port.number)
}
