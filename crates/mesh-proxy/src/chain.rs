//! Which of a listener's filter chains a connection belongs to.
//!
//! Envoy's algorithm (`FilterChainMatch`): the chains are told apart by one property after the
//! other, in a fixed order. At each, the chains that ask for the closest value go on, and those
//! that ask for nothing only where no other matches. There is no way back: a connection whose port
//! has chains of its own never gets a chain for all ports, however badly those match otherwise.

use mesh_core::Name;
use mesh_core::model::{ChainMatch, Cidr, Listener, SourceKind, TransportProtocol};
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What chains are told apart by.
#[derive(Clone, Copy, Debug)]
pub struct Traits<'a> {
    /// Where the connection was going to.
    pub destination: SocketAddr,
    /// The TLS server name in lower case; empty if there is none.
    pub server_name: &'a str,
    /// What it speaks, as far as somebody looked.
    pub transport: TransportProtocol,
    /// The protocols that it offers, the preferred first.
    pub protocols: &'a [Name],
    /// Where it really comes from.
    pub direct_source: SocketAddr,
    /// Where it comes from, as far as the PROXY protocol says.
    pub source: SocketAddr,
}

/// The chains of a listener, ready to be chosen from.
#[derive(Debug)]
pub struct Matcher {
    root: Option<Node>,
}

#[derive(Debug)]
enum Node {
    /// The place of a chain in its listener.
    Chain(usize),
    Split(Box<Split>),
}

/// Chains that a property tells apart.
#[derive(Debug)]
struct Split {
    by: By,
    /// Those that ask for nothing.
    rest: Option<Node>,
}

#[derive(Debug)]
enum By {
    DestinationPort(HashMap<u16, Node>),
    Destination(Blocks),
    ServerName(HashMap<Name, Node>),
    Transport(HashMap<TransportProtocol, Node>),
    Protocol(HashMap<Name, Node>),
    DirectSource(Blocks),
    SourceKind(HashMap<SourceKind, Node>),
    Source(Blocks),
    SourcePort(HashMap<u16, Node>),
}

/// Blocks of addresses, of which the one with the longest prefix counts.
#[derive(Debug)]
struct Blocks {
    /// The lengths that there are, the longest first.
    lengths: Vec<u8>,
    nodes: HashMap<Cidr, Node>,
}

/// How many properties there are.
const LEVELS: usize = 9;

/// A chain and its place.
type Candidate<'a> = (usize, &'a ChainMatch);

// === impl Matcher ===

impl Matcher {
    /// Compiles the chains of a listener, without the default one. Of chains that ask for the very
    /// same the first wins (Envoy refuses them).
    pub fn of(listener: &Listener) -> Self {
        let chains = listener.chains.iter().enumerate();
        let chains: Vec<_> = chains.map(|(at, chain)| (at, &chain.matches)).collect();
        Self {
            root: compile(&chains, 0),
        }
    }

    /// Whether all connections get the same chain.
    pub fn is_fixed(&self) -> bool {
        !matches!(self.root, Some(Node::Split(_)))
    }

    /// The place of the chain for a connection. None where the default chain is for it.
    pub fn choose(&self, traits: &Traits<'_>) -> Option<usize> {
        let mut node = self.root.as_ref()?;
        loop {
            match node {
                Node::Chain(at) => return Some(*at),
                Node::Split(split) => node = split.choose(traits).or(split.rest.as_ref())?,
            }
        }
    }
}

