//! What `benches/peers` measures is accepted as it stands.

use std::sync::Arc;

use mesh_core::model::{Snapshot, SnapshotBuilder};
use mesh_istio::{Files, Node, World, compile};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/mesh/mesh.yaml");
/// What there is besides with mutual TLS.
const MUTUAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/mesh/mtls.yaml");

/// What files compile to, for a gateway, if nothing is wrong with them.
fn compiled(files: &[&str]) -> Arc<Snapshot> {
    let mut world = World::default();
    let findings: Vec<_> = world
        .update(&Files::read(files))
        .iter()
        .map(|finding| finding.render())
        .collect();
    assert!(findings.is_empty(), "{findings:?}");
    let mut builder = SnapshotBuilder::new();
    let node = Node::gateway("bench", "default");
    let warnings = compile(&world, &node, &mut builder);
    assert!(warnings.is_empty(), "{warnings:?}");
    let (snapshot, problems) = builder.build().expect("it is consistent");
    assert!(problems.is_empty(), "{problems:?}");
    snapshot
}

#[test]
fn the_measured_configuration_is_whole() {
    for files in [&[FILE][..], &[FILE, MUTUAL]] {
        let snapshot = compiled(files);
        let tables = snapshot.tables().iter();
        let hosts: Vec<_> = tables.flat_map(|table| &table.virtual_hosts).collect();
        assert!(!hosts.is_empty());
        for host in hosts {
            let mut names: Vec<_> = host.rules.iter().map(|it| it.name.to_string()).collect();
            // A rule with two matches is two.
            names.dedup();
            let expected = [
                "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "h2", "last",
            ];
            assert_eq!(names, expected);
        }
    }
}

/// The object of a kind, as it is written.
fn object<'a>(text: &'a str, kind: &str) -> &'a str {
    let kind = format!("\nkind: {kind}\n");
    let mut objects = text.split("\n---\n").filter(|it| it.contains(&kind));
    objects.next().expect("it is there").trim_end()
}

#[test]
fn the_list_with_mutual_tls_is_the_same() {
    let [plain, mutual] =
        [FILE, MUTUAL].map(|file| std::fs::read_to_string(file).expect("it is there"));
    let routes = object(&plain, "VirtualService").split("\n  tcp:\n").next();
    let same = object(&mutual, "VirtualService")
        .replace("secure.example.com", "backend.example.com")
        .replace("secure", "bench")
        .replace("{number: 443}", "{number: 80}")
        .replace("{number: 444}", "{number: 81}");
    assert_eq!(Some(&*same), routes);
    let same = object(&mutual, "DestinationRule").replace("secure", "backend");
    let (head, tls) = same.split_once("    tls:\n").expect("TLS is spoken");
    let (_, rest) = tls.split_once("    loadBalancer:").expect("there is more");
    let same = format!("{head}    loadBalancer:{rest}");
    assert_eq!(same, object(&plain, "DestinationRule"));
}
