//! A request body that can be sent again.
//!
//! What the first attempt sends is kept, up to a limit; a further attempt sends that, and goes on
//! with the rest of the source where the attempt before it stopped. Beyond the limit what was
//! kept is thrown away and the body only streams on: there can be no further attempt then.

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use mesh_core::{BoxError, Error, Failure};
use pin_project::pin_project;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::time::Instant;

/// The body of an attempt. Frames, trailers and length are those of the body that came in; the
/// data is [`Bytes`].
///
/// A body that an abandoned attempt still holds fails with [`Failure::LocalReset`] when polled,
/// so that what was sent of it is never taken for the whole.
#[pin_project]
pub struct ReplayBody<B> {
    #[pin]
    kind: Kind<B>,
}

#[pin_project(project = KindProj)]
enum Kind<B> {
    /// There will be no other attempt.
    Once(#[pin] B),
    /// There is no body.
    Empty,
    Shared(Sender<B>),
}

/// One attempt's view of the shared body.
struct Sender<B> {
    shared: Arc<Mutex<Shared<B>>>,
    attempt: u32,
    /// How many of the kept frames this attempt has sent.
    sent: usize,
    bytes: u64,
    trailers_sent: bool,
}

/// What the attempts share.
struct Shared<B> {
    /// The rest of what came in; none when it has ended.
    source: Option<Pin<Box<B>>>,
    /// The length that was announced at the start.
    hint: SizeHint,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    trailers: Option<HeaderMap>,
    limit: usize,
    /// The attempt that may read.
    attempt: u32,
    /// Those before it may, too.
    overlapping: bool,
    /// Too much came, the source failed, or no other attempt is wanted: nothing more is kept.
    last: bool,
    ended: Option<Instant>,
}

/// The retry loop's own handle.
pub(super) struct Replay<B> {
    /// None where there is no body.
    shared: Option<Arc<Mutex<Shared<B>>>>,
}

/// The most frames that are kept, whatever their size: a frame has a cost beside its bytes.
const MOST_FRAMES: usize = 4096;

// === impl ReplayBody ===

impl<B> ReplayBody<B> {
    /// A body that is sent once and not kept.
    pub(super) fn once(body: B) -> Self {
        Self {
            kind: Kind::Once(body),
        }
    }

    /// The body as it came, if it is sent once: what takes bodies in a box need not box those.
    ///
    /// # Errors
    /// Gives the body back if it may be sent again.
    pub fn into_once(self) -> Result<B, Self> {
        match self.kind {
            Kind::Once(body) => Ok(body),
            kind => Err(Self { kind }),
        }
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.project().kind.project() {
            KindProj::Empty => Poll::Ready(None),
            KindProj::Once(body) => {
                let frame = ready!(body.poll_frame(cx));
                Poll::Ready(frame.map(|result| result.map(into_bytes).map_err(Error::wrap)))
            }
            KindProj::Shared(sender) => sender.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Once(body) => body.is_end_stream(),
            Kind::Shared(sender) => sender.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Once(body) => body.size_hint(),
            Kind::Shared(sender) => sender.size_hint(),
        }
    }
}

fn into_bytes<D: Buf>(frame: Frame<D>) -> Frame<Bytes> {
    frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Once(_) => "Once",
            Kind::Empty => "Empty",
            Kind::Shared(_) => "Shared",
        };
        f.debug_tuple("ReplayBody").field(&kind).finish()
    }
}

// === impl Sender ===

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<B> Sender<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut shared = lock(&self.shared);
        if !shared.serves(self.attempt) {
            return Poll::Ready(Some(Err(Error::new(Failure::LocalReset))));
        }
        if shared.last && self.sent == shared.kept.len() {
            shared.kept = Vec::new();
            self.sent = 0;
        }
        let frame = if let Some(kept) = shared.kept.get(self.sent) {
            Some(Ok(Frame::data(kept.clone())))
        } else {
            ready!(shared.poll_source(cx))
        };
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    // What is not kept leaves the place at the end of what is.
                    self.sent = (self.sent + 1).min(shared.kept.len());
                    self.bytes += data.len() as u64;
                } else {
                    self.trailers_sent = true;
                }
            }
            Some(Err(_)) => {}
            None => {
                // The source has ended; the trailers that it ended with are still to come where
                // another attempt read them.
                if !self.trailers_sent
                    && let Some(trailers) = shared.trailers.clone()
                {
                    self.trailers_sent = true;
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let shared = lock(&self.shared);
        if !shared.serves(self.attempt) || self.sent < shared.kept.len() {
            return false;
        }
        // There was a body to come when the request was made, if only its end: an attempt that
        // begins when that is there already is framed as the first one was.
        if self.bytes == 0 && !self.trailers_sent {
            return false;
        }
        match &shared.source {
            Some(source) => source.is_end_stream(),
            None => shared.ended.is_some() && (self.trailers_sent || shared.trailers.is_none()),
        }
    }

    /// Every attempt announces the same length, so that all are framed alike.
    fn size_hint(&self) -> SizeHint {
        let hint = &lock(&self.shared).hint;
        let mut rest = SizeHint::new();
        rest.set_lower(hint.lower().saturating_sub(self.bytes));
        if let Some(upper) = hint.upper() {
            rest.set_upper(upper.saturating_sub(self.bytes).max(rest.lower()));
        }
        rest
    }
}

