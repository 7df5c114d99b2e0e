//! Response flags: Envoy's short words for the access log.

use std::fmt;
use std::hash::{Hash, Hasher};

/// A set of response flags (access log `%RESPONSE_FLAGS%`), which remembers in which order they
/// came: as Envoy's does, which logs them so (`URX,UC`: the limit on retries was met before the
/// last attempt failed). It has room for twelve; what comes after those is forgotten.
#[derive(Clone, Copy, Default)]
pub struct Flags(pub(super) u64);

/// Each flag takes so many bits of the number, the first the lowest. Zero is none.
const WIDTH: u32 = 5;
const ONE: u64 = (1 << WIDTH) - 1;
/// Of all twelve.
const USED: u32 = 60;

// === impl Flags ===

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident $text:literal = $number:literal;)*) => {
        impl Flags {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// Every flag with its short name, in the order of Envoy's table.
            pub const NAMES: &'static [(&'static str, Self)] = &[$(($text, Self::$name)),*];
        }
    };
}

flags! {
    /// The local health check failed.
    LH "LH" = 1;
    /// No healthy upstream.
    UH "UH" = 2;
    /// Upstream request timeout.
    UT "UT" = 3;
    /// Local reset.
    LR "LR" = 4;
    /// Upstream remote reset.
    UR "UR" = 5;
    /// Upstream connection failure.
    UF "UF" = 6;
    /// Upstream connection termination.
    UC "UC" = 7;
    /// Upstream overflow (circuit breaking).
    UO "UO" = 8;
    /// No route found.
    NR "NR" = 9;
    /// Delay injected.
    DI "DI" = 10;
    /// Fault injected.
    FI "FI" = 11;
    /// Rate limited.
    RL "RL" = 12;
    /// Denied by an external service.
    UAEX "UAEX" = 13;
    /// Error of the rate limit service.
    RLSE "RLSE" = 14;
    /// Downstream connection termination.
    DC "DC" = 15;
    /// Upstream retry limit exceeded.
    URX "URX" = 16;
    /// Stream idle timeout.
    SI "SI" = 17;
    /// Invalid `x-envoy-*` request headers.
    IH "IH" = 18;
    /// Downstream protocol error.
    DPE "DPE" = 19;
    /// Upstream maximum stream duration reached.
    UMSDR "UMSDR" = 20;
    /// Connection or stream duration reached.
    DT "DT" = 21;
    /// Upstream protocol error.
    UPE "UPE" = 22;
    /// No cluster found.
    NC "NC" = 23;
    /// Overload manager.
    OM "OM" = 24;
    /// DNS resolution failed.
    DF "DF" = 25;
    /// Dropped by an endpoint drop policy.
    DO "DO" = 26;
    /// Downstream remote reset.
    DR "DR" = 27;
    /// Dropped by an endpoint drop policy that drops everything.
    UDO "UDO" = 28;
}

impl Flags {
    /// All of it, to be kept in an atomic.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The set with these bits.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Both sets together: first ours, then what `other` has besides.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        let mut all = self;
        for flag in other.each() {
            let at = u64::BITS - all.0.leading_zeros();
            let at = at.next_multiple_of(WIDTH);
            if at < USED && !all.has(flag) {
                all.0 |= flag.0 << at;
            }
        }
        all
    }

    /// Whether any flag of `other` is set.
    pub fn has(self, other: Self) -> bool {
        self.each()
            .any(|flag| other.each().any(|wanted| wanted.0 == flag.0))
    }

    /// Whether no flag is set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// One by one, in their order.
    fn each(self) -> impl Iterator<Item = Self> {
        let next = |left: &u64| Some(left >> WIDTH);
        std::iter::successors(Some(self.0), next)
            .take_while(|left| *left != 0)
            .map(|left| Self(left & ONE))
    }

    fn name(self) -> Option<&'static str> {
        let (name, _) = Self::NAMES.iter().find(|(_, flag)| flag.0 == self.0)?;
        Some(name)
    }

    /// The same set, whatever came first.
    fn mask(self) -> u32 {
        self.each().fold(0, |mask, flag| mask | 1 << (flag.0 & ONE))
    }
}

impl PartialEq for Flags {
    /// As sets: the order plays no part.
    fn eq(&self, other: &Self) -> bool {
        self.mask() == other.mask()
    }
}

impl Eq for Flags {}

impl Hash for Flags {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.mask().hash(state);
    }
}

impl fmt::Display for Flags {
    /// Short names joined by commas, or `-`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (at, name) in self.each().filter_map(Self::name).enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_printed_in_the_order_in_which_they_came() {
        assert_eq!(Flags::URX.with(Flags::UF).to_string(), "URX,UF");
        assert_eq!(Flags::UF.with(Flags::URX).to_string(), "UF,URX");
        assert_eq!(Flags::UF.with(Flags::URX), Flags::URX.with(Flags::UF));
        assert_eq!(Flags::default().to_string(), "-");
    }

    #[test]
    fn a_flag_is_there_once() {
        let two = Flags::DI.with(Flags::FI);
        assert_eq!(two.with(Flags::DI).with(two).to_string(), "DI,FI");
        assert!(two.has(Flags::FI.with(Flags::UH)));
        assert!(!two.has(Flags::UH) && !two.has(Flags::default()));
    }

    #[test]
    fn each_flag_has_its_own_name_and_twelve_have_room() {
        for (at, (name, flag)) in Flags::NAMES.iter().enumerate() {
            assert_eq!(flag.to_string(), *name);
            assert!(Flags::NAMES[..at].iter().all(|(_, other)| other != flag));
        }
        let all = Flags::NAMES.iter().map(|(_, flag)| *flag);
        let all = all.fold(Flags::default(), Flags::with);
        let names: Vec<_> = Flags::NAMES[..12].iter().map(|(name, _)| *name).collect();
        assert_eq!(all.to_string(), names.join(","));
        assert_eq!(Flags::from_bits(all.bits()), all);
    }
}
