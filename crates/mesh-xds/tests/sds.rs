//! Secrets from a server to a client: on the aggregated stream, and from a service of their own.

#![cfg(all(feature = "client", feature = "server"))]

#[path = "sds/opening.rs"]
mod opening;

use mesh_core::Feed;
use mesh_core::model::{
    ClientTls, Cluster, FilterChain, Listener, Secret, SecretRef, SecretSource, ServerTls,
    Snapshot, TcpProxy, Validation,
};
use mesh_xds::client::{Client, SecretClient, Variant};
use mesh_xds::pb::envoy::service::status::v3 as csds;
use mesh_xds::server::{self, Changes, ResourceSet, Server, View};
use mesh_xds::{Encoded, Node, TypeUrl, write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};

const SOON: Duration = Duration::from_secs(60);

/// A server of everything in the set, at the address.
async fn serve(set: &ResourceSet) -> String {
    let server = Server::builder(everything(set)).build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { server.serve(listener, std::future::pending()).await });
    address
}

/// The same as an agent is reached: on a Unix domain socket. Says in which variant it is spoken to.
fn serve_agent(
    set: &ResourceSet,
    path: &Path,
    seen: impl Fn(server::Variant) + Send + Sync + 'static,
) -> String {
    let observer = move |peer: &server::Client, _: &server::Event| {
        assert_eq!(peer.address, None);
        seen(peer.variant);
    };
    let server = Server::builder(everything(set)).observer(observer).build();
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move { server.serve_unix(listener, std::future::pending()).await });
    format!("unix://{}", path.display())
}

fn everything(set: &ResourceSet) -> impl Fn(&Node) -> Result<Feed<View>, server::Refused> + use<> {
    let shared = set.clone();
    move |_: &Node| Ok(Feed::fixed(View::of([shared.clone()])))
}

fn secret(name: &str, secret: &Secret) -> Encoded {
    write::encode(name, &write::secret(name, secret))
}

fn server_cert() -> SecretRef {
    SecretRef {
        name: "cert".into(),
        source: SecretSource::ControlPlane {
            initial_fetch_timeout: Duration::ZERO,
        },
    }
}

fn client_roots(delta: bool) -> SecretRef {
    SecretRef {
        name: "roots".into(),
        source: SecretSource::Service {
            cluster: "agent".into(),
            delta,
            opening: Default::default(),
            initial_fetch_timeout: Duration::ZERO,
        },
    }
}

/// A listener that shows a certificate of the control plane's, and a cluster that trusts an
/// agent's roots.
fn resources(delta: bool) -> Changes {
    let mut tls = ServerTls::default();
    tls.certificates = vec![server_cert()];
    let mut chain = FilterChain::tcp(TcpProxy::to("s", "c"));
    chain.tls = Some(Arc::new(tls));
    let listener = Listener::new("l", ([127, 0, 0, 1], 1).into()).chain(chain);
    let mut tls = ClientTls::default();
    let mut validation = Validation::default();
    validation.roots = Some(client_roots(delta));
    tls.validation = Some(validation);
    let mut cluster = Cluster::new("c");
    cluster.tls = Some(Arc::new(tls));
    let none = Default::default();
    Changes::new()
        .set(
            TypeUrl::Listener,
            write::encode("l", &write::listener(&listener, None)),
        )
        .set(
            TypeUrl::Cluster,
            write::encode("c", &write::cluster(&cluster, Some(&none))),
        )
}

