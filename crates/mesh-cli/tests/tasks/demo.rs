//! A running demo: the real binary on loopback ports of its own, so that tests see what a user
//! sees.

// Every test binary uses a part of this.
#![allow(dead_code, unreachable_pub)]

use crate::support::{Answer, Client, PATIENCE, at, end, free_range, wait_until};
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A running demo. Ended with SIGTERM when dropped.
pub struct Demo {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    pub dir: PathBuf,
    pub base: u16,
    pub is_on_envoys: bool,
    /// There is no control plane.
    pub reads_yaml: bool,
    changes: AtomicUsize,
    _temp: tempfile::TempDir,
    _reserved: TcpListener,
}

/// What the proxies of a demo are.
pub enum DataPlane {
    MeshProxy,
    /// Ours, without a control plane.
    ReadsYaml,
    /// This binary.
    Envoy(OsString),
}

/// The nodes: 0 productpage, 1 details, 2 ratings, 3 to 5 reviews, 6 httpbin, 9 the gateway.
const NODES: [u16; 8] = [0, 1, 2, 3, 4, 5, 6, 9];

impl Demo {
    pub fn start(data_plane: DataPlane) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("demo");
        let (base, reserved) = free_range();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
        command
            .args(["demo", "--listen", &format!("127.0.0.1:{}", base + 950)])
            .args(["--base-port", &base.to_string()])
            .arg("--dir")
            .arg(&dir);
        let is_on_envoys = matches!(data_plane, DataPlane::Envoy(_));
        let reads_yaml = matches!(data_plane, DataPlane::ReadsYaml);
        if reads_yaml {
            command.args(["--source", "yaml"]);
        }
        if let DataPlane::Envoy(binary) = data_plane {
            command
                .args(["--data-plane", "envoy", "--envoy"])
                .arg(binary);
        }
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = Arc::new(Mutex::new(Vec::new()));
        let saying = said.clone();
        thread::spawn(move || {
            for line in errors.map_while(Result::ok) {
                eprintln!("{line}");
                saying.lock().unwrap().push(line);
            }
        });
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = Vec::new();
        loop {
            let Some(Ok(line)) = lines.next() else {
                panic!("the demo ended before it was ready:\n{}", seen.join("\n"))
            };
            if line.contains("Ctrl-C ends the demo") {
                break;
            }
            seen.push(line);
        }
        // Keep the pipe empty, or the demo would block on it.
        thread::spawn(move || for _ in lines {});
        Self {
            child,
            said,
            dir,
            base,
            is_on_envoys,
            reads_yaml,
            changes: AtomicUsize::new(0),
            _temp: temp,
            _reserved: reserved,
        }
    }

    /// On the Envoy that `MESH_ENVOY` names. None where it names none, which is said; in CI that is a
    /// failure.
    pub fn on_envoys() -> Option<Self> {
        let Some(binary) = std::env::var_os("MESH_ENVOY") else {
            let is_ci = std::env::var("CI").as_deref() == Ok("true");
            assert!(!is_ci, "MESH_ENVOY is not set");
            println!("skipped: MESH_ENVOY is not set; `cargo xtask envoy` prints a path for it");
            return None;
        };
        Some(Self::start(DataPlane::Envoy(binary)))
    }

    /// The ingress gateway.
    pub fn gateway(&self) -> SocketAddr {
        at(self.base + 950)
    }

    /// Where the gateway serves a Gateway's port.
    pub fn mapped(&self, port: u16) -> u16 {
        let ports = [443, 9443, 9080, 2379, 27017, 31400];
        match ports.iter().position(|known| *known == port) {
            Some(nth) => self.base + 943 + nth as u16,
            None => panic!("nothing is said about port {port}"),
        }
    }

    /// The outbound proxy that productpage uses.
    pub fn outbound(&self) -> SocketAddr {
        at(self.base + 1)
    }

    /// The admin interface of the n-th of the [`NODES`].
    pub fn admin(&self, node: u16) -> SocketAddr {
        at(self.base + node * 100)
    }

    /// The pages of the control plane.
    pub fn control(&self) -> SocketAddr {
        at(self.base + 814)
    }

    /// Calls a service the way productpage does.
    pub fn call(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        Client::connect(self.outbound()).get(target, headers)
    }

    pub fn at_gateway(&self, path: &str) -> Answer {
        let host = self.gateway().to_string();
        Client::connect(self.gateway()).get(path, &[("host", &host)])
    }

    /// Applies a task and waits until every node has it.
    pub fn apply(&self, task: &str) {
        self.change(|dir| {
            let status = Command::new(env!("CARGO_BIN_EXE_mesh"))
                .args(["demo", "apply", task, "--dir"])
                .arg(dir)
                .stdout(Stdio::null())
                .status()
                .unwrap();
            assert!(status.success());
        });
    }

    /// Changes the configuration and waits until every node has it.
    pub fn change(&self, change: impl FnOnce(&Path)) {
        if self.reads_yaml {
            change(&self.dir);
            return self.wait_for_files();
        }
        let before = self.pushes();
        change(&self.dir);
        wait_until(|| self.pushes() > before);
        loop {
            let pushes = self.pushes();
            self.wait();
            // What was pushed may be one of several files: longer than a push waits for quiet.
            thread::park_timeout(Duration::from_millis(250));
            if self.pushes() == pushes {
                break;
            }
        }
        if self.is_on_envoys {
            self.pass_a_worker();
        }
    }

    /// Waits until every node has what was pushed.
    fn wait(&self) {
        let control = self.control().to_string();
        let waited = Command::new(env!("CARGO_BIN_EXE_mesh"))
            .args(["wait", "--control", &control, "--timeout", "60s"])
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&waited.stderr);
        assert!(waited.status.success(), "{error}");
        let all = format!("{} proxies in sync\n", NODES.len());
        assert_eq!(String::from_utf8_lossy(&waited.stdout), all);
    }

    /// Envoy acknowledges routes before its worker has them. There is one, and what it answers now
    /// it answers after it has taken what was waiting for it.
    fn pass_a_worker(&self) {
        for at in [self.outbound(), self.gateway()] {
            let Ok(mut stream) = TcpStream::connect(at) else {
                continue;
            };
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            // Refused as soon as it is read, and so on nobody's account.
            stream.write_all(b"no request\r\n\r\n").unwrap();
            let mut answer = Vec::new();
            // The answer may end with a reset, since there was more to read.
            let _ = stream.read_to_end(&mut answer);
        }
    }

    /// Nobody can be asked how far the nodes are: so a service is added that they show. Its file is
    /// read before all others, so who knows it knows all that was there before it.
    fn wait_for_files(&self) {
        let count = self.changes.fetch_add(1, Ordering::Relaxed);
        let host = format!("change-{count}.example.com");
        let entry = format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: change}}\n\
             spec:\n  hosts: [{host}]\n  resolution: STATIC\n  ports: [{{number: 80, name: http, \
             protocol: HTTP}}]\n  endpoints: [{{address: 127.0.0.1}}]\n"
        );
        // At once whole.
        let aside = self.dir.join("00-change");
        fs::write(&aside, entry).unwrap();
        fs::rename(aside, self.dir.join("00-change.yaml")).unwrap();
        let cluster = format!("outbound|80||{host}::");
        for node in NODES {
            wait_until(|| self.ask(node, "/clusters").body.contains(&cluster));
        }
    }

    /// How often something was pushed.
    fn pushes(&self) -> u64 {
        let answer = Client::connect(self.control()).get("/debug/push_status", &[("host", "x")]);
        let status: Value = serde_json::from_str(&answer.body).unwrap();
        let count = |key: &str| status[key].as_u64().unwrap();
        count("pushes") + count("endpoint_pushes")
    }

    pub fn ask(&self, node: u16, path: &str) -> Answer {
        Client::connect(self.admin(node)).get(path, &[("host", "admin")])
    }

    /// The sum of the statistics whose names end like this. There has to be one.
    pub fn stat(&self, node: u16, name: &str) -> u64 {
        let stats = self.ask(node, "/stats").body;
        let values: Vec<u64> = stats
            .lines()
            .filter_map(|line| line.rsplit_once(": "))
            .filter(|(found, _)| found.ends_with(name))
            .map(|(_, value)| value.parse().unwrap())
            .collect();
        assert!(!values.is_empty(), "no statistic {name}");
        values.iter().sum()
    }

    /// Every proxy took everything that it ever got: listeners, clusters, routes and endpoints.
    pub fn assert_nothing_is_rejected(&self) {
        if self.reads_yaml {
            // Whoever reads the files says on the standard error what is wrong with them.
            assert_eq!(self.said("error"), [""; 0]);
            return;
        }
        for node in NODES {
            for kind in ["cluster_manager.cds", "listener_manager.lds"] {
                assert!(self.stat(node, &format!("{kind}.update_success")) > 0);
            }
            let rejected = self.stat(node, "update_rejected");
            assert_eq!(
                rejected,
                0,
                "node {node}: {}",
                self.ask(node, "/stats").body
            );
        }
        let metrics = Client::connect(self.control()).get("/metrics", &[("host", "x")]);
        let rejects = "pilot_total_xds_rejects{";
        assert!(!metrics.body.contains(rejects), "{}", metrics.body);
    }

    /// The lines on the standard error so far that contain this.
    pub fn said(&self, text: &str) -> Vec<String> {
        let said = self.said.lock().unwrap();
        said.iter()
            .filter(|line| line.contains(text))
            .cloned()
            .collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
