//! Each host in turn; by weight where weights differ, or while hosts are new.

use super::Turn;
use super::edf::{Cycle, Edf};
use super::weight::Weigher;
use crate::hosts::HostList;

/// Chooses the next host; the list is not empty. The first choice is anywhere in the rotation, so
/// that workers and new sets do not all begin with the same host.
pub(super) fn pick(turn: &mut Turn, list: &HostList, word: u64, weigher: Weigher<'_>) -> usize {
    if weigher.is_changing() {
        return Edf::turn(turn, list.len(), word, |at| weigher.of(&list.hosts()[at]));
    }
    if list.has_equal_weights() {
        let next = match turn {
            Turn::Next(next) => *next,
            _ => list.anywhere(word),
        };
        *turn = Turn::Next((next + 1) % list.len());
        return next;
    }
    loop {
        match turn {
            Turn::Cycle(cycle) => return cycle.next(list),
            _ => *turn = Turn::Cycle(Cycle::new(list, word)),
        }
    }
}
