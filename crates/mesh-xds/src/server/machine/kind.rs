//! What a stream knows of one type.

use super::gate::Gates;
use super::heartbeat::Heartbeats;
use super::queue::Queue;
use crate::server::mark::Mark;
use crate::{Encoded, TypeUrl};
use mesh_core::Name;
use std::collections::{HashMap, HashSet};
use std::time::Instant;

/// What a stream knows of one type.
pub(super) struct Kind {
    pub(super) kind: TypeUrl,
    pub(super) url: Name,
    pub(super) wildcard: bool,
    /// Whether a name was ever subscribed to: after that, an empty list is no wildcard.
    pub(super) was_named: bool,
    /// What is subscribed to by name, and what the client holds.
    pub(super) entries: HashMap<Name, Entry>,
    /// The glob collections among the names that are subscribed to.
    pub(super) globs: HashSet<Name>,
    /// How many entries are subscribed to by name.
    pub(super) named: usize,
    pub(super) pending: Pending,
    pub(super) in_flight: Option<InFlight>,
    pub(super) last_nonce: Option<Name>,
    /// Everything up to here was sent and answered, one way or the other.
    pub(super) answered: Mark,
    /// Everything up to here was sent and acknowledged.
    pub(super) settled: Mark,
    pub(super) rejected: HashMap<Name, Rejected>,
    /// Whether the last whole response was rejected and nothing in it was new: it left something
    /// out.
    pub(super) rejected_whole: bool,
    /// Whether it began with what the client says that it has, and that was not compared yet as
    /// a whole.
    pub(super) resumed: bool,
    /// Removals that have to wait.
    pub(super) gates: Gates,
    pub(super) heartbeats: Heartbeats,
    /// The sum of the hashes of what the client holds: `version_info`.
    pub(super) digest: Digest,
    /// The whole of the last response, where responses are whole: what a held-back removal leaves
    /// in the next one.
    pub(super) whole: Vec<Encoded>,
    pub(super) sent: Option<Stamp>,
    pub(super) acked: Option<Stamp>,
    pub(super) nacked: Option<(Stamp, Name)>,
}

/// A resource that is subscribed to by name, or that the client holds, or both.
#[derive(Default)]
pub(super) struct Entry {
    pub(super) named: bool,
    /// The version the client was sent.
    pub(super) sent: Option<Name>,
    /// VHDS: the resource that it was sent, if that has another name.
    pub(super) leads_to: Option<Name>,
}

/// What there may be to send.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) names: Queue,
    /// Compare everything.
    pub(super) everything: bool,
    /// Send a response even if it is empty.
    pub(super) answer: bool,
    /// When the first of it came up.
    pub(super) first: Option<Instant>,
    /// When the first change came up.
    pub(super) changed: Option<Instant>,
    /// Where the view was when the last of it came up.
    pub(super) mark: Mark,
}

/// Why a name is looked at. The later reason implies the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// It may have changed.
    Changed,
    /// The client waits to hear of it again, if it exists.
    Resend,
    /// The client asked: it gets it, or hears that there is none.
    Asked,
}

/// A response that is not answered yet.
pub(super) struct InFlight {
    pub(super) nonce: Name,
    pub(super) version: Name,
    pub(super) at: Instant,
    pub(super) changed: Option<Instant>,
    /// What is settled once it is acknowledged, if nothing else was pending.
    pub(super) covers: Option<Mark>,
    /// The resources in it that are new, with the version that the client had before.
    pub(super) items: Vec<(Name, Option<Name>)>,
}

/// A resource that the client rejected.
pub(super) struct Rejected {
    pub(super) message: Name,
    /// What it had accepted before.
    pub(super) before: Option<Name>,
}

/// A response that was sent or answered.
#[derive(Clone)]
pub(super) struct Stamp {
    pub(super) version: Name,
    pub(super) nonce: Name,
    pub(super) at: Instant,
}

/// A hash of a set of resources that does not depend on their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Digest(u128);

// === impl Kind ===

impl Kind {
    pub(super) fn new(kind: TypeUrl) -> Self {
        Self {
            kind,
            url: kind.url().into(),
            wildcard: false,
            was_named: false,
            entries: HashMap::new(),
            globs: HashSet::new(),
            named: 0,
            pending: Pending::default(),
            in_flight: None,
            last_nonce: None,
            answered: Mark::default(),
            settled: Mark::default(),
            rejected: HashMap::new(),
            rejected_whole: false,
            resumed: false,
            gates: Gates::default(),
            heartbeats: Heartbeats::default(),
            digest: Digest::default(),
            whole: Vec::new(),
            sent: None,
            acked: None,
            nacked: None,
        }
    }

