//! What is asked for because a request wants it: virtual hosts (VHDS) and clusters (ODCDS).
//!
//! Virtual hosts are asked for by `TABLE/HOST`. The answer may have another name and this one as an
//! alias: that is remembered, since the subscription is to the alias, and the resource is kept for
//! as long as one leads to it. Also taken in is what a server sends unasked for the tables that are
//! followed; once they are, a first request without names says so, as Envoy does it.

use super::record::{Kind, Record};
use super::{Event, Machine, Update};
use crate::TypeUrl;
use mesh_core::Name;

// === impl Kind ===

impl Kind {
    /// Whether there are tables whose virtual hosts are taken in.
    pub(super) fn follows(&self) -> bool {
        !self.tables.is_empty()
    }
}

// === impl Machine ===

impl<R> Machine<R> {
    /// Asks for a resource by name because a request wants it; [`Event::Absent`] says if there is
    /// none. By delta only: in state of the world a list of names says nothing of what does not
    /// exist. Taken back by [`Machine::unsubscribe`].
    pub fn ask(&mut self, kind: TypeUrl, name: &Name) {
        self.subscribe(kind, name);
        if let Some(record) = self.record(kind, name) {
            record.on_demand = true;
        }
    }

    /// Whether a resource is asked for, by name or as part of everything.
    pub fn wants(&self, kind: TypeUrl, name: &str) -> bool {
        let all = self.kinds.get(&kind);
        all.is_some_and(|all| all.wildcard || all.records.get(name).is_some_and(|r| r.named))
    }

    /// Takes in the virtual hosts of a table (VHDS).
    pub fn follow(&mut self, table: &Name) {
        let kind = self.kinds.entry(TypeUrl::VirtualHost).or_default();
        kind.tables.insert(table.clone());
    }

    /// No longer takes in the virtual hosts of a table, and forgets them.
    pub fn unfollow(&mut self, table: &Name) {
        let Some(kind) = self.kinds.get_mut(&TypeUrl::VirtualHost) else {
            return;
        };
        kind.tables.remove(table);
        let of_table = |name: &Name| name.rsplit_once('/').is_some_and(|(of, _)| *of == **table);
        let names: Vec<Name> = kind
            .records
            .keys()
            .filter(|n| of_table(n))
            .cloned()
            .collect();
        for name in names {
            self.unsubscribe(TypeUrl::VirtualHost, &name);
            self.forget(TypeUrl::VirtualHost, &name);
        }
    }

    /// The resource that answers for a name: itself, or what it is an alias of.
    pub fn resolved<'a>(&'a self, kind: TypeUrl, name: &'a Name) -> &'a Name {
        let record = self.kinds.get(&kind).and_then(|all| all.records.get(name));
        record.and_then(|r| r.leads_to.as_ref()).unwrap_or(name)
    }

    /// An alias leads to this from now on, or to nothing.
    pub(super) fn resolves(&mut self, kind: TypeUrl, alias: &Name, to: Option<Name>) {
        let Some(record) = self.record(kind, alias) else {
            return;
        };
        record.missing = to.is_none();
        let before = record.leads_to.take();
        record.leads_to.clone_from(&to);
        if before != to {
            self.led_to(kind, before);
        }
    }

    /// The server says that nothing has this name.
    pub(super) fn is_unresolved(&mut self, kind: TypeUrl, name: &Name) {
        let held = self
            .record(kind, name)
            .is_none_or(|record| record.is_held());
        if !held {
            self.resolves(kind, name, None);
            self.is_absent(kind, name);
        }
    }

    /// Resources went: so did what their aliases led to.
    pub(super) fn led_nowhere(&mut self, kind: TypeUrl, removed: &[Name]) {
        let all = self
            .kinds
            .get(&kind)
            .filter(|_| kind == TypeUrl::VirtualHost);
        let Some(all) = all.filter(|_| !removed.is_empty()) else {
            return;
        };
        let leads = |record: &Record| {
            record
                .leads_to
                .as_ref()
                .is_some_and(|to| removed.contains(to))
        };
        let aliases = all.records.iter().filter(|(_, record)| leads(record));
        let mut aliases: Vec<Name> = aliases.map(|(name, _)| name.clone()).collect();
        // What is called gone may be the alias itself.
        aliases.extend(removed.iter().cloned());
        for alias in aliases {
            self.resolves(kind, &alias, None);
            self.is_absent(kind, &alias);
        }
    }

    /// Who asked for it on demand need not wait any more.
    pub(super) fn is_absent(&mut self, kind: TypeUrl, name: &Name) {
        if self
            .record(kind, name)
            .is_some_and(|record| record.on_demand)
        {
            self.events.push_back(Event::Absent(kind, name.clone()));
        }
    }

    /// An alias leads elsewhere or was taken back: what it led to is forgotten if nothing else
    /// asks for it.
    pub(super) fn led_to(&mut self, kind: TypeUrl, name: Option<Name>) {
        let (Some(name), Some(all)) = (name, self.kinds.get(&kind)) else {
            return;
        };
        let uses = |(of, record): (&Name, &Record)| {
            record.named && (*of == name || record.leads_to.as_ref() == Some(&name))
        };
        if !all.records.iter().any(uses) {
            self.forget(kind, &name);
        }
    }

    /// Forgets a resource that the server need not take back.
    fn forget(&mut self, kind: TypeUrl, name: &Name) {
        if !self
            .record(kind, name)
            .is_some_and(|record| record.is_held())
        {
            return;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.removed(kind, name, ticket);
        self.events.push_back(Event::Update(Update {
            ticket,
            kind,
            resources: Vec::new(),
            removed: vec![name.clone()],
        }));
    }

    fn record(&mut self, kind: TypeUrl, name: &Name) -> Option<&mut Record> {
        self.kinds.get_mut(&kind)?.records.get_mut(name)
    }
}
