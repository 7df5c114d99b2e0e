//! What is known of a connection before a chain is chosen.

use super::prefixed::Prefixed;
use crate::chain::Traits;
use crate::inspect::{self, Hello, Look, Plain};
use crate::origin::{Downstream, NOWHERE, canonical};
use mesh_client::proxy_protocol::{self, Parsed};
use mesh_core::exchange::TlsInfo;
use mesh_core::model::{Inspect, OriginalSource, TransportProtocol, UnixPath};
use mesh_core::{Caller, Name, Shard};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A connection that has just come.
#[derive(Debug)]
pub(crate) struct Arrival<IO> {
    pub(super) io: Prefixed<IO>,
    /// Where it really comes from.
    direct: SocketAddr,
    /// Where it comes from, as far as the PROXY protocol says.
    peer: SocketAddr,
    /// Where it was going to.
    local: SocketAddr,
    /// The Unix domain socket that it came in at: the addresses are [`NOWHERE`] unless somebody
    /// said otherwise.
    unix: Option<UnixPath>,
    /// Somebody said that `local` is not the address it came in at.
    restored: bool,
    /// Endpoints are to see where it comes from.
    source: Option<OriginalSource>,
    hello: Option<Hello>,
    /// What it speaks in plain text, as chains name it.
    plain: Option<Name>,
}

/// Why a connection is closed before a chain is chosen.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Rejected {
    #[error("the caller has gone")]
    Gone,
    #[error("no PROXY protocol header")]
    NoHeader,
    #[error("{0}")]
    Header(proxy_protocol::Malformed),
    #[error("the PROXY protocol's header names {0} as the caller's address")]
    Source(SocketAddr),
    #[error("the first bytes are more than anybody needs")]
    TooMuch,
}

// === impl Arrival ===

impl<IO> Arrival<IO> {
    pub(super) fn new(
        io: IO,
        peer: SocketAddr,
        local: SocketAddr,
        unix: Option<&UnixPath>,
    ) -> Self {
        let peer = canonical(peer);
        Self {
            unix: unix.cloned(),
            io: Prefixed::new(io),
            direct: peer,
            peer,
            local: canonical(local),
            restored: false,
            source: None,
            hello: None,
            plain: None,
        }
    }

    /// Where it was going to before it was intercepted, if somebody knows.
    pub(super) fn original(&self) -> Option<SocketAddr> {
        self.restored.then_some(self.local)
    }

    /// Endpoints are to see where it comes from, if a listener that it comes through says so.
    pub(super) fn keep_source(&mut self, inspect: &Inspect) {
        self.source = inspect.original_source.or(self.source);
    }

    fn known(&self, address: SocketAddr) -> Option<SocketAddr> {
        (self.unix.is_none() || address != NOWHERE).then_some(address)
    }

    pub(super) fn traits(&self) -> Traits<'_> {
        let hello = self.hello.as_ref();
        Traits {
            destination: self.local,
            server_name: hello.map_or("", |hello| &hello.server_name),
            transport: match hello {
                Some(_) => TransportProtocol::Tls,
                None => TransportProtocol::Plain,
            },
            protocols: match hello {
                Some(hello) => &hello.protocols,
                None => self.plain.as_slice(),
            },
            direct_source: self.direct,
            source: self.peer,
        }
    }

    /// Who calls, through a chain.
    pub(super) fn caller(&self, shard: Shard, chain: &Name) -> Caller {
        let mut caller = Caller::default();
        caller.shard = shard;
        caller.peer = self.known(self.peer);
        caller.local = self.known(self.local);
        caller.original = self.original();
        let direct = (self.direct != self.peer).then_some(self.direct);
        caller.direct = direct.and_then(|direct| self.known(direct));
        caller.unix = self.unix.clone();
        caller.source = self.source.and_then(|source| {
            let peer = self.known(self.peer)?;
            Some((peer.ip(), source.mark))
        });
        caller.chain = chain.clone();
        caller.tls = self.hello.as_ref().map(|hello| {
            let mut info = TlsInfo::default();
            info.server_name = hello.server_name.clone();
            Arc::new(info)
        });
        caller
    }
}

impl<IO: Downstream> Arrival<IO> {
    /// Finds out what a listener wants to know, in Envoy's order. What is known stays known if
    /// this is dropped before it ends.
    pub(super) async fn look(&mut self, inspect: &Inspect) -> Result<(), Rejected> {
        if let Some(accepted) = inspect.proxy_protocol {
            self.read_header(accepted.optional).await?;
        }
        if inspect.original_destination
            && let Some(original) = self.io.original_destination()
        {
            self.local = original;
            self.restored = true;
        }
        if let Some(inspector) = &inspect.tls
            && self.hello.is_none()
            && inspector.looks_at(self.local.port())
        {
            match self.first_bytes(inspect::tls).await? {
                Look::Yes(hello) => self.hello = Some(hello),
                Look::TooLarge | Look::Incomplete => return Err(Rejected::TooMuch),
                Look::No => {}
            }
        }
        if let Some(inspector) = &inspect.http
            && self.hello.is_none()
            && self.plain.is_none()
            && inspector.looks_at(self.local.port())
            // Without an end it is no request line.
            && let Look::Yes(plain) = self.first_bytes(inspect::http).await?
        {
            self.plain = Some(Plain::as_str(plain).into());
        }
        Ok(())
    }

    async fn read_header(&mut self, optional: bool) -> Result<(), Rejected> {
        loop {
            match proxy_protocol::parse(self.io.kept()).map_err(Rejected::Header)? {
                Parsed::Incomplete => self.more().await?,
                Parsed::NotPresent if optional => return Ok(()),
                Parsed::NotPresent => return Err(Rejected::NoHeader),
                Parsed::Header { len, addresses, .. } => {
                    self.io.skip(len);
                    if let Some((source, destination)) = addresses {
                        for address in [source, destination] {
                            if !is_unicast(address.ip()) {
                                return Err(Rejected::Source(address));
                            }
                        }
                        self.peer = source;
                        self.restored |= destination != self.local;
                        self.local = destination;
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Looks at more and more of the first bytes. [`Look::Incomplete`] only if they are too many.
    async fn first_bytes<T>(&mut self, look: fn(&[u8]) -> Look<T>) -> Result<Look<T>, Rejected> {
        loop {
            let seen = look(self.io.kept());
            let enough = self.io.kept().len() >= inspect::MOST;
            if enough || !matches!(seen, Look::Incomplete) {
                return Ok(seen);
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<(), Rejected> {
        match self.io.more().await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Rejected::Gone),
        }
    }
}

/// Somebody's address, as Envoy asks of both that a header names.
fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_broadcast() && !v4.is_multicast(),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast(),
    }
}
