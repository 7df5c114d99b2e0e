//! Random choices that depend on a seed only, so that every run can be repeated.

/// A generator of random choices (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice {
    state: u64,
    /// Which of its area's configurations it is for.
    turn: usize,
}

// === impl Dice ===

impl Dice {
    /// Choices number `stream` of a seed; streams do not depend on each other. Its lower half is the
    /// number of a configuration among those of its area.
    pub(crate) fn of(seed: u64, stream: u64) -> Self {
        let mut dice = Self {
            state: seed ^ stream.wrapping_mul(0xA24B_AED4_963E_E407),
            turn: (stream & u64::from(u32::MAX)) as usize,
        };
        dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end` that configurations have in turns, for what a run must not miss.
    pub(crate) fn turn(&self, end: usize) -> usize {
        self.turn % end.max(1)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % end).unwrap_or(0)
    }

    /// A number from `least` to `most`, both included.
    pub(crate) fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }

    /// True in so many of a hundred cases.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of them.
    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_stream_choose_the_same() {
        let draw = |seed, stream| {
            let mut dice = Dice::of(seed, stream);
            [0; 8].map(|_| dice.below(1000))
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }

    #[test]
    fn a_chance_comes_about_as_often_as_said() {
        let mut dice = Dice::of(7, 7);
        let hits = (0..10_000).filter(|_| dice.chance(30)).count();
        assert!((2_700..3_300).contains(&hits), "{hits}");
    }
}
