//! Bootstraps as people write them: for a sidecar, an edge, a test, a gRPC control plane.
#![cfg(feature = "json")]

#[path = "bootstrap/planes.rs"]
mod planes;
#[path = "bootstrap/refusals.rs"]
mod refusals;
#[path = "bootstrap/secrets.rs"]
mod secrets;

use mesh_xds::bootstrap::{Bootstrap, Format, From};
use mesh_xds::read::{Resource, RouteSource, Source};
use proptest::prelude::*;
use std::path::Path;
use std::time::Duration;

const HCM: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

/// A listener on a port, with the lines that say where its routes are.
fn listener(port: u16, routes: &str) -> String {
    format!(
        r#"
  - name: listener_{port}
    address:
      socket_address: {{ address: 0.0.0.0, port_value: {port} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": {HCM}
          stat_prefix: ingress_http
          codec_type: AUTO
          {routes}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": {ROUTER} }}
"#
    )
}

/// A cluster with one endpoint and more lines.
fn cluster(name: &str, port: u16, more: &str) -> String {
    format!(
        r#"
  - name: {name}
    connect_timeout: 0.25s
    {more}
    load_assignment:
      cluster_name: {name}
      endpoints:
      - lb_endpoints:
        - endpoint:
            address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
"#
    )
}

const INLINE: &str = r#"route_config: {name: local, virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: service}}]}]}"#;

const GRPC: &str = r#"typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}"#;

const ADS: &str = "
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    set_node_on_first_message_only: true
    grpc_services:
    - envoy_grpc: { cluster_name: xds_cluster }
  cds_config: { ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s }
  lds_config: { ads: {}, resource_api_version: V3 }
";

fn read(text: &str) -> Bootstrap {
    Bootstrap::from_yaml(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// What is said about a bootstrap that is refused.
fn refused(text: &str) -> String {
    match Bootstrap::from_yaml(text) {
        Ok(read) => panic!("{read:#?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_static_proxy_has_its_listeners_and_clusters() {
    let text = format!(
        "
admin:
  access_log:
  - name: envoy.access_loggers.file
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
      path: /dev/null
  profile_path: /var/log/envoy.prof
  address: {{ socket_address: {{ address: '::1', port_value: 9901 }} }}
static_resources:
  listeners:{}
  clusters:{}",
        listener(10000, INLINE),
        cluster(
            "service",
            8080,
            "type: STRICT_DNS\n    lb_policy: ROUND_ROBIN"
        ),
    );
    let bootstrap = read(&text);
    assert_eq!(bootstrap.admin.as_ref().unwrap().to_string(), "[::1]:9901");
    assert_eq!(bootstrap.listeners[0].listener.address.port(), 10000);
    assert!(matches!(
        bootstrap.listeners[0].routes[..],
        [RouteSource::Inline(_)]
    ));
    assert_eq!(
        bootstrap.clusters[0].cluster.connect_timeout,
        Duration::from_millis(250)
    );
    assert!(bootstrap.ads.is_none() && bootstrap.lds.is_none() && bootstrap.cds.is_none());
    let kinds: Vec<bool> = bootstrap
        .resources()
        .iter()
        .map(|one| matches!(one, Resource::Cluster(_)))
        .collect();
    assert_eq!(kinds, [true, false], "clusters come first");
}

#[test]
fn a_proxy_under_a_control_plane_finds_it_through_a_static_cluster() {
    let text = format!(
        "
node:
  id: edge-7
  cluster: edge
  metadata: {{ role: edge }}
  locality: {{ region: eu, zone: eu-1 }}
static_resources:
  clusters:{}{ADS}",
        cluster("xds_cluster", 18000, GRPC),
    );
    let bootstrap = read(&text);
    let ads = bootstrap.ads.unwrap();
    assert!(ads.delta);
    assert_eq!(ads.servers, ["http://127.0.0.1:18000"]);
    let (lds, cds) = (bootstrap.lds.unwrap(), bootstrap.cds.unwrap());
    assert_eq!((lds.from, cds.from), (From::Ads, From::Ads));
    assert_eq!(lds.initial_fetch_timeout, Some(Duration::from_secs(15)));
    assert_eq!(cds.initial_fetch_timeout, None, "0 waits for ever");
    assert_eq!(bootstrap.node.text("role"), Some("edge"));
    assert_eq!(bootstrap.node.locality(), Some(("eu", "eu-1", "")));
    assert_eq!(bootstrap.node.to_proto().user_agent_name, "mesh-proxy");
}

#[test]
fn a_sidecar_as_an_agent_starts_one_is_taken() {
    let text = format!(
        "
node:
  id: sidecar~10.1.2.3~reviews-v1-abc.shop~shop.svc.cluster.local
  cluster: reviews.shop
  metadata: {{ NAMESPACE: shop, LABELS: {{ app: reviews }}, INTERCEPTION_MODE: NONE }}
layered_runtime:
  layers:
  - name: global config
    static_layer: {{ overload.global_downstream_max_connections: '2147483647' }}
  - name: admin
    admin_layer: {{}}
stats_config:
  use_all_default_tags: false
  stats_tags: [{{ tag_name: cluster_name, regex: '^cluster\\.((.+?)\\.)' }}]
  stats_matcher: {{ inclusion_list: {{ patterns: [{{ prefix: listener_manager }}] }} }}
stats_flush_interval: 60s
admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 15000 }} }} }}
static_resources:
  clusters:{}{}",
        cluster("xds_cluster", 15010, GRPC),
        ADS.replace("DELTA_GRPC", "GRPC"),
    );
    let bootstrap = read(&text);
    assert!(!bootstrap.ads.unwrap().delta);
    assert_eq!(bootstrap.node.workload(), Some(("reviews-v1-abc", "shop")));
    assert_eq!(bootstrap.node.map("LABELS")["app"], "reviews");
}

