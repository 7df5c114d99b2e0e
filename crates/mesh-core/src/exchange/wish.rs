//! Which endpoint a request should rather go to, past balancing.

use super::Exchange;
use http::StatusCode;
use std::sync::atomic::Ordering;

/// The endpoint that a caller's session is kept at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionHost {
    /// Its address as it is written, e.g. `10.0.0.1:80`. It is as the caller said it, and need not be
    /// any.
    pub address: String,
    /// Without it the request fails.
    pub strict: bool,
    /// With which status, where it is not there.
    pub missing_status: StatusCode,
}

/// What headers of a request name, one after the other.
#[derive(Debug)]
pub(super) struct Named {
    /// Separated by commas.
    all: String,
    /// Where the next one begins.
    next: usize,
}

// === impl Exchange ===

impl Exchange {
    /// Records the endpoint that the request's first attempt should go to. The first call counts.
    pub fn set_session_host(&self, host: SessionHost) {
        let _ = self.request.session.set(Box::new(host));
    }

    /// The endpoint that the request's first attempt should go to, if a session is kept at one.
    #[inline]
    pub fn session_host(&self) -> Option<&SessionHost> {
        self.request.session.get().map(|host| &**host)
    }

    /// The next of the endpoints that a request's headers name, which `read` tells when it is first
    /// asked for: separated by commas. None where there is no further one; each is named once,
    /// whichever attempt asks.
    pub fn next_named_host(&self, read: impl FnOnce() -> String) -> Option<String> {
        let mut shared = self.shared();
        let named = shared.named.get_or_insert_with(|| {
            let all = read();
            Box::new(Named { all, next: 0 })
        });
        named.next()
    }

    /// Notes that an answer told the load of its endpoint. False where an answer to this request
    /// has before: of each request one report counts (Envoy's router).
    pub fn note_load_report(&self) -> bool {
        !self.request.load_reported.swap(true, Ordering::Relaxed)
    }

    /// Whether an answer told the load of its endpoint.
    pub fn has_load_report(&self) -> bool {
        self.request.load_reported.load(Ordering::Relaxed)
    }
}

// === impl Named ===

impl Named {
    fn next(&mut self) -> Option<String> {
        while self.next < self.all.len() {
            let rest = &self.all[self.next..];
            let (one, behind) = rest.split_once(',').unwrap_or((rest, ""));
            self.next = self.all.len() - behind.len();
            let one = one.trim_ascii();
            if !one.is_empty() {
                return Some(one.to_owned());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Caller;
    use std::time::Instant;

    #[test]
    fn each_named_host_comes_once_whichever_attempt_asks() {
        let exchange = Exchange::new(Instant::now(), Caller::default());
        let read = || " a:1 ,, b:2,a:1 , ".to_owned();
        assert_eq!(exchange.next_named_host(read).as_deref(), Some("a:1"));
        let never = || unreachable!("it is read once");
        let attempt = exchange.for_attempt();
        assert_eq!(attempt.next_named_host(never).as_deref(), Some("b:2"));
        assert_eq!(exchange.next_named_host(never).as_deref(), Some("a:1"));
        assert_eq!(exchange.next_named_host(never), None);
        assert_eq!(exchange.next_named_host(never), None);
    }

    #[test]
    fn one_report_of_a_request_counts() {
        let exchange = Exchange::new(Instant::now(), Caller::default());
        assert!(!exchange.has_load_report());
        assert!(exchange.note_load_report());
        assert!(!exchange.for_attempt().note_load_report());
        assert!(exchange.has_load_report());
    }
}
