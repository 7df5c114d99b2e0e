//! The client over sockets, against a server that says what the test says.

use super::support::{CDS, EDS, LDS, RDS, any};
use discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use mesh_core::model::{
    Address, Cluster, EndpointSet, HttpManager, Listener, RouteTable, Rule, VirtualHost,
};
use mesh_core::{Feed, Invalid};
use mesh_xds::client::{Builder, Client, ResourceState, Status, Variant};
use mesh_xds::pb::envoy::config::cluster::v3::Cluster as Proto;
use mesh_xds::pb::envoy::service::discovery::v3 as discovery;
use mesh_xds::read::{
    ClusterResource, EndpointsResource, ListenerResource, Reference, Resource, RouteSource, Source,
};
use mesh_xds::{Node, TypeUrl};
use prost::Message;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Streaming};

/// Both variants in one shape.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) kind: TypeUrl,
    pub(crate) node: Option<String>,
    pub(crate) names: Vec<String>,
    pub(crate) nonce: String,
    pub(crate) error: Option<String>,
    pub(crate) initial: Vec<(String, String)>,
}

/// A stream that a client opened.
pub(crate) struct Stream {
    asked: mpsc::Receiver<Asked>,
    delta: Option<mpsc::Sender<Result<discovery::DeltaDiscoveryResponse, tonic::Status>>>,
    sotw: Option<mpsc::Sender<Result<discovery::DiscoveryResponse, tonic::Status>>>,
    nonce: u64,
}

struct Service {
    streams: mpsc::Sender<Stream>,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream =
        ReceiverStream<Result<discovery::DiscoveryResponse, tonic::Status>>;
    type DeltaAggregatedResourcesStream =
        ReceiverStream<Result<discovery::DeltaDiscoveryResponse, tonic::Status>>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<discovery::DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, tonic::Status> {
        let (sender, asked) = mpsc::channel(64);
        let (sotw, responses) = mpsc::channel(64);
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let asked = Asked {
                    kind: TypeUrl::from_url(&request.type_url).unwrap(),
                    node: request.node.map(|node| node.id),
                    names: request.resource_names,
                    nonce: request.response_nonce,
                    error: request.error_detail.map(|error| error.message),
                    initial: Vec::new(),
                };
                if sender.send(asked).await.is_err() {
                    return;
                }
            }
        });
        let stream = Stream {
            asked,
            delta: None,
            sotw: Some(sotw),
            nonce: 0,
        };
        self.streams.send(stream).await.ok();
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<discovery::DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, tonic::Status> {
        let (sender, asked) = mpsc::channel(64);
        let (delta, responses) = mpsc::channel(64);
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let mut initial: Vec<_> = request.initial_resource_versions.into_iter().collect();
                initial.sort();
                let asked = Asked {
                    kind: TypeUrl::from_url(&request.type_url).unwrap(),
                    node: request.node.map(|node| node.id),
                    names: request.resource_names_subscribe,
                    nonce: request.response_nonce,
                    error: request.error_detail.map(|error| error.message),
                    initial,
                };
                if sender.send(asked).await.is_err() {
                    return;
                }
            }
        });
        let stream = Stream {
            asked,
            delta: Some(delta),
            sotw: None,
            nonce: 0,
        };
        self.streams.send(stream).await.ok();
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

impl Stream {
    pub(crate) async fn asked(&mut self) -> Asked {
        soon(self.asked.recv()).await.expect("the stream is open")
    }

    /// The next request of a type; answers to others in between are passed over.
    pub(crate) async fn asked_for(&mut self, kind: TypeUrl) -> Asked {
        loop {
            let asked = self.asked().await;
            if asked.kind == kind {
                return asked;
            }
        }
    }

    pub(crate) async fn send(&mut self, kind: TypeUrl, version: &str, items: &[(&str, &str)]) {
        self.send_for(&[], kind, version, items).await;
    }

