//! Where the bytes go: mesh-client's connections, or a test's.

use mesh_client::tcp::{TcpUpstream, TcpUpstreams};
use mesh_core::exchange;
use mesh_core::model::{ClusterEntry, Tunnel};
use mesh_core::{Caller, Error, HostId};
use socket2::SockRef;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Makes connections for bytes.
pub(crate) trait Connect: Clone + Send + Sync + 'static {
    type Upstream: Upstream;

    /// One attempt to connect to a host of `cluster`, rather not to one of `tried`; balancers that
    /// hash go by `hash`.
    fn connect(
        &self,
        cluster: &Arc<ClusterEntry>,
        caller: &Caller,
        hash: Option<u64>,
        tunnel: Option<&Tunnel>,
        tried: &mut Vec<HostId>,
    ) -> impl Future<Output = Result<Self::Upstream, Error>> + Send;
}

/// Ready when an endpoint fails.
pub(crate) type Fails = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection to an endpoint.
pub(crate) trait Upstream: AsyncRead + AsyncWrite + Unpin + Send {
    /// Where it leads.
    fn described(&self) -> exchange::Upstream;

    /// From now on closing the connection resets it. Only a socket of its own has that: what is
    /// secured is closed without a `close_notify` (as in Envoy), and a tunnel ends.
    fn reset_when_closed(&self);

    /// Ready when the connection is to be closed because its endpoint failed.
    fn endpoint_fails(&self) -> Option<Fails> {
        None
    }

    /// Whether an HTTP proxy is in between, so that a reset is no more than an end.
    fn is_tunnel(&self) -> bool;

    /// The socket, where bytes go over it as they are.
    fn plain(&self) -> Option<&TcpStream> {
        None
    }

    /// So many bytes were read from [`Upstream::plain`], and so many written to it.
    fn moved(&self, _read: usize, _written: usize) {}
}

impl Connect for TcpUpstreams {
    type Upstream = TcpUpstream;

    async fn connect(
        &self,
        cluster: &Arc<ClusterEntry>,
        caller: &Caller,
        hash: Option<u64>,
        tunnel: Option<&Tunnel>,
        tried: &mut Vec<HostId>,
    ) -> Result<TcpUpstream, Error> {
        match tunnel {
            None => Self::connect(self, cluster, caller, hash, tried).await,
            Some(tunnel) => self.tunnel(cluster, caller, hash, tunnel, tried).await,
        }
    }
}

impl Upstream for TcpUpstream {
    fn described(&self) -> exchange::Upstream {
        let mut described = exchange::Upstream::new(self.endpoint().clone());
        described.remote = self.remote();
        described.local = self.local();
        described
    }

    fn reset_when_closed(&self) {
        if let Some(socket) = self.tcp() {
            // The peer may be gone already.
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }

    fn endpoint_fails(&self) -> Option<Fails> {
        Self::endpoint_fails(self)
    }

    fn is_tunnel(&self) -> bool {
        Self::is_tunnel(self)
    }

    fn plain(&self) -> Option<&TcpStream> {
        self.tcp()
    }

    fn moved(&self, read: usize, written: usize) {
        self.note_received(read as u64);
        self.note_sent(written as u64);
    }
}
