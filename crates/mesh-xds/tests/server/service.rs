//! The services over sockets, with tonic's clients.

use crate::support::{Cluster, Endpoints, Routes};
use mesh_core::Feed;
use mesh_xds::pb::envoy::config::core::v3 as core;
use mesh_xds::pb::envoy::service::cluster::v3::cluster_discovery_service_client::ClusterDiscoveryServiceClient;
use mesh_xds::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use mesh_xds::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest,
};
use mesh_xds::pb::envoy::service::route::v3::route_discovery_service_client::RouteDiscoveryServiceClient;
use mesh_xds::server::{
    Changes, Client, Event, Limits, Refused, ResourceSet, Server, ServerBuilder, Sync, View,
};
use mesh_xds::{Encoded, Node, TypeUrl};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

pub(crate) const SOON: Duration = Duration::from_secs(10);

type Log = Arc<Mutex<Vec<(String, Event)>>>;

pub(crate) struct Running {
    pub(crate) set: ResourceSet,
    pub(crate) server: Server,
    pub(crate) channel: Channel,
    pub(crate) address: String,
    pub(crate) log: Log,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<std::io::Result<()>>,
}

pub(crate) async fn run() -> Running {
    run_with(|builder| builder).await
}

pub(crate) async fn run_with(change: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Running {
    let set = ResourceSet::new();
    let log = Log::default();
    let (seen, shared) = (log.clone(), set.clone());
    let assign = move |node: &Node| match node.id() {
        "" => Err(Refused::unauthenticated("node.id is empty")),
        _ => Ok(Feed::fixed(View::of([shared.clone()]))),
    };
    let observer = move |client: &Client, event: &Event| {
        seen.lock()
            .unwrap()
            .push((client.node.id().to_owned(), event.clone()));
    };
    let server = change(
        Server::builder(assign)
            .observer(observer)
            .identifier("tests"),
    )
    .build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let own = server.clone();
    let serving = tokio::spawn(async move {
        let shutdown = async { drop(stopped.await) };
        own.serve(listener, shutdown).await
    });
    Running {
        set,
        server,
        channel: Channel::from_shared(address.clone())
            .unwrap()
            .connect()
            .await
            .unwrap(),
        address,
        log,
        stop: Some(stop),
        serving,
    }
}

/// A delta stream.
pub(crate) struct Delta {
    to: mpsc::Sender<DeltaDiscoveryRequest>,
    from: Streaming<DeltaDiscoveryResponse>,
}

impl Delta {
    pub(crate) async fn open(channel: &Channel, node: &str, first: DeltaDiscoveryRequest) -> Self {
        let (to, requests) = mpsc::channel(8);
        to.send(DeltaDiscoveryRequest {
            node: node_of(node),
            ..first
        })
        .await
        .unwrap();
        let mut client = AggregatedDiscoveryServiceClient::new(channel.clone());
        let requests = ReceiverStream::new(requests);
        let from = client
            .delta_aggregated_resources(requests)
            .await
            .unwrap()
            .into_inner();
        Self { to, from }
    }

    pub(crate) async fn next(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        let next = tokio::time::timeout(SOON, self.from.message()).await;
        next.expect("a response")
            .map(|response| response.expect("an open stream"))
    }

    pub(crate) async fn ack(&self, response: &DeltaDiscoveryResponse) {
        self.say(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    }

    pub(crate) async fn say(&self, request: DeltaDiscoveryRequest) {
        self.to.send(request).await.unwrap();
    }
}

pub(crate) fn node_of(id: &str) -> Option<core::Node> {
    Some(Node::new(id).to_proto())
}

pub(crate) fn asking(kind: TypeUrl, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.url().into(),
        resource_names_subscribe: names.iter().map(|name| name.to_string()).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

pub(crate) fn set(kind: TypeUrl, name: &str, text: &'static str) -> Changes {
    Changes::new().set(kind, Encoded::new(name, text.as_bytes()))
}

/// Waits for something that another task is about to do.
pub(crate) async fn until(mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(SOON, wait)
        .await
        .expect("it never came to that");
}

#[tokio::test]
async fn a_delta_client_is_sent_resources_and_changes() {
    let running = run().await;
    running.set.apply(set(Cluster, "a", "1"));
    let mut client = Delta::open(&running.channel, "n", asking(Cluster, &["*"])).await;
    let first = client.next().await.unwrap();
    assert_eq!(first.resources[0].resource.as_ref().unwrap().value, b"1");
    assert_eq!(first.control_plane.as_ref().unwrap().identifier, "tests");
    client.ack(&first).await;
    running.set.apply(set(Cluster, "a", "2"));
    let second = client.next().await.unwrap();
    assert_eq!(second.resources[0].resource.as_ref().unwrap().value, b"2");
    client.ack(&second).await;
    until(|| running.server.connections()[0].types[0].sync == Sync::Synced).await;
    let status = &running.server.connections()[0];
    assert_eq!(status.client.node.id(), "n");
    assert!(status.client.address.is_some());
    drop(client);
    until(|| running.server.connections().is_empty()).await;
    let log = running.log.lock().unwrap();
    assert!(matches!(log[0].1, Event::Connected));
    assert!(matches!(
        log[log.len() - 1].1,
        Event::Disconnected { refused: None }
    ));
}

#[tokio::test]
async fn the_node_is_taken_from_the_first_request_alone() {
    let running = run().await;
    running.set.apply(set(Cluster, "a", "1"));
    let (to, requests) = mpsc::channel(8);
    let ask = |node| DiscoveryRequest {
        node,
        type_url: Cluster.url().into(),
        ..DiscoveryRequest::default()
    };
    to.send(ask(node_of("first"))).await.unwrap();
    let mut client = AggregatedDiscoveryServiceClient::new(running.channel.clone());
    let requests = ReceiverStream::new(requests);
    let mut from = client
        .stream_aggregated_resources(requests)
        .await
        .unwrap()
        .into_inner();
    let response = from.message().await.unwrap().unwrap();
    assert_eq!(response.resources[0].value, b"1");
    let ack = DiscoveryRequest {
        response_nonce: response.nonce,
        version_info: response.version_info,
        ..ask(node_of("second"))
    };
    to.send(ack).await.unwrap();
    running.set.apply(set(Cluster, "a", "2"));
    assert_eq!(
        from.message().await.unwrap().unwrap().resources[0].value,
        b"2"
    );
    assert_eq!(running.server.connections()[0].client.node.id(), "first");
}

#[tokio::test]
async fn the_one_who_assigns_may_refuse() {
    let running = run().await;
    let mut client = Delta::open(&running.channel, "", asking(Cluster, &["*"])).await;
    let status = client.next().await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unauthenticated, "node.id is empty")
    );
}

#[tokio::test]
async fn a_type_has_a_service_of_its_own() {
    let running = run().await;
    running.set.apply(set(Cluster, "a", "1"));
    let mut client = ClusterDiscoveryServiceClient::new(running.channel.clone());
    let first = DeltaDiscoveryRequest {
        node: node_of("n"),
        ..asking(Cluster, &["a"])
    };
    let requests =
        tokio_stream::StreamExt::chain(tokio_stream::iter([first]), tokio_stream::pending());
    let mut from = client.delta_clusters(requests).await.unwrap().into_inner();
    assert_eq!(
        from.message().await.unwrap().unwrap().resources[0].name,
        "a"
    );

    let first = DiscoveryRequest {
        node: node_of("n"),
        type_url: Endpoints.url().into(),
        ..DiscoveryRequest::default()
    };
    let mut from = client
        .stream_clusters(tokio_stream::iter([first]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        from.message().await.unwrap_err().code(),
        Code::InvalidArgument
    );

    let fetched = client.fetch_clusters(DiscoveryRequest::default()).await;
    let status = fetched.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("stream"), "{status:?}");
}

#[tokio::test]
async fn a_removal_waits_across_the_streams_of_a_node() {
    let running = run().await;
    running.set.apply(set(Cluster, "c", "1"));
    running.set.apply(set(Routes, "r", "to c"));
    let mut clusters = ClusterDiscoveryServiceClient::new(running.channel.clone());
    let mut routes = RouteDiscoveryServiceClient::new(running.channel.clone());
    let (to_clusters, requests) = mpsc::channel(8);
    let first = |kind, names: &[&str]| DeltaDiscoveryRequest {
        node: node_of("n"),
        ..asking(kind, names)
    };
    to_clusters.send(first(Cluster, &["*"])).await.unwrap();
    let requests = ReceiverStream::new(requests);
    let mut from_clusters = clusters
        .delta_clusters(requests)
        .await
        .unwrap()
        .into_inner();
    let (to_routes, requests) = mpsc::channel(8);
    to_routes.send(first(Routes, &["r"])).await.unwrap();
    let requests = ReceiverStream::new(requests);
    let mut from_routes = routes.delta_routes(requests).await.unwrap().into_inner();
    let ack = |response: &DeltaDiscoveryResponse| DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        ..DeltaDiscoveryRequest::default()
    };
    let response = from_clusters.message().await.unwrap().unwrap();
    to_clusters.send(ack(&response)).await.unwrap();
    let response = from_routes.message().await.unwrap().unwrap();
    to_routes.send(ack(&response)).await.unwrap();

    running
        .set
        .apply(set(Routes, "r", "elsewhere").remove(Cluster, "c"));
    let response = from_routes.message().await.unwrap().unwrap();
    let held = || {
        let all = running.server.connections();
        let of_clusters = all
            .iter()
            .flat_map(|one| &one.types)
            .find(|one| one.kind == Cluster);
        of_clusters.map(|one| one.held)
    };
    until(|| held() == Some(1)).await;
    to_routes.send(ack(&response)).await.unwrap();
    let removal = from_clusters.message().await.unwrap().unwrap();
    assert_eq!(removal.removed_resources, ["c"]);
}

