//! Listeners of intercepted connections, while they are put together.
//!
//! Several services may share an address: their chains meet in one listener. A chain that matches
//! everything becomes the default one where there are others; where there is none, what is left
//! goes where it was going to, or nowhere.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use mesh_core::Origin;
use mesh_core::model::{
    ChainMatch, FilterChain, HttpManager, Inspector, Listener, TransportProtocol,
};

use super::{Compiler, tls};

/// Listeners by address.
#[derive(Debug, Default)]
pub(super) struct Drafts {
    all: BTreeMap<SocketAddr, Draft>,
}

#[derive(Debug)]
struct Draft {
    origin: Origin,
    bind: bool,
    chains: Vec<FilterChain>,
}

// === impl Drafts ===

impl Drafts {
    /// Serves HTTP in plain text, unless this address has that already.
    pub(super) fn http(&mut self, address: SocketAddr, manager: HttpManager, origin: Origin) {
        let mut chain = FilterChain::http(manager);
        chain.origin = origin;
        chain.handshake_timeout = Some(tls::HANDSHAKE);
        chain.matches = plain_http();
        self.tcp(address, [chain], origin);
    }

    /// Adds chains, but for those whose connections go elsewhere already; whether there were none
    /// such.
    pub(super) fn tcp(
        &mut self,
        address: SocketAddr,
        chains: impl IntoIterator<Item = FilterChain>,
        origin: Origin,
    ) -> bool {
        let draft = self.all.entry(address).or_insert_with(|| Draft {
            origin,
            bind: false,
            chains: Vec::new(),
        });
        let mut all = true;
        for chain in chains {
            let names = chain.matches.server_names.len();
            let fresh = apart(&draft.chains, chain);
            all &= matches!(&fresh, Some(one) if one.matches.server_names.len() == names);
            draft.chains.extend(fresh);
        }
        all
    }

    /// The listener of this address takes connections itself.
    pub(super) fn bind(&mut self, address: SocketAddr) {
        if let Some(draft) = self.all.get_mut(&address) {
            draft.bind = true;
        }
    }

    /// Adds the listeners, but for those whose address is taken: it returns these. `rest` is for
    /// connections that no chain is for.
    pub(super) fn finish(self, compiler: &mut Compiler<'_>, rest: &FilterChain) -> Vec<SocketAddr> {
        let mut refused = Vec::new();
        for (address, draft) in self.all {
            let name = format!("{}_{}", address.ip(), address.port());
            let mut listener = Listener::new(name, address);
            listener.origin = draft.origin;
            listener.bind = draft.bind;
            let timeout = compiler.mesh.detection_timeout;
            listener.inspect.timeout = (!timeout.is_zero()).then_some(timeout);
            listener.inspect.continue_on_timeout = true;
            let all = |chain: &FilterChain| chain.matches == ChainMatch::default();
            let several = draft.chains.len() > 1;
            let open = draft.chains.iter().any(all);
            for chain in draft.chains {
                if !chain.matches.server_names.is_empty() {
                    listener.inspect.tls = Some(Inspector::default());
                }
                if !chain.matches.protocols.is_empty() {
                    listener.inspect.http = Some(Inspector::default());
                }
                match several && all(&chain) {
                    true => listener.default_chain = Some(chain.into()),
                    false => listener.chains.push(chain.into()),
                }
            }
            if !open {
                listener.default_chain = Some(rest.clone().into());
            }
            if !compiler.add_listener(listener) {
                refused.push(address);
            }
        }
        refused
    }
}

/// A chain without the server names and blocks that others take already, which Envoy refuses to
/// have twice; nothing if nothing is left for it.
pub(super) fn apart<C: Borrow<FilterChain>>(
    others: &[C],
    mut chain: FilterChain,
) -> Option<FilterChain> {
    for other in others {
        let (have, own) = (&other.borrow().matches, &mut chain.matches);
        let mut like = have.clone();
        like.server_names.clone_from(&own.server_names);
        like.destinations.clone_from(&own.destinations);
        if like != *own {
            continue;
        }
        let names = have.server_names == own.server_names;
        let blocks = have.destinations == own.destinations;
        if names && blocks {
            return None;
        }
        if blocks && !own.server_names.is_empty() {
            own.server_names
                .retain(|name| !have.server_names.contains(name));
            if own.server_names.is_empty() {
                return None;
            }
        }
        if names && !own.destinations.is_empty() {
            own.destinations
                .retain(|block| !have.destinations.contains(block));
            if own.destinations.is_empty() {
                return None;
            }
        }
    }
    Some(chain)
}

/// HTTP/1 and HTTP/2 in plain text, as far as the first bytes tell.
pub(super) fn plain_http() -> ChainMatch {
    let mut matches = ChainMatch::default();
    matches.transport = Some(TransportProtocol::Plain);
    matches.protocols = vec!["http/1.1".into(), "h2c".into()];
    matches
}

#[cfg(test)]
mod tests {
    use mesh_core::model::{Cidr, TcpProxy};
    use proptest::prelude::*;

    use super::*;

    fn chain(names: &[&str], blocks: &[&str], port: Option<u16>) -> FilterChain {
        let mut chain = FilterChain::tcp(TcpProxy::to("a", "a"));
        chain.matches.server_names = names.iter().map(|name| (*name).into()).collect();
        let blocks = blocks.iter().map(|block| block.parse::<Cidr>().unwrap());
        chain.matches.destinations = blocks.collect();
        chain.matches.destination_port = port;
        chain
    }

    #[test]
    fn a_name_or_block_has_one_chain() {
        let others = [
            chain(&["a", "b"], &[], None),
            chain(&[], &["10.0.0.0/8"], None),
        ];
        let left = |one: FilterChain| apart(&others, one).map(|one| one.matches);
        assert_eq!(
            left(chain(&["b", "c"], &[], None)),
            Some(chain(&["c"], &[], None).matches)
        );
        assert_eq!(left(chain(&["b", "a"], &[], None)), None);
        assert_eq!(left(chain(&[], &["10.0.0.0/8"], None)), None);
        // The port, or a block beside the name, tells them apart.
        for other in [
            chain(&["b"], &[], Some(1)),
            chain(&["b"], &["10.0.0.0/8"], None),
            chain(&[], &[], None),
        ] {
            assert_eq!(left(other.clone()), Some(other.matches));
        }
    }

    proptest! {
        #[test]
        fn no_two_chains_take_the_same_by_name_alone(
            lists in proptest::collection::vec(
                proptest::collection::btree_set(0..6usize, 0..4), 0..12,
            ),
        ) {
            let names = ["a", "b", "c", "*.d", "e", "f"];
            let mut kept: Vec<FilterChain> = Vec::new();
            for list in &lists {
                let list: Vec<&str> = list.iter().map(|index| names[*index]).collect();
                let fresh = apart(&kept, chain(&list, &[], None));
                kept.extend(fresh);
            }
            for name in names {
                let takes = |one: &&FilterChain| {
                    one.matches.server_names.iter().any(|have| *have == *name)
                };
                let asked = lists.iter().flatten().any(|index| names[*index] == name);
                prop_assert_eq!(kept.iter().filter(takes).count(), usize::from(asked));
            }
            let all = kept.iter().filter(|one| one.matches.server_names.is_empty()).count();
            prop_assert_eq!(all, usize::from(lists.iter().any(std::collections::BTreeSet::is_empty)));
        }
    }
}
