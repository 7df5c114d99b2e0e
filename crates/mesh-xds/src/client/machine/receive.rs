//! Responses, checked and taken apart.

use super::answer::Answer;
use super::named::{self, Found};
use super::record::Refused;
use super::ticket::{Offered, Ticket};
use super::{Event, Machine, Response, Timer, Update};
use crate::pb::envoy::service::discovery::v3 as discovery;
use crate::pb::google::protobuf::{Any, Duration as ProtoDuration};
use crate::write::redacted_bytes as redacted;
use crate::{TypeUrl, xdstp};
use bytes::Bytes;
use mesh_core::Name;
use prost::Message;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};
use zeroize::{Zeroize, Zeroizing};

/// Wraps a resource in state of the world, to give it a TTL.
const WRAPPER: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

/// A response in either variant.
struct Parts {
    url: String,
    nonce: String,
    version: String,
    items: Vec<Item>,
    removed: Vec<String>,
    /// It has everything that was asked for, so that what is left out is removed.
    whole: bool,
}

/// A resource in a response.
struct Item {
    /// Empty if it cannot be told.
    name: String,
    version: Name,
    /// None: only a sign of life.
    body: Option<Body>,
    ttl: Option<Duration>,
    /// VHDS: names that were asked for and that it is the answer to.
    aliases: Vec<String>,
    /// What is wrong with its wrapper.
    broken: Option<String>,
}

/// The bytes of a resource, which are wiped with it if they may be a secret: whatever becomes of
/// the response.
struct Body(Any);

// === impl Machine ===

impl<R> Machine<R> {
    /// Takes in a response.
    pub fn receive(&mut self, response: Response, now: Instant) {
        // Before anything else: what comes of it is wiped, be it of use or not.
        let mut parts = match response {
            Response::Delta(response) => Parts::delta(*response),
            Response::Sotw(response) => Parts::sotw(*response),
        };
        let Some(stream) = &mut self.stream else {
            return;
        };
        stream.answered = true;
        let server = stream.server.clone();
        self.backoff.reset();
        parts.normalise();
        let kind = TypeUrl::from_url(&parts.url);
        // Before anything is refused: what is refused was attempted.
        if let Some(all) = kind.and_then(|kind| self.kinds.get_mut(&kind)) {
            all.status.update_attempt += 1;
        }
        let asked = |kind: &TypeUrl| self.kinds.get(kind).is_some_and(|all| all.asked);
        let Some(kind) = kind.filter(asked) else {
            let error = "resources of this type were not asked for".to_owned();
            return self.refuse(parts, kind, error);
        };
        if let Some(all) = self.kinds.get_mut(&kind) {
            all.nonce.clone_from(&parts.nonce);
            all.answered = true;
        }
        if let Err(error) = self.check(&parts) {
            return self.refuse(parts, Some(kind), error);
        }
        self.take(parts, kind, server, now);
    }

    /// Refuses a response as a whole.
    fn refuse(&mut self, parts: Parts, kind: Option<TypeUrl>, error: String) {
        if let Some(all) = kind.and_then(|kind| self.kinds.get_mut(&kind)) {
            all.status.update_rejected += 1;
            all.status.last_refusal = Some(error.clone());
        }
        self.events
            .push_back(Event::Refused(parts.url.clone(), error.clone()));
        self.requests.push_back(Answer {
            url: parts.url,
            kind,
            nonce: parts.nonce,
            error: Some(error),
        });
    }

    /// What makes a response unusable as a whole.
    fn check(&self, parts: &Parts) -> Result<(), String> {
        let limits = &self.config.limits;
        let count = parts.items.len() + parts.removed.len();
        if count > limits.resources {
            let most = limits.resources;
            return Err(format!(
                "{count} resources in one response; the most is {most}"
            ));
        }
        let mut seen = HashSet::with_capacity(count);
        let names = parts.items.iter().map(|item| &item.name);
        for name in names.chain(&parts.removed) {
            if name.len() > limits.name {
                let most = limits.name;
                return Err(format!(
                    "a name of {} bytes; the most is {most}",
                    name.len()
                ));
            }
            if !name.is_empty() && !seen.insert(name) {
                return Err(format!("resource {name:?} is in the response twice"));
            }
        }
        Ok(())
    }

