use super::*;
use proptest::prelude::*;

fn header(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    match parse(bytes) {
        Ok(Parsed::Header { len, addresses, .. }) if len == bytes.len() => addresses,
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(bytes)),
    }
}

fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend_from_slice(&[command, family]);
    bytes.extend_from_slice(&u16::try_from(block.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(block);
    bytes
}

#[test]
fn the_examples_of_the_specification_are_read() {
    let (from, to) = header(b"PROXY TCP4 255.255.255.255 192.168.0.11 65535 443\r\n").unwrap();
    assert_eq!(from.to_string(), "255.255.255.255:65535");
    assert_eq!(to.to_string(), "192.168.0.11:443");
    let longest = b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
        ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    assert_eq!(header(longest).unwrap().0.port(), 65535);
    assert_eq!(header(b"PROXY UNKNOWN\r\n"), None);
    let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(91));
    assert_eq!(longest.len(), MAX_V1);
    assert_eq!(header(longest.as_bytes()), None);
}

#[test]
fn bytes_behind_a_header_belong_to_the_connection() {
    let parsed = parse(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\n");
    assert!(
        matches!(parsed, Ok(Parsed::Header { len: 32, .. })),
        "{parsed:?}"
    );
}

#[test]
fn a_header_of_version_1_that_breaks_the_rules_is_malformed() {
    for line in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
        "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
        "PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n",
        "PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 ::1 ::2 1 2\r\n",
        "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n\r\n",
    ] {
        assert!(parse(line.as_bytes()).is_err(), "{line:?}");
    }
    let endless = format!("PROXY UNKNOWN {}", "f".repeat(93));
    assert!(parse(endless.as_bytes()).is_err());
    assert_eq!(parse(&endless.as_bytes()[..106]), Ok(Parsed::Incomplete));
}

#[test]
fn what_begins_otherwise_is_no_header() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"PROXYING",
        b"proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PRI * HTTP/2.0",
        b"\r\n\r\nGET",
        b"\x16\x03\x01",
        b"\0",
    ] {
        assert_eq!(parse(bytes), Ok(Parsed::NotPresent), "{bytes:?}");
    }
    assert_eq!(parse(b""), Ok(Parsed::Incomplete));
}

#[test]
fn a_binary_header_that_breaks_the_rules_is_malformed() {
    for (command, family, length) in [
        (0x11, 0x11, 12),  // version 1
        (0x31, 0x11, 12),  // version 3
        (0x22, 0x11, 12),  // no command
        (0x21, 0x11, 11),  // too short for IPv4
        (0x21, 0x21, 35),  // too short for IPv6
        (0x21, 0x12, 12),  // UDP
        (0x21, 0x31, 216), // a socket in the file system
        (0x21, 0x41, 12),  // no family
    ] {
        let bytes = binary(command, family, &vec![1; length]);
        assert!(parse(&bytes).is_err(), "{command:x} {family:x} {length}");
    }
}

#[test]
fn a_binary_header_without_addresses_says_nothing() {
    assert_eq!(header(&binary(0x20, 0x00, &[])), None);
    // What LOCAL carries is skipped, whatever it claims to be.
    assert_eq!(header(&binary(0x20, 0x11, &[1; 12])), None);
    assert_eq!(header(&binary(0x20, 0x31, &[1; 3])), None);
    assert_eq!(header(&binary(0x21, 0x00, &[1; 40])), None);
}

#[test]
fn extensions_are_skipped() {
    let mut block = vec![10, 0, 0, 1, 10, 0, 0, 2, 0, 5, 0, 80];
    block.extend_from_slice(&[0x04, 0, 2, 0xaa, 0xbb, 0xff]);
    let (from, to) = header(&binary(0x21, 0x11, &block)).unwrap();
    assert_eq!(
        (from.to_string(), to.to_string()),
        ("10.0.0.1:5".into(), "10.0.0.2:80".into())
    );
    block.resize(0xffff, 0);
    let longest = binary(0x21, 0x11, &block);
    assert_eq!(longest.len(), MAX_V2);
    assert!(header(&longest).is_some());
}

#[test]
fn addresses_of_two_families_are_written_as_ipv6() {
    let (v4, v6) = (
        "10.0.0.1:5".parse().unwrap(),
        "[2001:db8::1]:80".parse().unwrap(),
    );
    assert_eq!(
        encode(ProxyProtocol::V1, v4, v6),
        b"PROXY TCP6 ::ffff:10.0.0.1 2001:db8::1 5 80\r\n"
    );
    let read = header(&encode(ProxyProtocol::V2, v4, v6)).unwrap();
    assert_eq!(read, ("[::ffff:10.0.0.1]:5".parse().unwrap(), v6));
}

fn version() -> impl Strategy<Value = ProxyProtocol> {
    prop_oneof![Just(ProxyProtocol::V1), Just(ProxyProtocol::V2)]
}

/// Two addresses of one family.
fn addresses() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let ports = any::<(u16, u16)>();
    let v4 = any::<(Ipv4Addr, Ipv4Addr)>().prop_map(|(a, b)| (IpAddr::V4(a), IpAddr::V4(b)));
    let v6 = any::<(Ipv6Addr, Ipv6Addr)>().prop_map(|(a, b)| (IpAddr::V6(a), IpAddr::V6(b)));
    (prop_oneof![v4, v6], ports)
        .prop_map(|((a, b), (p, q))| (SocketAddr::new(a, p), SocketAddr::new(b, q)))
}

proptest! {
    #[test]
    fn what_is_written_is_read_and_every_beginning_waits_for_more(
        version in version(),
        (from, to) in addresses(),
        local: bool,
        behind: Vec<u8>,
    ) {
        let mut bytes = if local { encode_local(version) } else { encode(version, from, to) };
        let len = bytes.len();
        for end in 0..len {
            prop_assert_eq!(parse(&bytes[..end]), Ok(Parsed::Incomplete));
        }
        bytes.extend_from_slice(&behind);
        let addresses = (!local).then_some((from, to));
        prop_assert_eq!(parse(&bytes), Ok(Parsed::Header { version, len, addresses }));
    }

    #[test]
    fn more_bytes_never_change_a_verdict(
        start in prop_oneof![
            Just(&b"PROXY TCP4 "[..]), Just(&b"PROXY TCP6 "[..]), Just(&b"PROXY "[..]),
            Just(V2_SIGNATURE), Just(&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00"[..]), Just(&b""[..]),
        ],
        text in prop_oneof![
            "[0-9a-f:. ]{0,120}(\r\n)?.{0,5}".prop_map(String::into_bytes),
            any::<Vec<u8>>(),
        ],
    ) {
        let mut bytes = start.to_vec();
        bytes.extend_from_slice(&text);
        let whole = parse(&bytes);
        for end in 0..bytes.len() {
            let part = parse(&bytes[..end]);
            prop_assert!(part == Ok(Parsed::Incomplete) || part == whole, "{part:?} {whole:?}");
        }
        if bytes.len() >= MAX_V2 {
            prop_assert_ne!(whole, Ok(Parsed::Incomplete));
        }
    }
}
