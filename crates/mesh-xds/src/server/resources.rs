//! Sets of resources with a log of their changes, and what a client sees of them.

use super::mark::Mark;
use crate::{Encoded, TypeUrl, xdstp};
use mesh_core::Name;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

mod aliases;
mod within;

use aliases::{drop_aliases, set_aliases, themselves};

/// How many changes a set remembers. A reader that is further behind compares everything.
const REMEMBERED: usize = 4096;

/// Encoded resources that any number of clients share. Clones are the same set.
///
/// ```
/// use mesh_xds::server::{Changes, ResourceSet, Since};
/// use mesh_xds::{Encoded, TypeUrl};
///
/// let set = ResourceSet::new();
/// let before = set.position();
/// set.apply(Changes::new().set(TypeUrl::Cluster, Encoded::new("a", &b"bytes"[..])));
/// assert_eq!(set.since(before), Since::Changed(vec![(TypeUrl::Cluster, "a".into())]));
/// ```
#[derive(Clone)]
pub struct ResourceSet {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    moved: watch::Sender<Position>,
    /// How many resources were read for streams.
    #[cfg(test)]
    reads: std::sync::atomic::AtomicUsize,
}

#[derive(Default)]
struct State {
    resources: BTreeMap<TypeUrl, BTreeMap<Name, Encoded>>,
    /// The newest changes, oldest first; the last one made `at` what it is.
    log: VecDeque<(TypeUrl, Name)>,
    at: Position,
}

/// How many changes a set has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

/// What happened to a set since a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// These were set or removed, oldest first; one may come more than once.
    Changed(Vec<(TypeUrl, Name)>),
    /// Too much to tell: look at everything.
    Everything,
}

/// Resources to set and to remove, all at once.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    set: Vec<(TypeUrl, Encoded)>,
    removed: Vec<(TypeUrl, Name)>,
}

/// What one client may see: several sets, of which the first that has a name answers for it.
#[derive(Clone, Debug, Default)]
pub struct View {
    sets: Vec<ResourceSet>,
}

// === impl ResourceSet ===

impl ResourceSet {
    /// An empty set.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                moved: watch::Sender::new(Position::default()),
                #[cfg(test)]
                reads: Default::default(),
            }),
        }
    }

    /// Makes the changes, in one step for every reader. A resource whose version is the same is
    /// left alone. Returns how many really changed.
    pub fn apply(&self, changes: Changes) -> usize {
        let mut state = self.state();
        let mut count = 0;
        for (kind, mut resource) in changes.set {
            normalise(&mut resource.name);
            let known = state.resources.entry(kind).or_default();
            let before = known.get(&resource.name);
            if before.is_some_and(|old| {
                old.name == resource.name
                    && old.version == resource.version
                    && old.aliases == resource.aliases
            }) {
                continue;
            }
            let name = resource.name.clone();
            let aliases = match kind {
                TypeUrl::VirtualHost => set_aliases(known, &resource),
                _ => Vec::new(),
            };
            known.insert(name.clone(), resource);
            state.note(kind, name);
            for alias in aliases {
                state.note(kind, alias);
            }
            count += 1;
        }
        for (kind, mut name) in changes.removed {
            normalise(&mut name);
            let known = state.resources.get_mut(&kind);
            let Some(known) =
                known.filter(|known| known.get(&name).is_some_and(|one| one.name == name))
            else {
                continue;
            };
            let aliases = drop_aliases(known, &name);
            known.remove(&name);
            state.note(kind, name);
            for alias in aliases {
                state.note(kind, alias);
            }
            count += 1;
        }
        let at = state.at;
        drop(state);
        if count > 0 {
            self.shared.moved.send_replace(at);
        }
        count
    }

    /// Makes the resources of one type exactly these. Returns how many changed.
    pub fn replace(&self, kind: TypeUrl, resources: Vec<Encoded>) -> usize {
        let mut resources = resources;
        for one in &mut resources {
            normalise(&mut one.name);
        }
        let keep: HashSet<&Name> = resources.iter().map(|one| &one.name).collect();
        let gone = {
            let state = self.state();
            let known = state.resources.get(&kind).into_iter();
            let gone = known.flat_map(themselves).map(|one| &one.name);
            gone.filter(|name| !keep.contains(name))
                .map(|name| (kind, name.clone()))
                .collect()
        };
        drop(keep);
        let mut changes = Changes {
            set: Vec::new(),
            removed: gone,
        };
        changes
            .set
            .extend(resources.into_iter().map(|one| (kind, one)));
        self.apply(changes)
    }

    /// Removes everything.
    pub fn clear(&self) -> usize {
        let removed = {
            let state = self.state();
            let each = state.resources.iter();
            each.flat_map(|(kind, known)| themselves(known).map(|one| (*kind, one.name.clone())))
                .collect()
        };
        self.apply(Changes {
            set: Vec::new(),
            removed,
        })
    }

    /// The resource with this name.
    pub fn get(&self, kind: TypeUrl, name: &str) -> Option<Encoded> {
        let name = xdstp::canonical(name);
        self.state().resources.get(&kind)?.get(&*name).cloned()
    }

    /// Every resource of a type, by name.
    pub fn all(&self, kind: TypeUrl) -> Vec<Encoded> {
        let state = self.state();
        let known = state.resources.get(&kind).into_iter();
        known.flat_map(themselves).cloned().collect()
    }

    /// How many resources of a type there are.
    pub fn len(&self, kind: TypeUrl) -> usize {
        let state = self.state();
        let known = state.resources.get(&kind);
        match kind {
            TypeUrl::VirtualHost => known.map_or(0, |known| themselves(known).count()),
            _ => known.map_or(0, BTreeMap::len),
        }
    }

    /// Whether there is none of a type.
    pub fn is_empty(&self, kind: TypeUrl) -> bool {
        self.len(kind) == 0
    }

    /// Where the set stands.
    pub fn position(&self) -> Position {
        self.state().at
    }

    /// What changed since `before`.
    pub fn since(&self, before: Position) -> Since {
        self.state().since(before)
    }

    /// What changed since `before`, and where that leads.
    pub(super) fn follow(&self, before: Position) -> (Since, Position) {
        let state = self.state();
        (state.since(before), state.at)
    }

    /// Reads from the state at a position, if the set has not moved on.
    pub(super) fn at<R>(
        &self,
        position: Position,
        kind: TypeUrl,
        read: impl FnOnce(Option<&BTreeMap<Name, Encoded>>) -> R,
    ) -> Option<R> {
        let state = self.state();
        (state.at == position).then(|| read(state.resources.get(&kind)))
    }

    #[cfg(test)]
    pub(super) fn count_reads(&self, more: usize) -> usize {
        let order = std::sync::atomic::Ordering::Relaxed;
        self.shared.reads.fetch_add(more, order) + more
    }

    /// Tells sets apart. Valid while the set lives.
    pub(super) fn id(&self) -> usize {
        Arc::as_ptr(&self.shared).addr()
    }

    /// Tells when the set moves on.
    pub(super) fn watch(&self) -> watch::Receiver<Position> {
        self.shared.moved.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No step of ours leaves the state half done, even if it panics.
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ResourceSet {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ResourceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        let mut all = f.debug_map();
        for (kind, known) in &state.resources {
            all.entry(&kind.short(), &known.len());
        }
        all.finish()
    }
}

