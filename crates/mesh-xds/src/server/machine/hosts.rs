//! Virtual hosts that are asked for one by one (VHDS).
//!
//! They are asked for by `TABLE/HOST`, which is an alias of the resource with the virtual host. The
//! subscription is to the alias; what is sent bears its own name and says which aliases it answers
//! (`Resource.aliases`). Nothing under an alias is said by a resource without contents: what Envoy
//! waits for, which knows what was removed by its own name only.

use super::Machine;
use super::build::Draft;
use super::kind::{Kind, Why};
use crate::server::response::Item;
use crate::{Encoded, TypeUrl};
use mesh_core::Name;
use std::collections::HashMap;
use std::time::Instant;

// === impl Machine ===

impl Machine {
    /// What a client has from before stays subscribed to under its own name.
    pub(super) fn resume_hosts(&mut self, held: Vec<Name>, now: Instant) {
        let mark = self.mark.clone();
        let Some(state) = self.kinds.get_mut(&TypeUrl::VirtualHost) else {
            return;
        };
        for name in held {
            // As many as there may be subscriptions; those by name are counted beside.
            if let Some(entry) = state.entries.get_mut(&name)
                && !std::mem::replace(&mut entry.named, true)
            {
                state.named += 1;
                self.subscriptions += 1;
                state.note(name, Why::Changed, &mark, Some(now));
            }
        }
    }

    /// A client that asks for no virtual host yet is answered: it waits for that.
    pub(super) fn answer_hosts(&mut self, now: Instant) {
        let mark = self.mark.clone();
        if let Some(state) = self.kinds.get_mut(&TypeUrl::VirtualHost) {
            state.pending.note(&mark, None);
            state.pending.first.get_or_insert(now);
            state.pending.answer = true;
        }
    }

    /// Adds what an alias leads to.
    pub(super) fn add_aliased(
        &self,
        state: &mut Kind,
        alias: Name,
        resource: Encoded,
        draft: &mut Draft,
    ) {
        let before = state.hold(&alias, Some(&resource.version));
        if let Some(entry) = state.entries.get_mut(&alias) {
            entry.leads_to = Some(resource.name.clone());
        }
        if state.rejected.contains_key(&alias) || before.as_ref() != Some(&resource.version) {
            draft.fresh.push((alias.clone(), before));
        }
        let mut item = Item::new(resource, self.ttl);
        item.aliases.push(alias);
        draft.items.push(item);
    }

    /// Says that there is nothing under a name, or no longer.
    pub(super) fn remove_host(&self, state: &mut Kind, name: Name, why: Why, draft: &mut Draft) {
        let led_to = state
            .entries
            .get_mut(&name)
            .and_then(|entry| entry.leads_to.take());
        if state.hold(&name, None).is_some() {
            let gone = led_to.unwrap_or_else(|| name.clone());
            let lives = self.present.get(state.kind, &gone).is_some();
            if !lives && !draft.removed.contains(&gone) {
                draft.removed.push(gone);
            }
        }
        if why == Why::Asked {
            draft.items.push(Item::unknown(name));
        }
    }
}

/// Each resource once, with all the aliases that it answers.
pub(super) fn once_each(items: Vec<Item>) -> Vec<Item> {
    let mut places: HashMap<Name, usize> = HashMap::new();
    let mut once: Vec<Item> = Vec::with_capacity(items.len());
    for item in items {
        match places.get(&item.resource.name).map(|at| &mut once[*at]) {
            Some(first) => first.aliases.extend(item.aliases),
            None => {
                places.insert(item.resource.name.clone(), once.len());
                once.push(item);
            }
        }
    }
    once
}
