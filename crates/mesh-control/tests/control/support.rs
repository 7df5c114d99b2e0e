//! A control plane that serves, and clients of its streams.

use mesh_control::{Builder, Control};
use mesh_istio::Files;
use mesh_xds::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use mesh_xds::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use mesh_xds::pb::google::rpc;
use mesh_xds::{Node, TypeUrl};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

const SOON: Duration = Duration::from_secs(60);

pub(crate) const SIDECAR: &str = "sidecar~10.1.1.1~client.default~default.svc.cluster.local";

/// Services of one endpoint each, a subset, and a virtual service with a timeout.
pub(crate) fn yaml(services: usize, timeout: &str, address: &str) -> String {
    let mut text = String::new();
    for index in 0..services {
        text += &format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: s{index}}}, spec: {{selector: \
             {{app: s{index}}}, ports: [{{name: http, port: 80}}]}}}}\n---\n"
        );
    }
    text += &format!(
        "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: v}}, spec: \
         {{hosts: [s0], http: [{{timeout: {timeout}, route: [{{destination: {{host: s0}}}}]}}]}}}}\
         \n---\n"
    );
    text + &format!(
        "{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: w}}, spec: \
         {{address: {address}, labels: {{app: s0}}}}}}\n"
    )
}

pub(crate) fn files(text: &str) -> Files {
    Files::from_text("mesh.yaml", text)
}

pub(crate) fn cluster(service: &str) -> String {
    format!("outbound|80||{service}.default.svc.cluster.local")
}

pub(crate) fn sidecar() -> Node {
    Node::new(SIDECAR)
        .with_text("INTERCEPTION_MODE", "NONE")
        .with_text("MESH_BASE_PORT", "20100")
}

pub(crate) fn gateway() -> Node {
    Node::new("router~10.1.1.2~ingress.istio-system~istio-system.svc.cluster.local")
        .with_text("INTERCEPTION_MODE", "NONE")
}

/// A control plane on a port of its own; it ends with the value.
pub(crate) struct Plane {
    pub(crate) control: Control,
    pub(crate) address: String,
    _tasks: JoinSet<()>,
}

impl Plane {
    pub(crate) async fn start(builder: Builder, text: &str) -> Self {
        let control = builder.build();
        if !text.is_empty() {
            let outcome = control.update(&files(text));
            assert!(outcome.findings.is_empty(), "{:?}", outcome.findings);
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        let server = control.xds().clone();
        tasks.spawn(async move {
            server
                .serve(listener, std::future::pending())
                .await
                .unwrap();
        });
        Self {
            control,
            address,
            _tasks: tasks,
        }
    }

    pub(crate) async fn of(text: &str) -> Self {
        Self::start(Control::builder(), text).await
    }

    /// Takes over another text and pushes it at once.
    pub(crate) fn change(&self, text: &str) {
        let outcome = self.control.update(&files(text));
        assert!(outcome.findings.is_empty(), "{:?}", outcome.findings);
        self.control.flush();
    }

    pub(crate) async fn connect(&self, node: &Node) -> Delta {
        Delta::open(&self.address, node).await
    }
}

/// A delta stream of everything, and what it has received.
pub(crate) struct Delta {
    to: mpsc::Sender<DeltaDiscoveryRequest>,
    from: Streaming<DeltaDiscoveryResponse>,
    node: Node,
    pub(crate) have: BTreeMap<(TypeUrl, String), String>,
    asked: BTreeSet<String>,
    /// What came with the last responses.
    pub(crate) news: Vec<(TypeUrl, String)>,
    pub(crate) removed: Vec<(TypeUrl, String)>,
}

impl Delta {
    async fn open(address: &str, node: &Node) -> Self {
        let channel = Channel::from_shared(address.to_owned())
            .unwrap()
            .connect()
            .await
            .unwrap();
        let (to, requests) = mpsc::channel(64);
        let first = DeltaDiscoveryRequest {
            node: Some(node.to_proto()),
            type_url: TypeUrl::Cluster.url().to_owned(),
            resource_names_subscribe: vec!["*".to_owned()],
            ..DeltaDiscoveryRequest::default()
        };
        to.send(first).await.unwrap();
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let requests = ReceiverStream::new(requests);
        let from = client
            .delta_aggregated_resources(requests)
            .await
            .unwrap()
            .into_inner();
        Self {
            to,
            from,
            node: node.clone(),
            have: BTreeMap::new(),
            asked: BTreeSet::new(),
            news: Vec::new(),
            removed: Vec::new(),
        }
    }

    pub(crate) async fn say(&self, request: DeltaDiscoveryRequest) {
        self.to.send(request).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        let next = tokio::time::timeout(SOON, self.from.message()).await;
        next.unwrap_or_else(|_| panic!("{} hears nothing", self.node.id()))
            .map(|response| response.expect("an open stream"))
    }

    /// The next response, taken over and acknowledged; asks for endpoints of new clusters.
    pub(crate) async fn take(&mut self) -> TypeUrl {
        let response = self.next().await.unwrap();
        let kind = TypeUrl::from_url(&response.type_url).unwrap();
        let mut ask = Vec::new();
        for one in &response.resources {
            if kind == TypeUrl::Cluster
                && one.name.starts_with("outbound|")
                && self.asked.insert(one.name.clone())
            {
                ask.push(one.name.clone());
            }
            self.have
                .insert((kind, one.name.clone()), one.version.clone());
            self.news.push((kind, one.name.clone()));
        }
        for name in &response.removed_resources {
            self.have.remove(&(kind, name.clone()));
            self.removed.push((kind, name.clone()));
        }
        self.ack(&response).await;
        if !ask.is_empty() {
            self.subscribe(TypeUrl::Endpoints, &ask).await;
        }
        kind
    }

    pub(crate) async fn subscribe(&self, kind: TypeUrl, names: &[String]) {
        self.say(DeltaDiscoveryRequest {
            type_url: kind.url().to_owned(),
            resource_names_subscribe: names.to_vec(),
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    }

    pub(crate) async fn ack(&self, response: &DeltaDiscoveryResponse) {
        self.say(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    }

    pub(crate) async fn nack(&self, response: &DeltaDiscoveryResponse, message: &str) {
        self.say(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: Some(rpc::Status {
                code: 3,
                message: message.to_owned(),
                ..rpc::Status::default()
            }),
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    }

    /// Asks for everything and takes it: clusters, endpoints, listeners, and the routes named.
    pub(crate) async fn settle(&mut self, routes: &[&str]) {
        while self.take().await != TypeUrl::Cluster {}
        while self.take().await != TypeUrl::Endpoints {}
        self.subscribe(TypeUrl::Listener, &["*".to_owned()]).await;
        while self.take().await != TypeUrl::Listener {}
        let routes: Vec<String> = routes.iter().map(|name| (*name).to_owned()).collect();
        self.subscribe(TypeUrl::Routes, &routes).await;
        while self.take().await != TypeUrl::Routes {}
        self.news.clear();
        self.removed.clear();
    }

    /// Takes responses until one of this type came; returns what came, sorted.
    pub(crate) async fn until(&mut self, kind: TypeUrl) -> Vec<(TypeUrl, String)> {
        self.news.clear();
        while self.take().await != kind {}
        let mut news = std::mem::take(&mut self.news);
        news.sort();
        news
    }

    pub(crate) fn names(&self, kind: TypeUrl) -> Vec<&str> {
        let of_kind = self.have.keys().filter(|(one, _)| *one == kind);
        of_kind.map(|(_, name)| name.as_str()).collect()
    }
}
