//! What goes into the next response of a type.

use super::collection::is_collection;
use super::kind::{InFlight, Kind, Stamp, Why, find};
use super::room::Room;
use super::scan::endpoints_of;
use super::{Machine, Moved, hosts};
use crate::server::response::{Item, name_len};
use crate::server::{Event, Response, Scope, Variant};
use crate::{Encoded, TypeUrl};
use bytes::Bytes;
use mesh_core::Name;
use std::collections::HashSet;
use std::time::Instant;

/// A response in the making.
pub(super) struct Draft {
    /// What is sent.
    pub(super) items: Vec<Item>,
    /// Which of it the client does not have yet, with the version that it has.
    pub(super) fresh: Vec<(Name, Option<Name>)>,
    pub(super) removed: Vec<Name>,
    /// Sent even if it is empty.
    answer: bool,
    /// Whether it holds everything that the client is to have.
    whole: bool,
    /// When the oldest change in it came up.
    changed: Option<Instant>,
}

/// What was pending, as it is now.
#[derive(Default)]
struct Read {
    found: Vec<(Name, Why, Option<Encoded>)>,
    /// How many names of the queue it is.
    taken: usize,
    /// Everything was compared: what is left of it instead of the queue.
    rest: Vec<(Name, Why)>,
}

/// What the client needs to hear of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Nothing,
    Send,
    /// That it is gone, but later.
    Hold,
    /// That it is gone.
    Remove,
    /// Nothing, and there is nothing that it could hold.
    Forget,
}

// === impl Machine ===

impl Machine {
    /// The next response of a type, if there is something to say. Costs as much as is sent, and
    /// what is pending without being needed is looked at once.
    pub(super) fn build(&mut self, kind: TypeUrl, now: Instant) -> Result<Option<Response>, Moved> {
        let Some(mut state) = self.kinds.remove(&kind) else {
            return Ok(None);
        };
        let mut room = Room::of(self.options.variant, &self.options.limits);
        // Changes must not keep what expires from being kept alive, nor the other way round.
        let due = state
            .heartbeats
            .count_due(now, self.options.limits.response_resources);
        let aside = room.set_aside(due);
        // It may be asked for only to keep alive what was sent before.
        let waits = self.is_ordered(kind) && self.must_wait(&state, now);
        // Nothing of the state changes before everything is read from one state of the sets.
        let read = match waits {
            true => Ok(Read::default()),
            false => self.read(&state, &mut room),
        };
        let Ok(read) = read else {
            self.kinds.insert(kind, state);
            return Err(Moved);
        };
        let mut draft = Draft {
            items: Vec::new(),
            fresh: Vec::new(),
            removed: Vec::new(),
            answer: state.pending.answer && !waits,
            whole: self.is_whole(kind),
            changed: state.pending.changed.filter(|_| !waits),
        };
        if !waits {
            state.pending.pass(read.taken, read.rest);
        }
        self.compare(&mut state, read.found, &mut draft, now);
        room.add(aside);
        self.take_open(&mut state, &mut draft, &mut room, now);
        self.keep_alive(&mut state, &mut draft, &mut room, now);
        if draft.whole && (draft.answer || !draft.fresh.is_empty() || !draft.items.is_empty()) {
            self.complete(&mut state, &mut draft);
        }
        if self.options.variant == Variant::StateOfTheWorld {
            // It can only say that something is gone by leaving it out.
            draft.removed.clear();
        }
        let empty = draft.items.is_empty() && draft.removed.is_empty() && !draft.answer;
        let response = (!empty).then(|| self.send(&mut state, draft, now));
        state.settle(&self.mark);
        self.kinds.insert(kind, state);
        self.publish();
        Ok(response)
    }

