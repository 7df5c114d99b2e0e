//! The table of raw requests, and sending them through a proxy.

use super::backend::{Log, Seen};
use super::child::Proxy;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// One per line: what reaches the backend, a name, and the bytes, with escapes. `{n}` is the case's
/// number, `{len}` the length of the second request, `{20k}`, `{70k}` and `{100k}` so many KiB.
const TABLE: &str = include_str!("requests.txt");

/// How long a proxy waits for what is missing of a request.
const PATIENCE: &str = "3s";

/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(60);

/// Cases at once.
const AT_ONCE: usize = 24;

const TYPES: &str = "type.googleapis.com/envoy.extensions";

/// A raw request.
pub struct Case {
    pub number: usize,
    pub name: &'static str,
    /// What reaches the backend: `none`, `first`, `second` or `both`.
    pub reaches: &'static str,
    bytes: Vec<u8>,
}

/// What a proxy made of a case.
pub struct Outcome {
    /// Requests that the backend read.
    pub read: Vec<String>,
    /// Requests that the caller has answers of the backend to.
    pub answered: Vec<String>,
}

// === impl Case ===

pub fn all() -> Vec<Case> {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    let cases = lines.enumerate().map(|(number, line)| {
        let mut parts = line.splitn(3, '\t');
        let (reaches, name) = (parts.next().unwrap(), parts.next().unwrap());
        let text = parts.next().unwrap();
        let second = format!("GET /s{number:03} HTTP/1.1\r\nhost: a.test\r\n\r\n");
        let text = text
            .replace("{n}", &format!("{number:03}"))
            .replace("{len}", &second.len().to_string())
            .replace("{20k}", &"x".repeat(20 << 10))
            .replace("{70k}", &"x".repeat(70 << 10))
            .replace("{100k}", &"x".repeat(100 << 10));
        Case {
            number,
            name,
            reaches,
            bytes: unescape(&text),
        }
    });
    cases.collect()
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next().unwrap() {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'x' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            other => other,
        });
    }
    bytes
}

// === impl Outcome ===

impl Outcome {
    /// What of the two requests reached the backend, as the table has it.
    pub fn reached(&self) -> &'static str {
        let has = |what: &str| self.read.iter().any(|line| line.contains(what));
        match (has("/a"), has("/s")) {
            (false, false) => "none",
            (true, false) => "first",
            (false, true) => "second",
            (true, true) => "both",
        }
    }
}

/// Starts a proxy before a backend. It gives up soon on what never comes.
pub async fn proxy(binary: &str, backend: SocketAddr, directory: &Path, at: SocketAddr) -> Proxy {
    std::fs::create_dir_all(directory).unwrap();
    let socket = |at: SocketAddr| {
        let (address, port) = (at.ip().to_string(), at.port());
        json!({"socket_address": {"address": address, "port_value": port}})
    };
    let manager = json!({
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "in",
        "common_http_protocol_options": {"idle_timeout": PATIENCE},
        "stream_idle_timeout": PATIENCE,
        "request_timeout": PATIENCE,
        "request_headers_timeout": PATIENCE,
        "normalize_path": true,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [{"name": "router", "typed_config": {
            "@type": format!("{TYPES}.filters.http.router.v3.Router"),
        }}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "backend"}},
        ]}]},
    });
    let config: Value = json!({"static_resources": {
        "listeners": [{"name": "in", "address": socket(at), "filter_chains": [
            {"filters": [{"name": "http", "typed_config": manager}]},
        ]}],
        "clusters": [{
            "name": "backend",
            "type": "STATIC",
            "connect_timeout": "10s",
            "load_assignment": {"cluster_name": "backend", "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": socket(backend)}}]},
            ]},
        }],
    }});
    Proxy::start(binary, config, directory).await
}

/// Sends all cases through a proxy. In the order of the cases; and what its backend could not read.
pub async fn run(to: SocketAddr, cases: &[Case], log: &Arc<Log>) -> (Vec<Outcome>, Vec<String>) {
    let mut answers = vec![Vec::new(); cases.len()];
    let mut running = JoinSet::new();
    for case in cases {
        if running.len() == AT_ONCE
            && let Some(done) = running.join_next().await
        {
            let (number, said): (usize, Vec<u8>) = done.unwrap();
            answers[number] = said;
        }
        let (number, bytes) = (case.number, case.bytes.clone());
        running.spawn(async move { (number, exchange(to, &bytes).await) });
    }
    while let Some(done) = running.join_next().await {
        let (number, said) = done.unwrap();
        answers[number] = said;
    }
    let Seen {
        mut requests,
        malformed,
    } = log.take();
    let outcomes = answers.iter().enumerate().map(|(number, said)| {
        let said = String::from_utf8_lossy(said);
        let saw = said.lines().filter_map(|line| line.strip_prefix("x-saw: "));
        let mut read = requests.remove(&number).unwrap_or_default();
        let mut answered: Vec<_> = saw.map(str::to_owned).collect();
        read.sort();
        answered.sort();
        Outcome { read, answered }
    });
    (outcomes.collect(), malformed)
}

/// Says the bytes and hears the answers out: the proxy closes once nothing comes for long enough.
async fn exchange(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let (mut read, mut write) = stream.split();
    let mut said = Vec::new();
    let talking = async {
        // Whoever refuses may have closed before all was said, and what it said is still there.
        let (_, _) = tokio::join!(write.write_all(bytes), read.read_to_end(&mut said));
    };
    let talked = timeout(SOON, talking).await;
    assert!(talked.is_ok(), "the proxy does not close: {said:?}");
    said
}
