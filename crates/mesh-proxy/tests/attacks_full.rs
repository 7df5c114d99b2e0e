//! Attacks over real sockets: what they cost the proxy is bounded, and whoever behaves well meanwhile
//! is served no worse than through a real Envoy, and a real nginx, under the same attack in the same
//! run.
//!
//! Needs `MESH_ENVOY` (`cargo xtask envoy` prints a path) for the comparison; without it that is said,
//! and fails where `CI=true`. An nginx is compared with where one is on the path, which is said, too.
//! Only counts and memory are judged. The figures are those of docs/security.md: `--nocapture` prints
//! them.

// The modules of a test are for nobody else.
#![allow(unreachable_pub)]

#[allow(dead_code)]
#[path = "support/child.rs"]
mod child;
#[path = "attacks_full/kinds.rs"]
mod kinds;
#[path = "attacks_full/nginx.rs"]
mod nginx;
mod support;

use bytes::Bytes;
use child::Proxy;
use http::{Request, Response};
use kinds::Kind;
use nginx::Nginx;
use serde_json::json;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::{Http1, Whole, free_address, get};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Requests of those who behave well: on one connection, and each on its own.
const KEPT: usize = 100;
const FRESH: usize = 50;

/// Longer than any of them takes that is served at all.
const SOON: Duration = Duration::from_secs(10);

/// How long an attack may keep the others busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whoever fails so often is not served; the rest is not waited for.
const ENOUGH: usize = 5;

/// What an attack by 20 connections may cost at once, in KiB: for each of them the largest window
/// of a connection (4 MiB) would be 80 MiB; no attack fills it.
const ATTACK_KIB: u64 = 48 << 10;

/// What 100 answers that nobody makes room for may cost on each of 20 connections, in KiB: a piece of
/// each answer is held (measured: 88 KiB), and nothing more is read of it.
const WINDOW_KIB: u64 = 20 * 100 * 128;

/// What 1,000 idle connections may cost, in KiB.
const IDLE_KIB: u64 = 6 << 10;

/// Idle connections, as far as descriptors go.
const CROWD: usize = 20_000;

const TYPES: &str = "type.googleapis.com/envoy.extensions";

/// Something under attack.
struct Side {
    server: Server,
    /// Where it takes HTTP/1 and HTTP/2.
    at: SocketAddr,
    framed: SocketAddr,
}

enum Server {
    Proxy(Proxy),
    Nginx(Nginx),
}

/// What became of an attack.
struct Outcome {
    /// Good requests that were not answered with 200.
    failed: usize,
    /// Attackers' connections that were cut off.
    cut: usize,
    /// KiB that the proxy grew by.
    grown: u64,
}

// === impl Side ===

