//! The head of a request as a service is told of it.

use crate::facts::RequestFacts;
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::{HeaderName, Request, Version};
use mesh_core::Caller;
use mesh_core::exchange::TlsInfo;
use std::net::SocketAddr;

/// What a question is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct About<'a> {
    pub(super) request: RequestFacts<'a>,
    pub(super) version: Version,
    pub(super) peers: Peers<'a>,
}

/// Both ends of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peers<'a> {
    pub(super) source: Option<SocketAddr>,
    pub(super) destination: Option<SocketAddr>,
    pub(super) tls: Option<&'a TlsInfo>,
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

// === impl Peers ===

impl<'a> Peers<'a> {
    pub(super) fn of(caller: &'a Caller) -> Self {
        Self {
            source: caller.peer,
            destination: caller.original.or(caller.local),
            tls: caller.tls.as_deref(),
        }
    }

    /// Who calls: of a certificate the first URI, else the first DNS name, else the subject.
    pub(super) fn principal(&self) -> &'a str {
        let Some(peer) = self.tls.and_then(|tls| tls.peer.as_ref()) else {
            return "";
        };
        let name = peer.uris.first().or_else(|| peer.dns_names.first());
        name.unwrap_or(&peer.subject)
    }

    /// Who is called.
    pub(super) fn local(&self) -> &'a str {
        let name = self.tls.and_then(|tls| tls.local_names.first());
        name.map_or("", |name| name)
    }
}

// === impl About ===

impl<'a> About<'a> {
    pub(super) fn of<B>(
        request: &'a Request<B>,
        facts: RequestFacts<'a>,
        peers: Peers<'a>,
    ) -> Self {
        Self {
            request: facts,
            version: request.version(),
            peers,
        }
    }

    /// `:path`.
    pub(super) fn path(&self) -> &'a str {
        self.request.path_and_query().unwrap_or_default()
    }

    /// `:authority`.
    pub(super) fn authority(&self) -> &'a [u8] {
        self.request.authority().unwrap_or_default()
    }

    /// The headers by name, those of one name joined by commas, without what is of the connection.
    pub(super) fn headers(&self) -> impl Iterator<Item = (&'a HeaderName, Vec<u8>)> {
        let headers = self.request.headers();
        headers
            .keys()
            .filter(|name| **name != HOST && !is_of_connection(name))
            .map(|name| {
                let all: Vec<_> = headers.get_all(name).iter().map(|v| v.as_bytes()).collect();
                (name, all.join(&b","[..]))
            })
    }
}

/// Whether a header is for one connection alone (RFC 9110 §7.6.1).
pub(super) fn is_of_connection(name: &HeaderName) -> bool {
    [CONNECTION, TRANSFER_ENCODING, KEEP_ALIVE, PROXY_CONNECTION].contains(name)
}