/// The chains told apart by the properties from `level` on. Properties that none of them asks for
/// take no place in the tree.
fn compile(chains: &[Candidate<'_>], level: usize) -> Option<Node> {
    let (first, _) = *chains.first()?;
    let split = (level..LEVELS).find_map(|level| match level {
        0 => split(chains, level, |m| m.destination_port, By::DestinationPort),
        1 => split(
            chains,
            level,
            |m| m.destinations.clone(),
            Blocks::by_destination,
        ),
        2 => split(
            chains,
            level,
            |m| m.server_names.iter().map(key),
            By::ServerName,
        ),
        3 => split(chains, level, |m| m.transport, By::Transport),
        4 => split(chains, level, |m| m.protocols.clone(), By::Protocol),
        5 => split(
            chains,
            level,
            |m| m.direct_sources.clone(),
            Blocks::by_direct_source,
        ),
        6 => split(chains, level, |m| kind(m.source_kind), By::SourceKind),
        7 => split(chains, level, |m| m.sources.clone(), Blocks::by_source),
        _ => split(chains, level, |m| m.source_ports.clone(), By::SourcePort),
    });
    Some(split.unwrap_or(Node::Chain(first)))
}

/// Tells chains apart by the values that each asks for. None if none asks for any.
fn split<'a, K: Hash + Eq, I: IntoIterator<Item = K>>(
    chains: &[Candidate<'a>],
    level: usize,
    asks_for: impl Fn(&'a ChainMatch) -> I,
    by: impl FnOnce(HashMap<K, Node>) -> By,
) -> Option<Node> {
    let mut groups: HashMap<K, Vec<Candidate<'a>>> = HashMap::new();
    let mut rest = Vec::new();
    for (at, matches) in chains {
        let mut any = true;
        for value in asks_for(matches) {
            any = false;
            groups.entry(value).or_default().push((*at, matches));
        }
        if any {
            rest.push((*at, *matches));
        }
    }
    if groups.is_empty() {
        return None;
    }
    let compiled = |(value, chains): (K, Vec<_>)| Some((value, compile(&chains, level + 1)?));
    Some(Node::Split(Box::new(Split {
        by: by(groups.into_iter().filter_map(compiled).collect()),
        rest: compile(&rest, level + 1),
    })))
}

/// A server name as it is looked up: with a dot in front for everything that ends so.
fn key(name: &Name) -> Name {
    let name = name.to_ascii_lowercase();
    Name::from(name.strip_prefix('*').unwrap_or(&name))
}

fn kind(kind: SourceKind) -> Option<SourceKind> {
    (kind != SourceKind::Any).then_some(kind)
}

// === impl Split ===

impl Split {
    /// What the chains that ask for the closest value lead to.
    fn choose(&self, traits: &Traits<'_>) -> Option<&Node> {
        match &self.by {
            By::DestinationPort(nodes) => nodes.get(&traits.destination.port()),
            By::Destination(blocks) => blocks.choose(traits.destination.ip()),
            By::ServerName(nodes) => named(nodes, traits.server_name),
            By::Transport(nodes) => nodes.get(&traits.transport),
            // In the caller's order of preference.
            By::Protocol(nodes) => traits.protocols.iter().find_map(|name| nodes.get(name)),
            By::DirectSource(blocks) => blocks.choose(traits.direct_source.ip()),
            By::SourceKind(nodes) => nodes.get(&traits.source_kind()),
            By::Source(blocks) => blocks.choose(traits.source.ip()),
            By::SourcePort(nodes) => nodes.get(&traits.source.port()),
        }
    }
}

/// The exact name, then the longest that it ends with. A dot at the very front or end starts
/// nothing, as in Envoy.
fn named<'a>(nodes: &'a HashMap<Name, Node>, name: &str) -> Option<&'a Node> {
    let endings = name
        .match_indices('.')
        .filter(|(at, _)| *at > 0 && at + 1 < name.len())
        .map(|(at, _)| &name[at..]);
    std::iter::once(name)
        .filter(|name| !name.is_empty())
        .chain(endings)
        .find_map(|name| nodes.get(name))
}

// === impl Traits ===

impl Traits<'_> {
    /// Only these two addresses are loopback, as in Envoy: all others of 127.0.0.0/8 are not.
    fn source_kind(&self) -> SourceKind {
        let source = self.source.ip();
        let loopback =
            source == IpAddr::V4(Ipv4Addr::LOCALHOST) || source == IpAddr::V6(Ipv6Addr::LOCALHOST);
        if loopback || source == self.destination.ip() {
            SourceKind::SameIpOrLoopback
        } else {
            SourceKind::External
        }
    }
}

// === impl Blocks ===

impl Blocks {
    fn new(nodes: HashMap<Cidr, Node>) -> Self {
        let mut lengths: Vec<u8> = nodes.keys().map(Cidr::length).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        Self { lengths, nodes }
    }

    fn by_destination(nodes: HashMap<Cidr, Node>) -> By {
        By::Destination(Self::new(nodes))
    }

    fn by_direct_source(nodes: HashMap<Cidr, Node>) -> By {
        By::DirectSource(Self::new(nodes))
    }

    fn by_source(nodes: HashMap<Cidr, Node>) -> By {
        By::Source(Self::new(nodes))
    }

    fn choose(&self, address: IpAddr) -> Option<&Node> {
        // A length beyond the address's own is one of the other family.
        let blocks = self
            .lengths
            .iter()
            .map(|length| Cidr::new(address, *length));
        blocks.flatten().find_map(|block| self.nodes.get(&block))
    }
}

#[cfg(test)]
mod tests;
