//! Istio's documents: compiled and sent over xDS to Envoy and to mesh-proxy, read by mesh-proxy
//! itself, and used inside of a process by the mesh client.

use super::raw::{self, Given, OVER_XDS};
use super::{LOG, Peer, Placed, Refused, bootstrap};
use crate::callers::Certificates;
use crate::config::{Backends, Role, settle};
use crate::embedded::{self, Servers, layers};
use crate::process::Subject;
use mesh_control::node_resources;
use mesh_core::model::{Snapshot, SnapshotBuilder};
use mesh_istio::{Diagnostic, Files, Node, World, compile};
use mesh_xds::TypeUrl;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The workload that a proxy stands for, in the configuration's own namespace.
const WORKLOAD: &str = "client";
const LABELS: (&str, &str) = ("app", "client");

/// What is not compared of mesh-proxy by YAML.
const LEFT_OUT: &[(&str, &str)] = &[(
    "upstream * header x-envoy-peer-metadata*",
    "Envoy says who it is with Istio's own filter, which it is built without",
)];

/// A subject, and what cannot be compared of it.
type Named = (&'static str, &'static [(&'static str, &'static str)]);

const SUBJECTS: [Named; 3] = [
    ("mesh-proxy by YAML", LEFT_OUT),
    ("embedded", embedded::LEFT_OUT),
    ("layers", layers::LEFT_OUT),
];

/// Who cannot be compared in which fact, and why.
pub(crate) fn left_out() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let each = SUBJECTS.into_iter();
    each.flat_map(|(name, facts)| facts.iter().map(move |(fact, why)| (name, *fact, *why)))
}

/// The subjects that need no xDS, besides those that have it.
#[derive(Debug)]
pub(crate) struct Stage {
    directory: PathBuf,
    certificates: Certificates,
    by_yaml: Peer,
    embedded: Peer,
    layers: Peer,
    // They end with this.
    processes: Vec<Subject>,
    servers: Servers,
}

const NO_LISTENER: &str = "there is no listener";

/// A configuration as one subject has it.
struct Settled {
    world: World,
    node: Node,
}

// === impl Stage ===

impl Stage {
    pub(crate) fn new(directory: &Path, net: u8, certificates: &Certificates) -> Self {
        let [by_yaml, embedded, layers] = SUBJECTS;
        let peer = |(name, left_out): Named, last: u8| {
            let log = directory.join(format!("{name}.log"));
            let mut peer = Peer::new(name, [127, 77, net, last].into(), log);
            peer.left_out = left_out;
            peer
        };
        let mut embedded = peer(embedded, 5);
        embedded.log = None;
        let mut layers = peer(layers, 6);
        layers.log = None;
        Self {
            directory: directory.join("yaml"),
            certificates: certificates.clone(),
            by_yaml: peer(by_yaml, 4),
            embedded,
            layers,
            processes: Vec::new(),
            servers: Servers::default(),
        }
    }

