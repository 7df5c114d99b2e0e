//! One attempt at one host, from the choice to the end of the response body.

use crate::host::Ending;
use crate::outlier::judged_status;
use crate::report::LoadReport;
use crate::{ClusterHosts, Host, Outcome};
use http::{HeaderMap, Response, StatusCode};
use mesh_core::model::{ClusterEntry, Snapshot};
use mesh_core::stats::{Block, ClusterStat};
use mesh_core::{Error, Exchange, Failure, Shard};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// On an answer it says that the host fails its health checks from now on (Envoy's router).
const IMMEDIATE_FAIL: &str = "x-envoy-immediate-health-check-fail";

/// Whose request it is, and where the cluster is kept alive meanwhile.
pub(crate) enum Owner {
    /// A route's: the cluster is that of the exchange, which has one.
    Route(Exchange),
    /// That of a [`Balance`](crate::Balance); the request may have an exchange besides.
    Fixed(Arc<ClusterEntry>, Option<Exchange>),
}

/// A request under way at a host: held by the response body until it ends.
pub struct Active {
    owner: Owner,
    host: Arc<Host>,
    /// Trailers may tell the load of the host, because its head did not.
    load: bool,
}

/// An attempt that has no response head yet. Dropped without one, it was given up.
pub(crate) struct Flight {
    active: Option<Active>,
    started: Instant,
    grpc: bool,
    /// The host's service counts it when it is sent.
    counted: bool,
    /// It is known that it met its limit.
    late: bool,
}

// === impl Owner ===

impl Owner {
    pub(crate) fn cluster(&self) -> &Arc<ClusterEntry> {
        match self {
            Self::Route(exchange) => exchange
                .cluster()
                .expect("an exchange is dispatched only when it has a cluster"),
            Self::Fixed(entry, _) => entry,
        }
    }

    pub(crate) fn exchange(&self) -> Option<&Exchange> {
        match self {
            Self::Route(exchange) => Some(exchange),
            Self::Fixed(_, exchange) => exchange.as_ref(),
        }
    }

    /// The snapshot that the cluster belongs to.
    pub(crate) fn snapshot(&self) -> Option<&Snapshot> {
        match self {
            Self::Route(exchange) => exchange.matched().map(|matched| &**matched.snapshot()),
            Self::Fixed(..) => None,
        }
    }

    /// Counts how an attempt was answered, unless somebody above counts what comes of all of them.
    pub(crate) fn answered(&self, status: StatusCode) {
        if !self.exchange().is_some_and(Exchange::answer_is_counted) {
            self.cluster().live().stats().answered(self.shard(), status);
        }
    }

    pub(crate) fn shard(&self) -> Shard {
        self.exchange().map_or_else(Shard::default, Exchange::shard)
    }
}

// === impl Flight ===

impl Flight {
    /// Counts the request with its cluster and its host; unless it is `counted`, as one more.
    pub(crate) fn begin(owner: Owner, host: Arc<Host>, grpc: bool, counted: bool) -> Self {
        host.request_begins();
        let active = Active {
            owner,
            host,
            load: false,
        };
        if !counted {
            active.host.sending();
            active.count(ClusterStat::RqTotal);
        }
        active.count(ClusterStat::RqActive);
        Self {
            active: Some(active),
            started: now(),
            grpc,
            counted,
            late: false,
        }
    }

    /// There is a response head. The returned value counts the request as active until it is
    /// dropped.
    pub(crate) fn answered<R>(&mut self, response: &Response<R>) -> Option<Active> {
        let mut active = self.active.take()?;
        let now = now();
        let status = response.status();
        let judged = judged_status(self.grpc, status, response.headers());
        active.completed(status);
        let took = now.saturating_duration_since(self.started);
        let times = active.entry().live().stats().request_time();
        times.record(active.owner.shard(), took.as_secs_f64() * 1000.0);
        active.host.count(match judged {
            500..600 => Ending::Error,
            _ => Ending::Success,
        });
        active.report(Outcome::Answered(judged), now);
        if !active.entry().config().health_checks.is_empty()
            && response.headers().contains_key(IMMEDIATE_FAIL)
        {
            ClusterHosts::of(active.entry()).fails(&active.host, now);
        }
        if active.entry().config().weighed_by_reports().is_some() {
            active.load = !active.take_load(response.headers(), now);
        }
        Some(active)
    }

