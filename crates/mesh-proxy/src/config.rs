//! Configuration from files: read, compiled for one node, published, and watched.
//!
//! A bad object is refused alone and its last good version stays; a change that cannot be used at
//! all changes nothing. Watching is a future that the owner runs.

use crate::tidy;
use crate::watch::Changes;
use mesh_core::discovery::NameTable;
use mesh_core::model::{
    AccessLog, KeyBook, Locality, Snapshot, SnapshotBuilder, WantedKeys, WorkloadRef,
};
use mesh_core::{Feed, Invalid, Name, Publisher};
use mesh_istio::names::LOCAL;
use mesh_istio::{
    Diagnostic, Files, Node, Resting, Role, World, compile, locality_of, name_table, wanted_keys,
};
use mesh_keys::Keys;
use mesh_lb::Zone;
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Quiet time after a change before files are read: an editor writes more than once.
const SETTLE: Duration = Duration::from_millis(100);

/// Where the configuration is and whom it is for.
#[derive(Clone, Debug)]
pub struct Source {
    /// Files and directories of YAML.
    pub paths: Vec<PathBuf>,
    /// A MeshConfig file, if it is not among the objects.
    pub mesh_config: Option<PathBuf>,
    /// The node as far as the command line says; what it does not say is in the YAML.
    pub node: NodeSpec,
    /// Applications resolve names with the mesh's table ([`Configuration::names`]), so that services
    /// without an address are called at the one that is allocated to them.
    pub dns_capture: bool,
    /// The proxy has a certificate of the mesh and its roots ([`Identity`](crate::Identity)).
    pub identity: bool,
    /// The node has a cluster of those that are like it (Istio's `ENABLE_SELF_DISCOVERY`), so that
    /// its own zone can be preferred ([`Configuration::zone`]).
    pub self_discovery: bool,
    /// Where the node runs; without it, where the objects say that its pod or WorkloadEntry is.
    pub locality: Option<Locality>,
    /// An access log instead of those that the configuration asks for; `-` is standard output.
    pub access_log: Option<String>,
}

/// What is known of a node beforehand.
#[derive(Clone, Debug)]
pub enum NodeSpec {
    /// This node exactly.
    Exact(Node),
    /// The node that a WorkloadEntry with this name and namespace describes.
    Named {
        /// Its name.
        name: String,
        /// Its namespace.
        namespace: String,
    },
}

/// Configuration in force, and the means to follow its files.
#[derive(Debug)]
pub struct Configuration {
    source: Source,
    /// Between changes nobody looks at objects.
    world: Resting,
    wanted: WantedKeys,
    node: Node,
    publisher: Publisher<Snapshot>,
    names: Publisher<Option<NameTable>>,
    /// What reading the files said the last time.
    read: Vec<Diagnostic>,
    /// All that was said the last time.
    said: Vec<String>,
    keys: Option<Keys>,
    /// The hash of the files that were read last, and what makes it.
    known: (u64, RandomState),
}

/// Why there is no configuration to start with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Objects or files were refused. Each has its place and its source line.
    #[error("the configuration has {} error(s)", .0.iter().filter(|d| d.is_error()).count())]
    Refused(Vec<Diagnostic>),
    /// The node is not described anywhere.
    #[error(
        "no WorkloadEntry {name:?} in namespace {namespace:?} describes a node (annotations \
         mesh-rs.dev/base-port, mesh-rs.dev/inbound, mesh-rs.dev/role)"
    )]
    UnknownNode {
        /// Its name.
        name: String,
        /// Its namespace.
        namespace: String,
    },
    /// The parts do not fit together.
    #[error("the configuration cannot be used: {0}")]
    Inconsistent(#[from] Invalid),
}

// === impl Configuration ===

