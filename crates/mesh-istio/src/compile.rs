//! One proxy's view of the world, as the mesh model.
//!
//! Names, order and defaults are istiod's: clusters
//! `outbound|9080|v1|reviews.default.svc.cluster.local`, virtual hosts
//! `<host>:<port>`, one rule per match block. What differs is the way in where
//! nothing is intercepted: a sidecar has one outbound listener that finds the
//! service by the request's authority. Intercepted sidecars get istiod's tables.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use mesh_core::model::{
    AccessLog, Cluster, EndpointSet, EscapedSlashes, HttpManager, Listener, PathNormalization,
    Retry, RouteTable, SecretRef, SnapshotBuilder,
};
use mesh_core::{Name, Origin};

use crate::diagnostic::{Diagnostic, Position, Severity};
use crate::names::LOCAL;
use crate::node::{Capture, Node, Role};
use crate::registry::{Entry, Services};
use crate::spec::mesh_config::Normalization;
use crate::spec::{MeshConfig, Meta, Visibility};
use crate::world::World;

mod authn;
mod authz;
mod cluster;
mod drafts;
mod gateway;
mod hosts;
mod inbound;
mod intercepted;
mod l4;
mod local;
mod memory;
mod mutual;
mod name_table;
mod outbound;
mod policy;
mod route;
mod scope;
mod spread;
mod tls;
mod viewer;

use memory::Memory;
use viewer::{Seen, Viewer};

pub use authn::wanted_keys;
pub use cluster::endpoints_of;
pub use local::{Alike, local_endpoints};
pub use name_table::name_table;
pub use spread::{Spread, minds_localities};

/// Compiles what `node` needs from `world` into `builder`.
///
/// Findings are warnings: whatever is refused was refused before, by
/// [`World::update`]. The builder's own warnings about unknown clusters repeat
/// what is said here with its place.
///
/// A node that discovers itself ([`Node::self_discovery`]) gets the cluster of those that are like
/// it ([`names::LOCAL`](crate::names::LOCAL)), too. A [`Workshop`] leaves it out: control planes
/// send its endpoints alone, for a cluster that the node has from the start.
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
    let mut workshop = Workshop::new();
    workshop.memory.origins = Arc::new(std::mem::take(builder.origins()));
    let findings = workshop.compile(world, node, builder);
    if let Some(endpoints) = local_endpoints(world, node) {
        builder.cluster(Cluster::new(LOCAL));
        builder.endpoints(LOCAL, endpoints);
    }
    findings
}

/// Compiles for one node after the other, in one world after the other, and makes nothing again
/// that it has made of the same before.
///
/// What comes out is what [`compile`] makes of a world and a node, but for the node's own cluster.
/// Parts that are the same are the
/// very same, from one world to the next and from one node to the other: clusters and virtual hosts
/// whatever the node as far as they do not depend on it, and a sidecar's whole way out for all
/// that are of one namespace, whatever they accept.
///
/// It holds what it made for the last world and the one before.
#[derive(Debug, Default)]
pub struct Workshop {
    memory: Memory,
    /// Of the node that was compiled for last.
    spreads: HashMap<Name, Arc<Spread>>,
}

impl Workshop {
    /// One that has made nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Compiles what `node` needs from `world` into `builder`, whose origins become this
    /// workshop's. See [`compile`].
    pub fn compile(
        &mut self,
        world: &World,
        node: &Node,
        builder: &mut SnapshotBuilder,
    ) -> Vec<Diagnostic> {
        let memory = &mut self.memory;
        memory.turn(world);
        let mut findings = world.catalog().findings().to_vec();
        let spreads = &mut self.spreads;
        spreads.clear();
        match &node.role {
            Role::Gateway { ports } => {
                let mut compiler = Compiler::new(world, node, memory);
                gateway::compile(&mut compiler, ports);
                compiler.half.secrets = tls::named(&compiler.half);
                spreads.extend(compiler.half.spreads.iter().cloned());
                compiler.half.give(builder, &mut findings);
                tls::provide(&compiler.half, world, &node.namespace, builder);
            }
            Role::Sidecar { inbound } => {
                let out = way_out(world, node, memory);
                spreads.extend(out.spreads.iter().cloned());
                out.give(builder, &mut findings);
                tls::provide(&out, world, &node.namespace, builder);
                let mut compiler = Compiler::new(world, node, memory);
                compiler.half.taken.clone_from(&out.taken);
                match node.capture {
                    Capture::None => inbound::compile(&mut compiler, inbound),
                    Capture::Redirect | Capture::Tproxy => {
                        let ports = inbound::targets(&compiler);
                        inbound::compile(&mut compiler, &ports);
                    }
                }
                compiler.half.give(builder, &mut findings);
                if node.capture == Capture::Tproxy {
                    builder.make_transparent(&INTERCEPTING);
                }
            }
        }
        builder.set_origins(Arc::clone(&memory.origins));
        findings
    }

