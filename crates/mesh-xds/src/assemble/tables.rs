//! Route tables, and the clusters that they wait for.

use super::Assemble;
use super::links::{Links, is_made_up, key};
use crate::TypeUrl;
use crate::read::Source;
use mesh_core::model::{Forward, RouteTable, VirtualHost};
use mesh_core::{Invalid, Name};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// The route tables.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) links: Links<RouteTable>,
    /// Versions that wait for clusters.
    pending: BTreeMap<Name, Pending>,
    /// Something came into force that they may wait for.
    check: bool,
}

/// A version of a table that waits for clusters.
#[derive(Debug)]
struct Pending {
    table: Arc<RouteTable>,
    refers: BTreeSet<Name>,
    deadline: Instant,
    answer: Option<Answer>,
}

/// Who hears what becomes of a table: it itself, or the listener that it came with.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) ticket: u64,
    pub(super) kind: TypeUrl,
    pub(super) name: Name,
}

// === impl Tables ===

impl Tables {
    /// The tables in force.
    pub(super) fn active(&self) -> impl Iterator<Item = &Arc<RouteTable>> {
        self.links
            .iter()
            .filter(|(_, link)| link.fixed || !link.users.is_empty())
            .filter_map(|(_, link)| link.value.as_ref())
    }

    pub(super) fn check_all(&mut self) {
        self.check = true;
    }

    /// The latest version of a table, be it in force or not.
    #[cfg(feature = "client")]
    pub(super) fn latest(&self, key: &str) -> Option<&Arc<RouteTable>> {
        let pending = self.pending.get(key).map(|pending| &pending.table);
        pending.or_else(|| self.links.get(key)?.value.as_ref())
    }

    pub(super) fn is_pending(&self, key: &str) -> bool {
        self.pending.contains_key(key)
    }
}

// === impl Assemble ===

impl Assemble {
    pub(super) fn set_table(
        &mut self,
        from: &Source,
        mut table: RouteTable,
        ticket: u64,
        fixed: bool,
        now: Instant,
    ) {
        let name = table.name.clone();
        let key = key(from, &name);
        if let Err(error) = self.check_table(from, &table, fixed) {
            self.verdict(ticket, TypeUrl::Routes, &name, Err(error));
            return;
        }
        let link = self.tables.links.entry(&key);
        if link.fixed && !fixed {
            self.warn(format!(
                "route table {name:?} is static; what the control plane sends has no effect"
            ));
            self.verdict(ticket, TypeUrl::Routes, &name, Ok(()));
            return;
        }
        link.fixed = fixed;
        link.absent = false;
        table.name = key.clone();
        let answer = Answer {
            ticket,
            kind: TypeUrl::Routes,
            name,
        };
        self.offer_table(key, Arc::new(table), Some(answer), now);
    }

    fn check_table(&self, from: &Source, table: &RouteTable, fixed: bool) -> Result<(), Invalid> {
        if *from == Source::Ads && !fixed && is_made_up(&table.name) {
            return Err(Invalid::new(
                "name",
                "is of a form that is used here for tables from listeners and files",
            ));
        }
        table.check_domains()
    }

    /// A checked table becomes the latest version.
    pub(super) fn offer_table(
        &mut self,
        key: Name,
        table: Arc<RouteTable>,
        answer: Option<Answer>,
        now: Instant,
    ) {
        let table = self.with_hosts(&key, table);
        self.offer_version(key, table, answer, now);
    }

    /// A table with its virtual hosts on demand becomes the latest version.
    pub(super) fn offer_version(
        &mut self,
        key: Name,
        table: Arc<RouteTable>,
        mut answer: Option<Answer>,
        now: Instant,
    ) {
        let mut deadline = now + self.options.routes_wait;
        if let Some(old) = self.tables.pending.remove(&key) {
            if old.table == table {
                // The same again waits no longer for that.
                deadline = old.deadline;
            }
            self.deadlines
                .remove(&(old.deadline, TypeUrl::Routes, key.clone()));
            match answer {
                // It is the same with other virtual hosts, and still waits.
                None => answer = old.answer,
                // Nobody will hear more of the old version; it was not refused.
                Some(_) => self.answer(old.answer, Ok(())),
            }
        }
        let active = self.tables.links.get(&key);
        if active.and_then(|link| link.value.as_ref()) == Some(&table) {
            self.answer(answer, Ok(()));
            return;
        }
        let refers = clusters_of(&table).cloned().collect();
        self.deadlines
            .insert((deadline, TypeUrl::Routes, key.clone()));
        let pending = Pending {
            table,
            refers,
            deadline,
            answer,
        };
        self.tables.pending.insert(key, pending);
        self.tables.check = true;
    }

