//! The body half of a deadline.

use super::expired;
use crate::time::Expiry;
use http_body::{Body, Frame, SizeHint};
use mesh_core::{BoxError, Error, Failure};
use pin_project::pin_project;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A response body that has to end in time. When it does not, it fails once with
/// [`Failure::RequestTimeout`] (or [`Failure::MaxStreamDuration`]), and the body inside is
/// dropped.
#[pin_project]
#[derive(Debug)]
pub struct DeadlineBody<B> {
    #[pin]
    inner: Option<B>,
    expiry: Option<Expiry>,
}

// === impl DeadlineBody ===

impl<B: Body> DeadlineBody<B> {
    pub(super) fn new(inner: B, expiry: Option<Expiry>) -> Self {
        let expiry = expiry.filter(|_| !inner.is_end_stream());
        Self {
            inner: Some(inner),
            expiry,
        }
    }
}

impl<B> Body for DeadlineBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Error>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let polled = inner.poll_frame(cx);
        // What is whole with this frame beats a timer that fired in the same wake-up.
        let ended = (this.inner.as_ref().get_ref())
            .as_ref()
            .is_none_or(Body::is_end_stream);
        let failure = match (&polled, &mut *this.expiry) {
            (_, None) => None,
            (Poll::Pending, Some(expiry)) => match expiry.poll(cx) {
                Poll::Ready(failure) => Some(failure),
                Poll::Pending => None,
            },
            // A body that always has more at once must not outrun its limit.
            (Poll::Ready(Some(Ok(frame))), Some(expiry)) if frame.is_data() && !ended => {
                expiry.over()
            }
            (Poll::Ready(_), Some(_)) => {
                *this.expiry = None;
                None
            }
        };
        if let Some(failure) = failure {
            return Poll::Ready(Some(Err(fail(this.inner, this.expiry, failure))));
        }
        polled.map(|frame| frame.map(|result| result.map_err(Error::wrap)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// Flags the exchange, then drops the body, so that whoever sees the drop knows why.
fn fail<B>(mut inner: Pin<&mut Option<B>>, expiry: &mut Option<Expiry>, failure: Failure) -> Error {
    let error = Error::new(failure);
    if let Some(expiry) = expiry.take() {
        expired(&expiry, failure);
        if let Some(exchange) = expiry.exchange() {
            exchange.note_error(&error);
        }
    }
    inner.set(None);
    error
}
