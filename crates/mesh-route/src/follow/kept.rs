//! A request body that is kept while it is sent.

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

/// A request body that passes through, and is kept on the way where an answer may send the request
/// elsewhere.
#[pin_project]
#[derive(Debug)]
pub struct KeepBody<B> {
    #[pin]
    inner: B,
    kept: Option<Kept>,
}

/// What was kept of a body so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept(Arc<Mutex<Parts>>);

#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) data: Vec<Bytes>,
    pub(super) trailers: Option<HeaderMap>,
    bytes: usize,
    /// It was too large.
    given_up: bool,
}

/// Envoy's `per_connection_buffer_limit_bytes`.
const MOST_BYTES: usize = 1024 * 1024;
/// The most frames that are kept, whatever their size: a frame has a cost beside its bytes.
const MOST_FRAMES: usize = 4096;

// === impl KeepBody ===

impl<B> KeepBody<B> {
    pub(super) fn new(inner: B, kept: Option<Kept>) -> Self {
        Self { inner, kept }
    }

    /// The body as it came, if nothing of it is kept: what takes bodies in a box need not box those.
    ///
    /// # Errors
    /// Gives the body back if it is kept.
    pub fn into_plain(self) -> Result<B, Self> {
        match self.kept {
            None => Ok(self.inner),
            Some(_) => Err(self),
        }
    }
}

impl<B: Body<Data = Bytes>> Body for KeepBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(cx));
        if let (Some(kept), Some(Ok(frame))) = (this.kept, &frame) {
            kept.lock().keep(frame);
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

// === impl Kept ===

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was too large to be kept.
    pub(super) fn is_given_up(&self) -> bool {
        self.lock().given_up
    }

    /// What was kept, which is forgotten here.
    pub(super) fn take(&self) -> Parts {
        std::mem::take(&mut *self.lock())
    }
}

impl Parts {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        if self.given_up {
            return;
        }
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
        let Some(data) = frame.data_ref().filter(|data| !data.is_empty()) else {
            return;
        };
        self.bytes += data.len();
        if self.bytes > MOST_BYTES || self.data.len() == MOST_FRAMES {
            *self = Self {
                given_up: true,
                ..Self::default()
            };
            return;
        }
        self.data.push(data.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_forgotten_and_stays_so() {
        let chunk = Bytes::from(vec![0; MOST_BYTES]);
        let kept = Kept::default();
        kept.lock().keep(&Frame::data(chunk));
        assert!(!kept.is_given_up());
        kept.lock().keep(&Frame::data(Bytes::from_static(b"x")));
        assert!(kept.is_given_up());
        kept.lock().keep(&Frame::data(Bytes::from_static(b"y")));
        assert!(kept.take().data.is_empty());

        let kept = Kept::default();
        for _ in 0..MOST_FRAMES {
            kept.lock().keep(&Frame::data(Bytes::from_static(b"x")));
        }
        assert!(!kept.is_given_up());
        kept.lock().keep(&Frame::data(Bytes::from_static(b"x")));
        assert!(kept.is_given_up());
    }

    #[test]
    fn trailers_are_kept_beside_the_data() {
        let kept = Kept::default();
        kept.lock().keep(&Frame::data(Bytes::new()));
        kept.lock().keep(&Frame::trailers(HeaderMap::new()));
        let parts = kept.take();
        assert!(parts.data.is_empty() && parts.trailers.is_some());
    }
}
