//! Structured names and the servers of authorities (gRFC A47), over sockets.

use super::server::{Server, builder, status};
use super::support::{CDS, EDS};
use mesh_core::Name;
use mesh_xds::client::{Client, Variant, Wanted};
use mesh_xds::{Node, TypeUrl};
use std::time::Duration;

const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";

fn named(authority: &str, rest: &str) -> Name {
    format!("xdstp://{authority}/{CLUSTER}/{rest}").into()
}

#[tokio::test]
async fn each_authority_is_asked_for_its_names_and_for_nothing_else() {
    let (mut own, mut other) = (Server::start().await, Server::start().await);
    let (plain, theirs) = (Name::from("plain"), named("b", "x?z=1&a=2"));
    let client = builder(&[&own])
        .authority("b", [other.uri()])
        .clusters(Wanted::Named(vec![plain.clone(), theirs.clone()]))
        .listeners(Wanted::Nothing)
        .build()
        .unwrap();
    let (snapshots, mut feed) = (client.snapshots(), client.status());
    let handle = client.handle();
    let running = tokio::spawn(client.run(std::future::pending()));
    let mut stream = own.stream().await;
    assert_eq!(stream.asked_for(CDS).await.names, ["plain"]);
    let mut far = other.stream().await;
    let asked = far.asked_for(CDS).await;
    let form = named("b", "x?a=2&z=1");
    assert_eq!(asked.names, [form.as_str()]);
    assert_eq!(asked.node.as_deref(), Some("me"));

    // What comes is known by the name that it was asked for by, and is acknowledged where it came
    // from; its endpoints have plain names and come from the other server.
    far.send(CDS, "7", &[(&form, "")]).await;
    let answer = far.asked_for(CDS).await;
    assert_eq!((answer.nonce.as_str(), answer.error), ("1", None));
    stream.send(CDS, "1", &[("plain", "")]).await;
    assert_eq!(stream.asked_for(EDS).await.names, ["plain"]);
    stream.send(EDS, "1", &[("plain", "9")]).await;
    // What is acknowledged is in force.
    stream.asked_for(EDS).await;
    let up = |status: &mesh_xds::client::Status| {
        status.connected
            && status.authorities["b"].connected
            && status.kinds[&CDS].update_success == 2
    };
    let status = status(&mut feed, up).await;
    assert_eq!(
        status.authorities["b"].server.as_deref(),
        Some(other.uri().as_str())
    );
    let resources = handle.resources(CDS).await.unwrap();
    assert_eq!(resources.len(), 2);
    assert!(snapshots.load().cluster("plain").is_some());
    running.abort();
}

#[tokio::test]
async fn an_authority_without_servers_of_its_own_shares_the_stream() {
    let mut own = Server::start().await;
    let client = builder(&[&own])
        .authority("b", Vec::<String>::new())
        .authority("c", [own.uri()])
        .clusters(Wanted::Named(vec![named("b", "x"), named("c", "x")]))
        .listeners(Wanted::Nothing)
        .build()
        .unwrap();
    let running = tokio::spawn(client.run(std::future::pending()));
    let mut stream = own.stream().await;
    let asked = stream.asked_for(CDS).await;
    assert_eq!(asked.names, [named("b", "x").as_str(), &named("c", "x")]);
    running.abort();
}

#[tokio::test]
async fn a_server_of_an_authority_is_not_called_before_something_is_wanted_of_it() {
    let (mut own, mut other) = (Server::start().await, Server::start().await);
    let client = builder(&[&own])
        .authority("b", [other.uri()])
        .build()
        .unwrap();
    let running = tokio::spawn(client.run(std::future::pending()));
    let mut stream = own.stream().await;
    stream.asked_for(CDS).await;
    // Its endpoints are of that authority only by their name.
    let name = format!(
        "xdstp://b/{}/e",
        "envoy.config.endpoint.v3.ClusterLoadAssignment"
    );
    stream.send(CDS, "1", &[(&name, "")]).await;
    let mut far = other.stream().await;
    assert_eq!(far.asked_for(EDS).await.names, [name.as_str()]);
    running.abort();
}

#[test]
fn names_that_nobody_can_be_asked_for_are_refused_when_the_client_is_built() {
    let with = |name: Name| {
        Client::builder(["http://h:1"])
            .node(Node::new("me"))
            .authority("b", ["http://h:2"])
            .clusters(Wanted::Named(vec![name]))
            .variant(Variant::Sotw)
            .build()
            .map(drop)
    };
    assert!(with(named("b", "x")).is_ok());
    for (name, why) in [
        (named("c", "x"), "no server is known"),
        (named("b", "*"), "a glob collection needs the delta variant"),
        (Name::from("xdstp://b/x.Y/z"), "was expected"),
    ] {
        let error = with(name).unwrap_err();
        assert_eq!(error.path(), "clusters");
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_keeps_what_it_removes_says_so_for_itself_alone() {
    for keeps in [true, false] {
        let mut server = Server::start().await;
        let one = mesh_xds::client::Server::at(server.uri()).ignore_resource_deletion(keeps);
        let client = Client::builder([one])
            .decode(super::server::decode)
            .backoff(Duration::from_millis(10), Duration::from_millis(50))
            .variant(Variant::Sotw)
            .listeners(Wanted::Nothing)
            .build()
            .unwrap();
        let snapshots = client.snapshots();
        let running = tokio::spawn(client.run(std::future::pending()));
        let mut stream = server.stream().await;
        stream.asked_for(CDS).await;
        stream.send(CDS, "1", &[("a", "")]).await;
        stream.asked_for(EDS).await;
        stream.send(EDS, "1", &[("a", "9")]).await;
        stream.asked_for(EDS).await;
        stream.send(CDS, "2", &[]).await;
        while stream.asked_for(TypeUrl::Cluster).await.nonce != "3" {}
        assert_eq!(snapshots.load().cluster("a").is_some(), keeps);
        running.abort();
    }
}
