//! What is known of the resources of one type.

use crate::xdstp;
use bytes::Bytes;
use mesh_core::Name;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Instant;

/// The resources of one type, and where its part of the stream stands.
#[derive(Debug, Default)]
pub(super) struct Kind {
    /// Everything is asked for.
    pub(super) wildcard: bool,
    pub(super) records: BTreeMap<Name, Record>,
    /// VHDS: the tables whose virtual hosts are taken in.
    pub(super) tables: BTreeSet<Name>,
    /// VHDS: the aliases that lead to each resource ([`Record::leads_to`], the other way round).
    pub(super) aliases: HashMap<Name, BTreeSet<Name>>,
    /// Delta: the glob collections among the names that are asked for.
    pub(super) globs: BTreeSet<Name>,
    /// How many of the records are asked for by name.
    pub(super) named: usize,
    /// A request for this type was sent on this stream.
    pub(super) asked: bool,
    /// Names to be sent with the next request.
    pub(super) subscribe: BTreeSet<Name>,
    pub(super) unsubscribe: BTreeSet<Name>,
    /// VHDS: names that this stream's server need not send any more. What it sends for them has
    /// crossed that message, and it will tell nothing more of it. Forgotten when there are too many.
    pub(super) taken_back: BTreeSet<Name>,
    /// State of the world: names in requests of this stream.
    pub(super) told: BTreeSet<Name>,
    /// State of the world: names to be left out of the next request and to be in the one after.
    pub(super) again: BTreeSet<Name>,
    /// The last nonce of this stream.
    pub(super) nonce: String,
    /// State of the world: the version in force, and the server that it is from.
    pub(super) version: String,
    pub(super) version_from: Option<Name>,
    /// The tickets of the last thing that came into force or went, and of the last response that
    /// was accepted as a whole.
    pub(super) changed: u64,
    pub(super) whole: u64,
    /// Responses that were not answered yet, oldest first.
    pub(super) unanswered: VecDeque<u64>,
    /// A response came, on this or an earlier stream.
    pub(super) answered: bool,
    pub(super) status: KindStatus,
}

/// What is known of one resource.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// It is asked for by name, for one of the two reasons that follow.
    pub(super) named: bool,
    /// It is asked for for good.
    pub(super) lasting: bool,
    /// It is asked for because a request wants it.
    pub(super) on_demand: bool,
    /// VHDS: it is an alias, and this is the resource that it leads to.
    pub(super) leads_to: Option<Name>,
    /// VHDS: the ticket that decided what it leads to.
    pub(super) led_by: u64,
    /// The server of this stream was told that it is asked for by name.
    pub(super) told: bool,
    /// The version in force, and the server that it is from.
    pub(super) accepted: Option<(Name, Name)>,
    /// The bytes of that version, if they are kept.
    pub(super) body: Option<Bytes>,
    /// The ticket of the latest thing that happened to it.
    pub(super) newest: u64,
    /// State of the world: it was asked for before on this stream and has not come since; how
    /// often it is left out of an answer for that.
    pub(super) again: u8,
    /// How many updates with it wait for their verdict.
    pub(super) offered: usize,
    /// When its TTL passes.
    pub(super) expires: Option<Instant>,
    /// When it is taken to be missing.
    pub(super) missing_at: Option<Instant>,
    /// Its source says that it does not exist, or its time is up.
    pub(super) missing: bool,
    /// The latest version was refused, and why.
    pub(super) refused: Option<Refused>,
}

/// A version that was refused.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) version: Name,
    pub(super) reason: String,
    pub(super) body: Option<Bytes>,
}

/// What is known of a type of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KindStatus {
    /// The version of the last response of which everything was accepted: `version_info`, or
    /// `system_version_info`.
    pub version: String,
    /// Responses that came (Envoy's `update_attempt`).
    pub update_attempt: u64,
    /// Responses that were accepted (Envoy's `update_success`).
    pub update_success: u64,
    /// Responses of which something was refused (Envoy's `update_rejected`).
    pub update_rejected: u64,
    /// What the last refusal said. Stays when later responses are accepted.
    pub last_refusal: Option<String>,
}

/// What is known of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResourceStatus {
    /// Its name.
    pub name: Name,
    /// The version in force.
    pub version: Option<Name>,
    /// How it stands.
    pub state: ResourceState,
    /// The bytes of the version in force, if they are [kept](crate::client::Builder::keep_bodies).
    pub body: Option<Bytes>,
    /// The bytes of the version that was refused, if they are kept and there is one.
    pub refused_body: Option<Bytes>,
    /// The latest version is accepted and waits for what it refers to; an older one, or none, is in
    /// force. Known of listeners and clusters in [`Handle::resources`](crate::client::Handle::resources).
    pub waits: bool,
}

/// How a resource stands (CSDS `ClientResourceStatus`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResourceState {
    /// Asked for; nothing came.
    Requested,
    /// It does not exist.
    DoesNotExist,
    /// The latest version is accepted.
    Accepted,
    /// The latest version was refused; an older one may be in force.
    Refused {
        /// The version that was refused.
        version: Name,
        /// Why.
        reason: String,
    },
}

// === impl KindStatus ===

impl KindStatus {
    /// Counts what another machine counted for the same type.
    pub(in crate::client) fn add(&mut self, other: Self) {
        self.update_attempt += other.update_attempt;
        self.update_success += other.update_success;
        self.update_rejected += other.update_rejected;
        if self.version.is_empty() {
            self.version = other.version;
        }
        self.last_refusal = self.last_refusal.take().or(other.last_refusal);
    }
}

