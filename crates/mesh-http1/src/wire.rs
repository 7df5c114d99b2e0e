//! The reading half of a connection, which its driver and the body that is being received share.
//!
//! A body reads from the socket itself, in whatever task polls it: no channel, no second task and
//! no wake-up is between. The lock is held for one step at a time and never while anything of a
//! user's runs, so nobody waits for it unless driver and body run on different threads.

mod pace;
mod reading;

use crate::decode::Decoded;
use crate::{Body, BodyError, Buffers, Decoder, Error, Length, Limits};
use bytes::{Buf, Bytes, BytesMut};
use http_body::Frame;
use pace::Pace;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::io::AsyncRead;

/// A piece of a body of at least this many bytes is handed over as it was read if half of what is
/// left of its buffer is full; another one is copied, so that it does not hold a whole buffer.
const SHARED: usize = 4 << 10;

/// The shared half of a connection.
#[derive(Debug)]
pub(crate) struct Wire<Io> {
    /// None once it was given away or closed.
    pub(crate) io: Option<Io>,
    /// A client's, closed, for its driver to say goodbye to.
    closing: Option<Io>,
    /// What was read and not consumed. Without room while nothing is there.
    input: BytesMut,
    pace: Pace,
    /// The peer said that nothing more comes.
    eof: bool,
    decoder: Decoder,
    /// The body that is being received broke.
    broken: bool,
    /// How, if it was malformed.
    fault: Option<BodyError>,
    /// Which body that is: one that was forgotten must not read another's.
    message: u64,
    reader: Reader,
    expects: Expects,
    /// Who waits, while somebody does: a socket that is dropped wakes nobody.
    waiter: Option<Waker>,
    /// The task of the driver, if it has to know when the body is over.
    owner: Option<Waker>,
    /// The client's side of an exchange; none on a server.
    pub(crate) client: Option<Client>,
    buffers: Buffers,
}

/// Where a client is with its connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Client {
    /// A request was sent, and its response is not over.
    pub(crate) busy: bool,
    /// The request is not sent whole.
    pub(crate) sending: bool,
    /// Another request may follow.
    pub(crate) keep_alive: bool,
    /// Something came that belongs to no response.
    pub(crate) unasked: bool,
}

/// Who has the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    Nobody,
    /// Somebody does something else.
    Busy,
    /// Somebody is to be woken when there is something to read.
    Waiting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    Nothing,
    /// The caller waits for `100 Continue`.
    Waits,
    /// Somebody wants the body, so the caller is to be told.
    Wanted,
}

/// A frame of a body, and whether it is the last.
pub(crate) struct Piece {
    pub(crate) frame: Frame<Bytes>,
    pub(crate) last: bool,
}

/// Where a body comes from, whatever the connection is made of.
pub(crate) trait Source: Send + Sync {
    fn poll_piece(&self, message: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, Error>>>;
    /// Nobody reads this body any more.
    fn let_go(&self, message: u64);
}

/// What the driver and the body share.
pub(crate) type Shared<Io> = Mutex<Wire<Io>>;

pub(crate) fn lock<Io>(shared: &Shared<Io>) -> MutexGuard<'_, Wire<Io>> {
    shared.lock()
}

// === impl Wire ===

impl<Io> Wire<Io> {
    pub(crate) fn new(io: Io, first: &[u8], buffers: Buffers) -> Self {
        let mut input = BytesMut::new();
        if !first.is_empty() {
            input = buffers.input();
            input.extend_from_slice(first);
        }
        Self {
            io: Some(io),
            closing: None,
            input,
            pace: Pace::default(),
            eof: false,
            decoder: Decoder::done(),
            broken: false,
            fault: None,
            message: 0,
            reader: Reader::Nobody,
            expects: Expects::Nothing,
            waiter: None,
            owner: None,
            client: None,
            buffers,
        }
    }

    pub(crate) fn input(&self) -> &[u8] {
        &self.input
    }

    pub(crate) fn consume(&mut self, count: usize) {
        if count == self.input.len() {
            // So it keeps all of its room, and need not get it back.
            self.input.clear();
        } else {
            self.input.advance(count);
        }
    }

    /// Empty lines before a head are nothing (RFC 9112 §2.2). A lone CR is not one of them. Returns
    /// whether there were any.
    pub(crate) fn skip_empty_lines(&mut self) -> bool {
        let mut rest = &self.input[..];
        while let [b'\n', behind @ ..] | [b'\r', b'\n', behind @ ..] = rest {
            rest = behind;
        }
        let count = self.input.len() - rest.len();
        self.input.advance(count);
        count > 0
    }

    /// Gives the buffer back, if nothing is in it.
    pub(crate) fn release(&mut self) {
        if self.input.is_empty() && self.input.capacity() > 0 {
            self.buffers.keep_input(std::mem::take(&mut self.input));
        }
    }

    /// A body of this length begins here. Returns what is there of it already, if it is all of it.
    pub(crate) fn begin(&mut self, length: Length, limits: &Limits) -> Option<Bytes> {
        self.message += 1;
        self.expects = Expects::Nothing;
        self.reader = Reader::Nobody;
        self.waiter = None;
        self.decoder = Decoder::done();
        if let Length::Exact(length) = length
            && length <= self.input.len() as u64
        {
            return Some(self.take(length as usize));
        }
        self.decoder = Decoder::new(length, limits);
        self.reader = Reader::Busy;
        None
    }

    /// The caller sends the body that has begun only when it is told to.
    pub(crate) fn expect(&mut self) {
        self.expects = Expects::Waits;
    }