    /// What is pending, as it is now and as far as there is room.
    fn read(&self, state: &Kind, room: &mut Room) -> Result<Read, Moved> {
        let (kind, pending) = (state.kind, &state.pending);
        let get = |name: &Name| match is_collection(name) {
            true => Ok(None),
            false => self.present.get_at(kind, name, &self.mark).ok_or(Moved),
        };
        let mut fits = |name: &Name, why: Why, there: Option<&Encoded>| {
            let cost = match (self.verdict(state, name, why, there), there) {
                (Verdict::Send, Some(there)) => {
                    Item::new(there.clone(), self.ttl).delta_len(&state.url)
                }
                (Verdict::Remove, _) => name_len(name),
                _ => return true,
            };
            room.take(cost)
        };
        let mut read = Read::default();
        if !pending.everything {
            for (name, why) in pending.names.iter() {
                let there = get(name)?;
                if !fits(name, why, there.as_ref()) {
                    break;
                }
                read.found.push((name.clone(), why, there));
                read.taken += 1;
            }
            return Ok(read);
        }
        let why = |name: &Name| pending.names.get(name).unwrap_or(Why::Changed);
        let mut offer = |name: &Name, there: Option<Encoded>| {
            let why = why(name);
            match fits(name, why, there.as_ref()) {
                true => read.found.push((name.clone(), why, there)),
                false => read.rest.push((name.clone(), why)),
            }
        };
        if state.wildcard {
            let all = self.present.all_at(kind, &self.mark).ok_or(Moved)?;
            let names = state.entries.keys();
            for name in names.filter(|name| find(&all, name).is_none()) {
                offer(name, None);
            }
            for one in all {
                let name = one.name.clone();
                offer(&name, Some(one));
            }
        } else {
            for name in state.entries.keys() {
                offer(name, get(name)?);
            }
            for glob in &state.globs {
                for name in self.members(kind, glob) {
                    if !state.entries.contains_key(&name) {
                        offer(&name, get(&name)?);
                    }
                }
            }
        }
        Ok(read)
    }

    fn verdict(&self, state: &Kind, name: &Name, why: Why, there: Option<&Encoded>) -> Verdict {
        if !state.wants(name) {
            return Verdict::Nothing;
        }
        let entry = state.entries.get(name);
        let held = entry.and_then(|entry| entry.sent.as_ref());
        let gated = matches!(state.kind, TypeUrl::Cluster | TypeUrl::Endpoints)
            // In a whole response it stays: the last one has it.
            && (self.options.variant == Variant::Delta || self.is_whole(state.kind));
        match there {
            Some(there) if held == Some(&there.version) && why == Why::Changed => Verdict::Nothing,
            Some(_) => Verdict::Send,
            None if held.is_some() && gated && why != Why::Asked => Verdict::Hold,
            // What is in it is what there is to say.
            None if self.has_members(state, name) => Verdict::Nothing,
            None if held.is_some() || why == Why::Asked => Verdict::Remove,
            None => Verdict::Forget,
        }
    }

    /// Takes what was read into the response.
    fn compare(
        &self,
        state: &mut Kind,
        read: Vec<(Name, Why, Option<Encoded>)>,
        draft: &mut Draft,
        now: Instant,
    ) {
        let resumed = state.resumed;
        state.resumed &= state.has_pending();
        for (name, why, there) in read {
            if !state.wants(&name) {
                continue;
            }
            let verdict = self.verdict(state, &name, why, there.as_ref());
            if verdict != Verdict::Hold {
                state.gates.release(&name);
            }
            match (verdict, there) {
                (Verdict::Hold, _) => state.gates.hold(name, &self.mark, now, resumed),
                (Verdict::Send, Some(resource)) if resource.name != name => {
                    self.add_aliased(state, name, resource, draft);
                }
                (Verdict::Send, Some(resource)) => self.add(state, resource, draft, now),
                (_, Some(resource)) => {
                    if let Some(ttl) = resource.ttl.filter(|_| self.ttl) {
                        state.heartbeats.resume(&resource.name, ttl, now);
                    }
                }
                (Verdict::Remove, None) if state.kind == TypeUrl::VirtualHost => {
                    self.remove_host(state, name, why, draft);
                }
                (verdict, None) => {
                    let was_held = state.hold(&name, None).is_some();
                    draft.answer |= draft.whole && was_held;
                    if verdict == Verdict::Remove {
                        draft.removed.push(name);
                    }
                }
            }
        }
    }

    /// Adds a resource.
    fn add(&self, state: &mut Kind, resource: Encoded, draft: &mut Draft, now: Instant) {
        let before = state.hold(&resource.name, Some(&resource.version));
        // What was rejected and asked for again gets a second chance.
        let rejected = state.rejected.contains_key(&resource.name);
        if rejected || before.as_ref() != Some(&resource.version) {
            draft.fresh.push((resource.name.clone(), before));
        }
        match resource.ttl.filter(|_| self.ttl) {
            Some(ttl) => state.heartbeats.start(&resource.name, ttl, now),
            None => state.heartbeats.stop(&resource.name),
        }
        draft.items.push(Item::new(resource, self.ttl));
    }

    /// Adds the removals that wait for nothing, or no longer.
    fn take_open(&mut self, state: &mut Kind, draft: &mut Draft, room: &mut Room, now: Instant) {
        let late = {
            let timing = &self.options.timing;
            state
                .gates
                .open(now, timing, |mark| self.is_acknowledged(mark))
        };
        for (names, waited) in late {
            let kind = state.kind;
            self.tell(Event::RemovedUnacknowledged {
                kind,
                names,
                waited,
            });
        }
        while let Some(name) = state.gates.pop_open() {
            if state.pending.names.contains(&name) {
                // It may be there again. When its turn comes it is held back anew, or not.
                continue;
            }
            if !room.take(name_len(&name)) {
                return state.gates.put_open(name);
            }
            state.hold(&name, None);
            draft.answer |= self.options.variant == Variant::StateOfTheWorld;
            draft.removed.push(name);
        }
    }