    pub(super) fn has_pending(&self) -> bool {
        self.pending.everything || self.pending.answer || !self.pending.names.is_empty()
    }

    /// Whether the client wants to know of it.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.covers(name) || self.entries.get(name).is_some_and(|entry| entry.named)
    }

    /// There may be something to send about a name.
    pub(super) fn note(&mut self, name: Name, why: Why, mark: &Mark, changed: Option<Instant>) {
        if self.wants(&name) {
            self.pending.note(mark, changed);
            self.pending.names.push(name, why);
        }
    }

    /// There may be something to send about everything.
    pub(super) fn note_everything(&mut self, mark: &Mark, now: Instant) {
        self.pending.note(mark, Some(now));
        self.pending.everything = true;
    }

    /// Moves the marks on if there is nothing left to do up to the present one.
    pub(super) fn settle(&mut self, present: &Mark) {
        if self.has_pending() {
            return;
        }
        match &mut self.in_flight {
            Some(in_flight) => in_flight.covers = Some(present.clone()),
            None => self.advance(present),
        }
    }

    /// Everything up to here is answered.
    pub(super) fn advance(&mut self, to: &Mark) {
        self.answered = to.clone();
        if self.rejected.is_empty() && !self.rejected_whole {
            self.settled = to.clone();
        }
    }

    /// Sets what the client holds under a name.
    pub(super) fn hold(&mut self, name: &Name, version: Option<&Name>) -> Option<Name> {
        if version.is_none() {
            self.heartbeats.stop(name);
            self.rejected.remove(name);
        }
        let before = match self.entries.get_mut(name) {
            Some(entry) => std::mem::replace(&mut entry.sent, version.cloned()),
            None => None,
        };
        if let Some(before) = &before {
            self.digest.remove(name, before);
        }
        match version {
            Some(version) => {
                self.digest.add(name, version);
                if before.is_none() {
                    // The set's own copy of the name, shared by all its readers, instead of the
                    // client's.
                    let mut entry = self.entries.remove(name).unwrap_or_default();
                    entry.sent = Some(version.clone());
                    self.entries.insert(name.clone(), entry);
                }
            }
            None => {
                if self.entries.get(name).is_some_and(|entry| !entry.named) {
                    self.entries.remove(name);
                }
            }
        }
        before
    }

    /// The version that the client is known to have.
    pub(super) fn accepted(&self, name: &Name) -> Option<&Name> {
        match self.rejected.get(name) {
            Some(rejected) => rejected.before.as_ref(),
            None => self.entries.get(name)?.sent.as_ref(),
        }
    }

    /// Forgets what nobody subscribes to any more.
    pub(super) fn forget(&mut self, name: &Name) {
        self.hold(name, None);
        self.gates.release(name);
        self.pending.names.remove(name);
        self.entries.remove(name);
        self.tidy();
    }

    /// What comes up next has not waited since what nobody asks for any more came up.
    pub(super) fn tidy(&mut self) {
        if !self.has_pending() {
            self.pending = Pending::default();
        }
    }
}

// === impl Pending ===

impl Pending {
    pub(super) fn note(&mut self, mark: &Mark, changed: Option<Instant>) {
        self.mark = mark.clone();
        self.changed = self.changed.or(changed);
        self.first = self.first.or(changed);
    }

    /// So many names were looked at, or else everything with this left of it.
    pub(super) fn pass(&mut self, taken: usize, rest: Vec<(Name, Why)>) {
        self.names.advance(taken);
        if std::mem::take(&mut self.everything) {
            self.names = Queue::default();
            for (name, why) in rest {
                self.names.push(name, why);
            }
        }
        self.answer = false;
        if self.names.is_empty() {
            *self = Self::default();
        }
    }
}

// === impl Digest ===

impl Digest {
    pub(super) fn add(&mut self, name: &str, version: &str) {
        self.0 = self.0.wrapping_add(Self::of(name, version));
    }

    pub(super) fn remove(&mut self, name: &str, version: &str) {
        self.0 = self.0.wrapping_sub(Self::of(name, version));
    }

    pub(super) fn version(self) -> Name {
        format!("{:032x}", self.0).into()
    }

    fn of(name: &str, version: &str) -> u128 {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        // Lengths keep ("ab", "c") from being ("a", "bc").
        hash.update(&(name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update(version.as_bytes());
        hash.digest128()
    }
}

/// Finds a resource in a list that is sorted by name.
pub(super) fn find<'a>(whole: &'a [Encoded], name: &str) -> Option<&'a Encoded> {
    let at = whole
        .binary_search_by(|one| one.name.as_str().cmp(name))
        .ok()?;
    whole.get(at)
}
