//! What is said and counted when a deadline is met.

use crate::count::count;
use crate::time::Expiry;
use crate::watched::Watch;
use http::StatusCode;
use mesh_core::reply::Answer;
use mesh_core::stats::{ClusterStat, HttpStat};
use mesh_core::{Error, Failure};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::time::Sleep;

impl Watch for Expiry {
    type Timer = Option<Sleep>;

    fn poll_head(&mut self, timer: Pin<&mut Option<Sleep>>, cx: &mut Context<'_>) -> Poll<Error> {
        let failure = ready!(self.poll_in(timer, cx));
        expired(self, failure);
        Poll::Ready(match self.exchange() {
            // The caller is still to blame for its part (Envoy `maybeRequestTimeoutCode`).
            Some(exchange)
                if failure == Failure::MaxStreamDuration && !exchange.request_is_whole() =>
            {
                let body = failure.row().body;
                Error::answer(failure, Answer::new(StatusCode::REQUEST_TIMEOUT).body(body))
            }
            _ => Error::new(failure),
        })
    }

    fn moved(&mut self, goes_on: bool) -> Result<bool, Error> {
        if !goes_on {
            return Ok(false);
        }
        // A body that always has more at once must not outrun its limit.
        match self.over() {
            Some(failure) => Err(failed(self, failure)),
            None => Ok(true),
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let failure = ready!(self.poll(cx));
        Poll::Ready(failed(self, failure))
    }
}

/// The failure of a body.
fn failed(expiry: &Expiry, failure: Failure) -> Error {
    let error = Error::new(failure);
    expired(expiry, failure);
    if let Some(exchange) = expiry.exchange() {
        exchange.note_error(&error);
    }
    error
}

/// Says and counts that a limit was met, before anything is dropped because of it.
fn expired(expiry: &Expiry, failure: Failure) {
    let Some(exchange) = expiry.exchange() else {
        return;
    };
    exchange.set_timed_out();
    exchange.adopt_latest_upstream();
    match failure {
        // The connection manager's limit in Envoy, not the router's.
        Failure::MaxStreamDuration => exchange.caller().count(HttpStat::RqMaxDurationReached),
        _ if exchange.is_between_attempts() => {}
        _ => count(exchange, ClusterStat::RqTimeout),
    }
}