    /// The same, with aliases (in delta only).
    pub(crate) async fn send_for(
        &mut self,
        aliases: &[&str],
        kind: TypeUrl,
        version: &str,
        items: &[(&str, &str)],
    ) {
        self.nonce += 1;
        let nonce = self.nonce.to_string();
        let type_url = kind.url().to_owned();
        let items = items
            .iter()
            .map(|(name, text)| (*name, any(kind, name, text)));
        if let Some(delta) = &self.delta {
            let resource = |(name, any): (&str, _)| discovery::Resource {
                name: name.to_owned(),
                version: version.to_owned(),
                aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
                resource: Some(any),
                ..Default::default()
            };
            let response = discovery::DeltaDiscoveryResponse {
                type_url,
                nonce,
                system_version_info: version.to_owned(),
                resources: items.map(resource).collect(),
                ..Default::default()
            };
            delta.send(Ok(response)).await.unwrap();
        } else if let Some(sotw) = &self.sotw {
            let response = discovery::DiscoveryResponse {
                type_url,
                nonce,
                version_info: version.to_owned(),
                resources: items.map(|(_, any)| any).collect(),
                ..Default::default()
            };
            sotw.send(Ok(response)).await.unwrap();
        }
    }
}

/// A server; it ends when this is dropped.
pub(crate) struct Server {
    streams: mpsc::Receiver<Stream>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::at(([127, 0, 0, 1], 0).into()).await
    }

    async fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, streams) = mpsc::channel(4);
        let (stop, stopped) = oneshot::channel::<()>();
        let service = AggregatedDiscoveryServiceServer::new(Service { streams: sender });
        let serve = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(async move {
            tokio::select! { _ = serve => {}, _ = stopped => {} }
        });
        Self {
            streams,
            address,
            stop: Some(stop),
        }
    }

    pub(crate) fn uri(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) async fn stream(&mut self) -> Stream {
        soon(self.streams.recv()).await.expect("the server runs")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.take();
    }
}

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, future).await.expect("in time")
}

/// What the texts of resources mean: nothing for clusters (`bad` cannot be read), a port for
/// endpoints, `PORT TABLE` for listeners, a cluster for tables.
pub(crate) fn decode(kind: TypeUrl, bytes: &[u8]) -> Result<Resource, Invalid> {
    let proto = Proto::decode(bytes).map_err(|_| Invalid::new("", "is garbage"))?;
    let (name, text) = (proto.name.as_str(), proto.alt_stat_name.as_str());
    let reference = |name: &str| Reference {
        name: name.into(),
        from: Source::Ads,
        initial_fetch_timeout: None,
        watched_directory: None,
    };
    Ok(match kind {
        _ if text == "bad" => return Err(Invalid::new("lb_policy", "is bad")),
        TypeUrl::Cluster => Resource::Cluster(Box::new(ClusterResource {
            cluster: Cluster::new(name),
            endpoints: None,
            eds: Some(reference(name)),
            secrets: Vec::new(),
        })),
        TypeUrl::Endpoints => Resource::Endpoints(EndpointsResource {
            name: name.into(),
            endpoints: EndpointSet::of([format!("127.0.0.1:{text}").parse::<Address>()?]),
        }),
        TypeUrl::Listener => {
            let (port, table) = text.split_once(' ').unwrap();
            let address = ([127, 0, 0, 1], port.parse().unwrap()).into();
            Resource::Listener(Box::new(ListenerResource {
                listener: Listener::http(name, address, HttpManager::new(name, table)),
                routes: vec![RouteSource::Named(reference(table))],
                secrets: Vec::new(),
            }))
        }
        _ => {
            let host = VirtualHost::new("all", ["*"]).rule(Rule::prefix_to("/", text));
            Resource::Routes(Box::new(RouteTable::new(name).host(host)))
        }
    })
}

pub(crate) fn builder(servers: &[&Server]) -> Builder {
    Client::builder(servers.iter().map(|server| server.uri()))
        .node(Node::new("me"))
        .decode(decode)
        .backoff(Duration::from_millis(10), Duration::from_millis(50))
}

