//! Glob collections (`xdstp://…/*`): everything in a directory.

use super::Machine;
use super::kind::{Kind, Why};
use crate::server::Variant;
use crate::xdstp::{self, ResourceName};
use crate::{Encoded, TypeUrl};
use mesh_core::Name;
use std::borrow::Cow;
use std::time::Instant;

// === impl Machine ===

impl Machine {
    /// A name that was asked for turns out to be a collection: what is in it is asked for, too.
    pub(super) fn add_members(&mut self, kind: TypeUrl, name: &Name, resumed: bool, now: Instant) {
        if self.options.variant == Variant::StateOfTheWorld || !is_collection(name) {
            return;
        }
        let members = self.members(kind, name);
        let mark = self.mark.clone();
        let Some(state) = self.kinds.get_mut(&kind) else {
            return;
        };
        state.globs.insert(name.clone());
        // What a client that comes back says that it has may have gone.
        let held = state.entries.keys();
        let held: Vec<Name> = held.filter(|held| is_in(held, name)).cloned().collect();
        for member in members.into_iter().map(|one| one.name).chain(held) {
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
        state.globs.contains(name) && !self.members(state.kind, name).is_empty()
    }

    fn members(&self, kind: TypeUrl, glob: &Name) -> Vec<Encoded> {
        let mut all = self.present.all(kind);
        all.retain(|one| is_in(&one.name, glob));
        all
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

/// Whether a name is one of a collection.
pub(super) fn is_collection(name: &str) -> bool {
    xdstp::is_structured(name) && ResourceName::parse(name).is_ok_and(|name| name.is_glob())
}

/// Gives a name that a client uses its one form.
pub(super) fn normalise(name: &mut String) {
    if let Cow::Owned(form) = xdstp::canonical(name) {
        *name = form;
    }
}

fn is_in(name: &str, glob: &Name) -> bool {
    !is_collection(name) && glob_of(name).is_some_and(|of| of == glob.as_str())
}

fn glob_of(name: &str) -> Option<String> {
    if !xdstp::is_structured(name) {
        return None;
    }
    let name = ResourceName::parse(name).ok()?;
    Some(name.glob().to_string())
}
