//! Which connections are taken on the way in, and by which chains.

use std::sync::Arc;

use mesh_core::Name;
use mesh_core::model::{
    ChainMatch, FilterChain, Inspector, PortRange, ServerTls, TransportProtocol,
};

use super::super::{Compiler, drafts, mutual};
use crate::spec::MutualTls;
use crate::spec::kubernetes::Protocol;

/// Which connections are taken.
#[derive(Clone, Debug)]
pub(super) enum Accepts {
    /// Those in plain text (`DISABLE`).
    Plain,
    /// Anything that comes, and none of it is looked into: there is no certificate to show.
    Anything,
    /// Mutual TLS, and what is none (`PERMISSIVE`).
    Both(Arc<ServerTls>),
    /// Mutual TLS (`STRICT`).
    Mutual(Arc<ServerTls>),
    /// TLS that callers outside of the mesh begin (`ingress[].tls` of a `Sidecar`).
    Tls(Arc<ServerTls>),
    /// None: what has to be shown is not there.
    Nothing,
}

/// What is looked for in the first bytes of connections, by their port.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// The port, or none for all that are not known; TLS, and HTTP.
    ports: Vec<(Option<u16>, bool, bool)>,
}

impl Accepts {
    /// What a workload takes by what is said of it.
    pub(super) fn of(compiler: &Compiler<'_>, mode: MutualTls) -> Self {
        let secured = || mutual::inbound(compiler.mesh);
        match (mode, compiler.viewer.has_identity()) {
            (MutualTls::Disable, _) => Self::Plain,
            (MutualTls::Permissive, false) => Self::Anything,
            (MutualTls::Permissive, true) => Self::Both(secured()),
            (MutualTls::Strict, false) => Self::Nothing,
            (MutualTls::Strict, true) => Self::Mutual(secured()),
        }
    }

    /// The chains for a port that speaks this, without their names and port: what is done with
    /// HTTP, what with bytes, and what with what is refused.
    pub(super) fn chains(
        &self,
        protocol: Protocol,
        http: &dyn Fn() -> FilterChain,
        bytes: &dyn Fn() -> FilterChain,
        refused: &dyn Fn() -> FilterChain,
    ) -> Vec<FilterChain> {
        use TransportProtocol::{Plain, Tls};
        let chain =
            |mut chain: FilterChain, transport, protocols: &[&str], tls: Option<&Arc<_>>| {
                chain.matches = ChainMatch::default();
                chain.matches.transport = Some(transport);
                chain.matches.protocols = protocols.iter().copied().map(Name::from).collect();
                chain.tls = tls.cloned();
                chain
            };
        let sniffed = || {
            let mut chain = http();
            chain.matches = drafts::plain_http();
            chain
        };
        let all = &mutual::PROTOCOLS[..];
        let unknown = protocol == Protocol::Unknown;
        let inside = || match protocol.is_http() {
            true => http(),
            false => bytes(),
        };
        match self {
            Self::Nothing => {
                let mut chain = refused();
                chain.matches = ChainMatch::default();
                vec![chain]
            }
            Self::Plain if unknown => vec![sniffed(), chain(bytes(), Plain, &[], None)],
            Self::Plain => vec![chain(inside(), Plain, &[], None)],
            Self::Anything if unknown => vec![
                sniffed(),
                chain(bytes(), Plain, &[], None),
                chain(bytes(), Tls, &[], None),
            ],
            Self::Anything if protocol.is_http() => vec![chain(http(), Plain, &[], None)],
            Self::Anything => vec![
                chain(bytes(), Tls, &[], None),
                chain(bytes(), Plain, &[], None),
            ],
            Self::Both(tls) if unknown => vec![
                chain(http(), Tls, &mutual::HTTP_PROTOCOLS, Some(tls)),
                sniffed(),
                chain(bytes(), Tls, &mutual::OTHER_PROTOCOLS, Some(tls)),
                chain(bytes(), Plain, &[], None),
                chain(bytes(), Tls, &[], None),
            ],
            Self::Both(tls) if protocol.is_http() => vec![
                chain(http(), Tls, all, Some(tls)),
                chain(http(), Plain, &[], None),
            ],
            Self::Both(tls) => vec![
                chain(bytes(), Tls, all, Some(tls)),
                chain(bytes(), Tls, &[], None),
                chain(bytes(), Plain, &[], None),
            ],
            Self::Mutual(tls) if unknown => vec![
                chain(http(), Tls, &mutual::HTTP_PROTOCOLS, Some(tls)),
                chain(bytes(), Tls, &[], Some(tls)),
            ],
            Self::Mutual(tls) | Self::Tls(tls) => vec![chain(inside(), Tls, &[], Some(tls))],
        }
    }

    /// Whether connections need not be told apart: none is ended here, and none is refused.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain | Self::Anything)
    }
}

impl Needs {
    /// Notes what a chain goes by.
    pub(super) fn of(&mut self, matches: &ChainMatch) {
        let tls = matches.transport == Some(TransportProtocol::Tls);
        let plain = |name: &Name| matches!(name.as_str(), "http/1.1" | "h2c");
        let http = matches.protocols.iter().any(plain);
        let port = matches.destination_port;
        match self.ports.iter_mut().find(|(known, ..)| *known == port) {
            Some((_, old_tls, old_http)) => {
                *old_tls |= tls;
                *old_http |= http;
            }
            None => self.ports.push((port, tls, http)),
        }
    }

    /// What looks for TLS, if anything has to.
    pub(super) fn tls(&self) -> Option<Inspector> {
        self.inspector(|(_, tls, _)| *tls)
    }

    /// What looks for HTTP, if anything has to.
    pub(super) fn http(&self) -> Option<Inspector> {
        self.inspector(|(_, _, http)| *http)
    }

    fn inspector(&self, needs: impl Fn(&(Option<u16>, bool, bool)) -> bool) -> Option<Inspector> {
        if !self.ports.iter().any(&needs) {
            return None;
        }
        let usual = self.ports.iter().any(|one| one.0.is_none() && needs(one));
        let others = self.ports.iter().filter(|one| needs(one) != usual);
        let mut others: Vec<u16> = others.filter_map(|one| one.0).collect();
        others.sort_unstable();
        let only = |port: u16| range(port.into(), u32::from(port) + 1);
        if usual {
            let except = others.into_iter().map(only).collect();
            return Some(Inspector { except });
        }
        // Everywhere but at these.
        let mut except = Vec::new();
        let mut from = 0;
        for port in others {
            if from < u32::from(port) {
                except.push(range(from, port.into()));
            }
            from = u32::from(port) + 1;
        }
        except.push(range(from, 1 << 16));
        Some(Inspector { except })
    }
}

fn range(start: u32, end: u32) -> PortRange {
    PortRange { start, end }
}
