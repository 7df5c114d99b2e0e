//! A body whose small frames go on together.

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::{fmt, mem};

/// Bytes that frames are joined up to: what a peer of HTTP/2 takes as one frame unless it says
/// otherwise (RFC 9113 §6.5.2, `SETTINGS_MAX_FRAME_SIZE`).
const MOST: usize = 16_384;

/// Frames that are taken in at a time, however short.
const FRAMES: usize = 1024;

/// A body whose frames of data go on as one where they are there at the same time, up to 16 KiB.
///
/// HTTP/2 makes a frame of what it is given, however short: a stream of gRPC messages that have come
/// together costs its receiver, and whoever sends it, a frame for each of them otherwise. Nothing is
/// waited for, and a frame that is alone is passed on as it is. Each byte, the trailers and an error
/// come in the order in which the body has them.
///
/// An error comes no sooner than one turn of the task after what went before: who writes HTTP/2 drops
/// what is not written yet when a body breaks off, the head included.
#[pin_project]
pub struct Coalesced<B: Body> {
    #[pin]
    inner: B,
    next: Next<B>,
    /// Something was passed on since the caller had to wait. The head was before there was a body.
    fresh: bool,
}

/// What is known of the inner body beyond what was passed on.
enum Next<B: Body> {
    Unknown,
    /// It did not fit, or was no data.
    Frame(Result<Frame<B::Data>, B::Error>),
    End,
}

// === impl Coalesced ===

impl<B: Body<Data = Bytes>> Coalesced<B> {
    /// Joins the frames of `inner`.
    pub fn new(inner: B) -> Self {
        Self {
            inner,
            next: Next::Unknown,
            fresh: true,
        }
    }

    /// The body as it was, for who has not read of this one.
    pub fn into_inner(self) -> B {
        self.inner
    }
}

