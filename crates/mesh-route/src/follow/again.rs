//! The body of a request that goes on.

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use mesh_core::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The body of a request that goes on: what was kept of it.
#[derive(Debug, Default)]
pub struct Again {
    data: std::vec::IntoIter<Bytes>,
    trailers: Option<HeaderMap>,
    /// Its length was said when it came.
    has_length: bool,
}

// === impl Again ===

impl Again {
    /// With `has_length` it is framed by its length, as it was when it came.
    pub(super) fn new(data: Vec<Bytes>, trailers: Option<HeaderMap>, has_length: bool) -> Self {
        Self {
            data: data.into_iter(),
            trailers,
            has_length,
        }
    }
}

impl Body for Again {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let data = self.data.next().map(Frame::data);
        let frame = data.or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.as_slice().is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if !self.has_length && !self.is_end_stream() {
            return SizeHint::default();
        }
        let left = self.data.as_slice().iter().map(Bytes::len).sum::<usize>();
        SizeHint::with_exact(left as u64)
    }
}
