//! Listeners: the addresses that a proxy accepts on, and what it does with what comes in.

use super::policy::RateLimit;
use super::{
    Authn, Authz, Cidr, ListenerAddress, PortRange, ServerTls, Session, SetFilterState, TcpProxy,
};
use crate::{Name, Origin, Slot};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// An address to accept connections on (Envoy `Listener`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listener {
    /// The listener's name, unique in a snapshot.
    pub name: Name,
    /// Where it was configured.
    pub origin: Origin,
    /// The address to bind, or to stand for.
    pub address: ListenerAddress,
    /// The file mode of a Unix domain socket, e.g. `0o660`; 0 leaves it to the process (Envoy
    /// `Pipe.mode`). Nothing for other addresses and for abstract names.
    pub mode: u32,
    /// Bind the address. Otherwise the listener gets only what others hand over (Envoy
    /// `bind_to_port`). Default true.
    pub bind: bool,
    /// Hand connections to the listener of the address that they were going to, if there is one
    /// (Envoy `use_original_dst`).
    pub hand_off: bool,
    /// The socket takes connections for addresses that are not ours (TPROXY).
    pub transparent: bool,
    /// What is found out about a connection before a chain is chosen.
    pub inspect: Inspect,
    /// What to do with connections: the chain that matches most closely is used.
    pub chains: Vec<Arc<FilterChain>>,
    /// Used where no chain matches. Without it such connections are closed.
    pub default_chain: Option<Arc<FilterChain>>,
    /// Access logs of connections that no chain was found for, in order.
    pub access_log: Vec<AccessLog>,
}

/// What is found out about a connection before anything else (Envoy's listener filters, in this
/// order).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Inspect {
    /// Read the PROXY protocol's header, version 1 or 2 (`proxy_protocol`).
    pub proxy_protocol: Option<AcceptProxyProtocol>,
    /// Ask the kernel where an intercepted connection was going to (`original_dst`).
    pub original_destination: bool,
    /// Connect to endpoints from the address of the caller, as far as that is known, instead of one
    /// of ours (`original_src`). Default none.
    pub original_source: Option<OriginalSource>,
    /// Look for TLS, its server name and protocols (`tls_inspector`).
    pub tls: Option<Inspector>,
    /// Look for HTTP/1 and HTTP/2 in plain text (`http_inspector`).
    pub http: Option<Inspector>,
    /// How long all that may take. None is without end; Envoy's default is 15 s.
    pub timeout: Option<Duration>,
    /// After the timeout, go on with what is known rather than close.
    pub continue_on_timeout: bool,
}

/// How connections are made from addresses of callers (Envoy's listener filter `original_src`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OriginalSource {
    /// The mark of their packets (`SO_MARK`), by which rules of routing bring the answers back; 0 is
    /// none. Istio's is 1337.
    pub mark: u32,
}

/// A look at the first bytes of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Inspector {
    /// Not of connections to these ports.
    pub except: Vec<PortRange>,
}

/// How the PROXY protocol's header is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AcceptProxyProtocol {
    /// Take connections without a header too.
    pub optional: bool,
}

/// What is done with some connections of a listener (Envoy `FilterChain`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilterChain {
    /// Its name, as in access logs.
    pub name: Name,
    /// Where it was configured.
    pub origin: Origin,
    /// Which connections.
    pub matches: ChainMatch,
    /// How they are secured. None is not at all.
    pub tls: Option<Arc<ServerTls>>,
    /// Rules that judge connections, in order (Envoy's network filter `rbac`).
    pub authz: Vec<Arc<Authz>>,
    /// How long a handshake may take (`transport_socket_connect_timeout`). None leaves it to the
    /// proxy; in Envoy it is without end.
    pub handshake_timeout: Option<Duration>,
    /// How many connections there may be at once (Envoy's network filter `connection_limit`).
    pub connection_limit: Option<ConnectionLimit>,
    /// What is done with what comes in.
    pub filter: Filter,
}

/// A limit on the connections of a chain (Envoy's network filter `connection_limit`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ConnectionLimit {
    /// Prefix of its statistics: `connection_limit.<prefix>.*`.
    pub stat_prefix: Name,
    /// Connections at once, of all workers together; one more is closed. At least 1.
    pub max_connections: u64,
    /// How long a connection that is too many is left open, so that its caller does not come back
    /// at once. Default: closed at once.
    pub delay: Duration,
    /// Whether it is enforced (`runtime_enabled`). Default true.
    pub enabled: bool,
}

