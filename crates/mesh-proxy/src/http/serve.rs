//! Serving one HTTP connection: every timeout and limit of the codecs is set here and nowhere else.
//!
//! HTTP/1 is served by mesh-http1, and HTTP/2 by hyper. The first bytes tell which, in TLS, too:
//! whoever agreed on `h2` begins with its preface.

use super::adapter::Adapter;
use super::frames::Counted;
use super::life::{Life, Open, Served};
use super::stack::{RequestStack, StackBody};
use super::streams::{Activity, Streams};
use crate::connection::prefixed::Prefixed;
use crate::guard::Guard;
use http::HeaderValue;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mesh_core::model::HttpManager;
use mesh_core::stats::{Block, HttpStat};
use mesh_core::{Caller, Resets};
use mesh_http1::server::{self, Parts};
use mesh_http1::{Buffers, Limits, Server};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// HTTP/2 windows: a stream's is smaller than the connection's, so that one slow reader does not
/// hold up the others.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// A connection as the stack sees it.
pub(crate) struct Connection {
    /// Who calls. The chain's settings and statistics are added.
    pub(crate) caller: Caller,
    pub(crate) manager: Arc<HttpManager>,
    pub(crate) stats: Arc<Block<HttpStat>>,
    /// The `server` header of every response.
    pub(crate) server: Option<HeaderValue>,
    pub(crate) stack: RequestStack,
    /// The worker's buffers.
    pub(crate) buffers: Buffers,
    pub(crate) tasks: TaskTracker,
    pub(crate) guard: Guard,
    /// Says when to finish.
    pub(crate) drain: watch::Receiver<bool>,
}

/// A connection of HTTP/1, or one that has not said yet what it is.
struct Http1<I> {
    connection: server::Connection<I, Adapter, StackBody>,
    /// How many requests there were when it was looked at last, and whether one was under way.
    seen: (u64, bool),
    /// When the last response ended, or the connection came.
    since: Instant,
}

/// A connection of HTTP/2.
struct Http2<'a, I> {
    connection: Pin<&'a mut http2::Connection<TokioIo<Io<I>>, Streams, TokioExecutor>>,
    activity: Arc<Activity>,
    /// It was told that it is to end.
    leaving: bool,
}

type Io<I> = Counted<Prefixed<I>>;

/// Why a connection of HTTP/2 failed.
#[derive(Debug, thiserror::Error)]
enum Http2Error {
    #[error(transparent)]
    Codec(#[from] hyper::Error),
    /// Nobody wants to have the answers.
    #[error("too many requests were reset early")]
    Resets,
}

/// Serves a connection until it closes, was idle for too long, or is told to drain.
pub(crate) fn serve<I>(io: I, connection: Connection) -> impl Future<Output = ()> + Send
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let manager = connection.manager.clone();
    let open = Open::new(&connection.stats, connection.caller.shard);
    let drain = connection.drain.clone();
    let head_time = connection.guard.limits().head_time;
    let server = server(&manager, connection.buffers.clone(), head_time);
    let connection = server.serve(io, b"", Adapter::new(connection));
    let mut http1 = Http1::new(connection);
    // What the block is given stays where it is: moved into a variable, it would have two places
    // in the future for as long as that lasts.
    async move {
        let timer = pin!(tokio::time::sleep(Duration::ZERO));
        let mut life = Life::new(manager.idle_timeout, timer, drain, open);
        match life.serve(&mut http1).await {
            Some(Err(mesh_http1::Error::Http2)) => {
                if let Some(parts) = http1.connection.into_parts() {
                    // Boxed: most connections are none.
                    Box::pin(serve_http2(parts, &manager, life)).await;
                }
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "connection");
                if error.is_protocol() {
                    life.open().count(HttpStat::CxProtocolError);
                }
            }
            Some(Ok(())) | None => {}
        }
    }
}

