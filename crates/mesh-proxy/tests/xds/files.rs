//! Driven by files in Envoy's format.

use crate::plane::{Caller, Driven};
use crate::support::{Http1, free_address, get, named, text};
use mesh_proxy::xds::Driver;
use mesh_xds::bootstrap::Bootstrap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

/// A listener that takes its routes from a file.
fn lds(address: SocketAddr, directory: &Path) -> String {
    let (ip, port) = (address.ip(), address.port());
    let rds = directory.join("rds.yaml");
    let rds = rds.display();
    format!(
        r#"
version_info: "1"
resources:
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: in
  address: {{socket_address: {{address: {ip}, port_value: {port}}}}}
  filter_chains:
  - filters:
    - name: http
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: in
        rds:
          route_config_name: t
          config_source: {{path_config_source: {{path: "{rds}"}}}}
        http_filters:
        - name: router
          typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"#
    )
}

fn rds(cluster: &str) -> String {
    format!(
        r#"
resources:
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: t
  virtual_hosts:
  - {{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}]}}
"#
    )
}

/// Clusters in JSON, one that has its endpoints and one whose endpoints are in a file.
fn cds(one: SocketAddr, directory: &Path) -> String {
    let eds = directory.join("eds.json");
    serde_json::json!({
        "version_info": "1",
        "resources": [
            {
                "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
                "name": "one",
                "connect_timeout": "1s",
                "load_assignment": assignment("one", one),
            },
            {
                "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
                "name": "two",
                "type": "EDS",
                "eds_cluster_config": {"eds_config": {"path_config_source": {"path": eds}}},
            },
        ],
    })
    .to_string()
}

fn eds(two: SocketAddr) -> String {
    let mut assignment = assignment("two", two);
    assignment["@type"] =
        "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment".into();
    serde_json::json!({"resources": [assignment]}).to_string()
}

fn assignment(cluster: &str, at: SocketAddr) -> serde_json::Value {
    let address = serde_json::json!({"address": at.ip().to_string(), "port_value": at.port()});
    let endpoint = serde_json::json!({"endpoint": {"address": {"socket_address": address}}});
    serde_json::json!({"cluster_name": cluster, "endpoints": [{"lb_endpoints": [endpoint]}]})
}

