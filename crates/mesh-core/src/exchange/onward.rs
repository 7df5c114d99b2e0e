//! Requests that go on elsewhere, because an answer redirected them and somebody here follows it.
//!
//! Whoever finds that out is far below whoever can send the request through everything again, so
//! it is left here in between.

use super::Exchange;
use crate::Name;
use bytes::Bytes;
use http::{HeaderMap, Request};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// A request as it goes on, with all of its body.
#[derive(Debug)]
pub struct Onward {
    /// The request; its extensions are empty.
    pub request: Request<Vec<Bytes>>,
    /// What came after the body.
    pub trailers: Option<HeaderMap>,
}

/// What a request has behind it.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    redirects: u32,
    /// By which route it was sent to which.
    taken: Vec<(Name, Name)>,
}

// === impl Exchange ===

impl Exchange {
    /// The record for a request that goes on elsewhere at `now`: the same caller and id, and what it
    /// has behind it. Nothing else is shared.
    #[must_use]
    pub fn for_onward(&self, now: Instant) -> Self {
        let mut onward = Self::make(now, self.request.caller.clone(), false);
        if let Some(state) = Arc::get_mut(&mut onward.request) {
            state.onward = true;
        }
        if let Some(remote) = self.request.remote.get() {
            onward.set_remote(*remote);
        }
        let (id, past) = {
            let shared = self.shared();
            (shared.request_id.clone(), shared.past.clone())
        };
        let mut shared = onward.shared();
        shared.request_id = id;
        shared.past = past;
        drop(shared);
        onward
    }

    /// How many redirects were followed so far.
    pub fn redirects(&self) -> u32 {
        self.shared().past.as_ref().map_or(0, |past| past.redirects)
    }

    /// Whether this is a request that a redirect led here. Its head was looked at when it came.
    pub fn is_onward(&self) -> bool {
        self.request.onward
    }

    /// Notes that the route `by` sends the request to the route `to`. False if it did before.
    pub fn take_route(&self, by: &Name, to: &Name) -> bool {
        let mut shared = self.shared();
        let taken = &mut shared.past.get_or_insert_default().taken;
        let is_new = !taken.iter().any(|(one, other)| (one, other) == (by, to));
        if is_new {
            taken.push((by.clone(), to.clone()));
        }
        is_new
    }

    /// Leaves the request as it goes on. The answer that there is must not be passed on from now.
    pub fn go_on(&self, onward: Onward) {
        let mut shared = self.shared();
        shared.past.get_or_insert_default().redirects += 1;
        shared.onward = Some(Box::new(onward));
        drop(shared);
        self.request.gone_on.store(true, Ordering::Release);
    }

    /// Whether the request went on elsewhere, so that nobody gets this answer.
    pub fn has_gone_on(&self) -> bool {
        self.request.gone_on.load(Ordering::Acquire)
    }

    /// The request as it goes on, once.
    pub fn take_onward(&self) -> Option<Onward> {
        if !self.has_gone_on() {
            return None;
        }
        self.shared().onward.take().map(|onward| *onward)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Caller;
    use http::HeaderValue;

    #[test]
    fn what_goes_on_keeps_its_caller_its_id_and_its_past_and_nothing_that_was_learned() {
        let exchange = Exchange::new(Instant::now(), Caller::default());
        exchange.set_remote("1.2.3.4:0".parse().unwrap());
        exchange.set_request_id(HeaderValue::from_static("me"));
        exchange.flag(crate::Flags::UT);
        assert!(exchange.take_route(&"a".into(), &"b".into()));
        assert!(exchange.take_onward().is_none() && !exchange.has_gone_on());
        exchange.go_on(Onward {
            request: Request::new(vec![Bytes::from_static(b"x")]),
            trailers: None,
        });
        let after = exchange.for_onward(Instant::now());
        assert_eq!((after.redirects(), after.is_onward()), (1, true));
        assert_eq!(after.remote().unwrap().to_string(), "1.2.3.4:0");
        assert_eq!(after.request_id().unwrap(), "me");
        assert_eq!(after.flags(), crate::Flags::default());
        assert!(!after.take_route(&"a".into(), &"b".into()), "it did before");
        assert!(after.take_route(&"b".into(), &"b".into()));
        assert!(!after.has_gone_on(), "not yet");
        assert!(exchange.has_gone_on());
        assert_eq!(exchange.take_onward().unwrap().request.body().len(), 1);
        assert!(exchange.take_onward().is_none(), "once");
    }
}
