//! The body of a message that is being received.

use crate::wire::{Piece, Source};
use crate::{Error, Length};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// The body of a received message. It reads from the connection when it is polled, in whichever
/// task that is; a body that was there with its head is only memory.
///
/// Dropping it before its end costs the connection, unless the rest was already received.
pub struct Body(Kind);

enum Kind {
    Empty,
    Whole(Bytes),
    Stream {
        source: Arc<dyn Source>,
        message: u64,
        /// Bytes still to come, if that is known.
        left: Option<u64>,
    },
}

// === impl Body ===

impl Body {
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self(if bytes.is_empty() {
            Kind::Empty
        } else {
            Kind::Whole(bytes)
        })
    }

    /// Its bytes, if nothing of it has to be waited for: then it does not need its connection.
    ///
    /// # Errors
    /// Itself, if some of it is still to come.
    pub fn into_received(mut self) -> Result<Bytes, Self> {
        match &mut self.0 {
            Kind::Empty => Ok(Bytes::new()),
            Kind::Whole(bytes) => Ok(std::mem::take(bytes)),
            Kind::Stream { .. } => Err(self),
        }
    }

    pub(crate) fn stream(source: Arc<dyn Source>, message: u64, length: Length) -> Self {
        let left = match length {
            Length::Exact(length) => Some(length),
            Length::Chunked | Length::UntilClose => None,
        };
        Self(Kind::Stream {
            source,
            message,
            left,
        })
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Stream {
                source,
                message,
                left,
            } => {
                let piece = ready!(source.poll_piece(*message, cx));
                let Some(Ok(Piece { frame, last })) = piece else {
                    // The source knows that nothing follows.
                    self.0 = Kind::Empty;
                    return Poll::Ready(piece.map(|piece| piece.map(|piece| piece.frame)));
                };
                if let (Some(left), Some(data)) = (left, frame.data_ref()) {
                    *left = left.saturating_sub(data.len() as u64);
                }
                if last {
                    self.0 = Kind::Empty;
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Kind::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream { left, .. } => left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

impl Drop for Kind {
    fn drop(&mut self) {
        if let Self::Stream {
            source, message, ..
        } = self
        {
            source.let_go(*message);
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Empty => "Body(empty)",
            Kind::Whole(_) => "Body(whole)",
            Kind::Stream { .. } => "Body(stream)",
        })
    }
}
