//! A ring of hashes ("ketama", Envoy's `RingHashLoadBalancer`).
//!
//! Each host has points on the ring, as many as its share says; a request goes to the point at or
//! after its hash. Two points at one place happen only when two hosts have one key: then the host
//! that comes first in the cluster is found. (Envoy's order is that of an unstable sort.)

use super::{Extent, Weighed, key, murmur2, xx};
use mesh_core::model::{HashFunction, RingHash};

/// Points in order of their hashes.
#[derive(Debug)]
pub(super) struct Ring {
    hashes: Vec<u64>,
    hosts: Vec<u32>,
    /// For each value of a hash's uppermost bits, the first point with that value or more; one
    /// more at the end. Hashes are spread evenly, so what is left to search is a point or two.
    starts: Vec<u32>,
    /// How far to shift a hash for its uppermost bits.
    shift: u32,
    extent: Extent,
}

/// Envoy's `kMaxRingSize`, whatever is asked for.
const MOST: u64 = 8 << 20;

// === impl Ring ===

impl Ring {
    /// The ring for these hosts, of which there is at least one. None where it has no point.
    pub(super) fn build(config: &RingHash, hosts: &[Weighed]) -> Option<Self> {
        let minimum = config.minimum.min(MOST);
        let maximum = config.maximum.clamp(1, MOST);
        let least_share = hosts.iter().map(|host| host.share).fold(1.0, f64::min);
        // The host with the smallest share gets a whole number of points, if the ring may be so
        // large.
        let scale = ((least_share * minimum as f64).ceil() / least_share).min(maximum as f64);
        let size = scale.ceil() as u64;

        let mut points: Vec<(u64, u32)> = Vec::with_capacity(size as usize);
        let (mut placed, mut target) = (0.0_f64, 0.0_f64);
        let (mut least, mut most) = (size, 0);
        let mut text = Vec::new();
        for (at, host) in (0_u32..).zip(hosts) {
            text.clear();
            text.extend_from_slice(key(&host.host, config.keys).as_bytes());
            text.push(b'_');
            let prefix = text.len();
            target += scale * host.share;
            let mut count = 0_u64;
            while placed < target {
                text.truncate(prefix);
                push_decimal(&mut text, count);
                let hash = match config.function {
                    HashFunction::Murmur2 => murmur2(&text),
                    _ => xx(&text),
                };
                points.push((hash, at));
                count += 1;
                placed += 1.0;
            }
            least = least.min(count);
            most = most.max(count);
        }
        if points.is_empty() {
            return None;
        }
        points.sort_by_key(|(hash, _)| *hash);
        let (hashes, hosts): (Vec<_>, Vec<_>) = points.into_iter().unzip();
        let (starts, shift) = starts(&hashes);
        Some(Self {
            hashes,
            hosts,
            starts,
            shift,
            extent: Extent { size, least, most },
        })
    }

    /// The place of the host for a hash; each refused choice moves on by one point.
    pub(super) fn find(&self, hash: u64, attempt: u32) -> usize {
        let bucket = (hash >> self.shift) as usize;
        let (from, to) = (
            self.starts[bucket] as usize,
            self.starts[bucket + 1] as usize,
        );
        let at = from + self.hashes[from..to].partition_point(|point| *point < hash);
        let count = self.hashes.len();
        let at = if at == count { 0 } else { at };
        let at = match attempt {
            0 => at,
            _ => (at + attempt as usize) % count,
        };
        self.hosts[at] as usize
    }

    pub(super) fn extent(&self) -> Extent {
        self.extent
    }
}

/// The index into sorted hashes by uppermost bits: about as many values as there are points.
fn starts(hashes: &[u64]) -> (Vec<u32>, u32) {
    let bits = (usize::BITS - hashes.len().leading_zeros()).clamp(1, 23);
    let shift = u64::BITS - bits;
    let mut starts = vec![0_u32; (1 << bits) + 1];
    for hash in hashes {
        starts[(hash >> shift) as usize + 1] += 1;
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += *start;
        *start = sum;
    }
    (starts, shift)
}

fn push_decimal(text: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut from = digits.len();
    loop {
        from -= 1;
        // A digit fits.
        digits[from] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.extend_from_slice(&digits[from..]);
}
