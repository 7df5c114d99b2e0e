//! `TrafficPolicy`: balancing, connection pool, outlier detection, retry budget.

use std::time::Duration;

use mesh_core::model::{Fraction, ProxyProtocol};

use super::virtual_service::port_selector;
use crate::cursor::{Cursor, Fields, read};
use crate::diagnostic::Position;

mod balancer;
mod locality;
mod tls;
mod zone;

pub use balancer::{Balancer, ConsistentHash, HashAlgorithm, Simple, Warmup};
pub use locality::{Distribute, Failover, LocalitySetting, Pattern, PriorityLabel};
pub use tls::{ClientTls, MeshTls, Origination, Tunnel};
pub use zone::ZoneAwareSetting;

/// The blocks of a traffic policy; each is inherited or replaced as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrafficPolicy {
    /// Where it starts.
    pub at: Position,
    /// The four blocks that a port may have of its own.
    pub blocks: Blocks,
    /// Policies of single ports; each replaces all four blocks.
    pub ports: Vec<PortPolicy>,
    /// Retries as a share of the requests under way.
    pub retry_budget: Option<RetryBudget>,
    /// Pass bytes through the destination to somewhere else.
    pub tunnel: Option<Tunnel>,
    /// Tell endpoints who calls with the PROXY protocol.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// What may be said per destination and per port.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Blocks {
    /// How an endpoint is chosen.
    pub balancer: Option<Balancer>,
    /// Limits of connections and requests.
    pub pool: Option<ConnectionPool>,
    /// Ejection of failing endpoints.
    pub outlier: Option<OutlierDetection>,
    /// How connections are secured.
    pub tls: Option<ClientTls>,
}

/// The policy of one port.
#[derive(Clone, Debug, PartialEq)]
pub struct PortPolicy {
    /// Where it starts.
    pub at: Position,
    /// The service port.
    pub port: u16,
    /// Its blocks.
    pub blocks: Blocks,
}

/// Limits of connections and requests; what is not said is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionPool {
    /// Where it starts.
    pub at: Position,
    /// Connections at once.
    pub max_connections: Option<u32>,
    /// Limit for connecting.
    pub connect_timeout: Option<Duration>,
    /// TCP keep-alive: probes, time, interval.
    pub keepalive: Option<Keepalive>,
    /// How long any connection lives.
    pub max_connection_duration: Option<Duration>,
    /// How long an unused connection is kept, from `tcp`.
    pub tcp_idle_timeout: Option<Duration>,
    /// Requests waiting for a connection.
    pub max_pending: Option<u32>,
    /// Requests at once.
    pub max_requests: Option<u32>,
    /// Requests after which a connection is closed.
    pub max_requests_per_connection: Option<u32>,
    /// Retries at once.
    pub max_retries: Option<u32>,
    /// How long an unused connection is kept, from `http`.
    pub idle_timeout: Option<Duration>,
    /// Whether HTTP/1.1 services are spoken to in HTTP/2.
    pub upgrade: Option<bool>,
    /// Speak what the caller spoke.
    pub use_client_protocol: bool,
    /// Streams at once on one HTTP/2 connection.
    pub max_concurrent_streams: Option<u32>,
    /// HTTP/2 PING: interval and timeout.
    pub http2_keepalive: Option<(Duration, Duration)>,
}

/// TCP keep-alive; what is not said is the operating system's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// Unanswered probes after which a connection is dead.
    pub probes: Option<u32>,
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}

/// When an endpoint is taken out for a time; what is not said is Istio's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Where it starts.
    pub at: Position,
    /// Consecutive 5xx answers; 0 is off.
    pub consecutive_5xx: Option<u32>,
    /// Consecutive 502, 503, 504 answers; 0 is off.
    pub consecutive_gateway: Option<u32>,
    /// Judge local failures apart.
    pub split_local: bool,
    /// Consecutive local failures.
    pub consecutive_local: Option<u32>,
    /// Time between sweeps.
    pub interval: Option<Duration>,
    /// First ejection.
    pub base_ejection_time: Option<Duration>,
    /// Largest share ejected, in percent.
    pub max_ejection_percent: Option<u32>,
    /// Below this share of healthy endpoints all are used, in percent.
    pub min_health_percent: Option<u32>,
    /// The status codes that count, instead of 5xx.
    pub error_codes: Vec<u16>,
}

