//! The chunked transfer coding (RFC 9112 §7.1).
//!
//! Lines end in CR LF and nothing else. Extensions are skipped: nobody agreed on any.

use super::Decoded;
use crate::{BodyError, Limits};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Bytes of extensions in one message, all chunks together.
const MOST_EXTENSIONS: u32 = 16 << 10;

/// Bytes of trailers, whatever a head may have.
const MOST_TRAILERS: usize = 16 << 10;

/// Fields that would change what a message is, were they believed at its end (RFC 9110 §6.5.1).
const NEVER_TRAILERS: [HeaderName; 8] = [
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::HOST,
    header::CONNECTION,
    header::UPGRADE,
    header::TRAILER,
    header::TE,
    header::EXPECT,
];

/// A body in chunks, between two pieces of input.
#[derive(Debug)]
pub(super) struct Chunked {
    phase: Phase,
    /// Of the chunk: bytes to come, or what was read of the number.
    left: u64,
    extensions: u32,
    trailers: Vec<u8>,
    most_trailers: usize,
    most_fields: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing of a size was read.
    Start,
    /// Digits, so many.
    Size(u8),
    /// White space behind the digits.
    Space,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
}

// === impl Chunked ===

impl Chunked {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            phase: Phase::Start,
            left: 0,
            extensions: 0,
            trailers: Vec::new(),
            most_trailers: limits.head.min(MOST_TRAILERS),
            most_fields: limits.most_fields(),
        }
    }

    pub(super) fn expected(&self) -> u64 {
        match self.phase {
            Phase::Data => self.left,
            _ => 0,
        }
    }

    pub(super) fn ends(&self, input: &[u8]) -> Option<usize> {
        const LAST: &[u8] = b"\r\n0\r\n\r\n";
        (self.phase == Phase::DataCr && input.starts_with(LAST)).then_some(LAST.len())
    }

    pub(super) fn decode(&mut self, input: &[u8]) -> Result<Decoded, BodyError> {
        let mut at = 0;
        while let Some(byte) = input.get(at) {
            match self.phase {
                Phase::Data => {
                    let len = usize::try_from(self.left).unwrap_or(usize::MAX);
                    let len = len.min(input.len() - at);
                    self.left -= len as u64;
                    if self.left == 0 {
                        self.phase = Phase::DataCr;
                    }
                    return Ok(Decoded::Data { skip: at, len });
                }
                Phase::Trailers => {
                    if self.trailer(*byte)? {
                        let trailers = self.fields()?;
                        return Ok(Decoded::End {
                            skip: at + 1,
                            trailers,
                        });
                    }
                }
                _ => self.step(*byte)?,
            }
            at += 1;
        }
        Ok(Decoded::More { skip: input.len() })
    }

    /// A byte of the framing around data.
    fn step(&mut self, byte: u8) -> Result<(), BodyError> {
        self.phase = match (self.phase, byte) {
            (Phase::Start, _) => self.digit(byte, 0)?,
            (Phase::Size(_) | Phase::Space, b' ' | b'\t') => {
                self.extension()?;
                Phase::Space
            }
            (Phase::Size(_) | Phase::Space, b';') => Phase::Extension,
            (Phase::Size(_) | Phase::Space | Phase::Extension, b'\r') => Phase::SizeLf,
            (Phase::Size(digits), _) => self.digit(byte, digits)?,
            (Phase::Space, _) => return Err(BodyError::ChunkSize),
            (Phase::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extension()?;
                Phase::Extension
            }
            (Phase::Extension, _) => return Err(BodyError::Extension),
            (Phase::SizeLf, b'\n') if self.left == 0 => Phase::Trailers,
            (Phase::SizeLf, b'\n') => Phase::Data,
            (Phase::SizeLf, _) => return Err(BodyError::ChunkSize),
            (Phase::DataCr, b'\r') => Phase::DataLf,
            (Phase::DataLf, b'\n') => Phase::Start,
            (Phase::DataCr | Phase::DataLf, _) => return Err(BodyError::ChunkEnd),
            // Not steps: `decode` takes them.
            (phase @ (Phase::Data | Phase::Trailers), _) => phase,
        };
        Ok(())
    }

    fn digit(&mut self, byte: u8, digits: u8) -> Result<Phase, BodyError> {
        let digit = char::from(byte).to_digit(16).ok_or(BodyError::ChunkSize)?;
        // Leading zeros count, too: a number does not go on for ever.
        if digits == 16 {
            return Err(BodyError::ChunkSize);
        }
        self.left = self.left << 4 | u64::from(digit);
        Ok(Phase::Size(digits + 1))
    }

    fn extension(&mut self) -> Result<(), BodyError> {
        self.extensions += 1;
        if self.extensions > MOST_EXTENSIONS {
            return Err(BodyError::Extension);
        }
        Ok(())
    }

    /// Takes a byte behind the last chunk. Returns whether it is the last.
    fn trailer(&mut self, byte: u8) -> Result<bool, BodyError> {
        let after_cr = self.trailers.last() == Some(&b'\r');
        if (byte == b'\n') != after_cr || self.trailers.len() >= self.most_trailers {
            return Err(BodyError::Trailers);
        }
        self.trailers.push(byte);
        Ok(byte == b'\n' && (self.trailers.len() == 2 || self.trailers.ends_with(b"\r\n\r\n")))
    }

    fn fields(&mut self) -> Result<Option<HeaderMap>, BodyError> {
        if self.trailers.len() == 2 {
            return Ok(None);
        }
        let text = std::mem::take(&mut self.trailers);
        let mut slots = vec![httparse::EMPTY_HEADER; self.most_fields];
        let Ok(httparse::Status::Complete((_, fields))) =
            httparse::parse_headers(&text, &mut slots)
        else {
            return Err(BodyError::Trailers);
        };
        let mut trailers = HeaderMap::with_capacity(fields.len());
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes());
            let name = name.map_err(|_| BodyError::Trailers)?;
            let value = HeaderValue::from_bytes(field.value).map_err(|_| BodyError::Trailers)?;
            if !NEVER_TRAILERS.contains(&name) {
                trailers.append(name, value);
            }
        }
        Ok(Some(trailers))
    }
}
