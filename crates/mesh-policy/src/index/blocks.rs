//! Places of policies by the block that one address of a request has to lie in.

use mesh_core::model::Cidr;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

/// Places of policies, in order, by blocks, and the lengths that these have: of IPv4, and of IPv6.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    places: HashMap<Cidr, Vec<usize>>,
    lengths: [BTreeSet<u8>; 2],
}

// === impl Blocks ===

impl Blocks {
    /// The places that are known for a block, to add to.
    pub(super) fn places(&mut self, block: Cidr) -> &mut Vec<usize> {
        self.lengths[family(block.address())].insert(block.length());
        self.places.entry(block).or_default()
    }

    /// Shows `look` the places of all blocks that an address lies in.
    pub(super) fn look(&self, address: IpAddr, look: &mut impl FnMut(&[usize])) {
        for length in &self.lengths[family(address)] {
            let block = Cidr::new(address, *length).ok();
            if let Some(places) = block.and_then(|block| self.places.get(&block)) {
                look(places);
            }
        }
    }
}

/// Whether many addresses lie in a block.
pub(super) fn is_broad(block: Cidr) -> bool {
    block.length() < 8
}

fn family(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
}
