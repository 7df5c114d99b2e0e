//! Frames of HTTP/2 that cost us more than whoever sends them: counted as they pass, by Envoy's
//! rules and with its defaults.
//!
//! PING and SETTINGS, which have to be answered, are counted by the second: Envoy counts the answers
//! that nobody has read, of which there are none here, because the codec looks at no more frames than
//! it can answer. Everything else that a peer could do is bounded by the codec: the sizes of tables,
//! heads and windows, and the number of CONTINUATION frames. After some frames other connections have
//! their turn. Resets of streams are told to requests, which end by them.

use mesh_core::Resets;
use mesh_core::stats::Http2Stat;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What a connection begins with, which is no frame (RFC 9113 §3.4).
const PREFACE: usize = 24;

/// The head of a frame, and the content of RST_STREAM (RFC 9113 §§4.1, 6.4).
const HEAD: usize = 9;
const ERROR: usize = 4;

/// PRIORITY frames for each stream, and as many besides (Envoy
/// `max_inbound_priority_frames_per_stream`).
const PRIORITIES: u64 = 100;

/// WINDOW_UPDATE frames for each frame of data that we sent (Envoy
/// `max_inbound_window_update_frames_per_data_frame_sent`).
const UPDATES: u64 = 10;

/// Frames without content in a row (Envoy `max_consecutive_inbound_frames_with_empty_payload`).
const EMPTY: u64 = 1;

/// PING and SETTINGS in a second, and two more for each frame with content (Envoy
/// `max_outbound_control_frames`, of those that wait).
const CONTROLS: u64 = 1000;

/// Frames that are read before other connections have their turn.
const TURN: u32 = 256;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
/// `REFUSED_STREAM` (RFC 9113 §7).
const REFUSED: u32 = 7;

/// A connection whose frames are counted. It breaks off where there are too many.
#[derive(Debug)]
pub(super) struct Counted<I> {
    io: I,
    received: Scanner,
    sent: Scanner,
    counts: Counts,
    /// Frames since others had their turn.
    turn: u32,
    flood: Arc<OnceLock<Http2Stat>>,
    resets: Arc<Resets>,
    /// There was nothing to read.
    waited: bool,
}

/// Finds frames in a stream of bytes.
#[derive(Debug, Default)]
struct Scanner {
    /// Bytes to pass over: what is left of a frame.
    skip: usize,
    /// The head of a frame, and the error of a reset behind it.
    head: [u8; HEAD + ERROR],
    /// Bytes of it that are there.
    have: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
    /// Of a reset; 0 of others.
    error: u32,
}

#[derive(Debug, Default)]
struct Counts {
    streams: u64,
    latest: u32,
    data_sent: u64,
    priorities: u64,
    updates: u64,
    empty: u64,
    /// When the present second began, and what came in it.
    second: Option<Instant>,
    controls: u64,
    content: u64,
}

// === impl Counted ===

impl<I> Counted<I> {
    /// Of a connection that begins with the preface, of which nothing was read. Resets are noted.
    pub(super) fn new(io: I, resets: Arc<Resets>) -> Self {
        let received = Scanner {
            skip: PREFACE,
            ..Scanner::default()
        };
        Self {
            io,
            received,
            sent: Scanner::default(),
            counts: Counts::default(),
            turn: 0,
            flood: Arc::default(),
            resets,
            waited: false,
        }
    }

