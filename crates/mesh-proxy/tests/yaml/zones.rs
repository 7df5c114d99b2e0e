//! `zoneAwareLbSetting`: the own zone first, as far as it can take it.

use crate::town::{Backend, Town, client, mesh_config, object};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use mesh_client::MeshClient;
use mesh_istio::{Node, parse_locality};
use mesh_proxy::config::{Configuration, NodeSpec, Source};
use serde_json::Value;
use std::fmt::Write;
use tower::ServiceExt;

/// A service of this name, which selects workloads by its name.
fn service(name: &str) -> String {
    let spec = format!("{{selector: {{app: {name}}}, ports: [{{name: http, port: 80}}]}}");
    format!("{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {spec}}}\n---\n")
}

/// A workload of a service, at a place.
fn workload(name: &str, number: usize, port: u16, place: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: \
         {name}-{number}}}, spec: {{address: 127.0.0.1, ports: {{http: {port}}}, locality: {place}, \
         labels: {{app: {name}, service.istio.io/workload-name: {name}}}}}}}\n---\n"
    )
}

/// Callers in these places, and a service `a` with backends where they say.
fn town(callers: &[&str], called: &[(&str, &Backend)], setting: &str) -> String {
    let mut yaml = service("client") + &service("a");
    for (number, place) in callers.iter().enumerate() {
        yaml += &workload("client", number, 1000 + number as u16, place);
    }
    for (number, (place, backend)) in called.iter().enumerate() {
        yaml += &workload("a", number, backend.address.port(), place);
    }
    if !setting.is_empty() {
        let mut policy = String::new();
        let _ = write!(
            policy,
            "{{host: a, trafficPolicy: {{loadBalancer: {{simple: ROUND_ROBIN, zoneAwareLbSetting: \
             {{{setting}}}}}}}}}"
        );
        yaml += &object("DestinationRule", "a", &policy);
    }
    yaml
}

/// The caller in the first zone, which knows who is like it.
fn caller() -> Node {
    let mut node = client();
    node.locality = parse_locality("r1/z1");
    node.self_discovery = true;
    let labels = [
        ("app", "client"),
        ("service.istio.io/workload-name", "client"),
    ];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    node.labels.extend(labels);
    node
}

/// How many of 100 requests each backend gets.
async fn shares<const N: usize>(yaml: &str, node: Node, backends: [&Backend; N]) -> [usize; N] {
    for backend in backends {
        backend.forget();
    }
    let town = Town::of(yaml, node).await;
    town.bodies("a", "/", 100).await;
    backends.map(Backend::count)
}

const EVERYWHERE: [&str; 2] = ["r1/z1", "r1/z2"];

#[tokio::test]
async fn a_zone_that_can_take_its_callers_keeps_them() {
    let (one, two, far) = (
        Backend::start("one").await,
        Backend::start("two").await,
        Backend::start("far").await,
    );
    let all = [&one, &two, &far];
    let called = [("r1/z1", &one), ("r1/z2", &two), ("r2/z1", &far)];
    let ask = |callers: &[&str], setting: &str| town(callers, &called, setting);
    let small = "minClusterSize: 2";
    let near = shares(&ask(&EVERYWHERE, small), caller(), all).await;
    assert_eq!(near, [100, 0, 0]);
    // The region has fewer endpoints than there have to be: 2, although 3 are known.
    let few = shares(&ask(&EVERYWHERE, "minClusterSize: 3"), caller(), all).await;
    assert_eq!(few, [50, 50, 0]);
    let usual = shares(&ask(&EVERYWHERE, ""), caller(), all).await;
    let some = usual.iter().all(|count| *count > 0);
    assert!(some, "no rule: regions do not count either: {usual:?}");
    let six = shares(&ask(&EVERYWHERE, "enabled: true"), caller(), all).await;
    assert_eq!(six, [50, 50, 0], "6 where nothing is said");
    // All callers are in one zone: it would get everything.
    let alone = shares(&ask(&["r1/z1"], small), caller(), all).await;
    assert_eq!(alone, [50, 50, 0]);
    // Those of another region are not like it.
    let apart = shares(&ask(&["r1/z1", "r2/z2"], small), caller(), all).await;
    assert_eq!(apart, [50, 50, 0]);
    // Whoever does not know who is like it prefers its region, and no zone in it.
    let mut node = caller();
    node.self_discovery = false;
    let blind = shares(&ask(&EVERYWHERE, small), node, all).await;
    assert_eq!(blind, [50, 50, 0]);
    let off = shares(&ask(&EVERYWHERE, "enabled: false"), caller(), all).await;
    let even = off.iter().all(|count| (33..=34).contains(count));
    assert!(even, "{off:?}");
}

