//! A request body that is read once and arrives twice.
//!
//! Whoever reads the body for the request itself sets the pace. Each frame goes into a bounded
//! queue for the copy on the way; a copy that falls behind fails, and neither slows nor fails the
//! request. Where nobody reads on (the request failed on its own way), the copy gets what has arrived
//! by then, as from Envoy.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use mesh_core::{BoxError, Exchange};
use pin_project::{pin_project, pinned_drop};
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

/// A request body, the body of a request that is copied, or that of a copy.
#[pin_project]
pub struct TeeBody<B>(#[pin] Kind<B>);

#[pin_project(project = KindProj)]
enum Kind<B> {
    /// Not copied.
    Plain(#[pin] B),
    /// Copied as it is read.
    Teed(#[pin] Teed<B>),
    /// A copy.
    Copy(Copy),
}

#[pin_project(PinnedDrop)]
struct Teed<B> {
    #[pin]
    inner: B,
    queues: Box<[Arc<Queue>]>,
    /// [`give_rest`], which only bodies have.
    give_rest: fn(Pin<&mut B>, &[Arc<Queue>]),
}

struct Copy {
    queue: Arc<Queue>,
    hint: SizeHint,
    /// The copy's exchange, which is told when the copy has been sent whole.
    exchange: Option<Exchange>,
}

struct Queue {
    /// Most bytes that wait for the copy.
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    frames: VecDeque<Frame<Bytes>>,
    bytes: usize,
    end: Option<End>,
    /// The copy is not wanted any more.
    gone: bool,
    waker: Option<Waker>,
}

/// How the body ended for the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    Overflow,
    Aborted,
}

/// Frames that may wait whatever their size: empty ones cost memory too.
const MOST_FRAMES: usize = 1024;

// === impl TeeBody ===

impl<B> TeeBody<B> {
    /// A body that is not copied.
    pub(crate) fn plain(inner: B) -> Self {
        Self(Kind::Plain(inner))
    }

    /// The body as it came, if the request is not copied: what takes bodies in a box need not box
    /// those.
    ///
    /// # Errors
    /// Gives the body back if it is copied, or a copy.
    pub fn into_plain(self) -> Result<B, Self> {
        match self.0 {
            Kind::Plain(inner) => Ok(inner),
            other => Err(Self(other)),
        }
    }
}

impl<B: Body<Data = Bytes>> TeeBody<B> {
    /// A body and copies of it, each of which may be `limit` bytes behind.
    pub(crate) fn tee(inner: B, copies: usize, limit: usize) -> (Self, Vec<Self>) {
        let hint = inner.size_hint();
        let queues: Box<[Arc<Queue>]> = (0..copies)
            .map(|_| {
                Arc::new(Queue {
                    limit,
                    state: Mutex::default(),
                })
            })
            .collect();
        let copies = queues
            .iter()
            .map(|queue| {
                Self(Kind::Copy(Copy {
                    queue: queue.clone(),
                    hint,
                    exchange: None,
                }))
            })
            .collect();
        let teed = Teed {
            inner,
            queues,
            give_rest,
        };
        if teed.inner.is_end_stream() {
            // Nobody has to poll a body that has ended.
            teed.end(End::Whole);
        }
        (Self(Kind::Teed(teed)), copies)
    }

    /// Tells `exchange` when this copy ends: timeouts count from there, and a connection is used
    /// again only after it.
    pub(crate) fn tell(mut self, exchange: Option<&Exchange>) -> Self {
        if let Kind::Copy(copy) = &mut self.0 {
            copy.exchange = exchange.cloned();
            copy.note_end();
        }
        self
    }
}

impl<B> Body for TeeBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().0.project() {
            KindProj::Plain(inner) => inner.poll_frame(cx).map_err(Into::into),
            KindProj::Teed(teed) => teed.poll_frame(cx).map_err(Into::into),
            KindProj::Copy(copy) => {
                let frame = ready!(copy.queue.poll_frame(cx));
                copy.note_end();
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Plain(inner) => inner.is_end_stream(),
            Kind::Teed(teed) => teed.inner.is_end_stream(),
            Kind::Copy(copy) => copy.queue.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Plain(inner) => inner.size_hint(),
            Kind::Teed(teed) => teed.inner.size_hint(),
            Kind::Copy(copy) => copy.hint,
        }
    }
}

impl<B> fmt::Debug for TeeBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Plain(_) => "TeeBody(plain)",
            Kind::Teed(_) => "TeeBody(copied)",
            Kind::Copy(_) => "TeeBody(copy)",
        })
    }
}

// === impl Teed ===

impl<B: Body<Data = Bytes>> Teed<B> {
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                for queue in this.queues.iter() {
                    queue.push(frame);
                }
                // After the last frame nobody may ask again, so do not wait for `None`.
                if this.inner.is_end_stream() {
                    end(this.queues, End::Whole);
                }
            }
            Some(Err(_)) => end(this.queues, End::Aborted),
            None => end(this.queues, End::Whole),
        }
        Poll::Ready(frame)
    }
}

