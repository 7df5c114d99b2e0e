//! HTTP/2: the streams of a connection, which hyper serves.

use super::adapter::{Adapter, ResponseFuture};
use super::stack::StackBody;
use http::{Request, Response};
use hyper::body::Incoming;
use mesh_client::Body;
use mesh_core::body::{Coalesced, Held};
use mesh_core::stats::HttpStat;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// Requests of a connection before it is judged by how many were reset (Envoy
/// `overload.premature_reset_total_stream_count`).
const MANY: usize = 500;

/// What is reset within this time without an answer is reset early (Envoy
/// `overload.premature_reset_min_stream_lifetime_seconds`, which cuts off parts of seconds).
const EARLY: Duration = Duration::from_secs(2);

/// The way of a connection's streams into the stack.
pub(super) struct Streams {
    adapter: Mutex<Adapter>,
    activity: Arc<Activity>,
}

/// What is going on on a connection, to tell an idle one.
#[derive(Debug)]
pub(super) struct Activity {
    /// Requests whose response has not ended.
    active: AtomicUsize,
    /// Requests so far.
    requests: AtomicUsize,
    /// When the last response ended, or the connection came.
    since: Mutex<Instant>,
    /// Requests that are over.
    over: AtomicUsize,
    /// Those of them that were reset early, without an answer.
    reset: AtomicUsize,
    /// The connection is to end with what it has.
    last: AtomicBool,
}

/// The future of a stream's response. The adapter's is a parameter, as the stack's is there.
#[pin_project::pin_project(PinnedDrop)]
pub(super) struct Streaming<F> {
    #[pin]
    inner: F,
    /// Moves into the response's body.
    busy: Option<Busy>,
    began: Instant,
}

pub(super) type StreamFuture = Streaming<ResponseFuture>;

/// A request under way, until its response has ended or was dropped.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

// === impl Streams ===

impl Streams {
    pub(super) fn new(adapter: Adapter, activity: Arc<Activity>) -> Self {
        Self {
            adapter: Mutex::new(adapter),
            activity,
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for Streams {
    type Response = Response<Held<Coalesced<StackBody>, Busy>>;
    type Error = Infallible;
    type Future = StreamFuture;

    fn call(&self, request: Request<Incoming>) -> StreamFuture {
        // hyper calls this from the connection's own task, so nobody waits for this lock; what it
        // returns is polled elsewhere.
        let mut adapter = self.adapter.lock().unwrap_or_else(PoisonError::into_inner);
        adapter.begin(HttpStat::CxHttp2Total);
        if !self.activity.is_last() && adapter.is_last() {
            self.activity.last.store(true, Ordering::Relaxed);
        }
        Streaming {
            inner: adapter.send(request.map(Body::new)).0,
            busy: Some(Busy::new(&self.activity)),
            began: Instant::now(),
        }
    }
}

// === impl Streaming ===

impl Future for Streaming<ResponseFuture> {
    type Output = Result<Response<Held<Coalesced<StackBody>, Busy>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(response) = ready!(this.inner.poll(cx));
        let busy = this.busy.take();
        Poll::Ready(Ok(
            response.map(|body| Held::new(Coalesced::new(body), busy))
        ))
    }
}

#[pin_project::pinned_drop]
impl<F> PinnedDrop for Streaming<F> {
    /// Reset before there was an answer.
    fn drop(self: Pin<&mut Self>) {
        if let Some(Busy(activity)) = &self.busy
            && self.began.elapsed() < EARLY
        {
            activity.reset.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// === impl Activity ===

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            active: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            since: Mutex::new(Instant::now()),
            over: AtomicUsize::new(0),
            reset: AtomicUsize::new(0),
            last: AtomicBool::new(false),
        }
    }

    /// Whether the connection is to end with what it has.
    pub(super) fn is_last(&self) -> bool {
        self.last.load(Ordering::Relaxed)
    }

    /// Whether so many requests were reset early that nobody wants their answers (Envoy
    /// `overload.premature_reset_total_stream_count`): half of all, and half of [`MANY`] at least.
    pub(super) fn is_abused(&self) -> bool {
        let (reset, over) = (
            self.reset.load(Ordering::Relaxed),
            self.over.load(Ordering::Relaxed),
        );
        2 * reset >= over.max(MANY)
    }

    /// Whether there was a request.
    pub(super) fn has_begun(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// Since when nothing is going on; none while there is a request.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        (self.active.load(Ordering::Relaxed) == 0).then_some(since)
    }
}

// === impl Busy ===

impl Busy {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.active.fetch_add(1, Ordering::Relaxed);
        activity.requests.fetch_add(1, Ordering::Relaxed);
        Self(activity.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.over.fetch_add(1, Ordering::Relaxed);
        let since = &self.0.since;
        *since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}
