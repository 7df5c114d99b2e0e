//! A control plane and a proxy as processes that speak TLS with each other, both with certificates
//! of an authority made for the test.

mod support;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use support::{PATIENCE, at, end, free_range};
use tempfile::TempDir;

const NAME: &str = "istiod.istio-system.svc";

/// A running command, ended with SIGTERM when dropped.
struct Process {
    child: Child,
    out: Option<Lines<BufReader<ChildStdout>>>,
    err: Option<ChildStderr>,
}

/// An authority and what it signed, as files.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

// === impl Process ===

impl Process {
    fn start(args: &[&str]) -> Self {
        let mut child = mesh(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        Self {
            err: child.stderr.take(),
            out: Some(BufReader::new(out).lines()),
            child,
        }
    }

    /// What follows this text in a line that it prints.
    fn says(&mut self, text: &str) -> String {
        let mut lines = self.out.as_mut().unwrap().map(Result::unwrap);
        let found = lines.find_map(|line| Some(line.split_once(text)?.1.to_owned()));
        found.unwrap_or_else(|| panic!("it ended before {text:?}"))
    }

    /// Keeps its pipes empty, or it would block on them. Returns the lines of its log.
    fn drain(&mut self) -> mpsc::Receiver<String> {
        if let Some(out) = self.out.take() {
            std::thread::spawn(move || for _ in out {});
        }
        let (sender, lines) = mpsc::channel();
        if let Some(err) = self.err.take() {
            let err = BufReader::new(err).lines().map_while(Result::ok);
            // Nobody may listen any more.
            std::thread::spawn(move || err.for_each(|line| drop(sender.send(line))));
        }
        lines
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

// === impl Authority ===

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("root.pem"), issuer.pem()).unwrap();
        Self { issuer, directory }
    }

    fn file(&self, name: &str) -> String {
        self.directory
            .path()
            .join(name)
            .to_str()
            .unwrap()
            .to_owned()
    }

    /// Certificate and key for a name, in files that are called so.
    fn sign(&self, file: &str, name: &str) {
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.file(&format!("{file}.key")), key.serialize_pem()).unwrap();
        std::fs::write(self.file(&format!("{file}.pem")), signed.pem()).unwrap();
    }
}

fn mesh(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
    command.args(args);
    command
}

/// A proxy of the control plane at a port: whose roots it trusts, and whose certificate it shows.
fn proxy(plane: &str, admin: &str, workload: &str, roots: &Authority, own: &Authority) -> Process {
    Process::start(&[
        "proxy",
        "run",
        "--xds",
        &format!("https://{plane}"),
        "--xds-sni",
        NAME,
        "--xds-ca",
        &roots.file("root.pem"),
        "--xds-cert",
        &own.file("client.pem"),
        "--xds-key",
        &own.file("client.key"),
        "--workload",
        workload,
        "--concurrency",
        "1",
        "--admin",
        admin,
    ])
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_proxy_is_configured_over_tls_and_one_that_trusts_others_is_not() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    ours.sign("server", NAME);
    ours.sign("client", "client.default");
    theirs.sign("client", "client.default");
    let (base, _reserved) = free_range();
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
"
    );
    let config = tempfile::tempdir().unwrap();
    std::fs::write(config.path().join("mesh.yaml"), yaml).unwrap();
    let any = "127.0.0.1:0";
    let mut control = Process::start(&[
        "control",
        "run",
        "--config",
        config.path().to_str().unwrap(),
        "--xds",
        any,
        "--http",
        any,
        "--xds-tls",
        any,
        "--tls-cert",
        &ours.file("server.pem"),
        "--tls-key",
        &ours.file("server.key"),
        "--tls-client-ca",
        &ours.file("root.pem"),
    ]);
    let plane = control.says("xDS with TLS on ");
    let pages = control.says("http on http://");
    let pages = pages.trim_end_matches('/');
    control.drain();

    let mut good = proxy(
        &plane,
        &at(base).to_string(),
        "client.default",
        &ours,
        &ours,
    );
    good.drain();
    let limit = format!("{}s", PATIENCE.as_secs());
    let waited = mesh(&["wait", "--control", pages, "--timeout", &limit])
        .args(["--workload", "client.default"])
        .output()
        .unwrap();
    assert!(waited.status.success(), "{}", told(&waited));
    let status = || {
        let shown = mesh(&["proxy-status", "--control", pages, "-o", "json"]);
        let shown = { shown }.output().unwrap();
        serde_json::from_slice::<Value>(&shown.stdout)
            .unwrap_or_else(|_| panic!("{}", told(&shown)))
    };
    let shown = status();
    assert_eq!(shown[0]["name"], "client.default");
    assert_eq!(shown[0]["types"]["CDS"]["state"], "SYNCED");

    // One that expects another authority does not speak to it; one that shows a certificate of
    // another is not spoken to.
    for (what, roots, own) in [("roots", &theirs, &ours), ("certificate", &ours, &theirs)] {
        let (base, _reserved) = free_range();
        let mut bad = proxy(&plane, &at(base).to_string(), "client.default", roots, own);
        let log = bad.drain();
        let refused = std::iter::from_fn(|| log.recv_timeout(PATIENCE).ok())
            .find(|line| line.contains("no control plane"));
        let refused = refused.unwrap_or_else(|| panic!("{what}: nothing is said"));
        assert!(refused.contains(&plane), "{what}: {refused}");
        assert_eq!(status().as_array().unwrap().len(), 1, "{what}");
    }
}