    /// Takes a checked response apart and hands it on.
    fn take(&mut self, parts: Parts, kind: TypeUrl, server: Name, now: Instant) {
        let number = self.next_ticket;
        self.next_ticket += 1;
        // Of endpoints, which are many and change often, what is in force says it all.
        let said = matches!(kind, TypeUrl::Endpoints | TypeUrl::NameTable);
        let keeps_bodies = self.config.keep_bodies && !said;
        let keeps = self.config.ignore_resource_deletion && kind.absence_removes();
        let Some(all) = self.kinds.get_mut(&kind) else {
            return;
        };
        let mut removed: Vec<Name> = Vec::new();
        if parts.whole && kind.absence_removes() && parts.items.iter().all(Item::has_name) {
            let present: HashSet<&str> =
                parts.items.iter().map(|item| item.name.as_str()).collect();
            let absent = all.records.iter().filter(|(name, record)| {
                !present.contains(name.as_str()) && record.is_held() && all.wants(name)
            });
            removed.extend(absent.map(|(name, _)| name.clone()));
            // What was refused and is no longer there is no longer of interest.
            all.records.retain(|name, record| {
                record.named || record.is_held() || present.contains(name.as_str())
            });
        } else {
            let known = |name: &String| all.records.contains_key(name.as_str());
            removed.extend(
                parts
                    .removed
                    .iter()
                    .filter(|name| known(name))
                    .map(Name::from),
            );
        }
        if keeps {
            // What never came cannot be kept: whoever waits for it has to know (gRFC A53 keeps
            // what the client has).
            let held = |name: &Name| all.records.get(name).is_some_and(|one| one.is_held());
            removed.retain(|name| !held(name));
        }

        let mut ticket = Ticket {
            kind,
            nonce: parts.nonce,
            version: parts.version,
            server,
            waiting: HashMap::new(),
            refused: Vec::new(),
            moves: Vec::new(),
            handed_over: false,
        };
        let mut resources = Vec::with_capacity(parts.items.len());
        let mut alive = Vec::new();
        // VHDS: which names that were asked for lead to what, and which to nothing.
        let mut resolved = Vec::new();
        let mut unresolved = Vec::new();
        let mut unusable = Vec::new();
        for (at, item) in parts.items.into_iter().enumerate() {
            if !item.has_name() {
                let reason = item.broken.unwrap_or_else(|| "has no name".to_owned());
                ticket.refused.push((format!("resources[{at}]"), reason));
                unusable.extend(item.aliases.iter().map(Name::from));
                continue;
            }
            // Passed over: it was not asked for, or not any more.
            if !all.wants_any(&item.name, &item.aliases) {
                continue;
            }
            let name = Name::from(item.name.as_str());
            let expires = item.ttl.map(|ttl| now + ttl);
            let Some(body) = item.body else {
                if kind == TypeUrl::VirtualHost {
                    unresolved.extend(item.aliases.iter().map(Name::from));
                    unresolved.push(name.clone());
                }
                let known = all.records.get(&name).and_then(|r| r.accepted.as_ref());
                let same = |version: &Name| item.version.is_empty() || *version == item.version;
                if known.is_some_and(|(version, _)| same(version)) {
                    alive.push((name, expires));
                }
                continue;
            };
            if !all.records.contains_key(&name) && all.records.len() >= self.config.limits.resources
            {
                let reason = format!("more than {} of this type", self.config.limits.resources);
                ticket.refused.push((item.name, reason));
                unusable.extend(item.aliases.iter().map(Name::from));
                unusable.push(name);
                continue;
            }
            let record = all.records.entry(name.clone()).or_default();
            record.again = 0;
            if let Some(at) = record.missing_at.take() {
                self.timers
                    .remove(&(at, kind, name.clone(), Timer::Missing));
            }
            let read = if let Some(broken) = item.broken {
                Err(broken)
            } else if body.0.type_url == kind.url() {
                (self.decode)(kind, &body.0.value).map_err(|error| error.to_string())
            } else {
                Err(format!("is a {}", body.0.type_url))
            };
            let version = item.version;
            let kept = keeps_bodies && body.0.type_url == kind.url();
            let body = kept.then(|| redacted(kind, &body.0.value));
            match read {
                Ok(resource) => {
                    record.offered += 1;
                    // Only now: an alias does not leave what is in force for what cannot be read.
                    for alias in &item.aliases {
                        if let Some((alias, of)) = all.records.get_key_value(alias.as_str())
                            && *alias != name
                            && of.named
                        {
                            resolved.push((alias.clone(), name.clone()));
                        }
                    }
                    let offered = Offered {
                        version,
                        body,
                        expires,
                    };
                    ticket.waiting.insert(name.clone(), offered);
                    resources.push((name, resource));
                }
                Err(reason) => {
                    record.refused = Some(Refused {
                        version,
                        reason: super::ticket::shortened(&reason).to_owned(),
                        body,
                    });
                    ticket.refused.push((item.name, reason));
                    unusable.extend(item.aliases.iter().map(Name::from));
                    unusable.push(name);
                }
            }
        }
        for name in &removed {
            self.removed(kind, name, number);
        }
        let (moves, instead) = self.hold_back(kind, &mut resolved, &removed);
        ticket.moves = moves;
        let mut left = Vec::new();
        if let Some(all) = self.kinds.get_mut(&kind) {
            for (alias, name) in resolved {
                if let Some(record) = all.records.get_mut(&alias) {
                    record.missing = false;
                }
                left.extend(all.lead(&alias, Some(name), number));
            }
        }
        self.led_nowhere(kind, &removed);
        for name in unresolved {
            left.extend(self.is_unresolved(kind, &name));
        }
        // What no alias leads to any more goes together with what came in its place.
        for name in left {
            let came = ticket.waiting.contains_key(&name);
            let known = self.kinds.get(&kind).and_then(|all| all.records.get(&name));
            let held = known.is_some_and(|one| one.is_held());
            if held && !came && !self.is_asked_for(kind, &name) {
                self.removed(kind, &name, number);
                removed.push(name);
            }
        }
        for name in unusable {
            self.is_unusable(kind, &name);
        }
        for (name, expires) in alive {
            self.expires(kind, &name, expires);
        }
        if let Some(all) = self.kinds.get_mut(&kind) {
            all.unanswered.push_back(number);
        }
        self.tickets.insert(number, ticket);
        self.events.push_back(Event::Update(Update {
            ticket: number,
            kind,
            resources,
            instead,
            removed,
        }));
    }

