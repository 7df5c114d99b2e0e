//! Secrets and certificates as the admin interface shows them.

use crate::plane::{Driven, Plane, all};
use crate::support::{free_address, named};
use mesh_core::model::{
    ClientTls, Cluster, FilterChain, Listener, Secret, SecretRef, SecretSource, ServerTls,
    TcpProxy, Validation,
};
use mesh_xds::client::Variant;
use mesh_xds::json::Codec;
use mesh_xds::server::Changes;
use mesh_xds::{Encoded, TypeUrl, write};
use rcgen::{CertificateParams, KeyPair, SanType, SerialNumber, date_time_ymd};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What stands in each key here.
const HUSH: &str = "hush-hush";

/// `HUSH` as it stands in base64, wherever it begins.
const HIDDEN: [&str; 4] = [HUSH, "aHVzaC1odX", "h1c2gtaHVz", "odXNoLWh1c"];

fn from_plane(name: &str) -> SecretRef {
    SecretRef {
        name: name.into(),
        source: SecretSource::ControlPlane {
            initial_fetch_timeout: Duration::from_millis(50),
        },
    }
}

/// A certificate that is valid for long, and its key.
fn certificate() -> (String, String) {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from(vec![0x0b, 1, 0xad]));
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(3000, 1, 1);
    params.subject_alt_names = vec![
        SanType::URI("spiffe://td/ns/a/sa/b".try_into().unwrap()),
        SanType::DnsName("a.test".try_into().unwrap()),
    ];
    let key = KeyPair::generate().unwrap();
    let chain = params.self_signed(&key).unwrap().pem();
    (chain, key.serialize_pem())
}

fn listener(name: &str, certificate: &str, roots: Option<&str>) -> Encoded {
    listener_at(free_address(), name, certificate, roots)
}

fn listener_at(at: SocketAddr, name: &str, certificate: &str, roots: Option<&str>) -> Encoded {
    let mut tls = ServerTls::default();
    tls.certificates = vec![from_plane(certificate)];
    tls.validation = roots.map(|roots| {
        let mut validation = Validation::default();
        validation.roots = Some(from_plane(roots));
        validation
    });
    let mut chain = FilterChain::tcp(TcpProxy::to("s", "c"));
    chain.tls = Some(Arc::new(tls));
    let listener = Listener::new(name, at).chain(chain);
    write::encode(name, &write::listener(&listener, None))
}

/// A listener with a key in it, which is refused if the rest of it is wrong.
fn with_key(name: &str, port: u16, chain: &str, key: &str) -> Encoded {
    let tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    let tcp = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    let listener = json!({
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{
            "filters": [{"name": "t", "typed_config": {
                "@type": tcp, "stat_prefix": "t", "cluster": "c"}}],
            "transport_socket": {"name": "tls", "typed_config": {
                "@type": tls,
                "common_tls_context": {"tls_certificates": [{
                    "certificate_chain": {"inline_string": chain},
                    "private_key": {"inline_string": key}}]}}}}]});
    let message = "envoy.config.listener.v3.Listener";
    let bytes = Codec::new().from_json(message, &listener.to_string());
    Encoded::new(name, bytes.unwrap())
}

fn secret(name: &str, secret: &Secret) -> Changes {
    Changes::new().set(TypeUrl::Secret, write::encode_secret(name, secret))
}

fn section<'a>(dump: &'a Value, list: &str, name: &str) -> Option<&'a Value> {
    let configs = dump["configs"].as_array().unwrap();
    let kind = "type.googleapis.com/envoy.admin.v3.SecretsConfigDump";
    let section = configs.iter().find(|one| one["@type"] == kind).unwrap();
    let list = section.get(list)?.as_array().unwrap();
    list.iter().find(|one| one["name"] == name)
}

