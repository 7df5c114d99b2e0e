//! What is to be written: a buffer for heads, framing and small pieces, and at most one large piece
//! of data behind it, which is not copied.

use crate::Buffers;
use bytes::{Buf, Bytes};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// A piece of data of at least this many bytes is not copied.
const LARGE: usize = 4 << 10;

/// With so many bytes waiting, nothing more is taken.
const FULL: usize = 12 << 10;

/// Bytes on their way out of a connection.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Empty, without room, while there is nothing to write.
    buffer: Vec<u8>,
    written: usize,
    large: Bytes,
    /// Framing behind the large piece.
    behind: &'static [u8],
    /// Something was written that was not flushed.
    flush: bool,
}

// === impl Output ===

impl Output {
    pub(crate) fn is_empty(&self) -> bool {
        self.written == self.buffer.len() && self.large.is_empty() && self.behind.is_empty()
    }

    /// Whether more may be added.
    pub(crate) fn has_room(&self) -> bool {
        self.large.is_empty() && self.behind.is_empty() && self.buffer.len() < FULL
    }

    /// The buffer, to append to. Only if there is room.
    pub(crate) fn buffer(&mut self, buffers: &Buffers) -> &mut Vec<u8> {
        if self.buffer.capacity() == 0 {
            self.buffer = buffers.output();
        }
        &mut self.buffer
    }

    /// Appends data and the framing behind it. Only if there is room.
    pub(crate) fn push(&mut self, buffers: &Buffers, data: Bytes, behind: &'static [u8]) {
        if data.len() < LARGE {
            let buffer = self.buffer(buffers);
            buffer.extend_from_slice(&data);
            buffer.extend_from_slice(behind);
        } else {
            self.large = data;
            self.behind = behind;
        }
    }

    /// Writes all of it and flushes.
    pub(crate) fn poll_flush<Io: AsyncWrite + Unpin>(
        &mut self,
        io: &mut Io,
        buffers: &Buffers,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let front = &self.buffer[self.written..];
            let io = Pin::new(&mut *io);
            let count = if self.large.is_empty() && self.behind.is_empty() {
                ready!(io.poll_write(cx, front))?
            } else if io.is_write_vectored() {
                let parts = [front, &self.large, self.behind].map(IoSlice::new);
                ready!(io.poll_write_vectored(cx, &parts))?
            } else {
                let parts = [front, &self.large, self.behind];
                let part = parts.into_iter().find(|part| !part.is_empty());
                ready!(io.poll_write(cx, part.unwrap_or_default()))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(count);
            self.flush = true;
        }
        if self.buffer.capacity() > 0 {
            self.written = 0;
            buffers.keep_output(std::mem::take(&mut self.buffer));
        }
        if self.flush {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.flush = false;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut count: usize) {
        let front = count.min(self.buffer.len() - self.written);
        self.written += front;
        count -= front;
        let large = count.min(self.large.len());
        self.large.advance(large);
        count -= large;
        self.behind = &self.behind[count.min(self.behind.len())..];
        if self.large.is_empty() {
            // Its memory is somebody's.
            self.large = Bytes::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    /// Takes a few bytes at a time, and now and then none.
    struct Slow {
        seen: Vec<u8>,
        vectored: bool,
        turn: usize,
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.turn += 1;
            if self.turn.is_multiple_of(3) {
                return Poll::Pending;
            }
            let count = bytes.len().min(1 + self.turn % 700);
            self.seen.extend_from_slice(&bytes[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            parts: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).collect();
            self.as_mut().poll_write(cx, &all)
        }

        fn is_write_vectored(&self) -> bool {
            self.vectored
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn everything_is_written_in_order_however_little_is_taken() {
        for vectored in [false, true] {
            let buffers = Buffers::default();
            let mut io = Slow {
                seen: Vec::new(),
                vectored,
                turn: 0,
            };
            let mut output = Output::default();
            let mut expected = Vec::new();
            for size in [1, LARGE - 1, LARGE, 3 * LARGE] {
                let head = b"head";
                output.buffer(&buffers).extend_from_slice(head);
                let data: Vec<u8> = (0..size).map(|at| at as u8).collect();
                output.push(&buffers, data.clone().into(), b"\r\n");
                assert_eq!(output.has_room(), size < LARGE);
                expected.extend([head.as_slice(), &data, b"\r\n"].concat());
                let mut cx = Context::from_waker(Waker::noop());
                while output.poll_flush(&mut io, &buffers, &mut cx).is_pending() {}
                assert!(output.is_empty() && output.has_room());
            }
            assert!(io.seen == expected, "vectored: {vectored}");
            assert_eq!(
                buffers.kept().1,
                1,
                "it holds no buffer while it has nothing to write"
            );
        }
    }
}
