//! Tells whether a stream has stood still for too long.

use crate::time::{Deadline, later, poll_in};
use crate::watched;
use http::StatusCode;
use mesh_core::reply::Answer;
use mesh_core::{Error, Exchange, Failure};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Watches one stream. Progress only notes the time; the timer is moved when it fires.
#[derive(Debug)]
pub(super) struct Watch {
    limit: Duration,
    exchange: Option<Exchange>,
    last: Instant,
    /// Bytes of the request when the timer was last set.
    received: u64,
    deadline: Deadline,
}

// === impl Watch ===

impl Watch {
    pub(super) fn new(limit: Duration, exchange: Option<Exchange>) -> Self {
        let last = Instant::now();
        Self {
            limit,
            received: exchange.as_ref().map_or(0, Exchange::received),
            exchange,
            last,
            deadline: Deadline::at(later(last, limit)),
        }
    }

    /// Something moved.
    fn progress(&mut self) {
        self.last = Instant::now();
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

impl watched::Watch for Watch {
    type Timer = Option<Sleep>;

    fn poll_head(
        &mut self,
        mut timer: Pin<&mut Option<Sleep>>,
        cx: &mut Context<'_>,
    ) -> Poll<Error> {
        loop {
            ready!(poll_in(&self.deadline, timer.as_mut(), cx));
            if self.is_due() {
                break;
            }
        }
        const IDLE: Failure = Failure::StreamIdle;
        let Some(exchange) = &self.exchange else {
            return Poll::Ready(Error::new(IDLE));
        };
        exchange.set_timed_out();
        if exchange.request_is_whole() {
            return Poll::Ready(Error::new(IDLE));
        }
        // The caller is still to blame for its part (Envoy `maybeRequestTimeoutCode`).
        let answer = Answer::new(StatusCode::REQUEST_TIMEOUT).body(IDLE.row().body);
        Poll::Ready(Error::answer(IDLE, answer))
    }

    fn begin(&mut self) {
        self.progress();
    }

    fn moved(&mut self, goes_on: bool) -> Result<bool, Error> {
        if goes_on {
            self.progress();
        }
        Ok(goes_on)
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        loop {
            ready!(self.deadline.poll(cx));
            if self.is_due() {
                break;
            }
        }
        let error = Error::new(Failure::StreamIdle);
        if let Some(exchange) = &self.exchange {
            exchange.set_timed_out();
            exchange.note_error(&error);
        }
        Poll::Ready(error)
    }
}