#[tokio::test]
async fn secrets_are_shown_as_envoy_shows_them_and_no_key_is_on_any_page() {
    let (chain, key) = certificate();
    let hushed = format!("{key}{HUSH}");
    let plane = Plane::start().await;
    plane.apply(all(free_address(), "c", named("one").await));
    plane.apply(secret(
        "shop",
        &Secret::certificate(chain.clone(), hushed.clone()),
    ));
    plane.apply(secret("roots", &Secret::roots(chain.clone())));
    let mut model = Cluster::new("secured");
    let mut tls = ClientTls::default();
    tls.certificates = vec![from_plane("shop")];
    model.tls = Some(Arc::new(tls));
    let none = Default::default();
    let cluster = write::encode("secured", &write::cluster(&model, Some(&none)));
    plane.apply(
        Changes::new()
            .set(TypeUrl::Cluster, cluster)
            .set(TypeUrl::Listener, listener("tls", "shop", Some("roots")))
            .set(TypeUrl::Listener, listener("lost", "nowhere", None))
            .set(
                TypeUrl::Listener,
                with_key("inline", free_address().port(), &chain, &hushed),
            )
            .set(TypeUrl::Listener, with_key("bad", 0, "", &hushed)),
    );
    for variant in [Variant::Delta, Variant::Sotw] {
        let driven = Driven::by(&plane, variant).await;
        let text = driven
            .shows("/config_dump", |dump| {
                let there = ["error_state", "uninitialized", "active_state", "\"inline\""];
                let dynamic = dump.matches("\"dynamic_active_secrets\"").count() == 1;
                let secured = dump.contains("\"secured\"") && dump.contains("\"lost\"");
                dynamic && secured && there.iter().all(|one| dump.contains(one))
            })
            .await;
        let dump: Value = serde_json::from_str(&text).unwrap();
        let active = |name| section(&dump, "dynamic_active_secrets", name);
        let shop = active("shop").unwrap();
        assert_eq!(shop["secret"]["@type"], TypeUrl::Secret.url());
        let certificate = &shop["secret"]["tls_certificate"];
        let redacted = "W3JlZGFjdGVkXQ==";
        assert_eq!(certificate["private_key"]["inline_bytes"], redacted);
        assert!(certificate["certificate_chain"]["inline_bytes"].is_string());
        assert!(!shop["version_info"].as_str().unwrap().is_empty());
        assert!(shop["last_updated"].as_str().unwrap().ends_with('Z'));
        let roots = &active("roots").unwrap()["secret"]["validation_context"];
        assert!(roots["trusted_ca"]["inline_bytes"].is_string());
        let missing = section(&dump, "dynamic_warming_secrets", "nowhere").unwrap();
        assert_eq!(missing["version_info"], "uninitialized");
        assert_eq!(
            missing["secret"],
            json!({"@type": TypeUrl::Secret.url(), "name": "nowhere"})
        );
        assert_eq!(section(&dump, "static_secrets", "shop"), None);
        assert!(active("nowhere").is_none());
        // What stands in a listener is shown there, as it came but for the key.
        assert!(text.contains("\"[redacted]\""), "{text}");

        // A key that this process has in memory, on no page that it has.
        let help = driven.admin("/help").await;
        let pages = help.lines().filter_map(|line| line.strip_prefix("GET "));
        let pages: Vec<_> = pages
            .map(|page| page.split('[').next().unwrap().to_owned())
            .collect();
        assert!(pages.len() > 8, "{pages:?}");
        let more = ["/config_dump?include_eds", "/clusters?format=json"];
        for page in pages.iter().map(String::as_str).chain(more) {
            let shown = driven.admin(page).await;
            for hidden in HIDDEN {
                assert!(!shown.contains(hidden), "{page}: {shown}");
            }
        }
        // One list, and names.
        let one = "/config_dump?resource=dynamic_active_secrets&name_regex=sho.";
        let one: Value = serde_json::from_str(&driven.admin(one).await).unwrap();
        let configs = one["configs"].as_array().unwrap();
        let names: Vec<_> = configs.iter().map(|one| &one["name"]).collect();
        assert_eq!(names, ["shop"]);
        assert_eq!(
            configs[0]["@type"],
            "type.googleapis.com/envoy.admin.v3.SecretsConfigDump.DynamicSecret"
        );
    }
}

