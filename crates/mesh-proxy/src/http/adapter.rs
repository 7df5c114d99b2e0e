//! From a hyper connection to the stack and back.
//!
//! One adapter per connection holds one clone of the worker's stack and calls it through `&self`:
//! hyper-util's adapter clones the whole stack for every request and throws away what the clone
//! learned.

use super::admit::{X_REQUEST_ID, append_via};
use super::serve::Connection;
use super::stack::{RequestStack, StackBody, StackFuture};
use crate::listener::Counted;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mesh_client::Body;
use mesh_core::body::Held;
use mesh_core::model::HttpManager;
use mesh_core::stats::{HttpStat, Raised};
use mesh_core::{Caller, Exchange};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tower_service::Service;

/// One connection's way into the stack.
pub(crate) struct Adapter {
    stack: Mutex<RequestStack>,
    caller: Caller,
    /// The `server` header of every response.
    server: Option<HeaderValue>,
    /// What else the listener puts on responses; mostly nothing.
    marks: Option<Arc<HttpManager>>,
    activity: Arc<Activity>,
    tasks: TaskTracker,
}

/// What is going on on a connection, to tell an idle one.
#[derive(Debug)]
pub(crate) struct Activity {
    /// Requests whose response has not ended.
    active: AtomicUsize,
    /// Requests so far.
    requests: AtomicUsize,
    /// When the last response ended, or the connection came.
    since: Mutex<Instant>,
    /// The connection takes no more requests.
    leaving: AtomicBool,
}

/// The response future: the stack's, then the upgrade if there is one.
#[pin_project::pin_project]
pub(crate) struct ResponseFuture {
    #[pin]
    inner: StackFuture,
    upgrade: Option<(OnUpgrade, Caller)>,
    server: Option<HeaderValue>,
    marks: Option<Marks>,
    is_http1: bool,
    /// An HTTP/1 request that has a body.
    arriving: Option<Exchange>,
    /// It was not polled yet.
    at_once: bool,
    tasks: TaskTracker,
    /// Moves into the response's body.
    busy: Option<Busy>,
}

/// What a listener puts on responses where it is told to.
struct Marks {
    manager: Arc<HttpManager>,
    exchange: Exchange,
}

/// A request under way, until its response has ended or was dropped.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Activity>);

// === impl Adapter ===

