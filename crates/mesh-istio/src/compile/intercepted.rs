//! The way out of a sidecar whose connections are intercepted.
//!
//! Everything comes in by one listener, which hands connections to that of the address that they
//! were going to. HTTP has one of those per port, for every service, with one table called after
//! the port; everything else one per address of a service, as have ports whose protocol is found
//! out by looking. Those have a table per service, `<host>:<port>`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use mesh_core::model::{
    Address, Cidr, Direction, FilterChain, HttpManager, Listener, RouteTable, TcpProxy,
};
use mesh_core::{Name, Origin};

use super::drafts::Drafts;
use super::hosts::{self, Reach};
use super::l4::{self, Outlet, Specs};
use super::scope::Scope;
use super::{Compiler, cluster, outbound, scope};
use crate::names::BLACK_HOLE;
use crate::registry::Entry;
use crate::spec::kubernetes::Protocol;
use crate::spec::sidecar::{CaptureMode, OutboundPolicy};
use crate::spec::{Meta, VirtualService};

/// What is being made.
struct Way {
    policy: OutboundPolicy,
    drafts: Drafts,
    /// The address that stands for all.
    any: IpAddr,
}

pub(super) fn compile(compiler: &mut Compiler<'_>) {
    cluster::built_in(compiler);
    let sidecar = scope::sidecar(compiler);
    let policy = scope::outbound_policy(compiler, sidecar);
    let scopes = scope::scopes(compiler, sidecar);
    for entry in scopes.iter().flat_map(|scope| &scope.services) {
        cluster::service(compiler, entry);
    }
    let mut way = Way {
        policy,
        drafts: Drafts::default(),
        any: any(compiler),
    };
    for scope in &scopes {
        match scope.listener {
            Some(_) => way.asked(compiler, scope),
            None => way.everything(compiler, scope),
        }
    }
    let rest = outbound::unknown(compiler, policy);
    let mut fallback = FilterChain::tcp(rest.clone());
    fallback.name = Name::from("PassthroughFilterChain");
    way.drafts.finish(compiler, &fallback);
    gate(compiler, rest);
}

