//! Listeners: the addresses that a proxy accepts on, and what it does with what comes in.

use super::policy::RateLimit;
use crate::{Name, Origin};
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
    /// The address to bind.
    pub address: SocketAddr,
    /// What to do with connections. Only HTTP is known so far; TLS and TCP add kinds.
    pub filter: Filter,
}

/// What is done with the connections of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Filter {
    /// HTTP/1.1 and HTTP/2 with prior knowledge, told apart by the first bytes.
    Http(Arc<HttpManager>),
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
    /// Access logs, in order.
    pub access_log: Vec<AccessLog>,
    /// What is done to paths before anything looks at them.
    pub path: PathNormalization,
    /// Trust the connection's peer address rather than `x-forwarded-for` (edge proxies).
    pub use_remote_address: bool,
    /// How many proxies in front of this one are trusted to have written `x-forwarded-for`.
    pub trusted_hops: u32,
    /// Make an `x-request-id` where there is none.
    pub request_id: bool,
    /// Keep the `x-request-id` of external callers (edge proxies replace it otherwise).
    pub keep_external_request_id: bool,
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
    /// Rate limit for everything on this listener.
    pub rate_limit: Option<Arc<RateLimit>>,
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

// === impl HttpManager ===

impl HttpManager {
    /// Istio's settings for a route table, without an access log.
    pub fn new(stat_prefix: impl Into<Name>, routes: impl Into<Name>) -> Self {
        Self {
            stat_prefix: stat_prefix.into(),
            direction: Direction::Outbound,
            routes: routes.into(),
            server_name: Name::default(),
            access_log: Vec::new(),
            path: PathNormalization {
                normalize: true,
                ..PathNormalization::default()
            },
            use_remote_address: false,
            trusted_hops: 0,
            request_id: true,
            keep_external_request_id: false,
            max_head_kib: 60,
            max_headers: 100,
            idle_timeout: Some(Duration::from_secs(3600)),
            stream_idle_timeout: None,
            request_timeout: None,
            request_head_timeout: None,
            max_concurrent_streams: 1024,
            upgrades: vec!["websocket".into()],
            rate_limit: None,
        }
    }
}

// === impl Listener ===

impl Listener {
    /// A listener for HTTP.
    pub fn http(name: impl Into<Name>, address: SocketAddr, manager: HttpManager) -> Self {
        Self {
            name: name.into(),
            origin: Origin::NONE,
            address,
            filter: Filter::Http(Arc::new(manager)),
        }
    }
}