/// Which connections a chain is for (Envoy `FilterChainMatch`). What is empty matches all. Of the
/// chains that match, the closest wins, judged in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ChainMatch {
    /// The port that the connection was going to.
    pub destination_port: Option<u16>,
    /// Blocks that the address which it was going to lies in; the longest prefix is the closest.
    pub destinations: Vec<Cidr>,
    /// TLS server names: exact, or `*.` and a suffix. The longest is the closest.
    pub server_names: Vec<Name>,
    /// Whether it speaks TLS.
    pub transport: Option<TransportProtocol>,
    /// Protocols: of those that TLS offers, or `http/1.0`, `http/1.1` and `h2c` found in plain
    /// text, one is among these.
    pub protocols: Vec<Name>,
    /// Blocks of the address that it really comes from.
    pub direct_sources: Vec<Cidr>,
    /// Whether it comes from this machine.
    pub source_kind: SourceKind,
    /// Blocks of the address that it comes from, as far as the PROXY protocol says.
    pub sources: Vec<Cidr>,
    /// Ports that it comes from.
    pub source_ports: Vec<u16>,
}

/// What a connection's first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TransportProtocol {
    /// Not TLS (`raw_buffer`).
    Plain,
    /// TLS (`tls`).
    Tls,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SourceKind {
    /// Anywhere.
    #[default]
    Any,
    /// This machine: the address that it was going to, or loopback.
    SameIpOrLoopback,
    /// Another machine.
    External,
}

/// What is done with the connections of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Filter {
    /// HTTP/1.1 and HTTP/2. In plain text they are told apart by the first bytes, in TLS by the
    /// protocol agreed on.
    Http(Arc<HttpManager>),
    /// Bytes passed on as they are.
    Tcp(Arc<TcpProxy>),
}

/// Which side of the mesh a listener serves; decides the `reporter` of metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the workload to others.
    #[default]
    Outbound,
    /// From others to the workload.
    Inbound,
    /// From outside into the mesh.
    Gateway,
}

/// How HTTP connections are served (Envoy `HttpConnectionManager`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpManager {
    /// Prefix of its statistics, e.g. `outbound_0.0.0.0_9080`.
    pub stat_prefix: Name,
    /// Which side of the mesh this is.
    pub direction: Direction,
    /// The name of its route table.
    pub routes: Name,
    /// The `server` response header; empty leaves the upstream's.
    pub server_name: Name,
    /// Leave a `server` that the upstream sent (Envoy `APPEND_IF_ABSENT`). Default false.
    pub server_if_absent: bool,
    /// Appended to `via` of requests and responses; empty is not.
    pub via: Name,
    /// Access logs, in order.
    pub access_log: Vec<AccessLog>,
    /// What is done to paths before anything looks at them.
    pub path: PathNormalization,
    /// Trust the connection's peer address rather than `x-forwarded-for` (edge proxies).
    pub use_remote_address: bool,
    /// How many proxies in front of this one are trusted to have written `x-forwarded-for`.
    pub trusted_hops: u32,
    /// Leave `x-forwarded-for` as it is, though `use_remote_address` (Envoy `skip_xff_append`).
    /// Default false.
    pub keep_forwarded_for: bool,
    /// Whether the port of the authority is taken off before anything looks at it. Default not.
    pub strip_port: StripPort,
    /// Make an `x-request-id` where there is none.
    pub request_id: bool,
    /// Keep the `x-request-id` of external callers (edge proxies replace it otherwise).
    pub keep_external_request_id: bool,
    /// Put the `x-request-id` on responses (Envoy `always_set_request_id_in_response`). Default
    /// false.
    pub request_id_in_response: bool,
    /// Largest request head, in KiB. Default 60.
    pub max_head_kib: u32,
    /// Most request headers. Default 100.
    pub max_headers: u32,
    /// Connection closed after this long without a request. Default 1 h.
    pub idle_timeout: Option<Duration>,
    /// Stream reset after this long without progress. Envoy 5 min, Istio off.
    pub stream_idle_timeout: Option<Duration>,
    /// Limit for a whole request to arrive.
    pub request_timeout: Option<Duration>,
    /// Limit for a request head to arrive, from its first byte.
    pub request_head_timeout: Option<Duration>,
    /// HTTP/2 streams at once on one connection.
    pub max_concurrent_streams: u32,
    /// Upgrades passed through, e.g. `websocket`. Lower case.
    pub upgrades: Vec<Name>,
    /// What upstreams are told of the caller's certificate in `x-forwarded-client-cert`.
    pub client_certificate: ClientCertificate,
    /// What is kept of each request before anything judges it. Default nothing.
    pub filter_state: Option<Arc<SetFilterState>>,
    /// Which tokens requests have to bring, before anything judges them (Envoy's HTTP filter
    /// `jwt_authn`). Default none.
    pub authn: Option<Arc<Authn>>,
    /// How many of the sets of rules in `authz` judge before tokens are asked for; the others may go
    /// by what tokens say (in Istio, CUSTOM comes first). Default 0.
    pub authn_at: usize,
    /// Rules that judge requests, in order, once their route is known (Envoy's HTTP filter `rbac`).
    pub authz: Vec<Arc<Authz>>,
    /// For what judges by them, with what it counts.
    pub authz_slot: Slot,
    /// Rate limit for everything on this listener.
    pub rate_limit: Option<Arc<RateLimit>>,
    /// How requests are kept at an endpoint (Envoy's HTTP filter `stateful_session`). Default none, and
    /// then rules have no say.
    pub session: Option<Arc<Session>>,
    /// Ask for what is missing (Envoy's filter `envoy.filters.http.on_demand`): virtual hosts of a
    /// table that has them [on demand](super::RouteTable::on_demand), and clusters as this says
    /// unless a virtual host or rule says otherwise. Default none: nothing is asked for.
    pub on_demand: Option<super::ClustersOnDemand>,
    /// Filters of Envoy that it does not have though routes may configure them, by Envoy's names
    /// for them, e.g. `envoy.filters.http.fault`. What routes say for those has no effect; who
    /// makes a snapshot gives the manager a table without it. Default none.
    pub missing_filters: Vec<Name>,
}

