//! Secrets: who gets them, what is sent of a change, and that nobody else sees them.

use crate::http::{page, text};
use crate::support::{Delta, Plane, gateway, sidecar, yaml};
use mesh_control::node_resources;
use mesh_istio::World;
use mesh_xds::client::Client;
use mesh_xds::json::Codec;
use mesh_xds::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use mesh_xds::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use mesh_xds::{Node, TypeUrl};
use prost::Message as _;
use std::time::Duration;

const SHOP: &str = "kubernetes://shop";

/// A gateway with TLS on one port and without on another.
const GATEWAY: &str = "---
{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: g, namespace: istio-system},
 spec: {selector: {istio: ingress}, servers: [
  {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']},
  {port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'],
   tls: {mode: SIMPLE, credentialName: shop}}]}}
";

/// A Secret with this key in it.
fn secret(name: &str, namespace: &str, key: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Secret
metadata: {{name: {name}, namespace: {namespace}}}
stringData:
  tls.crt: |
    -----BEGIN CERTIFICATE-----
    {name}-in-{namespace}
    -----END CERTIFICATE-----
  tls.key: |
    -----BEGIN PRIVATE KEY-----
    {key}
    -----END PRIVATE KEY-----
"
    )
}

fn all(secrets: &[&str]) -> String {
    let without = yaml(1, "1s", "10.0.0.1") + GATEWAY;
    without + &secrets.concat()
}

fn edge() -> Node {
    gateway()
        .with_map("LABELS", [("istio", "ingress")])
        .with_text("MESH_MAP_PORT", "80=8080,443=8443")
}

/// Subscribes by name and takes the answer: the secret, if there is one.
async fn ask(client: &mut Delta, name: &str) -> Option<Secret> {
    client.subscribe(TypeUrl::Secret, &[name.to_owned()]).await;
    let response = client.next().await.unwrap();
    assert_eq!(response.type_url, TypeUrl::Secret.url());
    client.ack(&response).await;
    let Some(resource) = response.resources.first() else {
        assert_eq!(response.removed_resources, [name]);
        return None;
    };
    assert_eq!(resource.name, name);
    let any = resource.resource.as_ref().unwrap();
    Some(Secret::decode(&*any.value).unwrap())
}

fn shows_key(secret: &Secret, key: &str) -> bool {
    match &secret.r#type {
        Some(Type::TlsCertificate(certificate)) => {
            let bytes = certificate.private_key.clone().unwrap().encode_to_vec();
            String::from_utf8_lossy(&bytes).contains(key)
        }
        _ => false,
    }
}

#[tokio::test]
async fn a_gateway_gets_the_secret_that_it_names_from_its_own_namespace() {
    let text = all(&[
        &secret("shop", "istio-system", "right"),
        &secret("shop", "default", "wrong"),
    ]);
    let plane = Plane::of(&text).await;
    let mut client = plane.connect(&edge()).await;
    client
        .settle(&["http.8080", "https.443.https.g.istio-system"])
        .await;
    let found = ask(&mut client, SHOP).await.unwrap();
    assert!(shows_key(&found, "right"));
}

