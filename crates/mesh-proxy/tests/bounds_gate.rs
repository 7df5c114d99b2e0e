//! Budgets for memory, tasks and descriptors of a proxy in a process of its own: streams without
//! an end, connections that do nothing, and peers that misbehave.
//!
//! The numbers hold for the optimized binary. In debug there are fewer connections and bytes.

#![cfg(target_os = "linux")]
// The modules of a test are for nobody else, and each test uses its own part of them.
#![allow(dead_code, unreachable_pub)]

#[path = "support/child.rs"]
mod child;
#[path = "tls_full/config.rs"]
mod config;
mod support;

use child::Proxy;
use mesh_core::model::ClientTls;
use mesh_identity::{Connector, TlsStream};
use serde_json::json;
use socket2::SockRef;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use support::free_address;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// A proxy with a listener for HTTP over TLS, one for bytes, one for bytes over TLS, and one for
/// bytes whose connections end when nothing passes for a second.
struct World {
    proxy: Proxy,
    web: SocketAddr,
    bytes: SocketAddr,
    secret: SocketAddr,
    short: SocketAddr,
    _directory: tempfile::TempDir,
}

/// What passes each way: 1 GiB in release, 32 MiB in debug.
const STREAM: u64 = if cfg!(debug_assertions) {
    32 << 20
} else {
    1 << 30
};

/// Idle connections, where the limit of descriptors allows them.
const CROWD: usize = if cfg!(debug_assertions) { 500 } else { 10_000 };

/// What a stream may add to the proxy's memory, whatever passes.
const STREAM_KIB: u64 = 8 << 10;

/// What a connection with TLS and HTTP costs in the proxy while it does nothing.
const IDLE_KIB: u64 = 64;

// === impl World ===

impl World {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let write = |file: &str, text: String| {
            let path = directory.path().join(file);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let tls = json!({"common_tls_context": {"tls_certificates": [{
            "certificate_chain": {"filename": write("a.pem", made.cert.pem())},
            "private_key": {"filename": write("a.key", made.signing_key.serialize_pem())},
        }]}});
        let log = Path::new("/dev/null");
        let fixed = json!({"match": {"prefix": "/"}, "direct_response": {
            "status": 200, "body": {"inline_string": "well"},
        }});
        let [web, bytes, secret, short] = [(); 4].map(|()| free_address());
        let http = config::http("web", log, "\n", &[fixed]);
        let tcp = config::tcp("bytes", log, "\n", "backend");
        let mut soon = tcp.clone();
        soon["typed_config"]["idle_timeout"] = "1s".into();
        let listener = |name: &str, at, filter, tls| {
            config::listener(name, at, false, &[config::chain(&[], filter, tls)])
        };
        let listeners = [
            listener("web", web, &http, Some(&tls)),
            listener("bytes", bytes, &tcp, None),
            listener("secret", secret, &tcp, Some(&tls)),
            listener("short", short, &soon, None),
        ];
        let cluster = config::cluster("backend", backend().await, None);
        let config = config::bootstrap(&listeners, &[cluster]);
        let binary = env!("CARGO_BIN_EXE_mesh-proxy");
        Self {
            proxy: Proxy::start(binary, config, directory.path()).await,
            web,
            bytes,
            secret,
            short,
            _directory: directory,
        }
    }

    /// What the proxy has resident, in KiB: now (`VmRSS`), or the most that it ever had (`VmHWM`).
    fn memory(&self, field: &str) -> u64 {
        let file = format!("/proc/{}/status", self.proxy.process.id());
        let status = std::fs::read_to_string(file).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let value = line.and_then(|line| line.strip_prefix(':')?.split_whitespace().next());
        value.unwrap().parse().unwrap()
    }

    /// How many descriptors the proxy has.
    fn descriptors(&self) -> usize {
        let directory = format!("/proc/{}/fd", self.proxy.process.id());
        std::fs::read_dir(directory).unwrap().count()
    }

    /// Waits until there is nobody left, and no descriptor more than at first, but for what the
    /// proxy has for itself.
    async fn is_empty(&self, descriptors: usize) {
        for at in [self.web, self.bytes, self.secret, self.short] {
            self.proxy.listener(at).await;
        }
        let closed = async {
            while self.descriptors() > descriptors + OWN
                || self.proxy.cluster("backend").await["upstream_cx_active"] > 0
            {
                sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(Duration::from_secs(120), closed).await.is_err() {
            let stats = self.proxy.cluster("backend").await;
            let open = self.descriptors();
            panic!("{open} descriptors, {descriptors} at first: {stats:?}");
        }
    }
}

/// Descriptors that come and go with the admin interface, which is asked meanwhile, and those of the
/// four pipes that a worker keeps. Connections are counted besides.
const OWN: usize = 8 + 8;

/// A server that does what the first byte says.
async fn backend() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // What breaks is what the proxy or its caller wanted to break.
            tokio::spawn(async move { serve(stream).await.ok() });
        }
    });
    at
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    match stream.read_u8().await? {
        b'b' => {
            let (mut read, mut write) = stream.split();
            let (read, written) = tokio::join!(drain(&mut read), flood(&mut write, STREAM));
            assert_eq!(read?, STREAM);
            written
        }
        b'e' => {
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await?;
            write.shutdown().await
        }
        b'f' => flood(&mut stream, u64::MAX).await,
        b'r' => {
            stream.write_all(b"!").await?;
            SockRef::from(&stream).set_linger(Some(Duration::ZERO))
        }
        // Never reads again, and stays until it is told that it is over.
        _ => {
            stream.write_all(b"!").await?;
            stream.ready(tokio::io::Interest::ERROR).await?;
            Ok(())
        }
    }
}

