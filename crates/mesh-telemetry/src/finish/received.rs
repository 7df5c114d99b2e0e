//! A request body whose bytes and end are noted.

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use mesh_core::Exchange;
use pin_project::{pin_project, pinned_drop};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

/// A request body that counts its bytes in the exchange and sets
/// [`request_end`](Exchange::request_end) when it has ended, failed or been dropped: at once if it
/// is empty from the start.
#[pin_project(PinnedDrop)]
#[derive(Debug)]
pub struct Received<B> {
    #[pin]
    inner: B,
    ends: Ends,
}

#[derive(Debug)]
struct Ends {
    exchange: Exchange,
    /// Microseconds from arrival to the end, plus one.
    at: Option<Arc<AtomicU64>>,
    ended: bool,
}

// === impl Received ===

impl<B: Body> Received<B> {
    pub(super) fn new(inner: B, exchange: Exchange, at: Option<Arc<AtomicU64>>) -> Self {
        let mut ends = Ends {
            exchange,
            at,
            ended: false,
        };
        if inner.is_end_stream() {
            ends.end(true);
        }
        Self { inner, ends }
    }

    /// The body of a request that asks to go on in another protocol. It never ends: what comes
    /// behind its head is of that protocol (as Envoy's codec has it). Timeouts begin at once if it
    /// is `bounded`, and never otherwise.
    pub(super) fn endless(inner: B, exchange: Exchange, bounded: bool) -> Self {
        if bounded {
            exchange.request_end().set();
        }
        let ends = Ends {
            exchange,
            at: None,
            ended: true,
        };
        Self { inner, ends }
    }
}

impl<B> Body for Received<B>
where
    B: Body,
    B::Data: Buf,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        let more = match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.ends.exchange.count_received(data.remaining() as u64);
                }
                frame.is_data()
            }
            Some(Err(_)) | None => false,
        };
        // After the last frame nobody may poll again, so do not wait for `None`.
        if !more || this.inner.is_end_stream() {
            this.ends.end(!matches!(frame, Some(Err(_))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[pinned_drop]
impl<B> PinnedDrop for Received<B> {
    fn drop(self: Pin<&mut Self>) {
        self.project().ends.end(false);
    }
}

// === impl Ends ===

impl Ends {
    fn end(&mut self, whole: bool) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if whole {
            self.exchange.set_request_is_whole();
        }
        if let Some(at) = &self.at {
            let now = tokio::time::Instant::now().into_std();
            let after = now.saturating_duration_since(self.exchange.started());
            let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX - 1);
            at.store(micros.saturating_add(1), Ordering::Release);
        }
        self.exchange.request_end().set();
    }
}
