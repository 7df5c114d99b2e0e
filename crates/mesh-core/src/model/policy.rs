//! What may be asked of a request besides where it goes: timeouts, retries, faults and so on.

use super::{Fraction, HeaderMatch, StringMatch};
use crate::{Name, Origin};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use std::collections::BTreeMap;
use std::time::Duration;

/// When and how often a failed attempt is made again (Envoy `RetryPolicy`, Istio `HTTPRetry`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retry {
    /// Where this was configured.
    pub origin: Origin,
    /// Retries after the first attempt.
    pub attempts: u32,
    /// What is retried.
    pub on: RetryOn,
    /// Status codes for [`RetryOn::RETRIABLE_STATUS_CODES`].
    pub status_codes: Vec<u16>,
    /// Headers of an answer for [`RetryOn::RETRIABLE_HEADERS`]: any of these (Envoy
    /// `retriable_headers`). They look at headers, not at what begins with a colon.
    pub headers: Vec<HeaderMatch>,
    /// What a request has to be like to be tried again at all: any of these, or whatever it is
    /// where there are none (Envoy `retriable_request_headers`).
    pub request_headers: Vec<HeaderMatch>,
    /// Where an answer says how long to wait; the first that says it counts instead of the
    /// back-off (Envoy `rate_limited_retry_back_off`).
    pub resets: Vec<ResetHeader>,
    /// What says that it takes longer than this is passed over. Default 300 s.
    pub reset_max: Duration,
    /// Limit for one attempt; none means the route's timeout alone.
    pub per_try_timeout: Option<Duration>,
    /// Limit without progress within one attempt.
    pub per_try_idle_timeout: Option<Duration>,
    /// First back-off window. Default 25 ms.
    pub backoff_base: Duration,
    /// Largest back-off window. Default ten times the base.
    pub backoff_max: Duration,
    /// Avoid hosts that were tried before (`previous_hosts`).
    pub avoid_previous_hosts: bool,
    /// Avoid hosts with `canary: true` in their metadata (`omit_canary_hosts`).
    pub avoid_canaries: bool,
    /// Avoid hosts whose metadata has all of this, the values as JSON; each by itself, and one
    /// without any avoids nobody (`omit_host_metadata`).
    pub avoid_metadata: Vec<BTreeMap<Name, Name>>,
    /// How many times a pick that lands on a host to be avoided is drawn again
    /// (`host_selection_retry_max_attempts`).
    pub host_attempts: u32,
    /// Try other priorities (localities) than those tried before.
    pub other_priorities: bool,
    /// After how many attempts those priorities are looked at again (`previous_priorities`'
    /// `update_frequency`). Default 2, as Istio has it; 0 counts as 1.
    pub priority_attempts: u32,
}

/// A header of an answer that says when to come back (Envoy `RetryPolicy.ResetHeader`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResetHeader {
    /// The header, such as `retry-after`.
    pub name: HeaderName,
    /// How it says it.
    pub format: ResetFormat,
}

/// How a header says when to come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ResetFormat {
    /// In so many seconds.
    #[default]
    Seconds,
    /// At that many seconds after 1970.
    UnixTimestamp,
}

/// Whether attempts may overlap (Envoy `HedgePolicy`, of which no more is implemented there).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hedge {
    /// An attempt that meets its limit goes on beside the next one, and the first good answer of
    /// either counts. A caller may ask for it with `x-envoy-hedge-on-per-try-timeout: true`.
    /// Default false: such an attempt is reset.
    pub on_try_timeout: bool,
}

/// A set of retry conditions (`x-envoy-retry-on` and `x-envoy-retry-grpc-on`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RetryOn(u32);

/// Cross-origin rules (Envoy `CorsPolicy`, Istio `CorsPolicy`).
///
/// What a rule's leaves empty is as its virtual host's has it, field by field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Cors {
    /// Where this was configured.
    pub origin: Origin,
    /// Origins that are allowed.
    pub allow_origins: Vec<StringMatch>,
    /// `access-control-allow-methods`, as written in the header.
    pub allow_methods: String,
    /// `access-control-allow-headers`.
    pub allow_headers: String,
    /// `access-control-expose-headers`.
    pub expose_headers: String,
    /// `access-control-max-age`, whole seconds as text.
    pub max_age: String,
    /// `access-control-allow-credentials: true`. Default false.
    pub allow_credentials: Option<bool>,
    /// Send preflights with an origin that does not match upstream (Istio's default) rather than
    /// answering them without any allow header. Default true.
    pub forward_unmatched_preflights: Option<bool>,
}