/// Reads to the end and says how much it was.
async fn drain(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<u64> {
    let mut buffer = vec![0; 64 << 10];
    let mut count = 0;
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(count),
            more => count += more as u64,
        }
    }
}

/// Writes so much, and that this was all.
async fn flood(to: &mut (impl AsyncWrite + Unpin), mut count: u64) -> std::io::Result<()> {
    let buffer = vec![7; 64 << 10];
    while count > 0 {
        let part = usize::try_from(count).map_or(buffer.len(), |count| count.min(buffer.len()));
        to.write_all(&buffer[..part]).await?;
        count -= part as u64;
    }
    to.shutdown().await
}

fn connector() -> Connector {
    let mut tls = ClientTls::default();
    tls.sni = "a.test".into();
    Connector::new(Arc::new(tls), |_| None).unwrap()
}

#[tokio::test]
async fn a_proxy_that_does_nothing_is_small() {
    let world = World::start().await;
    // Without what is mapped of the program's file, which depends on how it was optimized.
    let own = world.memory("RssAnon");
    println!("{own} KiB of its own");
    assert!(own < 6 << 10, "{own} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_a_gibibyte_each_way_takes_no_more_memory_than_a_short_one() {
    let world = World::start().await;
    let descriptors = world.descriptors();
    // The first connections pay for what all of them share.
    for stream in [
        Box::new(TcpStream::connect(world.bytes).await.unwrap()) as Box<dyn Stream>,
        Box::new(secret(world.secret).await),
    ] {
        echo(stream).await;
    }
    let before = world.memory("VmHWM");
    for stream in [
        Box::new(TcpStream::connect(world.bytes).await.unwrap()) as Box<dyn Stream>,
        Box::new(secret(world.secret).await),
    ] {
        let (mut read, mut write) = tokio::io::split(stream);
        write.write_all(b"b").await.unwrap();
        let (got, written) = tokio::join!(drain(&mut read), flood(&mut write, STREAM));
        written.unwrap();
        assert_eq!(got.unwrap(), STREAM);
    }
    let grown = world.memory("VmHWM") - before;
    println!("{} MiB each way, twice: {grown} KiB more", STREAM >> 20);
    assert!(grown < STREAM_KIB, "the proxy grew by {grown} KiB");
    world.is_empty(descriptors).await;
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn secret(at: SocketAddr) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(at).await.unwrap();
    connector().connect(stream, None).await.unwrap().0
}

async fn echo(mut stream: Box<dyn Stream>) {
    stream.write_all(b"ehello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_with_tls_are_cheap_and_given_back() {
    let world = World::start().await;
    let count = CROWD.min(limit().saturating_sub(500));
    if count < CROWD {
        println!("only {count} of {CROWD}: that is what the limit of descriptors allows");
    }
    let connector = connector();
    // The first ones pay for what all of them share.
    drop(crowd(world.web, &connector, 100).await);
    world.proxy.listener(world.web).await;
    let descriptors = world.descriptors();
    let before = world.memory("VmRSS");
    let mut most = Vec::new();
    for round in 1..=2 {
        let mut streams = crowd(world.web, &connector, count).await;
        let each = |now: u64| (now - before) as f64 / count as f64;
        let shaken = each(world.memory("VmRSS"));
        for stream in &mut streams {
            ask(stream).await;
        }
        let asked = each(world.memory("VmRSS"));
        // Those of the admin interface may have been open before, or be open now.
        let open = (world.descriptors() + OWN).saturating_sub(descriptors);
        assert!(
            (count..=count + 2 * OWN).contains(&open),
            "{open} descriptors where {count} connections, and {OWN} more or less, are open"
        );
        drop(streams);
        world.is_empty(descriptors).await;
        let left = world.memory("VmRSS").saturating_sub(before);
        println!(
            "round {round}, {count} idle connections: {shaken:.1} KiB each after the handshake, \
             {asked:.1} KiB after a request, {left} KiB left of all once they are closed"
        );
        assert!(asked < IDLE_KIB as f64, "{asked:.1} KiB for each");
        most.push(asked);
    }
    // What was given back is what the next ones take.
    assert!(most[1] < most[0] * 1.1, "{most:?} KiB for each");
}

/// Connections after their handshakes.
async fn crowd(at: SocketAddr, connector: &Connector, count: usize) -> Vec<TlsStream<TcpStream>> {
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        let stream = TcpStream::connect(at).await.unwrap();
        streams.push(connector.connect(stream, None).await.unwrap().0);
    }
    streams
}

async fn ask(stream: &mut TlsStream<TcpStream>) {
    let request = b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"well") {
        assert!(stream.read_buf(&mut said).await.unwrap() > 0);
    }
}

