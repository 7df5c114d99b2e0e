use super::*;
use proptest::prelude::*;

fn sized(bytes: &[u8], width: usize) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&length[4 - width..], bytes].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &sized(content, 2)].concat()
}

fn asks_for(name: &[u8]) -> Vec<u8> {
    extension(0, &sized(&[&[0][..], &sized(name, 2)].concat(), 2))
}

fn offers(protocols: &[&str]) -> Vec<u8> {
    let list: Vec<u8> = protocols
        .iter()
        .flat_map(|protocol| sized(protocol.as_bytes(), 1))
        .collect();
    extension(16, &sized(&list, 2))
}

/// A handshake message with these extensions.
fn message(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend_from_slice(&[7; 32]);
    body.extend_from_slice(&sized(&[9; 32], 1));
    body.extend_from_slice(&sized(&[0x13, 1, 0x13, 2], 2));
    body.extend_from_slice(&sized(&[0], 1));
    body.extend_from_slice(&sized(extensions, 2));
    [&[1][..], &sized(&body, 3)].concat()
}

/// The message in records with fragments of this size.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |fragment: &[u8]| [&[22, 3, 1][..], &sized(fragment, 2)].concat();
    message.chunks(size).flat_map(record).collect()
}

fn hello(server_name: &str, protocols: &[&str]) -> Look<Hello> {
    Look::Yes(Hello {
        server_name: server_name.into(),
        protocols: protocols.iter().map(|p| Name::from(*p)).collect(),
    })
}

#[test]
fn the_server_name_and_the_protocols_are_read() {
    let grease = extension(0x0a0a, &[]);
    let extensions = [grease, asks_for(b"WWW.A.com"), offers(&["h2", "http/1.1"])].concat();
    let bytes = records(&message(&extensions), 1 << 14);
    assert_eq!(tls(&bytes), hello("www.a.com", &["h2", "http/1.1"]));
    assert_eq!(tls(&records(&message(&[]), 1 << 14)), hello("", &[]));
}

#[test]
fn a_hello_without_a_list_of_extensions_is_one() {
    let mut body = vec![3, 3];
    body.extend_from_slice(&[7; 32]);
    body.extend_from_slice(&[0, 0, 2, 0x13, 1, 1, 0]);
    let bytes = records(&[&[1][..], &sized(&body, 3)].concat(), 100);
    assert_eq!(tls(&bytes), hello("", &[]));
}

#[test]
fn what_is_not_tls_is_told_at_once() {
    for bytes in [
        &b"G"[..],
        b"\x15",
        b"\x16\x02",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\x00\x10\x02",
    ] {
        assert_eq!(tls(bytes), Look::No, "{bytes:?}");
    }
}

#[test]
fn a_hello_that_breaks_the_rules_is_not_tls() {
    let two = sized(
        &[&[0][..], &sized(b"a", 2), &[0], &sized(b"b", 2)].concat(),
        2,
    );
    for extensions in [
        asks_for(b""),
        asks_for(b"a\0b"),
        asks_for(&[b'a'; 256]),
        extension(0, &two),
        extension(0, &[]),
        vec![0, 0, 0, 9],
        vec![1],
    ] {
        let bytes = records(&message(&extensions), 1 << 14);
        assert_eq!(tls(&bytes), Look::No, "{extensions:?}");
    }
    let garbage = [&[1, 0, 0, 12][..], &[b'x'; 12]].concat();
    assert_eq!(tls(&records(&garbage, 100)), Look::No);
}

#[test]
fn a_hello_larger_than_anybody_sends_is_refused_before_it_has_come() {
    assert_eq!(tls(b"\x16\x03\x01\x40\x00\x01\x00\x40\x01"), Look::TooLarge);
    assert_eq!(
        tls(b"\x16\x03\x01\x40\x00\x01\x00\x40\x00"),
        Look::Incomplete
    );
}

#[test]
fn broken_protocols_are_left_to_the_handshake() {
    let bytes = records(&message(&extension(16, &[0, 3, 9, b'h', b'2'])), 100);
    assert_eq!(tls(&bytes), hello("", &[]));
}

proptest! {
    #[test]
    fn a_hello_is_read_however_it_is_cut(
        name in "[a-z]{1,20}(\\.[a-z]{1,5}){0,3}",
        protocols in proptest::collection::vec("[a-z0-9/.]{1,10}", 0..4),
        size in 1usize..400,
        behind: Vec<u8>,
    ) {
        let protocols: Vec<&str> = protocols.iter().map(String::as_str).collect();
        let extensions = [asks_for(name.as_bytes()), offers(&protocols)].concat();
        let mut bytes = records(&message(&extensions), size);
        for end in 0..bytes.len() {
            prop_assert_eq!(tls(&bytes[..end]), Look::Incomplete);
        }
        bytes.extend_from_slice(&behind);
        prop_assert_eq!(tls(&bytes), hello(&name, &protocols));
    }

    #[test]
    fn more_bytes_never_change_a_verdict(
        noise: Vec<u8>,
        at in 0usize..200,
        size in 1usize..400,
        framed: bool,
    ) {
        let mut bytes = message(&[asks_for(b"a.com"), offers(&["h2"])].concat());
        let at = at.min(bytes.len());
        let end = (at + noise.len()).min(bytes.len());
        bytes.splice(at..end, noise.iter().copied());
        let bytes = if framed { records(&bytes, size) } else { bytes };
        let whole = tls(&bytes);
        for end in 0..bytes.len() {
            let part = tls(&bytes[..end]);
            prop_assert!(part == Look::Incomplete || part == whole, "{part:?} {whole:?}");
        }
    }
}
