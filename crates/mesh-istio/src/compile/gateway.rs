//! Gateways: the way into the mesh from outside.
//!
//! Servers on one port share a listener and a table. Virtual services meet per
//! host: their rules are joined, oldest first, and those that match everything
//! come last. A host or path that nobody has is answered 404.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use mesh_core::model::{
    Direction, FilterChain, ForwardedCertificate, HttpManager, Inspector, Listener,
    ListenerAddress, RouteTable, Rule, VirtualHost,
};
use mesh_core::{Name, Origin};

use super::drafts::apart;
use super::outbound::listener_name;
use super::route::{self, Site, gateway_name, matches_everything};
use super::{Compiler, cluster, scope, tls};
use crate::names::{complete, covers};
use crate::registry::contains;
use crate::spec::Bind;
use crate::spec::gateway::{Protocol, Server, ServerHost};
use crate::spec::{Gateway, Meta, Spanned, VirtualService};
use crate::world::World;

mod chains;

/// The virtual host of one host on one port, while it is put together.
struct Host {
    origin: Origin,
    require_tls: bool,
    rules: Vec<Arc<Rule>>,
    /// Virtual services that are in already: two servers may lead to one.
    joined: HashSet<(String, String)>,
}

/// Virtual hosts by the port of their server and their name.
type Hosts = BTreeMap<(u16, String), Host>;

pub(super) fn compile(compiler: &mut Compiler<'_>, ports: &BTreeMap<u16, u16>) {
    compiler.judges = super::authz::judges(compiler);
    cluster::built_in(compiler);
    for entry in scope::services(compiler) {
        cluster::service(compiler, entry);
    }
    let virtual_services = scope::virtual_services(compiler);
    // Everything bound to one address, oldest gateway first.
    let mut sockets: BTreeMap<(u16, ListenerAddress), Vec<(&Meta, &Server)>> = BTreeMap::new();
    for (meta, gateway) in served(compiler) {
        for server in &gateway.servers {
            let port = || listen_port(compiler, ports, server.port);
            let at: ListenerAddress = match &server.bind {
                Some(Bind::Unix(path)) => path.clone().into(),
                Some(Bind::Ip(ip)) => SocketAddr::new(*ip, port()).into(),
                None => SocketAddr::new(everywhere(compiler), port()).into(),
            };
            let all = sockets.entry((at.port(), at)).or_default();
            all.push((meta, server));
        }
    }
    for ((_, address), servers) in sockets {
        listen(compiler, &address, &servers, &virtual_services);
    }
}

/// The gateways that this proxy serves, oldest first.
fn served<'a>(compiler: &Compiler<'a>) -> Vec<(&'a Meta, &'a Gateway)> {
    let world: &'a World = compiler.world;
    let labels = compiler.viewer.labels();
    let mut all: Vec<_> = world
        .gateways()
        .filter(|(_, gateway)| labels.is_empty() || contains(labels, &gateway.selector))
        .collect();
    all.sort_by_key(|(meta, _)| meta.seniority());
    all
}

