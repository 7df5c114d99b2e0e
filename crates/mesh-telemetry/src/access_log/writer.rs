//! A buffered file that workers append lines to without waiting.

use crate::shard::{Sharded, lock};
use mesh_core::{Name, Shard};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::future::poll_fn;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// The most bytes that wait for one worker, 4 MiB: beyond that lines are dropped and counted.
pub const MOST_BUFFERED: usize = 4 << 20;

/// Appends lines to a file. Cheap to clone; clones share the file.
///
/// Each worker has a buffer of its own. [`AccessLogWriter::flush`] writes all of them out; who
/// calls it, or runs [`AccessLogWriter::run`], does the waiting for the disk. What is still
/// buffered when the last clone is dropped is written then.
#[derive(Clone)]
pub struct AccessLogWriter(Arc<Inner>);

struct Inner {
    path: Option<Name>,
    buffers: Sharded<Buffer>,
    sink: Mutex<Sink>,
    limit: usize,
    dropped: AtomicU64,
    bell: Arc<Bell>,
}

#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    lines: u64,
}

struct Sink {
    target: Target,
    /// Changes places with a worker's buffer, so that the worker goes on while we write.
    spare: Buffer,
}

enum Target {
    Stdout,
    File(File),
    Other(Box<dyn Write + Send>),
}

/// Rung when a buffer is half full; wakes whoever flushes.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

// === impl AccessLogWriter ===

impl AccessLogWriter {
    /// Opens a file for appending, and makes it if need be. `-` and `/dev/stdout` are standard
    /// output.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &str) -> io::Result<Self> {
        Self::with_bell(path, Arc::default())
    }

    pub(crate) fn with_bell(path: &str, bell: Arc<Bell>) -> io::Result<Self> {
        let target = Target::open(path)?;
        Ok(Self::make(Some(path.into()), target, MOST_BUFFERED, bell))
    }

    /// A writer to anything, with at most `limit` bytes waiting for each worker.
    pub fn to(target: impl Write + Send + 'static, limit: usize) -> Self {
        Self::make(None, Target::Other(Box::new(target)), limit, Arc::default())
    }

    pub(crate) fn to_with_bell(target: Box<dyn Write + Send>, bell: Arc<Bell>) -> Self {
        Self::make(None, Target::Other(target), MOST_BUFFERED, bell)
    }

    fn make(path: Option<Name>, target: Target, limit: usize, bell: Arc<Bell>) -> Self {
        let spare = Buffer::default();
        Self(Arc::new(Inner {
            path,
            buffers: Sharded::default(),
            sink: Mutex::new(Sink { target, spare }),
            limit,
            dropped: AtomicU64::new(0),
            bell,
        }))
    }

    /// Appends a line to the worker's buffer. A line that finds no room is dropped and counted;
    /// nothing ever waits.
    pub fn write(&self, shard: Shard, line: &[u8]) {
        let Inner { limit, bell, .. } = &*self.0;
        let half = limit / 2;
        let mut buffer = self.0.buffers.lock(shard);
        let before = buffer.bytes.len();
        let after = before.saturating_add(line.len());
        if after > *limit {
            drop(buffer);
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            bell.ring();
            return;
        }
        buffer.bytes.extend_from_slice(line);
        buffer.lines += 1;
        drop(buffer);
        if before < half && after >= half {
            bell.ring();
        }
    }

    /// Writes out what is buffered. Blocks for as long as the file does.
    ///
    /// # Errors
    /// The first error of the file. The lines concerned are lost and counted as dropped.
    pub fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }

    /// Flushes `every` so often, and as soon as a buffer is half full, for as long as the future
    /// is polled. Errors are counted in [`AccessLogWriter::dropped`]. One task should run this.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: what is buffered stays so until the next flush.
    pub async fn run(&self, every: Duration) {
        let flush = || {
            let _ = self.flush();
        };
        self.0.bell.attend(every, flush).await;
    }

    /// Writes out what is buffered and opens the path again, for log rotation. Does nothing more
    /// than a flush for standard output and for writers that have no path.
    ///
    /// # Errors
    /// If the path cannot be opened again; the old file stays in use.
    pub fn reopen(&self) -> io::Result<()> {
        // A rotated file that cannot be written any more is no reason to keep it.
        let _ = self.flush();
        let Some(path) = &self.0.path else {
            return Ok(());
        };
        let target = Target::open(path)?;
        lock(&self.0.sink).target = target;
        Ok(())
    }

    /// How many lines were dropped: for want of room, or because the file failed.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Whether nobody else holds this writer.
    pub(crate) fn is_last(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl fmt::Debug for AccessLogWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLogWriter")
            .field("path", &self.0.path)
            .field("dropped", &self.dropped())
            .finish_non_exhaustive()
    }
}

// === impl Inner ===

impl Inner {
    fn flush(&self) -> io::Result<()> {
        let mut sink = lock(&self.sink);
        let Sink { target, spare } = &mut *sink;
        let mut result = Ok(());
        for mut buffer in self.buffers.each() {
            if buffer.bytes.is_empty() {
                continue;
            }
            std::mem::swap(&mut *buffer, spare);
            drop(buffer);
            if let Err(error) = target.write_all(&spare.bytes) {
                self.dropped.fetch_add(spare.lines, Ordering::Relaxed);
                result = result.and(Err(error));
            }
            spare.bytes.clear();
            spare.lines = 0;
        }
        let flushed = target.flush();
        result.and(flushed)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Nobody is left to be told of an error.
        let _ = self.flush();
    }
}

