//! Kubernetes services with their endpoints.
//!
//! Endpoints come from EndpointSlices, or Endpoints where there are none, or
//! (as the endpoints controller would) from the pods that the selector takes
//! in; and always from the workload entries that it takes in.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_core::Name;
use mesh_core::discovery::{Instance, Resolution, Service, ServicePort};
use mesh_core::model::{Address, Health};

use super::index::{Workloads, Written};
use super::places::Places;
use super::workload::{Workload, address};
use super::{Distribution, Entry, app_protocol, export_names, names};
use crate::names::service_host;
use crate::spec::kubernetes::{self as spec, Pod, Protocol, TargetPort};
use crate::spec::{Meta, parse_visibility};
use crate::world::World;

const EXPORT_TO: &str = "networking.istio.io/exportTo";

type PodsByAddress<'w> = BTreeMap<(&'w str, IpAddr), (&'w Meta, &'w Pod)>;

/// What the endpoints of services are made of.
struct Sources<'w> {
    world: &'w World,
    workloads: &'w Workloads<'w>,
    written: Written<'w>,
    by_address: PodsByAddress<'w>,
    places: Places,
}

/// Every Kubernetes service, sorted by namespace and name.
pub(super) fn entries<'w>(world: &'w World, workloads: &'w Workloads<'w>) -> Vec<Arc<Entry>> {
    let by_address: PodsByAddress<'_> = world
        .pods()
        .flat_map(|(meta, pod)| {
            pod.addresses
                .iter()
                .map(move |ip| ((meta.namespace.as_str(), *ip), (meta, pod)))
        })
        .collect();
    let sources = Sources {
        world,
        workloads,
        written: Written::of(world),
        by_address,
        places: Places::of_world(world),
    };
    world
        .services()
        .map(|(meta, service)| Arc::new(entry(&sources, meta, service)))
        .collect()
}

fn entry(sources: &Sources<'_>, meta: &Meta, spec: &spec::Service) -> Entry {
    let world = sources.world;
    let mut service = Service::new(service_host(&meta.name, &meta.namespace), &meta.namespace);
    service.name = Name::from(&meta.name);
    service.labels = names(&meta.labels);
    service.addresses.clone_from(&spec.addresses);
    let tcp = || {
        spec.ports
            .iter()
            .filter(|port| port.protocol != Protocol::Udp)
    };
    service.ports = tcp()
        .map(|port| ServicePort::new(&port.name, port.number, app_protocol(port.protocol)))
        .collect();
    let annotation = meta.annotations.get(EXPORT_TO);
    let visibility = annotation
        .and_then(|text| parse_visibility(text.split(',').map(str::trim)))
        .unwrap_or_else(|| world.mesh_config().service_export.clone());
    service.export_to = export_names(&visibility, &meta.namespace);
    let mut instances = Vec::new();
    if let Some(name) = &spec.external_name {
        service.resolution = Resolution::Dns;
        service.external = true;
        let workload = Workload::new(&meta.name, &meta.namespace, &BTreeMap::new(), "", "");
        instances.extend(
            tcp().map(|port| workload.at(port.number, address(name, port.number), Health::Healthy)),
        );
    } else {
        kubernetes_endpoints(sources, meta, spec, &mut instances);
        workload_entries(sources, meta, spec, &mut instances);
    }
    Entry {
        service: Arc::new(service),
        instances: Arc::new(instances),
        protocols: tcp().map(|port| (port.number, port.protocol)).collect(),
        targets: tcp()
            .filter_map(|port| match port.target {
                TargetPort::Number(target) => Some((port.number, target)),
                TargetPort::Name(_) => None,
            })
            .collect(),
        selector: (!spec.selector.is_empty()).then(|| spec.selector.clone()),
        visibility,
        kubernetes: true,
        blocks: Vec::new(),
        allocated: None,
        subject_alt_names: Vec::new(),
        headless: spec.headless,
        distribution: Distribution::of(&spec.distribution, meta),
        meta: meta.clone(),
        at: meta.at,
    }
}

