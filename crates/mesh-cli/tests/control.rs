//! The commands that ask control planes and proxies, as a user runs them.

mod support;

use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use support::{at, end, free_range};

/// What a command printed, and how it ended.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn mesh(args: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_mesh"))
        .args(args)
        .output()
        .unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A running command, ended with SIGTERM when dropped.
struct Process(Child);

impl Process {
    /// Starts a command and waits for a line of its output that contains this.
    fn start(args: &[&str], ready: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mesh"))
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let found = lines.any(|line| line.unwrap().contains(ready));
        assert!(found, "{args:?} ended before {ready:?}");
        // Keep the pipe empty, or the process would block on it.
        std::thread::spawn(move || for _ in lines {});
        Self(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

/// Answers every path that begins with the first text with the second, and others with 404.
fn pages(pages: &'static [(&'static str, &'static str)]) -> SocketAddr {
    let (base, _reserved) = free_range();
    let listener = TcpListener::bind(at(base + 80)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap() == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap_or_default();
            let page = pages.iter().find(|(prefix, _)| path.starts_with(prefix));
            let (status, body) = page.map_or(("404 Not Found", ""), |(_, body)| ("200 OK", body));
            // In chunks, as Envoy's admin interface has it.
            let chunk = match body.is_empty() {
                true => String::new(),
                false => format!("{:x}\r\n{body}\r\n", body.len()),
            };
            let answer =
                format!("HTTP/1.1 {status}\r\ntransfer-encoding: chunked\r\n\r\n{chunk}0\r\n\r\n");
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    address
}

/// The names of resources.
fn names(list: &Value) -> BTreeSet<&str> {
    let list = list.as_array().unwrap().iter();
    list.map(|one| one["name"].as_str().unwrap()).collect()
}

const SYNCZ: &str = include_str!("../data/syncz.json");

#[test]
fn a_proxy_of_the_control_plane_is_waited_for_and_shown() {
    let (base, _reserved) = free_range();
    let directory = tempfile::tempdir().unwrap();
    let yaml = format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: reviews}}
spec: {{ports: [{{name: http, port: 9080}}]}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: client, annotations: {{mesh-rs.dev/base-port: '{base}'}}}}
spec: {{address: 127.0.0.1, labels: {{app: client}}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: outside}}
spec:
  hosts: [outside.example]
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  endpoints: [{{address: 192.0.2.7}}]
"
    );
    std::fs::write(directory.path().join("mesh.yaml"), yaml).unwrap();
    let config = directory.path().to_str().unwrap();
    let (xds, http) = (at(base + 106).to_string(), at(base + 180).to_string());
    let line = [
        "control", "run", "--config", config, "--xds", &xds, "--http", &http,
    ];
    let _control = Process::start(&line, "http on");

    let nobody = mesh(&["wait", "--control", &http, "--timeout", "10ms"]);
    assert_eq!(nobody.code, 1, "{}", nobody.err);
    assert!(
        nobody.err.contains("no proxy is connected"),
        "{}",
        nobody.err
    );

    let admin = at(base).to_string();
    let line = [
        "proxy",
        "run",
        "--xds",
        &xds,
        "--workload",
        "client.default",
        "--concurrency",
        "1",
    ];
    let line: Vec<&str> = line.into_iter().chain(["--admin", &admin]).collect();
    let _proxy = Process::start(&line, "admin on");

    let line = [
        "wait",
        "--control",
        &http,
        "--timeout",
        "30s",
        "--workload",
        "client.default",
    ];
    let waited = mesh(&line);
    assert_eq!(waited.code, 0, "{}", waited.err);
    assert_eq!(waited.out, "1 proxy in sync\n");

    let status = mesh(&["proxy-status", "--control", &http, "-o", "json", "client"]);
    assert_eq!(status.code, 0, "{}", status.err);
    let status: Value = serde_json::from_str(&status.out).unwrap();
    assert_eq!(status[0]["name"], "client.default");
    assert_eq!(status[0]["type"], "sidecar");
    for kind in ["CDS", "EDS", "LDS", "RDS"] {
        assert_eq!(status[0]["types"][kind]["state"], "SYNCED", "{kind}");
    }

