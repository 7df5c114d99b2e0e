//! What streams to a secret service begin with.

use crate::{has, serve, until};
use http::{HeaderName, HeaderValue};
use mesh_core::model::{
    ClientTls, Cluster, Secret, SecretRef, SecretSource, StreamOpening, Validation,
};
use mesh_xds::client::{Client, SecretClient, Variant};
use mesh_xds::pb::envoy::service::discovery::v3 as discovery;
use mesh_xds::pb::envoy::service::secret::v3::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use mesh_xds::pb::google::protobuf::Any;
use mesh_xds::server::{Changes, ResourceSet};
use mesh_xds::{Node, TypeUrl, write};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::server::NamedService;
use tonic::{Request, Response, Status, Streaming};
use tower_service::Service;

/// An agent whose secrets say how they were asked for: by which authority, with which keys.
#[derive(Clone)]
struct Agent;

#[derive(Clone)]
struct Authority(String);

type Answers<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl SecretDiscoveryService for Agent {
    type DeltaSecretsStream = Answers<discovery::DeltaDiscoveryResponse>;
    type StreamSecretsStream = Answers<discovery::DiscoveryResponse>;

    async fn delta_secrets(
        &self,
        _: Request<Streaming<discovery::DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(Status::unimplemented("only the other"))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<discovery::DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let keys = request.metadata().get_all("x-key").iter();
        let keys: Vec<_> = keys.map(|key| key.to_str().unwrap().to_owned()).collect();
        let Authority(authority) = request.extensions().get().cloned().unwrap();
        let text = format!("{authority} {}", keys.join(" and "));
        let (answers, queue) = mpsc::channel(4);
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                if !request.version_info.is_empty() || request.error_detail.is_some() {
                    continue;
                }
                let secret = |name: &String| Any {
                    type_url: TypeUrl::Secret.url().to_owned(),
                    value: prost::Message::encode_to_vec(&write::secret(
                        name,
                        &Secret::roots(text.clone()),
                    )),
                };
                let answer = discovery::DiscoveryResponse {
                    version_info: "1".to_owned(),
                    nonce: "1".to_owned(),
                    type_url: TypeUrl::Secret.url().to_owned(),
                    resources: request.resource_names.iter().map(secret).collect(),
                    ..Default::default()
                };
                let _ = answers.send(Ok(answer)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(queue)))
    }

    async fn fetch_secrets(
        &self,
        _: Request<discovery::DiscoveryRequest>,
    ) -> Result<Response<discovery::DiscoveryResponse>, Status> {
        Err(Status::unimplemented("only streams"))
    }
}

/// Notes the authority, which gRPC does not hand on.
#[derive(Clone)]
struct Noted<S>(S);

impl<S: NamedService> NamedService for Noted<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<http::Request<B>>, B> Service<http::Request<B>> for Noted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> S::Future {
        let authority = request.uri().authority().unwrap().to_string();
        request.extensions_mut().insert(Authority(authority));
        self.0.call(request)
    }
}

async fn agent() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let service = Noted(SecretDiscoveryServiceServer::new(Agent));
    let serve = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(serve.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

fn asked(name: &str, authority: &str, keys: &[&str]) -> SecretRef {
    let mut opening = StreamOpening::default();
    opening.authority = authority.into();
    let name_of_key = HeaderName::from_static("x-key");
    let keys = keys.iter();
    let keys = keys.map(|key| (name_of_key.clone(), HeaderValue::from_str(key).unwrap()));
    opening.metadata = keys.collect();
    SecretRef {
        name: name.into(),
        source: SecretSource::Service {
            cluster: "agent".into(),
            delta: false,
            opening,
            initial_fetch_timeout: Duration::ZERO,
        },
    }
}

fn trusting(name: &str, roots: &SecretRef) -> Changes {
    let mut tls = ClientTls::default();
    let mut validation = Validation::default();
    validation.roots = Some(roots.clone());
    tls.validation = Some(validation);
    let mut cluster = Cluster::new(name);
    cluster.tls = Some(Arc::new(tls));
    let none = Default::default();
    let cluster = write::encode(name, &write::cluster(&cluster, Some(&none)));
    Changes::new().set(TypeUrl::Cluster, cluster)
}

#[tokio::test]
async fn a_stream_begins_with_what_the_source_says_and_each_beginning_has_its_own() {
    let control = ResourceSet::new();
    let (control_at, agent_at) = (serve(&control).await, agent().await);
    // One name, and yet three secrets.
    let plain = asked("roots", "", &[]);
    let named = asked("roots", "spire.test", &["hush-%-1"]);
    let other = asked("roots", "spire.test", &["hush-2", "hush-3"]);
    for (name, roots) in [("a", &plain), ("b", &named), ("c", &other)] {
        control.apply(trusting(name, roots));
    }
    let client = Client::builder([control_at]).node(Node::new("n"));
    let client = client.build().unwrap();
    let snapshots = client.snapshots();
    let services = client.services();
    let at = format!("http://{agent_at}");
    let sds = SecretClient::new(&client, "agent", at, Variant::Sotw, Node::new("n")).unwrap();
    tokio::spawn(sds.run(std::future::pending()));
    tokio::spawn(client.run(std::future::pending()));
    let expected = [
        (&plain, format!("{agent_at} ")),
        (&named, "spire.test hush-%-1".to_owned()),
        (&other, "spire.test hush-2 and hush-3".to_owned()),
    ];
    for (asked, text) in &expected {
        let roots = Secret::roots(text.clone());
        until(&snapshots, |now| has(now, asked, Some(&roots))).await;
    }
    let shown = format!("{:?} {:?}", services.load(), snapshots.load());
    assert!(
        shown.contains("spire.test") && shown.contains("x-key"),
        "{shown}"
    );
    assert!(!shown.contains("hush"), "{shown}");

    // What nobody needs any more ends, and begins anew when it is needed again.
    control.apply(Changes::new().remove(TypeUrl::Cluster, "b"));
    until(&snapshots, |now| now.cluster("b").is_none()).await;
    control.apply(trusting("b", &named));
    let roots = Secret::roots(expected[1].1.clone());
    until(&snapshots, |now| has(now, &named, Some(&roots))).await;
}
