//! Streams that are given up when a limit is met: the response future and the response body that all
//! such limits share.

use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use mesh_core::{BoxError, Error};
use pin_project::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A limit on one stream. What it says of a failure is said before the stream is dropped, so that
/// whoever sees the drop knows why.
pub(crate) trait Watch {
    /// A timer that lies in the future of a response, where that saves memory.
    type Timer: Default;

    /// Ready with the failure when the limit is met before the response's head.
    fn poll_head(&mut self, timer: Pin<&mut Self::Timer>, cx: &mut Context<'_>) -> Poll<Error>;

    /// The response's body begins.
    fn begin(&mut self) {}

    /// There was a frame, of data with more to come or not. Says whether to go on watching.
    ///
    /// # Errors
    /// If the limit is met though frames come.
    fn moved(&mut self, goes_on: bool) -> Result<bool, Error>;

    /// Ready with the failure when the limit is met within the body.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Error>;
}

/// The future of a response that is watched.
#[pin_project]
#[derive(Debug)]
pub(crate) struct Watched<F, W: Watch> {
    #[pin]
    inner: F,
    watch: Option<W>,
    #[pin]
    timer: W::Timer,
}

/// A response body that is watched. When its limit is met it fails once, and the body inside is
/// dropped.
#[pin_project]
#[derive(Debug)]
pub(crate) struct WatchedBody<B, W> {
    #[pin]
    inner: Option<B>,
    watch: Option<W>,
}

// === impl Watched ===

impl<F, W: Watch> Watched<F, W> {
    pub(crate) fn new(inner: F, watch: Option<W>) -> Self {
        Self {
            inner,
            watch,
            timer: W::Timer::default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn is_watched(&self) -> bool {
        self.watch.is_some()
    }
}

impl<F, W, R, E> Future for Watched<F, W>
where
    F: Future<Output = Result<Response<R>, E>>,
    W: Watch,
    E: Into<BoxError>,
    R: Body,
{
    type Output = Result<Response<WatchedBody<R, W>>, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // The response first: an answer that is already here beats a timer that fired in the same
        // wake-up.
        if let Poll::Ready(result) = this.inner.poll(cx) {
            return Poll::Ready(result.map_err(Error::wrap).map(|response| {
                // Nothing of an upgraded connection passes through its response's body.
                let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
                let watch = this.watch.take().filter(|_| !upgraded);
                response.map(|body| WatchedBody::new(body, watch))
            }));
        }
        match this.watch {
            Some(watch) => Poll::Ready(Err(ready!(watch.poll_head(this.timer, cx)))),
            None => Poll::Pending,
        }
    }
}

// === impl WatchedBody ===

impl<B: Body, W: Watch> WatchedBody<B, W> {
    fn new(inner: B, watch: Option<W>) -> Self {
        let mut watch = watch.filter(|_| !inner.is_end_stream());
        if let Some(watch) = &mut watch {
            watch.begin();
        }
        Self {
            inner: Some(inner),
            watch,
        }
    }

    /// The body, unlimited from here on.
    pub(crate) fn unwatched(mut self) -> Self {
        self.watch = None;
        self
    }
}

impl<B, W> Body for WatchedBody<B, W>
where
    B: Body,
    B::Error: Into<BoxError>,
    W: Watch,
{
    type Data = B::Data;
    type Error = Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Error>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let polled = inner.poll_frame(cx);
        let failed = match (&polled, &mut *this.watch) {
            (_, None) => None,
            (Poll::Pending, Some(watch)) => Some(ready!(watch.poll_body(cx))),
            (Poll::Ready(Some(Ok(frame))), Some(watch)) => {
                // What is whole with this frame beats a timer that fired in the same wake-up.
                let inner = this.inner.as_ref().get_ref().as_ref();
                let ended = inner.is_none_or(Body::is_end_stream);
                match watch.moved(frame.is_data() && !ended) {
                    Ok(true) => None,
                    Ok(false) => {
                        *this.watch = None;
                        None
                    }
                    Err(error) => Some(error),
                }
            }
            (Poll::Ready(_), Some(_)) => {
                *this.watch = None;
                None
            }
        };
        if let Some(error) = failed {
            *this.watch = None;
            this.inner.set(None);
            return Poll::Ready(Some(Err(error)));
        }
        polled.map(|frame| frame.map(|result| result.map_err(Error::wrap)))
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// Makes a public type of body out of [`WatchedBody`] with one kind of limit.
macro_rules! watched_body {
    ($(#[$doc:meta])* pub struct $name:ident($watch:ty);) => {
        $(#[$doc])*
        #[pin_project::pin_project]
        #[derive(Debug)]
        pub struct $name<B>(#[pin] crate::watched::WatchedBody<B, $watch>);

        impl<B> http_body::Body for $name<B>
        where
            B: http_body::Body,
            B::Error: Into<mesh_core::BoxError>,
        {
            type Data = B::Data;
            type Error = mesh_core::Error;

            #[inline]
            fn poll_frame(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<http_body::Frame<B::Data>, mesh_core::Error>>> {
                self.project().0.poll_frame(cx)
            }

            #[inline]
            fn is_end_stream(&self) -> bool {
                self.0.is_end_stream()
            }

            fn size_hint(&self) -> http_body::SizeHint {
                self.0.size_hint()
            }
        }
    };
}

pub(crate) use watched_body;