// === impl State ===

impl State {
    fn since(&self, before: Position) -> Since {
        let count = usize::try_from(self.at.0.saturating_sub(before.0)).unwrap_or(usize::MAX);
        match self.log.len().checked_sub(count) {
            Some(first) => Since::Changed(self.log.range(first..).cloned().collect()),
            None => Since::Everything,
        }
    }

    fn note(&mut self, kind: TypeUrl, name: Name) {
        if self.log.len() == REMEMBERED {
            self.log.pop_front();
        }
        self.log.push_back((kind, name));
        self.at.0 += 1;
    }
}

// === impl Changes ===

impl Changes {
    /// No change.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a resource.
    #[must_use]
    pub fn set(mut self, kind: TypeUrl, resource: Encoded) -> Self {
        self.set.push((kind, resource));
        self
    }

    /// Removes a resource.
    #[must_use]
    pub fn remove(mut self, kind: TypeUrl, name: impl Into<Name>) -> Self {
        self.removed.push((kind, name.into()));
        self
    }
}

// === impl View ===

impl View {
    /// A view of these sets. Where two have a resource of the same type and name, the earlier set
    /// answers.
    pub fn of(sets: impl IntoIterator<Item = ResourceSet>) -> Self {
        Self {
            sets: sets.into_iter().collect(),
        }
    }

    /// The sets, in order.
    pub fn sets(&self) -> &[ResourceSet] {
        &self.sets
    }

    /// The resource with this name.
    pub fn get(&self, kind: TypeUrl, name: &str) -> Option<Encoded> {
        self.sets.iter().find_map(|set| set.get(kind, name))
    }

    /// Every resource of a type, by name.
    pub fn all(&self, kind: TypeUrl) -> Vec<Encoded> {
        let mut all = BTreeMap::new();
        for set in &self.sets {
            for resource in set.all(kind) {
                all.entry(resource.name.clone()).or_insert(resource);
            }
        }
        all.into_values().collect()
    }

    /// The resource with this name, at a mark; nothing if a set has moved on.
    pub(super) fn get_at(&self, kind: TypeUrl, name: &str, mark: &Mark) -> Option<Option<Encoded>> {
        for (index, set) in self.sets.iter().enumerate() {
            #[cfg(test)]
            set.count_reads(1);
            let found = set.at(mark.at(index), kind, |all| all?.get(name).cloned())?;
            if found.is_some() {
                return Some(found);
            }
        }
        Some(None)
    }

