//! Istio YAML: what reads it, puts it together and compiles it for proxies.

use crate::{Input, Target};
use mesh_core::model::SnapshotBuilder;
use mesh_istio::{Files, Node, World, compile};

/// `istio_yaml`: a line `--- # second` parts the files of an update from those of the next.
pub(crate) const YAML: Target = Target {
    name: "istio_yaml",
    run: update,
    input: Input::Text,
};

/// Between one update and the next.
const NEXT: &str = "--- # second\n";

fn update(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut world = World::default();
    for part in text.splitn(3, NEXT) {
        let files = Files::from_text("fuzz.yaml", part);
        for finding in world.update(&files) {
            let _ = finding.render();
        }
        let (mut nodes, _) = Node::all(&world);
        nodes.truncate(4);
        nodes.push(Node::gateway("gateway", "istio-system"));
        nodes.push(Node::sidecar("client", "default"));
        for node in &nodes {
            let mut builder = SnapshotBuilder::new();
            for finding in compile(&world, node, &mut builder) {
                let _ = finding.render();
            }
            match builder.build() {
                Ok((snapshot, _)) => mesh_route::prepare(&snapshot),
                Err(error) => panic!("{}: what was compiled is refused: {error}", node.name),
            }
        }
    }
}