/// A token bucket for one process (Envoy `local_ratelimit`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RateLimit {
    /// Where this was configured.
    pub origin: Origin,
    /// The most tokens that the bucket holds.
    pub max_tokens: u32,
    /// Tokens added at each fill.
    pub tokens_per_fill: u32,
    /// Time between fills.
    pub fill_interval: Duration,
    /// The status of a refused request. Default 429.
    pub status: StatusCode,
    /// The bucket; shared by everything that shares this policy object.
    pub slot: crate::Slot,
}

/// Limits of one cluster, per process (Envoy `CircuitBreakers.Thresholds`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Limits {
    /// Connections. Envoy 1024, Istio unlimited.
    pub max_connections: u32,
    /// Requests waiting for a connection.
    pub max_pending: u32,
    /// Requests under way.
    pub max_requests: u32,
    /// Retries under way; not used when there is a `budget`.
    pub max_retries: u32,
    /// Retries as a share of the requests under way.
    pub budget: Option<RetryBudget>,
    /// Pools of connections: those of one worker to one endpoint that are alike. Default: no limit.
    pub max_pools: u32,
    /// Connections to one endpoint, over all workers (Envoy
    /// `CircuitBreakers.per_host_thresholds`). Default: no limit.
    pub max_connections_per_host: u32,
    /// Whether statistics tell how much is left of each of them (Envoy
    /// `Thresholds.track_remaining`). Default no.
    pub track_remaining: bool,
}

/// Whose limits a request counts for, and which connections it may share (Envoy
/// `RoutingPriority`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Priority {
    /// [`Cluster::limits`](super::Cluster::limits).
    #[default]
    Default,
    /// [`Cluster::high`](super::Cluster::high).
    High,
}

/// Retries allowed as a share of the requests under way (Envoy `RetryBudget`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RetryBudget {
    /// The share. Default 20 %.
    pub share: Fraction,
    /// Always allow this many. Default 3.
    pub min_concurrency: u32,
    /// When not zero, counts the requests of this long, instead of those in flight.
    pub interval: Duration,
}

/// When a host is taken out of balancing for a time (Envoy `OutlierDetection`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Outlier {
    /// Where this was configured.
    pub origin: Origin,
    /// Consecutive 5xx answers (and, unless split, local failures) that eject. 0 is off. Default 5.
    pub consecutive_5xx: u32,
    /// Consecutive 502, 503 and 504 answers that eject. 0 is off (Istio's default).
    pub consecutive_gateway_failure: u32,
    /// Consecutive local failures that eject, when split. 0 is off. Default 5.
    pub consecutive_local_failure: u32,
    /// Judge local failures (connect, timeout, reset) apart from answers.
    pub split_local_origin: bool,
    /// Time between sweeps. Default 10 s.
    pub interval: Duration,
    /// First ejection lasts this long, the n-th n times as long. Default 30 s.
    pub base_ejection_time: Duration,
    /// Longest ejection. Default 300 s, or the base if that is longer.
    pub max_ejection_time: Duration,
    /// Largest share of hosts ejected, in percent. Default 10.
    pub max_ejection_percent: u32,
    /// One host may always be ejected, whatever the percentage.
    pub always_eject_one: bool,
    /// Success-rate ejection; none is off (Istio never has it).
    pub success_rate: Option<SuccessRate>,
    /// Failure-percentage ejection; none is off.
    pub failure_percentage: Option<FailurePercentage>,
    /// When not empty, exactly these status codes count as errors, instead of all 5xx.
    pub error_codes: Vec<u16>,
    /// Detectors that only count what they find.
    pub unenforced: Unenforced,
    /// An ejected host comes back when an active health check of it succeeds (Envoy
    /// `successful_active_health_check_uneject_host`). Default true.
    pub uneject_on_check: bool,
}

