//! A connection in use by one request, and the response body that brings it back.

use super::counted::Counted;
use super::fault;
use super::lane::Protocol;
use super::outgoing::Outgoing;
use super::pool::Pool;
use super::received::Received;
use super::seat::Seat;
use super::sending::{NotSent, Sending};
use super::transport::Io;
use crate::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::client::conn::http2;
use mesh_core::model::Cluster;
use mesh_core::stats::{ClusterStat, Raised};
use mesh_core::usage::Taken;
use mesh_core::{Error, Failure};
use mesh_http1::client::SendRequest;
use mesh_identity::TlsError;
use mesh_lb::{Host, HostConnection, Lapse};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// A connection that is one request's to use. Dropped before anything was sent, or after the
/// response ended, it returns to its pool; dropped in between, it is closed.
pub(crate) struct Lease {
    /// `None` once the connection was given away.
    sender: Option<Sender>,
    meta: Arc<Meta>,
    pool: Arc<Pool>,
    /// Something was sent on it before.
    pub(super) reused: bool,
    /// No exchange of messages is half done on it.
    intact: bool,
    /// The exchange failed, or became a tunnel: whoever drops it resets nothing.
    over: bool,
    /// What the request counts for.
    unit: Option<Taken>,
}

pub(super) enum Sender {
    Http1(SendRequest<Io, Body>),
    Http2(Arc<Shared>),
}

/// An HTTP/1 connection with nothing to do.
pub(super) struct Idle {
    pub(super) sender: SendRequest<Io, Body>,
    pub(super) meta: Arc<Meta>,
    pub(super) since: Instant,
}

/// An HTTP/2 connection.
pub(super) struct Shared {
    pub(super) sender: http2::SendRequest<Outgoing>,
    pub(super) in_flight: AtomicU32,
    /// Streams that the peer allows at once.
    most: Arc<AtomicUsize>,
    pub(super) meta: Arc<Meta>,
    idle_since: Mutex<Instant>,
}

/// What is known of a connection.
pub(crate) struct Meta {
    /// The lane that it belongs to.
    pub(super) lane: Protocol,
    pub(super) remote: Option<SocketAddr>,
    pub(super) local: Option<SocketAddr>,
    pub(super) opened: Instant,
    pub(super) requests: AtomicU32,
    /// Whether its host fell ill since.
    pub(super) lapse: Lapse,
    /// Why it broke, once it has and there is more to say than that it did.
    pub(super) broken: Arc<OnceLock<String>>,
}

/// What a connection counts for while it is open.
pub(crate) struct Units {
    _seat: Seat,
    _host: HostConnection,
    _active: Raised<Counted, ClusterStat>,
    counted: Counted,
    by_peer: bool,
    broken: Arc<OnceLock<String>>,
}

/// A response body that brings its connection back to the pool when it ends.
pub(crate) struct Pooled {
    body: Received,
    lease: Option<Lease>,
    /// Whoever reads it had no turn yet to pass on what it was given last: the head, or data.
    fresh: bool,
    /// Why it broke off, to be told at the next turn.
    broken: Option<Error>,
    /// It stands for a tunnel, which goes on when the body is over.
    tunnel: bool,
}

// === impl Lease ===

impl Lease {
    pub(super) fn new(sender: Sender, meta: Arc<Meta>, pool: Arc<Pool>, reused: bool) -> Self {
        Self {
            sender: Some(sender),
            meta,
            pool,
            reused,
            intact: true,
            over: false,
            unit: None,
        }
    }

    pub(super) fn meta(&self) -> &Meta {
        &self.meta
    }

    pub(super) fn speaks_http2(&self) -> bool {
        matches!(self.sender, Some(Sender::Http2(_)))
    }

    pub(super) fn is_closed(&self) -> bool {
        match &self.sender {
            Some(Sender::Http1(sender)) => sender.is_closed(),
            Some(Sender::Http2(shared)) => shared.sender.is_closed(),
            None => true,
        }
    }