    /// There is nothing yet. An attempt that is late and goes on all the same is a timeout to outlier
    /// detection, whatever comes of it (Envoy `Filter::onSoftPerTryTimeout`).
    pub(crate) fn goes_on(&mut self) {
        let Some(active) = self.active.as_ref().filter(|_| !self.late) else {
            return;
        };
        if active.owner.exchange().is_some_and(Exchange::is_late)
            && let Some(status) = Failure::TryTimeout.local_origin()
        {
            self.late = true;
            active.report(Outcome::Broken(status), now());
        }
    }

    /// The host's service failed.
    pub(crate) fn failed(&mut self, error: &Error) {
        let Some(active) = self.active.take() else {
            return;
        };
        let failure = error.failure();
        let without_connection = [
            Failure::ConnectFailed,
            Failure::ConnectTimeout,
            Failure::Overflow,
            Failure::NoHealthyHost,
        ];
        if without_connection.contains(&failure)
            && let Some(exchange) = active.owner.exchange()
        {
            exchange.note_unreached();
        }
        active.completed(failure.row().status);
        // An error that is not ours says no more than that the host's service failed: that of a
        // client that somebody else wrote, say.
        let status = failure
            .local_origin()
            .or_else(|| (failure == Failure::Internal).then_some(500));
        if let Some(status) = status {
            active.host.count(match status {
                504 => Ending::Timeout,
                _ => Ending::Error,
            });
            let outcome = match error.is_unsent() {
                true => Outcome::Local(status),
                false => Outcome::Broken(status),
            };
            active.report(outcome, now());
        }
    }

    /// Dropped without an answer: by a timeout above us, or because nobody wants it any more.
    fn given_up(active: &Active, counted: bool, late: bool) {
        if !active.owner.exchange().is_some_and(was_timed_out) {
            if !counted {
                active.count(ClusterStat::RqCancelled);
            }
            return;
        }
        active.completed(StatusCode::GATEWAY_TIMEOUT);
        active.host.count(Ending::Timeout);
        let timeout = Failure::TryTimeout.local_origin();
        if let Some(status) = timeout.filter(|_| !late) {
            active.report(Outcome::Broken(status), now());
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(active) = self.active.take() {
            Self::given_up(&active, self.counted, self.late);
        }
    }
}

/// Whether a limit of the request or of this attempt dropped it.
fn was_timed_out(exchange: &Exchange) -> bool {
    let limit = |failure| matches!(failure, Failure::TryTimeout | Failure::TryIdleTimeout);
    exchange.timed_out() || exchange.with_notes(|notes| notes.failure.is_some_and(limit))
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

// === impl Active ===

impl Active {
    /// The host that answers.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// The answer is whole.
    pub(super) fn ended_with(&mut self, trailers: &HeaderMap) {
        if std::mem::take(&mut self.load) {
            self.take_load(trailers, now());
        }
    }

    /// Takes up what the host says of its load, once for each request. False where it says nothing.
    fn take_load(&self, headers: &HeaderMap, now: Instant) -> bool {
        let exchange = self.owner.exchange();
        if exchange.is_some_and(Exchange::has_load_report) {
            return true;
        }
        let Some(report) = LoadReport::of(headers) else {
            return false;
        };
        if exchange.is_none_or(Exchange::note_load_report) {
            ClusterHosts::of(self.entry()).take_load(&self.host, &report, now);
        }
        true
    }

    fn entry(&self) -> &Arc<ClusterEntry> {
        self.owner.cluster()
    }

    fn stats(&self) -> &Block<ClusterStat> {
        self.entry().live().stats().block()
    }

    fn count(&self, stat: ClusterStat) {
        self.stats().inc(self.owner.shard(), stat);
    }

    /// As in Envoy, a failure counts with the status that it is answered with.
    fn completed(&self, status: StatusCode) {
        self.owner.answered(status);
    }

    fn report(&self, outcome: Outcome, now: Instant) {
        ClusterHosts::of(self.entry()).report(&self.host, outcome, now);
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.host.request_is_over();
        self.stats().dec(self.owner.shard(), ClusterStat::RqActive);
    }
}

impl fmt::Debug for Active {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Active").field(&self.host).finish()
    }
}