    /// Which endpoints of a cluster come first for the node that was compiled for last; nothing
    /// where all are alike to it. With it, [`endpoints_of`] makes what was compiled.
    pub fn spread(&self, cluster: &str) -> Option<&Arc<Spread>> {
        self.spreads.get(cluster)
    }
}

/// The listeners that intercepted connections come to.
const INTERCEPTING: [&str; 2] = ["virtualOutbound", "virtualInbound"];

/// A sidecar's way out: the same for all that are the same in what was looked at.
fn way_out(world: &World, node: &Node, memory: &mut Memory) -> Arc<Half> {
    if let Some(known) = memory.half(&Viewer::new(node)) {
        return known;
    }
    let mut compiler = Compiler::new(world, node, memory);
    match node.capture {
        Capture::None => outbound::compile(&mut compiler),
        Capture::Redirect | Capture::Tproxy => intercepted::compile(&mut compiler),
    }
    let Compiler {
        viewer,
        mut half,
        memory,
        ..
    } = compiler;
    half.secrets = tls::named(&half);
    let half = Arc::new(half);
    let asked = viewer.asked(viewer.seen().and(half.seen));
    memory.keep_half(asked, &half);
    half
}

/// What is made for a node: all of a gateway, or a sidecar's way out or in.
#[derive(Debug, Default)]
struct Half {
    clusters: Vec<Arc<Cluster>>,
    endpoints: Vec<(Name, Arc<EndpointSet>)>,
    /// What those depend on of the node.
    spreads: Vec<(Name, Arc<Spread>)>,
    listeners: Vec<Arc<Listener>>,
    tables: Vec<Arc<RouteTable>>,
    findings: Vec<Diagnostic>,
    /// Secrets of Kubernetes that clusters and listeners name.
    secrets: Vec<SecretRef>,
    /// Names and addresses of listeners, and names of tables.
    taken: HashSet<String>,
    /// What of the node its clusters depend on.
    seen: Seen,
}

/// What a place in an object was warned of.
type Warned = (Arc<str>, Position, String);

/// What else had a say in rules, and what there was to say about them.
#[derive(Debug, Default)]
struct Heard {
    /// Hosts that were looked for.
    services: Vec<(String, Option<Arc<Entry>>)>,
    /// Delegates that were looked for, by namespace and name.
    delegates: Vec<(String, String, Option<u64>)>,
    /// Clusters, and whether they were there.
    clusters: Vec<(Name, bool)>,
    /// Destination rules that were looked for, by their stamps.
    policies: Vec<(Arc<Entry>, Vec<u64>)>,
    warnings: Vec<(Warned, Diagnostic)>,
}

/// What every step needs and adds to.
struct Compiler<'a> {
    world: &'a World,
    mesh: &'a MeshConfig,
    viewer: Viewer<'a>,
    services: &'a Services,
    memory: &'a mut Memory,
    half: Half,
    /// What the rules that are being made depend on.
    hears: Option<Heard>,
    /// Findings already made: one rule is compiled once per port and host.
    reported: HashSet<Warned>,
    /// Services whose clusters were added already.
    served: HashSet<Name>,
    /// Names of the clusters of services.
    clusters: HashSet<Name>,
    /// What judges on the way in; nothing on the way out.
    judges: authz::Judges,
    /// Retries of routes that say nothing of them, which send by chance or by a hash, once made.
    usual_retries: [Option<Option<Arc<Retry>>>; 2],
}

// === impl Half ===

impl Half {
    fn give(&self, builder: &mut SnapshotBuilder, findings: &mut Vec<Diagnostic>) {
        for cluster in &self.clusters {
            builder.cluster(Arc::clone(cluster));
        }
        for (name, set) in &self.endpoints {
            builder.endpoints(name.clone(), Arc::clone(set));
        }
        for listener in &self.listeners {
            builder.listener(Arc::clone(listener));
        }
        for table in &self.tables {
            builder.routes(Arc::clone(table));
        }
        findings.extend_from_slice(&self.findings);
    }
}

// === impl Compiler ===

