//! Virtual hosts and clusters that come when a request wants them.

use crate::plane::{Driven, Plane, SOON, cluster, endpoints, node};
use crate::support::{Http1, free_address, get, named, text};
use http::{HeaderName, StatusCode};
use mesh_core::model::{
    Action, ClustersOnDemand, Condition, Forward, HostsOnDemand, HttpManager, Listener, RouteTable,
    Rule, Target, TcpProxy, VirtualHost,
};
use mesh_proxy::xds::Driver;
use mesh_xds::client::{Client, Variant, Wanted};
use mesh_xds::server::{Changes, Event};
use mesh_xds::{Encoded, TypeUrl, write};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const VHDS: TypeUrl = TypeUrl::VirtualHost;

/// A listener that asks for what is missing, in table `t`.
fn listener(address: SocketAddr) -> Encoded {
    let mut manager = HttpManager::new("in", "t");
    manager.on_demand = Some(ClustersOnDemand::Within(Duration::from_secs(10)));
    write::encode(
        "in",
        &write::listener(&Listener::http("in", address, manager), None),
    )
}

/// Its table: a host that goes where a header says, and hosts on demand.
fn table() -> Encoded {
    let mut forward = Forward::default();
    forward.to = Target::Header(HeaderName::from_static("x-cluster"));
    let rule = Rule::new(Condition::default(), Action::Forward(forward));
    let mut table = RouteTable::new("t").host(VirtualHost::new("own", ["own"]).rule(rule));
    table.on_demand = Some(HostsOnDemand {
        table: "t".into(),
        wait: Some(Duration::from_secs(10)),
    });
    write::encode("t", &write::route::table(&table))
}

fn host(name: &str, domain: &str, to: &str) -> Encoded {
    let host = VirtualHost::new(name, [domain]).rule(Rule::prefix_to("/", to));
    write::encode(name, &write::route::virtual_host(&host)).with_aliases([format!("t/{domain}")])
}

/// A proxy that asks for no cluster by itself.
async fn driven(plane: &Plane) -> Driven {
    let client = Client::builder([format!("http://{}", plane.address)])
        .backoff(Duration::from_millis(10), Duration::from_millis(50))
        .clusters(Wanted::Nothing);
    let driven = Driven::with(Driver::new(node(), client).unwrap()).await;
    let here = |shown: &str| shown.contains("in::");
    driven.shows("/listeners", here).await;
    driven
}

fn everything(address: SocketAddr, one: SocketAddr) -> Changes {
    Changes::new()
        .set(TypeUrl::Listener, listener(address))
        .set(TypeUrl::Routes, table())
        .set(VHDS, host("t/first", "first", "one"))
        .set(TypeUrl::Cluster, cluster("one"))
        .set(TypeUrl::Endpoints, endpoints("one", &[one]))
}

async fn ask(address: SocketAddr, host: &str, cluster: Option<&str>) -> (StatusCode, String) {
    let mut request = get("/");
    let headers = request.headers_mut();
    headers.insert("host", host.parse().unwrap());
    if let Some(cluster) = cluster {
        headers.insert("x-cluster", cluster.parse().unwrap());
    }
    let call = async {
        let response = Http1::connect(address).await.send(request).await;
        (response.status(), text(response).await)
    };
    tokio::time::timeout(SOON, call).await.expect("an answer")
}

#[tokio::test]
async fn a_request_brings_its_host_and_the_cluster_of_that() {
    let one = named("one").await;
    let plane = Plane::start().await;
    let address = free_address();
    plane.apply(everything(address, one));
    let driven = driven(&plane).await;
    assert!(!driven.admin("/clusters").await.contains("one::"));
    let ok = (StatusCode::OK, "one".to_owned());
    assert_eq!(ask(address, "First", None).await, ok);
    let stats = driven.admin("/stats").await;
    assert!(stats.contains("http.in.on_demand.success: 2\n"), "{stats}");
    // It is there now.
    assert_eq!(ask(address, "first", None).await, ok);
    assert_eq!(
        driven
            .admin("/stats")
            .await
            .matches("on_demand.attempt: 2\n")
            .count(),
        1
    );
}

#[tokio::test]
async fn what_does_not_exist_is_answered_at_once_and_served_when_it_does() {
    let one = named("one").await;
    let plane = Plane::start().await;
    let address = free_address();
    plane.apply(everything(address, one));
    let _driven = driven(&plane).await;
    assert_eq!(ask(address, "later", None).await.0, StatusCode::NOT_FOUND);
    let unknown = ask(address, "own", Some("later")).await;
    assert_eq!(unknown.0, StatusCode::SERVICE_UNAVAILABLE);
    // Nobody may ask for everything.
    let all = ask(address, "own", Some("*")).await;
    assert_eq!(all.0, StatusCode::SERVICE_UNAVAILABLE);
    plane.apply(
        Changes::new()
            .set(VHDS, host("t/later", "later", "later"))
            .set(TypeUrl::Cluster, cluster("later"))
            .set(TypeUrl::Endpoints, endpoints("later", &[one])),
    );
    let ok = (StatusCode::OK, "one".to_owned());
    assert_eq!(ask(address, "later", None).await, ok);
    assert_eq!(ask(address, "own", Some("later")).await, ok);
}