    /// Puts these configurations in place of those before. Returns all subjects, and what each
    /// refused.
    pub(crate) async fn deploy(
        &mut self,
        raw: &mut raw::Stage,
        placed: &[Placed<'_>],
        backends: &Backends,
    ) -> anyhow::Result<(Vec<Peer>, Vec<Refused>)> {
        self.processes.clear();
        self.servers = Servers::default();
        let mut unreadable = Refused::new();
        let mut given = Vec::new();
        for peer in &raw.peers[..OVER_XDS] {
            let mut of_peer = Given::new();
            let mut names = BTreeSet::new();
            for it in placed {
                match resources(it, peer, backends) {
                    Ok(resources) => of_peer.extend(resources.into_iter().filter(|(kind, it)| {
                        // Some are the same for everybody.
                        names.insert((kind.url(), it.name.clone()))
                    })),
                    Err(why) => {
                        unreadable.insert(it.id.clone(), why);
                    }
                }
            }
            given.push(of_peer);
        }
        let mut refused = raw.give(placed, given, &unreadable).await;
        let mut peers = raw.peers[..OVER_XDS].to_vec();
        let readable = |it: &&Placed<'_>| !unreadable.contains_key(&it.id);
        let readable: Vec<&Placed<'_>> = placed.iter().filter(readable).collect();
        for of_peer in [
            self.start(&readable, backends).await?,
            self.embed(&readable, backends).await,
            self.judge(&readable, backends).await,
        ] {
            refused.push(of_peer.into_iter().chain(unreadable.clone()).collect());
        }
        let others = [&self.by_yaml, &self.embedded, &self.layers];
        peers.extend(others.into_iter().cloned());
        Ok((peers, refused))
    }

    /// A process for each configuration, which reads it from a file.
    async fn start(
        &mut self,
        placed: &[&Placed<'_>],
        backends: &Backends,
    ) -> anyhow::Result<Refused> {
        self.by_yaml.admins.clear();
        let mut starting = Vec::new();
        for (n, it) in placed.iter().enumerate() {
            let directory = self.directory.join(n.to_string());
            std::fs::create_dir_all(&directory)?;
            let file = directory.join("mesh.yaml");
            std::fs::write(&file, text(it, &self.by_yaml, backends))?;
            let role = match it.config.source.role() {
                Some(Role::Gateway) => "gateway",
                _ => "sidecar",
            };
            let workload = format!("{WORKLOAD}.{}", it.id);
            let labels = format!("{}={}", LABELS.0, LABELS.1);
            let base = free_port()?.to_string();
            let file = file.to_string_lossy();
            let mut arguments = vec!["run", "--config", &*file, "--role", role];
            arguments.extend(["--workload", &workload, "--labels", &labels]);
            arguments.extend(["--base-port", &base, "--admin", "127.0.0.1:0"]);
            arguments.extend(["--concurrency", "1", "--drain-time", "1"]);
            let identity = self.certificates.directory.to_string_lossy();
            if it.config.source.is_mutual() {
                arguments.extend(["--identity-dir", &*identity]);
            }
            let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
            starting.push(async move { Subject::start(&arguments, &directory).await });
        }
        let started = futures_util::future::join_all(starting).await;
        let (mut refused, mut taken) = (Refused::new(), Vec::new());
        for (it, subject) in placed.iter().zip(started) {
            match subject {
                Ok(subject) => {
                    self.by_yaml.admins.push(subject.admin);
                    self.processes.push(subject);
                    taken.push(*it);
                }
                Err(why) => {
                    refused.insert(it.id.clone(), why);
                }
            }
        }
        refused.extend(bootstrap::waiting(&self.by_yaml, &taken).await);
        Ok(refused)
    }

    /// A client for each configuration of a sidecar, inside of this process.
    async fn embed(&mut self, placed: &[&Placed<'_>], backends: &Backends) -> Refused {
        self.embedded.absent.clear();
        let mut refused = Refused::new();
        for it in placed {
            // A client has no way in.
            if it.config.source.role() != Some(Role::Sidecar) {
                self.embedded.absent.insert(it.id.clone());
                continue;
            }
            if let Err(why) = self.embed_one(it, backends).await {
                refused.insert(it.id.clone(), why);
            }
        }
        refused
    }

    /// The layers that judge for each way in to a sidecar, inside of this process.
    async fn judge(&mut self, placed: &[&Placed<'_>], backends: &Backends) -> Refused {
        self.layers.absent.clear();
        let mut refused = Refused::new();
        for it in placed {
            let documents = it.config.source.clusters.to_string();
            let is_way_in = it.config.source.role() == Some(Role::Inbound);
            if !is_way_in || !layers::can_judge(&documents) {
                self.layers.absent.insert(it.id.clone());
                continue;
            }
            if let Err(why) = self.judge_one(it, backends).await {
                refused.insert(it.id.clone(), why);
            }
        }
        refused
    }

    async fn judge_one(&mut self, placed: &Placed<'_>, backends: &Backends) -> Result<(), String> {
        let snapshot = compiled(placed, &self.layers, backends)?;
        let at = SocketAddr::new(self.layers.address, placed.port);
        let is_of = |name: &str| Peer::is_of(placed, name);
        layers::add(&mut self.servers, at, snapshot, is_of).await
    }

    async fn embed_one(&mut self, placed: &Placed<'_>, backends: &Backends) -> Result<(), String> {
        let snapshot = compiled(placed, &self.embedded, backends)?;
        let mut tables = snapshot.tables().iter().map(|it| it.name.to_string());
        let table = tables.find(|name| Peer::is_of(placed, name));
        let table = table.ok_or(NO_LISTENER)?;
        let at = SocketAddr::new(self.embedded.address, placed.port);
        let added = self.servers.add(at, snapshot.clone(), &table).await;
        added.map_err(|error| error.to_string())
    }
}

/// A configuration as somebody inside of this process has it.
fn compiled(
    placed: &Placed<'_>,
    peer: &Peer,
    backends: &Backends,
) -> Result<Arc<Snapshot>, String> {
    let Settled { world, node, .. } = settled(placed, peer, backends)?;
    let mut builder = SnapshotBuilder::new();
    let findings = compile(&world, &node, &mut builder);
    said(&findings)?;
    let (snapshot, _) = builder.build().map_err(|error| error.to_string())?;
    Ok(snapshot)
}

/// What Envoy and mesh-proxy are sent of a configuration: without the listener for everybody else.
fn resources(placed: &Placed<'_>, peer: &Peer, backends: &Backends) -> Result<Given, String> {
    let Settled { world, node, .. } = settled(placed, peer, backends)?;
    let (mut resources, findings) = node_resources(&world, &node);
    said(&findings)?;
    resources.retain(|(kind, it)| match *kind {
        TypeUrl::Listener | TypeUrl::Routes => Peer::is_of(placed, &it.name),
        TypeUrl::Cluster | TypeUrl::Endpoints => true,
        _ => false,
    });
    if !resources.iter().any(|(kind, _)| *kind == TypeUrl::Listener) {
        return Err(NO_LISTENER.into());
    }
    Ok(resources)
}

fn settled(placed: &Placed<'_>, peer: &Peer, backends: &Backends) -> Result<Settled, String> {
    let text = text(placed, peer, backends);
    let mut world = World::default();
    said(&world.update(&Files::from_text("mesh.yaml", &text)))?;
    let mut node = match placed.config.source.role() {
        Some(Role::Gateway) => Node::gateway(WORKLOAD, &placed.id),
        _ => Node::sidecar(WORKLOAD, &placed.id),
    };
    node.identity = placed.config.source.is_mutual();
    node.labels = [(LABELS.0.to_owned(), LABELS.1.to_owned())].into();
    Ok(Settled { world, node })
}

/// The errors among what is said.
fn said(findings: &[Diagnostic]) -> Result<(), String> {
    let errors = findings.iter().filter(|it| it.is_error());
    let errors: Vec<String> = errors.map(ToString::to_string).collect();
    if errors.is_empty() {
        return Ok(());
    }
    Err(errors.join("; "))
}

/// The documents of a configuration as they are for one subject.
fn text(placed: &Placed<'_>, peer: &Peer, backends: &Backends) -> String {
    let mut ports = backends.clone();
    ports.insert("listener", SocketAddr::new(peer.address, placed.port));
    let Value::Array(documents) = settle(&placed.config.source.clusters, &placed.id, &ports) else {
        return String::new();
    };
    let mut mesh = json!({});
    let mut text = String::new();
    for mut document in documents {
        if document["kind"] == "MeshConfig" {
            mesh = document["spec"].take();
            continue;
        }
        let placed_already = document["metadata"]["namespace"].is_string();
        if document["metadata"].is_object() && !placed_already {
            document["metadata"]["namespace"] = json!(placed.id);
        }
        let address = peer.address.to_string();
        let mut document = document.to_string().replace("{address}", &address);
        for (name, at) in &ports {
            let port = at.port().to_string();
            document = document.replace(&format!("{{port {name}}}"), &port);
        }
        text += &document;
        text += "\n---\n";
    }
    if !mesh.is_object() {
        mesh = json!({});
    }
    if let Some(log) = &peer.log {
        mesh["accessLogFile"] = json!(log.to_string_lossy());
        mesh["accessLogFormat"] = json!(LOG);
    }
    let config = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "istio", "namespace": "istio-system"},
        "data": {"mesh": mesh.to_string()},
    });
    text + &config.to_string() + "\n"
}

/// A port that nobody has, before one that nobody is likely to have.
fn free_port() -> std::io::Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    Ok(port.min(u16::MAX - 1))
}
