//! Which filter chain a connection gets: the tree that a proxy uses, and the algorithm as it is
//! told, choose the same.

use crate::structured::steps;
use crate::{Input, Target};
use arbitrary::{Arbitrary, Unstructured};
use mesh_core::Name;
use mesh_core::model::{
    ChainMatch, Cidr, FilterChain, Listener, SourceKind, TcpProxy, TransportProtocol,
};
use mesh_proxy::chain::{Matcher, Traits};
use std::net::{IpAddr, SocketAddr};

#[path = "../../crates/mesh-proxy/src/chain/tests/naive.rs"]
mod naive;

/// `filter_chain`
pub(crate) const TARGET: Target = Target {
    name: "filter_chain",
    run,
    input: Input::Steps,
};

/// The most chains of a listener, connections to it, and values that a chain asks for.
const MOST: (usize, usize, usize) = (12, 12, 4);

/// A small world, so that chains and connections meet.
const IPS: [[u8; 4]; 6] = [
    [10, 0, 0, 1],
    [10, 0, 0, 2],
    [10, 0, 1, 1],
    [127, 0, 0, 1],
    [127, 0, 0, 2],
    [192, 168, 0, 1],
];
const LABELS: [&str; 4] = ["a", "bb", "com", "www"];
const PROTOCOLS: [&str; 5] = ["h2", "http/1.1", "http/1.0", "h2c", "istio"];

#[derive(Arbitrary, Debug)]
enum Step {
    Chain(Asked),
    Connection(Connection),
    /// A name that nobody would give.
    Odd(String),
}

/// What a chain asks for.
#[derive(Arbitrary, Debug)]
struct Asked {
    port: Option<u8>,
    destinations: Vec<Block>,
    server_names: Vec<(bool, Host)>,
    tls: Option<bool>,
    protocols: Vec<u8>,
    direct_sources: Vec<Block>,
    kind: u8,
    sources: Vec<Block>,
    source_ports: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
struct Block(Ip, u8);

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Ip(bool, u8);

/// The labels of a name; the last ones come first.
#[derive(Arbitrary, Debug)]
struct Host(Vec<u8>);

#[derive(Arbitrary, Debug)]
struct Connection {
    destination: (Ip, u8),
    direct_source: (Ip, u8),
    source: (Ip, u8),
    server_name: Option<Host>,
    dot: bool,
    tls: bool,
    protocols: Vec<u8>,
}

fn run(data: &[u8]) {
    let (mut chains, mut connections, mut odd) = (Vec::new(), Vec::new(), Vec::new());
    for step in steps(&mut Unstructured::new(data)) {
        match step {
            Step::Chain(asked) => chains.push(asked.matches()),
            Step::Connection(connection) => connections.push(connection),
            Step::Odd(name) => odd.push(Name::from(name)),
        }
    }
    chains.truncate(MOST.0);
    connections.truncate(MOST.1);
    odd.truncate(MOST.2);
    let matcher = matcher(&chains);
    for connection in &connections {
        let name = connection.name();
        let protocols = protocols(&connection.protocols);
        let traits = connection.traits(&name, &protocols);
        let expected = naive::naive(&chains, &traits);
        let chosen = matcher.choose(&traits);
        assert_eq!(chosen, expected, "{traits:?} among {chains:#?}");
        assert!(!matcher.is_fixed() || chosen == (!chains.is_empty()).then_some(0));
    }
    // With these nothing is compared: the model refuses some of them, and callers say anything.
    for chain in &mut chains {
        chain.server_names.extend(odd.iter().cloned());
        chain.protocols.extend(odd.iter().cloned());
    }
    let matcher = self::matcher(&chains);
    for connection in &connections {
        for name in &odd {
            let chosen = matcher.choose(&connection.traits(name, &odd));
            assert!(chosen.is_none_or(|at| at < chains.len()));
        }
    }
}

fn matcher(chains: &[ChainMatch]) -> Matcher {
    let mut listener = Listener::new("in", ([0, 0, 0, 0], 1).into());
    for matches in chains {
        let mut chain = FilterChain::tcp(TcpProxy::to("p", "c"));
        chain.matches = matches.clone();
        listener = listener.chain(chain);
    }
    Matcher::of(&listener)
}

fn protocols(which: &[u8]) -> Vec<Name> {
    let name = |at: &u8| PROTOCOLS[usize::from(*at) % PROTOCOLS.len()].into();
    which.iter().take(MOST.2).map(name).collect()
}

fn transport(tls: bool) -> TransportProtocol {
    match tls {
        true => TransportProtocol::Tls,
        false => TransportProtocol::Plain,
    }
}

fn port(at: u8) -> u16 {
    80 + u16::from(at % 4)
}

// === impl Asked ===

impl Asked {
    fn matches(&self) -> ChainMatch {
        let blocks = |all: &[Block]| all.iter().take(MOST.2).map(Block::cidr).collect();
        let names = self.server_names.iter().take(MOST.2);
        let mut matches = ChainMatch::default();
        matches.destination_port = self.port.map(port);
        matches.destinations = blocks(&self.destinations);
        matches.server_names = names
            .map(|(any, host)| match any {
                true => format!("*.{}", host.text()).into(),
                false => host.text().into(),
            })
            .collect();
        matches.transport = self.tls.map(transport);
        matches.protocols = protocols(&self.protocols);
        matches.direct_sources = blocks(&self.direct_sources);
        matches.source_kind = match self.kind % 4 {
            0 => SourceKind::SameIpOrLoopback,
            1 => SourceKind::External,
            _ => SourceKind::Any,
        };
        matches.sources = blocks(&self.sources);
        let ports = self.source_ports.iter().take(MOST.2);
        matches.source_ports = ports.map(|at| port(*at)).collect();
        matches
    }
}

// === impl Block ===

impl Block {
    fn cidr(&self) -> Cidr {
        let address = self.0.address();
        let most = if address.is_ipv4() { 33 } else { 129 };
        Cidr::new(address, self.1 % most).expect("the length is within the address's")
    }
}

// === impl Ip ===

impl Ip {
    fn address(self) -> IpAddr {
        let v4 = std::net::Ipv4Addr::from(IPS[usize::from(self.1) % IPS.len()]);
        match (self.0, self.1 & 0x40 == 0) {
            (true, _) => v4.into(),
            // `::1` and such.
            (false, true) => std::net::Ipv6Addr::from(u128::from(self.1 % 4)).into(),
            (false, false) => v4.to_ipv6_mapped().into(),
        }
    }
}

// === impl Host ===

impl Host {
    fn text(&self) -> String {
        let label = |at: &u8| LABELS[usize::from(*at) % LABELS.len()];
        let labels = self.0.iter().take(5).map(label);
        let mut labels: Vec<&str> = labels.collect();
        if labels.is_empty() {
            labels.push(LABELS[0]);
        }
        labels.reverse();
        labels.join(".")
    }
}

// === impl Connection ===

impl Connection {
    fn name(&self) -> String {
        let name = self.server_name.as_ref().map(Host::text);
        let mut name = name.unwrap_or_default();
        if self.dot && !name.is_empty() {
            name.push('.');
        }
        name
    }

    fn traits<'a>(&self, server_name: &'a str, protocols: &'a [Name]) -> Traits<'a> {
        let address = |(ip, at): (Ip, u8)| SocketAddr::new(ip.address(), port(at));
        Traits {
            destination: address(self.destination),
            server_name,
            transport: transport(self.tls),
            protocols,
            direct_source: address(self.direct_source),
            source: address(self.source),
        }
    }
}