#[tokio::test]
async fn what_came_on_demand_is_kept_over_a_new_stream_and_follows_changes() {
    let (one, two) = (named("one").await, named("two").await);
    let plane = Plane::start().await;
    let address = free_address();
    plane.apply(everything(address, one));
    let driven = driven(&plane).await;
    assert_eq!(ask(address, "first", None).await.1, "one");
    let (set, at) = plane.kill().await;
    driven
        .shows("/stats", |stats| stats.contains("connected_state: 0\n"))
        .await;
    assert_eq!(
        ask(address, "first", None).await.1,
        "one",
        "nobody is needed"
    );
    // What is asked for now waits for somebody who can be asked.
    let waits = tokio::spawn(ask(address, "second", None));
    let plane = Plane::restarted(set, at).await;
    plane.apply(
        Changes::new()
            .set(VHDS, host("t/first", "first", "two"))
            .set(VHDS, host("t/second", "second", "two"))
            .set(TypeUrl::Cluster, cluster("two"))
            .set(TypeUrl::Endpoints, endpoints("two", &[two])),
    );
    assert_eq!(waits.await.unwrap().1, "two");
    let look = async { while ask(address, "first", None).await.1 != "two" {} };
    tokio::time::timeout(SOON, look).await.expect("it changes");
    plane.apply(Changes::new().remove(VHDS, "t/first"));
    let look = async { while ask(address, "first", None).await.0 != StatusCode::NOT_FOUND {} };
    tokio::time::timeout(SOON, look).await.expect("it goes");
}

#[tokio::test]
async fn a_host_that_cannot_be_read_is_refused_and_its_request_has_no_route() {
    let plane = Plane::start().await;
    let address = free_address();
    plane.apply(everything(address, address));
    // Without domains.
    let bad = mesh_xds::pb::envoy::config::route::v3::VirtualHost {
        name: "t/bad".to_owned(),
        ..Default::default()
    };
    let bad = write::encode("t/bad", &bad).with_aliases(["t/bad.example"]);
    plane.apply(Changes::new().set(VHDS, bad));
    let _driven = driven(&plane).await;
    assert_eq!(
        ask(address, "bad.example", None).await.0,
        StatusCode::NOT_FOUND
    );
    let message = plane.rejected(VHDS).await;
    assert!(message.contains("t/bad: domains"), "{message}");
}

#[tokio::test]
async fn a_request_with_a_body_waits_and_is_passed_on_whole() {
    let one = named("one").await;
    let plane = Plane::start().await;
    let address = free_address();
    plane.apply(everything(address, one));
    let _driven = driven(&plane).await;
    let mut caller = tokio::net::TcpStream::connect(address).await.unwrap();
    let head =
        "POST / HTTP/1.1\r\nhost: first\r\ncontent-length: 6\r\nconnection: close\r\n\r\nabc";
    caller.write_all(head.as_bytes()).await.unwrap();
    plane
        .saw(|event| matches!(event, Event::Acked { kind: VHDS, .. }).then_some(()))
        .await;
    caller.write_all(b"def").await.unwrap();
    let mut answer = String::new();
    let read = caller.read_to_string(&mut answer);
    tokio::time::timeout(SOON, read).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_connection_that_is_passed_on_brings_its_cluster() {
    let one = named("one").await;
    let plane = Plane::start().await;
    let (there, gone) = (free_address(), free_address());
    let proxy = |name: &str, address, to: &str| {
        let mut proxy = TcpProxy::to(name, to);
        proxy.on_demand = ClustersOnDemand::Within(Duration::from_secs(10));
        write::encode(
            name,
            &write::listener(&Listener::tcp(name, address, proxy), None),
        )
    };
    plane.apply(
        Changes::new()
            .set(TypeUrl::Listener, proxy("in", there, "one"))
            .set(TypeUrl::Listener, proxy("no", gone, "none"))
            .set(TypeUrl::Cluster, cluster("one"))
            .set(TypeUrl::Endpoints, endpoints("one", &[one])),
    );
    let driven = driven(&plane).await;
    driven
        .shows("/listeners", |shown| shown.contains("no::"))
        .await;
    let answer = ask(there, "any", None).await;
    assert_eq!(answer, (StatusCode::OK, "one".to_owned()));
    let mut closed = tokio::net::TcpStream::connect(gone).await.unwrap();
    let read = tokio::time::timeout(SOON, closed.read(&mut [0; 8])).await;
    assert!(matches!(read.unwrap(), Ok(0) | Err(_)));
    let stats = driven.admin("/stats").await;
    for line in [
        "tcp.in.on_demand_cluster_success: 1\n",
        "tcp.no.on_demand_cluster_missing: 1\n",
        "tcp.no.downstream_cx_no_route: 1\n",
    ] {
        assert!(stats.contains(line), "{line} in {stats}");
    }
}

#[tokio::test]
async fn in_state_of_the_world_what_would_be_asked_for_is_refused_by_its_field() {
    let plane = Plane::start().await;
    plane.apply(everything(free_address(), free_address()));
    let _driven = Driven::by(&plane, Variant::Sotw).await;
    let message = plane.rejected(TypeUrl::Listener).await;
    assert!(
        message.contains("odcds: needs the delta variant"),
        "{message}"
    );
}
