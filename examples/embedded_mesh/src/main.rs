//! The mesh without a proxy: an application that reads a directory of Istio YAML and sends its own
//! requests where that YAML says.
//!
//! Run it with `cargo run -p embedded_mesh`, or give it a directory of yours. It starts the two
//! versions of the service in `mesh/` on loopback.

use anyhow::Context;
use http::Request;
use http_body_util::{BodyExt, Empty};
use mesh_client::{Body, MeshClient};
use mesh_core::Publisher;
use mesh_core::model::SnapshotBuilder;
use mesh_istio::{Diagnostic, Files, Node, World, compile};
use std::path::PathBuf;
use tokio::net::TcpListener;
use tower::ServiceExt;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    for (port, name) in [(18481, "greeter-v1"), (18482, "greeter-v2")] {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let router = httpbin::named(name);
        tokio::spawn(httpbin::serve(listener, router, std::future::pending()));
    }

    let usual = concat!(env!("CARGO_MANIFEST_DIR"), "/mesh");
    let dir = std::env::args()
        .nth(1)
        .map_or_else(|| PathBuf::from(usual), PathBuf::from);
    let mut world = World::default();
    let findings = world.update(&Files::read(&[dir]));
    for finding in &findings {
        eprintln!("{}", finding.render());
    }
    anyhow::ensure!(
        !findings.iter().any(Diagnostic::is_error),
        "the configuration was refused"
    );

    // What a sidecar of this application would do, the application does itself.
    let mut builder = SnapshotBuilder::new();
    compile(&world, &Node::sidecar("embedded", "default"), &mut builder);
    let (snapshot, _) = builder.build()?;
    let publisher = Publisher::from_arc(snapshot);
    let mesh = MeshClient::builder(publisher.feed(), "http_proxy").build();

    for (tester, expected) in [("no", "greeter-v1"), ("yes", "greeter-v2")] {
        let request = Request::get("http://greeter/hostname")
            .header("x-tester", tester)
            .body(Empty::new())?;
        let response = mesh.clone().oneshot(request).await?;
        let status = response.status();
        let text = read(response.into_body()).await?;
        println!("x-tester: {tester:3} -> {status} {}", text.trim());
        anyhow::ensure!(text.contains(expected), "testers alone get v2");
    }
    Ok(())
}

async fn read(body: Body) -> anyhow::Result<String> {
    let bytes = body
        .collect()
        .await
        .context("the body broke off")?
        .to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