impl Side {
    async fn start(binary: &str, backend: SocketAddr, directory: &Path) -> Self {
        std::fs::create_dir_all(directory).unwrap();
        let at = free_address();
        let socket = |at: SocketAddr| {
            let (address, port) = (at.ip().to_string(), at.port());
            json!({"socket_address": {"address": address, "port_value": port}})
        };
        let manager = json!({
            "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "in",
            "http_filters": [{"name": "router", "typed_config": {
                "@type": format!("{TYPES}.filters.http.router.v3.Router"),
            }}],
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "route": {"cluster": "backend"}},
            ]}]},
        });
        let config = json!({"static_resources": {
            "listeners": [{"name": "in", "address": socket(at), "filter_chains": [
                {"filters": [{"name": "http", "typed_config": manager}]},
            ]}],
            "clusters": [{
                "name": "backend",
                "type": "STATIC",
                "connect_timeout": "10s",
                "circuit_breakers": {"thresholds": [{
                    "max_connections": 5000, "max_pending_requests": 5000, "max_requests": 5000,
                }]},
                "load_assignment": {"cluster_name": "backend", "endpoints": [
                    {"lb_endpoints": [{"endpoint": {"address": socket(backend)}}]},
                ]},
            }],
        }});
        let proxy = Proxy::start(binary, config, directory).await;
        Self {
            server: Server::Proxy(proxy),
            at,
            framed: at,
        }
    }

    async fn nginx(backend: SocketAddr, directory: &Path) -> Option<Self> {
        std::fs::create_dir_all(directory).unwrap();
        let (at, framed) = (free_address(), free_address());
        let nginx = Nginx::start(backend, (at, framed), directory).await?;
        Some(Self {
            server: Server::Nginx(nginx),
            at,
            framed,
        })
    }

    fn id(&self) -> u32 {
        match &self.server {
            Server::Proxy(proxy) => proxy.process.id(),
            Server::Nginx(nginx) => nginx.process.id(),
        }
    }

    /// Waits until no connection of the attack is left.
    async fn quiet(&self) {
        if let Server::Proxy(proxy) = &self.server {
            proxy.listener(self.at).await;
        }
    }

    /// What the proxy has for itself, in KiB.
    fn memory(&self) -> u64 {
        let file = format!("/proc/{}/status", self.id());
        let status = std::fs::read_to_string(file).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let value = line.and_then(|line| line.split_whitespace().next());
        value.unwrap().parse().unwrap()
    }

    async fn under(&self, kind: Kind) -> Outcome {
        let before = self.memory();
        let cut = Arc::new(AtomicUsize::new(0));
        let mut attackers = JoinSet::new();
        for _ in 0..kind.connections {
            let to = if kind.is_framed() {
                self.framed
            } else {
                self.at
            };
            attackers.spawn(attack(to, kind, cut.clone()));
        }
        let mut most = 0;
        let served = serve_well(self.at);
        tokio::pin!(served);
        let failed = loop {
            tokio::select! {
                failed = &mut served => break failed,
                () = sleep(Duration::from_millis(20)) => most = most.max(self.memory()),
            }
        };
        most = most.max(self.memory());
        drop(attackers);
        Outcome {
            failed,
            cut: cut.load(Ordering::Relaxed),
            grown: most.saturating_sub(before),
        }
    }
}

/// One connection of an attack after the other, until it is dropped.
async fn attack(to: SocketAddr, kind: Kind, cut: Arc<AtomicUsize>) {
    loop {
        if let Ok(stream) = TcpStream::connect(to).await {
            let (mut read, mut write) = stream.into_split();
            let hearing = async {
                if kind.reads {
                    let mut buffer = vec![0; 16 << 10];
                    while matches!(read.read(&mut buffer).await, Ok(1..)) {}
                } else {
                    std::future::pending().await
                }
            };
            let saying = async {
                let mut next = (kind.first)();
                let mut count = 0;
                while !next.is_empty() {
                    if write.write_all(&next).await.is_err() {
                        return;
                    }
                    sleep(kind.pause).await;
                    next = (kind.again)(count);
                    count += 1;
                }
                std::future::pending().await
            };
            tokio::select! {
                () = hearing => {}
                () = saying => {}
            }
            cut.fetch_add(1, Ordering::Relaxed);
        }
        sleep(Duration::from_millis(2)).await;
    }
}

