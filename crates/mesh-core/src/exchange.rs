//! What one request knows about itself: the single extension that the mesh puts on a request.
//!
//! The router writes what it matched; every layer below reads its own policy from there and steps
//! aside when it has none. A layer that finds no exchange at all behaves as if there were no
//! policy, so each works alone.
//!
//! What belongs to the request (route, caller, hosts tried) is shared by all of its attempts.
//! What an attempt learns (host, timings, flags) is its own: attempts may overlap, and only the
//! winner's is copied up by [`Exchange::adopt`].

mod attempt;
mod caller;
mod foreseen;
mod head;
mod matched;
mod onward;
mod pace;
mod reply_edit;
mod signal;
mod wish;

pub use attempt::{AttemptNotes, HostId, Upstream};
pub use caller::{Caller, PeerCertificate, Resets, TlsInfo};
pub use head::{Head, Watch};
pub use matched::{Matched, Pinned};
pub use onward::Onward;
pub use reply_edit::{PutReply, ReplyEdit};
pub use signal::Signal;
pub use wish::SessionHost;

use crate::model::{ClusterEntry, FilterState, Priority, Rule};
use crate::stats::Shard;
use crate::{Claims, Error, Failure, Flags};
use attempt::Attempt;
use http::{HeaderName, HeaderValue, Request};
use parking_lot::{Mutex, MutexGuard};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Instant;

/// One request's record. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Exchange {
    request: Arc<State>,
    /// This attempt's own record; none for the first.
    attempt: Option<Arc<Attempt>>,
}

struct State {
    started: Instant,
    /// None where nothing is known of it.
    caller: Option<Arc<Caller>>,
    /// The caller's address, where it is not the one of the connection.
    remote: OnceLock<SocketAddr>,
    /// What the caller's token says, where one was found valid.
    claims: OnceLock<Claims>,
    /// What the listener kept of the request; mostly nothing.
    filter_state: OnceLock<Box<FilterState>>,
    /// What is wanted of the head in the end; mostly nothing.
    watch: OnceLock<Arc<Watch>>,
    goal: OnceLock<Goal>,
    first: Attempt,
    /// A copy of another request (a mirror's).
    shadow: bool,
    /// A redirect led here.
    onward: bool,
    timed_out: AtomicBool,
    /// A redirect was followed: nobody gets the answer.
    gone_on: AtomicBool,
    /// Its attempts may overlap; see [`Exchange::set_hedged`].
    hedged: AtomicBool,
    /// Somebody counts the answer for the cluster.
    counted: AtomicBool,
    /// No attempt is under way; see [`Exchange::set_between_attempts`].
    between: AtomicBool,
    attempts: AtomicU32,
    received: AtomicU64,
    sent: AtomicU64,
    request_end: Signal,
    /// It ended because all of it was there.
    whole: AtomicBool,
    hash: OnceLock<u64>,
    session: OnceLock<Box<SessionHost>>,
    /// An answer told the load of its endpoint.
    load_reported: AtomicBool,
    shared: Mutex<Shared>,
}

/// Where it goes.
enum Goal {
    Route(Matched),
    /// Without a route: a connection that is passed on as it is.
    Cluster(Arc<ClusterEntry>),
}

/// What changes rarely and is behind a lock that nobody else wants.
#[derive(Default)]
struct Shared {
    /// The first host, which for most requests is the only one, costs no allocation.
    first_tried: Option<HostId>,
    tried_after: Vec<HostId>,
    /// The record of the attempt that began last, from the second on.
    latest: Option<Arc<Attempt>>,
    /// Attempts that had no connection.
    unreached: u32,
    reply_headers: Vec<(HeaderName, HeaderValue)>,
    reply_edits: Vec<ReplyEdit>,
    request_id: Option<HeaderValue>,
    /// Boxed: most requests have none.
    head: Option<Box<Head>>,
    /// Redirects that were followed; none for most.
    past: Option<Box<onward::Past>>,
    onward: Option<Box<Onward>>,
    /// How slowly the answer is passed on; none for most.
    pace: Option<Box<pace::Slow>>,
    /// The route before the router found it; most requests are not asked for it.
    foreseen: Option<Box<foreseen::Foreseen>>,
    /// The endpoints that headers name; for most clusters nobody looks.
    named: Option<Box<wish::Named>>,
}

