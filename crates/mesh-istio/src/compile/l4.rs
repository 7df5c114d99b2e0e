//! Where connections go that nobody looks into: `tls` and `tcp` rules, and services without any.
//!
//! What a rule says about gateways, ports and clients is decided here. What it says about server
//! names and subnets becomes the match of a filter chain.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::model::{Cidr, FilterChain, HashSource, TcpProxy, TcpSplit, TcpTarget, Tunnel};
use mesh_core::{Name, Origin};

use super::policy::{self, Policy};
use super::route::{self, Site, gateway_name};
use super::{Compiler, tls};
use crate::names::{complete, covers, outbound};
use crate::registry::{Entry, contains};
use crate::spec::Meta;
use crate::spec::kubernetes::Protocol;
use crate::spec::virtual_service::{L4Match, RouteDestination, TcpRoute};
use crate::spec::{VirtualService, virtual_service};

/// How connections come to a port of a service.
#[derive(Clone, Debug)]
pub(super) struct Outlet<'a> {
    pub(super) entry: &'a Arc<Entry>,
    /// The port that is listened on, and what is spoken there.
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    /// The listener is for others too: only TLS server names tell services apart.
    pub(super) shared: bool,
    /// The block of the service's addresses, of which each is its own.
    pub(super) block: Option<Cidr>,
}

/// Virtual services with whom they belong to.
pub(super) type Specs<'a> = [(&'a Meta, &'a VirtualService)];

/// The chains for a port of a service, in the order in which its rules say; one that matches
/// everything is the last.
pub(super) fn chains(
    compiler: &mut Compiler<'_>,
    specs: &Specs<'_>,
    outlet: &Outlet<'_>,
) -> Vec<FilterChain> {
    let host = outlet.entry.host();
    let named = |meta: &Meta, name: &str| covers(&complete(name, &meta.namespace), host);
    let mine: Vec<_> = specs
        .iter()
        .filter(|(meta, spec)| spec.hosts.iter().any(|host| named(meta, host)))
        .copied()
        .collect();
    match outlet.protocol {
        Protocol::Tls => by_server_name(compiler, &mine, outlet),
        _ => by_subnet(compiler, &mine, outlet),
    }
}

fn by_server_name(
    compiler: &mut Compiler<'_>,
    specs: &Specs<'_>,
    outlet: &Outlet<'_>,
) -> Vec<FilterChain> {
    let site = Site {
        gateway: "mesh",
        port: outlet.port,
    };
    let own: Vec<Cidr> = outlet.block.into_iter().collect();
    let mut chains = Vec::new();
    let mut done: HashSet<(Vec<String>, Vec<Cidr>)> = HashSet::new();
    for (meta, spec) in specs {
        for rule in &spec.tls {
            for block in &rule.matches {
                let what = (block.sni_hosts.clone(), block.destination_subnets.clone());
                // Of two that match the same the first is used.
                if !applies(compiler, meta, block, site) || !done.insert(what) {
                    continue;
                }
                let proxy = routed(compiler, meta, &rule.route, site);
                let origin = compiler.origin(meta, rule.at);
                let mut chain = chain(proxy, origin);
                chain.matches.server_names = names(&block.sni_hosts);
                chain.matches.destinations = match block.destination_subnets.as_slice() {
                    [] => own.clone(),
                    subnets => subnets.to_vec(),
                };
                chains.push(chain);
            }
        }
    }
    if chains.is_empty() {
        let mut chain = unruled(compiler, outlet);
        if outlet.shared {
            chain.matches.server_names = vec![Name::from(outlet.entry.host())];
        }
        chains.push(chain);
    }
    chains
}

fn by_subnet(
    compiler: &mut Compiler<'_>,
    specs: &Specs<'_>,
    outlet: &Outlet<'_>,
) -> Vec<FilterChain> {
    let site = Site {
        gateway: "mesh",
        port: outlet.port,
    };
    let own: Vec<Cidr> = outlet.block.into_iter().collect();
    let mut chains: Vec<FilterChain> = Vec::new();
    for (meta, spec) in specs {
        for rule in &spec.tcp {
            let Some(subnets) = subnets(compiler, meta, rule, site) else {
                continue;
            };
            let proxy = routed(compiler, meta, &rule.route, site);
            let origin = compiler.origin(meta, rule.at);
            let mut chain = chain(proxy, origin);
            // A rule's own subnets stand for the service's block.
            let last = subnets.is_empty() || subnets == own;
            chain.matches.destinations = match subnets.is_empty() {
                true => own.clone(),
                false => subnets,
            };
            chains.push(chain);
            if last {
                return chains;
            }
        }
    }
    chains.push(unruled(compiler, outlet));
    chains
}

/// The subnets that a rule is for, none for everything; `None` if it is not for this place.
fn subnets(
    compiler: &Compiler<'_>,
    meta: &Meta,
    rule: &TcpRoute,
    site: Site<'_>,
) -> Option<Vec<Cidr>> {
    if rule.matches.is_empty() {
        return Some(Vec::new());
    }
    let mut found: Option<Vec<Cidr>> = None;
    for block in &rule.matches {
        if !applies(compiler, meta, block, site) {
            continue;
        }
        if block.destination_subnets.is_empty() {
            return Some(Vec::new());
        }
        let subnets = found.get_or_insert_default();
        subnets.extend_from_slice(&block.destination_subnets);
    }
    found
}

