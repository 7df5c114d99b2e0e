//! How much is read at once: as much as comes.

use crate::buffers::SIZE;

/// The most that is read at once.
const MOST: usize = 256 << 10;

/// Room for the next read, by what the last ones found: more when one was filled, less when two in a
/// row had less than half of theirs. An answer of 64 KiB then takes one read and one write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    room: usize,
    /// The last read had much more room than it needed.
    ample: bool,
}

// === impl Pace ===

impl Pace {
    pub(super) fn room(self) -> usize {
        self.room
    }

    /// A read of up to `room` bytes had so many.
    pub(super) fn read(&mut self, room: usize, count: usize) {
        if room < self.room {
            // No more was wanted, whatever there was.
            return;
        }
        if count >= room {
            self.room = (2 * self.room).min(MOST);
        } else if self.room > SIZE && count < self.room / 2 {
            if self.ample {
                self.room /= 2;
            }
            self.ample = !self.ample;
            return;
        }
        self.ample = false;
    }
}

impl Default for Pace {
    /// A buffer that connections share.
    fn default() -> Self {
        let (room, ample) = (SIZE, false);
        Self { room, ample }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KIB: usize = 1 << 10;

    #[test]
    fn room_follows_what_comes() {
        let mut pace = Pace::default();
        let mut read = |count: usize| {
            let room = pace.room();
            pace.read(room, count.min(room));
            pace.room() / KIB
        };
        assert_eq!(read(KIB), 16, "small answers need no more than they had");
        let grown: Vec<usize> = (0..4).map(|_| read(65 * KIB)).collect();
        assert_eq!(grown, [32, 64, 128, 128], "until all of it has room");
        assert_eq!(read(KIB), 128, "one small answer says nothing");
        assert_eq!(read(65 * KIB), 128);
        let shrunk: Vec<usize> = (0..7).map(|_| read(KIB)).collect();
        assert_eq!(shrunk, [128, 64, 64, 32, 32, 16, 16]);
    }

    #[test]
    fn the_end_of_a_body_says_nothing() {
        let mut pace = Pace::default();
        pace.read(SIZE, SIZE);
        let before = pace.room();
        for _ in 0..4 {
            pace.read(200, 200);
        }
        assert_eq!(pace.room(), before);
    }

    proptest! {
        #[test]
        fn room_has_bounds(counts in prop::collection::vec(0..2 * MOST, 0..64)) {
            let mut pace = Pace::default();
            for count in counts {
                let room = pace.room();
                pace.read(room, count.min(room));
                prop_assert!((SIZE..=MOST).contains(&pace.room()));
            }
        }
    }
}