#[tokio::test]
async fn certificates_in_use_are_shown_with_their_dates_and_names() {
    let (chain, key) = certificate();
    let plane = Plane::start().await;
    plane.apply(all(free_address(), "c", named("one").await));
    plane.apply(secret("shop", &Secret::certificate(chain.clone(), key)));
    plane.apply(secret("roots", &Secret::roots(chain)));
    plane.apply(
        Changes::new()
            .set(TypeUrl::Listener, listener("tls", "shop", Some("roots")))
            .set(TypeUrl::Listener, listener("lost", "nowhere", None)),
    );
    let driven = Driven::by(&plane, Variant::Delta).await;
    let shown = driven
        .shows("/certs", |shown| shown.contains("serial_number"))
        .await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let sides = shown["certificates"].as_array().unwrap();
    assert_eq!(
        sides.len(),
        1,
        "one that lacks its secret has none: {shown}"
    );
    let mut own = sides[0]["cert_chain"][0].clone();
    let days = own["days_until_expiration"].take();
    let days: u64 = days.as_str().unwrap().parse().unwrap();
    assert!(days > 300_000, "{days}");
    let expected = json!({
        "path": "<inline>",
        "serial_number": "0b01ad",
        "subject_alt_names": [{"dns": "a.test"}, {"uri": "spiffe://td/ns/a/sa/b"}],
        "days_until_expiration": null,
        "valid_from": "2020-01-01T00:00:00Z",
        "expiration_time": "3000-01-01T00:00:00Z",
    });
    assert_eq!(own, expected);
    assert_eq!(sides[0]["ca_cert"][0]["serial_number"], "0b01ad");
}

/// With these numbers, where an Envoy 1.40 has them.
#[tokio::test]
async fn updates_of_secrets_and_connections_that_lack_one_are_counted() {
    let (chain, key) = certificate();
    let plane = Plane::start().await;
    plane.apply(all(free_address(), "c", named("one").await));
    plane.apply(secret(
        "shop",
        &Secret::certificate(chain.clone(), key.clone()),
    ));
    plane.apply(secret("roots", &Secret::roots(chain.clone())));
    let (there, lost) = (free_address(), free_address());
    plane.apply(
        Changes::new()
            .set(
                TypeUrl::Listener,
                listener_at(there, "tls", "shop", Some("roots")),
            )
            .set(
                TypeUrl::Listener,
                listener_at(lost, "lost", "nowhere", None),
            ),
    );
    let driven = Driven::by(&plane, Variant::Delta).await;
    driven.initialized().await;
    let at = |address: SocketAddr, stat: &str| {
        let address = address.to_string().replace(':', "_");
        format!("listener.{address}.server_ssl_socket_factory.{stat}")
    };
    let updates = at(there, "ssl_context_update_by_sds");
    let shows = async |line: String| {
        let has = |stats: &str| stats.lines().any(|one| one == line);
        driven.shows("/stats", has).await
    };
    shows(format!("{updates}: 2")).await;
    plane.apply(secret("shop", &Secret::certificate(certificate().0, key)));
    shows(format!("{updates}: 3")).await;

    use tokio::io::AsyncReadExt;
    for _ in 0..2 {
        let mut stream = tokio::net::TcpStream::connect(lost).await.unwrap();
        // Closed or reset, and never answered.
        let read = stream.read(&mut [0; 8]).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    let not_ready = at(lost, "downstream_context_secrets_not_ready");
    shows(format!("{not_ready}: 2")).await;
    let text = shows(format!("{}: 0", at(lost, "ssl_context_update_by_sds"))).await;
    let ours = at(there, "downstream_context_secrets_not_ready");
    assert!(text.contains(&format!("{ours}: 0")), "{text}");
}
