//! The names that a node may resolve in the mesh, as istiod's NDS has them.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use mesh_core::Name;
use mesh_core::discovery::{NameInfo, NameTable};
use mesh_core::model::Address;

use super::memory::Memory;
use super::{Compiler, scope};
use crate::node::{Node, Role};
use crate::registry::Entry;
use crate::spec::Meta;
use crate::spec::kubernetes::Pod;
use crate::world::World;

/// Pods by namespace and address, those that have names below a service's.
type Named<'w> = HashMap<(&'w str, IpAddr), (&'w Meta, &'w Pod)>;

/// The names that `node` may resolve in the mesh: those of the services that it sees, by the
/// addresses that it calls them at, which its listeners know.
///
/// As istiod has it: a service without an address is not in the table unless it is headless, whose
/// endpoints answer for it, each pod with a `subdomain` by a name of its own too; and of blocks of
/// addresses none is an answer.
///
/// ```
/// use mesh_istio::{Capture, Files, Node, World, name_table};
///
/// let mut world = World::default();
/// world.update(&Files::from_text("a.yaml", "
/// apiVersion: networking.istio.io/v1
/// kind: ServiceEntry
/// metadata: {name: db}
/// spec:
///   hosts: [db.example.com]
///   ports: [{number: 5432, name: tcp, protocol: TCP}]
///   resolution: DNS
/// "));
/// let mut node = Node::sidecar("client", "default");
/// node.capture = Capture::Redirect;
/// assert!(name_table(&world, &node).names.is_empty());
/// node.dns_capture = true;
/// let table = name_table(&world, &node);
/// assert!(table.names["db.example.com"].addresses[0].to_string().starts_with("240.240."));
/// ```
pub fn name_table(world: &World, node: &Node) -> NameTable {
    let mut memory = Memory::default();
    let compiler = Compiler::new(world, node, &mut memory);
    let scopes = match node.role {
        Role::Gateway { .. } => vec![scope::services(&compiler)],
        Role::Sidecar { .. } => {
            let sidecar = scope::sidecar(&compiler);
            let all = scope::scopes(&compiler, sidecar).into_iter();
            all.map(|scope| scope.services).collect()
        }
    };
    let entries = || scopes.iter().flatten();
    let pods = match entries().any(|entry| entry.headless) {
        true => named(world),
        false => Named::new(),
    };
    let mut table = NameTable::default();
    for entry in entries() {
        let name = lower(entry.host());
        if table.names.contains_key(&name) {
            continue;
        }
        let addresses = match entry.headless {
            false => addresses(entry, node.address.is_ipv6()),
            true => endpoints(entry),
        };
        if addresses.is_empty() {
            continue;
        }
        let mut info = NameInfo::new(addresses);
        if entry.kubernetes {
            info = info.short(entry.service.name.clone(), entry.namespace());
            if entry.headless {
                each_pod(entry, &info, &pods, &mut table);
            }
        }
        table.names.insert(name, info);
    }
    table
}

/// The addresses of a service: a user's as they are, Kubernetes' of the node's family if it has
/// any.
fn addresses(entry: &Entry, v6: bool) -> Vec<IpAddr> {
    let all = &entry.service.addresses;
    let fits: Vec<_> = all
        .iter()
        .filter(|one| one.is_ipv6() == v6)
        .copied()
        .collect();
    match entry.kubernetes && !fits.is_empty() {
        true => fits,
        false => all.clone(),
    }
}

/// The addresses that serve the first port of a service, each once.
fn endpoints(entry: &Entry) -> Vec<IpAddr> {
    let Some(first) = entry.service.ports.first() else {
        return Vec::new();
    };
    let serving = entry.instances.iter();
    let serving = serving.filter(|one| one.port == first.number && one.is_healthy());
    let each: BTreeSet<_> = serving
        .filter_map(|one| match one.endpoint.address {
            Address::Socket(address) => Some(address.ip()),
            _ => None,
        })
        .collect();
    each.into_iter().collect()
}

/// Adds the name of each pod below that of its headless service: `pod.service.namespace.svc.…`.
fn each_pod(entry: &Entry, info: &NameInfo, pods: &Named<'_>, table: &mut NameTable) {
    let Some((_, domain)) = entry.host().split_once('.') else {
        return;
    };
    for address in &info.addresses {
        let Some((meta, pod)) = pods.get(&(entry.namespace(), *address)) else {
            continue;
        };
        let own = match pod.hostname.as_str() {
            "" => &meta.name,
            own => own,
        };
        let short = format!("{own}.{}", pod.subdomain);
        let name = lower(&format!("{short}.{domain}"));
        let info = NameInfo::new([*address]).short(short, entry.namespace());
        table.names.insert(name, info);
    }
}

fn named(world: &World) -> Named<'_> {
    let pods = world.pods().filter(|(_, pod)| !pod.subdomain.is_empty());
    pods.flat_map(|(meta, pod)| {
        let each = pod.addresses.iter();
        each.map(move |address| ((meta.namespace.as_str(), *address), (meta, pod)))
    })
    .collect()
}

fn lower(name: &str) -> Name {
    Name::from(name.trim_end_matches('.').to_ascii_lowercase())
}
