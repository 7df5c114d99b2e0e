//! Envoy's own configuration, given to Envoy and to mesh-proxy by a control plane that knows
//! nothing of its resources.

use super::bootstrap::Bootstraps;
use super::{LOG, Peer, Placed, Refused};
use crate::callers::Certificates;
use crate::config::{Backends, Source, settle};
use crate::envoy::{self, Envoy, PEERS, ZONE, admin_text};
use anyhow::Context;
use mesh_core::Feed;
use mesh_core::model::Locality;
use mesh_lb::Zone;
use mesh_proxy::xds::Driver;
use mesh_proxy::{Identity, Running};
use mesh_xds::client::{Client, Variant};
use mesh_xds::json::Codec;
use mesh_xds::server::{Client as Caller, Event, ResourceSet, Server, View};
use mesh_xds::{Encoded, Node, TypeUrl};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

const TYPE: &str = "type.googleapis.com/envoy";

/// The longest that listeners are waited for where nothing was refused.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest after a refusal came, when the rest is in force.
const SETTLED: Duration = Duration::from_millis(250);

/// Both subjects and what configures them.
pub(crate) struct Stage {
    pub(crate) peers: Vec<Peer>,
    sets: Vec<ResourceSet>,
    news: News,
    bootstraps: Bootstraps,
    certificates: Certificates,
    // Both end with this.
    _envoy: Envoy,
    _ours: Running,
}

/// What a subject is given.
pub(super) type Given = Vec<(TypeUrl, Encoded)>;

/// Subjects that are given their configuration over xDS; they come first.
pub(super) const OVER_XDS: usize = 2;

/// The field of a filter chain that stands among those of the connection manager.
pub(crate) const SOCKET: &str = "transport_socket";
/// The same of a listener.
pub(crate) const LOOKS: &str = "listener_filters";

/// Refusals by the subject's node name.
type News = Arc<Mutex<Vec<(String, Vec<String>, String)>>>;

// === impl Stage ===

