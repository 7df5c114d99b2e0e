//! Checks Istio YAML: `cargo run -p mesh-istio --example check -- DIR_OR_FILE...`
//!
//! Prints every finding with its source line, then what each described node would serve; exits
//! with 1 if anything was refused.

use std::process::ExitCode;

use mesh_core::model::SnapshotBuilder;
use mesh_istio::{Diagnostic, Files, Node, World, compile};

fn main() -> ExitCode {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let files = match paths.as_slice() {
        [] => Files::from_text("sample.yaml", SAMPLE),
        paths => Files::read(paths),
    };
    let mut world = World::default();
    let mut findings = world.update(&files);
    let (mut nodes, more) = Node::all(&world);
    findings.extend(more);
    if nodes.is_empty() {
        nodes.push(Node::gateway("gateway", "istio-system"));
        nodes.push(Node::sidecar("client", "default"));
    }
    for node in &nodes {
        let mut builder = SnapshotBuilder::new();
        for finding in compile(&world, node, &mut builder) {
            // What is wrong with a route is wrong with it in every proxy.
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
        let (snapshot, _) = match builder.build() {
            Ok(built) => built,
            Err(invalid) => {
                eprintln!("{}: {invalid}", node.name);
                return ExitCode::FAILURE;
            }
        };
        println!("{}.{}", node.name, node.namespace);
        for listener in snapshot.listeners() {
            let Some(manager) = listener.managers().next() else {
                continue;
            };
            let Some(table) = snapshot.table(&manager.routes) else {
                continue;
            };
            println!("  {} -> {}", listener.address, table.name);
            for host in &table.virtual_hosts {
                println!("    {}: {} rules", host.name, host.rules.len());
            }
        }
    }
    println!();
    for finding in &findings {
        println!("{}", finding.render());
    }
    println!(
        "{} objects accepted, {} findings",
        world.len(),
        findings.len()
    );
    ExitCode::from(u8::from(findings.iter().any(Diagnostic::is_error)))
}

/// What is shown when there is nothing to check: a warning and an error.
const SAMPLE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {ports: [{name: http, port: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, subset: v1}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: late}
spec:
  hosts: [late.example]
  http:
  - timeout: half a second
    route:
    - destination: {host: reviews}
";
