//! The client's side of the protocol, without I/O: what to send, what to hand on, when to wake.
//!
//! ```text
//!  opened ─► requests ══► server ══► receive ─► Event::Update ─► (the caller applies it)
//!     ▲                                                               │ settle, handed_over
//!     └── closed, back-off ◄── anything goes wrong      ACK or NACK ◄─┘
//! ```
//!
//! Two phases: an update is handed on with a ticket, the caller says of each resource what became
//! of it ([`Machine::settle`]), and only then the response is acknowledged, or refused with the
//! reason for each resource that was refused. What was refused is not noted as known, so that a
//! new stream asks for it again.
//!
//! One machine speaks to one server at a time, over one aggregated stream, in either variant. A
//! response is refused as a whole if it is of a type that was not asked for, names a resource
//! twice, or exceeds a [bound](Limits). Resources that were not asked for are passed over.

mod answer;
mod demand;
mod moves;
mod named;
mod receive;
mod record;
mod request;
mod ticket;
mod wants;

pub use record::{KindStatus, ResourceState, ResourceStatus};

use crate::client::backoff::Backoff;
use crate::pb::envoy::service::discovery::v3 as discovery;
use crate::read::Resource;
use crate::{Node, TypeUrl};
use answer::Answer;
use mesh_core::{Invalid, Name};
use record::Kind;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ticket::Ticket;

/// Reads a resource of a type from its bytes.
pub(crate) type Decode<R> = Arc<dyn Fn(TypeUrl, &[u8]) -> Result<R, Invalid> + Send + Sync>;

/// Which of the two variants of the protocol is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Variant {
    /// Only what changed (`DeltaAggregatedResources`).
    #[default]
    Delta,
    /// The state of the world (`StreamAggregatedResources`).
    Sotw,
}

/// How a [`Machine`] behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Who we are. Sent with the first request of a stream only.
    pub node: Node,
    /// Default delta.
    pub variant: Variant,
    /// State of the world: a resource that was asked for by name and did not come after this long
    /// does not exist. Default 15 s (gRPC). None never decides.
    pub missing_after: Option<Duration>,
    /// Keep listeners and clusters that the server removes (gRFC A53). Default no.
    pub ignore_resource_deletion: bool,
    /// Waits between attempts to connect: first and largest window. Default 500 ms and 30 s; the
    /// wait is drawn evenly from the window.
    pub backoff: (Duration, Duration),
    /// Keep the bytes of listeners, clusters and routes. Default no.
    pub keep_bodies: bool,
    /// What a server may make us keep.
    pub limits: Limits,
}

/// Bounds on what a server may make a client keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of one message. Default 64 MiB. Enforced where messages are decoded.
    pub message: usize,
    /// Resources of one type, those in one response included. Default 100,000.
    pub resources: usize,
    /// Bytes of a resource's name. Default 4096.
    pub name: usize,
    /// Responses of one type that wait for their verdict; beyond it nothing more is read. Default
    /// 64.
    pub unanswered: usize,
}

/// A message to a server.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// For the delta variant.
    Delta(Box<discovery::DeltaDiscoveryRequest>),
    /// For the state-of-the-world variant.
    Sotw(Box<discovery::DiscoveryRequest>),
}

/// A message from a server.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// In the delta variant.
    Delta(Box<discovery::DeltaDiscoveryResponse>),
    /// In the state-of-the-world variant.
    Sotw(Box<discovery::DiscoveryResponse>),
}

/// What the caller has to act on.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<R> {
    /// Resources came or went. To be applied as one, then answered for.
    Update(Update<R>),
    /// A resource that was asked for by name does not exist, as far as one can tell: its time is
    /// up. It may still come.
    Missing(TypeUrl, Name),
    /// A resource that was asked for on demand ([`Machine::ask`]) does not exist, or what came of it
    /// was refused.
    Absent(TypeUrl, Name),
    /// A response with this type URL was refused as a whole, and why.
    Refused(String, String),
}

/// Resources that came or went.
#[derive(Clone, Debug, PartialEq)]
pub struct Update<R> {
    /// To be given to [`Machine::settle`] for each resource, and to [`Machine::handed_over`].
    pub ticket: u64,
    /// Their type.
    pub kind: TypeUrl,
    /// What came or changed. What could not be read is not among them; it is refused already.
    pub resources: Vec<(Name, R)>,
    /// VHDS: virtual hosts that came, each with one whose place it takes if it is accepted: all that
    /// led there leads to it then. If it is refused, the other one stays.
    pub instead: Vec<(Name, Name)>,
    /// What went, or does not exist.
    pub removed: Vec<Name>,
}

/// The client's side of the protocol, for one control plane.
pub struct Machine<R = Resource> {
    config: Config,
    decode: Decode<R>,
    kinds: BTreeMap<TypeUrl, Kind>,
    stream: Option<Stream>,
    backoff: Backoff,
    retry_at: Option<Instant>,
    requests: VecDeque<Answer>,
    events: VecDeque<Event<R>>,
    tickets: HashMap<u64, Ticket>,
    next_ticket: u64,
    timers: BTreeSet<(Instant, TypeUrl, Name, Timer)>,
}

