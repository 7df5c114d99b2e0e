//! What can be wrong with a message or a connection.

use http::StatusCode;
use std::io;

/// Why a message head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// The first line is not one of HTTP/1.
    #[error("the first line is not one of HTTP/1")]
    Line,
    /// A version other than 1.0 and 1.1.
    #[error("the version is neither 1.0 nor 1.1")]
    Version,
    /// The target is no URI, or has a fragment (RFC 9112 §3.2).
    #[error("the target is not a URI without a fragment")]
    Target,
    /// The target has a form that its method does not take (RFC 9112 §3.2).
    #[error("the method does not take a target of this form")]
    TargetForm,
    /// The target's scheme is neither `http` nor `https`.
    #[error("the scheme is neither http nor https")]
    Scheme,
    /// The method is not a registered one. Servers that are strict only.
    #[error("the method is not a registered one")]
    Method,
    /// `host` is there twice, or has what no host has (RFC 9112 §3.2). Servers that are strict only.
    #[error("host is not one host")]
    Host,
    /// `connection` names what may not be removed, or too much. Servers that are strict only.
    #[error("connection names what may not be removed, or too much")]
    Connection,
    /// The target is longer than 65,534 bytes.
    #[error("the target is longer than 65534 bytes")]
    TargetTooLong,
    /// A field has a bad name.
    #[error("a field line is malformed")]
    Field,
    /// A field has a bad value, is folded, or ends in a lone CR.
    #[error("the value of a field has characters that it may not have")]
    Value,
    /// The head has more bytes than [`Limits::head`](crate::Limits::head).
    #[error("the head is too large")]
    TooLarge,
    /// The head has more fields than [`Limits::fields`](crate::Limits::fields).
    #[error("the head has too many fields")]
    TooManyFields,
    /// A CONNECT has a `content-length` other than 0 (RFC 9110 §9.3.6).
    #[error("a request for a tunnel has a body")]
    ConnectBody,
    /// `content-length` is no number, or is there more than once.
    #[error("content-length is no single number")]
    ContentLength,
    /// `content-length` and `transfer-encoding` are both there (RFC 9112 §6.3).
    #[error("content-length and transfer-encoding exclude each other")]
    TwoLengths,
    /// The server said in the middle of a head that nothing more comes.
    #[error("the connection ended before the head did")]
    Incomplete,
    /// A response that switches protocols without having been asked, or before it was asked whole,
    /// or interim responses without
    /// an end.
    #[error("a response that nobody asked for")]
    Unasked,
    /// `transfer-encoding` is not `chunked` alone, or is that of a CONNECT.
    #[error("transfer-encoding is not chunked alone")]
    TransferEncoding,
}

/// Why a message body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// A chunk's size is malformed, or does not fit into 64 bits.
    #[error("the size of a chunk is malformed")]
    ChunkSize,
    /// A chunk is not followed by CR LF.
    #[error("a chunk does not end where it says")]
    ChunkEnd,
    /// Extensions of chunks are malformed, or over 16 KiB in one message.
    #[error("the extensions of chunks are malformed or too long")]
    Extension,
    /// Trailers are malformed or over the limits of a head.
    #[error("the trailers are malformed or too long")]
    Trailers,
    /// The connection ended before the body did.
    #[error("the connection ended before the body did")]
    Incomplete,
}

/// Why a connection, or one exchange on it, failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The peer's head is refused. A server has answered it.
    #[error("a message head is refused")]
    Head(#[from] HeadError),
    /// The peer's body is refused.
    #[error("a message body is refused")]
    Body(#[from] BodyError),
    /// The socket failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// The peer closed in the middle of a head or of an exchange.
    #[error("the peer closed the connection in the middle of an exchange")]
    Closed,
    /// The connection is one of HTTP/2, and goes on as that.
    #[error("the caller speaks HTTP/2")]
    Http2,
    /// The server said something that belongs to no response.
    #[error("the server said something that nobody asked for")]
    Unasked,
    /// A head did not come within its time.
    #[error("a head took too long")]
    HeadTimeout,
    /// The service failed instead of answering.
    #[error("the service failed")]
    Service(#[source] BoxError),
    /// The body that is to be sent failed.
    #[error("the body that was being sent failed")]
    Outgoing(#[source] BoxError),
    /// The body that is to be sent is shorter than its `content-length`.
    #[error("the body that was being sent is shorter than its content-length")]
    TooShort,
}

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

// === impl HeadError ===

impl HeadError {
    /// What a server answers. As Envoy does, down to 426 for a version that it does not know.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Version => StatusCode::UPGRADE_REQUIRED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::TooLarge | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TransferEncoding => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// What the parser means.
    pub(crate) fn of(error: httparse::Error) -> Self {
        match error {
            httparse::Error::Version => Self::Version,
            httparse::Error::TooManyHeaders => Self::TooManyFields,
            httparse::Error::HeaderName => Self::Field,
            httparse::Error::HeaderValue => Self::Value,
            _ => Self::Line,
        }
    }
}

// === impl Error ===

impl Error {
    /// Whether the peer does not speak HTTP/1 as it is written.
    pub fn is_protocol(&self) -> bool {
        match self {
            Self::Head(_) | Self::Unasked => true,
            Self::Body(error) => *error != BodyError::Incomplete,
            _ => false,
        }
    }
}