impl<B: Body<Data = Bytes>> Body for Coalesced<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let frame = match mem::replace(this.next, Next::Unknown) {
            Next::Unknown => match this.inner.as_mut().poll_frame(cx) {
                Poll::Ready(Some(frame)) => frame,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    *this.fresh = false;
                    return Poll::Pending;
                }
            },
            Next::Frame(frame) => frame,
            Next::End => {
                *this.next = Next::End;
                return Poll::Ready(None);
            }
        };
        let was_fresh = mem::replace(this.fresh, true);
        let first = match frame.map(Frame::into_data) {
            Ok(Ok(data)) => data,
            Ok(Err(other)) => return Poll::Ready(Some(Ok(other))),
            Err(error) if was_fresh => {
                *this.fresh = false;
                *this.next = Next::Frame(Err(error));
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        let mut joined = Joined::One(first);
        for _ in 0..FRAMES {
            if joined.len() >= MOST || this.inner.is_end_stream() {
                break;
            }
            let Poll::Ready(frame) = this.inner.as_mut().poll_frame(cx) else {
                break;
            };
            let Some(frame) = frame else {
                *this.next = Next::End;
                break;
            };
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) if joined.len() + data.len() <= MOST => joined.push(data),
                Ok(Ok(data)) => {
                    *this.next = Next::Frame(Ok(Frame::data(data)));
                    break;
                }
                Ok(Err(other)) => {
                    *this.next = Next::Frame(Ok(other));
                    break;
                }
                Err(error) => {
                    *this.next = Next::Frame(Err(error));
                    break;
                }
            }
        }
        Poll::Ready(Some(Ok(Frame::data(joined.into()))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.next {
            Next::Unknown => self.inner.is_end_stream(),
            Next::Frame(_) => false,
            Next::End => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.inner.size_hint();
        if let Next::Frame(Ok(frame)) = &self.next
            && let Some(data) = frame.data_ref()
        {
            let more = data.remaining() as u64;
            // The larger first: the least may not be more than that.
            if let Some(upper) = hint.upper() {
                hint.set_upper(upper.saturating_add(more));
            }
            hint.set_lower(hint.lower().saturating_add(more));
        }
        hint
    }
}

impl<B: Body + fmt::Debug> fmt::Debug for Coalesced<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Coalesced");
        debug.field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// Data of one frame, which is not copied, or of several.
enum Joined {
    One(Bytes),
    More(BytesMut),
}

// === impl Joined ===

impl Joined {
    fn len(&self) -> usize {
        match self {
            Self::One(data) => data.len(),
            Self::More(data) => data.len(),
        }
    }

    fn push(&mut self, data: Bytes) {
        match self {
            Self::One(first) if first.is_empty() => *first = data,
            Self::One(first) => {
                let mut joined =
                    BytesMut::with_capacity((2 * (first.len() + data.len())).min(MOST));
                joined.extend_from_slice(first);
                joined.extend_from_slice(&data);
                *self = Self::More(joined);
            }
            Self::More(joined) => joined.extend_from_slice(&data),
        }
    }
}

impl From<Joined> for Bytes {
    fn from(joined: Joined) -> Self {
        match joined {
            Joined::One(data) => data,
            Joined::More(data) => data.freeze(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::task::Waker;

    /// What a poll of the inner body says.
    #[derive(Clone, Debug)]
    enum Step {
        Wait,
        Data(Vec<u8>),
        Trailers,
        Fail,
    }

    /// A body that says one thing after the other.
    #[derive(Debug)]
    struct Script {
        steps: VecDeque<Step>,
        /// It tells its end with its last frame.
        tells: bool,
        is_over: bool,
    }

    impl Body for Script {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            assert!(!self.is_over, "polled after its end");
            let frame = match self.steps.pop_front() {
                Some(Step::Wait) => return Poll::Pending,
                Some(Step::Data(data)) => Some(Ok(Frame::data(data.into()))),
                Some(Step::Trailers) => Some(Ok(Frame::trailers(HeaderMap::new()))),
                Some(Step::Fail) => Some(Err("failed")),
                None => None,
            };
            self.is_over = !matches!(frame, Some(Ok(_)));
            Poll::Ready(frame)
        }

        fn is_end_stream(&self) -> bool {
            self.tells && self.steps.is_empty()
        }

        fn size_hint(&self) -> SizeHint {
            let data = self.steps.iter().map(|step| match step {
                Step::Data(data) => data.len() as u64,
                _ => 0,
            });
            SizeHint::with_exact(data.sum())
        }
    }

    /// What is read of a body, and in how many frames of data. Waiting is part of it.
    #[derive(Debug, Default, PartialEq)]
    struct Read {
        data: Vec<u8>,
        /// Bytes that were there before each wait.
        waits: Vec<usize>,
        trailers: usize,
        error: Option<&'static str>,
        frames: Vec<usize>,
    }

    fn script(steps: impl IntoIterator<Item = Step>, tells: bool) -> Script {
        Script {
            steps: steps.into_iter().collect(),
            tells,
            is_over: false,
        }
    }

    fn read<B>(mut body: B) -> Read
    where
        B: Body<Data = Bytes, Error = &'static str> + Unpin,
    {
        let mut cx = Context::from_waker(Waker::noop());
        let mut read = Read::default();
        while !body.is_end_stream() {
            let before = body.size_hint().exact();
            match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Pending => read.waits.push(read.data.len()),
                Poll::Ready(None) => break,
                Poll::Ready(Some(Err(error))) => {
                    read.error = Some(error);
                    break;
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        let left = body.size_hint().exact();
                        assert_eq!(left.unwrap() + data.len() as u64, before.unwrap());
                        read.frames.push(data.len());
                        read.data.extend_from_slice(&data);
                    }
                    Err(_) => read.trailers += 1,
                },
            }
        }
        read
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::Wait),
            8 => prop::collection::vec(any::<u8>(), 0..300).prop_map(Step::Data),
            1 => (1_usize..40_000).prop_map(|length| Step::Data(vec![7; length])),
        ]
    }

    fn any_end() -> impl Strategy<Value = Option<Step>> {
        prop_oneof![
            Just(None),
            Just(Some(Step::Trailers)),
            Just(Some(Step::Fail))
        ]
    }

    proptest! {
        #[test]
        fn nothing_is_lost_added_or_out_of_order(
            steps in prop::collection::vec(any_step(), 0..60),
            end in any_end(),
            tells: bool,
        ) {
            let steps: Vec<_> = steps.into_iter().chain(end).collect();
            let plain = read(script(steps.clone(), tells));
            let joined = read(Coalesced::new(script(steps, tells)));
            prop_assert_eq!(&joined.data, &plain.data);
            prop_assert_eq!((joined.trailers, joined.error), (plain.trailers, plain.error));
            prop_assert!(joined.frames.len() <= plain.frames.len());
            // No frame grew beyond the bound that was not that long to begin with.
            let longest = plain.frames.iter().copied().max().unwrap_or(0).max(MOST);
            prop_assert!(joined.frames.iter().all(|length| *length <= longest));
            // A wait that ended reading ahead is not seen; no other is added but before an error.
            let before_error = joined.error.map(|_| joined.data.len());
            let known = |at: &usize| plain.waits.contains(at) || before_error == Some(*at);
            prop_assert!(joined.waits.iter().all(known));
        }
    }

    fn data(length: usize) -> Step {
        Step::Data(vec![1; length])
    }

    #[test]
    fn what_is_there_goes_on_at_once() {
        let messages = std::iter::repeat_n(data(133), 500);
        let read = read(Coalesced::new(script(messages, false)));
        let whole = MOST / 133 * 133;
        assert_eq!(
            read.frames,
            [whole, whole, whole, whole, 500 * 133 - 4 * whole]
        );
    }

    #[test]
    fn what_is_not_there_is_not_waited_for() {
        let steps = [data(1), data(2), Step::Wait, data(3), Step::Wait, data(4)];
        let read = read(Coalesced::new(script(steps, true)));
        assert_eq!(read.frames, [3, 3, 4]);
    }

    #[test]
    fn an_error_waits_a_turn_for_what_was_before() {
        for steps in [
            vec![Step::Fail],
            vec![data(1), Step::Fail],
            // The wait was met by reading ahead.
            vec![data(1), Step::Wait, Step::Fail],
            vec![data(1), data(2), Step::Wait, Step::Wait, Step::Fail],
        ] {
            let read = read(Coalesced::new(script(steps, false)));
            assert_eq!(read.error, Some("failed"));
            assert_eq!(read.waits, [read.data.len()]);
        }
    }

    #[test]
    fn a_frame_that_is_alone_is_not_copied() {
        let mut body = Coalesced::new(script([data(5), Step::Wait], false));
        let mut cx = Context::from_waker(Waker::noop());
        let Step::Data(bytes) = &body.inner.steps[0] else {
            unreachable!()
        };
        let place = bytes.as_ptr();
        let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut cx) else {
            panic!("there is data");
        };
        assert_eq!(frame.into_data().unwrap().as_ptr(), place);
    }

    #[test]
    fn frames_without_content_are_not_read_without_end() {
        let steps = std::iter::repeat_n(data(0), 3 * FRAMES);
        let read = read(Coalesced::new(script(steps, true)));
        assert_eq!(read.frames, [0, 0, 0]);
    }
}
