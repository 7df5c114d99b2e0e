//! What makes connections to one endpoint differ from each other.
//!
//! A connection that asked for one name in TLS must not carry requests for another, and one that
//! said in the PROXY protocol who calls, or comes from the caller's own address, belongs to that
//! caller. Envoy makes all of it part of the key of a pool (`TransportSocketOptions`, options of the
//! socket), so it is here: each variant has a pool of its own.

use crate::tcp::Tunnelled;
use http::{HeaderMap, Request, Uri, header, uri::Authority};
use mesh_core::model::{ClientTls, Cluster, Priority};
use mesh_core::{Caller, Name};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What is special about a connection besides its endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Variant {
    /// The name to ask for in TLS, where configuration leaves it to the request. In lower case.
    pub(crate) name: Option<Name>,
    /// Who calls and where to, where endpoints are told.
    pub(crate) caller: Option<(SocketAddr, SocketAddr)>,
    /// The address to connect from in the caller's stead, and the mark of packets.
    pub(crate) source: Option<(IpAddr, u32)>,
    /// Whose limits it counts for: as in Envoy, a pool is of one priority.
    pub(crate) priority: Priority,
}

// === impl Variant ===

impl Variant {
    /// The variant that a request needs where this is how its endpoint is secured.
    pub(crate) fn of_request<B>(
        cluster: &Cluster,
        tls: Option<&Arc<ClientTls>>,
        caller: Option<&Caller>,
        request: &Request<B>,
    ) -> Self {
        let source = caller.and_then(|caller| caller.source);
        if is_always_the_same(cluster, tls) && source.is_none() {
            return Self::default();
        }
        // Of a tunnel, the host is at its other end.
        let asks = asks_by_request(tls) && request.extensions().get::<Tunnelled>().is_none();
        let name = asks.then(|| host_of(request.headers(), request.uri()));
        Self {
            name: name.flatten(),
            caller: caller.and_then(|caller| told(cluster, caller)),
            source,
            priority: Priority::Default,
        }
    }

    /// The variant that a connection of this caller needs.
    pub(crate) fn of_caller(cluster: &Cluster, caller: &Caller) -> Self {
        Self {
            name: None,
            caller: told(cluster, caller),
            source: caller.source,
            priority: Priority::Default,
        }
    }

    /// The same for requests of a priority.
    pub(crate) fn of_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn is_always_the_same(cluster: &Cluster, tls: Option<&Arc<ClientTls>>) -> bool {
    cluster.proxy_protocol.is_none() && !asks_by_request(tls)
}

fn asks_by_request(tls: Option<&Arc<ClientTls>>) -> bool {
    tls.is_some_and(|tls| tls.sni.is_empty() && tls.auto_sni)
}

/// An intercepted connection went to its original destination: Envoy puts that in the place of
/// the local address.
fn told(cluster: &Cluster, caller: &Caller) -> Option<(SocketAddr, SocketAddr)> {
    cluster.proxy_protocol?;
    Some((caller.peer?, caller.original.or(caller.local)?))
}

/// The request's host without its port: what a rewrite made of it, so the header goes first.
fn host_of(headers: &HeaderMap, uri: &Uri) -> Option<Name> {
    let from_header: Option<Authority> = headers
        .get(header::HOST)
        .and_then(|host| host.as_bytes().try_into().ok());
    let authority = from_header.as_ref().or_else(|| uri.authority())?;
    let host = authority.host().trim_matches(['[', ']']);
    (!host.is_empty()).then(|| Name::from(host.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use mesh_core::model::ProxyProtocol;

    fn cluster(sni: &str, auto_sni: bool, proxy: bool) -> Cluster {
        let mut cluster = Cluster::new("c");
        let mut tls = ClientTls::default();
        tls.sni = sni.into();
        tls.auto_sni = auto_sni;
        cluster.tls = Some(Arc::new(tls));
        cluster.proxy_protocol = proxy.then_some(ProxyProtocol::V2);
        cluster
    }

    fn name(cluster: &Cluster, host: Option<&str>, uri: &str) -> Option<String> {
        let mut request = Request::get(uri);
        if let Some(host) = host {
            request = request.header(header::HOST, HeaderValue::from_str(host).unwrap());
        }
        let variant = Variant::of_request(
            cluster,
            cluster.tls.as_ref(),
            None,
            &request.body(()).unwrap(),
        );
        variant.name.map(|name| name.to_string())
    }

    #[test]
    fn the_name_is_the_requests_host_only_where_configuration_leaves_it_open() {
        let auto = cluster("", true, false);
        for (host, uri, expected) in [
            (Some("A.example:8443"), "/", Some("a.example")),
            (None, "https://b.example/", Some("b.example")),
            (Some("a.example"), "https://b.example/", Some("a.example")),
            (Some("[::1]:443"), "/", Some("::1")),
            (Some("10.0.0.1"), "/", Some("10.0.0.1")),
            (Some("a b"), "/", None),
            (None, "/", None),
        ] {
            assert_eq!(
                name(&auto, host, uri).as_deref(),
                expected,
                "{host:?} {uri}"
            );
        }
        assert_eq!(
            name(&cluster("fixed", true, false), Some("a.example"), "/"),
            None
        );
        assert_eq!(
            name(&cluster("", false, false), Some("a.example"), "/"),
            None
        );
    }

    #[test]
    fn who_calls_matters_only_where_endpoints_are_told() {
        let mut caller = Caller::default();
        caller.peer = Some("10.0.0.9:5000".parse().unwrap());
        caller.local = Some("10.0.0.1:15001".parse().unwrap());
        assert!(Variant::of_caller(&cluster("", true, false), &caller).is_default());
        let told = cluster("", true, true);
        let variant = Variant::of_caller(&told, &caller);
        assert_eq!(variant.caller, caller.peer.zip(caller.local));
        caller.source = Some(("10.0.0.9".parse().unwrap(), 1337));
        let from = Variant::of_caller(&cluster("", false, false), &caller);
        assert_eq!((from.source, from.is_default()), (caller.source, false));
        let request = Request::get("/").body(()).unwrap();
        let plain = cluster("", false, false);
        assert_eq!(
            Variant::of_request(&plain, None, Some(&caller), &request),
            from
        );
        caller.source = None;
        assert!(Variant::of_request(&plain, None, Some(&caller), &request).is_default());
        caller.original = Some("10.1.1.1:80".parse().unwrap());
        let variant = Variant::of_caller(&told, &caller);
        assert_eq!(variant.caller, caller.peer.zip(caller.original));
        assert!(Variant::of_caller(&told, &Caller::default()).is_default());
    }
}
