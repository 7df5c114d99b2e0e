//! What goes into the next response of a type.

use super::kind::{InFlight, Kind, Pending, Stamp, Why, find};
use super::scan::endpoints_of;
use super::{Machine, Moved};
use crate::server::response::Item;
use crate::server::{Event, Response, Scope, Variant};
use crate::{Encoded, TypeUrl};
use mesh_core::Name;
use std::collections::HashSet;
use std::time::Instant;

/// A response in the making.
#[derive(Default)]
struct Draft {
    /// What is sent.
    items: Vec<Item>,
    /// Which of it the client does not have yet, with the version that it has.
    fresh: Vec<(Name, Option<Name>)>,
    removed: Vec<Name>,
    /// Sent even if it is empty.
    answer: bool,
    /// What did not fit.
    rest: Vec<(Name, Why)>,
}

// === impl Machine ===

impl Machine {
    /// The next response of a type, if there is something to say.
    pub(super) fn build(&mut self, kind: TypeUrl, now: Instant) -> Result<Option<Response>, Moved> {
        let Some(mut state) = self.kinds.remove(&kind) else {
            return Ok(None);
        };
        let pending = std::mem::take(&mut state.pending);
        // Nothing of the state changes before everything is read from one state of the sets.
        let read = self.read(&state, &pending);
        let Ok(read) = read else {
            state.pending = pending;
            self.kinds.insert(kind, state);
            return Err(Moved);
        };
        let whole = self.is_whole(kind);
        let mut draft = Draft {
            answer: pending.answer,
            ..Draft::default()
        };
        self.compare(&mut state, read, whole, &mut draft, now);
        self.take_open(&mut state, &mut draft, now);
        self.keep_alive(&mut state, whole, &mut draft, now);
        if whole && (draft.answer || !draft.fresh.is_empty() || !draft.items.is_empty()) {
            self.complete(&mut state, &mut draft);
        }
        if self.options.variant == Variant::StateOfTheWorld {
            // It can only say that something is gone by leaving it out.
            draft.removed.clear();
        }
        let empty = draft.items.is_empty() && draft.removed.is_empty() && !draft.answer;
        let response = (!empty).then(|| self.send(&mut state, draft, &pending, now));
        state.settle(&self.mark);
        self.kinds.insert(kind, state);
        self.publish();
        Ok(response)
    }

    /// What is pending, as it is now.
    fn read(
        &self,
        state: &Kind,
        pending: &Pending,
    ) -> Result<Vec<(Name, Why, Option<Encoded>)>, Moved> {
        let kind = state.kind;
        let get = |name: &Name| match is_collection(name) {
            true => Ok(None),
            false => self.present.get_at(kind, name, &self.mark).ok_or(Moved),
        };
        let mut read = Vec::new();
        if pending.everything {
            let why = |name: &Name| pending.names.get(name).copied().unwrap_or(Why::Changed);
            if state.wildcard {
                let all = self.present.all_at(kind, &self.mark).ok_or(Moved)?;
                let gone = state
                    .entries
                    .keys()
                    .filter(|name| find(&all, name).is_none());
                read.extend(gone.map(|name| (name.clone(), why(name), None)));
                read.extend(
                    all.into_iter()
                        .map(|one| (one.name.clone(), why(&one.name), Some(one))),
                );
            } else {
                for name in state.entries.keys() {
                    read.push((name.clone(), why(name), get(name)?));
                }
            }
        } else {
            for (name, why) in &pending.names {
                read.push((name.clone(), *why, get(name)?));
            }
        }
        Ok(read)
    }

    /// Decides what of it the client needs.
    fn compare(
        &self,
        state: &mut Kind,
        read: Vec<(Name, Why, Option<Encoded>)>,
        whole: bool,
        draft: &mut Draft,
        now: Instant,
    ) {
        let delta = self.options.variant == Variant::Delta;
        let most = if delta {
            self.options.limits.response_resources.max(1)
        } else {
            usize::MAX
        };
        let gated = matches!(state.kind, TypeUrl::Cluster | TypeUrl::Endpoints);
        let resumed = std::mem::take(&mut state.resumed);
        for (name, why, now_there) in read {
            if !state.wants(&name) {
                continue;
            }
            let held = state
                .entries
                .get(&name)
                .and_then(|entry| entry.sent.as_ref());
            let full = draft.items.len() + draft.removed.len() >= most;
            match now_there {
                Some(resource) => {
                    state.gates.release(&name);
                    let known = held == Some(&resource.version);
                    if known && why == Why::Changed {
                        continue;
                    }
                    if full {
                        draft.rest.push((name, why));
                        continue;
                    }
                    let before = state.hold(&resource.name, Some(&resource.version));
                    // What was rejected and asked for again gets a second chance.
                    let rejected = state.rejected.contains_key(&resource.name);
                    if rejected || before.as_ref() != Some(&resource.version) {
                        draft.fresh.push((resource.name.clone(), before));
                    }
                    if let Some(ttl) = resource.ttl.filter(|_| self.ttl) {
                        state.heartbeats.start(&resource.name, ttl, now);
                    } else {
                        state.heartbeats.stop(&resource.name);
                    }
                    draft.items.push(Item::new(resource, self.ttl));
                }
                None if held.is_some() && gated && (delta || whole) && why != Why::Asked => {
                    // In a whole response it stays: the last one has it.
                    state.gates.hold(name, &self.mark, now, resumed);
                }
                None if full => draft.rest.push((name, why)),
                None => {
                    let tell = held.is_some() || why == Why::Asked;
                    state.gates.release(&name);
                    let was_held = state.hold(&name, None).is_some();
                    draft.answer |= whole && was_held;
                    if tell {
                        draft.removed.push(name);
                    }
                }
            }
        }
    }

    /// Adds the removals that wait for nothing, or no longer.
    fn take_open(&mut self, state: &mut Kind, draft: &mut Draft, now: Instant) {
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
        for name in state.gates.take_open() {
            state.hold(&name, None);
            draft.answer |= self.options.variant == Variant::StateOfTheWorld;
            draft.removed.push(name);
        }
    }

    /// Adds what expires soon.
    fn keep_alive(&self, state: &mut Kind, whole: bool, draft: &mut Draft, now: Instant) {
        for name in state.heartbeats.take_due(now) {
            let held = state
                .entries
                .get(&name)
                .and_then(|entry| entry.sent.clone());
            let found = self.present.get(state.kind, &name);
            let Some(resource) = found.filter(|one| Some(&one.version) == held.as_ref()) else {
                // Changed or gone: that is on its way.
                continue;
            };
            let Some(ttl) = resource.ttl else { continue };
            state.heartbeats.start(&name, ttl, now);
            if whole {
                // The whole is sent, with all that is in it.
                draft.answer = true;
            } else {
                draft.items.push(Item::heartbeat(resource));
            }
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

    fn send(
        &mut self,
        state: &mut Kind,
        draft: Draft,
        pending: &Pending,
        now: Instant,
    ) -> Response {
        let nonce = self.nonce();
        let version = state.digest.version();
        for (name, why) in draft.rest {
            state.pending.names.insert(name, why);
        }
        if state.has_pending() {
            state.pending.mark = pending.mark.clone();
            state.pending.first = pending.first;
            state.pending.changed = pending.changed;
        }
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
            waited: pending.changed.map(|at| now.saturating_duration_since(at)),
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
            changed: pending.changed,
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

/// Collections (`xdstp://…/*`) do not exist here.
fn is_collection(name: &str) -> bool {
    name.starts_with("xdstp://")
        && name
            .split(['?', '#'])
            .next()
            .is_some_and(|it| it.ends_with("/*"))
}
