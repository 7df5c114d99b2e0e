//! What a client asks for, and its answers.

use super::answer::cut;
use super::collection::normalise;
use super::kind::{Digest, Kind, Pending, Stamp, Why};
use super::{Machine, WAITING};
use crate::TypeUrl;
use crate::pb::envoy::service::discovery::v3 as discovery;
use crate::server::{Event, Refused, Response, Scope, Variant};
use mesh_core::Name;
use std::collections::{HashMap, HashSet};
use std::time::Instant;

/// How much of the URL of an unknown type is kept, in bytes.
const URL: usize = 256;

/// The name that stands for everything.
const WILDCARD: &str = "*";

/// Types of which a first request without names asks for everything. The protocol says so of
/// listeners and clusters; scoped routes are asked for like that by Envoy. Other types know `*`
/// only: a client that has nothing to ask for may well send an empty request.
const LEGACY_WILDCARD: [TypeUrl; 4] = [
    TypeUrl::Cluster,
    TypeUrl::Listener,
    TypeUrl::ScopedRoutes,
    // Istio's agent names nothing.
    TypeUrl::NameTable,
];

// === impl Machine ===

impl Machine {
    /// A request of the state of the world.
    ///
    /// # Errors
    /// The stream is to be closed: it asks for a type that it may not, or for too much.
    pub fn request(
        &mut self,
        mut request: discovery::DiscoveryRequest,
        now: Instant,
    ) -> Result<(), Refused> {
        if !request.resource_locators.is_empty() {
            return Err(Refused::invalid(
                "resource_locators are not supported; use resource_names",
            ));
        }
        let Some(kind) = self.kind_of(&request.type_url)? else {
            return Ok(());
        };
        let state = self.kinds.entry(kind).or_insert_with(|| Kind::new(kind));
        let first = state.last_nonce.is_none();
        if !first && state.last_nonce.as_deref() != Some(&*request.response_nonce) {
            // Sent before the client had seen the last response; it will answer that as well.
            return Ok(());
        }
        if !first {
            self.answer(kind, request.error_detail, now);
        }
        request.resource_names.iter_mut().for_each(normalise);
        self.subscribe_to(kind, request.resource_names, now)?;
        if first && !request.version_info.is_empty() {
            self.resume_whole(kind, &request.version_info, now);
        }
        self.settle();
        Ok(())
    }

    /// A request of the delta protocol.
    ///
    /// # Errors
    /// The stream is to be closed: it asks for a type that it may not, or for too much.
    pub fn delta_request(
        &mut self,
        mut request: discovery::DeltaDiscoveryRequest,
        now: Instant,
    ) -> Result<(), Refused> {
        let locators = &request.resource_locators_subscribe;
        if !locators.is_empty() || !request.resource_locators_unsubscribe.is_empty() {
            return Err(Refused::invalid(
                "resource locators are not supported; use resource_names_subscribe",
            ));
        }
        let Some(kind) = self.kind_of(&request.type_url)? else {
            self.deny(&request);
            return Ok(());
        };
        let names = request.resource_names_subscribe.iter_mut();
        names
            .chain(&mut request.resource_names_unsubscribe)
            .for_each(normalise);
        let first = !self.kinds.contains_key(&kind);
        let state = self.kinds.entry(kind).or_insert_with(|| Kind::new(kind));
        // A stale nonce answers nothing, but the rest of the request counts.
        let in_flight = state.in_flight.as_ref();
        if in_flight.is_some_and(|sent| *sent.nonce == *request.response_nonce) {
            self.answer(kind, request.error_detail, now);
        }
        let (add, drop) = (
            &request.resource_names_subscribe,
            &request.resource_names_unsubscribe,
        );
        let legacy = first && add.is_empty() && drop.is_empty() && LEGACY_WILDCARD.contains(&kind);
        let resumed = first && !request.initial_resource_versions.is_empty();
        let held: Vec<Name> = match kind {
            TypeUrl::VirtualHost if first => {
                let names = request.initial_resource_versions.keys();
                names.map(Name::from).collect()
            }
            _ => Vec::new(),
        };
        if first {
            self.resume(kind, request.initial_resource_versions)?;
        }
        let waits = first && kind == TypeUrl::VirtualHost && add.is_empty();
        self.resume_hosts(held, now);
        let before = self.subscribed(kind);
        for name in request.resource_names_unsubscribe {
            self.drop_name(kind, &name, now);
        }
        for name in request.resource_names_subscribe {
            if name == WILDCARD {
                self.add_wildcard(kind, resumed, now);
                self.mark_named(kind);
            } else {
                self.add_name(kind, name, resumed, now)?;
            }
        }
        if legacy {
            self.add_wildcard(kind, resumed, now);
        }
        if first {
            self.drop_unwanted(kind);
        }
        if waits {
            self.answer_hosts(now);
        }
        self.tell_subscribed(kind, before);
        self.settle();
        Ok(())
    }

