//! Everything that we answer ourselves, in one table.
//!
//! A [`Failure`] is made where it happens; what follows from it — response flag, HTTP and gRPC
//! status, details for the access log, whether a retry is thinkable — is a row of the table here
//! and nowhere else. Names of flags and details are Envoy's (`envoy/stream_info/stream_info.h`,
//! `response_code_details`), so that dashboards carry over.

mod flags;

pub use flags::Flags;

use http::StatusCode;
use std::fmt;

/// Why a request was answered by us rather than by an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// No virtual host or no rule matches.
    NoRoute,
    /// The rule names a cluster that does not exist.
    NoCluster,
    /// The cluster has no endpoint that may be used.
    NoHealthyHost,
    /// Discovery wants this share of the cluster's requests refused (EDS `drop_overloads`).
    DropOverload,
    /// Discovery wants all of the cluster's requests refused: a share of 100 %.
    UnconditionalDrop,
    /// A connection could not be established.
    ConnectFailed,
    /// A connection was not established in time.
    ConnectTimeout,
    /// The upstream closed the connection before a response head.
    ConnectionTermination,
    /// The upstream reset the stream before a response head.
    RemoteReset,
    /// The upstream refused the stream (`REFUSED_STREAM`, GOAWAY): it did nothing.
    RemoteRefused,
    /// We reset the stream before a response head.
    LocalReset,
    /// The upstream broke the protocol.
    UpstreamProtocol,
    /// The cluster's limit on connections, pending requests or requests.
    Overflow,
    /// The response did not end within the route's timeout.
    RequestTimeout,
    /// An attempt's response head did not come in time.
    TryTimeout,
    /// An attempt made no progress in time.
    TryIdleTimeout,
    /// The stream lasted longer than it may.
    MaxStreamDuration,
    /// The stream made no progress in time.
    StreamIdle,
    /// The request did not arrive whole in time.
    RequestOverall,
    /// The request head did not arrive in time.
    RequestHead,
    /// An abort put in on purpose, with this HTTP status.
    FaultAbort(u16),
    /// An abort put in on purpose, with this gRPC status.
    FaultAbortGrpc(u32),
    /// The local rate limit, with this status.
    RateLimited(u16),
    /// Without a token that is asked for, or with one that is not valid.
    Unauthenticated,
    /// Refused by an authorization policy.
    Denied,
    /// Refused by a service that was asked, with this status.
    CheckDenied(u16),
    /// A service that has to be asked could not be; answered with this status.
    CheckFailed(u16),
    /// The body is larger than what may be held back meanwhile.
    PayloadTooLarge,
    /// Shed because the process is overloaded.
    Overloaded,
    /// The request head breaks HTTP.
    BadRequest,
    /// The request body breaks HTTP.
    BadBody,
    /// No filter chain of the listener matches the connection.
    NoFilterChain,
    /// No host to route by.
    MissingHost,
    /// The path cannot be normalised, or holds what is not allowed.
    InvalidPath,
    /// The target does not begin with a slash: `*`.
    NotAPath,
    /// Too many or too large headers.
    HeadTooLarge,
    /// The request body is larger than what may be kept for a retry.
    ReplayOverflow,
    /// An upgrade that is not allowed here.
    UpgradeRefused,
    /// The caller went away. Nobody sees the answer.
    ClientGone,
    /// The caller reset the stream (RST_STREAM) and stays. Nobody sees the answer.
    ClientReset,
    /// The caller reset the stream as one that it refused (`REFUSED_STREAM`). Nobody sees the answer.
    ClientRefused,
    /// Answered by the rule: a fixed response.
    DirectResponse,
    /// Answered by the rule: a redirect.
    Redirect,
    /// Answered here: a CORS preflight.
    CorsPreflight,
    /// A fault of ours.
    Internal,
}

/// A row of the table: what follows from a [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Flags set in the access log.
    pub flags: Flags,
    /// HTTP status of the answer.
    pub status: StatusCode,
    /// Envoy's response code details.
    pub details: &'static str,
    /// Body of the answer; where there is a reset reason the body is made from that instead.
    pub body: &'static str,
    /// Envoy's reset reason, for failures of the upstream stream.
    pub reset: Option<&'static str>,
    /// Whether another attempt is thinkable.
    pub retry: RetryClass,
}

/// Whether a failed attempt may be followed by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryClass {
    /// Never: the answer would be the same, or has begun.
    Never,
    /// The request never left this process, so another attempt is safe when the policy wants one.
    Unsent,
    /// The request may have had effects; the policy decides.
    Policy,
}

