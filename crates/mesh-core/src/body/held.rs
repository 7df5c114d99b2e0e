//! A body with something attached that is given up when it ends.

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A body that holds a guard (a unit of a limit, a request count) until it ends, fails or is
/// dropped. Without a guard it only forwards.
#[pin_project]
#[derive(Debug)]
pub struct Held<B, G> {
    #[pin]
    inner: B,
    guard: Option<G>,
}

// === impl Held ===

impl<B: Body, G> Held<B, G> {
    /// Holds `guard` until `inner` ends. A body that is empty from the start gives it up at once.
    pub fn new(inner: B, guard: Option<G>) -> Self {
        let guard = guard.filter(|_| !inner.is_end_stream());
        Self { inner, guard }
    }

    /// The body without the guard, which is given up.
    pub fn into_inner(self) -> B {
        self.inner
    }
}

impl<B, G> Body for Held<B, G>
where
    B: Body,
    B::Data: Buf,
{
    type Data = B::Data;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        // After the last frame nobody may poll again, so do not wait for `None`.
        if !matches!(frame, Some(Ok(_))) || this.inner.is_end_stream() {
            *this.guard = None;
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

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::task::Waker;

    struct Once(Option<Bytes>);

    impl Body for Once {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
        }
        fn is_end_stream(&self) -> bool {
            self.0.is_none()
        }
    }

    #[test]
    fn the_guard_goes_with_the_last_frame() {
        let guard = Arc::new(());
        let mut body = Held::new(Once(Some(Bytes::from_static(b"x"))), Some(guard.clone()));
        assert_eq!(Arc::strong_count(&guard), 2);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut body).poll_frame(&mut cx).is_ready());
        assert_eq!(Arc::strong_count(&guard), 1);
    }

    #[test]
    fn an_empty_body_holds_nothing() {
        let guard = Arc::new(());
        let _body = Held::new(Once(None), Some(guard.clone()));
        assert_eq!(Arc::strong_count(&guard), 1);
    }
}
