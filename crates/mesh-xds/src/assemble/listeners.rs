//! Listeners, the tables that they wait for, and the addresses that they want.

mod addresses;
mod admission;
mod version;

pub use admission::{Admit, Permit};

use super::Assemble;
use super::links::shown;
use super::secrets::{Needs, User};
use super::tables::Answer;
use super::waits::{Awaited, Waits};
use crate::TypeUrl;
use crate::read::ListenerResource;
use mesh_core::model::{Listener, ListenerAddress, RouteTable};
use mesh_core::{Invalid, Name};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;
use version::{Version, check_inline};

/// The listeners.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    all: BTreeMap<Name, State>,
    /// Who has which address in its latest version.
    claims: HashMap<ListenerAddress, Name>,
    /// Who has which address in force.
    bound: HashMap<ListenerAddress, Name>,
    /// Those that may have what they wait for.
    check: BTreeSet<Name>,
    /// By ticket and name, the listeners whose tables are not settled.
    unheard: BTreeMap<(u64, Name), Unheard>,
}

/// A listener: the version in force, and the one that waits for its table.
#[derive(Debug, Default)]
struct State {
    fixed: bool,
    active: Option<Version>,
    /// What the version in force was given.
    permit: Option<Permit>,
    warming: Option<Warming>,
}

#[derive(Debug)]
struct Warming {
    version: Version,
    permit: Option<Permit>,
    ticket: u64,
    waits: Waits,
}

/// A version that came, before it is adopted.
struct Offer {
    resource: ListenerResource,
    permit: Option<Permit>,
    ticket: u64,
}

/// What is left to hear of the tables that came with a listener.
#[derive(Debug)]
struct Unheard {
    tables: usize,
    result: Result<(), Invalid>,
}

// === impl Listeners ===

impl Listeners {
    /// Whether the latest version of a listener waits for its table.
    pub(super) fn is_warming(&self, name: &str) -> bool {
        self.waiting(name).is_some()
    }

    /// Looks at what waits the next time.
    pub(super) fn check(&mut self, name: &str) {
        self.check.insert(name.into());
    }

    /// The secrets of the version in force.
    pub(super) fn needs(&self, name: &str) -> Option<&Needs> {
        let active = self.all.get(name)?.active.as_ref();
        active.map(|active| &active.needs)
    }

    /// The listeners in force.
    pub(super) fn active(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.all
            .values()
            .filter_map(|state| Some(&state.active.as_ref()?.listener))
    }
}

// === impl State ===

impl State {
    fn latest(&self) -> Option<&Version> {
        let warming = self.warming.as_ref().map(|warming| &warming.version);
        warming.or(self.active.as_ref())
    }

    /// What it was given for an address.
    fn permit_for(&self, address: &ListenerAddress) -> Option<&Permit> {
        let at = |version: &Version| version.listener.address == *address;
        let warming = self.warming.as_ref().filter(|left| at(&left.version));
        let active = self.active.as_ref().filter(|active| at(active));
        let warming = warming.and_then(|warming| warming.permit.as_ref());
        warming.or_else(|| active.and(self.permit.as_ref()))
    }
}

// === impl Assemble ===

impl Assemble {
    pub(super) fn set_listeners(
        &mut self,
        resources: Vec<(ListenerResource, u64)>,
        fixed: bool,
        now: Instant,
    ) {
        let mut batch: BTreeMap<Name, Offer> = BTreeMap::new();
        for (resource, ticket) in resources {
            let name = resource.listener.name.clone();
            let state = self.listeners.all.get(&name);
            let result = if state.is_some_and(|state| state.fixed) && !fixed {
                self.warn(format!(
                    "listener {name:?} is static; what the control plane sends has no effect"
                ));
                Ok(())
            } else if let Err(error) = check_inline(&resource) {
                Err(error)
            } else {
                let offer = Offer {
                    resource,
                    permit: None,
                    ticket,
                };
                let Some(older) = batch.insert(name.clone(), offer) else {
                    continue;
                };
                self.verdict(older.ticket, TypeUrl::Listener, &name, Ok(()));
                continue;
            };
            self.verdict(ticket, TypeUrl::Listener, &name, result);
        }
        // Before addresses are compared: who is not admitted elsewhere stays where it is.
        let admitted = |assemble: &mut Self, name: &Name, offer: &mut Offer| {
            if fixed {
                return true;
            }
            match assemble.admit(&offer.resource) {
                Ok(permit) => offer.permit = permit,
                Err(error) => {
                    assemble.verdict(offer.ticket, TypeUrl::Listener, name, Err(error));
                    return false;
                }
            }
            true
        };
        batch.retain(|name, offer| admitted(self, name, offer));
        let wanted = batch
            .iter()
            .map(|(name, offer)| (name.clone(), offer.resource.listener.address.clone()))
            .collect();
        let clashes = self.listeners.clashes(&wanted);
        for (name, offer) in batch {
            match clashes.get(&name) {
                Some(other) => {
                    let at = &offer.resource.listener.address;
                    let message = format!("{at} is the address of listener {other:?}");
                    let refused = Err(Invalid::new("address", message));
                    self.verdict(offer.ticket, TypeUrl::Listener, &name, refused);
                }
                None => self.set_listener(offer, fixed, now),
            }
        }
    }