// === impl Failure ===

impl Failure {
    /// Whether nobody waits for the answer any more: the caller is gone or has reset the stream.
    pub fn is_departure(self) -> bool {
        matches!(
            self,
            Self::ClientGone | Self::ClientReset | Self::ClientRefused
        )
    }

    /// Every failure, for tests and for the table in the documentation.
    pub const ALL: [Self; 45] = [
        Self::NoRoute,
        Self::NoCluster,
        Self::NoHealthyHost,
        Self::DropOverload,
        Self::UnconditionalDrop,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::ConnectionTermination,
        Self::RemoteReset,
        Self::RemoteRefused,
        Self::LocalReset,
        Self::UpstreamProtocol,
        Self::Overflow,
        Self::RequestTimeout,
        Self::TryTimeout,
        Self::TryIdleTimeout,
        Self::MaxStreamDuration,
        Self::StreamIdle,
        Self::RequestOverall,
        Self::RequestHead,
        Self::FaultAbort(500),
        Self::FaultAbortGrpc(14),
        Self::RateLimited(429),
        Self::Unauthenticated,
        Self::Denied,
        Self::CheckDenied(403),
        Self::CheckFailed(403),
        Self::PayloadTooLarge,
        Self::Overloaded,
        Self::BadRequest,
        Self::BadBody,
        Self::NoFilterChain,
        Self::MissingHost,
        Self::InvalidPath,
        Self::NotAPath,
        Self::HeadTooLarge,
        Self::ReplayOverflow,
        Self::UpgradeRefused,
        Self::ClientGone,
        Self::ClientReset,
        Self::ClientRefused,
        Self::DirectResponse,
        Self::Redirect,
        Self::CorsPreflight,
        Self::Internal,
    ];

