//! The control plane in this process; backends, clients and servers in others.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use mesh_istio::Files;
use mesh_xds::server::Sync;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;

/// Nothing here takes longer, on a busy machine either.
const LIMIT: Duration = Duration::from_secs(60);

/// What a client is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Python,
    Node,
}

/// Where the programs are that tests start.
pub(crate) struct Peers {
    python: PathBuf,
    /// The folder above `node_modules`.
    modules: PathBuf,
}

/// A control plane whose configuration is text, on a port of its own.
pub(crate) struct Control {
    address: SocketAddr,
    control: mesh_control::Control,
    /// They end with it.
    _tasks: JoinSet<()>,
}

/// A program of ours in another language; it ends with this.
struct Peer {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// Plain gRPC servers, by name.
pub(crate) struct Backends {
    _peer: Peer,
    pub(crate) ports: BTreeMap<&'static str, u16>,
}

/// A gRPC client with xDS.
pub(crate) struct Client {
    peer: Peer,
    _bootstrap: tempfile::NamedTempFile,
}

/// A gRPC server with xDS.
pub(crate) struct XdsServer {
    _peer: Peer,
    _bootstrap: tempfile::NamedTempFile,
}

/// How calls went: how often each reply and each status came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) replies: BTreeMap<String, u64>,
    pub(crate) errors: BTreeMap<String, u64>,
}

// === impl Peers ===

impl Peers {
    /// Nothing if they are not installed, which fails where `CI=true`.
    pub(crate) fn find(language: Language) -> Option<Self> {
        let Some(python) = std::env::var_os("MESH_PYTHON").map(PathBuf::from) else {
            return skip("MESH_PYTHON is not set; `cargo xtask python` prints a path for it");
        };
        let modules = python.parent().and_then(Path::parent).unwrap().to_owned();
        let known = modules.join("node_modules/@grpc/grpc-js-xds/package.json");
        if language == Language::Node && !known.is_file() {
            return skip("gRPC for Node is not beside MESH_PYTHON; `cargo xtask python` with npm");
        }
        Some(Self { python, modules })
    }

    fn script(&self, language: Language, name: &str) -> Command {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grpc_full");
        let (program, folder) = match language {
            Language::Python => (self.python.clone(), folder),
            Language::Node => (PathBuf::from("node"), folder.join("node")),
        };
        let mut command = Command::new(program);
        command.arg(folder.join(name));
        command.env("NODE_PATH", self.modules.join("node_modules"));
        // Proxies of the machine are not for what is on it.
        for name in ["http_proxy", "https_proxy", "grpc_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        command
    }

    pub(crate) async fn backends<const N: usize>(&self, names: [&'static str; N]) -> Backends {
        let mut command = self.script(Language::Python, "backends.py");
        command.args(names);
        let mut peer = Peer::start(command);
        let mut ports = BTreeMap::new();
        for name in names {
            ports.insert(name, peer.line().await.parse().unwrap());
        }
        Backends { _peer: peer, ports }
    }

    pub(crate) fn client(&self, language: Language, control: &Control) -> Client {
        let script = match language {
            Language::Python => "client.py",
            Language::Node => "client.js",
        };
        let mut command = self.script(language, script);
        let bootstrap = control.bootstrap();
        command.env("GRPC_XDS_BOOTSTRAP", bootstrap.path());
        Client {
            peer: Peer::start(command),
            _bootstrap: bootstrap,
        }
    }

    pub(crate) async fn server(&self, control: &Control, address: SocketAddr) -> XdsServer {
        let mut command = self.script(Language::Python, "server.py");
        let bootstrap = control.bootstrap();
        command.env("GRPC_XDS_BOOTSTRAP", bootstrap.path());
        command.arg(address.to_string());
        let mut peer = Peer::start(command);
        assert_eq!(peer.line().await, "started");
        XdsServer {
            _peer: peer,
            _bootstrap: bootstrap,
        }
    }
}

fn skip(what: &str) -> Option<Peers> {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{what}");
    println!("skipped: {what}");
    None
}

// === impl Control ===

impl Control {
    /// A control plane with this configuration.
    pub(crate) async fn start(yaml: &str) -> Self {
        let control = mesh_control::Control::builder().build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let (pushing, serving) = (control.clone(), control.xds().clone());
        tasks.spawn(async move { pushing.run().await });
        tasks.spawn(async move {
            let served = serving.serve(listener, std::future::pending()).await;
            served.unwrap();
        });
        let control = Self {
            address,
            control,
            _tasks: tasks,
        };
        control.apply(yaml);
        control
    }

    /// Makes this the configuration.
    pub(crate) fn apply(&self, yaml: &str) {
        let outcome = self.control.update(&Files::from_text("mesh.yaml", yaml));
        assert_eq!(outcome.findings, Vec::new());
        self.control.flush();
    }

    /// What clients have rejected, in their words.
    pub(crate) fn rejected(&self) -> Vec<String> {
        let connections = self.control.xds().connections();
        assert!(!connections.is_empty(), "somebody has to be there");
        let types = connections.iter().flat_map(|one| &one.types);
        types
            .filter(|one| one.sync == Sync::Nacked)
            .map(|one| format!("{one:?}"))
            .collect()
    }

    fn bootstrap(&self) -> tempfile::NamedTempFile {
        let bootstrap = json!({
            "xds_servers": [{
                "server_uri": self.address.to_string(),
                "channel_creds": [{"type": "insecure"}],
                "server_features": ["xds_v3"],
            }],
            "node": {
                "id": "sidecar~127.0.0.1~client.default~default.svc.cluster.local",
                "metadata": {"GENERATOR": "grpc", "NAMESPACE": "default"},
                "locality": {"region": "r", "zone": "z"},
            },
            "server_listener_resource_name_template":
                "grpc/server?xds.resource.listening_address=%s",
        });
        let file = tempfile::NamedTempFile::new().unwrap();
        serde_json::to_writer(&file, &bootstrap).unwrap();
        file
    }
}

// === impl Peer ===

impl Peer {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            _child: child,
            input,
            output,
        }
    }

    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(LIMIT, self.output.next_line()).await;
        line.expect("an answer in time")
            .unwrap()
            .expect("an answer")
    }
}

