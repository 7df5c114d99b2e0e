//! Active health checks: endpoints are asked whether they are well (Envoy `HealthCheck`).

use super::{Address, HeaderEdits, StringMatch};
use crate::Name;
use bytes::Bytes;
use std::ops::Range;
use std::time::Duration;

/// How the endpoints of a cluster are asked, again and again, whether they are well.
///
/// An endpoint counts as unhealthy until its first answer, which counts at once, whatever the
/// thresholds are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// How long an answer may take.
    pub timeout: Duration,
    /// When the next question is asked.
    pub pace: Pace,
    /// Failures in a row after which an endpoint is unhealthy. An HTTP answer that is neither
    /// expected nor may be tried again makes it so at once.
    pub unhealthy_threshold: u32,
    /// Successes in a row after which an endpoint is healthy again.
    pub healthy_threshold: u32,
    /// Ask over the connection of the time before. Envoy: true.
    pub reuse_connection: bool,
}

/// The time from one answer to the next question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Pace {
    /// The usual one.
    pub interval: Duration,
    /// The first question comes at most this much later, at random.
    pub initial_jitter: Duration,
    /// The next question comes at most this much later, at random.
    pub jitter: Duration,
    /// The same as a share of `interval`, in percent; both are added.
    pub jitter_percent: u32,
    /// While nothing was ever sent to the cluster. Envoy 60 s.
    pub no_traffic: Duration,
    /// The same for endpoints that are healthy. None is `no_traffic`.
    pub no_traffic_healthy: Option<Duration>,
    /// While the endpoint is unhealthy. None is `interval`.
    pub unhealthy: Option<Duration>,
    /// After a failure of a healthy endpoint that is not yet one too many. None is `unhealthy`.
    pub unhealthy_edge: Option<Duration>,
    /// After a success of an unhealthy endpoint that is not yet enough. None is `interval`.
    pub healthy_edge: Option<Duration>,
}

/// What an endpoint is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Probe {
    /// A request (Envoy `http_health_check`).
    Http(Box<HttpProbe>),
    /// A connection, and perhaps some bytes (Envoy `tcp_health_check`).
    Tcp(TcpProbe),
    /// The `grpc.health.v1.Health/Check` method (Envoy `grpc_health_check`).
    Grpc(GrpcProbe),
}

/// A request whose answer says how an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpProbe {
    /// The host of the request; empty is the cluster's name. What [`EndpointCheck::hostname`] says
    /// comes first.
    pub host: Name,
    /// Its path, with the query.
    pub path: Name,
    /// Its method. Envoy: GET.
    pub method: http::Method,
    /// Headers put on and taken off.
    pub edits: HeaderEdits,
    /// HTTP/2 instead of HTTP/1.1.
    pub http2: bool,
    /// Status codes of an endpoint that is well. Envoy: 200 alone.
    pub expected: Vec<Range<u16>>,
    /// Status codes that count as one failure; others that are not expected make the endpoint
    /// unhealthy at once.
    pub retriable: Vec<Range<u16>>,
    /// Pieces that the body has to have, in this order.
    pub receive: Vec<Bytes>,
    /// How much of the body is looked at, in bytes; 0 is all that a limit allows. Envoy 1024.
    pub body_limit: u64,
    /// What the header `x-envoy-upstream-healthchecked-cluster` of the answer has to be.
    pub service: Option<StringMatch>,
}

/// Bytes sent, and those that have to come back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpProbe {
    /// What is sent once connected; nothing where empty.
    pub send: Bytes,
    /// Pieces that have to come back, in this order; where there are none, a connection is enough.
    pub receive: Vec<Bytes>,
}

/// Whom the health service of an endpoint is asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrpcProbe {
    /// The service; empty is the server as a whole.
    pub service: Name,
    /// The authority of the call; empty is the cluster's name. What [`EndpointCheck::hostname`]
    /// says comes first.
    pub authority: Name,
    /// Metadata put on.
    pub metadata: HeaderEdits,
}

/// What an endpoint says about its own checks (Envoy `Endpoint.health_check_config`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EndpointCheck {
    /// It is not asked, and counts as healthy.
    pub disabled: bool,
    /// Another port than that for requests.
    pub port: Option<u16>,
    /// Another address than that for requests.
    pub address: Option<Address>,
    /// The host of the question; empty is what the check says.
    pub hostname: Name,
}

// === impl HealthCheck ===

impl HealthCheck {
    /// A check with Envoy's defaults for what has one.
    pub fn new(probe: Probe, timeout: Duration, interval: Duration) -> Self {
        Self {
            probe,
            timeout,
            pace: Pace::new(interval),
            unhealthy_threshold: 1,
            healthy_threshold: 1,
            reuse_connection: true,
        }
    }
}

// === impl Pace ===

impl Pace {
    /// The same time always, but a minute while there is no traffic.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            initial_jitter: Duration::ZERO,
            jitter: Duration::ZERO,
            jitter_percent: 0,
            no_traffic: Duration::from_secs(60),
            no_traffic_healthy: None,
            unhealthy: None,
            unhealthy_edge: None,
            healthy_edge: None,
        }
    }
}

// === impl HttpProbe ===

impl HttpProbe {
    /// A GET of this path that has to be answered by 200.
    pub fn new(path: impl Into<Name>) -> Self {
        Self {
            host: Name::default(),
            path: path.into(),
            method: http::Method::GET,
            edits: HeaderEdits::default(),
            http2: false,
            expected: std::iter::once(200..201).collect(),
            retriable: Vec::new(),
            receive: Vec::new(),
            body_limit: 1024,
            service: None,
        }
    }
}
