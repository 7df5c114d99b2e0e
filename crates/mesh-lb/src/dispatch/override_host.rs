//! The endpoint that a request goes to past balancing: where its caller's session is kept, or one that
//! its headers name.

use crate::{Host, HostSet};
use http::{HeaderMap, HeaderName, StatusCode};
use mesh_core::reply::Answer;
use mesh_core::{Error, Exchange, Failure};
use std::sync::Arc;

/// A request whose wishes are asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wishing<'a> {
    pub(super) exchange: Option<&'a Exchange>,
    pub(super) headers: &'a HeaderMap,
}

/// Why a request goes nowhere, and how it is answered where that is not as its failure says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) failure: Failure,
    status: Option<StatusCode>,
}

/// The endpoint that a request goes to, if it goes past balancing. As in Envoy a session comes first,
/// and counts for the first attempt only; what headers name is used up from attempt to attempt.
///
/// # Errors
/// Where the session has to be kept at an endpoint that is not there
/// ([`SessionHost::missing_status`](mesh_core::exchange::SessionHost::missing_status)), or not well
/// enough.
pub(super) fn choose(set: &HostSet, of: Wishing<'_>) -> Result<Option<Arc<Host>>, Refused> {
    let first = |exchange: &&Exchange| exchange.attempts() < 2;
    let session = of.exchange.filter(first).and_then(Exchange::session_host);
    if let Some(session) = session {
        let there = set.at(&session.address);
        let health = set.config().session_health;
        if let Some(host) = there.filter(|host| health.has(host.told_health())) {
            return Ok(Some(host.clone()));
        }
        if session.strict {
            let failure = Failure::NoHealthyHost;
            let status = there.is_none().then_some(session.missing_status);
            return Err(Refused { failure, status });
        }
    }
    let names = &set.config().host_headers;
    if names.is_empty() {
        return Ok(None);
    }
    Ok(match of.exchange {
        Some(exchange) => {
            let mut next = || exchange.next_named_host(|| named(names, of.headers));
            // Each turn uses one up.
            std::iter::from_fn(&mut next).find_map(|one| set.at(&one).cloned())
        }
        None => {
            let all = named(names, of.headers);
            all.split(',')
                .find_map(|one| set.at(one.trim_ascii()).cloned())
        }
    })
}

/// What the first line of each of these headers says, separated by commas.
fn named(names: &[HeaderName], headers: &HeaderMap) -> String {
    let values = names
        .iter()
        .filter_map(|name| headers.get(name)?.to_str().ok());
    values.collect::<Vec<_>>().join(",")
}

// === impl Refused ===

impl Refused {
    /// The status that it is answered with.
    pub(crate) fn status(self) -> StatusCode {
        self.status.unwrap_or_else(|| self.failure.row().status)
    }

    pub(crate) fn error(self) -> Error {
        let error = Error::new(self.failure);
        match self.status {
            None => error,
            Some(status) => {
                let body = self.failure.row().body.as_bytes();
                error.answered(Answer::new(status).body(body))
            }
        }
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            status: None,
        }
    }
}

#[cfg(test)]
mod tests;