impl Configuration {
    /// Reads and compiles the configuration. The findings are warnings and notes.
    ///
    /// # Errors
    /// If anything was refused: a proxy that starts is configured as its files say.
    pub fn load(source: Source) -> Result<(Self, Vec<Diagnostic>), LoadError> {
        let mut world = World::default();
        let (files, hasher) = (read(&source), RandomState::new());
        let known = (hasher.hash_one(&files), hasher);
        let mut findings = world.update(&files);
        if findings.iter().any(Diagnostic::is_error) {
            return Err(LoadError::Refused(findings));
        }
        let node = source.resolve(&world)?;
        let read = findings.clone();
        let mut builder = SnapshotBuilder::new();
        findings.extend(compile(&world, &node, &mut builder));
        source.adjust(&mut builder);
        if findings.iter().any(Diagnostic::is_error) {
            return Err(LoadError::Refused(findings));
        }
        let (snapshot, _) = builder.build()?;
        let publisher = Publisher::from_arc(snapshot);
        let names = Publisher::new(source.names(&world, &node));
        let said = findings.iter().map(ToString::to_string).collect();
        Ok((
            Self {
                source,
                wanted: wanted_keys(&world, Some(&node)),
                world: world.rest(),
                node,
                publisher,
                names,
                read,
                said,
                keys: None,
                known,
            },
            findings,
        ))
    }

    /// Snapshots, now and as files change.
    pub fn feed(&self) -> Feed<Snapshot> {
        self.publisher.feed()
    }

    /// The names that the node's applications may resolve in the mesh, now and as files change;
    /// none where [`Source::dns_capture`] is not set.
    pub fn names(&self) -> Feed<Option<NameTable>> {
        self.names.feed()
    }

    /// The node that the configuration is for.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The node as it appears in metrics.
    pub fn workload(&self) -> WorkloadRef {
        workload(&self.node.name, &self.node.namespace, &self.node.labels)
    }

    /// Where the node is, and among whom, for [`Builder::zone`](crate::Builder::zone); nothing if it
    /// does not discover itself.
    pub fn zone(&self) -> Option<Zone> {
        self.node.self_discovery.then(|| Zone {
            locality: self.node.locality.clone(),
            cluster: Some(LOCAL.into()),
        })
    }

    /// Reads the files again and publishes what changed. Says what is new about them. Files that
    /// are as they were cost no more than being read.
    pub fn reload(&mut self) -> Vec<Diagnostic> {
        let files = read(&self.source);
        let (known, hasher) = &mut self.known;
        // Other files change in a directory, too: a log of ours, for one.
        if std::mem::replace(known, hasher.hash_one(&files)) == self.known.0 {
            return Vec::new();
        }
        let mut world = self.world.anew();
        let mut findings = world.update(&files);
        if findings.iter().any(Diagnostic::is_error) {
            // Of what is refused the last good version stays.
            world = self.world.wake();
            findings = world.update(&files);
        }
        match self.source.resolve(&world) {
            Ok(node) => self.node = node,
            Err(LoadError::Refused(more)) => findings.extend(more),
            Err(error) => tracing::error!(%error, "the last description of the node stays"),
        }
        self.read = findings;
        self.compile(world)
    }

    /// Has these get the keys that the node's RequestAuthentications need from outside of the mesh.
    /// What they have now is taken over by [`Configuration::renew_keys`], what comes later by
    /// [`Configuration::watch`]. The [`Fetcher`](mesh_keys::Fetcher) that they came with has to run.
    pub fn fetch_keys(&mut self, keys: Keys) {
        keys.want(self.wanted.clone());
        self.keys = Some(keys);
    }

    /// Publishes what changes with the keys that came. Says what is new about them.
    pub fn renew_keys(&mut self) -> Vec<Diagnostic> {
        let known = self.keys.as_ref().map(Keys::load);
        match known.is_none_or(|known| known == *self.world.keys()) {
            true => Vec::new(),
            false => self.compile(self.world.wake()),
        }
    }

