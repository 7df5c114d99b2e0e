//! The host with fewer requests under way.
//!
//! Equal weights: of a few hosts drawn at random, the least busy (the power of two choices).
//! Unequal weights, or while hosts are new: a schedule in which each host's weight is `weight /
//! (active + 1)^bias` (Envoy's `active_request_bias`), looked at when the host is put back.

use super::Turn;
use super::edf::Edf;
use super::weight::Weigher;
use crate::hosts::HostList;
use mesh_core::rng::mix;

/// Chooses a host; the list is not empty.
pub(super) fn pick(
    turn: &mut Turn,
    list: &HostList,
    word: u64,
    choices: u32,
    weigher: Weigher<'_>,
) -> usize {
    if list.has_equal_weights() && !weigher.is_changing() {
        return of_choices(list, word, choices);
    }
    Edf::turn(turn, list.len(), word, |at| weigher.of(&list.hosts()[at]))
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