/// Thresholds of detectors that eject nobody (Envoy's `enforcing_…` 0): what they find is only
/// counted. 0 is off, the default. Each matters where the one that ejects is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Unenforced {
    /// Consecutive 5xx answers.
    pub consecutive_5xx: u32,
    /// Consecutive 502, 503 and 504 answers.
    pub consecutive_gateway_failure: u32,
    /// Consecutive local failures, when split.
    pub consecutive_local_failure: u32,
}

/// Ejection of hosts whose success rate is far below the mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SuccessRate {
    /// Hosts with enough volume that are needed. Default 5.
    pub min_hosts: u32,
    /// Requests in an interval that count as enough. Default 100.
    pub request_volume: u32,
    /// Threshold = mean - factor / 1000 × deviation. Default 1900.
    pub stdev_factor: u32,
}

/// Ejection of hosts whose share of failures reaches a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FailurePercentage {
    /// Failures in percent. Default 85.
    pub threshold: u32,
    /// Hosts with enough volume that are needed. Default 5.
    pub min_hosts: u32,
    /// Requests in an interval that count as enough. Default 50.
    pub request_volume: u32,
}

// === impl Retry ===

impl Default for Retry {
    /// Envoy's defaults, with one retry on nothing.
    fn default() -> Self {
        Self {
            origin: Origin::NONE,
            attempts: 1,
            on: RetryOn::default(),
            status_codes: Vec::new(),
            headers: Vec::new(),
            request_headers: Vec::new(),
            resets: Vec::new(),
            reset_max: Duration::from_secs(300),
            per_try_timeout: None,
            per_try_idle_timeout: None,
            backoff_base: Duration::from_millis(25),
            backoff_max: Duration::from_millis(250),
            avoid_previous_hosts: false,
            avoid_canaries: false,
            avoid_metadata: Vec::new(),
            host_attempts: 1,
            other_priorities: false,
            priority_attempts: 2,
        }
    }
}

impl Retry {
    /// Whether a further attempt would rather not go to some hosts, or priorities.
    pub fn avoids(&self) -> bool {
        self.avoids_hosts() || self.other_priorities
    }

    /// Whether a further attempt would rather not go to some hosts.
    pub fn avoids_hosts(&self) -> bool {
        self.avoid_previous_hosts || self.avoid_canaries || !self.avoid_metadata.is_empty()
    }
}

// === impl RetryOn ===

impl RetryOn {
    /// 5xx answers and every reset or timeout.
    pub const SERVER_ERROR: Self = Self(1);
    /// 502, 503, 504 and every reset or timeout.
    pub const GATEWAY_ERROR: Self = Self(1 << 1);
    /// Resets and disconnects before response headers.
    pub const RESET: Self = Self(1 << 2);
    /// The same, request headers not yet sent.
    pub const RESET_BEFORE_REQUEST: Self = Self(1 << 3);
    /// Failures to connect, timeouts included.
    pub const CONNECT_FAILURE: Self = Self(1 << 4);
    /// HTTP/2 `REFUSED_STREAM`.
    pub const REFUSED_STREAM: Self = Self(1 << 5);
    /// Status 409.
    pub const RETRIABLE_4XX: Self = Self(1 << 6);
    /// The status codes listed in the policy.
    pub const RETRIABLE_STATUS_CODES: Self = Self(1 << 7);
    /// Answers with `x-envoy-ratelimited`.
    pub const RATE_LIMITED: Self = Self(1 << 8);
    /// gRPC `CANCELLED` in the response headers.
    pub const GRPC_CANCELLED: Self = Self(1 << 9);
    /// gRPC `DEADLINE_EXCEEDED` in the response headers.
    pub const GRPC_DEADLINE_EXCEEDED: Self = Self(1 << 10);
    /// gRPC `INTERNAL` in the response headers.
    pub const GRPC_INTERNAL: Self = Self(1 << 11);
    /// gRPC `RESOURCE_EXHAUSTED` in the response headers.
    pub const GRPC_RESOURCE_EXHAUSTED: Self = Self(1 << 12);
    /// gRPC `UNAVAILABLE` in the response headers.
    pub const GRPC_UNAVAILABLE: Self = Self(1 << 13);
    /// Answers with one of the headers listed in the policy.
    pub const RETRIABLE_HEADERS: Self = Self(1 << 14);

