//! How a chain's connections are secured.

use crate::guard::Guard;
use crate::origin::Downstream;
use mesh_core::exchange::TlsInfo;
use mesh_core::model::{FilterChain, Snapshot};
use mesh_core::stats::{Block, ListenerStat, TlsStat};
use mesh_core::{Invalid, Shard};
use mesh_identity::{Acceptor, TlsStream};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How a chain's connections are secured.
#[derive(Debug)]
pub(crate) enum Security {
    /// Not at all.
    Plain,
    /// By TLS, which ends here.
    Tls(Handshake),
    /// By TLS that cannot be spoken: every connection is closed.
    Broken(Invalid),
}

/// The server's side of TLS.
#[derive(Debug)]
pub(crate) struct Handshake {
    acceptor: Acceptor,
    timeout: Option<Duration>,
}

// === impl Security ===

impl Security {
    pub(crate) fn of(chain: &FilterChain, snapshot: &Snapshot) -> Self {
        let Some(tls) = &chain.tls else {
            return Self::Plain;
        };
        match Acceptor::new(tls.clone(), |named| snapshot.secret(named).cloned()) {
            Ok(acceptor) => Self::Tls(Handshake {
                acceptor,
                timeout: chain.handshake_timeout,
            }),
            Err(error) => {
                tracing::error!(chain = %chain.name, %error, "connections are refused");
                Self::Broken(error)
            }
        }
    }
}

// === impl Handshake ===

impl Handshake {
    /// Does the handshake within its time. None where it failed, which is counted.
    pub(crate) async fn accept<IO: Downstream>(
        &self,
        io: IO,
        stats: &Block<ListenerStat>,
        agreed: Arc<Block<TlsStat>>,
        shard: Shard,
        guard: &Guard,
    ) -> Option<(TlsStream<IO>, Arc<TlsInfo>)> {
        let Some(_place) = guard.shake() else {
            stats.inc(shard, ListenerStat::HandshakeOverflow);
            return None;
        };
        let handshake = self.acceptor.accept(io);
        let done = match self.timeout.or_else(|| guard.limits().handshake_time) {
            None => handshake.await,
            Some(limit) => match tokio::time::timeout(limit, handshake).await {
                Ok(done) => done,
                Err(_) => {
                    stats.inc(shard, ListenerStat::CxTransportConnectTimeout);
                    return None;
                }
            },
        };
        match done {
            Ok((stream, info)) => {
                stats.inc(shard, ListenerStat::SslHandshake);
                TlsStat::count(&agreed, shard, &info);
                if info.resumed {
                    stats.inc(shard, ListenerStat::SslSessionReused);
                }
                if info.peer.is_none() {
                    stats.inc(shard, ListenerStat::SslNoCertificate);
                }
                Some((stream, info))
            }
            Err(error) => {
                tracing::debug!(%error, "handshake");
                if let Some(stat) = error.listener_stat() {
                    stats.inc(shard, stat);
                }
                None
            }
        }
    }
}

impl<IO: Downstream> Downstream for TlsStream<IO> {
    fn original_destination(&self) -> Option<SocketAddr> {
        self.get_ref().original_destination()
    }

    fn reset_when_closed(&self) {
        // The peer sees that `close_notify` is missing, which is all that Envoy 1.40 lets it see.
    }
}
