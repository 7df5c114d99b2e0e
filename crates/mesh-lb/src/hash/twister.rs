//! The Mersenne Twister (MT19937), because bounded loads go by its order.

/// The generator that C++ calls `std::mt19937`.
pub(super) struct Twister {
    state: [u32; SIZE],
    next: usize,
}

const SIZE: usize = 624;
const SHIFT: usize = 397;

// === impl Twister ===

impl Twister {
    pub(super) fn new(seed: u32) -> Self {
        let mut state = [seed; SIZE];
        for at in 1..SIZE {
            let last = state[at - 1];
            // The place is below 624.
            state[at] = (last ^ (last >> 30))
                .wrapping_mul(1_812_433_253)
                .wrapping_add(at as u32);
        }
        Self { state, next: SIZE }
    }

    pub(super) fn word(&mut self) -> u32 {
        if self.next == SIZE {
            self.twist();
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// A number below `bound`, which is not zero, each as likely as the others: words that fall
    /// beyond the last whole part are drawn again.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        let part = (1 << 32) / u64::from(bound.max(1));
        loop {
            // At most 2^32 - 1.
            let number = (u64::from(self.word()) / part) as u32;
            if number < bound || bound == 0 {
                return number;
            }
        }
    }

    fn twist(&mut self) {
        for at in 0..SIZE {
            let upper = self.state[at] & 0x8000_0000;
            let lower = self.state[(at + 1) % SIZE] & 0x7fff_ffff;
            let word = upper | lower;
            let odd = if word & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[at] = self.state[(at + SHIFT) % SIZE] ^ (word >> 1) ^ odd;
        }
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ten_thousandth_word_is_the_one_that_the_standard_names() {
        // C++ standard, rand.predef: of a default-constructed mt19937, whose seed is 5489.
        let mut random = Twister::new(5489);
        let word = (0..10_000).map(|_| random.word()).last();
        assert_eq!(word, Some(4_123_659_995));
    }

    #[test]
    fn a_number_is_below_its_bound() {
        let mut random = Twister::new(7);
        for bound in [1, 2, 3, 10, 1 << 31, u32::MAX] {
            assert!((0..100).all(|_| random.below(bound) < bound));
        }
    }
}
