//! The PROXY protocol, versions 1 and 2: who calls, said before the first byte of a connection.
//!
//! A pure codec after HAProxy's specification (`proxy-protocol.txt`). Extensions (TLVs) of
//! version 2 are skipped, and none are written.
//!
//! ```
//! use mesh_client::proxy_protocol::{Parsed, encode, parse};
//! use mesh_core::model::ProxyProtocol;
//!
//! let (source, destination) = ("10.0.0.1:5".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
//! let header = encode(ProxyProtocol::V1, source, destination);
//! assert_eq!(header, b"PROXY TCP4 10.0.0.1 10.0.0.2 5 80\r\n");
//! assert_eq!(
//!     parse(&header),
//!     Ok(Parsed::Header {
//!         version: ProxyProtocol::V1,
//!         len: header.len(),
//!         addresses: Some((source, destination)),
//!     })
//! );
//! ```

use mesh_core::model::ProxyProtocol;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The longest header of version 1, with its end of line.
pub const MAX_V1: usize = 107;

/// The longest header of version 2: its length field has 16 bits.
pub const MAX_V2: usize = V2_FIXED + 0xffff;

const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, length.
const V2_FIXED: usize = V2_SIGNATURE.len() + 4;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header, or too little to tell.
    Incomplete,
    /// No header: the connection speaks for itself.
    NotPresent,
    /// A header.
    Header {
        /// Its version.
        version: ProxyProtocol,
        /// How many bytes it takes.
        len: usize,
        /// Who calls, and where the call went to. None where the sender does not say (`UNKNOWN`,
        /// `LOCAL`): the connection's own addresses hold.
        addresses: Option<(SocketAddr, SocketAddr)>,
    },
}

/// A header that breaks the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(&'static str);

/// The header for a connection from `source` that was going to `destination`. Addresses of
/// different families are both written as IPv6.
pub fn encode(version: ProxyProtocol, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (from, to) = same_family(source.ip(), destination.ip());
    let ports = (source.port(), destination.port());
    match version {
        ProxyProtocol::V1 => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {from} {to} {} {}\r\n", ports.0, ports.1).into_bytes()
        }
        ProxyProtocol::V2 => {
            let mut block = Vec::with_capacity(36);
            let family = match (from, to) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    block.extend_from_slice(&from.octets());
                    block.extend_from_slice(&to.octets());
                    0x11
                }
                _ => {
                    block.extend_from_slice(&wide(from).octets());
                    block.extend_from_slice(&wide(to).octets());
                    0x21
                }
            };
            block.extend_from_slice(&ports.0.to_be_bytes());
            block.extend_from_slice(&ports.1.to_be_bytes());
            v2(0x21, family, &block)
        }
    }
}

/// The header of a connection that nobody else stands behind, a health check say: `UNKNOWN` in
/// version 1, `LOCAL` in version 2.
pub fn encode_local(version: ProxyProtocol) -> Vec<u8> {
    match version {
        ProxyProtocol::V1 => b"PROXY UNKNOWN\r\n".to_vec(),
        ProxyProtocol::V2 => v2(0x20, 0x00, &[]),
    }
}

/// Reads the header that `bytes`, a connection's first, begin with. Bytes behind it are not looked
/// at.
///
/// # Errors
/// If the bytes begin as a header does but cannot become one.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    if bytes.starts_with(V1_SIGNATURE) {
        parse_v1(bytes)
    } else if bytes.starts_with(V2_SIGNATURE) {
        parse_v2(bytes)
    } else if V1_SIGNATURE.starts_with(bytes) || V2_SIGNATURE.starts_with(bytes) {
        Ok(Parsed::Incomplete)
    } else {
        Ok(Parsed::NotPresent)
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let window = &bytes[..bytes.len().min(MAX_V1)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < MAX_V1 {
            Ok(Parsed::Incomplete)
        } else {
            Err(Malformed("a line of version 1 ends within 107 bytes"))
        };
    };
    let len = end + 2;
    let header = |addresses| {
        Ok(Parsed::Header {
            version: ProxyProtocol::V1,
            len,
            addresses,
        })
    };
    let line = &window[V1_SIGNATURE.len()..end];
    // Whatever comes behind this word is to be ignored.
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return header(None);
    }
    let line = std::str::from_utf8(line).map_err(|_| Malformed("version 1 is ASCII"))?;
    // One space each: an empty field is no address.
    let fields: Vec<&str> = line.split(' ').collect();
    let &[family, from, to, from_port, to_port] = fields.as_slice() else {
        return Err(Malformed(
            "version 1 has a family, two addresses and two ports",
        ));
    };
    let (from, to) = match family {
        "TCP4" => (address::<Ipv4Addr>(from)?, address::<Ipv4Addr>(to)?),
        "TCP6" => (address::<Ipv6Addr>(from)?, address::<Ipv6Addr>(to)?),
        _ => return Err(Malformed("version 1 knows TCP4, TCP6 and UNKNOWN")),
    };
    header(Some((
        SocketAddr::new(from, port(from_port)?),
        SocketAddr::new(to, port(to_port)?),
    )))
}

