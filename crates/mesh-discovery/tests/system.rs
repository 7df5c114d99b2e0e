//! `System` against a name server of our own.

#![cfg(feature = "system")]

use mesh_core::model::DnsFamily;
use mesh_discovery::dns::{Answer, Lookup, System};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;

const A: u16 = 1;
const AAAA: u16 = 28;
const NXDOMAIN: u8 = 3;
const SERVFAIL: u8 = 2;

/// Answers one question: a response code, and records of a time to live each.
type Zone = fn(&str, u16) -> (u8, Vec<(u32, Vec<u8>)>);

/// A name server that knows `zone`, and a resolver that asks it.
async fn serve(zone: Zone) -> System {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let answer = answer(&buffer[..length], zone);
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    System::with_servers([address])
}

/// RFC 1035 §4.1: the header, the question as it came, and records that point to its name.
fn answer(query: &[u8], zone: Zone) -> Vec<u8> {
    let mut labels = Vec::new();
    let mut at = 12;
    while query[at] != 0 {
        let length = usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..=at + length]).to_ascii_lowercase());
        at += length + 1;
    }
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let (code, records) = zone(&labels.join("."), kind);
    let mut out = query[..2].to_vec();
    // A response, recursion available.
    out.extend([
        0x81,
        0x80 | code,
        0,
        1,
        0,
        u8::try_from(records.len()).unwrap(),
    ]);
    out.extend([0; 4]);
    out.extend(&query[12..at + 5]);
    for (ttl, data) in records {
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1]);
        out.extend(ttl.to_be_bytes());
        out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        out.extend(data);
    }
    out
}

fn both(name: &str, kind: u16) -> (u8, Vec<(u32, Vec<u8>)>) {
    match (name, kind) {
        ("both.example", A) => (0, vec![(30, vec![10, 0, 0, 1]), (7, vec![10, 0, 0, 2])]),
        ("both.example", AAAA) => (0, vec![(9, Ipv6Addr::LOCALHOST.octets().to_vec())]),
        ("four.example", A) => (0, vec![(5, vec![10, 0, 0, 4])]),
        ("four.example", _) => (0, Vec::new()),
        ("broken.example", _) => (SERVFAIL, Vec::new()),
        _ => (NXDOMAIN, Vec::new()),
    }
}

#[tokio::test]
async fn each_family_gets_the_addresses_that_it_asks_for() {
    let system = serve(both).await;
    let one: std::net::IpAddr = Ipv4Addr::new(10, 0, 0, 1).into();
    let two = Ipv4Addr::new(10, 0, 0, 2).into();
    let six = Ipv6Addr::LOCALHOST.into();
    for (family, addresses) in [
        (DnsFamily::V4Only, vec![one, two]),
        (DnsFamily::V6Only, vec![six]),
        (DnsFamily::Auto, vec![six]),
        (DnsFamily::V4Preferred, vec![one, two]),
        (DnsFamily::All, vec![one, two, six]),
    ] {
        let answer = system.lookup("both.example.", family).await.unwrap();
        assert_eq!(answer.addresses, addresses, "{family:?}");
    }
    let answer = system
        .lookup("four.example.", DnsFamily::Auto)
        .await
        .unwrap();
    assert_eq!(answer.addresses, [Ipv4Addr::new(10, 0, 0, 4)]);
}

#[tokio::test]
async fn an_answer_holds_as_long_as_the_shortest_of_its_records() {
    let system = serve(both).await;
    let answer = system.lookup("both.example.", DnsFamily::V4Only).await;
    assert_eq!(answer.unwrap().ttl, Duration::from_secs(7));
}

#[tokio::test]
async fn a_name_without_addresses_is_an_answer_and_a_server_that_fails_is_not() {
    let system = serve(both).await;
    let nothing = Ok(Answer::default());
    assert_eq!(
        system.lookup("gone.example.", DnsFamily::All).await,
        nothing
    );
    assert_eq!(
        system.lookup("four.example.", DnsFamily::V6Only).await,
        nothing
    );
    let error = system.lookup("broken.example.", DnsFamily::V4Only).await;
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with("broken.example.: "), "{error}");
}
