//! Callers' own addresses at an intercepted application, with everything that this takes coming from
//! the control plane: it knows the sidecar as one with TPROXY, and sends istiod's filter
//! `original_src` with the mark 1337.
//!
//! The proxy is ours, configured by the control plane or by files, or a real Envoy (`MESH_ENVOY`).
//! Needs root, iptables, iproute2 and python3; elsewhere the tests say so and pass, but fail where
//! `CI=true`.

#[path = "intercept_full/town.rs"]
mod town;

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use town::{ELSEWHERE, OUTSIDE, POD, Town, can_run};

/// Nothing here takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);
const NODE: &str = "sidecar~10.98.0.2~web-1.shop~shop.svc.cluster.local";

/// A service with one port for HTTP; nobody says anything about the pod's other ports.
const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.96.0.78
  selector: {app: web}
  ports: [{name: http, port: 8080}]
";

/// A pod with an application, and who calls it.
struct Place {
    town: Town,
    processes: Vec<Child>,
    folder: tempfile::TempDir,
}

impl Drop for Place {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Place {
    /// The application listens on 8080 for HTTP and on 3306 and 3307 for something else.
    fn build() -> Option<Self> {
        if !can_run() {
            return None;
        }
        let mut town = Town::build();
        let pod = town.pod.clone();
        town.start(&pod, &[3306, 3307], &["--http", "8080"]);
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.path().join("mesh.yaml"), MESH).unwrap();
        Some(Self {
            town,
            processes: Vec::new(),
            folder,
        })
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Starts a program in a namespace. As Istio has it, a proxy with TPROXY is root, of group 1337.
    fn start(&mut self, namespace: &str, group: &str, words: &[&str]) {
        let child = Command::new("ip")
            .args(["netns", "exec", namespace, "setpriv", "--regid", group])
            .arg("--clear-groups")
            .args(words)
            .stdin(Stdio::null())
            .spawn();
        self.processes.push(child.unwrap());
    }

    fn control_plane(&mut self) {
        let (outside, config) = (self.town.outside.clone(), self.file("mesh.yaml"));
        let xds = format!("{}:15010", OUTSIDE[0]);
        let mesh = env!("CARGO_BIN_EXE_mesh");
        let words = ["control", "run", "--config", &config, "--xds", &xds];
        self.start(&outside, "0", &[&[mesh], &words[..]].concat());
    }

    fn mesh_proxy(&mut self, from: &[&str]) {
        let pod = self.town.pod.clone();
        let mesh = env!("CARGO_BIN_EXE_mesh");
        let words = [
            "--node",
            NODE,
            "--labels",
            "app=web",
            "--interception",
            "tproxy",
            "--concurrency",
            "2",
        ];
        let words = [&[mesh, "proxy", "run"], from, &words].concat();
        self.start(&pod, "1337", &words);
    }

    /// Waits until the proxy says that it is ready, and intercepts.
    fn intercept(&self) {
        let until = Instant::now() + PATIENCE;
        let owner = ["--uid", "1337", "--gid", "1337", "--get", "/ready"];
        let pod = &self.town.pod;
        while self.town.call(pod, "127.0.0.1", 15000, &owner)["status"] != 200 {
            assert!(Instant::now() < until, "the proxy does not become ready");
            std::thread::park_timeout(Duration::from_millis(50));
        }
        self.town.intercepted("apply --mode tproxy");
    }

    fn assert_callers_keep_their_addresses(&self) {
        let outside = &self.town.outside;
        for _ in 0..3 {
            // Two callers in turn, so that none gets what was opened for the other.
            for caller in [OUTSIDE[0], ELSEWHERE[0]] {
                let from = ["--source", caller];
                let get = [&from[..], &["--get", "/"]].concat();
                let answer = self.town.call(outside, POD[0], 8080, &get);
                assert_eq!(answer["status"], 200, "{answer}");
                // Our proxy had it, and not the application itself.
                assert_eq!(answer["server"], "istio-envoy", "{answer}");
                let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
                let peer = body["peer"].as_str().unwrap();
                assert!(peer.ends_with(caller), "{peer} is not {caller}");
                for port in [3306, 3307] {
                    let say = [&from[..], &["--say", "hello\n"]].concat();
                    let seen = self.town.call(outside, POD[0], port, &say);
                    assert_eq!(seen["port"], port, "{seen}");
                    assert_eq!(seen["peer"], caller, "{seen}");
                }
            }
        }
    }
}

#[test]
fn an_application_sees_its_callers_through_a_proxy_that_the_control_plane_drives() {
    let Some(mut place) = Place::build() else {
        return;
    };
    place.control_plane();
    let server = format!("{}:15010", OUTSIDE[0]);
    place.mesh_proxy(&["--xds", &server]);
    place.intercept();
    place.assert_callers_keep_their_addresses();
}

#[test]
fn it_is_the_same_with_a_proxy_that_reads_the_files() {
    let Some(mut place) = Place::build() else {
        return;
    };
    let config = place.file("mesh.yaml");
    place.mesh_proxy(&["--config", &config]);
    place.intercept();
    place.assert_callers_keep_their_addresses();
}

#[test]
fn it_is_the_same_with_an_envoy_that_the_control_plane_drives() {
    let Some(envoy) = std::env::var_os("MESH_ENVOY") else {
        let is_ci = std::env::var("CI").as_deref() == Ok("true");
        assert!(!is_ci, "MESH_ENVOY is not set");
        println!("skipped: MESH_ENVOY is not set; `cargo xtask envoy` prints a path for it");
        return;
    };
    let Some(mut place) = Place::build() else {
        return;
    };
    place.control_plane();
    let config = place.file("envoy.yaml");
    let text = include_str!("names_full/envoy.yaml")
        .replace("client-1.shop", "web-1.shop")
        .replace("cluster: client.shop", "cluster: web.shop")
        .replace(
            "INTERCEPTION_MODE: REDIRECT",
            "INTERCEPTION_MODE: TPROXY, LABELS: {app: web}",
        );
    assert!(text.contains("TPROXY"));
    fs::write(&config, text).unwrap();
    let pod = place.town.pod.clone();
    let envoy = envoy.to_str().unwrap();
    let words = ["--disable-hot-restart", "--concurrency", "1", "-l", "error"];
    let words = [&[envoy], &words[..], &["-c", &config]].concat();
    place.start(&pod, "1337", &words);
    place.intercept();
    place.assert_callers_keep_their_addresses();
}
