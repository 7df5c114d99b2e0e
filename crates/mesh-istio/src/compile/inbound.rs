//! The way in to a sidecar's application.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::model::{
    Address, Balancing, Cluster, DiscoveryKind, EndpointSet, FilterChain, Limits, Listener, Retry,
    RetryOn, RouteTable, Rule, ServiceRef, VirtualHost,
};
use mesh_core::{Name, Origin};

use super::{Compiler, authz, cluster, policy, scope, tls};
use crate::names::{BLACK_HOLE, inbound};
use crate::node::Inbound;
use crate::peers::Accepted;
use crate::registry::{Entry, Services};
use crate::spec::gateway::Termination;
use crate::spec::kubernetes::Protocol;
use crate::spec::sidecar::CaptureMode;
use crate::spec::traffic_policy::ConnectionPool;
use crate::spec::{Meta, MutualTls, Sidecar};

mod accepts;
mod intercepted;

use accepts::{Accepts, Needs};
use intercepted::Gate;

/// One port on the way in.
struct Port<'a> {
    listen: SocketAddr,
    /// Where the application is; `None` is where connections were going to.
    application: Option<Address>,
    /// Called rather than intercepted.
    called: bool,
    /// What is spoken there, where a `Sidecar` says.
    protocol: Option<Protocol>,
    /// Asked for by a `Sidecar`; wins over every other pool.
    pool: Option<&'a ConnectionPool>,
    /// TLS of callers outside of the mesh, where a `Sidecar` asks for it.
    tls: Option<(&'a Meta, &'a Termination)>,
    origin: Origin,
}

/// The ports of an intercepted workload: whatever its services lead to.
pub(super) fn targets(compiler: &Compiler<'_>) -> Vec<Inbound> {
    let viewer = &compiler.viewer;
    let address = viewer.address();
    let mut ports = BTreeSet::new();
    let selecting = compiler
        .services
        .selecting(viewer.namespace(), viewer.labels());
    for entry in selecting {
        let own = entry
            .instances
            .iter()
            .filter_map(|one| match one.endpoint.address {
                Address::Socket(own) if own.ip() == address => Some(own.port()),
                _ => None,
            });
        ports.extend(own.chain(entry.targets.values().copied()));
    }
    let inbound = |port| Inbound {
        port,
        application: port,
    };
    ports.into_iter().map(inbound).collect()
}

pub(super) fn compile(compiler: &mut Compiler<'_>, described: &[Inbound]) {
    compiler.judges = authz::judges(compiler);
    let sidecar = scope::sidecar(compiler);
    let general = sidecar.and_then(|(_, spec)| spec.inbound_pool.as_ref());
    let ingress = sidecar.filter(|(_, spec)| !spec.ingress.is_empty());
    let mut gate = Gate::default();
    let accepted = accepted(compiler);
    warn_of_no_identity(compiler, &accepted);
    match ingress {
        None => {
            for port in described {
                let port = Port {
                    listen: SocketAddr::new(compiler.viewer.address(), port.port),
                    application: local(compiler, port.application),
                    called: !compiler.intercepts(),
                    protocol: None,
                    pool: general,
                    tls: None,
                    origin: Origin::NONE,
                };
                one(compiler, &port, &accepted, &mut gate);
            }
        }
        Some((meta, spec)) => asked(compiler, meta, spec, (described, &accepted), &mut gate),
    }
    if compiler.intercepts() {
        let others = Accepts::of(compiler, accepted.mode);
        gate.finish(compiler, &others);
    }
}

