//! Tells whether a stream has stood still for too long.

use crate::time::{Deadline, later, poll_in};
use mesh_core::{Exchange, Failure};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Watches one stream. Progress only notes the time; the timer is moved when it fires.
#[derive(Debug)]
pub(super) struct Watch {
    limit: Duration,
    failure: Failure,
    exchange: Option<Exchange>,
    last: Instant,
    /// Bytes of the request when the timer was last set.
    received: u64,
    deadline: Deadline,
}

// === impl Watch ===

impl Watch {
    pub(super) fn new(limit: Duration, failure: Failure, exchange: Option<Exchange>) -> Self {
        let last = Instant::now();
        Self {
            limit,
            failure,
            received: exchange.as_ref().map_or(0, Exchange::received),
            exchange,
            last,
            deadline: Deadline::at(later(last, limit)),
        }
    }

    pub(super) fn exchange(&self) -> Option<&Exchange> {
        self.exchange.as_ref()
    }

    /// Something moved.
    pub(super) fn progress(&mut self) {
        self.last = Instant::now();
    }

    /// Ready once nothing has moved for the limit.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        loop {
            ready!(self.deadline.poll(cx));
            if self.is_due() {
                return Poll::Ready(self.failure);
            }
        }
    }

    /// As `poll`, with a timer in the caller's own future.
    pub(super) fn poll_in(
        &mut self,
        mut timer: Pin<&mut Option<Sleep>>,
        cx: &mut Context<'_>,
    ) -> Poll<Failure> {
        loop {
            ready!(poll_in(&self.deadline, timer.as_mut(), cx));
            if self.is_due() {
                return Poll::Ready(self.failure);
            }
        }
    }

    /// The timer has fired: whether nothing has moved since, or else the timer is moved.
    fn is_due(&mut self) -> bool {
        let received = self.exchange.as_ref().map_or(0, Exchange::received);
        if received != self.received {
            self.received = received;
            self.progress();
        }
        let due = later(self.last, self.limit);
        if due <= Instant::now() {
            return true;
        }
        self.deadline.reset(due);
        false
    }
}
