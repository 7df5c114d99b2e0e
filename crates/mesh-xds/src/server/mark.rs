//! Points in the history of a view.

use super::resources::{Position, View};
use std::sync::Arc;

/// A point in the history of a view: which view, and how far each of its sets was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark(Arc<Inner>);

#[derive(Debug, Default, PartialEq, Eq)]
struct Inner {
    /// The version of the feed that the view came from; 0 is before any.
    view: u64,
    /// The sets by identity.
    sets: Vec<(usize, Position)>,
}

// === impl Mark ===

impl Mark {
    pub(super) fn new(view: u64, sets: Vec<(usize, Position)>) -> Self {
        Self(Arc::new(Inner { view, sets }))
    }

    /// The present of a view. Sets may move on meanwhile; what is read by this mark tells.
    pub(super) fn of(version: u64, view: &View) -> Self {
        let each = view.sets().iter();
        Self::new(
            version,
            each.map(|set| (set.id(), set.position())).collect(),
        )
    }

    /// Which view it is about.
    pub(super) fn view(&self) -> u64 {
        self.0.view
    }

    /// How far the set at this place in the view was.
    pub(super) fn at(&self, index: usize) -> Position {
        self.0.sets.get(index).map(|set| set.1).unwrap_or_default()
    }

    /// Whether whoever has seen this has seen `other`. A set that the view no longer has cannot
    /// hold anything back.
    pub(super) fn covers(&self, other: &Self) -> bool {
        if Arc::ptr_eq(&self.0, &other.0) || self.0.view > other.0.view {
            return true;
        }
        self.0.view == other.0.view
            && other.0.sets.iter().all(|(id, at)| {
                let own = self.0.sets.iter().find(|own| own.0 == *id);
                own.is_none_or(|own| own.1 >= *at)
            })
    }
}
