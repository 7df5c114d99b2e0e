//! The body of a stream of responses.
//!
//! A response is written piece by piece, each when the connection has room for it, into a buffer
//! that the connection frees. So what a stream holds is a piece at most, however long the response
//! and however slow the client, and nothing once it is sent. Long resources are not copied at all.

use super::Response;
use super::response::Sink;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::BoxStream;
use http::HeaderMap;
use http_body::Frame;
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tonic::Status;

/// How long a piece is, in bytes, give or take what is copied of one resource.
const PIECE: usize = 32 << 10;

/// From how many bytes on a resource is not copied.
const SHARED: usize = 16 << 10;

/// What gRPC puts before a message: whether it is compressed, and its length.
const HEAD: usize = 5;

/// Responses as a gRPC body.
pub(super) struct Messages {
    responses: BoxStream<'static, Result<Response, Status>>,
    writing: Option<Writing>,
    ended: bool,
}

/// A response that is being written.
struct Writing {
    response: Response,
    /// How many of its resources are written.
    at: usize,
    /// How many bytes are not written yet.
    left: usize,
    pieces: Pieces,
}

/// What is written and not sent.
#[derive(Default)]
struct Pieces {
    full: VecDeque<Bytes>,
    open: BytesMut,
}

// === impl Messages ===

impl Messages {
    pub(super) fn new(responses: BoxStream<'static, Result<Response, Status>>) -> Self {
        Self {
            responses,
            writing: None,
            ended: false,
        }
    }

    fn end(&mut self, status: &Status) -> Option<Result<Frame<Bytes>, Status>> {
        self.ended = true;
        let mut trailers = HeaderMap::new();
        Some(
            status
                .add_header(&mut trailers)
                .map(|()| Frame::trailers(trailers)),
        )
    }
}

impl http_body::Body for Messages {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(writing) = &mut self.writing {
                if let Some(piece) = writing.next() {
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                self.writing = None;
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match ready!(self.responses.as_mut().poll_next(cx)) {
                Some(Ok(response)) => match Writing::new(response) {
                    Ok(writing) => self.writing = Some(writing),
                    Err(status) => return Poll::Ready(self.end(&status)),
                },
                Some(Err(status)) => return Poll::Ready(self.end(&status)),
                None => return Poll::Ready(self.end(&Status::ok(""))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

// === impl Writing ===

impl Writing {
    fn new(response: Response) -> Result<Self, Status> {
        let len = response.encoded_len();
        let Ok(short) = u32::try_from(len) else {
            return Err(Status::resource_exhausted(format!(
                "a response has {len} bytes; gRPC allows 4 GiB"
            )));
        };
        let left = HEAD + len;
        let mut pieces = Pieces::default();
        pieces.open.reserve(left.min(PIECE));
        pieces.open.put_u8(0);
        pieces.open.put_u32(short);
        response.put_start(&mut pieces);
        Ok(Self {
            response,
            at: 0,
            left,
            pieces,
        })
    }

    fn next(&mut self) -> Option<Bytes> {
        while self.pieces.full.is_empty() && self.left > self.pieces.open.len() {
            if self.pieces.open.capacity() == 0 {
                self.pieces.open.reserve(self.left.min(PIECE));
            }
            match self.response.resources.get(self.at) {
                Some(item) => self.response.put_item(item, &mut self.pieces),
                None => self.response.put_end(&mut self.pieces),
            }
            self.at += 1;
            if self.pieces.open.len() >= PIECE {
                self.pieces.close();
            }
        }
        if self.pieces.full.is_empty() {
            self.pieces.close();
        }
        let piece = self.pieces.full.pop_front()?;
        self.left = self.left.saturating_sub(piece.len());
        Some(piece)
    }
}

// === impl Pieces ===

impl Pieces {
    fn close(&mut self) {
        if !self.open.is_empty() {
            // Whole, so that no rest of the buffer stays behind.
            self.full.push_back(std::mem::take(&mut self.open).freeze());
        }
    }
}

impl Sink for Pieces {
    fn buffer(&mut self) -> &mut impl BufMut {
        &mut self.open
    }

    fn put_shared(&mut self, bytes: &Bytes) {
        if bytes.len() < SHARED {
            return self.open.put_slice(bytes);
        }
        self.close();
        self.full.push_back(bytes.clone());
    }
}

#[cfg(test)]
mod tests;
