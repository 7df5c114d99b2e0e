//! From a hyper connection to the stack and back.
//!
//! One adapter per connection holds one clone of the worker's stack and calls it through `&self`:
//! hyper-util's adapter clones the whole stack for every request and throws away what the clone
//! learned.

use super::stack::{RequestStack, StackBody, StackFuture};
use crate::listener::ListenerState;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mesh_client::Body;
use mesh_core::stats::{HttpStat, Raised};
use mesh_core::{Caller, Exchange};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tower_service::Service;

/// One connection's way into the stack.
pub(crate) struct Adapter {
    stack: Mutex<RequestStack>,
    listener: Arc<ListenerState>,
    peer: SocketAddr,
    local: SocketAddr,
    activity: Arc<Activity>,
}

/// What is going on on a connection, to tell an idle one.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// Requests whose response head is not out yet.
    pub(crate) active: AtomicUsize,
    /// Requests so far.
    pub(crate) requests: AtomicUsize,
}

/// The response future: the stack's, then the upgrade if there is one.
#[pin_project::pin_project]
pub(crate) struct ResponseFuture {
    #[pin]
    inner: StackFuture,
    upgrade: Option<(OnUpgrade, Caller)>,
    server: Option<HeaderValue>,
    _busy: Busy,
}

struct Busy(Arc<Activity>);

// === impl Adapter ===

impl Adapter {
    pub(crate) fn new(
        stack: RequestStack,
        listener: Arc<ListenerState>,
        peer: SocketAddr,
        local: SocketAddr,
        activity: Arc<Activity>,
    ) -> Self {
        Self {
            stack: Mutex::new(stack),
            listener,
            peer,
            local,
            activity,
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for Adapter {
    type Response = Response<StackBody>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn call(&self, mut request: Request<Incoming>) -> ResponseFuture {
        let now = tokio::time::Instant::now().into_std();
        let (caller, server) = self.listener.caller(self.peer, self.local);
        let upgrade = mesh_client::upgrade_of(request.headers())
            .is_some()
            .then(|| (hyper::upgrade::on(&mut request), caller.clone()));
        let mut request = request.map(Body::new);
        Exchange::new(now, caller).attach(&mut request);
        self.activity.active.fetch_add(1, Ordering::Relaxed);
        self.activity.requests.fetch_add(1, Ordering::Relaxed);
        let busy = Busy(self.activity.clone());
        // One connection's requests are polled by one task; on HTTP/2 they only take turns here.
        // Nothing in the stack is ever not ready, so `poll_ready` has nothing to say.
        let mut stack = self.stack.lock().unwrap_or_else(PoisonError::into_inner);
        ResponseFuture {
            inner: stack.call(request),
            upgrade,
            server,
            _busy: busy,
        }
    }
}

// === impl ResponseFuture ===

impl Future for ResponseFuture {
    type Output = Result<Response<StackBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(mut response) = ready!(this.inner.poll(cx));
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some((downstream, caller)) = this.upgrade.take()
        {
            // The task ends when either side closes, or with the worker.
            tokio::spawn(tunnel(
                downstream,
                hyper::upgrade::on(&mut response),
                caller,
            ));
        }
        if let Some(server) = this.server.take() {
            // Envoy overwrites what the upstream said (`server_header_transformation`).
            response.headers_mut().insert(header::SERVER, server);
        }
        Poll::Ready(Ok(response))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Copies bytes both ways once both sides have switched protocols.
async fn tunnel(downstream: OnUpgrade, upstream: OnUpgrade, caller: Caller) {
    caller.count(HttpStat::CxUpgradesTotal);
    let _active = caller
        .stats
        .clone()
        .map(|stats| Raised::new(Counted(stats), caller.shard, HttpStat::CxUpgradesActive));
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

struct Counted(Arc<mesh_core::stats::Block<HttpStat>>);

impl AsRef<mesh_core::stats::Block<HttpStat>> for Counted {
    fn as_ref(&self) -> &mesh_core::stats::Block<HttpStat> {
        &self.0
    }
}