fn parse_v2(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let Some(&[command, family, high, low]) = bytes.get(V2_SIGNATURE.len()..V2_FIXED) else {
        return Ok(Parsed::Incomplete);
    };
    if command >> 4 != 2 {
        return Err(Malformed("a binary header is of version 2"));
    }
    let len = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    let local = match command & 0x0f {
        0 => true,
        1 => false,
        _ => return Err(Malformed("the command is LOCAL or PROXY")),
    };
    // Judged before it is whole: there is nothing to wait for.
    let needed = match family {
        _ if local => 0,
        0x11 => 12,
        0x21 => 36,
        0x00 => 0,
        _ => {
            return Err(Malformed(
                "the addresses are those of TCP over IPv4 or IPv6",
            ));
        }
    };
    if len < V2_FIXED + needed {
        return Err(Malformed("the header is too short for its addresses"));
    }
    if bytes.len() < len {
        return Ok(Parsed::Incomplete);
    }
    let block = &bytes[V2_FIXED..len];
    let addresses = match needed {
        12 => pair(block, |octets: [u8; 4]| octets.into()),
        36 => pair(block, |octets: [u8; 16]| octets.into()),
        _ => None,
    };
    Ok(Parsed::Header {
        version: ProxyProtocol::V2,
        len,
        addresses,
    })
}

/// Two addresses of `N` bytes, then two ports.
fn pair<const N: usize>(
    block: &[u8],
    address: impl Fn([u8; N]) -> IpAddr,
) -> Option<(SocketAddr, SocketAddr)> {
    let (from, rest) = block.split_first_chunk()?;
    let (to, rest) = rest.split_first_chunk()?;
    let (from_port, rest) = rest.split_first_chunk()?;
    let (to_port, _) = rest.split_first_chunk()?;
    Some((
        SocketAddr::new(address(*from), u16::from_be_bytes(*from_port)),
        SocketAddr::new(address(*to), u16::from_be_bytes(*to_port)),
    ))
}

fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    // A block of addresses has 36 bytes at most.
    let length = block.len() as u16;
    let mut header = Vec::with_capacity(V2_FIXED + block.len());
    header.extend_from_slice(V2_SIGNATURE);
    header.extend_from_slice(&[command, family]);
    header.extend_from_slice(&length.to_be_bytes());
    header.extend_from_slice(block);
    header
}

fn address<T: FromStr + Into<IpAddr>>(text: &str) -> Result<IpAddr, Malformed> {
    match text.parse::<T>() {
        Ok(address) => Ok(address.into()),
        Err(_) => Err(Malformed("an address is not of its family")),
    }
}

/// No sign, and no zero in front.
fn port(text: &str) -> Result<u16, Malformed> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let shortest = text == "0" || !text.starts_with('0');
    text.parse()
        .ok()
        .filter(|_| plain && shortest)
        .ok_or(Malformed("a port is a number up to 65535"))
}

fn same_family(a: IpAddr, b: IpAddr) -> (IpAddr, IpAddr) {
    if a.is_ipv4() == b.is_ipv4() {
        (a, b)
    } else {
        (wide(a).into(), wide(b).into())
    }
}

fn wide(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

// === impl Malformed ===

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PROXY protocol: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

#[cfg(test)]
mod tests;