    /// Envoy's names, in the order of the bits.
    pub const NAMES: [(&'static str, Self); 15] = [
        ("5xx", Self::SERVER_ERROR),
        ("gateway-error", Self::GATEWAY_ERROR),
        ("reset", Self::RESET),
        ("reset-before-request", Self::RESET_BEFORE_REQUEST),
        ("connect-failure", Self::CONNECT_FAILURE),
        ("refused-stream", Self::REFUSED_STREAM),
        ("retriable-4xx", Self::RETRIABLE_4XX),
        ("retriable-status-codes", Self::RETRIABLE_STATUS_CODES),
        ("envoy-ratelimited", Self::RATE_LIMITED),
        ("cancelled", Self::GRPC_CANCELLED),
        ("deadline-exceeded", Self::GRPC_DEADLINE_EXCEEDED),
        ("internal", Self::GRPC_INTERNAL),
        ("resource-exhausted", Self::GRPC_RESOURCE_EXHAUSTED),
        ("unavailable", Self::GRPC_UNAVAILABLE),
        ("retriable-headers", Self::RETRIABLE_HEADERS),
    ];

    /// The condition with this name, if there is one.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, bit)| *bit)
    }

    /// Both sets together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any condition of `other` is in this set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether there is no condition.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names of the conditions in this set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .into_iter()
            .filter(move |(_, bit)| self.has(*bit))
            .map(|(name, _)| name)
    }
}

// === impl Limits ===

impl Limits {
    /// Envoy's defaults: 1024, 1024, 1024 and 3.
    pub fn envoy() -> Self {
        Self {
            max_connections: 1024,
            max_pending: 1024,
            max_requests: 1024,
            max_retries: 3,
            budget: None,
            max_pools: u32::MAX,
            max_connections_per_host: u32::MAX,
            track_remaining: false,
        }
    }

    /// Istio's defaults: no limit at all.
    pub fn unlimited() -> Self {
        Self {
            max_connections: u32::MAX,
            max_pending: u32::MAX,
            max_requests: u32::MAX,
            max_retries: u32::MAX,
            budget: None,
            max_pools: u32::MAX,
            max_connections_per_host: u32::MAX,
            track_remaining: false,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::envoy()
    }
}

// === impl RetryBudget ===

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            share: Fraction::millionths(200_000),
            min_concurrency: 3,
            interval: Duration::ZERO,
        }
    }
}

// === impl Outlier ===

impl Default for Outlier {
    /// Istio's defaults.
    fn default() -> Self {
        Self {
            origin: Origin::NONE,
            consecutive_5xx: 5,
            consecutive_gateway_failure: 0,
            consecutive_local_failure: 5,
            split_local_origin: false,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 10,
            always_eject_one: false,
            success_rate: None,
            failure_percentage: None,
            error_codes: Vec::new(),
            unenforced: Unenforced::default(),
            uneject_on_check: true,
        }
    }
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self {
            min_hosts: 5,
            request_volume: 100,
            stdev_factor: 1900,
        }
    }
}

impl Default for FailurePercentage {
    fn default() -> Self {
        Self {
            threshold: 85,
            min_hosts: 5,
            request_volume: 50,
        }
    }
}

// === impl RateLimit ===

impl RateLimit {
    /// A bucket of `max_tokens`, refilled with `tokens_per_fill` every `fill_interval`.
    pub fn new(max_tokens: u32, tokens_per_fill: u32, fill_interval: Duration) -> Self {
        Self {
            origin: Origin::NONE,
            max_tokens,
            tokens_per_fill,
            fill_interval,
            status: StatusCode::TOO_MANY_REQUESTS,
            slot: crate::Slot::default(),
        }
    }
}

/// A preflight is an `OPTIONS` request with an origin and a requested method (Fetch standard).
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(http::header::ORIGIN)
        && headers.contains_key(http::header::ACCESS_CONTROL_REQUEST_METHOD)
}
