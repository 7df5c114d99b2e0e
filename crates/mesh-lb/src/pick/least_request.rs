//! The host with fewer requests under way.
//!
//! Equal weights: of a few hosts drawn at random, the least busy (the power of two choices).
//! Unequal weights: a schedule in which each host's weight is `weight / (active + 1)` (Envoy's
//! `active_request_bias` of 1.0), looked at when the host is put back.

use super::Turn;
use super::edf::Edf;
use crate::hosts::HostList;
use mesh_core::rng::mix;

/// Chooses a host; the list is not empty.
pub(super) fn pick(turn: &mut Turn, list: &HostList, word: u64, choices: u32) -> usize {
    if list.has_equal_weights() {
        return of_choices(list, word, choices);
    }
    loop {
        match turn {
            Turn::Least(edf) => {
                let weight = |at: usize| {
                    let host = &list.hosts()[at];
                    f64::from(host.weight()) / (f64::from(host.active()) + 1.0)
                };
                return edf.next(weight);
            }
            _ => *turn = Turn::Least(Edf::new(list, word)),
        }
    }
}

/// The least busy of `choices` (at least 2) hosts. Each draw differs from the best so far, so two
/// choices of two hosts always compare both.
fn of_choices(list: &HostList, word: u64, choices: u32) -> usize {
    let mut best = list.anywhere(word);
    if list.len() == 1 {
        return best;
    }
    let others = list.len() as u64 - 1;
    let more = u64::from(choices.max(2) - 1).min(others);
    let active = |at: usize| list.hosts()[at].active();
    let mut word = word;
    for _ in 0..more {
        word = mix(word.wrapping_add(1));
        let challenger = (best + 1 + (word % others) as usize) % list.len();
        if active(challenger) < active(best) {
            best = challenger;
        }
    }
    best
}