    fn compile(&mut self, mut world: World) -> Vec<Diagnostic> {
        if let Some(keys) = &self.keys {
            self.wanted = wanted_keys(&world, Some(&self.node));
            keys.want(self.wanted.clone());
            world.set_keys(keys.load());
        }
        let mut findings = self.read.clone();
        let mut builder = SnapshotBuilder::from(&self.publisher.load());
        findings.extend(compile(&world, &self.node, &mut builder));
        self.source.adjust(&mut builder);
        match builder.build() {
            Ok((snapshot, _)) => {
                // First where connections go, then who is led there.
                self.publisher.publish(snapshot);
                let names = self.source.names(&world, &self.node);
                if *self.names.load() != names {
                    self.names.publish(Arc::new(names));
                }
            }
            Err(error) => tracing::error!(%error, "the last configuration stays in force"),
        }
        self.world = world.rest();
        // A finding that was there before is no news.
        let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
        let mut index = 0;
        findings.retain(|_| {
            index += 1;
            !self.said.contains(&said[index - 1])
        });
        self.said = said;
        findings
    }

    /// Follows the files until the future is dropped, and hands what is found to `report`.
    pub async fn watch(mut self, report: impl Fn(&[Diagnostic])) {
        let mut changes = Changes::new();
        for path in self.source.paths.iter().chain(&self.source.mesh_config) {
            changes.watch(path);
        }
        // What changed before anybody watched is told by nobody.
        report(&tidy::apart(|| self.reload()));
        let mut keys = self.keys.as_ref().map(Keys::feed);
        let mut next = Box::pin(happened(changes));
        loop {
            let findings = tokio::select! {
                changes = &mut next => {
                    // It is not given up for keys: it may know of a change already.
                    next.set(happened(changes));
                    tidy::apart(|| self.reload())
                }
                () = came(&mut keys) => self.renew_keys(),
            };
            report(&findings);
        }
    }
}

async fn happened(mut changes: Changes) -> Changes {
    changes.next(SETTLE).await;
    changes
}

async fn came(keys: &mut Option<Feed<KeyBook>>) {
    if let Some(feed) = keys
        && feed.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

// === impl Source ===

impl Source {
    fn resolve(&self, world: &World) -> Result<Node, LoadError> {
        let mut node = described(&self.node, world)?;
        node.dns_capture |= self.dns_capture;
        node.identity |= self.identity;
        node.self_discovery |= self.self_discovery;
        let place = self.locality.clone();
        let place = place.or_else(|| locality_of(world, &node.namespace, &node.name));
        node.locality = place.unwrap_or(node.locality);
        Ok(node)
    }

    fn names(&self, world: &World, node: &Node) -> Option<NameTable> {
        self.dns_capture.then(|| name_table(world, node))
    }

    fn adjust(&self, builder: &mut SnapshotBuilder) {
        if let Some(path) = &self.access_log {
            let log = AccessLog {
                path: path.as_str().into(),
                format: Name::default(),
            };
            builder.replace_access_logs(&log);
        }
    }
}

fn read(source: &Source) -> Files {
    let files = Files::read(&source.paths);
    match &source.mesh_config {
        Some(path) => files.and_mesh_config(path),
        None => files,
    }
}

fn described(spec: &NodeSpec, world: &World) -> Result<Node, LoadError> {
    let (name, namespace) = match spec {
        NodeSpec::Exact(node) => return Ok(node.clone()),
        NodeSpec::Named { name, namespace } => (name, namespace),
    };
    Node::find(world, name, namespace)
        .map_err(|finding| LoadError::Refused(vec![*finding]))?
        .ok_or_else(|| LoadError::UnknownNode {
            name: name.clone(),
            namespace: namespace.clone(),
        })
}

/// A workload as it appears in metrics.
pub(crate) fn workload<K, V>(name: &str, namespace: &str, labels: &BTreeMap<K, V>) -> WorkloadRef
where
    K: Borrow<str> + Ord,
    V: AsRef<str>,
{
    let label = |key: &str| labels.get(key).map(V::as_ref).unwrap_or_default();
    let first = |texts: [&str; 2]| {
        Name::from(
            texts
                .into_iter()
                .find(|t| !t.is_empty())
                .unwrap_or_default(),
        )
    };
    let mut workload = WorkloadRef::default();
    workload.name = name.into();
    workload.namespace = namespace.into();
    workload.app = label("app").into();
    workload.version = label("version").into();
    let service = first([label("service.istio.io/canonical-name"), label("app")]);
    workload.canonical_service = first([&service, name]);
    let revision = first([
        label("service.istio.io/canonical-revision"),
        label("version"),
    ]);
    workload.canonical_revision = first([&revision, "latest"]);
    workload
}

/// What a node is, for messages.
pub fn describe(node: &Node) -> &'static str {
    match node.role {
        Role::Gateway { .. } => "gateway",
        Role::Sidecar { .. } => "sidecar",
    }
}

