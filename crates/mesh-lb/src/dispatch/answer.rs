//! The body of an answer, with what is held until it ends.

use super::flight::Active;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The body of an answer: its request counts as under way at the host until it ends, fails or is
/// dropped. Trailers may tell the load of the host.
#[pin_project]
#[derive(Debug)]
pub struct Answer<B> {
    #[pin]
    inner: B,
    active: Option<Active>,
}

// === impl Answer ===

impl<B: Body> Answer<B> {
    /// A body that is empty from the start holds nothing.
    pub(super) fn new(inner: B, active: Option<Active>) -> Self {
        let active = active.filter(|_| !inner.is_end_stream());
        Self { inner, active }
    }

    /// The body alone: the request is over.
    pub fn into_inner(self) -> B {
        self.inner
    }
}

impl<B: Body> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        if let (Some(active), Some(Ok(frame))) = (&mut *this.active, &frame)
            && let Some(trailers) = frame.trailers_ref()
        {
            active.ended_with(trailers);
        }
        // After the last frame nobody may poll again, so do not wait for `None`.
        if !matches!(frame, Some(Ok(_))) || this.inner.is_end_stream() {
            *this.active = None;
        }
        Poll::Ready(frame)
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