/// The ports that a `Sidecar` asks for.
fn asked(
    compiler: &mut Compiler<'_>,
    meta: &Meta,
    spec: &Sidecar,
    (described, accepted): (&[Inbound], &Accepted),
    gate: &mut Gate,
) {
    let general = spec.inbound_pool.as_ref();
    for asked in &spec.ingress {
        let listen = SocketAddr::new(
            asked.bind.unwrap_or_else(|| compiler.viewer.address()),
            asked.port,
        );
        let node = described.iter().find(|one| one.port == asked.port);
        let called = !compiler.intercepts() || asked.capture == CaptureMode::None;
        if !compiler.intercepts() && asked.capture == CaptureMode::Iptables {
            let message = "nothing is intercepted for this workload: callers have to call the \
                           listener";
            compiler.warn(meta, asked.at, "spec.ingress", message.to_owned());
        }
        let loopback = |port| Address::Socket(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
        let application = match (&asked.endpoint, node) {
            // 0.0.0.0 and :: stand for the workload's own address.
            (Some(Address::Socket(endpoint)), _) if endpoint.ip().is_unspecified() => {
                let own = compiler.viewer.address();
                Some(SocketAddr::new(own, endpoint.port()).into())
            }
            (Some(endpoint), _) => Some(endpoint.clone()),
            (None, Some(node)) if !called => local(compiler, node.application),
            (None, Some(node)) => Some(loopback(node.application)),
            (None, None) if !called => local(compiler, asked.port),
            (None, None) => Some(loopback(asked.port)),
        };
        // What is intercepted is accepted elsewhere, so the application may have the same port.
        if let Some(Address::Socket(own)) = application
            && called
            && loops(listen, own)
        {
            let message =
                format!("{own} is this listener itself; defaultEndpoint says where to go");
            compiler.warn(meta, asked.at, "spec.ingress", message);
            continue;
        }
        let origin = compiler.origin(meta, asked.at);
        let pool = asked.pool.as_ref().or(general);
        if !one(
            compiler,
            &Port {
                listen,
                application,
                called,
                protocol: Some(asked.protocol),
                pool,
                tls: asked.tls.as_deref().map(|tls| (meta, tls)),
                origin,
            },
            accepted,
            gate,
        ) {
            let message = format!("{listen} is taken by an earlier listener");
            compiler.warn(meta, asked.at, "spec.ingress", message);
        }
    }
}

/// Retries on the way in: of what nobody has begun to read.
fn retry() -> Arc<Retry> {
    let mut retry = Retry::default();
    retry.attempts = 2;
    retry.on = RetryOn::RESET_BEFORE_REQUEST;
    Arc::new(retry)
}

/// Where the application is: where the connection was going to, if it was intercepted.
fn local(compiler: &Compiler<'_>, port: u16) -> Option<Address> {
    let called = !compiler.intercepts();
    called.then(|| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port).into())
}

fn loops(listen: SocketAddr, application: SocketAddr) -> bool {
    listen.port() == application.port()
        && (listen.ip() == application.ip() || listen.ip().is_unspecified())
}

/// What callers of the workload have to show.
fn accepted(compiler: &Compiler<'_>) -> Accepted {
    let viewer = &compiler.viewer;
    let labels = viewer.labels();
    let label = |key: &str| labels.get(key).map(String::as_str);
    compiler.memory.peers.workload(viewer.namespace(), label)
}

/// Says that nothing can be taken where mutual TLS has to be spoken and there is no certificate.
fn warn_of_no_identity(compiler: &mut Compiler<'_>, accepted: &Accepted) {
    if compiler.viewer.has_identity() || !accepted.is_strict() {
        return;
    }
    let peers = Arc::clone(&compiler.memory.peers);
    for meta in peers.strict(compiler.viewer.namespace()) {
        let message = "STRICT needs a certificate of the mesh, and this proxy has none: where it \
                       holds, every connection is refused";
        compiler.warn(meta, meta.at, "spec.mtls.mode", message.to_owned());
    }
}

/// Which connections a port takes.
fn accepts(compiler: &mut Compiler<'_>, port: &Port<'_>, accepted: &Accepted) -> Accepts {
    let mode = accepted.port(port.listen.port());
    let Some((meta, asked)) = port.tls else {
        return Accepts::of(compiler, mode);
    };
    if mode == MutualTls::Disable {
        return Accepts::Tls(tls::server(compiler, meta, asked));
    }
    let message = "has no effect: callers may come with mutual TLS here until a PeerAuthentication \
                   says DISABLE for the port";
    compiler.warn(meta, asked.at, "spec.ingress.tls", message.to_owned());
    Accepts::of(compiler, mode)
}