    /// A resource went.
    pub(super) fn removed(&mut self, kind: TypeUrl, name: &Name, ticket: u64) {
        self.expires(kind, name, None);
        let Some(all) = self.kinds.get_mut(&kind) else {
            return;
        };
        if let Some(record) = all.records.get_mut(name) {
            if let Some(at) = record.missing_at.take() {
                self.timers
                    .remove(&(at, kind, name.clone(), Timer::Missing));
            }
            record.accepted = None;
            record.body = None;
            record.refused = None;
            record.missing = true;
            record.newest = ticket;
            all.changed = all.changed.max(ticket);
        }
        all.tidy(name);
    }

    /// The time for a resource to come is up.
    pub(super) fn is_missing(&mut self, kind: TypeUrl, name: Name) {
        let all = self.kinds.get_mut(&kind);
        if let Some(record) = all.and_then(|all| all.records.get_mut(&name)) {
            record.missing_at = None;
            record.missing = true;
            self.events.push_back(Event::Missing(kind, name));
        }
    }

    /// The TTL of a resource has passed: it is removed, and nobody has to be told.
    pub(super) fn is_expired(&mut self, kind: TypeUrl, name: Name) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        if let Some(all) = self.kinds.get_mut(&kind)
            && let Some(record) = all.records.get_mut(&name)
        {
            record.expires = None;
        }
        self.removed(kind, &name, ticket);
        self.events.push_back(Event::Update(Update {
            ticket,
            kind,
            resources: Vec::new(),
            instead: Vec::new(),
            removed: vec![name],
        }));
    }
}

