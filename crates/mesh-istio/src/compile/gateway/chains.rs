//! Servers of a gateway as filter chains: TLS that ends here, TLS that goes on, and bytes.

use std::collections::HashSet;
use std::sync::Arc;

use mesh_core::Name;
use mesh_core::model::{Cluster, Direction, FilterChain, TcpProxy};

use super::super::route::{Site, gateway_name};
use super::super::{Compiler, cluster, l4, mutual, scope, tls};
use super::{bound_hosts, join, manager, table};
use crate::names::{complete, covers, server_name};
use crate::registry::Entry;
use crate::spec::gateway::{Protocol, Security, Server};
use crate::spec::{Meta, VirtualService};

/// What is known of a socket so far.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Server names that have a chain, or are to be served.
    names: HashSet<String>,
}

impl Taken {
    /// Takes the names of a server. Of two servers with one name the first has it, and the other
    /// one nothing at all.
    pub(super) fn server(
        &mut self,
        compiler: &mut Compiler<'_>,
        meta: &Meta,
        server: &Server,
    ) -> bool {
        let twice = server
            .hosts
            .iter()
            .find(|one| self.names.contains(&one.host));
        if let Some(host) = twice {
            let message = format!(
                "{:?} is served at this port by another server already: this one is left out",
                host.host
            );
            compiler.warn(meta, host.at, "spec.servers", message);
            return false;
        }
        let names = server.hosts.iter().map(|one| one.host.clone());
        self.names.extend(names);
        true
    }
}

/// The chains of a server at a port where TLS is spoken.
pub(super) fn secured(
    compiler: &mut Compiler<'_>,
    name: &str,
    (meta, server): (&Meta, &Server),
    specs: &l4::Specs<'_>,
) -> Vec<FilterChain> {
    let hosts: Vec<String> = server.hosts.iter().map(|one| one.host.clone()).collect();
    let mut chains = match &server.security {
        Security::Passthrough => return passed_on(compiler, meta, server, specs),
        Security::AutoPassthrough => return by_cluster(compiler, meta, server),
        Security::Terminate(_) if server.protocol == Protocol::Https => {
            let mut found = super::Hosts::new();
            join(compiler, meta, server, specs, &mut found);
            let routes = format!(
                "https.{}.{}.{}.{}",
                server.port, server.port_name, meta.name, meta.namespace
            );
            compiler.table(table(&routes, found));
            vec![FilterChain::http(manager(compiler, name, &routes))]
        }
        _ => bytes(compiler, meta, server, specs).into_iter().collect(),
    };
    let origin = compiler.origin(meta, server.at);
    for chain in &mut chains {
        chain.origin = origin;
        chain.handshake_timeout = Some(tls::HANDSHAKE);
        chain.matches.server_names = l4::names(&hosts);
        if let Security::Terminate(asked) = &server.security {
            chain.tls = Some(tls::server(compiler, meta, asked));
        }
    }
    chains
}

/// The chain of a server for bytes: of the first rule that is for it.
pub(super) fn bytes(
    compiler: &mut Compiler<'_>,
    meta: &Meta,
    server: &Server,
    specs: &l4::Specs<'_>,
) -> Option<FilterChain> {
    let gateway = format!("{}/{}", meta.namespace, meta.name);
    let site = Site {
        gateway: &gateway,
        port: server.port,
    };
    for (owner, spec) in bound(meta, server, &gateway, specs) {
        for rule in &spec.tcp {
            let mut blocks = rule.matches.iter();
            let fits = rule.matches.is_empty()
                || blocks.any(|block| l4::applies(compiler, owner, block, site));
            if fits {
                let proxy = l4::routed(compiler, owner, &rule.route, site);
                let origin = compiler.origin(owner, rule.at);
                return Some(l4::chain(inward(proxy), origin));
            }
        }
    }
    let message = "no tcp rule is for this server: nothing is served".to_owned();
    compiler.warn(meta, server.at, "spec.servers", message);
    None
}

