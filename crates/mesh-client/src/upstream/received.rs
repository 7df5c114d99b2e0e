//! A response body as it comes from an upstream's connection.

use super::fault::{self, Broken};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use mesh_core::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A body of either codec.
pub(crate) enum Received {
    Http1(mesh_http1::Body),
    Http2(Incoming),
}

// === impl Received ===

impl Received {
    /// All of it, if nothing of it has to be waited for: then it does not need its connection, and
    /// cannot fail.
    pub(super) fn into_whole(self) -> Result<Bytes, Self> {
        match self {
            Self::Http1(body) => body.into_received().map_err(Self::Http1),
            Self::Http2(body) if body.is_end_stream() => Ok(Bytes::new()),
            other => Err(other),
        }
    }

    /// The next frame, with failures as they are told of upstreams. HTTP/1 has no trailers, as in
    /// Envoy without `enable_trailers`: they are read and left out.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = match self {
            Self::Http1(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                let frame = frame.filter(|frame| !matches!(frame, Ok(it) if it.is_trailers()));
                frame.map(|frame| frame.map_err(Broken::Http1))
            }
            Self::Http2(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                frame.map(|frame| frame.map_err(Broken::Http2))
            }
        };
        Poll::Ready(frame.map(|frame| frame.map_err(fault::receiving)))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
