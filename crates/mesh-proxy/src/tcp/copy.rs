//! Bytes both ways between two connections, as long as either side has something to say.
//!
//! A side that has said all is told to the other, which may go on (RFC 9293 §3.6: a connection
//! closes in halves). Nothing is read that cannot be held: each way has one buffer, and while its
//! bytes cannot be written nothing more is read.

use super::buffers::{Buffer, Buffers};
use super::meter::Meter;
use super::on_demand::Early;
use super::upstream::Upstream;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One of the two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Downstream,
    Upstream,
}

/// What became of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Some were passed on, for the first time since the last report.
    Passed,
    /// Both sides have said all.
    Whole,
    /// A side broke.
    Broken(Side),
}

/// Both ways.
pub(super) struct Copy<D, U> {
    pub(super) downstream: D,
    pub(super) upstream: U,
    /// From downstream to upstream.
    up: Way,
    down: Way,
    buffers: Buffers,
}

/// Bytes in one direction.
#[derive(Default)]
struct Way {
    /// There only while there are bytes in it.
    buffer: Option<Buffer>,
    begin: usize,
    end: usize,
    phase: Phase,
    /// Written but maybe not sent.
    unflushed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// Open -> Ending: the reader has said all; the writer is still told.
    Ending,
    /// Ending -> Closed.
    Closed,
}

/// Which end of a way broke.
enum Failed {
    Reading,
    Writing,
}

// === impl Copy ===

impl<D, U> Copy<D, U>
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: Upstream,
{
    pub(super) fn new(downstream: D, upstream: U, buffers: Buffers) -> Self {
        Self {
            downstream,
            upstream,
            up: Way::default(),
            down: Way::default(),
            buffers,
        }
    }

    /// Passes on first what the caller said while nobody listened.
    pub(super) fn begin_with(&mut self, early: Early) {
        let (said, ended) = early.into_parts();
        if let Some((buffer, length)) = said {
            self.up.end = length;
            self.up.buffer = Some(buffer);
        }
        if ended {
            self.up.phase = Phase::Ending;
        }
    }

    /// Goes on until a step is done.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, meter: &mut Meter) -> Poll<Step> {
        let step = self.poll_ways(cx, meter);
        if step != Poll::Ready(Step::Broken(Side::Upstream)) || !self.upstream.is_tunnel() {
            return step;
        }
        // As in Envoy, a tunnel that breaks has ended: what came out of it still goes to the caller,
        // and nothing goes in any more. Now the upstream can break no more.
        self.up.close(&self.buffers);
        if self.down.phase == Phase::Open {
            self.down.phase = Phase::Ending;
        }
        self.poll_ways(cx, meter)
    }

    fn poll_ways(&mut self, cx: &mut Context<'_>, meter: &mut Meter) -> Poll<Step> {
        let (downstream, upstream) = (&mut self.downstream, &mut self.upstream);
        let passed = |count| meter.passed_up(count);
        let upward = self
            .up
            .poll(cx, downstream, upstream, &self.buffers, passed);
        let passed = |count| meter.passed_down(count);
        let downward = self
            .down
            .poll(cx, upstream, downstream, &self.buffers, passed);
        meter.holds(self.up.held(), self.down.held());
        match (upward, downward) {
            (Poll::Ready(Err(Failed::Reading)), _) | (_, Poll::Ready(Err(Failed::Writing))) => {
                Poll::Ready(Step::Broken(Side::Downstream))
            }
            (Poll::Ready(Err(Failed::Writing)), _) | (_, Poll::Ready(Err(Failed::Reading))) => {
                Poll::Ready(Step::Broken(Side::Upstream))
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Step::Whole),
            _ if meter.has_news() => Poll::Ready(Step::Passed),
            _ => Poll::Pending,
        }
    }
}

impl<D, U> Drop for Copy<D, U> {
    fn drop(&mut self) {
        for way in [&mut self.up, &mut self.down] {
            if let Some(buffer) = way.buffer.take() {
                self.buffers.give_back(buffer);
            }
        }
    }
}

// === impl Way ===

impl Way {
    fn held(&self) -> usize {
        self.end - self.begin
    }

    /// Passes nothing on any more, not even what is held.
    fn close(&mut self, buffers: &Buffers) {
        if let Some(buffer) = self.buffer.take() {
            buffers.give_back(buffer);
        }
        (self.begin, self.end) = (0, 0);
        self.phase = Phase::Closed;
    }

    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        buffers: &Buffers,
        mut passed: impl FnMut(usize),
    ) -> Poll<Result<(), Failed>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            if self.begin < self.end {
                let held = self.buffer.as_deref().unwrap_or_default();
                let writing = Pin::new(&mut *writer).poll_write(cx, &held[self.begin..self.end]);
                let written = ready!(writing).map_err(|_| Failed::Writing)?;
                if written == 0 {
                    return Poll::Ready(Err(Failed::Writing));
                }
                self.begin += written;
                self.unflushed = true;
                passed(written);
                continue;
            }
            match self.phase {
                Phase::Open => match self.poll_fill(cx, reader, buffers) {
                    Poll::Ready(Ok(0)) => self.phase = Phase::Ending,
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Failed::Reading)),
                    Poll::Pending => {
                        if self.unflushed {
                            let flushing = Pin::new(&mut *writer).poll_flush(cx);
                            ready!(flushing).map_err(|_| Failed::Writing)?;
                            self.unflushed = false;
                        }
                        return Poll::Pending;
                    }
                },
                Phase::Ending => match ready!(Pin::new(&mut *writer).poll_shutdown(cx)) {
                    Err(error) if error.kind() != io::ErrorKind::NotConnected => {
                        return Poll::Ready(Err(Failed::Writing));
                    }
                    // Not connected: it has closed before we did.
                    _ => self.phase = Phase::Closed,
                },
                Phase::Closed => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Reads into a buffer, which goes back at once if there is nothing.
    fn poll_fill<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        buffers: &Buffers,
    ) -> Poll<io::Result<usize>> {
        let mut buffer = self.buffer.take().unwrap_or_else(|| buffers.take());
        let mut read = ReadBuf::new(&mut buffer);
        let polled = Pin::new(reader).poll_read(cx, &mut read);
        let count = read.filled().len();
        (self.begin, self.end) = (0, 0);
        if matches!(polled, Poll::Ready(Ok(()))) && count > 0 {
            self.buffer = Some(buffer);
            self.end = count;
        } else {
            buffers.give_back(buffer);
        }
        polled.map_ok(|()| count)
    }
}
