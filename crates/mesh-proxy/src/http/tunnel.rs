//! What was HTTP/1 and is another protocol from now on.

use super::adapter::Upgrading;
use http::Response;
use mesh_core::Exchange;
use mesh_core::upgrade::Tunnel;
use mesh_http1::upgrade::{OnUpgrade, Upgraded, on};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};

/// One side of a tunnel. What is read from it is counted, and whether it was the first to end.
struct Side<'a> {
    io: Upgraded,
    which: Which,
    exchange: &'a Exchange,
    first: &'a First,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Caller,
    Upstream,
}

/// Who ended a tunnel: nobody, the caller, or the upstream.
#[derive(Debug, Default)]
struct First(AtomicU8);

/// Copies bytes both ways, once both sides have switched protocols as `response` says. The request
/// is over when they have nothing more to say to each other.
pub(super) fn tunnel<B>(
    downstream: OnUpgrade,
    response: &mut Response<B>,
    exchange: Exchange,
    upgrading: Option<Upgrading>,
) -> impl Future<Output = ()> + Send + use<B> {
    let upstream = on(response.extensions_mut());
    let lasting = Tunnel::take(response.extensions_mut());
    copy(downstream, upstream, exchange, (lasting, upgrading))
}

async fn copy(
    downstream: OnUpgrade,
    upstream: Option<OnUpgrade>,
    exchange: Exchange,
    (lasting, _upgrading): (Option<Tunnel>, Option<Upgrading>),
) {
    // Always there: upstreams switch protocols in HTTP/1 only.
    let Some(upstream) = upstream else { return };
    let (downstream, upstream) = match tokio::try_join!(downstream, upstream) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(%error, "upgrade");
            return;
        }
    };
    let first = First::default();
    let side = |io, which| Side {
        io,
        which,
        exchange: &exchange,
        first: &first,
    };
    let mut downstream = side(downstream, Which::Caller);
    let mut upstream = side(upstream, Which::Upstream);
    if let Err(error) = copy_bidirectional(&mut downstream, &mut upstream).await {
        tracing::debug!(%error, "upgraded connection");
    }
    if first.is(Which::Caller)
        && let Some(lasting) = lasting
    {
        lasting.leave().set();
    }
}

// === impl First ===

impl First {
    /// A side has ended, or has failed.
    fn ends(&self, which: Which) {
        // Whoever came second changes nothing.
        let _ = self
            .0
            .compare_exchange(0, which.code(), Ordering::Relaxed, Ordering::Relaxed);
    }

    fn is(&self, which: Which) -> bool {
        self.0.load(Ordering::Relaxed) == which.code()
    }
}

// === impl Which ===

impl Which {
    fn code(self) -> u8 {
        match self {
            Self::Caller => 1,
            Self::Upstream => 2,
        }
    }
}

// === impl Side ===

impl Side<'_> {
    fn wrote<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.first.ends(self.which);
        }
        result
    }
}

impl AsyncRead for Side<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        let count = buf.filled().len() - before;
        match self.which {
            Which::Caller => self.exchange.count_received(count as u64),
            Which::Upstream => self.exchange.count_sent(count as u64),
        }
        if count == 0 {
            self.first.ends(self.which);
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Side<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.io).poll_write(cx, bytes));
        Poll::Ready(self.wrote(result))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.io).poll_flush(cx));
        Poll::Ready(self.wrote(result))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
