//! A configuration in files, compiled for one node at a time.

use anyhow::Context;
use mesh_control::describe_node;
use mesh_core::model::{Snapshot, SnapshotBuilder};
use mesh_istio::{Diagnostic, Files, World, compile};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The objects of a configuration.
#[derive(Debug)]
pub(crate) struct Mesh {
    world: World,
}

// === impl Mesh ===

impl Mesh {
    /// Reads files, and says what there is to say about them; none where something is refused.
    pub(crate) fn read(
        config: &[PathBuf],
        mesh_config: Option<&Path>,
    ) -> (Option<Self>, Vec<Diagnostic>) {
        let mut files = Files::read(config);
        if let Some(path) = mesh_config {
            files = files.and_mesh_config(path);
        }
        Self::of(&files)
    }

    fn of(files: &Files) -> (Option<Self>, Vec<Diagnostic>) {
        let mut world = World::default();
        let findings = world.update(files);
        let refused = findings.iter().any(Diagnostic::is_error);
        ((!refused).then_some(Self { world }), findings)
    }

    /// What this node would be configured with; none where that is refused, which is said on
    /// standard error.
    ///
    /// # Errors
    /// If the node cannot be what it is said to be.
    pub(crate) fn snapshot(&self, node: &mesh_xds::Node) -> anyhow::Result<Option<Arc<Snapshot>>> {
        let described = describe_node(&self.world, node)?;
        let mut builder = SnapshotBuilder::new();
        let findings = compile(&self.world, &described.node, &mut builder);
        for finding in &findings {
            eprintln!("{}", finding.render());
        }
        if findings.iter().any(Diagnostic::is_error) {
            return Ok(None);
        }
        let (snapshot, warnings) = builder
            .build()
            .context("the configuration cannot be used")?;
        for warning in warnings {
            let place = snapshot.origins().place(warning.origin);
            let place = place.map(|place| format!("{place}: ")).unwrap_or_default();
            eprintln!("warning: {place}{}", warning.message);
        }
        Ok(Some(snapshot))
    }
}
