//! Tables for listeners that lack some of the filters which routes may configure.
//!
//! As in Envoy, what a route says for a filter that its listener does not have has no effect
//! ([`HttpManager::missing_filters`](mesh_core::model::HttpManager::missing_filters)). The layers of
//! our proxy are always there, so such a listener gets a table of its own, without those policies.

use super::Assemble;
use crate::wire::names;
use mesh_core::Name;
use mesh_core::model::{Filter, Listener, RouteTable, Rule, VirtualHost};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The tables that were made, by their names.
#[derive(Debug, Default)]
pub(super) struct Stripped(BTreeMap<Name, Made>);

#[derive(Debug)]
struct Made {
    from: Arc<RouteTable>,
    /// None: there was nothing to leave out.
    table: Option<Arc<RouteTable>>,
}

/// What is left out.
#[derive(Clone, Copy, Debug, Default)]
struct Without {
    cors: bool,
    fault: bool,
    rate_limit: bool,
}

// === impl Stripped ===

impl Stripped {
    /// The tables that are in use beside those that came.
    pub(super) fn tables(&self) -> impl Iterator<Item = &Arc<RouteTable>> {
        self.0.values().filter_map(|made| made.table.as_ref())
    }
}

// === impl Assemble ===

impl Assemble {
    /// The listeners in force, each with the tables that it can have. What was made for listeners
    /// before and is as it was is taken again.
    pub(super) fn fitted_listeners(&mut self) -> Vec<Arc<Listener>> {
        let mut before = std::mem::take(&mut self.stripped.0);
        let mut made = BTreeMap::new();
        let fitted = self.listeners.active().cloned().map(|mut listener| {
            let lacks = listener
                .managers()
                .any(|manager| !manager.missing_filters.is_empty());
            if lacks {
                self.fit(&mut listener, &mut before, &mut made);
            }
            listener
        });
        let fitted = fitted.collect();
        self.stripped.0 = made;
        fitted
    }

    fn fit(
        &self,
        listener: &mut Arc<Listener>,
        before: &mut BTreeMap<Name, Made>,
        made: &mut BTreeMap<Name, Made>,
    ) {
        let mut renamed: BTreeMap<Name, Name> = BTreeMap::new();
        for manager in listener.managers() {
            let link = self.tables.links.get(&manager.routes);
            let Some(table) = link.and_then(|link| link.value.as_ref()) else {
                continue;
            };
            let missing: Vec<&str> = manager.missing_filters.iter().map(|n| &**n).collect();
            let name = Name::from(format!("{} (without {})", table.name, missing.join(", ")));
            // There already if another listener lacks the same.
            let one = made.entry(name.clone()).or_insert_with(|| {
                let same = |made: &Made| Arc::ptr_eq(&made.from, table);
                before.remove(&name).filter(same).unwrap_or_else(|| Made {
                    from: table.clone(),
                    table: Without::of(&missing).strip(table, &name).map(Arc::new),
                })
            });
            if one.table.is_some() {
                renamed.insert(manager.routes.clone(), name);
            }
        }
        if renamed.is_empty() {
            return;
        }
        Arc::make_mut(listener).for_each_chain(|chain| {
            if let Filter::Http(manager) = &mut chain.filter
                && let Some(name) = renamed.get(&manager.routes)
                && !manager.missing_filters.is_empty()
            {
                Arc::make_mut(manager).routes = name.clone();
            }
        });
    }
}

// === impl Without ===

impl Without {
    fn of(missing: &[&str]) -> Self {
        Self {
            cors: missing.contains(&names::CORS),
            fault: missing.contains(&names::FAULT),
            rate_limit: missing.contains(&names::RATE_LIMIT),
        }
    }

    /// The table without it; none if it has nothing of it.
    fn strip(self, table: &RouteTable, name: &Name) -> Option<RouteTable> {
        let mut stripped = None;
        for (at, host) in table.virtual_hosts.iter().enumerate() {
            let has_rules = host.rules.iter().any(|rule| self.concerns(rule));
            let has_own = self.cors && host.cors.is_some();
            if !(has_rules || has_own) {
                continue;
            }
            let stripped: &mut RouteTable = stripped.get_or_insert_with(|| {
                let mut table = table.clone();
                table.name = name.clone();
                table
            });
            self.strip_host(Arc::make_mut(&mut stripped.virtual_hosts[at]));
        }
        stripped
    }

    fn strip_host(self, host: &mut VirtualHost) {
        if self.cors {
            host.cors = None;
        }
        for rule in &mut host.rules {
            if !self.concerns(rule) {
                continue;
            }
            let rule = Arc::make_mut(rule);
            rule.cors.take_if(|_| self.cors);
            rule.fault.take_if(|_| self.fault);
            rule.rate_limit.take_if(|_| self.rate_limit);
        }
    }

    fn concerns(self, rule: &Rule) -> bool {
        self.cors && rule.cors.is_some()
            || self.fault && rule.fault.is_some()
            || self.rate_limit && rule.rate_limit.is_some()
    }
}