async fn serve_http2<I>(parts: Parts<I, Adapter>, manager: &HttpManager, mut life: Life<'_>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::new());
    let guard = parts.service.guard().clone();
    let resets = Arc::<Resets>::default();
    let mut adapter = parts.service;
    adapter.note_resets(resets.clone());
    let streams = Streams::new(adapter, activity.clone());
    let io = Counted::new(Prefixed::beginning(parts.io, &parts.first), resets);
    let flood = io.flood();
    let io = TokioIo::new(io);
    let connection = pin!(streams_of(manager).serve_connection(io, streams));
    let mut http2 = Http2 {
        connection,
        activity,
        leaving: false,
    };
    let Some(Err(error)) = life.serve(&mut http2).await else {
        return;
    };
    tracing::debug!(%error, "connection");
    let open = life.open();
    match (error, flood.get()) {
        (Http2Error::Resets, _) => open.count(HttpStat::RqTooManyPrematureResets),
        (_, Some(flood)) => {
            guard.http2().inc(open.shard(), *flood);
            open.count(HttpStat::CxProtocolError);
        }
        (Http2Error::Codec(error), None) if error.is_parse() => {
            open.count(HttpStat::CxProtocolError);
        }
        (Http2Error::Codec(_), None) => {}
    }
}

fn server(manager: &HttpManager, buffers: Buffers, head_time: Option<Duration>) -> Server {
    let fields = usize::try_from(manager.max_headers).unwrap_or(100);
    Server::with_buffers(buffers)
        .limits(Limits::of(largest_head(manager), fields))
        .head_timeout(manager.request_head_timeout.or(head_time))
        // As Envoy without `accept_http_10`.
        .http10(false)
        // And without `enable_trailers`.
        .trailers(false)
        .gives_up_http2(true)
        // As Envoy's codec.
        .strict(true)
        // They are in the access log and in the statistics as any other request is.
        .tells_refusals(true)
}

fn streams_of(manager: &HttpManager) -> http2::Builder<TokioExecutor> {
    let head = u32::try_from(largest_head(manager).max(8192)).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(head)
        .max_concurrent_streams(manager.max_concurrent_streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    builder
}

/// In bytes.
fn largest_head(manager: &HttpManager) -> usize {
    usize::try_from(manager.max_head_kib)
        .unwrap_or(60)
        .saturating_mul(1024)
}

// === impl Http1 ===

impl<I> Http1<I> {
    fn new(connection: server::Connection<I, Adapter, StackBody>) -> Self {
        Self {
            connection,
            seen: (0, false),
            since: Instant::now(),
        }
    }
}

impl<I> Served for Http1<I>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Error = mesh_http1::Error;

    fn poll_served(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), mesh_http1::Error>> {
        let result = Pin::new(&mut self.connection).poll(cx);
        let now = (self.connection.requests(), self.connection.is_answering());
        if now != self.seen && !now.1 {
            self.since = Instant::now();
        }
        self.seen = now;
        result
    }

    fn leave(&mut self) {
        self.connection.last_request();
    }

    fn shut_down(&mut self) {
        self.connection.graceful_shutdown();
    }

    fn has_begun(&self) -> bool {
        self.connection.requests() > 0
    }

    fn idle_since(&self) -> Option<Instant> {
        (!self.connection.is_answering()).then_some(self.since)
    }
}

// === impl Http2 ===

impl<I> Served for Http2<'_, I>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Error = Http2Error;

    fn poll_served(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Http2Error>> {
        loop {
            if let Poll::Ready(result) = self.connection.as_mut().poll(cx) {
                return Poll::Ready(result.map_err(Into::into));
            }
            if self.activity.is_abused() {
                return Poll::Ready(Err(Http2Error::Resets));
            }
            if self.leaving || !self.activity.is_last() {
                return Poll::Pending;
            }
            self.shut_down();
        }
    }

    fn leave(&mut self) {
        // A stream does not say that it is the last: the connection does.
    }

    fn shut_down(&mut self) {
        self.leaving = true;
        self.connection.as_mut().graceful_shutdown();
    }

    fn has_begun(&self) -> bool {
        self.activity.has_begun()
    }

    fn idle_since(&self) -> Option<Instant> {
        self.activity.idle_since()
    }
}

#[cfg(test)]
mod tests;
