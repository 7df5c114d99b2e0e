//! Clusters: groups of endpoints that answer for the same thing, and how to talk to them.

use super::policy::{Limits, Outlier, Priority};
use super::{
    Balancing, ClientTls, Endpoint, HealthCheck, LocalityBalancing, ReportedWeights, SessionHealth,
    SlowStart, SubsetBalancing, ZoneAware,
};
use crate::{Name, Origin};
use http::HeaderName;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A group of endpoints and the policy for talking to them (Envoy `Cluster`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cluster {
    /// The cluster's name, unique in a snapshot.
    pub name: Name,
    /// Where it was configured (the Service, or the DestinationRule that made the subset).
    pub origin: Origin,
    /// Where its policy was configured, if a DestinationRule had any.
    pub policy_origin: Origin,
    /// How its endpoints become known.
    pub discovery: DiscoveryKind,
    /// How an endpoint is chosen.
    pub balancing: Balancing,
    /// New endpoints get their share little by little. For round robin and least request.
    pub slow_start: Option<SlowStart>,
    /// Endpoints are weighed by the load that they report. For round robin; other policies do not
    /// look at it.
    pub reported_weights: Option<Arc<ReportedWeights>>,
    /// A request goes to the first endpoint that one of these headers names as `address:port`,
    /// whatever its health and priority, and each further attempt to the next; where there is none
    /// left, as if nothing was named. Several are separated by commas (Envoy `OverrideHost`).
    pub host_headers: Vec<HeaderName>,
    /// Which endpoints a session may be kept at ([`Session`](super::Session), Envoy
    /// `override_host_status`). Default: those that are healthy and degraded.
    pub session_health: SessionHealth,
    /// Whether localities of one priority are told apart.
    pub localities: LocalityBalancing,
    /// Parts of the cluster that requests may ask for.
    pub subsets: Option<Arc<SubsetBalancing>>,
    /// Limit for establishing a connection. Envoy 5 s, Istio 10 s.
    pub connect_timeout: Duration,
    /// Limits of the DEFAULT priority.
    pub limits: Limits,
    /// Limits of the HIGH priority, which count apart. Default: [`Limits::envoy`].
    pub high: Limits,
    /// Ejection of failing endpoints.
    pub outlier: Option<Outlier>,
    /// How endpoints are asked whether they are well; all of these have to be content.
    pub health_checks: Arc<[HealthCheck]>,
    /// Endpoints that discovery no longer names stay until a health check of them fails (Envoy:
    /// unless `ignore_health_on_host_removal`). Matters where there are health checks.
    pub keep_removed: bool,
    /// Connections for bytes are closed when their endpoint is ejected or fails its health checks
    /// (Envoy `close_connections_on_host_health_failure`). Those of HTTP take no further request
    /// then, whatever this says.
    pub close_unhealthy: bool,
    /// Below this share of healthy endpoints, in percent, all are used (panic). 0 is never.
    pub panic_threshold: u32,
    /// How names of endpoints are resolved, where discovery is by DNS.
    pub dns: Dns,
    /// The protocol spoken to endpoints.
    pub protocol: UpstreamProtocol,
    /// How connections are secured. None is not at all.
    pub tls: Option<Arc<ClientTls>>,
    /// How connections to some endpoints are secured instead; the first that matches.
    pub tls_matches: Vec<TlsMatch>,
    /// Tell endpoints who calls with the PROXY protocol's header, before anything else.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The address that connections are made from (Envoy `upstream_bind_config`).
    pub bind_source: Option<IpAddr>,
    /// Requests after which a connection is closed; 0 is no limit.
    pub max_requests_per_connection: u32,
    /// How long an unused connection is kept. None is for ever.
    pub idle_timeout: Option<Duration>,
    /// How long any connection lives.
    pub max_connection_duration: Option<Duration>,
    /// Streams at once on one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// HTTP/2 PING after this long, and how long to wait for the answer.
    pub http2_keepalive: Option<(Duration, Duration)>,
    /// TCP keep-alive of connections.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// The service that the cluster stands for; empty parts are unknown.
    pub service: ServiceRef,
    /// Name used in statistics instead of `name`.
    pub stat_name: Option<Name>,
    /// More facts about the cluster, for dumps.
    pub metadata: BTreeMap<Name, Name>,
}

/// How connections to some endpoints of a cluster are secured (Envoy `TransportSocketMatch`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsMatch {
    /// Its name, as in statistics, e.g. `tlsMode-istio`.
    pub name: Name,
    /// What an endpoint has to say in [`Endpoint::transport`](super::Endpoint::transport), all of
    /// it: the values as JSON. Nothing is every endpoint.
    pub labels: BTreeMap<Name, Name>,
    /// How connections to it are secured. None is not at all.
    pub tls: Option<Arc<ClientTls>>,
}

/// How the endpoints of a cluster become known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DiscoveryKind {
    /// Given with the cluster, or by an endpoint discovery service.
    #[default]
    Endpoints,
    /// Host names resolved again and again; each address is an endpoint.
    StrictDns,
    /// One host name resolved for each new connection.
    LogicalDns,
    /// The endpoint is whatever the request's authority names (Istio's PassthroughCluster where
    /// connections are not intercepted; Envoy's dynamic forward proxy). For bytes it is the TLS
    /// server name.
    Authority,
    /// The endpoint is where the intercepted connection was going to (Envoy `ORIGINAL_DST`).
    OriginalDestination,
}