/// Of whom nothing is known.
static UNKNOWN: LazyLock<Caller> = LazyLock::new(Caller::default);

// === impl Exchange ===

impl Exchange {
    /// The record of a request that arrived at `now`. Requests of one connection share their caller.
    pub fn new(now: Instant, caller: impl Into<Arc<Caller>>) -> Self {
        Self::make(now, Some(caller.into()), false)
    }

    /// The record of a request that no connection brought and that arrived at `now`: its caller is
    /// the default one.
    pub fn without_caller(now: Instant) -> Self {
        Self::make(now, None, false)
    }

    fn make(now: Instant, caller: Option<Arc<Caller>>, shadow: bool) -> Self {
        let state = State {
            started: now,
            caller,
            remote: OnceLock::new(),
            claims: OnceLock::new(),
            filter_state: OnceLock::new(),
            watch: OnceLock::new(),
            shadow,
            onward: false,
            timed_out: AtomicBool::new(false),
            gone_on: AtomicBool::new(false),
            hedged: AtomicBool::new(false),
            counted: AtomicBool::new(false),
            between: AtomicBool::new(false),
            goal: OnceLock::new(),
            first: Attempt::default(),
            attempts: AtomicU32::new(1),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            request_end: Signal::default(),
            whole: AtomicBool::new(false),
            hash: OnceLock::new(),
            session: OnceLock::new(),
            load_reported: AtomicBool::new(false),
            shared: Mutex::default(),
        };
        Self {
            request: Arc::new(state),
            attempt: None,
        }
    }

    /// The exchange on a request, if it has one.
    #[inline]
    pub fn of<B>(request: &Request<B>) -> Option<&Self> {
        request.extensions().get()
    }

    /// Puts this exchange on a request.
    #[inline]
    pub fn attach<B>(&self, request: &mut Request<B>) {
        request.extensions_mut().insert(self.clone());
    }

    /// The record for one more attempt at the same request.
    #[must_use]
    pub fn for_attempt(&self) -> Self {
        self.request.attempts.fetch_add(1, Ordering::Relaxed);
        let attempt = Arc::<Attempt>::default();
        self.shared().latest = Some(attempt.clone());
        Self {
            request: self.request.clone(),
            attempt: Some(attempt),
        }
    }

    /// Makes the endpoint of the attempt that began last the request's, and why it could not be
    /// reached, if so: whoever gives up on all attempts at once does not know of it.
    pub fn adopt_latest_upstream(&self) {
        let Some(latest) = self.shared().latest.clone() else {
            return;
        };
        let theirs = latest.notes();
        let (upstream, failure) = (theirs.upstream.clone(), theirs.transport_failure.clone());
        drop(theirs);
        if upstream.is_some() {
            self.with_notes_mut(|notes| {
                notes.upstream = upstream;
                notes.transport_failure = failure;
            });
        }
    }

    /// Notes that an attempt had no connection to the endpoint that was chosen for it.
    pub fn note_unreached(&self) {
        let mut shared = self.shared();
        shared.unreached = shared.unreached.saturating_add(1);
    }

    /// How many attempts had no connection.
    pub fn unreached(&self) -> u32 {
        self.shared().unreached
    }

    /// The record for a copy of the request that goes its own way (a mirror) to the cluster in
    /// `matched`: same caller and rule, nothing learned is shared.
    #[must_use]
    pub fn for_shadow(&self, matched: Matched) -> Self {
        let shadow = Self::make(self.request.started, self.request.caller.clone(), true);
        if let Some(claims) = self.claims() {
            shadow.set_claims(claims.clone());
        }
        shadow.set_matched(matched);
        shadow
    }