    /// Every resource of a type by name, at a mark; nothing if a set has moved on.
    pub(super) fn all_at(&self, kind: TypeUrl, mark: &Mark) -> Option<Vec<Encoded>> {
        let mut all = Vec::new();
        for (index, set) in self.sets.iter().enumerate() {
            #[cfg(test)]
            set.count_reads(set.len(kind));
            set.at(mark.at(index), kind, |known| {
                all.extend(known.into_iter().flat_map(themselves).cloned());
            })?;
        }
        if self.sets.len() > 1 {
            // Stable: of the same name, the earlier set's comes first and stays.
            all.sort_by(|one, other| one.name.cmp(&other.name));
            all.dedup_by(|one, first| one.name == first.name);
        }
        Some(all)
    }
}

/// Structured names are kept in their one form, so that clients find them however they spell them.
fn normalise(name: &mut Name) {
    if let Cow::Owned(form) = xdstp::canonical(name) {
        *name = form.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cluster(name: &str, bytes: &[u8]) -> (TypeUrl, Encoded) {
        (TypeUrl::Cluster, Encoded::new(name, bytes.to_vec()))
    }

    fn setting(entries: impl IntoIterator<Item = (TypeUrl, Encoded)>) -> Changes {
        let each = entries.into_iter();
        each.fold(Changes::new(), |all, (kind, one)| all.set(kind, one))
    }

    #[test]
    fn what_stays_the_same_is_no_change() {
        let set = ResourceSet::new();
        assert_eq!(set.apply(setting([cluster("a", b"1")])), 1);
        let before = set.position();
        assert_eq!(set.apply(setting([cluster("a", b"1")])), 0);
        assert_eq!(set.apply(Changes::new().remove(TypeUrl::Cluster, "b")), 0);
        assert_eq!(set.since(before), Since::Changed(Vec::new()));
    }

    #[test]
    fn a_reader_too_far_behind_is_told_to_look_at_everything() {
        let set = ResourceSet::new();
        let before = set.position();
        for count in 0..=REMEMBERED {
            set.apply(setting([cluster("a", &count.to_be_bytes())]));
        }
        assert_eq!(set.since(before), Since::Everything);
    }

    #[test]
    fn the_earlier_set_of_a_view_answers() {
        let (own, shared) = (ResourceSet::new(), ResourceSet::new());
        own.apply(setting([cluster("a", b"own")]));
        shared.apply(setting([cluster("a", b"shared"), cluster("b", b"shared")]));
        let view = View::of([own, shared]);
        let bytes: Vec<_> = view
            .all(TypeUrl::Cluster)
            .into_iter()
            .map(|one| one.bytes)
            .collect();
        assert_eq!(bytes, [&b"own"[..], b"shared"]);
        assert_eq!(view.get(TypeUrl::Cluster, "a").unwrap().bytes, &b"own"[..]);
    }

    #[test]
    fn replacing_removes_what_is_not_named_and_leaves_other_types() {
        let set = ResourceSet::new();
        set.apply(setting([cluster("a", b"1"), cluster("b", b"1")]));
        set.apply(setting([(TypeUrl::Routes, Encoded::new("r", &b"1"[..]))]));
        assert_eq!(set.replace(TypeUrl::Cluster, vec![cluster("b", b"1").1]), 1);
        assert_eq!(
            (set.len(TypeUrl::Cluster), set.len(TypeUrl::Routes)),
            (1, 1)
        );
        assert_eq!(set.clear(), 2);
    }

    proptest! {
        #[test]
        fn the_log_leads_from_any_position_to_the_same_end(
            steps in prop::collection::vec((0_u8..4, any::<Option<u8>>()), 0..40),
            at in 0_usize..40,
        ) {
            let set = ResourceSet::new();
            let mut before = (set.position(), set.all(TypeUrl::Cluster));
            for (index, (name, value)) in steps.iter().enumerate() {
                if index == at {
                    before = (set.position(), set.all(TypeUrl::Cluster));
                }
                let name = name.to_string();
                set.apply(match value {
                    Some(value) => setting([cluster(&name, &[*value])]),
                    None => Changes::new().remove(TypeUrl::Cluster, name),
                });
            }
            let mut copy: BTreeMap<_, _> =
                before.1.into_iter().map(|one| (one.name.clone(), one)).collect();
            let Since::Changed(changes) = set.since(before.0) else { panic!("a short log") };
            for (kind, name) in changes {
                match set.get(kind, &name) {
                    Some(now) => copy.insert(name, now),
                    None => copy.remove(&name),
                };
            }
            prop_assert_eq!(copy.into_values().collect::<Vec<_>>(), set.all(TypeUrl::Cluster));
        }
    }
}
