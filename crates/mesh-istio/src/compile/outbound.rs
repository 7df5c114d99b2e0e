//! The way out of a sidecar: its outbound proxy and the listeners of a `Sidecar`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use mesh_core::Origin;
use mesh_core::model::{
    Action, Condition, DirectResponse, Direction, Forward, Listener, RouteTable, Rule, VirtualHost,
};

use super::hosts::{self, Reach};
use super::{Compiler, cluster, scope};
use crate::names::PASSTHROUGH;
use crate::spec::sidecar::OutboundPolicy;

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
    for scope in &scopes {
        let (address, name, reach, origin) = match scope.listener {
            Some((meta, egress, port)) => {
                let ip = scope.bind.unwrap_or(LOOPBACK);
                let reach = if port.proxy {
                    Reach::Proxy
                } else {
                    Reach::Port(port.number)
                };
                let name = match port.proxy {
                    true => format!("{HTTP_PROXY}.{}", port.number),
                    false => port.number.to_string(),
                };
                let origin = compiler.origin(meta, egress.at);
                (SocketAddr::new(ip, port.number), name, reach, origin)
            }
            None => {
                let address = compiler.viewer.outbound(compiler.mesh.proxy_listen_port);
                (address, HTTP_PROXY.to_owned(), Reach::Proxy, Origin::NONE)
            }
        };
        let mut table = RouteTable::new(name.as_str());
        table.ignore_port = matches!(reach, Reach::Port(_));
        table.virtual_hosts = hosts::outbound(compiler, scope, reach);
        table.virtual_hosts.push(rest(compiler, policy));
        let listener_name = format!("{}_{}", address.ip(), address.port());
        let mut manager = compiler.manager(format!("outbound_{listener_name}"), name.as_str());
        manager.direction = Direction::Outbound;
        let mut listener = Listener::http(listener_name, address, manager);
        listener.origin = origin;
        let added = compiler.listen(listener, table);
        if let (false, Some((meta, egress, _))) = (added, scope.listener) {
            let message = format!("{address} is taken by an earlier listener");
            compiler.warn(meta, egress.at, "spec.egress", message);
        }
    }
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
