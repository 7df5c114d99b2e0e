//! Any host, by weight.

use crate::hosts::HostList;

/// Chooses by weight; the list is not empty.
pub(super) fn pick(list: &HostList, word: u64) -> usize {
    list.at_weight(word)
}
