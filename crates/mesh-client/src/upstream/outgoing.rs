//! A request body on its way to an upstream of HTTP/2.

use crate::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh_core::Error;
use mesh_core::body::Coalesced;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A request body that keeps its length to itself: `content-length` is no more than the caller
/// said, for the framing needs none. Where it said nothing hyper would say what it finds out, and
/// Envoy says nothing. What is there at once goes out as one frame.
pub(super) struct Outgoing(Coalesced<Body>);

// === impl Outgoing ===

impl Outgoing {
    pub(super) fn new(body: Body) -> Self {
        Self(Coalesced::new(body))
    }

    pub(super) fn into_inner(self) -> Body {
        self.0.into_inner()
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
