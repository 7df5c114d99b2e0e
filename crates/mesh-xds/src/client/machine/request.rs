//! What is asked for, and the requests that say so.

use super::answer::Answer;
use super::record::{Kind, Record};
use super::{Machine, Request, Timer, Variant};
use crate::pb::envoy::service::discovery::v3 as discovery;
use crate::pb::google::rpc::Status;
use crate::{TypeUrl, xdstp};
use mesh_core::Name;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

/// Asks for everything.
pub(super) const WILDCARD: &str = "*";
/// How often an answer leaves out a name that has to be asked for again: each time a response may
/// have crossed the request before. A server that has no such resource would go on for ever.
const AGAIN: u8 = 3;
/// gRPC's INVALID_ARGUMENT.
const INVALID_ARGUMENT: i32 = 3;

// === impl Machine ===

impl<R> Machine<R> {
    /// Asks for all resources of a type (`*`).
    pub fn subscribe_all(&mut self, kind: TypeUrl) {
        let kind = self.kinds.entry(kind).or_default();
        if !std::mem::replace(&mut kind.wildcard, true) && kind.asked {
            kind.subscribe.insert(WILDCARD.into());
        }
    }

    /// Asks for a resource by name. Asked for again on the same stream, it is sent again.
    /// Structured names are asked for in the one form that [`crate::xdstp`] gives them. By delta, a
    /// glob collection (`xdstp://…/*`) is everything that is in it.
    pub fn subscribe(&mut self, kind: TypeUrl, name: &Name) {
        self.add_name(kind, &canonical(name), |record| record.lasting = true);
    }

    /// Asks for a resource by name because a request wants it; [`Event::Absent`](super::Event::Absent)
    /// says if there is none. By delta only: in state of the world a list of names says nothing of
    /// what does not exist. Taken back by [`Machine::take_back`], whoever else asks for it.
    pub fn ask(&mut self, kind: TypeUrl, name: &Name) {
        self.add_name(kind, &canonical(name), |record| record.on_demand = true);
    }

    /// A name is asked for, for the reason that `why` notes.
    fn add_name(&mut self, kind: TypeUrl, name: &Name, why: fn(&mut Record)) {
        let delta = self.config.variant == Variant::Delta;
        let kind = self.kinds.entry(kind).or_default();
        let record = kind.records.entry(name.clone()).or_default();
        why(record);
        if std::mem::replace(&mut record.named, true) {
            return;
        }
        record.missing = false;
        kind.named += 1;
        if delta && xdstp::is_glob(name) {
            kind.globs.insert(name.clone());
        }
        if kind.asked {
            // It was not taken back yet.
            record.told |= kind.unsubscribe.remove(name);
            kind.taken_back.remove(name);
            kind.subscribe.insert(name.clone());
            // A server that hears the same names as before sends nothing. It has to hear a request
            // without this one first.
            if kind.told.contains(name) || kind.told.len() > self.config.limits.resources {
                record.again = AGAIN;
                kind.again.insert(name.clone());
            }
        }
    }

    /// No longer asks for a resource by name. What is known of it is forgotten, unless it is
    /// [asked for](Machine::ask) on demand, too.
    pub fn unsubscribe(&mut self, kind: TypeUrl, name: &Name) {
        self.drop_name(kind, &canonical(name), |record| record.lasting = false);
    }

    /// No longer asks for a resource on demand. What is known of it is forgotten, unless it is
    /// [asked for](Machine::subscribe) for good, too.
    pub fn take_back(&mut self, kind: TypeUrl, name: &Name) {
        self.drop_name(kind, &canonical(name), |record| record.on_demand = false);
    }

