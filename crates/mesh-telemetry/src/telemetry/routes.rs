//! Where the statistics of rules are kept: Envoy's `vhost.NAME.route.PREFIX.*`.
//!
//! A block belongs to a virtual host's name and a prefix. It is found once for each snapshot, goes
//! on in the next snapshot that has the same names, and goes away with the last that has them. A
//! request then finds its own by the place of its rule.

use crate::shard::lock;
use mesh_core::model::{Snapshot, VirtualHost};
use mesh_core::stats::{Block, Codes, RouteStat};
use mesh_core::{Matched, Name, Pinned};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, Weak};

/// The name of a virtual host, and a prefix.
pub(crate) type Names = (Name, Name);

/// The statistics of the rules of a virtual host's name and a prefix.
#[derive(Debug, Default)]
pub(crate) struct RouteStats {
    pub(crate) block: Block<RouteStat>,
    /// Answers by their status code (`upstream_rq_<code>`).
    pub(crate) codes: Codes,
}

/// The statistics of all rules that have a prefix, of every snapshot in use.
#[derive(Debug, Default)]
pub(crate) struct RouteBook(Mutex<Vec<Arc<Page>>>);

/// What one worker knows of the book. Empty as long as no rule has a prefix.
#[derive(Debug, Default)]
pub(crate) struct Seen(Vec<Arc<Page>>);

/// The statistics of the rules of one snapshot.
#[derive(Debug)]
struct Page {
    /// Keeps the snapshot's address from being used again, but not what is in it.
    snapshot: Weak<Snapshot>,
    names: HashMap<Names, Arc<RouteStats>>,
    /// By the address of the virtual host and the place of the rule in it.
    places: HashMap<(usize, usize), Arc<RouteStats>>,
}

// === impl RouteBook ===

impl RouteBook {
    /// The page of a snapshot, written when it is first asked for.
    fn page(&self, snapshot: &Arc<Snapshot>) -> Arc<Page> {
        let mut pages = lock(&self.0);
        if let Some(page) = pages.iter().find(|page| page.is_of(snapshot)) {
            return page.clone();
        }
        let page = Arc::new(Page::write(snapshot, &pages));
        pages.push(page.clone());
        tidy(&mut pages);
        page
    }

    /// Every block with its names, in their order.
    pub(crate) fn all(&self) -> BTreeMap<Names, Arc<RouteStats>> {
        let mut pages = lock(&self.0);
        tidy(&mut pages);
        let names = pages.iter().flat_map(|page| &page.names);
        names
            .map(|(names, block)| (names.clone(), block.clone()))
            .collect()
    }
}

/// Takes out the pages of snapshots that are gone, but for the last: the snapshot that came after
/// it may go on with its blocks, although no request has been seen there yet.
fn tidy(pages: &mut Vec<Arc<Page>>) {
    let mut left = pages.len();
    pages.retain(|page| {
        left -= 1;
        left == 0 || page.is_in_use()
    });
    if pages.iter().all(|page| page.names.is_empty()) {
        pages.clear();
    }
}

// === impl Seen ===

impl Seen {
    /// The statistics of the rule, if it has any.
    pub(crate) fn stats(&mut self, matched: &Matched, book: &RouteBook) -> Option<&RouteStats> {
        let page = self.page(matched.snapshot(), book)?;
        let place = (address(matched.host()), matched.rule_index());
        page.places.get(&place).map(Arc::as_ref)
    }

    /// Notes that requests meet this snapshot. What was counted for rules that it no longer has can
    /// be let go of.
    pub(crate) fn see(&mut self, snapshot: &Pinned, book: &RouteBook) {
        if !self.0.is_empty() {
            self.page(snapshot, book);
        }
    }

    fn page(&mut self, snapshot: &Pinned, book: &RouteBook) -> Option<&Page> {
        let snapshot = snapshot.snapshot();
        let known = self.0.iter().position(|page| page.is_of(snapshot));
        if known.is_none() {
            let page = book.page(snapshot);
            self.0.retain(|page| page.is_in_use());
            self.0.push(page);
            if self.0.iter().all(|page| page.names.is_empty()) {
                self.0.clear();
            }
        }
        let page = match known {
            Some(index) => self.0.get(index),
            None => self.0.last(),
        };
        page.map(Arc::as_ref)
    }
}

// === impl Page ===

impl Page {
    fn write(snapshot: &Arc<Snapshot>, before: &[Arc<Self>]) -> Self {
        let mut page = Self {
            snapshot: Arc::downgrade(snapshot),
            names: HashMap::new(),
            places: HashMap::new(),
        };
        let hosts = snapshot.tables().iter().flat_map(|t| &t.virtual_hosts);
        for host in hosts {
            for (index, rule) in host.rules.iter().enumerate() {
                if rule.stat_prefix.is_empty() {
                    continue;
                }
                let names = (host.name.clone(), rule.stat_prefix.clone());
                let known = || before.iter().find_map(|page| page.names.get(&names));
                let known = page.names.get(&names).or_else(known).cloned();
                let block = known.unwrap_or_default();
                page.places.insert((address(host), index), block.clone());
                page.names.insert(names, block);
            }
        }
        page
    }

    fn is_of(&self, snapshot: &Arc<Snapshot>) -> bool {
        self.snapshot.as_ptr() == Arc::as_ptr(snapshot)
    }

    fn is_in_use(&self) -> bool {
        self.snapshot.strong_count() > 0
    }
}

fn address(host: &Arc<VirtualHost>) -> usize {
    Arc::as_ptr(host).addr()
}

#[cfg(test)]
mod tests;