fn one(compiler: &mut Compiler<'_>, port: &Port<'_>, accepted: &Accepted, gate: &mut Gate) -> bool {
    let number = port.listen.port();
    let name = inbound(number);
    // One cluster per port, whatever address it is bound to.
    if compiler.clusters.contains(name.as_str()) {
        return false;
    }
    let served = service_of(compiler, port.listen.ip(), number);
    let told = served.map(|(_, _, protocol)| protocol);
    let protocol = port.protocol.or(told).unwrap_or(Protocol::Unknown);

    let mut cluster = Cluster::new(name.as_str());
    cluster.origin = port.origin;
    cluster.connect_timeout = compiler.mesh.connect_timeout;
    cluster.balancing = Balancing::RoundRobin;
    cluster.limits = Limits::unlimited();
    cluster.protocol = cluster::upstream(protocol);
    cluster.stat_name = compiler.stat_name(&name);
    if port.application.is_none() {
        cluster.discovery = DiscoveryKind::OriginalDestination;
        cluster.bind_source = Some(intercepted::source(compiler));
    }
    let (mut vhost, mut operation) = (format!("inbound|http|{number}"), format!("{name}/*"));
    let mut rules_pool = None;
    if let Some((entry, service_port, _)) = served {
        if cluster.origin.is_none() {
            cluster.origin = compiler.origin(&entry.meta, entry.at);
        }
        cluster.service = ServiceRef {
            host: entry.service.id.host.clone(),
            name: entry.service.name.clone(),
            namespace: entry.service.id.namespace.clone(),
            subset: Name::default(),
            port: service_port,
        };
        vhost = format!("inbound|http|{service_port}");
        operation = format!("{}:{service_port}/*", entry.host());
        // Of a destination rule only the pool reaches the service's own side.
        let index = Arc::clone(&compiler.memory.rules);
        let rules = policy::find(compiler, &index, entry, entry.namespace());
        rules_pool = policy::resolve(compiler.mesh, &rules, None, service_port)
            .blocks
            .pool;
    }
    if let Some(pool) = port.pool.or(rules_pool.as_ref()) {
        cluster::apply_pool(&mut cluster, pool, protocol);
    }

    let mut rule = Rule::prefix_to("/", name.as_str());
    rule.name = Name::from("default");
    rule.origin = cluster.origin;
    // Both are unlimited. Without the first, the second would be sent in a deprecated field.
    rule.max_stream_duration = Some(Duration::ZERO);
    rule.max_grpc_timeout = Some(Duration::ZERO);
    rule.operation = Name::from(operation);
    rule.retry = (protocol != Protocol::Grpc).then(retry);
    let table = RouteTable::new(name.as_str()).host(VirtualHost::new(vhost, ["*"]).rule(rule));

    let ip = match port.called {
        true => port.listen.ip(),
        false => super::intercepted::any(compiler),
    };
    let listener_name = format!("{ip}_{number}");
    let manager = intercepted::manager(compiler, format!("inbound_{listener_name}"), &name);
    let accepts = accepts(compiler, port, accepted);
    if port.called && accepts.is_plain() {
        let mut listener = match protocol.is_http() {
            true => Listener::http(listener_name, port.listen, manager),
            false => {
                let proxy = intercepted::proxy(compiler, &name);
                Listener::tcp(listener_name, port.listen, proxy)
            }
        };
        listener.origin = cluster.origin;
        if !compiler.add_listener(listener) {
            return false;
        }
    } else {
        let http = || FilterChain::http(manager.clone());
        let bytes = |cluster: &str| FilterChain::tcp(intercepted::proxy(compiler, cluster));
        let refused = || bytes(BLACK_HOLE);
        let chains = accepts.chains(protocol, &http, &|| bytes(&name), &refused);
        if !port.called {
            gate.port(compiler, number, chains, cluster.origin);
        } else if !call(compiler, listener_name, port, chains, cluster.origin) {
            return false;
        }
    }
    if protocol.is_http() {
        compiler.table(table);
    }
    add(compiler, name, cluster, port.application.clone());
    true
}

/// A listener that callers call, where their connections have to be told apart.
fn call(
    compiler: &mut Compiler<'_>,
    name: String,
    port: &Port<'_>,
    chains: Vec<FilterChain>,
    origin: Origin,
) -> bool {
    let mut listener = Listener::new(name, port.listen);
    listener.origin = origin;
    let mut needs = Needs::default();
    for mut chain in chains {
        chain.origin = origin;
        needs.of(&chain.matches);
        listener = listener.chain(chain);
    }
    listener.inspect.tls = needs.tls();
    listener.inspect.http = needs.http();
    compiler.add_listener(listener)
}

fn add(compiler: &mut Compiler<'_>, name: String, cluster: Cluster, application: Option<Address>) {
    let name = Name::from(name);
    compiler.clusters.insert(name.clone());
    let half = &mut compiler.half;
    half.clusters.push(Arc::new(cluster));
    let endpoints = EndpointSet::of(application);
    half.endpoints.push((name, Arc::new(endpoints)));
}

/// The service, and the port of it, that is served on a port of this node.
fn service_of<'a>(
    compiler: &Compiler<'a>,
    ip: IpAddr,
    port: u16,
) -> Option<(&'a Entry, u16, Protocol)> {
    let services: &'a Services = compiler.services;
    let viewer = &compiler.viewer;
    let own = [
        SocketAddr::new(viewer.address(), port),
        SocketAddr::new(ip, port),
    ];
    let selecting = || services.selecting(viewer.namespace(), viewer.labels());
    let by_address = selecting().find_map(|entry| {
        let mut instances = entry.instances.iter();
        let instance = instances.find(|one| match one.endpoint.address {
            Address::Socket(address) => own.contains(&address),
            _ => false,
        })?;
        Some((entry, instance.port))
    });
    let by_target = || {
        selecting().find_map(|entry| {
            let (service_port, _) = entry.targets.iter().find(|(_, target)| **target == port)?;
            Some((entry, *service_port))
        })
    };
    let (entry, service_port) = by_address.or_else(by_target)?;
    let protocol = entry
        .protocols
        .get(&service_port)
        .copied()
        .unwrap_or(Protocol::Unknown);
    Some((entry, service_port, protocol))
}