#[tokio::test]
async fn a_node_that_asks_for_a_secret_that_its_own_configuration_does_not_name_gets_nothing() {
    let text = all(&[
        &secret("shop", "istio-system", "hush"),
        &secret("other", "istio-system", "hush"),
        &secret("shop", "default", "hush"),
    ]);
    let plane = Plane::of(&text).await;
    // Somebody has it, so that it is there for others to get at.
    let mut owner = plane.connect(&edge()).await;
    owner.settle(&["http.8080"]).await;
    assert!(ask(&mut owner, SHOP).await.is_some());
    assert_eq!(ask(&mut owner, "kubernetes://other").await, None);

    let unselected = Node::new("router~10.1.1.3~other.istio-system~x")
        .with_text("INTERCEPTION_MODE", "NONE")
        .with_map("LABELS", [("istio", "egress")]);
    for node in [sidecar(), unselected] {
        let mut client = plane.connect(&node).await;
        while client.take().await != TypeUrl::Cluster {}
        for name in [SHOP, "kubernetes://other", "kubernetes://shop-cacert"] {
            client.subscribe(TypeUrl::Secret, &[name.to_owned()]).await;
            loop {
                let response = client.next().await.unwrap();
                client.ack(&response).await;
                if response.type_url == TypeUrl::Secret.url() {
                    assert!(response.resources.is_empty(), "{name}");
                    assert_eq!(response.removed_resources, [name]);
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_new_credential_is_sent_alone_and_one_that_goes_is_removed() {
    let plane = Plane::of(&all(&[&secret("shop", "istio-system", "first")])).await;
    let mut client = plane.connect(&edge()).await;
    client.settle(&["http.8080"]).await;
    assert!(ask(&mut client, SHOP).await.is_some());

    plane.change(&all(&[&secret("shop", "istio-system", "second")]));
    let news = client.until(TypeUrl::Secret).await;
    assert_eq!(news, [(TypeUrl::Secret, SHOP.to_owned())]);

    // A change elsewhere does not send it again.
    let more = yaml(2, "1s", "10.0.0.1") + GATEWAY + &secret("shop", "istio-system", "second");
    plane.change(&more);
    let news = client.until(TypeUrl::Endpoints).await;
    let sent = |kind| news.iter().any(|(one, _)| *one == kind);
    assert!(sent(TypeUrl::Cluster) && !sent(TypeUrl::Secret), "{news:?}");

    client.removed.clear();
    let without = yaml(2, "1s", "10.0.0.1") + GATEWAY;
    plane.change(&without);
    let gone = (TypeUrl::Secret, SHOP.to_owned());
    while !client.removed.contains(&gone) {
        client.take().await;
    }
    assert_eq!(client.removed, [gone], "and nothing else");
    // Who needs it no longer waits for it long; the plain port is not touched.
    let listeners = client
        .news
        .iter()
        .filter(|(kind, _)| *kind == TypeUrl::Listener);
    let listeners: Vec<&str> = listeners.map(|(_, name)| name.as_str()).collect();
    assert!(
        listeners.iter().all(|name| *name == "0.0.0.0_8443"),
        "{listeners:?}"
    );

    plane.change(&(without + &secret("shop", "istio-system", "third")));
    let news = client.until(TypeUrl::Secret).await;
    assert!(
        news.contains(&(TypeUrl::Secret, SHOP.to_owned())),
        "{news:?}"
    );
}

#[tokio::test]
async fn a_key_is_on_no_page_and_in_no_debug_text() {
    let plane = Plane::of(&all(&[&secret("shop", "istio-system", "hush-hush")])).await;
    let mut client = plane.connect(&edge()).await;
    client.settle(&["http.8080"]).await;
    assert!(shows_key(
        &ask(&mut client, SHOP).await.unwrap(),
        "hush-hush"
    ));

    let (_, dump) = page(
        &plane.control,
        "/debug/config_dump?proxyID=ingress.istio-system",
    )
    .await;
    let configs = dump["configs"].as_array().unwrap().iter();
    let kind = "type.googleapis.com/envoy.admin.v3.SecretsConfigDump";
    let secrets = configs.filter(|one| one["@type"] == kind);
    let secrets: Vec<_> = secrets.map(|one| &one["dynamic_active_secrets"]).collect();
    assert_eq!(secrets[0][0]["name"], SHOP, "{dump:#}");

    // As it is, in base64, and in the bytes of a list.
    let shown = ["hush-hush", "aHVzaC1odXNo", "h1c2gtaHVza", "odXNoLWh1c2"];
    let index = text(&plane.control, "/debug").await.1;
    let paths = index
        .lines()
        .map(|line| line.replace("NAME.NAMESPACE", "ingress.istio-system"));
    for path in paths.chain(["/metrics".to_owned()]) {
        let (status, text) = text(&plane.control, &path).await;
        assert_eq!(status, 200, "{path}");
        assert!(
            !shown.iter().any(|one| text.contains(one)),
            "{path}: {text}"
        );
    }
    let debug = format!("{:?}", plane.control);
    assert!(!shown.iter().any(|one| debug.contains(one)), "{debug}");
}

#[tokio::test]
async fn a_proxy_of_ours_gets_it_and_what_it_is_replaced_by() {
    let plane = Plane::of(&all(&[&secret("shop", "istio-system", "first")])).await;
    let client = Client::builder([plane.address.clone()])
        .node(edge())
        .build()
        .unwrap();
    let snapshots = client.snapshots();
    let running = tokio::spawn(client.run(std::future::pending()));
    let holds = |key: Option<&'static str>| {
        let snapshots = snapshots.clone();
        async move {
            let wait = async {
                loop {
                    let snapshot = snapshots.load();
                    let open = snapshot.listeners().len() == 2;
                    let mut secrets = snapshot.secrets().iter();
                    let found = secrets.find(|(named, _)| *named.name == *SHOP);
                    let value = found.and_then(|(_, live)| (*live.value().load()).clone());
                    let right = match (value.as_deref(), key) {
                        (None, None) => true,
                        (
                            Some(mesh_core::model::Secret::Certificate { key: bytes, .. }),
                            Some(key),
                        ) => String::from_utf8_lossy(bytes.expose()).contains(key),
                        _ => false,
                    };
                    if open && right {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            };
            let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
            assert!(waited.is_ok(), "{key:?}");
        }
    };
    holds(Some("first")).await;
    plane.change(&all(&[&secret("shop", "istio-system", "second")]));
    holds(Some("second")).await;
    plane.change(&all(&[]));
    holds(None).await;
    plane.change(&all(&[&secret("shop", "istio-system", "third")]));
    holds(Some("third")).await;
    running.abort();
}

/// The resources of a gateway that needs no mapping of ports, as JSON.
fn compiled(text: &str) -> String {
    let mut world = World::default();
    let findings = world.update(&crate::support::files(text));
    assert!(findings.is_empty(), "{findings:?}");
    let (resources, _) = node_resources(&world, &mesh_istio::Node::gateway("g", "istio-system"));
    let codec = Codec::new();
    let each = resources.iter().map(|(kind, one)| {
        let raw = String::from_utf8_lossy(&one.bytes);
        assert!(!raw.contains("hush-hush"), "not in bytes either");
        let message = kind.url().rsplit('/').next().unwrap();
        codec.to_json(message, &one.bytes).unwrap()
    });
    each.collect()
}

#[test]
fn what_is_shown_of_a_node_has_its_secrets_without_their_keys() {
    let shown = compiled(&all(&[&secret("shop", "istio-system", "hush-hush")]));
    assert!(shown.contains("tls_certificate"), "{shown}");
    let redacted = "W3JlZGFjdGVkXQ==";
    assert!(shown.contains(redacted), "{shown}");
}

#[test]
fn certificates_in_files_are_written_as_the_names_of_the_files() {
    let files = GATEWAY.replace(
        "mode: SIMPLE, credentialName: shop",
        "mode: MUTUAL, serverCertificate: /c.pem, privateKey: /k.pem, caCertificates: /r.pem",
    );
    let shown = compiled(&(yaml(1, "1s", "10.0.0.1") + &files));
    // Of a key not even the place, as in Envoy.
    for file in ["/c.pem", "[redacted]", "/r.pem"] {
        let said = format!("\"filename\":\"{file}\"");
        assert!(shown.replace(' ', "").contains(&said), "{shown}");
    }
    assert!(!shown.contains("/k.pem"), "{shown}");
    assert!(!shown.contains("sds_config"), "{shown}");
}
