//! One value per worker, each on cache lines of its own.

use mesh_core::Shard;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// As many as mesh-core has rows in a block; workers beyond share, as they do there.
const SHARDS: usize = 16;

/// A value for each worker behind a lock that only that worker wants, but for the occasional
/// reader of all of them.
pub(crate) struct Sharded<T>([Padded<T>; SHARDS]);

/// Two cache lines, because processors fetch lines in pairs.
#[repr(align(128))]
struct Padded<T>(Mutex<T>);

// === impl Sharded ===

impl<T> Sharded<T> {
    /// The value of a worker.
    pub(crate) fn lock(&self, shard: Shard) -> MutexGuard<'_, T> {
        // A shard does not tell its number, but it can be compared.
        let index = (0..SHARDS)
            .find(|number| Shard::of_worker(*number) == shard)
            .unwrap_or_default();
        lock(&self.0[index].0)
    }

    /// The values of all workers, one after the other.
    pub(crate) fn each(&self) -> impl Iterator<Item = MutexGuard<'_, T>> {
        self.0.iter().map(|padded| lock(&padded.0))
    }
}

impl<T: Default> Default for Sharded<T> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Padded(Mutex::default())))
    }
}

impl<T> fmt::Debug for Sharded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sharded")
    }
}

/// Locks; a panic elsewhere leaves nothing half done in what is kept here.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_has_a_value_of_its_own() {
        let values = Sharded::<u32>::default();
        for number in 0..SHARDS {
            *values.lock(Shard::of_worker(number)) += 1;
        }
        assert!(values.each().all(|value| *value == 1));
    }
}