    /// Adds what expires soon: whatever the client has, be it gone or other by now, until it
    /// hears of that.
    fn keep_alive(&self, state: &mut Kind, draft: &mut Draft, room: &mut Room, now: Instant) {
        while let Some((name, ttl)) = state.heartbeats.next_due(now) {
            let name = name.clone();
            let Some(version) = state.accepted(&name).cloned() else {
                state.heartbeats.stop(&name);
                continue;
            };
            if draft.whole {
                // The whole is sent, with all that is in it.
                draft.answer = true;
                state.heartbeats.start(&name, ttl, now);
                continue;
            }
            let beat = Item::heartbeat(Encoded {
                name: name.clone(),
                version,
                bytes: Bytes::new(),
                ttl: Some(ttl),
                aliases: Vec::new(),
            });
            if !room.take(beat.delta_len(&state.url)) {
                return;
            }
            state.heartbeats.start(&name, ttl, now);
            draft.items.push(beat);
        }
    }

    /// Makes a response whole: all that the client is to have.
    fn complete(&self, state: &mut Kind, draft: &mut Draft) {
        let mut news = std::mem::take(&mut draft.items);
        news.sort_by(|one, other| one.resource.name.cmp(&other.resource.name));
        let mut news: Vec<Encoded> = news.into_iter().map(|item| item.resource).collect();
        let is_new = |name: &str, news: &[Encoded]| find(news, name).is_some();
        let mut kept: Vec<Encoded> = {
            let held = |name: &str| {
                state
                    .entries
                    .get(name)
                    .is_some_and(|entry| entry.sent.is_some())
            };
            let old = std::mem::take(&mut state.whole).into_iter();
            old.filter(|one| held(&one.name) && !is_new(&one.name, &news))
                .collect()
        };
        kept.append(&mut news);
        kept.sort_by(|one, other| one.name.cmp(&other.name));
        draft.items = kept
            .iter()
            .map(|one| Item::new(one.clone(), self.ttl))
            .collect();
        draft.answer = true;
        state.whole = kept;
    }

    fn send(&mut self, state: &mut Kind, mut draft: Draft, now: Instant) -> Response {
        if state.kind == TypeUrl::VirtualHost {
            draft.items = hosts::once_each(draft.items);
        }
        let nonce = self.nonce();
        let version = state.digest.version();
        let response = Response {
            variant: self.options.variant,
            url: state.url.clone(),
            version: version.clone(),
            nonce: nonce.clone(),
            resources: draft.items,
            removed: draft.removed,
            control_plane: self.options.control_plane.clone(),
        };
        self.tell(Event::Pushed {
            kind: state.kind,
            nonce: nonce.clone(),
            resources: response.resources.len(),
            removed: response.removed.len(),
            bytes: response.encoded_len(),
            waited: draft.changed.map(|at| now.saturating_duration_since(at)),
        });
        if state.kind == TypeUrl::Cluster && self.options.scope == Scope::Aggregated {
            self.note_endpoints(&response, &draft.fresh);
        }
        state.sent = Some(Stamp {
            version: version.clone(),
            nonce: nonce.clone(),
            at: now,
        });
        state.last_nonce = Some(nonce.clone());
        state.in_flight = Some(InFlight {
            nonce,
            version,
            at: now,
            changed: draft.changed,
            covers: None,
            items: draft.fresh,
        });
        response
    }

    /// Endpoints of clusters that were sent anew are sent again: Envoy waits for them before it
    /// uses the cluster, whether they changed or not.
    fn note_endpoints(&mut self, response: &Response, fresh: &[(Name, Option<Name>)]) {
        let Some(endpoints) = self.kinds.get_mut(&TypeUrl::Endpoints) else {
            return;
        };
        let fresh: HashSet<&Name> = fresh.iter().map(|(name, _)| name).collect();
        for Item { resource, .. } in &response.resources {
            if fresh.contains(&resource.name)
                && let Some(name) = endpoints_of(&resource.name, &resource.bytes)
                && let Some((name, entry)) = endpoints.entries.get_key_value(name)
                && entry.sent.is_some()
            {
                endpoints.note(name.clone(), Why::Resend, &self.mark, None);
            }
        }
    }
}

#[cfg(test)]
mod tests;