impl Adapter {
    pub(crate) fn new(connection: Connection, activity: Arc<Activity>) -> Self {
        let mut caller = connection.caller;
        let manager = connection.manager;
        caller.manager = Some(manager.clone());
        caller.stats = Some(connection.stats);
        Self {
            stack: Mutex::new(connection.stack),
            caller,
            server: connection.server,
            marks: Some(manager).filter(|manager| {
                manager.request_id_in_response
                    || !manager.via.is_empty()
                    || manager.server_if_absent
            }),
            activity,
            tasks: connection.tasks,
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for Adapter {
    type Response = Response<Held<StackBody, Busy>>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn call(&self, mut request: Request<Incoming>) -> ResponseFuture {
        let now = Instant::now().into_std();
        let is_http1 = request.version() != Version::HTTP_2;
        if !self.activity.has_begun() {
            self.caller.count(if is_http1 {
                HttpStat::CxHttp1Total
            } else {
                HttpStat::CxHttp2Total
            });
        }
        let busy = Busy::new(&self.activity);
        let caller = self.caller.clone();
        let upgrade = mesh_client::upgrade_of(request.headers())
            .is_some()
            .then(|| (hyper::upgrade::on(&mut request), caller.clone()));
        let mut request = request.map(Body::new);
        let exchange = Exchange::new(now, caller);
        exchange.attach(&mut request);
        let has_body = !request.body().is_end_stream();
        let marks = self.marks.clone().map(|manager| Marks {
            manager,
            exchange: exchange.clone(),
        });
        let arriving = (is_http1 && has_body).then_some(exchange);
        // hyper calls this from the connection's own task, so nobody waits for this lock; what it
        // returns is polled elsewhere on HTTP/2. Nothing in the stack is ever not ready, so
        // `poll_ready` has nothing to say.
        let mut stack = self.stack.lock().unwrap_or_else(PoisonError::into_inner);
        ResponseFuture {
            inner: stack.call(request),
            upgrade,
            server: self.server.clone(),
            marks,
            is_http1,
            arriving,
            at_once: true,
            tasks: self.tasks.clone(),
            busy: Some(busy),
        }
    }
}

// === impl ResponseFuture ===

impl Future for ResponseFuture {
    type Output = Result<Response<Held<StackBody, Busy>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let at_once = std::mem::take(this.at_once);
        let Ok(mut response) = ready!(this.inner.poll(cx));
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some((downstream, caller)) = this.upgrade.take()
        {
            // The task ends when either side closes; a worker that drains waits for it as it does
            // for connections.
            this.tasks.spawn(tunnel(
                downstream,
                hyper::upgrade::on(&mut response),
                caller,
            ));
        }
        if let Some(server) = this.server.take() {
            // Envoy overwrites what the upstream said (`server_header_transformation`).
            let marks = this.marks.as_ref();
            if !marks.is_some_and(|marks| marks.leaves_server(response.headers())) {
                response.headers_mut().insert(header::SERVER, server);
            }
        }
        if let Some(marks) = this.marks.take() {
            marks.put(response.headers_mut());
        }
        let busy = this.busy.take();
        let is_leaving = |busy: &Busy| busy.0.leaving.load(Ordering::Relaxed);
        let is_early = |exchange: Exchange| is_early(&exchange, at_once);
        if *this.is_http1
            && response.status() != StatusCode::SWITCHING_PROTOCOLS
            && (busy.as_ref().is_some_and(is_leaving) || this.arriving.take().is_some_and(is_early))
        {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        Poll::Ready(Ok(response.map(|body| Held::new(body, busy))))
    }
}

/// Whether the answer comes before the request is whole, so that the connection is closed after it
/// as in Envoy (`ActiveStream::encodeHeaders`): a body that nobody wants is not waited for.
///
/// What we answer ourselves after having waited for something does not count: Envoy reads on
/// meanwhile, and usually has the rest when we have not looked at it.
fn is_early(exchange: &Exchange, at_once: bool) -> bool {
    let from_upstream = || exchange.with_notes(|notes| notes.failure.is_none());
    !exchange.request_is_whole() && (at_once || from_upstream())
}

// === impl Marks ===

impl Marks {
    fn leaves_server(&self, headers: &HeaderMap) -> bool {
        self.manager.server_if_absent && headers.contains_key(header::SERVER)
    }

    fn put(&self, headers: &mut HeaderMap) {
        if !self.manager.via.is_empty() {
            append_via(headers, &self.manager.via);
        }
        if self.manager.request_id_in_response
            && let Some(id) = self.exchange.request_id()
        {
            headers.insert(X_REQUEST_ID, id);
        }
    }
}

// === impl Activity ===

impl Activity {
    pub(crate) fn new() -> Self {
        Self {
            active: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            since: Mutex::new(Instant::now()),
            leaving: AtomicBool::new(false),
        }
    }

    /// From now on HTTP/1 responses say that they are the last.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether there was a request.
    pub(crate) fn has_begun(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// Since when nothing is going on; none while there is a request.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
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
        let since = &self.0.since;
        *since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Copies bytes both ways once both sides have switched protocols.
async fn tunnel(downstream: OnUpgrade, upstream: OnUpgrade, caller: Caller) {
    caller.count(HttpStat::CxUpgradesTotal);
    let _active = caller.stats.clone().map(|stats| {
        Raised::new(
            Counted::new(stats),
            caller.shard,
            HttpStat::CxUpgradesActive,
        )
    });
    let (downstream, upstream) = match tokio::try_join!(downstream, upstream) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(%error, "upgrade");
            return;
        }
    };
    let (mut downstream, mut upstream) = (TokioIo::new(downstream), TokioIo::new(upstream));
    if let Err(error) = tokio::io::copy_bidirectional(&mut downstream, &mut upstream).await {
        tracing::debug!(%error, "upgraded connection");
    }
}
