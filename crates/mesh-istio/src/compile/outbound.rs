//! The way out of a sidecar: its outbound proxy and the listeners of a `Sidecar`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use mesh_core::model::{
    Action, Condition, DirectResponse, Direction, FilterChain, Forward, Listener, ListenerAddress,
    RouteTable, Rule, TcpProxy, UnixPath, VirtualHost,
};
use mesh_core::{Name, Origin};

use super::drafts::Drafts;
use super::hosts::{self, Reach};
use super::l4::{self, Outlet};
use super::scope::Scope;
use super::{Compiler, cluster, scope};
use crate::names::{BLACK_HOLE, PASSTHROUGH};
use crate::spec::sidecar::{CaptureMode, EgressPort, OutboundPolicy};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The table of the outbound proxy, as istiod calls it.
const HTTP_PROXY: &str = "http_proxy";

pub(super) fn compile(compiler: &mut Compiler<'_>) {
    cluster::built_in(compiler);
    let sidecar = scope::sidecar(compiler);
    let policy = scope::outbound_policy(compiler, sidecar);
    let scopes = scope::scopes(compiler, sidecar);
    for entry in scopes.iter().flat_map(|scope| &scope.services) {
        cluster::service(compiler, entry);
    }
    unheard(compiler, &scopes);
    for scope in &scopes {
        let Some((meta, egress, port)) = scope.listener else {
            let address = compiler.viewer.outbound(compiler.mesh.proxy_listen_port);
            http(
                compiler,
                scope,
                address,
                (HTTP_PROXY, Reach::Proxy),
                policy,
                Origin::NONE,
            );
            continue;
        };
        if egress.capture == CaptureMode::Iptables {
            let message = "nothing is intercepted for this workload: callers have to call the \
                           listener";
            compiler.warn(meta, egress.at, "spec.egress", message.to_owned());
        }
        let origin = compiler.origin(meta, egress.at);
        if let Some(path) = scope.unix {
            if !unix(compiler, scope, path, policy, origin) {
                let message = format!("{path} is taken by an earlier listener");
                compiler.warn(meta, egress.at, "spec.egress", message);
            }
            continue;
        }
        let address = SocketAddr::new(scope.bind.unwrap_or(LOOPBACK), port.number);
        let added = if port.proxy {
            http_proxy(compiler, scope, address, policy, origin)
        } else if port.protocol.is_http() {
            let reach = Reach::Port(port.number);
            let name = port.number.to_string();
            http(compiler, scope, address, (&name, reach), policy, origin)
        } else {
            bytes(compiler, scope, address, policy, origin)
        };
        if !added {
            let message = format!("{address} is taken by an earlier listener");
            compiler.warn(meta, egress.at, "spec.egress", message);
        }
    }
}

/// Says which rules below HTTP have no effect for want of a listener.
fn unheard(compiler: &mut Compiler<'_>, scopes: &[Scope<'_>]) {
    let listeners = scopes.iter().filter_map(|scope| scope.listener);
    let bytes = |port: EgressPort| !port.proxy && !port.protocol.is_http();
    if listeners.into_iter().any(|(_, _, port)| bytes(port)) {
        return;
    }
    for (meta, spec) in scopes.iter().flat_map(|scope| &scope.virtual_services) {
        for (field, rules) in [("tls", spec.tls.len()), ("tcp", spec.tcp.len())] {
            if rules > 0 {
                let message = "has no effect here: nothing is intercepted, and no Sidecar has an \
                               egress port for it";
                let path = format!("spec.{field}");
                compiler.warn(meta, meta.at, &path, format!("{field} {message}"));
            }
        }
    }
}

/// A listener of its own that serves every service by authority.
pub(super) fn http_proxy(
    compiler: &mut Compiler<'_>,
    scope: &Scope<'_>,
    address: SocketAddr,
    policy: OutboundPolicy,
    origin: Origin,
) -> bool {
    let name = format!("{HTTP_PROXY}.{}", address.port());
    http(
        compiler,
        scope,
        address,
        (&name, Reach::Proxy),
        policy,
        origin,
    )
}