// === impl Kind ===

/// The most names that are noted as taken back; only those of a moment ago matter.
const TAKEN_BACK: usize = 1_000;

impl Kind {
    pub(super) fn wants(&self, name: &str) -> bool {
        self.wildcard
            || self.records.get(name).is_some_and(|record| record.named)
            || self.is_member(name)
            || self.is_of_followed(name) && !self.taken_back.contains(name)
    }

    /// Whether a resource is wanted that has these aliases. One that has them was sent for their
    /// sake: it is not unasked for when all of them were taken back.
    pub(super) fn wants_any(&self, name: &str, aliases: &[String]) -> bool {
        let named = |name: &str| self.records.get(name).is_some_and(|record| record.named);
        let back = |alias: &String| self.taken_back.contains(alias.as_str()) && !named(alias);
        let aliases_want = aliases.iter().any(|alias| self.wants(alias));
        let all_back = !aliases.is_empty() && aliases.iter().all(back);
        aliases_want || self.wants(name) && (!all_back || self.wildcard || named(name))
    }

    fn is_of_followed(&self, name: &str) -> bool {
        let table = name.rsplit_once('/').map(|(table, _)| table);
        table.is_some_and(|table| self.tables.contains(table))
    }

    /// The server hears that this is no longer asked for.
    pub(super) fn is_taken_back(&mut self, name: &Name) {
        self.unsubscribe.insert(name.clone());
        if self.is_of_followed(name) {
            if self.taken_back.len() >= TAKEN_BACK {
                self.taken_back.clear();
            }
            self.taken_back.insert(name.clone());
        }
    }

    /// Whether it is in a glob collection that is asked for.
    pub(super) fn is_member(&self, name: &str) -> bool {
        !self.globs.is_empty()
            && xdstp::glob_of(name).is_some_and(|glob| self.globs.contains(glob.as_str()))
    }

    /// What is known of a glob collection.
    pub(super) fn members<'a>(
        &'a self,
        glob: &str,
    ) -> impl Iterator<Item = (&'a Name, &'a Record)> {
        let (glob, prefix) = (glob.to_owned(), xdstp::prefix_of_glob(glob));
        let from = Name::from(prefix.as_str());
        let records = self.records.range(from..);
        let records = records.take_while(move |(name, _)| name.starts_with(&prefix));
        records.filter(move |(name, _)| xdstp::glob_of(name).is_some_and(|of| of == glob))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        let named = self.records.iter().filter(|(_, record)| record.named);
        named.map(|(name, _)| name)
    }

    /// A response was answered.
    pub(super) fn answered_with(
        &mut self,
        ticket: u64,
        version: &str,
        server: &Name,
        error: Option<&str>,
    ) {
        if let Some(error) = error {
            self.status.update_rejected += 1;
            self.status.last_refusal = Some(error.to_owned());
            return;
        }
        self.whole = self.whole.max(ticket);
        self.status.update_success += 1;
        version.clone_into(&mut self.version);
        self.version_from = Some(server.clone());
        version.clone_into(&mut self.status.version);
    }

    /// Drops a record about which there is nothing to know.
    pub(super) fn tidy(&mut self, name: &str) {
        if self.records.get(name).is_some_and(Record::is_empty) {
            self.records.remove(name);
        }
    }

    pub(super) fn stream_closed(&mut self) {
        // What is in force now, or will be once it is decided, may not be what the version says. A
        // server that has just this version again would send nothing.
        if self.changed > self.whole || !self.unanswered.is_empty() {
            self.version.clear();
        }
        self.asked = false;
        self.nonce.clear();
        self.unanswered.clear();
        // The first request of the next stream says all.
        self.subscribe.clear();
        self.unsubscribe.clear();
        self.taken_back.clear();
        self.told.clear();
        self.again.clear();
        for record in self.records.values_mut() {
            record.missing_at = None;
            record.again = 0;
            record.told = false;
        }
    }

    pub(super) fn resources(&self) -> impl Iterator<Item = ResourceStatus> {
        self.records.iter().map(|(name, record)| ResourceStatus {
            name: name.clone(),
            version: record.accepted.as_ref().map(|(version, _)| version.clone()),
            state: record.state(),
            body: record.body.clone(),
            refused_body: record
                .refused
                .as_ref()
                .and_then(|refused| refused.body.clone()),
            waits: false,
        })
    }

    pub(super) fn has_everything(&self) -> bool {
        let has = |record: &Record| record.accepted.is_some();
        let there = |(name, record): (&Name, &Record)| {
            // A fallback to another server is not for the sake of what a request wants.
            !record.lasting
                || has(record)
                || record.missing
                || (self.globs.contains(name) && self.members(name).any(|(_, member)| has(member)))
        };
        (!self.wildcard || self.answered) && self.records.iter().all(there)
    }
}

// === impl Record ===

impl Record {
    /// Whether somebody else may have it.
    pub(super) fn is_held(&self) -> bool {
        self.accepted.is_some() || self.offered > 0
    }

    fn is_empty(&self) -> bool {
        !self.named && self.accepted.is_none() && self.refused.is_none() && self.offered == 0
    }

    fn state(&self) -> ResourceState {
        if let Some(refused) = &self.refused {
            return ResourceState::Refused {
                version: refused.version.clone(),
                reason: refused.reason.clone(),
            };
        }
        match (&self.accepted, self.missing) {
            (Some(_), _) => ResourceState::Accepted,
            (None, true) => ResourceState::DoesNotExist,
            (None, false) => ResourceState::Requested,
        }
    }
}
