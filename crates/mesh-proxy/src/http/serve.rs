//! Serving one HTTP connection: every timeout and limit of hyper is set here and nowhere else.

use super::adapter::{Activity, Adapter};
use super::stack::RequestStack;
use crate::listener::Counted;
use http::HeaderValue;
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use mesh_core::model::HttpManager;
use mesh_core::stats::{Block, HttpStat, Raised};
use mesh_core::{Caller, Shard};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// HTTP/2 windows: a stream's is smaller than the connection's, so that one slow reader does not
/// hold up the others.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// How long a connection without a request yet is waited for when it has to close. Its caller may
/// have sent one already, and could not tell whether it was looked at.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// A connection that was told to close is dropped after this long without a request: its peer may
/// be gone without having said so.
const FAREWELL: Duration = Duration::from_secs(30);

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Serving -> Leaving: told to drain. Serves its first request if that has not come yet.
    Leaving,
    /// Serving or Leaving -> Closing: finishes what it has and takes nothing more.
    Closing,
}

/// Counts an open connection, whatever becomes of the task that serves it.
struct Open {
    stats: Arc<Block<HttpStat>>,
    shard: Shard,
    _active: Raised<Counted<HttpStat>, HttpStat>,
}

/// A connection as the stack sees it.
pub(crate) struct Connection {
    /// Who calls. The chain's settings and statistics are added.
    pub(crate) caller: Caller,
    pub(crate) manager: Arc<HttpManager>,
    pub(crate) stats: Arc<Block<HttpStat>>,
    /// The `server` header of every response.
    pub(crate) server: Option<HeaderValue>,
    pub(crate) stack: RequestStack,
    pub(crate) tasks: TaskTracker,
    /// Says when to finish.
    pub(crate) drain: watch::Receiver<bool>,
}

/// Serves a connection until it closes, was idle for too long, or is told to drain.
pub(crate) fn serve<I>(io: I, connection: Connection) -> impl Future<Output = ()> + Send
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Put together out here: what a future is given has its place in it as long as it lasts.
    let manager = connection.manager.clone();
    let open = Open::new(&connection.stats, connection.caller.shard);
    let drain = connection.drain.clone();
    let activity = Arc::new(Activity::new());
    let adapter = Adapter::new(connection, activity.clone());
    serve_on(TokioIo::new(io), adapter, manager, open, activity, drain)
}

async fn serve_on<I>(
    io: I,
    adapter: Adapter,
    manager: Arc<HttpManager>,
    open: Open,
    activity: Arc<Activity>,
    mut drain: watch::Receiver<bool>,
) where
    I: Read + Write + Unpin + Send + 'static,
{
    let builder = builder(&manager);
    let mut connection = pin!(builder.serve_connection_with_upgrades(io, adapter));
    let mut idle = pin!(idle(manager.idle_timeout, &activity));
    let mut phase = Phase::Serving;
    loop {
        tokio::select! {
            biased;
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "connection");
                    if is_protocol_error(&*error) {
                        open.count(HttpStat::CxProtocolError);
                    }
                }
                return;
            }
            // The sender is gone only when the worker is: then finish as well.
            _ = drain.wait_for(|drain| *drain), if phase == Phase::Serving => {
                open.count(HttpStat::CxDrainClose);
                phase = Phase::Leaving;
                activity.leave();
                idle.set(self::idle(Some(FIRST_REQUEST), &activity));
            }
            // Looked at whenever the connection was polled, which is when a request may have come.
            () = poll_fn(|_| has_begun(&activity)), if phase == Phase::Leaving => {
                phase = Phase::Closing;
                connection.as_mut().graceful_shutdown();
                idle.set(self::idle(Some(FAREWELL), &activity));
            }
            () = idle.as_mut() => {
                match phase {
                    Phase::Serving => open.count(HttpStat::CxIdleTimeout),
                    Phase::Leaving => {}
                    Phase::Closing => return,
                }
                phase = Phase::Closing;
                connection.as_mut().graceful_shutdown();
                idle.set(self::idle(Some(FAREWELL), &activity));
            }
        }
    }
}

fn builder(manager: &HttpManager) -> auto::Builder<TokioExecutor> {
    // By the first bytes, in TLS, too: whoever agreed on `h2` begins with its preface.
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let head = usize::try_from(manager.max_head_kib)
        .unwrap_or(60)
        .saturating_mul(1024)
        .max(8192);
    builder
        .http1()
        .timer(TokioTimer::new())
        // hyper counts from the end of the last request. Without a limit of its own, a head that
        // does not come is the business of `idle`.
        .header_read_timeout(manager.request_head_timeout)
        .max_headers(usize::try_from(manager.max_headers).unwrap_or(100))
        .max_buf_size(head)
        // A caller that closes its side has gone away, as in Envoy: its request is given up.
        .half_close(false)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
        .max_concurrent_streams(manager.max_concurrent_streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    builder
}

fn has_begun(activity: &Activity) -> Poll<()> {
    if activity.has_begun() {
        Poll::Ready(())
    } else {
        Poll::Pending
    }
}

fn is_protocol_error(error: &(dyn std::error::Error + 'static)) -> bool {
    error
        .downcast_ref::<hyper::Error>()
        .is_some_and(hyper::Error::is_parse)
}

/// Ends once nothing happened for `limit`. Looks only when the limit could be up, so a busy
/// connection pays nothing for it.
async fn idle(limit: Option<Duration>, activity: &Activity) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    loop {
        let left = match activity.idle_since() {
            None => limit,
            Some(since) => limit.saturating_sub(since.elapsed()),
        };
        if left.is_zero() {
            return;
        }
        tokio::time::sleep_until(Instant::now() + left).await;
    }
}

// === impl Open ===

impl Open {
    fn new(stats: &Arc<Block<HttpStat>>, shard: Shard) -> Self {
        stats.inc(shard, HttpStat::CxTotal);
        Self {
            _active: Raised::new(Counted::new(stats.clone()), shard, HttpStat::CxActive),
            stats: stats.clone(),
            shard,
        }
    }

    fn count(&self, stat: HttpStat) {
        self.stats.inc(self.shard, stat);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count(HttpStat::CxDestroy);
    }
}

#[cfg(test)]
mod tests;
