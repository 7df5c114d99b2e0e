//! A request body on its way to an upstream.

use super::lease::Meta;
use crate::Body;
use bytes::Bytes;
use http::{Request, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh_core::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

/// A request body that tells its HTTP/1 connection when it was sent whole. Only then may another
/// request follow: a response can end before its request does, and what was read from the caller
/// says nothing about what was sent (a retry replays from memory).
pub(super) struct Outgoing {
    body: Body,
    /// None once the connection knows, and on HTTP/2, where nobody has to.
    tells: Option<Arc<Meta>>,
    /// Bytes that are still to come, where that is known: after them nobody may poll again.
    left: Option<u64>,
    /// The framing tells its length. In HTTP/2 that is no more than the caller said: where it said
    /// nothing hyper would say what it finds out, and Envoy says nothing.
    framed: bool,
}

// === impl Outgoing ===

impl Outgoing {
    pub(super) fn tracked(request: Request<Body>, meta: &Arc<Meta>) -> Request<Self> {
        let length = request.headers().get(header::CONTENT_LENGTH);
        let declared = length.and_then(|length| length.to_str().ok()?.parse().ok());
        request.map(|body| {
            let whole = body.is_end_stream();
            meta.sending.store(!whole, Ordering::Relaxed);
            Self {
                left: declared.or_else(|| body.size_hint().exact()),
                tells: (!whole).then(|| meta.clone()),
                framed: true,
                body,
            }
        })
    }

    pub(super) fn untracked(body: Body) -> Self {
        Self {
            body,
            tells: None,
            left: None,
            framed: false,
        }
    }

    pub(super) fn into_inner(self) -> Body {
        self.body
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if this.tells.is_some() {
            let ended = match &frame {
                None => true,
                Some(Err(_)) => false,
                Some(Ok(frame)) => {
                    let sent = frame.data_ref().map_or(0, Bytes::len) as u64;
                    this.left = this.left.map(|left| left.saturating_sub(sent));
                    frame.is_trailers() || this.left == Some(0) || this.body.is_end_stream()
                }
            };
            if let Some(meta) = this.tells.take_if(|_| ended) {
                meta.sending.store(false, Ordering::Relaxed);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.framed {
            self.body.size_hint()
        } else {
            SizeHint::default()
        }
    }
}