impl Stage {
    pub(crate) async fn start(
        binary: &str,
        directory: &Path,
        net: u8,
        certificates: &Certificates,
    ) -> anyhow::Result<Self> {
        let sets = vec![ResourceSet::new(), ResourceSet::new()];
        let news = News::default();
        for set in &sets {
            let secrets = certificates.of_agent()?;
            let secrets =
                secrets.map(|(name, secret)| mesh_xds::write::encode_secret(name, &secret));
            set.replace(TypeUrl::Secret, secrets.to_vec());
        }
        let plane = plane(sets.clone(), news.clone()).await?;
        let locality = json!({"region": ZONE[0], "zone": ZONE[1]});
        let node = json!({"id": "envoy", "cluster": "oracle", "locality": locality});
        let envoy = Envoy::start(binary, node, plane, &directory.join("raw-envoy")).await?;

        let client = Client::builder([format!("http://{plane}")]).variant(Variant::Delta);
        let (identity, mut files) = Identity::in_directory(&certificates.directory)?;
        files.refresh().await;
        let driver = Driver::new(Node::new("proxy"), client)?.identity(identity);
        let ours = driver
            .proxy()
            .concurrency(1)
            .zone(Some(zone()))
            .drain_time(Duration::from_secs(1))
            .admin(Some(SocketAddr::from(([127, 0, 0, 1], 0))))
            .start()
            .await?;
        tokio::spawn(driver.run());
        let peer = |name: &'static str, last: u8, admins| {
            let address = [127, 77, net, last].into();
            let mut peer = Peer::new(name, address, directory.join(format!("{name}.log")));
            peer.admins = admins;
            peer
        };
        let admin = ours.admin().context("the proxy has an admin interface")?;
        Ok(Self {
            peers: vec![
                peer("envoy", 1, vec![envoy.admin]),
                peer("mesh-proxy", 2, vec![admin]),
                peer("mesh-proxy -c", 3, Vec::new()),
            ],
            sets,
            news,
            bootstraps: Bootstraps::new(directory, certificates),
            certificates: certificates.clone(),
            _envoy: envoy,
            _ours: ours,
        })
    }

    /// Puts these configurations in place of those before. Returns what each subject refused. Not
    /// `all` of them are given to the subject that is started anew for them.
    pub(crate) async fn deploy(
        &mut self,
        placed: &[Placed<'_>],
        backends: &Backends,
        all: bool,
    ) -> anyhow::Result<Vec<Refused>> {
        let mut unreadable = Refused::new();
        let mut given = Vec::new();
        for peer in &self.peers[..OVER_XDS] {
            let mut of_peer = Given::new();
            for it in placed {
                match resources(it, peer, backends, &self.certificates) {
                    Ok((listener, clusters)) => {
                        of_peer.push((TypeUrl::Listener, listener));
                        let clusters = clusters.into_iter();
                        of_peer.extend(clusters.map(|it| (TypeUrl::Cluster, it)));
                    }
                    Err(why) => {
                        unreadable.insert(it.id.clone(), why);
                    }
                }
            }
            if peer.name != "envoy" {
                // Envoy knows them from its bootstrap.
                let text = envoy::peers().to_string();
                let bytes = Codec::new().from_json("envoy.config.cluster.v3.Cluster", &text)?;
                of_peer.push((TypeUrl::Cluster, Encoded::new(PEERS, bytes)));
            }
            given.push(of_peer);
        }
        let mut refused = self.give(placed, given, &unreadable).await;
        let taken = |it: &&Placed<'_>| !refused.iter().any(|of| of.contains_key(&it.id));
        let taken: Vec<&Placed<'_>> = placed.iter().filter(taken).collect();
        let peer = &mut self.peers[OVER_XDS];
        refused.push(
            self.bootstraps
                .deploy(peer, placed, &taken, backends, all)
                .await?,
        );
        Ok(refused)
    }

    /// Gives what each subject is given over xDS, in place of what it had. Returns what each refused.
    pub(super) async fn give(
        &mut self,
        placed: &[Placed<'_>],
        given: Vec<Given>,
        unreadable: &Refused,
    ) -> Vec<Refused> {
        self.news
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        let clusters: Vec<Vec<String>> = given.iter().map(discovered).collect();
        for (set, given) in self.sets.iter().zip(&given) {
            // New clusters before what names them.
            for kind in [
                TypeUrl::Cluster,
                TypeUrl::Endpoints,
                TypeUrl::Routes,
                TypeUrl::Listener,
            ] {
                let of_kind = given.iter().filter(|(it, _)| *it == kind);
                set.replace(kind, of_kind.map(|(_, it)| it.clone()).collect());
            }
        }
        let mut refused = Vec::new();
        for (peer, clusters) in self.peers[..OVER_XDS].iter().zip(clusters) {
            let mut of_peer = unreadable.clone();
            let mut end = Instant::now() + PATIENCE;
            let mut told = false;
            let mut open: Vec<&Placed<'_>> = placed.iter().collect();
            let mut warm = clusters.is_empty();
            loop {
                open.retain(|it| !of_peer.contains_key(&it.id));
                for it in std::mem::take(&mut open) {
                    let at = SocketAddr::new(peer.address, it.port);
                    if let Some(why) = self.refusal(peer, it) {
                        of_peer.insert(it.id.clone(), why);
                    } else if TcpStream::connect(at).await.is_err() {
                        open.push(it);
                    }
                }
                // Long, so not asked for in vain.
                if !warm && open.is_empty() {
                    sleep(Duration::from_millis(50)).await;
                    let text = admin_text(peer.admins[0], "/clusters").await;
                    let there = |name: &String| text.contains(&format!("{name}::"));
                    warm = clusters.iter().all(there);
                }
                if open.is_empty() && warm {
                    break;
                }
                if Instant::now() > end {
                    let said = self.said(peer);
                    let late = open
                        .iter()
                        .map(|it| (it.id.clone(), format!("nobody listens; {said}")));
                    of_peer.extend(late);
                    break;
                }
                if !told && self.refused_any(peer) {
                    // A refusal of many does not name them all.
                    told = true;
                    end = Instant::now() + SETTLED;
                }
                sleep(Duration::from_millis(5)).await;
            }
            refused.push(of_peer);
        }
        refused
    }

    /// What a subject refused lately.
    fn said(&self, peer: &Peer) -> String {
        let news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it = news.iter().filter(|(from, ..)| from == node_of(peer));
        let texts: Vec<&str> = of_it.map(|(.., message)| message.as_str()).collect();
        texts.join("; ")
    }

    fn refused_any(&self, peer: &Peer) -> bool {
        let news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        news.iter().any(|(from, ..)| from == node_of(peer))
    }

    fn refusal(&self, peer: &Peer, placed: &Placed<'_>) -> Option<String> {
        let news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it = |name: &String| Peer::is_of(placed, name);
        news.iter()
            .find(|(from, names, _)| from == node_of(peer) && names.iter().any(of_it))
            .map(|(_, _, message)| message.clone())
    }
}

/// Where the subjects are, and among whom.
fn zone() -> Zone {
    Zone {
        locality: Locality {
            region: ZONE[0].into(),
            zone: ZONE[1].into(),
            sub_zone: ZONE[2].into(),
        },
        cluster: Some(PEERS.into()),
    }
}

/// Clusters that are there only once their endpoints came.
fn discovered(given: &Given) -> Vec<String> {
    let named = |kind| {
        let of_kind = given.iter().filter(move |(it, _)| *it == kind);
        of_kind.map(|(_, it)| it.name.to_string())
    };
    named(TypeUrl::Endpoints).collect()
}

/// The name of the node that a subject is.
fn node_of(peer: &Peer) -> &'static str {
    if peer.name == "envoy" {
        "envoy"
    } else {
        "proxy"
    }
}