    /// The type of a request; none if it is unknown here.
    fn kind_of(&mut self, url: &str) -> Result<Option<TypeUrl>, Refused> {
        match self.options.scope {
            Scope::Only(kind) if url.is_empty() || url == kind.url() => Ok(Some(kind)),
            Scope::Only(kind) => Err(Refused::invalid(format!(
                "type_url: this service has {kind} only; ask the aggregated service for others"
            ))),
            Scope::Aggregated if url.is_empty() => Err(Refused::invalid(
                "type_url is empty; an aggregated stream needs it in every request",
            )),
            Scope::Aggregated => {
                let kind = TypeUrl::from_url(url);
                if kind.is_none() {
                    self.tell(Event::UnknownType {
                        url: cut(url, URL).into(),
                    });
                }
                Ok(kind)
            }
        }
    }

    /// Tells a delta client that nothing of an unknown type exists, so that it need not wait.
    fn deny(&mut self, request: &discovery::DeltaDiscoveryRequest) {
        let answers_something = !request.response_nonce.is_empty();
        let asks = !request.resource_names_subscribe.is_empty() || !answers_something;
        if !asks || self.strange.len() == WAITING {
            return;
        }
        let names = request.resource_names_subscribe.iter();
        let removed = names
            .filter(|name| *name != WILDCARD)
            .map(Name::from)
            .collect();
        let response = Response {
            variant: Variant::Delta,
            url: request.type_url.as_str().into(),
            version: Name::default(),
            nonce: self.nonce(),
            resources: Vec::new(),
            removed,
            control_plane: self.options.control_plane.clone(),
        };
        self.strange.push_back(response);
    }

    // --- subscriptions ------------------------------------------------------------------------

    /// State of the world: exactly these.
    fn subscribe_to(
        &mut self,
        kind: TypeUrl,
        names: Vec<String>,
        now: Instant,
    ) -> Result<(), Refused> {
        let Some(state) = self.kinds.get(&kind) else {
            return Ok(());
        };
        let before = self.subscribed(kind);
        if names.is_empty() && !state.was_named {
            if LEGACY_WILDCARD.contains(&kind) && !state.wildcard {
                self.add_wildcard(kind, false, now);
                self.tell_subscribed(kind, before);
            }
            return Ok(());
        }
        if names.len() == state.named + usize::from(state.wildcard)
            && names.iter().all(|name| match name.as_str() {
                WILDCARD => state.wildcard,
                name => state.entries.get(name).is_some_and(|entry| entry.named),
            })
            // A list that repeats a name may be shorter than it looks.
            && names.iter().collect::<HashSet<_>>().len() == names.len()
        {
            return Ok(());
        }
        let wanted: HashSet<&str> = names.iter().map(String::as_str).collect();
        let entries = state.entries.iter();
        let gone = entries.filter(|(name, entry)| entry.named && !wanted.contains(name.as_str()));
        let gone: Vec<Name> = gone.map(|(name, _)| name.clone()).collect();
        // The wildcard first: whether it stays decides what becomes of the names.
        if !wanted.contains(WILDCARD) {
            self.drop_wildcard(kind);
        }
        for name in gone {
            self.drop_name(kind, &name, now);
        }
        for name in names {
            let Some(state) = self.kinds.get(&kind) else {
                break;
            };
            if name == WILDCARD {
                if !state.wildcard {
                    self.add_wildcard(kind, false, now);
                }
                self.mark_named(kind);
            } else if !state
                .entries
                .get(name.as_str())
                .is_some_and(|entry| entry.named)
            {
                self.add_name(kind, name, false, now)?;
            }
        }
        self.tell_subscribed(kind, before);
        Ok(())
    }

    fn add_wildcard(&mut self, kind: TypeUrl, resumed: bool, now: Instant) {
        let mark = self.mark.clone();
        let Some(state) = self.kinds.get_mut(&kind) else {
            return;
        };
        state.wildcard = true;
        state.pending.note(&mark, None);
        state.pending.first.get_or_insert(now);
        state.pending.everything = true;
        // Without an answer a client waits for ever for what is empty; one that resumes has its
        // first answer behind it.
        state.pending.answer |= !resumed;
    }

    fn mark_named(&mut self, kind: TypeUrl) {
        if let Some(state) = self.kinds.get_mut(&kind) {
            state.was_named = true;
        }
    }

    fn drop_wildcard(&mut self, kind: TypeUrl) {
        let Some(state) = self.kinds.get_mut(&kind) else {
            return;
        };
        if std::mem::take(&mut state.wildcard) {
            self.drop_unwanted(kind);
        }
    }

    /// Forgets what is neither subscribed to by name nor as part of everything.
    fn drop_unwanted(&mut self, kind: TypeUrl) {
        let Some(state) = self.kinds.get_mut(&kind).filter(|kind| !kind.wildcard) else {
            return;
        };
        let entries = state.entries.iter();
        let entries = entries.filter(|(name, entry)| !entry.named && !state.covers(name));
        let unwanted: Vec<Name> = entries.map(|(name, _)| name.clone()).collect();
        for name in &unwanted {
            state.forget(name);
        }
        let mut names = std::mem::take(&mut state.pending.names);
        names.retain(|name| state.entries.contains_key(name) || state.covers(name));
        state.pending.names = names;
        state.pending.answer = false;
        state.tidy();
    }

