//! Hosts and clusters on demand: a real Envoy and ours, driven by the same control plane.
//!
//! Needs `MESH_ENVOY` (`cargo xtask envoy` prints a path). What is not there is said and skipped,
//! but fails where `CI=true`.

mod support;

use http::{HeaderName, StatusCode};
use mesh_core::Feed;
use mesh_core::model::{
    Action, Address, Cluster, ClustersOnDemand, Condition, DiscoveryKind, EndpointSet, Forward,
    HostsOnDemand, HttpManager, Listener, RouteTable, Rule, Target, VirtualHost,
};
use mesh_proxy::xds::Driver;
use mesh_xds::client::{Client, Wanted};
use mesh_xds::server::{Changes, ResourceSet, Server, View};
use mesh_xds::{Encoded, Node, TypeUrl, write};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::{Http1, free_address, get, named, text};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

const SOON: Duration = Duration::from_secs(60);
const VHDS: TypeUrl = TypeUrl::VirtualHost;

/// Ends with the test.
struct Envoy(Child);

impl Drop for Envoy {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn listener(name: &str, address: SocketAddr) -> Encoded {
    let mut manager = HttpManager::new(name, "t");
    manager.on_demand = Some(ClustersOnDemand::Within(SOON));
    let listener = Listener::http(name, address, manager);
    write::encode(name, &write::listener(&listener, None))
}

fn table() -> Encoded {
    let mut forward = Forward::default();
    forward.to = Target::Header(HeaderName::from_static("x-cluster"));
    let rule = Rule::new(Condition::default(), Action::Forward(forward));
    let mut table = RouteTable::new("t").host(VirtualHost::new("own", ["own"]).rule(rule));
    table.on_demand = Some(HostsOnDemand {
        table: "t".into(),
        // Envoy's listener waits for as long before it opens.
        wait: Some(Duration::from_secs(10)),
    });
    write::encode("t", &write::route::table(&table))
}

fn host(name: &str, domains: &[&str], to: &str) -> Encoded {
    let host = VirtualHost::new(name, domains.iter().copied()).rule(Rule::prefix_to("/", to));
    let aliases = domains.iter().map(|domain| format!("t/{domain}"));
    write::encode(name, &write::route::virtual_host(&host)).with_aliases(aliases)
}

fn cluster(name: &str) -> Encoded {
    let mut cluster = Cluster::new(name);
    cluster.discovery = DiscoveryKind::Endpoints;
    write::encode(name, &write::cluster(&cluster, None))
}

fn endpoints(cluster: &str, to: SocketAddr) -> Encoded {
    let set = EndpointSet::of([Address::from(to)]);
    write::encode(cluster, &write::endpoints(cluster, &set))
}

/// Envoy's own words for a client of clusters on demand only.
fn bootstrap(plane: SocketAddr) -> Value {
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    json!({
        "node": {"id": "envoy", "cluster": "test"},
        "dynamic_resources": {
            "lds_config": ads,
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
        },
        "static_resources": {"clusters": [{
            "name": "xds",
            "type": "STATIC",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}},
                },
            },
            "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [{
                "endpoint": {"address": {"socket_address": {
                    "address": plane.ip().to_string(), "port_value": plane.port(),
                }}},
            }]}]},
        }]},
    })
}

async fn ask(address: SocketAddr, host: &str, cluster: Option<&str>) -> (u16, String) {
    let mut request = get("/");
    let headers = request.headers_mut();
    headers.insert("host", host.parse().unwrap());
    if let Some(cluster) = cluster {
        headers.insert("x-cluster", cluster.parse().unwrap());
    }
    let call = async {
        let response = Http1::connect(address).await.send(request).await;
        let status = response.status();
        let body = text(response).await;
        // What a proxy says of itself is its own.
        let body = if status == StatusCode::OK {
            body
        } else {
            String::new()
        };
        (status.as_u16(), body)
    };
    timeout(SOON, call).await.expect("an answer")
}

async fn until_open(address: SocketAddr) {
    let wait = async {
        while TcpStream::connect(address).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, wait).await.expect("it listens");
}