/// Endpoints that Kubernetes wrote, or would have written.
fn kubernetes_endpoints(
    sources: &Sources<'_>,
    meta: &Meta,
    spec: &spec::Service,
    instances: &mut Vec<Instance>,
) {
    let pods = &sources.by_address;
    let written = sources.written.get(&meta.namespace, &meta.name);
    if written.is_empty() {
        selected_pods(sources, meta, spec, instances);
        return;
    }
    for (endpoints, ports) in written.into_iter().flat_map(|endpoints| &endpoints.groups) {
        for endpoint in endpoints {
            let Some(health) = health(endpoint.ready, endpoint.terminating, spec) else {
                continue;
            };
            let pod = pods.get(&(meta.namespace.as_str(), endpoint.address));
            let workload = match pod {
                Some((pod_meta, pod)) => pod_workload(sources, pod_meta, pod),
                None => Workload::new(&endpoint.pod, &meta.namespace, &BTreeMap::new(), "", "")
                    .in_locality(sources.places.of(&endpoint.node)),
            };
            let workload = workload.or_in_zone(&endpoint.zone);
            for port in ports {
                let served = spec
                    .ports
                    .iter()
                    .find(|one| one.protocol != Protocol::Udp && one.name == port.name);
                if let Some(served) = served {
                    let address = Address::Socket(SocketAddr::new(endpoint.address, port.number));
                    instances.push(workload.at(served.number, address, health));
                }
            }
        }
    }
}

fn health(ready: bool, terminating: bool, spec: &spec::Service) -> Option<Health> {
    match (ready, terminating) {
        (true, _) => Some(Health::Healthy),
        (false, _) if spec.publish_not_ready => Some(Health::Healthy),
        (false, true) => Some(Health::Draining),
        (false, false) => None,
    }
}

fn selected_pods(
    sources: &Sources<'_>,
    meta: &Meta,
    spec: &spec::Service,
    instances: &mut Vec<Instance>,
) {
    let selected = sources.workloads.pods(&meta.namespace, &spec.selector);
    for (pod_meta, pod) in selected.filter(|(_, pod)| !pod.finished) {
        let (Some(ip), Some(health)) = (pod.addresses.first(), health(pod.ready, false, spec))
        else {
            continue;
        };
        let workload = pod_workload(sources, pod_meta, pod);
        for port in spec
            .ports
            .iter()
            .filter(|port| port.protocol != Protocol::Udp)
        {
            let target = match &port.target {
                TargetPort::Number(number) => Some(*number),
                TargetPort::Name(name) => pod.ports.get(name).copied(),
            };
            if let Some(target) = target {
                let address = Address::Socket(SocketAddr::new(*ip, target));
                instances.push(workload.at(port.number, address, health));
            }
        }
    }
}

fn pod_workload(sources: &Sources<'_>, meta: &Meta, pod: &Pod) -> Workload {
    let account = &pod.service_account;
    let domain = &sources.world.mesh_config().trust_domain;
    let workload = Workload::new(&meta.name, &meta.namespace, &meta.labels, account, domain);
    workload.in_locality(sources.places.of_pod(meta, pod))
}

fn workload_entries(
    sources: &Sources<'_>,
    meta: &Meta,
    spec: &spec::Service,
    instances: &mut Vec<Instance>,
) {
    let domain = &sources.world.mesh_config().trust_domain;
    let selected = sources.workloads.entries(&meta.namespace, &spec.selector);
    for found in selected {
        let (entry_meta, entry, labels) = (found.meta, found.entry, &found.labels);
        let workload = Workload::of_entry(&entry_meta.name, entry_meta, entry, labels, domain);
        for port in spec
            .ports
            .iter()
            .filter(|port| port.protocol != Protocol::Udp)
        {
            let target = entry
                .ports
                .get(&port.name)
                .copied()
                .or_else(|| match &port.target {
                    TargetPort::Number(number) => Some(*number),
                    TargetPort::Name(name) => entry.ports.get(name).copied(),
                });
            let target = target.unwrap_or(port.number);
            let address = address(&entry.address, target);
            instances.push(workload.at(port.number, address, Health::Healthy));
        }
    }
}
