//! Keys of tokens at a host that the mesh does not know: for a proxy by YAML and for the stack in an
//! application, with one fetcher.

use crate::objects::object;
use crate::support::{Http1, Whole, backend, free_address};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use mesh_client::MeshClient;
use mesh_core::Feed;
use mesh_core::model::Snapshot;
use mesh_istio::{Node, Role};
use mesh_keys::Fetcher;
use mesh_policy::jwt::JwtLayer;
use mesh_proxy::Proxy;
use mesh_proxy::config::{Configuration, NodeSpec, Source};
use mesh_route::ReplyLayer;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tower::ServiceExt;
use tower_layer::Layer;

/// Tokens of the issuer `far`, signed (HS256) with the words `first` and `second`.
const FIRST: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJmYXIiLCJzdWIiOiJzb21lYm9keSIsImV4cCI6NDAwMDAwMDAwMH0.tkKtOGewRUikyBVjy6MnTLPPnOmz8tS_2Sa88WawL3M";
const SECOND: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJmYXIiLCJzdWIiOiJzb21lYm9keSIsImV4cCI6NDAwMDAwMDAwMH0.bgVkyYV066BUvhz0tIw2_jyD8rrVSFAeC25GUFmpmvY";
const KEYS_OF_FIRST: &str = r#"{"keys":[{"kty":"oct","alg":"HS256","k":"Zmlyc3Q"}]}"#;
const KEYS_OF_SECOND: &str = r#"{"keys":[{"kty":"oct","alg":"HS256","k":"c2Vjb25k"}]}"#;

fn objects(keys: SocketAddr) -> String {
    object(
        "Gateway",
        "front",
        "{servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}",
    ) + &object(
        "VirtualService",
        "all",
        "{hosts: ['*'], gateways: [front], http: [{directResponse: {status: 200}}]}",
    ) + &format!(
        "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
         metadata: {{name: far, namespace: default}}\n\
         spec: {{jwtRules: [{{issuer: far, jwksUri: 'http://{keys}/jwks'}}]}}\n"
    )
}

fn asking(token: &str) -> Request<Empty<Bytes>> {
    let request = Request::get("http://a.test/").header("host", "a.test");
    let request = request.header("authorization", format!("Bearer {token}"));
    request.body(Empty::new()).unwrap()
}

/// What an application does for itself: the tokens and the routes of the configuration in force.
async fn within(feed: &Feed<Snapshot>, token: &str) -> StatusCode {
    let snapshot = feed.load();
    let manager = snapshot.listeners()[0].managers().next().unwrap();
    let client = MeshClient::builder(feed.clone(), manager.routes.clone()).build();
    let authn = manager.authn.as_deref().cloned().unwrap();
    let service = ReplyLayer::new().layer(JwtLayer::fixed(authn).layer(client));
    let Ok(response) = service.oneshot(asking(token)).await;
    response.status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_come_later_are_in_force_in_the_proxy_and_in_the_application() {
    let said = Arc::new(Mutex::new(None::<&str>));
    let saying = said.clone();
    let keys = backend(move |_| {
        let body = *saying.lock().unwrap();
        async move {
            let mut response = Response::new(Whole::from(body.unwrap_or_default()));
            if body.is_none() {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            response
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mesh.yaml");
    std::fs::write(&file, objects(keys.await)).unwrap();
    let address = free_address();
    let mut node = Node::gateway("front", "default");
    node.address = address.ip();
    node.role = Role::Gateway {
        ports: BTreeMap::from([(80, address.port())]),
    };
    let (mut configuration, _) = Configuration::load(Source {
        paths: vec![file],
        mesh_config: None,
        node: NodeSpec::Exact(node),
        dns_capture: false,
        identity: false,
        self_discovery: false,
        locality: None,
        access_log: None,
    })
    .unwrap();
    let (keys, mut fetcher) = Fetcher::builder().refresh(Duration::from_secs(1)).build();
    configuration.fetch_keys(keys);
    fetcher.begin(Duration::from_secs(20)).await;
    assert!(configuration.renew_keys().is_empty(), "none came");
    let feed = configuration.feed();
    let own = feed.clone();
    let proxy = Proxy::builder(feed).concurrency(1).admin(None);
    let proxy = proxy.start().await.unwrap();
    proxy.ready().await;
    let following = tokio::spawn(async move {
        tokio::join!(configuration.watch(|_| {}), fetcher.run());
    });

    let both = async |token: &str| {
        let mut client = Http1::<Empty<Bytes>>::connect(address).await;
        let by_proxy = client.send(asking(token)).await.status();
        let inside = within(&own, token).await;
        (by_proxy.as_u16(), inside.as_u16())
    };
    let until = async |token: &str, wanted: (u16, u16)| {
        let wait = async {
            while both(token).await != wanted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
        assert!(waited.is_ok(), "{wanted:?}");
    };
    assert_eq!(both(FIRST).await, (401, 401), "before there are keys");
    *said.lock().unwrap() = Some(KEYS_OF_FIRST);
    until(FIRST, (200, 200)).await;
    assert_eq!(both(SECOND).await, (401, 401));
    *said.lock().unwrap() = Some(KEYS_OF_SECOND);
    until(SECOND, (200, 200)).await;
    assert_eq!(both(FIRST).await, (401, 401));
    *said.lock().unwrap() = None;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(both(SECOND).await, (200, 200), "the last ones stay");
    following.abort();
    proxy.drain().await;
}
