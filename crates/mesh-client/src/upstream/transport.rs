//! An open connection as a stream of bytes, secured or not.

use super::lease::Units;
use mesh_core::exchange::TlsInfo;
use mesh_identity::{TlsError, TlsStream};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connection that has just been made.
pub(crate) struct Connected {
    pub(crate) stream: Stream,
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
    /// What TLS agreed on, where the connection is secured.
    pub(crate) tls: Option<Arc<TlsInfo>>,
}

/// What the bytes of a connection go over.
pub(crate) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    #[cfg(test)]
    Memory(tokio::io::DuplexStream),
}

/// A connection that is ready for the protocol above it.
pub(crate) enum Stream {
    Plain(Transport),
    Tls(Box<TlsStream<Transport>>),
}

/// A connection, and what is in use for as long as it is open. Its codec owns it, and whoever takes it
/// over in an upgrade: what it holds is given back when the socket is closed, never before.
pub(crate) struct Io {
    stream: Stream,
    held: Units,
}

macro_rules! delegate {
    ($name:ident: $($(#[$when:meta])* $variant:ident),+) => {
        impl AsyncRead for $name {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($(#[$when])* Self::$variant(io) => Pin::new(io).poll_read(cx, buf),)+
                }
            }
        }

        impl AsyncWrite for $name {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $($(#[$when])* Self::$variant(io) => Pin::new(io).poll_write(cx, buf),)+
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($(#[$when])* Self::$variant(io) => Pin::new(io).poll_flush(cx),)+
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($(#[$when])* Self::$variant(io) => Pin::new(io).poll_shutdown(cx),)+
                }
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    $($(#[$when])* Self::$variant(io) => io.is_write_vectored(),)+
                }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $($(#[$when])* Self::$variant(io) => {
                        Pin::new(io).poll_write_vectored(cx, bufs)
                    })+
                }
            }
        }
    };
}

// === impl Transport ===

delegate!(Transport: Tcp, Unix, #[cfg(test)] Memory);

// === impl Stream ===

delegate!(Stream: Plain, Tls);

impl Stream {
    /// The socket, where bytes go over it as they are.
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(Transport::Tcp(stream)) => Some(stream),
            _ => None,
        }
    }
}

// === impl Io ===

impl Io {
    pub(crate) fn new(stream: Stream, held: Units) -> Self {
        Self { stream, held }
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }
}

impl Io {
    /// Notes that the connection broke. In TLS 1.3 a server refuses a certificate after our part of
    /// the handshake is over, so why a secured connection broke is worth keeping.
    fn broken(&mut self, error: io::Error) -> io::Error {
        match &self.stream {
            Stream::Plain(_) => {
                self.held.broken(None);
                error
            }
            Stream::Tls(_) => {
                let kind = error.kind();
                let error = TlsError::from_io(error);
                self.held.broken(Some(&error));
                io::Error::new(kind, error)
            }
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (before, room) = (buf.filled().len(), buf.remaining());
        let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buf));
        if read.is_ok() && room > 0 && buf.filled().len() == before {
            this.held.closed_by_peer();
        }
        Poll::Ready(read.map_err(|error| this.broken(error)))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, buf));
        Poll::Ready(written.map_err(|error| this.broken(error)))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, bufs));
        Poll::Ready(written.map_err(|error| this.broken(error)))
    }
}
