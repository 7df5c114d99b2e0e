//! The mesh's own mutual TLS between us and a real Envoy, in both directions, each configured with
//! what our compiler makes of the same objects: what gets through, what is refused, and what the
//! server is told of its caller, byte for byte.
//!
//! Needs `MESH_ENVOY` (`cargo xtask envoy` prints a path); without it the test says so and passes,
//! but fails where `CI=true`.

// The modules of a test are for nobody else.
#![allow(unreachable_pub)]

mod support;
#[path = "mutual_full/world.rs"]
mod world;

use http::{Request, Response};
use mesh_core::model::ClientTls;
use mesh_identity::Connector;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use support::{Http1, Whole, backend, free_address, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use world::{Addresses, Authority, Kind, start};

const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/server";
const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";
const PERMISSIVE: &str = "PERMISSIVE";
const STRICT: &str = "STRICT";

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Called {
    /// The server was told this of its caller's certificate.
    Answered(String),
    /// The proxy of the caller says that nobody is there.
    Unavailable,
    /// Nothing came back.
    Closed,
}

const PAIRS: [(Kind, Kind); 2] = [(Kind::Ours, Kind::Envoy), (Kind::Envoy, Kind::Ours)];

/// The real Envoy, if there is one.
fn judge() -> Option<String> {
    let envoy = std::env::var("MESH_ENVOY").ok();
    if envoy.is_none() {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "MESH_ENVOY is not set"
        );
        println!("skipped: MESH_ENVOY is not set");
    }
    envoy
}

/// A server that answers with what it is told of its caller's certificate.
async fn server() -> SocketAddr {
    backend(|request: Request<hyper::body::Incoming>| async move {
        let told = request.headers().get_all("x-forwarded-client-cert");
        let told = told.iter().map(|value| value.to_str().unwrap_or("?"));
        Response::new(Whole::from(told.collect::<Vec<_>>().join(" | ")))
    })
    .await
}

fn request() -> Request<Whole> {
    Request::get("/")
        .header("host", "server.shop.svc.cluster.local:8000")
        .header("x-forwarded-client-cert", "By=forged")
        .body(Whole::default())
        .unwrap()
}

/// Calls an address in plain text.
async fn call(to: SocketAddr) -> Called {
    let Ok(Ok(answer)) = timeout(Duration::from_secs(60), async {
        Http1::connect(to).await.try_send(request()).await
    })
    .await
    else {
        return Called::Closed;
    };
    match answer.status().as_u16() {
        200 => Called::Answered(text(answer).await),
        503 => Called::Unavailable,
        other => panic!("{other}: {}", text(answer).await),
    }
}

/// The same until it is as expected, for a generous while: right after its start a proxy may not
/// have everything yet.
async fn until(to: SocketAddr, expected: impl Fn(&Called) -> bool) -> Called {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let called = call(to).await;
        if expected(&called) || Instant::now() > end {
            return called;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Says hello as a sidecar does, but shows no certificate; then calls.
async fn call_without_a_certificate(to: SocketAddr) -> Called {
    let mut tls = ClientTls::default();
    tls.alpn = vec!["istio".into()];
    let connector = Connector::new(Arc::new(tls), |_| None).unwrap();
    let stream = TcpStream::connect(to).await.unwrap();
    let attempt = async {
        let (mut stream, _) = connector.connect(stream, None).await.ok()?;
        let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.ok()?;
        let mut answer = Vec::new();
        // What came before the connection broke counts.
        let _ = stream.read_to_end(&mut answer).await;
        (!answer.is_empty()).then(|| String::from_utf8_lossy(&answer).into_owned())
    };
    match timeout(Duration::from_secs(60), attempt).await {
        Ok(Some(answer)) => Called::Answered(answer),
        _ => Called::Closed,
    }
}

struct Scenario {
    at: Addresses,
    _proxies: [world::Running; 2],
}

/// A client and a server with their proxies.
async fn scenario(
    envoy: &str,
    (client, server_kind): (Kind, Kind),
    mode: &str,
    clients: PathBuf,
    servers: PathBuf,
) -> Scenario {
    let at = Addresses {
        inbound: free_address(),
        application: server().await,
        outbound: free_address(),
    };
    let other = free_address();
    let server = ("server-1", other);
    let first = start(
        (server_kind, envoy),
        &at,
        mode,
        server,
        &servers,
        at.inbound,
    )
    .await;
    let own = ("client-1", at.outbound);
    let second = start((client, envoy), &at, mode, own, &clients, at.outbound).await;
    Scenario {
        at,
        _proxies: [first, second],
    }
}

fn answered(called: &Called) -> bool {
    matches!(called, Called::Answered(_))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_speak_mutual_tls_and_tell_the_server_the_same_of_its_caller() {
    let Some(envoy) = judge() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let mesh = Authority::new("mesh");
    let (clients, servers) = (
        mesh.identity(directory, CLIENT, &mesh),
        mesh.identity(directory, SERVER, &mesh),
    );
    for mode in [PERMISSIVE, STRICT] {
        let mut told = Vec::new();
        for pair in PAIRS {
            let it = scenario(&envoy, pair, mode, clients.clone(), servers.clone()).await;
            let called = until(it.at.outbound, answered).await;
            let Called::Answered(one) = called else {
                panic!("{pair:?} {mode}: {called:?}");
            };
            assert!(
                one.starts_with(&format!("By={SERVER};Hash=")),
                "{pair:?}: {one}"
            );
            assert!(
                one.contains(&format!(";URI={CLIENT};DNS=one.test")),
                "{one}"
            );
            assert!(!one.contains("forged"), "{pair:?}: {one}");
            told.push(one);

            let plain = call(it.at.inbound).await;
            let expected = match mode {
                PERMISSIVE => Called::Answered(String::new()),
                _ => Called::Closed,
            };
            assert_eq!(plain, expected, "{pair:?} {mode}, in plain text");
            let anonymous = call_without_a_certificate(it.at.inbound).await;
            assert_eq!(
                anonymous,
                Called::Closed,
                "{pair:?} {mode}, without a certificate"
            );
        }
        assert_eq!(
            told[0], told[1],
            "{mode}: Envoy says the first, and we the second"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_somebody_else_is_refused_by_either_side() {
    let Some(envoy) = judge() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (mesh, stranger) = (Authority::new("mesh"), Authority::new("stranger"));
    let foreign = |name: &str| format!("spiffe://elsewhere/ns/shop/sa/{name}");
    let other = "spiffe://cluster.local/ns/shop/sa/other";
    let cases = [
        (
            "a server of another account",
            &mesh,
            CLIENT.to_owned(),
            other.to_owned(),
        ),
        (
            "a server of another trust domain",
            &mesh,
            CLIENT.to_owned(),
            foreign("server"),
        ),
        (
            "a client of another trust domain",
            &mesh,
            foreign("client"),
            SERVER.to_owned(),
        ),
        (
            "a client of another authority",
            &stranger,
            CLIENT.to_owned(),
            SERVER.to_owned(),
        ),
    ];
    for (what, authority, client, server) in cases {
        for pair in PAIRS {
            let clients = authority.identity(directory, &client, &mesh);
            let servers = mesh.identity(directory, &server, &mesh);
            let it = scenario(&envoy, pair, STRICT, clients, servers).await;
            // Refused from the first call on: nothing ever gets through.
            let called = until(it.at.outbound, |called| *called != Called::Closed).await;
            assert_eq!(called, Called::Unavailable, "{what}, {pair:?}");
        }
    }
}