/// How many descriptors a process may have.
fn limit() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    soft.and_then(|soft| soft.parse().ok())
        .unwrap_or(usize::MAX)
}

/// How many of each kind misbehave at once.
const RUDE: usize = 100;

/// What four kinds of them may cost at once, in KiB: two buffers of 16 KiB each and what belongs to
/// a connection, doubled.
const RUDE_KIB: u64 = 2 * (2 * 16 + IDLE_KIB) * 4 * RUDE as u64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_closed_reset_and_never_reading_peers_leave_nothing() {
    let world = World::start().await;
    for stream in [
        Box::new(TcpStream::connect(world.bytes).await.unwrap()) as Box<dyn Stream>,
        Box::new(secret(world.secret).await),
    ] {
        echo(stream).await;
    }
    for at in [world.bytes, world.secret] {
        world.proxy.listener(at).await;
    }
    let descriptors = world.descriptors();
    let before = world.memory("VmRSS");

    let mut streams = Vec::new();
    for _ in 0..RUDE {
        // Says that it is over, and never reads the answer that makes the other side end, too.
        let mut stream = TcpStream::connect(world.bytes).await.unwrap();
        stream.write_all(b"e").await.unwrap();
        stream.shutdown().await.unwrap();
        streams.push(stream);
        // Reset by its own side, in the middle of a stream that it does not read.
        let mut stream = TcpStream::connect(world.bytes).await.unwrap();
        stream.write_all(b"f").await.unwrap();
        stream.readable().await.unwrap();
        reset(&stream);
        streams.push(stream);
        // Reset by the other side.
        let mut stream = TcpStream::connect(world.bytes).await.unwrap();
        stream.write_all(b"r").await.unwrap();
        stream.readable().await.unwrap();
        streams.push(stream);
        // Silent in the middle of a handshake.
        let mut stream = TcpStream::connect(world.secret).await.unwrap();
        stream
            .write_all(b"\x16\x03\x01\x01\x00\x01\x00")
            .await
            .unwrap();
        streams.push(stream);
    }
    let grown = world.memory("VmRSS").saturating_sub(before);
    println!("{} peers: {grown} KiB", streams.len());
    assert!(grown < RUDE_KIB, "{} peers: {grown} KiB", streams.len());
    drop(streams);
    world.is_empty(descriptors).await;

    // The same over TLS, and cut off without a word of farewell.
    let mut streams = Vec::new();
    for _ in 0..RUDE {
        let mut stream = secret(world.secret).await;
        stream.write_all(b"f").await.unwrap();
        stream.read_u8().await.unwrap();
        streams.push(stream);
    }
    drop(streams);
    world.is_empty(descriptors).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_stay_and_do_nothing_are_ended_in_time() {
    let world = World::start().await;
    echo(Box::new(TcpStream::connect(world.short).await.unwrap())).await;
    world.proxy.listener(world.short).await;
    let (descriptors, before) = (world.descriptors(), world.memory("VmRSS"));
    let mut streams = Vec::new();
    for _ in 0..RUDE {
        // Does not read what comes.
        let mut stream = TcpStream::connect(world.short).await.unwrap();
        stream.write_all(b"f").await.unwrap();
        stream.readable().await.unwrap();
        streams.push(stream);
        // Says that it is over to one that never is.
        let mut stream = TcpStream::connect(world.short).await.unwrap();
        stream.write_all(b"n").await.unwrap();
        stream.shutdown().await.unwrap();
        streams.push(stream);
        // Nobody reads what it says.
        let mut stream = TcpStream::connect(world.short).await.unwrap();
        stream.write_all(b"n").await.unwrap();
        stream.read_u8().await.unwrap();
        stuff(&stream).await;
        streams.push(stream);
        // And that one is reset. Nobody reads from it meanwhile, so nobody hears of it before the
        // time is over, in Envoy neither.
        let mut stream = TcpStream::connect(world.short).await.unwrap();
        stream.write_all(b"n").await.unwrap();
        stream.read_u8().await.unwrap();
        stuff(&stream).await;
        reset(&stream);
    }
    let grown = world.memory("VmRSS").saturating_sub(before);
    println!("{} connections: {grown} KiB", 4 * RUDE);
    assert!(grown < RUDE_KIB, "{} connections: {grown} KiB", 4 * RUDE);
    // Those of them that were not reset are still here.
    world.is_empty(descriptors).await;
    drop(streams);
}

/// The next that the other side hears is that it was reset.
fn reset(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

/// Writes until nothing goes any more.
async fn stuff(stream: &TcpStream) {
    let buffer = [7; 64 << 10];
    // On a busy machine what stands in the way is gone only after some time; then it goes on.
    while let Ok(ready) = timeout(Duration::from_millis(50), stream.writable()).await {
        ready.unwrap();
        match stream.try_write(&buffer) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            // The proxy's time may be over for this one already.
            Err(_) => return,
        }
    }
}
