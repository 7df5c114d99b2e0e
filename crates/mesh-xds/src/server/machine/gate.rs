//! Removals that wait until the client no longer needs what is removed.

use crate::server::Timing;
use crate::server::mark::Mark;
use mesh_core::Name;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How many groups are kept apart. Beyond that the newest one takes more, and all its members wait
/// for the latest mark.
const GROUPS: usize = 64;

/// How long a reconnected client has to ask for the types that may refer to clusters.
const RECONNECT: Duration = Duration::from_secs(1);

/// The removals of one type that wait.
#[derive(Default)]
pub(super) struct Gates {
    groups: Vec<Group>,
    /// Those that wait no longer.
    open: BTreeSet<Name>,
}

/// Removals that wait for the same thing.
struct Group {
    /// The listeners and routes that the client has to acknowledge.
    mark: Mark,
    /// Since when.
    at: Instant,
    /// Until when in any case.
    not_before: Instant,
    names: HashSet<Name>,
}

/// What the streams of one node have acknowledged of the types that may refer to clusters.
///
/// Only for nodes whose types have streams of their own: an aggregated stream knows by itself.
#[derive(Debug)]
pub(crate) struct Ledger {
    streams: Mutex<Streams>,
    moved: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Streams {
    settled: HashMap<u64, Mark>,
    next: u64,
}

/// A stream's place in the ledger.
#[derive(Debug)]
pub(super) struct Entry {
    ledger: Arc<Ledger>,
    /// Its number, if it carries a type that may refer to clusters.
    number: Option<u64>,
}

// === impl Gates ===

impl Gates {
    /// Holds a removal back.
    pub(super) fn hold(&mut self, name: Name, mark: &Mark, now: Instant, reconnected: bool) {
        if self.holds(&name) {
            return;
        }
        let not_before = if reconnected { now + RECONNECT } else { now };
        let full = self.groups.len() >= GROUPS;
        match self.groups.last_mut() {
            Some(last) if full || (last.mark == *mark && last.not_before == not_before) => {
                last.mark = mark.clone();
                last.not_before = last.not_before.max(not_before);
                last.names.insert(name);
            }
            _ => self.groups.push(Group {
                mark: mark.clone(),
                at: now,
                not_before,
                names: HashSet::from([name]),
            }),
        }
    }

    pub(super) fn holds(&self, name: &str) -> bool {
        self.open.contains(name) || self.groups.iter().any(|group| group.names.contains(name))
    }

    /// The resource is there again, or nobody asks for it any more.
    pub(super) fn release(&mut self, name: &str) {
        self.open.remove(name);
        for group in &mut self.groups {
            group.names.remove(name);
        }
        self.groups.retain(|group| !group.names.is_empty());
    }

    /// Opens what is acknowledged or late, and returns what was late and since when it waited.
    pub(super) fn open(
        &mut self,
        now: Instant,
        timing: &Timing,
        acknowledged: impl Fn(&Mark) -> bool,
    ) -> Vec<(Vec<Name>, Duration)> {
        let mut late = Vec::new();
        let open = &mut self.open;
        self.groups.retain_mut(|group| {
            let early = now < group.not_before;
            if !early {
                // It has passed and sets no deadline any more.
                group.not_before = group.at;
            }
            let ready = !early && acknowledged(&group.mark);
            let waited = now.saturating_duration_since(group.at);
            if !ready && waited < timing.removal {
                return true;
            }
            if !ready {
                late.push((group.names.iter().cloned().collect(), waited));
            }
            open.extend(group.names.drain());
            false
        });
        late
    }

    pub(super) fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Takes one that waits no longer.
    pub(super) fn pop_open(&mut self) -> Option<Name> {
        self.open.pop_first()
    }

    /// Puts back what was taken.
    pub(super) fn put_open(&mut self, name: Name) {
        self.open.insert(name);
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
            + self
                .groups
                .iter()
                .map(|group| group.names.len())
                .sum::<usize>()
    }

    pub(super) fn deadline(&self, timing: &Timing) -> Option<Instant> {
        let each = self.groups.iter();
        each.map(|group| match group.not_before > group.at {
            true => group.not_before,
            false => group.at + timing.removal,
        })
        .min()
    }
}

// === impl Ledger ===

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            streams: Mutex::default(),
            moved: watch::Sender::new(()),
        }
    }

    /// Tells when a stream has settled something.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.moved.subscribe()
    }

    /// A place for one more stream; `referrer` if it carries a type that may refer to clusters.
    pub(super) fn join(self: &Arc<Self>, referrer: bool) -> Entry {
        let number = referrer.then(|| {
            let mut streams = self.streams();
            streams.next += 1;
            let number = streams.next;
            streams.settled.insert(number, Mark::default());
            number
        });
        Entry {
            ledger: self.clone(),
            number,
        }
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        // Every change is one step.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Entry ===

impl Entry {
    pub(super) fn publish(&self, settled: &Mark) {
        let Some(number) = self.number else { return };
        let mut streams = self.ledger.streams();
        let known = streams.settled.entry(number).or_default();
        if known != settled {
            *known = settled.clone();
            drop(streams);
            self.ledger.moved.send_replace(());
        }
    }

    /// Whether every stream of the node has settled what was there at the mark.
    pub(super) fn covers(&self, mark: &Mark) -> bool {
        self.ledger
            .streams()
            .settled
            .values()
            .all(|settled| settled.covers(mark))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.ledger.streams().settled.remove(&number);
            self.ledger.moved.send_replace(());
        }
    }
}
