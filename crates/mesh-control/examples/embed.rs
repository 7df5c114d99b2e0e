//! A control plane inside of another program: served, changed, and asked how its proxies are.
//!
//! `cargo run -p mesh-control --example embed` ends by itself.

use mesh_control::Control;
use mesh_istio::Files;
use mesh_xds::Node;
use mesh_xds::client::Client;
use std::time::Duration;
use tokio::net::TcpListener;

fn mesh(timeout: &str) -> Files {
    let text = format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: reviews}}
spec: {{selector: {{app: reviews}}, ports: [{{name: http, port: 9080}}]}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: reviews-1}}
spec: {{address: 10.0.0.1, labels: {{app: reviews}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews}}
spec:
  hosts: [reviews]
  http:
  - timeout: {timeout}
    route: [{{destination: {{host: reviews}}}}]
"
    );
    Files::from_text("mesh/reviews.yaml", &text)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let control = Control::builder().build();
    for finding in control.update(&mesh("1s")).findings {
        eprintln!("{}", finding.render());
    }

    // Nothing runs by itself: the owner decides on which tasks.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let (server, own) = (control.xds().clone(), control.clone());
    let serving = tokio::spawn(async move { server.serve(listener, std::future::pending()).await });
    let pushing = tokio::spawn(async move { own.run().await });

    // A sidecar that describes itself: nothing is intercepted, its outbound proxy is on 20101.
    let id = "sidecar~127.0.0.1~client.default~default.svc.cluster.local";
    let node = Node::new(id).with_text("MESH_BASE_PORT", "20100");
    let client = Client::builder([address]).node(node).build()?;
    let mut snapshots = client.snapshots();
    let proxy = tokio::spawn(client.run(std::future::pending()));

    for timeout in [1, 3] {
        let wanted = Some(Duration::from_secs(timeout));
        control.update(&mesh(&format!("{timeout}s")));
        loop {
            let snapshot = snapshots.load();
            let table = snapshot.table("http_proxy");
            let mut hosts = table.iter().flat_map(|table| &table.virtual_hosts);
            if hosts.any(|host| host.rules.iter().any(|rule| rule.timeout == wanted)) {
                break;
            }
            snapshots.changed().await?;
        }
        println!("the proxy has a timeout of {timeout} s");
    }
    for one in control.xds().connections() {
        for status in one.types {
            println!(
                "{}: {:?}, {} resources",
                status.kind.short(),
                status.sync,
                status.resources
            );
        }
    }
    proxy.abort();
    pushing.abort();
    serving.abort();
    Ok(())
}