    /// Whether this is a mirror's copy: it gets no retries, no mirrors and no access log.
    #[inline]
    pub fn is_shadow(&self) -> bool {
        self.request.shadow
    }

    /// Notes that a timeout is about to drop this request's attempts. Set before they are
    /// dropped, so that whoever sees the drop can tell a timeout from a caller that went away.
    pub fn set_timed_out(&self) {
        self.request.timed_out.store(true, Ordering::Relaxed);
    }

    /// Whether a timeout dropped this request's attempts.
    #[inline]
    pub fn timed_out(&self) -> bool {
        self.request.timed_out.load(Ordering::Relaxed)
    }

    /// Notes that attempts may overlap: one that is late goes on beside the next, and the limit of
    /// each is watched by whoever makes them (Envoy `hedge_on_per_try_timeout`).
    pub fn set_hedged(&self) {
        self.request.hedged.store(true, Ordering::Relaxed);
    }

    /// Whether attempts may overlap.
    pub fn is_hedged(&self) -> bool {
        self.request.hedged.load(Ordering::Relaxed)
    }

    /// Notes that this attempt met its limit and goes on all the same.
    pub fn set_late(&self) {
        self.own().set_late();
    }

    /// Whether this attempt met its limit and goes on all the same.
    pub fn is_late(&self) -> bool {
        self.own().is_late()
    }

    /// Notes that the answer is counted for the cluster, once for all attempts.
    #[inline]
    pub fn set_answer_is_counted(&self) {
        self.request.counted.store(true, Ordering::Relaxed);
    }

    /// Whether the answer is counted for the cluster, so that whoever sends an attempt does not
    /// count how that one was answered.
    #[inline]
    pub fn answer_is_counted(&self) -> bool {
        self.request.counted.load(Ordering::Relaxed)
    }

    /// Notes whether the last attempt is over and the next has not begun. A limit that is met
    /// meanwhile counts for no upstream, as in Envoy, where attempts count it
    /// (`Filter::onResponseTimeout`).
    pub fn set_between_attempts(&self, between: bool) {
        self.request.between.store(between, Ordering::Relaxed);
    }

    /// Whether the last attempt is over and the next has not begun.
    #[inline]
    pub fn is_between_attempts(&self) -> bool {
        self.request.between.load(Ordering::Relaxed)
    }

    /// Makes what `winner` learned what the request learned.
    pub fn adopt(&self, winner: &Self) {
        if !std::ptr::eq(self.own(), winner.own()) {
            self.own().copy_from(winner.own());
        }
    }

    #[inline]
    fn own(&self) -> &Attempt {
        self.attempt.as_deref().unwrap_or(&self.request.first)
    }

