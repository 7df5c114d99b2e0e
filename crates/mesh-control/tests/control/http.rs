//! The debug pages.

use crate::support::{Plane, SIDECAR, cluster, files, sidecar, yaml};
use http_body::Body;
use mesh_control::Control;
use serde_json::Value;
use std::future::poll_fn;
use std::pin::pin;
use tower_service::Service;

pub(crate) async fn text(control: &Control, path: &str) -> (u16, String) {
    let request = http::Request::get(path).body(String::new()).unwrap();
    let Ok(response) = control.http_routes().call(request).await;
    let status = response.status().as_u16();
    let mut body = pin!(response.into_body());
    let mut text = Vec::new();
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        text.extend_from_slice(&frame.unwrap().into_data().unwrap_or_default());
    }
    (status, String::from_utf8(text).unwrap())
}

pub(crate) async fn page(control: &Control, path: &str) -> (u16, Value) {
    let (status, text) = text(control, path).await;
    let value = serde_json::from_str(&text);
    (
        status,
        value.unwrap_or_else(|error| panic!("{path}: {error}: {text}")),
    )
}

#[tokio::test]
async fn it_is_ready_when_there_is_something_in_force() {
    let control = Control::builder().build();
    assert_eq!(text(&control, "/ready").await.0, 503);
    control.update(&files(&yaml(1, "1s", "10.0.0.1")));
    assert_eq!(text(&control, "/ready").await.0, 200);
}