    fn set_listener(&mut self, offer: Offer, fixed: bool, now: Instant) {
        let Offer {
            resource,
            permit,
            ticket,
        } = offer;
        let ListenerResource {
            listener,
            routes,
            secrets,
        } = resource;
        let name = listener.name.clone();
        let needs = Needs::of_listener(&listener, secrets);
        let read = self.check_needs(&needs);
        let read = read.and_then(|()| Version::of(listener, routes, needs));
        let (version, inline) = match read {
            Ok(read) => read,
            Err(error) => return self.verdict(ticket, TypeUrl::Listener, &name, Err(error)),
        };
        let latest = Warming {
            version,
            permit,
            ticket,
            waits: Waits::default(),
        };
        self.adopt_listener(&name, latest, fixed, now);
        if inline.is_empty() {
            return self.verdict(ticket, TypeUrl::Listener, &name, Ok(()));
        }
        // Heard of when the tables are settled.
        let unheard = Unheard {
            tables: inline.len(),
            result: Ok(()),
        };
        self.listeners
            .unheard
            .insert((ticket, name.clone()), unheard);
        for table in inline {
            let answer = Answer {
                ticket,
                kind: TypeUrl::Listener,
                name: name.clone(),
            };
            self.offer_table(table.name.clone(), table, Some(answer), now);
        }
    }

    /// Makes this the latest version of a listener.
    fn adopt_listener(&mut self, name: &Name, mut latest: Warming, fixed: bool, now: Instant) {
        let version = &latest.version;
        let state = self.listeners.all.entry(name.clone()).or_default();
        state.fixed = fixed;
        if let Some(warming) = &mut state.warming
            && warming.version == *version
        {
            warming.ticket = latest.ticket;
            return;
        }
        let left = state.warming.take();
        let back = state.active.as_ref() == Some(version);
        let before = left.as_ref().map(|left| &left.version);
        let before = before.or(state.active.as_ref());
        if let Some(address) = before.map(|before| before.listener.address.clone()) {
            self.listeners.unclaim(&address, name);
        }
        self.listeners
            .claims
            .insert(version.listener.address.clone(), name.clone());
        if !back {
            for (table, reference) in &version.tables {
                let reference = reference.as_ref();
                self.table_taken_up(table, now);
                self.tables.links.refer(table, reference, name);
                let wait = reference.and_then(|by| by.initial_fetch_timeout);
                latest.waits.add(Awaited::Table(table.clone()), wait, now);
            }
            let waits = &mut latest.waits;
            self.refer_secrets(User::Listener, name, &version.needs, waits, now);
            for at in latest.waits.instants() {
                self.deadlines.insert((at, TypeUrl::Listener, name.clone()));
            }
            if let Some(state) = self.listeners.all.get_mut(name) {
                state.warming = Some(latest);
            }
            self.listeners.check.insert(name.clone());
        }
        if let Some(left) = left {
            self.listener_left(name, &left.version, Some(&left.waits));
        }
    }

    pub(super) fn remove_listener(&mut self, name: &Name) {
        if self.listeners.all.get(name).is_none_or(|state| state.fixed) {
            return;
        }
        let Some(state) = self.listeners.all.remove(name) else {
            return;
        };
        if let Some(latest) = state.latest() {
            self.listeners.unclaim(&latest.listener.address, name);
        }
        if let Some(left) = state.warming {
            self.listener_left(name, &left.version, Some(&left.waits));
        }
        if let Some(left) = state.active {
            self.listeners.bound.remove(&left.listener.address);
            self.listener_left(name, &left, None);
            self.output.listeners = true;
            // Somebody may have waited for its address.
            let names: Vec<Name> = self.listeners.warming().cloned().collect();
            self.listeners.check.extend(names);
        }
    }

    /// What became of a table that came with a listener.
    pub(super) fn inline_answered(&mut self, answer: Answer, result: Result<(), Invalid>) {
        let Answer { ticket, name, .. } = answer;
        if result.is_err()
            && let Some(state) = self.listeners.all.get_mut(&name)
            && let Some(left) = state.warming.take_if(|left| left.ticket == ticket)
        {
            let address = state.active.as_ref();
            let address = address.map(|active| active.listener.address.clone());
            self.listeners
                .unclaim(&left.version.listener.address, &name);
            match address {
                Some(address) => {
                    self.listeners.claims.insert(address, name.clone());
                }
                None => {
                    self.listeners.all.remove(&name);
                }
            }
            self.listener_left(&name, &left.version, Some(&left.waits));
        }
        self.listeners.check.insert(name.clone());
        let at = (ticket, name);
        let Some(unheard) = self.listeners.unheard.get_mut(&at) else {
            return;
        };
        unheard.tables -= 1;
        if let (Ok(()), Err(error)) = (&unheard.result, result) {
            unheard.result = Err(error.within("route_config"));
        }
        if unheard.tables > 0 {
            return;
        }
        if let Some(unheard) = self.listeners.unheard.remove(&at) {
            self.verdict(ticket, TypeUrl::Listener, &at.1, unheard.result);
        }
    }

