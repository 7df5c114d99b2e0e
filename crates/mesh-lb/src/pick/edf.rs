//! Earliest-deadline-first schedules: the weighted orders of round robin and least request.
//!
//! A host of weight w comes up every 1/w. [`Cycle`] is exact: of as many picks as the sum of all
//! weights, wherever they begin, each host gets its weight. [`Edf`] lets weights change from pick
//! to pick.

use super::Turn;
use crate::hosts::HostList;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Weights that never change.
#[derive(Debug)]
pub(super) struct Cycle {
    heap: BinaryHeap<Entry>,
    /// Picks until every host has had its weight.
    left: u64,
}

/// Weights that are asked for at each pick.
#[derive(Debug)]
pub(super) struct Edf {
    heap: BinaryHeap<Entry>,
    /// How many were put in so far.
    entered: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    deadline: f64,
    /// Of equal deadlines the least comes first.
    order: u64,
    at: usize,
    /// How often the host came up in this cycle, or with this weight.
    picks: u32,
    /// Since when it has this weight.
    since: f64,
    weight: f64,
}

/// Deadlines only grow; beyond this they begin anew, long before an f64 runs out of digits.
const LATE: f64 = 1e9;

/// A schedule begins after fewer picks than this.
const BEGINS: u64 = 1 << 20;

/// Picks with one weight are counted anew after so many.
const COUNTED: u32 = 1 << 24;

/// No weight is less, or one turn would last until the end of all numbers.
const LIGHTEST: f64 = 1e-9;

// === impl Cycle ===

impl Cycle {
    /// A cycle that begins at any of its places, each as likely as the others.
    pub(super) fn new(list: &HostList, word: u64) -> Self {
        let whole: u64 = weights(list).map(u64::from).sum();
        Self::beginning_at(list, word % whole)
    }

    fn beginning_at(list: &HostList, place: u64) -> Self {
        let whole: u64 = weights(list).map(u64::from).sum();
        // Everything due before this moment has been picked: nearly `place` picks, without
        // making them one by one.
        let moment = place.saturating_sub(list.len() as u64) as f64 / whole as f64;
        let mut done = 0;
        let heap = weights(list)
            .enumerate()
            .map(|(at, weight)| {
                let mut picks = (moment * f64::from(weight)) as u32;
                while picks > 0 && deadline(picks, weight) >= moment {
                    picks -= 1;
                }
                done += u64::from(picks);
                Entry {
                    deadline: deadline(picks + 1, weight),
                    // As in Envoy, where what was put back first comes first: whose last turn is
                    // longer ago.
                    order: u64::from(weight),
                    at,
                    picks,
                    since: 0.0,
                    weight: f64::from(weight),
                }
            })
            .collect();
        let mut cycle = Self {
            heap,
            left: whole - done,
        };
        while whole - cycle.left < place {
            cycle.next(list);
        }
        cycle
    }

    /// The next host.
    pub(super) fn next(&mut self, list: &HostList) -> usize {
        if self.left == 0 {
            *self = Self::beginning_at(list, 0);
        }
        self.left -= 1;
        let mut first = self
            .heap
            .peek_mut()
            .expect("a list with hosts has a schedule");
        let at = first.at;
        let weight = list.hosts()[at].weight();
        first.picks += 1;
        first.deadline = deadline(first.picks.saturating_add(1), weight);
        at
    }
}

fn weights(list: &HostList) -> impl Iterator<Item = u32> + '_ {
    list.hosts().iter().map(|host| host.weight())
}

/// When a host comes up for the n-th time: 1 at the end of the cycle, exactly.
fn deadline(n: u32, weight: u32) -> f64 {
    f64::from(n) / f64::from(weight)
}

// === impl Edf ===

impl Edf {
    /// A schedule that begins anywhere: as if some picks, drawn with `word`, had been made already
    /// (Envoy `EdfScheduler::createWithPicks`). The probability to be first is then each host's
    /// share of the weights, so a schedule that keeps being started anew, because endpoints keep
    /// changing, still follows them.
    pub(super) fn new(count: usize, word: u64, weight: impl Fn(usize) -> f64) -> Self {
        let weight = |at| weight(at).max(LIGHTEST);
        let sum: f64 = (0..count).map(weight).sum();
        let before = word % BEGINS;
        // Nearly all of them, without making them one by one.
        let mut made = 0;
        let heap = (0..count)
            .map(|at| {
                let picks = (before as f64 * weight(at) / sum).floor();
                made += picks as u64;
                Entry {
                    deadline: (picks + 1.0) / weight(at),
                    order: at as u64,
                    at,
                    picks: picks as u32,
                    since: 0.0,
                    weight: weight(at),
                }
            })
            .collect();
        let mut edf = Self {
            heap,
            entered: count as u64,
        };
        for _ in 0..before.saturating_sub(made).min(count as u64) {
            edf.next(weight);
        }
        edf
    }

    /// The next of `count` in the schedule that is kept in `turn`, or in a new one.
    pub(super) fn turn(
        turn: &mut Turn,
        count: usize,
        word: u64,
        weight: impl Fn(usize) -> f64,
    ) -> usize {
        loop {
            match turn {
                Turn::Edf(edf) => return edf.next(weight),
                _ => *turn = Turn::Edf(Self::new(count, word, &weight)),
            }
        }
    }

    /// The next host; it comes up again after a period of one by its present weight.
    pub(super) fn next(&mut self, weight: impl Fn(usize) -> f64) -> usize {
        let mut first = self
            .heap
            .peek_mut()
            .expect("a list with hosts has a schedule");
        let at = first.at;
        let late = first.deadline;
        let weight = weight(at).max(LIGHTEST);
        if first.weight == weight && first.picks < COUNTED {
            first.picks += 1;
        } else {
            (first.since, first.weight, first.picks) = (late, weight, 0);
        }
        // Not one period after the other: what is due at once has to stay so.
        first.deadline = first.since + (f64::from(first.picks) + 1.0) / weight;
        first.order = self.entered;
        drop(first);
        self.entered += 1;
        if late > LATE {
            let entries = std::mem::take(&mut self.heap).into_vec();
            self.heap = entries
                .into_iter()
                .map(|entry| Entry {
                    deadline: entry.deadline - late,
                    since: entry.since - late,
                    ..entry
                })
                .collect();
        }
        at
    }
}

// === impl Entry ===

impl Ord for Entry {
    /// The greatest entry comes up first: the earliest deadline and, of equal ones, the least order,
    /// then the first in the list. The order is total, so a cycle is the same however often it is begun.
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .deadline
            .total_cmp(&self.deadline)
            .then_with(|| other.order.cmp(&self.order))
            .then_with(|| other.at.cmp(&self.at))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}