// === impl Shared ===

impl<B> Shared<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    fn serves(&self, attempt: u32) -> bool {
        self.overlapping || self.attempt == attempt
    }

    /// The next frame of what came in, kept if there is room.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(source) = &mut self.source else {
            // A source that failed has not ended.
            let failed = self.ended.is_none();
            return Poll::Ready(failed.then(|| Err(Error::new(Failure::LocalReset))));
        };
        let frame = match ready!(source.as_mut().poll_frame(cx)) {
            Some(Ok(frame)) => into_bytes(frame),
            Some(Err(error)) => {
                self.give_up();
                self.source = None;
                return Poll::Ready(Some(Err(Error::wrap(error))));
            }
            None => {
                self.end();
                return Poll::Ready(None);
            }
        };
        if let Some(data) = frame.data_ref() {
            self.keep(data.clone());
            // Nobody may ask again after the last frame.
            if self
                .source
                .as_ref()
                .is_some_and(|source| source.is_end_stream())
            {
                self.end();
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
            self.end();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn keep(&mut self, data: Bytes) {
        if self.last {
            return;
        }
        let bytes = self.kept_bytes + data.len();
        if bytes > self.limit || self.kept.len() == MOST_FRAMES {
            self.give_up();
            return;
        }
        self.kept_bytes = bytes;
        self.kept.push(data);
    }

    /// Only called when everything that was kept has been sent.
    fn give_up(&mut self) {
        self.last = true;
        self.kept = Vec::new();
    }

    fn end(&mut self) {
        self.source = None;
        self.ended.get_or_insert_with(Instant::now);
    }
}

// === impl Replay ===

impl<B: Body> Replay<B> {
    /// Keeps up to `limit` bytes of `body`; the body of the first attempt comes with it.
    pub(super) fn begin(body: B, limit: usize) -> (Self, ReplayBody<B>) {
        if body.is_end_stream() {
            let kind = Kind::Empty;
            return (Self { shared: None }, ReplayBody { kind });
        }
        let shared = Arc::new(Mutex::new(Shared {
            hint: body.size_hint(),
            source: Some(Box::pin(body)),
            kept: Vec::new(),
            kept_bytes: 0,
            trailers: None,
            limit,
            attempt: 0,
            overlapping: false,
            last: false,
            ended: None,
        }));
        let replay = Self {
            shared: Some(shared),
        };
        let first = replay.body(0);
        (replay, first)
    }

    /// Whether the body can be sent once more.
    pub(super) fn is_possible(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| !lock(shared).last)
    }

    /// When the request's body had come in whole, if it has. None where there is no body.
    pub(super) fn ended(&self) -> Option<Instant> {
        lock(self.shared.as_ref()?).ended
    }

    /// Whether there is a body at all.
    pub(super) fn has_body(&self) -> bool {
        self.shared.is_some()
    }

    /// Lets the bodies of all attempts be read beside one another. Another attempt may only begin
    /// when all of the body was read: of two that wait for more, one would never hear of it.
    pub(super) fn overlap(&self) {
        if let Some(shared) = &self.shared {
            lock(shared).overlapping = true;
        }
    }

    /// The body of the next attempt. The one before it gets no more, unless they overlap.
    pub(super) fn next(&self) -> ReplayBody<B> {
        let attempt = self.shared.as_ref().map_or(0, |shared| {
            let mut shared = lock(shared);
            shared.attempt += 1;
            shared.attempt
        });
        self.body(attempt)
    }

    fn body(&self, attempt: u32) -> ReplayBody<B> {
        let kind = match &self.shared {
            None => Kind::Empty,
            Some(shared) => Kind::Shared(Sender {
                shared: shared.clone(),
                attempt,
                sent: 0,
                bytes: 0,
                trailers_sent: false,
            }),
        };
        ReplayBody { kind }
    }
}

impl<B> Drop for Replay<B> {
    /// There is no other attempt: what still comes in need not be kept.
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            lock(shared).last = true;
        }
    }
}

#[cfg(test)]
mod tests;
