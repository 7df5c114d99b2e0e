//! Message bodies, from bytes to data and trailers. No I/O.

mod chunked;

use self::chunked::Chunked;
use crate::{BodyError, Length, Limits};
use http::HeaderMap;

/// Finds a body's data between its framing.
#[derive(Debug)]
pub struct Decoder(State);

#[derive(Debug)]
enum State {
    Exact(u64),
    Chunked(Chunked),
    UntilClose,
    Done,
}

/// What the front of the input is.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Framing, then data. Both are consumed.
    Data {
        /// Bytes of framing.
        skip: usize,
        /// Bytes of data behind them; at least one.
        len: usize,
    },
    /// All of it is framing, and is consumed. More input is needed.
    More {
        /// Bytes of framing: all that there are.
        skip: usize,
    },
    /// The body ends here.
    End {
        /// Bytes of framing.
        skip: usize,
        /// What came behind the last chunk, if anything.
        trailers: Option<HeaderMap>,
    },
}

// === impl Decoder ===

impl Decoder {
    /// For a body of this length. Trailers may be as long as `limits` let a head be, and not over
    /// 16 KiB.
    pub fn new(length: Length, limits: &Limits) -> Self {
        Self(match length {
            Length::Exact(0) => State::Done,
            Length::Exact(length) => State::Exact(length),
            Length::Chunked => State::Chunked(Chunked::new(limits)),
            Length::UntilClose => State::UntilClose,
        })
    }

    /// Of no body.
    pub(crate) fn done() -> Self {
        Self(State::Done)
    }

    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        matches!(self.0, State::Done)
    }

    /// Looks at the front of what is not yet consumed. What is returned is consumed.
    ///
    /// # Errors
    /// If it cannot be part of the body. Nothing may be decoded after that.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, BodyError> {
        match &mut self.0 {
            State::Done => Ok(Decoded::End {
                skip: 0,
                trailers: None,
            }),
            State::Exact(_) | State::UntilClose if input.is_empty() => {
                Ok(Decoded::More { skip: 0 })
            }
            State::Exact(left) => {
                let len = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(input.len());
                *left -= len as u64;
                if *left == 0 {
                    self.0 = State::Done;
                }
                Ok(Decoded::Data { skip: 0, len })
            }
            State::UntilClose => Ok(Decoded::Data {
                skip: 0,
                len: input.len(),
            }),
            State::Chunked(chunked) => {
                let decoded = chunked.decode(input)?;
                if matches!(decoded, Decoded::End { .. }) {
                    self.0 = State::Done;
                }
                Ok(decoded)
            }
        }
    }

    /// Whether the body ends right here without trailers: the bytes that say so, which are then
    /// consumed. Only for input that was not looked at.
    pub(crate) fn ends(&mut self, input: &[u8]) -> Option<usize> {
        let skip = match &self.0 {
            State::Done => 0,
            State::Chunked(chunked) => chunked.ends(input)?,
            State::Exact(_) | State::UntilClose => return None,
        };
        self.0 = State::Done;
        Some(skip)
    }

    /// The connection ended.
    ///
    /// # Errors
    /// If the body does not end with it.
    pub fn close(&mut self) -> Result<(), BodyError> {
        match self.0 {
            State::UntilClose | State::Done => {
                self.0 = State::Done;
                Ok(())
            }
            State::Exact(_) | State::Chunked(_) => Err(BodyError::Incomplete),
        }
    }

    /// Room for the next read: for what is known to come, up to `most`, and otherwise as usual.
    pub(crate) fn room(&self, usual: usize, most: usize) -> usize {
        let known = |bytes: u64| usize::try_from(bytes).unwrap_or(most).min(most);
        match &self.0 {
            State::Exact(left) => known(*left),
            State::Chunked(chunked) => known(chunked.expected()).max(usual),
            State::UntilClose | State::Done => usual,
        }
    }
}

#[cfg(test)]
mod tests;
