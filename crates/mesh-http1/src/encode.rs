//! Messages, from `http` types to bytes. No I/O.

use crate::head::tokens;
use crate::head::{has_body, number};
use crate::output::Output;
use crate::{Buffers, Error};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri, request, response};

/// Puts a body's framing around its data.
#[derive(Debug)]
pub(crate) enum Encoder {
    /// No body is sent, whatever there is.
    Nothing,
    /// Bytes still to be sent.
    Exact(u64),
    Chunked {
        /// Whether the receiver takes trailers.
        trailers: bool,
    },
    /// Until the connection ends.
    UntilClose,
}

/// What a response has to fit to.
#[derive(Debug)]
pub(crate) struct Answered<'a> {
    pub(crate) method: &'a Method,
    pub(crate) is_http10: bool,
    pub(crate) takes_trailers: bool,
    /// The connection takes another request after this response.
    pub(crate) keep_alive: bool,
    /// Write a `date` where there is none.
    pub(crate) date: bool,
}

/// A response head was written.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) encoder: Encoder,
    pub(crate) keep_alive: bool,
}

/// Writes a response head. `exact` is the body's length, if it is known.
pub(crate) fn response(
    out: &mut Vec<u8>,
    head: &response::Parts,
    exact: Option<u64>,
    to: &Answered<'_>,
    buffers: &Buffers,
) -> Written {
    let status = head.status;
    let is_tunnel = status == StatusCode::SWITCHING_PROTOCOLS
        || (*to.method == Method::CONNECT && status.is_success());
    let declared = || declared(&head.headers);
    let encoder = if is_tunnel || !has_body(to.method, status) {
        Encoder::Nothing
    } else {
        match exact.or_else(declared) {
            Some(length) => Encoder::Exact(length),
            None if to.is_http10 => Encoder::UntilClose,
            None => Encoder::Chunked {
                trailers: to.takes_trailers,
            },
        }
    };
    let mut keep_alive = to.keep_alive && !is_tunnel && !matches!(encoder, Encoder::UntilClose);
    out.extend_from_slice(if to.is_http10 {
        b"HTTP/1.0 "
    } else {
        b"HTTP/1.1 "
    });
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut has_date = false;
    for (name, value) in &head.headers {
        match *name {
            header::CONTENT_LENGTH | header::TRANSFER_ENCODING => continue,
            header::CONNECTION => {
                keep_alive &= !closes(value);
                if !is_tunnel && is_about_closing(value) {
                    continue;
                }
            }
            header::DATE => has_date = true,
            _ => {}
        }
        field(out, name, value);
    }
    match &encoder {
        // What a GET would have got (RFC 9110 §8.6); a 304 may say it, 1xx and 204 must not.
        Encoder::Nothing
            if status == StatusCode::NOT_MODIFIED
                || (*to.method == Method::HEAD && has_body(&Method::GET, status)) =>
        {
            if let Some(length) = declared().or_else(|| exact.filter(|length| *length > 0)) {
                content_length(out, length);
            }
        }
        Encoder::Nothing | Encoder::UntilClose => {}
        Encoder::Exact(length) => content_length(out, *length),
        Encoder::Chunked { .. } => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    if !is_tunnel {
        match (keep_alive, to.is_http10) {
            (true, false) => {}
            (true, true) => out.extend_from_slice(b"connection: keep-alive\r\n"),
            (false, _) => out.extend_from_slice(b"connection: close\r\n"),
        }
    }
    if to.date && !has_date {
        out.extend_from_slice(b"date: ");
        buffers.date(out);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Written {
        encoder,
        keep_alive,
    }
}

/// Writes a request head. `exact` is the body's length, if it is known, and `trailers` whether any
/// are sent.
pub(crate) fn request(
    out: &mut Vec<u8>,
    head: &request::Parts,
    exact: Option<u64>,
    trailers: bool,
) -> Encoder {
    let encoder = match exact.or_else(|| declared(&head.headers)) {
        Some(0) => Encoder::Nothing,
        Some(length) => Encoder::Exact(length),
        // Many servers take none: only what was announced is sent (RFC 9110 §6.6.2).
        None => Encoder::Chunked {
            trailers: trailers && head.headers.contains_key(header::TRAILER),
        },
    };
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    target(out, &head.method, &head.uri);
    // Ours, whatever the caller's was (RFC 9110 §2.5).
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut says_length = false;
    for (name, value) in &head.headers {
        match *name {
            header::CONTENT_LENGTH => says_length = true,
            header::TRANSFER_ENCODING => {}
            _ => field(out, name, value),
        }
    }
    match &encoder {
        Encoder::Exact(length) => content_length(out, *length),
        Encoder::Chunked { .. } => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        // Where there is none, a server may ask for it (RFC 9110 §8.6), so what is said is kept.
        _ if says_length && declared(&head.headers).is_some() => content_length(out, 0),
        _ => {}
    }
    out.extend_from_slice(b"\r\n");
    encoder
}

/// The target as its method wants it (RFC 9112 §3.2).
fn target(out: &mut Vec<u8>, method: &Method, uri: &Uri) {
    if let Some(scheme) = uri.scheme_str()
        && *method != Method::CONNECT
    {
        out.extend_from_slice(scheme.as_bytes());
        out.extend_from_slice(b"://");
    }
    if let Some(authority) = uri.authority() {
        out.extend_from_slice(authority.as_str().as_bytes());
    }
    if *method == Method::CONNECT && uri.authority().is_some() {
        return;
    }
    match uri.path_and_query() {
        Some(path) => out.extend_from_slice(path.as_str().as_bytes()),
        None if uri.authority().is_none() => out.push(b'/'),
        None => {}
    }
}

fn field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn content_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The length that the fields say, if they do in one way.
fn declared(headers: &HeaderMap) -> Option<u64> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let first = number(values.next()?.as_bytes()).ok()?;
    let same = |value: &HeaderValue| number(value.as_bytes()) == Ok(first);
    values.all(same).then_some(first)
}

/// Whether a `connection` says that it closes.
fn closes(value: &HeaderValue) -> bool {
    tokens(value.as_bytes()).any(|option| option.eq_ignore_ascii_case(b"close"))
}

/// Whether a `connection` says only what is ours to say.
fn is_about_closing(value: &HeaderValue) -> bool {
    tokens(value.as_bytes()).all(|option| {
        option.eq_ignore_ascii_case(b"close") || option.eq_ignore_ascii_case(b"keep-alive")
    })
}

// === impl Encoder ===

impl Encoder {
    /// Whether nothing may follow: what is left of the body is not sent.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Nothing | Self::Exact(0))
    }

    /// Appends data. What is beyond the length that was said is left out.
    /// Nothing is appended behind the `last`.
    pub(crate) fn data(
        &mut self,
        out: &mut Output,
        buffers: &Buffers,
        mut data: Bytes,
        last: bool,
    ) {
        if data.is_empty() {
            return;
        }
        match self {
            Self::Nothing => {}
            Self::Exact(left) => {
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= data.len() as u64;
                if !data.is_empty() {
                    out.push(buffers, data, b"");
                }
            }
            Self::Chunked { .. } => {
                size(out.buffer(buffers), data.len());
                if last {
                    out.push(buffers, data, b"\r\n0\r\n\r\n");
                    *self = Self::Nothing;
                } else {
                    out.push(buffers, data, b"\r\n");
                }
            }
            Self::UntilClose => out.push(buffers, data, b""),
        }
    }

    /// Appends what says that the body is over. Only if there is room.
    ///
    /// # Errors
    /// If less than was said was sent.
    pub(crate) fn end(
        &self,
        out: &mut Output,
        buffers: &Buffers,
        trailers: Option<HeaderMap>,
    ) -> Result<(), Error> {
        match self {
            Self::Exact(1..) => Err(Error::TooShort),
            Self::Chunked { trailers: wanted } => {
                let out = out.buffer(buffers);
                out.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.iter().filter(|_| *wanted).flatten() {
                    field(out, name, value);
                }
                out.extend_from_slice(b"\r\n");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// A chunk's size, in hexadecimal digits.
fn size(out: &mut Vec<u8>, size: usize) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for at in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(size >> (4 * at)) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
