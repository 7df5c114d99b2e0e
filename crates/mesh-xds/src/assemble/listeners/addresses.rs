//! Who may have which address.

use super::{Listeners, Version};
use mesh_core::Name;
use mesh_core::model::ListenerAddress;
use std::collections::BTreeMap;

// === impl Listeners ===

impl Listeners {
    /// Of listeners that want these addresses, those that cannot have theirs, each with the
    /// listener that has it. Who has an address keeps it; of several new ones the first by name
    /// gets it. Whoever moves away in the same batch is no obstacle.
    pub(super) fn clashes(&self, wanted: &BTreeMap<Name, ListenerAddress>) -> BTreeMap<Name, Name> {
        let mut refused: BTreeMap<Name, Name> = BTreeMap::new();
        loop {
            let before = refused.len();
            let mut taken: BTreeMap<&ListenerAddress, &Name> = BTreeMap::new();
            for (name, address) in wanted {
                if refused.contains_key(name) {
                    continue;
                }
                let holder = self.claims.get(address).filter(|holder| {
                    let moves = wanted.get(*holder).is_some_and(|to| to != address);
                    !moves || refused.contains_key(*holder)
                });
                let first = holder.unwrap_or(name);
                let owner = *taken.entry(address).or_insert(first);
                if owner != name {
                    refused.insert(name.clone(), owner.clone());
                }
            }
            // Who was refused stays where it was, which may be in the way of others.
            if refused.len() == before {
                return refused;
            }
        }
    }

    /// Takes those out of `ready` whose address is still in use, and returns them.
    pub(super) fn blocked(&self, ready: &mut BTreeMap<Name, ListenerAddress>) -> Vec<Name> {
        let mut all = Vec::new();
        loop {
            let blocked: Vec<Name> = ready
                .iter()
                .filter(|(name, address)| {
                    self.bound.get(*address).is_some_and(|holder| {
                        holder != *name && ready.get(holder).is_none_or(|to| to == *address)
                    })
                })
                .map(|(name, _)| name.clone())
                .collect();
            if blocked.is_empty() {
                return all;
            }
            for name in blocked {
                ready.remove(&name);
                all.push(name);
            }
        }
    }

    /// The latest version of a listener is no longer at this address.
    pub(super) fn unclaim(&mut self, address: &ListenerAddress, name: &Name) {
        // In a swap the other one may have claimed it already.
        if self.claims.get(address) == Some(name) {
            self.claims.remove(address);
        }
    }

    /// The version that waits.
    pub(super) fn waiting(&self, name: &str) -> Option<&Version> {
        let warming = self.all.get(name)?.warming.as_ref()?;
        Some(&warming.version)
    }

    /// Those that wait.
    pub(super) fn warming(&self) -> impl Iterator<Item = &Name> {
        self.all
            .iter()
            .filter(|(_, state)| state.warming.is_some())
            .map(|(name, _)| name)
    }
}