/// A listener on a Unix domain socket that serves every service by authority. As in Istio, its
/// table is called as the socket is.
pub(super) fn unix(
    compiler: &mut Compiler<'_>,
    scope: &Scope<'_>,
    path: &UnixPath,
    policy: OutboundPolicy,
    origin: Origin,
) -> bool {
    let name = format!("unix://{path}");
    let address = ListenerAddress::Unix(path.clone());
    http(
        compiler,
        scope,
        address,
        (&name, Reach::Proxy),
        policy,
        origin,
    )
}

/// The name of a listener, as istiod makes it of what it is bound to and its port.
pub(super) fn listener_name(address: &ListenerAddress) -> String {
    match address {
        ListenerAddress::Socket(address) => format!("{}_{}", address.ip(), address.port()),
        ListenerAddress::Unix(path) => format!("unix://{path}_0"),
    }
}

fn http(
    compiler: &mut Compiler<'_>,
    scope: &Scope<'_>,
    address: impl Into<ListenerAddress>,
    (name, reach): (&str, Reach),
    policy: OutboundPolicy,
    origin: Origin,
) -> bool {
    let mut table = RouteTable::new(name);
    table.ignore_port = matches!(reach, Reach::Port(_));
    table.virtual_hosts = hosts::outbound(compiler, scope, reach);
    table.virtual_hosts.push(rest(compiler, policy));
    let address = address.into();
    let listener_name = listener_name(&address);
    let mut manager = compiler.manager(format!("outbound_{listener_name}"), name);
    manager.direction = Direction::Outbound;
    let mut listener = Listener::at(listener_name, address).chain(FilterChain::http(manager));
    listener.origin = origin;
    compiler.listen(listener, table)
}

/// A listener that passes bytes on to the services that have its port: by TLS server name, or all
/// to the first.
fn bytes(
    compiler: &mut Compiler<'_>,
    scope: &Scope<'_>,
    address: SocketAddr,
    policy: OutboundPolicy,
    origin: Origin,
) -> bool {
    let Some((_, _, port)) = scope.listener else {
        return false;
    };
    let mut drafts = Drafts::default();
    for entry in &scope.services {
        let outlet = Outlet {
            entry,
            port: port.number,
            protocol: port.protocol,
            shared: true,
            block: None,
        };
        let chains = l4::chains(compiler, &scope.virtual_services, &outlet);
        if !drafts.tcp(address, chains, origin) {
            let message = format!("connections to {address} go to another service already");
            compiler.warn(&entry.meta, entry.at, "spec", message);
        }
    }
    drafts.bind(address);
    let mut fallback = FilterChain::tcp(unknown(compiler, policy));
    fallback.name = Name::from("PassthroughFilterChain");
    drafts.finish(compiler, &fallback).is_empty()
}

/// What is done with connections to where nobody is known.
pub(super) fn unknown(compiler: &Compiler<'_>, policy: OutboundPolicy) -> TcpProxy {
    let name = match policy {
        OutboundPolicy::AllowAny => PASSTHROUGH,
        OutboundPolicy::RegistryOnly => BLACK_HOLE,
    };
    let mut proxy = TcpProxy::to(name, name);
    proxy.access_log = compiler.access_log();
    proxy
}

/// What happens to requests for hosts that nobody has.
pub(super) fn rest(compiler: &mut Compiler<'_>, policy: OutboundPolicy) -> Arc<VirtualHost> {
    compiler.memory.rest(policy, || match policy {
        OutboundPolicy::AllowAny => {
            let mut rule = Rule::new(
                Condition::default(),
                Action::Forward(Forward::to(PASSTHROUGH)),
            );
            rule.max_grpc_timeout = Some(Duration::ZERO);
            hosts::fallback("allow_any", rule)
        }
        OutboundPolicy::RegistryOnly => {
            let mut answer = DirectResponse::default();
            answer.status = StatusCode::BAD_GATEWAY;
            hosts::fallback(
                "block_all",
                Rule::new(Condition::default(), Action::Respond(answer)),
            )
        }
    })
}
