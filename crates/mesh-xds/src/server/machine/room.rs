//! What fits into one response.

use crate::server::{Limits, Variant};

/// What may still go into a response. Something always fits into an empty one.
#[derive(Debug)]
pub(super) struct Room {
    resources: usize,
    bytes: usize,
    empty: bool,
}

// === impl Room ===

impl Room {
    /// An empty response. Only those of the delta protocol may be cut.
    pub(super) fn of(variant: Variant, limits: &Limits) -> Self {
        let (resources, bytes) = match variant {
            Variant::Delta => (limits.response_resources.max(1), limits.piece_bytes),
            Variant::StateOfTheWorld => (usize::MAX, usize::MAX),
        };
        Self {
            resources,
            bytes,
            empty: true,
        }
    }

    /// Takes the room for something of this length, if there is as much; if not, the response is
    /// full.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let fits = self.resources > 0 && (self.empty || bytes <= self.bytes);
        if fits {
            self.resources -= 1;
            self.bytes = self.bytes.saturating_sub(bytes);
            self.empty = false;
        } else {
            // What comes later and is shorter does not overtake.
            (self.resources, self.bytes) = (0, 0);
        }
        fits
    }

    /// Sets room aside for this many, at most half of it.
    pub(super) fn set_aside(&mut self, count: usize) -> Self {
        let (resources, bytes) = match count {
            0 => (0, 0),
            count => (count.min(self.resources / 2), self.bytes / 2),
        };
        self.resources -= resources;
        self.bytes -= bytes;
        Self {
            resources,
            bytes,
            empty: false,
        }
    }

    /// Adds what was set aside.
    pub(super) fn add(&mut self, aside: Self) {
        self.resources += aside.resources;
        self.bytes += aside.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(resources: usize, bytes: usize) -> Room {
        let mut limits = Limits::default();
        (limits.response_resources, limits.piece_bytes) = (resources, bytes);
        Room::of(Variant::Delta, &limits)
    }

    #[test]
    fn there_is_always_room_for_one() {
        let mut room = room(0, 0);
        assert!(room.take(1_000));
        assert!(!room.take(0));
    }

    #[test]
    fn both_the_number_and_the_bytes_are_bounded() {
        let mut few = room(2, 100);
        assert_eq!([1, 1, 1].map(|bytes| few.take(bytes)), [true, true, false]);
        let mut short = room(9, 10);
        assert_eq!(
            [6, 5, 4].map(|bytes| short.take(bytes)),
            [true, false, false]
        );
    }

    #[test]
    fn what_is_set_aside_is_at_most_half() {
        let mut room = room(10, 100);
        let aside = room.set_aside(7);
        let taken = (0..10).filter(|_| room.take(1)).count();
        assert_eq!(taken, 5);
        room.add(aside);
        let taken = (0..10).filter(|_| room.take(1)).count();
        assert_eq!(taken, 5);
    }
}
