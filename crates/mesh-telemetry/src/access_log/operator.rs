//! The operators of an access log format, and how each is read from its name and argument.

use super::time::TimeFormat;
use super::tls::TlsField;
use http::HeaderName;
use mesh_core::Invalid;

/// One `%OPERATOR%`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    StartTime(TimeFormat),
    Request(Field, Option<Field>),
    Response(Field, Option<Field>),
    Trailer(HeaderName, Option<HeaderName>),
    Protocol,
    UpstreamProtocol,
    ResponseCode,
    ResponseCodeDetails,
    /// Only connections of plain TCP end with details, and only those that a policy denies.
    ConnectionTerminationDetails,
    ResponseFlags,
    BytesReceived,
    BytesSent,
    Duration,
    RequestDuration,
    ResponseDuration,
    ResponseTxDuration,
    UpstreamHost,
    UpstreamCluster,
    UpstreamClusterRaw,
    UpstreamLocalAddress,
    UpstreamRemoteAddress,
    UpstreamTransportFailureReason,
    UpstreamRequestAttemptCount,
    DownstreamRemoteAddress(Port),
    DownstreamDirectRemoteAddress(Port),
    DownstreamLocalAddress(Port),
    DownstreamLocalPort,
    RequestedServerName,
    FilterChainName,
    Tls(TlsField),
    RouteName,
    GrpcStatus(Spelling),
    Hostname,
}

/// A header or pseudo-header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Method,
    Path,
    Authority,
    Scheme,
    Status,
    Header(HeaderName),
}

/// Whether an address is written with its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Written,
    LeftOut,
}

/// How a gRPC status is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    Camel,
    Snake,
    Number,
}

// === impl Operator ===

impl Operator {
    /// Reads an operator. `argument` is what stood between parentheses.
    pub(super) fn parse(name: &str, argument: Option<&str>) -> Result<Self, Invalid> {
        let operator = match name {
            "START_TIME" => return Ok(Self::StartTime(TimeFormat::parse(argument.unwrap_or(""))?)),
            "REQ" => {
                let (first, second) = alternatives(name, argument)?;
                let second = second.map(Field::of_request).transpose()?;
                return Ok(Self::Request(Field::of_request(first)?, second));
            }
            "RESP" => {
                let (first, second) = alternatives(name, argument)?;
                let second = second.map(Field::of_response).transpose()?;
                return Ok(Self::Response(Field::of_response(first)?, second));
            }
            "TRAILER" => {
                let (first, second) = alternatives(name, argument)?;
                return Ok(Self::Trailer(
                    header(first)?,
                    second.map(header).transpose()?,
                ));
            }
            "GRPC_STATUS" => return Ok(Self::GrpcStatus(Spelling::parse(argument)?)),
            "GRPC_STATUS_NUMBER" => Self::GrpcStatus(Spelling::Number),
            "PROTOCOL" => Self::Protocol,
            "UPSTREAM_PROTOCOL" => Self::UpstreamProtocol,
            "RESPONSE_CODE" => Self::ResponseCode,
            "RESPONSE_CODE_DETAILS" => Self::ResponseCodeDetails,
            "CONNECTION_TERMINATION_DETAILS" => Self::ConnectionTerminationDetails,
            "RESPONSE_FLAGS" => Self::ResponseFlags,
            "BYTES_RECEIVED" => Self::BytesReceived,
            "BYTES_SENT" => Self::BytesSent,
            "DURATION" => Self::Duration,
            "REQUEST_DURATION" => Self::RequestDuration,
            "RESPONSE_DURATION" => Self::ResponseDuration,
            "RESPONSE_TX_DURATION" => Self::ResponseTxDuration,
            "UPSTREAM_HOST" => Self::UpstreamHost,
            "UPSTREAM_CLUSTER" => Self::UpstreamCluster,
            "UPSTREAM_CLUSTER_RAW" => Self::UpstreamClusterRaw,
            "UPSTREAM_LOCAL_ADDRESS" => Self::UpstreamLocalAddress,
            "UPSTREAM_REMOTE_ADDRESS" => Self::UpstreamRemoteAddress,
            "UPSTREAM_TRANSPORT_FAILURE_REASON" => Self::UpstreamTransportFailureReason,
            "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Self::UpstreamRequestAttemptCount,
            "DOWNSTREAM_REMOTE_ADDRESS" => Self::DownstreamRemoteAddress(Port::Written),
            "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => {
                Self::DownstreamRemoteAddress(Port::LeftOut)
            }
            "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => {
                Self::DownstreamDirectRemoteAddress(Port::Written)
            }
            "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => {
                Self::DownstreamDirectRemoteAddress(Port::LeftOut)
            }
            "DOWNSTREAM_LOCAL_ADDRESS" => Self::DownstreamLocalAddress(Port::Written),
            "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Self::DownstreamLocalAddress(Port::LeftOut),
            "DOWNSTREAM_LOCAL_PORT" => Self::DownstreamLocalPort,
            "REQUESTED_SERVER_NAME" => Self::RequestedServerName,
            "ROUTE_NAME" => Self::RouteName,
            "FILTER_CHAIN_NAME" => Self::FilterChainName,
            "HOSTNAME" => Self::Hostname,
            _ => match TlsField::of(name) {
                Some(field) => Self::Tls(field),
                None => return Err(Invalid::new("", format!("unknown operator {name}"))),
            },
        };
        match argument {
            None => Ok(operator),
            Some(_) => Err(Invalid::new("", format!("{name} takes no argument"))),
        }
    }
}

