//! Requests that are timed by one another, and whether they were in time.
//!
//! What happens to hosts that are taken out depends on when requests come. Where one came later
//! than its configuration supposes, as on a busy machine, nobody can say what is right: then the
//! configuration is tried again, and not compared if it is never in time.

use crate::callers::Certificates;
use crate::request::Call;
use crate::wire::Message;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// When a request is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    /// What the requests after it are timed by.
    pub(crate) mark: Option<Mark>,
    /// It is sent so many milliseconds after the mark.
    pub(crate) after: u64,
    /// Its answer is there so many milliseconds after the mark; 0 for at any time.
    pub(crate) limit: u64,
}

/// From where time is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The moment before the request.
    Sent,
    /// The end of an interval of outlier detection. The request has the host taken out that answers
    /// it, for less than an interval, and it is asked for again until that host is back: so many
    /// times that nothing of it is compared.
    Interval,
}

/// The time at one subject, for one configuration.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    mark: Option<Instant>,
    /// How long the request before took: whoever answers slowly is told slowly who is out, too.
    took: Duration,
    /// Something was not in time.
    pub(crate) late: bool,
    /// Requests beyond those of the configuration.
    pub(crate) more: usize,
}

/// How often it is looked whether a host is back.
const LOOK: Duration = Duration::from_millis(25);
/// How long it is looked, which is longer than an interval takes, and how often a host is taken out.
const PATIENCE: Duration = Duration::from_millis(2_600);
const TIMES: usize = 3;
/// How well it has to be known when an interval ended.
const SHARP: Duration = Duration::from_millis(150);

// === impl Clock ===

impl Clock {
    /// Waits until it is time for a request.
    pub(crate) async fn before(&mut self, call: &Call) {
        sleep(self.pause(call)).await;
        match call.pace.mark {
            Some(_) => self.mark = Some(Instant::now()),
            None => {
                if let Some(mark) = self.mark.filter(|_| call.pace.after > 0) {
                    sleep_until(mark + Duration::from_millis(call.pace.after)).await;
                }
            }
        }
    }

    /// How long to wait before a request, whatever it is timed by.
    fn pause(&self, call: &Call) -> Duration {
        match call.wait {
            0 => Duration::ZERO,
            wait => Duration::from_millis(wait).max(self.took * 2),
        }
    }

    /// Notes how long a request took that began at this time.
    pub(crate) fn after(&mut self, call: &Call, began: Instant) {
        self.took = began.elapsed();
        let limit = Duration::from_millis(call.pace.limit);
        let since = self.mark.map_or(Duration::ZERO, |mark| mark.elapsed());
        self.late |= !limit.is_zero() && since > limit;
    }

    /// Sends a request, and others, until an interval has just ended.
    pub(crate) async fn interval(
        &mut self,
        to: SocketAddr,
        call: &Call,
        by: &Certificates,
    ) -> (Message, String) {
        let mut probe = call.clone();
        probe.headers.retain(|(name, _)| name != "x-script");
        let mut answer = super::run::exchange(to, call, by).await;
        for _ in 0..TIMES {
            let host = answer.0.header("x-backend").map(str::to_owned);
            let end = Instant::now() + PATIENCE;
            // When it was last asked while the host was out.
            let mut out = None;
            while Instant::now() < end {
                sleep(LOOK).await;
                let asked = Instant::now();
                let (reply, _) = super::run::exchange(to, &probe, by).await;
                self.more += 1;
                let is_out = reply.header("x-backend") != host.as_deref();
                if is_out {
                    out = Some(asked);
                } else if let Some(out) = out {
                    self.mark = Some(Instant::now());
                    self.late |= out.elapsed() > SHARP;
                    return answer;
                }
            }
            answer = super::run::exchange(to, call, by).await;
            self.more += 1;
        }
        self.late = true;
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a request is late that is answered a minute after the mark.
    fn is_late(limit: u64) -> bool {
        let mut clock = Clock {
            mark: Instant::now().checked_sub(Duration::from_secs(60)),
            ..Clock::default()
        };
        let mut call = Call::get("/");
        call.pace.limit = limit;
        clock.after(&call, Instant::now());
        clock.late
    }

    #[test]
    fn who_is_answered_after_its_limit_is_late() {
        assert!(is_late(59_000));
        assert!(!is_late(3_600_000));
        assert!(!is_late(0), "at any time");
    }

    #[test]
    fn who_is_slow_is_given_more_time() {
        let mut call = Call::get("/");
        let pause = |took, call: &Call| {
            let took = Duration::from_millis(took);
            let clock = Clock {
                took,
                ..Clock::default()
            };
            clock.pause(call).as_millis()
        };
        assert_eq!(pause(40, &call), 0);
        call.wait = 25;
        assert_eq!(pause(10, &call), 25);
        assert_eq!(pause(40, &call), 80);
    }
}
