//! What requests and responses have in common: their fields, and what these say of the body.

use super::Length;
use super::names::{Names, Role};
use crate::HeadError;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};

/// What the fields of a head say about the message and its connection.
#[derive(Debug, Default)]
pub(super) struct Facts {
    length: Option<u64>,
    chunked: bool,
    pub(super) connection: bool,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) connection_upgrade: bool,
    pub(super) upgrade: bool,
    pub(super) expects_continue: bool,
    pub(super) te_trailers: bool,
}

// === impl Facts ===

impl Facts {
    /// Puts the parsed fields of `input` into `headers`, which share `head`, a copy of its front.
    pub(super) fn read(
        input: &[u8],
        head: &Bytes,
        fields: &[httparse::Header<'_>],
        headers: &mut HeaderMap,
        mut names: Option<&mut Names>,
    ) -> Result<Self, HeadError> {
        let mut facts = Self::default();
        headers.reserve(fields.len());
        for (at, field) in fields.iter().enumerate() {
            let text = field.name.as_bytes();
            let (name, role) = match &mut names {
                Some(names) => names.name(at, text)?,
                None => Names::made(text)?,
            };
            let value = HeaderValue::from_maybe_shared(part(input, head, field.value))
                .map_err(|_| HeadError::Value)?;
            facts.note(role, field.value)?;
            // A full map is an error, not a panic.
            headers
                .try_append(name, value)
                .map_err(|_| HeadError::TooManyFields)?;
        }
        if facts.chunked && facts.length.is_some() {
            return Err(HeadError::TwoLengths);
        }
        Ok(facts)
    }

    fn note(&mut self, role: Role, value: &[u8]) -> Result<(), HeadError> {
        match role {
            Role::None => {}
            Role::ContentLength => {
                // RFC 9110 §8.6 lets us refuse a repetition; Envoy does.
                let length = number(value)?;
                if self.length.replace(length).is_some() {
                    return Err(HeadError::ContentLength);
                }
            }
            Role::TransferEncoding => {
                // Nothing else is implemented (RFC 9112 §6.1), and a second line would be one
                // more coding.
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(HeadError::TransferEncoding);
                }
                self.chunked = true;
            }
            Role::Connection => {
                self.connection = true;
                for option in tokens(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                }
            }
            Role::Upgrade => self.upgrade = true,
            Role::Expect => {
                self.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
            }
            Role::Te => {
                self.te_trailers |= tokens(value).any(|te| te.eq_ignore_ascii_case(b"trailers"));
            }
        }
        Ok(())
    }

    /// What the fields say of the body, if they do.
    pub(super) fn length(&self) -> Option<Length> {
        if self.chunked {
            return Some(Length::Chunked);
        }
        self.length.map(Length::Exact)
    }

    pub(super) fn is_chunked(&self) -> bool {
        self.chunked
    }

    /// Whether another message may follow (RFC 9112 §9.3). Behind chunks in HTTP/1.0, which has none,
    /// nothing may (§6.1).
    pub(super) fn persists(&self, is_http10: bool) -> bool {
        !self.close && (!is_http10 || (self.keep_alive && !self.chunked))
    }

    /// Both fields that it takes are there (RFC 9110 §7.8).
    pub(super) fn switches(&self) -> bool {
        self.upgrade && self.connection_upgrade
    }
}

/// A head that parts will be taken of. `Bytes` of a copy take a second allocation with the first part.
pub(super) fn kept(head: &[u8]) -> Bytes {
    match Short::of(head) {
        Some(short) => Bytes::from_owner(short),
        None => Bytes::copy_from_slice(head),
    }
}

/// A head that lies where it is counted.
struct Short {
    bytes: [u8; SHORT],
    length: usize,
}

/// Most heads of responses are shorter, and few of requests of browsers.
const SHORT: usize = 256;

// === impl Short ===

impl Short {
    fn of(head: &[u8]) -> Option<Self> {
        let mut bytes = [0; SHORT];
        bytes.get_mut(..head.len())?.copy_from_slice(head);
        let length = head.len();
        Some(Self { bytes, length })
    }
}

impl AsRef<[u8]> for Short {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The part of `head` that is where `slice` is in `input`.
pub(super) fn part(input: &[u8], head: &Bytes, slice: &[u8]) -> Bytes {
    if slice.is_empty() {
        return Bytes::new();
    }
    let start = slice.as_ptr() as usize - input.as_ptr() as usize;
    head.slice(start..start + slice.len())
}

/// The options in a list (RFC 9110 §5.6.1).
pub(crate) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// A number of digits and nothing else (RFC 9110 §8.6), up to 64 bits.
pub(crate) fn number(value: &[u8]) -> Result<u64, HeadError> {
    if value.is_empty() {
        return Err(HeadError::ContentLength);
    }
    value
        .iter()
        .try_fold(0u64, |number, byte| {
            let digit = byte.wrapping_sub(b'0');
            let more = number.checked_mul(10)?.checked_add(u64::from(digit))?;
            (digit < 10).then_some(more)
        })
        .ok_or(HeadError::ContentLength)
}