impl<B> Teed<B> {
    fn end(&self, how: End) {
        end(&self.queues, how);
    }
}

#[pinned_drop]
impl<B> PinnedDrop for Teed<B> {
    fn drop(self: Pin<&mut Self>) {
        let this = self.project();
        if this.queues.iter().any(|queue| queue.is_open()) {
            (this.give_rest)(this.inner, this.queues);
        }
        // Has no effect on a copy that has everything.
        end(this.queues, End::Aborted);
    }
}

/// Hands over what can be had of a body without waiting, as much as may wait for a copy at most.
fn give_rest<B: Body<Data = Bytes>>(mut body: Pin<&mut B>, queues: &[Arc<Queue>]) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut room = queues.iter().map(|queue| queue.limit).max().unwrap_or(0);
    for _ in 0..MOST_FRAMES {
        if body.is_end_stream() {
            return end(queues, End::Whole);
        }
        match body.as_mut().poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => {
                queues.iter().for_each(|queue| queue.push(&frame));
                // More than that is behind, whoever reads it meanwhile.
                let len = frame.data_ref().map_or(0, Bytes::len);
                match room.checked_sub(len) {
                    Some(left) => room = left,
                    None => return end(queues, End::Overflow),
                }
            }
            Poll::Ready(None) => return end(queues, End::Whole),
            Poll::Ready(Some(Err(_))) | Poll::Pending => return,
        }
    }
}

fn end(queues: &[Arc<Queue>], how: End) {
    for queue in queues {
        queue.end(how);
    }
}

// === impl Copy ===

impl Copy {
    fn note_end(&self) {
        if let Some(exchange) = &self.exchange
            && self.queue.is_end_stream()
        {
            exchange.request_end().set();
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // As for any request: a body that is let go of counts as ended.
        if let Some(exchange) = &self.exchange {
            exchange.request_end().set();
        }
        let mut state = self.queue.state();
        state.gone = true;
        state.frames.clear();
    }
}

// === impl Queue ===

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody wants more, and it may come.
    fn is_open(&self) -> bool {
        let state = self.state();
        !state.gone && state.end.is_none()
    }

    fn push(&self, frame: &Frame<Bytes>) {
        let mut state = self.state();
        if state.gone || state.end.is_some() {
            return;
        }
        let copy = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Frame::data(data.clone()),
            (None, Some(trailers)) => Frame::trailers(trailers.clone()),
            (None, None) => return,
        };
        state.bytes += copy.data_ref().map_or(0, Bytes::len);
        if state.bytes > self.limit || state.frames.len() == MOST_FRAMES {
            state.frames.clear();
            state.end = Some(End::Overflow);
        } else {
            state.frames.push_back(copy);
        }
        state.wake();
    }

    fn end(&self, how: End) {
        let mut state = self.state();
        state.end.get_or_insert(how);
        state.wake();
    }

    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut state = self.state();
        if let Some(frame) = state.frames.pop_front() {
            state.bytes -= frame.data_ref().map_or(0, Bytes::len);
            return Poll::Ready(Some(Ok(frame)));
        }
        match state.end {
            Some(End::Whole) => Poll::Ready(None),
            Some(End::Overflow) => Poll::Ready(Some(Err("the copy fell too far behind".into()))),
            Some(End::Aborted) => Poll::Ready(Some(Err("the request was given up".into()))),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = self.state();
        state.frames.is_empty() && state.end == Some(End::Whole)
    }
}

