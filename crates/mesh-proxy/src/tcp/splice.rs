//! Bytes that go from one socket to another without coming to us (Linux's splice(2)).
//!
//! A pipe in the kernel stands where a buffer would. Moving through it takes one call more than
//! copying, so it is worth it only where there is much to move: see docs/performance.md.

use std::io;
use std::task::{Context, Poll};
use tokio::net::TcpStream;

/// Less than this in one move, and the way goes on with a buffer.
pub(super) const WORTH: usize = super::buffers::SIZE / 2;

/// How a way gets past the two connections that it lies between, if both are bare sockets.
pub(super) struct Past<R, W> {
    /// The sockets: where bytes come from and where they go to.
    pub(super) sockets: for<'a> fn(&'a R, &'a W) -> Option<(&'a TcpStream, &'a TcpStream)>,
    /// Bytes came out of the one, and went into the other.
    pub(super) moved: fn(&R, &W, usize, usize),
}

#[cfg(target_os = "linux")]
pub(super) use linux::Pipe;
#[cfg(not(target_os = "linux"))]
pub(super) use nowhere::Pipe;

#[cfg(target_os = "linux")]
mod linux {
    use super::*;
    use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
    use std::os::fd::{AsFd, OwnedFd};
    use std::task::ready;
    use tokio::io::Interest;

    /// The most that is moved at once: what a pipe holds unless it is told otherwise.
    const MOST: usize = 64 << 10;

    /// A pipe, and how much is in it.
    #[derive(Debug)]
    pub(in crate::tcp) struct Pipe {
        read: OwnedFd,
        write: OwnedFd,
        held: usize,
    }

    impl Pipe {
        pub(in crate::tcp) fn new() -> io::Result<Self> {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
            let held = 0;
            Ok(Self { read, write, held })
        }

        /// How many bytes are in it.
        pub(in crate::tcp) fn held(&self) -> usize {
            self.held
        }

        /// Takes from a socket. The pipe has to be empty. 0 is the end.
        pub(in crate::tcp) fn poll_fill(
            &mut self,
            cx: &mut Context<'_>,
            from: &TcpStream,
        ) -> Poll<io::Result<usize>> {
            loop {
                ready!(from.poll_read_ready(cx))?;
                let moved = from.try_io(Interest::READABLE, || {
                    Ok(splice(
                        from.as_fd(),
                        None,
                        &self.write,
                        None,
                        MOST,
                        SpliceFlags::NONBLOCK | SpliceFlags::MOVE,
                    )?)
                });
                match moved {
                    Ok(count) => {
                        self.held += count;
                        return Poll::Ready(Ok(count));
                    }
                    Err(error) if is_passing(&error) => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        }

        /// Gives to a socket what it takes of what is held.
        pub(in crate::tcp) fn poll_empty(
            &mut self,
            cx: &mut Context<'_>,
            to: &TcpStream,
        ) -> Poll<io::Result<usize>> {
            loop {
                ready!(to.poll_write_ready(cx))?;
                let moved = to.try_io(Interest::WRITABLE, || {
                    Ok(splice(
                        &self.read,
                        None,
                        to.as_fd(),
                        None,
                        self.held,
                        SpliceFlags::NONBLOCK | SpliceFlags::MOVE,
                    )?)
                });
                match moved {
                    Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Ok(count) => {
                        self.held -= count.min(self.held);
                        return Poll::Ready(Ok(count));
                    }
                    Err(error) if is_passing(&error) => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        }
    }

    /// The socket was not ready after all, which it knows now; or a signal came.
    fn is_passing(error: &io::Error) -> bool {
        matches!(
            error.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
        )
    }
}

#[cfg(not(target_os = "linux"))]
mod nowhere {
    use super::*;

    /// There is none.
    #[derive(Debug)]
    pub(in crate::tcp) enum Pipe {}

    impl Pipe {
        pub(in crate::tcp) fn new() -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(in crate::tcp) fn held(&self) -> usize {
            match *self {}
        }

        pub(in crate::tcp) fn poll_fill(
            &mut self,
            _: &mut Context<'_>,
            _: &TcpStream,
        ) -> Poll<io::Result<usize>> {
            match *self {}
        }

        pub(in crate::tcp) fn poll_empty(
            &mut self,
            _: &mut Context<'_>,
            _: &TcpStream,
        ) -> Poll<io::Result<usize>> {
            match *self {}
        }
    }
}
