//! Programs that others wrote, through the proxy: gRPC's C core from Python, curl and h2load.
//!
//! The gRPC test needs `MESH_PYTHON` (`cargo xtask python` prints one that has gRPC). What is not
//! there is said and skipped, but fails where `CI=true`.

mod support;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use mesh_core::model::{Cluster, Rule, UpstreamProtocol};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::{Mesh, backend};

/// Ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It is gone already if this fails.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Says that something is missing, which is an error in CI.
fn skip(what: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{what}");
    println!("skipped: {what}");
}

/// Runs a program to its end, for no longer than `limit`. None when it is not installed.
async fn run(limit: Duration, program: &str, arguments: &[&str]) -> Option<Output> {
    let directory = tempfile::tempdir().unwrap();
    let file = |name| std::fs::File::create(directory.path().join(name)).unwrap();
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(file("out"))
        .stderr(file("err"))
        .spawn();
    let mut child = match child {
        Ok(child) => Process(child),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            skip(&format!("{program} is not installed"));
            return None;
        }
        Err(error) => panic!("{program}: {error}"),
    };
    let read = |name| std::fs::read(directory.path().join(name)).unwrap();
    let start = Instant::now();
    loop {
        if let Some(status) = child.0.try_wait().unwrap() {
            let (stdout, stderr) = (read("out"), read("err"));
            return Some(Output {
                status,
                stdout,
                stderr,
            });
        }
        if start.elapsed() > limit {
            panic!(
                "{program} took longer than {limit:?}:\n{}{}",
                String::from_utf8_lossy(&read("out")),
                String::from_utf8_lossy(&read("err")),
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn said(output: &Output) -> String {
    format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn over_http2(name: &str) -> Cluster {
    let mut cluster = Cluster::new(name);
    cluster.protocol = UpstreamProtocol::Http2;
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_calls_of_every_kind_pass() {
    let Ok(python) = std::env::var("MESH_PYTHON") else {
        skip("MESH_PYTHON is not set; `cargo xtask python` prints a path for it");
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/grpc_echo.py");
    let script = script.to_str().unwrap();
    let mut server = Process(
        Command::new(&python)
            .args([script, "server"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut port = String::new();
    BufReader::new(server.0.stdout.take().unwrap())
        .read_line(&mut port)
        .unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port.trim().parse().unwrap()));
    let silent =
        backend(|_: Request<Incoming>| std::future::pending::<Response<Full<Bytes>>>()).await;
    let mut slow = Rule::prefix_to("/mesh.test.Slow/", "silent");
    slow.timeout = Some(Duration::from_millis(200));
    let rules = vec![
        Rule::prefix_to("/mesh.test.Missing/", "missing"),
        slow,
        Rule::prefix_to("/", "grpc"),
    ];
    let clusters = vec![
        (over_http2("grpc"), vec![address]),
        (over_http2("silent"), vec![silent]),
    ];
    let mesh = Mesh::start(2, rules, clusters).await;
    let target = mesh.address.to_string();
    let limit = Duration::from_secs(60);
    let output = run(limit, &python, &[script, "client", &target])
        .await
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    // The calls went through the proxy, and one connection per worker was enough.
    assert!(mesh.stat("cluster.grpc.upstream_rq_total").await > 200);
    assert!(mesh.stat("cluster.grpc.upstream_cx_total").await <= 2);
    assert_eq!(mesh.stat("cluster.grpc.upstream_rq_active").await, 0);
}

/// A backend that answers with the number of bytes that it got.
async fn counting() -> SocketAddr {
    backend(|request: Request<Incoming>| async move {
        let mut body = request.into_body();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { break };
            bytes += frame.data_ref().map_or(0, Bytes::len);
        }
        Response::new(Full::from(bytes.to_string()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_uploads_64_mib_over_each_version() {
    const SIZE: usize = 64 << 20;
    let sink = counting().await;
    let rules = vec![Rule::prefix_to("/two", "two"), Rule::prefix_to("/", "one")];
    let clusters = vec![
        (Cluster::new("one"), vec![sink]),
        (over_http2("two"), vec![sink]),
    ];
    let mesh = Mesh::start(2, rules, clusters).await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&vec![b'x'; SIZE]).unwrap();
    let upload = format!("@{}", file.path().display());
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for path in ["one", "two"] {
            for expect in ["Expect: 100-continue", "Expect:"] {
                let url = format!("http://{}/{path}", mesh.address);
                let arguments = [
                    version,
                    "--silent",
                    "--show-error",
                    "--fail",
                    "--max-time",
                    "60",
                    "--header",
                    expect,
                    "--data-binary",
                    &upload,
                    &url,
                ];
                let Some(output) = run(Duration::from_secs(90), "curl", &arguments).await else {
                    return;
                };
                assert!(
                    output.status.success(),
                    "{version} {path}: {}",
                    said(&output)
                );
                let got = String::from_utf8_lossy(&output.stdout).into_owned();
                assert_eq!(got, SIZE.to_string(), "{version} {path} {expect}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_is_told_to_continue_before_it_sends_its_body() {
    let sink = counting().await;
    let mesh = Mesh::start(
        1,
        vec![Rule::prefix_to("/", "a")],
        vec![(Cluster::new("a"), vec![sink])],
    )
    .await;
    let url = format!("http://{}/", mesh.address);
    let arguments = [
        "--http1.1",
        "--verbose",
        "--max-time",
        "20",
        "--expect100-timeout",
        "15",
        "--header",
        "Expect: 100-continue",
        "--data",
        "abc",
        &url,
    ];
    let Some(output) = run(Duration::from_secs(90), "curl", &arguments).await else {
        return;
    };
    let said = said(&output);
    let (interim, last) = (said.find("HTTP/1.1 100"), said.find("HTTP/1.1 200"));
    assert!(interim.is_some() && interim < last, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2load_sees_no_failed_request() {
    let fast = support::named("hello").await;
    let rules = vec![Rule::prefix_to("/two", "two"), Rule::prefix_to("/", "one")];
    let clusters = vec![
        (Cluster::new("one"), vec![fast]),
        (over_http2("two"), vec![fast]),
    ];
    let mesh = Mesh::start(2, rules, clusters).await;
    for (path, version) in [("one", None), ("two", None), ("one", Some("--h1"))] {
        let url = format!("http://{}/{path}", mesh.address);
        let mut arguments = vec!["-n", "5000", "-c", "8", "-m", "10", &url];
        arguments.extend(version);
        let Some(output) = run(Duration::from_secs(60), "h2load", &arguments).await else {
            return;
        };
        let said = said(&output);
        let right =
            "5000 total, 5000 started, 5000 done, 5000 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(said.contains(right), "{version:?} {path}: {said}");
    }
}