#[test]
fn resources_in_files_are_named_with_what_is_watched() {
    let bootstrap = read(
        "
node: { id: id_1, cluster: test }
dynamic_resources:
  cds_config: { path: /etc/envoy/cds.yaml }
  lds_config:
    resource_api_version: V3
    path_config_source:
      path: /etc/envoy/current/lds.yaml
      watched_directory: { path: /etc/envoy }
",
    );
    let (From::Path(cds), From::Path(lds)) =
        (bootstrap.cds.unwrap().from, bootstrap.lds.unwrap().from)
    else {
        panic!("two files")
    };
    assert_eq!(
        (cds.path.to_str(), cds.watched_directory),
        (Some("/etc/envoy/cds.yaml"), None)
    );
    assert_eq!(
        lds.watched_directory.as_deref(),
        Some(Path::new("/etc/envoy"))
    );
}

#[test]
fn a_static_listener_may_have_its_routes_in_a_file() {
    let rds = "rds: {route_config_name: r, config_source: {path_config_source: {path: /r.yaml}}}";
    let text = format!("static_resources:\n  listeners:{}", listener(80, rds));
    let [RouteSource::Named(routes)] = &read(&text).listeners[0].routes[..] else {
        panic!("a reference")
    };
    assert_eq!(routes.from, Source::Path("/r.yaml".into()));
}

#[test]
fn a_static_listener_may_have_its_routes_from_the_control_plane() {
    let rds = "rds: {route_config_name: r, config_source: {ads: {}, resource_api_version: V3}}";
    let text = format!(
        "static_resources:\n  listeners:{}  clusters:{}{ADS}",
        listener(80, rds),
        cluster("xds_cluster", 1, GRPC),
    );
    assert_eq!(read(&text).listeners.len(), 1);
}

#[test]
fn what_tunes_envoy_alone_is_read_over() {
    let bootstrap = read(
        "
watchdogs:
  main_thread_watchdog: { miss_timeout: 0.2s, megamiss_timeout: 1s }
  worker_watchdog: { kill_timeout: 10s }
enable_dispatcher_stats: true
stats_flush_on_admin: true
cluster_manager: { enable_deferred_cluster_creation: true }
application_log_config: { log_format: { text_format: '%v' } }
inline_headers: [{ inline_header_name: x-a, inline_header_type: REQUEST_HEADER }]
default_regex_engine:
  name: envoy.regex_engines.google_re2
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.regex_engines.v3.GoogleRE2
typed_dns_resolver_config:
  name: envoy.network.dns_resolver.getaddrinfo
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig
",
    );
    assert!(bootstrap.resources().is_empty());
}

#[test]
fn where_ejections_are_logged_is_read() {
    let path = |text: &str| read(text).ejection_log;
    let said = path("cluster_manager: { outlier_detection: { event_log_path: /a/b } }");
    assert_eq!(said.as_deref(), Some("/a/b"));
    assert_eq!(path("cluster_manager: { outlier_detection: {} }"), None);
}

#[test]
fn json_in_either_spelling_is_read() {
    let bootstrap = Bootstrap::from_json(
        r#"{"node": {"id": "a", "cluster": "b"}, "admin": {"accessLogPath": "/dev/null",
            "address": {"socketAddress": {"address": "127.0.0.1", "portValue": 19000}}},
            "staticResources": {"clusters": [{"name": "c", "connectTimeout": "1s"}]}}"#,
    )
    .unwrap();
    assert_eq!(bootstrap.admin.unwrap().port(), 19000);
    assert_eq!(&*bootstrap.clusters[0].cluster.name, "c");
}