/// Retries as a share of the requests under way; what is not said is the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// The share.
    pub share: Option<Fraction>,
    /// Always allow this many.
    pub min_concurrency: Option<u32>,
    /// Count over this long instead of what is in flight.
    pub interval: Option<Duration>,
}

// === impl TrafficPolicy ===

impl TrafficPolicy {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let blocks = Blocks::read(&mut fields);
        blocks.check(cursor);
        let ports = fields.list("portLevelSettings", |cursor| {
            let mut fields = cursor.fields()?;
            let port = fields.need("port", port_selector);
            let blocks = Blocks::read(&mut fields);
            fields.done();
            blocks.check(cursor);
            Some(PortPolicy {
                at: cursor.at(),
                port: port?,
                blocks,
            })
        });
        for (index, one) in ports.iter().enumerate() {
            if ports[..index]
                .iter()
                .any(|earlier| earlier.port == one.port)
            {
                cursor.error(format!("port {} has settings twice", one.port));
            }
        }
        let tunnel = fields.get("tunnel", Tunnel::read);
        let proxy_protocol = fields.get("proxyProtocol", tls::proxy_protocol);
        if fields.has("tunnel") && fields.has("proxyProtocol") {
            cursor.error("tunnel and proxyProtocol exclude one another");
        }
        let retry_budget = fields.get("retryBudget", RetryBudget::read);
        fields.done();
        Some(Self {
            at: cursor.at(),
            blocks,
            ports,
            retry_budget,
            tunnel,
            proxy_protocol,
        })
    }
}

impl Blocks {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            balancer: fields.get("loadBalancer", Balancer::read),
            pool: fields.get("connectionPool", ConnectionPool::read),
            outlier: fields.get("outlierDetection", OutlierDetection::read),
            tls: fields.get("tls", ClientTls::read),
        }
    }

    /// Nothing is left for another locality while nobody notices that endpoints fail.
    fn check(&self, cursor: &Cursor<'_>) {
        let locality = self.balancer.as_ref().and_then(|one| one.locality.as_ref());
        if self.outlier.is_none() && locality.is_some_and(LocalitySetting::fails_over) {
            cursor.warn("failover has no effect without outlierDetection");
        }
    }
}

// === impl ConnectionPool ===