// === impl Client ===

impl Client {
    /// Calls a method of a target, one call after the other.
    pub(crate) async fn calls(&mut self, target: &str, count: u32) -> Tally {
        self.calls_with(target, "Say", count, &[], 20.0).await
    }

    pub(crate) async fn calls_with(
        &mut self,
        target: &str,
        method: &str,
        count: u32,
        metadata: &[(&str, &str)],
        timeout: f64,
    ) -> Tally {
        self.ask(json!({
            "do": "calls",
            "target": target,
            "method": method,
            "metadata": metadata,
            "count": count,
            "timeout": timeout,
        }))
        .await
    }

    /// Makes calls that nobody answers, until `fail` of them have failed.
    pub(crate) async fn hold(&mut self, target: &str, count: u32, fail: u32) -> Tally {
        self.ask(json!({"do": "hold", "target": target, "count": count, "fail": fail}))
            .await
    }

    /// Starts to call without an end.
    pub(crate) async fn start(&mut self, target: &str) {
        self.ask(json!({"do": "start", "target": target})).await;
    }

    /// Ends the calls; how they went since the last look.
    pub(crate) async fn stop(&mut self) -> Tally {
        self.ask(json!({"do": "stop"})).await
    }

    /// Waits until calls under way get replies from exactly these; no call may fail.
    pub(crate) async fn settles_on(&mut self, names: &[&str]) {
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            let recent = self.ask(json!({"do": "recent"})).await;
            assert_eq!(recent.errors, BTreeMap::new());
            let total: u64 = recent.replies.values().sum();
            if total >= 20 && recent.replies.keys().eq(names) {
                return;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "still {recent:?}, and {names:?} expected"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn ask(&mut self, command: Value) -> Tally {
        let line = format!("{command}\n");
        self.peer.input.write_all(line.as_bytes()).await.unwrap();
        let answer: Value = serde_json::from_str(&self.peer.line().await).unwrap();
        let counts = |key: &str| {
            let counts = answer[key].as_object().unwrap().iter();
            counts
                .map(|(key, count)| (key.clone(), count.as_u64().unwrap()))
                .collect()
        };
        Tally {
            replies: counts("replies"),
            errors: counts("errors"),
        }
    }
}

// === impl Tally ===

impl Tally {
    pub(crate) fn replies<const N: usize>(entries: [(&str, u64); N]) -> Self {
        Self {
            replies: entries.map(|(key, count)| (key.to_owned(), count)).into(),
            ..Self::default()
        }
    }

    pub(crate) fn errors<const N: usize>(entries: [(&str, u64); N]) -> Self {
        Self {
            errors: entries.map(|(key, count)| (key.to_owned(), count)).into(),
            ..Self::default()
        }
    }
}

/// Runs a test with its peers, unless they are not there.
pub(crate) async fn with<F: Future<Output = ()>>(
    language: Language,
    test: impl FnOnce(Peers, Language) -> F,
) {
    if let Some(peers) = Peers::find(language) {
        test(peers, language).await;
    }
}