// === impl Target ===

impl Target {
    fn open(path: &str) -> io::Result<Self> {
        if path == "-" || path == "/dev/stdout" {
            return Ok(Self::Stdout);
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self::File(file))
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().lock().write_all(bytes),
            Self::File(file) => file.write_all(bytes),
            Self::Other(other) => other.write_all(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().lock().flush(),
            Self::File(_) => Ok(()),
            Self::Other(other) => other.flush(),
        }
    }
}

// === impl Bell ===

impl Bell {
    fn ring(&self) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let waiting = lock(&self.waiting).take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    fn poll_rung(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.rung.load(Ordering::Acquire) {
            *lock(&self.waiting) = Some(cx.waker().clone());
        }
        // It may have been rung between the look and the registration.
        if self.rung.swap(false, Ordering::AcqRel) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Calls `flush` every so often and whenever the bell is rung.
    pub(crate) async fn attend(&self, every: Duration, mut flush: impl FnMut()) {
        let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
        loop {
            poll_fn(|cx| match self.poll_rung(cx) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => ticks.poll_tick(cx).map(drop),
            })
            .await;
            flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A file's content in memory.
    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>, Arc<AtomicBool>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.1.load(Ordering::Relaxed) {
                return Err(io::Error::other("the disk is full"));
            }
            lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Memory {
        fn text(&self) -> String {
            String::from_utf8(lock(&self.0).clone()).unwrap()
        }
    }

    #[test]
    fn lines_of_all_workers_are_written_by_a_flush_and_not_before() {
        let memory = Memory::default();
        let writer = AccessLogWriter::to(memory.clone(), 1000);
        writer.write(Shard::of_worker(0), b"a\n");
        writer.write(Shard::of_worker(1), b"b\n");
        writer.write(Shard::of_worker(0), b"c\n");
        assert_eq!(memory.text(), "");
        writer.flush().unwrap();
        assert_eq!(memory.text(), "a\nc\nb\n");
        writer.flush().unwrap();
        assert_eq!(memory.text(), "a\nc\nb\n");
    }

    #[test]
    fn a_line_that_finds_no_room_is_dropped_and_counted() {
        let memory = Memory::default();
        let writer = AccessLogWriter::to(memory.clone(), 10);
        writer.write(Shard::default(), b"12345678\n");
        writer.write(Shard::default(), b"xx\n");
        assert_eq!(writer.dropped(), 1);
        writer.write(Shard::of_worker(1), b"other\n");
        writer.flush().unwrap();
        writer.write(Shard::default(), b"again\n");
        writer.flush().unwrap();
        assert_eq!(memory.text(), "12345678\nother\nagain\n");
    }

    #[test]
    fn what_is_buffered_is_written_when_the_last_clone_goes() {
        let memory = Memory::default();
        let writer = AccessLogWriter::to(memory.clone(), 1000);
        let other = writer.clone();
        writer.write(Shard::default(), b"a\n");
        drop(writer);
        assert_eq!(memory.text(), "");
        drop(other);
        assert_eq!(memory.text(), "a\n");
    }

    #[test]
    fn lines_that_the_file_refuses_are_counted() {
        let memory = Memory::default();
        let writer = AccessLogWriter::to(memory.clone(), 1000);
        memory.1.store(true, Ordering::Relaxed);
        writer.write(Shard::default(), b"a\n");
        writer.write(Shard::default(), b"b\n");
        assert!(writer.flush().is_err());
        assert_eq!(writer.dropped(), 2);
        memory.1.store(false, Ordering::Relaxed);
        writer.write(Shard::default(), b"c\n");
        writer.flush().unwrap();
        assert_eq!(memory.text(), "c\n");
    }

    #[tokio::test(start_paused = true)]
    async fn the_running_future_flushes_on_time_and_early_when_a_buffer_fills() {
        let memory = Memory::default();
        let writer = AccessLogWriter::to(memory.clone(), 10);
        let theirs = writer.clone();
        let running = tokio::spawn(async move { theirs.run(Duration::from_secs(10)).await });
        // The first tick comes at once.
        tokio::time::sleep(Duration::from_secs(1)).await;
        writer.write(Shard::default(), b"a\n");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(memory.text(), "");
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!(memory.text(), "a\n");
        writer.write(Shard::default(), b"12345\n");
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert_eq!(memory.text(), "a\n12345\n");
        running.abort();
    }

    #[test]
    fn a_rotated_file_is_left_and_a_new_one_begun() {
        let path = Path::new("rotated");
        let writer = AccessLogWriter::open(path.text()).unwrap();
        writer.write(Shard::default(), b"before\n");
        let moved = Path::new("rotated.1");
        writer.flush().unwrap();
        std::fs::rename(path.text(), moved.text()).unwrap();
        writer.write(Shard::default(), b"still before\n");
        writer.reopen().unwrap();
        writer.write(Shard::default(), b"after\n");
        writer.flush().unwrap();
        let read = |path: &Path| std::fs::read_to_string(path.text()).unwrap();
        assert_eq!(read(&moved), "before\nstill before\n");
        assert_eq!(read(&path), "after\n");
    }

    /// A path of this test's own, removed at its end.
    struct Path(PathBuf);

    impl Path {
        fn new(name: &str) -> Self {
            let name = format!("mesh-telemetry-{}-{name}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }
        fn text(&self) -> &str {
            self.0.to_str().unwrap()
        }
    }

    impl Drop for Path {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}