    #[inline]
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.request.shared.lock()
    }

    /// When the request arrived.
    #[inline]
    pub fn started(&self) -> Instant {
        self.request.started
    }

    /// Who called, and through which listener.
    #[inline]
    pub fn caller(&self) -> &Caller {
        match &self.request.caller {
            Some(caller) => caller,
            None => &UNKNOWN,
        }
    }

    /// The worker that handles the request.
    #[inline]
    pub fn shard(&self) -> Shard {
        self.caller().shard
    }

    /// Records what the caller's token says, for routes that go by it. Only the first call counts.
    pub fn set_claims(&self, claims: Claims) {
        // A second look at the same request would find the same.
        let _ = self.request.claims.set(claims);
    }

    /// What the caller's token says, if a valid one was brought and routes may go by it.
    pub fn claims(&self) -> Option<&Claims> {
        self.request.claims.get()
    }

    /// Records what the listener kept of the request. Only the first call counts.
    pub fn set_filter_state(&self, state: FilterState) {
        let _ = self.request.filter_state.set(Box::new(state));
    }

    /// What the listener kept of the request, if it is one that does.
    pub fn filter_state(&self) -> Option<&FilterState> {
        self.request.filter_state.get().map(|state| &**state)
    }

    /// Records what the router found. Only the first call counts.
    #[inline]
    pub fn set_matched(&self, matched: Matched) {
        // A second router below the first would be a mistake of composition; the first decides.
        let _ = self.request.goal.set(Goal::Route(matched));
    }

    /// Records where a connection goes that has no route. Only the first call counts.
    pub fn set_cluster(&self, cluster: Arc<ClusterEntry>) {
        let _ = self.request.goal.set(Goal::Cluster(cluster));
    }

    /// What the router found.
    #[inline]
    pub fn matched(&self) -> Option<&Matched> {
        match self.request.goal.get()? {
            Goal::Route(matched) => Some(matched),
            Goal::Cluster(_) => None,
        }
    }

    /// The rule that the router found.
    #[inline]
    pub fn rule(&self) -> Option<&Arc<Rule>> {
        self.matched().map(Matched::rule)
    }

    /// The cluster that the request goes to.
    #[inline]
    pub fn cluster(&self) -> Option<&Arc<ClusterEntry>> {
        match self.request.goal.get()? {
            Goal::Route(matched) => matched.cluster(),
            Goal::Cluster(cluster) => Some(cluster),
        }
    }

    /// Whose limits and connections the request uses: its rule's. A copy is an ordinary request,
    /// as in Envoy, and so is a connection without a rule.
    #[inline]
    pub fn priority(&self) -> Priority {
        match self.matched().and_then(Matched::forward) {
            Some(forward) if !self.is_shadow() => forward.priority,
            _ => Priority::Default,
        }
    }

    /// How many attempts were begun, the first included.
    #[inline]
    pub fn attempts(&self) -> u32 {
        self.request.attempts.load(Ordering::Relaxed)
    }

    /// How many attempts were begun as far as anyone is told: zero for what never came as far as
    /// to its cluster, and for what discovery wanted dropped, which is before there is an attempt
    /// (Envoy `attemptCount`).
    pub fn attempts_told(&self, notes: &AttemptNotes) -> u32 {
        let dropped = matches!(
            notes.failure,
            Some(Failure::DropOverload | Failure::UnconditionalDrop)
        );
        let reached = notes.upstream.is_some() || self.answer_is_counted();
        match reached && !dropped {
            true => self.attempts(),
            false => 0,
        }
    }

    /// Notes that a host was chosen for an attempt.
    pub fn note_tried(&self, host: HostId) {
        let mut shared = self.shared();
        match shared.first_tried {
            None => shared.first_tried = Some(host),
            Some(_) => shared.tried_after.push(host),
        }
    }

    /// Whether a host was chosen for an earlier attempt.
    #[inline]
    pub fn was_tried(&self, host: HostId) -> bool {
        let shared = self.shared();
        shared.first_tried == Some(host) || shared.tried_after.contains(&host)
    }

    /// The hosts chosen so far.
    pub fn tried(&self) -> Vec<HostId> {
        let shared = self.shared();
        let first = shared.first_tried.into_iter();
        first.chain(shared.tried_after.iter().copied()).collect()
    }

    /// Sets response flags.
    #[inline]
    pub fn flag(&self, flags: Flags) {
        self.own().flag(flags);
    }

    /// Sets response flags that came before those that are known already.
    pub fn flag_first(&self, flags: Flags) {
        self.own().flag_first(flags);
    }

    /// The response flags of this attempt (and, on the request's own exchange, of the winner).
    #[inline]
    pub fn flags(&self) -> Flags {
        self.own().flags()
    }

    /// Records an error's flags and details.
    pub fn note_error(&self, error: &Error) {
        self.own().note_error(error);
    }

    /// Replaces the response code details.
    pub fn set_details(&self, details: impl Into<std::borrow::Cow<'static, str>>) {
        self.own().notes().details = Some(details.into());
    }

    /// Whether the attempt went to a canary, as far as is known.
    pub fn went_to_canary(&self) -> bool {
        let canary = |upstream: &Upstream| upstream.endpoint.is_canary();
        self.own().notes().upstream.as_ref().is_some_and(canary)
    }

    /// Records the upstream that the attempt goes to.
    pub fn set_upstream(&self, upstream: Upstream) {
        self.own().notes().upstream = Some(upstream);
    }

    /// Reads what the attempt learned so far.
    #[inline]
    pub fn with_notes<R>(&self, read: impl FnOnce(&AttemptNotes) -> R) -> R {
        read(&self.own().notes())
    }

    /// Changes what the attempt learned so far.
    #[inline]
    pub fn with_notes_mut<R>(&self, change: impl FnOnce(&mut AttemptNotes) -> R) -> R {
        change(&mut self.own().notes())
    }

    /// A header that goes on the response whoever makes it (CORS on local replies, say).
    pub fn add_reply_header(&self, name: HeaderName, value: HeaderValue) {
        self.shared().reply_headers.push((name, value));
    }

    /// The headers recorded by [`Exchange::add_reply_header`], which are taken out.
    pub fn take_reply_headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        std::mem::take(&mut self.shared().reply_headers)
    }

    /// A change of the response's headers, whoever makes it, after those of
    /// [`Exchange::add_reply_header`].
    pub fn edit_reply(&self, edit: ReplyEdit) {
        self.shared().reply_edits.push(edit);
    }

    /// The changes recorded by [`Exchange::edit_reply`], which are taken out.
    pub fn take_reply_edits(&self) -> Vec<ReplyEdit> {
        std::mem::take(&mut self.shared().reply_edits)
    }

    /// Whether anything is recorded by [`Exchange::edit_reply`].
    pub fn edits_reply(&self) -> bool {
        !self.shared().reply_edits.is_empty()
    }

    /// Records the request id.
    pub fn set_request_id(&self, id: HeaderValue) {
        self.shared().request_id = Some(id);
    }

    /// The request id, if there is one.
    pub fn request_id(&self) -> Option<HeaderValue> {
        self.shared().request_id.clone()
    }

    /// Records what consistent hashing goes by. The first time counts.
    pub fn set_hash(&self, hash: u64) {
        // A second hash is not an error: attempts share one.
        let _ = self.request.hash.set(hash);
    }

    /// What consistent hashing goes by, if there is anything.
    #[inline]
    pub fn hash(&self) -> Option<u64> {
        self.request.hash.get().copied()
    }

    /// Counts bytes of the request's body.
    #[inline]
    pub fn count_received(&self, bytes: u64) {
        self.request.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of the request's body so far.
    #[inline]
    pub fn received(&self) -> u64 {
        self.request.received.load(Ordering::Relaxed)
    }

    /// Counts bytes of the response's body.
    #[inline]
    pub fn count_sent(&self, bytes: u64) {
        self.request.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of the response's body so far.
    #[inline]
    pub fn sent(&self) -> u64 {
        self.request.sent.load(Ordering::Relaxed)
    }

    /// Notes that the request's last byte was read, before [`Exchange::request_end`] is set.
    #[inline]
    pub fn set_request_is_whole(&self) {
        self.request.whole.store(true, Ordering::Relaxed);
    }

    /// Whether the request's last byte was read. One whose body was dropped, or broke off, has
    /// ended without that.
    #[inline]
    pub fn request_is_whole(&self) -> bool {
        self.request.whole.load(Ordering::Relaxed)
    }

    /// Set when the request has arrived whole. Timeouts that count from there wait for it.
    #[inline]
    pub fn request_end(&self) -> &Signal {
        &self.request.request_end
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("rule", &self.rule().map(|rule| &rule.name))
            .field("attempts", &self.attempts())
            .field("flags", &self.flags())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
