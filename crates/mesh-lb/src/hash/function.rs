//! The functions that endpoints and requests are hashed with.

use xxhash_rust::xxh64::xxh64;

/// MurmurHash2's multiplier for 64 bits.
const MULTIPLIER: u64 = 0xc6a4_a793_5bd1_e995;

/// libstdc++'s seed.
const SEED: u64 = 0xc70f_6907;

/// XXH64 with seed 0.
pub(crate) fn xx(bytes: &[u8]) -> u64 {
    xxh64(bytes, 0)
}

/// XXH64 with any seed.
pub(crate) fn xx_seeded(bytes: &[u8], seed: u64) -> u64 {
    xxh64(bytes, seed)
}

/// MurmurHash2 64 A as `std::hash` of libstdc++ has it.
pub(crate) fn murmur2(bytes: &[u8]) -> u64 {
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        hash ^= fold(word).wrapping_mul(MULTIPLIER);
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        hash ^= u64::from_le_bytes(word);
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    fold(fold(hash).wrapping_mul(MULTIPLIER))
}

fn fold(word: u64) -> u64 {
    word ^ (word >> 47)
}