#[tokio::test]
async fn a_zone_that_cannot_take_all_of_its_callers_sends_some_on() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let called = [("r1/z1", &one), ("r1/z2", &two)];
    // Three of four callers are in a zone with half of the endpoints: two thirds stay.
    let callers = ["r1/z1", "r1/z1", "r1/z1", "r1/z2"];
    let yaml = town(&callers, &called, "minClusterSize: 1");
    let [own, other] = shares(&yaml, caller(), [&one, &two]).await;
    assert_eq!(own + other, 100);
    assert!((50..85).contains(&own), "{own}");
}

#[tokio::test]
async fn another_region_follows_once_the_own_has_nobody() {
    let (near, far) = (Backend::start("near").await, Backend::start("far").await);
    let called = [("r2/z1", &near), ("r3/z1", &far)];
    let setting = "failover: [{from: r1, to: r3}]";
    let yaml = town(&EVERYWHERE, &called, setting);
    assert_eq!(shares(&yaml, caller(), [&near, &far]).await, [0, 100]);
}

#[tokio::test]
async fn the_mesh_may_say_so_for_everybody() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let called = [("r1/z1", &one), ("r1/z2", &two)];
    let mesh = mesh_config(&["zoneAwareLbSetting: {minClusterSize: 1}"]);
    let yaml = town(&EVERYWHERE, &called, "") + &mesh;
    assert_eq!(shares(&yaml, caller(), [&one, &two]).await, [100, 0]);
    let yaml = town(&EVERYWHERE, &called, "enabled: false") + &mesh;
    assert_eq!(shares(&yaml, caller(), [&one, &two]).await, [50, 50]);
}

#[tokio::test]
async fn an_embedded_client_does_the_same() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let called = [("r1/z1", &one), ("r1/z2", &two)];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mesh.yaml");
    std::fs::write(&file, town(&EVERYWHERE, &called, "minClusterSize: 1")).unwrap();
    let mut node = caller();
    node.self_discovery = false;
    for self_discovery in [true, false] {
        let (configuration, _) = Configuration::load(Source {
            paths: vec![file.clone()],
            mesh_config: None,
            node: NodeSpec::Exact(node.clone()),
            dns_capture: false,
            identity: false,
            self_discovery,
            locality: Some(node.locality.clone()),
            access_log: None,
        })
        .unwrap();
        let mesh = MeshClient::builder(configuration.feed(), "http_proxy")
            .zone(configuration.zone())
            .build();
        one.forget();
        two.forget();
        for _ in 0..100 {
            let request = Request::get("http://a/")
                .body(Empty::<Bytes>::new())
                .unwrap();
            let response = mesh.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), 200);
            response.into_body().collect().await.unwrap();
        }
        let expected = if self_discovery { (100, 0) } else { (50, 50) };
        assert_eq!((one.count(), two.count()), expected);
    }
}

#[tokio::test]
async fn it_is_explained_with_the_line_that_says_it() {
    let one = Backend::start("one").await;
    for (setting, text) in [
        (
            "enabled: true",
            "the own zone first, as far as it can take it",
        ),
        (
            "enabled: false",
            "none first, whatever the node knows of its own zone",
        ),
    ] {
        let yaml = town(&EVERYWHERE, &[("r1/z1", &one)], setting);
        let town = Town::of(&yaml, caller()).await;
        let page = town.admin("/explain?request=GET%20http://a/").await;
        let page: Value = serde_json::from_str(&page).unwrap();
        let found = named(&page, "localities").expect("it is listed");
        assert_eq!(found["value"], text, "{found:#}");
        // The line of its spec.
        let mut lines = yaml.lines();
        let line = lines.position(|line| line.contains("zoneAwareLbSetting"));
        assert_eq!(found["from"]["line"], line.unwrap() + 1, "{found:#}");
        assert_eq!(found["from"]["object"], "DestinationRule a.default");
    }
}

/// The policy of this name, wherever it stands.
fn named<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    if value["policy"] == name {
        return Some(value);
    }
    match value {
        Value::Object(fields) => fields.values().find_map(|one| named(one, name)),
        Value::Array(all) => all.iter().find_map(|one| named(one, name)),
        _ => None,
    }
}