/// Chains of rules that go by server names, each name once.
fn passed_on(
    compiler: &mut Compiler<'_>,
    meta: &Meta,
    server: &Server,
    specs: &l4::Specs<'_>,
) -> Vec<FilterChain> {
    let gateway = format!("{}/{}", meta.namespace, meta.name);
    let site = Site {
        gateway: &gateway,
        port: server.port,
    };
    let mut chains = Vec::new();
    let mut done: HashSet<&str> = HashSet::new();
    for (owner, spec) in bound(meta, server, &gateway, specs) {
        for rule in &spec.tls {
            for block in &rule.matches {
                if !l4::applies(compiler, owner, block, site) {
                    continue;
                }
                let names = block.sni_hosts.iter();
                let fresh: Vec<String> = names.filter(|name| done.insert(name)).cloned().collect();
                if fresh.is_empty() {
                    continue;
                }
                let proxy = l4::routed(compiler, owner, &rule.route, site);
                let origin = compiler.origin(owner, rule.at);
                let mut chain = l4::chain(inward(proxy), origin);
                chain.matches.server_names = l4::names(&fresh);
                chains.push(chain);
            }
        }
    }
    if chains.is_empty() {
        let message = "no tls rule is for this server: nothing is served".to_owned();
        compiler.warn(meta, server.at, "spec.servers", message);
    }
    chains
}

/// A chain for every cluster in the mesh, which callers name as their server name. They have to
/// speak the mesh's mutual TLS, so that nobody gets past it.
fn by_cluster(compiler: &mut Compiler<'_>, meta: &Meta, server: &Server) -> Vec<FilterChain> {
    let origin = compiler.origin(meta, server.at);
    let reached = |entry: &Entry| {
        let mut hosts = server.hosts.iter();
        !entry.service.external && hosts.any(|host| covers(&host.host, entry.host()))
    };
    let mut chains = Vec::new();
    for entry in scope::services(compiler) {
        if !reached(entry) {
            continue;
        }
        cluster::service(compiler, entry);
        let made: Vec<Arc<Cluster>> = compiler
            .half
            .clusters
            .iter()
            .filter(|one| one.service.host == entry.service.id.host)
            .cloned()
            .collect();
        for cluster in made {
            let Some(name) = by_name(compiler, &cluster) else {
                continue;
            };
            let proxy = inward(TcpProxy::to(name.clone(), name.clone()));
            let mut chain = l4::chain(proxy, origin);
            chain.matches.server_names = vec![name];
            chain.matches.protocols = mutual::PROTOCOLS.map(Name::from).to_vec();
            chains.push(chain);
        }
    }
    chains
}

/// The cluster that passes TLS on to the same endpoints, called by its server name.
fn by_name(compiler: &mut Compiler<'_>, like: &Cluster) -> Option<Name> {
    let service = &like.service;
    let name = server_name(service.port, &service.subset, &service.host);
    // Itself one of these.
    if *like.name == *name {
        return None;
    }
    let name = Name::from(name);
    if !compiler.clusters.insert(name.clone()) {
        return Some(name);
    }
    let mut cluster = like.clone();
    cluster.name = name.clone();
    cluster.stat_name = compiler.stat_name(&name);
    cluster.tls = None;
    cluster.tls_matches.clear();
    cluster.metadata.remove("istio/alpn_override");
    let half = &mut compiler.half;
    let endpoints = half.endpoints.iter().find(|(of, _)| *of == like.name);
    if let Some((_, endpoints)) = endpoints {
        let endpoints = Arc::clone(endpoints);
        half.endpoints.push((name.clone(), endpoints));
    }
    half.clusters.push(Arc::new(cluster));
    Some(name)
}

/// The virtual services for a server, the oldest first.
fn bound<'s>(
    meta: &'s Meta,
    server: &'s Server,
    gateway: &'s str,
    specs: &'s l4::Specs<'s>,
) -> impl Iterator<Item = (&'s Meta, &'s VirtualService)> {
    let mine = move |(owner, spec): &&(&Meta, &VirtualService)| {
        let mut gateways = spec.gateways.iter();
        let mut hosts = spec.hosts.iter();
        gateways.any(|name| gateway_name(name, &owner.namespace) == gateway)
            && hosts.any(|host| {
                let host = complete(host, &owner.namespace);
                !bound_hosts(meta, &owner.namespace, server, &host).is_empty()
            })
    };
    specs.iter().filter(mine).copied()
}

fn inward(mut proxy: TcpProxy) -> TcpProxy {
    proxy.direction = Direction::Gateway;
    proxy
}