    /// A name is no longer asked for, for the reason that `why` takes away.
    pub(super) fn drop_name(&mut self, kind: TypeUrl, name: &Name, why: fn(&mut Record)) {
        let Some(all) = self.kinds.get_mut(&kind) else {
            return;
        };
        let Some(record) = all.records.get_mut(name) else {
            return;
        };
        why(record);
        if record.lasting || record.on_demand || !std::mem::replace(&mut record.named, false) {
            return;
        }
        all.named -= 1;
        let missing_at = record.missing_at.take();
        if all.asked {
            all.again.remove(name);
            record.again = 0;
            all.subscribe.remove(name);
            // What was never said is not taken back.
            if std::mem::take(&mut record.told) {
                all.is_taken_back(name);
            }
        }
        if let Some(at) = missing_at {
            self.timers
                .remove(&(at, kind, name.clone(), Timer::Missing));
        }
        let led_to = all.lead(name, None, self.next_ticket);
        let was_glob = all.globs.remove(name);
        if all.wildcard || all.is_member(name) {
            all.tidy(name);
            return;
        }
        if let Some(record) = all.records.get_mut(name) {
            record.accepted = None;
            record.body = None;
            record.refused = None;
        }
        all.tidy(name);
        self.expires(kind, name, None);
        if let Some(resource) = led_to.filter(|to| !self.is_asked_for(kind, to)) {
            self.forget(kind, vec![resource]);
        }
        if was_glob {
            self.forget_members(kind, name);
        }
    }

    /// A glob collection is no longer asked for: what nothing else asks for is forgotten.
    fn forget_members(&mut self, kind: TypeUrl, glob: &Name) {
        let Some(all) = self.kinds.get(&kind) else {
            return;
        };
        let members = all.members(glob).filter(|(_, member)| !member.named);
        let members = members.map(|(name, _)| name.clone()).collect();
        self.forget(kind, members);
    }

    /// The next message for the server.
    pub fn poll_request(&mut self, now: Instant) -> Option<Request> {
        self.stream.as_ref()?;
        while let Some(answer) = self.requests.pop_front() {
            if let Some(request) = self.answer(answer, now) {
                return Some(request);
            }
        }
        let kinds: Vec<TypeUrl> = self.kinds.keys().copied().collect();
        for kind in kinds {
            let Some(all) = self.kinds.get(&kind) else {
                continue;
            };
            let changed = !(all.subscribe.is_empty() && all.unsubscribe.is_empty());
            // An empty first request would ask for everything.
            let follows = all.follows() && self.config.variant == Variant::Delta;
            let first = !all.asked && (all.wildcard || all.named > 0 || follows);
            if !(first || all.asked && changed) {
                continue;
            }
            match self.config.variant {
                Variant::Delta => return Some(self.delta(kind)),
                Variant::Sotw if all.unanswered.is_empty() => {
                    return Some(self.sotw(kind, None, now));
                }
                // The answer names what is asked for.
                Variant::Sotw => {
                    if self.answer_early(kind) {
                        return self.poll_request(now);
                    }
                }
            }
        }
        None
    }

    fn answer(&mut self, answer: Answer, now: Instant) -> Option<Request> {
        let Answer {
            url,
            kind,
            nonce,
            error,
        } = answer;
        let error = error.map(|message| Status {
            code: INVALID_ARGUMENT,
            message,
            details: Vec::new(),
        });
        if self.config.variant == Variant::Delta {
            return Some(Request::Delta(Box::new(discovery::DeltaDiscoveryRequest {
                node: self.introduce(),
                type_url: url,
                response_nonce: nonce,
                error_detail: error,
                ..Default::default()
            })));
        }
        let Some(kind) = kind else {
            return Some(Request::Sotw(Box::new(discovery::DiscoveryRequest {
                node: self.introduce(),
                type_url: url,
                response_nonce: nonce,
                error_detail: error,
                ..Default::default()
            })));
        };
        // A newer response is here; a server looks at no answer to an older one.
        let latest = self.kinds.get(&kind).is_some_and(|all| all.nonce == nonce);
        if !latest {
            return None;
        }
        // A request since the last response may have crossed this one; then the server did not
        // look at it, and takes what we asked for again for what it had sent before.
        if let Some(all) = self.kinds.get_mut(&kind) {
            for (name, record) in &mut all.records {
                if record.again > 0 && record.named && !record.is_held() {
                    record.again -= 1;
                    all.again.insert(name.clone());
                }
            }
        }
        Some(self.sotw(kind, error, now))
    }

