//! A connection for bytes, however it came to be.

use super::tunnel::Post;
use crate::upstream::counted::Counted;
use crate::upstream::transport::Io;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use mesh_core::Feed;
use mesh_core::exchange::TlsInfo;
use mesh_core::model::Endpoint;
use mesh_core::stats::ClusterStat;
use mesh_core::usage::Taken;
use mesh_lb::{Engaged, HostSet, Lapse};
use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connection to an endpoint that is one caller's alone.
///
/// Until it is dropped it counts as an open connection and, for balancing, as a request under way.
/// Shutting it down closes the half that is written ([`AsyncWrite`]); the other half ends with a
/// read of nothing. Bytes are counted as they are read and written.
pub struct TcpUpstream {
    inner: Inner,
    ends: Ends,
    counted: Counted,
    /// Where its cluster wants it closed when its endpoint fails.
    watch: Option<Box<Watch>>,
    _request: Option<Taken>,
}

/// An endpoint that may fail.
#[derive(Clone)]
pub(super) struct Watch {
    pub(super) lapse: Lapse,
    /// News of the cluster's hosts.
    pub(super) sets: Feed<HostSet>,
}

/// What is known of a connection.
pub(super) struct Ends {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) remote: Option<SocketAddr>,
    pub(super) local: Option<SocketAddr>,
    pub(super) tls: Option<Arc<TlsInfo>>,
}

pub(super) enum Inner {
    Direct(Io, #[allow(dead_code, reason = "held while open")] Engaged),
    /// Through a proxy that agreed to CONNECT.
    Http1(
        mesh_http1::upgrade::Upgraded,
        #[allow(dead_code, reason = "held while open")] Held,
    ),
    /// The same, on a stream.
    Http2(
        TokioIo<Upgraded>,
        #[allow(dead_code, reason = "held while open")] Held,
    ),
    /// Through a proxy, as the bodies of a POST.
    Post(Post),
}

/// What counts a tunnel as a request under way.
pub(super) type Held = mesh_lb::Answer<crate::Body>;

// === impl TcpUpstream ===

impl TcpUpstream {
    pub(super) fn new(inner: Inner, ends: Ends, counted: Counted, request: Option<Taken>) -> Self {
        Self {
            inner,
            ends,
            counted,
            watch: None,
            _request: request,
        }
    }

    pub(super) fn watching(mut self, watch: Option<Box<Watch>>) -> Self {
        self.watch = watch;
        self
    }

    /// Ready when the endpoint is ejected or fails its health checks, where the cluster wants
    /// connections closed then ([`close_unhealthy`](mesh_core::model::Cluster::close_unhealthy)).
    /// None where it does not, and for tunnels.
    pub fn endpoint_fails(&self) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        let Watch { lapse, mut sets } = Watch::clone(self.watch.as_deref()?);
        Some(Box::pin(async move {
            while !lapse.has_come() {
                if sets.changed().await.is_err() {
                    // The cluster is gone, and nobody knows of its hosts any more.
                    std::future::pending::<()>().await;
                }
            }
        }))
    }

    /// The endpoint that was chosen; of a tunnel, the proxy.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.ends.endpoint
    }

    /// The address connected to.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.ends.remote
    }

    /// Our side of the connection.
    pub fn local(&self) -> Option<SocketAddr> {
        self.ends.local
    }

    /// What TLS agreed on. None where the connection is not secured, and for tunnels.
    pub fn tls(&self) -> Option<&Arc<TlsInfo>> {
        self.ends.tls.as_ref()
    }

    /// Whether it leads through an HTTP proxy. How such a connection ends at its other end is not
    /// told: it has no reset of its own.
    pub fn is_tunnel(&self) -> bool {
        !matches!(self.inner, Inner::Direct(..))
    }

    /// The socket, where bytes go over it as they are: neither TLS nor a tunnel. Who reads and
    /// writes it past this value says how much with [`TcpUpstream::note_received`] and
    /// [`TcpUpstream::note_sent`].
    pub fn tcp(&self) -> Option<&TcpStream> {
        match &self.inner {
            Inner::Direct(io, _) => io.stream().tcp(),
            _ => None,
        }
    }

    /// Counts bytes that were read from [`TcpUpstream::tcp`].
    pub fn note_received(&self, bytes: u64) {
        self.counted.add(ClusterStat::CxRxBytes, bytes);
    }

    /// Counts bytes that were written to [`TcpUpstream::tcp`].
    pub fn note_sent(&self, bytes: u64) {
        self.counted.add(ClusterStat::CxTxBytes, bytes);
    }
}

macro_rules! each {
    ($self:expr, $io:ident => $call:expr) => {
        match $self {
            Inner::Direct($io, _) => $call,
            Inner::Http1($io, _) => $call,
            Inner::Http2($io, _) => $call,
            Inner::Post($io) => $call,
        }
    };
}

impl AsyncRead for TcpUpstream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(each!(&mut this.inner, io => Pin::new(io).poll_read(cx, buf)))?;
        this.note_received((buf.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TcpUpstream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(each!(&mut this.inner, io => Pin::new(io).poll_write(cx, buf)))?;
        this.note_sent(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut self.get_mut().inner, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut self.get_mut().inner, io => Pin::new(io).poll_shutdown(cx))
    }

    fn is_write_vectored(&self) -> bool {
        each!(&self.inner, io => io.is_write_vectored())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let writing = each!(&mut this.inner, io => Pin::new(io).poll_write_vectored(cx, bufs));
        let written = ready!(writing)?;
        this.note_sent(written as u64);
        Poll::Ready(Ok(written))
    }
}

impl fmt::Debug for TcpUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpUpstream")
            .field("endpoint", &self.ends.endpoint.address)
            .field("remote", &self.ends.remote)
            .field("local", &self.ends.local)
            .finish_non_exhaustive()
    }
}
