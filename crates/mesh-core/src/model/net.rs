//! Blocks of addresses and ranges of ports.

use crate::Invalid;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A block of addresses, such as `10.0.0.0/8` (RFC 4632, RFC 4291).
///
/// Bits beyond the prefix are cleared, so two ways to write one block are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    address: IpAddr,
    length: u8,
}

/// Ports from `start` up to, but without, `end` (Envoy `Int32Range`). The end may be 65536.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    /// The first port.
    pub start: u32,
    /// The first port after it.
    pub end: u32,
}

// === impl Cidr ===

impl Cidr {
    /// The block of the first `length` bits of an address.
    ///
    /// # Errors
    /// A length beyond the address's own: 32 or 128.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, Invalid> {
        let most = bits(address);
        if length > most {
            let message = format!("/{length} is longer than the {most} bits of {address}");
            return Err(Invalid::new("", message));
        }
        Ok(Self {
            address: mask(address, length),
            length,
        })
    }

    /// The block of one address.
    pub fn single(address: IpAddr) -> Self {
        Self {
            address,
            length: bits(address),
        }
    }

    /// The lowest address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits all its addresses have in common.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether it holds one address only.
    pub fn is_single(&self) -> bool {
        self.length == bits(self.address)
    }

    /// Whether an address lies in it. An address of IPv4 never lies in a block of IPv6.
    pub fn contains(&self, address: IpAddr) -> bool {
        bits(address) == bits(self.address) && mask(address, self.length) == self.address
    }
}

impl FromStr for Cidr {
    type Err = Invalid;

    /// Reads `10.0.0.0/8`, `2001:db8::/32`, or an address alone.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || Invalid::new("", format!("{text:?} is neither an address nor a block"));
        let Some((address, length)) = text.split_once('/') else {
            return Ok(Self::single(text.parse().map_err(|_| wrong())?));
        };
        // A sign is no part of a length.
        if !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let address = address.parse().map_err(|_| wrong())?;
        Self::new(address, length.parse().map_err(|_| wrong())?)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn mask(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

// === impl PortRange ===

impl PortRange {
    /// One port.
    pub fn single(port: u16) -> Self {
        Self {
            start: port.into(),
            end: u32::from(port) + 1,
        }
    }

    /// Whether a port lies in it.
    pub fn contains(&self, port: u16) -> bool {
        (self.start..self.end).contains(&port.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_block_holds_what_shares_its_prefix() {
        let block: Cidr = "10.1.2.3/8".parse().unwrap();
        assert_eq!(block.to_string(), "10.0.0.0/8");
        assert!(block.contains("10.255.0.1".parse().unwrap()));
        assert!(!block.contains("11.0.0.1".parse().unwrap()));
        assert!(!block.contains("::ffff:10.0.0.1".parse().unwrap()));
        let all: Cidr = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("255.1.1.1".parse().unwrap()));
        let v6: Cidr = "2001:db8::1/32".parse().unwrap();
        assert!(v6.contains("2001:db8:ffff::".parse().unwrap()));
        assert!(!v6.contains("2001:db9::".parse().unwrap()));
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/+8",
            "10.0.0/8",
            "a/8",
            "1.2.3.4/",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_block_survives_its_text(address: IpAddr, length in 0u8..=128) {
            if let Ok(block) = Cidr::new(address, length) {
                prop_assert!(block.contains(address));
                prop_assert_eq!(block.to_string().parse::<Cidr>().unwrap(), block);
            }
        }

        #[test]
        fn text_never_panics(text in ".{0,60}") {
            let _ = text.parse::<Cidr>();
        }
    }
}
