//! What is measured.

use std::fmt::Write as _;

use super::ports::Listens;

/// What belongs together, for `--only`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Area {
    Http,
    H2,
    Grpc,
    Tls,
    Tcp,
    Memory,
}

/// One kind of load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) area: Area,
    pub(crate) what: &'static str,
    pub(crate) port: Port,
    pub(crate) path: &'static str,
    /// Bytes that each body has to have.
    pub(crate) length: u64,
    /// What one request counts for: the messages of a stream.
    pub(crate) units: u64,
    pub(crate) load: Load,
    /// Workers of the proxy.
    pub(crate) workers: usize,
}

/// Which of the peer's ports is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    H1,
    H2c,
    Tls,
    /// TLS for callers that show a certificate, and mutual TLS to the backend.
    Mtls,
    Tcp,
}

/// How it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// h2load, HTTP/1.1: as much as goes.
    H1 {
        connections: usize,
        headers: &'static [&'static str],
    },
    /// h2load, HTTP/2.
    H2 {
        connections: usize,
        streams: usize,
        /// With a message of gRPC.
        message: Option<&'static [u8]>,
    },
    /// Our own, at [`RATE`].
    Pace,
    /// Our own, HTTP/1.1 over mutual TLS: as much as goes.
    Kept { connections: usize },
    /// Our own: a connection for each request; with TLS and only this group, if there is one.
    Fresh(Option<&'static str>),
}

/// Requests a second of the rows with a fixed rate.
pub(crate) const RATE: u32 = 10_000;
/// The row that the one with two workers is compared with.
pub(crate) const ONE_WORKER: &str = "h1-rate";
/// Messages of a stream.
const MESSAGES: u64 = 500;

const KIB: u64 = 1024;
const H1: Load = Load::H1 {
    connections: 64,
    headers: &[],
};
const BASE: Row = Row {
    name: "",
    area: Area::Http,
    what: "",
    port: Port::H1,
    path: "/",
    length: KIB,
    units: 1,
    load: H1,
    workers: 1,
};
/// As browsers send them.
const HEADERS: &[&str] = &[
    "accept: application/json, text/plain, */*",
    "accept-encoding: gzip, deflate, br",
    "accept-language: en-GB,en;q=0.8,de;q=0.5",
    "authorization: Bearer not-a-token-but-as-long-as-some-of-them-are-0123456789",
    "cache-control: no-cache",
    "cookie: session=0123456789abcdef0123456789abcdef; theme=light; consent=1",
    "origin-agent: peers",
    "referer: https://www.example.com/catalogue/books?page=2",
    "traceparent: 00-0123456789abcdef0123456789abcdef-0123456789abcdef-01",
    "x-env: production",
];
/// A gRPC message in its frame, which the backend sends back.
const UNARY: &[u8] = b"\0\0\0\0\x1esays something and is answered";
/// The backend answers it with [`MESSAGES`] messages of 128 bytes.
const STREAM: &[u8] = b"\0\0\0\0\x03500";

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "h1",
        what: "HTTP/1.1 keep-alive, 64 connections",
        ..BASE
    },
    Row {
        name: ONE_WORKER,
        what: "HTTP/1.1 at 10,000 requests a second",
        load: Load::Pace,
        ..BASE
    },
    Row {
        name: "h1-close",
        what: "HTTP/1.1, a new connection for each request",
        load: Load::Fresh(None),
        ..BASE
    },
    Row {
        name: "h1-headers",
        what: "HTTP/1.1 keep-alive, ten more headers",
        load: Load::H1 {
            connections: 64,
            headers: HEADERS,
        },
        ..BASE
    },
    Row {
        name: "h1-64k",
        what: "HTTP/1.1 keep-alive, bodies of 64 KiB",
        path: "/64k",
        length: 64 * KIB,
        ..BASE
    },
    Row {
        name: "h1-1m",
        what: "HTTP/1.1 keep-alive, bodies of 1 MiB, 16 connections",
        path: "/1m",
        length: 1024 * KIB,
        load: Load::H1 {
            connections: 16,
            headers: &[],
        },
        ..BASE
    },
    Row {
        name: "h2-h1",
        area: Area::H2,
        what: "h2c in, HTTP/1.1 out, 16 connections of 16 streams",
        port: Port::H2c,
        load: H2,
        ..BASE
    },
    Row {
        name: "h2-h2",
        area: Area::H2,
        what: "h2c in, h2c out, 16 connections of 16 streams",
        port: Port::H2c,
        path: "/h2/",
        load: H2,
        ..BASE
    },
    Row {
        name: "grpc-unary",
        area: Area::Grpc,
        what: "gRPC unary, 16 connections of 16 streams",
        port: Port::H2c,
        path: "/bench.Echo/Unary",
        length: UNARY.len() as u64,
        load: Load::H2 {
            connections: 16,
            streams: 16,
            message: Some(UNARY),
        },
        ..BASE
    },
    Row {
        name: "grpc-stream",
        area: Area::Grpc,
        what: "gRPC server streams of 500 messages of 128 bytes, 8 connections of 4 streams",
        port: Port::H2c,
        path: "/bench.Echo/Stream",
        length: MESSAGES * (5 + 128),
        units: MESSAGES,
        load: Load::H2 {
            connections: 8,
            streams: 4,
            message: Some(STREAM),
        },
        ..BASE
    },
    Row {
        name: "tls",
        area: Area::Tls,
        what: "TLS 1.3, HTTP/1.1 keep-alive, 64 connections",
        port: Port::Tls,
        ..BASE
    },
    Row {
        name: "tls-new",
        area: Area::Tls,
        what: "TLS 1.3, a new connection for each request: X25519, ECDSA P-256, nothing resumed",
        port: Port::Tls,
        load: Load::Fresh(Some("x25519")),
        ..BASE
    },
    Row {
        name: "tls-new-pq",
        area: Area::Tls,
        what: "TLS 1.3, a new connection for each request: X25519MLKEM768, ECDSA P-256, nothing resumed",
        port: Port::Tls,
        load: Load::Fresh(Some(POST_QUANTUM)),
        ..BASE
    },
    Row {
        name: "mtls",
        area: Area::Tls,
        what: "mutual TLS 1.3 on both sides, HTTP/1.1 keep-alive, 64 connections",
        port: Port::Mtls,
        load: Load::Kept { connections: 64 },
        ..BASE
    },
    Row {
        name: "mtls-new",
        area: Area::Tls,
        what: "mutual TLS 1.3 on both sides, a new connection for each request: X25519, ECDSA P-256, \
               nothing resumed; those to the backend are kept",
        port: Port::Mtls,
        load: Load::Fresh(Some("x25519")),
        ..BASE
    },
    Row {
        name: "tcp-1k",
        area: Area::Tcp,
        what: "TCP, answers of 1 KiB, 64 connections",
        port: Port::Tcp,
        ..BASE
    },
    Row {
        name: "tcp-64k",
        area: Area::Tcp,
        what: "TCP, answers of 64 KiB, 64 connections",
        port: Port::Tcp,
        path: "/64k",
        length: 64 * KIB,
        ..BASE
    },
    Row {
        name: "h1-rate-2",
        what: "HTTP/1.1 at 10,000 requests a second, two workers on two cores",
        load: Load::Pace,
        workers: 2,
        ..BASE
    },
];

