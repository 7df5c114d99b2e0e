//! What the parts of a snapshot have to keep to: names that are there once, and exist where they are
//! named.

use super::Warning;
use crate::model::{Forward, Listener, RouteTable, VirtualHost};
use crate::{Invalid, Name};
use foldhash::fast::RandomState;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

// === impl RouteTable ===

impl RouteTable {
    /// Checks that every domain stands in one virtual host only, as [`SnapshotBuilder::build`](crate::model::SnapshotBuilder::build)
    /// does: to refuse a table alone before it is put with others.
    ///
    /// # Errors
    /// If a domain stands twice (Envoy refuses the table otherwise, too).
    pub fn check_domains(&self) -> Result<(), Invalid> {
        let mut seen: HashMap<&Name, &VirtualHost> = HashMap::new();
        for host in &self.virtual_hosts {
            for domain in &host.domains {
                if let Some(other) = seen.insert(domain, host) {
                    let message =
                        format!("domain {domain:?} is also in virtual host {:?}", other.name);
                    return Err(Invalid::new(
                        format!("virtual_hosts[{}].domains", host.name),
                        message,
                    ));
                }
            }
        }
        Ok(())
    }
}

pub(super) fn check_listeners(listeners: &[Arc<Listener>]) -> Result<(), Invalid> {
    let mut names = HashSet::new();
    let mut addresses = HashSet::new();
    for listener in listeners {
        let path = || format!("listeners[{}]", listener.name);
        if !names.insert(&listener.name) {
            return Err(Invalid::new(path(), "defined twice"));
        }
        // A port of 0 is another one for each.
        let bound = listener.bind && !listener.address.is_any();
        if bound && !addresses.insert(&listener.address) {
            let message = format!("{} is the address of another listener", listener.address);
            return Err(Invalid::new(path(), message));
        }
    }
    Ok(())
}

pub(super) fn check_tables(
    listeners: &[Arc<Listener>],
    tables: &HashMap<Name, usize, RandomState>,
) -> Result<(), Invalid> {
    for listener in listeners {
        for manager in listener.managers() {
            if !tables.contains_key(&manager.routes) {
                let message = format!("route table {:?} does not exist", manager.routes);
                let path = format!("listeners[{}]", listener.name);
                return Err(Invalid::new(path, message));
            }
        }
    }
    Ok(())
}

pub(super) fn check_clusters(
    table: &RouteTable,
    strict: bool,
    known: &HashMap<Name, usize, RandomState>,
    warnings: &mut Vec<Warning>,
) -> Result<(), Invalid> {
    for host in &table.virtual_hosts {
        for (index, rule) in host.rules.iter().enumerate() {
            let forwards = rule.forward().into_iter().flat_map(Forward::clusters);
            let mirrors = rule
                .mirrors
                .iter()
                .filter(|mirror| mirror.cluster_header.is_none())
                .map(|mirror| (&mirror.cluster, mirror.origin));
            for (cluster, origin) in forwards.chain(mirrors) {
                if known.contains_key(cluster) {
                    continue;
                }
                let message = format!("cluster {cluster:?} does not exist");
                if strict {
                    let path = format!("virtual_hosts[{}].routes[{index}]", host.name);
                    return Err(Invalid::new(path, message));
                }
                let origin = if origin.is_none() {
                    rule.origin
                } else {
                    origin
                };
                let message = format!("{message}; requests sent there are answered 503 NC");
                warnings.push(Warning { origin, message });
            }
        }
    }
    Ok(())
}
