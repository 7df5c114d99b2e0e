//! Virtual hosts under the other names by which they are asked for.
//!
//! An alias is a key of its own in the map of a type, with the resource that bears another name.

use crate::Encoded;
use mesh_core::Name;
use std::collections::BTreeMap;

/// Puts a virtual host under its aliases. Returns the names under which something changed.
pub(super) fn set_aliases(known: &mut BTreeMap<Name, Encoded>, resource: &Encoded) -> Vec<Name> {
    let mut changed = drop_aliases(known, &resource.name);
    for alias in &resource.aliases {
        // A resource of just this name comes first.
        if known.get(alias).is_none_or(|there| there.name != *alias) && *alias != resource.name {
            known.insert(alias.clone(), resource.clone());
            changed.push(alias.clone());
        }
    }
    changed
}

/// Takes a resource away under its aliases.
pub(super) fn drop_aliases(known: &mut BTreeMap<Name, Encoded>, name: &Name) -> Vec<Name> {
    let old = known.get(name).map(|old| old.aliases.clone());
    let mut aliases = old.unwrap_or_default();
    aliases.retain(|alias| {
        let its_own = known
            .get(alias)
            .is_some_and(|there| there.name == *name && *alias != *name);
        if its_own {
            known.remove(alias);
        }
        its_own
    });
    aliases
}

/// The resources themselves, each under its own name.
pub(super) fn themselves(known: &BTreeMap<Name, Encoded>) -> impl Iterator<Item = &Encoded> {
    let own = known
        .iter()
        .filter(|(name, one)| one.aliases.is_empty() || **name == one.name);
    own.map(|(_, one)| one)
}
