//! Envoy's own configuration, given to Envoy and to mesh-proxy by a control plane that knows
//! nothing of its resources.

use super::{LOG, Peer, Placed, Refused};
use crate::config::{Backends, Source, settle};
use crate::envoy::Envoy;
use anyhow::Context;
use mesh_core::Feed;
use mesh_proxy::Running;
use mesh_proxy::xds::Driver;
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

/// The longest that listeners are waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest after a refusal came, when the rest is in force.
const SETTLED: Duration = Duration::from_millis(250);

/// Both subjects and what configures them.
pub(crate) struct Stage {
    pub(crate) peers: Vec<Peer>,
    sets: Vec<ResourceSet>,
    news: News,
    // Both end with this.
    _envoy: Envoy,
    _ours: Running,
}

/// Refusals by the subject's node name.
type News = Arc<Mutex<Vec<(String, Vec<String>, String)>>>;

// === impl Stage ===

impl Stage {
    pub(crate) async fn start(binary: &str, directory: &Path, net: u8) -> anyhow::Result<Self> {
        let sets = vec![ResourceSet::new(), ResourceSet::new()];
        let news = News::default();
        let plane = plane(sets.clone(), news.clone()).await?;
        let node = json!({"id": "envoy", "cluster": "oracle"});
        let envoy = Envoy::start(binary, node, plane, &directory.join("raw-envoy")).await?;

        let client = Client::builder([format!("http://{plane}")]).variant(Variant::Delta);
        let driver = Driver::new(Node::new("proxy"), client)?;
        let ours = driver
            .proxy()
            .concurrency(1)
            .drain_time(Duration::from_secs(1))
            .admin(Some(SocketAddr::from(([127, 0, 0, 1], 0))))
            .start()
            .await?;
        tokio::spawn(driver.run());
        let peer = |name: &'static str, last: u8, admin| Peer {
            name,
            address: [127, 77, net, last].into(),
            admin,
            log: directory.join(format!("{name}.log")),
        };
        let admin = ours.admin().context("the proxy has an admin interface")?;
        Ok(Self {
            peers: vec![peer("envoy", 1, envoy.admin), peer("mesh-proxy", 2, admin)],
            sets,
            news,
            _envoy: envoy,
            _ours: ours,
        })
    }

    /// Puts these configurations in place of those before, at both. Returns what each refused.
    pub(crate) async fn deploy(
        &mut self,
        placed: &[Placed<'_>],
        backends: &Backends,
    ) -> anyhow::Result<Vec<Refused>> {
        self.news
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        let mut unreadable = Refused::new();
        for (peer, set) in self.peers.iter().zip(&self.sets) {
            let (mut listeners, mut clusters) = (Vec::new(), Vec::new());
            for it in placed {
                match resources(it, peer, backends) {
                    Ok((listener, of_it)) => {
                        listeners.push(listener);
                        clusters.extend(of_it);
                    }
                    Err(why) => {
                        unreadable.insert(it.id.clone(), why);
                    }
                }
            }
            // New clusters before what names them.
            set.replace(TypeUrl::Cluster, clusters);
            set.replace(TypeUrl::Listener, listeners);
        }
        let mut refused = Vec::new();
        for peer in &self.peers {
            let mut of_peer = unreadable.clone();
            let mut end = Instant::now() + PATIENCE;
            let mut told = false;
            let mut open: Vec<&Placed<'_>> = placed.iter().collect();
            loop {
                open.retain(|it| !of_peer.contains_key(&it.id));
                for it in std::mem::take(&mut open) {
                    let at = SocketAddr::new(peer.address, it.port);
                    if let Some(why) = self.refusal(peer, &it.id) {
                        of_peer.insert(it.id.clone(), why);
                    } else if TcpStream::connect(at).await.is_err() {
                        open.push(it);
                    }
                }
                if open.is_empty() {
                    break;
                }
                if Instant::now() > end {
                    let late = open
                        .iter()
                        .map(|it| (it.id.clone(), "nobody listens".into()));
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
        Ok(refused)
    }

    fn refused_any(&self, peer: &Peer) -> bool {
        let news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        news.iter().any(|(from, ..)| from == node_of(peer))
    }

    fn refusal(&self, peer: &Peer, id: &str) -> Option<String> {
        let news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it = |name: &String| name == id || name.starts_with(&format!("{id}."));
        news.iter()
            .find(|(from, names, _)| from == node_of(peer) && names.iter().any(of_it))
            .map(|(_, _, message)| message.clone())
    }
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
) -> Result<(Encoded, Vec<Encoded>), String> {
    let Source { manager, clusters } = &placed.config.source;
    let manager = settle(manager, &placed.id, backends);
    let clusters = settle(clusters, &placed.id, backends);
    let codec = Codec::new();
    let encode = |kind: &str, name: &str, value: &Value| {
        let bytes = codec.from_json(kind, &value.to_string());
        bytes
            .map(|bytes| Encoded::new(name, bytes))
            .map_err(|error| error.to_string())
    };
    let listener = listener(placed, peer, manager);
    let listener = encode("envoy.config.listener.v3.Listener", &placed.id, &listener)?;
    let clusters: Result<_, _> = clusters
        .as_array()
        .into_iter()
        .flatten()
        .map(|cluster| {
            let name = cluster["name"].as_str().unwrap_or_default();
            encode("envoy.config.cluster.v3.Cluster", name, cluster)
        })
        .collect();
    Ok((listener, clusters?))
}

/// A listener around fields of its connection manager.
fn listener(placed: &Placed<'_>, peer: &Peer, fields: Value) -> Value {
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
                "path": peer.log.to_string_lossy(),
                "log_format": {"text_format_source": {"inline_string": LOG}},
            },
        }],
    });
    if let (Some(to), Value::Object(fields)) = (manager.as_object_mut(), fields) {
        to.extend(fields);
    }
    manager["route_config"]["name"] = json!(placed.id);
    json!({
        "name": placed.id,
        "address": {"socket_address": {
            "address": peer.address.to_string(), "port_value": placed.port,
        }},
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": manager,
        }]}],
    })
}