impl<'a> Compiler<'a> {
    fn new(world: &'a World, node: &'a Node, memory: &'a mut Memory) -> Self {
        Self {
            world,
            mesh: world.mesh_config(),
            viewer: Viewer::new(node),
            services: world.catalog(),
            memory,
            half: Half::default(),
            hears: None,
            reported: HashSet::new(),
            served: HashSet::new(),
            clusters: HashSet::new(),
            judges: authz::Judges::default(),
            usual_retries: [None, None],
        }
    }

    /// The origin that stands for a place in an object.
    fn origin(&mut self, meta: &Meta, at: Position) -> Origin {
        self.memory.origin(meta, at)
    }

    /// Warns of a place in an object, once.
    fn warn(&mut self, meta: &Meta, at: Position, path: &str, message: String) {
        let finding = meta
            .finding(Severity::Warning, at, message.clone())
            .path(path);
        self.warned((Arc::clone(&meta.file), at, message), finding);
    }

    /// Says that something cannot be done for this node: a place in an object, once.
    fn fail(&mut self, meta: &Meta, at: Position, path: &str, message: String) {
        let finding = meta
            .finding(Severity::Error, at, message.clone())
            .path(path);
        self.warned((Arc::clone(&meta.file), at, message), finding);
    }

    fn warned(&mut self, what: Warned, finding: Diagnostic) {
        if let Some(hears) = &mut self.hears {
            hears.warnings.push((what.clone(), finding.clone()));
        }
        if self.reported.insert(what) {
            self.half.findings.push(finding);
        }
    }

    /// The service with this full host name, as somebody who depends on it.
    fn service(&mut self, host: &str) -> Option<Arc<Entry>> {
        let found = self.services.entry(host).cloned();
        if let Some(hears) = &mut self.hears {
            hears.services.push((host.to_owned(), found.clone()));
        }
        found
    }

    /// The cluster of this name if there is one so far, as somebody who depends on it. It is the
    /// very same name for all who send there.
    fn cluster_named(&mut self, name: &str) -> Option<Name> {
        let found = self.clusters.get(name).cloned();
        if let Some(hears) = &mut self.hears {
            let known = found.clone().unwrap_or_else(|| Name::from(name));
            hears.clusters.push((known, found.is_some()));
        }
        found
    }

    /// Whether the node may see a service.
    fn sees(&self, entry: &Entry) -> bool {
        entry.visibility == Visibility::All || entry.shows(self.viewer.namespace())
    }

    /// Whether connections come from and go to anywhere, as istiod takes for granted.
    fn intercepts(&self) -> bool {
        self.viewer.capture() != Capture::None
    }

    /// A name in statistics as istiod writes it for the proxies that it starts: the semicolon
    /// tells their tag expressions where it ends.
    fn stat_name(&self, name: &str) -> Option<Name> {
        self.intercepts().then(|| Name::from(format!("{name};")))
    }

    /// Adds a listener and its table, unless its name or address is taken already.
    fn listen(&mut self, listener: Listener, table: RouteTable) -> bool {
        let added = self.add_listener(listener);
        if added {
            self.table(table);
        }
        added
    }

    /// Adds a listener, unless its name or address is taken already.
    fn add_listener(&mut self, mut listener: Listener) -> bool {
        let taken = &mut self.half.taken;
        if taken.contains(&*listener.name) || !taken.insert(format!("@{}", listener.address)) {
            return false;
        }
        taken.insert(listener.name.to_string());
        self.judges.guard(&mut listener);
        self.half.listeners.push(Arc::new(listener));
        true
    }

    /// Adds a route table, unless there is one of its name.
    fn table(&mut self, table: RouteTable) {
        if self.half.taken.insert(format!("#{}", table.name)) {
            let table = self.memory.table(table);
            self.half.tables.push(table);
        }
    }

    fn access_log(&self) -> Vec<AccessLog> {
        let log = AccessLog {
            path: Name::from(&self.mesh.access_log_file),
            format: Name::from(&self.mesh.access_log_format),
        };
        match log.path.is_empty() {
            true => Vec::new(),
            false => vec![log],
        }
    }

    /// The connection manager that every listener shares, but for its names.
    fn manager(&self, stat_prefix: String, routes: impl Into<Name>) -> HttpManager {
        let stat_prefix = self
            .stat_name(&stat_prefix)
            .unwrap_or_else(|| stat_prefix.into());
        let mut manager = HttpManager::new(stat_prefix, routes);
        manager.access_log = self.access_log();
        if self.intercepts() {
            // Envoy's own, where nothing else is said: istiod lets it be.
            manager.server_name = Name::from("envoy");
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
