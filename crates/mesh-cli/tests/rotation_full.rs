//! A gateway's credential is replaced every two seconds for a minute, under load: no request fails,
//! and every new connection gets the new certificate.

#[path = "tasks/demo.rs"]
mod demo;
mod support;
#[path = "tasks/wire.rs"]
mod wire;

use demo::{DataPlane, Demo};
use mesh_core::model::{
    ClientTls, Cluster, Secret, SecretRef, SnapshotBuilder, StringMatch, Validation,
};
use mesh_identity::{Connector, TlsStream};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{PATIENCE, at};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep, sleep_until, timeout};

const HOST: &str = "httpbin.example.com";
const ROTATIONS: u32 = 30;
const EVERY: Duration = Duration::from_secs(2);

/// Callers with a connection for each request, and callers that keep theirs.
const CALLERS: usize = 4;

/// Between two requests of a caller. Without it they would take all that the machine has.
const PAUSE: Duration = Duration::from_millis(5);

type Stream = BufReader<TlsStream<TcpStream>>;

/// What callers and the one who renews have in common.
struct Load {
    port: u16,
    connector: Connector,
    /// The certificates so far (DER), the newest last.
    known: Mutex<Vec<Vec<u8>>>,
    /// The oldest of those that a new connection may get.
    oldest: AtomicUsize,
    stop: AtomicBool,
    connections: AtomicUsize,
    requests: AtomicUsize,
}

#[test]
fn a_credential_is_replaced_under_load_and_no_request_fails() {
    rotates(&Demo::start(DataPlane::MeshProxy));
}

#[test]
fn so_it_is_with_envoys() {
    let Some(demo) = Demo::on_envoys() else {
        return;
    };
    rotates(&demo);
}

fn rotates(demo: &Demo) {
    demo.apply("12");
    let load = Arc::new(Load {
        port: demo.mapped(443),
        connector: connector(&demo.dir.join("certs/ca.pem")),
        known: Mutex::new(vec![in_file(&demo.dir)]),
        oldest: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        connections: AtomicUsize::new(0),
        requests: AtomicUsize::new(0),
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        // The listener may not be open yet.
        let open = async {
            while TcpStream::connect(at(load.port)).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, open).await.unwrap();
        let callers: Vec<_> = (0..CALLERS)
            .flat_map(|_| {
                [
                    tokio::spawn(load.clone().connects_anew()),
                    tokio::spawn(load.clone().keeps_its_connection()),
                ]
            })
            .collect();
        let mut next = Instant::now();
        let mut slowest = Duration::ZERO;
        for _ in 0..ROTATIONS {
            sleep_until(next).await;
            next += EVERY;
            slowest = slowest.max(load.renew(&demo.dir).await);
            assert!(
                callers.iter().all(|one| !one.is_finished()),
                "a caller failed"
            );
        }
        sleep_until(next).await;
        load.stop.store(true, Ordering::SeqCst);
        for caller in callers {
            caller.await.unwrap();
        }
        println!(
            "{ROTATIONS} certificates, each shown within {slowest:?}; {} connections, {} requests",
            load.connections.load(Ordering::SeqCst),
            load.requests.load(Ordering::SeqCst),
        );
    });
    // At least one of each caller for each certificate.
    assert!(load.connections.load(Ordering::SeqCst) > ROTATIONS as usize * CALLERS);
    demo.assert_nothing_is_rejected();
}

// === impl Load ===

impl Load {
    /// Replaces the certificate and waits until it is shown; says how long that took.
    async fn renew(&self, dir: &Path) -> Duration {
        let renewed = Command::new(env!("CARGO_BIN_EXE_mesh"))
            .args(["demo", "renew", "--dir"])
            .arg(dir)
            .stdout(Stdio::null())
            .status();
        assert!(renewed.await.unwrap().success());
        let since = Instant::now();
        let newest = {
            let mut known = self.known.lock().unwrap();
            known.push(in_file(dir));
            known.len() - 1
        };
        while self.connect().await.1 != newest {
            let waited = since.elapsed();
            assert!(waited < PATIENCE, "certificate {newest} is not shown");
            sleep(PAUSE).await;
        }
        self.oldest.store(newest, Ordering::SeqCst);
        since.elapsed()
    }

    async fn connects_anew(self: Arc<Self>) {
        while !self.stop.load(Ordering::SeqCst) {
            let oldest = self.oldest.load(Ordering::SeqCst);
            let (mut stream, shown) = self.connect().await;
            assert!(
                shown >= oldest,
                "certificate {shown} is shown after {oldest}"
            );
            self.ask(&mut stream).await;
            sleep(PAUSE).await;
        }
    }

    async fn keeps_its_connection(self: Arc<Self>) {
        let (mut stream, _) = self.connect().await;
        while !self.stop.load(Ordering::SeqCst) {
            self.ask(&mut stream).await;
            sleep(PAUSE).await;
        }
    }

    /// A new connection, and which of the certificates it was shown.
    async fn connect(&self) -> (Stream, usize) {
        let stream = TcpStream::connect(at(self.port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (stream, told) = self.connector.connect(stream, None).await.unwrap();
        let peer = told.peer.as_ref().expect("a certificate");
        self.connections.fetch_add(1, Ordering::SeqCst);
        // One that is new is shown as soon as its file is there, which may be long before the one
        // who renews has read it here.
        let which = async {
            loop {
                let known = self.known.lock().unwrap().clone();
                match known.iter().position(|one| **one == *peer.der) {
                    Some(which) => return which,
                    None => sleep(Duration::from_millis(1)).await,
                }
            }
        };
        let which = timeout(PATIENCE, which).await.expect("one of ours");
        (BufReader::new(stream), which)
    }

    async fn ask(&self, stream: &mut Stream) {
        let request = format!("GET /status/200 HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut length = 0;
        let mut lines = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            let line = line.trim_end().to_ascii_lowercase();
            if lines == 0 {
                assert!(line.starts_with("http/1.1 200"), "{line:?}");
            }
            if let Some(said) = line.strip_prefix("content-length: ") {
                length = said.parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
            lines += 1;
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        self.requests.fetch_add(1, Ordering::SeqCst);
    }
}

/// A client that trusts the demo's authority with this one host.
fn connector(authority: &Path) -> Connector {
    let roots = SecretRef::local("roots");
    let mut validation = Validation::default();
    validation.roots = Some(roots.clone());
    validation.subject_alt_names = vec![StringMatch::Exact(HOST.to_owned())];
    let mut tls = ClientTls::default();
    tls.sni = HOST.into();
    tls.alpn = vec!["http/1.1".into()];
    tls.validation = Some(validation);
    let tls = Arc::new(tls);
    let mut cluster = Cluster::new("gateway");
    cluster.tls = Some(tls.clone());
    let mut builder = SnapshotBuilder::new();
    builder.cluster(cluster);
    builder.secret(roots, Arc::new(Secret::roots(fs::read(authority).unwrap())));
    let (snapshot, _) = builder.build().unwrap();
    Connector::new(tls, |name| snapshot.secret(name).cloned()).unwrap()
}

/// The certificate that the file has now: DER.
fn in_file(dir: &Path) -> Vec<u8> {
    let pem = wire::certificate_in(&dir.join("task/secret-httpbin-credential.yaml"));
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    mesh_xds::json::decode_bytes(&body).unwrap()
}