pub(crate) async fn status(
    feed: &mut Feed<Status>,
    until: impl Fn(&Status) -> bool,
) -> std::sync::Arc<Status> {
    let wait = async {
        loop {
            let status = feed.load();
            if until(&status) {
                return status;
            }
            feed.changed().await.unwrap();
        }
    };
    soon(wait).await
}

async fn first_sync(variant: Variant) {
    let mut server = Server::start().await;
    let client = builder(&[&server]).variant(variant).build().unwrap();
    let mut snapshots = client.snapshots();
    let handle = client.handle();
    let running = tokio::spawn(client.run(std::future::pending()));
    let mut stream = server.stream().await;
    let first = stream.asked().await;
    assert_eq!((first.kind, first.node.as_deref()), (CDS, Some("me")));
    assert_eq!((stream.asked().await.kind, first.names.len()), (LDS, 0));

    stream.send(CDS, "1", &[("a", "")]).await;
    let asked = stream.asked_for(EDS).await;
    assert_eq!(asked.names, ["a"]);
    stream.send(EDS, "1", &[("a", "9")]).await;
    stream.send(LDS, "1", &[("l", "80 t")]).await;
    let asked = stream.asked_for(RDS).await;
    assert_eq!(asked.names, ["t"]);
    stream.send(RDS, "1", &[("t", "a")]).await;
    let answer = stream.asked_for(RDS).await;
    assert_eq!((answer.nonce.as_str(), answer.error), ("4", None));
    // Acknowledged after it is in force: whoever looks now sees it.
    let snapshot = snapshots.load();
    assert_eq!(snapshot.listeners().len(), 1);
    assert!(snapshot.table("t").is_some());
    let live = snapshot.cluster("a").unwrap().live();
    assert_eq!(live.endpoints().load().len(), 1);
    soon(snapshots.changed()).await.unwrap();

    let resources = handle.resources(EDS).await.unwrap();
    assert_eq!(resources.len(), 1);
    assert_eq!(resources[0].state, ResourceState::Accepted);
    running.abort();
    let _ = running.await;
    assert!(handle.resources(EDS).await.is_err(), "it has ended");
}

#[tokio::test]
async fn a_first_synchronisation_by_delta() {
    first_sync(Variant::Delta).await;
}

#[tokio::test]
async fn a_first_synchronisation_by_state_of_the_world() {
    first_sync(Variant::Sotw).await;
}

