//! A share of requests, in parts per million.

use crate::Invalid;
use std::fmt;

/// A share between nothing and everything, in parts per million.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fraction(u32);

// === impl Fraction ===

impl Fraction {
    /// No request at all.
    pub const NONE: Self = Self(0);
    /// Every request.
    pub const ALL: Self = Self(1_000_000);

    /// A share in parts per million; more than a million means every request.
    pub fn millionths(parts: u32) -> Self {
        Self(parts.min(1_000_000))
    }

    /// A share in percent. Fractions below one ten-thousandth of a percent are cut off.
    ///
    /// # Errors
    /// If `percent` is not a number from 0 to 100.
    pub fn percent(percent: f64) -> Result<Self, Invalid> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(Invalid::new(
                "",
                format!("{percent} is not a percentage from 0 to 100"),
            ));
        }
        // 0 to 1,000,000, so the cast keeps the value. Rounding first mends 29.3 * 10_000.
        Ok(Self((percent * 10_000.0 + 1e-6) as u32))
    }

    /// The share in parts per million.
    pub fn as_millionths(self) -> u32 {
        self.0
    }

    /// Whether the request with this random word belongs to the share.
    pub fn admits(self, word: u64) -> bool {
        self.0 == 1_000_000 || word % 1_000_000 < u64::from(self.0)
    }
}

impl fmt::Debug for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.0) / 10_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_the_scale_hold_for_every_word() {
        for word in [0, 1, 999_999, 1_000_000, u64::MAX] {
            assert!(Fraction::ALL.admits(word));
            assert!(!Fraction::NONE.admits(word));
        }
    }

    #[test]
    fn percentages_keep_four_decimals() {
        assert_eq!(Fraction::percent(0.0001).unwrap().as_millionths(), 1);
        assert_eq!(Fraction::percent(29.3).unwrap().as_millionths(), 293_000);
        assert_eq!(Fraction::percent(100.0).unwrap(), Fraction::ALL);
        assert!(Fraction::percent(100.1).is_err());
        assert!(Fraction::percent(f64::NAN).is_err());
        assert_eq!(Fraction::percent(12.5).unwrap().to_string(), "12.5%");
    }
}