/// Asks as one does, and counts what is not answered well; all of it where nothing is.
async fn serve_well(at: SocketAddr) -> usize {
    let asked = |answer: Result<hyper::Result<Response<_>>, _>| {
        let answer: Option<Response<hyper::body::Incoming>> = answer.ok().and_then(Result::ok);
        usize::from(answer.is_none_or(|answer| answer.status() != 200))
    };
    let mut failed = 0;
    let mut kept = Http1::connect(at).await;
    for _ in 0..KEPT {
        if failed == ENOUGH {
            return KEPT + FRESH;
        }
        failed += asked(timeout(SOON, kept.try_send(get("/"))).await);
        sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..FRESH {
        if failed == ENOUGH {
            return KEPT + FRESH;
        }
        let fresh = async { Http1::connect(at).await.try_send(get("/")).await };
        failed += asked(timeout(SOON, fresh).await);
        sleep(Duration::from_millis(5)).await;
    }
    failed
}

async fn backend() -> SocketAddr {
    support::backend(|request: Request<hyper::body::Incoming>| async move {
        let body = match request.uri().path() {
            "/big" => Bytes::from(vec![b'x'; 1 << 20]),
            _ => Bytes::from_static(b"well"),
        };
        Response::new(Whole::from(body))
    })
    .await
}

fn envoy() -> Option<String> {
    let envoy = std::env::var("MESH_ENVOY").ok();
    if envoy.is_none() {
        let is_ci = std::env::var("CI").as_deref() == Ok("true");
        assert!(!is_ci, "MESH_ENVOY is not set");
        println!("not compared: MESH_ENVOY is not set; `cargo xtask envoy` prints a path for it");
    }
    envoy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attack_costs_little_and_who_behaves_well_is_served_as_through_envoy() {
    let directory = tempfile::tempdir().unwrap();
    let backend = backend().await;
    let binary = env!("CARGO_BIN_EXE_mesh-proxy");
    let envoy = envoy();
    let only = std::env::var("MESH_ATTACK").ok();
    for kind in kinds::all() {
        if only.as_deref().is_some_and(|only| only != kind.name) {
            continue;
        }
        let name = kind.name.replace(' ', "-");
        let ours = Side::start(binary, backend, &directory.path().join(&name)).await;
        // What the first requests leave is not the attack's.
        assert_eq!(serve_well(ours.at).await, 0);
        let our = ours.under(kind).await;
        let mut line = format!(
            "{}: {} of {} failed, {} cut off, {} KiB",
            kind.name,
            our.failed,
            KEPT + FRESH,
            our.cut,
            our.grown
        );
        let mut others = Vec::new();
        if let Some(envoy) = &envoy {
            let place = directory.path().join(format!("{name}-envoy"));
            others.push(("Envoy", Side::start(envoy, backend, &place).await));
        }
        let place = directory.path().join(format!("{name}-nginx"));
        others.extend(Side::nginx(backend, &place).await.map(|it| ("nginx", it)));
        let mut best = None;
        for (whose, theirs) in others {
            assert_eq!(serve_well(theirs.at).await, 0);
            // Where nobody is served any more, that is what is compared with.
            let their = timeout(PATIENCE, theirs.under(kind)).await;
            let their = their.unwrap_or_else(|_| Outcome {
                failed: KEPT + FRESH,
                cut: 0,
                grown: theirs.memory(),
            });
            line += &format!(
                "; {whose}: {} failed, {} cut off, {} KiB",
                their.failed, their.cut, their.grown
            );
            best = Some(best.map_or(their.failed, |best: usize| best.min(their.failed)));
        }
        println!("{line}");
        assert!(our.failed <= best.unwrap_or(0), "{line}");
        let bound = match kind.name {
            "no window" => WINDOW_KIB,
            _ => ATTACK_KIB,
        };
        assert!(our.grown < bound, "{line}");
        // Whoever attacked is gone, and nothing of it is left.
        ours.quiet().await;
        assert_eq!(serve_well(ours.at).await, 0, "{}: afterwards", kind.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_says_nothing_keeps_nobody_out() {
    let directory = tempfile::tempdir().unwrap();
    let backend = backend().await;
    let envoy = envoy();
    let ours = env!("CARGO_BIN_EXE_mesh-proxy").to_owned();
    // The proxy has to have some left for endpoints, and this process for everything else.
    let count = CROWD.min(descriptors() / 5 * 4 - 200);
    if count < CROWD {
        println!("only {count} of {CROWD}: that is what the limit of descriptors allows");
    }
    let mut failures = Vec::new();
    for (name, binary) in [("ours", Some(ours)), ("Envoy", envoy), ("nginx", None)] {
        let place = directory.path().join(name);
        let side = match binary {
            Some(binary) => Some(Side::start(&binary, backend, &place).await),
            None if name == "nginx" => Side::nginx(backend, &place).await,
            None => None,
        };
        let Some(side) = side else { continue };
        assert_eq!(serve_well(side.at).await, 0);
        let before = side.memory();
        let mut crowd = Vec::with_capacity(count);
        for _ in 0..count {
            crowd.push(TcpStream::connect(side.at).await.unwrap());
        }
        let failed = serve_well(side.at).await;
        let grown = side.memory().saturating_sub(before);
        println!("{name}: {count} idle connections, {failed} failed, {grown} KiB");
        if name == "ours" {
            assert!(grown < IDLE_KIB * count as u64 / 1000, "{grown} KiB");
        }
        failures.push(failed);
        drop(crowd);
    }
    let others = failures.iter().skip(1).min().copied();
    assert!(failures[0] <= others.unwrap_or(0), "{failures:?}");
}

/// How many descriptors a process may have.
fn descriptors() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    soft.and_then(|soft| soft.parse().ok())
        .unwrap_or(usize::MAX)
}