/// What upstreams are told of the caller's certificate (Envoy `forward_client_cert_details`,
/// `set_current_client_cert_details`): an element of `x-forwarded-client-cert`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ClientCertificate {
    /// What is done with the header.
    pub mode: ForwardedCertificate,
    /// Tell the subject.
    pub subject: bool,
    /// Tell the whole certificate, URL-encoded PEM.
    pub cert: bool,
    /// Tell the whole chain, URL-encoded PEM.
    pub chain: bool,
    /// Tell the DNS names.
    pub dns: bool,
    /// Tell the URIs.
    pub uri: bool,
}

/// What is done with `x-forwarded-client-cert`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ForwardedCertificate {
    /// It is taken off.
    #[default]
    Sanitize,
    /// It is passed on where the connection is mutual TLS, and taken off elsewhere.
    ForwardOnly,
    /// As above, with an element of ours at its end.
    AppendForward,
    /// It is replaced by an element of ours where the connection is mutual TLS, and taken off
    /// elsewhere.
    SanitizeSet,
    /// It is passed on as it is.
    AlwaysForwardOnly,
}

/// One access log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AccessLog {
    /// File to append to; `/dev/stdout` and `-` are standard output.
    pub path: Name,
    /// Format string with `%OPERATOR%`s; empty is Istio's default format.
    pub format: Name,
}

/// What is done to a request's path before it is matched and forwarded (Istio
/// `pathNormalization`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PathNormalization {
    /// RFC 3986 §6: dot segments resolved, `\` becomes `/`, unreserved escapes decoded.
    pub normalize: bool,
    /// `//` becomes `/`.
    pub merge_slashes: bool,
    /// What is done with `%2F` and `%5C`.
    pub escaped_slashes: EscapedSlashes,
}

/// What is done with `%2F` and `%5C` in paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EscapedSlashes {
    /// Left alone.
    #[default]
    Keep,
    /// Answered 400.
    Reject,
    /// Answered with a redirect to the decoded path.
    Redirect,
    /// Decoded.
    Decode,
}

/// Which ports are taken off the authority of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StripPort {
    /// None.
    #[default]
    Keep,
    /// The one that the request came in on (Envoy `strip_matching_host_port`).
    Matching,
    /// Any (Envoy `strip_any_host_port`).
    Any,
}

// === impl HttpManager ===

impl HttpManager {
    /// Istio's settings for a route table, without an access log.
    pub fn new(stat_prefix: impl Into<Name>, routes: impl Into<Name>) -> Self {
        Self {
            stat_prefix: stat_prefix.into(),
            direction: Direction::Outbound,
            routes: routes.into(),
            server_name: Name::default(),
            server_if_absent: false,
            via: Name::default(),
            access_log: Vec::new(),
            path: PathNormalization {
                normalize: true,
                ..PathNormalization::default()
            },
            use_remote_address: false,
            trusted_hops: 0,
            keep_forwarded_for: false,
            strip_port: StripPort::Keep,
            request_id: true,
            keep_external_request_id: false,
            request_id_in_response: false,
            max_head_kib: 60,
            max_headers: 100,
            idle_timeout: Some(Duration::from_secs(3600)),
            stream_idle_timeout: None,
            request_timeout: None,
            request_head_timeout: None,
            max_concurrent_streams: 1024,
            upgrades: vec!["websocket".into()],
            client_certificate: ClientCertificate::default(),
            filter_state: None,
            authn: None,
            authn_at: 0,
            authz: Vec::new(),
            authz_slot: Slot::default(),
            rate_limit: None,
            on_demand: None,
            session: None,
            missing_filters: Vec::new(),
        }
    }
}

