//! Listeners of intercepted connections, while they are put together.
//!
//! Several services may share an address: their chains meet in one listener. A chain that matches
//! everything becomes the default one where there are others; where there is none, what is left
//! goes where it was going to, or nowhere.

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
            let fresh = draft
                .chains
                .iter()
                .all(|have| have.matches != chain.matches);
            all &= fresh;
            if fresh {
                draft.chains.push(chain);
            }
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

/// HTTP/1 and HTTP/2 in plain text, as far as the first bytes tell.
pub(super) fn plain_http() -> ChainMatch {
    let mut matches = ChainMatch::default();
    matches.transport = Some(TransportProtocol::Plain);
    matches.protocols = vec!["http/1.1".into(), "h2c".into()];
    matches
}