#[tokio::test]
async fn the_last_snapshot_stays_while_the_server_is_away_and_the_next_stream_starts_from_it() {
    let mut server = Server::start().await;
    let client = builder(&[&server]).build().unwrap();
    let (snapshots, mut feed) = (client.snapshots(), client.status());
    let running = tokio::spawn(client.run(std::future::pending()));
    let mut stream = server.stream().await;
    stream.asked_for(CDS).await;
    stream.send(CDS, "1", &[("a", "")]).await;
    stream.asked_for(EDS).await;
    stream.send(EDS, "1", &[("a", "9")]).await;
    assert_eq!(stream.asked_for(EDS).await.nonce, "2");
    let up = status(&mut feed, |status| status.connected).await;
    assert_eq!(up.server.as_deref(), Some(server.uri().as_str()));

    let address = server.address;
    drop((stream, server));
    let down = status(&mut feed, |status| !status.connected).await;
    assert!(down.last_error.is_some());
    assert!(snapshots.load().cluster("a").is_some());

    let mut server = Server::at(address).await;
    let mut stream = server.stream().await;
    let asked = stream.asked().await;
    assert_eq!(asked.initial, [("a".to_owned(), "1".to_owned())]);
    assert_eq!(asked.node.as_deref(), Some("me"));
    assert_eq!(stream.asked_for(EDS).await.names, ["a"]);
    status(&mut feed, |status| status.connected).await;
    running.abort();
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_replaced_and_taken_up_again_when_it_can() {
    let dead = Server::start().await;
    let mut second = Server::start().await;
    let client = builder(&[&dead, &second]).build().unwrap();
    let address = dead.address;
    drop(dead);
    let mut feed = client.status();
    let running = tokio::spawn(client.run(std::future::pending()));
    let mut stream = second.stream().await;
    stream.asked_for(CDS).await;
    stream.send(CDS, "1", &[("a", "")]).await;
    status(&mut feed, |status| status.connected).await;

    let mut first = Server::at(address).await;
    let mut question = first.stream().await;
    let asked = question.asked_for(CDS).await;
    assert_eq!(
        (asked.names.as_slice(), asked.initial.len()),
        (&["*".to_owned()][..], 0)
    );
    // As long as it does not answer, the other one counts.
    stream.send(CDS, "2", &[("a", ""), ("b", "")]).await;
    while stream.asked_for(CDS).await.nonce != "2" {}
    assert_eq!(feed.load().server.as_deref(), Some(second.uri().as_str()));
    question.send(CDS, "9", &[]).await;
    let mut stream = first.stream().await;
    let asked = stream.asked_for(CDS).await;
    // The other's versions mean nothing here, and what was asked before is no answer.
    let held = ["a", "b"].map(|name| (name.to_owned(), String::new()));
    assert_eq!(asked.initial, held);
    let uri = first.uri();
    status(&mut feed, |status| status.server.as_deref() == Some(&uri)).await;
    running.abort();
}

#[tokio::test]
async fn a_client_without_servers_lives_on_what_it_is_given() {
    let fixed = decode(CDS, &any(CDS, "s", "").value).unwrap();
    let Resource::Cluster(mut fixed) = fixed else {
        unreachable!()
    };
    fixed.eds = Some(Reference {
        from: Source::Path("eds.yaml".into()),
        name: "s".into(),
        initial_fetch_timeout: None,
        watched_directory: None,
    });
    let client = builder(&[])
        .fixed([Resource::Cluster(fixed)])
        .build()
        .unwrap();
    let files = client.files().load();
    let file = files.first().unwrap();
    assert_eq!((file.kind, file.name.as_str()), (EDS, "s"));
    let (handle, mut snapshots) = (client.handle(), client.snapshots());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(client.run(async {
        stopped.await.ok();
    }));
    let given = vec![decode(EDS, &any(EDS, "s", "7").value).unwrap()];
    let refused = handle.supply(EDS, file.path.clone(), given).await.unwrap();
    assert!(refused.is_empty());
    let snapshot = soon(snapshots.changed()).await.unwrap();
    assert_eq!(
        snapshot
            .cluster("s")
            .unwrap()
            .live()
            .endpoints()
            .load()
            .len(),
        1
    );

    // A file of listeners: what it no longer has is removed.
    let listener = || decode(LDS, &any(LDS, "l", "80 t").value).unwrap();
    let table = || decode(RDS, &any(RDS, "t", "s").value).unwrap();
    let path = std::path::PathBuf::from("lds.yaml");
    let Resource::Listener(mut inline) = listener() else {
        unreachable!()
    };
    let Resource::Routes(routes) = table() else {
        unreachable!()
    };
    inline.routes = vec![RouteSource::Inline(routes)];
    let given = vec![Resource::Listener(inline)];
    handle.supply(LDS, path.clone(), given).await.unwrap();
    assert_eq!(snapshots.load().listeners().len(), 1);
    handle.supply(LDS, path, Vec::new()).await.unwrap();
    assert_eq!(snapshots.load().listeners().len(), 0);
    stop.send(()).unwrap();
    soon(running).await.unwrap();
}

#[test]
fn addresses_of_servers_are_checked() {
    let error = |uri: &str| Client::builder([uri]).build().unwrap_err().to_string();
    assert!(error("h:1").contains("expected http://HOST:PORT"));
    assert!(error("http://h").contains("expected http://HOST:PORT"));
    assert!(error("").starts_with("servers[0]:"));
    assert!(Client::builder(["http://h:1"]).build().is_ok());
}