#[test]
fn a_later_text_is_merged_over_an_earlier_one() {
    let base = format!(
        "node: {{id: a, cluster: b}}\nstatic_resources:\n  clusters:{}",
        cluster("one", 1, "")
    );
    let over = format!(
        "node: {{id: c}}\nstatic_resources:\n  clusters:{}",
        cluster("two", 2, "")
    );
    let texts = [(Format::Yaml, base.as_str()), (Format::Yaml, &over)];
    let merged = Bootstrap::from_texts(texts).unwrap();
    assert_eq!((merged.node.id(), merged.node.cluster()), ("c", "b"));
    let names: Vec<&str> = merged
        .clusters
        .iter()
        .map(|one| &*one.cluster.name)
        .collect();
    assert_eq!(names, ["one", "two"]);
}

#[test]
fn an_error_has_line_and_column_where_the_text_is_wrong_and_always_the_field() {
    let error = Bootstrap::from_yaml("admin:\n  adress: {}\n").unwrap_err();
    assert_eq!(error.place(), Some((2, 3)));
    assert_eq!(error.path(), "admin.adress");
    let error = Bootstrap::from_yaml("static_resources: [").unwrap_err();
    assert!(error.place().is_some(), "{error}");
    // What Envoy's own rules refuse.
    let error =
        Bootstrap::from_yaml("static_resources: {clusters: [{connect_timeout: 1s}]}").unwrap_err();
    assert_eq!(error.path(), "static_resources.clusters[0].name");
    // What the model cannot say.
    let text = format!("static_resources:\n  listeners:{}", listener(80, INLINE))
        .replace("codec_type: AUTO", "codec_type: HTTP3");
    let error = Bootstrap::from_yaml(&text).unwrap_err();
    let filter = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config";
    assert!(error.path().starts_with(filter), "{error}");
}

#[test]
fn what_was_read_can_be_put_together() {
    use mesh_xds::assemble::{Assemble, Options};
    let text = format!(
        "static_resources:\n  listeners:{}  clusters:{}",
        listener(80, INLINE),
        cluster("service", 1, ""),
    );
    let mut assemble = Assemble::new(Options::default());
    let step = assemble.fix(read(&text).resources(), std::time::Instant::now());
    assert_eq!(step.snapshot.unwrap().listeners().len(), 1);
}

proptest! {
    #[test]
    fn no_text_and_no_bytes_make_it_panic(text in "[ -~\n]{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Bootstrap::from_yaml(&text);
        let _ = Bootstrap::from_json(&text);
        let _ = Bootstrap::from_bytes(&bytes);
    }

    #[test]
    fn damage_to_a_good_bootstrap_is_refused_or_read(at in 0_usize..2000, with in any::<u8>()) {
        let text = format!(
            "node: {{id: a, cluster: b}}\nstatic_resources:\n  listeners:{}  clusters:{}{ADS}",
            listener(80, INLINE),
            cluster("xds_cluster", 1, GRPC),
        );
        let good = Bootstrap::from_yaml(&text).unwrap();
        let mut bytes = good.encoded.to_vec();
        let at = at % bytes.len();
        bytes[at] = with;
        if let Ok(read) = Bootstrap::from_bytes(&bytes) {
            // What is read is whole: it can be read again as what it says of itself.
            prop_assert_eq!(Bootstrap::from_bytes(&read.encoded).unwrap().resources(), read.resources());
        }
    }
}

#[test]
fn one_text_is_one_bootstrap() {
    let text = "node: {id: a, metadata: {B: x, A: y, C: z, D: w}}";
    let first = Bootstrap::from_yaml(text).unwrap();
    for _ in 0..20 {
        assert_eq!(first, Bootstrap::from_yaml(text).unwrap());
    }
}

/// What Istio's agent writes for Envoy, as far as its own services are concerned.
#[test]
fn the_services_of_istios_agent_are_unix_sockets() {
    let text = include_str!("../../../fuzz/seeds/bootstrap/pipes.yaml");
    let bootstrap = read(text);
    assert_eq!(bootstrap.admin.unwrap().to_string(), "/run/admin.sock");
    assert_eq!(bootstrap.admin_mode, 0o600);
    assert_eq!(
        bootstrap.ads.unwrap().servers,
        ["unix://./etc/istio/proxy/XDS"]
    );
    let endpoints = bootstrap.clusters[0].endpoints.as_ref().unwrap();
    let at = endpoints.iter().map(|one| one.address.to_string());
    let at: Vec<String> = at.collect();
    assert_eq!(at, ["unix://./var/run/secrets/workload-spiffe-uds/socket"]);
    let wrong = text.replace("mode: 384", "mode: 512");
    let error = Bootstrap::from_yaml(&wrong).unwrap_err().to_string();
    assert!(error.contains("mode"), "{error}");
}
