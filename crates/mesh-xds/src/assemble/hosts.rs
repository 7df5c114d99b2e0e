//! Virtual hosts that come on demand, and the tables that they belong to.
//!
//! A table that has virtual hosts on demand is in force as it came plus those that are there now.
//! Each that comes or goes makes a new version of the table, which waits for clusters as any other;
//! the virtual hosts that did not change are shared. Domains are unique over a whole table: what
//! came with the table wins, a virtual host that has a domain of another one on demand is refused.

use super::Assemble;
use super::tables::clusters_of_host;
use crate::TypeUrl;
use crate::assemble::Interest;
use crate::read::{Reference, Source, VirtualHostResource};
use mesh_core::model::{RouteTable, VirtualHost};
use mesh_core::{Invalid, Name};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

/// The virtual hosts on demand, by the name by which their table is known to who has them.
#[derive(Debug, Default)]
pub(super) struct Hosts(BTreeMap<Name, Space>);

/// The virtual hosts of one table, which several listeners may have in a form of their own.
#[derive(Debug, Default)]
struct Space {
    /// The tables as they came, by their names in snapshots.
    bases: BTreeMap<Name, Arc<RouteTable>>,
    /// By the names of their resources.
    hosts: BTreeMap<Name, Arc<VirtualHost>>,
    /// Which of them has a domain.
    domains: HashMap<Name, Name>,
    changed: bool,
    /// What waits until it is in force.
    waiting: Vec<(u64, Name)>,
}

// === impl Space ===

impl Space {
    fn merged(&self, base: &RouteTable) -> RouteTable {
        let own: HashSet<&Name> = domains_of(&base.virtual_hosts).collect();
        let mut table = base.clone();
        let fits = |host: &&Arc<VirtualHost>| !host.domains.iter().any(|d| own.contains(d));
        table
            .virtual_hosts
            .extend(self.hosts.values().filter(fits).cloned());
        table
    }

    /// Takes one in, in place of these. Refused, it changes nothing.
    fn put(&mut self, name: &Name, host: VirtualHost, replaced: &[Name]) -> Result<(), Invalid> {
        let mut seen = HashSet::new();
        for (at, domain) in host.domains.iter().enumerate() {
            let other = self.domains.get(domain);
            let other = other.filter(|other| *other != name && !replaced.contains(other));
            if other.is_some() || !seen.insert(domain) {
                let message = format!("{domain:?} is a domain of this table already");
                return Err(Invalid::new(format!("domains[{at}]"), message));
            }
        }
        for left in replaced.iter().filter(|left| *left != name) {
            self.take(left);
        }
        if self.hosts.get(name).is_some_and(|old| **old == host) {
            return Ok(());
        }
        self.take(name);
        let domains = host.domains.iter().map(|d| (d.clone(), name.clone()));
        self.domains.extend(domains);
        self.hosts.insert(name.clone(), Arc::new(host));
        self.changed = true;
        Ok(())
    }

    fn take(&mut self, name: &str) {
        if let Some(old) = self.hosts.remove(name) {
            self.changed = true;
            for domain in &old.domains {
                self.domains.remove(domain);
            }
        }
    }
}

// === impl Assemble ===

impl Assemble {
    /// Notes the latest version of a table; returns it with the virtual hosts that are there.
    pub(super) fn with_hosts(&mut self, key: &Name, table: Arc<RouteTable>) -> Arc<RouteTable> {
        let of = table
            .on_demand
            .as_ref()
            .map(|on_demand| on_demand.table.clone());
        self.without_hosts(key, of.as_ref());
        let Some(of) = of else {
            return table;
        };
        if !self.hosts.0.contains_key(&of) {
            self.step.interests.push(Interest::Start(
                TypeUrl::VirtualHost,
                Reference {
                    name: of.clone(),
                    from: Source::Ads,
                    initial_fetch_timeout: None,
                    watched_directory: None,
                },
            ));
        }
        let space = self.hosts.0.entry(of).or_default();
        let merged = space.merged(&table);
        space.bases.insert(key.clone(), table);
        Arc::new(merged)
    }