// === impl Field ===

impl Field {
    fn of_request(text: &str) -> Result<Self, Invalid> {
        if !text.starts_with(':') {
            return header(text).map(Self::Header);
        }
        match text.to_ascii_lowercase().as_str() {
            ":method" => Ok(Self::Method),
            ":path" => Ok(Self::Path),
            ":authority" => Ok(Self::Authority),
            ":scheme" => Ok(Self::Scheme),
            _ => Err(unknown_pseudo(
                text,
                ":METHOD, :PATH, :AUTHORITY or :SCHEME",
            )),
        }
    }

    fn of_response(text: &str) -> Result<Self, Invalid> {
        if !text.starts_with(':') {
            return header(text).map(Self::Header);
        }
        if text.eq_ignore_ascii_case(":status") {
            return Ok(Self::Status);
        }
        Err(unknown_pseudo(text, ":STATUS"))
    }
}

fn unknown_pseudo(text: &str, expected: &str) -> Invalid {
    Invalid::new(
        "",
        format!("{text} is not a pseudo-header here, expected {expected}"),
    )
}

/// Splits `X?Y`: the second is used when the first is missing.
fn alternatives<'a>(
    name: &str,
    argument: Option<&'a str>,
) -> Result<(&'a str, Option<&'a str>), Invalid> {
    let argument = argument.unwrap_or("");
    let mut parts = argument.split('?');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(first), second, None) if !first.is_empty() => Ok((first, second)),
        (_, _, Some(_)) => Err(Invalid::new(
            "",
            format!("{name} takes at most one alternative"),
        )),
        _ => Err(Invalid::new(
            "",
            format!("{name} needs the name of a header"),
        )),
    }
}

fn header(text: &str) -> Result<HeaderName, Invalid> {
    HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| Invalid::new("", format!("{text:?} is not the name of a header")))
}

// === impl Spelling ===

impl Spelling {
    fn parse(argument: Option<&str>) -> Result<Self, Invalid> {
        match argument {
            None | Some("" | "CAMEL_STRING") => Ok(Self::Camel),
            Some("SNAKE_STRING") => Ok(Self::Snake),
            Some("NUMBER") => Ok(Self::Number),
            Some(other) => Err(Invalid::new(
                "",
                format!("GRPC_STATUS takes CAMEL_STRING, SNAKE_STRING or NUMBER, not {other:?}"),
            )),
        }
    }

    /// The name of a status; none for numbers that gRPC does not define.
    pub(super) fn name(self, status: u32) -> Option<&'static str> {
        const NAMES: [(&str, &str); 17] = [
            ("OK", "OK"),
            ("Canceled", "CANCELLED"),
            ("Unknown", "UNKNOWN"),
            ("InvalidArgument", "INVALID_ARGUMENT"),
            ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
            ("NotFound", "NOT_FOUND"),
            ("AlreadyExists", "ALREADY_EXISTS"),
            ("PermissionDenied", "PERMISSION_DENIED"),
            ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
            ("FailedPrecondition", "FAILED_PRECONDITION"),
            ("Aborted", "ABORTED"),
            ("OutOfRange", "OUT_OF_RANGE"),
            ("Unimplemented", "UNIMPLEMENTED"),
            ("Internal", "INTERNAL"),
            ("Unavailable", "UNAVAILABLE"),
            ("DataLoss", "DATA_LOSS"),
            ("Unauthenticated", "UNAUTHENTICATED"),
        ];
        let (camel, snake) = NAMES.get(usize::try_from(status).ok()?)?;
        match self {
            Self::Camel => Some(camel),
            Self::Snake => Some(snake),
            Self::Number => None,
        }
    }
}