// === impl State ===

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue};
    use http_body_util::{BodyExt, StreamBody};
    use mesh_test::{BoxedBody, chunks, empty, read_all, text};

    fn tee(body: BoxedBody, limit: usize) -> (TeeBody<BoxedBody>, TeeBody<BoxedBody>) {
        let (body, mut copies) = TeeBody::tee(body, 1, limit);
        (body, copies.remove(0))
    }

    #[tokio::test]
    async fn a_copy_has_the_same_frames_and_trailers() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-t", HeaderValue::from_static("v"));
        let (body, copy) = tee(chunks(["a", "", "bc"], Some(trailers.clone())), 10);
        let expected = ("abc".to_owned(), Some(trailers));
        assert_eq!(read_all(body).await, expected);
        assert_eq!(read_all(copy).await, expected);
    }

    #[test]
    fn only_a_body_that_is_not_copied_can_be_had_back() {
        assert!(TeeBody::plain(text("a")).into_plain().is_ok());
        let (body, copy) = tee(text("a"), 10);
        assert!(body.into_plain().is_err());
        assert!(copy.into_plain().is_err());
    }

    #[tokio::test]
    async fn a_copy_says_how_long_it_is_and_when_it_has_ended() {
        let (body, copy) = tee(text("abc"), 10);
        assert_eq!(copy.size_hint().exact(), Some(3));
        assert!(!copy.is_end_stream());
        drop(body.collect().await.unwrap());
        assert_eq!(read_all(copy).await.0, "abc");
        let (mut body, copy) = tee(text("abc"), 10);
        body.frame().await.unwrap().unwrap();
        drop(body);
        assert_eq!(
            read_all(copy).await.0,
            "abc",
            "nobody asks for more after the last frame"
        );
        let (body, copy) = tee(empty(), 10);
        drop(body);
        assert!(copy.is_end_stream(), "nobody polls an empty body");
    }

    #[tokio::test]
    async fn a_copy_that_falls_behind_fails_and_the_request_does_not() {
        let (body, copy) = tee(chunks(["abc", "d"], None), 3);
        assert_eq!(read_all(body).await.0, "abcd");
        assert!(copy.collect().await.is_err());
        let many = std::iter::repeat_n("", MOST_FRAMES + 1);
        let (body, copy) = tee(chunks(many, None), 3);
        assert_eq!(read_all(body).await.0, "");
        assert!(copy.collect().await.is_err());
    }

    #[tokio::test]
    async fn what_was_read_makes_room() {
        let (mut body, mut copy) = tee(chunks(["abc", "def"], None), 3);
        for part in ["abc", "def"] {
            for body in [&mut body, &mut copy] {
                let frame = body.frame().await.unwrap().unwrap();
                assert_eq!(frame.into_data().unwrap(), part);
            }
        }
        assert!(body.frame().await.is_none());
        assert!(copy.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_copy_that_waits_is_woken_by_the_next_frame_and_by_the_end() {
        let (mut body, copy) = tee(chunks(["a", "b"], None), 10);
        let reading = tokio::spawn(read_all(copy));
        for _ in 0..3 {
            tokio::task::yield_now().await;
            let _ = body.frame().await;
        }
        assert_eq!(reading.await.unwrap().0, "ab");
    }

    #[tokio::test]
    async fn a_copy_gets_what_has_arrived_of_a_request_that_nobody_read() {
        // Envoy 1.40: the copy of a request whose own connection is refused is whole.
        let mut trailers = HeaderMap::new();
        trailers.insert("x-t", HeaderValue::from_static("v"));
        for read in [0, 1] {
            let (mut body, copy) = tee(chunks(["a", "bc"], Some(trailers.clone())), 10);
            for _ in 0..read {
                body.frame().await.unwrap().unwrap();
            }
            drop(body);
            let expected = ("abc".to_owned(), Some(trailers.clone()));
            assert_eq!(read_all(copy).await, expected, "after {read} frames");
        }
    }

    #[tokio::test]
    async fn what_is_handed_over_is_as_bounded_as_what_waits() {
        let endless = std::iter::repeat("abcd");
        let (body, copy) = tee(chunks(endless.take(1 << 20), None), 10);
        drop(body);
        assert!(copy.collect().await.is_err());
        let (body, copy) = tee(chunks(std::iter::repeat_n("", MOST_FRAMES + 1), None), 10);
        drop(body);
        assert!(copy.collect().await.is_err());
    }

    #[tokio::test]
    async fn a_request_that_is_given_up_half_way_fails_its_copy() {
        let (give, mut take) = tokio::sync::mpsc::unbounded_channel::<&str>();
        let frames = futures_util::stream::poll_fn(move |cx| {
            let part = ready!(take.poll_recv(cx));
            Poll::Ready(part.map(|part| Ok::<_, BoxError>(Frame::data(Bytes::from(part)))))
        });
        let (mut body, copy) = tee(BodyExt::boxed(StreamBody::new(frames)), 10);
        give.send("a").unwrap();
        body.frame().await.unwrap().unwrap();
        drop(body);
        assert!(copy.collect().await.is_err());
    }

    #[tokio::test]
    async fn nothing_is_kept_for_a_copy_that_is_not_wanted() {
        let (mut body, copy) = tee(chunks(["a", "b"], None), 10);
        let TeeBody(Kind::Copy(inner)) = &copy else {
            panic!("the second is the copy")
        };
        let queue = inner.queue.clone();
        body.frame().await.unwrap().unwrap();
        drop(copy);
        body.frame().await.unwrap().unwrap();
        assert!(queue.state().frames.is_empty());
    }

    #[tokio::test]
    async fn the_exchange_of_a_copy_is_told_when_the_copy_has_been_sent_whole() {
        let exchange = || {
            let now = tokio::time::Instant::now().into_std();
            Exchange::new(now, mesh_core::Caller::default())
        };
        let (whole, dropped, empty) = (exchange(), exchange(), exchange());
        let (mut body, mut copies) = TeeBody::tee(text("abc"), 2, 1024);
        let gone = copies.pop().unwrap().tell(Some(&dropped));
        let mut copy = copies.pop().unwrap().tell(Some(&whole));
        assert!(!whole.request_end().is_set() && !dropped.request_end().is_set());
        drop(gone);
        assert!(dropped.request_end().is_set());
        body.frame().await.unwrap().unwrap();
        copy.frame().await.unwrap().unwrap();
        assert!(whole.request_end().is_set());

        let (_body, mut copies) = TeeBody::tee(mesh_test::empty(), 1, 1024);
        let _copy = copies.pop().unwrap().tell(Some(&empty));
        assert!(empty.request_end().is_set(), "nothing has to be sent");
    }
}