#[tokio::test]
async fn streams_are_bounded_per_node_and_in_all() {
    let running = run_with(|builder| {
        let mut limits = Limits::default();
        limits.streams_per_node = 1;
        limits.streams = 2;
        builder.limits(limits)
    })
    .await;
    running.set.apply(set(Cluster, "a", "1"));
    let open = |node: &'static str| Delta::open(&running.channel, node, asking(Cluster, &["*"]));
    let mut one = open("one").await;
    one.next().await.unwrap();
    assert_eq!(
        open("one").await.next().await.unwrap_err().code(),
        Code::ResourceExhausted
    );
    let mut two = open("two").await;
    two.next().await.unwrap();
    assert_eq!(
        open("three").await.next().await.unwrap_err().code(),
        Code::ResourceExhausted
    );
    drop(one);
    until(|| running.server.connections().len() == 1).await;
    open("three").await.next().await.unwrap();
}

#[tokio::test]
async fn a_long_request_and_a_long_response_end_the_stream() {
    let running = run_with(|builder| {
        let mut limits = Limits::default();
        limits.request_bytes = 1000;
        limits.response_bytes = 1000;
        builder.limits(limits)
    })
    .await;
    let long = "x".repeat(2000);
    let mut client = Delta::open(&running.channel, "n", asking(Cluster, &[&long])).await;
    assert!(client.next().await.is_err());
    running
        .set
        .apply(Changes::new().set(Cluster, Encoded::new("a", long.into_bytes())));
    let mut client = Delta::open(&running.channel, "n", asking(Cluster, &["*"])).await;
    assert_eq!(
        client.next().await.unwrap_err().code(),
        Code::ResourceExhausted
    );
}

