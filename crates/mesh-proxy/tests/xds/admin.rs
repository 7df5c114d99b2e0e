//! The admin interface in Envoy's shapes.

use crate::plane::{self, Driven, Plane, all, bad_listener, cluster};
use crate::support::{self, Mesh, free_address, named};
use mesh_core::model::{
    Cluster, DiscoveryKind, HttpManager, Listener, RouteTable, Rule, VirtualHost,
};
use mesh_xds::bootstrap::{Bootstrap, From};
use mesh_xds::client::Variant;
use mesh_xds::json::Codec;
use mesh_xds::pb::envoy::config as pb;
use mesh_xds::pb::google::protobuf::{self as google, Struct, value::Kind};
use mesh_xds::server::Changes;
use mesh_xds::{TypeUrl, write};
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

/// Metadata as istiod writes it: the object that a resource comes from.
fn istio(path: &str) -> pb::core::v3::Metadata {
    let text = |text: &str| google::Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    };
    let config = Struct {
        fields: [("config".to_owned(), text(path))].into(),
    };
    pb::core::v3::Metadata {
        filter_metadata: [("istio".to_owned(), config)].into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn what_came_is_shown_as_it_came() {
    let one = named("one").await;
    for variant in [Variant::Delta, Variant::Sotw] {
        let plane = Plane::start().await;
        let address = free_address();
        plane.apply(all(address, "c", one));
        // Things that have no effect here, and so are not in the model.
        let in_model = Listener::http("in", address, HttpManager::new("in", "t"));
        let mut proto = write::listener(&in_model, None);
        proto.metadata = Some(istio("/apis/a/v1/namespaces/b/c/d"));
        proto.filter_chains[0].name = "chain".to_owned();
        let sent = write::encode("in", &proto);
        let rule = "/apis/networking.istio.io/v1/namespaces/shop/destination-rule/c";
        let mut model = Cluster::new("c");
        model.discovery = DiscoveryKind::Endpoints;
        let mut proto = write::cluster(&model, None);
        proto.metadata = Some(istio(rule));
        let sent_cluster = write::encode("c", &proto);
        let service = "/apis/networking.istio.io/v1/namespaces/shop/virtual-service/v";
        let host = VirtualHost::new("all", ["*"]).rule(Rule::prefix_to("/", "c"));
        let mut proto = write::route::table(&RouteTable::new("t").host(host));
        proto.virtual_hosts[0].routes[0].metadata = Some(istio(service));
        let sent_routes = write::encode("t", &proto);
        plane.apply(
            Changes::new()
                .set(TypeUrl::Listener, sent.clone())
                .set(TypeUrl::Cluster, sent_cluster)
                .set(TypeUrl::Routes, sent_routes),
        );
        let driven = Driven::by(&plane, variant).await;
        driven.initialized().await;
        let dump = driven
            .shows("/config_dump", |dump| {
                dump.contains(rule) && dump.contains(service)
            })
            .await;
        let dump = parse(&dump);
        let shown = &part(&dump, "ListenersConfigDump")["dynamic_listeners"][0]["active_state"];
        let text = Codec::new()
            .to_json("envoy.config.listener.v3.Listener", &sent.bytes)
            .unwrap();
        let mut expected = parse(&text);
        expected["@type"] = TypeUrl::Listener.url().into();
        assert_eq!(shown["listener"], expected);

        // A version that waits for its routes is beside the one that is in force; one that is
        // refused is shown too. In delta nothing waits: the server says what does not exist.
        if variant == Variant::Delta {
            continue;
        }
        let late = Listener::http("in", address, HttpManager::new("late", "late"));
        let bad = pb::listener::v3::Listener {
            name: "bad".to_owned(),
            metadata: Some(istio("/apis/a/v1/namespaces/b/c/bad")),
            ..Default::default()
        };
        plane.apply(
            Changes::new()
                .set(
                    TypeUrl::Listener,
                    write::encode("in", &write::listener(&late, None)),
                )
                .set(TypeUrl::Listener, write::encode("bad", &bad)),
        );
        let dump = driven
            .shows("/config_dump?resource=dynamic_listeners", |dump| {
                dump.contains("warming_state") && dump.contains("failed_configuration")
            })
            .await;
        let dump = parse(&dump);
        let of = |name: &str| {
            let all = dump["configs"].as_array().unwrap();
            all.iter().find(|one| one["name"] == name).unwrap()
        };
        let prefix = "/filter_chains/0/filters/0/typed_config/stat_prefix";
        let state = |which: &str| of("in")[which]["listener"].pointer(prefix).unwrap();
        assert_eq!(
            (state("active_state"), state("warming_state")),
            (&"in".into(), &"late".into())
        );
        let failed = &of("bad")["error_state"]["failed_configuration"];
        assert_eq!(
            failed["metadata"]["filter_metadata"]["istio"]["config"],
            "/apis/a/v1/namespaces/b/c/bad"
        );
    }
}

#[tokio::test]
async fn a_proxy_without_a_bootstrap_shows_the_one_that_it_would_have_had() {
    let plane = Plane::start().await;
    for (variant, kind) in [(Variant::Delta, "DELTA_GRPC"), (Variant::Sotw, "GRPC")] {
        let driven = Driven::by(&plane, variant).await;
        let dump = parse(&driven.admin("/config_dump?resource=bootstrap").await);
        let shown = &dump["configs"][0]["bootstrap"];
        let admin = &shown["admin"]["address"]["socket_address"]["port_value"];
        assert_eq!(*admin, driven.proxy.admin().unwrap().port());
        assert_eq!(shown["dynamic_resources"]["ads_config"]["api_type"], kind);
        // It is one indeed: it can be read, and leads to the same control plane.
        let read = Bootstrap::from_json(&shown.to_string()).unwrap();
        assert_eq!(read.node, plane::node());
        let ads = read.ads.unwrap();
        assert_eq!(ads.servers, [format!("http://{}", plane.address)]);
        assert_eq!(ads.delta, variant == Variant::Delta);
        assert_eq!(read.cds.unwrap().from, From::Ads);
        assert_eq!(read.lds.unwrap().from, From::Ads);
    }
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