/// Prints findings as the log has them: errors and warnings, one line each.
pub fn log(findings: &[Diagnostic]) {
    for finding in findings {
        match finding.severity {
            mesh_istio::Severity::Error => tracing::error!("{finding}"),
            mesh_istio::Severity::Warning => tracing::warn!("{finding}"),
            _ => tracing::debug!("{finding}"),
        }
    }
}

/// Findings with their source lines, for a person.
pub fn render(findings: &[Diagnostic]) -> String {
    findings
        .iter()
        .map(|finding| finding.render() + "\n")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: reviews}\nspec: {ports: [{name: http, port: 9080}]}\n";

    fn source(directory: &Path) -> Source {
        Source {
            paths: vec![directory.to_owned()],
            mesh_config: None,
            node: NodeSpec::Exact(Node::sidecar("client", "default")),
            dns_capture: false,
            identity: false,
            self_discovery: false,
            locality: None,
            access_log: None,
        }
    }

    #[test]
    fn a_bad_file_at_the_start_is_an_error_and_later_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        fs::write(&file, "kind: [").unwrap();
        assert!(matches!(
            Configuration::load(source(directory.path())),
            Err(LoadError::Refused(findings)) if findings[0].line > 0
        ));

        fs::write(&file, SERVICE).unwrap();
        let (mut configuration, _) = Configuration::load(source(directory.path())).unwrap();
        let feed = configuration.feed();
        let cluster = "outbound|9080||reviews.default.svc.cluster.local";
        assert!(feed.load().cluster(cluster).is_some());

        fs::write(&file, "kind: [").unwrap();
        let findings = configuration.reload();
        assert!(findings.iter().any(Diagnostic::is_error));
        assert!(
            feed.load().cluster(cluster).is_some(),
            "the last good version stays"
        );
        assert!(
            configuration.reload().is_empty(),
            "nothing new is said twice"
        );
    }

    #[test]
    fn files_that_are_as_they_were_make_no_new_configuration() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a.yaml"), SERVICE).unwrap();
        let (mut configuration, _) = Configuration::load(source(directory.path())).unwrap();
        let before = configuration.feed().load();
        fs::write(directory.path().join("access.log"), "GET /\n").unwrap();
        configuration.reload();
        assert!(Arc::ptr_eq(&before, &configuration.feed().load()));

        let other = SERVICE.replace("9080", "9081");
        fs::write(directory.path().join("a.yaml"), other).unwrap();
        configuration.reload();
        assert!(!Arc::ptr_eq(&before, &configuration.feed().load()));
    }

    #[tokio::test]
    async fn what_changed_before_watching_began_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (configuration, _) = Configuration::load(source(directory.path())).unwrap();
        let mut feed = configuration.feed();
        fs::write(directory.path().join("a.yaml"), SERVICE).unwrap();
        let watching = tokio::spawn(configuration.watch(|_| {}));
        let snapshot = feed.changed().await.unwrap();
        let mut clusters = snapshot.clusters().iter();
        assert!(clusters.any(|c| c.config().name.contains("reviews")));
        watching.abort();
    }

    #[tokio::test]
    async fn a_change_of_a_file_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (configuration, _) = Configuration::load(source(directory.path())).unwrap();
        let mut feed = configuration.feed();
        let watching = tokio::spawn(configuration.watch(|_| {}));
        // The watcher is set up by the first poll of the task.
        tokio::task::yield_now().await;
        fs::write(directory.path().join("a.yaml"), SERVICE).unwrap();
        loop {
            let snapshot = feed.changed().await.unwrap();
            if snapshot
                .clusters()
                .iter()
                .any(|c| c.config().name.contains("reviews"))
            {
                break;
            }
        }
        watching.abort();
    }
}
