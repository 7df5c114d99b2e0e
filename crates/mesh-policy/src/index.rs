//! Which policies can match at all: by paths, hosts, headers, addresses, server names, names of peers
//! and namespaces.
//!
//! What is found here is judged as any other policy is: a key only has to be *necessary*.

mod blocks;
mod column;

use crate::facts::Facts;
use crate::holds::{certificate, names};
use blocks::{Blocks, is_broad};
use column::{Column, Literal};
use http::HeaderName;
use http::header::HOST;
use mesh_core::model::{
    AuthzPolicy, Cidr, Fact, HeaderKey, HeaderMatch, Predicate, StringMatch, ValueMatch,
};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Something that a request has to have for a policy to match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// Of the path.
    Path(Literal),
    /// Of the authority, in lower case.
    Authority(Literal),
    /// Of the method. There are few.
    Method(Literal),
    /// Of some line of a header.
    Header(HeaderName, Literal),
    /// Of the server name, which is empty where none was asked for.
    Server(Literal),
    /// Of some name of the peer.
    Peer(Literal),
    /// What follows `/ns/` somewhere in a name of the peer.
    Namespace(Box<[u8]>),
    /// Where an address lies.
    Block(Whose, Cidr),
}

/// Which address of a request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Whose {
    Destination,
    Direct,
    Source,
    Remote,
}

/// Places of policies, in order, by what a request has to have for them.
#[derive(Debug, Default)]
pub(crate) struct Index {
    paths: Column,
    authorities: Option<Column>,
    methods: Option<Column>,
    headers: Vec<(HeaderName, Column)>,
    servers: Option<Column>,
    peers: Option<Column>,
    namespaces: HashMap<Box<[u8]>, Vec<usize>>,
    blocks: Vec<(Whose, Blocks)>,
    /// Those that any request may match.
    others: Vec<usize>,
}

const NAMESPACE: &[u8] = b"/ns/";
/// More ways than this to match a policy are not worth it.
const MAX_KEYS: usize = 256;
/// Longer hosts are not looked for here.
const MAX_HOST: usize = 256;

// === impl Index ===

impl Index {
    pub(crate) fn of(policies: &[Arc<AuthzPolicy>]) -> Self {
        let mut index = Self::default();
        for (at, policy) in policies.iter().enumerate() {
            let both = [&policy.permission, &policy.principal];
            let keys = best(both.into_iter().filter_map(keys));
            let Some(keys) = keys else {
                index.others.push(at);
                continue;
            };
            for key in keys {
                let places = index.places(key);
                // Two keys of one policy may be the same.
                if places.last() != Some(&at) {
                    places.push(at);
                }
            }
        }
        index
    }

    fn places(&mut self, key: Key) -> &mut Vec<usize> {
        let (column, literal) = match key {
            Key::Path(literal) => (&mut self.paths, literal),
            Key::Authority(literal) => (self.authorities.get_or_insert_default(), literal),
            Key::Method(literal) => (self.methods.get_or_insert_default(), literal),
            Key::Server(literal) => (self.servers.get_or_insert_default(), literal),
            Key::Peer(literal) => (self.peers.get_or_insert_default(), literal),
            Key::Namespace(name) => return self.namespaces.entry(name).or_default(),
            Key::Block(whose, block) => {
                let known = self.blocks.iter().position(|(known, _)| *known == whose);
                let at = known.unwrap_or_else(|| {
                    self.blocks.push((whose, Blocks::default()));
                    self.blocks.len() - 1
                });
                return self.blocks[at].1.places(block);
            }
            Key::Header(name, literal) => {
                let known = self.headers.iter().position(|(known, _)| *known == name);
                let at = known.unwrap_or_else(|| {
                    self.headers.push((name, Column::default()));
                    self.headers.len() - 1
                });
                (&mut self.headers[at].1, literal)
            }
        };
        column.places(literal)
    }

    /// The first policy that matches.
    pub(crate) fn first(
        &self,
        facts: &Facts<'_>,
        matches: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut best = usize::MAX;
        let mut look = |places: &[usize]| {
            for at in places {
                if *at >= best {
                    break;
                }
                if matches(*at) {
                    best = *at;
                    break;
                }
            }
        };
        look(&self.others);
        self.by_request(facts, &mut look);
        if let Some(servers) = &self.servers {
            servers.look(facts.server_name().as_bytes(), &mut look);
        }
        for (whose, blocks) in &self.blocks {
            if let Some(address) = whose.of(facts) {
                blocks.look(address, &mut look);
            }
        }
        if let Some(peer) = certificate(facts).filter(|_| self.looks_at_peers()) {
            for name in names(peer).map(str::as_bytes) {
                if let Some(peers) = &self.peers {
                    peers.look(name, &mut look);
                }
                if !self.namespaces.is_empty() {
                    for namespace in namespaces(name) {
                        if let Some(places) = self.namespaces.get(namespace) {
                            look(places);
                        }
                    }
                }
            }
        }
        (best != usize::MAX).then_some(best)
    }

