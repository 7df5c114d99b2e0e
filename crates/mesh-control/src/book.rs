//! Who is connected, and which class each node belongs to.

use crate::class::{Class, Key};
use crate::inputs::Inputs;
use crate::node::{self, Generator};
use mesh_core::{Feed, Name, Publisher};
use mesh_xds::server::View;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Who is connected, and what they get.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// What is in force.
    pub(crate) inputs: Option<Arc<Inputs>>,
    pub(crate) classes: BTreeMap<Key, Entry>,
    /// Nodes by what they say of themselves.
    pub(crate) seats: HashMap<String, Seat>,
    /// Hosts whose endpoints cannot change on their own.
    pub(crate) opaque: HashSet<Name>,
    last: usize,
}

/// A class with its users.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) class: Arc<Class>,
    pub(crate) users: usize,
    pub(crate) idle_since: Option<Instant>,
}

/// A node with open streams.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) node: mesh_xds::Node,
    pub(crate) class: Arc<Class>,
    views: Publisher<View>,
    streams: usize,
}

// === impl Book ===

impl Book {
    /// Puts inputs in force, unless newer ones are: endpoints do not wait for a push to end.
    pub(crate) fn put(&mut self, inputs: &Arc<Inputs>) {
        let known = self.inputs.as_ref();
        if known.is_none_or(|known| known.generation < inputs.generation) {
            self.inputs = Some(inputs.clone());
        }
    }

    /// The number of a new class.
    pub(crate) fn number(&mut self) -> usize {
        self.last += 1;
        self.last
    }

    /// One more stream of a node that has some.
    pub(crate) fn join(&mut self, identity: &str) -> Option<Feed<View>> {
        let seat = self.seats.get_mut(identity)?;
        seat.streams += 1;
        Some(seat.views.feed())
    }

    /// The first stream of a node.
    pub(crate) fn sit(
        &mut self,
        identity: String,
        node: &mesh_xds::Node,
        class: &Arc<Class>,
    ) -> Feed<View> {
        let views = Publisher::new(class.view.clone());
        let feed = views.feed();
        let seat = Seat {
            node: node.clone(),
            class: class.clone(),
            views,
            streams: 1,
        };
        self.seats.insert(identity, seat);
        self.enter(class);
        feed
    }

    /// A stream of a node is closed.
    pub(crate) fn leave(&mut self, identity: &str, now: Instant) {
        let Some(seat) = self.seats.get_mut(identity) else {
            return;
        };
        seat.streams -= 1;
        if seat.streams == 0
            && let Some(seat) = self.seats.remove(identity)
        {
            self.exit(&seat.class, now);
        }
    }

    /// A node belongs to another class now.
    pub(crate) fn transfer(&mut self, identity: &str, class: &Arc<Class>, now: Instant) {
        let Some(seat) = self.seats.get_mut(identity) else {
            return;
        };
        if Arc::ptr_eq(&seat.class, class) {
            return;
        }
        let before = std::mem::replace(&mut seat.class, class.clone());
        seat.views.publish(Arc::new(class.view.clone()));
        self.enter(class);
        self.exit(&before, now);
    }

    /// Adds a class that nobody uses yet.
    pub(crate) fn add(&mut self, class: &Arc<Class>, now: Instant) {
        let entry = self.classes.entry(class.key.clone());
        entry.or_insert_with(|| Entry {
            class: class.clone(),
            users: 0,
            idle_since: Some(now),
        });
        let compiled = class.compiled();
        self.opaque.extend(compiled.opaque.iter().cloned());
    }

    /// When the next class has been idle for this long.
    pub(crate) fn next_idle(&self, grace: Duration) -> Option<Instant> {
        let idle = self.classes.values().filter_map(|entry| entry.idle_since);
        idle.min().map(|since| since + grace)
    }

    /// Removes the classes that have been idle for this long. Returns how many those are.
    pub(crate) fn sweep(&mut self, now: Instant, grace: Duration) -> usize {
        let before = self.classes.len();
        self.classes
            .retain(|_, entry| entry.idle_since.is_none_or(|since| now < since + grace));
        before - self.classes.len()
    }

    /// Whether a node is elsewhere now: one that leaves it to the objects to say where it is.
    pub(crate) fn is_elsewhere(&self, before: &Inputs, now: &Inputs) -> bool {
        let mut seats = self.seats.values();
        now.has_relocated(before)
            && seats.any(|seat| {
                let workload = node::workload_that_places(&seat.node);
                workload.is_some_and(|workload| now.is_elsewhere(before, &workload))
            })
    }

    /// Whether somebody is given the names that are in the mesh.
    pub(crate) fn has_names(&self) -> bool {
        let mut classes = self.classes.values();
        classes.any(|entry| {
            let class = &entry.class;
            class.generator == Generator::Proxy && class.essence.dns_capture
        })
    }

    /// All classes.
    pub(crate) fn all(&self) -> Vec<Arc<Class>> {
        let each = self.classes.values();
        each.map(|entry| entry.class.clone()).collect()
    }

    /// Looks again which hosts' endpoints cannot change on their own.
    pub(crate) fn note_opaque(&mut self) {
        let each = self.classes.values().map(|entry| entry.class.compiled());
        self.opaque = each
            .flat_map(|one| one.opaque.iter().cloned().collect::<Vec<_>>())
            .collect();
    }

    fn enter(&mut self, class: &Arc<Class>) {
        if let Some(entry) = self.classes.get_mut(&class.key) {
            entry.users += 1;
            entry.idle_since = None;
        }
    }

    fn exit(&mut self, class: &Arc<Class>, now: Instant) {
        if let Some(entry) = self.classes.get_mut(&class.key) {
            entry.users = entry.users.saturating_sub(1);
            if entry.users == 0 {
                entry.idle_since = Some(now);
            }
        }
    }
}
