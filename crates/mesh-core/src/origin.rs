//! Where a piece of configuration came from.
//!
//! Every rule, policy block, cluster and subset carries an [`Origin`]: an index into the
//! [`Origins`] table that travels beside the snapshot. Explanations, warnings and NACK reports
//! turn it into a [`Place`]: object, file, line, column.
//!
//! An origin takes no part in equality or hashing, so a comment line added above a rule moves
//! every line number and still changes nothing that has to be compiled or pushed again.

use crate::Name;
use std::fmt;
use std::hash::{Hash, Hasher};

/// A reference to the place in the source that a piece of configuration came from.
///
/// All origins compare equal to each other; see the module documentation for why.
#[derive(Clone, Copy, Default)]
pub struct Origin(u32);

/// The table that gives [`Origin`]s their meaning.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    places: Vec<Place>,
}

/// One place in the source: what object it belongs to and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Place {
    /// The object, e.g. `VirtualService reviews.default`.
    pub object: Name,
    /// The file as the user named it.
    pub file: Name,
    /// Line, from 1. Zero means that it is not known.
    pub line: u32,
    /// Column, from 1. Zero means that it is not known.
    pub column: u32,
}

// === impl Origin ===

impl Origin {
    /// No known origin: made in code, or received from a control plane that does not say.
    pub const NONE: Self = Self(0);

    /// The index into [`Origins`]; zero for [`Origin::NONE`].
    pub fn index(self) -> u32 {
        self.0
    }

    /// Whether this is [`Origin::NONE`].
    pub fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Origin {}

impl Hash for Origin {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({})", self.0)
    }
}

// === impl Origins ===

impl Origins {
    /// Adds a place and returns the origin that stands for it.
    pub fn add(&mut self, place: Place) -> Origin {
        self.places.push(place);
        Origin(u32::try_from(self.places.len()).unwrap_or(u32::MAX))
    }

    /// The place that an origin stands for, if it is known.
    pub fn place(&self, origin: Origin) -> Option<&Place> {
        let index = usize::try_from(origin.0.checked_sub(1)?).ok()?;
        self.places.get(index)
    }

    /// How many places are known.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether no place is known.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

// === impl Place ===

impl Place {
    /// A place in a file.
    pub fn new(object: impl Into<Name>, file: impl Into<Name>, line: u32, column: u32) -> Self {
        Self {
            object: object.into(),
            file: file.into(),
            line,
            column,
        }
    }
}

impl fmt::Display for Place {
    /// Writes `VirtualService reviews.default (mesh/reviews.yaml:14:7)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}:{}:{})",
            self.object, self.file, self.line, self.column
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_never_makes_two_values_differ() {
        let mut table = Origins::default();
        let a = table.add(Place::new("VirtualService a.default", "a.yaml", 1, 1));
        let b = table.add(Place::new("VirtualService a.default", "a.yaml", 9, 1));
        assert_eq!(a, b);
        assert_ne!(a.index(), b.index());
        assert_eq!(table.place(b).map(|p| p.line), Some(9));
        assert_eq!(table.place(Origin::NONE), None);
    }
}
