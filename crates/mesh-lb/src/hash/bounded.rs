//! Bounded loads: a host with too much under way is passed over (Envoy's
//! `BoundedLoadHashingLoadBalancer`, <https://arxiv.org/abs/1608.01350>).
//!
//! The hosts to try instead come in an order that follows from the hash alone, so a hash keeps its
//! second choice too. Where all have too much, the one that has least beyond its share is taken.

use super::Weighed;
use super::twister::Twister;

/// The place of the host for a hash whose first choice is at `first`; `active` are the requests
/// under way in the cluster.
pub(super) fn choose(
    hosts: &[Weighed],
    first: usize,
    hash: u64,
    factor: u32,
    active: u64,
) -> usize {
    // In 32 bits, as there.
    let slots = (active as u32)
        .wrapping_add(1)
        .wrapping_mul(factor)
        .wrapping_add(99)
        / 100;
    let overload = |at: usize| {
        let own = (f64::from(slots) * hosts[at].share).ceil() as u32;
        f64::from(hosts[at].host.active()) / f64::from(own.max(1))
    };
    let mut least = (overload(first), first);
    if least.0 <= 1.0 {
        return first;
    }
    // The seed is what a 32-bit generator takes of the hash.
    let mut random = Twister::new(hash as u32);
    let mut order: Vec<usize> = (0..hosts.len()).collect();
    for at in 0..order.len() {
        let left = (order.len() - at) as u32;
        let other = at + random.below(left) as usize;
        order.swap(at, other);
        let candidate = order[at];
        if candidate == first {
            continue;
        }
        let factor = overload(candidate);
        if factor <= 1.0 {
            return candidate;
        }
        if factor < least.0 {
            least = (factor, candidate);
        }
    }
    least.1
}