    /// Sends a request and waits for the response head.
    pub(super) fn send(
        &mut self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Received>, NotSent>> + Send + use<> {
        self.intact = false;
        match self.sender.as_mut() {
            Some(Sender::Http1(sender)) => {
                self.meta.requests.fetch_add(1, Ordering::Relaxed);
                Sending::Http1(sender.send_request(request))
            }
            Some(Sender::Http2(shared)) => {
                let request = request.map(Outgoing::new);
                Sending::Http2(shared.sender.clone().try_send_request(request))
            }
            None => unreachable!("a lease has its sender until it is dropped"),
        }
    }

    /// The response head is here: its body brings the connection back, or has left it already.
    pub(super) fn into_body(mut self, body: Received) -> Body {
        let body = match body.into_whole() {
            Ok(bytes) => {
                self.complete();
                return Body::received(bytes, self.unit.take());
            }
            Err(body) => body,
        };
        Body::pooled(Pooled::new(body, self, false))
    }

    /// The response head opened a tunnel: the body stands for it and is not to be read. Once it is
    /// dropped a stream is over; an HTTP/1 connection was taken over and never comes back.
    pub(super) fn into_tunnel(mut self, body: Received) -> Body {
        self.over = true;
        Body::pooled(Pooled::new(body, self, true))
    }

    /// Holds what the request counts for until the response has ended.
    pub(super) fn hold(&mut self, unit: Option<Taken>) {
        self.unit = unit;
    }

    /// The exchange failed on its own.
    pub(super) fn failed(&mut self) {
        self.over = true;
    }

    /// Counts how it failed.
    pub(super) fn count(&self, failure: Failure) {
        for stat in fault::stats(failure, self.speaks_http2()) {
            self.pool.count(*stat);
        }
    }

    /// The response ended. A connection of HTTP/1 is closed now if it cannot be used again.
    fn complete(&mut self) {
        self.intact = true;
    }

    /// Gives an HTTP/1 connection up to be kept, if it is fit for that. A shared connection only
    /// loses one stream.
    pub(super) fn into_idle(mut self, now: Instant) -> Option<Idle> {
        match self.sender.take()? {
            Sender::Http1(sender) => Some(Idle {
                sender,
                meta: self.meta.clone(),
                since: now,
            }),
            Sender::Http2(shared) => {
                shared.release(now);
                None
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match self.sender.take() {
            // Of a response that nobody wanted, the rest may have been there.
            Some(Sender::Http1(sender)) if self.intact || sender.is_ready() => {
                let lease = Self::new(
                    Sender::Http1(sender),
                    self.meta.clone(),
                    self.pool.clone(),
                    true,
                );
                self.pool.give_back(lease);
            }
            Some(Sender::Http2(shared)) => {
                // As in Envoy, where a connection of HTTP/1 is only closed.
                if !self.intact && !self.over {
                    self.pool.count(ClusterStat::RqTxReset);
                }
                self.pool.stream_ended(&shared);
            }
            Some(Sender::Http1(_)) | None => {}
        }
    }
}

// === impl Shared ===

impl Shared {
    pub(super) fn new(
        sender: http2::SendRequest<Outgoing>,
        most: Arc<AtomicUsize>,
        meta: Arc<Meta>,
        now: Instant,
    ) -> Self {
        Self {
            sender,
            in_flight: AtomicU32::new(0),
            most,
            meta,
            idle_since: Mutex::new(now),
        }
    }

    /// A stream. Counted here and not when it is used, so that many handed out at once stay
    /// within the connection's limits.
    pub(super) fn lease(self: &Arc<Self>, pool: Arc<Pool>) -> Lease {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let reused = self.meta.requests.fetch_add(1, Ordering::Relaxed) > 0;
        Lease::new(Sender::Http2(self.clone()), self.meta.clone(), pool, reused)
    }

    pub(super) fn release(&self, now: Instant) {
        // The time first: who sees no stream must see since when.
        *self
            .idle_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = now;
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn idle_since(&self) -> Instant {
        *self
            .idle_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn peer_allows(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }
}

// === impl Meta ===

impl Meta {
    /// It has lived or worked as long as it may, or is from before its host fell ill.
    pub(super) fn is_worn_out(&self, cluster: &Cluster, now: Instant) -> bool {
        self.has_served_all(cluster)
            || self.lapse.has_come()
            || cluster
                .max_connection_duration
                .is_some_and(|limit| now.duration_since(self.opened) >= limit)
    }

    pub(super) fn has_served_all(&self, cluster: &Cluster) -> bool {
        let most = cluster.max_requests_per_connection;
        most > 0 && self.requests.load(Ordering::Relaxed) >= most
    }
}

// === impl Units ===

impl Units {
    /// What one more open connection counts for.
    pub(crate) fn new(counted: &Counted, host: &Host, seat: Seat, took: Duration) -> Self {
        counted.count(ClusterStat::CxTotal);
        counted.connect_time(took);
        Self {
            _seat: seat,
            _host: host.connected(),
            _active: counted.raise(ClusterStat::CxActive),
            counted: counted.clone(),
            by_peer: false,
            broken: Arc::default(),
        }
    }

    /// Where it will stand why the connection broke.
    pub(super) fn reason(&self) -> Arc<OnceLock<String>> {
        self.broken.clone()
    }

    /// The peer closed the connection.
    pub(crate) fn closed_by_peer(&mut self) {
        self.by_peer = true;
    }

    /// The connection broke, for this reason if it was in TLS.
    pub(crate) fn broken(&mut self, tls: Option<&TlsError>) {
        self.by_peer = true;
        let Some(tls) = tls else { return };
        if self.broken.set(tls.to_string()).is_ok()
            && let Some(stat) = tls.cluster_stat()
        {
            self.counted.count(stat);
        }
    }
}

impl Drop for Units {
    fn drop(&mut self) {
        self.counted.count(ClusterStat::CxDestroy);
        self.counted.count(if self.by_peer {
            ClusterStat::CxDestroyRemote
        } else {
            ClusterStat::CxDestroyLocal
        });
    }
}

// === impl Pooled ===

impl Pooled {
    fn new(body: Received, lease: Lease, tunnel: bool) -> Self {
        Self {
            body,
            lease: Some(lease),
            fresh: true,
            broken: None,
            tunnel,
        }
    }
}

impl HttpBody for Pooled {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if let Some(error) = this.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let fresh = std::mem::take(&mut this.fresh);
        let frame = ready!(this.body.poll_frame(cx));
        this.fresh = true;
        this.tunnel = false;
        // After the last frame nobody may poll again, so do not wait for `None`.
        let over = match &frame {
            None | Some(Err(_)) => true,
            Some(Ok(frame)) => frame.is_trailers() || this.body.is_end_stream(),
        };
        if let Some(mut lease) = this.lease.take_if(|_| over) {
            match &frame {
                Some(Err(error)) => {
                    lease.failed();
                    lease.count(error.failure());
                }
                _ => lease.complete(),
            }
        }
        match frame {
            // Servers drop what they did not write yet when a body breaks off. What came before
            // that is to be seen, as through Envoy.
            Some(Err(error)) if fresh => {
                this.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.tunnel && self.broken.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.broken.is_some() {
            return SizeHint::default();
        }
        self.body.size_hint()
    }
}
