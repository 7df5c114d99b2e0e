//! Listeners, the tables that they wait for, and the addresses that they want.

mod addresses;
mod admission;

pub use admission::{Admit, Permit};

use super::Assemble;
use super::links::{inline_key, key};
use super::tables::Answer;
use crate::TypeUrl;
use crate::read::{ListenerResource, Reference, RouteSource};
use mesh_core::model::{Filter, Listener, RouteTable};
use mesh_core::{Invalid, Name};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// The listeners.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    all: BTreeMap<Name, State>,
    /// Who has which address in its latest version.
    claims: HashMap<SocketAddr, Name>,
    /// Who has which address in force.
    bound: HashMap<SocketAddr, Name>,
    /// Those that may have what they wait for.
    check: BTreeSet<Name>,
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
    deadline: Option<Instant>,
}

/// A version that came, before it is adopted.
struct Offer {
    resource: ListenerResource,
    permit: Option<Permit>,
    ticket: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Version {
    listener: Arc<Listener>,
    /// The name of its table in snapshots.
    table: Name,
    /// How the table is referred to; None came with the listener.
    reference: Option<Reference>,
}

// === impl Listeners ===

impl Listeners {
    /// Whether the latest version of a listener waits for its table.
    pub(super) fn is_warming(&self, name: &str) -> bool {
        self.waiting(name).is_some()
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
    fn permit_for(&self, address: SocketAddr) -> Option<&Permit> {
        let at = |version: &Version| version.listener.address == address;
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
            } else if let [RouteSource::Inline(table)] = resource.routes.as_slice()
                && let Err(error) = table.check_domains()
            {
                Err(error.within("route_config"))
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
            .map(|(name, offer)| (name.clone(), offer.resource.listener.address))
            .collect();
        let clashes = self.listeners.clashes(&wanted);
        for (name, offer) in batch {
            match clashes.get(&name) {
                Some(other) => {
                    let at = offer.resource.listener.address;
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
            mut routes,
            secrets: _,
        } = resource;
        let name = listener.name.clone();
        let (Some(routes), true) = (routes.pop(), routes.is_empty()) else {
            let refused = Err(Invalid::new("filter_chains", "not supported yet"));
            return self.verdict(ticket, TypeUrl::Listener, &name, refused);
        };
        let (table, reference, inline) = match routes {
            RouteSource::Named(by) => (key(&by.from, &by.name), Some(by), None),
            RouteSource::Inline(table) => (inline_key(&table.name, &name), None, Some(table)),
        };
        let version = match Version::of(listener, table, reference) {
            Ok(version) => version,
            Err(error) => return self.verdict(ticket, TypeUrl::Listener, &name, Err(error)),
        };
        let table = version.table.clone();
        let warming = Warming {
            version,
            permit,
            ticket,
            deadline: None,
        };
        self.adopt_listener(&name, warming, fixed, now);
        match inline {
            // Heard of when the table is settled.
            Some(mut routes) => {
                routes.name = table.clone();
                let kind = TypeUrl::Listener;
                let answer = Answer { ticket, kind, name };
                self.offer_table(table, Arc::new(*routes), Some(answer), now);
            }
            None => self.verdict(ticket, TypeUrl::Listener, &name, Ok(())),
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
        if let Some(address) = before.map(|before| before.listener.address) {
            self.listeners.unclaim(address, name);
        }
        self.listeners
            .claims
            .insert(version.listener.address, name.clone());
        if !back {
            let reference = version.reference.as_ref();
            self.table_taken_up(&version.table, now);
            self.tables.links.refer(&version.table, reference, name);
            let wait = reference.and_then(|by| by.initial_fetch_timeout);
            latest.deadline = wait.map(|wait| now + wait);
            if let Some(at) = latest.deadline {
                self.deadlines.insert((at, TypeUrl::Listener, name.clone()));
            }
            if let Some(state) = self.listeners.all.get_mut(name) {
                state.warming = Some(latest);
            }
            self.listeners.check.insert(name.clone());
        }
        if let Some(left) = left {
            self.listener_left(name, &left.version, left.deadline);
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
            self.listeners.unclaim(latest.listener.address, name);
        }
        if let Some(left) = state.warming {
            self.listener_left(name, &left.version, left.deadline);
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

    /// What became of the table that came with a listener.
    pub(super) fn inline_answered(&mut self, answer: Answer, result: Result<(), Invalid>) {
        let name = &answer.name;
        if result.is_err()
            && let Some(state) = self.listeners.all.get_mut(name)
            && let Some(left) = state.warming.take_if(|left| left.ticket == answer.ticket)
        {
            let address = state.active.as_ref().map(|active| active.listener.address);
            self.listeners.unclaim(left.version.listener.address, name);
            match address {
                Some(address) => {
                    self.listeners.claims.insert(address, name.clone());
                }
                None => {
                    self.listeners.all.remove(name);
                }
            }
            self.listener_left(name, &left.version, left.deadline);
        }
        self.listeners.check.insert(name.clone());
        let result = result.map_err(|error| error.within("route_config"));
        self.verdict(answer.ticket, TypeUrl::Listener, &answer.name, result);
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
        let mut ready: BTreeMap<Name, SocketAddr> = BTreeMap::new();
        for name in check {
            let Some(version) = self.listeners.waiting(&name) else {
                continue;
            };
            // A table that came with its listener comes into force with it.
            if version.reference.is_none() && self.tables.is_pending(&version.table) {
                continue;
            }
            let address = version.listener.address;
            let table = version.table.clone();
            let link = self.tables.links.entry(&table);
            if link.value.is_none() && link.absent {
                self.go_on_without(&table);
            }
            let link = self.tables.links.get(&table);
            if link.is_some_and(|link| link.value.is_some()) {
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
                deadline,
                ..
            }) = state.warming.take()
            else {
                continue;
            };
            let old = state.active.replace(version);
            state.permit = permit;
            self.listeners.bound.insert(address, name.clone());
            self.output.listeners = true;
            self.output.tables = true;
            if let Some(at) = deadline {
                self.deadlines
                    .remove(&(at, TypeUrl::Listener, name.clone()));
            }
            if let Some(old) = old {
                self.listener_left(&name, &old, None);
            }
        }
    }

    /// The time for its table is up.
    pub(super) fn listener_waited(&mut self, name: &Name, at: Instant) {
        let state = self.listeners.all.get(name);
        let Some(warming) = state.and_then(|state| state.warming.as_ref()) else {
            return;
        };
        if warming.deadline != Some(at) {
            return;
        }
        let table = warming.version.table.clone();
        if self.tables.links.entry(&table).value.is_none() {
            self.warn(format!(
                "listener {name:?} did not get its route table {table:?} in time; it goes on \
                 with an empty one"
            ));
            self.go_on_without(&table);
        }
        self.listeners.check.insert(name.clone());
    }

    fn go_on_without(&mut self, table: &Name) {
        let empty = RouteTable::new(table.clone());
        self.tables.links.entry(table).value = Some(Arc::new(empty));
        self.output.tables = true;
    }

    /// A version of a listener that is no longer wanted lets go of its table, unless another
    /// version uses it too.
    fn listener_left(&mut self, name: &Name, version: &Version, deadline: Option<Instant>) {
        if let Some(at) = deadline {
            self.deadlines
                .remove(&(at, TypeUrl::Listener, name.clone()));
        }
        let still = self.listeners.all.get(name).is_some_and(|state| {
            let warming = state.warming.as_ref().map(|warming| &warming.version);
            let mut versions = state.active.iter().chain(warming);
            versions.any(|other| other.table == version.table)
        });
        if !still {
            self.tables.links.release(&version.table, name);
        }
    }
}

// === impl Version ===

impl Version {
    fn of(
        mut listener: Listener,
        table: Name,
        reference: Option<Reference>,
    ) -> Result<Self, Invalid> {
        listener.for_each_chain(|chain| {
            if let Filter::Http(manager) = &mut chain.filter
                && manager.routes != table
            {
                Arc::make_mut(manager).routes = table.clone();
            }
        });
        Ok(Self {
            listener: Arc::new(listener),
            table,
            reference,
        })
    }
}
