//! A connection with bytes in front that were read already.

use crate::origin::Downstream;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How much room is made at once for bytes that are looked at.
const STEP: usize = 1024;

/// A connection whose first bytes were looked at: whoever reads it gets them first.
#[derive(Debug)]
pub(crate) struct Prefixed<IO> {
    io: IO,
    kept: Vec<u8>,
    /// What of `kept` was read again.
    read: usize,
}

// === impl Prefixed ===

impl<IO> Prefixed<IO> {
    pub(crate) fn new(io: IO) -> Self {
        Self {
            io,
            kept: Vec::new(),
            read: 0,
        }
    }

    /// A connection of which `first` was read and is to be read again.
    pub(crate) fn beginning(io: IO, first: &[u8]) -> Self {
        Self {
            io,
            kept: first.to_vec(),
            read: 0,
        }
    }

    /// What was looked at and is not taken yet.
    pub(crate) fn kept(&self) -> &[u8] {
        &self.kept[self.read..]
    }

    /// Forgets the first bytes: they were for us.
    pub(crate) fn skip(&mut self, count: usize) {
        self.read = (self.read + count).min(self.kept.len());
        self.free();
    }

    fn free(&mut self) {
        if self.read == self.kept.len() && self.read > 0 {
            self.kept = Vec::new();
            self.read = 0;
        }
    }
}

impl<IO: AsyncRead + Unpin> Prefixed<IO> {
    /// Reads some more to look at. Returns whether there was more.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn more(&mut self) -> io::Result<bool> {
        if self.kept.len() == self.kept.capacity() {
            self.kept.reserve_exact(STEP.max(self.kept.len()));
        }
        Ok(self.io.read_buf(&mut self.kept).await? > 0)
    }
}

impl<IO: Downstream> Downstream for Prefixed<IO> {
    fn original_destination(&self) -> Option<SocketAddr> {
        self.io.original_destination()
    }

    fn reset_when_closed(&self) {
        self.io.reset_when_closed();
    }

    fn plain(&self) -> Option<&TcpStream> {
        self.io.plain().filter(|_| self.kept.is_empty())
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Prefixed<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.kept.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buffer);
        }
        let kept = self.kept();
        let count = kept.len().min(buffer.remaining());
        buffer.put_slice(&kept[..count]);
        self.skip(count);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Prefixed<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn what_was_looked_at_is_read_first_and_then_forgotten() {
        let (mut theirs, ours) = tokio::io::duplex(1 << 16);
        let mut io = Prefixed::new(ours);
        let sent: Vec<u8> = (0..5000_u32).map(|n| n as u8).collect();
        theirs.write_all(&sent).await.unwrap();
        while io.kept().len() < 2000 {
            assert!(io.more().await.unwrap());
        }
        assert_eq!(io.kept(), &sent[..io.kept().len()]);
        io.skip(10);
        theirs.shutdown().await.unwrap();
        let mut read = Vec::new();
        io.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, sent[10..]);
        assert_eq!(io.kept.capacity(), 0);
    }

    #[tokio::test]
    async fn the_end_is_told() {
        let (theirs, ours) = tokio::io::duplex(16);
        drop(theirs);
        assert!(!Prefixed::new(ours).more().await.unwrap());
    }
}
