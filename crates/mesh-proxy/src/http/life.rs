//! How long a connection lives, whichever protocol it speaks.

use crate::listener::Counted;
use mesh_core::Shard;
use mesh_core::stats::{Block, HttpStat, Raised};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

/// How long a connection without a request yet is waited for when it has to close. Its caller may
/// have sent one already, and could not tell whether it was looked at.
pub(super) const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// A connection that was told to close is dropped after this long without a request: its peer may
/// be gone without having said so.
pub(super) const FAREWELL: Duration = Duration::from_secs(30);

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Serving -> Leaving: told to drain. Serves its first request if that has not come yet.
    Leaving,
    /// Serving or Leaving -> Closing: finishes what it has and takes nothing more.
    Closing,
}

/// A connection that is served.
pub(super) trait Served {
    type Error;

    fn poll_served(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>>;
    /// The request that comes next, or is under way, is the last.
    fn leave(&mut self);
    /// Nothing more is taken; what has begun is finished.
    fn shut_down(&mut self);
    /// Whether there was a request.
    fn has_begun(&self) -> bool;
    /// Since when nothing is going on; none while there is a request.
    fn idle_since(&self) -> Option<Instant>;
}

/// Ends a connection when it was idle for too long, or is told to drain.
pub(super) struct Life<'a> {
    phase: Phase,
    /// How long it may be idle now.
    limit: Option<Duration>,
    /// Not before this is over it has been.
    timer: Pin<&'a mut Sleep>,
    drain: watch::Receiver<bool>,
    open: Open,
}

/// Counts an open connection, whatever becomes of the task that serves it.
pub(super) struct Open {
    stats: Arc<Block<HttpStat>>,
    shard: Shard,
    _active: Raised<Counted<HttpStat>, HttpStat>,
}

enum Event<E> {
    Over(Result<(), E>),
    Begun,
}

// === impl Life ===

impl<'a> Life<'a> {
    /// Of a connection that may be idle for so long; `timer` is for that.
    pub(super) fn new(
        limit: Option<Duration>,
        timer: Pin<&'a mut Sleep>,
        drain: watch::Receiver<bool>,
        open: Open,
    ) -> Self {
        let mut life = Self {
            phase: Phase::Serving,
            limit: None,
            timer,
            drain,
            open,
        };
        life.limit(limit, Some(Instant::now()));
        life
    }

    pub(super) fn open(&self) -> &Open {
        &self.open
    }

    /// Serves a connection to its end, or until it is to be dropped; then there is no result.
    pub(super) async fn serve<C: Served>(
        &mut self,
        connection: &mut C,
    ) -> Option<Result<(), C::Error>> {
        loop {
            let leaving = self.phase == Phase::Leaving;
            let serving = poll_fn(|cx| match connection.poll_served(cx) {
                Poll::Ready(result) => Poll::Ready(Event::Over(result)),
                // Looked at whenever the connection was polled, which is when a request may have
                // come.
                Poll::Pending if leaving && connection.has_begun() => Poll::Ready(Event::Begun),
                Poll::Pending => Poll::Pending,
            });
            tokio::select! {
                biased;
                event = serving => match event {
                    Event::Over(result) => return Some(result),
                    Event::Begun => self.close(connection),
                },
                () = told(&mut self.drain), if self.phase == Phase::Serving => {
                    self.open.count(HttpStat::CxDrainClose);
                    self.phase = Phase::Leaving;
                    connection.leave();
                    self.limit(Some(FIRST_REQUEST), connection.idle_since());
                }
                () = self.timer.as_mut(), if self.limit.is_some() => {
                    let since = connection.idle_since();
                    if !self.limit(self.limit, since) {
                        continue;
                    }
                    match self.phase {
                        Phase::Serving => self.open.count(HttpStat::CxIdleTimeout),
                        Phase::Leaving => {}
                        Phase::Closing => return None,
                    }
                    self.close(connection);
                }
            }
        }
    }

    fn close<C: Served>(&mut self, connection: &mut C) {
        self.phase = Phase::Closing;
        connection.shut_down();
        self.limit(Some(FAREWELL), connection.idle_since());
    }

    /// From now on it may be idle for so long, since then. Says whether it has been. Looks again
    /// only when it could have been, so a busy connection pays nothing for it.
    fn limit(&mut self, limit: Option<Duration>, since: Option<Instant>) -> bool {
        self.limit = limit;
        let Some(limit) = limit else {
            return false;
        };
        let now = Instant::now();
        let until = since.unwrap_or(now) + limit;
        self.timer.as_mut().reset(until);
        until <= now
    }
}

async fn told(drain: &mut watch::Receiver<bool>) {
    // The sender is gone only when the worker is: then finish as well.
    let _ = drain.wait_for(|drain| *drain).await;
}

// === impl Open ===

impl Open {
    pub(super) fn new(stats: &Arc<Block<HttpStat>>, shard: Shard) -> Self {
        stats.inc(shard, HttpStat::CxTotal);
        Self {
            _active: Raised::new(Counted::new(stats.clone()), shard, HttpStat::CxActive),
            stats: stats.clone(),
            shard,
        }
    }

    pub(super) fn shard(&self) -> Shard {
        self.shard
    }

    pub(super) fn count(&self, stat: HttpStat) {
        self.stats.inc(self.shard, stat);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count(HttpStat::CxDestroy);
    }
}