    fn by_request(&self, facts: &Facts<'_>, look: &mut impl FnMut(&[usize])) {
        let Some(request) = &facts.request else {
            return;
        };
        if let Some(path) = request.path() {
            self.paths.look(path.as_bytes(), look);
        }
        if let Some(methods) = &self.methods {
            methods.look(request.method().as_bytes(), look);
        }
        if let (Some(hosts), Some(authority)) = (&self.authorities, request.authority()) {
            // No key is longer, so of a longer one both ends are enough.
            let mut folded = [0; 2 * MAX_HOST];
            let text = match authority.len() {
                short if short <= folded.len() => &mut folded[..short],
                _ => &mut folded[..],
            };
            let half = text.len() / 2;
            text[..half].copy_from_slice(&authority[..half]);
            let rest = text.len() - half;
            text[half..].copy_from_slice(&authority[authority.len() - rest..]);
            text.make_ascii_lowercase();
            hosts.look(text, look);
        }
        for (name, column) in &self.headers {
            for line in request.headers().get_all(name) {
                column.look(line.as_bytes(), look);
            }
        }
    }

    fn looks_at_peers(&self) -> bool {
        self.peers.is_some() || !self.namespaces.is_empty()
    }
}

/// Of several conditions that all have to hold, the keys of the one that holds most rarely.
fn best(candidates: impl Iterator<Item = Vec<Key>>) -> Option<Vec<Key>> {
    candidates.min_by_key(|keys| {
        let broad = keys.iter().filter(|key| key.is_broad()).count();
        (broad, keys.len())
    })
}

/// Keys of which a request has one if the condition holds.
fn keys(predicate: &Predicate) -> Option<Vec<Key>> {
    match predicate {
        Predicate::All(list) => best(list.iter().filter_map(keys)),
        Predicate::Any(list) => {
            let mut all = Vec::new();
            for one in list {
                all.extend(keys(one)?);
                if all.len() > MAX_KEYS {
                    return None;
                }
            }
            Some(all)
        }
        Predicate::Fact(fact) => key(fact).map(|key| vec![key]),
        _ => None,
    }
}

fn key(fact: &Fact) -> Option<Key> {
    match fact {
        Fact::Path(text) => Some(Key::Path(literal(text)?)),
        Fact::PathTemplate(template) => Some(Key::Path(Literal::start(template.prefix()))),
        Fact::Header(header) => of_header(header),
        Fact::Destination(block) => Some(Key::Block(Whose::Destination, *block)),
        Fact::Direct(block) => Some(Key::Block(Whose::Direct, *block)),
        Fact::Source(block) => Some(Key::Block(Whose::Source, *block)),
        Fact::Remote(block) => Some(Key::Block(Whose::Remote, *block)),
        Fact::Peer(Some(StringMatch::Regex(pattern))) => {
            // As Istio writes a namespace.
            let name = pattern.source().strip_prefix(".*/ns/")?;
            let name = name.strip_suffix("/.*")?;
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            let plain = !name.is_empty() && name.bytes().all(plain);
            plain.then(|| Key::Namespace(name.as_bytes().into()))
        }
        Fact::ServerName(name) => literal(name).map(Key::Server),
        // The name that there is not is empty, and in no index.
        Fact::Peer(Some(name)) => {
            let name = literal(name).filter(|name| name.len() > 0)?;
            Some(Key::Peer(name))
        }
        _ => None,
    }
}

/// What a header has to be, where it has to be there.
fn of_header(header: &HeaderMatch) -> Option<Key> {
    let ValueMatch::Text(text) = &header.value else {
        return None;
    };
    if header.invert || header.missing_is_empty {
        return None;
    }
    match &header.key {
        HeaderKey::Method => literal(text).map(Key::Method),
        HeaderKey::Authority => host(text),
        HeaderKey::Header(name) if name == HOST => host(text),
        HeaderKey::Header(name) => Some(Key::Header(name.clone(), literal(text)?)),
        HeaderKey::Path | HeaderKey::Scheme => None,
    }
}

fn literal(text: &StringMatch) -> Option<Literal> {
    match text {
        StringMatch::Exact(text) => Some(Literal::whole(text)),
        StringMatch::Prefix(text) => Some(Literal::start(text)),
        StringMatch::Suffix(text) => Some(Literal::end(text)),
        _ => None,
    }
}

/// The same of a host, whatever its case.
fn host(text: &StringMatch) -> Option<Key> {
    let literal = match text {
        StringMatch::ExactIgnoreCase(text) => Literal::whole(text),
        StringMatch::PrefixIgnoreCase(text) => Literal::start(text),
        StringMatch::SuffixIgnoreCase(text) => Literal::end(text),
        other => literal(other)?,
    };
    let short = literal.len() < MAX_HOST;
    short.then(|| Key::Authority(literal.folded()))
}

/// What stands between `/ns/` and the next slash, wherever that is.
fn namespaces(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let places = name.windows(NAMESPACE.len()).enumerate();
    places
        .filter(|(_, window)| *window == NAMESPACE)
        .filter_map(|(at, _)| {
            let rest = &name[at + NAMESPACE.len()..];
            let end = rest.iter().position(|byte| *byte == b'/')?;
            Some(&rest[..end])
        })
}

// === impl Key ===

impl Key {
    /// Whether many requests have it.
    fn is_broad(&self) -> bool {
        match self {
            Self::Path(literal)
            | Self::Authority(literal)
            | Self::Header(_, literal)
            | Self::Server(literal)
            | Self::Peer(literal) => literal.is_broad(),
            Self::Method(_) => true,
            Self::Namespace(_) => false,
            Self::Block(_, block) => is_broad(*block),
        }
    }
}

// === impl Whose ===

impl Whose {
    fn of(self, facts: &Facts<'_>) -> Option<IpAddr> {
        match self {
            Self::Destination => facts.destination.map(|address| address.ip()),
            Self::Direct => facts.direct,
            Self::Source => facts.source,
            Self::Remote => facts.remote,
        }
    }
}
