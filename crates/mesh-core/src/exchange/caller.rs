//! Who called, and through which listener.

mod resets;

pub use resets::Resets;

use crate::model::{HttpManager, TlsVersion, UnixPath};
use crate::stats::{Block, HttpStat, Shard};
use crate::{Failure, Name};
use http::HeaderValue;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

/// The downstream side of a request: settled when the connection was accepted. Where the layers
/// are used without a proxy everything is unknown.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Caller {
    /// The worker that handles the connection.
    pub shard: Shard,
    /// The peer's address.
    pub peer: Option<SocketAddr>,
    /// The address that the peer connected to.
    pub local: Option<SocketAddr>,
    /// The settings of the listener.
    pub manager: Option<Arc<HttpManager>>,
    /// The statistics of the listener.
    pub stats: Option<Arc<Block<HttpStat>>>,
    /// The connection is secured, and how.
    pub tls: Option<Arc<TlsInfo>>,
    /// Where the connection was going to before it was intercepted.
    pub original: Option<SocketAddr>,
    /// The peer's address on the connection itself, where the PROXY protocol names another.
    pub direct: Option<SocketAddr>,
    /// The name of the filter chain.
    pub chain: Name,
    /// The Unix domain socket that the connection came in on. Nothing is known of who calls there:
    /// the addresses are none, but for those that the PROXY protocol names.
    pub unix: Option<UnixPath>,
    /// Endpoints are connected to from this address, that of the caller, rather than from one of
    /// ours: as an address with the mark of its packets (`SO_MARK`; 0 is none).
    pub source: Option<(IpAddr, u32)>,
    /// Where streams that the caller reset are noted, on a connection of HTTP/2.
    pub resets: Option<Arc<Resets>>,
    /// The peer's address as a header says it, once somebody asked for it.
    pub(super) written: OnceLock<Box<(IpAddr, HeaderValue)>>,
}

/// What was agreed on in a TLS handshake, seen from our side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsInfo {
    /// The server name that was asked for; empty if none was. Known for connections that are only
    /// passed on, too.
    pub server_name: Name,
    /// Nobody looked at the server name before TLS ended (Envoy's `tls_inspector` does): logs tell of
    /// it, and policies know of none, as in Envoy.
    pub late_server_name: bool,
    /// The protocol agreed on inside; empty if none was.
    pub alpn: Name,
    /// The version. None where TLS is not ended here.
    pub version: Option<TlsVersion>,
    /// The cipher suite by OpenSSL's name, e.g. `TLS_AES_256_GCM_SHA384`.
    pub cipher: Name,
    /// The group that keys were exchanged in, by BoringSSL's name, e.g. `X25519`; empty if none was,
    /// as where a session of TLS 1.2 is resumed.
    pub group: Name,
    /// A session was resumed.
    pub resumed: bool,
    /// The peer's certificate, if it showed one.
    pub peer: Option<PeerCertificate>,
    /// The subject alternative names of our own certificate: URIs, then DNS names.
    pub local_names: Vec<Name>,
}

/// A certificate that the peer showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerCertificate {
    /// It was checked against roots of trust, and everything that was asked of it holds.
    pub validated: bool,
    /// Subject alternative names that are URIs. A SPIFFE identity is the only one.
    pub uris: Vec<Name>,
    /// Subject alternative names that are DNS names.
    pub dns_names: Vec<Name>,
    /// The subject, as RFC 2253 writes it.
    pub subject: Name,
    /// The issuer, as RFC 2253 writes it.
    pub issuer: Name,
    /// The serial number in lower-case hexadecimal.
    pub serial: Name,
    /// SHA-256 of the DER form, in lower-case hexadecimal.
    pub fingerprint: Name,
    /// The DER form.
    pub der: Arc<[u8]>,
    /// What the peer showed behind it, towards a root; DER.
    pub issuers: Arc<[Arc<[u8]>]>,
}

// === impl Caller ===

impl Caller {
    /// Whether anything is known of a connection, as it is where a proxy accepted one.
    pub fn is_connected(&self) -> bool {
        self.peer.is_some() || self.unix.is_some()
    }

    /// The peer's address without its port, as headers have it: one of IPv4 that came mapped into
    /// IPv6 is one of IPv4. Written once for a connection.
    pub fn peer_value(&self) -> Option<HeaderValue> {
        let ip = self.peer?.ip().to_canonical();
        let (of, value) = &**self.written.get_or_init(|| Box::new((ip, address(ip))));
        // Whoever changed the address of a copy gets what is true of the copy.
        Some(if *of == ip {
            value.clone()
        } else {
            address(ip)
        })
    }

    /// The name of the listener's route table.
    pub fn routes(&self) -> Option<&Name> {
        self.manager.as_ref().map(|manager| &manager.routes)
    }

    /// Whether the connection is secured, and ends here.
    pub fn is_secure(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.version.is_some())
    }

    /// Why a request of its ended early: the caller reset its stream, as far as that is known, or is
    /// gone. To be asked once for each request.
    pub fn departure(&self) -> Failure {
        let reset = self.resets.as_ref().and_then(|resets| resets.take());
        reset.unwrap_or(Failure::ClientGone)
    }

    /// Counts in the listener's statistics, if there is a listener.
    pub fn count(&self, stat: HttpStat) {
        if let Some(stats) = &self.stats {
            stats.inc(self.shard, stat);
        }
    }
}

fn address(ip: IpAddr) -> HeaderValue {
    // Digits, dots and colons are fit for a header.
    HeaderValue::try_from(ip.to_string()).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_peer_is_written_once_and_never_of_another() {
        let mut caller = Caller::default();
        assert_eq!(caller.peer_value(), None);
        caller.peer = Some("[::ffff:10.0.0.1]:5".parse().unwrap());
        assert_eq!(caller.peer_value().unwrap(), "10.0.0.1");
        let mut copy = caller.clone();
        copy.peer = Some("[2001:db8::1]:5".parse().unwrap());
        assert_eq!(copy.peer_value().unwrap(), "2001:db8::1");
        assert_eq!(caller.peer_value().unwrap(), "10.0.0.1");
    }
}
