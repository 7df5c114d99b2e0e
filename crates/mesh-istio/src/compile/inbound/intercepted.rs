//! The one listener by which intercepted connections come in to a workload.
//!
//! Chains for the ports that are known, by protocol, and for all others what tells HTTP from the
//! rest; beside them those of the mesh's own mutual TLS.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::model::{
    Direction, FilterChain, ForwardedCertificate, HttpManager, Listener, OriginalSource,
    RouteTable, Rule, TcpProxy, VirtualHost,
};
use mesh_core::{Name, Origin};

use super::super::{Compiler, cluster, intercepted};
use super::accepts::{Accepts, Needs};
use crate::names::BLACK_HOLE;
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
    ports: BTreeMap<u16, Vec<FilterChain>>,
}

/// The address that connections to the application come from: who has it is not intercepted.
pub(super) fn source(compiler: &Compiler<'_>) -> IpAddr {
    match compiler.viewer.speaks_v6() {
        false => Ipv4Addr::new(127, 0, 0, 6).into(),
        true => Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6).into(),
    }
}

impl Gate {
    /// Adds the chains of a port.
    pub(super) fn port(
        &mut self,
        compiler: &Compiler<'_>,
        number: u16,
        mut chains: Vec<FilterChain>,
        origin: Origin,
    ) {
        let name = Name::from(format!("{}_{number}", intercepted::any(compiler)));
        for chain in &mut chains {
            chain.name = name.clone();
            chain.origin = origin;
            chain.matches.destination_port = Some(number);
        }
        self.ports.insert(number, chains);
    }

    /// Adds the listener, with what is done with connections to other ports.
    pub(super) fn finish(self, compiler: &mut Compiler<'_>, others: &Accepts) {
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
        let hole = intercepted::loops(PORT, "virtualInbound-blackhole", Direction::Inbound);
        let known = self.ports.into_values().flatten();
        let chains = std::iter::once(hole)
            .chain(rest(compiler, others))
            .chain(known);
        let mut needs = Needs::default();
        for chain in chains {
            needs.of(&chain.matches);
            listener = listener.chain(chain);
        }
        listener.inspect.tls = needs.tls();
        listener.inspect.http = needs.http();
        compiler.add_listener(listener);
    }
}

/// What is done with connections to unknown ports.
fn rest(compiler: &Compiler<'_>, accepts: &Accepts) -> Vec<FilterChain> {
    let http = || {
        let manager = manager(compiler, PASSTHROUGH.to_owned(), PASSTHROUGH);
        let mut chain = FilterChain::http(manager);
        chain.name = Name::from("virtualInbound-catchall-http");
        chain
    };
    let bytes = |cluster: &str| {
        let mut chain = FilterChain::tcp(proxy(compiler, cluster));
        chain.name = Name::from("virtualInbound");
        chain
    };
    let refused = || bytes(BLACK_HOLE);
    accepts.chains(Protocol::Unknown, &http, &|| bytes(PASSTHROUGH), &refused)
}

/// The connection manager on the way in.
pub(super) fn manager(compiler: &Compiler<'_>, stat_prefix: String, routes: &str) -> HttpManager {
    let mut manager = compiler.manager(stat_prefix, routes);
    manager.direction = Direction::Inbound;
    manager.server_name = Name::from("istio-envoy");
    let told = &mut manager.client_certificate;
    told.mode = ForwardedCertificate::AppendForward;
    (told.subject, told.dns, told.uri) = (true, true, true);
    manager
}

/// Bytes on the way in.
pub(super) fn proxy(compiler: &Compiler<'_>, cluster: &str) -> TcpProxy {
    let mut proxy = TcpProxy::to(cluster, cluster);
    proxy.direction = Direction::Inbound;
    proxy.access_log = compiler.access_log();
    proxy
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