    /// A table came into force, or is known not to exist.
    pub(super) fn listeners_check(&mut self, table: &Name) {
        if let Some(link) = self.tables.links.get(table) {
            self.listeners.check.extend(link.users.iter().cloned());
        }
    }

    /// Brings into force the listeners whose tables are, as far as their addresses are free.
    pub(super) fn warm_listeners(&mut self) {
        let check = std::mem::take(&mut self.listeners.check);
        let mut ready: BTreeMap<Name, ListenerAddress> = BTreeMap::new();
        for name in check {
            let Some(version) = self.listeners.waiting(&name) else {
                continue;
            };
            let address = version.listener.address.clone();
            // A table that came with its listener comes into force with it.
            let pending = version
                .tables
                .iter()
                .any(|(table, reference)| reference.is_none() && self.tables.is_pending(table));
            if pending {
                continue;
            }
            let tables: Vec<Name> = version.tables.keys().cloned().collect();
            for table in &tables {
                let link = self.tables.links.entry(table);
                if link.value.is_none() && link.absent {
                    self.go_on_without(table);
                }
            }
            let link = |table: &Name| self.tables.links.get(table);
            let has = |table: &Name| link(table).is_some_and(|link| link.value.is_some());
            let secrets = self.listeners.all.get(&name);
            let secrets = secrets.and_then(|state| state.warming.as_ref());
            let secrets =
                secrets.is_some_and(|left| self.has_secrets(&left.version.needs, &left.waits));
            if secrets && tables.iter().all(has) {
                ready.insert(name, address);
            }
        }
        for blocked in self.listeners.blocked(&mut ready) {
            self.listeners.check.insert(blocked);
        }
        // All old addresses first: two may swap theirs.
        for name in ready.keys() {
            let state = self.listeners.all.get(name);
            if let Some(active) = state.and_then(|state| state.active.as_ref()) {
                self.listeners.bound.remove(&active.listener.address);
            }
        }
        for (name, address) in ready {
            let Some(state) = self.listeners.all.get_mut(&name) else {
                continue;
            };
            let Some(Warming {
                version,
                permit,
                waits,
                ..
            }) = state.warming.take()
            else {
                continue;
            };
            let needs = version.needs.clone();
            let old = state.active.replace(version);
            state.permit = permit;
            self.listeners.bound.insert(address, name.clone());
            self.output.listeners = true;
            self.output.tables = true;
            self.listener_waits_no_more(&name, &waits);
            self.give_secrets(&needs);
            if let Some(old) = old {
                self.listener_left(&name, &old, None);
            }
        }
    }

    /// The time for something that it waits for is up.
    pub(super) fn listener_waited(&mut self, name: &Name, at: Instant) {
        let state = self.listeners.all.get_mut(name);
        let Some(warming) = state.and_then(|state| state.warming.as_mut()) else {
            return;
        };
        for what in warming.waits.expire(at) {
            match what {
                Awaited::Table(table) => {
                    if self.tables.links.entry(&table).value.is_none() {
                        self.warn(format!(
                            "listener {name:?} did not get its route table {table:?} in time; it \
                             goes on with an empty one"
                        ));
                        self.go_on_without(&table);
                    }
                }
                Awaited::Secret(key) => {
                    let link = self.secrets.links.get(&key);
                    if link.is_none_or(|link| link.value.is_none()) {
                        self.warn(format!(
                            "listener {name:?} did not get its secret {:?} in time; it goes on \
                             without it",
                            shown(&key)
                        ));
                    }
                }
                Awaited::Endpoints => {}
            }
        }
        self.listeners.check.insert(name.clone());
    }

    fn listener_waits_no_more(&mut self, name: &Name, waits: &Waits) {
        for at in waits.instants() {
            self.deadlines
                .remove(&(at, TypeUrl::Listener, name.clone()));
        }
    }

    fn go_on_without(&mut self, table: &Name) {
        let empty = RouteTable::new(table.clone());
        self.tables.links.entry(table).value = Some(Arc::new(empty));
        self.output.tables = true;
    }

    /// A version of a listener that is no longer wanted lets go of its tables and secrets, unless
    /// another version uses them too.
    fn listener_left(&mut self, name: &Name, version: &Version, waits: Option<&Waits>) {
        if let Some(waits) = waits {
            self.listener_waits_no_more(name, waits);
        }
        let state = self.listeners.all.get(name);
        let others = state.into_iter().flat_map(|state| {
            let warming = state.warming.as_ref().map(|warming| &warming.version);
            state.active.iter().chain(warming)
        });
        for table in version.tables.keys() {
            let mut others = others.clone();
            if !others.any(|other| other.tables.contains_key(table)) {
                self.tables.links.release(table, name);
            }
        }
        let others = others.map(|version| &version.needs);
        let links = &mut self.secrets.links;
        Self::release_secrets(links, User::Listener, name, &version.needs, others);
    }
}
