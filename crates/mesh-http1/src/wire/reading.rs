//! What is read from the socket, and when.

use super::{Expects, Piece, Reader, Wire};
use crate::buffers::SIZE;
use crate::decode::Decoded;
use crate::{BodyError, Error};
use bytes::{Buf, BytesMut};
use http_body::Frame;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

/// What is read at once for a body that is known to be long, before it is seen how fast it comes.
const LONG_READ: usize = 64 << 10;

/// With less room than this, a buffer gets some more.
const LEAST_ROOM: usize = 1 << 10;

/// What is read to see whether the peer is still there.
const PROBE: usize = 64;

// === impl Wire ===

impl<Io: AsyncRead + Unpin> Wire<Io> {
    /// Reads a part of a head once. Zero is the end.
    ///
    /// An answer's body mostly comes with its head, so as much is read as comes. Callers get one of
    /// the small buffers: a part of a head may hold it for as long as heads may take.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let room = match self.client {
            Some(_) => self.pace.room(),
            None => SIZE,
        };
        self.poll_fill(room, cx)
    }

    /// Reads once, into room for at least so many bytes if there is nothing yet. Zero is the end.
    fn poll_fill(&mut self, room: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(io) = &mut self.io else {
            self.eof = true;
            return Poll::Ready(Ok(0));
        };
        let lacks_room = self.input.is_empty() && self.input.capacity() < room;
        if lacks_room && (self.input.capacity() == 0 || !self.input.try_reclaim(room)) {
            let fresh = match room {
                ..=SIZE => self.buffers.input(),
                _ => BytesMut::with_capacity(room),
            };
            let old = std::mem::replace(&mut self.input, fresh);
            // Mostly there was none.
            if old.capacity() > 0 {
                self.buffers.keep_input(old);
            }
        } else if self.input.capacity() - self.input.len() < LEAST_ROOM {
            self.input.reserve(SIZE);
        }
        let room = self.input.capacity() - self.input.len();
        let read = poll_read_buf(Pin::new(io), cx, &mut self.input);
        if read.is_pending() {
            self.release();
        }
        let count = ready!(read)?;
        self.pace.read(room, count);
        self.eof |= count == 0;
        Poll::Ready(Ok(count))
    }

    /// Looks whether the peer is still there, while nothing is expected of it. What it says is kept:
    /// a buffer full of a body that nobody reads yet, or the beginning of another message.
    ///
    /// Nothing is read while the body's reader waits: it would not be woken. It sees the end itself.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let most = if self.is_complete() { 1 } else { SIZE };
        while self.reader != Reader::Waiting {
            if self.broken {
                // What comes behind it means nothing any more.
                self.input.clear();
            }
            if self.input.len() >= most {
                break;
            }
            if self.eof {
                return Poll::Ready(Error::Closed);
            }
            if self.broken || !self.input.is_empty() {
                if let Err(error) = ready!(self.poll_fill(1, cx)) {
                    return Poll::Ready(Error::Io(error));
                }
                continue;
            }
            let Some(io) = &mut self.io else {
                return Poll::Pending;
            };
            // Usually there is nothing, and no buffer has to be moved for that.
            let mut probe = [0; PROBE];
            let mut probe = ReadBuf::new(&mut probe);
            if let Err(error) = ready!(Pin::new(io).poll_read(cx, &mut probe)) {
                return Poll::Ready(Error::Io(error));
            }
            self.eof = probe.filled().is_empty();
            if !self.eof {
                if self.input.capacity() < PROBE {
                    let old = std::mem::replace(&mut self.input, self.buffers.input());
                    self.buffers.keep_input(old);
                }
                self.input.extend_from_slice(probe.filled());
            }
        }
        Poll::Pending
    }

    /// Nobody gets what is left: a body that somebody still reads fails.
    pub(crate) fn abandon(&mut self) {
        self.input.clear();
        self.eof = true;
        if let Some(waiter) = self.waiter.take() {
            waiter.wake();
        }
    }

    /// Reads and throws away until the peer closes, too.
    pub(crate) fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.input.clear();
            match ready!(self.poll_fill(1, cx)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
    }

    /// The body was received whole.
    fn over(&mut self) {
        // What was its body has nothing to say any more: the next exchange may begin right now.
        self.message += 1;
        self.reader = Reader::Nobody;
        self.waiter = None;
        self.release();
        if self.client.is_some() {
            self.exchange_over();
        } else {
            self.wake();
        }
    }

    /// A client's exchange is over. From here on the driver's task is woken when the server closes.
    pub(crate) fn exchange_over(&mut self) {
        let over = self.is_complete();
        let Some(client) = &mut self.client else {
            return;
        };
        client.busy = false;
        let reusable = client.keep_alive && !client.sending;
        if over && !self.input.is_empty() {
            // Whatever it is, it is no word about an idle connection.
            client.unasked = true;
            self.close();
            return;
        }
        if !reusable || self.eof || !over {
            self.close();
            return;
        }
        self.release();
        if let Some(owner) = self.owner.take() {
            let gone = self.poll_gone(&mut Context::from_waker(&owner));
            self.owner = Some(owner);
            // Nothing was asked for, so nothing may come.
            if gone.is_ready() || !self.input.is_empty() {
                self.close_unasked();
            }
        }
    }

    /// Nobody reads the rest of this body.
    pub(crate) fn let_go(&mut self, message: u64) {
        if self.message != message {
            return;
        }
        self.reader = Reader::Nobody;
        self.waiter = None;
        if self.client.is_some() {
            // What is already there costs nothing.
            self.discard();
            self.exchange_over();
        } else {
            self.wake();
        }
    }

    /// Somebody waits for the socket, and is to be woken when it is closed here, too.
    pub(crate) fn wait(&mut self, cx: &Context<'_>) {
        self.reader = Reader::Waiting;
        match &self.waiter {
            Some(waiter) if waiter.will_wake(cx.waker()) => {}
            _ => self.waiter = Some(cx.waker().clone()),
        }
    }

    pub(crate) fn poll_piece(
        &mut self,
        message: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Piece, Error>>> {
        if self.message != message {
            return Poll::Ready(None);
        }
        if self.broken {
            return Poll::Ready(None);
        }
        self.reader = Reader::Busy;
        loop {
            match self.decoder.decode(&self.input) {
                Err(error) => return self.broken(error),
                Ok(Decoded::Data { skip, len }) => {
                    self.input.advance(skip);
                    let frame = Frame::data(self.take(len));
                    let ends = self.decoder.ends(&self.input);
                    if let Some(skip) = ends {
                        self.input.advance(skip);
                        self.over();
                    }
                    let last = ends.is_some();
                    return Poll::Ready(Some(Ok(Piece { frame, last })));
                }
                Ok(Decoded::End { skip, trailers }) => {
                    self.input.advance(skip);
                    self.over();
                    return Poll::Ready(trailers.map(|trailers| {
                        Ok(Piece {
                            frame: Frame::trailers(trailers),
                            last: true,
                        })
                    }));
                }
                Ok(Decoded::More { skip }) => self.input.advance(skip),
            }
            if self.eof {
                match self.decoder.close() {
                    Ok(()) => continue,
                    Err(error) => return self.broken(error),
                }
            }
            if self.io.is_none() {
                // Closed on this side, whatever the other one had to say.
                return self.broken(BodyError::Incomplete);
            }
            if self.expects == Expects::Waits && self.input.is_empty() {
                self.expects = Expects::Wanted;
                self.wake();
            }
            let usual = self.pace.room();
            let room = self.decoder.room(usual, usual.max(LONG_READ));
            match self.poll_fill(room, cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return self.broken(error),
                Poll::Pending => {
                    self.wait(cx);
                    return Poll::Pending;
                }
            }
        }
    }
}