impl ConnectionPool {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let mut pool = Self {
            at: cursor.at(),
            ..Self::default()
        };
        fields.get("tcp", |cursor| pool.read_tcp(cursor));
        fields.get("http", |cursor| pool.read_http(cursor));
        if !fields.has("tcp") && !fields.has("http") {
            cursor.error("needs tcp or http");
        }
        fields.done();
        Some(pool)
    }

    fn read_tcp(&mut self, cursor: &Cursor<'_>) -> Option<()> {
        let mut fields = cursor.fields()?;
        self.max_connections = limit(&mut fields, "maxConnections");
        self.connect_timeout = fields.get("connectTimeout", read::positive_duration);
        self.keepalive = fields.get("tcpKeepalive", |cursor| {
            let mut fields = cursor.fields()?;
            let keepalive = Keepalive {
                probes: fields.get("probes", read::u32),
                time: fields.get("time", read::duration),
                interval: fields.get("interval", read::duration),
            };
            fields.done();
            Some(keepalive)
        });
        self.max_connection_duration = fields.get("maxConnectionDuration", read::positive_duration);
        self.tcp_idle_timeout = fields.get("idleTimeout", read::duration);
        fields.done();
        Some(())
    }

    fn read_http(&mut self, cursor: &Cursor<'_>) -> Option<()> {
        let mut fields = cursor.fields()?;
        self.max_pending = limit(&mut fields, "http1MaxPendingRequests");
        self.max_requests = limit(&mut fields, "http2MaxRequests");
        self.max_requests_per_connection = limit(&mut fields, "maxRequestsPerConnection");
        self.max_retries = limit(&mut fields, "maxRetries");
        self.idle_timeout = fields.get("idleTimeout", read::duration);
        self.upgrade = fields.get("h2UpgradePolicy", |cursor| {
            cursor.choice(&[
                ("DEFAULT", None),
                ("DO_NOT_UPGRADE", Some(false)),
                ("UPGRADE", Some(true)),
            ])?
        });
        self.use_client_protocol = fields
            .get("useClientProtocol", read::bool)
            .unwrap_or_default();
        self.max_concurrent_streams = limit(&mut fields, "maxConcurrentStreams");
        self.http2_keepalive = fields.get("http2KeepAlive", |cursor| {
            let mut fields = cursor.fields()?;
            let interval = fields.need("interval", read::positive_duration);
            let timeout = fields.need("timeout", read::positive_duration);
            fields.done();
            Some((interval?, timeout?))
        });
        if self.use_client_protocol && self.upgrade == Some(true) {
            cursor.error("h2UpgradePolicy UPGRADE and useClientProtocol exclude one another");
        }
        fields.done();
        Some(())
    }
}

/// A limit; the protos cannot tell 0 from absent, so both are none.
fn limit(fields: &mut Fields<'_>, name: &'static str) -> Option<u32> {
    fields.get(name, read::count).filter(|&limit| limit > 0)
}

// === impl OutlierDetection ===

impl OutlierDetection {
    fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let consecutive = fields.get("consecutive5xxErrors", read::u32);
        let old = fields.get("consecutiveErrors", |cursor| {
            cursor.warn("deprecated: write consecutive5xxErrors or consecutiveGatewayErrors");
            cursor.count()
        });
        let percent = |cursor: &Cursor<'_>| u32::try_from(cursor.integer(0, 100)?).ok();
        // The old field was about 502, 503 and 504 only, and switched the 5xx rule off.
        let consecutive = consecutive.or_else(|| old.map(|_| 0));
        let gateway = fields.get("consecutiveGatewayErrors", read::u32);
        let found = Self {
            at: cursor.at(),
            consecutive_5xx: consecutive,
            consecutive_gateway: gateway.or(old),
            split_local: fields
                .get("splitExternalLocalOriginErrors", read::bool)
                .unwrap_or_default(),
            consecutive_local: fields.get("consecutiveLocalOriginFailures", read::u32),
            interval: fields.get("interval", read::positive_duration),
            base_ejection_time: fields.get("baseEjectionTime", read::positive_duration),
            max_ejection_percent: fields.get("maxEjectionPercent", percent),
            min_health_percent: fields.get("minHealthPercent", percent),
            error_codes: fields.list("outlierDetectionHttpErrorCodes", |cursor| {
                u16::try_from(cursor.integer(100, 599)?).ok()
            }),
        };
        if found.consecutive_local.is_some() && !found.split_local {
            cursor
                .error("consecutiveLocalOriginFailures needs splitExternalLocalOriginErrors: true");
        }
        fields.done();
        Some(found)
    }
}

// === impl RetryBudget ===

impl RetryBudget {
    fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let budget = Self {
            share: fields.get("percent", |cursor| {
                let percent = cursor.double()?;
                let share = Fraction::percent(percent).ok();
                if share.is_none() {
                    cursor.error(format!("{percent} is not a percentage from 0 to 100"));
                }
                share
            }),
            min_concurrency: fields.get("minRetryConcurrency", read::u32),
            interval: fields.get("budgetInterval", read::duration),
        };
        fields.done();
        Some(budget)
    }
}