/// How names of endpoints are resolved (Envoy's `dns_*` fields of `Cluster`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Dns {
    /// Time between two looks. Envoy 5 s, Istio 60 s.
    pub refresh: Duration,
    /// At most this much later, at random.
    pub jitter: Duration,
    /// The answer's own time to live instead of `refresh`.
    pub respect_ttl: bool,
    /// First and longest wait after a failure, doubled from one to the next. None is `refresh`.
    pub failure_refresh: Option<(Duration, Duration)>,
    /// Which addresses are looked for.
    pub family: DnsFamily,
}

/// Which addresses are looked for (Envoy `DnsLookupFamily`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DnsFamily {
    /// IPv6, and IPv4 only where there is none (Envoy `AUTO`).
    #[default]
    Auto,
    /// IPv4.
    V4Only,
    /// IPv6.
    V6Only,
    /// IPv4, and IPv6 only where there is none.
    V4Preferred,
    /// Both.
    All,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    /// Text.
    #[default]
    V1,
    /// Binary.
    V2,
}

/// The protocol spoken to endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// What the caller spoke.
    AsDownstream,
    /// HTTP/2 where TLS agrees on it, else HTTP/1.1 (Envoy `auto_config`).
    Alpn,
}

/// TCP keep-alive; parts not set are the operating system's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpKeepalive {
    /// Unanswered probes after which a connection is dead.
    pub probes: Option<u32>,
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}

/// The service that a cluster stands for, as it appears in metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceRef {
    /// Full host name.
    pub host: Name,
    /// Short name.
    pub name: Name,
    /// Namespace.
    pub namespace: Name,
    /// Subset, or empty.
    pub subset: Name,
    /// The service's port.
    pub port: u16,
}

// === impl TlsMatch ===

impl TlsMatch {
    /// Whether an endpoint says all that is asked for.
    pub fn is_for(&self, endpoint: &Endpoint) -> bool {
        let said = &endpoint.transport;
        self.labels
            .iter()
            .all(|(key, value)| said.get(key) == Some(value))
    }
}

// === impl Cluster ===

impl Cluster {
    /// The limits of a priority.
    #[inline]
    pub fn limits_of(&self, priority: Priority) -> &Limits {
        match priority {
            Priority::Default => &self.limits,
            Priority::High => &self.high,
        }
    }

    /// Every way in which connections to its endpoints are secured.
    pub fn all_tls(&self) -> impl Iterator<Item = &Arc<ClientTls>> {
        let matched = self.tls_matches.iter();
        self.tls
            .iter()
            .chain(matched.filter_map(|one| one.tls.as_ref()))
    }

    /// How connections to an endpoint are secured: as the first of
    /// [`tls_matches`](Self::tls_matches) says whose labels it has, or else as
    /// [`tls`](Self::tls) does.
    pub fn tls_to(&self, endpoint: &Endpoint) -> Option<&Arc<ClientTls>> {
        let mut matched = self.tls_matches.iter();
        match matched.find(|one| one.is_for(endpoint)) {
            Some(one) => one.tls.as_ref(),
            None => self.tls.as_ref(),
        }
    }

    /// How endpoints are weighed by what they report, where they are.
    pub fn weighed_by_reports(&self) -> Option<&Arc<ReportedWeights>> {
        let policy = self.reported_weights.as_ref();
        policy.filter(|_| self.balancing == Balancing::RoundRobin)
    }

    /// How the caller's own zone is preferred, where the node knows its zone and others like it and
    /// nothing else is said of localities: Envoy does it unless it is switched off. None where
    /// hashes decide.
    pub fn zones(&self) -> Option<ZoneAware> {
        match (self.balancing, self.localities) {
            (Balancing::RingHash(_) | Balancing::Maglev(_), _) => None,
            (_, LocalityBalancing::ZoneAware(zones)) => Some(zones),
            _ => Some(ZoneAware::default()),
        }
    }

    /// A cluster with Envoy's defaults for everything but its name: random endpoints, 5 s to
    /// connect, limits of 1024, no outlier detection, panic at 50 %.
    pub fn new(name: impl Into<Name>) -> Self {
        Self {
            name: name.into(),
            origin: Origin::NONE,
            policy_origin: Origin::NONE,
            discovery: DiscoveryKind::Endpoints,
            balancing: Balancing::default(),
            slow_start: None,
            reported_weights: None,
            host_headers: Vec::new(),
            session_health: SessionHealth::default(),
            localities: LocalityBalancing::default(),
            subsets: None,
            connect_timeout: Duration::from_secs(5),
            limits: Limits::envoy(),
            high: Limits::envoy(),
            outlier: None,
            health_checks: Arc::default(),
            keep_removed: false,
            close_unhealthy: false,
            panic_threshold: 50,
            dns: Dns::default(),
            protocol: UpstreamProtocol::Http1,
            tls: None,
            tls_matches: Vec::new(),
            proxy_protocol: None,
            bind_source: None,
            max_requests_per_connection: 0,
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_concurrent_streams: i32::MAX.unsigned_abs(),
            http2_keepalive: None,
            tcp_keepalive: None,
            service: ServiceRef::default(),
            stat_name: None,
            metadata: BTreeMap::new(),
        }
    }
}

// === impl Dns ===

impl Default for Dns {
    /// Envoy's: every 5 s, IPv6 before IPv4.
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(5),
            jitter: Duration::ZERO,
            respect_ttl: false,
            failure_refresh: None,
            family: DnsFamily::Auto,
        }
    }
}
