//! Request heads.

use super::fields::{Facts, kept, part};
use super::{FEW, Length, Limits, Names, check_size};
use crate::HeadError;
use http::{HeaderMap, Method, Request, Uri, Version};
use std::mem::MaybeUninit;

/// The longest target that [`Uri`] takes.
const MOST_TARGET: usize = u16::MAX as usize - 1;

/// A request head, and what it means for its connection.
#[derive(Debug)]
#[non_exhaustive]
pub struct RequestHead {
    /// Method, target, version and fields.
    pub request: Request<()>,
    /// The body that follows.
    pub length: Length,
    /// Whether the caller may send another request.
    pub keep_alive: bool,
    /// Whether the caller waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Whether the caller wants to switch to another protocol, or asks for a tunnel.
    pub wants_upgrade: bool,
    /// Whether the caller takes trailers (`te: trailers`).
    pub takes_trailers: bool,
    /// Bytes that the head took, empty lines before it included.
    pub len: usize,
    /// Whether there is a `connection`.
    pub(crate) names_options: bool,
}

/// Parses the request head that `input` begins with. None if it goes on.
///
/// The fields go into `headers`, which is given for its room and must be empty.
///
/// # Errors
/// If the head cannot be one, or is over `limits`.
pub fn request(
    input: &[u8],
    limits: &Limits,
    headers: HeaderMap,
) -> Result<Option<RequestHead>, HeadError> {
    request_like(input, limits, headers, None)
}

/// As [`request`], of a head whose fields may have the same names as those before.
pub(crate) fn request_like(
    input: &[u8],
    limits: &Limits,
    headers: HeaderMap,
    names: Option<&mut Names>,
) -> Result<Option<RequestHead>, HeadError> {
    let most = limits.most_fields();
    let mut few = [const { MaybeUninit::uninit() }; FEW];
    let mut many;
    let slots = if most <= FEW {
        &mut few[..most]
    } else {
        many = vec![MaybeUninit::uninit(); most];
        &mut many[..]
    };
    let mut parsed = httparse::Request::new(&mut []);
    let len = match parsed.parse_with_uninit_headers(input, slots) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => {
            check_size(input.len(), limits)?;
            return Ok(None);
        }
        // What is wrong with a token before the version is wrong with the method or the target.
        Err(httparse::Error::Token) if parsed.method.is_some() => {
            return Err(if has_no_version(input) {
                HeadError::Version
            } else {
                HeadError::Target
            });
        }
        Err(httparse::Error::Version) => match names_a_version(input) {
            Some(true) => return Err(HeadError::Version),
            Some(false) => return Err(HeadError::Line),
            None => {
                check_size(input.len(), limits)?;
                return Ok(None);
            }
        },
        Err(error) => return Err(HeadError::of(error)),
    };
    check_size(len, limits)?;
    let is_http10 = parsed.version == Some(0);
    let target = parsed.path.unwrap_or_default().as_bytes();
    if target.len() > MOST_TARGET {
        return Err(HeadError::TargetTooLong);
    }
    if target.contains(&b'#') {
        return Err(HeadError::Target);
    }
    let head = kept(&input[..len]);
    let mut request = Request::new(());
    *request.headers_mut() = headers;
    let facts = Facts::read(input, &head, parsed.headers, request.headers_mut(), names)?;
    *request.method_mut() = Method::from_bytes(parsed.method.unwrap_or_default().as_bytes())
        .map_err(|_| HeadError::Line)?;
    *request.uri_mut() =
        Uri::from_maybe_shared(part(input, &head, target)).map_err(|_| HeadError::Target)?;
    *request.version_mut() = if is_http10 {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    };
    if request.uri().path_and_query().is_none() && request.method() != Method::CONNECT {
        // An authority alone is a tunnel's (RFC 9112 §3.2.3).
        return Err(HeadError::Target);
    }
    let length = facts.length().unwrap_or(Length::NONE);
    if request.method() == Method::CONNECT {
        // It has no body (RFC 9110 §9.3.6): what follows is the tunnel's.
        match length {
            Length::NONE => {}
            Length::Exact(_) => return Err(HeadError::ConnectBody),
            _ => return Err(HeadError::TransferEncoding),
        }
    }
    Ok(Some(RequestHead {
        length,
        keep_alive: facts.persists(is_http10),
        expects_continue: facts.expects_continue && !is_http10,
        wants_upgrade: request.method() == Method::CONNECT || (facts.switches() && !is_http10),
        takes_trailers: facts.te_trailers,
        names_options: facts.connection,
        request,
        len,
    }))
}

/// Whether the first line has a method, a target and nothing else: that is HTTP/0.9.
fn has_no_version(input: &[u8]) -> bool {
    let line = input.trim_ascii_start();
    let end = line.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    end.is_some_and(|end| {
        let mut parts = line[..end].split(|byte| *byte == b' ');
        parts.next().is_some()
            && parts.next().is_some_and(|target| {
                // What cannot be in a target is seen before its line has ended.
                !target.is_empty() && !target.iter().any(u8::is_ascii_control)
            })
            && parts.next().is_none()
    })
}

/// Whether the first line, which is not of HTTP/1.0 or 1.1, names another version of HTTP. None if
/// its beginning may still become that.
fn names_a_version(input: &[u8]) -> Option<bool> {
    let line = input.trim_ascii_start();
    let end = line.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let whole = &line[..end.unwrap_or(line.len())];
    // What comes behind the method and the target, further spaces included: a line that is wrong
    // stays so, whatever follows.
    let version = whole
        .splitn(3, |byte| *byte == b' ')
        .nth(2)
        .unwrap_or_default();
    let fits = version
        .iter()
        .zip(b"HTTP/0.0")
        .all(|(byte, like)| match like {
            b'0' => byte.is_ascii_digit(),
            _ => byte == like,
        });
    match (fits, version.len() < 8, end) {
        (true, true, None) => None,
        (true, false, _) => Some(true),
        _ => Some(false),
    }
}
