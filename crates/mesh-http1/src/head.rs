//! Message heads, from bytes to `http` types. No I/O.
//!
//! Lines end in CR LF; a lone LF is taken for it, as RFC 9112 §2.2 allows and Envoy does; a lone CR
//! is refused, as folded lines are. A head's bytes are copied once, into a buffer of exactly their
//! size that its fields share: what is read into is free again at once.

mod fields;
mod names;
mod request;
mod response;

pub(crate) use self::fields::{number, tokens};
pub(crate) use self::names::Names;
pub(crate) use self::request::request_like;
pub use self::request::{RequestHead, request};
pub use self::response::{ResponseHead, response};
pub(crate) use self::response::{has_body, response_like};

use crate::HeadError;

/// What a peer may ask of us in one head.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a head. Default: 60 KiB, as Envoy's `max_request_headers_kb`.
    pub head: usize,
    /// Fields of a head, and of trailers. Default: 100, as Envoy's `max_headers_count`.
    pub fields: usize,
}

/// How long a message's body is (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// This many bytes.
    Exact(u64),
    /// As its chunks say.
    Chunked,
    /// Until the connection ends. Responses only.
    UntilClose,
}

/// More fields than this are beyond what a header map takes.
const MOST_FIELDS: usize = 8192;

/// Fields that are parsed without an allocation.
const FEW: usize = 100;

// === impl Limits ===

impl Limits {
    /// Limits of so many bytes and so many fields. More than 8192 fields are never taken.
    pub fn of(head: usize, fields: usize) -> Self {
        Self { head, fields }
    }

    pub(crate) fn most_fields(&self) -> usize {
        self.fields.min(MOST_FIELDS)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::of(60 << 10, 100)
    }
}

// === impl Length ===

impl Length {
    /// No byte at all.
    pub const NONE: Self = Self::Exact(0);
}

/// Whether `input` may hold a whole head, when it is known that its first `scanned` bytes do not.
/// Looks at new bytes only: a head that comes byte by byte is not parsed as often.
pub(crate) fn may_be_whole(input: &[u8], scanned: usize) -> bool {
    if scanned == 0 {
        return true;
    }
    let new = &input[scanned.saturating_sub(3).min(input.len())..];
    let mut lines = new.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    lines.any(|(at, _)| {
        let behind = &new[at + 1..];
        behind.starts_with(b"\n") || behind.starts_with(b"\r\n")
    })
}

/// Whether `len` bytes without an end are too many.
fn check_size(len: usize, limits: &Limits) -> Result<(), HeadError> {
    if len > limits.head {
        return Err(HeadError::TooLarge);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
