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
    for table in snapshot.tables() {
        for host in &table.virtual_hosts {
            let names: Vec<_> = host
                .rules
                .iter()
                .map(|rule| rule.name.to_string())
                .collect();
            assert_eq!(names.first().map(String::as_str), Some("r0"));
            assert_eq!(names.last().map(String::as_str), Some("last"));
            assert_eq!(names.len(), 11, "{names:?}");
        }
    }
    assert!(
        snapshot
            .tables()
            .any(|table| !table.virtual_hosts.is_empty())
    );
}
