//! One request's attempts: what is kept for the next, whether there is one, and what is left
//! behind at the end.

use super::ask::Wanted;
use super::budget::{self, Window};
use super::replay::{Replay, ReplayBody};
use super::{ATTEMPT_COUNT, Plan, Settings, backoff, reset};
use crate::count::count;
use crate::limits::{EXPECTED, Limits};
use http::request::Parts;
use http::{Extensions, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use http_body::Body;
use mesh_core::body::Held;
use mesh_core::model;
use mesh_core::stats::ClusterStat;
use mesh_core::usage::Taken;
use mesh_core::{Error, Exchange, Failure, Flags};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A request's attempts after the first.
pub(super) struct Attempts<S, B> {
    pub(super) service: S,
    /// The request's head as the first attempt had it.
    head: Saved,
    replay: Replay<B>,
    policy: Arc<model::Retry>,
    wanted: Wanted,
    settings: Arc<Settings>,
    window: Option<Arc<Window>>,
    started: Instant,
    /// Retries so far.
    made: u32,
    /// Held from the decision for a retry until its response head.
    unit: Option<Taken>,
    exchange: Option<Exchange>,
    /// The present attempt's own record, from the second on.
    attempt: Option<Exchange>,
    /// Flags of the request itself, which no attempt's may replace.
    flags: Flags,
    /// Each attempt says which it is.
    numbered: bool,
}

/// Copies up what a retried attempt learns while its response's body is read, so that the
/// request's record is whole when the body has ended.
#[derive(Debug)]
pub struct LateNotes {
    request: Exchange,
    attempt: Exchange,
}

/// A copy of the head for further attempts.
///
/// The exchange is not copied, because each attempt gets its own; where it is the only extension,
/// which is the common case, no table of extensions is copied either.
pub(super) fn save(head: &Parts, exchange: Option<&Exchange>) -> Saved {
    let others = head.extensions.len() > usize::from(exchange.is_some());
    let length = |(name, value): (&HeaderName, &HeaderValue)| {
        name.as_str().len() + value.len() + 2 * size_of::<u32>()
    };
    let mut headers = Vec::with_capacity(head.headers.iter().map(length).sum());
    for (name, value) in &head.headers {
        let sensitive = if value.is_sensitive() { SENSITIVE } else { 0 };
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        // Parts of a head are limited to far less than 2 GiB wherever it came from.
        let [first, second] =
            [name, value].map(|part| u32::try_from(part.len()).unwrap_or(0) & !SENSITIVE);
        let lengths = u64::from(first) | u64::from(second | sensitive) << u32::BITS;
        headers.extend_from_slice(&lengths.to_ne_bytes());
        headers.extend_from_slice(name);
        headers.extend_from_slice(value);
    }
    Saved {
        method: head.method.clone(),
        uri: head.uri.clone(),
        version: head.version,
        extensions: match others {
            true => head.extensions.clone(),
            false => Extensions::new(),
        },
        headers,
    }
}

/// The head of a request whose headers are kept in one piece of memory: copying the map itself
/// costs an allocation for each name that HTTP does not know, and most requests never need it.
pub(super) struct Saved {
    method: Method,
    uri: Uri,
    version: Version,
    extensions: Extensions,
    headers: Vec<u8>,
}

/// Marks the length of a value that must not be shown or indexed.
const SENSITIVE: u32 = 1 << 31;

impl Saved {
    fn restore(&self) -> Parts {
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = self.method.clone();
        head.uri = self.uri.clone();
        head.version = self.version;
        head.extensions = self.extensions.clone();
        let mut rest = &self.headers[..];
        let mut field = || {
            let (lengths, after) = rest.split_first_chunk()?;
            let lengths = u64::from_ne_bytes(*lengths);
            let [first, second] = [lengths as u32, (lengths >> u32::BITS) as u32];
            let (name, after) = after.split_at_checked(first as usize)?;
            let (value, after) = after.split_at_checked((second & !SENSITIVE) as usize)?;
            rest = after;
            Some((name, value, second & SENSITIVE != 0))
        };
        while let Some((name, value, sensitive)) = field() {
            if let (Ok(name), Ok(mut value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            {
                value.set_sensitive(sensitive);
                head.headers.append(name, value);
            }
        }
        head
    }
}

/// Ends a request's attempts with this result.
pub(super) fn finish<S, B, R: Body>(
    attempts: Option<Attempts<S, B>>,
    result: Result<Response<R>, Error>,
) -> Result<Response<Held<R, LateNotes>>, Error> {
    let late = attempts.and_then(Attempts::settle);
    Ok(result?.map(|body| Held::new(body, late)))
}

// === impl Attempts ===

impl<S, B> Attempts<S, B> {
    pub(super) fn new(
        service: S,
        head: Saved,
        replay: Replay<B>,
        plan: Plan,
        settings: Arc<Settings>,
    ) -> Self {
        let started = Instant::now();
        let now = started.into_std();
        let window = match (&settings.limits, &plan.exchange) {
            (Some(own), _) => own.window.clone().inspect(|window| window.add(now)),
            (None, Some(exchange)) if settings.policy.is_none() => {
                settings.budgets.begin(exchange, now)
            }
            (None, _) => None,
        };
        Self {
            service,
            head,
            replay,
            policy: plan.policy,
            wanted: plan.wanted,
            window,
            settings,
            started,
            made: 0,
            unit: None,
            attempt: None,
            flags: plan
                .exchange
                .as_ref()
                .map(Exchange::flags)
                .unwrap_or_default(),
            exchange: plan.exchange,
            numbered: plan.numbered,
        }
    }

    fn count(&self, stat: ClusterStat) {
        if let Some(exchange) = &self.exchange {
            count(exchange, stat);
        }
    }

    /// Takes a unit of the limits in force. `Err` where there is none left.
    fn take_unit(&self) -> Result<Option<Taken>, ()> {
        let window = self.window.as_deref();
        let now = Instant::now().into_std();
        let unit = if let Some(own) = &self.settings.limits {
            budget::take(&own.usage, &own.limits, window, now)
        } else if self.settings.policy.is_none()
            && let Some(cluster) = self.exchange.as_ref().and_then(Exchange::cluster)
        {
            let priority = self.exchange.as_ref().map(Exchange::priority);
            let priority = priority.unwrap_or_default();
            let limits = cluster.config().limits_of(priority);
            budget::take(cluster.live().usage_of(priority), limits, window, now)
        } else {
            return Ok(None);
        };
        unit.map(Some).ok_or(())
    }

    /// Says at once what is known of the request itself: a limit may end it before its attempts do.
    pub(super) fn tell(&self) {
        if let Some(exchange) = &self.exchange {
            exchange.flag(self.flags);
        }
    }

    /// Says whether nothing is under way.
    pub(super) fn rest(&self, between: bool) {
        if let Some(exchange) = &self.exchange {
            exchange.set_between_attempts(between);
        }
    }

    /// Notes why the attempt failed that began last: Envoy's log has it where a limit ends the request
    /// before there is another.
    pub(super) fn failed<R>(&self, result: &Result<Response<R>, Error>) {
        let exchange = self.attempt.as_ref().or(self.exchange.as_ref());
        if let (Err(error), Some(exchange)) = (result, exchange) {
            exchange.with_notes_mut(|notes| notes.transport_failure = error.cause());
        }
    }

    /// The request's own record.
    pub(super) fn exchange(&self) -> Option<&Exchange> {
        self.exchange.as_ref()
    }

    /// The record of the attempt that began last, from the second on.
    pub(super) fn latest(&self) -> Option<Exchange> {
        self.attempt.clone()
    }

    /// The attempts as they end with the result of the one that has this record.
    pub(super) fn won_by(mut self, winner: Option<Exchange>) -> Self {
        self.attempt = winner;
        self
    }

    /// What happened to the attempts goes into the request's own record.
    fn settle(self) -> Option<LateNotes> {
        let request = self.exchange?;
        request.set_between_attempts(false);
        if let Some(attempt) = &self.attempt {
            request.adopt(attempt);
        }
        // What was decided about it came before its end.
        request.flag_first(self.flags);
        self.attempt.map(|attempt| LateNotes::new(request, attempt))
    }
}

impl<S, B: Body> Attempts<S, B> {
    /// How long to wait before the next attempt, if there is one.
    ///
    /// The order is Envoy's (`RetryStateImpl::shouldRetry`): condition, number of retries, limit.
    pub(super) fn judge<R>(&mut self, result: &Result<Response<R>, Error>) -> Option<Duration> {
        self.unit = None;
        let conditions = &self.wanted.conditions;
        let again = match result {
            Ok(response) => {
                conditions.meet_head(&self.policy, response.status(), response.headers())
            }
            Err(error) => conditions.meet_error(error),
        };
        if !self.replay.is_possible() {
            return None;
        }
        if !again {
            // Envoy calls a retry a success whose result is none to try again for.
            if self.made > 0 && result.as_ref().err().is_none_or(is_of_an_attempt) {
                self.count(ClusterStat::RqRetrySuccess);
            }
            return None;
        }
        self.another(result.as_ref().ok())
    }

    /// Whether a result calls for another attempt, had it not been made already.
    pub(super) fn would_judge<R>(&self, result: &Result<Response<R>, Error>) -> bool {
        let conditions = &self.wanted.conditions;
        self.replay.is_possible()
            && match result {
                Ok(response) => {
                    conditions.meet_head(&self.policy, response.status(), response.headers())
                }
                Err(error) => conditions.meet_error(error),
            }
    }

    /// How long to wait before the attempt beside one that is late, if there is one: whatever the
    /// conditions, as long as there are any (Envoy `shouldHedgeRetryPerTryTimeout`).
    pub(super) fn replace(&mut self) -> Option<Duration> {
        self.unit = None;
        if !self.wanted.asked || !self.replay.is_possible() {
            return None;
        }
        self.another::<()>(None)
    }

    /// How long to wait before another attempt, which an answer may say, if there are any left.
    fn another<R>(&mut self, answer: Option<&Response<R>>) -> Option<Duration> {
        if self.made == self.wanted.retries {
            self.count(ClusterStat::RqRetryLimitExceeded);
            self.flags = self.flags.with(Flags::URX);
            return None;
        }
        let Ok(unit) = self.take_unit() else {
            self.count(ClusterStat::RqRetryOverflow);
            self.flags = self.flags.with(Flags::UO);
            return None;
        };
        self.unit = unit;
        self.count(ClusterStat::RqRetry);
        if let (Some(response), Some(exchange)) = (answer, &self.exchange)
            && let Some(cluster) = exchange.cluster()
        {
            let stats = cluster.live().stats();
            stats.retried(exchange.shard(), response.status());
        }
        let policy = &self.policy;
        let told = answer.and_then(|response| {
            let clock = &self.settings.clock;
            reset::wait(policy, response.headers(), clock)
        });
        if let Some(told) = told {
            self.made += 1;
            self.count(ClusterStat::RqRetryBackoffRateLimited);
            return Some(reset::jittered(told, self.settings.rng.word()));
        }
        self.count(ClusterStat::RqRetryBackoff);
        let window = backoff::window(policy.backoff_base, policy.backoff_max, self.made);
        self.made += 1;
        Some(backoff::pause(window, self.settings.rng.word()))
    }

    /// Lets attempts read the body beside one another.
    pub(super) fn overlap(&self) {
        self.replay.overlap();
    }

    /// The request of the next attempt.
    pub(super) fn next(&mut self) -> Request<ReplayBody<B>> {
        self.rest(false);
        let mut request = Request::from_parts(self.head.restore(), self.replay.next());
        if let Some(exchange) = &self.exchange {
            let attempt = exchange.for_attempt();
            attempt.attach(&mut request);
            self.attempt = Some(attempt);
        }
        if self.numbered {
            // The first attempt was number one.
            let number = HeaderValue::from(self.made.saturating_add(1));
            request.headers_mut().insert(ATTEMPT_COUNT, number);
        }
        // Written by the deadline layer, when the request still had all of its time.
        if self.settings.policy.is_none() && request.headers().contains_key(EXPECTED) {
            let limits = Limits::of(&request);
            limits.write(self.elapsed(), request.headers_mut());
        }
        request
    }

    /// The time since the request came in whole; nothing while it still comes.
    fn elapsed(&self) -> Duration {
        match self.replay.ended() {
            Some(ended) => ended.elapsed(),
            None if self.replay.has_body() => Duration::ZERO,
            None => self.started.elapsed(),
        }
    }
}

/// Whether an attempt itself ended so, and not what is around it.
fn is_of_an_attempt(error: &Error) -> bool {
    let failure = error.failure();
    failure.row().reset.is_some()
        || matches!(failure, Failure::TryTimeout | Failure::TryIdleTimeout)
}

// === impl LateNotes ===

impl LateNotes {
    pub(super) fn new(request: Exchange, attempt: Exchange) -> Self {
        Self { request, attempt }
    }
}

impl Drop for LateNotes {
    fn drop(&mut self) {
        // A timeout has noted itself before it dropped the body; what the drop looks like to
        // those below is not what happened.
        if self.request.timed_out() {
            return;
        }
        self.request.flag(self.attempt.flags());
        let theirs = self.attempt.with_notes(Clone::clone);
        self.request.with_notes_mut(|ours| {
            if ours.failure.is_none() && theirs.failure.is_some() {
                ours.failure = theirs.failure;
                ours.details = theirs.details;
                ours.transport_failure = theirs.transport_failure;
            }
            ours.grpc_status = ours.grpc_status.or(theirs.grpc_status);
        });
    }
}