#[tokio::test]
async fn at_shutdown_streams_end_with_unavailable_and_serving_ends() {
    let mut running = run().await;
    running.set.apply(set(Cluster, "a", "1"));
    let mut client = Delta::open(&running.channel, "n", asking(Cluster, &["*"])).await;
    client.next().await.unwrap();
    running.stop.take().unwrap().send(()).unwrap();
    assert_eq!(client.next().await.unwrap_err().code(), Code::Unavailable);
    tokio::time::timeout(SOON, running.serving)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    until(|| running.server.connections().is_empty()).await;
}

#[tokio::test]
async fn dropping_the_server_closes_everything() {
    let running = run().await;
    running.set.apply(set(Cluster, "a", "1"));
    let mut client = Delta::open(&running.channel, "n", asking(Cluster, &["*"])).await;
    client.next().await.unwrap();
    running.serving.abort();
    assert!(client.next().await.is_err());
    until(|| running.server.connections().is_empty()).await;
}

#[tokio::test]
async fn an_old_connection_is_told_to_go_and_its_streams_end_after_the_grace() {
    let running = run_with(|builder| {
        builder.max_connection_age(Some(Duration::from_millis(50)), Duration::from_millis(50))
    })
    .await;
    running.set.apply(set(Cluster, "a", "1"));
    let channel = Channel::from_shared(running.address.clone())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut client = Delta::open(&channel, "n", asking(Cluster, &["*"])).await;
    client.next().await.unwrap();
    assert_eq!(client.next().await.unwrap_err().code(), Code::Unavailable);
    // The client comes back.
    let mut client = Delta::open(&channel, "n", asking(Cluster, &["*"])).await;
    client.next().await.unwrap();
}