/// Whether a block is for this gateway, port and client.
pub(super) fn applies(
    compiler: &Compiler<'_>,
    meta: &Meta,
    block: &L4Match,
    site: Site<'_>,
) -> bool {
    let named = |name: &String| gateway_name(name, &meta.namespace) == site.gateway;
    let viewer = &compiler.viewer;
    let labels = &block.source_labels;
    (block.gateways.is_empty() || block.gateways.iter().any(named))
        && block.port.is_none_or(|port| port == site.port)
        && (block.source_namespace.is_empty() || block.source_namespace == viewer.namespace())
        && (labels.is_empty() || contains(viewer.labels(), labels))
}

/// A chain for every connection, as yet.
pub(super) fn chain(proxy: TcpProxy, origin: Origin) -> FilterChain {
    let mut chain = FilterChain::tcp(proxy);
    chain.origin = origin;
    chain.handshake_timeout = Some(tls::HANDSHAKE);
    chain
}

pub(super) fn names(hosts: &[String]) -> Vec<Name> {
    // Every name there is: no name has to be given.
    match hosts.iter().any(|host| host == "*") {
        true => Vec::new(),
        false => hosts.iter().map(Name::from).collect(),
    }
}

/// To the service's own cluster.
fn unruled(compiler: &mut Compiler<'_>, outlet: &Outlet<'_>) -> FilterChain {
    let entry = outlet.entry;
    // A listener may have another port than the only one there is.
    let port = entry.only_port().unwrap_or(outlet.port);
    let origin = compiler.origin(&entry.meta, entry.at);
    let policy = policy_of(compiler, entry.host(), "", port);
    let name = outbound(port, "", entry.host());
    let mut chain = chain(proxy(compiler, name, None, &policy), origin);
    chain.matches.destinations = outlet.block.into_iter().collect();
    chain
}

/// To where a rule says, by weight.
pub(super) fn routed(
    compiler: &mut Compiler<'_>,
    meta: &Meta,
    route: &[RouteDestination],
    site: Site<'_>,
) -> TcpProxy {
    let mut splits: Vec<TcpSplit> = route
        .iter()
        .map(|one| TcpSplit {
            origin: compiler.origin(meta, one.at),
            cluster: route::destination(compiler, meta, &one.destination, site),
            weight: one.weight,
        })
        .collect();
    let first = route.first().map(|one| &one.destination);
    let policy = first.map(|to| destination_policy(compiler, meta, to, site));
    let policy = policy.unwrap_or_default();
    match splits.as_mut_slice() {
        [only] => {
            // One alone gets everything, whatever it weighs.
            only.weight = 1;
            let name = only.cluster.to_string();
            let mut proxy = proxy(compiler, name, None, &policy);
            proxy.target = TcpTarget::Clusters(splits);
            proxy
        }
        _ => {
            splits.retain(|one| one.weight > 0);
            let name = format!("{}.{}", meta.name, meta.namespace);
            proxy(compiler, name, Some(splits), &policy)
        }
    }
}

/// A proxy of this name, to the cluster called so unless something else is said.
fn proxy(
    compiler: &Compiler<'_>,
    name: String,
    splits: Option<Vec<TcpSplit>>,
    policy: &Policy,
) -> TcpProxy {
    let mut proxy = match splits {
        None => TcpProxy::to(name.as_str(), name.as_str()),
        Some(splits) => TcpProxy::new(name, TcpTarget::Clusters(splits)),
    };
    proxy.access_log = compiler.access_log();
    if let Some(pool) = &policy.blocks.pool {
        match pool.tcp_idle_timeout {
            Some(Duration::ZERO) => proxy.idle_timeout = None,
            Some(idle) => proxy.idle_timeout = Some(idle),
            None => {}
        }
        proxy.max_duration = pool.max_connection_duration;
    }
    proxy.hash_source_ip = policy.hash_source() == Some(&HashSource::SourceIp);
    proxy.tunnel = policy.tunnel.as_ref().map(|asked| Tunnel {
        target: Name::from(asked.target()),
        post: asked.post,
    });
    proxy
}

pub(super) fn destination_policy(
    compiler: &mut Compiler<'_>,
    meta: &Meta,
    to: &virtual_service::Destination,
    site: Site<'_>,
) -> Policy {
    let host = complete(&to.host, &meta.namespace);
    let entry = compiler.service(&host);
    let only = entry.and_then(|entry| entry.only_port());
    let port = to.port.map(|port| port.value).or(only);
    policy_of(compiler, &host, &to.subset, port.unwrap_or(site.port))
}

/// What destination rules say about a port of a host, as far as it is known.
pub(super) fn policy_of(
    compiler: &mut Compiler<'_>,
    host: &str,
    subset: &str,
    port: u16,
) -> Policy {
    let Some(entry) = compiler.service(host) else {
        return Policy::default();
    };
    let index = Arc::clone(&compiler.memory.rules);
    let seen = compiler.viewer.forget();
    let rules = policy::find(compiler, &index, &entry, compiler.viewer.namespace());
    match &mut compiler.hears {
        // Whoever uses again what depends on these rules looks for them again.
        Some(hears) => {
            let found = (Arc::clone(&entry), rules.stamps.clone());
            hears.policies.push(found);
            compiler.half.seen = compiler.half.seen.and(compiler.viewer.forget());
            compiler.viewer.note(seen);
        }
        None => compiler.viewer.note(seen),
    }
    let mut subsets = rules.subsets.iter().map(|(_, subset)| *subset);
    let subset = subsets.find(|one| one.name == subset);
    policy::resolve(compiler.mesh, &rules, subset, port)
}