    // What was compiled beforehand is what the proxy has.
    let cluster = "outbound|80||outside.example";
    let compiled = [
        "compile",
        "--config",
        config,
        "--workload",
        "client.default",
    ];
    let compiled: Vec<&str> = compiled.into_iter().chain(["-o", "json"]).collect();
    let compiled = mesh(&compiled);
    assert_eq!(compiled.code, 0, "{}", compiled.err);
    let compiled: Value = serde_json::from_str(&compiled.out).unwrap();
    let has = |list: &str, key: &str| {
        let list = compiled[list].as_array().unwrap();
        list.iter().any(|one| one[key] == cluster)
    };
    assert!(
        has("clusters", "name") && has("endpoints", "cluster_name"),
        "{compiled:#}"
    );
    for (part, list) in [
        ("cluster", "clusters"),
        ("route", "routes"),
        ("listener", "listeners"),
    ] {
        let shown = mesh(&["proxy-config", part, "--admin", &admin, "-o", "json"]);
        assert_eq!(shown.code, 0, "{}", shown.err);
        let shown: Value = serde_json::from_str(&shown.out).unwrap();
        assert_eq!(names(&shown), names(&compiled[list]), "{part}");
    }
    let line = [
        "proxy-config",
        "endpoint",
        "--admin",
        &admin,
        "--cluster",
        cluster,
    ];
    let endpoints = mesh(&line);
    assert_eq!(endpoints.code, 0, "{}", endpoints.err);
    assert!(endpoints.out.contains("192.0.2.7:80"), "{}", endpoints.out);
}

#[test]
fn a_rejection_is_shown_with_its_reason_and_line_and_ends_with_1() {
    let control = pages(&[("/debug/syncz", SYNCZ)]).to_string();
    let status = mesh(&["proxy-status", "--control", &control]);
    assert_eq!(status.code, 1, "{}", status.err);
    for part in [
        "NACKED",
        "ingress.istio-system rejected RDS: http.8080:",
        "--> VirtualService reviews.default (mesh/reviews.yaml:14:7)",
    ] {
        assert!(status.out.contains(part), "{part} in {}", status.out);
    }
    assert!(!status.out.contains('\x1b'), "no colour in a pipe");
    let waited = mesh(&["wait", "--control", &control, "--timeout", "10ms"]);
    assert_eq!(waited.code, 1);
    assert!(
        waited.err.contains("mesh/reviews.yaml:14:7"),
        "{}",
        waited.err
    );
    let absent = mesh(&["proxy-status", "--control", &control, "absent"]);
    assert_eq!(absent.code, 1);
    assert!(absent.err.contains("absent"), "{}", absent.err);
}

#[test]
fn who_cannot_be_asked_ends_with_2() {
    let (base, _reserved) = free_range();
    let nobody = at(base + 6).to_string();
    let other = pages(&[("/config_dump", "{}")]).to_string();
    for line in [
        vec!["proxy-status", "--control", &nobody],
        vec!["proxy-status", "--control", &other],
        vec!["wait", "--timeout", "10ms", "--control", &nobody],
        vec!["proxy-config", "endpoint", "--admin", &nobody],
        vec!["proxy-config", "cluster", "--admin", &other],
    ] {
        let ran = mesh(&line);
        assert_eq!(ran.code, 2, "{line:?}: {}", ran.err);
        assert!(ran.err.contains("error: "), "{line:?}: {}", ran.err);
    }
}

#[test]
fn envoys_pages_are_shown_in_every_form() {
    let admin = pages(&[
        (
            "/config_dump?include_eds",
            include_str!("../data/envoy_config_dump.json"),
        ),
        (
            "/clusters?format=json",
            include_str!("../data/envoy_clusters.json"),
        ),
    ]);
    let admin = admin.to_string();
    let show = |part: &str, form: &str| {
        let ran = mesh(&["proxy-config", part, "--admin", &admin, "-o", form]);
        assert_eq!(ran.code, 0, "{part} {form}: {}", ran.err);
        ran.out
    };
    for part in [
        "cluster",
        "listener",
        "route",
        "endpoint",
        "bootstrap",
        "all",
    ] {
        let json: Value = serde_json::from_str(&show(part, "json")).unwrap();
        assert!(json.is_array() || json.is_object(), "{part}");
        assert!(show(part, "table").lines().count() > 2, "{part}");
        assert!(show(part, "yaml").lines().count() > 5, "{part}");
    }
    let clusters: Value = serde_json::from_str(&show("cluster", "json")).unwrap();
    assert_eq!(
        clusters[3]["name"],
        "outbound|80||catalog.shop.svc.cluster.local"
    );
}

#[test]
fn completions_know_the_new_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = mesh(&["completions", shell]);
        assert_eq!(ran.code, 0);
        for command in ["compile", "proxy-status", "proxy-config", "wait", "control"] {
            assert!(ran.out.contains(command), "{command} in {shell}");
        }
    }
}
