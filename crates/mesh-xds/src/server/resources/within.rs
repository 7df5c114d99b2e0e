//! Resources of a type whose names begin alike.

use super::ResourceSet;
use crate::{Encoded, TypeUrl};
use std::ops::Bound;

// === impl ResourceSet ===

impl ResourceSet {
    /// Reads those resources of a type whose names begin like this. Costs as much as they are.
    pub(in crate::server) fn within<R>(
        &self,
        kind: TypeUrl,
        prefix: &str,
        read: impl FnOnce(&mut dyn Iterator<Item = &Encoded>) -> R,
    ) -> R {
        let state = self.state();
        let known = state.resources.get(&kind).into_iter();
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let known = known.flat_map(|known| known.range::<str, _>(from));
        let known = known.take_while(|(name, _)| name.starts_with(prefix));
        #[cfg(test)]
        let known = known.inspect(|_| {
            self.count_reads(1);
        });
        let mut own = known.filter(|(name, one)| **name == one.name);
        read(&mut own.by_ref().map(|(_, one)| one))
    }
}