#[tokio::test]
async fn objects_services_and_endpoints_are_listed() {
    let plane = Plane::of(&yaml(2, "1s", "10.0.0.1")).await;
    let objects = page(&plane.control, "/debug/configz").await.1;
    assert_eq!(objects.as_array().unwrap().len(), 4);
    assert_eq!(objects[0]["kind"], "VirtualService");
    assert_eq!(objects[0]["line"], 5);
    assert_eq!(objects[0]["metadata"]["name"], "v");
    assert_eq!(objects[0]["apiVersion"], "networking.istio.io/v1");
    let spec = serde_json::json!({
        "hosts": ["s0"],
        "http": [{"timeout": "1s", "route": [{"destination": {"host": "s0"}}]}],
    });
    assert_eq!(objects[0]["spec"], spec);
    assert_eq!(objects[1]["spec"]["address"], "10.0.0.1");
    let services = page(&plane.control, "/debug/registryz").await.1;
    assert_eq!(services[1]["hostname"], "s1.default.svc.cluster.local");
    assert_eq!(services[1]["ports"][0]["protocol"], "HTTP");
    let endpoints = page(&plane.control, "/debug/endpointz").await.1;
    assert_eq!(endpoints[0]["endpoints"][0]["address"], "10.0.0.1:80");
    assert_eq!(endpoints[1]["endpoints"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn a_proxy_is_shown_by_its_short_name_or_its_id() {
    let plane = Plane::of(&yaml(2, "1s", "10.0.0.1")).await;
    let mut client = plane.connect(&sidecar()).await;
    client.settle(&["http_proxy"]).await;

    for id in ["client.default", SIDECAR] {
        let path = format!("/debug/config_dump?proxyID={id}");
        let (status, dump) = page(&plane.control, &path).await;
        assert_eq!(status, 200, "{dump}");
        let kind = "type.googleapis.com/envoy.admin.v3.ClustersConfigDump";
        assert_eq!(dump["configs"][0]["@type"], kind);
        let clusters = dump["configs"][0]["dynamic_active_clusters"]
            .as_array()
            .unwrap();
        let found = clusters
            .iter()
            .any(|one| one["cluster"]["name"] == cluster("s1").as_str());
        assert!(found, "{dump}");
        let routes = &dump["configs"][2]["dynamic_route_configs"][0]["route_config"];
        assert_eq!(routes["name"], "http_proxy");
        let endpoints = dump["configs"][3]["dynamic_endpoint_configs"]
            .as_array()
            .unwrap();
        assert!(!endpoints.is_empty());
    }

    let (_, origins) = page(&plane.control, "/debug/originz?proxyID=client.default").await;
    let tables = &origins["type.googleapis.com/envoy.config.route.v3.RouteConfiguration"];
    let route = &tables["http_proxy"]["routes"][0];
    assert_eq!(route["virtual_host"], "s0.default.svc.cluster.local:80");
    let origin = route["origin"].as_str().unwrap();
    assert!(
        origin.starts_with("VirtualService v.default (mesh.yaml:5:"),
        "{origin}"
    );

    let (status, unknown) = page(&plane.control, "/debug/config_dump?proxyID=x.y").await;
    assert_eq!(status, 404);
    assert_eq!(unknown["known"][0], "client.default");
    assert_eq!(page(&plane.control, "/debug/originz").await.0, 400);
}

#[tokio::test]
async fn a_route_to_a_subset_that_is_not_there_is_reported_with_its_place() {
    let text = yaml(1, "1s", "10.0.0.1").replace("{host: s0}", "{host: s0, subset: v9}");
    let plane = Plane::of(&text).await;
    let findings = async || {
        let status = page(&plane.control, "/debug/push_status").await.1;
        status["compile_findings"].clone()
    };
    assert_eq!(findings().await, serde_json::json!([]), "nobody is there");
    let _client = plane.connect(&sidecar()).await;
    let found = loop {
        match findings().await {
            Value::Array(found) if found.is_empty() => tokio::task::yield_now().await,
            found => break found,
        }
    };
    let only = &found[0];
    assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
    assert_eq!(only["severity"], "warning");
    assert_eq!(only["object"], "VirtualService v.default");
    assert_eq!(only["file"], "mesh.yaml");
    assert_eq!(only["path"], "spec.http[0].route[0].destination.subset");
    let (line, column) = (&only["line"], only["column"].as_u64().unwrap());
    let written = text.lines().nth(2).unwrap();
    assert_eq!(line, 3, "{only}");
    assert_eq!(written[column as usize - 1..][..2], *"v9");

    plane.change(&yaml(1, "1s", "10.0.0.1"));
    assert_eq!(findings().await, serde_json::json!([]), "it is mended");
}

#[tokio::test]
async fn streams_are_listed_with_how_far_they_are() {
    let plane = Plane::of(&yaml(2, "1s", "10.0.0.1")).await;
    let mut client = plane.connect(&sidecar()).await;
    client.settle(&["http_proxy"]).await;
    let list = loop {
        let list = page(&plane.control, "/debug/syncz").await.1;
        if list[0]["types"]["RDS"]["status"] == "SYNCED" {
            break list;
        }
        tokio::task::yield_now().await;
    };
    let one = &list[0];
    assert_eq!(
        (&one["proxy"], &one["proxy_type"]),
        (&"client.default".into(), &"sidecar".into())
    );
    assert_eq!(one["cluster_sent"], one["cluster_acked"]);
    assert!(one["route_acked"].is_string());

    let clients = page(&plane.control, "/debug/adsz").await.1;
    assert_eq!(clients["totalClients"], 1);
    assert_eq!(clients["clients"][0]["watches"]["RDS"]["named"], 1);
    assert_eq!(clients["clients"][0]["watches"]["CDS"]["wildcard"], true);

    let metrics = text(&plane.control, "/metrics").await.1;
    for line in [
        "pilot_xds{version=\"unknown\"} 1",
        "pilot_services 2",
        "pilot_virt_services 1",
        "pilot_push_triggers{type=\"start\"} 1",
    ] {
        assert!(
            metrics.lines().any(|one| one == line),
            "{line} is not in\n{metrics}"
        );
    }
    assert!(metrics.contains("pilot_xds_pushes{type=\"cds\"}"));
}

/// Keys from a port of loopback that nobody listens on: each try fails, and is counted.
#[tokio::test]
async fn how_often_keys_were_asked_for_is_counted() {
    let objects = "{apiVersion: security.istio.io/v1, kind: RequestAuthentication, \
        metadata: {name: r, namespace: istio-system}, spec: {jwtRules: \
        [{issuer: a, jwksUri: 'http://127.0.0.1:1/keys'}]}}";
    let plane = Plane::of(objects).await;
    let said = async |name: &str| {
        let all = text(&plane.control, "/metrics").await.1;
        let line = all.lines().find_map(|line| line.strip_prefix(name));
        line.map(|number| number.trim().to_owned())
    };
    let failed = "pilot_jwks_resolver_network_fetch_fail_total ";
    assert_eq!(said(failed).await, None, "nobody follows them");
    let (keys, fetcher) = mesh_keys::Fetcher::builder().build();
    let mut fetches = keys.fetches();
    let follow = plane.control.follow_keys(keys);
    let one = async {
        while fetches.changed().await.unwrap().failed == 0 {}
        // It is told to whoever follows in a turn of his own.
        let soon = std::time::Duration::from_secs(10);
        let counted = async {
            while said(failed).await.as_deref().is_none_or(|n| n == "0") {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(soon, counted).await.expect("counted");
    };
    tokio::select! {
        () = follow => unreachable!("it follows for ever"),
        () = fetcher.run() => unreachable!("it runs for ever"),
        () = one => {}
    }
    let succeeded = "pilot_jwks_resolver_network_fetch_success_total ";
    assert_eq!(said(succeeded).await.as_deref(), Some("0"));
}