    /// A table that came before anything referred to it: what it refers to may have changed since.
    pub(super) fn table_taken_up(&mut self, key: &Name, now: Instant) {
        let Some(link) = self.tables.links.get_mut(key) else {
            return;
        };
        if !link.fixed
            && link.users.is_empty()
            && let Some(table) = link.value.take()
            && !self.tables.pending.contains_key(key)
        {
            self.offer_version(key.clone(), table, None, now);
        }
    }

    /// Brings into force the tables that wait for nothing any more.
    pub(super) fn settle_tables(&mut self, now: Instant) {
        if !std::mem::take(&mut self.tables.check) {
            return;
        }
        let due = self.clusters_due.is_some();
        let clusters = &self.clusters;
        let mut ready = Vec::new();
        for (key, pending) in &self.tables.pending {
            // All are looked at each time: one that was not known before may have come meanwhile.
            let mut holding = pending.refers.iter().filter(|n| clusters.holds(n, due));
            let first = holding.next();
            if first.is_none() || pending.deadline <= now {
                ready.push((key.clone(), first.cloned()));
            }
        }
        for (key, late) in ready {
            let Some(pending) = self.tables.pending.remove(&key) else {
                continue;
            };
            self.deadlines
                .remove(&(pending.deadline, TypeUrl::Routes, key.clone()));
            if let Some(name) = late {
                self.warn(format!(
                    "route table {key:?} waited for cluster {name:?} long enough"
                ));
            }
            let unknown = clusters_of(&pending.table)
                .find(|name| pending.table.validate_clusters && !self.clusters.is_known(name));
            if let Some(name) = unknown {
                let message = format!("cluster {name:?} does not exist (validate_clusters is set)");
                self.answer(pending.answer, Err(Invalid::new("virtual_hosts", message)));
                continue;
            }
            self.tables.links.entry(&key).value = Some(pending.table);
            self.output.tables = true;
            self.listeners_check(&key);
            self.answer(pending.answer, Ok(()));
        }
    }

    /// Listeners that have the table keep it; those that wait for it go on with an empty one.
    pub(super) fn table_gone(&mut self, from: &Source, name: &Name) {
        let key = key(from, name);
        let Some(link) = self.tables.links.get_mut(&key) else {
            return;
        };
        if link.fixed {
            return;
        }
        link.absent = true;
        if link.users.is_empty() {
            link.value = None;
            self.table_forgotten(&key);
        }
        self.listeners_check(&key);
    }

    /// Nobody refers to the table any more.
    pub(super) fn table_forgotten(&mut self, key: &Name) {
        self.without_hosts(key, None);
        self.output.tables = true;
        if let Some(left) = self.tables.pending.remove(key) {
            self.deadlines
                .remove(&(left.deadline, TypeUrl::Routes, key.clone()));
            self.answer(left.answer, Ok(()));
        }
    }

    fn answer(&mut self, answer: Option<Answer>, result: Result<(), Invalid>) {
        let Some(answer) = answer else {
            return;
        };
        if answer.kind == TypeUrl::Listener {
            self.inline_answered(answer, result);
        } else {
            self.verdict(answer.ticket, answer.kind, &answer.name, result);
        }
    }
}

/// The clusters that a table names, some perhaps more than once.
fn clusters_of(table: &RouteTable) -> impl Iterator<Item = &Name> {
    let hosts = table.virtual_hosts.iter();
    hosts.flat_map(|host| clusters_of_host(host))
}

/// The clusters that a virtual host names.
pub(super) fn clusters_of_host(host: &VirtualHost) -> impl Iterator<Item = &Name> {
    host.rules.iter().flat_map(|rule| {
        let forwards = rule.forward().into_iter().flat_map(Forward::clusters);
        let mirrors = rule.mirrors.iter().map(|mirror| &mirror.cluster);
        forwards.map(|(name, _)| name).chain(mirrors)
    })
}