    /// Says what there was too much of, once the connection has broken off for that.
    pub(super) fn flood(&self) -> Arc<OnceLock<Http2Stat>> {
        self.flood.clone()
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Counted<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.turn > TURN {
            this.turn = 0;
            this.waited = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let Poll::Ready(read) = Pin::new(&mut this.io).poll_read(cx, buf) else {
            this.waited = true;
            return Poll::Pending;
        };
        if std::mem::take(&mut this.waited) {
            this.resets.turn();
        }
        read?;
        let (counts, turn, resets) = (&mut this.counts, &mut this.turn, &this.resets);
        let new = &buf.filled()[before..];
        let mut found = Ok(());
        this.received.scan(new, |frame| {
            *turn += 1;
            if frame.is_reset() {
                resets.note(frame.error == REFUSED);
            }
            if found.is_ok() {
                found = counts.received(frame);
            }
        });
        if let Err(flood) = found {
            // Only the first counts.
            let _ = this.flood.set(flood);
            // With an error nothing was read.
            buf.set_filled(before);
            return Poll::Ready(Err(io::Error::other("too many frames of a kind")));
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Counted<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.io).poll_write(cx, buf))?;
        let counts = &mut this.counts;
        this.sent.scan(&buf[..written], |frame| counts.sent(frame));
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let part = &buf[..left.min(buf.len())];
            let counts = &mut this.counts;
            this.sent.scan(part, |frame| counts.sent(frame));
            left -= part.len();
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

// === impl Scanner ===

impl Scanner {
    fn scan(&mut self, mut bytes: &[u8], mut found: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (self.wanted() - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == self.wanted() {
                let frame = Frame::of(self.head);
                self.skip = frame.length - (self.have - HEAD);
                self.have = 0;
                found(frame);
            }
        }
    }

    /// Bytes that are looked at of the present frame, as far as it is known.
    fn wanted(&self) -> usize {
        match self.have >= HEAD && Frame::of(self.head).is_reset() {
            true => HEAD + ERROR,
            false => HEAD,
        }
    }
}

impl Frame {
    /// RFC 9113 §4.1.
    fn of(head: [u8; HEAD + ERROR]) -> Self {
        let [a, b, c, kind, flags, s0, s1, s2, s3, error @ ..] = head;
        let mut frame = Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & (u32::MAX >> 1),
            error: 0,
        };
        if frame.is_reset() {
            frame.error = u32::from_be_bytes(error);
        }
        frame
    }

    /// With a length that is its own: any other breaks the connection off.
    fn is_reset(&self) -> bool {
        self.kind == RST_STREAM && self.length == ERROR
    }
}

// === impl Counts ===

impl Counts {
    fn received(&mut self, frame: Frame) -> Result<(), Http2Stat> {
        match frame.kind {
            PRIORITY => {
                self.priorities += 1;
                if self.priorities > PRIORITIES * (1 + self.streams) {
                    return Err(Http2Stat::PriorityFramesFlood);
                }
            }
            WINDOW_UPDATE => {
                self.updates += 1;
                if self.updates > 5 + 2 * (self.streams + UPDATES * self.data_sent) {
                    return Err(Http2Stat::WindowUpdateFramesFlood);
                }
            }
            PING | SETTINGS if frame.flags & ACK == 0 => {
                let now = Instant::now();
                let began = *self.second.get_or_insert(now);
                if now.duration_since(began) >= Duration::from_secs(1) {
                    self.second = Some(now);
                    (self.controls, self.content) = (0, 0);
                }
                self.controls += 1;
                if self.controls > CONTROLS + 2 * self.content {
                    return Err(Http2Stat::ControlFlood);
                }
            }
            DATA | HEADERS | CONTINUATION => {
                self.content += 1;
                if frame.kind == HEADERS && frame.stream > self.latest {
                    self.latest = frame.stream;
                    self.streams += 1;
                }
                let ends = frame.kind != CONTINUATION && frame.flags & END_STREAM != 0;
                self.empty = match frame.length == 0 && !ends {
                    true => self.empty + 1,
                    false => 0,
                };
                if self.empty > EMPTY {
                    return Err(Http2Stat::EmptyFramesFlood);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn sent(&mut self, frame: Frame) {
        self.data_sent += u64::from(frame.kind == DATA);
        self.content += u64::from(matches!(frame.kind, DATA | HEADERS));
    }
}

#[cfg(test)]
mod tests;
