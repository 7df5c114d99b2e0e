//! A version of a listener, with the names that its tables have in snapshots.

use crate::assemble::links::{inline_key, key};
use crate::assemble::secrets::Needs;
use crate::read::{ListenerResource, Reference, RouteSource};
use mesh_core::model::{Filter, Listener, RouteTable};
use mesh_core::{Invalid, Name};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) listener: Arc<Listener>,
    /// Its tables by their names in snapshots, with how they are referred to; None came with the
    /// listener.
    pub(super) tables: BTreeMap<Name, Option<Reference>>,
    pub(super) needs: Needs,
}

// === impl Version ===

impl Version {
    /// A version, and the tables that came with it, all by their names in snapshots.
    pub(super) fn of(
        mut listener: Listener,
        routes: Vec<RouteSource>,
        needs: Needs,
    ) -> Result<(Self, Vec<Arc<RouteTable>>), Invalid> {
        let mut tables = BTreeMap::new();
        let mut inline: Vec<Arc<RouteTable>> = Vec::new();
        let mut names = Vec::with_capacity(routes.len());
        for source in routes {
            let (name, reference) = match source {
                RouteSource::Named(by) => (key(&by.from, &by.name), Some(by)),
                RouteSource::Inline(table) => (put(*table, &listener.name, &mut inline), None),
            };
            names.push(name.clone());
            tables.insert(name, reference);
        }
        let mut names = names.into_iter();
        let mut missing = false;
        listener.for_each_chain(|chain| {
            if let Filter::Http(manager) = &mut chain.filter {
                match names.next() {
                    Some(table) if manager.routes != table => {
                        Arc::make_mut(manager).routes = table;
                    }
                    Some(_) => {}
                    None => missing = true,
                }
            }
        });
        if missing || names.next().is_some() {
            let message = "there have to be as many routes as HTTP connection managers";
            return Err(Invalid::new("filter_chains", message));
        }
        let version = Self {
            listener: Arc::new(listener),
            tables,
            needs,
        };
        Ok((version, inline))
    }
}

/// Gives a table that came with a listener its name. The same table twice is one; another one of
/// the same name gets a number.
fn put(mut table: RouteTable, listener: &Name, all: &mut Vec<Arc<RouteTable>>) -> Name {
    let called = table.name.clone();
    let mut number = 1;
    loop {
        table.name = match number {
            1 => inline_key(&called, listener),
            number => inline_key(&format!("{called} {number}").into(), listener),
        };
        match all.iter().find(|other| other.name == table.name) {
            None => {
                let name = table.name.clone();
                all.push(Arc::new(table));
                return name;
            }
            Some(other) if **other == table => return table.name,
            Some(_) => number += 1,
        }
    }
}

/// Checks the tables that came with a listener.
pub(super) fn check_inline(resource: &ListenerResource) -> Result<(), Invalid> {
    for source in &resource.routes {
        if let RouteSource::Inline(table) = source {
            let checked = table.check_domains();
            checked.map_err(|error| error.within("route_config"))?;
        }
    }
    Ok(())
}
