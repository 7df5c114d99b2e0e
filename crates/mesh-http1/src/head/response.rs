//! Response heads.

use super::fields::{Facts, kept};
use super::{FEW, Length, Limits, Names, check_size};
use crate::HeadError;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use std::mem::MaybeUninit;

/// A response head, and what it means for its connection.
#[derive(Debug)]
#[non_exhaustive]
pub struct ResponseHead {
    /// Status, version and fields.
    pub response: Response<()>,
    /// The body that follows.
    pub length: Length,
    /// Whether another request may be sent.
    pub keep_alive: bool,
    /// Whether the connection is no longer one of HTTP after this head.
    pub is_upgrade: bool,
    /// Bytes that the head took, empty lines before it included.
    pub len: usize,
}

/// Parses the head of a response to a request with this method. None if it goes on. Interim
/// responses (1xx) are heads like others.
///
/// The fields go into `headers`, which is given for its room and must be empty.
///
/// # Errors
/// If the head cannot be one, or is over `limits`.
pub fn response(
    input: &[u8],
    limits: &Limits,
    headers: HeaderMap,
    method: &Method,
) -> Result<Option<ResponseHead>, HeadError> {
    response_like(input, limits, headers, method, None)
}

/// As [`response`], of a head whose fields may have the same names as those before.
pub(crate) fn response_like(
    input: &[u8],
    limits: &Limits,
    headers: HeaderMap,
    method: &Method,
    names: Option<&mut Names>,
) -> Result<Option<ResponseHead>, HeadError> {
    let most = limits.most_fields();
    let mut few = [const { MaybeUninit::uninit() }; FEW];
    let mut many;
    let slots = if most <= FEW {
        &mut few[..most]
    } else {
        many = vec![MaybeUninit::uninit(); most];
        &mut many[..]
    };
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let len = match config.parse_response_with_uninit_headers(&mut parsed, input, slots) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => {
            check_size(input.len(), limits)?;
            return Ok(None);
        }
        Err(error) => return Err(HeadError::of(error)),
    };
    check_size(len, limits)?;
    let is_http10 = parsed.version == Some(0);
    let head = kept(&input[..len]);
    let mut response = Response::new(());
    *response.headers_mut() = headers;
    let facts = Facts::read(input, &head, parsed.headers, response.headers_mut(), names)?;
    let status = StatusCode::from_u16(parsed.code.unwrap_or_default());
    let status = status.map_err(|_| HeadError::Line)?;
    // RFC 9112 §6.1.
    if facts.is_chunked() && (status.is_informational() || status == StatusCode::NO_CONTENT) {
        return Err(HeadError::TransferEncoding);
    }
    *response.status_mut() = status;
    *response.version_mut() = if is_http10 {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    };
    let is_tunnel = *method == Method::CONNECT && status.is_success();
    let length = if is_tunnel || !has_body(method, status) {
        Length::NONE
    } else {
        facts.length().unwrap_or(Length::UntilClose)
    };
    Ok(Some(ResponseHead {
        keep_alive: facts.persists(is_http10) && length != Length::UntilClose,
        is_upgrade: is_tunnel || status == StatusCode::SWITCHING_PROTOCOLS,
        response,
        length,
        len,
    }))
}

/// Whether a response with this status to this method can have a body (RFC 9112 §6.3).
pub(crate) fn has_body(method: &Method, status: StatusCode) -> bool {
    *method != Method::HEAD
        && !status.is_informational()
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED
}
