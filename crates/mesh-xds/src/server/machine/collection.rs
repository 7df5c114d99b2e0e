//! Glob collections (`xdstp://…/*`): everything in a directory.

use super::Machine;
use super::kind::{Kind, Why};
use crate::TypeUrl;
use crate::server::Variant;
use crate::xdstp::{self, glob_of};
use mesh_core::Name;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Instant;

pub(super) use crate::xdstp::is_glob as is_collection;

// === impl Machine ===

impl Machine {
    /// A name that was asked for turns out to be a collection: what is in it is asked for, too.
    pub(super) fn add_members(&mut self, kind: TypeUrl, name: &Name, resumed: bool, now: Instant) {
        if self.options.variant == Variant::StateOfTheWorld || !is_collection(name) {
            return;
        }
        let prefix = xdstp::prefix_of_glob(name);
        let members = self.members(kind, name);
        let mark = self.mark.clone();
        let Some(state) = self.kinds.get_mut(&kind) else {
            return;
        };
        state.globs.insert(name.clone());
        // What a client that comes back says that it has may have gone.
        let held = state.entries.keys();
        let held = held.filter(|held| held.starts_with(&prefix) && is_in(held, name));
        let held: Vec<Name> = held.cloned().collect();
        for member in members.into_iter().chain(held) {
            let known = state.entries.get(&member);
            let has = known.is_some_and(|entry| entry.sent.is_some());
            let why = match resumed && has {
                true => Why::Changed,
                false => Why::Asked,
            };
            state.note(member, why, &mark, None);
        }
        state.pending.first.get_or_insert(now);
    }

    /// Whether a collection that is asked for has anything in it.
    pub(super) fn has_members(&self, state: &Kind, name: &Name) -> bool {
        if !state.globs.contains(name) {
            return false;
        }
        let prefix = xdstp::prefix_of_glob(name);
        let mut sets = self.present.sets().iter();
        sets.any(|set| {
            set.within(state.kind, &prefix, |mut all| {
                Iterator::any(&mut all, |one| is_in(&one.name, name))
            })
        })
    }

    /// The names of what is in a collection. Costs as much as its directory has.
    pub(super) fn members(&self, kind: TypeUrl, glob: &Name) -> BTreeSet<Name> {
        let prefix = xdstp::prefix_of_glob(glob);
        let mut members = BTreeSet::new();
        for set in self.present.sets() {
            set.within(kind, &prefix, |all| {
                let all = all.filter(|one| is_in(&one.name, glob));
                members.extend(all.map(|one| one.name.clone()));
            });
        }
        members
    }
}

// === impl Kind ===

impl Kind {
    /// Whether the client wants to know of a name, whether it has asked for it by itself or not.
    pub(super) fn covers(&self, name: &str) -> bool {
        self.wildcard
            || (!self.globs.is_empty()
                && glob_of(name).is_some_and(|glob| self.globs.contains(glob.as_str())))
    }
}

/// Gives a name that a client uses its one form.
pub(super) fn normalise(name: &mut String) {
    if let Cow::Owned(form) = xdstp::canonical(name) {
        *name = form;
    }
}

fn is_in(name: &str, glob: &Name) -> bool {
    glob_of(name).is_some_and(|of| of == glob.as_str())
}