async fn plane(sets: Vec<ResourceSet>, news: News) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let server = Server::builder(move |node: &Node| {
        let which = usize::from(node.id() != "envoy");
        Ok(Feed::fixed(View::of([sets[which].clone()])))
    })
    .observer(move |client: &Caller, event: &Event| {
        if let Event::Nacked {
            message, resources, ..
        } = event
        {
            let names = resources.iter().map(ToString::to_string).collect();
            let refusal = (
                client.node.id().to_owned(),
                names,
                message.chars().take(4000).collect(),
            );
            news.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(refusal);
        }
    })
    .build();
    tokio::spawn(async move { server.serve(listener, std::future::pending()).await });
    Ok(address)
}

/// What a configuration is at one subject.
fn resources(
    placed: &Placed<'_>,
    peer: &Peer,
    backends: &Backends,
    certificates: &Certificates,
) -> Result<(Encoded, Vec<Encoded>), String> {
    let (listener, clusters) = json(placed, peer, backends);
    let codec = Codec::new();
    let encode = |kind: &str, name: &str, value: &Value| {
        let bytes = codec.from_json(kind, &certificates.placed(&value.to_string()));
        bytes
            .map(|bytes| Encoded::new(name, bytes))
            .map_err(|error| error.to_string())
    };
    let listener = encode("envoy.config.listener.v3.Listener", &placed.id, &listener)?;
    let clusters: Result<_, _> = clusters
        .iter()
        .map(|cluster| {
            let name = cluster["name"].as_str().unwrap_or_default();
            encode("envoy.config.cluster.v3.Cluster", name, cluster)
        })
        .collect();
    Ok((listener, clusters?))
}

/// The listener and the clusters of a configuration at one subject.
pub(super) fn json(placed: &Placed<'_>, peer: &Peer, backends: &Backends) -> (Value, Vec<Value>) {
    let Source { manager, clusters } = &placed.config.source;
    let manager = settle(manager, &placed.id, backends);
    let clusters = match settle(clusters, &placed.id, backends) {
        Value::Array(clusters) => clusters,
        _ => Vec::new(),
    };
    (listener(placed, peer, manager), clusters)
}

/// A listener around fields of its connection manager, and how callers secure their connections.
fn listener(placed: &Placed<'_>, peer: &Peer, mut fields: Value) -> Value {
    let (mut chain, mut listener) = (json!({}), json!({}));
    if let Some(all) = fields.as_object_mut() {
        for (field, of) in [(SOCKET, &mut chain), (LOOKS, &mut listener)] {
            if let Some(value) = all.remove(field) {
                of[field] = value;
            }
        }
    }
    let filter = |name: &str, kind: &str| {
        json!({
            "name": format!("envoy.filters.http.{name}"),
            "typed_config": {"@type": format!("{TYPE}.extensions.filters.http.{name}.v3.{kind}")},
        })
    };
    let mut limit = filter("local_ratelimit", "LocalRateLimit");
    limit["typed_config"]["stat_prefix"] = json!("limit");
    let mut manager = json!({
        "@type": format!("{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": placed.id,
        "codec_type": "AUTO",
        "http_filters": [
            limit, filter("fault", "HTTPFault"), filter("cors", "Cors"), filter("router", "Router"),
        ],
        "access_log": [{
            "name": "log",
            "typed_config": {
                "@type": format!("{TYPE}.extensions.access_loggers.file.v3.FileAccessLog"),
                "path": peer.log.as_deref().map(Path::to_string_lossy),
                "log_format": {"text_format_source": {"inline_string": LOG}},
            },
        }],
    });
    if let (Some(to), Value::Object(fields)) = (manager.as_object_mut(), fields) {
        to.extend(fields);
    }
    manager["route_config"]["name"] = json!(placed.id);
    chain["filters"] = json!([{
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": manager,
    }]);
    listener["name"] = json!(placed.id);
    listener["address"] = json!({"socket_address": {
        "address": peer.address.to_string(), "port_value": placed.port,
    }});
    listener["filter_chains"] = json!([chain]);
    listener
}
