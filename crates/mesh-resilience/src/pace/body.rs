//! A body that is passed on in parts, as time goes by.

use super::bucket::{Bucket, SLICE};
use crate::time::{Deadline, later};
use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;
use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::time::Instant;

/// Read ahead, at most: what Envoy's listeners keep of an answer by default.
const MOST: usize = 1 << 20;

/// A response body that is passed on at a rate, or as it comes where there is none.
#[pin_project]
#[derive(Debug)]
pub struct PacedBody<B> {
    #[pin]
    inner: B,
    /// Boxed: nearly all are passed on as they come.
    paced: Option<Box<Paced>>,
}

#[derive(Debug)]
struct Paced {
    rate: NonZeroU64,
    /// From the first byte on.
    bucket: Option<Bucket>,
    /// There may be more then.
    next: Option<Deadline>,
    ahead: VecDeque<Bytes>,
    length: usize,
    /// Nothing more is read.
    ended: bool,
    trailers: Option<HeaderMap>,
}

// === impl PacedBody ===

impl<B> PacedBody<B> {
    pub(super) fn new(inner: B, rate: Option<NonZeroU64>) -> Self {
        let paced = rate.map(|rate| {
            Box::new(Paced {
                rate,
                bucket: None,
                next: None,
                ahead: VecDeque::new(),
                length: 0,
                ended: false,
                trailers: None,
            })
        });
        Self { inner, paced }
    }
}

impl<B: Body> Body for PacedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        match this.paced {
            Some(paced) => paced.poll(this.inner, cx),
            None => Poll::Ready(
                ready!(this.inner.poll_frame(cx)).map(|frame| Ok(frame?.map_data(whole))),
            ),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.paced {
            Some(paced) => {
                let ended = paced.ended || self.inner.is_end_stream();
                paced.ahead.is_empty() && paced.trailers.is_none() && ended
            }
            None => self.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.paced.as_ref().map_or(0, |paced| paced.length as u64);
        let hint = self.inner.size_hint();
        let mut all = SizeHint::new();
        all.set_lower(hint.lower().saturating_add(ahead));
        if let Some(upper) = hint.upper() {
            all.set_upper(upper.saturating_add(ahead));
        }
        all
    }
}

/// All of a frame's data; bytes are not copied.
fn whole(mut data: impl Buf) -> Bytes {
    data.copy_to_bytes(data.remaining())
}

// === impl Paced ===

impl Paced {
    fn poll<B: Body>(
        &mut self,
        mut inner: Pin<&mut B>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        loop {
            if let Some(data) = self.due(cx) {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if self.ended && self.ahead.is_empty() {
                let trailers = self.trailers.take();
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
            }
            // The timer wakes, if nothing more is read.
            if self.ended || self.length >= MOST {
                return Poll::Pending;
            }
            match ready!(inner.as_mut().poll_frame(cx)).transpose()? {
                Some(frame) => self.keep(frame),
                None => self.ended = true,
            }
            self.ended |= inner.is_end_stream();
        }
    }

    /// What may be passed on now. The timer is set where there is more.
    fn due(&mut self, cx: &mut Context<'_>) -> Option<Bytes> {
        let first = self.ahead.front_mut()?;
        if let Some(next) = &mut self.next {
            if next.poll(cx).is_pending() {
                return None;
            }
            self.next = None;
        }
        let now = Instant::now();
        let rate = self.rate;
        let bucket = self.bucket.get_or_insert_with(|| Bucket::begin(rate, now));
        let data = first.split_to(bucket.take(first.len(), now));
        self.length -= data.len();
        if first.is_empty() {
            self.ahead.pop_front();
            return Some(data);
        }
        let mut next = Deadline::at(later(now, SLICE));
        if data.is_empty() && next.poll(cx).is_pending() {
            self.next = Some(next);
            return None;
        }
        self.next = Some(next);
        Some(data)
    }

    /// Keeps what was read for later.
    fn keep<D: Buf>(&mut self, frame: Frame<D>) {
        match frame.into_data() {
            Ok(data) if !data.has_remaining() => {}
            Ok(data) => {
                let data = whole(data);
                self.length += data.len();
                self.ahead.push_back(data);
            }
            Err(frame) => {
                self.trailers = frame.into_trailers().ok();
                self.ended = true;
            }
        }
    }
}