    /// What follows from this failure.
    pub fn row(self) -> Row {
        use RetryClass::{Never, Policy, Unsent};
        const RESET: &str = "upstream_reset_before_response_started";
        let reset = |flags, status, reason, retry| Row {
            flags,
            status,
            details: RESET,
            body: "",
            reset: Some(reason),
            retry,
        };
        let plain = |flags, status, details, body, retry| Row {
            flags,
            status,
            details,
            body,
            reset: None,
            retry,
        };
        const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
        const TIMEOUT: StatusCode = StatusCode::GATEWAY_TIMEOUT;
        const NONE: Flags = Flags(0);
        match self {
            Self::NoRoute => plain(
                Flags::NR,
                StatusCode::NOT_FOUND,
                "route_not_found",
                "",
                Never,
            ),
            Self::NoCluster => plain(Flags::NC, UNAVAILABLE, "cluster_not_found", "", Never),
            Self::NoHealthyHost => plain(
                Flags::UH,
                UNAVAILABLE,
                "no_healthy_upstream",
                "no healthy upstream",
                Never,
            ),
            Self::DropOverload => plain(
                Flags::DO,
                UNAVAILABLE,
                "drop_overload",
                "drop overload",
                Never,
            ),
            Self::UnconditionalDrop => plain(
                Flags::UDO,
                UNAVAILABLE,
                "unconditional_drop_overload",
                "unconditional drop overload",
                Never,
            ),
            Self::ConnectFailed => {
                reset(Flags::UF, UNAVAILABLE, "remote connection failure", Unsent)
            }
            Self::ConnectTimeout => reset(Flags::UF, UNAVAILABLE, "connection timeout", Unsent),
            Self::ConnectionTermination => {
                reset(Flags::UC, UNAVAILABLE, "connection termination", Policy)
            }
            Self::RemoteReset => reset(Flags::UR, UNAVAILABLE, "remote reset", Policy),
            Self::RemoteRefused => reset(
                Flags::UR,
                UNAVAILABLE,
                "remote refused stream reset",
                Unsent,
            ),
            Self::LocalReset => reset(Flags::LR, UNAVAILABLE, "local reset", Policy),
            Self::UpstreamProtocol => reset(
                Flags::UPE,
                StatusCode::BAD_GATEWAY,
                "protocol error",
                Policy,
            ),
            Self::Overflow => reset(Flags::UO, UNAVAILABLE, "overflow", Never),
            Self::RequestTimeout => plain(
                Flags::UT,
                TIMEOUT,
                "response_timeout",
                "upstream request timeout",
                Never,
            ),
            Self::TryTimeout => plain(
                Flags::UT,
                TIMEOUT,
                "upstream_per_try_timeout",
                "upstream request timeout",
                Policy,
            ),
            Self::TryIdleTimeout => plain(
                Flags::UT,
                TIMEOUT,
                "upstream_per_try_idle_timeout",
                "upstream request timeout",
                Policy,
            ),
            Self::MaxStreamDuration => plain(
                NONE,
                TIMEOUT,
                "max_duration_timeout",
                "downstream duration timeout",
                Never,
            ),
            Self::StreamIdle => plain(
                Flags::SI,
                TIMEOUT,
                "stream_idle_timeout",
                "stream timeout",
                Never,
            ),
            Self::RequestOverall => plain(
                NONE,
                StatusCode::REQUEST_TIMEOUT,
                "request_overall_timeout",
                "request timeout",
                Never,
            ),
            Self::RequestHead => plain(
                NONE,
                StatusCode::REQUEST_TIMEOUT,
                "request_header_timeout",
                "request header timeout",
                Never,
            ),
            Self::FaultAbort(status) => plain(
                Flags::FI,
                code(status),
                "fault_filter_abort",
                "fault filter abort",
                Never,
            ),
            Self::FaultAbortGrpc(_) => plain(
                Flags::FI,
                StatusCode::OK,
                "fault_filter_abort",
                "fault filter abort",
                Never,
            ),
            Self::RateLimited(status) => plain(
                Flags::RL,
                code(status),
                "local_rate_limited",
                "local_rate_limited",
                Never,
            ),
            Self::Unauthenticated => plain(
                NONE,
                StatusCode::UNAUTHORIZED,
                "jwt_authn_access_denied{Jwt_is_missing}",
                "Jwt is missing",
                Never,
            ),
            Self::Denied => plain(
                NONE,
                StatusCode::FORBIDDEN,
                "rbac_access_denied_matched_policy[none]",
                "RBAC: access denied",
                Never,
            ),
            Self::CheckDenied(status) => {
                plain(Flags::UAEX, code(status), "ext_authz_denied", "", Never)
            }
            Self::CheckFailed(status) => {
                plain(Flags::UAEX, code(status), "ext_authz_error", "", Never)
            }
            Self::PayloadTooLarge => plain(
                NONE,
                StatusCode::PAYLOAD_TOO_LARGE,
                "request_payload_too_large",
                "Payload Too Large",
                Never,
            ),
            Self::Overloaded => plain(
                Flags::OM,
                UNAVAILABLE,
                "overload",
                "envoy overloaded",
                Never,
            ),
            Self::BadRequest => plain(
                Flags::DPE,
                StatusCode::BAD_REQUEST,
                "http1.codec_error",
                "",
                Never,
            ),
            Self::BadBody => plain(
                Flags::DPE,
                StatusCode::BAD_REQUEST,
                "http1.codec_error",
                "Bad Request",
                Never,
            ),
            // Nobody is answered: there is nobody to speak HTTP with.
            Self::NoFilterChain => {
                plain(Flags::NR, UNAVAILABLE, "filter_chain_not_found", "", Never)
            }
            Self::MissingHost => plain(
                NONE,
                StatusCode::BAD_REQUEST,
                "missing_host_header",
                "",
                Never,
            ),
            Self::InvalidPath => plain(
                NONE,
                StatusCode::BAD_REQUEST,
                "path_normalization_failed",
                "",
                Never,
            ),
            Self::NotAPath => plain(
                NONE,
                StatusCode::NOT_FOUND,
                "absolute_path_rejected",
                "",
                Never,
            ),
            Self::HeadTooLarge => plain(
                Flags::DPE,
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "request_headers_too_large",
                "",
                Never,
            ),
            Self::ReplayOverflow => plain(
                NONE,
                StatusCode::INSUFFICIENT_STORAGE,
                "request_payload_exceeded_retry_buffer_limit",
                "exceeded request buffer limit while retrying upstream",
                Never,
            ),
            Self::UpgradeRefused => plain(NONE, StatusCode::FORBIDDEN, "upgrade_failed", "", Never),
            Self::ClientGone => plain(
                Flags::DC,
                StatusCode::BAD_REQUEST,
                "downstream_remote_disconnect",
                "",
                Never,
            ),
            // Envoy's codec has details of its own (`Http2ResponseCodeDetails`).
            Self::ClientReset => plain(
                Flags::DR,
                StatusCode::BAD_REQUEST,
                "http2.remote_reset",
                "",
                Never,
            ),
            Self::ClientRefused => plain(
                Flags::DR,
                StatusCode::BAD_REQUEST,
                "http2.remote_refuse",
                "",
                Never,
            ),
            Self::DirectResponse => plain(NONE, StatusCode::OK, "direct_response", "", Never),
            Self::Redirect => plain(
                NONE,
                StatusCode::MOVED_PERMANENTLY,
                "direct_response",
                "",
                Never,
            ),
            Self::CorsPreflight => plain(NONE, StatusCode::OK, "cors_response", "", Never),
            Self::Internal => plain(
                NONE,
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal_error",
                "internal error",
                Never,
            ),
        }
    }

