//! What one worker keeps for itself, so that requests need not ask for it.

use super::routes::Seen;
use super::{Logs, Telemetry};
use crate::access_log::Entry;
use crate::istio::peer::Asked;
use crate::istio::{Cache, Reporter};
use http::HeaderValue;
use mesh_core::exchange::Watch;
use mesh_core::model::{Direction, HttpManager, TcpProxy};
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

/// One worker's shortcuts and spare parts.
#[derive(Default)]
pub(crate) struct Worker {
    listeners: Vec<(Weak<HttpManager>, Arc<Listener>)>,
    proxies: Vec<(Weak<TcpProxy>, Arc<Listener>)>,
    bare: Option<Arc<Listener>>,
    /// Boxed, because a request takes one along as it is.
    #[allow(clippy::vec_box)]
    spare: Vec<Box<Record>>,
    pub(crate) cache: Cache,
    pub(crate) routes: Seen,
    pub(crate) line: Vec<u8>,
}

/// What one worker knows of a listener.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) logs: Arc<Logs>,
    /// What the logs want of a head that changes. A worker's own, as it is counted for each request.
    pub(crate) watch: Option<Arc<Watch>>,
    pub(crate) reporter: Reporter,
}

/// What is kept of a request until its end. Used again and again.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) entry: Entry,
    pub(crate) listener: Option<Arc<Listener>>,
    /// The metadata header of the other side: the caller's, or the upstream's in its response.
    pub(crate) peer: Option<HeaderValue>,
    /// What the response has to say of us.
    pub(crate) asked: Asked,
    /// Microseconds from arrival to the request's end, plus one; 0 while it goes on.
    pub(crate) request_end: Option<Arc<AtomicU64>>,
    pub(crate) grpc: bool,
    /// No response to this request has a body (HEAD).
    pub(crate) bodyless: bool,
    /// How many bytes the response's body has, if that is known beforehand.
    pub(crate) expected: Option<u64>,
    /// The answer was counted for the rule, which has statistics.
    pub(crate) answered: bool,
}

/// How many records a worker keeps for later.
const MOST_SPARE: usize = 256;

// === impl Worker ===

impl Worker {
    /// What this worker knows of the listener with these settings.
    pub(crate) fn listener(
        &mut self,
        manager: Option<&Arc<HttpManager>>,
        telemetry: &Telemetry,
    ) -> Arc<Listener> {
        let Some(manager) = manager else {
            let make = || telemetry.listener(None);
            return self.bare.get_or_insert_with(make).clone();
        };
        by_settings(&mut self.listeners, manager, || {
            telemetry.listener(Some(manager))
        })
    }

    /// What this worker knows of the connections that are passed on by these settings.
    pub(crate) fn proxy(&mut self, proxy: &Arc<TcpProxy>, telemetry: &Telemetry) -> Arc<Listener> {
        by_settings(&mut self.proxies, proxy, || telemetry.proxy(proxy))
    }

    /// An empty record.
    pub(crate) fn record(&mut self) -> Box<Record> {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes a record back.
    pub(crate) fn give_back(&mut self, mut record: Box<Record>) {
        if self.spare.len() < MOST_SPARE {
            record.clear();
            self.spare.push(record);
        }
    }
}

fn by_settings<S>(
    known: &mut Vec<(Weak<S>, Arc<Listener>)>,
    settings: &Arc<S>,
    make: impl FnOnce() -> Arc<Listener>,
) -> Arc<Listener> {
    // The weak reference keeps the address from being used for anything else.
    let same = |(known, _): &&(Weak<S>, _)| known.as_ptr() == Arc::as_ptr(settings);
    if let Some((_, listener)) = known.iter().find(same) {
        return listener.clone();
    }
    known.retain(|(known, _)| known.strong_count() > 0);
    let listener = make();
    known.push((Arc::downgrade(settings), listener.clone()));
    listener
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

// === impl Listener ===

impl Listener {
    pub(super) fn new(logs: Arc<Logs>, direction: Direction) -> Self {
        let reporter = match direction {
            Direction::Inbound => Reporter::Destination,
            Direction::Outbound | Direction::Gateway => Reporter::Source,
        };
        let watch = logs.wanted().watch().map(Arc::new);
        Self {
            logs,
            watch,
            reporter,
        }
    }
}

// === impl Record ===

impl Record {
    fn clear(&mut self) {
        self.entry.clear();
        self.listener = None;
        self.peer = None;
        self.asked = Asked::default();
        self.request_end = None;
        self.grpc = false;
        self.bodyless = false;
        self.expected = None;
        self.answered = false;
    }
}