/// The address to listen on where a server does not say.
fn everywhere(compiler: &Compiler<'_>) -> IpAddr {
    match (compiler.intercepts(), compiler.viewer.address()) {
        (false, address) => address,
        (true, IpAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
        (true, IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The port to listen on: as told, or as the gateway's own Service says, or the same.
fn listen_port(compiler: &Compiler<'_>, told: &BTreeMap<u16, u16>, port: u16) -> u16 {
    let viewer = &compiler.viewer;
    let by_service = || {
        let services = compiler.services;
        let mut services = services.selecting(viewer.namespace(), viewer.labels());
        services.find_map(|entry| entry.targets.get(&port).copied())
    };
    told.get(&port).copied().or_else(by_service).unwrap_or(port)
}

/// What is spoken at a socket: servers of one kind can share it.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Http,
    Secured,
    Bytes,
}

impl Kind {
    fn of(server: &Server) -> Self {
        match server.protocol {
            Protocol::Http => Self::Http,
            Protocol::Https | Protocol::Tls => Self::Secured,
            Protocol::Tcp => Self::Bytes,
        }
    }
}

fn listen(
    compiler: &mut Compiler<'_>,
    address: &ListenerAddress,
    servers: &[(&Meta, &Server)],
    virtual_services: &[(&Meta, &VirtualService)],
) {
    let Some((first, server)) = servers.first() else {
        return;
    };
    let kind = Kind::of(server);
    let (fitting, others): (Vec<_>, Vec<_>) = servers.iter().partition(|(_, server)| {
        // Bytes are passed on by one server.
        Kind::of(server) == kind && (kind != Kind::Bytes || std::ptr::eq(*server, servers[0].1))
    });
    for (meta, server) in others {
        let message =
            format!("{first} has this port for something else already: this server is left out");
        compiler.warn(meta, server.at, "spec.servers", message);
    }
    let name = listener_name(address);
    let mut listener = Listener::at(name.as_str(), address.clone());
    listener.origin = compiler.origin(first, server.at);
    match kind {
        Kind::Http => {
            let chain = plain(compiler, address, &fitting, virtual_services);
            listener = listener.chain(chain);
        }
        Kind::Secured => {
            listener.inspect.tls = Some(Inspector::default());
            let mut taken = chains::Taken::default();
            for (meta, server) in fitting {
                if !taken.server(compiler, meta, server) {
                    continue;
                }
                let server = (meta, server);
                for chain in chains::secured(compiler, &name, server, virtual_services) {
                    // Rules of two servers may be for one name: the first has it.
                    let have: Vec<&FilterChain> =
                        listener.chains.iter().map(|one| &**one).collect();
                    if let Some(chain) = apart(&have, chain) {
                        listener = listener.chain(chain);
                    }
                }
            }
        }
        Kind::Bytes => {
            if let Some(chain) = chains::bytes(compiler, first, server, virtual_services) {
                listener = listener.chain(chain);
            }
        }
    }
    // It would only close what it accepts.
    if !listener.chains.is_empty() {
        compiler.add_listener(listener);
    }
}

/// The chain of a port for HTTP in plain text.
fn plain(
    compiler: &mut Compiler<'_>,
    address: &ListenerAddress,
    servers: &[(&Meta, &Server)],
    virtual_services: &[(&Meta, &VirtualService)],
) -> FilterChain {
    // Server ports may differ and still meet here; hosts are told apart by both.
    let mut hosts = Hosts::new();
    for (meta, server) in servers {
        join(compiler, meta, server, virtual_services, &mut hosts);
    }
    // As istiod calls them: by the port, and by what a server is bound to.
    let routes = match address {
        ListenerAddress::Unix(path) => format!("http.0.unix://{path}"),
        ListenerAddress::Socket(address) if address.ip() == everywhere(compiler) => {
            format!("http.{}", address.port())
        }
        ListenerAddress::Socket(address) => format!("http.{}.{}", address.port(), address.ip()),
    };
    compiler.table(table(&routes, hosts));
    let mut chain = FilterChain::http(manager(compiler, &listener_name(address), &routes));
    chain.handshake_timeout = Some(tls::HANDSHAKE);
    chain
}

fn table(name: &str, hosts: Hosts) -> RouteTable {
    let mut table = RouteTable::new(name);
    table.ignore_port = true;
    let mut domains = HashSet::new();
    for ((server_port, name), mut host) in hosts {
        if !domains.insert(name.clone()) {
            continue;
        }
        // The sort is stable: among themselves the rules keep their order.
        host.rules.sort_by_key(|rule| matches_everything(rule));
        let mut virtual_host = VirtualHost::new(format!("{name}:{server_port}"), [name]);
        virtual_host.origin = host.origin;
        virtual_host.count_attempts = true;
        virtual_host.require_tls = host.require_tls;
        virtual_host.rules = host.rules;
        table = table.host(virtual_host);
    }
    table
}

fn manager(compiler: &Compiler<'_>, listener: &str, routes: &str) -> HttpManager {
    let mut manager = compiler.manager(format!("outbound_{listener}"), routes);
    manager.direction = Direction::Gateway;
    manager.server_name = Name::from("istio-envoy");
    manager.use_remote_address = true;
    // A gateway is the first that callers meet: what they say of certificates does not count.
    let told = &mut manager.client_certificate;
    told.mode = ForwardedCertificate::SanitizeSet;
    (told.subject, told.cert, told.dns, told.uri) = (true, true, true, true);
    manager
}

/// Adds the rules of the virtual services bound to a server, host by host.
fn join(
    compiler: &mut Compiler<'_>,
    meta: &Meta,
    server: &Server,
    virtual_services: &[(&Meta, &VirtualService)],
    hosts: &mut Hosts,
) {
    let gateway = format!("{}/{}", meta.namespace, meta.name);
    let site = Site {
        gateway: &gateway,
        port: server.port,
    };
    let origin = compiler.origin(meta, server.at);
    for (vs_meta, spec) in virtual_services {
        let bound = spec
            .gateways
            .iter()
            .any(|g| gateway_name(g, &vs_meta.namespace) == gateway);
        if !bound {
            continue;
        }
        let names: Vec<String> = spec
            .hosts
            .iter()
            .flat_map(|host| {
                let host = complete(host, &vs_meta.namespace);
                bound_hosts(meta, &vs_meta.namespace, server, &host)
            })
            .collect();
        if names.is_empty() {
            continue;
        }
        let rules = route::rules(compiler, vs_meta, spec, site);
        for name in names {
            let host = hosts
                .entry((server.port, name))
                .or_insert_with(|| Host::new(origin));
            if host
                .joined
                .insert((vs_meta.namespace.clone(), vs_meta.name.clone()))
            {
                host.rules.extend(rules.iter().cloned());
            }
            host.require_tls |= server.https_redirect;
        }
    }
    if server.https_redirect {
        // The redirect needs no route: every host of the server is sent to https.
        for host in &server.hosts {
            let key = (server.port, host.host.clone());
            hosts
                .entry(key)
                .or_insert_with(|| Host::new(origin))
                .require_tls = true;
        }
    }
}

impl Host {
    fn new(origin: Origin) -> Self {
        Self {
            origin,
            require_tls: false,
            rules: Vec::new(),
            joined: HashSet::new(),
        }
    }
}

/// What a virtual service's host and a server's hosts have in common.
fn bound_hosts(gateway: &Meta, namespace: &str, server: &Server, host: &str) -> Vec<String> {
    let takes = |one: &&Spanned<ServerHost>| match one.namespace.as_str() {
        "*" => true,
        "." => namespace == gateway.namespace,
        named => namespace == named,
    };
    let mut own = server
        .hosts
        .iter()
        .filter(takes)
        .map(|one| one.host.as_str());
    if own.clone().any(|own| covers(own, host)) {
        return vec![host.to_owned()];
    }
    let mut narrower: Vec<String> = own
        .by_ref()
        .filter(|own| covers(host, own))
        .map(str::to_owned)
        .collect();
    narrower.dedup();
    narrower
}