/// Replaces a file at once, as Envoy wants it.
fn put(directory: &Path, name: &str, text: &str) {
    let new = directory.join("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, directory.join(name)).unwrap();
}

fn bootstrap(directory: &Path) -> Bootstrap {
    let at = directory.display();
    let text = format!(
        "dynamic_resources:
  cds_config: {{path_config_source: {{path: {at}/cds.json}}}}
  lds_config: {{path_config_source: {{path: {at}/lds.yaml, watched_directory: {{path: {at}}}}}}}
"
    );
    Bootstrap::from_yaml(&text).unwrap()
}

async fn answer(address: SocketAddr) -> String {
    text(Http1::connect(address).await.send(get("/")).await).await
}

#[tokio::test]
async fn listeners_clusters_routes_and_endpoints_in_files_are_followed() {
    let (one, two) = (named("one").await, named("two").await);
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let address = free_address();
    put(place, "cds.json", &cds(one, place));
    put(place, "eds.json", &eds(two));
    put(place, "lds.yaml", &lds(address, place));
    put(place, "rds.yaml", &rds("one"));
    let driver = Driver::from_bootstrap(&bootstrap(place), |client| client).unwrap();
    let driven = Driven::with(driver).await;
    driven
        .shows("/listeners", |shown| {
            shown.contains(&format!("in::{address}"))
        })
        .await;
    assert_eq!(answer(address).await, "one");

    let caller = Caller::start(address, &["one", "two"]);
    put(place, "rds.yaml", &rds("two"));
    while answer(address).await != "two" {}
    put(place, "eds.json", &eds(one));
    while answer(address).await != "one" {}

    // What cannot be read changes nothing, and is counted.
    put(place, "rds.yaml", "resources: [");
    driven
        .shows("/stats", |stats| {
            stats.contains("xds.rds.update_rejected: 1\n")
        })
        .await;
    put(
        place,
        "cds.json",
        &cds(one, place).replace("\"1s\"", "\"-1s\""),
    );
    let dump = driven
        .shows("/config_dump", |dump| dump.contains("error_state"))
        .await;
    assert!(dump.contains("connect_timeout"), "{dump}");
    assert_eq!(answer(address).await, "one");
    caller.end().await;

    // What is left out is removed.
    put(place, "lds.yaml", "resources: []");
    driven.shows("/listeners", str::is_empty).await;
}

#[tokio::test]
async fn a_directory_that_is_swapped_by_a_link_is_noticed() {
    let one = named("one").await;
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let (first, second) = (free_address(), free_address());
    for (version, address) in [("v1", first), ("v2", second)] {
        fs::create_dir(place.join(version)).unwrap();
        put(&place.join(version), "lds.yaml", &lds(address, place));
    }
    put(place, "cds.json", &cds(one, place));
    put(place, "rds.yaml", &rds("one"));
    let link = |version: &str| {
        std::os::unix::fs::symlink(place.join(version), place.join("link")).unwrap();
        fs::rename(place.join("link"), place.join("current")).unwrap();
    };
    link("v1");
    let at = place.display();
    let text = format!(
        "dynamic_resources:
  cds_config: {{path: {at}/cds.json}}
  lds_config:
    path_config_source: {{path: {at}/current/lds.yaml, watched_directory: {{path: {at}}}}}
"
    );
    let bootstrap = Bootstrap::from_yaml(&text).unwrap();
    let driver = Driver::from_bootstrap(&bootstrap, |client| client).unwrap();
    let driven = Driven::with(driver).await;
    driven
        .shows("/listeners", |shown| shown.contains(&first.to_string()))
        .await;
    link("v2");
    driven
        .shows("/listeners", |shown| shown.contains(&second.to_string()))
        .await;
    assert_eq!(answer(second).await, "one");
}

/// As Kubernetes mounts a config map: `..data` is a link that is replaced as a whole.
#[tokio::test]
async fn routes_and_endpoints_in_a_directory_that_is_swapped_by_a_link_are_followed() {
    let backends = [named("one").await, named("two").await];
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let data = place.join("..data");
    let address = free_address();
    for (version, cluster) in [("v1", "one"), ("v2", "two"), ("v3", "two")] {
        fs::create_dir(place.join(version)).unwrap();
        put(&place.join(version), "rds.yaml", &rds(cluster));
        let at = if version == "v2" {
            backends[1]
        } else {
            backends[0]
        };
        put(&place.join(version), "eds.json", &eds(at));
    }
    let link = |version: &str| {
        std::os::unix::fs::symlink(version, place.join("link")).unwrap();
        fs::rename(place.join("link"), &data).unwrap();
    };
    link("v1");
    // Both name the directory, since the files are behind the link.
    let at = place.display();
    let watched = format!(", watched_directory: {{path: \"{at}\"}}");
    let listeners = lds(address, &data).replace("rds.yaml\"", &format!("rds.yaml\"{watched}"));
    assert!(listeners.contains("watched_directory"));
    put(place, "lds.yaml", &listeners);
    let mut clusters: serde_json::Value = serde_json::from_str(&cds(backends[0], &data)).unwrap();
    let source = "/resources/1/eds_cluster_config/eds_config/path_config_source";
    clusters.pointer_mut(source).unwrap()["watched_directory"] = serde_json::json!({"path": place});
    put(place, "cds.json", &clusters.to_string());

    let driver = Driver::from_bootstrap(&bootstrap(place), |client| client).unwrap();
    let driven = Driven::with(driver).await;
    driven
        .shows("/listeners", |shown| {
            shown.contains(&format!("in::{address}"))
        })
        .await;
    assert_eq!(answer(address).await, "one");
    let caller = Caller::start(address, &["one", "two"]);
    // Other routes, to other endpoints; then other endpoints only.
    link("v2");
    while answer(address).await != "two" {}
    link("v3");
    while answer(address).await != "one" {}
    caller.end().await;
}

#[tokio::test]
async fn a_listener_in_a_file_whose_address_was_taken_is_tried_when_something_happens_to_it() {
    let one = named("one").await;
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = stranger.local_addr().unwrap();
    put(place, "cds.json", &cds(one, place));
    put(place, "rds.yaml", &rds("one"));
    put(place, "lds.yaml", &lds(address, place));
    let driver = Driver::from_bootstrap(&bootstrap(place), |client| client).unwrap();
    let driven = Driven::with(driver).await;
    let expected = format!("cannot bind '{address}': Address already in use");
    driven
        .shows("/config_dump", |dump| dump.contains(&expected))
        .await;
    drop(stranger);
    // The same again, as Envoy looks at it again.
    put(place, "lds.yaml", &lds(address, place));
    driven
        .shows("/listeners", |shown| {
            shown.contains(&format!("in::{address}"))
        })
        .await;
    assert_eq!(answer(address).await, "one");
    let dump = driven.admin("/config_dump").await;
    assert!(!dump.contains("error_state"), "{dump}");
}

#[test]
fn a_file_that_is_not_there_is_an_error_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let error = Driver::from_bootstrap(&bootstrap(directory.path()), |client| client).unwrap_err();
    assert!(
        error.to_string().contains("cds.json does not exist"),
        "{error}"
    );
}
