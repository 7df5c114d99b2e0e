//! A sidecar that connections are redirected to. That the kernel redirects any is not needed for
//! its listeners to be there.

use crate::plane::{Driven, Plane, SOON};
use crate::support::free_address;
use mesh_core::model::{Listener, SnapshotBuilder};
use mesh_istio::{Capture, Files, Node, World, compile};
use mesh_xds::client::Variant;
use mesh_xds::server::Changes;
use mesh_xds::{TypeUrl, write};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// A proxy that runs; it is killed with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A service on the node itself, and another; everything goes out by this port.
fn yaml(outbound: SocketAddr) -> String {
    format!(
        "
{{apiVersion: v1, kind: Service, metadata: {{name: own}},
 spec: {{selector: {{app: own}}, ports: [{{name: http, port: 9080}}]}}}}
---
{{apiVersion: v1, kind: Service, metadata: {{name: other}},
 spec: {{ports: [{{name: http, port: 9090}}]}}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data:
  mesh: 'proxyListenPort: {}'
",
        outbound.port()
    )
}

fn loopback(address: SocketAddr) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], address.port()))
}

/// A connection to the listener itself was redirected by nobody: it must not be sent back to it.
async fn ends(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut bytes)).await;
    // Closed or reset, but not open for ever.
    let _ = read.expect("it ends");
    assert!(bytes.is_empty());
}

#[tokio::test]
async fn both_ways_of_an_intercepted_sidecar_come_into_force() {
    let (outbound, inbound) = (free_address(), free_address());
    let mut world = World::default();
    let findings = world.update(&Files::from_text("a.yaml", &yaml(outbound)));
    assert!(findings.is_empty(), "{findings:?}");
    let mut node = Node::sidecar("own-v1", "default");
    node.labels.insert("app".to_owned(), "own".to_owned());
    node.address = [127, 0, 0, 9].into();
    node.capture = Capture::Redirect;
    let mut builder = SnapshotBuilder::new();
    compile(&world, &node, &mut builder);
    let snapshot = builder.build().unwrap().0;
    let mut changes = Changes::new();
    for (kind, resource) in write::snapshot(&snapshot) {
        changes = changes.set(kind, resource);
    }
    // Istio's own port for it may be taken on this machine.
    let mut all = snapshot.listeners().iter();
    let gate = all.find(|one| *one.name == *"virtualInbound").unwrap();
    assert_eq!(gate.address.port(), 15006);
    let mut gate = Listener::clone(gate);
    let mut at = gate.address.socket().unwrap();
    at.set_port(inbound.port());
    gate.address = at.into();
    let gate = write::encode("virtualInbound", &write::listener(&gate, None));
    let plane = Plane::start().await;
    plane.apply(changes.set(TypeUrl::Listener, gate));

    let driven = Driven::by(&plane, Variant::Delta).await;
    driven.initialized().await;
    let listening = driven.proxy.listening().load();
    assert!(listening.failed.is_empty(), "{listening:?}");
    for (name, port) in [
        ("virtualOutbound", outbound.port()),
        ("virtualInbound", inbound.port()),
    ] {
        let open = listening.open.iter().find(|(one, _)| **one == *name);
        assert_eq!(open.map(|(_, at)| at.port()), Some(port), "{listening:?}");
    }
    ends(loopback(outbound)).await;
    let stands = listening.open.keys().any(|name| name.ends_with("_9090"));
    assert!(stands, "the other service's port: {listening:?}");
}

#[tokio::test]
async fn a_flag_makes_a_sidecar_from_yaml_an_intercepted_one() {
    let outbound = free_address();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mesh.yaml");
    std::fs::write(&file, yaml(outbound)).unwrap();
    let process = Command::new(env!("CARGO_BIN_EXE_mesh-proxy"))
        .args(["run", "--config", file.to_str().unwrap()])
        .args(["--workload", "own-v1.default", "--labels", "app=own"])
        .args(["--interception", "redirect", "--ip", "127.0.0.9"])
        .args(["--admin", "off", "--concurrency", "1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut process = Process(process.unwrap());
    let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
    let said = format!("listening on 0.0.0.0:{} (virtualOutbound)", outbound.port());
    let reading = tokio::task::spawn_blocking(move || lines.any(|line| line.unwrap() == said));
    let heard = tokio::time::timeout(SOON, reading).await;
    assert!(heard.expect("it says where it listens").unwrap());
    ends(loopback(outbound)).await;
}
