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

    /// An alias leads to this from this ticket on, or to nothing. Returns what it led to, if that
    /// is something else.
    pub(super) fn lead(&mut self, alias: &Name, to: Option<Name>, ticket: u64) -> Option<Name> {
        let record = self.records.get_mut(alias)?;
        record.led_by = ticket;
        if record.leads_to == to {
            return None;
        }
        let before = std::mem::replace(&mut record.leads_to, to.clone());
        if let Some(before) = &before
            && let Some(aliases) = self.aliases.get_mut(before)
        {
            aliases.remove(alias);
            if aliases.is_empty() {
                self.aliases.remove(before);
            }
        }
        if let Some(to) = to {
            self.aliases.entry(to).or_default().insert(alias.clone());
        }
        before
    }
}

// === impl Machine ===

impl<R> Machine<R> {
    /// Whether a resource is asked for, by name or as part of everything.
    pub fn wants(&self, kind: TypeUrl, name: &str) -> bool {
        let all = self.kinds.get(&kind);
        all.is_some_and(|all| all.wildcard || all.records.get(name).is_some_and(|r| r.named))
    }

    /// Takes in the virtual hosts of a table (VHDS). By delta only.
    pub fn follow(&mut self, table: &Name) {
        let kind = self.kinds.entry(TypeUrl::VirtualHost).or_default();
        kind.tables.insert(table.clone());
    }

    /// No longer takes in the virtual hosts of a table, and forgets them.
    pub fn unfollow(&mut self, table: &Name) {
        let kind = TypeUrl::VirtualHost;
        let Some(all) = self.kinds.get_mut(&kind) else {
            return;
        };
        all.tables.remove(table);
        let prefix = format!("{table}/");
        let records = all.records.range(Name::from(prefix.as_str())..);
        let records = records.take_while(|(name, _)| name.starts_with(&prefix));
        let of_table = |name: &&Name| name.rsplit_once('/').is_some_and(|(of, _)| *of == **table);
        let names = records.map(|(name, _)| name).filter(of_table).cloned();
        let names: Vec<Name> = names.collect();
        for name in &names {
            self.drop_name(kind, name, |record| {
                record.lasting = false;
                record.on_demand = false;
            });
        }
        self.forget(kind, names);
    }

    /// The resource that answers for a name: itself, or what it is an alias of.
    pub fn resolved<'a>(&'a self, kind: TypeUrl, name: &'a Name) -> &'a Name {
        let record = self.kinds.get(&kind).and_then(|all| all.records.get(name));
        record.and_then(|r| r.leads_to.as_ref()).unwrap_or(name)
    }

    /// The names that a resource answers for: its own, and the aliases that lead to it.
    pub(in crate::client) fn answers_for(&self, kind: TypeUrl, name: &Name) -> Vec<Name> {
        let all = self.kinds.get(&kind);
        let aliases = all.and_then(|all| all.aliases.get(name));
        let mut names: Vec<Name> = aliases.into_iter().flatten().cloned().collect();
        if self.resolved(kind, name) == name {
            names.push(name.clone());
        }
        names
    }

    /// Whether a version of a resource, or of what it is an alias of, is in force.
    pub(in crate::client) fn has(&self, kind: TypeUrl, name: &Name) -> bool {
        let name = self.resolved(kind, name);
        let all = self.kinds.get(&kind);
        let record = all.and_then(|all| all.records.get(name));
        record.is_some_and(|record| record.accepted.is_some())
    }

    /// Whether its source says that a resource does not exist.
    pub(in crate::client) fn is_known_missing(&self, kind: TypeUrl, name: &Name) -> bool {
        let all = self.kinds.get(&kind);
        let record = all.and_then(|all| all.records.get(name));
        record.is_some_and(|record| record.missing && record.accepted.is_none())
    }

    /// The server says that nothing has this name. Returns what has to be forgotten.
    pub(super) fn is_unresolved(&mut self, kind: TypeUrl, name: &Name) -> Option<Name> {
        if self
            .record(kind, name)
            .is_none_or(|record| record.is_held())
        {
            return None;
        }
        let before = self.leads_nowhere(kind, name);
        self.is_absent(kind, name);
        before
    }

    /// Resources went: so did what their aliases led to.
    pub(super) fn led_nowhere(&mut self, kind: TypeUrl, removed: &[Name]) {
        let Some(all) = self
            .kinds
            .get(&kind)
            .filter(|_| kind == TypeUrl::VirtualHost)
        else {
            return;
        };
        let aliases = removed.iter().filter_map(|name| all.aliases.get(name));
        let mut aliases: Vec<Name> = aliases.flatten().cloned().collect();
        aliases.extend(self.wait_for(kind, removed));
        // What is called gone may be the alias itself.
        aliases.extend(removed.iter().cloned());
        let mut led_to = Vec::new();
        for alias in aliases {
            led_to.extend(self.leads_nowhere(kind, &alias));
            self.is_absent(kind, &alias);
        }
        led_to.retain(|name| !self.is_asked_for(kind, name));
        self.forget(kind, led_to);
    }

    /// Nothing answers for a name any more. Returns what did.
    fn leads_nowhere(&mut self, kind: TypeUrl, name: &Name) -> Option<Name> {
        let all = self.kinds.get_mut(&kind)?;
        all.records.get_mut(name)?.missing = true;
        // Whatever comes for it from now on has a later ticket.
        all.lead(name, None, self.next_ticket)
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

    /// What came for a name cannot be used. The last good version stays; where there is none, nobody
    /// need wait for it.
    pub(super) fn is_unusable(&mut self, kind: TypeUrl, name: &Name) {
        let to = self.resolved(kind, name).clone();
        let held = self.record(kind, &to).is_some_and(|to| to.is_held());
        if !held {
            self.is_absent(kind, name);
        }
    }

    /// Whether anything asks for a resource, by its own name or by an alias.
    pub(super) fn is_asked_for(&self, kind: TypeUrl, name: &Name) -> bool {
        let Some(all) = self.kinds.get(&kind) else {
            return false;
        };
        // Aliases that lead somewhere are asked for.
        all.aliases.contains_key(name) || all.records.get(name).is_some_and(|r| r.named)
    }

    /// Forgets resources that the server need not take back.
    pub(super) fn forget(&mut self, kind: TypeUrl, mut names: Vec<Name>) {
        names.retain(|name| self.record(kind, name).is_some_and(|one| one.is_held()));
        if names.is_empty() {
            return;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        for name in &names {
            self.removed(kind, name, ticket);
        }
        self.events.push_back(Event::Update(Update {
            ticket,
            kind,
            resources: Vec::new(),
            instead: Vec::new(),
            removed: names,
        }));
    }

    fn record(&mut self, kind: TypeUrl, name: &Name) -> Option<&mut Record> {
        self.kinds.get_mut(&kind)?.records.get_mut(name)
    }
}
