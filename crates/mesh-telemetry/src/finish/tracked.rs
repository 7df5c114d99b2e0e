//! A response body that finishes its request.

use super::tally::Tally;
use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A response body that counts its bytes and tells metrics and access logs when it has ended,
/// failed or been dropped.
#[pin_project]
#[derive(Debug)]
pub struct Tracked<R> {
    #[pin]
    inner: R,
    tally: Tally,
}

// === impl Tracked ===

impl<R> Tracked<R> {
    pub(super) fn new(inner: R, tally: Tally) -> Self {
        Self { inner, tally }
    }
}

impl<R> Body for Tracked<R>
where
    R: Body,
    R::Data: Buf,
    R::Error: 'static,
{
    type Data = R::Data;
    type Error = R::Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.tally.sent(data.remaining());
                }
                if let Some(trailers) = frame.trailers_ref() {
                    this.tally.trailers(trailers);
                    this.tally.complete();
                } else if this.inner.is_end_stream() {
                    this.tally.complete();
                }
            }
            Some(Err(error)) => this.tally.reset(error),
            None => this.tally.complete(),
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