    fn sotw(&mut self, kind: TypeUrl, error: Option<Status>, now: Instant) -> Request {
        let node = self.introduce();
        let server = self.stream.as_ref().map(|stream| stream.server.clone());
        let most = self.config.limits.resources;
        self.watch_for_missing(kind, now);
        let all = self.kinds.entry(kind).or_default();
        all.asked = true;
        // Those left out of this request are in the next one.
        let again = std::mem::take(&mut all.again);
        all.subscribe.clone_from(&again);
        all.unsubscribe.clear();
        for (name, record) in &mut all.records {
            record.told |= record.named && !again.contains(name);
        }
        if all.told.len() <= most {
            let told = all.records.iter().filter(|(_, record)| record.named);
            all.told.extend(told.map(|(name, _)| name.clone()));
        }
        let same_server = server.is_some() && all.version_from == server;
        Request::Sotw(Box::new(discovery::DiscoveryRequest {
            version_info: if same_server {
                all.version.clone()
            } else {
                String::new()
            },
            node,
            resource_names: subscribed(all, &again),
            type_url: kind.url().to_owned(),
            response_nonce: all.nonce.clone(),
            error_detail: error,
            ..Default::default()
        }))
    }

    fn delta(&mut self, kind: TypeUrl) -> Request {
        let node = self.introduce();
        let server = self.stream.as_ref().map(|stream| stream.server.clone());
        let all = self.kinds.entry(kind).or_default();
        all.again.clear();
        let texts = |names: BTreeSet<Name>| names.iter().map(ToString::to_string).collect();
        if all.asked {
            for name in &all.subscribe {
                if let Some(record) = all.records.get_mut(name) {
                    record.told = true;
                }
            }
        } else {
            for record in all.records.values_mut() {
                record.told = record.named;
            }
        }
        let mut request = discovery::DeltaDiscoveryRequest {
            node,
            type_url: kind.url().to_owned(),
            resource_names_subscribe: texts(std::mem::take(&mut all.subscribe)),
            resource_names_unsubscribe: texts(std::mem::take(&mut all.unsubscribe)),
            ..Default::default()
        };
        if !std::mem::replace(&mut all.asked, true) {
            request.resource_names_subscribe = subscribed(all, &BTreeSet::new());
            request.initial_resource_versions = initial_versions(all, server.as_ref());
        }
        Request::Delta(Box::new(request))
    }

    /// The node, in the first request of a stream.
    fn introduce(&mut self) -> Option<crate::pb::envoy::config::core::v3::Node> {
        let stream = self.stream.as_mut()?;
        let first = !std::mem::replace(&mut stream.introduced, true);
        first.then(|| self.config.node.to_proto())
    }

    /// From the moment a name is asked for it has so long to come.
    fn watch_for_missing(&mut self, kind: TypeUrl, now: Instant) {
        let (Some(wait), Some(all)) = (self.config.missing_after, self.kinds.get_mut(&kind)) else {
            return;
        };
        let fresh = std::mem::take(&mut all.subscribe);
        let everything = !all.asked;
        for (name, record) in &mut all.records {
            let asked = record.named && (everything || fresh.contains(name));
            let open = record.accepted.is_none() && record.offered == 0 && !record.missing;
            if asked && open && record.missing_at.is_none() {
                record.missing_at = Some(now + wait);
                self.timers
                    .insert((now + wait, kind, name.clone(), Timer::Missing));
            }
        }
    }
}

fn canonical(name: &Name) -> Name {
    match xdstp::canonical(name) {
        Cow::Owned(form) => form.into(),
        Cow::Borrowed(_) => name.clone(),
    }
}

/// What the first request, or any in state of the world, asks for, but for some. Nothing but the wildcard is
/// said by naming nothing: every server knows that.
fn subscribed(all: &Kind, without: &BTreeSet<Name>) -> Vec<String> {
    let names = all.names().filter(|name| !without.contains(*name));
    let mut names: Vec<String> = names.map(ToString::to_string).collect();
    if all.wildcard && !names.is_empty() {
        names.push(WILDCARD.to_owned());
    }
    names
}

/// The versions that a new stream starts from. A server that the versions are not from is told the
/// names alone: so it sends all that it has, and says what of ours it does not have. So is any
/// server for what still waits for its verdict, since nobody knows yet which version that leaves.
fn initial_versions(all: &mut Kind, server: Option<&Name>) -> HashMap<String, String> {
    // What was refused comes again, or is gone.
    all.records
        .retain(|_, record| record.named || record.is_held());
    let mut versions = HashMap::new();
    for (name, record) in &all.records {
        if !record.is_held() || !all.wants(name) {
            continue;
        }
        let version = match &record.accepted {
            Some((version, from)) if Some(from) == server && record.offered == 0 => {
                version.to_string()
            }
            _ => String::new(),
        };
        versions.insert(name.to_string(), version);
    }
    versions
}
