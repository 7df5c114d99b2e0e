//! Response flags: Envoy's short words for the access log.

use std::fmt;

/// A set of response flags (access log `%RESPONSE_FLAGS%`).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub(super) u32);

// === impl Flags ===

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident $text:literal = $bit:literal;)*) => {
        impl Flags {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*

            /// Every flag with its short name, in the order in which Envoy prints them.
            pub const NAMES: &'static [(&'static str, Self)] = &[$(($text, Self::$name)),*];
        }
    };
}

flags! {
    /// The local health check failed.
    LH "LH" = 0;
    /// No healthy upstream.
    UH "UH" = 1;
    /// Upstream request timeout.
    UT "UT" = 2;
    /// Local reset.
    LR "LR" = 3;
    /// Upstream remote reset.
    UR "UR" = 4;
    /// Upstream connection failure.
    UF "UF" = 5;
    /// Upstream connection termination.
    UC "UC" = 6;
    /// Upstream overflow (circuit breaking).
    UO "UO" = 7;
    /// No route found.
    NR "NR" = 8;
    /// Delay injected.
    DI "DI" = 9;
    /// Fault injected.
    FI "FI" = 10;
    /// Rate limited.
    RL "RL" = 11;
    /// Denied by an external service.
    UAEX "UAEX" = 12;
    /// Error of the rate limit service.
    RLSE "RLSE" = 13;
    /// Downstream connection termination.
    DC "DC" = 14;
    /// Upstream retry limit exceeded.
    URX "URX" = 15;
    /// Stream idle timeout.
    SI "SI" = 16;
    /// Invalid `x-envoy-*` request headers.
    IH "IH" = 17;
    /// Downstream protocol error.
    DPE "DPE" = 18;
    /// Upstream maximum stream duration reached.
    UMSDR "UMSDR" = 19;
    /// Connection or stream duration reached.
    DT "DT" = 20;
    /// Upstream protocol error.
    UPE "UPE" = 21;
    /// No cluster found.
    NC "NC" = 22;
    /// Overload manager.
    OM "OM" = 23;
    /// DNS resolution failed.
    DF "DF" = 24;
    /// Dropped by an endpoint drop policy.
    DO "DO" = 25;
    /// Downstream remote reset.
    DR "DR" = 26;
    /// Dropped by an endpoint drop policy that drops everything.
    UDO "UDO" = 27;
}

impl Flags {
    /// The bits, to be kept in an atomic.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// The set with these bits.
    pub fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Both sets together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any flag of `other` is set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether no flag is set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Flags {
    /// Short names joined by commas, or `-`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        let mut first = true;
        for (name, flag) in Self::NAMES {
            if self.has(*flag) {
                if !first {
                    f.write_str(",")?;
                }
                f.write_str(name)?;
                first = false;
            }
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
    fn flags_are_printed_in_envoys_order() {
        assert_eq!(Flags::URX.with(Flags::UF).to_string(), "UF,URX");
        assert_eq!(Flags::default().to_string(), "-");
    }
}