/// What a proxy answers, step by step.
async fn play(address: SocketAddr, set: &ResourceSet) -> Vec<(u16, String)> {
    until_open(address).await;
    let mut answers = Vec::new();
    // A host, and the cluster that it leads to; by its other domain, in capitals; then both there.
    answers.push(ask(address, "first.example", None).await);
    answers.push(ask(address, "SECOND.example:81", None).await);
    answers.push(ask(address, "first.example", None).await);
    // One that the control plane does not have.
    answers.push(ask(address, "later.example", None).await);
    // A cluster that a header names, and one that does not exist.
    answers.push(ask(address, "own", Some("two")).await);
    let began = Instant::now();
    answers.push(ask(address, "own", Some("none")).await);
    assert!(
        began.elapsed() < SOON,
        "nobody waits for what is said not to exist"
    );
    // A host that exists from now on.
    set.apply(Changes::new().set(VHDS, host("t/later", &["later.example"], "one")));
    let look = async {
        // The first question may be answered before the stream has heard of the change.
        loop {
            let answer = ask(address, "later.example", None).await;
            if answer.0 != 404 {
                return answer;
            }
        }
    };
    answers.push(timeout(SOON, look).await.expect("it comes"));
    // One that changes, and one that goes.
    set.apply(Changes::new().set(VHDS, host("t/later", &["later.example"], "two")));
    let look = async { while ask(address, "later.example", None).await.1 != "two" {} };
    timeout(SOON, look).await.expect("it changes");
    set.apply(Changes::new().remove(VHDS, "t/later"));
    let look = async { while ask(address, "later.example", None).await.0 != 404 {} };
    timeout(SOON, look).await.expect("it goes");
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_envoy_and_ours_wait_for_the_same_and_answer_the_same() {
    let Ok(binary) = std::env::var("MESH_ENVOY") else {
        let ci = std::env::var("CI").as_deref() == Ok("true");
        assert!(!ci, "MESH_ENVOY is not set");
        println!("skipped: MESH_ENVOY is not set; `cargo xtask envoy` prints a path for it");
        return;
    };
    let (one, two) = (named("one").await, named("two").await);
    let expected: Vec<(u16, String)> = [
        (200, "one"),
        (200, "one"),
        (200, "one"),
        (404, ""),
        (200, "two"),
        (503, ""),
        (200, "one"),
    ]
    .map(|(status, body)| (status, body.to_owned()))
    .to_vec();
    for ours in [true, false] {
        let address = free_address();
        let set = ResourceSet::new();
        set.apply(
            Changes::new()
                .set(TypeUrl::Listener, listener("in", address))
                .set(TypeUrl::Routes, table())
                .set(
                    VHDS,
                    host("t/first", &["first.example", "second.example:81"], "one"),
                )
                .set(TypeUrl::Cluster, cluster("one"))
                .set(TypeUrl::Endpoints, endpoints("one", one))
                .set(TypeUrl::Cluster, cluster("two"))
                .set(TypeUrl::Endpoints, endpoints("two", two)),
        );
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plane = socket.local_addr().unwrap();
        let shared = set.clone();
        let server =
            Server::builder(move |_: &Node| Ok(Feed::fixed(View::of([shared.clone()])))).build();
        let serving =
            tokio::spawn(async move { server.serve(socket, std::future::pending()).await });
        if ours {
            let client = Client::builder([format!("http://{plane}")]).clusters(Wanted::Nothing);
            let driver = Driver::new(Node::new("ours"), client).unwrap();
            let proxy = driver.proxy().concurrency(1).start().await.unwrap();
            let driving = tokio::spawn(driver.run());
            assert_eq!(play(address, &set).await, expected, "ours");
            driving.abort();
            proxy.drain().await;
        } else {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("envoy.json");
            std::fs::write(&file, serde_json::to_vec(&bootstrap(plane)).unwrap()).unwrap();
            let log = std::fs::File::create(directory.path().join("envoy.log")).unwrap();
            let process = Command::new(&binary)
                .arg("--config-path")
                .arg(&file)
                .args(["--concurrency", "1", "--use-dynamic-base-id"])
                .args(["--log-level", "warning"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn();
            let _envoy = Envoy(process.unwrap());
            assert_eq!(play(address, &set).await, expected, "Envoy");
            let said = std::fs::read_to_string(directory.path().join("envoy.log")).unwrap();
            assert!(!said.contains("rejected"), "{said}");
        }
        serving.abort();
    }
}
