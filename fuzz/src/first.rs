//! The first bytes of a connection: the PROXY protocol, TLS and HTTP.

use crate::{Input, Target};
use mesh_client::proxy_protocol::{MAX_V1, MAX_V2, Parsed, encode, encode_local, parse};
use mesh_core::model::ProxyProtocol;
use mesh_proxy::inspect::{Hello, Look, MOST, http, tls};
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `proxy_protocol`: bytes that may be a header; also taken for the addresses of one.
pub(crate) const PROXY_PROTOCOL: Target = Target {
    name: "proxy_protocol",
    run: proxy_protocol,
    input: Input::Bytes,
};

/// `inspect_tls`
pub(crate) const TLS: Target = Target {
    name: "inspect_tls",
    run: inspect_tls,
    input: Input::Bytes,
};

/// `inspect_http`
pub(crate) const HTTP: Target = Target {
    name: "inspect_http",
    run: inspect_http,
    input: Input::Bytes,
};

/// How many beginnings are looked at near either end, and how many between.
const CUTS: usize = 64;

/// What is said of a beginning is said of everything that begins so. Returns what is said of all.
fn steady<T: PartialEq + Debug>(
    data: &[u8],
    look: impl Fn(&[u8]) -> T,
    waits: impl Fn(&T) -> bool,
) -> T {
    let whole = look(data);
    let length = data.len();
    let near = (0..length.min(CUTS)).chain(length.saturating_sub(CUTS)..length);
    for cut in near.chain((0..length).step_by(length / CUTS + 1)) {
        let part = look(&data[..cut]);
        assert!(
            waits(&part) || part == whole,
            "{part:?} of {cut} bytes, but {whole:?} of {length}"
        );
    }
    whole
}

fn proxy_protocol(data: &[u8]) {
    let read = steady(data, parse, |read| *read == Ok(Parsed::Incomplete));
    if let Ok(Parsed::Header {
        version,
        len,
        addresses,
    }) = read
    {
        let most = match version {
            ProxyProtocol::V1 => MAX_V1,
            ProxyProtocol::V2 => MAX_V2,
        };
        assert!(len <= data.len().min(most), "{len} bytes");
        match addresses {
            Some((from, to)) => {
                assert_eq!(from.is_ipv4(), to.is_ipv4(), "of two families");
                written(version, from, to, (from, to));
            }
            None => {
                let header = encode_local(version);
                let len = header.len();
                let expected = Parsed::Header {
                    version,
                    len,
                    addresses: None,
                };
                assert_eq!(parse(&header), Ok(expected));
            }
        }
    }
    let mut rest = data;
    let (from, to) = (address(&mut rest), address(&mut rest));
    let wide = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    let expected = match from.is_ipv4() == to.is_ipv4() {
        true => (from, to),
        false => (wide(from), wide(to)),
    };
    for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
        written(version, from, to, expected);
    }
}

/// Writes a header and reads it, with something behind it.
fn written(
    version: ProxyProtocol,
    from: SocketAddr,
    to: SocketAddr,
    expected: (SocketAddr, SocketAddr),
) {
    let mut header = encode(version, from, to);
    let len = header.len();
    header.extend_from_slice(b"\r\n");
    let read = steady(&header, parse, |read| *read == Ok(Parsed::Incomplete));
    let expected = Parsed::Header {
        version,
        len,
        addresses: Some(expected),
    };
    assert_eq!(read, Ok(expected), "not what was written");
}

/// An address from the front of these bytes, with zeros where there are too few.
fn address(rest: &mut &[u8]) -> SocketAddr {
    let [kind, high, low] = take(rest);
    let port = u16::from_be_bytes([high, low]);
    let ip: IpAddr = match kind % 3 {
        0 => Ipv4Addr::from(take::<4>(rest)).into(),
        1 => Ipv4Addr::from(take::<4>(rest)).to_ipv6_mapped().into(),
        _ => Ipv6Addr::from(take::<16>(rest)).into(),
    };
    SocketAddr::new(ip, port)
}

fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (front, behind) = rest.split_at(N.min(rest.len()));
    *rest = behind;
    let mut out = [0; N];
    out[..front.len()].copy_from_slice(front);
    out
}

fn inspect_tls(data: &[u8]) {
    let data = &data[..data.len().min(MOST)];
    let look = steady(data, tls, |look| *look == Look::Incomplete);
    if let Look::Yes(hello) = look {
        let lower = hello.server_name.to_ascii_lowercase();
        assert_eq!(*lower, *hello.server_name, "the server name's case");
        recut(data, &hello);
    }
}

/// Records may cut a message anywhere.
fn recut(data: &[u8], hello: &Hello) {
    let mut message = Vec::new();
    let mut rest = data;
    while let Some(([_, _, _, high, low], behind)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (fragment, behind) = behind.split_at(length.min(behind.len()));
        message.extend_from_slice(fragment);
        rest = behind;
        let whole = match message.as_slice() {
            [_, high, middle, low, ..] => {
                4 + u32::from_be_bytes([0, *high, *middle, *low]) as usize
            }
            _ => continue,
        };
        if message.len() >= whole {
            message.truncate(whole);
            break;
        }
    }
    for size in [1 + data.len() % 7, 1 + data.len() % 601] {
        let records = message.chunks(size).flat_map(|fragment| {
            let length = (fragment.len() as u16).to_be_bytes();
            [&[22, 3, 1, length[0], length[1]], fragment].concat()
        });
        let records: Vec<u8> = records.collect();
        assert_eq!(tls(&records), Look::Yes(hello.clone()), "cut by {size}");
    }
}

fn inspect_http(data: &[u8]) {
    let look = steady(data, http, |look| *look == Look::Incomplete);
    // A line is enough to tell, except where it begins as HTTP/2 does.
    if data.contains(&b'\n') && !data.starts_with(b"PRI") {
        assert_ne!(look, Look::Incomplete, "waits for more than a line");
    }
    assert_ne!(look, Look::TooLarge, "a line has no limit of its own");
}