/// Waits until a snapshot, or something that lives in it, is as wanted.
async fn until(feed: &Feed<Snapshot>, wanted: impl Fn(&Snapshot) -> bool) {
    let wait = async {
        while !wanted(&feed.load()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, wait)
        .await
        .expect("it did not come");
}

fn has(snapshot: &Snapshot, named: &SecretRef, secret: Option<&Secret>) -> bool {
    let live = snapshot.secret(named);
    live.is_some_and(|live| live.value().load().as_deref() == secret)
}

#[tokio::test]
async fn secrets_come_from_where_they_are_said_to_be() {
    follow(false).await;
}

#[tokio::test]
async fn a_service_is_spoken_to_in_delta_where_it_is_asked_for() {
    follow(true).await;
}

async fn follow(delta: bool) {
    let (control, agent) = (ResourceSet::new(), ResourceSet::new());
    let (variant, expected) = match delta {
        true => (Variant::Delta, server::Variant::Delta),
        false => (Variant::Sotw, server::Variant::StateOfTheWorld),
    };
    let control_at = serve(&control).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent");
    let agent_at = serve_agent(&agent, &path, move |seen| assert_eq!(seen, expected));
    let cert = Secret::certificate("chain", "hush-hush");
    control.apply(resources(delta).set(TypeUrl::Secret, secret("cert", &cert)));

    let client = Client::builder([control_at])
        .node(Node::new("n"))
        .build()
        .unwrap();
    let snapshots = client.snapshots();
    let sds =
        SecretClient::new(&client, "agent", agent_at.as_str(), variant, Node::new("n")).unwrap();
    tokio::spawn(sds.run(std::future::pending()));
    // Who would ask in the other variant has nothing to ask for.
    let other = match delta {
        true => Variant::Sotw,
        false => Variant::Delta,
    };
    let node = Node::new("n");
    let idle = SecretClient::new(&client, "agent", agent_at.as_str(), other, node).unwrap();
    tokio::spawn(idle.run(std::future::pending()));
    tokio::spawn(client.run(std::future::pending()));

    until(&snapshots, |snapshot| {
        has(snapshot, &server_cert(), Some(&cert))
    })
    .await;
    // In delta it is told at once that there are none, and does not wait.
    assert!(
        delta || snapshots.load().clusters().is_empty(),
        "it waits for its roots"
    );
    let roots = Secret::roots("one");
    agent.apply(Changes::new().set(TypeUrl::Secret, secret("roots", &roots)));
    until(&snapshots, |snapshot| {
        has(snapshot, &client_roots(delta), Some(&roots))
    })
    .await;

    // Both are replaced, and the one of the control plane is taken away.
    let (new_cert, new_roots) = (Secret::certificate("new", "k"), Secret::roots("two"));
    agent.apply(Changes::new().set(TypeUrl::Secret, secret("roots", &new_roots)));
    control.apply(Changes::new().set(TypeUrl::Secret, secret("cert", &new_cert)));
    until(&snapshots, |snapshot| {
        has(snapshot, &client_roots(delta), Some(&new_roots))
    })
    .await;
    until(&snapshots, |snapshot| {
        has(snapshot, &server_cert(), Some(&new_cert))
    })
    .await;
    control.apply(Changes::new().remove(TypeUrl::Secret, "cert"));
    until(&snapshots, |snapshot| has(snapshot, &server_cert(), None)).await;
    assert_eq!(snapshots.load().listeners().len(), 1);
}

#[tokio::test]
async fn who_asks_what_clients_have_sees_no_key() {
    use csds::client_status_discovery_service_client::ClientStatusDiscoveryServiceClient;
    use prost::Message as _;
    let control = ResourceSet::new();
    let address = serve(&control).await;
    let cert = Secret::certificate("chain", "hush-hush");
    control.apply(resources(false).set(TypeUrl::Secret, secret("cert", &cert)));
    let client = Client::builder([address.clone()])
        .node(Node::new("n"))
        .build()
        .unwrap();
    let snapshots = client.snapshots();
    tokio::spawn(client.run(std::future::pending()));
    until(&snapshots, |snapshot| {
        has(snapshot, &server_cert(), Some(&cert))
    })
    .await;

    let mut status = ClientStatusDiscoveryServiceClient::connect(address)
        .await
        .unwrap();
    let request = csds::ClientStatusRequest::default();
    let answer = status
        .fetch_client_status(request)
        .await
        .unwrap()
        .into_inner();
    let bytes = answer.encode_to_vec();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("[redacted]"), "{text}");
    assert!(!text.contains("hush"), "{text}");
}
