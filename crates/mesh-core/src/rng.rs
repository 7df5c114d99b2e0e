//! Seedable randomness for decisions.
//!
//! One atomic word, advanced by a Weyl step and mixed (the SplitMix64 finaliser). It is shared by
//! reference, needs no lock and can be seeded, so that a run can be repeated. Decision functions
//! never take an [`Rng`]: they take a *word*, so a test can write the word it means.
//!
//! Not for secrets.

use std::sync::atomic::{AtomicU64, Ordering};

/// A source of random words.
#[derive(Debug)]
pub struct Rng {
    state: AtomicU64,
}

/// The odd Weyl increment: 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

// === impl Rng ===

impl Rng {
    /// A source whose words follow from `seed` alone.
    pub fn with_seed(seed: u64) -> Self {
        Self {
            state: AtomicU64::new(seed),
        }
    }

    /// A source seeded from the operating system (by way of the standard library's hasher keys).
    pub fn from_system() -> Self {
        use std::hash::{BuildHasher, Hasher};
        let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
        hasher.write_u64(STEP);
        Self::with_seed(hasher.finish())
    }

    /// The next random word.
    #[inline]
    pub fn word(&self) -> u64 {
        mix(self
            .state
            .fetch_add(STEP, Ordering::Relaxed)
            .wrapping_add(STEP))
    }

    /// Another source, independent of this one: a worker's own, say.
    pub fn fork(&self) -> Self {
        Self::with_seed(self.word())
    }
}

impl Default for Rng {
    fn default() -> Self {
        Self::from_system()
    }
}

/// Spreads a word over all bits; a second, independent draw from one word.
#[inline]
pub fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_words() {
        let (a, b) = (Rng::with_seed(7), Rng::with_seed(7));
        let words: Vec<u64> = (0..8).map(|_| a.word()).collect();
        assert_eq!(words, (0..8).map(|_| b.word()).collect::<Vec<_>>());
        assert_ne!(words[0], words[1]);
    }

    #[test]
    fn words_fall_evenly_into_buckets() {
        let rng = Rng::with_seed(1);
        let mut buckets = [0u32; 10];
        for _ in 0..100_000 {
            buckets[(rng.word() % 10) as usize] += 1;
        }
        for count in buckets {
            assert!((9_600..10_400).contains(&count), "{buckets:?}");
        }
    }
}
