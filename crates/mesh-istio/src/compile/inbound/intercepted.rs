//! The one listener by which intercepted connections come in to a workload.
//!
//! Chains for the ports that are known, by protocol, and for all others what tells HTTP from the
//! rest. Those of the mesh's own mutual TLS are not here: they come with its certificates.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::model::{
    Direction, FilterChain, HttpManager, Inspector, Listener, OriginalSource, PortRange,
    RouteTable, Rule, TcpProxy, TransportProtocol, VirtualHost,
};
use mesh_core::{Name, Origin};

use super::super::{Compiler, cluster, drafts, intercepted};
use crate::node::Capture;
use crate::spec::kubernetes::Protocol;

/// Where unknown ports lead: to themselves.
const PASSTHROUGH: &str = "InboundPassthroughCluster";

/// istiod's port for connections that come in.
const PORT: u16 = 15006;

/// istiod's mark of connections to the application that come from the caller's address (its filter
/// `original_src`); rules of routing bring the answers back to the proxy by it.
const MARK: u32 = 1337;

/// The chains of the ports that are known.
#[derive(Debug, Default)]
pub(super) struct Gate {
    ports: BTreeMap<u16, (Protocol, Vec<FilterChain>)>,
}

/// The address that connections to the application come from: who has it is not intercepted.
pub(super) fn source(compiler: &Compiler<'_>) -> IpAddr {
    match compiler.viewer.speaks_v6() {
        false => Ipv4Addr::new(127, 0, 0, 6).into(),
        true => Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6).into(),
    }
}

impl Gate {
    /// Adds a port: what is done with its HTTP, and what with its bytes.
    pub(super) fn port(
        &mut self,
        compiler: &Compiler<'_>,
        (number, protocol): (u16, Protocol),
        manager: HttpManager,
        cluster: &str,
        origin: Origin,
    ) {
        let name = Name::from(format!("{}_{number}", intercepted::any(compiler)));
        let mut chains = Vec::new();
        if protocol.is_http() {
            let mut http = FilterChain::http(manager);
            http.matches = drafts::plain_http();
            if protocol != Protocol::Unknown {
                http.matches.protocols.clear();
            }
            chains.push(http);
        }
        let bytes = || FilterChain::tcp(proxy(compiler, cluster));
        let kinds = match protocol {
            Protocol::Unknown => vec![TransportProtocol::Plain, TransportProtocol::Tls],
            _ if protocol.is_http() => Vec::new(),
            _ => vec![TransportProtocol::Tls, TransportProtocol::Plain],
        };
        chains.extend(kinds.into_iter().map(|transport| {
            let mut chain = bytes();
            chain.matches.transport = Some(transport);
            chain
        }));
        for chain in &mut chains {
            chain.name = name.clone();
            chain.origin = origin;
            chain.matches.destination_port = Some(number);
        }
        self.ports.insert(number, (protocol, chains));
    }

    /// Adds the listener, with what is done with connections to other ports.
    pub(super) fn finish(self, compiler: &mut Compiler<'_>) {
        let mut pass = cluster::passthrough(compiler, PASSTHROUGH);
        pass.bind_source = Some(source(compiler));
        compiler.half.clusters.push(Arc::new(pass));
        compiler.table(table());

        let address = SocketAddr::new(intercepted::any(compiler), PORT);
        let mut listener = Listener::new("virtualInbound", address);
        listener.access_log = compiler.access_log();
        let inspect = &mut listener.inspect;
        inspect.original_destination = true;
        if compiler.viewer.capture() == Capture::Tproxy {
            inspect.original_source = Some(OriginalSource { mark: MARK });
        }
        let timeout = compiler.mesh.detection_timeout;
        inspect.timeout = (!timeout.is_zero()).then_some(timeout);
        inspect.continue_on_timeout = true;
        inspect.tls = Some(Inspector {
            except: vec![only(PORT)],
        });
        // Of a port whose protocol is known it need not be found out.
        let known = self.ports.iter();
        let known = known.filter(|(_, (protocol, _))| *protocol != Protocol::Unknown);
        let mut except: Vec<u16> = known.map(|(port, _)| *port).collect();
        except.push(PORT);
        except.sort_unstable();
        except.dedup();
        inspect.http = Some(Inspector {
            except: except.into_iter().map(only).collect(),
        });
        let hole = intercepted::loops(PORT, "virtualInbound-blackhole", Direction::Inbound);
        listener = listener.chain(hole);
        for chain in rest(compiler) {
            listener = listener.chain(chain);
        }
        for (_, chains) in self.ports.into_values() {
            for chain in chains {
                listener = listener.chain(chain);
            }
        }
        compiler.add_listener(listener);
    }
}

/// What is done with connections to unknown ports.
fn rest(compiler: &Compiler<'_>) -> Vec<FilterChain> {
    let mut http = FilterChain::http(manager(compiler, PASSTHROUGH.to_owned(), PASSTHROUGH));
    http.name = Name::from("virtualInbound-catchall-http");
    http.matches = drafts::plain_http();
    let bytes = [TransportProtocol::Plain, TransportProtocol::Tls].map(|transport| {
        let mut chain = FilterChain::tcp(proxy(compiler, PASSTHROUGH));
        chain.name = Name::from("virtualInbound");
        chain.matches.transport = Some(transport);
        chain
    });
    std::iter::once(http).chain(bytes).collect()
}

/// The connection manager on the way in.
pub(super) fn manager(compiler: &Compiler<'_>, stat_prefix: String, routes: &str) -> HttpManager {
    let mut manager = compiler.manager(stat_prefix, routes);
    manager.direction = Direction::Inbound;
    manager.server_name = Name::from("istio-envoy");
    manager
}

/// Bytes on the way in.
pub(super) fn proxy(compiler: &Compiler<'_>, cluster: &str) -> TcpProxy {
    let mut proxy = TcpProxy::to(cluster, cluster);
    proxy.direction = Direction::Inbound;
    proxy.access_log = compiler.access_log();
    proxy
}

fn only(port: u16) -> PortRange {
    PortRange {
        start: u32::from(port),
        end: u32::from(port) + 1,
    }
}

fn table() -> RouteTable {
    let mut rule = Rule::prefix_to("/", PASSTHROUGH);
    rule.name = Name::from("default");
    rule.max_stream_duration = Some(Duration::ZERO);
    rule.max_grpc_timeout = Some(Duration::ZERO);
    rule.operation = Name::from(":0/*");
    rule.retry = Some(super::retry());
    RouteTable::new(PASSTHROUGH).host(VirtualHost::new("inbound|http|0", ["*"]).rule(rule))
}
