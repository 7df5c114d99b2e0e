//! What `benches/peers` measures is accepted as it stands.

use mesh_core::model::SnapshotBuilder;
use mesh_istio::{Files, Node, World, compile};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/mesh/mesh.yaml");

#[test]
fn the_measured_configuration_is_whole() {
    let mut world = World::default();
    let findings: Vec<_> = world
        .update(&Files::read(&[FILE]))
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