    /// Whether `100 Continue` is to be sent now. True once.
    pub(crate) fn takes_continue(&mut self) -> bool {
        let wanted = self.expects == Expects::Wanted;
        if wanted {
            self.expects = Expects::Nothing;
        }
        wanted
    }

    /// The final answer is here: the caller is not told to go on any more. Returns whether the
    /// whole body was received. What is there of one that nobody reads is thrown away.
    pub(crate) fn answered(&mut self) -> bool {
        self.expects = Expects::Nothing;
        if self.reader == Reader::Nobody && !self.broken {
            self.discard();
        }
        self.is_complete()
    }

    fn discard(&mut self) {
        while !self.decoder.is_done() {
            match self.decoder.decode(&self.input) {
                Ok(Decoded::Data { skip, len }) => self.input.advance(skip + len),
                Ok(Decoded::More { skip }) => {
                    self.input.advance(skip);
                    return;
                }
                Ok(Decoded::End { skip, .. }) => self.input.advance(skip),
                Err(fault) => {
                    self.broken = true;
                    self.fault = Some(fault);
                    return;
                }
            }
        }
    }

    /// What was malformed in the body.
    pub(crate) fn fault(&self) -> Option<BodyError> {
        self.fault
    }

    /// Whether the body was received whole.
    pub(crate) fn is_complete(&self) -> bool {
        !self.broken && self.decoder.is_done()
    }

    /// The driver that is to be woken when the body is over.
    pub(crate) fn set_owner(&mut self, waker: &Waker) {
        if self.reader != Reader::Nobody {
            self.watch(waker);
        }
    }

    /// The driver is being polled, and need not be woken to see what happens meanwhile.
    pub(crate) fn forget_owner(&mut self) {
        self.owner = None;
    }

    /// Whether a client may send a request.
    pub(crate) fn is_idle(&self) -> bool {
        let free = |client: &Client| !client.busy && client.keep_alive;
        self.io.is_some() && self.client.as_ref().is_some_and(free)
    }

    /// A client's request was sent whole.
    pub(crate) fn sent(&mut self) {
        if let Some(client) = &mut self.client {
            client.sending = false;
        }
    }

    /// Whose task is woken when something happens that nobody else waits for.
    pub(crate) fn watch(&mut self, waker: &Waker) {
        match &self.owner {
            Some(owner) if owner.will_wake(waker) => {}
            _ => self.owner = Some(waker.clone()),
        }
    }

    pub(crate) fn wake(&mut self) {
        if let Some(owner) = self.owner.take() {
            owner.wake();
        }
    }

    /// Closes the socket: now, or, on a client, once its driver had a turn. A body that was not
    /// received whole fails.
    pub(crate) fn close(&mut self) {
        let io = self.io.take();
        if self.client.is_some() {
            self.closing = io.or_else(|| self.closing.take());
        }
        self.wake();
        if let Some(waiter) = self.waiter.take()
            && self.reader == Reader::Waiting
        {
            waiter.wake();
        }
    }

    /// What is to be closed, if it has not been yet.
    pub(crate) fn take_closing(&mut self) -> Option<Io> {
        self.closing.take()
    }

    /// Closes a client's idle connection, on which the server said something that nobody asked for.
    pub(crate) fn close_unasked(&mut self) {
        let input = std::mem::take(&mut self.input);
        if let Some(client) = &mut self.client {
            client.unasked |= !input.is_empty() && !says_timeout(&input);
        }
        self.buffers.keep_input(input);
        self.close();
    }

    /// Gives the connection away, and what was read behind the last head.
    pub(crate) fn give_away(&mut self) -> Option<(Io, Bytes)> {
        let first = Bytes::copy_from_slice(&self.input);
        self.input.clear();
        self.release();
        Some((self.io.take()?, first))
    }

    /// Takes the next `len` bytes of data.
    fn take(&mut self, len: usize) -> Bytes {
        if len >= SHARED && 2 * self.input.len() >= self.input.capacity() {
            return self.input.split_to(len).freeze();
        }
        let data = Bytes::copy_from_slice(&self.input[..len]);
        self.input.advance(len);
        data
    }

    fn broken(&mut self, error: impl Into<Error>) -> Poll<Option<Result<Piece, Error>>> {
        let error = error.into();
        self.broken = true;
        if let Error::Body(fault) = &error {
            self.fault = Some(*fault);
        }
        self.reader = Reader::Busy;
        self.waiter = None;
        if self.client.is_some() {
            self.close();
        } else {
            self.wake();
        }
        Poll::Ready(Some(Err(error)))
    }
}

impl<Io: AsyncRead + Unpin + Send> Source for Shared<Io> {
    fn poll_piece(&self, message: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, Error>>> {
        lock(self).poll_piece(message, cx)
    }

    fn let_go(&self, message: u64) {
        lock(self).let_go(message);
    }
}

/// Whether it is a 408: a server may say that it waited long enough, and closes (RFC 9110 §15.5.9).
fn says_timeout(input: &[u8]) -> bool {
    input.starts_with(b"HTTP/1.") && input.get(8..12) == Some(b" 408")
}

/// The body that begins now.
pub(crate) fn body<Io, S>(
    source: &Arc<S>,
    wire: &mut Wire<Io>,
    length: Length,
    limits: &Limits,
) -> Body
where
    S: Source + 'static,
{
    match wire.begin(length, limits) {
        Some(whole) => Body::whole(whole),
        None => Body::stream(source.clone(), wire.message, length),
    }
}

#[cfg(test)]
mod tests;
