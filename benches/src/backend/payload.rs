//! Bodies of the backend: bytes that are shared, or messages of gRPC with trailers.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// How many messages a stream has at most, whatever is asked for.
const MOST: u32 = 1_000_000;

#[derive(Debug)]
pub(crate) enum Payload {
    /// All at once.
    Whole(Option<Bytes>),
    /// What comes in, then gRPC's trailers.
    Echo(Incoming),
    /// Many messages of one kind, then gRPC's trailers.
    Messages(Messages),
    /// Nothing is left.
    Over,
}

/// A server stream of gRPC.
#[derive(Debug)]
pub(crate) struct Messages {
    message: Bytes,
    left: State,
}

#[derive(Debug)]
enum State {
    /// The request says how many, in decimal; what of it has come is added up.
    Asking {
        request: Incoming,
        seen: usize,
        number: u32,
    },
    Sending(u32),
}

// === impl Payload ===

impl Payload {
    pub(crate) fn of(bytes: &Bytes) -> Self {
        Self::Whole(Some(bytes.clone()))
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let next = match &mut *self {
            Self::Whole(bytes) => return Poll::Ready(bytes.take().map(|it| Ok(Frame::data(it)))),
            Self::Echo(request) => data(ready!(Pin::new(request).poll_frame(context))),
            Self::Messages(messages) => ready!(messages.poll_next(context)).map(|it| it.map(Some)),
            Self::Over => return Poll::Ready(None),
        };
        Poll::Ready(Some(match next {
            Some(Ok(Some(bytes))) => Ok(Frame::data(bytes)),
            // Trailers of the request say nothing that is to come back.
            Some(Ok(None)) => Ok(Frame::data(Bytes::new())),
            Some(Err(error)) => Err(error),
            None => {
                self.set(Self::Over);
                Ok(Frame::trailers(good()))
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None) | Self::Over)
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Self::Whole(None) | Self::Over => SizeHint::with_exact(0),
            Self::Echo(_) | Self::Messages(_) => SizeHint::default(),
        }
    }
}

/// The bytes of a frame, if it has some.
#[allow(clippy::type_complexity)]
fn data(
    frame: Option<Result<Frame<Bytes>, hyper::Error>>,
) -> Option<Result<Option<Bytes>, hyper::Error>> {
    frame.map(|frame| frame.map(|frame| frame.into_data().ok()))
}

/// The trailers of a call that went well.
fn good() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    let status = HeaderName::from_static("grpc-status");
    trailers.insert(status, HeaderValue::from_static("0"));
    trailers
}

// === impl Messages ===

impl Messages {
    /// The stream that a request asks for, whose messages are all `message`, framed.
    pub(crate) fn asked_by(request: Incoming, message: &Bytes) -> Self {
        Self {
            message: message.clone(),
            left: State::Asking {
                request,
                seen: 0,
                number: 0,
            },
        }
    }

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        loop {
            match &mut self.left {
                State::Sending(0) => return Poll::Ready(None),
                State::Sending(left) => {
                    *left -= 1;
                    return Poll::Ready(Some(Ok(self.message.clone())));
                }
                State::Asking {
                    request,
                    seen,
                    number,
                } => match data(ready!(Pin::new(request).poll_frame(context))) {
                    Some(Ok(bytes)) => add(&bytes.unwrap_or_default(), seen, number),
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => self.left = State::Sending((*number).min(MOST)),
                },
            }
        }
    }
}

/// Adds the digits of a piece of a message to a number; the first five bytes are its frame's.
fn add(piece: &[u8], seen: &mut usize, number: &mut u32) {
    for byte in piece {
        if *seen >= 5 && byte.is_ascii_digit() {
            let digit = u32::from(byte - b'0');
            *number = number.saturating_mul(10).saturating_add(digit);
        }
        *seen += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_from_pieces_and_not_from_the_frame() {
        let (mut seen, mut number) = (0, 0);
        for piece in [&b"\0\0\0"[..], b"13", b"", b"50", b"0"] {
            add(piece, &mut seen, &mut number);
        }
        assert_eq!((seen, number), (8, 500));
    }

    #[test]
    fn a_number_that_is_too_long_stays_at_the_limit() {
        let (mut seen, mut number) = (5, 0);
        add(b"99999999999999", &mut seen, &mut number);
        assert_eq!(number, u32::MAX);
    }
}
