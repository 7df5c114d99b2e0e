//! One proxy's view of the world, as the mesh model.
//!
//! Names, order and defaults are istiod's: clusters
//! `outbound|9080|v1|reviews.default.svc.cluster.local`, virtual hosts
//! `<host>:<port>`, one rule per match block. What differs is the way in where
//! nothing is intercepted: a sidecar has one outbound listener that finds the
//! service by the request's authority. Intercepted sidecars get istiod's tables.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use mesh_core::model::{
    AccessLog, EscapedSlashes, HttpManager, Listener, PathNormalization, RouteTable,
    SnapshotBuilder,
};
use mesh_core::{Name, Origin, Place};

use crate::diagnostic::{Diagnostic, Position, Severity};
use crate::node::{Capture, Node, Role};
use crate::registry::Services;
use crate::spec::mesh_config::Normalization;
use crate::spec::{MeshConfig, Meta};
use crate::world::World;

mod cluster;
mod gateway;
mod hosts;
mod inbound;
mod intercepted;
mod outbound;
mod policy;
mod route;
mod scope;

pub use cluster::endpoints_of;

/// Compiles what `node` needs from `world` into `builder`.
///
/// Findings are warnings: whatever is refused was refused before, by
/// [`World::update`]. The builder's own warnings about unknown clusters repeat
/// what is said here with its place.
///
/// ```
/// use mesh_core::model::SnapshotBuilder;
/// use mesh_istio::{Files, Node, World, compile};
///
/// let mut world = World::default();
/// world.update(&Files::from_text("a.yaml", "
/// apiVersion: v1
/// kind: Service
/// metadata: {name: reviews}
/// spec: {ports: [{name: http, port: 9080}]}
/// "));
/// let mut builder = SnapshotBuilder::new();
/// compile(&world, &Node::sidecar("client", "default"), &mut builder);
/// let (snapshot, _) = builder.build()?;
/// assert!(snapshot.cluster("outbound|9080||reviews.default.svc.cluster.local").is_some());
/// # Ok::<(), mesh_core::Invalid>(())
/// ```
pub fn compile(world: &World, node: &Node, builder: &mut SnapshotBuilder) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    let services = Services::of(world, &mut findings);
    let mut compiler = Compiler {
        world,
        mesh: world.mesh_config(),
        node,
        services: &services,
        builder,
        findings,
        reported: HashSet::new(),
        origins: BTreeMap::new(),
        rules: policy::known(world),
        served: HashSet::new(),
        clusters: HashSet::new(),
        taken: HashSet::new(),
    };
    match (&node.role, node.capture) {
        (Role::Sidecar { inbound }, Capture::None) => {
            outbound::compile(&mut compiler);
            inbound::compile(&mut compiler, inbound);
        }
        (Role::Sidecar { .. }, Capture::Redirect) => {
            intercepted::compile(&mut compiler);
            let ports = inbound::targets(&compiler);
            inbound::compile(&mut compiler, &ports);
        }
        (Role::Gateway { ports }, _) => gateway::compile(&mut compiler, ports),
    }
    compiler.findings
}

/// What every step needs and adds to.
struct Compiler<'a> {
    world: &'a World,
    mesh: &'a MeshConfig,
    node: &'a Node,
    services: &'a Services,
    builder: &'a mut SnapshotBuilder,
    findings: Vec<Diagnostic>,
    /// Findings already made: one rule is compiled once per port and host.
    reported: HashSet<(Arc<str>, Position, String)>,
    /// Origins already handed out, by place.
    origins: BTreeMap<(Arc<str>, Position), Origin>,
    /// Destination rules by namespace.
    rules: BTreeMap<&'a str, Vec<policy::Known<'a>>>,
    /// Services whose clusters were added already.
    served: HashSet<Name>,
    /// Names of the clusters of services.
    clusters: HashSet<String>,
    /// Names and addresses of listeners already added.
    taken: HashSet<String>,
}

// === impl Compiler ===

impl<'a> Compiler<'a> {
    /// The origin that stands for a place in an object.
    fn origin(&mut self, meta: &Meta, at: Position) -> Origin {
        let key = (Arc::clone(&meta.file), at);
        if let Some(known) = self.origins.get(&key) {
            return *known;
        }
        let place = Place::new(meta.to_string(), &*meta.file, at.line, at.column);
        let origin = self.builder.origins().add(place);
        self.origins.insert(key, origin);
        origin
    }

    /// Warns of a place in an object, once.
    fn warn(&mut self, meta: &Meta, at: Position, path: &str, message: String) {
        if self
            .reported
            .insert((Arc::clone(&meta.file), at, message.clone()))
        {
            self.findings
                .push(meta.finding(Severity::Warning, at, message).path(path));
        }
    }

    /// Whether connections come from and go to anywhere, as istiod takes for granted.
    fn intercepts(&self) -> bool {
        self.node.capture == Capture::Redirect
    }

    /// A name in statistics as istiod writes it for the proxies that it starts: the semicolon
    /// tells their tag expressions where it ends.
    fn stat_name(&self, name: &str) -> Option<Name> {
        self.intercepts().then(|| Name::from(format!("{name};")))
    }

    /// Adds a listener and its table, unless its name or address is taken already.
    fn listen(&mut self, listener: Listener, table: RouteTable) -> bool {
        if self.taken.contains(&*listener.name)
            || !self.taken.insert(format!("@{}", listener.address))
        {
            return false;
        }
        self.taken.insert(listener.name.to_string());
        self.table(table);
        self.builder.listener(listener);
        true
    }

    /// Adds a route table, unless there is one of its name.
    fn table(&mut self, table: RouteTable) {
        if self.taken.insert(format!("#{}", table.name)) {
            self.builder.routes(table);
        }
    }

    /// The connection manager that every listener shares, but for its names.
    fn manager(&self, stat_prefix: String, routes: impl Into<Name>) -> HttpManager {
        let stat_prefix = self
            .stat_name(&stat_prefix)
            .unwrap_or_else(|| stat_prefix.into());
        let mut manager = HttpManager::new(stat_prefix, routes);
        if !self.mesh.access_log_file.is_empty() {
            manager.access_log.push(AccessLog {
                path: Name::from(&self.mesh.access_log_file),
                format: Name::from(&self.mesh.access_log_format),
            });
        }
        manager.path = normalization(self.mesh.normalization);
        manager
    }
}

fn normalization(asked: Normalization) -> PathNormalization {
    PathNormalization {
        normalize: asked != Normalization::None,
        merge_slashes: matches!(
            asked,
            Normalization::MergeSlashes | Normalization::DecodeAndMergeSlashes
        ),
        escaped_slashes: match asked {
            Normalization::DecodeAndMergeSlashes => EscapedSlashes::Decode,
            _ => EscapedSlashes::Keep,
        },
    }
}