    /// A table is gone, or no longer has virtual hosts on demand but by this name.
    pub(super) fn without_hosts(&mut self, key: &Name, but: Option<&Name>) {
        let mut left = Vec::new();
        for (of, space) in &mut self.hosts.0 {
            if Some(of) != but && space.bases.remove(key).is_some() && space.bases.is_empty() {
                left.push(of.clone());
            }
        }
        for of in left {
            let waiting = self.hosts.0.remove(&of).map(|space| space.waiting);
            for (ticket, name) in waiting.into_iter().flatten() {
                self.verdict(ticket, TypeUrl::VirtualHost, &name, Ok(()));
            }
            let stop = Interest::Stop(TypeUrl::VirtualHost, Source::Ads, of);
            self.step.interests.push(stop);
        }
    }

    /// A virtual host came or changed.
    pub(super) fn set_host(&mut self, resource: VirtualHostResource, ticket: u64) {
        let VirtualHostResource {
            name,
            host,
            instead_of,
        } = resource;
        let name = &name;
        let result = self.check_host(name, &host);
        let space = space_of(name).and_then(|of| self.hosts.0.get_mut(of));
        // Nobody wants it any more.
        let Some(space) = space else {
            return self.verdict(ticket, TypeUrl::VirtualHost, name, Ok(()));
        };
        match result.and_then(|()| space.put(name, host, &instead_of)) {
            Ok(()) => space.waiting.push((ticket, name.clone())),
            Err(error) => self.verdict(ticket, TypeUrl::VirtualHost, name, Err(error)),
        }
    }

    fn check_host(&self, name: &Name, host: &VirtualHost) -> Result<(), Invalid> {
        let space = space_of(name).and_then(|of| self.hosts.0.get(of));
        let mut bases = space.into_iter().flat_map(|space| space.bases.values());
        if !bases.any(|base| base.validate_clusters) {
            return Ok(());
        }
        match clusters_of_host(host).find(|name| !self.clusters.is_known(name)) {
            None => Ok(()),
            Some(name) => {
                let message = format!("cluster {name:?} does not exist (validate_clusters is set)");
                Err(Invalid::new("routes", message))
            }
        }
    }

    /// A virtual host went.
    pub(super) fn host_gone(&mut self, name: &Name) {
        if let Some(space) = space_of(name).and_then(|of| self.hosts.0.get_mut(of)) {
            space.take(name);
        }
    }

    /// Offers the tables whose virtual hosts changed.
    pub(super) fn offer_hosts(&mut self, now: Instant) {
        let mut tables = Vec::new();
        for space in self.hosts.0.values_mut() {
            if std::mem::take(&mut space.changed) {
                let merged = |(key, base): (&Name, &Arc<RouteTable>)| {
                    (key.clone(), Arc::new(space.merged(base)))
                };
                tables.extend(space.bases.iter().map(merged));
            }
        }
        for (key, table) in tables {
            self.offer_version(key, table, None, now);
        }
    }

    /// Says of virtual hosts that they are in force.
    pub(super) fn settle_hosts(&mut self) {
        let mut done = Vec::new();
        for space in self.hosts.0.values_mut() {
            let mut keys = space.bases.keys();
            if !space.waiting.is_empty() && !keys.any(|key| self.tables.is_pending(key)) {
                done.append(&mut space.waiting);
            }
        }
        for (ticket, name) in done {
            self.verdict(ticket, TypeUrl::VirtualHost, &name, Ok(()));
        }
    }
}

/// The table that a virtual host belongs to.
fn space_of(name: &str) -> Option<&str> {
    name.rsplit_once('/').map(|(table, _)| table)
}

fn domains_of(hosts: &[Arc<VirtualHost>]) -> impl Iterator<Item = &Name> {
    hosts.iter().flat_map(|host| &host.domains)
}