/// The stream that is open.
#[derive(Debug)]
struct Stream {
    /// The node was sent.
    introduced: bool,
    /// Something came.
    answered: bool,
    server: Name,
}

/// What happens to a resource when its time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// It does not exist.
    Missing,
    /// Its TTL has passed.
    Expired,
}

// === impl Config ===

impl Config {
    /// The defaults, for this node.
    pub fn new(node: Node) -> Self {
        Self {
            node,
            variant: Variant::Delta,
            missing_after: Some(Duration::from_secs(15)),
            ignore_resource_deletion: false,
            backoff: (Duration::from_millis(500), Duration::from_secs(30)),
            keep_bodies: false,
            limits: Limits::default(),
        }
    }
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: 64 << 20,
            resources: 100_000,
            name: 4096,
            unanswered: 64,
        }
    }
}

// === impl Machine ===

impl<R: fmt::Debug> fmt::Debug for Machine<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("config", &self.config)
            .field("kinds", &self.kinds)
            .field("stream", &self.stream)
            .field("retry_at", &self.retry_at)
            .field("events", &self.events)
            .finish_non_exhaustive()
    }
}

impl<R> Machine<R> {
    /// A machine that is not connected and asks for nothing yet. Resources are read by `decode`, for
    /// example [`Reader::resource`](crate::read::Reader::resource).
    pub fn new(
        config: Config,
        decode: impl Fn(TypeUrl, &[u8]) -> Result<R, Invalid> + Send + Sync + 'static,
    ) -> Self {
        Self::reading(config, Arc::new(decode))
    }

    pub(crate) fn reading(config: Config, decode: Decode<R>) -> Self {
        let (first, most) = config.backoff;
        Self {
            config,
            decode,
            kinds: BTreeMap::new(),
            stream: None,
            backoff: Backoff::new(first, most),
            retry_at: None,
            requests: VecDeque::new(),
            events: VecDeque::new(),
            tickets: HashMap::new(),
            next_ticket: 1,
            timers: BTreeSet::new(),
        }
    }

    /// How it behaves.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A stream to this server is open.
    pub fn opened(&mut self, server: &str) {
        self.closed_stream();
        self.retry_at = None;
        self.stream = Some(Stream {
            introduced: false,
            answered: false,
            server: server.into(),
        });
    }

    /// The stream is gone, or could not be opened. Returns when to try again; `word` is random.
    pub fn closed(&mut self, now: Instant, word: u64) -> Instant {
        self.closed_stream();
        let at = now + self.backoff.next(word);
        self.retry_at = Some(at);
        at
    }

    /// Whether a stream is open.
    pub fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether something came on the stream that is open.
    pub fn is_answered(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.answered)
    }

    /// Whether another response may be read: not while too many wait for their verdicts.
    pub fn may_receive(&self) -> bool {
        let most = self.config.limits.unanswered;
        self.kinds.values().all(|kind| kind.unanswered.len() < most)
    }

    /// What has to be acted on, in order.
    pub fn poll_event(&mut self) -> Option<Event<R>> {
        self.events.pop_front()
    }

    /// When [`Machine::tick`] has to be called if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, ..)| *at)
    }

    /// When to connect again, after a stream was [closed](Machine::closed).
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Acts on what is due.
    pub fn tick(&mut self, now: Instant) {
        while self.timers.first().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, kind, name, timer)) = self.timers.pop_first() else {
                return;
            };
            match timer {
                Timer::Missing => self.is_missing(kind, name),
                Timer::Expired => self.is_expired(kind, name),
            }
        }
    }

    /// What is known of a type.
    pub fn status(&self, kind: TypeUrl) -> KindStatus {
        self.kinds
            .get(&kind)
            .map(|kind| kind.status.clone())
            .unwrap_or_default()
    }

    /// What is known of each type that was asked for.
    pub fn kinds(&self) -> impl Iterator<Item = (TypeUrl, KindStatus)> {
        let status = |(kind, all): (&TypeUrl, &Kind)| (*kind, all.status.clone());
        self.kinds.iter().map(status)
    }

    /// What is known of each resource of a type.
    pub fn resources(&self, kind: TypeUrl) -> impl Iterator<Item = ResourceStatus> {
        let kind = self.kinds.get(&kind);
        kind.into_iter().flat_map(Kind::resources)
    }

    /// Whether everything that was asked for by name, and an answer to each wildcard, is there
    /// (gRFC A71: a client falls back to another server only while it is not).
    pub fn has_everything(&self) -> bool {
        self.kinds.values().all(Kind::has_everything)
    }

    /// The stream is gone, and another attempt may be made at once.
    pub fn stream_ended(&mut self) {
        self.closed_stream();
    }

    fn closed_stream(&mut self) {
        self.stream = None;
        self.requests.clear();
        // Nobody can tell whether something is missing who is not asked.
        let missing = |timer: &(_, _, _, Timer)| timer.3 == Timer::Missing;
        self.timers.retain(|timer| !missing(timer));
        for kind in self.kinds.values_mut() {
            kind.stream_closed();
        }
    }
}
