//! Bytes both ways between two connections, as long as either side has something to say.
//!
//! A side that has said all is told to the other, which may go on (RFC 9293 §3.6: a connection
//! closes in halves). Nothing is read that cannot be held: each way has one buffer, and while its
//! bytes cannot be written nothing more is read. Where reads fill the buffer again and again and
//! both sides are bare sockets, bytes go through a pipe instead ([`super::splice`]).

use super::buffers::{Buffer, Buffers, SIZE};
use super::meter::Meter;
use super::on_demand::Early;
use super::splice::{Past, Pipe, WORTH};
use super::upstream::Upstream;
use crate::origin::Downstream;
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
    /// How many reads in a row have filled the buffer.
    full: u8,
    /// Bytes that are past us: there only while there are bytes in it.
    pipe: Option<Pipe>,
}

/// So many full buffers in a row are a reason to try with a pipe.
const OFTEN: u8 = 4;

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
    D: Downstream,
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
        let past = Past::<D, U> {
            sockets: |downstream, upstream| Some((downstream.plain()?, upstream.plain()?)),
            moved: |_, upstream, _, written| upstream.moved(0, written),
        };
        let upward = self
            .up
            .poll(cx, downstream, upstream, &past, &self.buffers, passed);
        let passed = |count| meter.passed_down(count);
        let past = Past::<U, D> {
            sockets: |upstream, downstream| Some((upstream.plain()?, downstream.plain()?)),
            moved: |upstream, _, read, _| upstream.moved(read, 0),
        };
        let downward = self
            .down
            .poll(cx, upstream, downstream, &past, &self.buffers, passed);
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
        self.end - self.begin + self.pipe.as_ref().map_or(0, Pipe::held)
    }

    /// Passes nothing on any more, not even what is held.
    fn close(&mut self, buffers: &Buffers) {
        if let Some(buffer) = self.buffer.take() {
            buffers.give_back(buffer);
        }
        (self.begin, self.end) = (0, 0);
        self.pipe = None;
        self.phase = Phase::Closed;
    }

    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        past: &Past<R, W>,
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
            if let Some(pipe) = self.pipe.as_mut() {
                // They were bare sockets when it was filled, and stay so.
                let (_, to) = (past.sockets)(reader, writer).ok_or(Failed::Writing)?;
                let written = ready!(pipe.poll_empty(cx, to)).map_err(|_| Failed::Writing)?;
                if let Some(pipe) = self.pipe.take_if(|pipe| pipe.held() == 0) {
                    buffers.give_back_pipe(pipe);
                }
                (past.moved)(reader, writer, 0, written);
                passed(written);
                continue;
            }
            match self.phase {
                Phase::Open => match self.poll_more(cx, reader, writer, past, buffers) {
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

    /// Gets more to pass on, whichever way is cheaper.
    fn poll_more<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &W,
        past: &Past<R, W>,
        buffers: &Buffers,
    ) -> Poll<io::Result<usize>>
    where
        R: AsyncRead + Unpin,
    {
        if self.full >= OFTEN
            && let Some((from, _)) = (past.sockets)(reader, writer)
        {
            // Who waits has neither.
            if let Some(buffer) = self.buffer.take() {
                buffers.give_back(buffer);
            }
            ready!(from.poll_read_ready(cx))?;
            if let Some(mut pipe) = buffers.take_pipe() {
                match pipe.poll_fill(cx, from) {
                    Poll::Ready(Ok(count)) if count > 0 => {
                        if count < WORTH {
                            self.full = 0;
                        }
                        self.pipe = Some(pipe);
                        (past.moved)(reader, writer, count, 0);
                        return Poll::Ready(Ok(count));
                    }
                    // The end, or an error, which comes again.
                    Poll::Ready(_) => {
                        self.full = 0;
                        buffers.give_back_pipe(pipe);
                    }
                    Poll::Pending => {
                        buffers.give_back_pipe(pipe);
                        return Poll::Pending;
                    }
                }
            } else {
                self.full = 0;
            }
        }
        let polled = self.poll_fill(cx, reader, buffers);
        if let Poll::Ready(Ok(count)) = polled {
            let is_full = count == SIZE;
            self.full = if is_full {
                self.full.saturating_add(1)
            } else {
                0
            };
        }
        polled
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (one, two) = tokio::join!(TcpStream::connect(at), listener.accept());
        (one.unwrap(), two.unwrap().0)
    }

    fn text(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at % 251) as u8).collect()
    }

    #[tokio::test]
    async fn much_goes_through_a_pipe_and_arrives_as_it_was() {
        static PAST: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];
        let (mut source, mut reader) = pair().await;
        let (mut writer, mut sink) = pair().await;
        let past = Past {
            sockets: |reader, writer| Some((reader, writer)),
            moved: |_, _, read, written| {
                PAST[0].fetch_add(read, Ordering::Relaxed);
                PAST[1].fetch_add(written, Ordering::Relaxed);
            },
        };
        let (mut way, buffers, mut total) = (Way::default(), Buffers::default(), 0);
        let sent = text(8 << 20);
        let moving = poll_fn(|cx| {
            way.poll(cx, &mut reader, &mut writer, &past, &buffers, |count| {
                total += count
            })
        });
        let sending = async {
            source.write_all(&sent).await.unwrap();
            source.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let (moved, (), read) = tokio::join!(moving, sending, sink.read_to_end(&mut received));
        assert!(moved.is_ok());
        assert_eq!(read.unwrap(), sent.len());
        assert!(
            received == sent,
            "they are the same bytes in the same order"
        );
        assert_eq!(total, sent.len());
        let past = PAST.each_ref().map(|count| count.load(Ordering::Relaxed));
        assert_eq!(past[0], past[1]);
        assert!(past[0] > 1 << 20, "{past:?}");
        assert_eq!((buffers.unused_buffers(), buffers.unused_pipes()), (1, 1));
    }

    #[tokio::test]
    async fn who_waits_holds_neither_a_buffer_nor_a_pipe() {
        let (mut source, mut reader) = pair().await;
        let (mut writer, mut sink) = pair().await;
        let past = Past {
            sockets: |reader, writer| Some((reader, writer)),
            moved: |_, _, _, _| {},
        };
        let (mut way, buffers) = (Way::default(), Buffers::default());
        let sent = text(4 << 20);
        let mut received = vec![0; sent.len()];
        let moving = poll_fn(|cx| way.poll(cx, &mut reader, &mut writer, &past, &buffers, |_| {}));
        let passing =
            async { tokio::join!(source.write_all(&sent), sink.read_exact(&mut received)).1 };
        tokio::select! {
            _ = moving => panic!("nobody has said all"),
            read = passing => assert_eq!(read.unwrap(), sent.len()),
        }
        let mut once = poll_fn(|cx| {
            Poll::Ready(way.poll(cx, &mut reader, &mut writer, &past, &buffers, |_| {}))
        });
        assert!((&mut once).await.is_pending());
        assert!(received == sent);
        assert!(way.pipe.is_none() && way.buffer.is_none());
        assert_eq!(way.held(), 0);
    }

    #[tokio::test]
    async fn a_writer_that_takes_no_more_holds_up_the_reader() {
        let (mut source, mut reader) = pair().await;
        let (mut writer, sink) = pair().await;
        let past = Past {
            sockets: |reader, writer| Some((reader, writer)),
            moved: |_, _, _, _| {},
        };
        let (mut way, buffers) = (Way::default(), Buffers::default());
        let block = text(1 << 20);
        // More than the kernel holds for two connections.
        let sending = async {
            for _ in 0..64 {
                source.write_all(&block).await?;
            }
            Ok::<_, io::Error>(())
        };
        let mut sending = pin!(sending);
        let (mut total, mut before) = (0, usize::MAX);
        while total != before || way.held() == 0 {
            before = total;
            let moving = poll_fn(|cx| {
                way.poll(cx, &mut reader, &mut writer, &past, &buffers, |count| {
                    total += count
                })
            });
            let limit = std::time::Duration::from_millis(200);
            let both = async { tokio::join!(moving, &mut sending) };
            assert!(
                tokio::time::timeout(limit, both).await.is_err(),
                "nobody read it"
            );
        }
        assert!(way.held() <= 64 << 10, "{}", way.held());
        drop(sink);
        let moved = poll_fn(|cx| way.poll(cx, &mut reader, &mut writer, &past, &buffers, |_| {}));
        assert!(matches!(moved.await, Err(Failed::Writing)));
    }
}