    fn add_name(
        &mut self,
        kind: TypeUrl,
        name: String,
        resumed: bool,
        now: Instant,
    ) -> Result<(), Refused> {
        let limits = &self.options.limits;
        if name.len() > limits.name_bytes {
            return Err(Refused::exhausted(format!(
                "a resource name has {} bytes; at most {} are allowed",
                name.len(),
                limits.name_bytes
            )));
        }
        let mark = self.mark.clone();
        let Some(state) = self.kinds.get_mut(&kind) else {
            return Ok(());
        };
        state.was_named = true;
        let name = Name::from(name);
        let entry = state.entries.entry(name.clone()).or_default();
        if !std::mem::replace(&mut entry.named, true) {
            if self.subscriptions >= limits.subscriptions {
                return Err(Refused::exhausted(format!(
                    "the stream subscribes to more than {} names",
                    limits.subscriptions
                )));
            }
            state.named += 1;
            self.subscriptions += 1;
            self.fresh.push(name.clone());
        }
        if let Some(in_flight) = &mut state.in_flight {
            // Dropped and asked for again, the name may be in there as it no longer is: what the
            // client holds is known only when the next response is answered.
            in_flight.covers = None;
        }
        // Who resumes and says which version it has is only sent another one.
        let why = match resumed && entry.sent.is_some() {
            true => Why::Changed,
            false => Why::Asked,
        };
        state.note(name.clone(), why, &mark, None);
        state.pending.first.get_or_insert(now);
        self.add_members(kind, &name, resumed, now);
        Ok(())
    }

    fn drop_name(&mut self, kind: TypeUrl, name: &str, now: Instant) {
        if name == WILDCARD {
            return self.drop_wildcard(kind);
        }
        let mark = self.mark.clone();
        let Some(state) = self.kinds.get_mut(&kind) else {
            return;
        };
        let Some((name, entry)) = state.entries.get_key_value(name) else {
            return;
        };
        if !entry.named {
            return;
        }
        let name = name.clone();
        state.named -= 1;
        self.subscriptions -= 1;
        if state.globs.remove(&name) {
            state.forget(&name);
            return self.drop_unwanted(kind);
        }
        if !state.covers(&name) {
            return state.forget(&name);
        }
        // Everything is still subscribed to, and the client cannot know whether this is part of
        // it: it has to be told.
        if let Some(entry) = state.entries.get_mut(&name) {
            entry.named = false;
        }
        state.note(name, Why::Asked, &mark, None);
        state.pending.first.get_or_insert(now);
        state.pending.answer |= self.options.variant == Variant::StateOfTheWorld;
    }

    // --- reconnection -------------------------------------------------------------------------

    /// Delta: a client that comes back says what it has.
    fn resume(&mut self, kind: TypeUrl, versions: HashMap<String, String>) -> Result<(), Refused> {
        let limits = &self.options.limits;
        if versions.len() > limits.subscriptions {
            return Err(Refused::exhausted(format!(
                "initial_resource_versions has {} entries; at most {} are allowed",
                versions.len(),
                limits.subscriptions
            )));
        }
        let Some(state) = self.kinds.get_mut(&kind) else {
            return Ok(());
        };
        state.resumed = !versions.is_empty();
        for (mut name, version) in versions {
            if name.len() <= limits.name_bytes {
                normalise(&mut name);
                let name = Name::from(name);
                state.entries.entry(name.clone()).or_default();
                state.hold(&name, Some(&version.into()));
            }
        }
        Ok(())
    }

    /// State of the world: a client that comes back and asks for everything need not be sent the
    /// version that it has. With names this would not be safe: they may be new.
    fn resume_whole(&mut self, kind: TypeUrl, version: &str, now: Instant) {
        let Some(state) = self.kinds.get_mut(&kind) else {
            return;
        };
        if !kind.absence_removes() || !state.wildcard || state.named > 0 {
            return;
        }
        let Some(all) = self.present.all_at(kind, &self.mark) else {
            return;
        };
        let mut digest = Digest::default();
        for one in &all {
            digest.add(&one.name, &one.version);
        }
        if *digest.version() != *version {
            return;
        }
        for one in &all {
            state.hold(&one.name, Some(&one.version));
            if let Some(ttl) = one.ttl.filter(|_| self.ttl) {
                state.heartbeats.start(&one.name, ttl, now);
            }
        }
        state.whole = all;
        state.pending = Pending::default();
        state.acked = Some(Stamp {
            version: version.into(),
            nonce: Name::default(),
            at: now,
        });
    }

    // --- events -------------------------------------------------------------------------------

    fn subscribed(&self, kind: TypeUrl) -> (bool, usize) {
        let state = self.kinds.get(&kind);
        state.map_or((false, 0), |state| (state.wildcard, state.named))
    }

    fn tell_subscribed(&mut self, kind: TypeUrl, before: (bool, usize)) {
        let (wildcard, named) = self.subscribed(kind);
        let fresh = std::mem::take(&mut self.fresh);
        if (wildcard, named) != before || !fresh.is_empty() {
            self.tell(Event::Subscribed {
                kind,
                wildcard,
                named,
                fresh,
            });
        }
    }
}