/// The address that stands for all of the node's family.
pub(super) fn any(compiler: &Compiler<'_>) -> IpAddr {
    match compiler.viewer.speaks_v6() {
        false => Ipv4Addr::UNSPECIFIED.into(),
        true => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The listener that everything comes in by.
fn gate(compiler: &mut Compiler<'_>, rest: TcpProxy) {
    let port = compiler.mesh.proxy_listen_port;
    let mut listener = Listener::new("virtualOutbound", SocketAddr::new(any(compiler), port));
    listener.hand_off = true;
    listener.access_log = compiler.access_log();
    let mut all = FilterChain::tcp(rest);
    all.name = Name::from("virtualOutbound-catchall-tcp");
    let loops = loops(port, "virtualOutbound-blackhole", Direction::Outbound);
    compiler.add_listener(listener.chain(loops).chain(all));
}

/// Ends connections to the port of the listener itself, which would come back for ever.
pub(super) fn loops(port: u16, name: &str, direction: Direction) -> FilterChain {
    let mut hole = TcpProxy::to(BLACK_HOLE, BLACK_HOLE);
    hole.direction = direction;
    let mut chain = FilterChain::tcp(hole);
    chain.name = Name::from(name);
    chain.matches.destination_port = Some(port);
    chain
}

impl Way {
    /// The listener of a `Sidecar` with a port of its own.
    fn asked(&mut self, compiler: &mut Compiler<'_>, scope: &Scope<'_>) {
        let Some((meta, egress, port)) = scope.listener else {
            return;
        };
        let origin = compiler.origin(meta, egress.at);
        if let Some(path) = scope.unix {
            outbound::unix(compiler, scope, path, self.policy, origin);
            return;
        }
        let called = port.proxy || egress.capture == CaptureMode::None;
        let usual = match called {
            true => Ipv4Addr::LOCALHOST.into(),
            false => self.any,
        };
        let address = SocketAddr::new(scope.bind.unwrap_or(usual), port.number);
        if port.proxy {
            outbound::http_proxy(compiler, scope, address, self.policy, origin);
            return;
        }
        if port.protocol.is_http() {
            let routes = self.table(compiler, scope, port.number);
            self.drafts
                .http(address, http_manager(compiler, address, routes), origin);
        } else {
            let specs = ruled(scope);
            for entry in sorted(scope) {
                let own = scope.bind.is_none() && !called;
                let places = match own {
                    true => places(entry, self.any),
                    false => vec![(address.ip(), None)],
                };
                for (ip, block) in places {
                    self.tcp(
                        compiler,
                        &specs,
                        entry,
                        (ip, port.number),
                        port.protocol,
                        block,
                    );
                }
            }
        }
        if called {
            self.drafts.bind(address);
        }
    }

    /// Listeners for all ports of all services of a scope.
    fn everything(&mut self, compiler: &mut Compiler<'_>, scope: &Scope<'_>) {
        // By port, the services that have it, and whether one of them needs the shared table.
        let mut ports: BTreeMap<u16, (Vec<&Arc<Entry>>, bool)> = BTreeMap::new();
        for entry in &scope.services {
            for (port, protocol) in entry.http_ports() {
                let (services, needed) = ports.entry(port).or_default();
                services.push(entry);
                *needed |= !sniffed(entry, protocol);
            }
        }
        for (port, (services, needed)) in ports {
            if needed {
                let routes = self.table(compiler, &part(scope, services), port);
                let address = SocketAddr::new(self.any, port);
                let manager = http_manager(compiler, address, routes);
                self.drafts.http(address, manager, Origin::NONE);
            }
        }
        let specs = ruled(scope);
        for entry in sorted(scope) {
            for (port, protocol) in entry.ports() {
                let sniffed = sniffed(entry, protocol);
                if protocol.is_http() && !sniffed {
                    continue;
                }
                if sniffed {
                    own(compiler, &part(scope, vec![entry]), entry, port);
                }
                for (ip, block) in places(entry, self.any) {
                    if sniffed {
                        let address = SocketAddr::new(ip, port);
                        let routes = Name::from(format!("{}:{port}", entry.host()));
                        let manager = http_manager(compiler, address, routes);
                        let origin = compiler.origin(&entry.meta, entry.at);
                        self.drafts.http(address, manager, origin);
                    }
                    self.tcp(compiler, &specs, entry, (ip, port), protocol, block);
                }
            }
        }
    }

    /// Adds the chains of a service's port at one of its places.
    fn tcp(
        &mut self,
        compiler: &mut Compiler<'_>,
        specs: &Specs<'_>,
        entry: &Arc<Entry>,
        (ip, port): (IpAddr, u16),
        protocol: Protocol,
        block: Option<Cidr>,
    ) {
        let outlet = Outlet {
            entry,
            port,
            protocol,
            shared: ip == self.any,
            block,
        };
        let chains = l4::chains(compiler, specs, &outlet);
        let origin = compiler.origin(&entry.meta, entry.at);
        let address = SocketAddr::new(ip, port);
        if !self.drafts.tcp(address, chains, origin) {
            let message = format!(
                "connections to {address} go to another service already; an address of its own \
                 would tell this one apart"
            );
            compiler.warn(&entry.meta, entry.at, "spec", message);
        }
    }

    /// The table of a port, for the services that have it.
    fn table(&self, compiler: &mut Compiler<'_>, scope: &Scope<'_>, port: u16) -> Name {
        let mut table = RouteTable::new(port.to_string());
        table.ignore_port = true;
        table.virtual_hosts = hosts::outbound(compiler, scope, Reach::Port(port));
        table
            .virtual_hosts
            .push(outbound::rest(compiler, self.policy));
        let name = table.name.clone();
        compiler.table(table);
        name
    }
}

fn http_manager(compiler: &Compiler<'_>, address: SocketAddr, routes: Name) -> HttpManager {
    let name = format!("outbound_{}_{}", address.ip(), address.port());
    compiler.manager(name, routes)
}

/// Whether a port's connections come in by the service's address, so that a listener and a table
/// are for this service alone.
fn sniffed(entry: &Entry, protocol: Protocol) -> bool {
    protocol == Protocol::Unknown && (entry.headless || !entry.service.addresses.is_empty())
}

/// The virtual services of a scope that have rules below HTTP.
fn ruled<'a>(scope: &Scope<'a>) -> Vec<(&'a Meta, &'a VirtualService)> {
    let all = scope.virtual_services.iter();
    all.filter(|(_, spec)| !spec.tls.is_empty() || !spec.tcp.is_empty())
        .copied()
        .collect()
}

/// The services of a scope as istiod has them: the oldest first.
fn sorted<'a>(scope: &Scope<'a>) -> Vec<&'a Arc<Entry>> {
    let mut all = scope.services.clone();
    all.sort_by(|one, other| {
        let key = |entry: &Arc<Entry>| format!("{}.{}", entry.service.name, entry.namespace());
        let created = one.meta.created.cmp(&other.meta.created);
        created.then_with(|| key(one).cmp(&key(other)))
    });
    all
}

/// Where a service is called: at its addresses, or at its endpoints' where it has none on purpose,
/// or anywhere. Blocks are called anywhere and told apart there.
fn places(entry: &Entry, any: IpAddr) -> Vec<(IpAddr, Option<Cidr>)> {
    let mut places: Vec<_> = entry
        .service
        .addresses
        .iter()
        .map(|ip| (*ip, None))
        .collect();
    places.extend(entry.blocks.iter().map(|block| (any, Some(*block))));
    if entry.headless {
        // The node's own among them too: whoever shares this way out may have another address.
        let endpoints: BTreeSet<IpAddr> = entry
            .instances
            .iter()
            .filter_map(|one| match one.endpoint.address {
                Address::Socket(address) => Some(address.ip()),
                _ => None,
            })
            .collect();
        places.extend(endpoints.into_iter().map(|ip| (ip, None)));
    } else if places.is_empty() {
        places.push((any, None));
    }
    places
}

/// The table of one port of one service: everything that gets there is for it.
fn own(compiler: &mut Compiler<'_>, scope: &Scope<'_>, entry: &Entry, port: u16) {
    let name = format!("{}:{port}", entry.host());
    let mut table = RouteTable::new(name.as_str());
    table.ignore_port = true;
    let mut hosts = hosts::outbound(compiler, scope, Reach::Port(port)).into_iter();
    if let Some(mut host) = hosts.find(|host| *host.name == *name) {
        Arc::make_mut(&mut host).domains = vec![Name::from("*")];
        table.virtual_hosts.push(host);
    }
    compiler.table(table);
}

/// These services of a scope.
fn part<'a>(scope: &Scope<'a>, services: Vec<&'a Arc<Entry>>) -> Scope<'a> {
    Scope {
        listener: None,
        bind: None,
        unix: None,
        services,
        virtual_services: scope.virtual_services.clone(),
    }
}
