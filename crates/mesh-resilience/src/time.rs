//! The one timer of this crate, and limits that begin when a request has arrived whole.
//!
//! Every layer waits through [`Deadline`], so that another timer (a per-worker wheel, say) can
//! take its place in one file. A deadline costs nothing until somebody has to wait for it.

use mesh_core::{Exchange, Failure};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// A moment that can be waited for. The timer is made by the first wait, on the heap, so that a
/// deadline is small, can be moved from a future to a body, and is free when nobody waits.
#[derive(Debug)]
pub(crate) struct Deadline {
    at: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// The first of up to two limits: one that begins when the request has arrived whole, and one
/// that is a fixed moment.
#[derive(Debug)]
pub(crate) struct Expiry {
    exchange: Option<Exchange>,
    /// Begins at the end of the request; taken when that has come.
    after_request: Option<(Duration, Failure)>,
    deadline: Option<(Deadline, Failure)>,
}

/// Where a limit is so large that the sum overflows, this long stands for "never".
const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);

/// `now + limit`, or a time far off.
pub(crate) fn later(now: Instant, limit: Duration) -> Instant {
    now.checked_add(limit).unwrap_or_else(|| now + FAR)
}

// === impl Deadline ===

impl Deadline {
    pub(crate) fn at(at: Instant) -> Self {
        Self { at, sleep: None }
    }

    pub(crate) fn after(limit: Duration) -> Self {
        Self::at(later(Instant::now(), limit))
    }

    /// Moves the deadline.
    pub(crate) fn reset(&mut self, at: Instant) {
        self.at = at;
        if let Some(sleep) = &mut self.sleep {
            sleep.as_mut().reset(at);
        }
    }

    /// Whether the moment is over. Waits for nothing.
    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.at
    }

    /// Ready once the moment has come.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let at = self.at;
        self.sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)))
            .as_mut()
            .poll(cx)
    }
}

/// Waits for `deadline` with a timer that has its place in the caller's own future, so that
/// waiting costs no allocation.
pub(crate) fn poll_in(
    deadline: &Deadline,
    mut timer: Pin<&mut Option<Sleep>>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    if timer.is_none() {
        timer.set(Some(tokio::time::sleep_until(deadline.at)));
    }
    let Some(mut sleep) = timer.as_pin_mut() else {
        return Poll::Pending;
    };
    if sleep.deadline() != deadline.at {
        sleep.as_mut().reset(deadline.at);
    }
    sleep.poll(cx)
}

// === impl Expiry ===

impl Expiry {
    /// A limit that begins now.
    pub(crate) fn from_now(limit: Duration, failure: Failure) -> Self {
        Self {
            exchange: None,
            after_request: None,
            deadline: Some((Deadline::after(limit), failure)),
        }
    }

    /// A limit that begins when the request of `exchange` has arrived whole, a moment, or both.
    /// None where there is neither.
    pub(crate) fn of(
        exchange: &Exchange,
        after_request: Option<(Duration, Failure)>,
        moment: Option<(Instant, Failure)>,
    ) -> Option<Self> {
        if after_request.is_none() && moment.is_none() {
            return None;
        }
        let mut expiry = Self {
            exchange: Some(exchange.clone()),
            after_request,
            deadline: moment.map(|(at, failure)| (Deadline::at(at), failure)),
        };
        // A request without a body has ended before anybody waits.
        if exchange.request_end().is_set() {
            expiry.begin();
        }
        Some(expiry)
    }

    pub(crate) fn exchange(&self) -> Option<&Exchange> {
        self.exchange.as_ref()
    }

    /// The request has ended: what counts from there begins.
    fn begin(&mut self) {
        let Some((limit, failure)) = self.after_request.take() else {
            return;
        };
        let at = later(Instant::now(), limit);
        match &mut self.deadline {
            Some((deadline, _)) if deadline.at <= at => {}
            deadline => *deadline = Some((Deadline::at(at), failure)),
        }
    }

    /// What has expired, if something has. Waits for nothing.
    pub(crate) fn over(&self) -> Option<Failure> {
        let (deadline, failure) = self.deadline.as_ref()?;
        deadline.is_over().then_some(*failure)
    }

    /// Ready once a limit has expired.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        self.poll_begun(cx);
        let Some((deadline, failure)) = &mut self.deadline else {
            return Poll::Pending;
        };
        ready!(deadline.poll(cx));
        Poll::Ready(*failure)
    }

    /// As `poll`, with a timer in the caller's own future.
    pub(crate) fn poll_in(
        &mut self,
        timer: Pin<&mut Option<Sleep>>,
        cx: &mut Context<'_>,
    ) -> Poll<Failure> {
        self.poll_begun(cx);
        let Some((deadline, failure)) = &self.deadline else {
            return Poll::Pending;
        };
        ready!(poll_in(deadline, timer, cx));
        Poll::Ready(*failure)
    }

    /// Begins once the request has arrived.
    fn poll_begun(&mut self, cx: &mut Context<'_>) {
        if self.after_request.is_some()
            && let Some(exchange) = &self.exchange
            && exchange.request_end().poll_set(cx).is_ready()
        {
            self.begin();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::Caller;
    use std::future::poll_fn;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_limit_beyond_all_time_is_far_off_rather_than_a_panic() {
        let now = Instant::now();
        assert!(later(now, Duration::MAX) > now + Duration::from_secs(86_400 * 365));
    }

    #[test]
    fn a_deadline_that_nobody_waits_for_needs_no_runtime() {
        let deadline = Deadline::after(SECOND);
        assert!(!deadline.is_over());
        assert!(deadline.sleep.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_begins_when_the_request_has_arrived() {
        let start = Instant::now();
        let exchange = Exchange::new(start.into_std(), Caller::default());
        let theirs = exchange.clone();
        let limit = Some((SECOND, Failure::RequestTimeout));
        let mut expiry = Expiry::of(&exchange, limit, None).unwrap();
        let body = async {
            tokio::time::sleep(5 * SECOND).await;
            theirs.request_end().set();
        };
        let (failure, ()) = tokio::join!(poll_fn(|cx| expiry.poll(cx)), body);
        assert_eq!(failure, Failure::RequestTimeout);
        assert_eq!(start.elapsed(), 6 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_limits_counts() {
        let start = Instant::now();
        let exchange = Exchange::new(start.into_std(), Caller::default());
        exchange.request_end().set();
        let limit = Some((3 * SECOND, Failure::RequestTimeout));
        for (moment, expected) in [
            (SECOND, Failure::MaxStreamDuration),
            (5 * SECOND, Failure::RequestTimeout),
        ] {
            let moment = Some((Instant::now() + moment, Failure::MaxStreamDuration));
            let mut expiry = Expiry::of(&exchange, limit, moment).unwrap();
            assert_eq!(poll_fn(|cx| expiry.poll(cx)).await, expected);
        }
        assert_eq!(start.elapsed(), 4 * SECOND);
    }
}