// === impl Listener ===

impl Listener {
    /// A listener for HTTP in plain text.
    pub fn http(name: impl Into<Name>, address: SocketAddr, manager: HttpManager) -> Self {
        Self::new(name, address).chain(FilterChain::http(manager))
    }

    /// A listener that passes all connections on as they are.
    pub fn tcp(name: impl Into<Name>, address: SocketAddr, proxy: TcpProxy) -> Self {
        Self::new(name, address).chain(FilterChain::tcp(proxy))
    }

    /// A listener without a chain, which closes every connection.
    pub fn new(name: impl Into<Name>, address: SocketAddr) -> Self {
        Self::at(name, ListenerAddress::Socket(address))
    }

    /// A listener without a chain at any kind of address.
    pub fn at(name: impl Into<Name>, address: impl Into<ListenerAddress>) -> Self {
        Self {
            name: name.into(),
            origin: Origin::NONE,
            address: address.into(),
            mode: 0,
            bind: true,
            hand_off: false,
            transparent: false,
            inspect: Inspect::default(),
            chains: Vec::new(),
            default_chain: None,
            access_log: Vec::new(),
        }
    }

    /// Adds a chain.
    #[must_use]
    pub fn chain(mut self, chain: impl Into<Arc<FilterChain>>) -> Self {
        self.chains.push(chain.into());
        self
    }

    /// All its chains, the default one last.
    pub fn all_chains(&self) -> impl Iterator<Item = &Arc<FilterChain>> {
        self.chains.iter().chain(&self.default_chain)
    }

    /// The HTTP managers of its chains, in order. The same one may come several times.
    pub fn managers(&self) -> impl Iterator<Item = &Arc<HttpManager>> {
        self.all_chains().filter_map(|chain| chain.manager())
    }

    /// Changes every chain.
    pub fn for_each_chain(&mut self, mut change: impl FnMut(&mut FilterChain)) {
        for chain in self.chains.iter_mut().chain(&mut self.default_chain) {
            change(Arc::make_mut(chain));
        }
    }
}

// === impl ConnectionLimit ===

impl ConnectionLimit {
    /// So many connections at once; what is more is closed at once.
    pub fn new(stat_prefix: impl Into<Name>, max_connections: u64) -> Self {
        Self {
            stat_prefix: stat_prefix.into(),
            max_connections,
            delay: Duration::ZERO,
            enabled: true,
        }
    }
}

// === impl FilterChain ===

impl FilterChain {
    /// A chain for every connection.
    pub fn new(filter: Filter) -> Self {
        Self {
            name: Name::default(),
            origin: Origin::NONE,
            matches: ChainMatch::default(),
            tls: None,
            authz: Vec::new(),
            handshake_timeout: None,
            connection_limit: None,
            filter,
        }
    }

    /// A chain for HTTP.
    pub fn http(manager: impl Into<Arc<HttpManager>>) -> Self {
        Self::new(Filter::Http(manager.into()))
    }

    /// A chain that passes bytes on.
    pub fn tcp(proxy: impl Into<Arc<TcpProxy>>) -> Self {
        Self::new(Filter::Tcp(proxy.into()))
    }

    /// The HTTP manager, if it is for HTTP.
    pub fn manager(&self) -> Option<&Arc<HttpManager>> {
        match &self.filter {
            Filter::Http(manager) => Some(manager),
            Filter::Tcp(_) => None,
        }
    }

    /// What is done with bytes, if it is not for HTTP.
    pub fn proxy(&self) -> Option<&Arc<TcpProxy>> {
        match &self.filter {
            Filter::Http(_) => None,
            Filter::Tcp(proxy) => Some(proxy),
        }
    }
}

// === impl Inspect ===

impl Default for Inspect {
    /// Nothing is found out, within 15 s.
    fn default() -> Self {
        Self {
            proxy_protocol: None,
            original_destination: false,
            original_source: None,
            tls: None,
            http: None,
            timeout: Some(Duration::from_secs(15)),
            continue_on_timeout: false,
        }
    }
}

// === impl Inspector ===

impl Inspector {
    /// Whether connections to a port are looked at.
    pub fn looks_at(&self, port: u16) -> bool {
        !self.except.iter().any(|range| range.contains(port))
    }
}
