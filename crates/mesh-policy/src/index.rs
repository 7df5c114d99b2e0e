//! Which policies can match at all: by exact paths, prefixes of paths, names of peers, namespaces.
//!
//! What is found here is judged as any other policy is: a key only has to be *necessary*.

use crate::facts::Facts;
use crate::holds::{certificate, names};
use mesh_core::model::{AuthzPolicy, Fact, Predicate, StringMatch};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Something that a request has to have for a policy to match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Path(Box<[u8]>),
    /// What the path begins with.
    PathPrefix(Box<[u8]>),
    Peer(Box<[u8]>),
    /// What follows `/ns/` somewhere in a name of the peer.
    Namespace(Box<[u8]>),
}

/// Places of policies, in order, by what a request has to have for them.
#[derive(Debug, Default)]
pub(crate) struct Index {
    paths: HashMap<Box<[u8]>, Vec<usize>>,
    prefixes: HashMap<Box<[u8]>, Vec<usize>>,
    /// The lengths of the prefixes.
    lengths: BTreeSet<usize>,
    peers: HashMap<Box<[u8]>, Vec<usize>>,
    namespaces: HashMap<Box<[u8]>, Vec<usize>>,
    /// Those that any request may match.
    others: Vec<usize>,
}

const NAMESPACE: &[u8] = b"/ns/";
/// More ways than this to match a policy are not worth it.
const MAX_KEYS: usize = 256;

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
                let places = match key {
                    Key::Path(path) => index.paths.entry(path).or_default(),
                    Key::Peer(name) => index.peers.entry(name).or_default(),
                    Key::Namespace(name) => index.namespaces.entry(name).or_default(),
                    Key::PathPrefix(prefix) => {
                        index.lengths.insert(prefix.len());
                        index.prefixes.entry(prefix).or_default()
                    }
                };
                // Two keys of one policy may be the same.
                if places.last() != Some(&at) {
                    places.push(at);
                }
            }
        }
        index
    }

    /// The first policy that matches.
    pub(crate) fn first(
        &self,
        facts: &Facts<'_>,
        matches: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut best = usize::MAX;
        let mut look = |places: Option<&Vec<usize>>| {
            for at in places.into_iter().flatten() {
                if *at >= best {
                    break;
                }
                if matches(*at) {
                    best = *at;
                    break;
                }
            }
        };
        look(Some(&self.others));
        let path = facts.request.and_then(|request| request.path());
        if let Some(path) = path.map(str::as_bytes) {
            look(self.paths.get(path));
            for length in &self.lengths {
                let Some(prefix) = path.get(..*length) else {
                    break;
                };
                look(self.prefixes.get(prefix));
            }
        }
        if let Some(peer) = certificate(facts).filter(|_| self.looks_at_peers()) {
            for name in names(peer).map(str::as_bytes) {
                look(self.peers.get(name));
                if !self.namespaces.is_empty() {
                    for namespace in namespaces(name) {
                        look(self.namespaces.get(namespace));
                    }
                }
            }
        }
        (best != usize::MAX).then_some(best)
    }

    fn looks_at_peers(&self) -> bool {
        !self.peers.is_empty() || !self.namespaces.is_empty()
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
    let bytes = |text: &str| Box::from(text.as_bytes());
    match fact {
        Fact::Path(StringMatch::Exact(path)) => Some(Key::Path(bytes(path))),
        Fact::Path(StringMatch::Prefix(prefix)) => Some(Key::PathPrefix(bytes(prefix))),
        Fact::PathTemplate(template) => Some(Key::PathPrefix(bytes(template.prefix()))),
        // The name that there is not is empty, and in no index.
        Fact::Peer(Some(StringMatch::Exact(name))) if !name.is_empty() => {
            Some(Key::Peer(bytes(name)))
        }
        Fact::Peer(Some(StringMatch::Regex(pattern))) => {
            // As Istio writes a namespace.
            let name = pattern.source().strip_prefix(".*/ns/")?;
            let name = name.strip_suffix("/.*")?;
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            let plain = !name.is_empty() && name.bytes().all(plain);
            plain.then(|| Key::Namespace(bytes(name)))
        }
        _ => None,
    }
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
        matches!(self, Self::PathPrefix(prefix) if prefix.len() < 2)
    }
}
