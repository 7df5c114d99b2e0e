//! The admin interface in Envoy's shapes.

use crate::plane::{self, Driven, Plane, all, bad_listener, cluster};
use crate::support::{self, Mesh, free_address, named};
use mesh_core::model::{Cluster, Rule};
use mesh_xds::TypeUrl;
use mesh_xds::client::Variant;
use mesh_xds::server::Changes;
use serde_json::Value;

const ADMIN: &str = "type.googleapis.com/envoy.admin.v3";

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The dump of one type.
fn part<'a>(dump: &'a Value, message: &str) -> &'a Value {
    let configs = dump["configs"].as_array().unwrap();
    let wanted = format!("{ADMIN}.{message}");
    let found = configs.iter().find(|config| config["@type"] == wanted);
    found.unwrap_or_else(|| panic!("no {message} in {dump:#}"))
}

#[tokio::test]
async fn the_dump_shows_what_a_control_plane_sent_as_envoy_does() {
    let one = named("one").await;
    let plane = Plane::start().await;
    let address = free_address();
    plane.apply(all(address, "c", one));
    let driven = Driven::by(&plane, Variant::Sotw).await;
    driven.initialized().await;
    plane.apply(
        Changes::new()
            .set(TypeUrl::Listener, bad_listener("bad"))
            // It waits for endpoints that do not come: in this variant nobody says so.
            .set(TypeUrl::Cluster, cluster("waits")),
    );
    let dump = driven
        .shows("/config_dump?include_eds", |dump| {
            dump.contains("error_state") && dump.contains("waits")
        })
        .await;
    let dump = parse(&dump);

    let listeners = part(&dump, "ListenersConfigDump")["dynamic_listeners"]
        .as_array()
        .unwrap();
    let good = listeners.iter().find(|one| one["name"] == "in").unwrap();
    let active = &good["active_state"];
    assert_eq!(active["listener"]["@type"], TypeUrl::Listener.url());
    let port = &active["listener"]["address"]["socket_address"]["port_value"];
    assert_eq!(*port, address.port());
    let version = active["version_info"].as_str().unwrap();
    assert!(!version.is_empty());
    assert!(active["last_updated"].as_str().unwrap().ends_with('Z'));
    let bad = listeners.iter().find(|one| one["name"] == "bad").unwrap();
    assert!(bad.get("active_state").is_none());
    let why = bad["error_state"]["details"].as_str().unwrap();
    assert!(why.contains("address"), "{why}");

    let clusters = part(&dump, "ClustersConfigDump");
    assert_eq!(
        clusters["dynamic_active_clusters"][0]["cluster"]["name"],
        "c"
    );
    assert_eq!(
        clusters["dynamic_warming_clusters"][0]["cluster"]["name"],
        "waits"
    );
    let routes = &part(&dump, "RoutesConfigDump")["dynamic_route_configs"][0];
    assert_eq!(routes["route_config"]["virtual_hosts"][0]["name"], "all");
    let endpoints = &part(&dump, "EndpointsConfigDump")["dynamic_endpoint_configs"][0];
    assert_eq!(endpoints["endpoint_config"]["cluster_name"], "c");
    let bootstrap = &part(&dump, "BootstrapConfigDump")["bootstrap"];
    assert_eq!(bootstrap["node"]["id"], plane::node().id());

    let init = parse(&driven.admin("/init_dump").await);
    assert_eq!(init["unready_targets_dumps"][0]["target_names"][0], "waits");

    // One list only, and names.
    let some = driven
        .admin("/config_dump?resource=dynamic_active_clusters")
        .await;
    let some = parse(&some);
    let of = format!("{ADMIN}.ClustersConfigDump.DynamicCluster");
    assert_eq!(some["configs"][0]["@type"], of);
    assert_eq!(some["configs"].as_array().unwrap().len(), 1);
    let some = driven.admin("/config_dump?name_regex=i.").await;
    assert!(
        some.contains("active_state") && !some.contains("waits"),
        "{some}"
    );
    assert!(
        driven
            .admin("/config_dump?mask=x")
            .await
            .contains("not supported")
    );
    assert!(
        driven
            .admin("/config_dump?resource=x")
            .await
            .contains("x not found")
    );
    assert!(
        driven
            .admin("/config_dump?name_regex=(")
            .await
            .contains("name_regex")
    );
}

#[tokio::test]
async fn another_configuration_is_shown_as_static() {
    let one = named("one").await;
    let mesh = Mesh::start(
        1,
        vec![Rule::prefix_to("/", "a")],
        vec![(Cluster::new("a"), vec![one])],
    )
    .await;
    let dump = parse(&mesh.admin("/config_dump").await);
    let clusters = part(&dump, "ClustersConfigDump");
    assert_eq!(clusters["static_clusters"][0]["cluster"]["name"], "a");
    let listeners = part(&dump, "ListenersConfigDump");
    assert_eq!(listeners["static_listeners"][0]["listener"]["name"], "in");
    let routes = part(&dump, "RoutesConfigDump");
    assert_eq!(
        routes["static_route_configs"][0]["route_config"]["name"],
        "t"
    );
    let origins = parse(&mesh.admin("/config_dump?origins").await);
    assert_eq!(origins["version"], 1);
}

#[tokio::test]
async fn clusters_are_shown_as_envoy_does() {
    let one = named("one").await;
    let plane = Plane::start().await;
    let address = free_address();
    plane.apply(all(address, "c", one));
    let driven = Driven::by(&plane, Variant::Delta).await;
    driven.initialized().await;
    let mut client = support::Http1::connect(address).await;
    support::text(client.send(support::get("/")).await).await;
    let shown = parse(&driven.admin("/clusters?format=json").await);
    let status = &shown["cluster_statuses"][0];
    assert_eq!(status["name"], "c");
    assert_eq!(status["added_via_api"], true);
    let host = &status["host_statuses"][0];
    assert_eq!(host["address"]["socket_address"]["port_value"], one.port());
    assert_eq!(host["health_status"]["eds_health_status"], "HEALTHY");
    assert_eq!((&host["weight"], &host["priority"]), (&1.into(), &0.into()));
    assert_eq!(host["hostname"], "");
    assert!(host["locality"].is_object());
    let stats = host["stats"].as_array().unwrap();
    let total = stats
        .iter()
        .find(|stat| stat["name"] == "rq_total")
        .unwrap();
    assert_eq!(
        (&total["value"], &total["type"]),
        (&"1".into(), &"COUNTER".into())
    );
}
