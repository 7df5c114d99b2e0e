//! Streams that a caller reset.

use crate::Failure;
use std::sync::atomic::{AtomicU32, Ordering};

/// Resets of streams (RST_STREAM, RFC 9113 §6.4) that came on one connection, and that nothing was
/// ended for yet.
///
/// A codec drops what serves a stream whether the stream was reset or the connection is gone. Whoever
/// reads the frames [notes](Self::note) resets, and a request that ends early [takes](Self::take) one.
/// What nobody takes, as of a stream that was over already, is forgotten with the
/// [turn](Self::turn) after the next, so that no later request takes it. Of several streams that end
/// at once, some reset and some with their connection, either may take it.
#[derive(Debug, Default)]
pub struct Resets {
    /// By the turn: this one's, and those of the one before.
    new: Turn,
    old: Turn,
}

#[derive(Debug, Default)]
struct Turn {
    plain: AtomicU32,
    refused: AtomicU32,
}

// === impl Resets ===

impl Resets {
    /// A reset was read; `refused` if its error is `REFUSED_STREAM` (RFC 9113 §8.7).
    pub fn note(&self, refused: bool) {
        let of_kind = if refused {
            &self.new.refused
        } else {
            &self.new.plain
        };
        of_kind.fetch_add(1, Ordering::Relaxed);
    }

    /// There was nothing more to read, and now there is: requests have had their turn.
    pub fn turn(&self) {
        for (new, old) in self.new.kinds().into_iter().zip(self.old.kinds()) {
            if new.load(Ordering::Relaxed) != 0 || old.load(Ordering::Relaxed) != 0 {
                old.store(new.swap(0, Ordering::Relaxed), Ordering::Relaxed);
            }
        }
    }

    /// What a request ended early of, if its stream was reset: [`Failure::ClientReset`] or
    /// [`Failure::ClientRefused`]. The reset is the request's, and no other's.
    pub fn take(&self) -> Option<Failure> {
        let all = self.old.kinds().into_iter().chain(self.new.kinds());
        let failures = [Failure::ClientReset, Failure::ClientRefused];
        let less = |left: u32| left.checked_sub(1);
        all.zip(failures.into_iter().cycle())
            .find(|(left, _)| {
                let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
                taken.is_ok()
            })
            .map(|(_, failure)| failure)
    }
}

// === impl Turn ===

impl Turn {
    fn kinds(&self) -> [&AtomicU32; 2] {
        [&self.plain, &self.refused]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_is_for_one_request() {
        let resets = Resets::default();
        assert_eq!(resets.take(), None);
        resets.note(false);
        resets.note(true);
        assert_eq!(resets.take(), Some(Failure::ClientReset));
        assert_eq!(resets.take(), Some(Failure::ClientRefused));
        assert_eq!(resets.take(), None);
    }

    #[test]
    fn what_nobody_took_is_forgotten_with_the_second_turn() {
        let resets = Resets::default();
        resets.note(true);
        resets.turn();
        resets.note(false);
        assert_eq!(resets.take(), Some(Failure::ClientRefused), "the older one");
        resets.turn();
        assert_eq!(resets.take(), Some(Failure::ClientReset));
        resets.note(false);
        resets.turn();
        resets.turn();
        assert_eq!(resets.take(), None);
    }
}