// === impl Parts ===

impl Parts {
    fn delta(response: discovery::DeltaDiscoveryResponse) -> Self {
        let mut removed = response.removed_resources;
        removed.extend(response.removed_resource_names.into_iter().map(|n| n.name));
        Self {
            url: response.type_url,
            nonce: response.nonce,
            version: response.system_version_info,
            items: response.resources.into_iter().map(Item::wrapped).collect(),
            removed,
            whole: false,
        }
    }

    /// Gives structured names the one form in which they are asked for.
    fn normalise(&mut self) {
        let names = self.items.iter_mut().map(|item| &mut item.name);
        for name in names.chain(&mut self.removed) {
            if let Cow::Owned(form) = xdstp::canonical(name) {
                *name = form;
            }
        }
    }

    fn sotw(response: discovery::DiscoveryResponse) -> Self {
        let version = Name::from(response.version_info.as_str());
        let item = |any: Any| {
            if any.type_url != WRAPPER {
                return Item {
                    name: Found::of(&any).into_text(),
                    version: version.clone(),
                    body: Some(Body(any)),
                    ttl: None,
                    aliases: Vec::new(),
                    broken: None,
                };
            }
            // Of bytes like these no copy is made on the way, which would stay in memory; and not
            // `decode`, which would leave what it read behind when it fails.
            let bytes = Bytes::from_owner(Zeroizing::new(any.value));
            let mut resource = discovery::Resource::default();
            match resource.merge(bytes.clone()) {
                Ok(()) => Item {
                    version: version.clone(),
                    ..Item::wrapped(resource)
                },
                Err(error) => {
                    let body = resource.resource.unwrap_or_default();
                    Item {
                        name: named::in_wrapper(&bytes),
                        version: version.clone(),
                        body: Some(Body(body)),
                        ttl: None,
                        aliases: Vec::new(),
                        broken: Some(format!("its wrapper cannot be read: {error}")),
                    }
                }
            }
        };
        Self {
            url: response.type_url,
            nonce: response.nonce,
            items: response.resources.into_iter().map(item).collect(),
            version: response.version_info,
            removed: Vec::new(),
            whole: true,
        }
    }
}

// === impl Item ===

impl Item {
    fn wrapped(resource: discovery::Resource) -> Self {
        let inner = resource.resource.as_ref().map(Found::of);
        let (name, broken) = match inner {
            Some(inner) if resource.name.is_empty() => (inner.into_text(), None),
            // Of what cannot be read, the reading says why.
            // A virtual host and its resource need not be called the same (Envoy).
            Some(Found::Said(inner))
                if xdstp::canonical(&inner) != xdstp::canonical(&resource.name)
                    && !is_virtual_host(resource.resource.as_ref()) =>
            {
                let broken = format!("the resource itself is called {inner:?}");
                (resource.name, Some(broken))
            }
            _ => (resource.name, None),
        };
        Self {
            name,
            version: resource.version.into(),
            body: resource.resource.map(Body),
            ttl: resource.ttl.as_ref().and_then(positive),
            aliases: resource.aliases,
            broken,
        }
    }

    fn has_name(&self) -> bool {
        !self.name.is_empty()
    }
}

// === impl Body ===

impl Drop for Body {
    fn drop(&mut self) {
        // What does not say what it is may be one, too: a wrapper that was cut off.
        if self.0.type_url.is_empty() || self.0.type_url == TypeUrl::Secret.url() {
            self.0.value.zeroize();
        }
    }
}

fn is_virtual_host(any: Option<&Any>) -> bool {
    any.is_some_and(|any| any.type_url == TypeUrl::VirtualHost.url())
}

fn positive(duration: &ProtoDuration) -> Option<Duration> {
    let seconds = u64::try_from(duration.seconds).ok()?;
    let nanos = u32::try_from(duration.nanos).ok()?;
    // A century is as good as for ever, and can be added to any time.
    let whole = Duration::from_secs(seconds.min(3_155_760_000))
        .saturating_add(Duration::from_nanos(u64::from(nanos)));
    (!whole.is_zero()).then_some(whole)
}
