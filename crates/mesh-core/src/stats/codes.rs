//! Answers by their status code, of which most clusters only ever see a few.

use super::{SHARDS, Shard};
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts answers by status code (Envoy's `upstream_rq_<code>`).
///
/// A code has a place from its first answer on; counting one that has its place is one increment.
/// Nothing is kept of codes that never came, and nothing at all before the first answer.
#[derive(Default)]
pub struct Codes {
    rows: OnceLock<Box<Rows>>,
    /// Of all workers, for codes that find no place in a row.
    others: OnceLock<Box<[AtomicU64; OTHERS]>>,
}

/// A row for each worker, made when it first counts something.
type Rows = [OnceLock<Box<Row>>; SHARDS];

/// Each place holds a code and, below it, how often it came; 0 where it is free.
#[derive(Default)]
#[repr(align(128))]
struct Row([AtomicU64; PLACES]);

/// Codes that a worker keeps apart from the other workers': two lines of a cache.
const PLACES: usize = 16;
/// The bits of a count. The code has the others.
const COUNT: u32 = 54;
/// As many as there are from 100 to 999.
const OTHERS: usize = 900;
/// The first code.
const FIRST: u16 = 100;

// === impl Codes ===

impl Codes {
    /// Counts an answer. A code that HTTP has no room for (RFC 9110 §15: three digits, from 100)
    /// is not counted.
    pub fn inc(&self, shard: Shard, code: u16) {
        let Some(other) = code.checked_sub(FIRST).map(usize::from) else {
            return;
        };
        if other >= OTHERS {
            return;
        }
        let rows = self.rows.get_or_init(Box::default);
        let row = rows[shard.index()].get_or_init(Box::default);
        if !row.inc(code) {
            let others = self
                .others
                .get_or_init(|| Box::new(std::array::from_fn(|_| AtomicU64::new(0))));
            others[other].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Every code that came, in order, with how often it came.
    pub fn counts(&self) -> Vec<(u16, u64)> {
        let mut counts = std::collections::BTreeMap::<u16, u64>::new();
        let rows = self.rows.get().into_iter().flat_map(|rows| rows.iter());
        for place in rows.filter_map(OnceLock::get).flat_map(|row| &row.0) {
            let value = place.load(Ordering::Relaxed);
            if value != 0 {
                // The code has ten bits.
                *counts.entry((value >> COUNT) as u16).or_default() += value & ((1 << COUNT) - 1);
            }
        }
        for (code, count) in (FIRST..).zip(self.others.get().into_iter().flat_map(|it| it.iter())) {
            let count = count.load(Ordering::Relaxed);
            if count != 0 {
                *counts.entry(code).or_default() += count;
            }
        }
        counts.into_iter().collect()
    }
}

impl fmt::Debug for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.counts()).finish()
    }
}

// === impl Row ===

impl Row {
    /// Counts a code; false if it has no place and none is free.
    fn inc(&self, code: u16) -> bool {
        let code = u64::from(code) << COUNT;
        for place in &self.0 {
            let mut value = place.load(Ordering::Relaxed);
            if value == 0 {
                let first = code | 1;
                match place.compare_exchange(0, first, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => return true,
                    // Somebody who shares the row was faster, maybe with the same code.
                    Err(taken) => value = taken,
                }
            }
            if value >> COUNT == code >> COUNT {
                place.fetch_add(1, Ordering::Relaxed);
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn nothing_is_kept_before_something_came_and_then_little() {
        let codes = Codes::default();
        assert!(codes.rows.get().is_none() && codes.counts().is_empty());
        codes.inc(Shard::of_worker(1), 200);
        codes.inc(Shard::of_worker(2), 200);
        codes.inc(Shard::of_worker(2), 503);
        assert_eq!(codes.counts(), [(200, 2), (503, 1)]);
        assert!(codes.others.get().is_none());
        assert_eq!(size_of::<Row>(), 128);
    }

    #[test]
    fn workers_that_share_a_row_lose_nothing() {
        let codes = Codes::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let codes = &codes;
                scope.spawn(move || {
                    for n in 0..5_000 {
                        codes.inc(Shard::default(), 100 + (n + thread) % 40);
                    }
                });
            }
        });
        assert_eq!(codes.counts().iter().map(|(_, n)| n).sum::<u64>(), 20_000);
        assert_eq!(codes.counts().len(), 40);
    }

    proptest! {
        #[test]
        fn every_code_that_http_has_room_for_is_counted(
            came in proptest::collection::vec((0usize..40, any::<u16>().prop_map(|n| n % 1100)), 0..400),
        ) {
            let codes = Codes::default();
            let mut expected = BTreeMap::<u16, u64>::new();
            for (worker, code) in came {
                codes.inc(Shard::of_worker(worker), code);
                if (100..=999).contains(&code) {
                    *expected.entry(code).or_default() += 1;
                }
            }
            prop_assert_eq!(codes.counts(), expected.into_iter().collect::<Vec<_>>());
        }
    }
}