const H2: Load = Load::H2 {
    connections: 16,
    streams: 16,
    message: None,
};
/// The group that not every peer has.
pub(crate) const POST_QUANTUM: &str = "x25519mlkem768";

/// What `--list` says of them.
pub(crate) fn list() -> String {
    let mut text = String::from("rows:\n");
    for row in ROWS {
        writeln!(text, "  {:<12} {}", row.name, row.what).expect("a string takes all");
    }
    text += "  memory       idle, connections that idle, routes and clusters that are held\n";
    text
}

// === impl Row ===

impl Row {
    /// Whether it is about how much goes, and not about what a given rate takes.
    pub(crate) fn saturates(&self) -> bool {
        self.load != Load::Pace
    }

    /// Requests that may be under way when h2load ends.
    pub(crate) fn under_way(&self) -> u64 {
        let most = match self.load {
            Load::H1 { connections, .. } => connections,
            Load::H2 {
                connections,
                streams,
                ..
            } => connections * streams,
            Load::Pace | Load::Kept { .. } | Load::Fresh(_) => 0,
        };
        most as u64
    }
}

// === impl Port ===

impl Port {
    pub(crate) fn of(self, listens: Listens) -> u16 {
        match self {
            Self::H1 => listens.h1,
            Self::H2c => listens.h2c,
            Self::Tls => listens.tls,
            Self::Mtls => listens.mtls,
            Self::Tcp => listens.tcp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_long_as_their_frames_say() {
        for message in [UNARY, STREAM] {
            assert_eq!(usize::from(message[4]), message.len() - 5);
        }
        assert_eq!(&STREAM[5..], MESSAGES.to_string().as_bytes());
    }

    #[test]
    fn names_are_there_once() {
        for (at, row) in ROWS.iter().enumerate() {
            assert!(
                ROWS[..at].iter().all(|other| other.name != row.name),
                "{}",
                row.name
            );
        }
        assert!(
            ROWS.iter()
                .any(|row| row.name == ONE_WORKER && row.workers == 1)
        );
    }
}
