//! What there is to say about the configuration while it is edited, with its place and only once.
//!
//! The control plane compiles by itself and speaks to proxies; whoever edits a file wants to know
//! what each node makes of it, line and column included.

use mesh_istio::{Diagnostic, Files, Node, Severity};
use mesh_proxy::config::{self, Configuration, LoadError, NodeSpec, Source};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Reads the configuration as every node does.
#[derive(Debug)]
pub(crate) struct Judge {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    nodes: Vec<Configuration>,
    /// The files as they were read the last time.
    read: String,
}

// === impl Judge ===

impl Judge {
    /// Reads the configuration for the first time.
    ///
    /// # Errors
    /// If it has errors: a demo starts with what its files say.
    pub(crate) fn new(dir: &Path, nodes: &[Node]) -> Result<Self, LoadError> {
        let load = |node: &Node| {
            let loaded = Configuration::load(source(dir, node));
            loaded.map(|(configuration, _)| configuration)
        };
        let state = State {
            nodes: nodes.iter().map(load).collect::<Result<_, _>>()?,
            read: text(dir),
        };
        Ok(Self {
            dir: dir.to_owned(),
            state: Mutex::new(state),
        })
    }

    /// Where a node's configuration is.
    pub(crate) fn source(&self, node: &Node) -> Source {
        source(&self.dir, node)
    }

    /// A proxy that stands for a node in metrics.
    pub(crate) fn introduce(&self, node: &Node, proxy: mesh_proxy::Builder) -> mesh_proxy::Builder {
        let state = self.lock();
        let mut known = state.nodes.iter();
        match known.find(|one| one.node() == node) {
            Some(one) => proxy.workload(one.workload()),
            None => proxy,
        }
    }

    /// Prints that something changed, and what is new about it. Nothing if nothing changed.
    pub(crate) fn look(&self) {
        if let Some(findings) = self.changed() {
            println!("configuration changed");
            eprint!("{}", config::render(&findings));
        }
    }

    fn changed(&self) -> Option<Vec<Diagnostic>> {
        let mut state = self.lock();
        let read = text(&self.dir);
        if state.read == read {
            return None;
        }
        state.read = read;
        let mut news: Vec<Diagnostic> = Vec::new();
        for configuration in &mut state.nodes {
            // Nodes have much the same to say.
            for finding in configuration.reload() {
                if finding.severity != Severity::Info && !news.contains(&finding) {
                    news.push(finding);
                }
            }
        }
        Some(news)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic leaves at worst something that is said twice.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn source(dir: &Path, node: &Node) -> Source {
    Source {
        paths: vec![dir.to_owned()],
        mesh_config: None,
        node: NodeSpec::Named {
            name: node.name.clone(),
            namespace: node.namespace.clone(),
        },
        dns_capture: false,
        identity: true,
        self_discovery: false,
        locality: None,
        access_log: None,
    }
}

/// All files in one text.
fn text(dir: &Path) -> String {
    format!("{:?}", Files::read(&[dir]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const NODES: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: a, annotations: {mesh-rs.dev/base-port: '20000'}}
spec: {address: 127.0.0.1}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: b, annotations: {mesh-rs.dev/base-port: '20100'}}
spec: {address: 127.0.0.1}
";

    #[test]
    fn a_mistake_is_said_once_for_all_nodes_with_its_line_and_not_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("nodes.yaml"), NODES).unwrap();
        let mut world = mesh_istio::World::default();
        world.update(&Files::read(&[dir.path()]));
        let (nodes, _) = Node::all(&world);
        assert_eq!(nodes.len(), 2);
        let judge = Judge::new(dir.path(), &nodes).unwrap();
        assert!(judge.changed().is_none(), "nothing changed");

        fs::write(dir.path().join("broken.yaml"), "a: 1\nkind: [").unwrap();
        let findings = judge.changed().unwrap();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(
            findings[0].to_string().contains("broken.yaml:2:"),
            "{}",
            findings[0]
        );
        assert!(judge.changed().is_none(), "nothing changed since");

        fs::write(
            dir.path().join("more.yaml"),
            NODES.replace("name: ", "name: more-"),
        )
        .unwrap();
        assert_eq!(judge.changed().unwrap(), [], "the mistake is known");
    }
}
