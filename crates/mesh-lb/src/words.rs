//! Maps from our own ids. The ids are not chosen by peers, so they need no keyed hash.

use mesh_core::rng::mix;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map whose keys are one word of ours.
pub(crate) type WordMap<K, V> = HashMap<K, V, BuildHasherDefault<WordHasher>>;

/// Mixes one word.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WordHasher(u64);

// === impl WordHasher ===

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        // Not zero for the word zero, so that longer keys do not collapse.
        self.0 = mix(self.0.wrapping_add(word).wrapping_add(1));
    }
}