    /// Whether the answer stands for one that should have come from an endpoint, so that it is
    /// counted for the cluster as such a one is (Envoy `Filter::chargeUpstreamCode`).
    pub fn replaces_an_answer(self) -> bool {
        match self {
            Self::NoHealthyHost
            | Self::DropOverload
            | Self::UnconditionalDrop
            | Self::RequestTimeout
            | Self::TryTimeout
            | Self::TryIdleTimeout => true,
            other => other.row().reset.is_some(),
        }
    }

    /// Whether outlier detection counts this as a failure of the endpoint itself, and as which
    /// status where local failures are not judged apart: timeouts 504, everything else 503 (Envoy
    /// reports resets as failures to connect, `Filter::onUpstreamReset`).
    pub fn local_origin(self) -> Option<u16> {
        match self {
            Self::ConnectFailed
            | Self::ConnectTimeout
            | Self::ConnectionTermination
            | Self::RemoteReset
            | Self::RemoteRefused
            | Self::UpstreamProtocol => Some(503),
            Self::RequestTimeout | Self::TryTimeout | Self::TryIdleTimeout => Some(504),
            _ => None,
        }
    }
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.row();
        f.write_str(row.reset.unwrap_or(if row.body.is_empty() {
            row.details
        } else {
            row.body
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_say_what_envoy_says() {
        // semantics: local replies, one line per situation that a user can meet.
        let rows = [
            (Failure::NoRoute, 404, "NR", "route_not_found"),
            (Failure::NoCluster, 503, "NC", "cluster_not_found"),
            (Failure::NoHealthyHost, 503, "UH", "no_healthy_upstream"),
            (Failure::RequestTimeout, 504, "UT", "response_timeout"),
            (Failure::TryTimeout, 504, "UT", "upstream_per_try_timeout"),
            (
                Failure::ConnectFailed,
                503,
                "UF",
                "upstream_reset_before_response_started",
            ),
            (
                Failure::UpstreamProtocol,
                502,
                "UPE",
                "upstream_reset_before_response_started",
            ),
            (Failure::FaultAbort(500), 500, "FI", "fault_filter_abort"),
            (Failure::RateLimited(429), 429, "RL", "local_rate_limited"),
            (
                Failure::ClientGone,
                400,
                "DC",
                "downstream_remote_disconnect",
            ),
            (Failure::ClientReset, 400, "DR", "http2.remote_reset"),
            (Failure::ClientRefused, 400, "DR", "http2.remote_refuse"),
            (
                Failure::Unauthenticated,
                401,
                "-",
                "jwt_authn_access_denied{Jwt_is_missing}",
            ),
            (
                Failure::Denied,
                403,
                "-",
                "rbac_access_denied_matched_policy[none]",
            ),
            (Failure::CheckDenied(401), 401, "UAEX", "ext_authz_denied"),
            (Failure::CheckFailed(503), 503, "UAEX", "ext_authz_error"),
            (
                Failure::PayloadTooLarge,
                413,
                "-",
                "request_payload_too_large",
            ),
        ];
        for (failure, status, flags, details) in rows {
            let row = failure.row();
            assert_eq!(row.status.as_u16(), status, "{failure:?}");
            assert_eq!(row.flags.to_string(), flags, "{failure:?}");
            assert_eq!(row.details, details, "{failure:?}");
        }
    }

    #[test]
    fn every_upstream_reset_has_a_reason_and_an_overflow_is_never_retried() {
        for failure in Failure::ALL {
            let row = failure.row();
            let is_reset = row.details == "upstream_reset_before_response_started";
            assert_eq!(row.reset.is_some(), is_reset, "{failure:?}");
        }
        assert_eq!(Failure::Overflow.row().retry, RetryClass::Never);
        assert_eq!(Failure::ConnectFailed.row().retry, RetryClass::Unsent);
    }
}
